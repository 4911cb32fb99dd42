//! One value of a column: from JSON, or from the text of a filter, checked against its type, to PostgreSQL's binary form (for COPY and
//! parameters) or to JSON again (inside of parts). Decimals and integers never pass through floats.

mod date_time;
mod decimal;

use std::borrow::Cow;

use autonomy_crds::names::quote_identifier;
use autonomy_crds::object_json::write_string;
use autonomy_crds::resolved::{Column, ColumnKind, ValueType};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use uuid::Uuid;

use crate::part::PartList;
use crate::problem::{Intake, Path};
pub use date_time::{parse_date, parse_date_time};
pub use decimal::{Decimal, compare_binary_decimals};

/// The form a value is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// PostgreSQL's binary form.
    Binary,
    /// JSON.
    Json,
}

/// A value as it came in.
#[derive(Clone, Debug)]
pub enum Scalar<'a> {
    /// A string.
    String(Cow<'a, str>),
    /// A number's digits.
    Number(&'a str),
    /// `true` or `false`.
    Boolean(bool),
    /// An object or a list, as JSON.
    Container(&'a str),
}

impl<'a> Scalar<'a> {
    /// Reads the raw text of one valid JSON value; `None` is `null`.
    ///
    /// # Errors
    /// When a string's escapes are no characters.
    pub fn read(raw: &'a str) -> Result<Option<Self>, &'static str> {
        Ok(Some(match raw.as_bytes().first() {
            Some(b'"') if raw.len() >= 2 => {
                let inner = &raw[1..raw.len() - 1];
                if inner.as_bytes().contains(&b'\\') {
                    let text: String = sonic_rs::from_str(raw).map_err(|_| "has an escape that is no character")?;
                    Self::String(Cow::Owned(text))
                } else {
                    Self::String(Cow::Borrowed(inner))
                }
            }
            Some(b'n') => return Ok(None),
            Some(b't') => Self::Boolean(true),
            Some(b'f') => Self::Boolean(false),
            Some(b'{' | b'[') => Self::Container(raw),
            _ => Self::Number(raw),
        }))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::Container(raw) if raw.starts_with('{') => "an object",
            Self::Container(_) => "a list",
        }
    }
}

/// A column's type in PostgreSQL, as far as parameters need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgType {
    /// The OID that a parameter is sent with.
    pub oid: u32,
    /// The OID of a list of them.
    pub array_oid: u32,
    /// The cast that a parameter needs, with its schema, quoted; for enumerations, whose OIDs are not known beforehand.
    pub cast: Option<String>,
    /// The type's name for a cast from text.
    pub name: String,
}

impl PgType {
    fn new(oid: u32, array_oid: u32, name: &str) -> Self {
        Self { oid, array_oid, cast: None, name: name.to_owned() }
    }

    /// `uuid`.
    pub fn uuid() -> Self {
        Self::new(2950, 2951, "uuid")
    }

    /// `bigint`.
    pub fn bigint() -> Self {
        Self::new(20, 1016, "bigint")
    }

    /// `bytea`.
    pub fn bytea() -> Self {
        Self::new(17, 1001, "bytea")
    }

    /// `timestamptz`.
    pub fn timestamp() -> Self {
        Self::new(1184, 1185, "timestamptz")
    }
}

/// Checks and writes the values of one column.
#[derive(Debug)]
pub enum Encoder {
    /// Strings.
    Text {
        /// The fewest characters.
        min: Option<u32>,
        /// The most characters.
        max: Option<u32>,
        /// What the whole string matches, and the pattern as declared.
        pattern: Option<(Regex, String)>,
    },
    /// UUIDs.
    Uuid,
    /// Integers of 64 bits.
    Integer {
        /// The smallest.
        min: Option<i64>,
        /// The largest.
        max: Option<i64>,
    },
    /// Decimals.
    Decimal {
        /// Digits in all.
        precision: Option<u32>,
        /// Digits behind the point.
        scale: Option<u32>,
        /// The smallest.
        min: Option<i64>,
        /// The largest.
        max: Option<i64>,
    },
    /// Booleans.
    Boolean,
    /// Dates.
    Date,
    /// Points in time.
    DateTime,
    /// Any JSON.
    Json,
    /// Bytes.
    Binary {
        /// The most bytes.
        max: Option<u32>,
    },
    /// One of a list of values.
    Enumeration {
        /// The values.
        values: Vec<String>,
    },
    /// A list of parts.
    Parts(Box<PartList>),
}

impl Encoder {
    /// The encoder of a column and its type in PostgreSQL.
    ///
    /// # Errors
    /// When a pattern is no regular expression.
    pub fn of(column: &Column) -> Result<(Self, PgType), regex::Error> {
        let value_type = match &column.kind {
            ColumnKind::Relationship { .. } => return Ok((Self::Uuid, PgType::uuid())),
            ColumnKind::Parts { part, min_items, max_items } => {
                let parts = PartList::new(part, *min_items, *max_items)?;
                return Ok((Self::Parts(Box::new(parts)), PgType::new(3802, 3807, "jsonb")));
            }
            ColumnKind::Attribute { value_type } => value_type,
        };
        Ok(match value_type {
            ValueType::String { min_length, max_length, pattern } => {
                let pattern = match pattern {
                    Some(pattern) => Some((Regex::new(&format!("^(?:{pattern})$"))?, pattern.clone())),
                    None => None,
                };
                (Self::Text { min: *min_length, max: *max_length, pattern }, PgType::new(25, 1009, "text"))
            }
            ValueType::Uuid => (Self::Uuid, PgType::uuid()),
            ValueType::Integer { minimum, maximum } => (Self::Integer { min: *minimum, max: *maximum }, PgType::bigint()),
            ValueType::Decimal { precision, scale, minimum, maximum } => (
                // A precision without a scale is `numeric(p)`, which has none behind the point.
                Self::Decimal { precision: *precision, scale: scale.or(precision.map(|_| 0)), min: *minimum, max: *maximum },
                PgType::new(1700, 1231, "numeric"),
            ),
            ValueType::Boolean => (Self::Boolean, PgType::new(16, 1000, "boolean")),
            ValueType::Date => (Self::Date, PgType::new(1082, 1182, "date")),
            ValueType::DateTime => (Self::DateTime, PgType::timestamp()),
            ValueType::Json => (Self::Json, PgType::new(3802, 3807, "jsonb")),
            ValueType::Binary { max_length } => (Self::Binary { max: *max_length }, PgType::new(17, 1001, "bytea")),
            ValueType::Enumeration { schema, type_name, values, .. } => {
                let cast = format!("{}.{}", quote_identifier(schema), quote_identifier(type_name));
                let mut pg_type = PgType::new(25, 1009, &cast);
                pg_type.cast = Some(cast);
                (Self::Enumeration { values: values.clone() }, pg_type)
            }
        })
    }

    /// Whether filters and sorting by it make sense.
    pub fn is_comparable(&self) -> bool {
        !matches!(self, Self::Json | Self::Binary { .. } | Self::Parts(_))
    }

    /// Writes a value to `out`, or says at `path` what is wrong with it; then `out` may hold a part of it.
    pub fn encode(&self, scalar: &Scalar<'_>, form: Form, path: &Path<'_>, intake: &mut Intake, out: &mut Vec<u8>) -> bool {
        match self.try_encode(scalar, form, path, intake, out) {
            Ok(good) => good,
            Err(detail) => {
                intake.push(path, detail);
                false
            }
        }
    }

    /// What a text that is no JSON (of a filter, of a cell) stands for.
    ///
    /// # Errors
    /// When a boolean is neither `true` nor `false`.
    pub fn scalar_of<'t>(&self, text: &'t str) -> Result<Scalar<'t>, &'static str> {
        Ok(match self {
            Self::Integer { .. } | Self::Decimal { .. } => Scalar::Number(text),
            Self::Boolean => match text {
                "true" => Scalar::Boolean(true),
                "false" => Scalar::Boolean(false),
                _ => return Err("must be true or false"),
            },
            _ => Scalar::String(Cow::Borrowed(text)),
        })
    }

    /// Writes the value that a text (of a filter) means, in binary form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn encode_text(&self, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
        // Limits are for writing: a filter may ask for a value that no object can have.
        self.encode_kept(&self.scalar_of(text)?, out)
    }

    /// Writes a value in binary form whatever the limits are: it is only compared, or was kept before they were.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn encode_kept(&self, scalar: &Scalar<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Integer { .. } => Self::Integer { min: None, max: None }.try_encode_simple(scalar, out),
            Self::Decimal { .. } => Self::Decimal { precision: None, scale: None, min: None, max: None }.try_encode_simple(scalar, out),
            Self::Text { .. } => Self::Text { min: None, max: None, pattern: None }.try_encode_simple(scalar, out),
            _ => self.try_encode_simple(scalar, out),
        }
    }

    fn try_encode_simple(&self, scalar: &Scalar<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let mut intake = Intake::default();
        self.try_encode(scalar, Form::Binary, &Path::ROOT, &mut intake, out).map(|_| ())
    }

    fn try_encode(&self, scalar: &Scalar<'_>, form: Form, path: &Path<'_>, intake: &mut Intake, out: &mut Vec<u8>) -> Result<bool, String> {
        match (self, scalar) {
            (Self::Text { min, max, pattern }, Scalar::String(text)) => {
                check_text(text, *min, *max, pattern.as_ref())?;
                write_text(text, form, out);
            }
            (Self::Enumeration { values }, Scalar::String(text)) => {
                if !values.iter().any(|value| value == text.as_ref()) {
                    return Err(format!("must be one of {}", listed(values)));
                }
                write_text(text, form, out);
            }
            (Self::Uuid, Scalar::String(text)) => {
                let id = Uuid::try_parse(text).map_err(|_| "must be a UUID".to_owned())?;
                match form {
                    Form::Binary => out.extend_from_slice(id.as_bytes()),
                    Form::Json => write_string(id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()), out),
                }
            }
            (Self::Integer { min, max }, Scalar::Number(digits)) => {
                let value = digits.parse().ok().or_else(|| written_otherwise(digits));
                let value = value.ok_or_else(|| "must be an integer from -9223372036854775808 to 9223372036854775807".to_owned())?;
                check_range(&value, *min, *max)?;
                match form {
                    Form::Binary => out.extend_from_slice(&value.to_be_bytes()),
                    Form::Json => out.extend_from_slice(value.to_string().as_bytes()),
                }
            }
            (Self::Decimal { precision, scale, min, max }, Scalar::Number(_) | Scalar::String(_)) => {
                let digits = match scalar {
                    Scalar::Number(digits) => digits,
                    Scalar::String(text) => text.as_ref(),
                    _ => "",
                };
                let value = Decimal::parse(digits)?.fit(*precision, *scale)?;
                if min.is_some_and(|min| value.compare_integer(min).is_lt()) {
                    return Err(format!("must be at least {}", min.unwrap_or_default()));
                }
                if max.is_some_and(|max| value.compare_integer(max).is_gt()) {
                    return Err(format!("must be at most {}", max.unwrap_or_default()));
                }
                match form {
                    Form::Binary => value.write_binary(out),
                    Form::Json => value.write_text(out),
                }
            }
            (Self::Boolean, Scalar::Boolean(value)) => match form {
                Form::Binary => out.push(u8::from(*value)),
                Form::Json => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            },
            (Self::Date, Scalar::String(text)) => {
                let days = parse_date(text).ok_or_else(|| "must be a date like 2026-11-25".to_owned())?;
                match form {
                    Form::Binary => out.extend_from_slice(&days.to_be_bytes()),
                    Form::Json => write_string(text, out),
                }
            }
            (Self::DateTime, Scalar::String(text)) => {
                let micros = parse_date_time(text)?;
                match form {
                    Form::Binary => out.extend_from_slice(&micros.to_be_bytes()),
                    Form::Json => date_time::write_date_time(micros, out),
                }
            }
            (Self::Json, _) => {
                if form == Form::Binary {
                    out.push(1);
                }
                match scalar {
                    Scalar::Container(raw) => {
                        check_json(raw)?;
                        out.extend_from_slice(raw.as_bytes());
                    }
                    Scalar::Number(raw) => out.extend_from_slice(raw.as_bytes()),
                    Scalar::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
                    Scalar::String(text) => {
                        check_text(text, None, None, None)?;
                        write_string(text, out);
                    }
                }
            }
            (Self::Binary { max }, Scalar::String(text)) => {
                let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| "must be base64 with its padding".to_owned())?;
                if max.is_some_and(|max| bytes.len() > max as usize) {
                    return Err(format!("must be at most {} bytes long", max.unwrap_or_default()));
                }
                match form {
                    Form::Binary => out.extend_from_slice(&bytes),
                    Form::Json => write_string(text, out),
                }
            }
            (Self::Parts(parts), Scalar::Container(raw)) if raw.starts_with('[') => {
                if form == Form::Binary {
                    out.push(1);
                }
                return Ok(parts.encode(raw, path, intake, out));
            }
            _ => return Err(format!("must be {}, not {}", self.expected(), scalar.name())),
        }
        Ok(true)
    }

    fn expected(&self) -> &'static str {
        match self {
            Self::Text { .. } => "a string",
            Self::Uuid => "a string with a UUID",
            Self::Integer { .. } => "an integer",
            Self::Decimal { .. } => "a decimal number (or a string with one)",
            Self::Boolean => "true or false",
            Self::Date => "a string with a date like 2026-11-25",
            Self::DateTime => "a string with a date-time like 2026-11-25T03:05:19Z",
            Self::Json => "JSON",
            Self::Binary { .. } => "a string in base64",
            Self::Enumeration { .. } => "a string",
            Self::Parts(_) => "a list of objects",
        }
    }

    /// The text of a binary value as PostgreSQL writes it in an error's detail, for the types where that is plain.
    pub fn plain_text(&self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Text { .. } | Self::Enumeration { .. } => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Self::Uuid => Uuid::from_slice(bytes).ok().map(|id| id.to_string()),
            Self::Integer { .. } => bytes.try_into().ok().map(|bytes| i64::from_be_bytes(bytes).to_string()),
            Self::Boolean => bytes.first().map(|byte| if *byte == 1 { "t" } else { "f" }.to_owned()),
            _ => None,
        }
    }
}

