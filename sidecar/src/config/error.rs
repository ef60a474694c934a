//! What is wrong with a file, and how it is shown.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Mark {
    /// From 1.
    pub(super) line: usize,
    /// In characters, from 1.
    pub(super) column: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub(super) at: Option<Mark>,
    pub(super) key: String,
    pub(super) message: String,
    pub(super) aws: Option<String>,
}

impl ConfigError {
    pub(super) fn at(at: Mark, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at: Some(at), key: key.into(), message: message.into(), aws: None }
    }

    /// The key, dotted below the top level (`Mappings[1].Function.Timeout`); empty if the file as a whole is meant.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value, what is permitted, and what to do.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Line and column, both from 1; `None` if the file could not be read.
    #[must_use]
    pub fn place(&self) -> Option<(usize, usize)> {
        self.at.map(|mark| (mark.line, mark.column))
    }

    /// Lambda's own text for this mistake, where it is known (docs/semantics.md, section 1.2).
    #[must_use]
    pub fn aws_message(&self) -> Option<&str> {
        self.aws.as_deref()
    }
}

/// Every mistake of a file, in the order of the file; never empty.
///
/// `Display` shows each as `path:line:column: Key: message`, followed by the line with a caret under the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    path: PathBuf,
    text: String,
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(super) fn new(path: &Path, text: &str, mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|e| e.at);
        // Several mappings may stumble over one shared key.
        errors.dedup();
        Self { path: path.to_owned(), text: text.to_owned(), errors }
    }

    pub(super) fn whole_file(path: &Path, message: impl Into<String>) -> Self {
        let error = ConfigError { at: None, key: String::new(), message: message.into(), aws: None };
        Self::new(path, "", vec![error])
    }

    /// The mistakes.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.errors.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.path.display())?;
            if let Some(mark) = error.at {
                write!(f, ":{}:{}", mark.line, mark.column)?;
            }
            f.write_str(": ")?;
            if !error.key.is_empty() {
                write!(f, "{}: ", error.key)?;
            }
            f.write_str(&error.message)?;
            if let Some(mark) = error.at {
                excerpt(f, &self.text, mark)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The line of `mark` and a caret below the place.
fn excerpt(f: &mut fmt::Formatter<'_>, text: &str, mark: Mark) -> fmt::Result {
    const WIDEST: usize = 120;
    let Some(line) = text.lines().nth(mark.line.saturating_sub(1)).filter(|l| !l.trim().is_empty()) else {
        return Ok(());
    };
    let line = without_password(line);
    // A JSON file may be one long line: show the surroundings.
    let skipped = if mark.column > WIDEST { mark.column - WIDEST / 2 } else { 0 };
    let shown: String =
        line.chars().skip(skipped).take(WIDEST).map(|c| if c == '\t' { ' ' } else { c }).collect();
    let caret = mark.column.saturating_sub(skipped + 1);
    let number = mark.line.to_string();
    write!(f, "\n  {number} | {}\n  {:width$} | {:caret$}^", shown.trim_end(), "", "", width = number.len())
}

/// The line with stars for the part of a URL before its `@`: an error is copied into issues and logs.
fn without_password(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let authority = after.split(['/', '?', '#', '"', '\'', ' ']).next().unwrap_or_default();
        let secret = authority.rfind('@').unwrap_or(0);
        let (hidden, others) = after.split_at(secret);
        shown.extend(hidden.chars().map(|_| '*'));
        rest = others;
    }
    shown.push_str(rest);
    shown
}

/// Something worth a line in the log: a warning, or a key that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The key, dotted below the top level.
    pub key: String,
    /// The line in the file, from 1.
    pub line: usize,
    /// The message.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {}): {}", self.key, self.line, self.message)
    }
}
