//! Leases for the tests.
#![allow(dead_code, reason = "each test crate uses some of it")]

use shardmill_checkpoint::{AppState, Checkpoint, Claim, NewLease, ProcessIdentity, WorkerId};
use shardmill_engine::{LeaseKey, Position, Seq, ShardId};

pub(crate) fn key(shard: &str) -> LeaseKey {
    LeaseKey {
        account: "123456789012".into(),
        region: "eu-central-1".into(),
        stream: "orders".into(),
        epoch: "1700000000".into(),
        shard: ShardId::from(shard),
    }
}

pub(crate) fn new_lease(shard: &str) -> NewLease {
    NewLease {
        key: key(shard),
        checkpoint: Position::TrimHorizon,
        parents: Vec::new(),
        hash_range: None,
        app: AppState::new(),
    }
}

pub(crate) fn after(number: &str) -> Position {
    Position::After(Seq::plain(number))
}

pub(crate) fn claim(name: &str, token: &str) -> Claim {
    let process = ProcessIdentity { host: format!("host of {name}"), pid: 12, started: 77 };
    let lease_time = Some(std::time::Duration::from_secs(10));
    Claim {
        owner: WorkerId::new(name),
        token: token.into(),
        process: Some(process),
        lease_time,
        seen_heartbeat: 0,
    }
}

pub(crate) fn checkpoint(shard: &str, counter: u64, number: &str) -> Checkpoint {
    Checkpoint { key: key(shard), counter, position: after(number), app: AppState::new() }
}
