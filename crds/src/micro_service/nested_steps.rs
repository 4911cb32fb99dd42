//! Steps within steps: branches, and steps for each element of a list.

use std::cell::Cell;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Step;

/// So deep steps may be inside each other, beside the outermost. A CustomResourceDefinition can't recurse, so its schema has each level written
/// out: this keeps it readable with `kubectl explain`, checked on admission, and small enough for `kubectl apply`.
pub const STEP_LEVELS: usize = 2;

/// A branch of `choose`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Branch {
    /// A CEL expression; the branch is taken where it is true and no branch before was. The last branch may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub when: Option<String>,
    /// What is done in this branch, in order. Names of steps are known within the branch.
    #[schemars(schema_with = "nested_steps")]
    pub steps: Vec<Step>,
}

/// Steps for each element of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForEachStep {
    /// The list, in CEL.
    #[schemars(length(min = 1, max = 16384))]
    pub list: String,
    /// The name, in camelCase, under which the steps find the element; they find its place, from 0, under `index`, or under `{name}Index` where
    /// this is given.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub item_name: Option<String>,
    /// What is done for each element, in order. Names of steps are known within it.
    #[schemars(schema_with = "nested_steps")]
    pub steps: Vec<Step>,
    /// A list of more elements fails the event for good.
    #[serde(default = "default_max_items")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_items: u32,
    /// For so many elements the steps run at a time: for `http` steps. What is written stays in the order of the list.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u32,
}

fn default_max_items() -> u32 {
    1000
}

fn default_concurrency() -> u32 {
    1
}

impl Default for ForEachStep {
    fn default() -> Self {
        Self { list: String::new(), item_name: None, steps: Vec::new(), max_items: default_max_items(), concurrency: default_concurrency() }
    }
}

/// Every step, those inside others after the one that they are in, each with its field's path below `path`.
pub fn every_step<'s>(steps: &'s [Step], path: &str) -> Vec<(String, &'s Step)> {
    let mut found = Vec::new();
    collect(steps, path, &mut found);
    found
}

fn collect<'s>(steps: &'s [Step], path: &str, found: &mut Vec<(String, &'s Step)>) {
    for (index, step) in steps.iter().enumerate() {
        let path = format!("{path}[{index}]");
        found.push((path.clone(), step));
        for (number, branch) in step.choose.iter().flatten().enumerate() {
            collect(&branch.steps, &format!("{path}.choose[{number}].steps"), found);
        }
        if let Some(for_each) = &step.for_each {
            collect(&for_each.steps, &format!("{path}.forEach.steps"), found);
        }
    }
}

thread_local! {
    // How deep the schema being written is in steps.
    static LEVEL: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn branches(generator: &mut SchemaGenerator) -> Schema {
    if LEVEL.get() == STEP_LEVELS {
        return json_schema!({});
    }
    // Not `subschema_for`, which refers to a type that it is in the middle of.
    let branch = Branch::json_schema(generator);
    json_schema!({"type": "array", "nullable": true, "minItems": 1, "maxItems": 16, "items": branch})
}

pub(super) fn for_each(generator: &mut SchemaGenerator) -> Schema {
    if LEVEL.get() == STEP_LEVELS {
        return json_schema!({});
    }
    let mut schema = ForEachStep::json_schema(generator);
    schema.insert("nullable".to_owned(), true.into());
    schema
}

fn nested_steps(generator: &mut SchemaGenerator) -> Schema {
    let level = LEVEL.get() + 1;
    LEVEL.set(level);
    let mut step = Step::json_schema(generator).to_value();
    LEVEL.set(level - 1);
    if level == STEP_LEVELS
        && let Some(properties) = step.get_mut("properties").and_then(serde_json::Value::as_object_mut)
    {
        properties.remove("choose");
        properties.remove("forEach");
    }
    without_rules(&mut step);
    json_schema!({"type": "array", "minItems": 1, "maxItems": 32, "items": step})
}

// Kubernetes counts what a rule may cost by the longest lists that it is in, and refuses the definition of a rule so deep. What these rules say
// of inner steps is checked when the service is compiled.
fn without_rules(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(members) => {
            members.remove("x-kubernetes-validations");
            members.values_mut().for_each(without_rules);
        }
        serde_json::Value::Array(elements) => elements.iter_mut().for_each(without_rules),
        _ => {}
    }
}
