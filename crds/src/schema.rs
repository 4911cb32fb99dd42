//! The CustomResourceDefinitions of all kinds, and the validation of a resource against them as a cluster does it: structure, limits,
//! defaults, and the CEL rules themselves, so that local mode refuses what a cluster refuses.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::fault::Faults;
use crate::{DataModel, DataPlatform, MicroService, Migration};

/// A kind's CustomResourceDefinition, as it is applied to a cluster.
pub struct Definition {
    /// The kind, for example `DataModel`.
    pub kind: &'static str,
    /// The file in the chart's `files/crds` folder.
    pub file: &'static str,
    /// The CustomResourceDefinition.
    pub document: Value,
}

static DEFINITIONS: LazyLock<[Definition; 4]> = LazyLock::new(|| {
    [
        definition::<DataPlatform>("DataPlatform", "dataplatforms.yaml"),
        definition::<DataModel>("DataModel", "datamodels.yaml"),
        definition::<MicroService>("MicroService", "microservices.yaml"),
        definition::<Migration>("Migration", "migrations.yaml"),
    ]
});

/// Every kind's CustomResourceDefinition.
pub fn definitions() -> &'static [Definition] {
    &*DEFINITIONS
}

impl Definition {
    /// The schema of the kind's resources.
    pub fn schema(&self) -> &Value {
        &self.document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }
}

fn definition<K: CustomResourceExt>(kind: &'static str, file: &'static str) -> Definition {
    let mut document = json!(K::crd());
    tidy(&mut document);
    Definition { kind, file, document }
}

// What schemars writes, made what a cluster takes without a warning: whole numbers are written as such, and formats that Kubernetes does not
// know become limits.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.get("type").is_some_and(|name| name == "integer") {
                let largest = match members.get("format").and_then(Value::as_str) {
                    Some("uint8") => Some(u64::from(u8::MAX)),
                    Some("uint16") => Some(u64::from(u16::MAX)),
                    Some("uint32") => Some(u64::from(u32::MAX)),
                    _ => None,
                };
                if let Some(largest) = largest {
                    members.remove("format");
                    members.entry("maximum").or_insert(Value::from(largest));
                }
            }
            // Kubernetes refuses unknown fields by itself, and takes no `false` here.
            if members.get("additionalProperties") == Some(&Value::Bool(false)) {
                members.remove("additionalProperties");
            }
            // Lines of the source are no lines of the text.
            if let Some(Value::String(description)) = members.get_mut("description")
                && description.contains('\n')
            {
                *description = description.replace("\n\n", "\u{0}").replace('\n', " ").replace('\u{0}', "\n\n");
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(elements) => elements.iter_mut().for_each(tidy),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15) {
                *value = Value::from(float as i64);
            }
        }
        _ => {}
    }
}

/// Checks `resource` against a kind's schema and puts defaults in, as a cluster does on admission. All faults at once, after those
/// `found` before.
pub fn validate(definition: &Definition, resource: &mut Value, found: Faults) -> Faults {
    let mut validator = Validator { faults: found, rules: HashMap::new() };
    validator.check(definition.schema(), resource, "");
    validator.faults
}

struct Validator<'s> {
    faults: Faults,
    rules: HashMap<&'s str, Result<cel::Program, String>>,
}

impl<'s> Validator<'s> {
    fn check(&mut self, schema: &'s Value, value: &mut Value, path: &str) {
        if value.is_null() {
            let any = schema.get("x-kubernetes-preserve-unknown-fields").is_some() && schema.get("type").is_none();
            if !any && schema.get("nullable").is_none_or(|nullable| nullable != true) {
                self.faults.add(path, "a value is missing");
            }
            return;
        }
        // Rules of the whole resource need its metadata, which is checked before.
        let before = if path.is_empty() { 0 } else { self.faults.0.len() };
        match schema.get("type").and_then(Value::as_str) {
            Some("object") => self.check_object(schema, value, path),
            Some("array") => self.check_list(schema, value, path),
            Some("string") => self.check_string(schema, value, path),
            Some("integer") => self.check_number(schema, value, path, value.is_i64() || value.is_u64(), "a whole number"),
            Some("number") => self.check_number(schema, value, path, value.is_number(), "a number"),
            Some("boolean") => self.expect(value.is_boolean(), value, path, "true or false"),
            _ => {}
        }
        if self.faults.0.len() == before {
            self.check_rules(schema, value, path);
        }
    }

    fn expect(&mut self, fits: bool, value: &Value, path: &str, what: &str) {
        if !fits {
            let shown = match value {
                Value::Array(_) => "a list".to_owned(),
                Value::Object(_) => "a mapping".to_owned(),
                other => other.to_string(),
            };
            self.faults.add(path, format!("this must be {what}, and is {shown}"));
        }
    }

