//! The OpenAPI 3.1 description of a model: its paths and the schemas of its objects.

mod changes;
mod events;
mod history;
mod transactions;

use autonomy_crds::Model;
use autonomy_crds::resolved::{Column, ColumnKind, Entity, ValueType};
use serde_json::{Map, Value, json};

use changes::{deletion, deletion_schema, json_patch_example, json_patch_schema, list_example, patch_item};

use crate::json_patch;
use crate::query::{DEFAULT_LIMIT, MOST_LIMIT};

/// The document of a model.
pub fn document(model: &Model) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for entity in &model.entities {
        let base = format!("/api/{}/{}", model.name, entity.path);
        paths.insert(base.clone(), list_path(entity));
        paths.insert(format!("{base}/events"), events::path(entity));
        paths.insert(format!("{base}/{{id}}"), object_path(entity));
        if entity.history_table().is_some() {
            paths.insert(format!("{base}/{{id}}/history"), history::path(entity));
            schemas.insert(format!("{}Version", entity.name), history::version_schema(entity));
        }
        schemas.insert(format!("{}Create", entity.name), create_schema(entity));
        schemas.insert(format!("{}Patch", entity.name), patch_schema(entity));
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
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": model.entities.iter().map(|entity| json!({"name": entity.name, "description": entity.description.clone().unwrap_or_default()})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Problem": {
                    "description": "What is wrong, with every fault (RFC 9457).",
                    "content": {"application/problem+json": {"schema": reference("Problem")}},
                },
                "NotModified": {"description": "The object is the one that If-None-Match names."},
            },
            "parameters": {
                "Id": {"name": "id", "in": "path", "required": true, "description": "The object's id.", "schema": {"type": "string", "format": "uuid"}},
                "IdempotencyKey": header_parameter("Idempotency-Key", "A key of the client's choice: a request sent again with it has its effect once and gets the first answer."),
                "IfMatch": header_parameter("If-Match", "The object's ETag, or *; where the object has changed the answer is 412."),
                "IfMatchRequired": required_if_match(),
                "IfNoneMatch": header_parameter("If-None-Match", "An ETag that the client has (GET), or * (PUT: only where there is no such object)."),
                "Prefer": header_parameter("Prefer", "`return=minimal`: the objects written are not answered."),
                "OnError": query_parameter("onError", "`continue`: each object of a list succeeds or fails for itself, and is answered so.", json!({"type": "string", "enum": ["stop", "continue"], "default": "stop"})),
                "Embed": query_parameter("embed", "Objects referred to that are shown inside, by their relationships, comma-separated, as in `customer,customer.account`.", json!({"type": "string"})),
                "Fields": query_parameter("fields", "The members wanted, comma-separated; the id is always there.", json!({"type": "string"})),
            },
        },
    })
}

