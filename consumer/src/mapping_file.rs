//! A mapping from a file.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use shardmill_engine::{EventSourceMapping, MappingErrors, Wall};

/// Reads a mapping from a JSON file, which [`EventSourceMapping::from_json`] describes.
///
/// ```
/// use shardmill::{EventSourceMapping, FromFile};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("mapping.json");
/// # std::fs::write(&path, r#"{"EventSourceArn": "arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
/// #     "FunctionName": "orders-worker", "StartingPosition": "TRIM_HORIZON", "BatchSize": 10}"#)?;
/// // aws lambda get-event-source-mapping --uuid ... > mapping.json
/// let mapping = EventSourceMapping::from_file(&path)?;
/// assert_eq!(mapping.batch_size(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait FromFile: Sized {
    /// The mapping of the file at `path`. A start time later than the host's clock is refused.
    ///
    /// # Errors
    /// The file cannot be read, or every mistake in it, with its line.
    fn from_file(path: impl AsRef<Path>) -> Result<Self, MappingFileError>;
}

/// Why a file is no mapping.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MappingFileError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {error}; name a file of UTF-8 text that this process may read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// The file holds no valid mapping.
    #[error("{}: {errors}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every mistake in it.
        #[source]
        errors: MappingErrors,
    },
}

impl FromFile for EventSourceMapping {
    fn from_file(path: impl AsRef<Path>) -> Result<Self, MappingFileError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| MappingFileError::Unreadable { path: path.to_owned(), error })?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Wall::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX));
        Self::from_json(&text, now)
            .map_err(|errors| MappingFileError::Invalid { path: path.to_owned(), errors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_file_that_is_missing_or_wrong_is_refused_with_its_name_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mapping.json");
        let shown = || EventSourceMapping::from_file(&path).unwrap_err().to_string();
        assert!(shown().contains("mapping.json: cannot be read: "), "{}", shown());
        std::fs::write(&path, "{\n\"BatchSize\": 0\n}").unwrap();
        assert!(
            shown().contains("mapping.json: ") && shown().contains("line 2: BatchSize: 0 is"),
            "{}",
            shown()
        );
    }
}
