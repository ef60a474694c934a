//! See [`shardmill_fuzz::config_file`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| shardmill_fuzz::config_file(input));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    shardmill_fuzz::replay("config_file", shardmill_fuzz::config_file)
}
