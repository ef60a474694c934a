//! The suite that every [`LeaseStore`] passes, third parties' stores included.
//!
//! Run [`run_all`] with a closure that gives an empty store each time, [`run_shared`] with two handles on one empty store
//! (two processes, in a way), and [`applications_are_separate`] with two applications in one place:
//!
//! ```
//! # use shardmill_checkpoint::{MemoryStore, conformance};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! conformance::run_all(async || MemoryStore::new()).await;
//! # }
//! ```
//!
//! Each check is also in [`CHECKS`], to be run on its own. A check panics with what it saw and what it expected; it needs
//! a tokio runtime and an empty store.

#![allow(clippy::unwrap_used, reason = "a conformance check fails by panicking")]

mod creation;
mod handoff;
mod notes;
mod ownership;
mod progress;
mod shared;
mod workers;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use shardmill_engine::{LeaseKey, Position, Seq, ShardId};

use crate::{AppState, Claim, Lease, LeaseStore, NewLease, ProcessIdentity, WorkerId, Write};

pub use shared::applications_are_separate;

/// A store under test.
pub type Store = Arc<dyn LeaseStore>;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One check: a sentence about stores.
#[derive(Clone, Copy)]
pub struct Check {
    /// The sentence, as an identifier.
    pub name: &'static str,
    run: fn(Store) -> Running,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Check {
    /// Runs the check against an empty store.
    ///
    /// # Panics
    /// If the store does not pass.
    pub async fn run(&self, store: Store) {
        (self.run)(store).await;
    }
}

/// A check that needs two handles on one store, as two processes have them.
#[derive(Clone, Copy)]
pub struct SharedCheck {
    /// The sentence, as an identifier.
    pub name: &'static str,
    run: fn(Store, Store) -> Running,
}

impl fmt::Debug for SharedCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCheck").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SharedCheck {
    /// Runs the check against two handles on one empty store.
    ///
    /// # Panics
    /// If the store does not pass.
    pub async fn run(&self, one: Store, other: Store) {
        (self.run)(one, other).await;
    }
}

macro_rules! checks {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$(Check { name: stringify!($name), run: |store| Box::pin($module::$name(store)) }),*]
    };
}

macro_rules! shared_checks {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$(SharedCheck { name: stringify!($name), run: |one, other| Box::pin($module::$name(one, other)) }),*]
    };
}

/// Every check that one handle is enough for.
pub const CHECKS: &[Check] = checks![
    creation::an_empty_store_lists_nothing,
    creation::a_created_lease_is_free_and_holds_what_was_given,
    creation::creating_again_keeps_what_is_there,
    creation::one_call_that_names_a_lease_twice_creates_it_once,
    creation::leases_are_one_only_if_every_part_of_the_key_is_equal,
    creation::every_position_comes_back_verbatim,
    creation::names_and_values_come_back_verbatim,
    creation::many_leases_are_all_listed,
    creation::i15_latest_is_never_stored,
    creation::a_sequence_number_that_is_no_number_is_never_stored,
    creation::deleting_removes_one_lease_and_twice_is_no_error,
    creation::a_finished_lease_is_deleted_only_as_it_was_seen,
    creation::children_are_recorded_without_disturbing_the_owner,
    creation::a_lease_that_does_not_exist_refuses_every_write,
    notes::the_first_note_of_a_name_stays_until_it_is_forgotten,
    ownership::acquiring_sets_owner_token_and_process,
    ownership::incident_76_the_owners_lease_time_is_kept_with_its_acquisition,
    ownership::acquiring_with_an_old_counter_is_refused,
    ownership::i11_of_many_who_acquire_at_once_exactly_one_wins,
    ownership::the_same_worker_gets_a_fresh_token_and_fences_its_earlier_run,
    ownership::owner_switches_count_changes_of_the_owner,
    ownership::releasing_frees_the_lease_and_fences_the_owner,
    ownership::renewals_answer_in_order_and_do_not_hinder_each_other,
    ownership::renewing_changes_nothing_but_the_counter,
    ownership::no_renewals_are_no_error,
    ownership::a_write_whose_answer_was_lost_can_be_recognised,
    ownership::nameless_workers_and_tokens_are_refused,
    handoff::handing_off_keeps_the_counter_and_the_old_owner_goes_on,
    handoff::handing_off_is_for_the_owner_and_once,
    handoff::assigning_ends_the_handoff_and_evicts_the_old_owner,
    handoff::assigning_compares_the_counter_and_both_owners,
    handoff::i10_a_late_assignment_does_not_give_away_what_was_taken_again,
    handoff::a_free_lease_can_be_assigned,
    handoff::acquiring_in_the_middle_of_a_handoff_ends_it,
    handoff::releasing_in_the_middle_of_a_handoff_frees_the_lease,
    handoff::a_worker_cannot_hand_off_to_itself,
    progress::a_checkpoint_moves_forward_and_counts_as_a_renewal,
    progress::i2_a_checkpoint_never_moves_backwards,
    progress::i2_nothing_comes_after_the_shards_end,
    progress::r36_checkpoints_compare_as_numbers,
    progress::sub_sequence_numbers_order_within_an_aggregate,
    progress::the_same_checkpoint_again_is_accepted,
    progress::checkpoints_answer_in_order_and_do_not_hinder_each_other,
    progress::i10_a_late_write_of_a_fenced_owner_is_refused_and_shows_the_lease,
    progress::application_state_merges_and_survives_everything_else,
    progress::of_many_checkpoints_at_one_counter_exactly_one_is_written,
    progress::a_dropped_call_has_happened_or_has_not,
    workers::a_worker_is_listed_as_it_reported_itself_last,
    workers::each_heartbeat_changes_its_workers_number_and_no_others,
    workers::a_worker_that_is_forgotten_is_gone_and_may_come_back,
    workers::i11_a_heartbeat_that_renews_all_keeps_its_leases_from_others,
    workers::i10_a_worker_that_was_evicted_learns_of_it_by_its_next_heartbeat,
    workers::i11_during_a_handoff_the_old_owners_heartbeat_keeps_the_lease,
];

