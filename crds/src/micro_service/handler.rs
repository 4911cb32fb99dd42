//! Logic in any language: in a container beside the worker, or in Rust within it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http::default_timeout;
use crate::container::ContainerResources;

/// Logic in any language: exactly one of the fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.http) != has(self.embedded)", "a handler is exactly one of http and embedded"))]
pub struct Handler {
    /// A container beside the worker, called over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpHandler>,
    /// Logic in Rust within the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedded: Option<EmbeddedHandler>,
}

/// A worker with logic of its own: a program in Rust that implements the trait `Logic` of the crate `autonomy-worker` and runs in the place of the
/// platform's worker. All else (caches, retries, dead letters, one transaction for each event) stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmbeddedHandler {
    /// The image whose entry point is the program. In `autonomy local` name the program itself: `--worker SERVICE=PATH`.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
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
    /// The port on localhost on which the handler may ask the service's caches: `GET /caches/{cache}?{index}={value}` gives the object. Where left out
    /// nothing listens. The container finds the address in `AUTONOMY_CACHES_URL`, and that of the object API in `AUTONOMY_API_URL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub caches_port: Option<u16>,
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
