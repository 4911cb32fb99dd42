//! The reference of all kinds, a page of Markdown: every field with its type, default, limits and description, and every rule, as the
//! CustomResourceDefinitions have them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::data_model::DataModelStatus;
use crate::data_platform::DataPlatformStatus;
use crate::micro_service::MicroServiceStatus;
use crate::migration::MigrationStatus;
use crate::names::DURATION_PATTERN;
use crate::schema::{Definition, definitions};
use crate::{DataModelSpec, DataPlatformSpec, GROUP, MicroServiceSpec, MigrationSpec, VERSION};

/// The page, as `crdgen` writes it to docs/reference.md.
pub fn markdown() -> String {
    let values = documented_values();
    let sections: Vec<Vec<Section>> = {
        let mut known = HashMap::new();
        definitions().iter().map(|definition| sections_of(definition, &mut known)).collect()
    };
    let anchors: HashMap<String, &str> =
        sections.iter().flatten().map(|section| (shape(section.schema), section.anchor.as_str())).collect();
    let writer = Writer { anchors, values };

    let mut page = format!(
        "# Reference\n\n\
         <!-- Written by `make crds` from crds/src; edit the types there. -->\n\n\
         Every field of the kinds of `{GROUP}/{VERSION}`. `kubectl explain` tells the same in a terminal, for example `kubectl explain dm.spec.entities.attributes`.\n\
         An unknown field is refused. [operations.md](operations.md) tells what the conditions' reasons mean, [expressions.md](expressions.md) what an\n\
         expression in CEL can say.\n\n\
         | kind | short | |\n|---|---|---|\n"
    );
    for definition in definitions() {
        let kind = definition.kind;
        let text = cell(description(definition.schema()));
        push(&mut page, format_args!("| [{kind}](#{}) | `{}` | {text} |\n", slug(kind), short_name(definition)));
    }
    for (definition, sections) in definitions().iter().zip(&sections) {
        writer.kind(&mut page, definition, sections);
    }
    page
}

/// An object with fields of its own, under a heading of its own.
struct Section<'s> {
    title: String,
    anchor: String,
    schema: &'s Value,
}

// The objects of a kind in reading order, without those of a shape that has a heading already.
fn sections_of<'s>(definition: &'s Definition, known: &mut HashMap<String, ()>) -> Vec<Section<'s>> {
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        collect(definition.kind, part, &definition.schema()["properties"][part], known, &mut found);
    }
    found
}

fn collect<'s>(kind: &str, path: &str, schema: &'s Value, known: &mut HashMap<String, ()>, found: &mut Vec<Section<'s>>) {
    if let Some(elements) = schema.get("items") {
        return collect(kind, &format!("{path}[]"), elements, known, found);
    }
    if schema.get("properties").is_none() || known.insert(shape(schema), ()).is_some() {
        return;
    }
    let title = format!("{kind} `{path}`");
    found.push(Section { anchor: slug(&title), title, schema });
    // Steps within steps come behind what all steps have.
    let (inner, own): (Vec<_>, Vec<_>) = properties(schema).into_iter().partition(|(_, field)| holds_steps(field));
    for (name, property) in own.into_iter().chain(inner) {
        collect(kind, &format!("{path}.{name}"), property, known, found);
    }
}

fn holds_steps(field: &Value) -> bool {
    properties(field.get("items").unwrap_or(field)).iter().any(|(name, _)| *name == "steps")
}

// What makes two objects the same for a reader: all but what the field says of them.
fn shape(schema: &Value) -> String {
    let mut schema = schema.clone();
    if let Value::Object(members) = &mut schema {
        members.retain(|name, _| !matches!(name.as_str(), "description" | "default" | "nullable" | "x-kubernetes-validations"));
    }
    schema.to_string()
}

struct Writer<'s> {
    anchors: HashMap<String, &'s str>,
    values: BTreeMap<Vec<String>, Vec<String>>,
}

