//! Development tasks: `cargo xtask test|ci|emulators`.
fn main() {}
