//! What is known of a value before anything runs: enough to tell an author of a wrong member or a comparison that can't come true.

use std::fmt;
use std::sync::Arc;

use autonomy_crds::resolved::{Column, ColumnKind, Entity, SYSTEM_COLUMNS, ValueType};

/// What kind of value an expression gives. Any value may be null besides.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Not known.
    Any,
    /// Null and nothing else.
    Null,
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A decimal.
    Decimal,
    /// A string.
    Text,
    /// A moment.
    Timestamp,
    /// A length of time.
    Duration,
    /// A list of values of a kind.
    List(Arc<Kind>),
    /// An object whose members are known, or none of them.
    Object(Option<Arc<ObjectKind>>),
}

/// The members of an object.
#[derive(Debug, PartialEq)]
pub struct ObjectKind {
    /// What it is, for messages: `an object of retail/Sale`.
    pub name: String,
    /// Its members.
    pub members: Vec<(String, Kind)>,
}

impl Kind {
    /// An object with known members.
    pub fn object(name: impl Into<String>, members: impl IntoIterator<Item = (impl Into<String>, Kind)>) -> Self {
        let members = members.into_iter().map(|(member, kind)| (member.into(), kind)).collect();
        Self::Object(Some(Arc::new(ObjectKind { name: name.into(), members })))
    }

    /// An entity's objects, with all members.
    pub fn of_entity(model: &str, entity: &Entity) -> Self {
        Self::of_entity_keeping(model, entity, &[])
    }

    /// An entity's objects with `id` and the members named; all where none is named.
    pub fn of_entity_keeping(model: &str, entity: &Entity, fields: &[String]) -> Self {
        let system =
            SYSTEM_COLUMNS.iter().map(|(_, member)| ((*member).to_owned(), if *member == "version" { Self::Int } else { Self::Text }));
        let columns = entity.columns.iter().map(|column| (column.member.clone(), Self::of_column(column)));
        let kept = system.chain(columns).filter(|(member, _)| fields.is_empty() || member == "id" || fields.contains(member));
        Self::object(format!("{model}/{}", entity.name), kept)
    }

    /// A column's values.
    pub fn of_column(column: &Column) -> Self {
        match &column.kind {
            ColumnKind::Relationship { .. } => Self::Text,
            ColumnKind::Parts { part, .. } => {
                let members = part.columns.iter().map(|column| (column.member.clone(), Self::of_column(column)));
                Self::List(Arc::new(Self::object(&part.name, members)))
            }
            ColumnKind::Attribute { value_type } => match value_type {
                ValueType::Integer { .. } => Self::Int,
                ValueType::Decimal { .. } => Self::Decimal,
                ValueType::Boolean => Self::Bool,
                ValueType::Json => Self::Any,
                ValueType::String { .. }
                | ValueType::Uuid
                | ValueType::Date
                | ValueType::DateTime
                | ValueType::Binary { .. }
                | ValueType::Enumeration { .. } => Self::Text,
            },
        }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Decimal)
    }

    // Whether nothing is known that speaks against a value of this kind being used as that one.
    pub(crate) fn may_be(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::Any | Self::Null, _) | (_, Self::Any | Self::Null) => true,
            (Self::List(_), Self::List(_)) | (Self::Object(_), Self::Object(_)) => true,
            (own, wanted) => own == wanted || (own.is_number() && wanted.is_number()),
        }
    }

    // What either of two may be.
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Null, other) => other,
            (own, Self::Null) => own,
            (own, other) if own == other => own,
            (own, other) if own.is_number() && other.is_number() => Self::Decimal,
            (Self::List(_), Self::List(_)) => Self::List(Arc::new(Self::Any)),
            (Self::Object(_), Self::Object(_)) => Self::Object(None),
            _ => Self::Any,
        }
    }

    pub(super) fn item(&self) -> Self {
        match self {
            Self::List(item) => (**item).clone(),
            _ => Self::Any,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any value",
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Int => "a whole number",
            Self::Decimal => "a decimal",
            Self::Text => "a string",
            Self::Timestamp => "a timestamp",
            Self::Duration => "a duration",
            Self::List(_) => "a list",
            Self::Object(Some(object)) => return write!(f, "an object of {}", object.name),
            Self::Object(None) => "an object",
        })
    }
}
