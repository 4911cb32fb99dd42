//! Which names may be given to models, entities, members and values.

use crate::fault::Faults;
use crate::names::{self, MAX_IDENTIFIER};

// PostgreSQL's own columns, which no table may declare.
const POSTGRESQL_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// Where a member stands: some names are taken only at the top of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Entity,
    Part,
}

pub(super) fn check_model_name(name: &str, faults: &mut Faults) {
    let path = "metadata.name";
    if !is_label(name) {
        faults.add(path, format!("{name:?} can't name a model; take at most 40 lower case letters, digits and hyphens, with a letter first and no hyphen last"));
    } else if let Some(reason) = reserved_model(name) {
        faults.add(path, format!("the name {name:?} is taken: {reason}; give the model another name"));
    }
}

/// A DNS label of at most 40 characters that begins with a letter: the rule for the name of every resource.
pub(crate) fn is_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    name.len() <= 40
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last() != Some(&b'-')
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

fn reserved_model(name: &str) -> Option<&'static str> {
    match name {
        "transactions" | "docs" | "openapi" | "asyncapi" => Some("the API has a path of its own there"),
        "retries" => Some("the platform has a stream of its own of that name"),
        "public" | "information-schema" => Some("PostgreSQL has a schema of its own of that name"),
        "autonomy" => Some("the platform has a schema of its own of that name"),
        _ if name.starts_with("autonomy-") => Some("names that begin with autonomy- are the platform's own"),
        _ if name.starts_with("pg-") => Some("schemas that begin with pg_ are PostgreSQL's own"),
        _ => None,
    }
}

/// Whether `name` is PascalCase; a fault where not.
pub(super) fn check_pascal(name: &str, path: &str, what: &str, faults: &mut Faults) -> bool {
    check_case(name, path, what, "PascalCase", u8::is_ascii_uppercase, pascal_suggestion(name), faults)
}

/// Whether `name` is camelCase; a fault where not.
pub(super) fn check_camel(name: &str, path: &str, what: &str, faults: &mut Faults) -> bool {
    check_case(name, path, what, "camelCase", u8::is_ascii_lowercase, names::lower_camel_case(&pascal_suggestion(name)), faults)
}

fn check_case(name: &str, path: &str, what: &str, case: &str, first: fn(&u8) -> bool, suggestion: String, faults: &mut Faults) -> bool {
    let bytes = name.as_bytes();
    if bytes.first().is_some_and(first) && bytes.iter().all(u8::is_ascii_alphanumeric) {
        return true;
    }
    let advice = match suggestion.as_bytes().first() {
        Some(letter) if first(letter) && suggestion != name => format!("write {suggestion:?}"),
        _ => "begin with a letter and take letters and digits of ASCII only".to_owned(),
    };
    faults.add(path, format!("{what} {name:?} is not {case}: {advice}"));
    false
}

fn pascal_suggestion(name: &str) -> String {
    name.split(|character: char| !character.is_ascii_alphanumeric())
        .map(|word| {
            let mut characters = word.chars();
            characters.next().map(|first| first.to_ascii_uppercase().to_string() + characters.as_str()).unwrap_or_default()
        })
        .collect()
}

/// Notes a fault where an identifier that comes from a name is longer than PostgreSQL keeps.
pub(super) fn check_length(identifier: &str, path: &str, what: &str, faults: &mut Faults) {
    if identifier.len() > MAX_IDENTIFIER {
        faults.add(
            path,
            format!(
                "the {what} would be {identifier:?}, {} bytes; PostgreSQL keeps {MAX_IDENTIFIER}: take a shorter name",
                identifier.len()
            ),
        );
    }
}

/// Notes a fault where the platform or PostgreSQL has taken a member's or its column's name.
pub(super) fn check_member(member: &str, column: &str, place: Place, path: &str, faults: &mut Faults) {
    let reason = match place {
        _ if POSTGRESQL_COLUMNS.contains(&column) => "PostgreSQL has a column of its own of that name",
        Place::Part => {
            check_length(column, path, "column", faults);
            return;
        }
        _ if names::is_system_member(member) || crate::resolved::SYSTEM_COLUMNS.iter().any(|(system, _)| *system == column) => {
            "every object has this member without declaring it"
        }
        _ if names::is_query_parameter(member) => "the object API has a query parameter of that name",
        _ if member == "before" => "an update's event has a member of that name for the object as it was",
        _ => {
            check_length(column, path, "column", faults);
            return;
        }
    };
    faults.add(path, format!("the name {member:?} is taken: {reason}; take another name, for example {:?}", example(member)));
}

fn example(member: &str) -> String {
    match member {
        "version" => "revision".to_owned(),
        "id" => "number".to_owned(),
        "createdAt" => "openedAt".to_owned(),
        "updatedAt" => "changedAt".to_owned(),
        "limit" => "upperLimit".to_owned(),
        "count" => "quantity".to_owned(),
        _ => format!("{member}Value"),
    }
}

/// ` (did you mean "x"?)`, or nothing where no candidate is near.
pub(crate) fn did_you_mean<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let folded = given.to_ascii_lowercase();
    let nearest = candidates
        .into_iter()
        .map(|candidate| (distance(&folded, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3).clamp(if candidate.len() > 2 { 2 } else { 1 }, 3))
        .min();
    nearest.map(|(_, candidate)| format!(" (did you mean {candidate:?}?)")).unwrap_or_default()
}

// Levenshtein's distance, over bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let next = (diagonal + usize::from(a != b)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[right.len()]
}

/// `"a", "b" and 3 more`; `none` where there is none.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> = names.iter().take(12).map(|name| format!("{name:?}")).collect();
    let rest = names.len() - shown.len();
    let shown = shown.join(", ");
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}
