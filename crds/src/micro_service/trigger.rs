//! What makes a MicroService run.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FilesTrigger, ScheduleTrigger};

/// What makes a service run: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("[has(self.queue), has(self.files), has(self.schedule)].filter(x, x).size() == 1", "a trigger has exactly one of queue, files and schedule"))]
pub struct Trigger {
    /// Changes of objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueTrigger>,
    /// Files that arrive in a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesTrigger>,
    /// Moments of a calendar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleTrigger>,
}

/// Changes of an entity's objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("!has(self.batch) || !has(self.order) || self.order != 'perKey'", "a batch hands on many events at a time, so it can't be in order per key"))]
pub struct QueueTrigger {
    /// The name of the entity's DataModel.
    #[schemars(length(min = 1, max = 40))]
    pub model: String,
    /// The entity's name, in PascalCase.
    #[schemars(length(min = 1, max = 48))]
    pub entity: String,
    /// The operations that trigger; `created` where left out.
    #[serde(default = "created_only")]
    #[schemars(length(min = 1, max = 3))]
    pub operations: Vec<Operation>,
    /// The values of the entity's routing attribute that trigger; all where left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub routing: Vec<String>,
    /// A CEL expression over `event`, `object` and `before` (null unless updated); only where it is true the event is handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub filter: Option<String>,
    /// Where a new service begins: with events that were stored after this moment, RFC 3339. Where left out, with the first one that the stream
    /// holds. A service that has begun goes on where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 20, max = 40))]
    pub since: Option<String>,
    /// In which order events are handled. With `perKey`, those with the same value of the entity's `events.partitionKey` (the object's id where
    /// none is declared) one after the other, as they were committed, through retries, with any number of workers; other keys go on meanwhile.
    #[serde(default, skip_serializing_if = "Order::is_per_object")]
    pub order: Order,
    /// Hands the steps several events at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchWindow>,
}

impl QueueTrigger {
    /// The moment of `since` in nanoseconds since 1970; none where it is left out or not understood.
    pub fn since_nanoseconds(&self) -> Option<i128> {
        Some(self.since.as_ref()?.parse::<jiff::Timestamp>().ok()?.as_nanosecond())
    }
}

/// In which order events are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// Events of one object one after the other in a worker; one that is tried again holds up none.
    #[default]
    PerObject,
    /// Events of one key strictly one after the other; those behind one that is tried again wait for it, or for its dead letter.
    PerKey,
}

impl Order {
    fn is_per_object(&self) -> bool {
        *self == Self::PerObject
    }
}

fn created_only() -> Vec<Operation> {
    vec![Operation::Created]
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// The object was created.
    Created,
    /// The object was changed.
    Updated,
    /// The object was deleted.
    Deleted,
}

impl Operation {
    /// The token in subjects and event types.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Created => "created",
            Operation::Updated => "updated",
            Operation::Deleted => "deleted",
        }
    }
}

/// A window in which events are gathered and handed to the steps as groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchWindow {
    /// The window closes when it holds this many events.
    #[serde(default = "default_max_objects")]
    #[schemars(range(min = 1, max = 5000))]
    pub max_objects: u32,
    /// The window closes this long after its first event, as a Go duration.
    #[serde(default = "default_max_wait")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub max_wait: String,
    /// Parts calendar days: the window closes at midnight in this time zone too, by its name in the IANA database, and no group has events that were
    /// committed on different days there. `maxWait: 24h` with it makes a batch a day, or one whenever `maxObjects` are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// A CEL expression over `object`: events of a window with equal values form a group, and the steps run once a group, with the
    /// group's objects under `objects` and the value under `group`. Without it the whole window is one group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub group_by: Option<String>,
}

fn default_max_objects() -> u32 {
    500
}

fn default_max_wait() -> String {
    "1s".to_owned()
}