    fn check_object(&mut self, schema: &'s Value, value: &mut Value, path: &str) {
        let Value::Object(members) = value else {
            self.expect(false, value, path, "a mapping");
            return;
        };
        // Of the root, only what the schema knows is checked here; metadata is the same for all kinds.
        let root = path.is_empty();
        static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        let properties = match schema.get("additionalProperties") {
            None => Some(schema.get("properties").and_then(Value::as_object).unwrap_or(&*NONE)),
            Some(_) => None,
        };
        // Metadata, for example: any fields.
        let open = root || (properties.is_some_and(Map::is_empty) && schema.get("x-kubernetes-preserve-unknown-fields").is_some());
        if let Some(properties) = properties {
            set_defaults(properties, members);
            for (name, member) in members.iter_mut() {
                match properties.get(name) {
                    Some(schema) => self.check(schema, member, &join(path, name)),
                    None if open => {}
                    None => {
                        let near = crate::resolve::did_you_mean(name, properties.keys().map(String::as_str));
                        let known = crate::resolve::list(properties.keys().map(String::as_str));
                        self.faults.add(join(path, name), format!("there is no field {name:?} here{near}; there are: {known}"));
                    }
                }
            }
        } else if let Some(schema) = schema.get("additionalProperties") {
            for (name, member) in members.iter_mut() {
                self.check(schema, member, &format!("{path}[{name}]"));
            }
        }
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(required) {
                self.faults.add(join(path, required), "this is required");
            }
        }
        self.check_size(schema, members.len(), path, ["minProperties", "maxProperties"], "entries");
    }

    fn check_list(&mut self, schema: &'s Value, value: &mut Value, path: &str) {
        let Value::Array(elements) = value else {
            self.expect(false, value, path, "a list");
            return;
        };
        self.check_size(schema, elements.len(), path, ["minItems", "maxItems"], "elements");
        if let Some(schema) = schema.get("items") {
            for (index, element) in elements.iter_mut().enumerate() {
                self.check(schema, element, &format!("{path}[{index}]"));
            }
        }
    }

    fn check_string(&mut self, schema: &'s Value, value: &Value, path: &str) {
        let Value::String(text) = value else {
            self.expect(false, value, path, "a string (in quotation marks where YAML would read it as something else)");
            return;
        };
        if let Some(known) = schema.get("enum").and_then(Value::as_array)
            && !known.contains(value)
        {
            let near = crate::resolve::did_you_mean(text, known.iter().filter_map(Value::as_str));
            let known = crate::resolve::list(known.iter().filter_map(Value::as_str));
            self.faults.add(path, format!("{text:?} is not known here{near}; known are {known}"));
        }
        self.check_size(schema, text.chars().count(), path, ["minLength", "maxLength"], "characters");
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && !regex::Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
        {
            let message = match crate::names::parse_duration(text) {
                Err(message) if pattern == crate::names::DURATION_PATTERN => message,
                _ => format!("{text:?} does not match {pattern}"),
            };
            self.faults.add(path, message);
        }
    }

    fn check_number(&mut self, schema: &'s Value, value: &Value, path: &str, fits: bool, what: &str) {
        self.expect(fits, value, path, what);
        if !fits {
            return;
        }
        let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
        let number = value.as_f64().unwrap_or_default();
        let beyond_int64 = schema.get("format").is_some_and(|format| format == "int64") && value.as_i64().is_none();
        if limit("minimum").is_some_and(|least| number < least) {
            self.faults.add(path, format!("{value} is too small; the least is {}", schema["minimum"]));
        } else if limit("maximum").is_some_and(|most| number > most) {
            self.faults.add(path, format!("{value} is too large; the most is {}", schema["maximum"]));
        } else if beyond_int64 {
            self.faults.add(path, format!("{value} does not fit into 64 bits"));
        }
    }

    fn check_size(&mut self, schema: &'s Value, size: usize, path: &str, [least, most]: [&str; 2], what: &str) {
        let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
        let size = size as u64;
        if let Some(least) = limit(least).filter(|least| size < *least) {
            self.faults.add(path, format!("here are {size} {what}; {least} is the least"));
        }
        if let Some(most) = limit(most).filter(|most| size > *most) {
            self.faults.add(path, format!("here are {size} {what}; {most} is the most"));
        }
    }

    fn check_rules(&mut self, schema: &'s Value, value: &Value, path: &str) {
        let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
        for rule in rules.into_iter().flatten() {
            let (Some(text), message) = (rule["rule"].as_str(), rule["message"].as_str().unwrap_or("a rule is broken")) else { continue };
            // Such a rule speaks of changes; a cluster does not apply it to a new resource either.
            if text.contains("oldSelf") {
                continue;
            }
            let program = self.rules.entry(text).or_insert_with(|| cel::Program::compile(text).map_err(|cause| cause.to_string()));
            let kept = program.as_ref().map_err(Clone::clone).and_then(|program| {
                let mut context = cel::Context::default();
                context.add_variable_from_value("self", cel_value(value));
                program.execute(&context).map_err(|cause| cause.to_string())
            });
            match kept {
                Ok(cel::Value::Bool(true)) => {}
                Ok(_) => self.faults.add(path, message),
                Err(cause) => self.faults.add(path, format!("{message} (the rule {text} can't be applied: {cause})")),
            }
        }
    }
}

