//! Converts times between RFC 3339 and milliseconds since the Unix epoch, UTC.
//!
//! Input may have any offset and any fraction, which is cut to milliseconds. Output is always
//! `2026-01-05T10:00:00.123Z`. Calendar arithmetic follows the proleptic Gregorian calendar, years
//! 0000 to 9999. Nothing here reads a clock.

const DAY_MS: i64 = 86_400_000;

/// The first millisecond of the year 0000.
pub const MIN_MS: i64 = -62_167_219_200_000;
/// The last millisecond of the year 9999.
pub const MAX_MS: i64 = 253_402_300_799_999;

/// Milliseconds of an RFC 3339 date-time; `None` if invalid. `T` may be `t` or a space, and `Z` may
/// be `z`; second 60 counts as the first of the next minute.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let (year, month, day) = (number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..10])?);
    let (hour, min) = (number(&bytes[11..13])?, number(&bytes[14..16])?);
    let sec = number(&bytes[17..19])?;
    let date_ok = (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    if !date_ok || hour > 23 || min > 59 || sec > 60 {
        return None;
    }
    let (millis, rest) = fraction(&bytes[19..])?;
    let offset_min = offset(rest)?;
    let local =
        days_from_civil(year, month, day) * DAY_MS + ((hour * 60 + min) * 60 + sec) * 1000 + millis;
    Some(local - offset_min * 60_000)
}

/// Appends `ms` as `YYYY-MM-DDTHH:MM:SS.mmmZ`. Times outside the years 0000 to 9999 are clamped.
pub fn format_rfc3339(ms: i64, out: &mut String) {
    let ms = ms.clamp(MIN_MS, MAX_MS);
    let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
    let in_day = ms.rem_euclid(DAY_MS);
    let (sec, milli) = (in_day / 1000, in_day % 1000);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], sec / 3600);
    digits(&mut text[14..16], sec / 60 % 60);
    digits(&mut text[17..19], sec % 60);
    digits(&mut text[20..23], milli);
    out.push_str(std::str::from_utf8(&text).expect("only ASCII was written"));
}

fn digits(out: &mut [u8], mut value: i64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'))
    })
}

/// Reads an optional `.123456`, cut to milliseconds, and returns the rest.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', rest)) = bytes.split_first() else { return Some((0, bytes)) };
    let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (fraction, rest) = rest.split_at(len);
    let kept = &fraction[..len.min(3)];
    let scale = [0, 100, 10, 1][kept.len()];
    (len > 0).then_some((number(kept)? * scale, rest))
}

/// Minutes east of UTC.
fn offset(bytes: &[u8]) -> Option<i64> {
    let sign = match bytes {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let [_, h1, h2, b':', m1, m2] = *bytes else { return None };
    let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01. Years are counted from March, so that the leap day is the last one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(ms: i64) -> String {
        let mut out = String::new();
        format_rfc3339(ms, &mut out);
        out
    }

    #[test]
    fn known_times_are_read() {
        for (given, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-05T10:00:00.123Z", 1_767_607_200_123),
            ("2026-01-05t10:00:00.1239999z", 1_767_607_200_123),
            ("2026-01-05 19:00:00.1+09:00", 1_767_607_200_100),
            ("2026-01-04T23:30:00-10:30", 1_767_607_200_000),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("0000-01-01T00:00:00Z", MIN_MS),
            ("9999-12-31T23:59:59.999Z", MAX_MS),
        ] {
            assert_eq!(parse_rfc3339(given), Some(ms), "{given}");
        }
    }

    #[test]
    fn invalid_times_are_rejected() {
        for given in [
            "",
            "2026-01-05",
            "2026-01-05T10:00:00",
            "2026-1-5T10:00:00Z",
            "2026-13-05T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "1900-02-29T10:00:00Z",
            "2026-01-05T24:00:00Z",
            "2026-01-05T10:60:00Z",
            "2026-01-05T10:00:61Z",
            "2026-01-05T10:00:00.Z",
            "2026-01-05T10:00:00+0900",
            "2026-01-05T10:00:00+24:00",
            "2026-01-05T10:00:00Zx",
            "+026-01-05T10:00:00Z",
            "2026-01-05T10:00:00.1２Z",
            "２026-01-05T10:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(given), None, "{given}");
        }
    }

    proptest! {
        #[test]
        fn a_formatted_time_parses_back(ms in MIN_MS..=MAX_MS) {
            prop_assert_eq!(parse_rfc3339(&text(ms)), Some(ms));
        }

        #[test]
        fn no_text_panics(given in "\\PC{0,40}") {
            let _ = parse_rfc3339(&given);
        }
    }

    #[test]
    fn times_outside_the_calendar_are_clamped() {
        assert_eq!(text(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(text(i64::MIN), "0000-01-01T00:00:00.000Z");
        assert_eq!(text(1_767_607_200_123), "2026-01-05T10:00:00.123Z");
    }
}