impl Writer<'_> {
    fn kind(&self, page: &mut String, definition: &Definition, sections: &[Section]) {
        push(page, format_args!("\n## {}\n\n{}\n\n", definition.kind, description(definition.schema())));
        let version = &definition.document["spec"]["versions"][0];
        let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
        let (wide, always): (Vec<&Value>, Vec<&Value>) = columns.partition(|column| column["priority"].as_i64().unwrap_or(0) > 0);
        let names = |columns: Vec<&Value>| columns.iter().filter_map(|column| column["name"].as_str()).collect::<Vec<_>>().join(", ");
        let short = short_name(definition);
        push(page, format_args!("`kubectl get {short}` shows {}; with `-o wide` also {}.\n", names(always), names(wide)));
        rules(page, definition.schema());
        for section in sections {
            self.section(page, section);
        }
    }

    fn section(&self, page: &mut String, section: &Section) {
        push(page, format_args!("\n### {}\n\n", section.title));
        if let Some(text) = section.schema["description"].as_str() {
            push(page, format_args!("{text}\n\n"));
        }
        if properties(section.schema).is_empty() {
            page.push_str("It has no fields: write `{}`.\n");
        } else {
            page.push_str("| field | type | default | limits | |\n|---|---|---|---|---|\n");
        }
        let required: Vec<&str> = section.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let (first, then): (Vec<_>, Vec<_>) = properties(section.schema).into_iter().partition(|(name, _)| required.contains(name));
        for (name, field) in first.into_iter().chain(then) {
            let default = if required.contains(&name) { "**required**".to_owned() } else { default(field) };
            let (kind, limits, text) = (cell(&self.kind_of(field)), cell(&limits(field)), cell(&self.text(field)));
            push(page, format_args!("| `{name}` | {kind} | {default} | {limits} | {text} |\n"));
        }
        rules(page, section.schema);
    }

    fn kind_of(&self, schema: &Value) -> String {
        if let Some(values) = values(schema) {
            return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" | ");
        }
        match schema["type"].as_str() {
            Some("array") => format!("list of {}", self.kind_of(&schema["items"])),
            Some("object") if schema.get("additionalProperties").is_some() => {
                format!("map of {}", self.kind_of(&schema["additionalProperties"]))
            }
            Some("object") => match self.anchors.get(&shape(schema)) {
                Some(anchor) => format!("[object](#{anchor})"),
                None => "object".to_owned(),
            },
            Some("string") if schema["format"] == "date-time" => "time (RFC 3339)".to_owned(),
            Some("string") if schema["pattern"] == DURATION_PATTERN => "duration".to_owned(),
            Some(plain) => plain.to_owned(),
            None => "any JSON".to_owned(),
        }
    }

    // The description, with what each of the possible values means.
    fn text(&self, schema: &Value) -> String {
        let mut text = description(schema).to_owned();
        let values = values(schema).or_else(|| values(&schema["items"]));
        for (value, meaning) in
            values.iter().flatten().zip(values.as_ref().and_then(|values| self.values.get(values)).into_iter().flatten())
        {
            push(&mut text, format_args!("<br>`{value}`: {meaning}"));
        }
        text
    }
}

// A definition keeps no descriptions of single values; the types have them.
fn documented_values() -> BTreeMap<Vec<String>, Vec<String>> {
    let mut generator = schemars::SchemaGenerator::default();
    generator.subschema_for::<DataPlatformSpec>();
    generator.subschema_for::<DataPlatformStatus>();
    generator.subschema_for::<DataModelSpec>();
    generator.subschema_for::<DataModelStatus>();
    generator.subschema_for::<MicroServiceSpec>();
    generator.subschema_for::<MicroServiceStatus>();
    generator.subschema_for::<MigrationSpec>();
    generator.subschema_for::<MigrationStatus>();
    let alternatives = generator.definitions().values().filter_map(|schema| schema.get("oneOf")?.as_array());
    alternatives
        .filter_map(|alternatives| {
            let described = alternatives.iter().map(|value| Some((value.get("const")?.as_str()?.to_owned(), plain(description(value)))));
            described.collect::<Option<Vec<_>>>().map(|described| described.into_iter().unzip())
        })
        .collect()
}

