//! Configuration files.

use std::path::Path;

use shardmill_engine::Wall;

use crate::sidecar_config;

/// Any text as a configuration file: a valid configuration, or errors that each say something about a place in it.
pub fn config_file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let environment = |name: &str| (name == "STREAM").then(|| "orders".to_owned());
    let now = Wall::from_millis(1_700_000_000_000);
    match sidecar_config::parse(Path::new("shardmill.yaml"), text, &environment, now) {
        Ok(loaded) => {
            assert!(!loaded.config.mappings.is_empty(), "a configuration without a mapping");
            for note in loaded.warnings.iter().chain(&loaded.ignored) {
                assert!(
                    note.line >= 1 && note.line <= text.lines().count().max(1) && !note.message.is_empty()
                );
            }
        }
        Err(errors) => {
            assert!(errors.iter().next().is_some(), "refused without a reason");
            assert!(errors.to_string().contains("shardmill.yaml"), "{errors}");
            for error in errors.iter() {
                assert!(!error.message().is_empty());
                assert!(error.place().is_none_or(|(line, column)| line >= 1 && column >= 1), "{errors}");
            }
        }
    }
}
