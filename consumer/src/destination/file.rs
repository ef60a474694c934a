//! Discarded batches in a file of JSON Lines.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{Destination, DestinationError, Discarded, Probe};

/// How long the end of a file must stay as it is to be a torn line and not one that is being written.
const SETTLE: Duration = Duration::from_millis(20);

/// Appends every discarded batch to a file: one JSON object a line, in the layout that Lambda writes to S3, payload
/// included (docs/semantics.md, section 3.9).
///
/// A delivery is done when the line is on the disk (`fdatasync`, and the folder synced when the file is new). Several
/// processes may append to one file on a local disk: a line is one write at the end. The file is opened for every
/// delivery, so it may be moved away or deleted at any time. What a crash or a full disk left of a line stays and gets
/// a line feed of its own before the next object: readers skip lines that are empty or not JSON. A file that is created
/// here has the mode 0600; one that exists keeps its own.
#[derive(Debug)]
pub struct FileDestination {
    path: PathBuf,
    /// One delivery at a time; held by the blocking task itself, so that a caller that stops waiting does not let the
    /// next one in.
    turn: Arc<Mutex<()>>,
}

impl FileDestination {
    /// Opens the file, creates it if it is missing, and checks that it can be appended to.
    ///
    /// # Errors
    /// The folder is missing, the path is not a regular file, or this user may not read and write it.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, DestinationError> {
        let path = path.into();
        let this = Self { path, turn: Arc::default() };
        this.blocking(|path| open(path).map(drop)).await?;
        Ok(this)
    }

    /// The same, on this thread.
    #[cfg(feature = "aws")]
    pub(super) fn open_blocking(path: impl Into<PathBuf>) -> Result<Self, DestinationError> {
        let this = Self { path: path.into(), turn: Arc::default() };
        open(&this.path).map(drop).map_err(|error| this.explain(error))?;
        Ok(this)
    }

    /// Runs `work` off the async threads, after every earlier one has ended.
    async fn blocking(
        &self,
        work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), DestinationError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&path);
            drop(turn);
            result
        });
        match done.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.explain(error)),
            Err(error) => Err(DestinationError::new(format!(
                "file {}: the delivery was cut short: {error}",
                self.path.display()
            ))),
        }
    }

    fn explain(&self, error: io::Error) -> DestinationError {
        let remedy = match error.kind() {
            ErrorKind::NotFound => "; create its folder first",
            ErrorKind::PermissionDenied => "; this user needs to read and write it, and to read its folder",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::WriteZero => {
                "; make room on the disk: the batch is delivered again then"
            }
            ErrorKind::FileTooLarge => "; move the file away: a new one is begun",
            ErrorKind::ReadOnlyFilesystem => "; choose a path on a disk that is mounted for writing",
            ErrorKind::IsADirectory => "; name a file in it",
            _ => "",
        };
        DestinationError::new(format!("file {}: {error}{remedy}", self.path.display())).with_source(error)
    }
}

#[async_trait]
impl Destination for FileDestination {
    async fn deliver(&self, discarded: &Discarded) -> Result<(), DestinationError> {
        let discarded = discarded.clone();
        self.blocking(move |path| {
            // An event of several megabytes takes milliseconds to write: not on an async thread either.
            let object = discarded.object();
            let mut file = open(path)?;
            append_line(&mut file, object)?;
            file.sync_data()
        })
        .await
    }

    async fn probe(&self) -> Result<Probe, DestinationError> {
        self.blocking(|path| open(path).map(drop)).await?;
        Ok(Probe::Answers)
    }

    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }
}

