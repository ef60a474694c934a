//! See [`shardmill_fuzz::filter_data`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| shardmill_fuzz::filter_data(input));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    shardmill_fuzz::replay("filter_data", shardmill_fuzz::filter_data)
}
