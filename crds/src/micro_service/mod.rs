//! The kind `MicroService`: business logic that is triggered by changes, by files or by time, and writes objects back.

mod delivery;
mod document;
mod file_format;
mod files;
mod handler;
mod http;
mod nested_steps;
mod scaling;
mod schedule;
mod status;
mod step;
mod trigger;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::reconciled_status;
use crate::data_platform::SecretKeyReference;

pub use delivery::{DeadLetter, Retry, Ticket};
pub use document::{Alignment, CsvDocument, Document, DocumentColumn, DocumentField, FixedWidthDocument, JsonDocument, PutObjectStep};
pub use file_format::{
    CsvFormat, FileFormat, FixedWidthField, FixedWidthFormat, FixedWidthType, JsonFormat, NdjsonFormat, RecordType, SkippedRecords,
    XmlFormat,
};
pub use files::{FilesTrigger, S3Location};
pub use handler::{EmbeddedHandler, Handler, HttpHandler};
pub use http::{
    BasicCredentials, BodyTemplate, BulkCall, CallLog, CircuitBreaker, ClientAuthentication, ClientCertificate, ClientTls, HttpStep,
    OAuth2ClientCredentials, RateLimit, TemplateEscape,
};
pub use nested_steps::{Branch, ForEachStep, STEP_LEVELS, every_step};
pub use scaling::{Scaling, WorkerAutoscaling};
pub use schedule::ScheduleTrigger;
pub use status::{FileProgress, FileState, LastError};
pub use step::{CreateStep, FailStep, GroupStep, LookupStep, OnConflict, OnMissing, PatchStep, Step, StopStep};
pub use trigger::{BatchWindow, Operation, Order, QueueTrigger, Trigger};

/// Business logic triggered by changes of objects, by files or by time: caches, steps, retries, dead letters and tickets.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autonomy.dev",
    version = "v1alpha1",
    kind = "MicroService",
    plural = "microservices",
    shortname = "ms",
    category = "autonomy",
    namespaced,
    derive = "PartialEq",
    status = "MicroServiceStatus",
    doc = "Business logic triggered by changes of objects, by files or by time: caches, steps, retries, dead letters and tickets.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Workers","type":"integer","jsonPath":".status.readyReplicas"}"#,
    printcolumn = r#"{"name":"Lag","type":"integer","jsonPath":".status.lag"}"#,
    printcolumn = r#"{"name":"Dead","type":"integer","jsonPath":".status.deadLetters"}"#,
    printcolumn = r#"{"name":"Suspended","type":"boolean","jsonPath":".spec.suspend"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    validation = ("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40", "metadata.name must be a DNS label of at most 40 characters that begins with a letter")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.steps) != has(self.handler)", "a service has either steps or a handler"))]
pub struct MicroServiceSpec {
    /// The DataPlatform in this namespace that this service works on; `default` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub platform: Option<String>,
    /// What this service does for the business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
    /// What makes the service run.
    pub trigger: Trigger,
    /// Objects held in memory, in sync with the stream, for `lookup` steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub caches: Vec<Cache>,
    /// Values that expressions find under `config`, for example addresses and account numbers. `${env:NAME}` in a value takes an
    /// environment variable of the worker.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256, "additionalProperties" = serde_json::json!({"type": "string", "maxLength": 4096})))]
    pub config: BTreeMap<String, String>,
    /// ConfigMaps and Secrets of the same namespace whose entries are environment variables of the worker, for `${env:NAME}` in `config`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub environment_from: Vec<EnvironmentSource>,
    /// What is done for each event, row or group, in order. Instead of steps there may be a `handler`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    pub steps: Vec<Step>,
    /// Logic in any language, in place of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<Handler>,
    /// How failures that may pass are tried again.
    #[serde(default)]
    pub retry: Retry,
    /// What happens to events that can't be handled.
    #[serde(default)]
    pub dead_letter: DeadLetter,
    /// How many workers there are and how much each does at a time.
    #[serde(default)]
    pub scaling: Scaling,
    /// While true, nothing is handled; events wait in the stream.
    #[serde(default)]
    pub suspend: bool,
}

impl MicroServiceSpec {
    /// The name of the DataPlatform that this service works on.
    pub fn platform(&self) -> &str {
        self.platform.as_deref().unwrap_or(crate::DEFAULT_PLATFORM)
    }

    /// Whether its events are handled in order per key.
    pub fn is_ordered_by_key(&self) -> bool {
        self.trigger.queue.as_ref().is_some_and(|queue| queue.order == Order::PerKey)
    }

