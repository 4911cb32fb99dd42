//! What the `status` of every kind has alike: conditions after kstatus.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The condition that says whether everything is as the spec wants it.
pub const READY: &str = "Ready";
/// The condition that is there while the operator still works on it, or waits for something that may come.
pub const RECONCILING: &str = "Reconciling";
/// The condition that is there while nothing goes on until somebody changes something.
pub const STALLED: &str = "Stalled";

/// A status with conditions, as every kind has it.
pub trait ReconciledStatus: Clone + Default + PartialEq {
    /// The generation of the spec that the status speaks of, and its conditions.
    fn standing(&self) -> (Option<i64>, &[Condition]);
    /// Sets both.
    fn set_standing(&mut self, observed_generation: Option<i64>, conditions: Vec<Condition>);
}

macro_rules! reconciled_status {
    ($status:ty) => {
        impl $crate::condition::ReconciledStatus for $status {
            fn standing(&self) -> (Option<i64>, &[Condition]) {
                (self.observed_generation, &self.conditions)
            }

            fn set_standing(&mut self, observed_generation: Option<i64>, conditions: Vec<Condition>) {
                self.observed_generation = observed_generation;
                self.conditions = conditions;
            }
        }
    };
}
pub(crate) use reconciled_status;

/// What becomes of what lies outside the cluster when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Tables and streams stay (the default: deleting a resource never deletes data).
    #[default]
    Retain,
    /// Tables and streams are deleted with the resource.
    Delete,
}
