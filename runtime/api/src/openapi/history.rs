//! What entities that keep former versions have beside the others.

use autonomy_crds::names::AS_OF;
use autonomy_crds::resolved::Entity;
use serde_json::{Value, json};

use super::parameters::fields;
use super::{json_content, parameter, query_parameter, reference, with_problems};
use crate::plan::EntityPlan;
use crate::query::{DEFAULT_LIMIT, MOST_LIMIT};

/// The parameters of a request that reads, with the moment that it may read at.
pub(super) fn with_moment(entity: &Entity, mut parameters: Vec<Value>) -> Vec<Value> {
    if entity.history {
        parameters.push(query_parameter(
            AS_OF,
            "A moment: objects are read as they were then. Not with `embed`, and not of the future.",
            json!({"type": "string", "format": "date-time"}),
        ));
    }
    parameters
}

/// The path of an object's versions.
pub(super) fn path(plan: &EntityPlan) -> Value {
    let entity = plan.entity();
    let name = &entity.name;
    let versions = if entity.history { "Every version" } else { "The present version, and the last one before each deletion," };
    json!({
        "parameters": [parameter("Id")],
        "get": {
            "operationId": format!("get{name}History"),
            "summary": format!("{versions} of a {name}, the newest first; also of a deleted one"),
            "description": "A version lasts from `@validFrom` to before `@validTo`.",
            "tags": [name],
            "parameters": [
                fields(plan),
                query_parameter(
                    "limit",
                    "The most versions of a page.",
                    json!({"type": "integer", "minimum": 0, "maximum": MOST_LIMIT, "default": DEFAULT_LIMIT}),
                ),
                query_parameter("cursor", "Goes on where a page ended; from its Link.", json!({"type": "string"})),
            ],
            "responses": with_problems(json!({
                "200": {
                    "description": "A page of versions.",
                    "headers": {"Link": {"description": "The next page, with `rel=\"next\"`; there is none after the last.", "schema": {"type": "string"}}},
                    "content": json_content(json!({"type": "array", "items": reference(&format!("{name}Version"))})),
                },
            }), &["404"]),
        },
    })
}

/// The schema of a version.
pub(super) fn version_schema(entity: &Entity) -> Value {
    let moment = |kind: Value, description: &str| json!({"type": kind, "format": "date-time", "description": description});
    json!({"allOf": [reference(&format!("{}Fields", entity.name)), {
        "type": "object",
        "required": ["@operation", "@validFrom", "@validTo"],
        "properties": {
            "@operation": {"type": ["string", "null"], "enum": ["updated", "deleted", null], "description": "What ended the version; null while it is the present one."},
            "@validFrom": moment(json!("string"), "When the version began."),
            "@validTo": moment(json!(["string", "null"]), "When it ended; null while it is the present one."),
        },
    }]})
}
