//! What a process prints, passed on line by line, and what its runtime client logs, message by message.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Arc;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

use super::api::RuntimeApi;

/// A longer line is passed on in pieces, in bytes.
const MAXIMUM_LINE: usize = 16 * 1024;

/// A longer message is passed on in pieces, in bytes (CloudWatch Logs: 256 KiB an event).
const MAXIMUM_MESSAGE: usize = 256 * 1024;

/// Passes on stdout and stderr until they are closed; what is given back ends with stderr.
pub(super) fn forward(child: &mut Child, api: &Arc<RuntimeApi>) -> Option<JoinHandle<()>> {
    let pid = child.id();
    let stdout = child.stdout.take().map(OwnedFd::from);
    let stderr = child.stderr.take().map(OwnedFd::from);
    let mut last = None;
    for (pipe, stream) in [(stdout, "stdout"), (stderr, "stderr")] {
        // A pipe that the runtime cannot take is closed, which the program sees.
        let Some(Ok(pipe)) = pipe.map(Receiver::from_owned_fd) else { continue };
        let to = Target { stream, pid, api: Arc::clone(api) };
        last = Some(tokio::spawn(async move { to.lines(BufReader::new(pipe)).await }));
    }
    last
}

/// Passes on what comes through `_LAMBDA_TELEMETRY_LOG_FD` until it is closed.
pub(super) fn forward_messages(pipe: impl Into<OwnedFd>, pid: u32, api: &Arc<RuntimeApi>) {
    let Ok(pipe) = Receiver::from_owned_fd(pipe.into()) else { return };
    let to = Target { stream: "log", pid, api: Arc::clone(api) };
    tokio::spawn(async move { to.messages(BufReader::new(pipe)).await });
}

/// Where lines go.
struct Target {
    stream: &'static str,
    pid: u32,
    api: Arc<RuntimeApi>,
}

impl Target {
    async fn lines(&self, mut reader: impl AsyncBufRead + Unpin) {
        let mut line = Vec::new();
        while let Some(()) = next_line(&mut reader, &mut line).await {
            for part in parts(&String::from_utf8_lossy(&line)) {
                self.api.note_launch(part);
                self.pass_on(part);
            }
            line.clear();
        }
    }

    async fn messages(&self, mut reader: impl AsyncBufRead + Unpin) {
        loop {
            match next_message(&mut reader, |piece| self.pass_on(&one_kind_of_line_end(piece))).await {
                Ok(Frame::Message) => {}
                Ok(Frame::Unknown) => {
                    tracing::warn!(
                        mapping = self.api.mapping(),
                        pid = self.pid,
                        "what comes through _LAMBDA_TELEMETRY_LOG_FD is not framed"
                    );
                    return self.lines(reader).await;
                }
                // The end, or a pipe that broke, which is the same.
                Err(_) => return,
            }
        }
    }

    fn pass_on(&self, text: &str) {
        let request_id = self.api.last_request_id();
        let request_id = request_id.as_deref().unwrap_or("-");
        let (pid, stream) = (self.pid, self.stream);
        tracing::info!(target: "shardmill::function", mapping = self.api.mapping(), request_id, pid, stream, "{text}");
    }
}

/// A carriage return is a line's end, too: awslambdaric joins the lines of an error with it, and on a terminal it would
/// have the rest of the line written over its beginning.
fn parts(line: &str) -> impl Iterator<Item = &str> {
    let is_empty = line.is_empty();
    line.split('\r').filter(move |part| is_empty || !part.is_empty())
}

fn one_kind_of_line_end(message: &[u8]) -> String {
    String::from_utf8_lossy(message).trim_end_matches(['\r', '\n']).replace("\r\n", "\n").replace('\r', "\n")
}

#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Message,
    /// It does not begin as one.
    Unknown,
}

/// Reads a message as runtime clients frame it: four bytes 0xa55a and kind, level and format; four bytes length; eight
/// bytes time in microseconds, which the first version of the format (kind 1) lacks; the text. Big-endian.
async fn next_message(
    reader: &mut (impl AsyncRead + Unpin),
    mut piece: impl FnMut(&[u8]),
) -> std::io::Result<Frame> {
    let kind = reader.read_u32().await?;
    if kind >> 16 != 0xa55a {
        return Ok(Frame::Unknown);
    }
    let mut left = usize::try_from(reader.read_u32().await?).unwrap_or(usize::MAX);
    if kind & 0xffff != 1 {
        reader.read_u64().await?;
    }
    loop {
        let mut text = vec![0; left.min(MAXIMUM_MESSAGE)];
        reader.read_exact(&mut text).await?;
        piece(&text);
        left -= text.len();
        if left == 0 {
            return Ok(Frame::Message);
        }
    }
}

/// Reads the next line, or [`MAXIMUM_LINE`] bytes of it, without its end.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> Option<()> {
    loop {
        let available = match reader.fill_buf().await {
            Ok(available) if !available.is_empty() => available,
            // The end, or a pipe that broke, which is the same.
            _ => return (!line.is_empty()).then_some(()),
        };
        let room = &available[..available.len().min(MAXIMUM_LINE - line.len())];
        if let Some(end) = room.iter().position(|&b| b == b'\n') {
            line.extend_from_slice(&room[..end]);
            reader.consume(end + 1);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Some(());
        }
        let taken = room.len();
        line.extend_from_slice(room);
        reader.consume(taken);
        if line.len() == MAXIMUM_LINE {
            return Some(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_their_ends_are_cut_off() {
        let long = "x".repeat(MAXIMUM_LINE + 5);
        let input = format!("one\r\n\n{long}\nlast");
        let mut reader = BufReader::with_capacity(1000, input.as_bytes());
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while next_line(&mut reader, &mut line).await.is_some() {
            lines.push(String::from_utf8(std::mem::take(&mut line)).unwrap());
        }
        assert_eq!(lines, ["one", "", &long[5..], "xxxxx", "last"]);
    }

    #[test]
    fn incident_105_carriage_returns_are_line_ends() {
        let split = |line| parts(line).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            split("[ERROR] ValueError\rTraceback\r\r  File"),
            ["[ERROR] ValueError", "Traceback", "  File"]
        );
        assert_eq!(split("plain"), ["plain"]);
        assert_eq!(split(""), [""]);
        assert_eq!(one_kind_of_line_end(b"a\r\nb\rc\n"), "a\nb\nc");
    }

    #[tokio::test]
    async fn incident_105_framed_messages_are_read_one_by_one_whatever_they_contain() {
        let mut input = Vec::new();
        let long = "x".repeat(MAXIMUM_MESSAGE + 5);
        for (kind, text) in [(3_u32, "two\nlines"), (1, "old"), (0x17, "error"), (3, ""), (3, &long)] {
            input.extend((0xa55a_0000 | kind).to_be_bytes());
            input.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            if kind != 1 {
                input.extend([7; 8]);
            }
            input.extend(text.as_bytes());
        }
        input.extend(b"not framed");
        let mut reader = input.as_slice();
        let mut texts = Vec::new();
        let mut frames = 0;
        while next_message(&mut reader, |t| texts.push(String::from_utf8(t.to_vec()).unwrap())).await.unwrap()
            == Frame::Message
        {
            frames += 1;
        }
        assert_eq!(frames, 5);
        assert_eq!(texts, ["two\nlines", "old", "error", "", &long[5..], "xxxxx"]);
        assert!(next_message(&mut [0xa5, 0x5a].as_slice(), |_| {}).await.is_err(), "cut off");
    }
}
