//! What every source file keeps to: a length that can be read, and a first line that says what it is for.

use std::process::Command;

use crate::process::quiet;
use crate::{Result, root};

/// Files are shorter.
const TOO_LONG: usize = 500;

/// Functions as users write them, which docs/handlers.md shows in full.
const SHOWN: &str = "examples/functions/";

/// Judges every Rust file of the repository, those that are not committed yet included.
pub(crate) fn check() -> Result<()> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.rs"];
    let names = quiet(Command::new("git").args(list).current_dir(root()))?;
    // A file that was removed stays in the list until that is committed.
    let names = names.lines().filter(|name| !name.starts_with(SHOWN));
    let there = names.filter_map(|name| Some((name, std::fs::read_to_string(root().join(name)).ok()?)));
    let faults: Vec<_> =
        there.flat_map(|(name, text)| faults(&text).map(move |fault| format!("{name} {fault}"))).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// What is wrong with a file of this text.
fn faults(text: &str) -> impl Iterator<Item = String> + use<> {
    let lines = text.lines().count();
    let long = (lines >= TOO_LONG).then(|| {
        format!("has {lines} lines; permitted: less than {TOO_LONG}; move a part of it to a file of its own")
    });
    let bare = (!text.starts_with("//! "))
        .then(|| "does not begin with a //! line; write what the file is for".to_owned());
    long.into_iter().chain(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_and_one_without_a_purpose_are_found() {
        let of = |text: &str| faults(text).collect::<Vec<_>>();
        let long = |lines| "//! It is long.\n".to_owned() + &"\n".repeat(lines - 1);
        assert!(of("//! It is short.\n").is_empty() && of(&long(TOO_LONG - 1)).is_empty());
        assert!(matches!(&of(&long(TOO_LONG))[..], [fault] if fault.starts_with("has 500 lines")));
        assert!(matches!(&of("\n//! Too late.\n")[..], [fault] if fault.contains("//!")));
        assert_eq!(of(&"\n".repeat(TOO_LONG)).len(), 2);
    }
}
