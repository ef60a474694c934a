//! The sidecar's parts: everything of the binary `shardmill` but its command line.
//!
//! [`config`] turns a file into settings, [`assembly`] turns settings into the parts of consumers, [`run`] runs them until
//! a signal, [`check`] asks whether they would run, [`admin`] shows them, [`handler`] calls the function, [`demo`] shows
//! it all. A library only so that tests reach them: its API follows the binary's needs.

/// Prints a human-readable line. A reader that has closed its end, as `head` does, is no reason to fail: the exit
/// status shows how it ended.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

pub mod admin;
pub mod assembly;
pub mod check;
pub mod config;
pub mod demo;
pub mod descriptors;
pub mod handler;
pub mod identity;
pub mod launch;
pub mod logging;
pub mod profile;
pub mod run;
pub mod signals;
