//! Events as they stand in JetStream: subjects, headers, positions, watermarks, and the streams beside the models' own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::micro_service::Operation;
use crate::resolved::{Entity, Model};

/// CloudEvents and platform header names.
pub mod header {
    /// CloudEvents `specversion`.
    pub const SPEC_VERSION: &str = "ce-specversion";
    /// CloudEvents `id`: the event's [`super::Position`].
    pub const ID: &str = "ce-id";
    /// CloudEvents `source`.
    pub const SOURCE: &str = "ce-source";
    /// CloudEvents `type`.
    pub const TYPE: &str = "ce-type";
    /// CloudEvents `subject`: the object's id.
    pub const SUBJECT: &str = "ce-subject";
    /// CloudEvents `time`: commit time.
    pub const TIME: &str = "ce-time";
    /// The data's media type.
    pub const CONTENT_TYPE: &str = "content-type";
    /// The object's version.
    pub const VERSION: &str = "autonomy-version";
    /// W3C trace context of the writer.
    pub const TRACEPARENT: &str = "ce-traceparent";
    /// Who wrote.
    pub const ACTOR: &str = "ce-actor";
    /// The id of the event whose handling wrote this.
    pub const CAUSATION_ID: &str = "ce-causationid";
}

/// The prefix of `pg_logical_emit_message` that carries a [`TransactionContext`].
pub const CONTEXT_MESSAGE_PREFIX: &str = "autonomy.context";

/// Who writes and why, put at the head of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteContext {
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Who writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The event whose handling writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
}

impl WriteContext {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a transaction's message tells of who writes and why. A transaction of one writer has its context alone; one in which the API
/// applies units of several writers has what is common to them, and each unit's own with the objects that it writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionContext {
    /// Of every change for which no unit tells more.
    #[serde(flatten)]
    pub shared: WriteContext,
    /// Of the units, where they differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitContext>,
}

/// The context of one unit among others in a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitContext {
    /// The context.
    #[serde(flatten)]
    pub context: WriteContext,
    /// The ids of the objects that the unit writes.
    pub objects: Vec<Uuid>,
}

/// Where an event stands in the order of all changes: its transaction's commit LSN, and its place in the transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The LSN of the transaction's commit record (`final_lsn` of pgoutput's Begin).
    pub commit: u64,
    /// The change's place in the transaction, from 0; only changes that are events count.
    pub index: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}-{:08X}", self.commit, self.index)
    }
}

/// A text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an event position: 16 hex digits, a hyphen and 8 hex digits are expected")]
pub struct NoPosition(pub String);

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let parse = || {
            let (commit, index) = text.split_once('-')?;
            // Parsing a number would take a sign too.
            let hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if commit.len() != 16 || index.len() != 8 || !hex(commit) || !hex(index) {
                return None;
            }
            Some(Position { commit: u64::from_str_radix(commit, 16).ok()?, index: u32::from_str_radix(index, 16).ok()? })
        };
        parse().ok_or_else(|| NoPosition(text.to_owned()))
    }
}

/// What the relay tells after each acknowledged batch: every change committed at or before `position` is in the streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watermark {
    /// A commit LSN, as 16 hex digits.
    pub position: String,
    /// The last stream sequence of each entity that has one, by `{model}/{Entity}`.
    pub entities: BTreeMap<String, u64>,
}

/// The core NATS subject of a namespace's watermarks.
pub fn watermark_subject(namespace: &str) -> String {
    format!("autonomy.{namespace}._watermark")
}

/// How many partitions an entity's events are shared out to.
pub const PARTITIONS: u64 = 64;

