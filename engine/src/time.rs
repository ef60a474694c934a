//! Points in time, in milliseconds. Both clocks are read by the caller, never by the engine.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the host's monotonic clock: backoff, pacing, batching windows and lease expiry are measured on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(u64);

impl Mono {
    /// Milliseconds since an origin that is fixed for the life of the process.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the origin.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(millis(rhs)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(millis(rhs)))
    }
}

/// A point on the *service's* wall clock: milliseconds since 1970-01-01T00:00:00Z.
///
/// Record age, pinned starts and the times in messages are judged by it, so that a host whose own clock is off
/// discards nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(i64);

impl Wall {
    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

impl Wall {
    /// The last multiple of `size` since the epoch at or before this.
    #[must_use]
    pub(crate) fn floor_to(self, size: Duration) -> Self {
        match i64::try_from(size.as_millis()) {
            Ok(size) if size > 0 => Self(self.0.div_euclid(size).saturating_mul(size)),
            _ => self,
        }
    }
}

impl Add<Duration> for Wall {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add_unsigned(millis(rhs)))
    }
}

impl Sub<Duration> for Wall {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub_unsigned(millis(rhs)))
    }
}

/// The time at which an input is handed to a state machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Now {
    /// The host's monotonic clock.
    pub mono: Mono,
    /// The service's wall clock, estimated from the `Date` headers of its answers.
    pub wall: Wall,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes `at` as `YYYY-MM-DDTHH:MM:SS[.mmm]Z`, the form that AWS uses in failure messages.
pub(crate) fn write_iso8601(out: &mut String, at: Wall, with_millis: bool) {
    use std::fmt::Write as _;
    let days = at.0.div_euclid(86_400_000);
    let of_day = at.0.rem_euclid(86_400_000);
    let (year, month, day) = civil_from_days(days);
    let (seconds, ms) = (of_day / 1000, of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // Writing to a String cannot fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if with_millis {
        let _ = write!(out, ".{ms:03}");
    }
    out.push('Z');
}

/// Proleptic Gregorian date of a day number, where day 0 is 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    // Counting years from 1 March puts the leap day last; 719_468 days lie between 0000-03-01 and the epoch.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iso(ms: i64, with_millis: bool) -> String {
        let mut out = String::new();
        write_iso8601(&mut out, Wall::from_millis(ms), with_millis);
        out
    }

    #[test]
    fn iso8601_covers_epoch_leap_days_and_far_dates() {
        assert_eq!(iso(0, true), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(951_782_400_000, false), "2000-02-29T00:00:00Z");
        assert_eq!(iso(1_789_809_045_948, true), "2026-09-19T09:10:45.948Z");
        assert_eq!(iso(-1, true), "1969-12-31T23:59:59.999Z");
        assert_eq!(iso(4_107_542_399_999, true), "2100-02-28T23:59:59.999Z");
        assert_eq!(iso(4_107_542_400_000, true), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn times_move_by_durations_and_stop_at_their_ends() {
        let ms = Duration::from_millis;
        let (mono, wall) = (Mono::from_millis, Wall::from_millis);
        assert_eq!((mono(7) + ms(3), mono(7) - ms(3), mono(7) - ms(8)), (mono(10), mono(4), mono(0)));
        assert_eq!((mono(7).since(mono(3)), mono(3).since(mono(7))), (ms(4), ms(0)));
        assert_eq!((wall(7) + ms(3), wall(7) - ms(8)), (wall(10), wall(-1)));
        assert_eq!((mono(1) + Duration::MAX, wall(1) + Duration::MAX), (mono(u64::MAX), wall(i64::MAX)));
        assert_eq!((mono(9).as_millis(), wall(-9).as_millis()), (9, -9));
    }

    #[test]
    fn r64_a_time_is_rounded_down_to_a_multiple_of_a_length_that_is_one() {
        let floor = |at, size| Wall::from_millis(at).floor_to(Duration::from_millis(size)).as_millis();
        assert_eq!([floor(19, 10), floor(20, 10), floor(-1, 10), floor(7, 1)], [10, 20, -10, 7]);
        assert_eq!(floor(7, 0), 7, "no length");
        assert_eq!(Wall::from_millis(7).floor_to(Duration::MAX), Wall::from_millis(7));
    }

    #[test]
    fn iso8601_has_every_part_of_the_time() {
        assert_eq!(iso(1_709_210_096_007, true), "2024-02-29T12:34:56.007Z");
        assert_eq!(iso(1_735_689_599_999, false), "2024-12-31T23:59:59Z");
        assert_eq!(iso(-62_167_219_200_000, true), "0000-01-01T00:00:00.000Z");
        assert_eq!(iso(13_574_563_200_000, false), "2400-02-29T00:00:00Z");
        for (days, date) in
            [(0, (1970, 1, 1)), (58, (1970, 2, 28)), (59, (1970, 3, 1)), (364, (1970, 12, 31))]
        {
            assert_eq!(civil_from_days(days), date);
        }
        // Every day of 400 years follows the one before.
        let days_of = |year: i64, month| match month {
            2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..146_097 {
            assert_eq!(civil_from_days(days), (year, month, day));
            day += 1;
            if day > days_of(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
