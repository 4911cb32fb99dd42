//! The description of `/api/transactions`, which is the same in every model's document.

use serde_json::{Map, Value, json};

use super::{BODY_PROBLEMS, json_content, parameter, reference, with_problems};
use crate::named::{MOST_NAME_BYTES, REF};

pub(super) fn path() -> Value {
    json!({"post": {
        "operationId": "transactions",
        "summary": "Applies units of operations over entities of any models",
        "description": "Each unit is all or nothing, and answered for itself. New objects may refer to one another. The Idempotency-Key stands for units without one of their own.",
        "tags": ["Transactions"],
        "parameters": [parameter("IdempotencyKey")],
        "requestBody": {"required": true, "content": {"application/json": {"schema": reference("Transactions"), "examples": {"named": example()}}}},
        "responses": with_problems(json!({
            "200": {"description": "Each unit's outcome, in the units' order.", "content": json_content(reference("TransactionsAnswer"))},
        }), &BODY_PROBLEMS),
    }})
}

pub(super) fn schemas() -> Map<String, Value> {
    let key = json!({"type": "string", "minLength": 1, "maxLength": 512});
    let operation = json!({
        "type": "object",
        "required": ["op", "model", "entity"],
        "properties": {
            "op": {"type": "string", "enum": ["create", "patch", "delete"]},
            "model": {"type": "string"},
            "entity": {"type": "string"},
            "id": {"description": "Of patch and delete.", "oneOf": [{"type": "string", "format": "uuid"}, reference("NewObject")]},
            "as": {"type": "string", "minLength": 1, "maxLength": MOST_NAME_BYTES, "description": "Of create: a name for the new object, by which the other operations of the unit can refer to it."},
            "object": {"type": "object", "description": "Of create: the new object. Of patch: the members to be set (RFC 7396). Where the id of another object stands, also inside of parts, {\"@ref\": name} stands for that of a new one."},
            "if": {"type": "object", "description": "Of patch and delete: present values of attributes (or `version`) that must hold."},
            "onConflict": {"type": "string", "enum": ["error", "ignore", "update"], "default": "error", "description": "Of create."},
        },
        "additionalProperties": false,
    });
    let unit = json!({
        "type": "object",
        "required": ["operations"],
        "properties": {
            "idempotencyKey": {"oneOf": [key, {"type": "array", "items": key}]},
            "context": {"type": "object", "properties": {"actor": {"type": "string"}, "traceparent": {"type": "string"}, "causationId": {"type": "string"}}, "additionalProperties": false},
            "operations": {"type": "array", "items": operation},
        },
        "additionalProperties": false,
    });
    let result = json!({
        "type": "object",
        "required": ["id", "version", "effect"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "version": {"type": "integer", "format": "int64"},
            "effect": {"type": "string", "enum": ["created", "updated", "ignored", "deleted"]},
        },
    });
    let row_outcome = json!({
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": {"type": "integer", "description": "201, 200, or the problem's status."},
            "id": {"type": "string", "format": "uuid"},
            "version": {"type": "integer", "format": "int64"},
            "effect": {"type": "string", "enum": ["created", "updated", "ignored", "deleted"]},
            "problem": reference("Problem"),
            "retryAfter": {"type": "integer", "description": "Seconds."},
        },
    });
    let outcome = json!({
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": {"type": "integer", "description": "200, or the problem's status."},
            "replayed": {"type": "boolean", "description": "Whether the unit's keys were used before, and this is the answer given then."},
            "results": {"type": "array", "items": result},
            "problem": reference("Problem"),
            "retryAfter": {"type": "integer", "description": "Seconds."},
        },
    });
    let mut schemas = Map::new();
    schemas.insert(
        "NewObject".to_owned(),
        json!({
            "type": "object",
            "description": "The object that an operation of the same unit, earlier or later, makes `as` this name.",
            "required": [REF],
            "properties": {REF: {"type": "string"}},
            "additionalProperties": false,
        }),
    );
    schemas.insert("RowOutcome".to_owned(), row_outcome);
    schemas.insert(
        "Transactions".to_owned(),
        json!({"type": "object", "required": ["units"], "properties": {"units": {"type": "array", "items": unit}}, "additionalProperties": false}),
    );
    schemas.insert(
        "TransactionsAnswer".to_owned(),
        json!({"type": "object", "required": ["units"], "properties": {"units": {"type": "array", "items": outcome}}}),
    );
    schemas
}

fn example() -> Value {
    let operation = |op: &str, entity: &str| json!({"op": op, "model": "retail", "entity": entity});
    let mut customer = operation("create", "Customer");
    customer["as"] = "customer".into();
    customer["object"] = json!({"customerNumber": "C-1"});
    let mut sale = operation("create", "Sale");
    sale["object"] = json!({"receipt": "r-1", "soldAt": "2026-11-25T10:00:00Z", "total": 12.5, "customerId": {REF: "customer"}});
    json!({
        "summary": "Two new objects, one of which refers to the other",
        "value": {"units": [{"idempotencyKey": "import/1", "operations": [customer, sale]}]},
    })
}
