//! JSON to values and back. Numbers are taken from their digits, never through floats.

use std::sync::Arc;

use autonomy_crds::object_json::write_string;
use autonomy_crds::resolved::{Column, ColumnKind, Entity, SYSTEM_COLUMNS, ValueType};
use rust_decimal::Decimal;
use sonic_rs::{JsonValueTrait, LazyValue};

use super::value::{Object, Shape, Value};

const MAX_DEPTH: usize = 64;

/// A text that is not the JSON expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// Nested too deep.
    #[error("JSON is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// An object is expected.
    #[error("a JSON object is expected")]
    NoObject,
}

impl From<sonic_rs::Error> for JsonError {
    fn from(error: sonic_rs::Error) -> Self {
        Self::Syntax(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

/// Reads any JSON value.
pub(super) fn read(json: &[u8]) -> Result<Value, JsonError> {
    read_value(&parse(json)?, 0)
}

// Checks the whole text; values are then read from its parts.
fn parse(json: &[u8]) -> Result<LazyValue<'_>, JsonError> {
    // Looked at first: the parser itself descends as deep as the text does.
    if nesting(json) > MAX_DEPTH {
        return Err(JsonError::TooDeep);
    }
    Ok(sonic_rs::from_slice(json)?)
}

fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

fn read_value(value: &LazyValue<'_>, depth: usize) -> Result<Value, JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError::TooDeep);
    }
    let raw = value.as_raw_str();
    Ok(match raw.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'"') => read_text(value)?,
        Some(b'[') => Value::List(
            sonic_rs::to_array_iter(raw).map(|item| read_value(&item?, depth + 1)).collect::<Result<Arc<[Value]>, JsonError>>()?,
        ),
        Some(b'{') => {
            let mut names: Vec<Box<str>> = Vec::new();
            let mut values = Vec::new();
            for member in sonic_rs::to_object_iter(raw) {
                let (name, member) = member?;
                let read = read_value(&member, depth + 1)?;
                // The last of two members with the same name counts, as JSON.parse has it.
                match names.iter().position(|own| **own == *name) {
                    Some(position) => values[position] = read,
                    None => {
                        names.push(Box::from(&*name));
                        values.push(read);
                    }
                }
            }
            Value::Object(Arc::new(Object::new(Shape::new(names), values)))
        }
        _ => number(raw, false),
    })
}

fn read_text(value: &LazyValue<'_>) -> Result<Value, JsonError> {
    match value.as_str() {
        Some(text) => Ok(Value::text(text)),
        None => Err(JsonError::Syntax(format!("{} is no string", value.as_raw_str()))),
    }
}

/// A JSON number's value. With `decimal`, a number without fraction is a decimal too.
pub(super) fn number(digits: &str, decimal: bool) -> Value {
    if !decimal && let Ok(whole) = digits.parse::<i64>() {
        return Value::Int(whole);
    }
    match parse_decimal(digits) {
        Some(value) => Value::Decimal(value),
        None => Value::Digits(digits.into()),
    }
}

/// A decimal from its digits, also in scientific form; `None` where it is not held exactly.
pub(super) fn parse_decimal(digits: &str) -> Option<Decimal> {
    if digits.contains(['e', 'E']) {
        return Decimal::from_scientific(digits).ok();
    }
    Decimal::from_str_exact(digits).ok()
}

