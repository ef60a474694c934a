//! Fault hooks: what goes wrong, for which calls, how often.

use super::{Operation, Shape, Signature, millis};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Deserializer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Something that goes wrong with a call.
///
/// Several rules may match one call; their faults add up: latencies are summed, then the call hangs or is disconnected,
/// then the first error answers it, else it is carried out with all page and listing faults, and its answer may at
/// last be replaced, cut and slowed down.
///
/// In JSON, a fault is its name, or an object of the name and what the fault needs; names that end in `Ms` take
/// milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum Fault {
    /// `ProvisionedThroughputExceededException`, as a shard read or written too fast answers.
    Throttle,
    /// `LimitExceededException`, as control operations called too fast answer.
    LimitExceeded,
    /// HTTP 500 `InternalFailure`.
    InternalFailure,
    /// `ExpiredIteratorException`, regardless of the iterator's age.
    ExpiredIterator,
    /// `ExpiredNextTokenException`, regardless of the token's age.
    ExpiredNextToken,
    /// `TrimmedDataAccessException`, as DynamoDB Streams answer once what an iterator points to has expired.
    TrimmedData,
    /// `AccessDeniedException`: the caller may not do this.
    AccessDenied,
    /// `UnrecognizedClientException`: the credentials are not known.
    UnrecognizedClient,
    /// Any other error.
    Error {
        /// HTTP status, 400 to 599 (not checked).
        status: u16,
        /// The `__type` of the answer.
        code: String,
        /// The `message` of the answer.
        message: String,
    },
    /// The call is carried out, and answered, so much later.
    #[serde(rename = "LatencyMs", deserialize_with = "milliseconds")]
    Latency(Duration),
    /// The call is not carried out and never answered.
    Hang,
    /// The call is not carried out; the connection ends without an answer.
    Disconnect,
    /// The call is carried out, but the connection ends after half of the answer's body.
    CutBody,
    /// The same after so many bytes of the body.
    CutBodyAfter(usize),
    /// The call is carried out, but the answer's body is HTTP 200 with something that is not JSON.
    GarbageBody,
    /// The call is carried out, but the answer is HTTP 200 with this body: an empty one, `{}`, JSON of another kind.
    Body(String),
    /// The answer's headers come at once, its body in ten pieces over so long a time.
    #[serde(rename = "SlowBodyMs", deserialize_with = "milliseconds")]
    SlowBody(Duration),
    /// The answer's `Date` is so far off the fake's clock, in milliseconds.
    #[serde(rename = "DateOffMs")]
    DateOff(i64),
    /// `GetRecords`: no records, and an iterator to the same place.
    EmptyPage,
    /// `GetRecords`: at most so many records.
    PartialPage(usize),
    /// `GetRecords`: no `NextShardIterator` and no `ChildShards`, though the shard may continue.
    NullIterator,
    /// `ListShards`, `DescribeStream`: this shard is left out.
    OmitShard(String),
    /// `ListShards`, `DescribeStream`: the children of this shard are left out.
    OmitChildrenOf(String),
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

const GARBAGE: &[u8] = b"\x00\xff<html>this is no JSON {\"Records\":[";

/// What a call's faults come to.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub latency: Duration,
    pub hang: bool,
    pub disconnect: bool,
    pub error: Option<(u16, String, String)>,
    pub shape: Shape,
    pub cut: Option<Cut>,
    /// Takes the place of the answer's body.
    pub body: Option<Bytes>,
    /// How long the body takes.
    pub slow: Duration,
    /// How far off the date is, in milliseconds.
    pub date_off: i64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    Half,
    After(usize),
}

impl Plan {
    fn add(&mut self, fault: Fault) {
        let error =
            |status: u16, code: &str, message: &str| Some((status, code.to_owned(), message.to_owned()));
        let found = match fault {
            Fault::Throttle => {
                error(400, "ProvisionedThroughputExceededException", "Rate exceeded for shard (injected).")
            }
            Fault::LimitExceeded => error(400, "LimitExceededException", "Rate exceeded (injected)."),
            Fault::InternalFailure => error(500, "InternalFailure", "Internal service failure (injected)."),
            Fault::ExpiredIterator => error(400, "ExpiredIteratorException", "Iterator expired (injected)."),
            Fault::ExpiredNextToken => {
                error(400, "ExpiredNextTokenException", "NextToken expired (injected).")
            }
            Fault::TrimmedData => error(
                400,
                "TrimmedDataAccessException",
                "The operation attempted to read past the oldest stream record (injected).",
            ),
            Fault::AccessDenied => error(
                400,
                "AccessDeniedException",
                "User is not authorized to perform this action (injected).",
            ),
            Fault::UnrecognizedClient => error(
                400,
                "UnrecognizedClientException",
                "The security token included in the request is invalid (injected).",
            ),
            Fault::Error { status, code, message } => Some((status, code, message)),
            other => return self.bend(other),
        };
        self.error = self.error.take().or(found);
    }

    fn bend(&mut self, fault: Fault) {
        match fault {
            Fault::Latency(d) => self.latency += d,
            Fault::Hang => self.hang = true,
            Fault::Disconnect => self.disconnect = true,
            Fault::CutBody => self.cut = Some(Cut::Half),
            Fault::CutBodyAfter(n) => self.cut = Some(Cut::After(n)),
            Fault::GarbageBody => self.body = Some(Bytes::from_static(GARBAGE)),
            Fault::Body(text) => self.body = Some(text.into()),
            Fault::SlowBody(d) => self.slow += d,
            Fault::DateOff(ms) => self.date_off += ms,
            Fault::EmptyPage => self.shape.max_records = Some(0),
            Fault::PartialPage(n) => {
                self.shape.max_records = Some(self.shape.max_records.map_or(n, |m| m.min(n)));
            }
            Fault::NullIterator => self.shape.null_iterator = true,
            Fault::OmitShard(id) => self.shape.omit.push(id),
            Fault::OmitChildrenOf(id) => self.shape.omit_children_of.push(id),
            _ => {}
        }
    }
}