    /// The entities that this service reads or writes, each as its model and its name.
    pub fn entities(&self) -> BTreeSet<(&str, &str)> {
        let queue = self.trigger.queue.iter().map(|queue| (queue.model.as_str(), queue.entity.as_str()));
        let caches = self.caches.iter().map(|cache| (cache.model.as_str(), cache.entity.as_str()));
        let written = every_step(&self.steps, "").into_iter().flat_map(|(_, step)| {
            let create = step.create.iter().map(|create| (create.model.as_str(), create.entity.as_str()));
            create.chain(step.patch.iter().map(|patch| (patch.model.as_str(), patch.entity.as_str())))
        });
        queue.chain(caches).chain(written).collect()
    }

    /// The container beside the worker that has the logic, where there is one.
    pub fn http_handler(&self) -> Option<&HttpHandler> {
        self.handler.as_ref()?.http.as_ref()
    }

    /// Whether the logic is in the worker's own program.
    pub fn has_embedded_logic(&self) -> bool {
        self.handler.as_ref().is_some_and(|handler| handler.embedded.is_some())
    }

    /// The names of the DataModels that this service reads or writes.
    pub fn models(&self) -> BTreeSet<&str> {
        self.entities().into_iter().map(|(model, _)| model).collect()
    }

    /// The Secrets' keys that the service reads, each with its field's path.
    pub fn secret_keys(&self) -> impl Iterator<Item = (String, &SecretKeyReference)> {
        let s3 = self.trigger.files.as_ref().and_then(|files| files.s3.as_ref());
        let s3 = s3.into_iter().flat_map(|s3| s3.secret_keys().map(|(path, key)| (format!("spec.trigger.files.s3.{path}"), key)));
        let steps = every_step(&self.steps, "spec.steps");
        let calls = steps.clone().into_iter().filter_map(|(path, step)| Some((path, step.http.as_ref()?)));
        let calls = calls.flat_map(|(step, http)| http.secret_keys().map(move |(path, key)| (format!("{step}.http.{path}"), key)));
        let puts = steps.into_iter().filter_map(|(path, step)| Some((path, step.put_object.as_ref()?)));
        let puts = puts.flat_map(|(step, put)| put.s3.secret_keys().map(move |(path, key)| (format!("{step}.putObject.s3.{path}"), key)));
        s3.chain(calls).chain(puts)
    }
}

/// What the operator last saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MicroServiceStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling` and `Stalled`, after kstatus. What each reason means is in docs/operations.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many workers are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// How many workers are wanted now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many events wait: not delivered, in hand, or to be tried again. Of a files trigger on a bucket, how many files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// How many dead letters wait for somebody to decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<i64>,
    /// The newest failure that was seen; it stays when the event has succeeded since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// How far the file is loaded that was last worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileProgress>,
}

reconciled_status!(MicroServiceStatus);

/// Objects of an entity held in memory, in sync with the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cache {
    /// Name in camelCase, used by `lookup` steps and by `cache.<name>` in metrics.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// The name of the entity's DataModel.
    #[schemars(length(min = 1, max = 40))]
    pub model: String,
    /// The entity's name, in PascalCase.
    #[schemars(length(min = 1, max = 48))]
    pub entity: String,
    /// The members held (camelCase); all where left out. `id` is always held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 64)))]
    pub fields: Vec<String>,
    /// Members by which objects can be looked up, beside `id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)))]
    pub indexes: Vec<String>,
    /// Other ways in which objects can be looked up: by several members, by a member however it is written, by a value that is worked out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub named_indexes: Vec<NamedIndex>,
    /// A CEL expression over `object`; only where it is true the object is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub filter: Option<String>,
}

/// A way in which a cache's objects can be looked up: exactly one of `members` and `key`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.members) != has(self.key)", "an index has exactly one of members and key"))]
pub struct NamedIndex {
    /// Name in camelCase, for `lookup.by`.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// The members that it is over. By several an object is looked up that has them all, for example
    /// `{'storeId': row.store, 'number': row.number}`; an object that has no value for one of them is not found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 64)))]
    pub members: Vec<String>,
    /// Makes the members, and what they are looked up by, alike before they are compared; for strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalization>,
    /// For `normalize: phone`: the calling code of numbers that have none, for example `31`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[1-9][0-9]{0,2}$"), length(max = 3))]
    pub calling_code: Option<String>,
    /// A CEL expression over `object`, whose value is what the object is looked up by; an object for which it is null is not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub key: Option<String>,
}

/// How strings are made alike before they are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Normalization {
    /// Without blanks around.
    Trim,
    /// In lower case, without blanks around.
    Lowercase,
    /// As an address of electronic mail: as `lowercase`.
    Email,
    /// As a telephone number after E.164: `+31201234567`, however it is written.
    Phone,
}

/// A ConfigMap or a Secret of the same namespace: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.configMap) != has(self.secret)", "name exactly one of configMap and secret"))]
pub struct EnvironmentSource {
    /// The ConfigMap's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map: Option<String>,
    /// The Secret's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret: Option<String>,
}
