//! The kind `MicroService`: business logic that is triggered by changes or by files, and writes objects back.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::reconciled_status;
use crate::container::ContainerResources;
use crate::data_platform::SecretKeyReference;

/// Business logic triggered by changes of objects or by files: caches, steps, retries, dead letters and tickets.
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
    doc = "Business logic triggered by changes of objects or by files: caches, steps, retries, dead letters and tickets.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Workers","type":"integer","jsonPath":".status.readyReplicas"}"#,
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
    /// Logic in any language instead of steps.
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

    /// The entities that this service reads or writes, each as its model and its name.
    pub fn entities(&self) -> BTreeSet<(&str, &str)> {
        let queue = self.trigger.queue.iter().map(|queue| (queue.model.as_str(), queue.entity.as_str()));
        let caches = self.caches.iter().map(|cache| (cache.model.as_str(), cache.entity.as_str()));
        let creates =
            self.steps.iter().filter_map(|step| step.create.as_ref()).map(|create| (create.model.as_str(), create.entity.as_str()));
        let patches = self.steps.iter().filter_map(|step| step.patch.as_ref()).map(|patch| (patch.model.as_str(), patch.entity.as_str()));
        queue.chain(caches).chain(creates).chain(patches).collect()
    }

    /// The names of the DataModels that this service reads or writes.
    pub fn models(&self) -> BTreeSet<&str> {
        self.entities().into_iter().map(|(model, _)| model).collect()
    }

    /// The Secrets' keys that `http` steps read.
    pub fn secret_keys(&self) -> impl Iterator<Item = &SecretKeyReference> {
        self.steps.iter().filter_map(|step| step.http.as_ref()).filter_map(|http| http.bearer_token_from.as_ref())
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
}

reconciled_status!(MicroServiceStatus);

/// What makes a service run: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.queue) != has(self.files)", "a trigger has exactly one of queue and files"))]
pub struct Trigger {
    /// Changes of objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueTrigger>,
    /// Files that arrive in a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesTrigger>,
}

/// Changes of an entity's objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
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
    /// Hands the steps several events at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchWindow>,
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

/// Files that arrive in a directory. A file is taken when it has not grown for `settle` (and has its trailer, where one is declared), is loaded
/// once whatever it is called, and is moved to `processed/` or `rejected/` beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilesTrigger {
    /// The directory. A relative one is below the worker's files folder.
    #[schemars(length(min = 1, max = 1024))]
    pub directory: String,
    /// The PersistentVolumeClaim that is the worker's files folder in a cluster; it must be writable. Left out in `autonomy local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub volume_claim: Option<String>,
    /// Which files, as a glob on the file's name, for example `sales-*.csv`.
    #[serde(default = "all_files")]
    #[schemars(length(min = 1, max = 256))]
    pub pattern: String,
    /// How the file is written.
    #[serde(default)]
    pub csv: CsvFormat,
    /// How long a file must not have changed before it is taken, as a Go duration.
    #[serde(default = "default_settle")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub settle: String,
    /// How long a file without its trailer may stay unchanged before it is rejected as cut short.
    #[serde(default = "default_incomplete_after")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub incomplete_after: String,
    /// Rows in a row with the same value of this column form one record: the steps run once a record, with the first row under `row` and
    /// all under `rows`. Without it each row is a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub group_by: Option<String>,
    /// How many records go into one API request at the most.
    #[serde(default = "default_records_per_request")]
    #[schemars(range(min = 1, max = 5000))]
    pub records_per_request: u32,
}

fn all_files() -> String {
    "*".to_owned()
}

fn default_settle() -> String {
    "1s".to_owned()
}

fn default_incomplete_after() -> String {
    "5m".to_owned()
}

fn default_records_per_request() -> u32 {
    500
}

/// A CSV file with a header row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CsvFormat {
    /// The character between fields.
    #[serde(default = "comma")]
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: String,
    /// The first field of the file's last row, whose second field is the number of data rows, for example `#END`. A file without it is
    /// not complete and is not loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub trailer: Option<String>,
}

fn comma() -> String {
    ",".to_owned()
}

impl Default for CsvFormat {
    fn default() -> Self {
        Self { delimiter: comma(), trailer: None }
    }
}

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
    /// A CEL expression over `object`; only where it is true the object is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub filter: Option<String>,
}

/// One step of a service's logic: exactly one of `lookup`, `http`, `create`, `patch`, `fail` and `set`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("[has(self.lookup), has(self.http), has(self.create), has(self.patch), has(self.fail), has(self.set), has(self.stop)].filter(x, x).size() == 1", "a step has exactly one of lookup, http, create, patch, set, fail and stop"))]
pub struct Step {
    /// Name in camelCase; a lookup's, call's or set's outcome is found under it by later expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub name: Option<String>,
    /// A CEL expression; the step runs only where it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub when: Option<String>,
    /// Finds an object in a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<LookupStep>,
    /// Calls a web service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpStep>,
    /// Creates an object (or one for each element of a list).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<CreateStep>,
    /// Patches an object (or one for each element of a list).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<PatchStep>,
    /// Computes a value; a CEL expression whose outcome is found under the step's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub set: Option<String>,
    /// Fails the event (with `when`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<FailStep>,
    /// Ends the steps (with `when`); what was created and patched so far is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopStep>,
}

