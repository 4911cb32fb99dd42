//! The query parameters of reads, each with what it takes. What is comma-separated is an array here, of which every item is checked.

use autonomy_crds::Model;
use autonomy_crds::resolved::{ColumnKind, Entity, ValueType};
use serde_json::{Value, json};

use super::schemas::value_schema;
use super::{header_parameter, query_parameter};
use crate::aggregate::{self, MOST_AGGREGATES, MOST_GROUPS};
use crate::embed::{MOST_DEPTH, MOST_EMBEDDED};
use crate::plan::EntityPlan;
use crate::query::{DEFAULT_LIMIT, MOST_LIMIT};
use crate::transactions::MOST_KEY_BYTES;

// An entity with more to embed is told in words: the document has it in two places.
const MOST_LISTED: usize = 200;

/// Those that operations share, by the name under which these refer to them.
pub fn shared(model: &Model) -> Value {
    let mut parameters = json!({
        "Id": {"name": "id", "in": "path", "required": true, "description": "The object's id.", "schema": {"type": "string", "format": "uuid"}},
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "A key of the client's choice: a request sent again with it has its effect once and gets the first answer.",
            "schema": {"type": "string", "minLength": 1, "maxLength": MOST_KEY_BYTES, "pattern": "^([!#-~]([\\t -~]*[!-~])?|\"[\\t -~]+\")$"},
        },
        "IfMatch": header_parameter("If-Match", "The object's ETag, or *; where the object has changed the answer is 412."),
        "IfNoneMatch": header_parameter("If-None-Match", "ETags that the client has: where the object has one of them the answer is 304."),
        "OnlyNew": {"name": "If-None-Match", "in": "header", "description": "Only where there is no such object; otherwise the answer is 412.", "schema": {"type": "string", "enum": ["*"]}},
        "Prefer": header_parameter("Prefer", "`return=minimal`: the objects written are not answered."),
        "OnError": query_parameter("onError", "`continue`: each object of a list succeeds or fails for itself, and is answered so.", json!({"type": "string", "enum": ["stop", "continue"], "default": "stop"})),
    });
    if model.entities.iter().any(|entity| entity.require_if_match) {
        parameters["IfMatchRequired"] = required_if_match();
    }
    parameters
}

fn required_if_match() -> Value {
    let mut parameter =
        header_parameter("If-Match", "The object's ETag, or *; where the object has changed the answer is 412, without it 428.");
    parameter["required"] = true.into();
    parameter
}

/// Of a list.
pub fn of_list(model: &Model, plan: &EntityPlan) -> Vec<Value> {
    let comparable = plan.columns.iter().filter(|column| column.encoder.is_comparable());
    let sorted: Vec<String> = comparable.flat_map(|column| [column.member.clone(), format!("-{}", column.member)]).collect();
    let mut parameters = of_object(model, plan);
    parameters.extend([
        listing(
            "sort",
            "Members to sort by, each once; `-` before one for the largest first. The id decides at last.",
            json!({"type": "string", "enum": sorted}),
            json!({"uniqueItems": true}),
        ),
        listing(
            "aggregate",
            "In place of objects: `count`, and `countDistinct`, `sum`, `avg`, `min` or `max` of an attribute.",
            json!({"type": "string", "enum": aggregate::offered(plan)}),
            json!({"minItems": 1, "maxItems": MOST_AGGREGATES}),
        ),
        listing(
            "groupBy",
            "With `aggregate`: the members with whose values a group is made.",
            json!({"type": "string", "enum": aggregate::groupable(plan)}),
            json!({"maxItems": MOST_GROUPS}),
        ),
        query_parameter(
            "limit",
            "The most objects of a page.",
            json!({"type": "integer", "minimum": 0, "maximum": MOST_LIMIT, "default": DEFAULT_LIMIT}),
        ),
        query_parameter(
            "offset",
            "How many objects to pass over; `cursor` is better for long lists.",
            json!({"type": "integer", "format": "int64", "minimum": 0}),
        ),
        query_parameter("cursor", "Goes on where a page ended; from its Link.", json!({"type": "string"})),
        query_parameter("count", "Whether X-Total-Count is wanted.", json!({"type": "boolean", "default": false})),
    ]);
    parameters.extend(filters(plan.entity()));
    parameters
}

