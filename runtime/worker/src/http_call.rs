//! Calls of web services: what may pass and what stays, Retry-After, bounded answers, bounded concurrency.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::data_platform::SecretKeyReference;
use autonomy_process::telemetry::error_chain;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::sync::Semaphore;

use crate::expression::Value;
use crate::steps::Failure;

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
    secrets_dir: Option<PathBuf>,
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
    /// The bearer token's Secret.
    pub bearer_token_from: Option<SecretKeyReference>,
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
        let mut headers: Vec<(&str, Value)> = Vec::new();
        for (name, value) in &self.headers {
            // Of a header that comes several times, the first.
            if !headers.iter().any(|(own, _)| *own == name.as_str()) {
                headers.push((name.as_str(), Value::text(String::from_utf8_lossy(value.as_bytes()))));
            }
        }
        let headers = Value::object(headers);
        Value::object([("status", Value::Int(i64::from(self.status.as_u16()))), ("headers", headers), ("body", self.body)])
    }
}

impl HttpCaller {
    /// A caller with at most `concurrency` calls at a time; bearer tokens are read from `{secrets_dir}/{secret}/{key}`.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn new(concurrency: usize, secrets_dir: Option<PathBuf>) -> Result<Self, reqwest::Error> {
        let client = autonomy_process::http_client::builder()
            .user_agent(concat!("autonomy-worker/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            // A redirect would turn a POST into a GET: it is an answer that was not expected.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, permits: Arc::new(Semaphore::new(concurrency.max(1))), secrets_dir })
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
            bearer_token_from: None,
        };
        self.call(request).await.map(drop)
    }

    /// Calls. 408, 425, 429, 5xx and network faults may pass, and Retry-After is told; any other status that is not expected stays.
    ///
    /// # Errors
    /// A failure that says whether it may pass.
    pub async fn call(&self, request: Request) -> Result<Answer, Failure> {
        let url = Url::parse(&request.url).map_err(|error| Failure::fatal(format!("{:?} is no URL: {error}", request.url)))?;
        if url.scheme() != "http" {
            return Err(Failure::fatal(format!("{url}: only http:// can be called by this build")));
        }
        let place = format!("{} {}", request.method, shown(&url));
        let headers = self.headers(&request).await?;
        // Waiting for a permit is not the call's own time.
        let _permit = self.permits.acquire().await.map_err(|_| Failure::retryable("the worker stops"))?;
        let mut builder = self.client.request(request.method, url).headers(headers).timeout(request.timeout);
        if let Some(body) = request.body {
            builder = builder.body(body);
        }
        let response = builder.send().await.map_err(|error| network_failure(&place, error))?;
        let status = response.status();
        let headers = response.headers().clone();
        let retry_after = retry_after(&headers);
        let expected = if request.expect.is_empty() { status.is_success() } else { request.expect.contains(&status.as_u16()) };
        let body = read_bounded(response).await;
        if !expected {
            let excerpt = body.as_deref().map(excerpt).unwrap_or_default();
            let message = format!("{place} answered {status}{excerpt}");
            return Err(Failure { retryable: may_pass(status), retry_after, message });
        }
        let body = match body {
            Ok(body) => body,
            Err(BodyError::TooLong) => {
                return Err(Failure::fatal(format!("{place} answered {status} with more than {MAX_ANSWER} bytes")));
            }
            Err(BodyError::Network(error)) => return Err(network_failure(&place, error)),
        };
        let body = parse_body(&headers, &body)
            .map_err(|error| Failure::retryable(format!("{place} answered {status}, but its body is {error}")))?;
        Ok(Answer { status, headers, body })
    }

    async fn headers(&self, request: &Request) -> Result<HeaderMap, Failure> {
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
        if let Some(secret) = &request.bearer_token_from {
            let token = self.secret(secret).await?;
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                Failure::fatal(format!("the Secret {}'s key {} has characters that no token may have", secret.secret_name, secret.key))
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }

    // Read each time: a Secret is changed in place. One that is not there may come.
    async fn secret(&self, secret: &SecretKeyReference) -> Result<String, Failure> {
        let name = format!("the Secret {}'s key {}", secret.secret_name, secret.key);
        let Some(folder) = &self.secrets_dir else {
            return Err(Failure::fatal(format!("{name} is needed; give the worker --secrets-dir")));
        };
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\\', '\0']);
        if !plain(&secret.secret_name) || !plain(&secret.key) {
            return Err(Failure::fatal(format!("{name} is no name of a Secret")));
        }
        let path = folder.join(&secret.secret_name).join(&secret.key);
        let token = tokio::fs::read_to_string(&path).await.map_err(|error| Failure::retryable(format!("{name} can't be read: {error}")))?;
        Ok(token.trim().to_owned())
    }
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
mod tests;
