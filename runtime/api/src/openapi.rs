//! The OpenAPI 3.1 description of a model: its paths and the schemas of its objects.

mod changes;
mod events;
mod history;
mod parameters;
mod schemas;
mod transactions;

use std::sync::Arc;

use autonomy_crds::Model;
use autonomy_crds::resolved::{ColumnKind, Entity};
use serde_json::{Map, Value, json};

use changes::{deletion, deletion_schema, json_patch_example, json_patch_schema, list_example, patch_item};

use crate::json_patch;
use crate::plan::EntityPlan;
use schemas::{Way, aggregates_schema, create_schema, fields_schema, part_schema, patch_schema, problem_schema};

pub use schemas::object_schemas;

/// The document of a model, whose entities are made ready.
pub fn document(model: &Model, plans: &[Arc<EntityPlan>]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for plan in plans {
        let entity = plan.entity();
        let base = format!("/api/{}/{}", model.name, entity.path);
        paths.insert(base.clone(), list_path(model, plan));
        paths.insert(format!("{base}/events"), events::path(entity));
        paths.insert(format!("{base}/{{id}}"), object_path(model, plan));
        if entity.history_table().is_some() {
            paths.insert(format!("{base}/{{id}}/history"), history::path(plan));
            schemas.insert(format!("{}Version", entity.name), history::version_schema(entity));
        }
        schemas.insert(format!("{}Fields", entity.name), fields_schema(model, entity));
        schemas.insert(format!("{}Create", entity.name), create_schema(entity));
        schemas.insert(format!("{}Patch", entity.name), patch_schema(entity));
        for column in &entity.columns {
            if let ColumnKind::Parts { part, .. } = &column.kind {
                schemas.insert(format!("{}Create", part.name), part_schema(&part.columns, Way::Written, part.description.as_deref()));
            }
        }
    }
    schemas.extend(object_schemas(model));
    paths.insert("/api/transactions".to_owned(), transactions::path());
    schemas.extend(transactions::schemas());
    schemas.insert("Problem".to_owned(), problem_schema());
    schemas.insert("CloudEvent".to_owned(), events::cloud_event_schema());
    schemas.insert("Aggregates".to_owned(), aggregates_schema());
    schemas.insert("JsonPatch".to_owned(), json_patch_schema());
    schemas.insert("Deletion".to_owned(), deletion_schema());
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": format!("{} object API", model.name),
            "version": "v1",
            "description": model.description.clone().unwrap_or_else(|| format!("Objects of the model {}.", model.name)),
            "contact": contact(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": tags(model),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Problem": {
                    "description": "What is wrong, with every fault (RFC 9457).",
                    "headers": {"Retry-After": {"description": "With 503: seconds after which to try again.", "schema": {"type": "integer"}}},
                    "content": {"application/problem+json": {"schema": reference("Problem")}},
                },
                "NotModified": {"description": "The object is the one that If-None-Match names.", "headers": {"ETag": etag()}},
                "Minimal": {"description": "Done; with `Prefer: return=minimal` the object is not answered.", "headers": written_headers()},
            },
            "parameters": parameters::shared(model),
        },
    })
}

/// Whom to ask about the documents.
pub fn contact() -> Value {
    json!({"name": "Autonomy", "url": "https://autonomy.dev"})
}

fn tags(model: &Model) -> Vec<Value> {
    let entity = |entity: &Entity| {
        let description = entity.description.clone().unwrap_or_else(|| format!("Objects of the entity {}.", entity.name));
        json!({"name": entity.name, "description": description})
    };
    let transactions = json!({"name": "Transactions", "description": "Changes over several entities, all or nothing."});
    model.entities.iter().map(entity).chain(std::iter::once(transactions)).collect()
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn parameter(name: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{name}")})
}

fn header_parameter(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": {"type": "string"}})
}

// What a change of one object says of the version it is about.
fn if_match(entity: &Entity) -> Value {
    parameter(if entity.require_if_match { "IfMatchRequired" } else { "IfMatch" })
}

// The statuses of changes, with 428 where an entity wants preconditions.
fn statuses<'s>(entity: &Entity, statuses: &[&'s str]) -> Vec<&'s str> {
    statuses.iter().copied().chain(entity.require_if_match.then_some("428")).collect()
}

fn query_parameter(name: &str, description: &str, schema: Value) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

