//! Functions on strings.

use super::functions::{Call, Outcome};
use super::value::Value;

// A text that an expression makes has this many bytes at the most.
const MAX_LENGTH: usize = 1 << 20;

/// `string(x)`.
pub(super) fn string(call: &Call<'_>) -> Outcome {
    Ok(match call.argument(0) {
        Value::Text(text) => Value::Text(text.clone()),
        Value::Timestamp(value) => Value::text(value.to_string()),
        Value::Duration(value) => Value::text(super::time::write_duration(*value)),
        Value::Null | Value::List(_) | Value::Object(_) => return Err(call.expected(0, "a number, a boolean or a string")),
        other => Value::text(other.to_json()),
    })
}

/// `split(text, separator)`.
pub(super) fn split(call: &Call<'_>) -> Outcome {
    let (text, separator) = (call.text(0)?, call.text(1)?);
    if separator.is_empty() {
        return Ok(Value::list(text.chars().map(|one| Value::text(one.encode_utf8(&mut [0; 4])))));
    }
    Ok(Value::list(text.split(separator).map(Value::text)))
}

/// `join(list, separator)`.
pub(super) fn join(call: &Call<'_>) -> Outcome {
    let separator = if call.arguments.len() > 1 { call.text(1)? } else { "" };
    let texts: Option<Vec<&str>> = call.list(0)?.iter().map(Value::as_text).collect();
    let joined = texts.ok_or("the list has elements that are no strings; convert with map(x, string(x))")?.join(separator);
    if joined.len() > MAX_LENGTH {
        return Err(format!("the text has more than {MAX_LENGTH} bytes"));
    }
    Ok(Value::text(joined))
}

/// `substring(text, start, end)`: characters from 0; an end beyond the text is its end.
pub(super) fn substring(call: &Call<'_>) -> Outcome {
    let text = call.text(0)?;
    let start = usize::try_from(call.int(1)?).map_err(|_| "the start is below 0")?;
    let end = if call.arguments.len() > 2 { usize::try_from(call.int(2)?).map_err(|_| "the end is below 0")? } else { usize::MAX };
    Ok(Value::text(text.chars().skip(start).take(end.saturating_sub(start)).collect::<String>()))
}

/// `replace(text, from, to)`.
pub(super) fn replace(call: &Call<'_>) -> Outcome {
    let (text, from, to) = (call.text(0)?, call.text(1)?, call.text(2)?);
    if from.is_empty() {
        return Err("there must be something to replace".to_owned());
    }
    if text.len().saturating_mul(to.len().max(1)) > MAX_LENGTH * 64 {
        return Err("the text is too long".to_owned());
    }
    Ok(Value::text(text.replace(from, to)))
}

/// `padStart(text, length, with)`: zeros where `with` is left out.
pub(super) fn pad_start(call: &Call<'_>) -> Outcome {
    let text = call.text(0)?;
    let length = usize::try_from(call.int(1)?).ok().filter(|length| *length <= 1000).ok_or("the length is between 0 and 1000")?;
    let with = if call.arguments.len() > 2 { call.text(2)? } else { "0" };
    let missing = length.saturating_sub(text.chars().count());
    let padding: String = with.chars().cycle().take(missing).collect();
    Ok(Value::text(padding + text))
}

/// `extract(text, pattern)`: what the first group of the pattern (or all of it) matches; null where it doesn't.
pub(super) fn extract(call: &Call<'_>) -> Outcome {
    let pattern = call.pattern()?;
    let text = call.text(0)?;
    let captures = pattern.captures(text);
    let found = captures.as_ref().and_then(|captures| captures.get(1).or_else(|| captures.get(0)));
    Ok(Value::optional_text(found.map(|found| found.as_str())))
}

/// `nullIfEmpty(text)`: null for a text of blanks, as a CSV file has for what is not there; otherwise the text without blanks around.
pub(super) fn null_if_empty(call: &Call<'_>) -> Outcome {
    if call.argument(0).is_null() {
        return Ok(Value::Null);
    }
    let text = call.text(0)?.trim();
    Ok(if text.is_empty() { Value::Null } else { Value::text(text) })
}
