//! `Function.Stdout`: one event per line on the sidecar's standard output.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use shardmill::{Batch, BatchResponse, Handler, HandlerError, InvokeContext, Places};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot, watch};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use super::gate::Schedule;
use super::{ProbeError, Readiness};

/// Writes one event per line; an invocation succeeds when its line is flushed.
///
/// Lines of all shards are written one after the other and never mixed. A reader that is slow makes the shards wait.
/// One that has gone away and a disk that is full say nothing about the records: they are not reached (R23), so no
/// attempt is spent and nothing is discarded. While a disk is full `/readyz` is red and lines are retried; a reader
/// that has gone away does not return, so that ends the run: see [`closed`](Self::closed).
#[derive(Clone)]
pub struct StdoutHandler {
    /// One: events are written one after the other, in the order in which they came.
    places: Places,
    turn: Arc<Mutex<()>>,
    lines: mpsc::Sender<Line>,
    readiness: watch::Sender<Readiness>,
    closed: CancellationToken,
}

/// The one of the process: two that write to one pipe would write into each other's lines.
static OF_PROCESS: parking_lot::Mutex<Option<StdoutHandler>> = parking_lot::Mutex::new(None);

const CLOSED: &str = "stdout is closed: the program that read it has ended";

struct Line {
    event: Bytes,
    written: oneshot::Sender<io::Result<()>>,
    /// Held until the line is out, even if the invocation is cancelled meanwhile.
    _turn: OwnedMutexGuard<()>,
}

impl StdoutHandler {
    /// The handler of the process, which all mappings share. The first call starts the thread that writes.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn of_process() -> io::Result<Self> {
        let mut one = OF_PROCESS.lock();
        if let Some(handler) = &*one {
            return Ok(handler.clone());
        }
        let handler = Self::to(io::stdout())?;
        *one = Some(handler.clone());
        Ok(handler)
    }

    fn to(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, receiver) = mpsc::channel();
        // A thread of its own, not a blocking task: a reader that never reads must not hold up the end of the process.
        std::thread::Builder::new().name("stdout".into()).spawn(move || write_lines(output, &receiver))?;
        let readiness = watch::Sender::new(Readiness::Ready);
        let closed = CancellationToken::new();
        Ok(Self { places: Places::new(1), turn: Arc::default(), lines, readiness, closed })
    }

    /// Cancelled as soon as a line finds that the program that read standard output has ended.
    #[must_use]
    pub const fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Always succeeds: whether someone reads is seen only by writing.
    ///
    /// # Errors
    /// None today.
    #[expect(clippy::unused_async, reason = "the same form as the other handlers' probes")]
    pub async fn probe(&self) -> Result<(), ProbeError> {
        Ok(())
    }

    async fn write(&self, event: Bytes, cx: &InvokeContext) -> Result<BatchResponse, HandlerError> {
        if self.closed.is_cancelled() {
            return Err(Self::cut());
        }
        let schedule = Schedule::new(cx.deadline);
        let turn = timeout_at(schedule.start_by, Arc::clone(&self.turn).lock_owned());
        let Ok(turn) = turn.await else {
            let reason = "stdout is busy with another event: its reader is slow".into();
            return Err(HandlerError::NotReached { reason, retry_after: None });
        };
        if !cx.may_start() {
            return Err(HandlerError::not_started());
        }
        let (written, result) = oneshot::channel();
        // A thread that is gone is noticed by the dropped channel.
        let _ = self.lines.send(Line { event, written, _turn: turn });
        match timeout_at(schedule.deadline, result).await {
            Ok(Ok(Ok(()))) => {
                self.readiness.send_if_modified(|now| std::mem::replace(now, Readiness::Ready) != *now);
                Ok(BatchResponse::success())
            }
            Ok(Ok(Err(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed.cancel();
                self.readiness.send_replace(Readiness::NotReady { reason: CLOSED.into() });
                Err(Self::cut())
            }
            Ok(Ok(Err(error))) => Err(self.broken(format!("stdout cannot be written: {error}"))),
            Ok(Err(_)) => Err(self.broken("stdout cannot be written: its thread has ended".into())),
            Err(_) => {
                Err(HandlerError::function("the reader of stdout did not take the event within Timeout"))
            }
        }
    }

    /// The run ends with its reader, and reports so: it is the stop that cuts the invocation off, nothing is tried
    /// again.
    fn cut() -> HandlerError {
        HandlerError::Cut { reason: CLOSED.into() }
    }

    /// Whether the last line could be written.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    fn broken(&self, reason: String) -> HandlerError {
        let now = Readiness::NotReady { reason: reason.as_str().into() };
        if self.readiness.send_replace(now.clone()) != now {
            tracing::error!("{reason}; no record is discarded, it is tried again");
        }
        HandlerError::NotReached { reason, retry_after: None }
    }
}

impl fmt::Debug for StdoutHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StdoutHandler")
    }
}

impl Handler for StdoutHandler {
    async fn handle(&self, batch: Batch, cx: InvokeContext) -> Result<BatchResponse, HandlerError> {
        self.write(cx.event(&batch), &cx).await
    }

    fn places(&self) -> Places {
        self.places.clone()
    }
}

