//! Dates and points in time: from RFC 3339 to PostgreSQL's days and microseconds since 2000.

// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;

/// A date `YYYY-MM-DD`, as days since 2000-01-01.
pub fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 {
        return None;
    }
    Some((days(bytes)? - EPOCH_DAYS) as i32)
}

/// A point in time after RFC 3339, as microseconds since 2000-01-01T00:00:00Z.
///
/// # Errors
/// What is wrong with it.
pub fn parse_date_time(text: &str) -> Result<i64, String> {
    let bad = || "must be a date-time like 2026-11-25T03:05:19.123Z".to_owned();
    let bytes = text.as_bytes();
    if bytes.len() < 19 || !matches!(bytes[10], b'T' | b't' | b' ') || bytes[13] != b':' || bytes[16] != b':' {
        return Err(bad());
    }
    let days = days(&bytes[..10]).ok_or_else(bad)?;
    let two = |at: usize| number(&bytes[at..at + 2]).ok_or_else(bad);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    if hour > 23 || minute > 59 || second > 59 {
        return Err(bad());
    }
    let mut rest = &bytes[19..];
    let mut micros = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return Err(bad());
        }
        let (kept, lost) = fraction[..length].split_at(length.min(6));
        if lost.iter().any(|byte| *byte != b'0') {
            return Err("must not be finer than microseconds".to_owned());
        }
        micros = number(kept).ok_or_else(bad)? * 10_i64.pow(6 - kept.len() as u32);
        rest = &fraction[length..];
    }
    let offset = match rest {
        [] => return Err("must have an offset: Z, or for example +02:00".to_owned()),
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), hours @ .., b':', _, _] if hours.len() == 2 => {
            let (hours, minutes) = (number(hours).ok_or_else(bad)?, number(&rest[4..]).ok_or_else(bad)?);
            if hours > 23 || minutes > 59 {
                return Err(bad());
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return Err(bad()),
    };
    let in_day = ((hour * 60 + minute - offset) * 60 + second) * 1_000_000 + micros;
    let micros = (days - EPOCH_DAYS) * DAY_MICROS + in_day;
    let (first, last) = (days_from_civil(1, 1, 1), days_from_civil(10_000, 1, 1));
    if micros < (first - EPOCH_DAYS) * DAY_MICROS || micros >= (last - EPOCH_DAYS) * DAY_MICROS {
        return Err("must be in the years 0001 to 9999".to_owned());
    }
    Ok(micros)
}

/// Writes a JSON string in UTC, as [`autonomy_crds::object_json`] does from PostgreSQL's text.
pub fn write_date_time(micros: i64, out: &mut Vec<u8>) {
    let days = micros.div_euclid(DAY_MICROS) + EPOCH_DAYS;
    let in_day = micros.rem_euclid(DAY_MICROS);
    let (year, month, day) = civil_from_days(days);
    let (seconds, fraction) = (in_day / 1_000_000, in_day % 1_000_000);
    let mut text = format!("\"{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    text.push_str("Z\"");
    out.extend_from_slice(text.as_bytes());
}

fn number(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

// Days since 1970-01-01 of `YYYY-MM-DD`.
fn days(bytes: &[u8]) -> Option<i64> {
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..10])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    (year >= 1 && (1..=12).contains(&month) && (1..=length).contains(&day)).then(|| days_from_civil(year, month, day))
}

// The well-known algorithm of Howard Hinnant, for the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days - era * 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> Result<String, String> {
        let mut out = Vec::new();
        write_date_time(parse_date_time(text)?, &mut out);
        Ok(String::from_utf8(out).expect("UTF-8").trim_matches('"').to_owned())
    }

    #[test]
    fn date_times_are_exact_to_the_microsecond_and_in_utc() {
        assert_eq!(parse_date_time("2000-01-01T00:00:00Z"), Ok(0));
        assert_eq!(round_trip("2026-11-25T05:35:19.120+02:30").as_deref(), Ok("2026-11-25T03:05:19.12Z"));
        assert_eq!(round_trip("1969-12-31T23:59:59.999999-00:00").as_deref(), Ok("1969-12-31T23:59:59.999999Z"));
        assert_eq!(round_trip("2024-02-29T00:00:00Z").as_deref(), Ok("2024-02-29T00:00:00Z"));
        for bad in [
            "2026-11-25T03:05:19",
            "2026-11-25",
            "2026-02-29T00:00:00Z",
            "2026-11-25T24:00:00Z",
            "2026-11-25T03:05:60Z",
            "2026-11-25T03:05:19.1234567Z",
            "2026-11-25T03:05:19.Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "2026-11-25T03:05:19+0200",
            "2026-11-25T03:05:19é",
        ] {
            assert!(parse_date_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dates_are_days() {
        assert_eq!(parse_date("2000-01-02"), Some(1));
        assert_eq!(parse_date("1999-12-31"), Some(-1));
        for bad in ["2026-2-1", "2026-02-30", "0000-01-01", "26-01-01", "2026-01-01T", "２026-01-0"] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }
}
