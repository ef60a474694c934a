//! The order of positions as the order of texts: the service compares a checkpoint with the stored one itself (I2).

use shardmill_engine::{Position, Seq};

/// A text that is at most another one's exactly if the position may move to the other one's. Starts rank alike, as a start
/// may move anywhere.
pub(super) fn order(position: &Position) -> String {
    match position {
        Position::TrimHorizon | Position::Latest | Position::AtTimestamp(_) | Position::At(_) => "0".into(),
        Position::After(Seq { number, sub }) => {
            let digits = number.as_str().trim_start_matches('0');
            // Of two numbers the one with more digits is greater, whatever they are.
            format!("1 {:06} {digits} {sub:020}", digits.len())
        }
        Position::ShardEnd => "2".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions() -> Vec<Position> {
        let mut numbers: Vec<String> =
            ["0", "00", "1", "01", "9", "10", "0010", "99", "100"].map(str::to_owned).into();
        let long = "49590338271490256608559692538361571095921575989136588898";
        numbers.extend([
            long.to_owned(),
            format!("0{long}"),
            "9".repeat(55),
            "1".repeat(128),
            "9".repeat(1000),
        ]);
        // Drawn from a fixed sequence: the same numbers in every run.
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..60 {
            let digits = random.usize(1..8);
            numbers.push((0..digits).map(|_| char::from(b'0' + random.u8(0..10))).collect());
        }
        let subs = [0, 1, 2, 9, 10, 11, 1_000_000, u64::try_from(i64::MAX).unwrap()];
        let seqs = numbers.iter().flat_map(|n| subs.map(|sub| Seq { number: n.as_str().into(), sub }));
        let mut positions = vec![
            Position::TrimHorizon,
            Position::AtTimestamp(i64::MIN),
            Position::AtTimestamp(i64::MAX),
            Position::At(Seq::plain("77")),
            Position::ShardEnd,
        ];
        positions.extend(seqs.map(Position::After));
        positions
    }

    #[test]
    fn i2_the_order_of_texts_is_the_order_in_which_positions_may_move() {
        let positions = positions();
        for from in &positions {
            for to in &positions {
                assert_eq!(order(from) <= order(to), from.may_advance_to(to), "{from} to {to}");
            }
        }
    }

    #[test]
    fn r36_equal_numbers_have_one_text() {
        let after = |number: &str| order(&Position::After(Seq::plain(number)));
        assert_eq!(after("007"), after("7"));
        assert_eq!(after("000"), after("0"));
        assert_eq!(after("12"), "1 000002 12 00000000000000000000");
    }
}
