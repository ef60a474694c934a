//! When LATEST begins: at the first try, whenever the stream or its first shard is found (I15).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shardmill_checkpoint::Lease;
use shardmill_engine::{EventSource, EventSourceMapping, LeaseKey, Mono, Position, Wall};
use tokio::time::Instant;

use crate::clock::ServiceClock;
use crate::keeper::{KeeperError, Leases};
use crate::notes::PINNED_START;

/// How long the first leases wait for a clock in doubt, so that a host whose clock is off starts where it should.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pinned time that is further back than this many milliseconds may lie in shards that are closed by now.
const REACHES_BACK_MS: i64 = 3000;

/// How long a DynamoDB stream keeps records.
const DYNAMODB_RETENTION: Duration = Duration::from_hours(24);

/// The start of a mapping under LATEST.
#[derive(Debug)]
pub(crate) struct Pin {
    /// When this run's consumer was built.
    first_try: Mono,
    /// What an earlier run has noted.
    noted: OnceLock<Option<Noted>>,
    /// The note is gone again.
    forgotten: AtomicBool,
    /// Since when the first leases wait for the clock.
    waits_since: OnceLock<Instant>,
}

/// The first try of an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    at: i64,
    /// The service's clock was not known then.
    by_host: bool,
}

impl Noted {
    fn parse(text: &str) -> Option<Self> {
        let (at, clock) = text.split_once(' ')?;
        Some(Self { at: at.parse().ok()?, by_host: clock != "service" })
    }

    fn text(self) -> String {
        format!("{} {}", self.at, if self.by_host { "host" } else { "service" })
    }
}

impl Pin {
    /// The first try is now.
    pub(crate) fn new(clock: &ServiceClock) -> Self {
        Self {
            first_try: clock.now().mono,
            noted: OnceLock::new(),
            forgotten: AtomicBool::new(false),
            waits_since: OnceLock::new(),
        }
    }

    /// Stores the first try, before the stream is asked, unless the stream has leases: they know where they begin.
    pub(crate) async fn note(
        &self,
        mapping: &EventSourceMapping,
        leases: &Leases,
        known: &[Lease],
        clock: &ServiceClock,
    ) -> Result<(), KeeperError> {
        let source = mapping.event_source();
        let is_pinned = known.iter().any(|lease| is_of(source, &lease.key));
        if *mapping.starting_position() != Position::Latest || is_pinned || self.noted.get().is_some() {
            return Ok(());
        }
        let at = clock.earliest_at(self.first_try).as_millis();
        let own = Noted { at, by_host: !clock.is_known() }.text();
        let kept = leases.note(name(source), own.clone()).await?;
        // Another worker's, or an earlier run's; this run's own is known better, as the clock is.
        let _ = self.noted.set(kept.filter(|kept| *kept != own).as_deref().and_then(Noted::parse));
        Ok(())
    }

    /// The leases exist and hold the time: nothing is to be noted any more.
    pub(crate) async fn forget(&self, mapping: &EventSourceMapping, leases: &Leases) {
        if *mapping.starting_position() != Position::Latest {
            return;
        }
        match leases.forget_note(name(mapping.event_source())).await {
            Ok(_) => self.forgotten.store(true, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(%error, "the note of the first start stays: it is not looked at while there are leases");
            }
        }
    }

    /// Whether this run has stored a note that is not needed once there are leases, of any worker.
    pub(crate) fn has_noted(&self) -> bool {
        self.noted.get().is_some() && !self.forgotten.load(Ordering::Relaxed)
    }

    /// Whether the first leases are to wait a little for the service's clock.
    pub(crate) fn waits_for_clock(&self, clock: &ServiceClock) -> bool {
        clock.doubt().is_some() && self.waits_since.get_or_init(Instant::now).elapsed() < PATIENCE
    }

    /// The time of the first try by the service's clock, cut to the second; earlier if the clock is not certain.
    ///
    /// `answered` is the service's time of the last answer, for sources that follow no clock of their own.
    fn time(&self, clock: &ServiceClock, answered: Option<Wall>) -> i64 {
        let now = clock.now();
        let mut at = clock.earliest_at(self.first_try);
        if let Some(answered) = answered {
            at = at.min(answered - now.mono.since(self.first_try));
        }
        if let Some(Some(noted)) = self.noted.get() {
            let mut then = noted.at;
            if noted.by_host {
                // It may have been another host's clock.
                let behind = clock.earliest_at(now.mono).as_millis() - clock.host_at(now.mono).as_millis();
                then = then.saturating_add(behind.min(0));
            }
            at = at.min(Wall::from_millis(then));
        }
        // The service's clock is known to the second only: an earlier start delivers a second's records more, a later one
        // would skip some.
        at.as_millis().div_euclid(1000) * 1000
    }

