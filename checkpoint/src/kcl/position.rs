//! KCL's checkpoints and ours.
//!
//! KCL stores the last record that was processed, or a sentinel without its time. What that cannot say stands in an
//! attribute of our own, which counts as long as KCL's are as they were written with it.

use aws_sdk_dynamodb::types::AttributeValue;
use shardmill_engine::{Position, Seq};

use crate::table::attributes::{Reader, Update, number, text};

pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const SUB: &str = "checkpointSubSequenceNumber";
/// Our position where KCL's checkpoint says less.
const EXACT: &str = "shardmillCheckpoint";
/// A checkpoint that KCL's application was preparing: any later one makes it void.
const PENDING: [&str; 3] =
    ["pendingCheckpoint", "pendingCheckpointSubSequenceNumber", "pendingCheckpointState"];

/// What positions without a time of their own mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Where `LATEST` begins: KCL has it for a shard that it has not checkpointed yet (I15).
    pub(super) latest: i64,
    /// Where `AT_TIMESTAMP` begins, if that is known.
    pub(super) at_timestamp: Option<i64>,
}

/// A row's checkpoint as KCL has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) checkpoint: AttributeValue,
    pub(super) sub: Option<AttributeValue>,
}

pub(super) fn read(read: Reader<'_>, times: Times) -> Result<Position, String> {
    let (base, sub) = (read.required_text(CHECKPOINT)?, read.number::<u64>(SUB)?.unwrap_or_default());
    let exact = read.text(EXACT)?.and_then(parse);
    if let Some(exact) = exact.filter(|exact| is_meant(exact, base, sub)) {
        return Ok(exact);
    }
    match base {
        "TRIM_HORIZON" => Ok(Position::TrimHorizon),
        "SHARD_END" => Ok(Position::ShardEnd),
        "LATEST" => Ok(Position::AtTimestamp(times.latest)),
        "AT_TIMESTAMP" => times.at_timestamp.map(Position::AtTimestamp).ok_or_else(|| {
            "has AT_TIMESTAMP in attribute checkpoint, whose time KCL keeps in its own configuration; set \
             StartingPosition to AT_TIMESTAMP and StartingPositionTimestamp to that time"
                .to_owned()
        }),
        digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(match sub {
            0 => Position::After(Seq::plain(digits)),
            // KCL may have stopped in the middle of an aggregate, which is one record here: it is redelivered whole.
            _ => Position::At(Seq::plain(digits)),
        }),
        other => Err(format!(
            "has {other:?} in attribute checkpoint, which is no sequence number, TRIM_HORIZON, LATEST, AT_TIMESTAMP or \
             SHARD_END"
        )),
    }
}

/// The attributes by which a write makes sure that the checkpoint is the one that was read.
pub(super) fn stored(item: &crate::table::attributes::Item) -> Option<Stored> {
    Some(Stored { checkpoint: item.get(CHECKPOINT)?.clone(), sub: item.get(SUB).cloned() })
}

/// Sets the attributes of a position, so that nothing is left of the former one.
pub(super) fn set(update: Update, position: &Position) -> Update {
    let (base, sub) = base(position);
    let exact = exact(position).map(text);
    update.set(CHECKPOINT, text(base)).set(SUB, number(sub)).set_or_remove(EXACT, exact).remove_all(&PENDING)
}

/// Keeps the place where a shard without a checkpoint begins, next to KCL's sentinel.
pub(super) fn pin(update: Update, position: &Position) -> Update {
    match position {
        Position::AtTimestamp(_) => update.set_or_remove(EXACT, exact(position).map(text)),
        _ => update,
    }
}

/// What KCL has for a position: never later than it.
fn base(position: &Position) -> (&str, u64) {
    match position {
        Position::TrimHorizon | Position::At(_) => ("TRIM_HORIZON", 0),
        Position::Latest => ("LATEST", 0),
        Position::AtTimestamp(_) => ("AT_TIMESTAMP", 0),
        Position::After(seq) => (seq.number.as_str(), seq.sub),
        Position::ShardEnd => ("SHARD_END", 0),
    }
}

fn exact(position: &Position) -> Option<String> {
    match position {
        Position::AtTimestamp(millis) => Some(format!("AT_TIMESTAMP {millis}")),
        Position::At(seq) => Some(format!("AT {} {}", seq.number.as_str(), seq.sub)),
        Position::After(seq) if seq.sub > 0 => Some(format!("AFTER {} {}", seq.number.as_str(), seq.sub)),
        _ => None,
    }
}

