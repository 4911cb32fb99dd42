//! Functions on strings.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

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

/// `phone(text, callingCode)`: see [`phone_number`].
pub(super) fn phone(call: &Call<'_>) -> Outcome {
    if call.argument(0).is_null() {
        return Ok(Value::Null);
    }
    let code = if call.arguments.len() > 1 { Some(call.text(1)?) } else { None };
    let is_code = |code: &str| (1..=3).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_digit());
    match code {
        Some(code) if !is_code(code.trim_start_matches('+')) => Err(format!("{code:?} is no calling code, as 31 is one")),
        code => Ok(Value::optional_text(phone_number(call.text(0)?, code))),
    }
}

/// A telephone number as E.164 writes it (`+31201234567`), so that all ways of writing it are alike; none where it has no digits. A national number
/// gets the calling code, and stays without one where none is given.
pub(crate) fn phone_number(text: &str, calling_code: Option<&str>) -> Option<String> {
    let text = text.replace("(0)", "");
    // Behind letters stands an extension.
    let number = text.split(char::is_alphabetic).next().unwrap_or_default().trim();
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    if digits.is_empty() {
        return None;
    }
    if number.starts_with('+') {
        return Some(format!("+{digits}"));
    }
    if let Some(international) = digits.strip_prefix("00") {
        return Some(format!("+{international}"));
    }
    Some(match calling_code {
        Some(code) => format!("+{}{}", code.trim_start_matches('+'), digits.strip_prefix('0').unwrap_or(&digits)),
        None => digits,
    })
}

/// `email(text)`: see [`email_address`].
pub(super) fn email(call: &Call<'_>) -> Outcome {
    if call.argument(0).is_null() {
        return Ok(Value::Null);
    }
    Ok(Value::optional_text(email_address(call.text(0)?)))
}

/// An address of electronic mail in lower case without blanks around; none where it is empty.
pub(crate) fn email_address(text: &str) -> Option<String> {
    Some(text.trim().to_lowercase()).filter(|text| !text.is_empty())
}

/// `urlEncode(text)`: as part of a path or a query.
pub(super) fn url_encode(call: &Call<'_>) -> Outcome {
    let encoded: String = url::form_urlencoded::byte_serialize(call.text(0)?.as_bytes()).collect();
    Ok(Value::text(encoded.replace('+', "%20")))
}

/// `base64Encode(text)`.
pub(super) fn base64_encode(call: &Call<'_>) -> Outcome {
    Ok(Value::text(STANDARD.encode(call.text(0)?)))
}

/// `base64Decode(text)`.
pub(super) fn base64_decode(call: &Call<'_>) -> Outcome {
    let text = call.text(0)?;
    let decoded = STANDARD.decode(text.trim()).map_err(|error| format!("{text:?} is no Base64: {error}"))?;
    String::from_utf8(decoded).map(Value::text).map_err(|_| "what is encoded is no UTF-8 text".to_owned())
}
