//! `cidr`: a block of IPv4 or IPv6 addresses, as EventBridge's patterns have it.

use core::net::IpAddr;

/// The addresses of one block, as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    is_v6: bool,
    first: u128,
    last: u128,
}

impl Block {
    /// Reads `10.0.0.0/8` or `2001:db8::/32`. Bits behind the prefix count as zero, as in EventBridge. `None` if the text is
    /// something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let (is_v6, number, bits) = numbered(address.parse().ok()?);
        // `parse` would take a sign.
        let length: u32 = length.bytes().all(|b| b.is_ascii_digit()).then(|| length.parse().ok())??;
        let host = u128::MAX.checked_shr(128 - bits.checked_sub(length)?).unwrap_or(0);
        Some(Self { is_v6, first: number & !host, last: number | host })
    }

    /// Whether the text is an address of the block. What is no address is in none.
    pub(super) fn contains(&self, text: &str) -> bool {
        let Ok(address) = text.parse() else { return false };
        let (is_v6, number, _) = numbered(address);
        is_v6 == self.is_v6 && (self.first..=self.last).contains(&number)
    }
}

/// The family, the address as a number, and how many bits it has.
fn numbered(address: IpAddr) -> (bool, u128, u32) {
    match address {
        IpAddr::V4(address) => (false, u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (true, address.to_bits(), 128),
    }
}
