//! The JSON form of objects, made from PostgreSQL's text form of their columns. The object API and the relay both write with it, so that
//! an event's data is the object as the API gives it, to the byte.

use jiff::Timestamp;

use crate::resolved::{Column, ColumnKind, Entity, SYSTEM_COLUMNS, ValueType};

/// How a column's text becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A JSON string.
    Text,
    /// A JSON number with the digits as they are.
    Number,
    /// `t` or `f`.
    Boolean,
    /// A JSON value as it is.
    Json,
    /// A timestamp, to RFC 3339 in UTC.
    DateTime,
    /// `\x` and hex digits, to base64.
    Binary,
}

impl Encoding {
    /// The encoding of a column.
    pub fn of(column: &Column) -> Self {
        match &column.kind {
            ColumnKind::Relationship { .. } => Self::Text,
            ColumnKind::Parts { .. } => Self::Json,
            ColumnKind::Attribute { value_type } => match value_type {
                ValueType::String { .. } | ValueType::Uuid | ValueType::Date | ValueType::Enumeration { .. } => Self::Text,
                ValueType::Integer { .. } | ValueType::Decimal { .. } => Self::Number,
                ValueType::Boolean => Self::Boolean,
                ValueType::DateTime => Self::DateTime,
                ValueType::Json => Self::Json,
                ValueType::Binary { .. } => Self::Binary,
            },
        }
    }

    /// Writes one value. Never fails: a text that has no such JSON form (a numeric `NaN`, a timestamp `infinity`, written by psql) becomes
    /// a JSON string.
    pub fn write(self, text: &str, out: &mut Vec<u8>) {
        match self {
            Self::Text => write_string(text, out),
            Self::Number => match text.as_bytes() {
                [b'0'..=b'9', ..] | [b'-', b'0'..=b'9', ..] => out.extend_from_slice(text.as_bytes()),
                _ => write_string(text, out),
            },
            Self::Boolean => out.extend_from_slice(if text.starts_with('t') { b"true" } else { b"false" }),
            Self::Json => out.extend_from_slice(text.as_bytes()),
            Self::DateTime => write_date_time(text, out),
            Self::Binary => write_binary(text, out),
        }
    }
}

/// Writes objects of one entity.
#[derive(Clone, Debug)]
pub struct ObjectWriter {
    // Each member's name, quoted, with its colon and the comma before it; and how its value is written.
    members: Vec<(Box<[u8]>, Encoding)>,
}

impl ObjectWriter {
    /// A writer of whole objects: the system columns `id`, `version`, `created_at`, `updated_at`, then the entity's columns in order.
    pub fn new(entity: &Entity) -> Self {
        let system = SYSTEM_COLUMNS.iter().map(|(column, member)| {
            let encoding = match *column {
                "version" => Encoding::Number,
                "id" => Encoding::Text,
                _ => Encoding::DateTime,
            };
            (*member, encoding)
        });
        Self::of_members(system.chain(entity.columns.iter().map(|column| (column.member.as_str(), Encoding::of(column)))))
    }

    /// A writer of the members given, in that order.
    pub fn of_members<'a>(members: impl IntoIterator<Item = (&'a str, Encoding)>) -> Self {
        let members = members
            .into_iter()
            .enumerate()
            .map(|(index, (member, encoding))| {
                let mut head = Vec::with_capacity(member.len() + 4);
                if index > 0 {
                    head.push(b',');
                }
                write_string(member, &mut head);
                head.push(b':');
                (head.into_boxed_slice(), encoding)
            })
            .collect();
        Self { members }
    }

    /// Writes one object to `out`. `values` are the members' texts as PostgreSQL writes them (UTC, ISO dates, hex bytea), in the writer's
    /// order; `None` is NULL and becomes `null`. Members without a value are left out.
    pub fn write<'a>(&self, values: impl IntoIterator<Item = Option<&'a str>>, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_members(values, out);
        out.push(b'}');
    }

    /// [`Self::write`] without the braces.
    pub fn write_members<'a>(&self, values: impl IntoIterator<Item = Option<&'a str>>, out: &mut Vec<u8>) {
        for ((head, encoding), value) in self.members.iter().zip(values) {
            out.extend_from_slice(head);
            match value {
                Some(text) => encoding.write(text, out),
                None => out.extend_from_slice(b"null"),
            }
        }
    }
}

/// Writes a JSON string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[written..index]);
        written = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

// `2026-11-25 03:05:19.123+00` to `2026-11-25T03:05:19.123Z`.
fn write_date_time(text: &str, out: &mut Vec<u8>) {
    if let (Some(local), true) = (text.strip_suffix("+00"), text.as_bytes().get(10) == Some(&b' ')) {
        out.push(b'"');
        out.extend_from_slice(&local.as_bytes()[..10]);
        out.push(b'T');
        out.extend_from_slice(&local.as_bytes()[11..]);
        out.extend_from_slice(b"Z\"");
        return;
    }
    match text.parse::<Timestamp>() {
        Ok(timestamp) => write_string(&timestamp.to_string(), out),
        Err(_) => write_string(text, out),
    }
}

fn write_binary(text: &str, out: &mut Vec<u8>) {
    use base64::Engine;
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let bytes: Option<Vec<u8>> = text
        .strip_prefix("\\x")
        .and_then(|hex| hex.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect());
    match bytes {
        Some(bytes) => {
            out.push(b'"');
            out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
        None => write_string(text, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(encoding: Encoding, text: &str) -> String {
        let mut out = Vec::new();
        encoding.write(text, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn values_take_their_json_form() {
        assert_eq!(written(Encoding::Text, "a\"b\\c\u{1}é\n"), r#""a\"b\\c\u0001é\n""#);
        assert_eq!(written(Encoding::Number, "12345678901234567890.1200"), "12345678901234567890.1200");
        assert_eq!(written(Encoding::Number, "NaN"), "\"NaN\"");
        assert_eq!(written(Encoding::Boolean, "t"), "true");
        assert_eq!(written(Encoding::Boolean, "f"), "false");
        assert_eq!(written(Encoding::DateTime, "2026-11-25 03:05:19.123+00"), "\"2026-11-25T03:05:19.123Z\"");
        assert_eq!(written(Encoding::DateTime, "2026-11-25 05:35:19+02:30"), "\"2026-11-25T03:05:19Z\"");
        assert_eq!(written(Encoding::DateTime, "infinity"), "\"infinity\"");
        assert_eq!(written(Encoding::Binary, "\\x00ff10"), "\"AP8Q\"");
    }

    #[test]
    fn an_object_has_its_members_in_order_and_nulls() {
        let writer = ObjectWriter::of_members([("id", Encoding::Text), ("amount", Encoding::Number)]);
        let mut out = Vec::new();
        writer.write([Some("x"), None], &mut out);
        assert_eq!(out, br#"{"id":"x","amount":null}"#);
    }
}