fn json_content(schema: Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

fn etag() -> Value {
    json!({"description": "The object's version.", "schema": {"type": "string", "pattern": "^\"[0-9]+\"$"}})
}

// Of an answer to a write of one object.
fn written_headers() -> Value {
    json!({
        "ETag": etag(),
        "Preference-Applied": {"description": "`return=minimal`, where that was asked for.", "schema": {"type": "string"}},
        "Idempotent-Replayed": {"description": "`true`, where this is the answer that was given before.", "schema": {"type": "boolean"}},
    })
}

// What can be done with an object whose id is at `id` of an answer or request.
fn links(entity: &Entity, id: &str) -> Value {
    let links = ["get", "put", "patch", "delete"].map(|method| {
        let operation = format!("{method}{}", entity.name);
        (operation.clone(), json!({"operationId": operation, "parameters": {"id": id}}))
    });
    Value::Object(links.into_iter().collect())
}

// The problems of an operation, and those that every operation may have.
fn with_problems(mut responses: Value, statuses: &[&str]) -> Value {
    for status in statuses.iter().chain(&["400", "500", "503"]) {
        responses[*status] = json!({"$ref": "#/components/responses/Problem"});
    }
    responses
}

// Of operations that read a body.
const BODY_PROBLEMS: [&str; 5] = ["408", "409", "413", "415", "422"];

fn list_path(model: &Model, plan: &EntityPlan) -> Value {
    let entity = plan.entity();
    let name = &entity.name;
    let objects = json!({"type": "array", "items": reference(name)});
    let counts = json!({
        "type": "object",
        "description": "With `Prefer: return=minimal`, of a list.",
        "required": ["created", "updated", "ignored"],
        "properties": {"created": {"type": "integer"}, "updated": {"type": "integer"}, "ignored": {"type": "integer"}},
        "additionalProperties": false,
    });
    let new_objects = json!({"type": "array", "items": reference(&format!("{name}Create"))});
    let changes = json!({"type": "array", "items": patch_item(entity)});
    let deleted = json!({"type": "array", "minItems": 1, "items": deletion(entity)});
    let one_or_list = json!({"oneOf": [reference(name), objects, counts]});
    let mut made_headers = written_headers();
    made_headers["Location"] =
        json!({"description": "The object's path, where one was made.", "schema": {"type": "string", "format": "uri-reference"}});
    let on_conflict = if entity.key.is_empty() { "by id" } else { "by natural key" };
    json!({
        "get": {
            "operationId": format!("list{name}"),
            "summary": format!("Lists {name} objects"),
            "description": "Filters all hold. A page at a time, the next one by its Link; as NDJSON or CSV the whole list, of any size. With `aggregate`, what is made of groups.",
            "tags": [name],
            "parameters": history::with_moment(entity, parameters::of_list(model, plan)),
            "responses": with_problems(json!({
                "200": {
                    "description": "A page of objects; as NDJSON the whole list, from one snapshot.",
                    "headers": {
                        "Link": {"description": "The next page, with `rel=\"next\"`; there is none after the last.", "schema": {"type": "string"}},
                        "X-Total-Count": {"description": "How many objects there are, with `count=true`.", "schema": {"type": "integer"}},
                        "Autonomy-Position": {"description": "Of NDJSON and CSV: where in the database's log the snapshot is, as 16 hex digits.", "schema": {"type": "string"}},
                    },
                    "content": {
                        "application/json": {"schema": {"anyOf": [
                            {"type": "array", "items": reference(&format!("{name}Fields"))},
                            reference("Aggregates"),
                        ]}},
                        "application/x-ndjson": {"schema": {"type": "array", "description": "An object a line.", "items": reference(&format!("{name}Fields"))}},
                        "text/csv": {"schema": {"type": "string", "description": "A heading with the members' names, then a line an object; an empty cell is null."}},
                    },
                    "links": links(entity, "$response.body#/0/id"),
                },
            }), &[]),
        },
        "post": {
            "operationId": format!("create{name}"),
            "summary": format!("Makes a {name}, or a list of them (all or none)"),
            "description": "Ids are made where none are given. A list is answered with a list; one that comes as NDJSON or CSV, of any size, with how many were written.",
            "tags": [name],
            "parameters": [
                query_parameter("onConflict", &format!("What happens to objects that are there already ({on_conflict})."), json!({"type": "string", "enum": ["error", "ignore", "update"], "default": "error"})),
                parameter("OnError"), parameter("IdempotencyKey"), parameter("Prefer"),
            ],
            "requestBody": {"required": true, "content": {
                "application/json": {"schema": {"oneOf": [reference(&format!("{name}Create")), new_objects]}},
                "application/x-ndjson": {"schema": new_objects},
                "text/csv": {"schema": table()},
            }},
            "responses": with_problems(json!({
                "201": {
                    "description": "Made; a list is answered with a list.",
                    "headers": made_headers,
                    "content": json_content(one_or_list.clone()),
                    "links": links(entity, "$response.body#/id"),
                },
                "200": {"description": "Nothing is new: all were there.", "headers": written_headers(), "content": json_content(one_or_list)},
                "204": minimal(),
                "207": by_row(),
            }), &statuses(entity, &BODY_PROBLEMS)),
        },
        "patch": {
            "operationId": format!("patch{name}List"),
            "summary": format!("Changes members of a list of {name} objects (all or none)"),
            "description": "Each with its id, as merge patches (RFC 7396).",
            "tags": [name],
            "parameters": [parameter("OnError"), parameter("IdempotencyKey"), parameter("Prefer")],
            "requestBody": {"required": true, "content": {
                "application/json": {"schema": changes, "examples": {"seen": list_example(entity, false)}},
                "application/merge-patch+json": {"schema": changes},
                "application/x-ndjson": {"schema": changes},
                "text/csv": {"schema": table()},
            }},
            "responses": with_problems(json!({
                "200": {"description": "Changed.", "content": json_content(json!({"oneOf": [objects, counts]}))},
                "207": by_row(),
            }), &statuses(entity, &[&["404", "412"], &BODY_PROBLEMS[..]].concat())),
        },
        "delete": {
            "operationId": format!("delete{name}List"),
            "summary": format!("Deletes a list of {name} objects (all or none)"),
            "description": "Each by its id. An empty list is refused.",
            "tags": [name],
            "parameters": [parameter("OnError"), parameter("IdempotencyKey")],
            "requestBody": {"required": true, "content": {
                "application/json": {"schema": deleted, "examples": {"seen": list_example(entity, true)}},
                "application/x-ndjson": {"schema": deleted},
                "text/csv": {"schema": {"type": "string", "description": "A heading with `id`, and maybe `@ifMatch`, then a line an object."}},
            }},
            "responses": with_problems(json!({
                "200": {"description": "Deleted.", "content": json_content(json!({
                    "type": "object", "required": ["deleted"], "properties": {"deleted": {"type": "integer"}}, "additionalProperties": false,
                }))},
                "207": by_row(),
            }), &statuses(entity, &[&["404", "412"], &BODY_PROBLEMS[..]].concat())),
        },
    })
}

fn minimal() -> Value {
    json!({"$ref": "#/components/responses/Minimal"})
}

fn by_row() -> Value {
    json!({
        "description": "With `onError=continue`: what became of each object, in their order.",
        "content": json_content(json!({"type": "array", "items": reference("RowOutcome")})),
    })
}

fn table() -> Value {
    json!({"type": "string", "description": "A heading with the members' names, then a line an object; an empty cell is as if the member were not there."})
}

fn object_path(model: &Model, plan: &EntityPlan) -> Value {
    let entity = plan.entity();
    let name = &entity.name;
    let written = |description: &str| {
        json!({
            "description": description,
            "headers": written_headers(),
            "content": json_content(reference(name)),
            "links": links(entity, "$request.path.id"),
        })
    };
    let mut read = history::with_moment(entity, parameters::of_object(model, plan));
    read.push(parameter("IfNoneMatch"));
    let conditional = |more: &[&'static str]| statuses(entity, &[&["412"], more].concat());
    json!({
        "parameters": [parameter("Id")],
        "get": {
            "operationId": format!("get{name}"),
            "summary": format!("Gives a {name}"),
            "description": "Its ETag is its version.",
            "tags": [name],
            "parameters": read,
            "responses": with_problems(json!({
                "200": {
                    "description": "The object.",
                    "headers": {"ETag": etag()},
                    "content": json_content(reference(&format!("{name}Fields"))),
                    "links": links(entity, "$request.path.id"),
                },
                "304": {"$ref": "#/components/responses/NotModified"},
            }), if entity.soft_delete { &["404", "410"] } else { &["404"] }),
        },
        "put": {
            "operationId": format!("put{name}"),
            "summary": format!("Replaces a {name}, or makes it"),
            "description": "Members that are not given become null or their default.",
            "tags": [name],
            "parameters": [parameter("IfMatch"), parameter("OnlyNew"), parameter("IdempotencyKey"), parameter("Prefer")],
            "requestBody": {"required": true, "content": json_content(reference(&format!("{name}Create")))},
            "responses": with_problems(
                json!({"200": written("Replaced."), "201": written("Made."), "204": minimal()}),
                &conditional(&[&["404"], &BODY_PROBLEMS[..]].concat()),
            ),
        },
        "patch": {
            "operationId": format!("patch{name}"),
            "summary": format!("Changes members of a {name} (RFC 7396), or what a JSON Patch says (RFC 6902)"),
            "description": "Members that are not given stay as they are; null takes a value away.",
            "tags": [name],
            "parameters": [if_match(entity), parameter("IdempotencyKey"), parameter("Prefer")],
            "requestBody": {"required": true, "content": {
                "application/merge-patch+json": {"schema": reference(&format!("{name}Patch"))},
                "application/json": {"schema": reference(&format!("{name}Patch"))},
                (json_patch::MEDIA_TYPE): {"schema": reference("JsonPatch"), "examples": {"tested": json_patch_example(entity)}},
            }},
            "responses": with_problems(
                json!({"200": written("Changed."), "204": minimal()}),
                &conditional(&[&["404"], &BODY_PROBLEMS[..]].concat()),
            ),
        },
        "delete": {
            "operationId": format!("delete{name}"),
            "summary": format!("Deletes a {name}"),
            "description": "Refused while others refer to it, unless their relationship says otherwise.",
            "tags": [name],
            "parameters": [if_match(entity), parameter("IdempotencyKey")],
            "responses": with_problems(
                json!({"204": {"description": "Deleted.", "headers": {"Idempotent-Replayed": written_headers()["Idempotent-Replayed"]}}}),
                &conditional(&["404", "409", "422"]),
            ),
        },
    })
}
