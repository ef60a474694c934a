//! See [`shardmill_fuzz::encoded_length`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| shardmill_fuzz::encoded_length(input));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    shardmill_fuzz::replay("encoded_length", shardmill_fuzz::encoded_length)
}
