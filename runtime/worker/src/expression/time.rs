//! Moments, dates and lengths of time in expressions. Dates are strings `YYYY-MM-DD`, as objects have them.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use super::functions::{Call, Outcome};
use super::value::Value;

/// A duration as CEL writes it: seconds with `s`.
pub(super) fn write_duration(duration: SignedDuration) -> String {
    let sign = if duration.is_negative() { "-" } else { "" };
    let (seconds, nanos) = (duration.as_secs().unsigned_abs(), duration.subsec_nanos().unsigned_abs());
    if nanos == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

fn moment(call: &Call<'_>, index: usize) -> Result<Timestamp, String> {
    match call.argument(index) {
        Value::Timestamp(value) => Ok(*value),
        Value::Text(text) => {
            text.parse().map_err(|_| format!("{text:?} is no timestamp; 2026-11-25T03:05:19Z or 2026-11-25T04:05:19+01:00 is expected"))
        }
        _ => Err(call.expected(index, "a timestamp")),
    }
}

// UTC where no zone is given.
fn zone(call: &Call<'_>, index: usize) -> Result<TimeZone, String> {
    if index >= call.arguments.len() {
        return Ok(TimeZone::UTC);
    }
    let name = call.text(index)?;
    TimeZone::get(name).map_err(|_| format!("{name:?} is no time zone; write for example Europe/Amsterdam"))
}

/// `timestamp(x)`.
pub(super) fn timestamp(call: &Call<'_>) -> Outcome {
    moment(call, 0).map(Value::Timestamp)
}

/// `parseDateTime(text, format, zone)`: a text without an offset is local to the zone; in the hour that a clock change repeats, the first; in the
/// one it leaves out, as if the clock had not changed.
pub(super) fn parse_date_time(call: &Call<'_>) -> Outcome {
    let (text, format) = (call.text(0)?, call.text(1)?);
    let bad = |error: jiff::Error| format!("{text:?} is not written as {format:?}: {error}");
    let parsed = jiff::fmt::strtime::BrokenDownTime::parse(format, text).map_err(bad)?;
    if parsed.offset().is_some() {
        return parsed.to_timestamp().map(Value::Timestamp).map_err(bad);
    }
    let local = match parsed.to_datetime() {
        Ok(local) => local,
        Err(_) => DateTime::from(parsed.to_date().map_err(bad)?),
    };
    local.to_zoned_datetime(zone(call, 2)?).map(|zoned| Value::Timestamp(zoned.timestamp())).map_err(|error| error.to_string())
}

/// `parseDate(text, format)`.
pub(super) fn parse_date(call: &Call<'_>) -> Outcome {
    let (text, format) = (call.text(0)?, call.text(1)?);
    Date::strptime(format, text)
        .map(|date| Value::text(date.to_string()))
        .map_err(|error| format!("{text:?} is not written as {format:?}: {error}"))
}

/// `formatDateTime(x, format, zone)`.
pub(super) fn format_date_time(call: &Call<'_>) -> Outcome {
    let zoned = moment(call, 0)?.to_zoned_datetime(zone(call, 2)?);
    let format = call.text(1)?;
    jiff::fmt::strtime::format(format, &zoned).map(Value::text).map_err(|error| format!("{format:?} is no format: {error}"))
}

/// `date(x, zone)`: the date of a moment in a zone; a date stays as it is.
pub(super) fn local_date(call: &Call<'_>) -> Outcome {
    if let Value::Text(text) = call.argument(0)
        && text.len() == 10
    {
        return date(text).map(|date| Value::text(date.to_string()));
    }
    Ok(Value::text(moment(call, 0)?.to_zoned_datetime(zone(call, 1)?).date().to_string()))
}

fn date(text: &str) -> Result<Date, String> {
    text.parse().map_err(|_| format!("{text:?} is no date; 2026-11-25 is expected"))
}

/// `addDays(date, days)`.
pub(super) fn add_days(call: &Call<'_>) -> Outcome {
    let days = Span::new().try_days(call.int(1)?).map_err(|error| error.to_string())?;
    date(call.text(0)?)?.checked_add(days).map(|date| Value::text(date.to_string())).map_err(|error| error.to_string())
}

/// `addMonths(date, months)`: of the 31st in a shorter month, its last day.
pub(super) fn add_months(call: &Call<'_>) -> Outcome {
    let months = Span::new().try_months(call.int(1)?).map_err(|error| error.to_string())?;
    date(call.text(0)?)?.checked_add(months).map(|date| Value::text(date.to_string())).map_err(|error| error.to_string())
}

/// `startOfMonth(date)`.
pub(super) fn start_of_month(call: &Call<'_>) -> Outcome {
    Ok(Value::text(date(call.text(0)?)?.first_of_month().to_string()))
}

/// `endOfMonth(date)`.
pub(super) fn end_of_month(call: &Call<'_>) -> Outcome {
    Ok(Value::text(date(call.text(0)?)?.last_of_month().to_string()))
}

/// `dayOfWeek(date)`: 1 is Monday, 7 is Sunday.
pub(super) fn day_of_week(call: &Call<'_>) -> Outcome {
    Ok(Value::Int(i64::from(date(call.text(0)?)?.weekday().to_monday_one_offset())))
}

/// `daysBetween(from, to)`: below 0 where `to` is before.
pub(super) fn days_between(call: &Call<'_>) -> Outcome {
    let (from, to) = (date(call.text(0)?)?, date(call.text(1)?)?);
    from.until(to).map(|span| Value::Int(i64::from(span.get_days()))).map_err(|error| error.to_string())
}

/// `formatDate(date, format)`.
pub(super) fn format_date(call: &Call<'_>) -> Outcome {
    let (date, format) = (date(call.text(0)?)?, call.text(1)?);
    jiff::fmt::strtime::format(format, date).map(Value::text).map_err(|error| format!("{format:?} is no format of a date: {error}"))
}

/// `inTimeZone(x, zone)`: the moment as the zone's clocks show it, with their offset.
pub(super) fn in_time_zone(call: &Call<'_>) -> Outcome {
    let zoned = moment(call, 0)?.to_zoned_datetime(zone(call, 1)?);
    Ok(Value::text(zoned.timestamp().display_with_offset(zoned.offset()).to_string()))
}

/// `duration(text)`: `90s`, `1h30m`.
pub(super) fn duration(call: &Call<'_>) -> Outcome {
    if let value @ Value::Duration(_) = call.argument(0) {
        return Ok(value.clone());
    }
    let text = call.text(0)?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let length = autonomy_crds::names::parse_duration(digits)?;
    let length = SignedDuration::try_from(length).map_err(|error| error.to_string())?;
    Ok(Value::Duration(if negative { -length } else { length }))
}

/// `unixSeconds(x)`.
pub(super) fn unix_seconds(call: &Call<'_>) -> Outcome {
    moment(call, 0).map(|moment| Value::Int(moment.as_second()))
}
