//! What makes two states the same.

use std::hash::Hasher;

use crate::shard::tests::rig::START;

/// Distinguishes states regardless of what was drawn at random: request ids, and the state of the generator. Without
/// `TIME` it does not see points in time either. Waits are zero here, so that chance decides nothing.
#[derive(Default)]
pub(super) struct Mix<const TIME: bool>(u64);

impl<const TIME: bool> Mix<TIME> {
    fn mix(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

impl<const TIME: bool> Hasher for Mix<TIME> {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.mix(u64::from(*byte)));
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(u64::from(byte));
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }

    /// Numbers of this size are the generator's; smaller ones beyond the monotonic clock's start are its times.
    fn write_u64(&mut self, word: u64) {
        let is_time = (START - 1_000..1 << 40).contains(&word);
        if word < START - 1_000 || (TIME && is_time) {
            self.mix(word);
        }
    }

    /// Request ids.
    fn write_u128(&mut self, _: u128) {}

    /// The service's clock.
    fn write_i64(&mut self, word: i64) {
        if TIME {
            self.mix(word.cast_unsigned());
        }
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

/// For sets of keys that are mixed already.
#[derive(Default)]
pub(super) struct Mixed(u64);

impl Hasher for Mixed {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