fn write_lines(mut output: impl Write, lines: &mpsc::Receiver<Line>) {
    let mut broken_off = false;
    for line in lines {
        let result = write_line(&mut output, &line.event, broken_off);
        broken_off = result.is_err();
        // The receiver is gone if the invocation was cancelled.
        let _ = line.written.send(result);
    }
}

/// Writes a line in one piece. Ends a line that broke off before it begins the next one, so that a full disk never joins
/// two events.
fn write_line(output: &mut impl Write, event: &[u8], broken_off: bool) -> io::Result<()> {
    let ended: &[u8] = if broken_off { b"\n" } else { b"" };
    output.write_all(&[ended, event, b"\n"].concat())?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn in_a_minute() -> InvokeContext {
        InvokeContext::for_test("s")
    }

    fn within(timeout: Duration) -> InvokeContext {
        let mut cx = InvokeContext::for_test("s");
        cx.deadline = Instant::now() + timeout;
        cx
    }

    #[tokio::test]
    async fn incident_90_nothing_is_written_once_the_lease_has_run_out() {
        let (reader, writer) = io::pipe().unwrap();
        let handler = StdoutHandler::to(writer).unwrap();
        let late = InvokeContext::for_test_while("s", || false);
        let error = handler.write(Bytes::from_static(b"late"), &late).await.unwrap_err();
        assert!(matches!(error, HandlerError::NotReached { retry_after: Some(_), .. }), "{error}");
        handler.write(Bytes::from_static(b"valid"), &in_a_minute()).await.unwrap();
        drop(handler);
        let lines: Vec<String> = BufReader::new(reader).lines().map(Result::unwrap).collect();
        assert_eq!(lines, ["valid"]);
    }

    #[tokio::test]
    async fn every_event_is_one_line_and_lines_are_never_mixed() {
        let (reader, writer) = io::pipe().unwrap();
        let handler = StdoutHandler::to(writer).unwrap();
        let mut calls = tokio::task::JoinSet::new();
        for i in 0..20_u8 {
            let handler = handler.clone();
            calls.spawn(async move { handler.write(vec![b'a' + i; 1500].into(), &in_a_minute()).await });
        }
        while let Some(result) = calls.join_next().await {
            assert_eq!(result.unwrap().unwrap(), BatchResponse::success());
        }
        drop(handler);
        let mut lines: Vec<String> = BufReader::new(reader).lines().map(Result::unwrap).collect();
        lines.sort();
        let expected: Vec<String> =
            (0..20_u8).map(|i| String::from(char::from(b'a' + i)).repeat(1500)).collect();
        assert_eq!(lines, expected);
    }

    #[tokio::test]
    async fn r23_a_reader_that_has_ended_is_not_reached_so_that_no_record_is_discarded() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let handler = StdoutHandler::to(writer).unwrap();
        assert!(!handler.closed().is_cancelled(), "it is seen by writing");
        let error = handler.write(Bytes::from_static(b"{}"), &in_a_minute()).await.unwrap_err();
        assert!(matches!(error, HandlerError::Cut { .. }), "{error}");
        assert!(error.to_string().contains("the program that read it has ended"), "{error}");
        assert!(matches!(*handler.readiness().borrow(), Readiness::NotReady { .. }));
        assert!(handler.closed().is_cancelled(), "which ends the run");
        let error = handler.write(Bytes::from_static(b"{}"), &in_a_minute()).await.unwrap_err();
        assert!(matches!(error, HandlerError::Cut { .. }), "{error}");
    }

    #[tokio::test]
    async fn r23_a_full_disk_is_not_reached_and_a_line_that_gets_out_makes_it_ready_again() {
        struct FullOnce(bool);
        impl Write for FullOnce {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, false) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let handler = StdoutHandler::to(FullOnce(true)).unwrap();
        let error = handler.write(Bytes::from_static(b"{}"), &in_a_minute()).await.unwrap_err();
        assert!(matches!(error, HandlerError::NotReached { .. }), "{error}");
        assert!(matches!(*handler.readiness().borrow(), Readiness::NotReady { .. }));
        assert!(!handler.closed().is_cancelled(), "a disk gets room again");
        handler.write(Bytes::from_static(b"{}"), &in_a_minute()).await.unwrap();
        assert_eq!(*handler.readiness().borrow(), Readiness::Ready);
    }

    #[tokio::test]
    async fn a_reader_that_never_reads_is_a_timeout_and_those_in_the_queue_are_not_reached() {
        let (reader, writer) = io::pipe().unwrap();
        let handler = StdoutHandler::to(writer).unwrap();
        let large = Bytes::from(vec![b'x'; 4 << 20]);
        let stuck = handler.write(large, &within(Duration::from_millis(200))).await.unwrap_err();
        assert!(matches!(stuck, HandlerError::Function(_)), "{stuck}");
        let late = within(Duration::from_millis(200));
        let queued = handler.write(Bytes::from_static(b"{}"), &late).await.unwrap_err();
        assert!(matches!(queued, HandlerError::NotReached { .. }), "{queued}");
        drop(reader);
    }

    #[test]
    fn a_line_that_broke_off_is_ended_before_the_next() {
        let mut output = b"{\"Rec".to_vec();
        write_line(&mut output, b"{}", true).unwrap();
        assert_eq!(output, b"{\"Rec\n{}\n");
    }
}
