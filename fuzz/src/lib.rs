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

mod filter;
#[path = "../../engine/src/filter/tests/naive.rs"]
mod naive;

use std::path::Path;

pub use filter::{filter_data, filter_pattern};

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
    }
}
