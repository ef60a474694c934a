//! Lease stores: where positions and leases live.
