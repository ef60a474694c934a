//! A function's answer to a batch, and what the shard machine makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use shardmill_engine::{
    Batch, BatchResponse, Data, EventSourceMapping, Mono, Now, Outcome, Page, Position, Record, Seq,
    ShardAction, ShardEvent, ShardMachine, Wall, intake,
};

/// Records of the batch that is answered: their sequence numbers are "1" to "9".
const RECORDS: u64 = 9;

/// Any bytes as the answer to a batch: read or refused, and never more resolved than the answer permits (R34 to R36).
pub fn handler_response(input: &[u8]) {
    let said = Said::of(input);
    match BatchResponse::from_json(input) {
        Ok(response) => {
            let (stored, again) = answer(response);
            let expected = match said {
                Said::Unreadable => panic!("read although it is no JSON"),
                Said::Success => (Position::After(Seq::plain(RECORDS.to_string())), None),
                Said::Failed(1) | Said::AllFailed => (Position::TrimHorizon, Some(1)),
                Said::Failed(lowest) => (Position::After(Seq::plain((lowest - 1).to_string())), Some(lowest)),
            };
            assert_eq!((stored, again), expected);
        }
        Err(error) => assert!(said == Said::Unreadable, "{error}"),
    }
}

/// An answer's meaning, read in the most naive way.
#[derive(Debug, PartialEq)]
enum Said {
    Unreadable,
    Success,
    /// The lowest record that failed.
    Failed(u64),
    AllFailed,
}

impl Said {
    fn of(input: &[u8]) -> Self {
        if input.iter().all(u8::is_ascii_whitespace) {
            return Self::Success;
        }
        if std::str::from_utf8(input).is_err() {
            return Self::Unreadable;
        }
        if !input.trim_ascii_start().starts_with(b"{") {
            let is_json = serde_json::from_slice::<IgnoredAny>(input).is_ok();
            return if is_json { Self::Success } else { Self::Unreadable };
        }
        // What is not read may be anything, including halves of surrogate pairs.
        let Ok(mut fields) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(input) else {
            return Self::Unreadable;
        };
        let failures: Vec<Box<RawValue>> = match fields.remove("batchItemFailures") {
            None => return Self::Success,
            Some(text) if text.get() == "null" => return Self::Success,
            Some(text) => match serde_json::from_str(text.get()) {
                Ok(failures) => failures,
                Err(_) => return Self::AllFailed,
            },
        };
        // Sequence numbers are numbers: leading zeros do not matter.
        let number = |failure: &RawValue| -> Option<u64> {
            let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(failure.get()).ok()?;
            let text: String = serde_json::from_str(fields.get("itemIdentifier")?.get()).ok()?;
            let text = text.trim_start_matches('0');
            let number = text.parse().ok()?;
            (text.bytes().all(|byte| byte.is_ascii_digit()) && (1..=RECORDS).contains(&number))
                .then_some(number)
        };
        let numbers: Option<Vec<u64>> = failures.iter().map(|failure| number(failure)).collect();
        match numbers.map(|numbers| numbers.into_iter().min()) {
            None => Self::AllFailed,
            Some(None) => Self::Success,
            Some(Some(lowest)) => Self::Failed(lowest),
        }
    }
}

/// The checkpoint after this answer, and the first record that is invoked again.
fn answer(response: BatchResponse) -> (Position, Option<u64>) {
    let mapping =
        EventSourceMapping::builder("arn:aws:kinesis:us-east-1:000000000000:stream/orders", "function")
            .report_batch_item_failures(true)
            .build()
            .expect("a valid mapping");
    let mut now = Now { mono: Mono::from_millis(1), wall: Wall::from_millis(1_000) };
    let mut machine = ShardMachine::new(Arc::new(mapping), "shard".into(), Position::TrimHorizon, 1, now);
    let (mut response, mut stored, mut again) = (Some(response), Position::TrimHorizon, None);
    let mut page = Some(page());
    for _ in 0..100 {
        let Some(action) = machine.poll_action(now) else {
            let Some(next) = machine.poll_timeout(now) else { break };
            now.wall = now.wall + next.since(now.mono);
            now.mono = now.mono.max(next);
            continue;
        };
        match action {
            ShardAction::Open { .. } => machine.handle_event(now, ShardEvent::Opened),
            ShardAction::Fetch { .. } => {
                let page = page.take().unwrap_or_default();
                machine
                    .handle_event(now, ShardEvent::Fetched(intake(page, &Position::TrimHorizon, |_| true)));
            }
            ShardAction::Invoke(invocation) => match response.take() {
                Some(response) => {
                    let outcome = Outcome::Answered(response);
                    machine.handle_event(now, ShardEvent::Invoked { lane: invocation.lane, outcome });
                }
                None => again = again.or_else(|| first(&invocation.batch)),
            },
            ShardAction::Checkpoint { upto, .. } => {
                stored = upto;
                machine.handle_event(now, ShardEvent::Checkpointed);
            }
            other => panic!("{other:?}"),
        }
    }
    (stored, again)
}

fn page() -> Page {
    let record = |n: u64| Record::new(Seq::plain(n.to_string()), None, None, Data::Raw(Vec::new().into()));
    Page::new((1..=RECORDS).map(record).collect())
}

fn first(batch: &Batch) -> Option<u64> {
    batch.first()?.seq.number.as_str().parse().ok()
}
