//! The commands that both services share: faults and the log of calls.

use super::Refused;
use crate::service::{Calls, Fault, Faults, InjectedFault, Operation};
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The calls that `calls` returns unless it is asked for more.
const SHOWN_CALLS: usize = 100;

/// Which calls a fault strikes, and what it does to them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Injection {
    /// All operations without it.
    operation: Option<String>,
    shard: Option<String>,
    signed_by: Option<String>,
    signed_off_ms: Option<u64>,
    #[serde(default)]
    skip: u64,
    times: Option<u64>,
    #[serde(default)]
    always: bool,
    fault: Fault,
}

/// The faults that commands injected, by number. Those that are used up stay, for their hits.
#[derive(Debug)]
pub(super) struct Injected {
    faults: Mutex<BTreeMap<u64, InjectedFault>>,
    began: Instant,
}

impl Default for Injected {
    fn default() -> Self {
        Self { faults: Mutex::default(), began: Instant::now() }
    }
}

impl Injected {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, InjectedFault>> {
        self.faults.lock()
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn inject(&self, faults: &Faults, injection: Injection) -> Result<Value, Refused> {
        let Injection { operation, shard, signed_by, signed_off_ms, skip, times, always, fault } = injection;
        let refused = |text: &str| Err(Refused::Unreadable(format!("inject-fault: {text}")));
        match (&fault, times) {
            (Fault::Error { status, .. }, _) if !(400..=599).contains(status) => {
                return refused(&format!("status {status} must be between 400 and 599"));
            }
            (_, Some(_)) if always => return refused("either times or always, not both"),
            (_, Some(0)) => return refused("times must be at least 1"),
            _ => {}
        }
        let operation = operation.as_deref().map(self::operation).transpose()?;
        let mut rule = operation.map_or_else(|| faults.on_any(), |operation| faults.on(operation)).skip(skip);
        if let Some(shard) = shard {
            rule = rule.shard(shard);
        }
        if let Some(key) = signed_by {
            rule = rule.signed_by(key);
        }
        if let Some(off) = signed_off_ms {
            rule = rule.signed_off(Duration::from_millis(off));
        }
        rule = if always { rule.always() } else { rule.times(times.unwrap_or(1)) };
        let injected = rule.inject(fault);
        let id = injected.id();
        self.lock().insert(id, injected);
        Ok(json!({ "id": id }))
    }

    /// What was injected and how many calls each has struck.
    pub(super) fn list(&self) -> Value {
        let one = |(id, fault): (&u64, &InjectedFault)| json!({"id": id, "hits": fault.hits()});
        json!({ "faults": self.lock().iter().map(one).collect::<Vec<_>>() })
    }

    pub(super) fn remove(&self, id: u64) -> Result<Value, Refused> {
        match self.lock().remove(&id) {
            Some(fault) => {
                fault.remove();
                Ok(json!({ "hits": fault.hits() }))
            }
            None => Err(Refused::Unreadable(format!(
                "remove-fault: there is no fault {id}; `faults` shows those that there are"
            ))),
        }
    }

    /// Removes all, also those that were not injected by commands.
    pub(super) fn remove_all(&self, faults: &Faults) -> Value {
        faults.clear();
        self.clear();
        json!({})
    }

    /// How many calls came, how many of them at most within a second, and the last ones.
    pub(super) fn calls(&self, calls: &Calls, asked: CallsAsked) -> Result<Value, Refused> {
        let mut calls = calls.clone();
        if let Some(name) = asked.operation {
            calls = calls.of(operation(&name)?);
        }
        if let Some(shard) = asked.shard {
            calls = calls.shard(&shard);
        }
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from).as_millis();
        let shown = calls.len().saturating_sub(asked.last.unwrap_or(SHOWN_CALLS));
        let one = |call: &crate::service::Call| {
            json!({
                "operation": call.operation.name(), "shard": call.shard, "status": call.status, "error": call.error,
                "atMs": since(self.began, call.at), "tookMs": call.ended.map(|end| since(call.at, end)),
            })
        };
        Ok(json!({
            "count": calls.len(),
            "maxPerSecond": calls.max_within(Duration::from_secs(1)),
            "last": calls.iter().skip(shown).map(one).collect::<Vec<_>>(),
        }))
    }
}

/// Which calls `calls` returns.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CallsAsked {
    operation: Option<String>,
    shard: Option<String>,
    last: Option<usize>,
}

fn operation(name: &str) -> Result<Operation, Refused> {
    let found = Operation::ALL.iter().copied().find(|operation| operation.name() == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = Operation::ALL.iter().map(|operation| operation.name()).collect();
        Refused::Unreadable(format!("operation {name} is unknown; there are {}", known.join(", ")))
    })
}
