//! See [`shardmill_fuzz::filter_pattern`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| shardmill_fuzz::filter_pattern(input));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    shardmill_fuzz::replay("filter_pattern", shardmill_fuzz::filter_pattern)
}
