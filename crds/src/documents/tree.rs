//! YAML as a tree that knows its lines.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

/// A YAML node without its place.
pub(super) enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Mapping(Vec<(Spanned<String>, Spanned<Tree>)>),
}

/// Reads every document.
///
/// # Errors
/// The line, where it is known, and what is wrong with the text.
pub(super) fn read(text: &str) -> Result<Vec<Tree>, (Option<usize>, String)> {
    serde_saphyr::from_multiple(text).map_err(|cause| {
        let cause = cause.without_snippet();
        let line = cause.location().map(|location| location.line() as usize).filter(|line| *line > 0);
        (line, format!("this is no YAML that can be read: {cause}"))
    })
}

impl Tree {
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(Value::Null))
    }

    /// The value, and the line of each field in it by its path.
    pub(super) fn into_json(self) -> (Value, BTreeMap<String, usize>) {
        let mut lines = BTreeMap::new();
        let value = self.convert("", &mut lines);
        (value, lines)
    }

    fn convert(self, path: &str, lines: &mut BTreeMap<String, usize>) -> Value {
        let mut note = |path: &str, line: u64| {
            if line > 0 {
                lines.insert(path.to_owned(), line as usize);
            }
        };
        match self {
            Self::Scalar(value) => value,
            Self::List(elements) => {
                let places: Vec<String> = (0..elements.len()).map(|index| format!("{path}[{index}]")).collect();
                elements.iter().zip(&places).for_each(|(element, place)| note(place, element.referenced.line()));
                elements.into_iter().zip(&places).map(|(element, place)| element.value.convert(place, lines)).collect()
            }
            Self::Mapping(members) => {
                let place = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                members.iter().for_each(|(name, _)| note(&place(&name.value), name.referenced.line()));
                members
                    .into_iter()
                    .map(|(name, member)| {
                        let value = member.value.convert(&place(&name.value), lines);
                        (name.value, value)
                    })
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Tree, E> {
        Err(E::custom(format!("{value} is too large a number; put it in quotation marks")))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Tree, E> {
        Err(E::custom(format!("{value} is too large a number; put it in quotation marks")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(Tree::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Mapping(members))
    }
}