impl Step {
    /// Whether it has exactly one action, as each step must.
    pub fn has_one_action(&self) -> bool {
        let actions = [
            self.lookup.is_some(),
            self.http.is_some(),
            self.create.is_some(),
            self.patch.is_some(),
            self.set.is_some(),
            self.fail.is_some(),
            self.stop.is_some(),
        ];
        actions.into_iter().filter(|given| *given).count() == 1
    }
}

/// Finds an object in a cache; the outcome is the object, or null. Where the key is a list, the outcome is a list: an object or null for each key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LookupStep {
    /// The name of the cache.
    #[schemars(length(min = 1, max = 40))]
    pub cache: String,
    /// The member to look up by: `id` or one of the cache's indexes.
    #[serde(default = "id_member")]
    #[schemars(length(min = 1, max = 64))]
    pub by: String,
    /// The value, in CEL. Null finds nothing.
    #[schemars(length(min = 1, max = 16384))]
    pub key: String,
    /// What to do where nothing is found: `continue` with null (the default), or `fail`, not to be tried again.
    #[serde(default)]
    pub on_missing: OnMissing,
}

fn id_member() -> String {
    "id".to_owned()
}

/// What a lookup does that finds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnMissing {
    /// The outcome is null.
    #[default]
    Continue,
    /// The event fails and is not tried again.
    Fail,
}

/// Calls a web service. The outcome has `status` (integer), `headers` and `body` (parsed JSON, or text). 408, 425, 429, 5xx and network faults
/// are tried again (Retry-After is kept to); any other status that is not expected fails the event for good.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpStep {
    /// The method; POST where left out.
    #[serde(default = "post")]
    #[schemars(length(min = 1, max = 16))]
    pub method: String,
    /// The URL, in CEL.
    #[schemars(length(min = 1, max = 16384))]
    pub url: String,
    /// Headers: names and CEL expressions. An `Idempotency-Key` from the service, the event and the step is always sent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = serde_json::json!({"type": "string", "minLength": 1, "maxLength": 16384})))]
    pub headers: BTreeMap<String, String>,
    /// The body, in CEL; sent as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub body: Option<String>,
    /// Statuses that are a success; any 2xx where left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 100, max = 599)))]
    pub expect: Vec<u16>,
    /// How long the whole call may take, as a Go duration.
    #[serde(default = "default_timeout")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub timeout: String,
    /// The Authorization header's bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_from: Option<SecretKeyReference>,
}

fn post() -> String {
    "POST".to_owned()
}

fn default_timeout() -> String {
    "10s".to_owned()
}

/// Creates an object in the event's transaction. The outcome has the new object's `id`, so that later steps can refer to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateStep {
    /// The name of the entity's DataModel.
    #[schemars(length(min = 1, max = 40))]
    pub model: String,
    /// The entity's name, in PascalCase.
    #[schemars(length(min = 1, max = 48))]
    pub entity: String,
    /// A list, in CEL; one object is created for each element, which `object` finds under `item`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub for_each: Option<String>,
    /// The object: members and their CEL expressions.
    #[schemars(extend("maxProperties" = 512, "additionalProperties" = serde_json::json!({"type": "string", "minLength": 1, "maxLength": 16384})))]
    pub object: BTreeMap<String, String>,
    /// What to do where an object with the same natural key is there.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// What a create does where an object with the same natural key is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnConflict {
    /// The event fails and is not tried again.
    #[default]
    Error,
    /// The object that is there stays as it is.
    Ignore,
    /// The object that is there takes the new values.
    Update,
}

/// Patches an object in the event's transaction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchStep {
    /// The name of the entity's DataModel.
    #[schemars(length(min = 1, max = 40))]
    pub model: String,
    /// The entity's name, in PascalCase.
    #[schemars(length(min = 1, max = 48))]
    pub entity: String,
    /// A list, in CEL; one object is patched for each element, which the other expressions find under `item`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub for_each: Option<String>,
    /// The object's id, in CEL.
    #[schemars(length(min = 1, max = 16384))]
    pub id: String,
    /// The members to change and their CEL expressions.
    #[schemars(extend("maxProperties" = 512, "additionalProperties" = serde_json::json!({"type": "string", "minLength": 1, "maxLength": 16384})))]
    pub object: BTreeMap<String, String>,
    /// Members and the values (in CEL) that they must have; otherwise the event fails and is not tried again.
    #[serde(default, rename = "if", skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256, "additionalProperties" = serde_json::json!({"type": "string", "minLength": 1, "maxLength": 16384})))]
    pub precondition: BTreeMap<String, String>,
}

