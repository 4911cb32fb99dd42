//! The values that expressions work with. Cheap to clone; numbers are exact: whole numbers and decimals, never floats.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use super::json;

/// A value.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number of 64 bits.
    Int(i64),
    /// A decimal of up to 28 digits, with its scale: `1.10` stays `1.10`.
    Decimal(Decimal),
    /// A JSON number of more digits than can be calculated with; it passes through as it is.
    Digits(Arc<str>),
    /// A text.
    Text(Arc<str>),
    /// A moment.
    Timestamp(Timestamp),
    /// A length of time.
    Duration(SignedDuration),
    /// A list.
    List(Arc<[Value]>),
    /// An object with named members.
    Object(Arc<Object>),
}

/// Names of members in order, shared by objects alike.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    names: Box<[Box<str>]>,
}

impl Shape {
    /// A shape of these names, which must differ.
    pub fn new<S: Into<Box<str>>>(names: impl IntoIterator<Item = S>) -> Arc<Self> {
        Arc::new(Self { names: names.into_iter().map(Into::into).collect() })
    }

    /// The names.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Where a name stands.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|own| &**own == name)
    }
}

/// An object: a shape and a value for each of its names.
#[derive(Clone, Debug)]
pub struct Object {
    shape: Arc<Shape>,
    values: Box<[Value]>,
}

impl Object {
    /// An object; values beyond the shape are dropped, missing ones are null.
    pub fn new(shape: Arc<Shape>, mut values: Vec<Value>) -> Self {
        values.resize(shape.names.len(), Value::Null);
        Self { shape, values: values.into_boxed_slice() }
    }

    /// A member's value; `None` where there is no such member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.shape.position(name).map(|position| &self.values[position])
    }

    /// Members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.shape.names.iter().map(|name| &**name).zip(self.values.iter())
    }

    /// The names of the members.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl Value {
    /// A text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }

    /// A text, or null.
    pub fn optional_text(text: Option<impl AsRef<str>>) -> Self {
        text.map_or(Self::Null, Self::text)
    }

    /// An object with these members, whose names must differ.
    pub fn object<S: Into<Box<str>>>(members: impl IntoIterator<Item = (S, Value)>) -> Self {
        let (names, values): (Vec<Box<str>>, Vec<Value>) = members.into_iter().map(|(name, value)| (name.into(), value)).unzip();
        Self::Object(Arc::new(Object::new(Shape::new(names), values)))
    }

    /// A list.
    pub fn list(items: impl IntoIterator<Item = Value>) -> Self {
        Self::List(items.into_iter().collect())
    }

    /// A number from its digits; where it has more than can be calculated with, it passes through as it is.
    pub fn decimal_of_digits(digits: &str) -> Self {
        json::number(digits, true)
    }

    /// Reads JSON; every number keeps its digits.
    ///
    /// # Errors
    /// When the text is not JSON, or nested deeper than 64 levels.
    pub fn from_json(json: &[u8]) -> Result<Self, json::JsonError> {
        json::read(json)
    }

    /// Writes the value as JSON; a timestamp as RFC 3339 in UTC, a duration in seconds with `s` as in `90s`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        json::write(self, out);
    }

    /// The value as JSON text.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        self.write_json(&mut out);
        // Everything written is text or ASCII.
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The value as a text without quotes around it: nothing for null; a list or an object is JSON all the same.
    pub fn to_plain_text(&self) -> Cow<'_, str> {
        match self {
            Self::Null => Cow::Borrowed(""),
            Self::Text(text) => Cow::Borrowed(text),
            Self::Timestamp(_) | Self::Duration(_) => Cow::Owned(self.to_json().trim_matches('"').to_owned()),
            other => Cow::Owned(other.to_json()),
        }
    }

    /// A member of an object; `None` for everything else.
    pub fn member(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Object(object) => object.get(name),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text under which an index holds this value: equal values have equal keys (`1`, `1.0` and `1.00` are alike). `None` for null,
    /// lists and objects, which are in no index.
    pub fn index_key(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Null | Self::List(_) | Self::Object(_) => None,
            Self::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
            Self::Int(value) => Some(Cow::Owned(value.to_string())),
            Self::Decimal(value) => Some(Cow::Owned(value.normalize().to_string())),
            Self::Digits(text) | Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Timestamp(value) => Some(Cow::Owned(value.to_string())),
            Self::Duration(value) => Some(Cow::Owned(value.to_string())),
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Decimal(_) => "a decimal",
            Self::Digits(_) => "a number of too many digits",
            Self::Text(_) => "a string",
            Self::Timestamp(_) => "a timestamp",
            Self::Duration(_) => "a duration",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Equal as CEL sees it: numbers by their value (`1 == 1.00`), objects whatever the order of their members; values of different kinds differ.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Decimal(a), Self::Decimal(b)) => a == b,
            (Self::Int(a), Self::Decimal(b)) | (Self::Decimal(b), Self::Int(a)) => Decimal::from(*a) == *b,
            (Self::Digits(a), Self::Digits(b)) | (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| other == value))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::text(value)
    }
}

impl From<Decimal> for Value {
    fn from(value: Decimal) -> Self {
        Self::Decimal(value)
    }
}
