//! Webhooks: events for those who don't speak NATS. Each becomes a MicroService of one `http` step, so that retries, dead letters, scaling and
//! metrics are those of every other service.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data_platform::SecretKeyReference;
use crate::fault::{Fault, Faults};
use crate::micro_service::{
    CircuitBreaker, ClientTls, DeadLetter, HttpStep, MicroServiceSpec, Operation, QueueTrigger, Retry, Scaling, Step, Trigger,
};
use crate::{DataModel, MicroService};

/// The label of a MicroService that names the DataModel whose webhook it is.
pub const MODEL_LABEL: &str = "autonomy.dev/data-model";
// What a CloudEvent in JSON says, with the same data as the stream has.
const CLOUD_EVENT: &str = "{'specversion': '1.0', 'id': event.id, 'source': event.source, 'type': event.type, 'subject': event.subject, \
    'time': event.time, 'datacontenttype': 'application/json', 'autonomyversion': string(event.version), \
    'data': event.operation == 'updated' ? merge(object, {'before': before}) : object}";
const CLOUD_EVENT_TYPE: &str = "'application/cloudevents+json; charset=utf-8'";

/// A web address that gets an entity's events: each as a CloudEvent in JSON by POST, signed, tried again until it is taken, and kept as a dead
/// letter where it never is. Events may come more than once and in another order; `id` is the same each time, and `data.version` counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// Name, a DNS label. Its MicroService is named `{model}-webhook-{name}`, in at most 40 characters.
    #[schemars(length(min = 1, max = 31), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Whom it tells of what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,
    /// The entity of this model whose events are sent.
    #[schemars(length(min = 1, max = 48))]
    pub entity: String,
    /// The operations that are sent; all where left out.
    #[serde(default = "all_operations")]
    #[schemars(length(min = 1, max = 3))]
    pub operations: Vec<Operation>,
    /// The values of the entity's routing attribute that are sent; all where left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub routing: Vec<String>,
    /// A CEL expression over `event`, `object` and `before` (null unless updated); only where it is true the event is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub filter: Option<String>,
    /// Sends only what was committed after this moment, RFC 3339. Where left out, a new webhook begins with what comes after it was declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 20, max = 40))]
    pub since: Option<String>,
    /// The address, `https://` or `http://`.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: String,
    /// Signs each event after Standard Webhooks: headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, HMAC-SHA256 with this secret
    /// (`whsec_` and Base64, or any text). Where it has several, divided by blanks, there is a signature of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_from: Option<SecretKeyReference>,
    /// The Authorization header's bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_from: Option<SecretKeyReference>,
    /// Whom the call trusts, and the certificate that it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// How long an answer may take, as a Go duration. Any 2xx takes the event.
    #[serde(default = "default_timeout")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub timeout: String,
    /// When the address counts as failing, and for how long it is left alone; events wait meanwhile and lose no attempts.
    #[serde(default)]
    pub circuit_breaker: CircuitBreaker,
    /// How failures that may pass are tried again: 408, 425, 429, 5xx, network faults. Any other answer makes a dead letter at once.
    #[serde(default)]
    pub retry: Retry,
    /// What happens to events that are not taken.
    #[serde(default)]
    pub dead_letter: DeadLetter,
    /// How many workers send and how many events each at a time.
    #[serde(default)]
    pub scaling: Scaling,
    /// While true, nothing is sent; events wait in the stream.
    #[serde(default)]
    pub suspend: bool,
}

fn all_operations() -> Vec<Operation> {
    vec![Operation::Created, Operation::Updated, Operation::Deleted]
}

fn default_timeout() -> String {
    "10s".to_owned()
}

impl Webhook {
    /// The name of its MicroService.
    pub fn service_name(&self, model: &str) -> String {
        format!("{model}-webhook-{}", self.name)
    }

    /// Its MicroService; pure. Without a `since` of its own it sends what comes after `declared_at` (RFC 3339).
    pub fn service(&self, model: &DataModel, declared_at: Option<&str>) -> MicroService {
        let model_name = model.name_any();
        let mut service = MicroService::new(&self.service_name(&model_name), self.spec(model, &model_name, declared_at));
        service.metadata = ObjectMeta {
            name: service.metadata.name,
            namespace: model.namespace(),
            labels: Some(BTreeMap::from([(MODEL_LABEL.to_owned(), model_name)])),
            owner_references: Some(model.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        };
        service
    }

    fn spec(&self, model: &DataModel, model_name: &str, declared_at: Option<&str>) -> MicroServiceSpec {
        let send = HttpStep {
            method: "POST".to_owned(),
            url: "config.url".to_owned(),
            headers: BTreeMap::from([("Content-Type".to_owned(), CLOUD_EVENT_TYPE.to_owned())]),
            body: Some(CLOUD_EVENT.to_owned()),
            timeout: self.timeout.clone(),
            bearer_token_from: self.bearer_token_from.clone(),
            signing_secret_from: self.signing_secret_from.clone(),
            tls: self.tls.clone(),
            circuit_breaker: Some(self.circuit_breaker.clone()),
            ..HttpStep::default()
        };
        let queue = QueueTrigger {
            model: model_name.to_owned(),
            entity: self.entity.clone(),
            operations: self.operations.clone(),
            routing: self.routing.clone(),
            filter: self.filter.clone(),
            since: self.since.clone().or_else(|| declared_at.map(str::to_owned)),
            ..QueueTrigger::default()
        };
        MicroServiceSpec {
            platform: model.spec.platform.clone(),
            description: self.description.clone().or_else(|| Some(format!("Webhook {} of DataModel {model_name}", self.name))),
            trigger: Trigger { queue: Some(queue), ..Trigger::default() },
            caches: Vec::new(),
            config: BTreeMap::from([("url".to_owned(), self.url.clone())]),
            environment_from: Vec::new(),
            steps: vec![Step { name: Some("send".to_owned()), http: Some(send), ..Step::default() }],
            handler: None,
            retry: self.retry.clone(),
            dead_letter: self.dead_letter.clone(),
            scaling: self.scaling.clone(),
            suspend: self.suspend,
        }
    }
}

/// The MicroServices of a model's webhooks, in their order; pure. `declared_at` gives the moment (RFC 3339) from which the one of a name sends.
pub fn services(model: &DataModel, declared_at: impl Fn(&str) -> Option<String>) -> Vec<MicroService> {
    let webhooks = model.spec.webhooks.iter();
    webhooks.map(|webhook| webhook.service(model, declared_at(&webhook.service_name(&model.name_any())).as_deref())).collect()
}

/// Faults of a webhook's MicroService, told as faults of the DataModel's webhook of this place.
pub fn faults_of_model(index: usize, faults: Faults) -> Faults {
    const PLACES: [(&str, &str); 6] =
        [("spec.trigger.queue", ""), ("spec.steps[0].http", ""), ("spec.config", ""), ("metadata.name", ".name"), ("spec", ""), ("", "")];
    let told = |fault: Fault| {
        let place = PLACES.iter().find_map(|(of_service, of_webhook)| {
            let rest = fault.path.strip_prefix(of_service)?;
            // `spec.steps[0]` alone is the webhook itself.
            (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("spec.webhooks[{index}]{of_webhook}{rest}"))
        });
        Fault { path: place.unwrap_or_else(|| format!("spec.webhooks[{index}]")), message: fault.message }
    };
    Faults(faults.0.into_iter().map(told).collect())
}
