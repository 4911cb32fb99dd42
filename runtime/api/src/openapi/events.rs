//! The description of subscriptions: Server-Sent Events.

use autonomy_crds::resolved::Entity;
use serde_json::{Value, json};

use super::parameters::{filters, listing};
use super::{header_parameter, query_parameter, reference, with_problems};

// A position in the database's log.
const EVENT_ID: &str = "^[0-9A-F]{16}-[0-9A-F]{8}$";

/// The path of an entity's events.
pub fn path(entity: &Entity) -> Value {
    let name = &entity.name;
    let mut last_seen = header_parameter("Last-Event-ID", "The id of the last event that the client has seen; it goes on behind it.");
    last_seen["schema"]["pattern"] = EVENT_ID.into();
    let mut parameters = vec![
        last_seen,
        query_parameter(
            "lastEventId",
            "The same, for clients that can't set the header, which counts before it.",
            json!({"type": "string", "pattern": EVENT_ID}),
        ),
        query_parameter(
            "from",
            "Where a client without an id begins: with the next event, or with the first that is kept.",
            json!({"type": "string", "enum": ["next", "first"], "default": "next"}),
        ),
        listing(
            "operation",
            "What happened to the objects. All where it is left out.",
            json!({"type": "string", "enum": ["created", "updated", "deleted"]}),
            json!({"minItems": 1}),
        ),
    ];
    parameters.extend(filters(entity));
    json!({
        "get": {
            "operationId": format!("follow{name}"),
            "summary": format!("Follows the committed changes of {name} objects"),
            "description": "Without end. A client that comes back with the id it saw last gets what it has missed.",
            "tags": [name],
            "parameters": parameters,
            "responses": with_problems(json!({
                "200": {
                    "description": "Server-Sent Events without end, in commit order: `id` is the event's id, `event` is `created`, `updated` or `deleted`, `data` a CloudEvent on one line. The filters hold for the object after the change, or as it last was.",
                    "content": {"text/event-stream": {"schema": {"type": "string"}, "x-event-schema": {"allOf": [
                        reference("CloudEvent"),
                        {"properties": {"data": reference(name)}},
                    ]}}},
                },
            }), &["406", "410"]),
        },
    })
}

/// The schema of an event.
pub fn cloud_event_schema() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "description": "An event as CloudEvents 1.0 has it in JSON (structured mode).",
        "required": ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "autonomyversion", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text("The event's position in the database's log: as text it sorts in commit order."),
            "source": text("The model."),
            "type": text("`dev.autonomy.{model}.{Entity}.{created|updated|deleted}`."),
            "subject": text("The object's id."),
            "time": {"type": "string", "format": "date-time", "description": "When it was committed."},
            "datacontenttype": {"const": "application/json"},
            "autonomyversion": text("The object's version."),
            "traceparent": text("The writer's W3C trace context."),
            "actor": text("Who wrote."),
            "causationid": text("The event whose handling wrote this."),
            "data": {"type": "object", "description": "The object; of an update also `before`, the whole object before."},
        },
    })
}
