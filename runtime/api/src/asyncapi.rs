//! The AsyncAPI 3.0 description of a model: the events of its objects as they stand in the stream (CloudEvents 1.0, binary mode).

use autonomy_crds::Model;
use autonomy_crds::event::{PARTITIONS, header};
use autonomy_crds::micro_service::Operation;
use autonomy_crds::resolved::Entity;
use serde_json::{Map, Value, json};

use crate::openapi;

const OPERATIONS: [(Operation, &str); 3] =
    [(Operation::Created, "Created"), (Operation::Updated, "Updated"), (Operation::Deleted, "Deleted")];

/// The document of a model.
pub fn document(model: &Model) -> Value {
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for entity in &model.entities {
        channels.insert(entity.name.clone(), channel(model, entity));
        operations.insert(
            format!("publish{}", entity.name),
            json!({
                "action": "send",
                "title": format!("Publishes every committed change of a {}", entity.name),
                "description": "In commit order for each object; what was committed is never missing, whoever wrote it.",
                "channel": {"$ref": format!("#/channels/{}", entity.name)},
            }),
        );
        for (operation, suffix) in OPERATIONS {
            messages.insert(format!("{}{suffix}", entity.name), message(model, entity, operation));
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": format!("{} events", model.name),
            "version": "v1",
            "description": format!(
                "Every committed change of the model's objects, once, in commit order, in the NATS JetStream stream `{}`. {}",
                model.stream,
                model.description.clone().unwrap_or_default()
            ).trim(),
            "contact": openapi::contact(),
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": model.name, "description": "The model whose objects the events are of."}],
        },
        "servers": {"nats": {
            "host": "{host}",
            "protocol": "nats",
            "description": "The platform's NATS, with JetStream.",
            "variables": {"host": {"default": "localhost:4222", "description": "Where NATS is reached, as the DataPlatform's Secret tells."}},
        }},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": openapi::object_schemas(model),
            "messageTraits": {"cloudEvent": {"headers": headers()}},
        },
    })
}

fn channel(model: &Model, entity: &Entity) -> Value {
    let messages: Map<String, Value> = OPERATIONS
        .iter()
        .map(|(operation, suffix)| {
            (operation.as_str().to_owned(), json!({"$ref": format!("#/components/messages/{}{suffix}", entity.name)}))
        })
        .collect();
    let routing = match entity.routing.as_deref().and_then(|column| entity.by_column(column)) {
        Some(column) => format!("The value of `{}`, percent-encoded; `_` where there is none.", column.member),
        None => "`_`: the entity declares no routing attribute.".to_owned(),
    };
    let key = match entity.partition_key.as_deref().and_then(|column| entity.by_column(column)) {
        Some(column) => format!("`{}`", column.member),
        None => "the object's id".to_owned(),
    };
    json!({
        "address": format!("{}.{{operation}}.{{routing}}.{{partition}}", model.entity_subject(&entity.name)),
        "title": format!("Changes of {} objects", entity.name),
        "description": format!("A NATS subject of the JetStream stream `{}`.", model.stream),
        "messages": messages,
        "parameters": {
            "operation": {"description": "What happened.", "enum": OPERATIONS.map(|(operation, _)| operation.as_str())},
            "routing": {"description": routing},
            "partition": {"description": format!("0 to {}: a stable hash of {key}, so that ordered work can be shared out by subject.", PARTITIONS - 1)},
        },
    })
}

fn message(model: &Model, entity: &Entity, operation: Operation) -> Value {
    let object = json!({"$ref": format!("#/components/schemas/{}", entity.name)});
    let (title, payload) = match operation {
        Operation::Created => ("made", object),
        Operation::Updated => (
            "changed",
            json!({"allOf": [object, {"type": "object", "required": ["before"], "properties": {
                "before": {"description": "The whole object before.", "allOf": [object]},
            }}]}),
        ),
        Operation::Deleted => ("deleted; the object as it last was", object),
    };
    json!({
        "name": model.event_type(entity, operation),
        "title": format!("A {} was {title}", entity.name),
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "headers": {"type": "object", "properties": {
            header::TYPE: {"const": model.event_type(entity, operation)},
            header::SOURCE: {"const": model.source()},
        }},
        "payload": payload,
    })
}

fn headers() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "required": [header::SPEC_VERSION, header::ID, header::SOURCE, header::TYPE, header::SUBJECT, header::TIME, header::VERSION],
        "properties": {
            header::SPEC_VERSION: {"const": "1.0"},
            header::ID: {
                "type": "string",
                "pattern": "^[0-9A-F]{16}-[0-9A-F]{8}$",
                "description": "The event's position in the database's log: as text it sorts in commit order.",
            },
            header::SUBJECT: {"type": "string", "format": "uuid", "description": "The object's id."},
            header::TIME: {"type": "string", "format": "date-time", "description": "When it was committed."},
            header::CONTENT_TYPE: {"const": "application/json"},
            header::VERSION: text("The object's version."),
            header::TRACEPARENT: text("The writer's W3C trace context."),
            header::ACTOR: text("Who wrote."),
            header::CAUSATION_ID: text("The event whose handling wrote this."),
        },
    })
}
