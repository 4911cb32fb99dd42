//! Declared logic, step by step.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nested_steps::{branches, for_each};
use super::{Branch, ForEachStep, HttpStep, PutObjectStep};

/// One step of a service's logic: exactly one of `lookup`, `http`, `putObject`, `create`, `patch`, `group`, `choose`, `forEach`, `set`, `fail` and `stop`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("[has(self.lookup), has(self.http), has(self.putObject), has(self.create), has(self.patch), has(self.group), has(self.choose), has(self.forEach), has(self.set), has(self.fail), has(self.stop)].filter(x, x).size() == 1", "a step has exactly one of lookup, http, putObject, create, patch, group, choose, forEach, set, fail and stop"))]
pub struct Step {
    /// Name in camelCase; the step's outcome is found under it by later expressions.
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
    /// Puts a document into a bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_object: Option<PutObjectStep>,
    /// Creates an object (or one for each element of a list).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<CreateStep>,
    /// Patches an object (or one for each element of a list).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<PatchStep>,
    /// Groups a list, with sums, counts and the like of each group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupStep>,
    /// Runs the steps of the first branch whose `when` is true; the last branch may leave `when` out and is taken where no other is. The outcome
    /// has the outcomes of the named steps of the branch, and null for those of the others. Steps within it are inside steps two levels deep at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "branches")]
    pub choose: Option<Vec<Branch>>,
    /// Runs steps for each element of a list. The outcome is a list with, for each element, the outcomes of the named steps. Steps within it are
    /// inside steps two levels deep at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "for_each")]
    pub for_each: Option<ForEachStep>,
    /// Computes a value; a CEL expression whose outcome is found under the step's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub set: Option<String>,
    /// Fails the event (with `when`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<FailStep>,
    /// Ends all steps of the service for this event (with `when`), also from within `choose` and `forEach`; what was created and patched so far
    /// is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopStep>,
}

impl Step {
    /// What a step has exactly one of.
    pub const ONE_ACTION: &'static str =
        "a step has exactly one of lookup, http, putObject, create, patch, group, choose, forEach, set, fail and stop";

    /// Whether it has exactly one action, as each step must.
    pub fn has_one_action(&self) -> bool {
        let actions = [
            self.lookup.is_some(),
            self.http.is_some(),
            self.put_object.is_some(),
            self.create.is_some(),
            self.patch.is_some(),
            self.group.is_some(),
            self.choose.is_some(),
            self.for_each.is_some(),
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
    /// What to look up by: `id`, one of the cache's `indexes`, or the name of one of its `namedIndexes`.
    #[serde(default = "id_member")]
    #[schemars(length(min = 1, max = 64))]
    pub by: String,
    /// The value, in CEL; an object for an index over several members. Null finds nothing.
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
    /// How long to wait before it is tried again, in CEL: a duration, for example `duration('5m')`. `retry` decides where it is left out or
    /// null, and `retry.maxBackoff` is the most. Only with `retryable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub after: Option<String>,
}

/// Groups a list. The outcome is a list of groups in the order of their first elements: each an object with `key`, `items` and the `values` declared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupStep {
    /// The list, in CEL; for example `objects` of a batch.
    #[schemars(length(min = 1, max = 16384))]
    pub list: String,
    /// What the elements of a group have in common, in CEL over `item`; an object for several things at once.
    #[schemars(length(min = 1, max = 16384))]
    pub by: String,
    /// What is known of each group: names in camelCase and CEL expressions over `key` and `items`, for example
    /// `total: sum(items.map(i, i.amount))`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = serde_json::json!({"type": "string", "minLength": 1, "maxLength": 16384})))]
    pub values: BTreeMap<String, String>,
}

/// Ends the steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopStep {}
