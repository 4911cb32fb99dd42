//! What is said of columns together: keys, indexes, checks, routing; and names that must be unique in a schema.

use super::entity::declared;
use super::naming::{check_camel, check_length, did_you_mean, list};
use super::scope::{Declared, Scopes};
use crate::data_model::{CheckOperator, PartSum};
use crate::fault::Faults;
use crate::names;
use crate::resolved::{self, Check, Column, ColumnKind, Compared, Entity, Enumeration, Index, ValueType};

// A subject is at most some 4,000 bytes, and each character of a routing value may take 12 of them.
const MAX_ROUTING_LENGTH: u32 = 64;

/// Adds keys, indexes, checks and events to an entity whose columns are complete. `chain` is the entity and those it extends, farthest first.
pub(super) fn complete(scopes: &Scopes<'_>, entity: &mut Entity, chain: &[Declared<'_>], faults: &mut Faults) {
    // What another model declares is that model's to mend; there it has its faults.
    let mut elsewhere = Faults::default();
    for ancestor in chain {
        let faults = if std::ptr::eq(ancestor.model, scopes.model) { &mut *faults } else { &mut elsewhere };
        let path = ancestor.path();
        let said = ancestor.entity;
        if !said.key.is_empty() {
            entity.key = key(entity, &said.key, &format!("{path}.key"), faults);
        }
        if let Some(name) = &said.events.routing {
            entity.routing = routing(entity, name, &format!("{path}.events.routing"), faults);
        }
        if let Some(name) = &said.events.partition_key {
            entity.partition_key = partition_key(entity, name, &format!("{path}.events.partitionKey"), faults);
        }
    }
    for ancestor in chain {
        let faults = if std::ptr::eq(ancestor.model, scopes.model) { &mut *faults } else { &mut elsewhere };
        let path = ancestor.path();
        for (position, said) in ancestor.entity.indexes.iter().enumerate() {
            index(entity, &said.attributes, said.unique, &format!("{path}.indexes[{position}]"), faults);
        }
        for (position, said) in ancestor.entity.checks.iter().enumerate() {
            check(entity, said, &format!("{path}.checks[{position}]"), faults);
        }
    }
}

// The column that an attribute's or a relationship's name stands for.
fn column<'e>(entity: &'e Entity, name: &str, path: &str, faults: &mut Faults) -> Option<&'e Column> {
    if let Some(found) = entity.columns.iter().find(|column| declared(column) == name) {
        return Some(found);
    }
    let message = match entity.by_member(name) {
        Some(relationship) => format!("name the relationship, not its JSON member: write {:?}", declared(relationship)),
        None if names::is_system_member(name) => format!("{name:?} is kept by the platform and can't be used here"),
        None => {
            let near = did_you_mean(name, entity.columns.iter().map(declared));
            format!(
                "{} has no attribute or relationship {name:?}{near}; it has: {}",
                entity.name,
                list(entity.columns.iter().map(declared))
            )
        }
    };
    faults.add(path, message);
    None
}

// Columns that can stand in a key or an index.
fn indexed_columns(entity: &Entity, said: &[String], path: &str, faults: &mut Faults) -> Vec<String> {
    let mut columns = Vec::with_capacity(said.len());
    for (position, name) in said.iter().enumerate() {
        let path = format!("{path}[{position}]");
        if said[..position].contains(name) {
            faults.add(&path, format!("{name:?} is in the list twice"));
        }
        let Some(column) = column(entity, name, &path, faults) else { continue };
        match &column.kind {
            ColumnKind::Parts { .. } => faults.add(&path, format!("{name:?} is a list of parts, which can't be in a key or an index")),
            ColumnKind::Attribute { value_type: ValueType::Json | ValueType::Binary { .. } } => {
                faults.add(&path, format!("{name:?} is of type json or binary, which can't be in a key or an index"));
            }
            _ => columns.push(column.name.clone()),
        }
    }
    columns
}

fn key(entity: &Entity, said: &[String], path: &str, faults: &mut Faults) -> Vec<String> {
    let columns = indexed_columns(entity, said, path, faults);
    for (position, name) in said.iter().enumerate() {
        if entity.columns.iter().any(|column| declared(column) == name && !column.required) {
            let message = format!("{name:?} is part of the key, so each object needs a value: make it required");
            faults.add(format!("{path}[{position}]"), message);
        }
    }
    columns
}

