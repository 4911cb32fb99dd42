//! The objects that create and patch steps write: members and their expressions, checked against the entity.

use std::collections::BTreeMap;

use autonomy_crds::Faults;
use autonomy_crds::object_json::write_string;
use autonomy_crds::resolved::{Column, ColumnKind, Entity, SYSTEM_COLUMNS, ValueType};

use crate::expression::{EvaluationError, Expression, Identity, Kind, Names, Value, compile};

/// Members with their expressions, ready to be written as JSON.
#[derive(Debug, Default)]
pub(super) struct Members {
    // The member's name as JSON with its colon.
    members: Vec<(String, String, Expression)>,
}

impl Members {
    /// Compiles the members of an object of `entity`; `id` and `version` only where they are in `system`.
    pub(super) fn compile(
        object: &BTreeMap<String, String>,
        entity: Option<&Entity>,
        system: &[&str],
        names: &Names,
        path: &str,
        faults: &mut Faults,
    ) -> Self {
        let mut members = Vec::new();
        for (member, source) in object {
            let path = format!("{path}.{member}");
            let column = entity.and_then(|entity| entity.by_member(member));
            if let (Some(entity), None) = (entity, column)
                && !system.contains(&member.as_str())
            {
                faults.add(&path, unknown_member(entity, member));
            }
            let expression = match compile(source, names, &path) {
                Ok(expression) => expression,
                Err(found) => {
                    faults.0.extend(found.0);
                    continue;
                }
            };
            if let Some(message) = column.and_then(|column| misfit(column, &expression)) {
                faults.add(&path, message);
            }
            let mut head = Vec::new();
            write_string(member, &mut head);
            head.push(b':');
            members.push((member.clone(), String::from_utf8_lossy(&head).into_owned(), expression));
        }
        Self { members }
    }

    /// Takes a member out.
    pub(super) fn take(&mut self, member: &str) -> Option<Expression> {
        let place = self.members.iter().position(|(own, _, _)| own == member)?;
        Some(self.members.remove(place).2)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Writes `"name":value,…`; `first` says whether a comma must come before.
    pub(super) fn write(
        &self,
        variables: &[Value],
        identity: &Identity<'_>,
        mut first: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), EvaluationError> {
        for (_, head, expression) in &self.members {
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(head.as_bytes());
            expression.evaluate(variables, identity)?.write_json(out);
        }
        Ok(())
    }
}

/// The members that a new object must be given and is not.
pub(super) fn missing(entity: &Entity, object: &BTreeMap<String, String>) -> Vec<String> {
    entity
        .columns
        .iter()
        .filter(|column| column.required && column.default.is_none() && !matches!(column.kind, ColumnKind::Parts { min_items: 0, .. }))
        .filter(|column| !object.contains_key(&column.member))
        .map(|column| column.member.clone())
        .collect()
}

fn unknown_member(entity: &Entity, member: &str) -> String {
    if SYSTEM_COLUMNS.iter().any(|(_, own)| *own == member) {
        return format!("{member} is given by the platform");
    }
    if entity.columns.iter().any(|column| column.member == format!("{member}Id")) {
        return format!("{} has no member {member}; {member}Id is", entity.name);
    }
    let names: Vec<&str> = entity.columns.iter().map(|column| column.member.as_str()).collect();
    format!("{} has no member {member}; it has {}", entity.name, names.join(", "))
}

// What speaks against this expression's value in this column.
fn misfit(column: &Column, expression: &Expression) -> Option<String> {
    if let ColumnKind::Attribute { value_type: ValueType::Enumeration { enumeration, values, .. } } = &column.kind
        && let Some(Value::Text(text)) = expression.constant()
        && !values.iter().any(|value| **value == **text)
    {
        return Some(format!("{text:?} is no {enumeration}; there is {}", values.join(", ")));
    }
    if column.required && matches!(expression.constant(), Some(Value::Null)) {
        return Some(format!("{} must have a value", column.member));
    }
    kind_misfit(column, expression.kind())
}

fn kind_misfit(column: &Column, kind: &Kind) -> Option<String> {
    let wanted = Kind::of_column(column);
    let fits = match (&column.kind, kind) {
        // A string is taken for a decimal, and a moment for a string.
        (ColumnKind::Attribute { value_type: ValueType::Decimal { .. } }, Kind::Text) => true,
        (ColumnKind::Attribute { value_type: ValueType::DateTime }, Kind::Timestamp) => true,
        (ColumnKind::Attribute { value_type: ValueType::Integer { .. } }, Kind::Decimal) => false,
        _ => kind.may_be(&wanted),
    };
    if !fits {
        return Some(format!("{} is {wanted}, the expression gives {kind}", column.member));
    }
    match (&column.kind, kind) {
        (ColumnKind::Parts { part, .. }, Kind::List(item)) => match &**item {
            Kind::Object(Some(object)) => {
                let unknown = object.members.iter().find(|(member, _)| !part.columns.iter().any(|column| column.member == *member));
                if let Some((member, _)) = unknown {
                    let names: Vec<&str> = part.columns.iter().map(|column| column.member.as_str()).collect();
                    return Some(format!("{} has no member {member}; it has {}", part.name, names.join(", ")));
                }
                let given = |column: &Column| object.members.iter().find(|(member, _)| *member == column.member);
                part.columns.iter().find_map(|column| match given(column) {
                    Some((_, kind)) => kind_misfit(column, kind),
                    None if column.required && column.default.is_none() => {
                        Some(format!("{} of {} must have a value", column.member, part.name))
                    }
                    None => None,
                })
            }
            _ => None,
        },
        _ => None,
    }
}