/// Every check that needs two handles on one store.
pub const SHARED_CHECKS: &[SharedCheck] = shared_checks![
    shared::each_handle_sees_the_others_writes_at_once,
    shared::of_two_workers_who_acquire_at_once_exactly_one_wins,
    shared::a_worker_that_lost_its_lease_is_fenced,
    shared::no_counter_is_given_out_twice,
    workers::two_handles_see_each_others_workers,
    workers::i10_a_late_forgetting_does_not_end_a_later_life,
    workers::i11_a_lease_of_a_forgotten_life_is_not_kept_by_the_next_one,
];

/// Runs [`CHECKS`], each against a new store.
///
/// # Panics
/// If the store does not pass; every failed check is named.
pub async fn run_all<S: LeaseStore>(make_store: impl AsyncFn() -> S) {
    let mut failed = Vec::new();
    for check in CHECKS {
        let store: Store = Arc::new(make_store().await);
        if tokio::spawn((check.run)(store)).await.is_err() {
            failed.push(check.name);
        }
    }
    assert!(failed.is_empty(), "these checks failed, see above: {failed:#?}");
}

/// Runs [`SHARED_CHECKS`], each against two new handles on one store.
///
/// # Panics
/// If the store does not pass; every failed check is named.
pub async fn run_shared<S: LeaseStore>(make_handles: impl AsyncFn() -> (S, S)) {
    let mut failed = Vec::new();
    for check in SHARED_CHECKS {
        let (one, other) = make_handles().await;
        if tokio::spawn((check.run)(Arc::new(one), Arc::new(other))).await.is_err() {
            failed.push(check.name);
        }
    }
    assert!(failed.is_empty(), "these checks failed, see above: {failed:#?}");
}

fn key(shard: &str) -> LeaseKey {
    LeaseKey {
        account: "123456789012".into(),
        region: "eu-central-1".into(),
        stream: "orders".into(),
        epoch: "1700000000".into(),
        shard: ShardId::from(shard),
    }
}

fn new_lease(shard: &str) -> NewLease {
    NewLease {
        key: key(shard),
        checkpoint: Position::TrimHorizon,
        parents: Vec::new(),
        hash_range: None,
        app: AppState::new(),
    }
}

fn after(number: &str) -> Position {
    Position::After(Seq::plain(number))
}

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name)
}

fn claim(name: &str, token: &str) -> Claim {
    let process = ProcessIdentity { host: format!("host of {name}"), pid: 4_000_000_000, started: 77 };
    let lease_time = Some(Duration::from_millis(10_500));
    Claim { owner: worker(name), token: token.into(), process: Some(process), lease_time, seen_heartbeat: 0 }
}

/// Creates the lease of `shard` and makes `name` its owner. The counter is then 1.
async fn owned(store: &Store, shard: &str, name: &str) -> LeaseKey {
    store.create(&[new_lease(shard)]).await.unwrap();
    let token = format!("token of {name}");
    assert_eq!(
        store.acquire(&key(shard), 0, &claim(name, &token)).await.unwrap(),
        Write::Done { counter: 1 }
    );
    key(shard)
}

async fn find(store: &Store, key: &LeaseKey) -> Option<Lease> {
    let leases = store.list().await.unwrap();
    let mut found = leases.into_iter().filter(|lease| lease.key == *key);
    let lease = found.next();
    assert_eq!(found.next(), None, "one lease is listed twice");
    lease
}

async fn get(store: &Store, key: &LeaseKey) -> Lease {
    find(store, key).await.unwrap_or_else(|| panic!("the lease {key} is gone"))
}

/// Asserts that `write` was refused, showing the lease as `store` holds it, unchanged from `before`.
async fn assert_refused(store: &Store, write: Write, before: &Lease) {
    assert_eq!(write, Write::Refused { current: Some(Box::new(before.clone())) });
    assert_eq!(&get(store, &before.key).await, before, "a refused write changed the lease");
}