#[derive(Debug)]
struct Rule {
    id: u64,
    operation: Option<Operation>,
    shard: Option<String>,
    signed_by: Option<String>,
    signed_off: Option<Duration>,
    skip: u64,
    left: Option<u64>,
    fault: Fault,
    hits: Arc<AtomicU64>,
}

impl Rule {
    fn fits(&self, operation: Operation, shard: Option<&str>, signature: &Signature, now_ms: u64) -> bool {
        let off_by = |at: i64| at.abs_diff(i64::try_from(now_ms).unwrap_or(i64::MAX));
        self.operation.is_none_or(|op| op == operation)
            && self.shard.as_deref().is_none_or(|wanted| shard == Some(wanted))
            && self.signed_by.as_deref().is_none_or(|key| signature.access_key == key)
            && self.signed_off.is_none_or(|off| signature.at_ms.is_some_and(|at| off_by(at) >= millis(off)))
    }
}

#[derive(Debug, Default)]
struct Rules {
    next_id: u64,
    rules: Vec<Rule>,
}

/// The fault rules of one fake. Cheap to clone; clones share the rules.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Rules>>);

impl Faults {
    /// Begins a rule for one operation.
    pub fn on(&self, operation: Operation) -> FaultRule {
        FaultRule { operation: Some(operation), ..self.on_any() }
    }

    /// Begins a rule for every operation.
    pub fn on_any(&self) -> FaultRule {
        FaultRule {
            faults: self.clone(),
            operation: None,
            shard: None,
            signed_by: None,
            signed_off: None,
            skip: 0,
            times: Some(1),
        }
    }

    /// Removes all rules. Calls that hang already keep hanging.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    /// The faults of the call that comes now; uses up what they allow.
    pub(crate) fn plan(
        &self,
        operation: Operation,
        shard: Option<&str>,
        signature: &Signature,
        now_ms: u64,
    ) -> Plan {
        let mut plan = Plan::default();
        let mut state = self.lock();
        for rule in &mut state.rules {
            if rule.left == Some(0) || !rule.fits(operation, shard, signature, now_ms) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.left = rule.left.map(|left| left - 1);
            rule.hits.fetch_add(1, Ordering::Relaxed);
            plan.add(rule.fault.clone());
        }
        state.rules.retain(|rule| rule.left != Some(0));
        plan
    }

    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.0.lock()
    }
}

/// A rule under construction: which calls. [`inject`](Self::inject) or [`hold`](Self::hold) decides what happens to
/// them.
#[derive(Debug, Clone)]
#[must_use = "a rule takes effect with `inject` or `hold`"]
pub struct FaultRule {
    faults: Faults,
    operation: Option<Operation>,
    shard: Option<String>,
    signed_by: Option<String>,
    signed_off: Option<Duration>,
    skip: u64,
    times: Option<u64>,
}

impl FaultRule {
    /// Only calls about this shard: `GetRecords`, `GetShardIterator`, `SplitShard`, `MergeShards` (its first shard).
    /// Other calls do not say which shard they are about and never match.
    pub fn shard(mut self, id: impl Into<String>) -> Self {
        self.shard = Some(id.into());
        self
    }

    /// Only calls that are signed with this access key: those of credentials that have expired, say.
    pub fn signed_by(mut self, access_key: impl Into<String>) -> Self {
        self.signed_by = Some(access_key.into());
        self
    }

    /// Only calls whose signature's time differs by so much or more from the fake's clock. AWS refuses more than 5 minutes.
    pub fn signed_off(mut self, by: Duration) -> Self {
        self.signed_off = Some(by);
        self
    }

    /// Lets so many matching calls through first.
    pub fn skip(mut self, calls: u64) -> Self {
        self.skip = calls;
        self
    }

    /// Only the next so many calls; 1 unless said otherwise.
    pub fn times(mut self, calls: u64) -> Self {
        self.times = Some(calls);
        self
    }

    /// All calls, until the rule is removed.
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    /// Adds the rule. It stays until it is used up or removed.
    pub fn inject(self, fault: Fault) -> InjectedFault {
        let hits = Arc::new(AtomicU64::new(0));
        let Self { faults, operation, shard, signed_by, signed_off, skip, times: left } = self;
        let mut state = faults.lock();
        state.next_id += 1;
        let (id, struck) = (state.next_id, Arc::clone(&hits));
        state.rules.push(Rule {
            id,
            operation,
            shard,
            signed_by,
            signed_off,
            skip,
            left,
            fault,
            hits: struck,
        });
        drop(state);
        InjectedFault { id, hits, faults }
    }

    /// Adds the rule for all calls until the guard is dropped.
    pub fn hold(self, fault: Fault) -> FaultGuard {
        FaultGuard(self.always().inject(fault))
    }
}

/// A rule in force. Dropping this handle leaves the rule in place.
#[derive(Debug)]
pub struct InjectedFault {
    id: u64,
    hits: Arc<AtomicU64>,
    faults: Faults,
}

impl InjectedFault {
    /// Distinguishes it from the other rules of its fake.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// How many calls the fault has struck.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Takes the rule away.
    pub fn remove(&self) {
        self.faults.lock().rules.retain(|rule| rule.id != self.id);
    }
}

/// A rule that lasts as long as this guard.
#[derive(Debug)]
#[must_use = "the fault ends when the guard is dropped"]
pub struct FaultGuard(InjectedFault);

impl FaultGuard {
    /// How many calls the fault has struck.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.0.hits()
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        self.0.remove();
    }
}
