//! Reading resources from YAML text, as strictly as a cluster would: see [`crate::schema`].

mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::fault::Faults;
use crate::schema::{self, Definition};
use crate::{DataModel, DataPlatform, GROUP, MicroService, VERSION};

/// A resource of any kind.
// Resources are few: a box each would cost more words than it saves bytes.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// Where data lives.
    DataPlatform(DataPlatform),
    /// Business entities.
    DataModel(DataModel),
    /// Business logic.
    MicroService(MicroService),
}

/// What is wrong with a document, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    /// The file's name as given.
    pub source_name: String,
    /// The document's number in the file, from 1; empty documents don't count.
    pub document: usize,
    /// The line in the file, from 1, where it is known.
    pub line: Option<usize>,
    /// The field, where it is known: `spec.entities[2].name`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl std::fmt::Display for DocumentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.source_name)?;
        match self.line {
            Some(line) => write!(f, ":{line}")?,
            None => write!(f, " (document {})", self.document)?,
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A resource and where it stands, so that faults found later can name the line.
#[derive(Clone, Debug)]
pub struct Document {
    /// The resource.
    pub resource: Resource,
    /// The document's number in the file, from 1; empty documents don't count.
    pub number: usize,
    source_name: String,
    lines: BTreeMap<String, usize>,
}

impl Document {
    /// Faults of the resource with their place in the file.
    pub fn locate(&self, faults: &Faults) -> Vec<DocumentError> {
        located(&self.source_name, self.number, &self.lines, faults)
    }
}

/// Reads all documents of a YAML text. `source` is the file's name, for messages.
///
/// # Errors
/// Every fault of every document at once.
pub fn parse(source: &str, text: &str) -> Result<Vec<Resource>, Vec<DocumentError>> {
    parse_located(source, text).map(|documents| documents.into_iter().map(|document| document.resource).collect())
}

/// [`parse`], keeping where each resource stands.
///
/// # Errors
/// Every fault of every document at once.
pub fn parse_located(source: &str, text: &str) -> Result<Vec<Document>, Vec<DocumentError>> {
    let trees = tree::read(text).map_err(|(line, message)| {
        vec![DocumentError { source_name: source.to_owned(), document: 1, line, path: String::new(), message }]
    })?;
    let mut documents = Vec::new();
    let mut errors = Vec::new();
    for (index, tree) in trees.into_iter().filter(|tree| !tree.is_null()).enumerate() {
        let number = index + 1;
        let (value, lines) = tree.into_json();
        match read_resource(value) {
            Ok(resource) => documents.push(Document { resource, number, source_name: source.to_owned(), lines }),
            Err(faults) => errors.extend(located(source, number, &lines, &faults)),
        }
    }
    if errors.is_empty() { Ok(documents) } else { Err(errors) }
}

fn located(source: &str, document: usize, lines: &BTreeMap<String, usize>, faults: &Faults) -> Vec<DocumentError> {
    let error = |fault: &crate::Fault| DocumentError {
        source_name: source.to_owned(),
        document,
        line: line_of(lines, &fault.path),
        path: fault.path.clone(),
        message: fault.message.clone(),
    };
    faults.0.iter().map(error).collect()
}

// The line of the field, or of the nearest one around it that is in the text.
fn line_of(lines: &BTreeMap<String, usize>, path: &str) -> Option<usize> {
    let mut path = path;
    loop {
        if let Some(line) = lines.get(path) {
            return Some(*line);
        }
        path = &path[..path.rfind(['.', '['])?];
    }
}

fn read_resource(mut value: Value) -> Result<Resource, Faults> {
    let definition = definition_of(&value)?;
    let found = check_metadata(&value);
    let mut faults = schema::validate(definition, &mut value, found);
    if !faults.0.is_empty() {
        return Err(faults);
    }
    let read = match definition.kind {
        "DataPlatform" => typed(value).map(Resource::DataPlatform),
        "DataModel" => typed(value).map(Resource::DataModel),
        _ => typed(value).map(Resource::MicroService),
    };
    read.map_err(|message| {
        faults.add("", message);
        faults
    })
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|cause| cause.to_string())
}

fn definition_of(value: &Value) -> Result<&'static Definition, Faults> {
    let mut faults = Faults::default();
    if !value.is_object() {
        faults.add("", "this is no resource: a mapping with apiVersion, kind, metadata and spec is expected");
        return Err(faults);
    }
    // Migrations are made by the operator, never declared.
    let declared = || schema::definitions().iter().filter(|definition| definition.kind != "Migration");
    let kinds = || declared().map(|definition| definition.kind);
    let api_version = format!("{GROUP}/{VERSION}");
    match value.get("apiVersion").and_then(Value::as_str) {
        Some(given) if given == api_version => {}
        Some(given) => faults.add("apiVersion", format!("{given:?} is not known here; write {api_version}")),
        None => faults.add("apiVersion", format!("this is required; write {api_version}")),
    }
    let kind = value.get("kind").and_then(Value::as_str);
    let definition = kind.and_then(|kind| declared().find(|definition| definition.kind == kind));
    match (definition, kind) {
        (Some(definition), _) if faults.0.is_empty() => return Ok(definition),
        (Some(_), _) => {}
        (None, Some(kind)) => {
            let near = crate::resolve::did_you_mean(kind, kinds());
            faults.add("kind", format!("{kind:?} is not known here{near}; known are {}", crate::resolve::list(kinds())));
        }
        (None, None) => faults.add("kind", format!("this is required; known are {}", crate::resolve::list(kinds()))),
    }
    Err(faults)
}

// What is the same for every kind.
fn check_metadata(value: &Value) -> Faults {
    const ROOT: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
    const METADATA: [&str; 15] = [
        "name",
        "namespace",
        "labels",
        "annotations",
        "generateName",
        "finalizers",
        "ownerReferences",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
    ];
    let mut faults = Faults::default();
    let mut check_known = |object: &serde_json::Map<String, Value>, known: &[&str], prefix: &str| {
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            let near = crate::resolve::did_you_mean(name, known.iter().copied());
            faults.add(format!("{prefix}{name}"), format!("there is no field {name:?} here{near}"));
        }
    };
    if let Some(root) = value.as_object() {
        check_known(root, &ROOT, "");
    }
    if let Some(metadata) = value.get("metadata").and_then(Value::as_object) {
        check_known(metadata, &METADATA, "metadata.");
    }
    let metadata = value.get("metadata").unwrap_or(&Value::Null);
    match metadata.get("name") {
        None => faults.add("metadata.name", "this is required: give the resource a name"),
        Some(Value::String(_)) => {}
        Some(other) => faults.add("metadata.name", format!("this must be a string, and is {other}; put it in quotation marks")),
    }
    match metadata.get("namespace") {
        None | Some(Value::Null) => {}
        Some(Value::String(namespace)) if is_namespace(namespace) => {}
        Some(other) => {
            faults.add("metadata.namespace", format!("{other} is no namespace: take lower case letters, digits and hyphens, at most 63"));
        }
    }
    for field in ["labels", "annotations"] {
        let entries = metadata.get(field).filter(|entries| !entries.is_null());
        match entries.map(|entries| entries.as_object()) {
            None => {}
            Some(None) => faults.add(format!("metadata.{field}"), "this must be a mapping of names and strings"),
            Some(Some(entries)) => {
                for (name, _) in entries.iter().filter(|(_, value)| !value.is_string()) {
                    faults.add(format!("metadata.{field}[{name}]"), "this must be a string; put it in quotation marks");
                }
            }
        }
    }
    faults
}

fn is_namespace(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    text.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}