/// Of one object.
pub fn of_object(model: &Model, plan: &EntityPlan) -> Vec<Value> {
    let mut paths = Vec::new();
    relationships(model, plan.entity(), "", MOST_DEPTH, &mut paths);
    let description = format!(
        "Objects referred to that are shown inside, by their relationships; those of an embedded object behind a dot. {MOST_EMBEDDED} objects at \
         the most, with those on the way."
    );
    let embed = match paths.len() {
        0 => None,
        1..=MOST_LISTED => {
            Some(listing("embed", &description, json!({"type": "string", "enum": paths}), json!({"maxItems": MOST_EMBEDDED})))
        }
        _ => Some(listing("embed", &description, json!({"type": "string"}), json!({"maxItems": MOST_EMBEDDED}))),
    };
    std::iter::once(fields(plan)).chain(embed).collect()
}

/// The members wanted.
pub fn fields(plan: &EntityPlan) -> Value {
    let members: Vec<&str> = plan.columns.iter().map(|column| column.member.as_str()).collect();
    listing("fields", "The members wanted; the id is always there.", json!({"type": "string", "enum": members}), json!({}))
}

// The paths of relationships. Only this model's entities are known here, so those of another model are where a path ends.
fn relationships(model: &Model, entity: &Entity, before: &str, depth: usize, paths: &mut Vec<String>) {
    for column in &entity.columns {
        let ColumnKind::Relationship { relationship, target, .. } = &column.kind else { continue };
        let path = format!("{before}{relationship}");
        let inside = format!("{path}.");
        paths.push(path);
        if paths.len() > MOST_LISTED {
            return;
        }
        if let Some(target) = model.entity(&target.entity).filter(|_| target.model == model.name && depth > 1) {
            relationships(model, target, &inside, depth - 1, paths);
        }
    }
}

/// The filters of an entity's objects.
pub fn filters(entity: &Entity) -> Vec<Value> {
    let mut parameters = Vec::new();
    let system = [
        ("id", json!({"type": "string", "format": "uuid"}), false),
        ("version", json!({"type": "integer", "format": "int64"}), false),
        ("createdAt", json!({"type": "string", "format": "date-time"}), false),
        ("updatedAt", json!({"type": "string", "format": "date-time"}), false),
    ];
    let own = entity.columns.iter().filter_map(|column| match &column.kind {
        ColumnKind::Relationship { .. } => Some((column.member.as_str(), json!({"type": "string", "format": "uuid"}), false)),
        ColumnKind::Attribute { value_type: ValueType::Json | ValueType::Binary { .. } } | ColumnKind::Parts { .. } => None,
        ColumnKind::Attribute { value_type } => {
            let text = matches!(value_type, ValueType::String { .. } | ValueType::Enumeration { .. });
            Some((column.member.as_str(), without_limits(value_schema(value_type)), text))
        }
    });
    for (member, schema, text) in system.into_iter().chain(own) {
        parameters.push(query_parameter(member, "Equal.", schema.clone()));
        for (operator, description) in [
            ("ne", "Different, or null."),
            ("gt", "Larger."),
            ("gte", "Larger or equal."),
            ("lt", "Smaller."),
            ("lte", "Smaller or equal."),
        ] {
            parameters.push(query_parameter(&format!("{member}.{operator}"), description, schema.clone()));
        }
        parameters.push(listing(&format!("{member}.in"), "Equal to one of these.", schema, json!({"minItems": 1})));
        if text {
            parameters.push(query_parameter(
                &format!("{member}.like"),
                "Matches; `*` stands for any characters.",
                json!({"type": "string"}),
            ));
        }
        parameters.push(query_parameter(&format!("{member}.isnull"), "Is null, or not.", json!({"type": "boolean"})));
    }
    parameters
}

// Limits are for writing: a filter may ask for a value that no object can have.
fn without_limits(mut schema: Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        for limit in ["minLength", "maxLength", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"] {
            schema.remove(limit);
        }
    }
    schema
}

/// A comma-separated list.
pub fn listing(name: &str, description: &str, items: Value, limits: Value) -> Value {
    let mut schema = json!({"type": "array", "items": items});
    if let (Some(schema), Value::Object(limits)) = (schema.as_object_mut(), limits) {
        schema.extend(limits);
    }
    let mut parameter = query_parameter(name, description, schema);
    parameter["style"] = "form".into();
    parameter["explode"] = false.into();
    parameter
}