fn write_text(text: &str, form: Form, out: &mut Vec<u8>) {
    match form {
        Form::Binary => out.extend_from_slice(text.as_bytes()),
        Form::Json => write_string(text, out),
    }
}

fn check_text(text: &str, min: Option<u32>, max: Option<u32>, pattern: Option<&(Regex, String)>) -> Result<(), String> {
    if text.as_bytes().contains(&0) {
        return Err("must not hold the character U+0000".to_owned());
    }
    if let Some(max) = max
        && text.len() > max as usize
        && text.chars().count() > max as usize
    {
        return Err(format!("must be at most {max} characters long"));
    }
    if let Some(min) = min
        && text.chars().take(min as usize).count() < min as usize
    {
        return Err(format!("must be at least {min} characters long"));
    }
    if let Some((regex, declared)) = pattern
        && !regex.is_match(text)
    {
        return Err(format!("must match {declared}"));
    }
    Ok(())
}

// `7.0` and `7e2` are integers too, as JSON Schema has it.
fn written_otherwise(digits: &str) -> Option<i64> {
    let mut text = Vec::new();
    Decimal::parse(digits).ok()?.fit(None, Some(0)).ok()?.write_text(&mut text);
    std::str::from_utf8(&text).ok()?.parse().ok()
}

fn check_range(value: &i64, min: Option<i64>, max: Option<i64>) -> Result<(), String> {
    match (min, max) {
        (Some(min), _) if *value < min => Err(format!("must be at least {min}")),
        (_, Some(max)) if *value > max => Err(format!("must be at most {max}")),
        _ => Ok(()),
    }
}