/// Opens for appending. A file without content may be new: its entry in the folder is made durable.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    // It contains discarded records with their payload: for this user only. An existing file keeps its mode.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "is not a regular file"));
    }
    if metadata.len() == 0 {
        sync_folder(path)?;
    }
    Ok(file)
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot sync a folder and do not need it.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Appends `object` and a line feed in one write, on a line of its own.
fn append_line(file: &mut (impl Read + Write + Seek), object: Vec<u8>) -> io::Result<()> {
    let mut line = object;
    line.push(b'\n');
    if ends_torn(file)? {
        line.insert(0, b'\n');
    }
    let written = loop {
        match file.write(&line) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    if written != line.len() {
        let text = format!("only {written} of {} bytes were written", line.len());
        return Err(io::Error::new(ErrorKind::WriteZero, text));
    }
    // Another process may have torn a line between our look at the end and our write: then ours hangs on to it.
    let start = file.stream_position()?.saturating_sub(line.len() as u64);
    if line[0] != b'\n' && !begins_line(file, start)? {
        return Err(io::Error::other("another process left half a line just before this one"));
    }
    Ok(())
}

/// Whether the file ends within a line that is no longer being written.
fn ends_torn(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    let mut end = file.seek(SeekFrom::End(0))?;
    while !begins_line(file, end)? {
        // The size shows another writer's progress within its write. If this is wrong, a blank line comes of it.
        std::thread::sleep(SETTLE);
        let later = file.seek(SeekFrom::End(0))?;
        if later == end {
            return Ok(true);
        }
        end = later;
    }
    Ok(false)
}

/// Whether a line begins at `place`.
fn begins_line(file: &mut (impl Read + Seek), place: u64) -> io::Result<bool> {
    let Some(before) = place.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.seek(SeekFrom::Start(before))?;
    file.read_exact(&mut byte)?;
    Ok(byte == [b'\n'])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;
    use tempfile::TempDir;

    use super::super::testing::discarded;
    use super::*;

    fn folder() -> (TempDir, PathBuf) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("discarded.jsonl");
        (folder, path)
    }

    fn numbers(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'));
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .map(|object| object["KinesisBatchInfo"]["startSequenceNumber"].as_str().unwrap().to_owned())
            .collect()
    }

    #[tokio::test]
    async fn each_batch_is_one_line_in_the_s3_layout_with_its_payload() {
        let (_folder, path) = folder();
        let destination = FileDestination::open(&path).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"", "opening creates the file");
        let failures = [discarded("1", 100), discarded("2", 5)];
        for batch in &failures {
            destination.deliver(batch).await.unwrap();
        }
        let expected: Vec<u8> = failures.iter().flat_map(|f| [f.object(), b"\n".to_vec()].concat()).collect();
        assert_eq!(fs::read(&path).unwrap(), expected);
        let first: Value = serde_json::from_slice(&failures[0].object()).unwrap();
        assert_eq!(first["payload"].as_str().unwrap().as_bytes(), failures[0].event());
        assert_eq!(numbers(&path), ["1", "2"]);
        assert_eq!(destination.describe(), format!("file {}", path.display()));
    }

    #[tokio::test]
    async fn an_existing_file_is_appended_to_and_a_torn_last_line_is_closed_and_kept() {
        let (_folder, path) = folder();
        let whole = String::from_utf8(discarded("1", 10).object()).unwrap();
        let torn = &whole[..40];
        fs::write(&path, format!("{whole}\n{torn}")).unwrap();
        let destination = FileDestination::open(&path).await.unwrap();
        destination.deliver(&discarded("2", 10)).await.unwrap();
        destination.deliver(&discarded("3", 10)).await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("{whole}\n{torn}\n{{")), "nothing is truncated");
        assert_eq!(text.lines().count(), 4);
        assert_eq!(numbers(&path), ["1", "2", "3"]);
    }

    #[tokio::test]
    async fn deliveries_at_once_and_a_second_writer_never_mix_lines() {
        let (_folder, path) = folder();
        let one = Arc::new(FileDestination::open(&path).await.unwrap());
        let two = Arc::new(FileDestination::open(&path).await.unwrap());
        let tasks: Vec<_> = (0..40)
            .map(|n| {
                let destination = Arc::clone(if n % 2 == 0 { &one } else { &two });
                tokio::spawn(async move { destination.deliver(&discarded(&n.to_string(), 30_000)).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 40);
        let mut found: Vec<u32> = numbers(&path).iter().map(|n| n.parse().unwrap()).collect();
        found.sort_unstable();
        assert!(found.into_iter().eq(0..40));
    }

    #[tokio::test]
    async fn a_file_that_is_moved_away_or_deleted_is_begun_anew() {
        let (folder, path) = folder();
        let destination = FileDestination::open(&path).await.unwrap();
        destination.deliver(&discarded("1", 1)).await.unwrap();
        let moved = folder.path().join("old.jsonl");
        fs::rename(&path, &moved).unwrap();
        destination.deliver(&discarded("2", 1)).await.unwrap();
        assert_eq!((numbers(&moved), numbers(&path)), (vec!["1".to_owned()], vec!["2".to_owned()]));
    }

    #[tokio::test]
    async fn places_that_cannot_take_a_file_are_refused_with_a_remedy() {
        let (folder, path) = folder();
        let missing = folder.path().join("missing/discarded.jsonl");
        for (path, expected) in
            [(missing.as_path(), "create its folder first"), (folder.path(), "name a file in it")]
        {
            let error = FileDestination::open(path).await.unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()) && error.ends_with(expected), "{error}");
        }
        drop(path);
        #[cfg(target_os = "linux")]
        {
            let error = FileDestination::open("/dev/full").await.unwrap_err().to_string();
            assert_eq!(error, "file /dev/full: is not a regular file");
        }
    }

    #[tokio::test]
    async fn i3_a_delivery_fails_while_the_file_cannot_be_written_and_succeeds_afterwards() {
        let (_folder, path) = folder();
        let destination = FileDestination::open(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = destination.deliver(&discarded("1", 1)).await.unwrap_err();
        assert!(error.to_string().contains("name a file in it"), "{error}");
        assert!(error.source.is_some());
        fs::remove_dir(&path).unwrap();
        destination.deliver(&discarded("1", 1)).await.unwrap();
        assert_eq!(numbers(&path), ["1"]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn incident_87_a_new_file_is_for_this_user_only_and_an_existing_one_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, path) = folder();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let destination = FileDestination::open(&path).await.unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        destination.deliver(&discarded("1", 1)).await.unwrap();
        assert_eq!(mode(), 0o640, "an existing file's mode is kept");
        fs::remove_file(&path).unwrap();
        destination.deliver(&discarded("2", 1)).await.unwrap();
        assert_eq!(mode(), 0o600, "also when it is created again");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_turns_read_only_fails_the_delivery_and_the_next_one_succeeds() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, path) = folder();
        let destination = FileDestination::open(&path).await.unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        // The superuser may write in spite of the mode: there is nothing to see then.
        if OpenOptions::new().append(true).open(&path).is_err() {
            let error = destination.deliver(&discarded("1", 1)).await.unwrap_err().to_string();
            assert!(error.contains("this user needs to read and write it"), "{error}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        destination.deliver(&discarded("2", 1)).await.unwrap();
        assert_eq!(numbers(&path), ["2"]);
    }

    #[test]
    fn every_kind_of_error_has_its_remedy() {
        let destination = FileDestination { path: "/data/d.jsonl".into(), turn: Arc::default() };
        let text = |kind: ErrorKind| destination.explain(kind.into()).to_string();
        assert!(text(ErrorKind::StorageFull).contains("make room on the disk"));
        assert!(text(ErrorKind::PermissionDenied).contains("this user needs"));
        assert!(text(ErrorKind::ReadOnlyFilesystem).contains("mounted for writing"));
    }

    /// A file on a disk with room for `room` more bytes; `before_write` is what another process appends just before.
    struct Disk {
        content: io::Cursor<Vec<u8>>,
        room: usize,
        before_write: &'static [u8],
    }

    impl Disk {
        fn new(content: &[u8], room: usize) -> Self {
            Self { content: io::Cursor::new(content.to_vec()), room, before_write: b"" }
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.content.seek(SeekFrom::End(0))?;
            self.content.write_all(std::mem::take(&mut self.before_write))?;
            self.content.write(&bytes[..taken])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Disk {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.content.read(bytes)
        }
    }

    impl Seek for Disk {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.content.seek(to)
        }
    }

    #[test]
    fn i3_a_disk_that_fills_up_within_a_line_fails_the_delivery_and_the_repeat_is_whole() {
        let mut disk = Disk::new(b"{}\n", 3);
        let error = append_line(&mut disk, b"{\"a\":1}".to_vec()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteZero);
        let error = append_line(&mut disk, b"{\"a\":1}".to_vec()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        disk.room = 100;
        append_line(&mut disk, b"{\"a\":1}".to_vec()).unwrap();
        append_line(&mut disk, b"{\"a\":2}".to_vec()).unwrap();
        assert_eq!(disk.content.into_inner(), b"{}\n{\"a\n{\"a\":1}\n{\"a\":2}\n");
    }

    #[test]
    fn i3_a_line_glued_to_another_processes_torn_one_does_not_count_as_delivered() {
        let mut disk = Disk::new(b"{}\n", 100);
        disk.before_write = b"{\"to";
        append_line(&mut disk, b"{\"a\":1}".to_vec()).unwrap_err();
        append_line(&mut disk, b"{\"a\":1}".to_vec()).unwrap();
        assert_eq!(disk.content.into_inner(), b"{}\n{\"to{\"a\":1}\n{\"a\":1}\n");
    }
}