fn set_defaults(properties: &Map<String, Value>, members: &mut Map<String, Value>) {
    for (name, schema) in properties {
        let Some(default) = schema.get("default").filter(|_| schema.get("type").is_some()) else { continue };
        let nullable = schema.get("nullable").is_some_and(|nullable| nullable == true);
        match members.get(name) {
            None => {}
            Some(Value::Null) if !nullable => {}
            Some(_) => continue,
        }
        members.insert(name.clone(), default.clone());
    }
}

// Every whole number is a CEL int, as in Kubernetes.
fn cel_value(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(truth) => cel::Value::Bool(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => cel::Value::Int(whole),
            None => cel::Value::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(elements) => cel::Value::List(Arc::new(elements.iter().map(cel_value).collect())),
        // A null member is none for `has`, since fields that may be left out are nullable.
        Value::Object(members) => {
            let present = members.iter().filter(|(_, member)| !member.is_null());
            cel::Value::from(present.map(|(name, member)| (name.clone(), cel_value(member))).collect::<HashMap<_, _>>())
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The YAML files of the chart's `files/crds` folder, by their names.
///
/// # Errors
/// Where a definition can't be written as YAML, which no input can cause.
pub fn chart_files() -> Result<BTreeMap<&'static str, String>, serde_saphyr::ser::Error> {
    const HEAD: &str = "# Written by `make crds` from crds/src; edit the types there.\n";
    definitions()
        .iter()
        .map(|definition| Ok((definition.file, HEAD.to_owned() + &serde_saphyr::to_string(&definition.document)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk<'a>(schema: &'a Value, path: &str, visit: &mut impl FnMut(&'a Value, &str)) {
        visit(schema, path);
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            walk(property, &join(path, name), visit);
        }
        for (field, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
            if let Some(inner) = schema.get(field).filter(|inner| inner.is_object()) {
                walk(inner, &format!("{path}{suffix}"), visit);
            }
        }
    }

    #[test]
    fn every_field_is_described() {
        for definition in definitions() {
            walk(definition.schema(), "", &mut |schema, path| {
                let element = path.ends_with("[]") || path.ends_with("{}");
                let described = schema["description"].as_str().is_some_and(|text| text.len() > 10);
                assert!(element || described, "{} {path} has no description", definition.kind);
            });
        }
    }

    #[test]
    fn schemas_are_structural_and_bounded() {
        for definition in definitions() {
            walk(definition.schema(), "", &mut |schema, path| {
                let any = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
                assert!(any || schema["type"].is_string(), "{} {path} has no type", definition.kind);
                for composed in ["anyOf", "oneOf", "allOf", "not", "$ref"] {
                    assert!(schema.get(composed).is_none(), "{} {path} uses {composed}", definition.kind);
                }
                if schema["type"] == "array" && path.starts_with("spec") {
                    assert!(schema["maxItems"].is_u64(), "{} {path} has no maxItems: rules below it cost too much", definition.kind);
                }
                if schema["type"] == "object" && schema.get("additionalProperties").is_some() {
                    assert!(schema["maxProperties"].is_u64(), "{} {path} has no maxProperties", definition.kind);
                }
                if schema["type"] == "string" && path.starts_with("spec") && schema.get("enum").is_none() {
                    assert!(schema["maxLength"].is_u64(), "{} {path} has no maxLength", definition.kind);
                }
            });
        }
    }

    #[test]
    fn every_rule_compiles_and_says_something() {
        for definition in definitions() {
            walk(definition.schema(), "", &mut |schema, path| {
                for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                    let text = rule["rule"].as_str().expect("a rule");
                    assert!(cel::Program::compile(text).is_ok(), "{path}: {text}");
                    assert!(rule["message"].is_string(), "{path}: {text}");
                }
            });
        }
    }

    #[test]
    fn the_chart_has_these_definitions() {
        let folder = std::path::Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
            .join("../charts/autonomy/files/crds");
        for (file, text) in chart_files().expect("YAML") {
            let written = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
            assert!(written == text, "charts/autonomy/files/crds/{file} differs: run `make crds` and commit");
        }
    }
}