// What PostgreSQL's jsonb refuses though it is JSON: U+0000, and halves of surrogate pairs.
fn check_json(raw: &str) -> Result<(), String> {
    if !raw.contains("\\u") {
        return Ok(());
    }
    let value: serde_json::Value = sonic_rs::from_str(raw).map_err(|_| "holds a string with an escape that is no character".to_owned())?;
    if holds_nul(&value) { Err("must not hold the character U+0000".to_owned()) } else { Ok(()) }
}

fn holds_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(holds_nul),
        serde_json::Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

fn listed(values: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = values.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if values.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(encoder: &Encoder, raw: &str, form: Form) -> Result<Vec<u8>, String> {
        let mut intake = Intake::default();
        let mut out = Vec::new();
        let scalar = Scalar::read(raw).expect("JSON").expect("not null");
        if encoder.encode(&scalar, form, &Path::ROOT, &mut intake, &mut out) {
            Ok(out)
        } else {
            Err(intake.faults.list()[0].detail.clone())
        }
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        let integer = Encoder::Integer { min: Some(1), max: None };
        assert_eq!(written(&integer, "\"1\"", Form::Binary), Err("must be an integer, not a string".to_owned()));
        assert_eq!(written(&integer, "0", Form::Binary), Err("must be at least 1".to_owned()));
        for bad in ["1.5", "1e-1", "1e400", "9223372036854775808", "9223372036854775807.5"] {
            assert!(written(&integer, bad, Form::Binary).is_err(), "{bad}");
        }
        assert_eq!(written(&integer, "7.00", Form::Binary), Ok(7_i64.to_be_bytes().to_vec()));
        assert_eq!(written(&integer, "7e2", Form::Json), Ok(b"700".to_vec()));
        assert_eq!(written(&integer, "9223372036854775807", Form::Binary), Ok(i64::MAX.to_be_bytes().to_vec()));
    }

    #[test]
    fn strings_hold_no_nul_and_keep_their_limits() {
        let text = Encoder::Text { min: Some(2), max: Some(3), pattern: None };
        assert_eq!(written(&text, "\"äöü\"", Form::Binary), Ok("äöü".as_bytes().to_vec()));
        assert!(written(&text, "\"a\\u0000b\"", Form::Binary).is_err());
        assert!(written(&text, "\"abcd\"", Form::Binary).is_err());
        assert!(written(&text, "\"a\"", Form::Binary).is_err());
        assert_eq!(written(&text, "\"a\\\"\"", Form::Json), Ok(b"\"a\\\"\"".to_vec()));
    }

    #[test]
    fn json_is_kept_but_for_what_postgresql_refuses() {
        assert_eq!(written(&Encoder::Json, "[1.10, {}]", Form::Binary), Ok(b"\x01[1.10, {}]".to_vec()));
        assert!(written(&Encoder::Json, "[\"\\u0000\"]", Form::Binary).is_err());
        assert!(written(&Encoder::Json, "[\"\\ud800\"]", Form::Binary).is_err());
        assert_eq!(written(&Encoder::Json, "[\"\\\\u0000\"]", Form::Json), Ok(b"[\"\\\\u0000\"]".to_vec()));
    }
}