fn values(schema: &Value) -> Option<Vec<String>> {
    let values = schema.get("enum")?.as_array()?;
    Some(values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

// A string is shown as YAML has it; an object as what its fields' defaults make of it.
fn default(schema: &Value) -> String {
    match schema.get("default") {
        None => String::new(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(Value::Object(members)) if filled(schema, members) == filled(schema, &Map::new()) => "its fields' defaults".to_owned(),
        Some(value) => format!("`{}`", cell(&value.to_string())),
    }
}

fn filled(schema: &Value, members: &Map<String, Value>) -> BTreeMap<String, Value> {
    let values = properties(schema).into_iter().filter_map(|(name, field)| {
        let value = members.get(name).or_else(|| field.get("default"))?;
        let value = match value {
            Value::Object(inner) => filled(field, inner).into_iter().collect(),
            other => other.clone(),
        };
        Some((name.to_owned(), value))
    });
    values.collect()
}

fn limits(schema: &Value) -> String {
    let mut limits = Vec::new();
    match schema["type"].as_str() {
        Some("string") if values(schema).is_none() && schema["pattern"] != DURATION_PATTERN => {
            limits.extend(range(schema, ["minLength", "maxLength"], " character"));
            limits.extend(schema["pattern"].as_str().map(|pattern| format!("matches `{pattern}`")));
        }
        Some("string") if schema["pattern"] == DURATION_PATTERN => limits.push("as `250ms`, `1.5s`, `2m15s`".to_owned()),
        Some("integer" | "number") => limits.extend(range(schema, ["minimum", "maximum"], "")),
        Some("array") => limits.extend(range(schema, ["minItems", "maxItems"], " element")),
        Some("object") => limits.extend(range(schema, ["minProperties", "maxProperties"], " entr")),
        _ => {}
    }
    for inner in ["items", "additionalProperties"] {
        let inner = schema.get(inner).map(limits_of_each).filter(|inner| !inner.is_empty());
        limits.extend(inner);
    }
    limits.join("; ")
}

fn limits_of_each(schema: &Value) -> String {
    let limits = limits(schema);
    if limits.is_empty() { limits } else { format!("each {limits}") }
}

fn range(schema: &Value, [least, most]: [&str; 2], unit: &str) -> Option<String> {
    let unit = |count: &Value| match (unit, count.as_i64()) {
        ("", _) => String::new(),
        (" entr", Some(1)) => " entry".to_owned(),
        (" entr", _) => " entries".to_owned(),
        (unit, Some(1)) => unit.to_owned(),
        (unit, _) => format!("{unit}s"),
    };
    match (schema.get(least), schema.get(most)) {
        (Some(least), Some(most)) if least == most => Some(format!("{most}{}", unit(most))),
        (Some(least), Some(most)) => Some(format!("{least} to {most}{}", unit(most))),
        (Some(least), None) => Some(format!("at least {least}{}", unit(least))),
        (None, Some(most)) => Some(format!("at most {most}{}", unit(most))),
        (None, None) => None,
    }
}

// The rules of an object, and those of its fields that have no heading of their own.
fn rules(page: &mut String, schema: &Value) {
    let mut lines = String::new();
    let fields = properties(schema).into_iter().filter(|(_, field)| field.get("properties").is_none());
    for (name, schema) in std::iter::once(("", schema)).chain(fields) {
        for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
            let (message, rule) = (rule["message"].as_str().unwrap_or_default(), rule["rule"].as_str().unwrap_or_default());
            let place = if name.is_empty() { String::new() } else { format!("`{name}`: ") };
            push(&mut lines, format_args!("- {place}{message}: `{rule}`\n"));
        }
    }
    if !lines.is_empty() {
        push(page, format_args!("\nRules, with the message of a refusal:\n\n{lines}"));
    }
}

fn properties(schema: &Value) -> Vec<(&str, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(name, field)| (name.as_str(), field)).collect()
}

fn description(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn short_name(definition: &Definition) -> &str {
    definition.document["spec"]["names"]["shortNames"][0].as_str().unwrap_or_default()
}

fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    plain(text).replace('|', "\\|")
}

// The anchor that GitHub and others make of a heading.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars()
        .filter(|letter| letter.is_alphanumeric() || "-_ ".contains(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = page.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_docs_have_this_reference() {
        let path =
            std::path::Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../docs/reference.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == markdown(), "docs/reference.md differs: run `make crds` and commit");
    }

    #[test]
    fn every_link_leads_to_one_heading() {
        let page = markdown();
        let headings: Vec<String> =
            page.lines().filter_map(|line| line.strip_prefix("##")).map(|line| slug(line.trim_start_matches('#').trim())).collect();
        let known: HashSet<&str> = headings.iter().map(String::as_str).collect();
        assert_eq!(known.len(), headings.len(), "two headings have the same anchor");
        let links: Vec<&str> = page.split("](#").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect();
        assert!(links.len() > 50, "{links:?}");
        for link in links {
            assert!(known.contains(link), "#{link} leads nowhere");
        }
    }

    #[test]
    fn every_field_of_every_object_has_its_row_and_every_rule_its_line() {
        fn walk(schema: &Value, page: &str) {
            for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                let (message, rule) = (rule["message"].as_str().expect("a message"), rule["rule"].as_str().expect("a rule"));
                assert!(page.contains(&format!("- {message}: `{rule}`\n")), "{message}");
            }
            for (name, field) in properties(schema) {
                let described = format!("| {}", cell(description(field)));
                let row = page.lines().any(|line| line.starts_with(&format!("| `{name}` |")) && line.contains(&described));
                assert!(row || matches!(name, "spec" | "status"), "{name} has no row with its description");
                walk(field, page);
            }
            schema.get("items").into_iter().for_each(|elements| walk(elements, page));
        }
        let page = markdown();
        definitions().iter().for_each(|definition| walk(definition.schema(), &page));
    }

    #[test]
    fn every_value_of_an_enumeration_is_described() {
        fn walk(schema: &Value, known: &BTreeMap<Vec<String>, Vec<String>>) {
            if let Some(values) = values(schema).filter(|values| !values.iter().any(|value| value == "Unknown")) {
                let meanings = known.get(&values).unwrap_or_else(|| panic!("{values:?} are not described"));
                assert!(meanings.iter().all(|meaning| !meaning.is_empty()), "{values:?}: {meanings:?}");
            }
            match schema {
                Value::Object(members) => members.values().for_each(|member| walk(member, known)),
                Value::Array(elements) => elements.iter().for_each(|element| walk(element, known)),
                _ => {}
            }
        }
        let known = documented_values();
        definitions().iter().for_each(|definition| walk(definition.schema(), &known));
    }

    #[test]
    fn limits_read_as_sentences() {
        let said = |schema: Value| limits(&schema);
        assert_eq!(said(serde_json::json!({"type": "string", "minLength": 1, "maxLength": 48})), "1 to 48 characters");
        assert_eq!(said(serde_json::json!({"type": "string", "minLength": 1, "maxLength": 1})), "1 character");
        assert_eq!(said(serde_json::json!({"type": "integer", "minimum": 0})), "at least 0");
        let keys = serde_json::json!({"type": "array", "maxItems": 16, "items": {"type": "string", "maxLength": 56}});
        assert_eq!(said(keys), "at most 16 elements; each at most 56 characters");
        let map = serde_json::json!({"type": "object", "maxProperties": 64, "additionalProperties": {"type": "string"}});
        assert_eq!(said(map), "at most 64 entries");
        assert_eq!(said(serde_json::json!({"type": "string", "pattern": "^[a|b]$"})), "matches `^[a|b]$`");
    }
}
