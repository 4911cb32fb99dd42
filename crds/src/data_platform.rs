//! The kind `DataPlatform`: where data lives.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::{DeletionPolicy, reconciled_status};
use crate::container::ContainerResources;

/// Where the data of a namespace's DataModels lives: one PostgreSQL database, one NATS system, one object API.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autonomy.dev",
    version = "v1alpha1",
    kind = "DataPlatform",
    plural = "dataplatforms",
    shortname = "dp",
    category = "autonomy",
    namespaced,
    derive = "PartialEq",
    status = "DataPlatformStatus",
    doc = "Where the data of a namespace's DataModels lives: one PostgreSQL database, one NATS system, one object API.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"API","type":"string","jsonPath":".status.apiUrl"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    validation = ("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40", "metadata.name must be a DNS label of at most 40 characters that begins with a letter")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataPlatformSpec {
    /// The PostgreSQL database. Left out in `autonomy local`, which starts one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgresql: Option<PostgresqlConnection>,
    /// The NATS system. Left out in `autonomy local`, which starts one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsConnection>,
    /// How the object API is served.
    #[serde(default)]
    pub api: ApiSettings,
    /// The relay, which publishes every committed change.
    #[serde(default)]
    pub relay: RelaySettings,
    /// Defaults for the streams of this platform's DataModels.
    #[serde(default)]
    pub events: EventSettings,
    /// What the platform's processes tell of themselves, beside their metrics and logs.
    #[serde(default)]
    pub telemetry: TelemetrySettings,
    /// What happens to the platform's own tables, roles and streams when this resource is deleted. The database itself, and models that are
    /// still declared, always stay.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// While true, the operator leaves everything as it is.
    #[serde(default)]
    pub suspend: bool,
}

/// What the platform's processes tell of themselves, beside their metrics and logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Where traces of the object API and of all services are sent by OTLP (http/protobuf), for example
    /// `http://opentelemetry-collector.monitoring:4318`. Where left out, none are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://"), length(max = 1024))]
    pub otlp_endpoint: Option<String>,
    /// How many in a hundred of the traces that begin in the platform are recorded. Of a trace that begins elsewhere, whoever began it decides.
    #[serde(default = "default_trace_percentage")]
    #[schemars(range(min = 0, max = 100))]
    pub trace_percentage: u32,
}

fn default_trace_percentage() -> u32 {
    100
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { otlp_endpoint: None, trace_percentage: default_trace_percentage() }
    }
}

/// What the operator last saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataPlatformStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling` and `Stalled`, after kstatus. What each reason means is in docs/operations.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Where the object API is served within the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
}

reconciled_status!(DataPlatformStatus);

/// A PostgreSQL database, and the Secret that opens it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresqlConnection {
    /// Where to read the connection URL (`postgres://user:password@host:port/database`).
    pub url_from: SecretKeyReference,
    /// The most WAL, in MiB, that the relay's replication slot may hold back before PostgreSQL gives the slot up and the
    /// relay repairs its streams from a snapshot.
    #[serde(default = "default_slot_limit")]
    #[schemars(range(min = 64))]
    pub max_slot_wal_keep_mebibytes: u32,
}

fn default_slot_limit() -> u32 {
    4096
}

/// A NATS system with JetStream, and the Secret that opens it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("self.persistMode != 'Async' || self.replicas == 1", "streams of several replicas can't have persistMode Async"))]
#[x_kube(validation = ("self.persistMode == oldSelf.persistMode", "NATS can't change the persist mode of a stream that is there"))]
pub struct NatsConnection {
    /// Where to read the connection URL (`nats://user:password@host:port`).
    pub url_from: SecretKeyReference,
    /// Where to read the connection URL of a user that may only read streams, with which the API serves subscriptions to events; `urlFrom`
    /// where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_url_from: Option<SecretKeyReference>,
    /// The servers' `sync_interval`, as a Go duration. The relay counts an event as kept only when it is that old, since a NATS
    /// server acknowledges before it syncs.
    #[serde(default = "default_sync_interval")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub sync_interval: String,
    /// How many servers hold each stream.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: u8,
    /// When NATS writes events to a model's stream: before it acknowledges them (`Default`), or some milliseconds later (`Async`), which takes up to a
    /// third less of its processor time. Either way the relay sends again what a server lost before it synced. NATS can't change it of a stream
    /// that is there.
    #[serde(default)]
    pub persist_mode: PersistMode,
}

/// When NATS writes events to a stream's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PersistMode {
    /// Before it acknowledges them.
    #[default]
    Default,
    /// Some milliseconds later; for one replica.
    Async,
}

fn default_sync_interval() -> String {
    "2m".to_owned()
}

fn default_replicas() -> u8 {
    1
}

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// The key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// How the object API is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiSettings {
    /// How many API pods there are at least.
    #[serde(default = "default_api_replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: u32,
    /// The largest request body in MiB.
    #[serde(default = "default_body_limit")]
    #[schemars(range(min = 1, max = 65536))]
    pub max_body_mebibytes: u32,
    /// Adds API pods under load; without it there are always `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<ApiAutoscaling>,
    /// What an API pod asks for and may use.
    #[serde(default)]
    pub resources: ContainerResources,
}

/// Adds API pods under load, by a HorizontalPodAutoscaler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiAutoscaling {
    /// How many API pods there are at most; `replicas` is the least.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,
    /// How much of the requested CPU, in percent, the pods use on average before another one is added.
    #[serde(default = "default_cpu_target")]
    #[schemars(range(min = 1, max = 1000))]
    pub target_cpu_utilization_percentage: u32,
}

fn default_cpu_target() -> u32 {
    70
}

/// The relay, which publishes every committed change. One pod works; further ones wait to take over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelaySettings {
    /// How many relay pods there are: one works, the others take over at once when it is gone.
    #[serde(default = "default_relay_replicas")]
    #[schemars(range(min = 0, max = 5))]
    pub replicas: u32,
    /// What a relay pod asks for and may use.
    #[serde(default)]
    pub resources: ContainerResources,
}

fn default_relay_replicas() -> u32 {
    1
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self { replicas: default_relay_replicas(), resources: ContainerResources::default() }
    }
}

fn default_api_replicas() -> u32 {
    2
}

fn default_body_limit() -> u32 {
    64
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            replicas: default_api_replicas(),
            max_body_mebibytes: default_body_limit(),
            autoscaling: None,
            resources: ContainerResources::default(),
        }
    }
}

/// Defaults for the streams of a platform's DataModels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventSettings {
    /// How many days events are kept; for ever where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub retention_days: Option<u32>,
}
