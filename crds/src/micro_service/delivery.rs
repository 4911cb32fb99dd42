//! What becomes of events that fail: retries, dead letters, tickets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
