//! Times as AWS tools write them: epoch seconds, or ISO 8601 with a time zone.

/// Milliseconds since the epoch of a time as AWS tools write it: epoch seconds, or ISO 8601 with a time zone.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    epoch_seconds(text).or_else(|| iso8601(text))
}

fn epoch_seconds(text: &str) -> Option<i64> {
    let seconds: f64 = text.parse().ok()?;
    // Beyond 2^53 milliseconds a float is no longer exact, and no stream is that old.
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    (seconds.abs() < 9e12).then(|| (seconds * 1000.0).round() as i64)
}

/// `2026-01-31T12:34:56.789+01:00`, with `T` or a space (Python), a fraction or none, `Z` or an offset.
fn iso8601(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-')?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at_checked(zone_at)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':')?;
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !in_range {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some((seconds - offset_seconds(zone)?) * 1000 + milliseconds(fraction)?)
}

/// Three unsigned numbers of at most four digits.
fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| {
        let ok = (2..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if ok { part.parse().ok() } else { None }
    });
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

fn milliseconds(fraction: &str) -> Option<i64> {
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<3}").get(..3)?.parse().ok()
}

fn offset_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let digits: String = zone.get(1..)?.chars().filter(|c| *c != ':').collect();
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = digits.split_at_checked(2)?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let leap_days = |y: i64| y / 4 - y / 100 + y / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let months: i64 = (1..month).map(|m| days_in(year, m)).sum();
    years + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::parse_time;

    #[test]
    fn epoch_seconds_and_iso_8601_agree() {
        for (text, expected) in [
            ("0", 0),
            ("1789809045", 1_789_809_045_000),
            ("1789809045.948", 1_789_809_045_948),
            ("2026-09-19T09:10:45.948Z", 1_789_809_045_948),
            ("2026-09-19T11:10:45.948000+02:00", 1_789_809_045_948),
            ("2026-09-19 04:10:45.948-0500", 1_789_809_045_948),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000),
        ] {
            assert_eq!(parse_time(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_time_without_a_zone_or_out_of_the_calendar_is_none() {
        for text in [
            "",
            "yesterday",
            "2026-09-19",
            "2026-09-19T09:10:45",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1",
            "NaN",
            "inf",
            "1e300",
            "2026-01-01T00:00:00+é:00",
            "é-é-éTé",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
