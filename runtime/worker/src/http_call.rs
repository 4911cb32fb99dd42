//! Calls of web services: what may pass and what stays, Retry-After, bounded answers, bounded concurrency.

mod breaker;
mod call_log;
mod credentials;
mod endpoint;
mod metrics;
mod rate_limit;
mod stand_in;
mod trust;

use std::sync::Arc;
use std::time::{Duration, Instant};

use autonomy_process::telemetry::error_chain;
use autonomy_process::trace;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Method, Response, StatusCode, Url};
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::expression::Value;
use crate::secrets::{SecretError, Secrets};
use crate::steps::Failure;
pub(crate) use breaker::Breaker;
pub(crate) use call_log::CallLog;
pub(crate) use credentials::{AccessTokens, Credentials};
pub use endpoint::Endpoint;
pub use metrics::Metrics;
pub(crate) use rate_limit::RateLimit;
pub use rate_limit::Timelines;
pub(crate) use stand_in::answer_of;
pub use stand_in::{StandIn, StandInAnswer};
pub(crate) use trust::TlsClient;

/// An answer's body has this many bytes at the most.
pub const MAX_ANSWER: usize = 1 << 20;
// No provider makes an event wait longer than this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
const TICKET_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls web services for `http` steps and tickets; cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpCaller {
    client: Client,
    permits: Arc<Semaphore>,
    secrets: Secrets,
    metrics: Metrics,
    timelines: Option<Arc<Timelines>>,
    // Answers instead of the network.
    stand_in: Option<Arc<dyn StandIn>>,
}

/// A call.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: String,
    /// Headers beside those that the call sets itself.
    pub headers: Vec<(HeaderName, String)>,
    /// The body, as JSON.
    pub body: Option<String>,
    /// The `Idempotency-Key`.
    pub idempotency_key: String,
    /// Statuses that are a success; any 2xx where empty.
    pub expect: Vec<u16>,
    /// For the whole call.
    pub timeout: Duration,
}

/// An expected answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body: JSON where it is said to be, otherwise text; null where there is none.
    pub body: Value,
}

impl Answer {
    /// What expressions see: `status`, `headers` (names in lower case) and `body`.
    pub fn into_value(self) -> Value {
        let (status, headers, body) = self.into_parts();
        Value::object([("status", status), ("headers", headers), ("body", body)])
    }

    /// The status, the headers and the body as expressions see them.
    pub fn into_parts(self) -> (Value, Value, Value) {
        let mut headers: Vec<(&str, Value)> = Vec::new();
        for (name, value) in &self.headers {
            // Of a header that comes several times, the first.
            if !headers.iter().any(|(own, _)| *own == name.as_str()) {
                headers.push((name.as_str(), Value::text(String::from_utf8_lossy(value.as_bytes()))));
            }
        }
        let headers = Value::object(headers);
        (Value::Int(i64::from(self.status.as_u16())), headers, self.body)
    }
}

