//! What the fuzz targets do with their input.
//!
//! ```sh
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run filter_data fuzz/corpus/filter_data fuzz/seeds/filter_data -- -max_total_time=300
//! ```
//!
//! Without cargo-fuzz, on the stable toolchain, `cargo test --manifest-path fuzz/Cargo.toml` runs every target on its
//! seeds.

#![forbid(unsafe_code)]

mod answer;
mod config;
mod event;
mod filter;
#[path = "../../engine/src/filter/tests/naive.rs"]
mod naive;
mod response;
// The sidecar's own module, without the AWS SDK that its crate is built with.
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../sidecar/src/config/mod.rs"]
mod sidecar_config;

use std::path::Path;

pub use answer::answer;
pub use config::config_file;
pub use event::encoded_length;
pub use filter::{filter_data, filter_pattern};
pub use response::handler_response;

/// Runs a target on each of its seeds.
///
/// # Errors
/// If a seed cannot be read.
pub fn replay(target: &str, run: fn(&[u8])) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        run(&std::fs::read(entry?.path())?);
        count += 1;
    }
    println!("{target}: {count} seeds");
    assert!(count > 0, "no seeds");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_targets_take_their_seeds() {
        super::replay("filter_pattern", super::filter_pattern).unwrap();
        super::replay("filter_data", super::filter_data).unwrap();
        super::replay("handler_response", super::handler_response).unwrap();
        super::replay("config_file", super::config_file).unwrap();
        super::replay("encoded_length", super::encoded_length).unwrap();
        super::replay("answer", super::answer).unwrap();
    }
}