fn parse(text: &str) -> Option<Position> {
    let seq = |text: &str| {
        let (digits, sub) = text.split_once(' ')?;
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        Some(Seq { number: is_number.then(|| digits.into())?, sub: sub.parse().ok()? })
    };
    match text.split_once(' ')? {
        ("AT_TIMESTAMP", millis) => millis.parse().ok().map(Position::AtTimestamp),
        ("AT", rest) => seq(rest).map(Position::At),
        ("AFTER", rest) => seq(rest).map(Position::After),
        _ => None,
    }
}

/// Whether nothing has moved KCL's checkpoint since the exact one was written.
fn is_meant(exact: &Position, checkpoint: &str, sub: u64) -> bool {
    let is_pinned = matches!(exact, Position::AtTimestamp(_)) && checkpoint == "LATEST";
    is_pinned || base(exact) == (checkpoint, sub)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::attributes::Item;

    const TIMES: Times = Times { latest: 1_700_000_000_000, at_timestamp: Some(1_600_000_000_000) };

    fn item(attributes: &[(&str, AttributeValue)]) -> Item {
        attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    /// The item after a position was set in it.
    fn written(before: Item, position: &Position) -> Item {
        set(Update::default(), position).applied_to(before)
    }

    #[test]
    fn kcls_checkpoints_are_read_as_places_that_lose_nothing() {
        let of = |checkpoint: &str, sub: u64| {
            read(Reader(&item(&[(CHECKPOINT, text(checkpoint)), (SUB, number(sub))])), TIMES)
        };
        assert_eq!(of("TRIM_HORIZON", 0), Ok(Position::TrimHorizon));
        assert_eq!(of("SHARD_END", 0), Ok(Position::ShardEnd));
        assert_eq!(of("LATEST", 0), Ok(Position::AtTimestamp(TIMES.latest)));
        assert_eq!(of("AT_TIMESTAMP", 0), Ok(Position::AtTimestamp(1_600_000_000_000)));
        assert_eq!(of("0042", 0), Ok(Position::After(Seq::plain("0042"))));
        assert_eq!(
            of("42", 3),
            Ok(Position::At(Seq::plain("42"))),
            "the rest of the aggregate is still to come"
        );
        assert!(of("soon", 0).unwrap_err().contains("no sequence number"));
        let row = item(&[(CHECKPOINT, text("AT_TIMESTAMP"))]);
        let error = read(Reader(&row), Times { at_timestamp: None, ..TIMES }).unwrap_err();
        assert!(error.contains("StartingPositionTimestamp"), "{error}");
    }

    #[test]
    fn every_position_comes_back_from_a_row_whatever_was_there_before() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut row = item(&[("pendingCheckpointState", number(0)), ("strange", number(7))]);
        for _ in 0..2_000 {
            let digits: String = (0..random.usize(1..60)).map(|_| random.digit(10)).collect();
            let seq = Seq { number: digits.as_str().into(), sub: random.u64(0..3) * random.u64(0..9) };
            let position = match random.u8(0..5) {
                0 => Position::TrimHorizon,
                1 => Position::AtTimestamp(random.i64(-5..1 << 50)),
                2 => Position::At(seq),
                3 => Position::After(seq),
                _ => Position::ShardEnd,
            };
            row = written(row, &position);
            let came_back = read(Reader(&row), TIMES).unwrap();
            assert_eq!((&came_back, came_back.to_string()), (&position, position.to_string()));
            assert_eq!(row["strange"], number(7));
            assert!(!row.contains_key("pendingCheckpointState"));
        }
    }

    #[test]
    fn a_checkpoint_that_kcl_has_moved_since_is_kcls() {
        for (ours, kcls) in [
            (Position::AtTimestamp(5), "77"),
            (Position::At(Seq::plain("70")), "77"),
            (Position::After(Seq { number: "70".into(), sub: 4 }), "77"),
        ] {
            let mut row = written(Item::new(), &ours);
            row.insert(CHECKPOINT.to_owned(), text(kcls));
            row.insert(SUB.to_owned(), number(0));
            assert_eq!(read(Reader(&row), TIMES), Ok(Position::After(Seq::plain("77"))), "{ours}");
        }
    }

    #[test]
    fn i15_where_latest_begins_is_kept_until_kcl_moves_on() {
        let latest = item(&[(CHECKPOINT, text("LATEST")), (SUB, number(0))]);
        let pinned = pin(Update::default(), &Position::AtTimestamp(9)).applied_to(latest);
        assert_eq!(pinned[CHECKPOINT], text("LATEST"), "as KCL left it");
        assert_eq!(read(Reader(&pinned), TIMES), Ok(Position::AtTimestamp(9)));
    }
}
