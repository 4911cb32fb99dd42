//! Running a service's steps for one input: what comes out is what is to be written, and nothing is written here.

mod compile;
mod document;
mod handler;
mod http;
mod nested;
mod object;
mod put_object;
mod run;
mod template;

use std::time::Duration;

use crate::expression::{Kind, Object, Shape, Value};

pub(crate) use compile::{CompiledStep, Steps};
pub use run::run;

/// What the steps run for.
#[derive(Clone, Debug)]
pub enum Input {
    /// One event.
    Event(EventInput),
    /// Several events of a batch window's group.
    Group(GroupInput),
    /// One record of a file.
    Record(RecordInput),
    /// A run of a schedule.
    Run(EventHead),
}

impl Input {
    /// What stands for it in idempotency keys and in ids that are made from it. A group's first event stands for it: it is written in one group only,
    /// so that ids made from it are never made twice.
    pub fn identity(&self) -> String {
        match self {
            Self::Event(input) => input.event.identity(),
            Self::Group(input) => input.events.first().map(EventHead::identity).unwrap_or_default(),
            Self::Record(input) => input.id.clone(),
            Self::Run(event) => event.identity(),
        }
    }
}

/// An event as expressions see it under `event`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventHead {
    /// CloudEvents `id`: the event's position.
    pub id: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `subject`: the object's id.
    pub subject: String,
    /// CloudEvents `time`: commit time, RFC 3339.
    pub time: String,
    /// The object's version.
    pub version: i64,
    /// Who wrote, where known.
    pub actor: Option<String>,
    /// W3C trace context, where known.
    pub traceparent: Option<String>,
    /// The event that led to this one, where known.
    pub causation_id: Option<String>,
    /// The name of the replay that it belongs to, where it is to take effect once more.
    pub replay: Option<String>,
}

impl EventHead {
    /// What stands for it in idempotency keys and in ids that are made from it: its id, and the replay's name.
    pub fn identity(&self) -> String {
        match &self.replay {
            Some(replay) => format!("{}~{replay}", self.id),
            None => self.id.clone(),
        }
    }

    /// What happened to the object: `created`, `updated` or `deleted`, the last token of the type.
    pub fn operation(&self) -> &str {
        self.kind.rsplit('.').next().unwrap_or_default()
    }

    /// What expressions see.
    pub fn value(&self) -> Value {
        thread_local! {
            // One shape for all events.
            static SHAPE: std::sync::Arc<Shape> = Shape::new(EVENT_MEMBERS);
        }
        let values = vec![
            Value::text(&self.id),
            Value::text(&self.kind),
            Value::text(self.operation()),
            Value::text(&self.source),
            Value::text(&self.subject),
            Value::text(&self.time),
            Value::Int(self.version),
            Value::optional_text(self.actor.as_deref()),
            Value::optional_text(self.causation_id.as_deref()),
        ];
        Value::Object(std::sync::Arc::new(Object::new(SHAPE.with(std::sync::Arc::clone), values)))
    }

    pub(crate) fn kind() -> Kind {
        Kind::object("an event", EVENT_MEMBERS.map(|member| (member, if member == "version" { Kind::Int } else { Kind::Text })))
    }
}

const EVENT_MEMBERS: [&str; 9] = ["id", "type", "operation", "source", "subject", "time", "version", "actor", "causationId"];

/// One event.
#[derive(Clone, Debug)]
pub struct EventInput {
    /// The event.
    pub event: EventHead,
    /// The object (after the change; of a delete, as it last was).
    pub object: Value,
    /// The object before an update; null otherwise.
    pub before: Value,
}

/// Events of a group, in the order of their positions.
#[derive(Clone, Debug)]
pub struct GroupInput {
    /// The events; at least one.
    pub events: Vec<EventHead>,
    /// Their objects, in the same order.
    pub objects: Vec<Value>,
    /// The value of `groupBy`; null without it.
    pub group: Value,
}

/// A record of a file.
#[derive(Clone, Debug)]
pub struct RecordInput {
    /// The record's identity, `{sha256 of the file}/{record number}`; stands for the event's id.
    pub id: String,
    /// The record's first row.
    pub row: Value,
    /// All its rows.
    pub rows: Vec<Value>,
    /// The file: `name`, `sha256`.
    pub file: Value,
    /// The line of the first row, from 1.
    pub line: u64,
}

/// What the steps want written, all or nothing.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Operations in order; may be empty.
    pub operations: Vec<Operation>,
}

/// One operation of a transaction unit, ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The JSON of the operation, as `/api/transactions` takes it.
    pub json: String,
}

/// Why an input was not handled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Whether it may pass.
    pub retryable: bool,
    /// The wait that was asked for before the next attempt.
    pub retry_after: Option<Duration>,
    /// What happened and where.
    pub message: String,
}

impl Failure {
    /// A failure that stays.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self { retryable: false, retry_after: None, message: message.into() }
    }

    /// A failure that may pass.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self { retryable: true, retry_after: None, message: message.into() }
    }
}

/// Finding objects in a service's caches.
pub trait Lookups: Send + Sync {
    /// The object of the cache that `by` (`id` or an index) finds with `key`: never null or a list, an object for an index over several members.
    /// Where several have it, the one with the smallest id, so that the answer doesn't depend on the order of arrival.
    fn find(&self, cache: &str, by: &str, key: &Value) -> Option<Value>;
}

/// No caches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLookups;

impl Lookups for NoLookups {
    fn find(&self, _cache: &str, _by: &str, _key: &Value) -> Option<Value> {
        None
    }
}

#[cfg(test)]
mod nested_tests;
#[cfg(test)]
mod tests;