fn routing(entity: &Entity, name: &str, path: &str, faults: &mut Faults) -> Option<String> {
    let column = column(entity, name, path, faults)?;
    match &column.kind {
        ColumnKind::Attribute { value_type } => match value_type {
            ValueType::Enumeration { .. } | ValueType::Integer { .. } | ValueType::Boolean => {}
            ValueType::String { max_length: Some(length), .. } if *length <= MAX_ROUTING_LENGTH => {}
            ValueType::String { .. } => {
                let message = format!(
                    "the values of {name:?} are in subjects: give it a maxLength of at most {MAX_ROUTING_LENGTH}, or an enumeration as its type"
                );
                faults.add(path, message);
            }
            _ => faults
                .add(path, format!("{name:?} can't route events: take an attribute of type string, integer, boolean or an enumeration")),
        },
        _ => faults.add(path, format!("{name:?} is no attribute; events are routed by an attribute's value")),
    }
    Some(column.name.clone())
}

fn partition_key(entity: &Entity, name: &str, path: &str, faults: &mut Faults) -> Option<String> {
    let column = column(entity, name, path, faults)?;
    let fits = match &column.kind {
        ColumnKind::Relationship { .. } => true,
        ColumnKind::Parts { .. } => false,
        ColumnKind::Attribute { value_type } => {
            !matches!(value_type, ValueType::Json | ValueType::Binary { .. } | ValueType::Decimal { .. } | ValueType::DateTime)
        }
    };
    if !fits {
        let message = format!(
            "{name:?} can't be a partition key: take a relationship or an attribute of type string, uuid, integer, boolean, date or an enumeration"
        );
        faults.add(path, message);
    }
    Some(column.name.clone())
}

fn index(entity: &mut Entity, said: &[String], unique: bool, path: &str, faults: &mut Faults) {
    let attributes_path = format!("{path}.attributes");
    if said.is_empty() {
        faults.add(&attributes_path, "an index needs at least one attribute or relationship");
    }
    let columns = indexed_columns(entity, said, &attributes_path, faults);
    if columns.len() != said.len() || columns.is_empty() {
        return;
    }
    let there = if columns == entity.key {
        Some("the key brings this index already; take this one away")
    } else if entity.indexes.iter().any(|index| index.columns == columns) {
        Some("there is an index over the same already; take one of the two away")
    } else if let [only] = columns.as_slice() {
        entity.by_column(only).and_then(|column| match &column.kind {
            _ if column.unique => Some("what is unique has an index already; take this one away"),
            ColumnKind::Relationship { .. } if unique => {
                Some("a relationship has an index already; make it unique there and take this one away")
            }
            ColumnKind::Relationship { .. } => Some("a relationship has an index already; take this one away"),
            _ => None,
        })
    } else {
        None
    };
    if let Some(message) = there {
        faults.add(path, message);
        return;
    }
    let over: Vec<&str> = columns.iter().map(String::as_str).collect();
    let name = resolved::constraint_name(&entity.table, &over, if unique { "unique" } else { "idx" });
    entity.indexes.push(Index { name, columns, unique });
}

fn check(entity: &mut Entity, said: &crate::data_model::Check, path: &str, faults: &mut Faults) {
    check_camel(&said.name, &format!("{path}.name"), "check", faults);
    if entity.checks.iter().any(|earlier| earlier.declared_name == said.name) {
        faults.add(format!("{path}.name"), format!("there is a check {:?} already, own or taken over by extends", said.name));
    }
    let left_path = format!("{path}.attribute");
    let left = column(entity, &said.attribute, &left_path, faults);
    // That there is exactly one is the schema's rule.
    let right = match (&said.other, &said.sum_of) {
        (Some(other), _) => {
            let right_path = format!("{path}.other");
            column(entity, other, &right_path, faults).map(|right| (right, Compared::Column(right.name.clone()), other, right_path))
        }
        (None, Some(sum)) => {
            let (parts_path, right_path) = (format!("{path}.sumOf.parts"), format!("{path}.sumOf.attribute"));
            parts_member(entity, sum, &parts_path, &right_path, faults).map(|(parts, right)| {
                let compared = Compared::SumOf { column: parts.name.clone(), member: right.member.clone() };
                (right, compared, &sum.attribute, right_path)
            })
        }
        (None, None) => None,
    };
    let (Some(left), Some((right, compared, right_name, right_path))) = (left, right) else { return };
    if std::ptr::eq(left, right) {
        faults.add(right_path, "a check compares two different attributes");
        return;
    }
    let (left_class, right_class) = (class(left), class(right));
    if left_class.is_none() {
        faults.add(left_path, format!("{:?} can't be compared", said.attribute));
    } else if said.sum_of.is_some() && right_class != Some(Class::Number) {
        faults.add(right_path, format!("{right_name:?} is no number, so it has no sum"));
    } else if left_class != right_class {
        faults.add(right_path, format!("{:?} and {right_name:?} are of types that can't be compared", said.attribute));
    } else if !matches!(said.operator, CheckOperator::Eq | CheckOperator::Ne)
        && !matches!(left_class, Some(Class::Number | Class::Text | Class::Date | Class::DateTime | Class::Enumeration(_)))
    {
        faults.add(format!("{path}.operator"), "attributes of this type can only be compared with eq and ne");
    }
    let name = resolved::constraint_name(&entity.table, &[&names::snake_case(&said.name)], "check");
    let check = Check { name, declared_name: said.name.clone(), column: left.name.clone(), operator: said.operator, compared };
    entity.checks.push(check);
}

