//! `/api/transactions`, which is the same in every model's document.

use serde_json::{Map, Value, json};

use super::{BODY_PROBLEMS, json_content, parameter, reference, with_problems};

/// The path.
pub fn path() -> Value {
    json!({"post": {
        "operationId": "transactions",
        "summary": "Applies units of operations over entities of any models",
        "description": "Each unit is all or nothing, and answered for itself. New objects may refer to one another. The Idempotency-Key stands for units without one of their own.",
        "requestBody": {"required": true, "content": json_content(reference("Transactions"))},
        "tags": ["Transactions"],
        "parameters": [parameter("IdempotencyKey")],
        "responses": with_problems(json!({
            "200": {"description": "Each unit's outcome, in the units' order.", "content": json_content(reference("TransactionsAnswer"))},
        }), &BODY_PROBLEMS),
    }})
}

/// Its schemas, by name.
pub fn schemas() -> Map<String, Value> {
    let key = json!({"type": "string", "minLength": 1, "maxLength": 512});
    let operation = json!({
        "type": "object",
        "required": ["op", "model", "entity"],
        "properties": {
            "op": {"type": "string", "enum": ["create", "patch", "delete"]},
            "model": {"type": "string"},
            "entity": {"type": "string"},
            "id": {"type": "string", "format": "uuid", "description": "Of patch and delete."},
            "object": {"type": "object", "description": "Of create: the new object. Of patch: the members to be set (RFC 7396)."},
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
            "effect": {"type": "string", "enum": ["created", "updated", "ignored"]},
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
