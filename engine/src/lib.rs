//! Shardmill's engine: pure state machines for stream event source mappings.
//!
//! Fully deterministic: no IO, no clock, no entropy, no environment. Time, randomness and results come in as arguments;
//! what to do next comes out as values.
//!
//! A [`ShardMachine`] decides for one shard what to read, to invoke, to discard and to store; a [`LeaseMachine`]
//! decides for one lease when to take, renew and lose it. Both take events, return actions, and say when to be polled
//! next:
//!
//! ```
//! # use std::sync::Arc;
//! use shardmill_engine::{
//!     BatchResponse, Data, EventSourceMapping, Now, Outcome, Page, Position, Record, Seq, ShardAction, ShardEvent,
//!     ShardMachine, intake,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
//! let mapping = Arc::new(EventSourceMapping::builder(arn, "orders-worker").build()?);
//! let now = Now::default();
//! let mut machine = ShardMachine::new(mapping, "shardId-0".into(), Position::TrimHorizon, 7, now);
//!
//! assert_eq!(machine.poll_action(now), Some(ShardAction::Open { at: Position::TrimHorizon }));
//! assert_eq!(machine.poll_action(now), None, "until the shard is open");
//! machine.handle_event(now, ShardEvent::Opened);
//! assert!(matches!(machine.poll_action(now), Some(ShardAction::Fetch { .. })));
//!
//! let record = Record::new(Seq::plain("49"), Some("customer-7".into()), None, Data::Raw("an order".into()));
//! let page = Page::new(vec![record]);
//! machine.handle_event(now, ShardEvent::Fetched(intake(page, machine.position(), |_| true)));
//! let Some(ShardAction::Invoke(invocation)) = machine.poll_action(now) else { panic!() };
//!
//! let outcome = Outcome::Answered(BatchResponse::success());
//! machine.handle_event(now, ShardEvent::Invoked { lane: invocation.lane, outcome });
//! let Some(ShardAction::Checkpoint { upto, .. }) = machine.poll_action(now) else { panic!() };
//! assert_eq!(upto, Position::After(Seq::plain("49")));
//! # Ok(())
//! # }
//! ```
//!
//! # Numbers such as R12, P5 and I5
//!
//! R1 to R80 are rules of Lambda's stream event source mapping, as AWS documents it or as it was observed, and P1 to
//! P19 its parameters: [`semantics`] states them. I1 to I17 are the [`invariants`] that Shardmill keeps beyond Lambda's
//! rules. In the repository, `docs/rules.md` names the tests of each rule, and `docs/deviations.md` says where Shardmill
//! differs.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod arn;
mod event;
mod failure;
mod filter;
mod fleet;
mod intake;
#[doc(hidden)]
pub mod invariant;
mod json;
mod mapping;
mod outcome;
mod position;
mod record;
mod request;
mod retry;
mod shard;
mod shown;
mod time;
mod window;

#[doc = include_str!("../docs/semantics.md")]
pub mod semantics {}

#[doc = include_str!("../docs/invariants.md")]
pub mod invariants {}

pub use answer::{DynamoDbAnswer, KinesisAnswer, cbor_to_json, dynamodb_answer, kinesis_answer};
pub use arn::Arn;
pub use event::{
    AttributeModel, AttributeRef, Attributes, DynamoDbEncoder, DynamoDbFields, EventContext, InvalidItem,
    UserIdentity, encode, encoded_len,
};
pub use failure::{
    Condition, FailedBatch, FailureNames, FunctionResponse, message as failure_message,
    object as failure_object, object_key as failure_object_key,
};
pub use filter::{Filter, FilterError, FilterErrorKind, FilterSource, NeverMatches};
pub use fleet::{
    FleetLease, FleetWorker, HashRange, LeaseAction, LeaseEvent, LeaseKey, LeaseMachine, LeaseMove,
    LeaseNode, LeasePhase, LeaseTimes, LeaseView, LifeSign, MoveHistory, MovePlan, OwnerView, PlannedLease,
    Shard, Start, finished_leases, gone_shards, may_start, plan_leases, plan_moves, uncovered,
};
pub use intake::{Intake, Page, intake};
pub use mapping::{
    AnswerEncoding, EventSource, EventSourceMapping, FailureDestination, MappingBuilder, MappingError,
    MappingErrorKind, MappingErrors, OnDestinationFailure, OnGap, OnUndecodable, Polling, RawMapping, Retry,
    StartingPosition, StreamKind, limits, parse_time,
};
pub use outcome::{BatchResponse, InvalidResponse, Outcome};
pub use position::{Position, Seq, SequenceNumber};
pub use record::{
    Batch, Data, DynamoDbRecord, InvalidBase64, JsonError, Payload, Record, RecordError, ShardId,
};
pub use request::RequestId;
pub use shard::{
    AnswerProblem, Counters, DiscardId, Exit, FetchFault, Gap, GapKind, Invocation, LaneId, LaneSnapshot,
    LastResult, Oversized, PlaceRule, Resume, ShardAction, ShardEvent, ShardMachine, ShardSnapshot, Verdict,
};
pub use shown::ShownUrl;
pub use time::{Mono, Now, Wall};
pub use window::WindowCall;