impl HttpCaller {
    /// A caller with at most `concurrency` calls at a time.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn new(concurrency: usize, secrets: Secrets, metrics: Metrics) -> Result<Self, reqwest::Error> {
        let permits = Arc::new(Semaphore::new(concurrency.max(1)));
        Ok(Self { client: client_builder().build()?, permits, secrets, metrics, timelines: None, stand_in: None })
    }

    /// Keeps to the rate limits of steps, with the service's other workers. Without it there are none.
    pub fn limited(self, timelines: Timelines) -> Self {
        Self { timelines: Some(Arc::new(timelines)), ..self }
    }

    /// A caller that never uses the network: all answers are the stand-in's.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn rehearsing(stand_in: Arc<dyn StandIn>) -> Result<Self, reqwest::Error> {
        Ok(Self { stand_in: Some(stand_in), ..Self::new(1, Secrets::default(), Metrics::default())? })
    }

    /// Who answers instead of the network, where the service is rehearsed.
    pub(crate) fn stand_in(&self) -> Option<&dyn StandIn> {
        self.stand_in.as_deref()
    }

    /// The Secrets that calls may read.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// POSTs JSON, for example a ticket; any 2xx is a success. The timeout is 10 s.
    ///
    /// # Errors
    /// A failure that says whether it may pass.
    pub async fn post_json(&self, url: &str, body: String, idempotency_key: &str) -> Result<(), Failure> {
        let request = Request {
            method: Method::POST,
            url: url.to_owned(),
            headers: Vec::new(),
            body: Some(body),
            idempotency_key: idempotency_key.to_owned(),
            expect: Vec::new(),
            timeout: TICKET_TIMEOUT,
        };
        self.call(request, &Endpoint::of_tickets()).await.map(drop)
    }

    /// Calls. 408, 425, 429, 5xx and network faults may pass, and Retry-After is told; any other status that is not expected stays.
    ///
    /// # Errors
    /// A failure that says whether it may pass.
    pub async fn call(&self, request: Request, endpoint: &Endpoint) -> Result<Answer, Failure> {
        let url = Url::parse(&request.url).map_err(|error| Failure::fatal(format!("{:?} is no URL: {error}", request.url)))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::fatal(format!("{}: only http:// and https:// can be called", shown(&url))));
        }
        if let Some(stand_in) = self.stand_in() {
            return answer_of(stand_in, &request);
        }
        let client = match &endpoint.tls {
            Some(tls) => tls.client(&self.secrets).await?,
            None => self.client.clone(),
        };
        let mut headers = headers(&request)?;
        // Waiting for leave is not the call's own time.
        let admission = endpoint.admit(&self.permits, self.timelines.as_deref()).await?;
        let begun = Instant::now();
        let span = trace::client(request.method.as_str(), || shown(&url), url.host_str().unwrap_or_default(), url.port_or_known_default());
        let outcome = async {
            if let Some(Ok(traceparent)) = trace::outgoing().map(HeaderValue::try_from) {
                headers.insert(HeaderName::from_static("traceparent"), traceparent);
            }
            self.send(&client, &url, headers, &request, endpoint).await
        };
        let outcome = outcome.instrument(span.clone()).await;
        match &outcome {
            Ok(answer) => trace::answered(&span, answer.status.as_u16()),
            Err(failure) => trace::failed(&span, if failure.retryable { "retryable" } else { "failed" }, &failure.message),
        }
        self.metrics.told(&endpoint.name, &outcome, begun.elapsed());
        if admission.tell(!outcome.as_ref().is_err_and(|failure| failure.retryable)) {
            tracing::warn!(step = endpoint.name, "the circuit breaker opens: the web service fails again and again, and calls wait");
        }
        if let Some(breaker) = &endpoint.breaker {
            self.metrics.breaker(&endpoint.name, breaker.is_closed());
        }
        outcome
    }

    async fn send(
        &self,
        client: &Client,
        url: &Url,
        headers: HeaderMap,
        request: &Request,
        endpoint: &Endpoint,
    ) -> Result<Answer, Failure> {
        let place = format!("{} {}", request.method, shown(url));
        let body = request.body.clone().map(Bytes::from);
        let (mut received, authorization) = self.once(client, url, &headers, &body, request, endpoint, &place).await?;
        let refused = received.status == StatusCode::UNAUTHORIZED && !request.expect.contains(&StatusCode::UNAUTHORIZED.as_u16());
        // An access token may be revoked before it expires.
        if refused && endpoint.credentials.refused(authorization.as_ref()).await {
            (received, _) = self.once(client, url, &headers, &body, request, endpoint, &place).await?;
        }
        received.judge(&place, &request.expect, endpoint.log.as_ref())
    }

    #[allow(clippy::too_many_arguments)]
    async fn once(
        &self,
        client: &Client,
        url: &Url,
        headers: &HeaderMap,
        body: &Option<Bytes>,
        request: &Request,
        endpoint: &Endpoint,
        place: &str,
    ) -> Result<(Received, Option<HeaderValue>), Failure> {
        let mut headers = headers.clone();
        let authorization = endpoint.credentials.authorization(client, &self.secrets).await?;
        if let Some(authorization) = &authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(secret) = &endpoint.signing_secret {
            let secret = self.secrets.text(secret).await?;
            headers.extend(credentials::signature(&request.idempotency_key, &secret, body.as_deref().unwrap_or_default())?);
        }
        if let Some(log) = &endpoint.log {
            log.request(&endpoint.name, &request.method, url, &headers, body.as_deref());
        }
        let mut builder = client.request(request.method.clone(), url.clone()).headers(headers).timeout(request.timeout);
        if let Some(body) = body {
            builder = builder.body(body.clone());
        }
        let begun = Instant::now();
        let response = builder.send().await.map_err(|error| network_failure(place, error))?;
        let received = Received::of(response).await;
        if let Some(log) = &endpoint.log {
            log.answer(&endpoint.name, url, received.status, &received.headers, received.body.as_deref().ok(), begun.elapsed());
        }
        Ok((received, authorization))
    }
}

