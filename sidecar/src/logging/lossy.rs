//! A writer that never blocks its callers: a bounded queue, and a thread of its own that empties it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Bytes of lines that wait to be written.
const MAXIMUM_BYTES: usize = 8 * 1024 * 1024;
/// Lines that wait to be written.
const MAXIMUM_LINES: usize = 64 * 1024;
/// The wait before a non-blocking descriptor that takes nothing now is retried.
const BUSY: Duration = Duration::from_millis(20);

/// What may wait to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) lines: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: MAXIMUM_BYTES, lines: MAXIMUM_LINES }
    }
}

/// Takes whole lines and returns at once. What finds the queue full is lost and counted. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct Lossy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    queue: Mutex<Queue>,
    /// There is something to write.
    filled: Condvar,
    /// Everything has been written.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A line has been taken out and is not written yet.
    writing: bool,
    /// Lines lost since the last report.
    unreported: u64,
    /// Lines lost since the start.
    lost: u64,
}

impl Lossy {
    /// Starts the thread that writes to `output`. `report` is called on it with the number of lines that were lost, as
    /// soon as lines are taken again, and is expected to log that.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        bounds: Bounds,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, filled, emptied) = Default::default();
        let shared = Arc::new(Shared { bounds, queue, filled, emptied });
        let at_work = Arc::clone(&shared);
        std::thread::Builder::new().name("log".into()).spawn(move || at_work.write_all(output, report))?;
        Ok(Self { shared })
    }

    /// Puts a line, its line feed included, into the queue, or loses it.
    pub(super) fn push(&self, line: &[u8]) {
        let Shared { bounds, filled, .. } = &*self.shared;
        let mut queue = self.shared.lock();
        if queue.bytes + line.len() > bounds.bytes || queue.lines.len() >= bounds.lines {
            queue.lose();
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line.to_vec());
        filled.notify_one();
    }

    /// Waits until everything is written, but no longer than `limit`; whether it is.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut queue = self.shared.lock();
        while queue.writing || !queue.lines.is_empty() {
            if self.shared.emptied.wait_until(&mut queue, until).timed_out() {
                return !queue.writing && queue.lines.is_empty();
            }
        }
        true
    }

    /// Lines that were lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.shared.lock().lost
    }
}

/// One call of `write` is one line, as the formatter makes them.
impl Write for Lossy {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn lose(&mut self) {
        self.unreported += 1;
        self.lost += 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    fn write_all(&self, mut output: impl Write, report: impl Fn(u64)) {
        loop {
            let line = self.next();
            let result = write_line(&mut output, &line);
            let unreported = self.written(result.is_ok());
            if unreported > 0 {
                report(unreported);
            }
            let mut queue = self.lock();
            queue.writing = false;
            if queue.lines.is_empty() {
                self.emptied.notify_all();
            }
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut queue = self.lock();
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.bytes -= line.len();
                queue.writing = true;
                return line;
            }
            self.filled.wait(&mut queue);
        }
    }

    /// Notes how a line went. Returns how many lost lines are to be reported: 0 while there is no room for the report.
    fn written(&self, well: bool) -> u64 {
        let mut queue = self.lock();
        if !well {
            queue.lose();
        } else if queue.bytes <= self.bounds.bytes / 2 && queue.lines.len() <= self.bounds.lines / 2 {
            return std::mem::take(&mut queue.unreported);
        }
        0
    }
}

fn write_line(output: &mut impl Write, line: &[u8]) -> io::Result<()> {
    let mut rest = line;
    while !rest.is_empty() {
        match output.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A process that shares the terminal may have set it so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(BUSY),
            Err(error) => return Err(error),
        }
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn bounds(bytes: usize, lines: usize) -> Bounds {
        Bounds { bytes, lines }
    }

    /// An output that takes one line for each permission that it is given.
    struct Held(mpsc::Receiver<()>, Arc<Mutex<String>>);

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn incident_74_lines_that_nobody_reads_are_lost_counted_and_reported_when_they_are_read_again() {
        let (permit, held) = mpsc::channel();
        let text = Arc::<Mutex<String>>::default();
        let (reported, reports) = mpsc::channel();
        let report = move |lost| reported.send(lost).unwrap();
        let log = Lossy::start(Held(held, Arc::clone(&text)), bounds(8, 100), report).unwrap();
        log.push(b"a\n");
        while !log.shared.lock().writing {
            std::thread::yield_now();
        }
        for line in [b"b\n", b"c\n", b"d\n", b"e\n", b"f\n", b"g\n"] {
            log.push(line);
        }
        assert_eq!(log.lost(), 2, "four lines of two bytes wait in addition to the one that is written");
        assert!(!log.flush(Duration::ZERO), "it is not read");
        drop(permit);
        assert!(log.flush(LONG));
        assert_eq!(*text.lock(), "a\nb\nc\nd\ne\n");
        assert_eq!(reports.try_iter().collect::<Vec<_>>(), [2], "once, and before all is flushed");
    }

    #[test]
    fn empty_lines_are_bounded_by_their_number() {
        let (_permit, held) = mpsc::channel();
        let log = Lossy::start(Held(held, Arc::default()), bounds(1000, 3), |_| {}).unwrap();
        for _ in 0..10 {
            log.push(b"\n");
        }
        // One may have been taken out to be written.
        assert!((6..=7).contains(&log.lost()), "{}", log.lost());
    }

    #[test]
    fn lines_for_a_reader_that_has_gone_away_are_lost_and_nothing_waits_for_it() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let log = Lossy::start(writer, Bounds::default(), |_| {}).unwrap();
        for _ in 0..10 {
            log.push(b"nobody\n");
        }
        assert!(log.flush(LONG));
        assert_eq!(log.lost(), 10);
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Lossy::start(writer, Bounds::default(), |_| {}).unwrap();
        let reading = std::thread::spawn(move || {
            let mut text = vec![0; 30_000];
            reader.read_exact(&mut text).unwrap();
            text
        });
        let lines: Vec<String> = (0..1000).map(|n| format!("{n:029}\n")).collect();
        for line in &lines {
            log.push(line.as_bytes());
        }
        assert_eq!(reading.join().unwrap(), lines.concat().into_bytes());
        assert_eq!(log.lost(), 0);
    }
}