// The list of parts and their attribute that a sum is made of.
fn parts_member<'e>(
    entity: &'e Entity,
    sum: &PartSum,
    parts_path: &str,
    attribute_path: &str,
    faults: &mut Faults,
) -> Option<(&'e Column, &'e Column)> {
    let parts = column(entity, &sum.parts, parts_path, faults)?;
    let ColumnKind::Parts { part, .. } = &parts.kind else {
        faults.add(parts_path, format!("{:?} is no list of parts", sum.parts));
        return None;
    };
    let found = part.columns.iter().find(|column| declared(column) == sum.attribute);
    if found.is_none() {
        let near = did_you_mean(&sum.attribute, part.columns.iter().map(declared));
        let there = list(part.columns.iter().map(declared));
        faults.add(attribute_path, format!("{} has no attribute {:?}{near}; it has: {there}", part.name, sum.attribute));
    }
    Some((parts, found?))
}

// Values of one class can be compared.
#[derive(PartialEq)]
enum Class<'e> {
    Text,
    Uuid,
    Number,
    Boolean,
    Date,
    DateTime,
    Enumeration(&'e str),
}

fn class(column: &Column) -> Option<Class<'_>> {
    match &column.kind {
        ColumnKind::Relationship { .. } => Some(Class::Uuid),
        ColumnKind::Parts { .. } => None,
        ColumnKind::Attribute { value_type } => match value_type {
            ValueType::String { .. } => Some(Class::Text),
            ValueType::Uuid => Some(Class::Uuid),
            ValueType::Integer { .. } | ValueType::Decimal { .. } => Some(Class::Number),
            ValueType::Boolean => Some(Class::Boolean),
            ValueType::Date => Some(Class::Date),
            ValueType::DateTime => Some(Class::DateTime),
            ValueType::Enumeration { enumeration, .. } => Some(Class::Enumeration(enumeration)),
            ValueType::Json | ValueType::Binary { .. } => None,
        },
    }
}

/// Checks that tables, views and types of a schema have names of their own, and entities paths of their own.
pub(super) fn check_schema(enumerations: &[Enumeration], entities: &[(usize, Entity)], faults: &mut Faults) {
    // (identifier, what it is, the declared name, its field)
    let mut taken: Vec<(&str, &str, &str, String)> = Vec::new();
    let mut take = |identifier, what, name, path: String, faults: &mut Faults| {
        let earlier = taken.iter().find(|(other, ..)| *other == identifier);
        if let Some((_, other_what, other_name, _)) = earlier
            && (*other_what, *other_name) != (what, name)
        {
            let message =
                format!("the {what} {name:?} and the {other_what} {other_name:?} would both be {identifier:?} in the database; rename one");
            faults.add(&path, message);
        }
        taken.push((identifier, what, name, path));
    };
    for (index, entity) in entities {
        take(&entity.table, "entity", &entity.name, format!("spec.entities[{index}].name"), faults);
    }
    for (index, entity) in entities {
        let mut views: Vec<&str> = Vec::new();
        for column in &entity.columns {
            let ColumnKind::Parts { part, .. } = &column.kind else { continue };
            let path = format!("spec.entities[{index}].parts");
            if views.contains(&part.view.as_str()) {
                let message = format!("{:?} is the shape of two lists; declare an entity for each", part.name);
                faults.add(&path, message);
                continue;
            }
            views.push(&part.view);
            check_length(&part.view, &path, "view", faults);
            take(&part.view, "part", &part.name, path, faults);
        }
    }
    for (index, enumeration) in enumerations.iter().enumerate() {
        take(&enumeration.type_name, "enumeration", &enumeration.name, format!("spec.enumerations[{index}].name"), faults);
    }
    for (position, (index, entity)) in entities.iter().enumerate() {
        let path = format!("spec.entities[{index}].plural");
        if entity.path == "docs" {
            faults.add(&path, "the path \"docs\" is the API's own; give the entity another plural");
        }
        let earlier = entities[..position].iter().find(|(_, other)| other.path == entity.path && other.name != entity.name);
        if let Some((_, other)) = earlier {
            let message = format!(
                "{:?} and {:?} would both be at the path {:?}; give one of them another plural",
                other.name, entity.name, entity.path
            );
            faults.add(path, message);
        }
    }
}
