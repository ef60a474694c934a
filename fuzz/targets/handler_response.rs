//! See [`shardmill_fuzz::handler_response`].
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| shardmill_fuzz::handler_response(input));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    shardmill_fuzz::replay("handler_response", shardmill_fuzz::handler_response)
}