/// The partition of a key: FNV-1a (64 bits) of its UTF-8 text, its upper half XORed into its lower half, modulo 64. Part of the contract: it
/// never changes.
pub fn partition(key: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in key.as_bytes() {
        hash ^= u64::from(*byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    // The high bits are mixed best.
    (hash ^ (hash >> 32)) % PARTITIONS
}

// What a subject token may hold as it is; the rest is percent-encoded.
const TOKEN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// The `routing` token of a value: `_` for none or an empty one, otherwise the value with all but letters, digits, `-` and `_`
/// percent-encoded. A value that is itself `_` becomes `%5F`.
pub fn routing_token(value: Option<&str>) -> String {
    match value {
        None | Some("") => "_".to_owned(),
        Some("_") => "%5F".to_owned(),
        Some(value) => utf8_percent_encode(value, TOKEN).to_string(),
    }
}

impl Model {
    /// The subject of an event. `routing` is the routing column's value, `partition_key` the partition column's value or the object's id.
    pub fn subject(&self, entity: &Entity, operation: Operation, routing: Option<&str>, partition_key: &str) -> String {
        format!("{}.{}.{}.{}", self.entity_subject(&entity.name), operation.as_str(), routing_token(routing), partition(partition_key))
    }

    /// `autonomy.{namespace}.{model}.{Entity}`, before the operation.
    pub fn entity_subject(&self, entity: &str) -> String {
        format!("autonomy.{}.{}.{}", self.namespace, self.name, entity)
    }

    /// CloudEvents `source`.
    pub fn source(&self) -> String {
        format!("/namespaces/{}/models/{}", self.namespace, self.name)
    }

    /// CloudEvents `type`.
    pub fn event_type(&self, entity: &Entity, operation: Operation) -> String {
        format!("dev.autonomy.{}.{}.{}", self.name, entity.name, operation.as_str())
    }

    /// The entity's key in a [`Watermark`].
    pub fn watermark_key(&self, entity: &str) -> String {
        format!("{}/{}", self.name, entity)
    }
}

/// The subjects that a queue trigger or a cache listens to: all of an entity's where `operations` is empty, of any routing where `routing` is.
pub fn filter_subjects(namespace: &str, model: &str, entity: &str, operations: &[Operation], routing: &[String]) -> Vec<String> {
    let head = format!("autonomy.{namespace}.{model}.{entity}");
    let operations: Vec<&str> =
        if operations.is_empty() { vec!["*"] } else { operations.iter().map(|operation| operation.as_str()).collect() };
    let routing: Vec<String> =
        if routing.is_empty() { vec!["*".to_owned()] } else { routing.iter().map(|value| routing_token(Some(value))).collect() };
    operations
        .iter()
        .flat_map(|operation| routing.iter().map(move |route| (operation, route)))
        .map(|(operation, route)| format!("{head}.{operation}.{route}.*"))
        .collect()
}

/// The stream of a model: `{NAMESPACE}_{MODEL}`; hyphens stay, so that no two pairs share a name.
pub fn stream(namespace: &str, model: &str) -> String {
    format!("{}_{}", namespace.to_uppercase(), model.to_uppercase())
}

/// The stream of a namespace's retries.
pub fn retry_stream(namespace: &str) -> String {
    format!("{}_RETRIES", namespace.to_uppercase())
}

/// What the retry stream listens to.
pub fn retry_stream_subjects(namespace: &str) -> String {
    format!("autonomy.{namespace}._retries.>")
}

/// Where a retry waits for its time.
pub fn retry_scheduled_subject(namespace: &str, service: &str, event_id: &str) -> String {
    format!("autonomy.{namespace}._retries.{service}.scheduled.{event_id}")
}

/// Where a retry arrives when its time has come; `*` as the event id listens to a service's retries.
pub fn retry_due_subject(namespace: &str, service: &str, event_id: &str) -> String {
    format!("autonomy.{namespace}._retries.{service}.due.{event_id}")
}

/// Where the workers of a service agree on when a step may call next. It is beside the services' own subjects, so that it is none of their retries.
pub fn rate_limit_subject(namespace: &str, service: &str, step: &str) -> String {
    format!("autonomy.{namespace}._retries._limits.{service}.{}", routing_token(Some(step)))
}

/// Where a service with a schedule trigger keeps the last moment that was planned.
pub fn schedule_progress_subject(namespace: &str, service: &str) -> String {
    format!("autonomy.{namespace}._retries.{service}.progress")
}

/// CloudEvents `type` of the runs of schedule triggers.
pub const RUN_TYPE: &str = "dev.autonomy.schedule.due";

/// What a service with order per key keeps in the retry stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered<'a> {
    /// That a worker is there.
    Member(&'a str),
    /// Who has a partition, and how far it is.
    Partition(u64),
    /// The event of a key that is tried again: the partition, and the key's hash.
    Head(u64, &'a str),
    /// An event that waits for its key's head: the partition, the key's hash, and its place in the model's stream.
    Follower(u64, &'a str, u64),
    /// An event on its way to become a dead letter: the partition, and its id.
    Dying(u64, &'a str),
}

/// The subject of what a service with order per key keeps.
pub fn ordered_subject(namespace: &str, service: &str, kept: Ordered<'_>) -> String {
    let head = format!("autonomy.{namespace}._retries.{service}");
    match kept {
        Ordered::Member(worker) => format!("{head}.members.{worker}"),
        Ordered::Partition(partition) => format!("{head}.partitions.{partition}"),
        Ordered::Head(partition, key) => format!("{head}.heads.{partition}.{key}"),
        Ordered::Follower(partition, key, sequence) => format!("{head}.followers.{partition}.{key}.{sequence:020}"),
        Ordered::Dying(partition, event_id) => format!("{head}.dying.{partition}.{event_id}"),
    }
}

/// Behind a service's name in the retry stream's subjects: what waits, in whichever way, for its time.
pub const WAITING: [&str; 4] = ["scheduled", "heads", "followers", "dying"];

/// Behind a service's name in the retry stream's subjects: retries and runs whose time has come.
pub const DUE: &str = "due";

/// Behind a service's name in the retry stream's subjects: all that [`Ordered`] has.
pub const ORDERED: [&str; 5] = ["heads", "followers", "dying", "partitions", "members"];

/// A service as CloudEvents `source` and as an actor.
pub fn service_source(namespace: &str, service: &str) -> String {
    format!("/namespaces/{namespace}/microservices/{service}")
}

/// All subjects of a service in the retry stream.
pub fn service_retry_subjects(namespace: &str, service: &str) -> String {
    format!("autonomy.{namespace}._retries.{service}.>")
}

/// A service's subjects of one kind in the retry stream: one of [`WAITING`] and [`ORDERED`], or [`DUE`].
pub fn retry_subjects_of_kind(namespace: &str, service: &str, kind: &str) -> String {
    format!("autonomy.{namespace}._retries.{service}.{kind}.>")
}

/// Whether a subject of the retry stream is that of an event that waits, in whichever way, for its time.
pub fn is_waiting(subject: &str) -> bool {
    subject.split('.').nth(4).is_some_and(|kept| WAITING.contains(&kept))
}

/// Whether a subject of the retry stream is that of a retry or a run whose time has come.
pub fn is_due(subject: &str) -> bool {
    subject.split('.').nth(4) == Some(DUE)
}

/// The stream of a namespace's dead letters.
pub fn dead_letter_stream(namespace: &str) -> String {
    format!("{}_DEAD_LETTERS", namespace.to_uppercase())
}

/// What the dead-letter stream listens to.
pub fn dead_letter_stream_subjects(namespace: &str) -> String {
    format!("autonomy.{namespace}._dead_letters.>")
}

/// The subject of a dead letter.
pub fn dead_letter_subject(namespace: &str, service: &str, event_id: &str) -> String {
    format!("autonomy.{namespace}._dead_letters.{service}.{event_id}")
}

/// The core NATS subject on which a service's workers tell how far a file is loaded; `*` as the service listens to all of the namespace's.
pub fn file_progress_subject(namespace: &str, service: &str) -> String {
    format!("autonomy.{namespace}._files.{service}")
}

/// The header of an event that a person has replayed for a service, so that it takes effect once more: the replay's name.
pub const REPLAY_HEADER: &str = "autonomy-replay";

/// The header of retries and dead letters that carries their [`DeliveryHistory`], as JSON.
pub const HISTORY_HEADER: &str = "autonomy-history";

/// What has happened to an event in a service: kept in the header [`HISTORY_HEADER`] of its retries and of its dead letter, whose other headers
/// and data are the original event's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryHistory {
    /// The service.
    pub service: String,
    /// The subject of the original event.
    pub subject: String,
    /// Every attempt that failed, the oldest first; beyond 50 the middle ones are left out.
    pub attempts: Vec<Attempt>,
    /// How many attempts failed in all.
    pub attempt_count: u32,
}

/// An attempt that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When, RFC 3339 UTC.
    pub at: String,
    /// Why.
    pub error: String,
    /// Whether it may pass.
    pub retryable: bool,
    /// The revision of the service that failed: a hash of its declaration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_sort_as_text_and_come_back() {
        let earlier = Position { commit: 0xFF, index: 9 };
        let later = Position { commit: 0x100, index: 0 };
        assert!(earlier < later);
        assert!(earlier.to_string() < later.to_string());
        assert_eq!(later.to_string().parse(), Ok(later));
        assert!("0-0".parse::<Position>().is_err());
    }

    #[test]
    fn routing_tokens_are_one_token() {
        assert_eq!(routing_token(None), "_");
        assert_eq!(routing_token(Some("on account")), "on%20account");
        assert_eq!(routing_token(Some("a.b>*")), "a%2Eb%3E%2A");
        assert_eq!(routing_token(Some("_")), "%5F");
    }

    #[test]
    fn partitions_stay_what_they_are() {
        // Subjects in stored streams depend on these.
        assert_eq!(partition(""), 1);
        assert_eq!(partition("C-000001"), 10);
        assert_eq!(partition("0b9f6c1e-7d1c-4f5b-9d0a-3f1f0f6f2a10"), 52);
        assert!((0..10_000).map(|n| partition(&n.to_string())).all(|p| p < PARTITIONS));
    }
}