    /// Where a stream begins whose leases are `known`; `others` are those of other streams, an earlier one of this name
    /// among them. The latter's time still holds: everything in the new stream was written after it.
    pub(crate) fn of_stream(
        &self,
        stream: &LeaseKey,
        (known, others): (&[Lease], &[Lease]),
        clock: &ServiceClock,
        answered: Option<Wall>,
    ) -> i64 {
        let pinned = |lease: &Lease| lease.app.get(PINNED_START)?.parse::<i64>().ok();
        if let Some(pinned) = known.iter().filter_map(pinned).min() {
            return pinned;
        }
        let is_earlier = |lease: &&Lease| {
            let key = &lease.key;
            (&key.account, &key.region, &key.stream) == (&stream.account, &stream.region, &stream.stream)
        };
        let earlier = others.iter().filter(is_earlier).filter_map(pinned).min();
        let at = earlier.unwrap_or_else(|| self.time(clock, answered));
        // The epoch is the time at which the stream was created: nothing in it is older, and nothing of it was lost
        // before.
        let made = made_at(&stream.epoch);
        let now = clock.earliest_at(clock.now().mono).as_millis();
        made.filter(|made| *made <= now).map_or(at, |made| made.max(at))
    }
}

/// Whether a start lies so far back that shards may have closed since.
pub(crate) fn reaches_back(pinned: i64, clock: &ServiceClock) -> bool {
    clock.now().wall.as_millis().saturating_sub(pinned) > REACHES_BACK_MS
}

/// What no listing can show any more of a DynamoDB stream: it drops records and shards silently (I17).
pub(crate) fn lost_before(pinned: i64, is_dynamodb: bool, clock: &ServiceClock) -> Option<String> {
    let oldest = (clock.earliest_at(clock.now().mono) - DYNAMODB_RETENTION).as_millis();
    (is_dynamodb && pinned < oldest).then(|| {
        format!(
            "LATEST began {} hours ago and the stream could not be read since: it keeps records for 24 hours, what was \
             written before that is lost",
            (clock.now().wall.as_millis() - pinned) / 3_600_000
        )
    })
}

/// When a stream was made, in milliseconds since 1970: the seconds of a Kinesis stream's epoch, or the label of a DynamoDB
/// stream, such as `2026-11-27T10:09:04.123` (UTC).
fn made_at(epoch: &str) -> Option<i64> {
    if let Ok(seconds) = epoch.parse::<i64>() {
        return seconds.checked_mul(1000);
    }
    let (date, time) = epoch.split_once('T')?;
    let numbers = |text: &str, separator: char| -> Option<Vec<i64>> {
        text.split(separator).map(|part| part.parse().ok()).collect()
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let ([year, month, day], [hour, minute, second]) =
        (numbers(date, '-')?.try_into().ok()?, numbers(time, ':')?.try_into().ok()?);
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    // Days since 1970, counted in years that begin in March so that a leap day is a year's last.
    let (year, month): (i64, i64) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

fn is_of(source: &EventSource, key: &LeaseKey) -> bool {
    (&*key.account, &*key.region, &*key.stream)
        == (source.arn.account(), source.arn.region(), &*source.stream)
}

/// An application may come to read another stream: each has its note.
fn name(source: &EventSource) -> String {
    format!("{PINNED_START} {}/{}/{}", source.arn.account(), source.arn.region(), source.stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_as_it_was_written_and_another_text_is_none() {
        for by_host in [true, false] {
            let noted = Noted { at: 1_790_000_000_123, by_host };
            assert_eq!(Noted::parse(&noted.text()), Some(noted));
        }
        assert_eq!((Noted::parse(""), Noted::parse("soon host")), (None, None));
    }

    #[test]
    fn a_stream_says_when_it_was_made() {
        assert_eq!(made_at("1790000000"), Some(1_790_000_000_000));
        assert_eq!(made_at("1970-01-01T00:00:00.000"), Some(0));
        assert_eq!(made_at("2000-02-29T23:59:59.9"), Some(951_868_799_900));
        assert_eq!(made_at("2026-11-27T10:09:04.123"), Some(1_795_774_144_123));
        assert_eq!([made_at(""), made_at("label"), made_at("2026-11T10:00")], [None; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn incident_98_a_noted_start_counts_if_it_is_earlier_whatever_the_clocks_say() {
        let host = 1_790_000_000_000;
        let clock = ServiceClock::starting_at(Wall::from_millis(host));
        let pin = Pin::new(&clock);
        assert!((pin.time(&clock, None) - host).abs() <= 1000);
        let answered = Some(Wall::from_millis(host - 60_000));
        assert!((pin.time(&clock, answered) - host + 60_000).abs() <= 1000, "a source without a clock");
        pin.noted.set(Some(Noted { at: host - 90_500, by_host: true })).unwrap();
        assert_eq!(pin.time(&clock, None), host - 91_000, "cut to the second");
        assert!(reaches_back(pin.time(&clock, None), &clock));
    }

    #[tokio::test(start_paused = true)]
    async fn incident_98_only_what_a_dynamodb_stream_no_longer_keeps_is_lost_before_the_first_listing() {
        let now = 1_790_000_000_000;
        let clock = ServiceClock::starting_at(Wall::from_millis(now));
        let hours = |n: i64| now - n * 3_600_000;
        assert_eq!(lost_before(hours(23), true, &clock), None);
        assert_eq!(lost_before(hours(30), false, &clock), None, "Kinesis: each shard shows it");
        assert!(lost_before(hours(30), true, &clock).unwrap().contains("30 hours ago"));
    }
}
