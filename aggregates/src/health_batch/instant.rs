//! Instants on the wire. An upload holds a thousand of them, nearly all in one shape, so that shape
//! has a way of its own; every other one goes through the general parser.

use chrono::DateTime;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Milliseconds since the Unix epoch of an RFC 3339 text, finer digits cut off.
pub(super) fn parse(text: &str) -> Option<i64> {
    plain(text.as_bytes())
        .or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis()))
}

/// `YYYY-MM-DDTHH:MM:SS.sssZ` or the same without the fraction; `None` for anything that is
/// written differently or is no time of a plain day.
fn plain(text: &[u8]) -> Option<i64> {
    let (clock, milli) = match text {
        [clock @ .., b'.', a, b, c, b'Z'] => (clock, number(&[*a, *b, *c])?),
        [clock @ .., b'Z'] => (clock, 0),
        _ => return None,
    };
    let clock: &[u8; 19] = clock.try_into().ok()?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', rest @ ..] = clock else { return None };
    let [h0, h1, b':', n0, n1, b':', s0, s1] = rest else { return None };
    let (year, month) = (number(&[*y0, *y1, *y2, *y3])?, number(&[*m0, *m1])?);
    let (day, hour) = (number(&[*d0, *d1])?, number(&[*h0, *h1])?);
    let (minute, second) = (number(&[*n0, *n1])?, number(&[*s0, *s1])?);
    let whole = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !whole || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(days_from_epoch(year, month, day) * DAY_MS + seconds * 1000 + milli)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'))
    })
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Of a date of the Gregorian calendar. Counted in eras of 400 years that begin on 1 March, so that
/// the leap day is a year's last: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// The date that many days after 1 January 1970, as year, month and day.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends `YYYY-MM-DDTHH:MM:SS.sssZ`.
pub(super) fn put(out: &mut String, at_ms: i64) {
    let (days, of_day) = (at_ms.div_euclid(DAY_MS), at_ms.rem_euclid(DAY_MS));
    let (year, month, day) = date(days);
    if !(0..=9999).contains(&year) {
        // Years of more digits carry a sign.
        let at = DateTime::from_timestamp_millis(at_ms).unwrap_or_default();
        out.push_str(&at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
        return;
    }
    let (seconds, milli) = (of_day / 1000, of_day % 1000);
    let (minutes, second) = (seconds / 60, seconds % 60);
    for (number, width, after) in [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (minutes / 60, 2, ':'),
        (minutes % 60, 2, ':'),
        (second, 2, '.'),
        (milli, 3, 'Z'),
    ] {
        let mut scale = 10i64.pow(width - 1);
        while scale > 0 {
            out.push(digit(number / scale % 10));
            scale /= 10;
        }
        out.push(after);
    }
}

fn digit(value: i64) -> char {
    char::from(b'0' + value.to_le_bytes()[0])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(at_ms: i64) -> String {
        let mut out = String::new();
        put(&mut out, at_ms);
        out
    }

    fn by_chrono(text: &str) -> Option<i64> {
        DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis())
    }

    #[test]
    fn odd_forms_are_still_read() {
        for text in [
            "2026-03-01T06:15:00Z",
            "2026-03-01T06:15:00.5Z",
            "2026-03-01T06:15:00.123456Z",
            "2026-03-01T06:15:00.123+05:30",
            "2026-03-01t06:15:00.123z",
            "2016-12-31T23:59:60.000Z",
            "2024-02-29T00:00:00.000Z",
            "2023-02-29T00:00:00.000Z",
            "1900-02-29T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-00-01T00:00:00.000Z",
            "2026-04-31T00:00:00.000Z",
            "2026-04-00T00:00:00.000Z",
            "2026-03-01T24:00:00.000Z",
            "2026-03-01T06:60:00.000Z",
            "0000-01-01T00:00:00.000Z",
            "+026-03-01T06:15:00.000Z",
            "2026-03-01",
            "Z",
            "",
        ] {
            assert_eq!(parse(text), by_chrono(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn instants_are_read_and_written_as_the_general_parser_does(
            at_ms in prop_oneof![any::<i32>().prop_map(|s| i64::from(s) * 997),
                                 -70_000_000_000_000i64..260_000_000_000_000],
        ) {
            let at = DateTime::from_timestamp_millis(at_ms).unwrap();
            let text = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            prop_assert_eq!(&written(at_ms), &text);
            prop_assert_eq!(parse(&text), by_chrono(&text));
            if (0..=9999).contains(&chrono::Datelike::year(&at)) {
                prop_assert_eq!(parse(&text), Some(at_ms));
                prop_assert_eq!(plain(text.as_bytes()), Some(at_ms));
            }
        }

        #[test]
        fn anything_else_is_left_to_the_general_parser(text in "[0-9TZ:.+-]{0,26}") {
            prop_assert_eq!(parse(&text), by_chrono(&text));
        }

        #[test]
        fn digits_out_of_range_are_no_instant(
            text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{3})?Z",
        ) {
            prop_assert_eq!(parse(&text), by_chrono(&text));
        }
    }
}
