//! What a process prints, passed on line by line.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Arc;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader};

use super::api::RuntimeApi;

/// A longer line is passed on in pieces, in bytes.
const MAXIMUM_LINE: usize = 16 * 1024;

/// Passes on stdout and stderr until they are closed.
pub(super) fn forward(child: &mut Child, api: &Arc<RuntimeApi>) {
    let pid = child.id();
    let stdout = child.stdout.take().map(OwnedFd::from);
    let stderr = child.stderr.take().map(OwnedFd::from);
    for (pipe, stream) in [(stdout, "stdout"), (stderr, "stderr")] {
        // A pipe that the runtime cannot take is closed, which the program sees.
        let Some(Ok(pipe)) = pipe.map(tokio::net::unix::pipe::Receiver::from_owned_fd) else { continue };
        tokio::spawn(pass_on(pipe, stream, pid, Arc::clone(api)));
    }
}

async fn pass_on(from: impl AsyncRead + Unpin, stream: &'static str, pid: u32, api: Arc<RuntimeApi>) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while let Some(()) = next_line(&mut reader, &mut line).await {
        let text = String::from_utf8_lossy(&line);
        let request_id = api.last_request_id();
        let request_id = request_id.as_deref().unwrap_or("-");
        tracing::info!(target: "shardmill::function", request_id, pid, stream, "{text}");
        line.clear();
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
}