/// Writes any value.
pub(super) fn write(value: &Value, out: &mut Vec<u8>) {
    use std::io::Write;
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        // Writing to a vector does not fail.
        Value::Int(value) => drop(write!(out, "{value}")),
        Value::Decimal(value) => drop(write!(out, "{value}")),
        Value::Digits(digits) => out.extend_from_slice(digits.as_bytes()),
        Value::Text(text) => write_string(text, out),
        Value::Timestamp(value) => drop(write!(out, "\"{value}\"")),
        Value::Duration(value) => drop(write!(out, "\"{}\"", super::time::write_duration(*value))),
        Value::List(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(object) => {
            out.push(b'{');
            for (index, (name, value)) in object.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
    }
}

// How a member is read.
#[derive(Clone, Debug)]
enum MemberKind {
    Any,
    Decimal,
    Parts(Arc<ShapeReader>),
}

#[derive(Debug)]
struct ShapeReader {
    shape: Arc<Shape>,
    kinds: Vec<MemberKind>,
}

/// Reads objects of one entity: they share one shape, a decimal attribute is a decimal even where it has no fraction, a member that is not
/// there is null, and members that the model doesn't have are left out.
#[derive(Clone, Debug)]
pub struct ObjectReader {
    reader: Arc<ShapeReader>,
}

impl ObjectReader {
    /// A reader of whole objects.
    pub fn new(entity: &Entity) -> Self {
        Self::keeping(entity, &[])
    }

    /// A reader that keeps `id` and the members named; all where none is named.
    pub fn keeping(entity: &Entity, fields: &[String]) -> Self {
        let kept = |member: &str| fields.is_empty() || member == "id" || fields.iter().any(|field| field == member);
        let system = SYSTEM_COLUMNS.iter().map(|(_, member)| (*member, MemberKind::Any));
        let columns = entity.columns.iter().map(|column| (column.member.as_str(), member_kind(column)));
        let members = system.chain(columns).filter(|(member, _)| kept(member));
        Self { reader: Arc::new(ShapeReader::new(members)) }
    }

    /// The members read, in order.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.reader.shape
    }

    /// Reads an object.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn read(&self, json: &[u8]) -> Result<Value, JsonError> {
        let value = parse(json)?;
        Ok(self.reader.read(value.as_raw_str(), None)?.0)
    }

    /// Reads an event's data: the object, and for an update the object `before` (null otherwise).
    ///
    /// # Errors
    /// When the data is not a JSON object.
    pub fn read_event(&self, data: &[u8]) -> Result<(Value, Value), JsonError> {
        let value = parse(data)?;
        let (object, before) = self.reader.read(value.as_raw_str(), Some("before"))?;
        let before = match before {
            Some(before) if before.as_raw_str().starts_with('{') => self.reader.read(before.as_raw_str(), None)?.0,
            _ => Value::Null,
        };
        Ok((object, before))
    }
}

fn member_kind(column: &Column) -> MemberKind {
    match &column.kind {
        ColumnKind::Attribute { value_type: ValueType::Decimal { .. } } => MemberKind::Decimal,
        ColumnKind::Parts { part, .. } => {
            MemberKind::Parts(Arc::new(ShapeReader::new(part.columns.iter().map(|column| (column.member.as_str(), member_kind(column))))))
        }
        ColumnKind::Attribute { .. } | ColumnKind::Relationship { .. } => MemberKind::Any,
    }
}

impl ShapeReader {
    fn new<'a>(members: impl Iterator<Item = (&'a str, MemberKind)>) -> Self {
        let (names, kinds): (Vec<&str>, Vec<MemberKind>) = members.unzip();
        Self { shape: Shape::new(names), kinds }
    }

    // `aside`: a member that is handed back unread, where the shape has none of that name.
    fn read<'a>(&self, raw: &'a str, aside: Option<&str>) -> Result<(Value, Option<LazyValue<'a>>), JsonError> {
        if !raw.starts_with('{') {
            return Err(JsonError::NoObject);
        }
        let mut values = vec![Value::Null; self.kinds.len()];
        let mut set_aside = None;
        let mut expected = 0;
        for member in sonic_rs::to_object_iter(raw) {
            let (name, member) = member?;
            // Members mostly come in the shape's order.
            let position = match self.shape.names().get(expected) {
                Some(own) if **own == *name => Some(expected),
                _ => self.shape.position(&name),
            };
            let Some(position) = position else {
                if aside == Some(&*name) {
                    set_aside = Some(member);
                }
                continue;
            };
            expected = position + 1;
            values[position] = self.kinds[position].read(&member)?;
        }
        Ok((Value::Object(Arc::new(Object::new(self.shape.clone(), values))), set_aside))
    }
}

impl MemberKind {
    fn read(&self, value: &LazyValue<'_>) -> Result<Value, JsonError> {
        let raw = value.as_raw_str();
        match self {
            MemberKind::Decimal if matches!(raw.as_bytes().first(), Some(b'-' | b'0'..=b'9')) => Ok(number(raw, true)),
            MemberKind::Parts(reader) if raw.starts_with('[') => {
                let parts: Result<Arc<[Value]>, JsonError> = sonic_rs::to_array_iter(raw)
                    .map(|part| {
                        let part = part?;
                        match reader.read(part.as_raw_str(), None) {
                            Err(JsonError::NoObject) => read_value(&part, 1),
                            read => read.map(|(object, _)| object),
                        }
                    })
                    .collect();
                Ok(Value::List(parts?))
            }
            _ => read_value(value, 1),
        }
    }
}
