//! What the sources that speak to AWS through its SDK have in common.

mod client;
mod error;

pub(super) use client::{KeepDate, ObserveDate, bounded, millis};
pub(super) use error::{Call, Named};
