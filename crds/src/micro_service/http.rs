//! Calls of web services: what is asked, who asks, whom they trust, and how often they may.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Document;
use crate::data_platform::SecretKeyReference;

/// Calls a web service. The outcome has `status` (integer), `headers` and `body` (parsed JSON, or text). 408, 425, 429, 5xx and network faults
/// are tried again (Retry-After is kept to); any other status that is not expected fails the event for good.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("[has(self.bearerTokenFrom), has(self.basic), has(self.oauth2)].filter(x, x).size() <= 1", "a call has at most one of bearerTokenFrom, basic and oauth2"))]
pub struct HttpStep {
    /// The method; POST where left out.
    #[serde(default = "post")]
    #[schemars(length(min = 1, max = 16))]
    pub method: String,
    /// The URL, in CEL: `http://` or `https://`.
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
    /// The body as text with expressions in it, for web services that don't speak JSON; in place of `body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<BodyTemplate>,
    /// The body as a document of rows; in place of `body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Document>,
    /// Gathers the calls of several events into one: for web services that take many items at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<BulkCall>,
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
    /// The Authorization header's user and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicCredentials>,
    /// Gets access tokens by OAuth 2.0's client credentials grant (RFC 6749, 4.4) and keeps each until shortly before it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2ClientCredentials>,
    /// Signs each call after Standard Webhooks: headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, HMAC-SHA256 with this secret
    /// (`whsec_` and Base64, or any text). Where it has several, divided by blanks, there is a signature of each, so that a secret can be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_from: Option<SecretKeyReference>,
    /// Whom the call trusts, and the certificate that it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// How many of these calls a worker makes at a time; as many as `scaling.concurrency` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub concurrency: Option<u32>,
    /// How often these calls are made, by all workers of the service together. Events wait for their turn, and lose no attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Stops calling a web service that fails again and again: events wait until it answers, and lose no attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Writes each request and its answer to the worker's log. Credentials and signatures are masked always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<CallLog>,
}

fn post() -> String {
    "POST".to_owned()
}

pub(super) fn default_timeout() -> String {
    "10s".to_owned()
}

impl HttpStep {
    /// The Secrets' keys that it reads, each with its field's path below the step's `http`.
    pub fn secret_keys(&self) -> impl Iterator<Item = (&'static str, &SecretKeyReference)> {
        let basic = self.basic.as_ref();
        let oauth2 = self.oauth2.as_ref();
        let tls = self.tls.as_ref();
        let certificate = tls.and_then(|tls| tls.client_certificate.as_ref());
        let keys = [
            ("bearerTokenFrom", self.bearer_token_from.as_ref()),
            ("basic.usernameFrom", basic.map(|basic| &basic.username_from)),
            ("basic.passwordFrom", basic.map(|basic| &basic.password_from)),
            ("oauth2.clientIdFrom", oauth2.map(|oauth2| &oauth2.client_id_from)),
            ("oauth2.clientSecretFrom", oauth2.map(|oauth2| &oauth2.client_secret_from)),
            ("signingSecretFrom", self.signing_secret_from.as_ref()),
            ("tls.caFrom", tls.and_then(|tls| tls.ca_from.as_ref())),
            ("tls.clientCertificate.certificateFrom", certificate.map(|certificate| &certificate.certificate_from)),
            ("tls.clientCertificate.privateKeyFrom", certificate.map(|certificate| &certificate.private_key_from)),
        ];
        keys.into_iter().filter_map(|(path, key)| Some((path, key?)))
    }
}

/// A body as text. `{{ expression }}` is replaced by the expression's value, `{% for x in list %}…{% endfor %}` is repeated for each element, and
/// of `{% if condition %}…{% elif condition %}…{% else %}…{% endif %}` one part is taken; all expressions are CEL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BodyTemplate {
    /// The media type, sent as the header Content-Type, for example `application/xml; charset=utf-8`.
    #[schemars(length(min = 3, max = 200))]
    pub content_type: String,
    /// The text, with expressions in it.
    #[schemars(length(min = 1, max = 65536))]
    pub text: String,
    /// How values are written so that they can't break the text around them. Where left out the media type decides: `xml` for XML and HTML,
    /// `form` for `application/x-www-form-urlencoded`, otherwise `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escape: Option<TemplateEscape>,
}

