//! Events and objects as the platform would give them, made from what a test writes down of them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use autonomy_crds::Model;
use autonomy_crds::object_json::write_string;
use autonomy_crds::resolved::{Column, ColumnKind, Entity, SYSTEM_COLUMNS, ValueType};
use serde_json::{Map, Value};

// The pinned clock of a test.
pub(super) const MOMENT: &str = "2026-01-01T00:00:00Z";

/// Names that stand for ids: `@anna` is the same UUID wherever it stands in a test file.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: RefCell<BTreeMap<String, String>>,
}

impl Names {
    /// The text that a text of the test file stands for.
    pub fn text(&self, text: &str) -> String {
        let Some(name) = text.strip_prefix('@') else { return text.to_owned() };
        if name.starts_with('@') {
            return name.to_owned();
        }
        let is_name =
            name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_name {
            return text.to_owned();
        }
        self.known.borrow_mut().entry(text.to_owned()).or_insert_with(|| uuid_of(name)).clone()
    }

    /// A value with the ids that its names stand for.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(members) => Value::Object(self.members(members)),
            other => other.clone(),
        }
    }

    pub fn members(&self, members: &Map<String, Value>) -> Map<String, Value> {
        members.iter().map(|(name, value)| (name.clone(), self.value(value))).collect()
    }

    /// A message with names in the place of their ids.
    pub fn shown(&self, message: &str) -> String {
        let known = self.known.borrow();
        known.iter().fold(message.to_owned(), |message, (name, id)| message.replace(id, name))
    }
}

// FNV-1a of 128 bits, as a UUID of version 8.
fn uuid_of(name: &str) -> String {
    let hash = name.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    let hex = format!("{hash:032x}");
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// What the API would give as the JSON of an object: members that are left out are null or have their default, decimals have their scale.
///
/// # Errors
/// A member that the entity doesn't have, one that `needed` says must be there, or a value of another type.
pub(super) fn object(entity: &Entity, given: &Map<String, Value>, number: usize, needed: impl Fn(&str) -> bool) -> Result<String, String> {
    let known = |member: &str| SYSTEM_COLUMNS.iter().any(|(_, own)| *own == member) || entity.by_member(member).is_some();
    if let Some(unknown) = given.keys().find(|member| !known(member)) {
        return Err(no_member(&entity.name, unknown, &entity.columns));
    }
    let mut json = Vec::new();
    for (_, member) in SYSTEM_COLUMNS {
        let default = match member {
            "id" => Value::String(uuid_of(&format!("{} {number}", entity.name))),
            "version" => Value::from(1),
            _ => Value::from(MOMENT),
        };
        write_member(member, &given.get(member).unwrap_or(&default).to_string(), &mut json);
    }
    columns(&entity.name, &entity.columns, given, &needed, &mut json)?;
    json.push(b'}');
    Ok(String::from_utf8_lossy(&json).into_owned())
}

fn columns(
    of: &str,
    columns: &[Column],
    given: &Map<String, Value>,
    needed: &impl Fn(&str) -> bool,
    json: &mut Vec<u8>,
) -> Result<(), String> {
    for column in columns {
        let wrong = |message: String| format!("{}: {message}", column.member);
        let value = match given.get(&column.member).filter(|value| !value.is_null()) {
            Some(value) => written(column, value).map_err(wrong)?,
            None => match &column.default {
                Some(default) if !given.contains_key(&column.member) => written(column, default).map_err(wrong)?,
                _ if column.required && needed(&column.member) => return Err(wrong(format!("each {of} has a value here"))),
                _ if matches!(column.kind, ColumnKind::Parts { .. }) => "[]".to_owned(),
                _ => "null".to_owned(),
            },
        };
        write_member(&column.member, &value, json);
    }
    Ok(())
}

fn write_member(member: &str, value: &str, json: &mut Vec<u8>) {
    json.push(if json.is_empty() { b'{' } else { b',' });
    write_string(member, json);
    json.push(b':');
    json.extend_from_slice(value.as_bytes());
}

// The JSON of a column's value.
fn written(column: &Column, value: &Value) -> Result<String, String> {
    let value_type = match &column.kind {
        ColumnKind::Relationship { .. } => &ValueType::Uuid,
        ColumnKind::Attribute { value_type } => value_type,
        ColumnKind::Parts { part, .. } => {
            let parts = value.as_array().ok_or("a list is expected")?;
            let parts = parts.iter().enumerate().map(|(index, given)| {
                let given = given.as_object().ok_or(format!("[{index}]: a mapping is expected"))?;
                if let Some(unknown) = given.keys().find(|member| !part.columns.iter().any(|column| column.member == **member)) {
                    return Err(format!("[{index}]: {}", no_member(&part.name, unknown, &part.columns)));
                }
                let mut json = Vec::new();
                columns(&part.name, &part.columns, given, &|_| true, &mut json).map_err(|message| format!("[{index}].{message}"))?;
                json.push(b'}');
                Ok(String::from_utf8_lossy(&json).into_owned())
            });
            return Ok(format!("[{}]", parts.collect::<Result<Vec<_>, String>>()?.join(",")));
        }
    };
    let fits = match value_type {
        ValueType::Decimal { scale, .. } => return decimal(value, *scale),
        ValueType::Integer { .. } => value.is_i64() || value.is_u64(),
        ValueType::Boolean => value.is_boolean(),
        ValueType::Json => true,
        ValueType::Enumeration { enumeration, values, .. } => {
            let text = value.as_str().unwrap_or_default();
            if !values.iter().any(|known| known == text) {
                return Err(format!("{value} is no {enumeration}; there is {}", values.join(", ")));
            }
            true
        }
        ValueType::DateTime => {
            let text = value.as_str().unwrap_or_default();
            let moment: jiff::Timestamp =
                text.parse().map_err(|_| format!("{value} is no moment as RFC 3339 writes it, for example {MOMENT}"))?;
            return Ok(format!("\"{moment}\""));
        }
        ValueType::Date => value.as_str().is_some_and(|text| text.parse::<jiff::civil::Date>().is_ok()),
        ValueType::String { .. } | ValueType::Uuid | ValueType::Binary { .. } => value.is_string(),
    };
    if fits { Ok(value.to_string()) } else { Err(format!("{value} is not of its type")) }
}

// With the digits behind the point that the database keeps.
fn decimal(value: &Value, scale: Option<u32>) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => return Err(format!("{other} is no number")),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole.strip_prefix('-').unwrap_or(whole)) || !digits(fraction) || whole.is_empty() {
        return Err(format!("{value} is no decimal; put one of many digits in quotation marks"));
    }
    // YAML's own numbers may end in .0.
    let fraction = if value.is_number() { fraction.trim_end_matches('0') } else { fraction };
    let scale = scale.map_or(fraction.len(), |scale| scale as usize);
    if fraction.len() > scale {
        return Err(format!("{value} has more than {scale} digits behind the point"));
    }
    Ok(if scale == 0 { whole.to_owned() } else { format!("{whole}.{fraction:0<scale$}") })
}

fn no_member(of: &str, member: &str, columns: &[Column]) -> String {
    let names: Vec<&str> = columns.iter().map(|column| column.member.as_str()).collect();
    format!("{of} has no member {member}; it has {}", names.join(", "))
}

/// The entity of a model.
pub(super) fn entity<'m>(models: &'m super::Models, model: &str, name: &str) -> Option<&'m Entity> {
    models.get(model).map(std::convert::AsRef::as_ref).and_then(|model: &Model| model.entity(name))
}
