//! How many workers there are and how much each does at a time.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::container::ContainerResources;

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
    /// Starts and ends workers with the events or files that wait, by KEDA, also down to none. Where KEDA is not installed there are `replicas`
    /// workers, and where `minReplicas` is 0 only while something waits. The first one is started as soon as something comes. What waits in a
    /// directory is seen by nobody but the worker, so there are always `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<WorkerAutoscaling>,
    /// What a worker pod asks for and may use.
    #[serde(default)]
    pub resources: ContainerResources,
}

/// Starts and ends workers with the events or files that wait.
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
    /// How many waiting events (retries too) or files ask for one worker.
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