/// How values are written into a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TemplateEscape {
    /// With entities for `&`, `<`, `>` and quotes.
    Xml,
    /// Percent-encoded.
    Form,
    /// As they are.
    None,
}

/// One call for the items of several events. Each event gives an `item`; `url`, `headers` and `body` are then evaluated over `items`, `config` and
/// `service`, and each event goes on with its own result. The step's outcome is `status`, `headers` and the event's result as `body`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BulkCall {
    /// What an event adds to the call, in CEL over the step's variables.
    #[schemars(length(min = 1, max = 16384))]
    pub item: String,
    /// The results in the order of the items, in CEL over `body`, `headers` and `status` of the answer; a list of as many elements as there were
    /// items. The body itself where left out.
    #[serde(default = "answer_body")]
    #[schemars(length(min = 1, max = 16384))]
    pub results: String,
    /// What became of one item, as a status of HTTP, in CEL over `result`: an integer that is judged as the status of a call of its own would
    /// be. Without it an item succeeds where the call does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub status: Option<String>,
    /// The most items of a call.
    #[serde(default = "default_max_items")]
    #[schemars(range(min = 1, max = 5000))]
    pub max_items: u32,
    /// How long the first item waits for others, as a Go duration.
    #[serde(default = "default_bulk_wait")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub max_wait: String,
}

fn answer_body() -> String {
    "body".to_owned()
}

fn default_max_items() -> u32 {
    100
}

fn default_bulk_wait() -> String {
    "5ms".to_owned()
}

/// A user and a password, as in Secrets of the type `kubernetes.io/basic-auth`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicCredentials {
    /// The user's name.
    pub username_from: SecretKeyReference,
    /// The user's password.
    pub password_from: SecretKeyReference,
}

/// How access tokens are got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OAuth2ClientCredentials {
    /// The authorization server's token endpoint, in CEL over `config`.
    #[schemars(length(min = 1, max = 16384))]
    pub token_url: String,
    /// The client's identifier.
    pub client_id_from: SecretKeyReference,
    /// The client's secret.
    pub client_secret_from: SecretKeyReference,
    /// The scopes asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub scopes: Vec<String>,
    /// The audience asked for, where the authorization server wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub audience: Option<String>,
    /// How the client shows who it is: `basic` (the Authorization header) or `body` (with the form).
    #[serde(default)]
    pub client_authentication: ClientAuthentication,
}

/// How an OAuth 2.0 client shows who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClientAuthentication {
    /// By the Authorization header, which every authorization server takes.
    #[default]
    Basic,
    /// By `client_id` and `client_secret` in the form.
    Body,
}

/// Whom a call trusts, and what it shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientTls {
    /// Certificates (PEM) of the authorities that are trusted, and no others; those of the operating system where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<SecretKeyReference>,
    /// The certificate that the call shows (mutual TLS), as in Secrets of the type `kubernetes.io/tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate and its private key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificate {
    /// The certificate with those between it and its authority, PEM.
    pub certificate_from: SecretKeyReference,
    /// The private key, PEM.
    pub private_key_from: SecretKeyReference,
}

/// When a web service counts as failing, and for how long it is left alone. Failures are what would be tried again: 408, 425, 429, 5xx, network
/// faults, answers that take too long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CircuitBreaker {
    /// So many failures in a row open the breaker.
    #[serde(default = "default_failures")]
    #[schemars(range(min = 1, max = 10000))]
    pub failures: u32,
    /// How long no call is made then, as a Go duration; after that one is tried, and the others follow where it succeeds.
    #[serde(default = "default_open_for")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub open_for: String,
}

fn default_failures() -> u32 {
    10
}

fn default_open_for() -> String {
    "10s".to_owned()
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { failures: default_failures(), open_for: default_open_for() }
    }
}

/// So many calls in so long a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// How many calls.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub calls: u32,
    /// In how long a time, as a Go duration; they are spread evenly over it.
    #[serde(default = "one_second")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub per: String,
    /// How many calls may come at once after a pause.
    #[serde(default = "no_burst")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
}

fn one_second() -> String {
    "1s".to_owned()
}

fn no_burst() -> u32 {
    1
}

/// What is left out of the log, and of errors that quote an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallLog {
    /// Names of members of JSON bodies, at any depth, and of headers, whose values are masked; upper and lower case are alike.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 128)))]
    pub mask: Vec<String>,
}