/// Fails the event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailStep {
    /// Why, in CEL; a string.
    #[schemars(length(min = 1, max = 16384))]
    pub reason: String,
    /// Whether it may pass and should be tried again.
    #[serde(default)]
    pub retryable: bool,
}

/// Ends the steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopStep {}

/// How failures that may pass are tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// How often an event is tried in all before it becomes a dead letter.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: u32,
    /// The wait after the first attempt; it doubles with each further one, with jitter.
    #[serde(default = "default_initial_backoff")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub initial_backoff: String,
    /// The longest wait.
    #[serde(default = "default_max_backoff")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub max_backoff: String,
    /// How long after its first failed attempt an event may still be tried, as a Go duration; then it becomes a dead letter, however many
    /// attempts are left. Without it only `maxAttempts` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub max_age: Option<String>,
}

fn default_attempts() -> u32 {
    20
}

fn default_initial_backoff() -> String {
    "500ms".to_owned()
}

fn default_max_backoff() -> String {
    "5m".to_owned()
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: default_attempts(),
            initial_backoff: default_initial_backoff(),
            max_backoff: default_max_backoff(),
            max_age: None,
        }
    }
}

/// What happens to events that can't be handled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLetter {
    /// A web service that gets a ticket for each dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Ticket>,
}

/// A ticket by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ticket {
    /// The URL, in CEL over `config`.
    #[schemars(length(min = 1, max = 16384))]
    pub url: String,
    /// The body, in CEL over `config`, `service`, `event`, `object` and `error`; without it a plain summary is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub body: Option<String>,
    /// A CEL expression over the same; dead letters with equal values share a ticket, for example all with the same `error`. Without it each
    /// has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub group_by: Option<String>,
    /// How often dead letters of a group make a ticket anew, as a Go duration.
    #[serde(default = "default_ticket_interval")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub interval: String,
}

fn default_ticket_interval() -> String {
    "1h".to_owned()
}

/// How many workers there are and how much each does at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scaling {
    /// How many workers.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: u32,
    /// How many events a worker handles at the same time.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 4096))]
    pub concurrency: u32,
    /// Starts and ends workers with the events that wait, by KEDA, also down to none. Where KEDA is not installed there are always `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<WorkerAutoscaling>,
    /// What a worker pod asks for and may use.
    #[serde(default)]
    pub resources: ContainerResources,
}

/// Starts and ends workers with the events that wait, by KEDA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("self.minReplicas <= self.maxReplicas", "minReplicas must not be more than maxReplicas"))]
pub struct WorkerAutoscaling {
    /// The fewest workers; 0 ends the last one when nothing waits.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: u32,
    /// The most workers.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,
    /// How many waiting events (retries too) ask for one worker.
    #[serde(default = "default_events_per_worker")]
    #[schemars(range(min = 1, max = 10000000))]
    pub events_per_worker: u32,
    /// How long nothing must wait before the last worker is ended, in seconds.
    #[serde(default = "default_cooldown")]
    #[schemars(range(min = 1, max = 86400))]
    pub cooldown_seconds: u32,
}

fn default_events_per_worker() -> u32 {
    1000
}

fn default_cooldown() -> u32 {
    60
}

/// Logic in any language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Handler {
    /// A container beside the worker, called over HTTP.
    pub http: HttpHandler,
}

/// A container in the worker's pod that gets each event as a CloudEvent over HTTP and answers with what is to be written.
///
/// An event comes as `POST` in CloudEvents' binary mode (headers `ce-id`, `ce-type` and so on; the body is the object, of an update with a member `before`); the
/// events of a batch window come in JSON batch mode. A 2xx answer has no body, or `{"operations": [...]}` as `/api/transactions` takes them: they become one
/// transaction with the event's idempotency key. 408, 425, 429 and 5xx are tried again (Retry-After is kept to); any other status makes a dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHandler {
    /// The container's image. In `autonomy local` nothing is started: whatever listens on the port is called.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// The container's command, in place of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 4096)))]
    pub args: Vec<String>,
    /// Its environment variables, beside those of `environmentFrom`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256, "additionalProperties" = serde_json::json!({"type": "string", "maxLength": 4096})))]
    pub environment: BTreeMap<String, String>,
    /// The port that it listens on, on localhost.
    #[serde(default = "default_handler_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The path that events are posted to.
    #[serde(default = "default_handler_path")]
    #[schemars(regex(pattern = r"^/[-A-Za-z0-9._~/]*$"), length(max = 1024))]
    pub path: String,
    /// How long an answer may take, as a Go duration.
    #[serde(default = "default_timeout")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub timeout: String,
    /// What the container asks for and may use.
    #[serde(default)]
    pub resources: ContainerResources,
}

fn default_handler_port() -> u16 {
    8000
}

fn default_handler_path() -> String {
    "/".to_owned()
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

fn one() -> u32 {
    1
}

fn default_concurrency() -> u32 {
    64
}

impl Default for Scaling {
    fn default() -> Self {
        Self { replicas: one(), concurrency: default_concurrency(), autoscaling: None, resources: ContainerResources::default() }
    }
}
