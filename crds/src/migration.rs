//! The kind `Migration`: how a DataModel's schema came, or is to come, from one revision to the next.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::reconciled_status;

/// How a DataModel's schema comes from one revision to the next: made by the operator, never by hand.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "autonomy.dev",
    version = "v1alpha1",
    kind = "Migration",
    plural = "migrations",
    shortname = "mig",
    category = "autonomy",
    namespaced,
    derive = "PartialEq",
    status = "MigrationStatus",
    doc = "How a DataModel's schema comes from one revision to the next: made by the operator, never by hand.",
    printcolumn = r#"{"name":"Model","type":"string","jsonPath":".spec.dataModel"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Hazardous","type":"boolean","jsonPath":".spec.hazardous"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"SHA256","type":"string","priority":1,"jsonPath":".spec.sha256"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
    validation = ("self.spec == oldSelf.spec", "a Migration's spec does not change: the operator makes a new one for a new plan")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigrationSpec {
    /// The DataModel.
    #[schemars(length(min = 1, max = 40))]
    pub data_model: String,
    /// The revision that the plan starts from; 0 where the model is new.
    #[schemars(range(min = 0))]
    pub from_revision: i64,
    /// The sha256 of the plan's SQL. A hazardous plan runs when `spec.migrations.approved` of the DataModel names it.
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"), length(max = 64))]
    pub sha256: String,
    /// Whether a step is hazardous, so that the plan waits for approval.
    pub hazardous: bool,
    /// The plan's steps, in the order in which they run.
    #[schemars(length(max = 100000))]
    pub steps: Vec<MigrationStep>,
}

/// A step of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigrationStep {
    /// When it runs.
    pub phase: MigrationPhase,
    /// The exact SQL.
    #[schemars(length(max = 1000), inner(length(max = 1000000)))]
    pub sql: Vec<String>,
    /// What is dangerous about it; nothing where it is safe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub hazards: Vec<MigrationHazard>,
}

/// When a step runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationPhase {
    /// In a transaction of its own before all others.
    Before,
    /// In the one transaction in which the model's new revision begins to be served.
    #[default]
    Together,
    /// After that transaction, without blocking readers or writers.
    After,
}

/// What is dangerous about a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigrationHazard {
    /// What kind of danger it is.
    pub class: MigrationHazardClass,
    /// The reason, for a person.
    #[schemars(length(max = 4096))]
    pub reason: String,
}

/// A class of hazard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationHazardClass {
    /// Data is lost.
    #[default]
    LosesData,
    /// It fails where the data there does not meet it.
    MayFail,
    /// Readers or writers wait while a large table is read or rewritten.
    MayBlock,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling` and `Stalled`, after kstatus. What each reason means is in docs/operations.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<MigrationState>,
    /// When it was applied, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_at: Option<String>,
    /// The revision that it led to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
}

reconciled_status!(MigrationStatus);

/// What became of a Migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationState {
    /// It is to run.
    Pending,
    /// It is hazardous and waits for approval.
    WaitingForApproval,
    /// It has run.
    Applied,
    /// PostgreSQL refused it; nothing has changed, and it is tried again.
    Failed,
    /// Another plan took its place before it ran.
    Superseded,
}