// The settings of every client that calls web services.
fn client_builder() -> ClientBuilder {
    autonomy_process::http_client::builder()
        .user_agent(concat!("autonomy-worker/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(5))
        // A redirect would turn a POST into a GET: it is an answer that was not expected.
        .redirect(reqwest::redirect::Policy::none())
}

// The headers that are the same each time the request is sent.
fn headers(request: &Request) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    if request.body.is_some() {
        // A request's own headers may name another one.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in &request.headers {
        let value = HeaderValue::from_str(value)
            .map_err(|_| Failure::fatal(format!("the header {name} has characters that no header may have")))?;
        headers.insert(name.clone(), value);
    }
    let key = HeaderValue::from_str(&request.idempotency_key)
        .map_err(|_| Failure::fatal(format!("{:?} can't be an Idempotency-Key", request.idempotency_key)))?;
    headers.insert(HeaderName::from_static("idempotency-key"), key);
    Ok(headers)
}

// An answer as it came.
struct Received {
    status: StatusCode,
    headers: HeaderMap,
    body: Result<Vec<u8>, BodyError>,
}

impl Received {
    async fn of(response: Response) -> Self {
        Self { status: response.status(), headers: response.headers().clone(), body: read_bounded(response).await }
    }

    // What it means: 408, 425, 429 and 5xx may pass, any other status that is not expected stays. `log` tells what an error must not quote.
    fn judge(self, place: &str, expect: &[u16], log: Option<&CallLog>) -> Result<Answer, Failure> {
        let Self { status, headers, body } = self;
        if !is_expected(status, expect) {
            let quoted = body.ok().map(|body| match log {
                Some(log) => excerpt(log.body(&body).as_bytes()),
                None => excerpt(&body),
            });
            let message = format!("{place} answered {status}{}", quoted.unwrap_or_default());
            return Err(Failure { retryable: may_pass(status), retry_after: retry_after(&headers), message });
        }
        let body = match body {
            Ok(body) => body,
            Err(BodyError::TooLong) => {
                return Err(Failure::fatal(format!("{place} answered {status} with more than {MAX_ANSWER} bytes")));
            }
            Err(BodyError::Network(error)) => return Err(network_failure(place, error)),
        };
        let body = parse_body(&headers, &body)
            .map_err(|error| Failure::retryable(format!("{place} answered {status}, but its body is {error}")))?;
        Ok(Answer { status, headers, body })
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self { retryable: error.may_pass(), retry_after: None, message: error.to_string() }
    }
}

/// Whether a status is a success: one of those expected, any 2xx where none are named.
pub(crate) fn is_expected(status: StatusCode, expect: &[u16]) -> bool {
    if expect.is_empty() { status.is_success() } else { expect.contains(&status.as_u16()) }
}

/// Whether a status may pass.
pub(crate) fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
}

/// The wait that an answer asks for: seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn network_failure(place: &str, error: reqwest::Error) -> Failure {
    let what = if error.is_timeout() { "took too long".to_owned() } else { format!("failed: {}", error_chain(&error.without_url())) };
    Failure::retryable(format!("{place} {what}"))
}

// Without what may be secret: user, password, query.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

enum BodyError {
    TooLong,
    Network(reqwest::Error),
}

async fn read_bounded(mut response: Response) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Network)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn parse_body(headers: &HeaderMap, body: &[u8]) -> Result<Value, String> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media_type == "application/json" || media_type.ends_with("+json") {
        return Value::from_json(body).map_err(|error| error.to_string());
    }
    std::str::from_utf8(body).map(Value::text).map_err(|_| "not UTF-8 text".to_owned())
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}

#[cfg(test)]
mod credentials_tests;
#[cfg(test)]
mod rate_limit_tests;
#[cfg(test)]
mod tests;
