//! The description of changes to what is there: items of lists, preconditions, and JSON Patch.

use autonomy_crds::resolved::{Column, ColumnKind, Entity};
use serde_json::{Value, json};

use super::reference;
use super::schemas::patch_schema;
use crate::body::IF_MATCH;
use crate::json_patch;

pub(super) fn patch_item(entity: &Entity) -> Value {
    let mut required = vec!["id"];
    required.extend(entity.require_if_match.then_some(IF_MATCH));
    let mut schema = patch_schema(entity);
    schema["properties"][IF_MATCH] = tag_schema();
    schema["required"] = required.into();
    schema
}

pub(super) fn deletion(entity: &Entity) -> Value {
    if entity.require_if_match { json!({"allOf": [reference("Deletion"), {"required": [IF_MATCH]}]}) } else { reference("Deletion") }
}

fn tag_schema() -> Value {
    json!({"type": "string", "pattern": "^(\\*|\"[0-9]{1,18}\")$", "description": "The object's ETag as GET answers it, or *: where the object has changed the answer is 412.", "examples": ["\"3\"", "*"]})
}

pub(super) fn deletion_schema() -> Value {
    json!({
        "type": "object",
        "description": "An object to be deleted.",
        "required": ["id"],
        "properties": {"id": {"type": "string", "format": "uuid"}, IF_MATCH: tag_schema()},
        "additionalProperties": false,
    })
}

pub(super) fn json_patch_schema() -> Value {
    let pointer = |description: &str| json!({"type": "string", "format": "json-pointer", "description": description});
    let operation = |ops: &[&str], members: Value, required: &[&str]| {
        let mut schema = json!({
            "type": "object",
            "required": ["op", "path"],
            "properties": {"op": {"type": "string", "enum": ops}, "path": pointer("Where (RFC 6901); `-` stands for the end of a list.")},
        });
        if let (Some(properties), Value::Object(members)) = (schema["properties"].as_object_mut(), members) {
            properties.extend(members);
        }
        if let Some(list) = schema["required"].as_array_mut() {
            list.extend(required.iter().map(|member| Value::from(*member)));
        }
        schema
    };
    let mut removed = pointer("Where (RFC 6901); not the whole object, which DELETE removes.");
    removed["pattern"] = "^/".into();
    json!({
        "type": "array",
        "maxItems": json_patch::MOST_OPERATIONS,
        "description": "Operations applied one after the other, all or none (RFC 6902). `id`, `version`, `createdAt` and `updatedAt` can be tested only.",
        "items": {"oneOf": [
            operation(&["add", "replace", "test"], json!({"value": {"description": "Any JSON."}}), &["value"]),
            operation(&["remove"], json!({"path": removed}), &[]),
            operation(&["move", "copy"], json!({"from": pointer("Where it is taken from.")}), &["from"]),
        ]},
    })
}

// A patch that takes the value of the entity's last member away, if nobody has changed the object since.
pub(super) fn json_patch_example(entity: &Entity) -> Value {
    let mut operations = vec![json!({"op": "test", "path": "/version", "value": 3})];
    operations.extend(optional(entity).map(|column| json!({"op": "replace", "path": format!("/{}", column.member), "value": null})));
    json!({"summary": "Only if it is still as it was seen", "value": operations})
}

/// A list of two objects, of which the first must be as it was seen: to be deleted, or to have a value taken away.
pub(super) fn list_example(entity: &Entity, deleted: bool) -> Value {
    let mut list = json!([
        {"id": "019aa1b2-3c4d-7e5f-8a6b-7c8d9e0f1a2b", IF_MATCH: "\"3\""},
        {"id": "019aa1b2-3c4d-7e5f-8a6b-7c8d9e0f1a2c", IF_MATCH: "*"},
    ]);
    if let Some(column) = optional(entity).filter(|_| !deleted) {
        for item in list.as_array_mut().into_iter().flatten() {
            item[&column.member] = Value::Null;
        }
    }
    json!({"summary": "Only if the first one is still as it was seen", "value": list})
}

fn optional(entity: &Entity) -> Option<&Column> {
    entity.columns.iter().rev().find(|column| !column.required && !matches!(column.kind, ColumnKind::Parts { .. }))
}
