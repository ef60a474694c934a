//! One function per invariant: judges a fact by what was booked before it.

use super::books::{Books, RunBooks, leading_successes};
use super::windows::{IDLE_CLOSE, LARGEST_STATE, millis, own_window};
use super::{Fact, Given, Seen, Setting};
use crate::event::{EventContext, encoded_len};
use crate::failure::Condition;
use crate::position::{Position, Seq};
use crate::record::{Batch, Record};
use crate::shard::{Exit, LaneId};
use crate::time::Wall;

pub(super) type Judge = fn(Setting<'_>, &Books, &Seen) -> Result<(), String>;

pub(super) const ALL: [(&str, Judge); 13] = [
    ("I1", i1),
    ("I2", i2),
    ("I3", i3),
    ("I4", i4),
    ("I5", i5),
    ("I6", i6),
    ("I7", i7),
    ("I8", i8),
    ("I10", i10),
    ("I13", i13),
    ("I14", i14),
    ("I15", i15),
    ("I16", i16),
];

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Whether a checkpoint at `upto` covers `record`.
fn covers(upto: &Position, record: &Seq) -> bool {
    match upto {
        Position::After(seq) => record <= seq,
        Position::ShardEnd => true,
        Position::At(seq) => record < seq,
        Position::TrimHorizon | Position::Latest | Position::AtTimestamp(_) => false,
    }
}

/// Whether a record needs no invocation any more: it succeeded, is discarded, or is too old to be invoked at all.
fn is_over_with(setting: Setting<'_>, run: &RunBooks, record: &Seq, now: Wall) -> bool {
    run.is_over_with(record)
        || run.discarded.contains(record)
        || setting.is_expired(record, now)
        || is_oversized(setting, record)
}

/// Whether a record alone is more than an event may hold (R24).
fn is_oversized(setting: Setting<'_>, seq: &Seq) -> bool {
    let (Some(limit), Some(record)) = (setting.mapping.payload_limit, setting.record(seq)) else {
        return false;
    };
    let cx = EventContext::new(setting.mapping, "shard".into());
    Batch::new(vec![record.clone()]).is_some_and(|batch| encoded_len(&batch, &cx, None) > limit)
}

/// The lane that a record is known to belong to: the one lane, its key's, or the first for a record without a key.
fn lane_of(setting: Setting<'_>, run: &RunBooks, seq: &Seq) -> Option<LaneId> {
    let key = setting.record(seq).and_then(Record::order_key);
    match key {
        _ if setting.mapping.parallelization_factor == 1 => Some(LaneId(0)),
        None => Some(LaneId(0)),
        Some(key) => run.lanes.get(key).copied(),
    }
}

/// I1: one invocation at a time on a lane, and as many lanes as configured; a key stays on its lane; a batch is an
/// unbroken run of its lane; nothing is invoked before all that came before it on its lane, or has its key, is over with.
fn i1(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let Fact::Invoked { lane, records, .. } = &seen.fact else { return Ok(()) };
    let run = &books.run;
    ensure(usize::from(lane.0) < setting.mapping.parallelization_factor, || format!("no {lane:?} here"))?;
    ensure(!run.in_flight.contains_key(lane), || format!("{lane:?} has an invocation in flight"))?;
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
    let stray = records.iter().find(|seq| lane_of(setting, run, seq).is_some_and(|own| own != *lane));
    ensure(stray.is_none(), || format!("{stray:?} is not of {lane:?}"))?;
    ensure(records.is_sorted_by(|a, b| a < b), || format!("{records:?} is out of order"))?;
    let unread = records.iter().find(|seq| !run.kept.contains(seq));
    ensure(unread.is_none(), || format!("{unread:?} was not read, or filtered out"))?;

    let keys: Vec<_> = records.iter().map(|seq| setting.record(seq).and_then(Record::order_key)).collect();
    let is_ours = |seq: &&Seq| {
        lane_of(setting, run, seq) == Some(*lane)
            || keys.contains(&setting.record(seq).and_then(Record::order_key))
    };
    let gap =
        run.kept.iter().filter(|seq| *seq > first && *seq < last && !records.contains(seq)).find(is_ours);
    ensure(gap.is_none(), || format!("{gap:?} is left out"))?;
    let before = run.kept.iter().filter(|seq| *seq < first).filter(is_ours);
    let early = before.into_iter().find(|seq| !is_over_with(setting, run, seq, seen.at.wall));
    ensure(early.is_none(), || format!("{first} is invoked before {early:?} is over with"))
}

/// I2: the checkpoint moves forward, and never passes a record that was read and is not resolved.
fn i2(_: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let (Fact::Storing(upto) | Fact::Stored(upto)) = &seen.fact else { return Ok(()) };
    if let Some(stored) = &books.stored {
        ensure(stored.may_advance_to(upto), || format!("{stored} moves to {upto}"))?;
    }
    let open = books.run.read.iter().find(|seq| covers(upto, seq) && !books.run.is_resolved(seq));
    ensure(open.is_none(), || format!("{upto} passes {open:?}"))
}

/// I3: a stored checkpoint covers no record of the stream that was not resolved, read or not; a run begins where the
/// store says; nothing is discarded that was not invoked as often as it may be or that is not too old.
fn i3(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    match &seen.fact {
        Fact::Begun(at) => match &books.stored {
            Some(stored) => ensure(at == stored, || format!("begins at {at}, stored is {stored}")),
            None => Ok(()),
        },
        Fact::Stored(upto) => {
            let ours = |seq: &&Seq| !books.start.as_ref().is_some_and(|start| covers(start, seq));
            let stream = setting.stream.iter().map(|record| &record.seq);
            let lost = stream.filter(ours).find(|seq| covers(upto, seq) && !books.is_resolved(seq));
            ensure(lost.is_none(), || format!("{upto} loses {lost:?}"))
        }
        Fact::Discarding(given) => {
            let Given { records, condition, at, count, final_of } = given;
            ensure(*count > 0, || format!("{given:?} was invoked, or counts as such (R29)"))?;
            if let Some(start) = final_of {
                return ensure(books.run.windows.is_given_up(*start), || {
                    "a final call with attempts left".into()
                });
            }
            let may_go = |seq: &&Seq| match condition {
                Condition::RecordAgeExceeded => setting.is_expired(seq, *at),
                Condition::RetryAttemptsExhausted => {
                    books.run.given_up.contains(*seq) || (records.len() == 1 && is_oversized(setting, seq))
                }
            };
            let early = records.iter().find(|seq| !may_go(seq));
            ensure(early.is_none(), || format!("{early:?} is discarded too early: {condition:?}"))
        }
        _ => Ok(()),
    }
}

/// I4: a batch is invoked at most 1 + `MaximumRetryAttempts` times, attempts that did not reach the function aside; an
/// unchanged batch keeps its request id, and no other batch has it (R20, R21, R23).
fn i4(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let Fact::Invoked { lane, records, request_id, .. } = &seen.fact else { return Ok(()) };
    let key = books.run.key(*lane, records);
    let spent = books.run.counted.get(&key).copied().unwrap_or(0);
    let over = setting.mapping.maximum_retry_attempts.is_some_and(|maximum| spent > maximum);
    ensure(!over, || format!("{records:?} is invoked after {spent} attempts"))?;
    match books.run.ids.get(&key) {
        Some(id) => ensure(id == request_id, || format!("{records:?} changes its request id")),
        None => {
            let taken = books.run.ids.values().any(|id| id == request_id);
            ensure(!taken, || format!("{records:?} has another batch's request id"))
        }
    }
}

/// I5: no invocation holds a record that is too old by the service's clock.
fn i5(setting: Setting<'_>, _: &Books, seen: &Seen) -> Result<(), String> {
    let Fact::Invoked { records, .. } = &seen.fact else { return Ok(()) };
    let old = records.iter().find(|seq| setting.is_expired(seq, seen.at.wall));
    ensure(old.is_none(), || format!("{old:?} is too old to be invoked"))
}

/// I6: a batch of n records is split at most n-1 times, so that it and its parts are at most 2n-1 batches.
fn i6(_: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let Fact::Invoked { lane, records, .. } = &seen.fact else { return Ok(()) };
    if records.is_empty() {
        return Ok(());
    }
    let of_lane = books.run.ids.keys().filter(|(own, known, _)| own == lane && !known.is_empty());
    let known: Vec<_> = of_lane.map(|(_, known, _)| known).collect();
    let within = |part: &[Seq], whole: &[Seq]| part.first() >= whole.first() && part.last() <= whole.last();
    let whole = known.iter().filter(|whole| within(records, whole)).max_by_key(|whole| whole.len());
    let Some(whole) = whole else { return Ok(()) };
    let parts = known.iter().filter(|part| within(part, whole)).count();
    let parts = parts + usize::from(!known.contains(&records));
    ensure(parts < 2 * whole.len(), || format!("{} records became {parts} batches", whole.len()))
}

/// I7: what comes next is what the last answer left: nothing that succeeded, and first the lowest record that failed.
fn i7(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let Fact::Invoked { lane, records, .. } = &seen.fact else { return Ok(()) };
    let again = records.iter().find(|seq| books.run.is_over_with(seq));
    ensure(again.is_none(), || format!("{again:?} is resolved and delivered again"))?;
    let (false, Some((before, outcome))) = (records.is_empty(), books.run.last.get(lane)) else {
        return Ok(());
    };
    let left = before.get(leading_successes(setting.mapping, before, outcome)..).unwrap_or_default();
    let lowest = left.iter().find(|seq| !setting.is_expired(seq, seen.at.wall));
    match lowest {
        Some(lowest) if !books.run.given_up.contains(lowest) => {
            ensure(records.first() == Some(lowest), || format!("{lowest} failed, {records:?} follows"))
        }
        _ => Ok(()),
    }
}

/// I10: without a lease, and after the end of the run, nothing starts.
fn i10(_: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    if let Fact::Begun(_) = seen.fact {
        return Ok(());
    }
    let starts = matches!(
        seen.fact,
        Fact::Opened(_) | Fact::Fetching | Fact::Invoked { .. } | Fact::Discarding(_) | Fact::Storing(_)
    );
    ensure(!(starts && books.run.lease_lost), || "started without a lease".into())?;
    ensure(!books.run.exited, || "something after the exit".into())
}

/// I13: no page is asked for while the records in hand fill the shard's buffer.
fn i13(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let Fact::Fetching = seen.fact else { return Ok(()) };
    let in_hand = books.run.kept.iter().filter(|seq| !books.run.is_off_hands(seq));
    let bytes: usize = in_hand.filter_map(|seq| Some(setting.record(seq)?.footprint())).sum();
    let limit = setting.mapping.polling.buffer_bytes;
    ensure(bytes == 0 || bytes < limit, || format!("{bytes} bytes are buffered of {limit}"))
}

/// I14: within a run every record of the stream is read once and in order; the shard is opened again after the last
/// record that was read, or at the run's start if none was.
fn i14(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    match &seen.fact {
        Fact::Opened(at) => {
            let expected = match books.run.read.last() {
                Some(last) => Some(Position::After(last.clone())),
                None => books.run.began_at.clone(),
            };
            ensure(expected.as_ref() == Some(at), || format!("opened at {at}, expected {expected:?}"))
        }
        Fact::Read { kept, filtered, .. } => {
            let mut page: Vec<_> = kept.iter().chain(filtered).collect();
            page.sort();
            let read = books.run.read.last();
            let began = books.run.began_at.as_ref();
            let is_new = |seq: &&Seq| match read {
                Some(last) => *seq > last,
                None => !began.is_some_and(|began| covers(began, seq)),
            };
            // A start by time begins with the first record that was read.
            let by_time = read.is_none() && matches!(began, Some(Position::AtTimestamp(_)));
            let first = page.first().copied();
            let stream = setting.stream.iter().map(|record| &record.seq);
            let due = stream.filter(is_new).skip_while(|seq| by_time && Some(*seq) != first);
            let gap = page.iter().zip(due).find(|(read, due)| **read != *due);
            ensure(gap.is_none(), || format!("read and due differ: {gap:?}"))
        }
        _ => Ok(()),
    }
}

/// I15: "the newest record" is pinned to a time before anything is read or stored, and the time is kept.
fn i15(_: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    match &seen.fact {
        Fact::Begun(at) | Fact::Opened(at) | Fact::Storing(at) if *at == Position::Latest => {
            Err(format!("{at} is not pinned"))
        }
        Fact::Opened(at @ Position::AtTimestamp(_)) => {
            let began = books.run.began_at.as_ref();
            ensure(began == Some(at), || format!("opened at {at}, pinned is {began:?}"))
        }
        _ => Ok(()),
    }
}

/// I16: after a stop no open, fetch or invocation starts; the run ends when nothing is in flight or the deadline has
/// passed, with the checkpoint at the last resolved record unless the store failed.
fn i16(_: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let run = &books.run;
    match &seen.fact {
        Fact::Opened(_) | Fact::Fetching | Fact::Invoked { .. } => {
            ensure(run.stopping.is_none(), || "started after a stop".into())
        }
        Fact::Exited(Exit::Stopped { cut }) => {
            let deadline = run.stopping.ok_or("stopped unasked")?;
            let in_flight = run.in_flight.len();
            ensure((in_flight..=in_flight + run.late).contains(cut), || {
                format!("{in_flight} in flight, {cut} said to be cut")
            })?;
            let is_late = seen.at.mono >= deadline;
            ensure(*cut == 0 || is_late, || "cut before the deadline".into())?;
            // Filtered records below an unresolved one may wait for it.
            let prefix = run.read.iter().take_while(|seq| run.is_resolved(seq));
            let prefix = prefix.filter(|seq| run.kept.contains(seq)).last();
            let flushed = prefix.is_none_or(|last| books.stored.as_ref().is_some_and(|at| covers(at, last)));
            ensure(flushed || run.store_failed || is_late, || {
                format!("{prefix:?} is resolved and not stored")
            })
        }
        Fact::Exited(Exit::ShardEnd) => {
            ensure(books.stored == Some(Position::ShardEnd), || "the end is not stored".into())
        }
        _ => Ok(()),
    }
}

/// I8: a window's state passes from call to call, from `{}`; one final call per window, when the window is over or its
/// state too large; no record is in a window before its own, and none comes again in a later one than before.
fn i8(setting: Setting<'_>, books: &Books, seen: &Seen) -> Result<(), String> {
    let size = setting.mapping.tumbling_window.map(millis);
    if let Fact::Exited(Exit::ShardEnd) = seen.fact {
        return ensure(books.run.windows.open().is_none(), || "the shard ends with an open window".into());
    }
    let Fact::Invoked { records, window, .. } = &seen.fact else { return Ok(()) };
    let (size, call) = match (size, window) {
        (None, None) => return ensure(!records.is_empty(), || "an empty batch".into()),
        (Some(size), Some(call)) => (size, call),
        _ => return Err(format!("windows are {size:?}, the invocation's is {window:?}")),
    };
    let (start, end) = (call.start.as_millis(), call.end.as_millis());
    ensure(start.rem_euclid(size) == 0 && end == start + size, || format!("{start} to {end} is no window"))?;
    ensure(records.is_empty() == call.is_final, || "final calls and no others are empty".into())?;
    let open = books.run.windows.open();
    let state = open.map_or(&b"{}"[..], |open| &open.state);
    ensure(call.state == state, || format!("the state is {} bytes, not {}", call.state.len(), state.len()))?;
    let is_too_large = state.len() > LARGEST_STATE;
    ensure(call.is_terminated_early == is_too_large, || format!("early: {is_too_large}"))?;
    if let Some(open) = open {
        ensure(open.start == call.start, || "another window is open".into())?;
    }
    if call.is_final {
        ensure(open.is_some(), || "a final call, and no window is open".into())?;
        let later = |seq: &Seq| own_window(setting, seq, size).is_some_and(|own| own > call.start);
        let is_over = is_too_large
            || books.run.ended
            || seen.at.wall.as_millis() >= end + IDLE_CLOSE
            || books.run.kept.iter().any(later);
        return ensure(is_over, || "a final call before its time".into());
    }
    let own = records.iter().map(|seq| own_window(setting, seq, size));
    let early = own.flatten().find(|own| *own > call.start);
    ensure(early.is_none(), || format!("a record of {early:?} in the window {start}"))?;
    // What comes again does not come in a later window, unless it is late for its own this time.
    let strayed = records.iter().filter(|seq| setting.record(seq).is_some_and(|r| r.arrival.is_some()));
    let strayed = strayed
        .filter_map(|seq| books.in_window.get(seq))
        .find(|before| **before < call.start && !books.run.windows.has_closed(**before));
    ensure(strayed.is_none(), || format!("a record of the window {strayed:?} comes again in {start}"))?;
    match (open, records.first().and_then(|first| own_window(setting, first, size))) {
        (None, Some(own)) => {
            let expected = books.run.windows.opens_at(own, size);
            // A window that an earlier run has closed stays closed, if that is stored.
            let is_closed_for_good =
                books.run.windows.count() == 0 && start > own.as_millis() && books.closed.contains(&start);
            ensure(call.start == expected || is_closed_for_good, || {
                format!("opens {start}, not {expected:?}")
            })
        }
        _ => Ok(()),
    }
}