/// The schemas of a model's objects and of their parts, by name.
pub fn object_schemas(model: &Model) -> Map<String, Value> {
    let mut schemas = Map::new();
    for entity in &model.entities {
        schemas.insert(entity.name.clone(), object_schema(entity));
        for column in &entity.columns {
            if let ColumnKind::Parts { part, .. } = &column.kind {
                schemas.insert(part.name.clone(), part_schema(&part.columns, part.description.as_deref()));
            }
        }
    }
    schemas
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

fn required_if_match() -> Value {
    let mut parameter =
        header_parameter("If-Match", "The object's ETag, or *; where the object has changed the answer is 412, without it 428.");
    parameter["required"] = true.into();
    parameter
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
    json!({"ETag": {"description": "The object's version.", "schema": {"type": "string"}}})
}

// The answers that every operation may give.
fn with_problems(mut responses: Value, statuses: &[&str]) -> Value {
    for status in statuses.iter().chain(&["400", "503", "default"]) {
        responses[*status] = json!({"$ref": "#/components/responses/Problem"});
    }
    responses
}

fn list_path(entity: &Entity) -> Value {
    let name = &entity.name;
    let objects = json!({"type": "array", "items": reference(name)});
    let counts = json!({
        "type": "object",
        "properties": {"created": {"type": "integer"}, "updated": {"type": "integer"}, "ignored": {"type": "integer"}},
    });
    let one_or_list = json!({"oneOf": [reference(name), objects, counts]});
    let on_conflict = if entity.key.is_empty() { "by id" } else { "by natural key" };
    json!({
        "get": {
            "operationId": format!("list{name}"),
            "summary": format!("Lists {name} objects"),
            "tags": [name],
            "parameters": list_parameters(entity),
            "responses": with_problems(json!({
                "200": {
                    "description": "A page of objects; as NDJSON the whole list, from one snapshot.",
                    "headers": {
                        "Link": {"description": "The next page, with `rel=\"next\"`; there is none after the last.", "schema": {"type": "string"}},
                        "X-Total-Count": {"description": "How many objects there are, with `count=true`.", "schema": {"type": "integer"}},
                        "Autonomy-Position": {"description": "Of NDJSON: where in the database's log the snapshot is, as 16 hex digits.", "schema": {"type": "string"}},
                    },
                    "content": {
                        "application/json": {"schema": {"oneOf": [objects, reference("Aggregates")]}},
                        "application/x-ndjson": {"schema": reference(name)},
                        "text/csv": {"schema": {"type": "string", "description": "A heading with the members' names, then a line an object; an empty cell is null."}},
                    },
                },
            }), &[]),
        },
        "post": {
            "operationId": format!("create{name}"),
            "summary": format!("Makes a {name}, or a list of them (all or none)"),
            "tags": [name],
            "parameters": [
                query_parameter("onConflict", &format!("What happens to objects that are there already ({on_conflict})."), json!({"type": "string", "enum": ["error", "ignore", "update"], "default": "error"})),
                parameter("OnError"), parameter("IdempotencyKey"), parameter("Prefer"),
            ],
            "requestBody": {"required": true, "content": {
                "application/json": {"schema": {"oneOf": [
                    reference(&format!("{name}Create")),
                    {"type": "array", "items": reference(&format!("{name}Create"))},
                ]}},
                "application/x-ndjson": {"schema": reference(&format!("{name}Create"))},
                "text/csv": {"schema": table()},
            }},
            "responses": with_problems(json!({
                "201": {
                    "description": "Made; a list is answered with a list.",
                    "headers": {"Location": {"description": "The object's path, where one was made.", "schema": {"type": "string"}}, "ETag": etag()["ETag"]},
                    "content": json_content(one_or_list.clone()),
                },
                "200": {"description": "Nothing is new: all were there.", "content": json_content(one_or_list)},
                "207": by_row(),
            }), &statuses(entity, &["409", "413", "415", "422"])),
        },
        "patch": {
            "operationId": format!("patch{name}List"),
            "summary": format!("Changes members of a list of {name} objects (all or none)"),
            "tags": [name],
            "parameters": [parameter("OnError"), parameter("IdempotencyKey"), parameter("Prefer")],
            "requestBody": {"required": true, "content": {
                "application/json": {"schema": {"type": "array", "items": patch_item(entity)}, "examples": {"seen": list_example(entity, false)}},
                "application/merge-patch+json": {"schema": {"type": "array", "items": patch_item(entity)}},
                "application/x-ndjson": {"schema": patch_item(entity)},
                "text/csv": {"schema": table()},
            }},
            "responses": with_problems(json!({
                "200": {"description": "Changed.", "content": json_content(json!({"oneOf": [objects, counts]}))},
                "207": by_row(),
            }), &statuses(entity, &["404", "409", "412", "413", "415", "422"])),
        },
        "delete": {
            "operationId": format!("delete{name}List"),
            "summary": format!("Deletes a list of {name} objects (all or none)"),
            "tags": [name],
            "parameters": [parameter("OnError"), parameter("IdempotencyKey")],
            "requestBody": {"required": true, "content": {
                "application/json": {"schema": {"type": "array", "minItems": 1, "items": deletion(entity)}, "examples": {"seen": list_example(entity, true)}},
                "application/x-ndjson": {"schema": deletion(entity)},
                "text/csv": {"schema": {"type": "string", "description": "A heading with `id`, and maybe `@ifMatch`, then a line an object."}},
            }},
            "responses": with_problems(json!({
                "200": {"description": "Deleted.", "content": json_content(json!({
                    "type": "object", "required": ["deleted"], "properties": {"deleted": {"type": "integer"}},
                }))},
                "207": by_row(),
            }), &statuses(entity, &["404", "409", "412", "413", "415", "422"])),
        },
    })
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

fn object_path(entity: &Entity) -> Value {
    let name = &entity.name;
    let answered = |description: &str| json!({"description": description, "headers": etag(), "content": json_content(reference(name))});
    json!({
        "parameters": [parameter("Id")],
        "get": {
            "operationId": format!("get{name}"),
            "summary": format!("Gives a {name}"),
            "tags": [name],
            "parameters": history::with_moment(entity, vec![parameter("Fields"), parameter("Embed"), parameter("IfNoneMatch")]),
            "responses": with_problems(json!({
                "200": answered("The object."),
                "304": {"$ref": "#/components/responses/NotModified"},
            }), if entity.soft_delete { &["404", "410"] } else { &["404"] }),
        },
        "put": {
            "operationId": format!("put{name}"),
            "summary": format!("Replaces a {name}, or makes it"),
            "tags": [name],
            "parameters": [parameter("IfMatch"), parameter("IfNoneMatch"), parameter("IdempotencyKey"), parameter("Prefer")],
            "requestBody": {"required": true, "content": json_content(reference(&format!("{name}Create")))},
            "responses": with_problems(json!({"200": answered("Replaced."), "201": answered("Made.")}), &statuses(entity, &["409", "412", "413", "415", "422"])),
        },
        "patch": {
            "operationId": format!("patch{name}"),
            "summary": format!("Changes members of a {name} (RFC 7396), or what a JSON Patch says (RFC 6902)"),
            "tags": [name],
            "parameters": [if_match(entity), parameter("IdempotencyKey"), parameter("Prefer")],
            "requestBody": {"required": true, "content": {
                "application/merge-patch+json": {"schema": reference(&format!("{name}Patch"))},
                "application/json": {"schema": reference(&format!("{name}Patch"))},
                (json_patch::MEDIA_TYPE): {"schema": reference("JsonPatch"), "examples": {"tested": json_patch_example(entity)}},
            }},
            "responses": with_problems(json!({"200": answered("Changed.")}), &statuses(entity, &["404", "409", "412", "413", "415", "422"])),
        },
        "delete": {
            "operationId": format!("delete{name}"),
            "summary": format!("Deletes a {name}"),
            "tags": [name],
            "parameters": [if_match(entity), parameter("IdempotencyKey")],
            "responses": with_problems(json!({"204": {"description": "Deleted."}}), &statuses(entity, &["404", "409", "412"])),
        },
    })
}

fn list_parameters(entity: &Entity) -> Value {
    let mut parameters = vec![
        query_parameter(
            "sort",
            "Members to sort by, comma-separated, `-` before one for the largest first; the id decides at last.",
            json!({"type": "string"}),
        ),
        parameter("Fields"),
        parameter("Embed"),
        query_parameter(
            "aggregate",
            "In place of objects: `count`, and `countDistinct`, `sum`, `avg`, `min` or `max` of an attribute, as in `sum(total)`, comma-separated.",
            json!({"type": "string"}),
        ),
        query_parameter(
            "groupBy",
            "With `aggregate`: the members with whose values a group is made, comma-separated.",
            json!({"type": "string"}),
        ),
        query_parameter(
            "limit",
            "The most objects of a page.",
            json!({"type": "integer", "minimum": 0, "maximum": MOST_LIMIT, "default": DEFAULT_LIMIT}),
        ),
        query_parameter(
            "offset",
            "How many objects to pass over; `cursor` is better for long lists.",
            json!({"type": "integer", "minimum": 0}),
        ),
        query_parameter("cursor", "Goes on where a page ended; from its Link.", json!({"type": "string"})),
        query_parameter("count", "Whether X-Total-Count is wanted.", json!({"type": "boolean", "default": false})),
    ];
    parameters.extend(filters(entity));
    history::with_moment(entity, parameters).into()
}

fn filters(entity: &Entity) -> Vec<Value> {
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
            let mut schema = value_schema(value_type);
            for limit in ["minLength", "maxLength", "pattern", "minimum", "maximum", "multipleOf"] {
                schema.as_object_mut().map(|schema| schema.remove(limit));
            }
            Some((column.member.as_str(), schema, text))
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
        parameters.push(query_parameter(&format!("{member}.in"), "Equal to one of these, comma-separated.", json!({"type": "string"})));
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

fn value_schema(value_type: &ValueType) -> Value {
    match value_type {
        ValueType::String { min_length, max_length, pattern } => {
            let mut schema = json!({"type": "string"});
            set(&mut schema, "minLength", min_length.map(Value::from));
            set(&mut schema, "maxLength", max_length.map(Value::from));
            set(&mut schema, "pattern", pattern.as_ref().map(|pattern| Value::from(format!("^(?:{pattern})$"))));
            schema
        }
        ValueType::Uuid => json!({"type": "string", "format": "uuid"}),
        ValueType::Integer { minimum, maximum } => {
            let mut schema = json!({"type": "integer", "format": "int64"});
            set(&mut schema, "minimum", minimum.map(Value::from));
            set(&mut schema, "maximum", maximum.map(Value::from));
            schema
        }
        ValueType::Decimal { precision, scale, minimum, maximum } => {
            let mut schema = json!({"type": "number"});
            if let Some(precision) = precision {
                let digits = format!("Exact: {precision} digits, {} behind the point. A string is taken too.", scale.unwrap_or(0));
                schema["description"] = digits.into();
            }
            set(&mut schema, "minimum", minimum.map(Value::from));
            set(&mut schema, "maximum", maximum.map(Value::from));
            schema
        }
        ValueType::Boolean => json!({"type": "boolean"}),
        ValueType::Date => json!({"type": "string", "format": "date"}),
        ValueType::DateTime => json!({"type": "string", "format": "date-time"}),
        ValueType::Json => json!({}),
        ValueType::Binary { max_length } => {
            let mut schema = json!({"type": "string", "contentEncoding": "base64"});
            set(&mut schema, "maxLength", max_length.map(|bytes| Value::from(u64::from(bytes).div_ceil(3) * 4)));
            schema
        }
        ValueType::Enumeration { values, .. } => json!({"type": "string", "enum": values}),
    }
}

fn set(schema: &mut Value, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        schema[name] = value;
    }
}

fn column_schema(column: &Column, nullable: bool) -> Value {
    let mut schema = match &column.kind {
        ColumnKind::Attribute { value_type } => value_schema(value_type),
        ColumnKind::Relationship { target, .. } => {
            json!({"type": "string", "format": "uuid", "description": format!("The id of a {}.", target.entity)})
        }
        ColumnKind::Parts { part, min_items, max_items } => {
            json!({"type": "array", "items": reference(&part.name), "minItems": min_items, "maxItems": max_items})
        }
    };
    if nullable && !column.required && !matches!(column.kind, ColumnKind::Parts { .. }) {
        if let Some(kind) = schema.get("type").cloned() {
            schema["type"] = json!([kind, "null"]);
        }
        if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            values.push(Value::Null);
        }
    }
    if let Some(description) = &column.description {
        let exact = schema.get("description").and_then(Value::as_str).map(|exact| format!(" {exact}")).unwrap_or_default();
        schema["description"] = format!("{description}{exact}").into();
    }
    set(&mut schema, "default", column.default.clone());
    set(&mut schema, "x-classification", column.classification.clone().map(Value::from));
    schema
}

fn system_properties() -> Map<String, Value> {
    let mut properties = Map::new();
    properties.insert(
        "id".to_owned(),
        json!({"type": "string", "format": "uuid", "description": "The object's id; made (UUID v7) where a new object has none."}),
    );
    properties.insert(
        "version".to_owned(),
        json!({"type": "integer", "format": "int64", "readOnly": true, "description": "Raised by one with every change; the ETag."}),
    );
    for (name, description) in [("createdAt", "When the object was made."), ("updatedAt", "When it was last changed.")] {
        properties.insert(name.to_owned(), json!({"type": "string", "format": "date-time", "readOnly": true, "description": description}));
    }
    properties
}

fn properties(entity: &Entity, nullable: bool) -> Map<String, Value> {
    let mut properties = system_properties();
    properties.extend(entity.columns.iter().map(|column| (column.member.clone(), column_schema(column, nullable))));
    properties
}

fn object_schema(entity: &Entity) -> Value {
    let properties = properties(entity, true);
    let mut schema = json!({
        "type": "object",
        "required": properties.keys().collect::<Vec<_>>(),
        "properties": properties,
    });
    set(&mut schema, "description", entity.description.clone().map(Value::from));
    set(&mut schema, "x-key", (!entity.key.is_empty()).then(|| members(entity, &entity.key)));
    schema
}

fn members(entity: &Entity, columns: &[String]) -> Value {
    columns.iter().filter_map(|name| entity.by_column(name)).map(|column| column.member.clone()).collect()
}

fn create_schema(entity: &Entity) -> Value {
    let needed = |column: &&Column| match &column.kind {
        ColumnKind::Parts { min_items, .. } => *min_items > 0,
        _ => column.required && column.default.is_none(),
    };
    json!({
        "type": "object",
        "description": format!("A new {}, or the whole of one that is replaced.", entity.name),
        "required": entity.columns.iter().filter(needed).map(|column| &column.member).collect::<Vec<_>>(),
        "properties": properties(entity, true),
        "additionalProperties": false,
    })
}

fn patch_schema(entity: &Entity) -> Value {
    let mut properties = properties(entity, true);
    for property in properties.values_mut() {
        property.as_object_mut().map(|property| property.remove("default"));
    }
    json!({
        "type": "object",
        "description": format!("Members of a {} to be set; null takes a value away.", entity.name),
        "properties": properties,
        "additionalProperties": false,
    })
}

fn part_schema(columns: &[Column], description: Option<&str>) -> Value {
    let mut schema = json!({
        "type": "object",
        "required": columns.iter().filter(|column| column.required && column.default.is_none()).map(|column| &column.member).collect::<Vec<_>>(),
        "properties": columns.iter().map(|column| (column.member.clone(), column_schema(column, true))).collect::<Map<_, _>>(),
        "additionalProperties": false,
    });
    set(&mut schema, "description", description.map(Value::from));
    schema
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "A problem (RFC 9457).",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "format": "uri", "description": "What kind of problem this is."},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What happened."},
            "errors": {"type": "array", "description": "Every fault, up to 100.", "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "Where in the body (JSON Pointer)."},
                    "parameter": {"type": "string", "description": "Which query parameter or header."},
                    "detail": {"type": "string"},
                },
            }},
            "deletedAt": {"type": "string", "format": "date-time", "description": "With 410: when the object was deleted."},
            "usedKeys": {"type": "array", "items": {"type": "string"}, "description": "Idempotency keys that were used before."},
        },
    })
}

fn aggregates_schema() -> Value {
    let by_attribute = |description: &str| json!({"type": "object", "description": description, "additionalProperties": true});
    json!({
        "type": "array",
        "description": "With `aggregate`: an object a group, with the members of `groupBy`.",
        "items": {"type": "object", "properties": {
            "count": {"type": "integer"},
            "countDistinct": by_attribute("How many different values, by attribute."),
            "sum": by_attribute("Sums by attribute."),
            "avg": by_attribute("Means by attribute."),
            "min": by_attribute("Smallest values by attribute."),
            "max": by_attribute("Largest values by attribute."),
        }},
    })
}
