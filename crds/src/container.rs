//! What a container asks for and may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a container asks for and may use, in Kubernetes' quantities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerResources {
    /// What the scheduler sets aside for it.
    #[serde(default)]
    pub requests: ResourceAmounts,
    /// What it may use at the most.
    #[serde(default)]
    pub limits: ResourceAmounts,
}

/// Amounts of CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceAmounts {
    /// CPU, for example `250m` or `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?m?$"), length(max = 32))]
    pub cpu: Option<String>,
    /// Memory, for example `256Mi` or `1Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"), length(max = 32))]
    pub memory: Option<String>,
}
