//! Steps that call web services: compiling them, and calling, one event at a time or many in one call.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use autonomy_crds::micro_service::{self, BulkCall, CircuitBreaker, HttpStep, OAuth2ClientCredentials};
use autonomy_crds::names::parse_duration;
use reqwest::header::{CONTENT_TYPE, HeaderName};
use reqwest::{Method, StatusCode};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, Semaphore, oneshot};

use super::Failure;
use super::compile::Steps;
use super::document::Document;
use super::template::Template;
use crate::expression::{Expression, Identity, Kind, Names, Value, compile};
use crate::http_call::{
    AccessTokens, Answer, Breaker, CallLog, Credentials, Endpoint, HttpCaller, RateLimit, Request, TlsClient, is_expected, may_pass,
};
use crate::service::CompiledService;

/// A call, compiled.
#[derive(Debug)]
pub(super) struct HttpAction {
    label: String,
    // In idempotency keys.
    key: String,
    method: Method,
    url: Expression,
    headers: Vec<(HeaderName, Expression)>,
    body: Option<Body>,
    expect: Vec<u16>,
    timeout: Duration,
    endpoint: Endpoint,
    bulk: Option<Bulk>,
}

#[derive(Debug)]
enum Body {
    Json(Expression),
    Text(Template),
    Document(Document),
}

/// Calls that are gathered.
#[derive(Debug)]
struct Bulk {
    item: Expression,
    results: Expression,
    status: Option<Expression>,
    max_items: usize,
    max_wait: Duration,
    gathering: Mutex<Gathering>,
    // A call was filled before its first item had waited long enough.
    filled: Notify,
}

#[derive(Debug, Default)]
struct Gathering {
    // How many calls were gathered before this one.
    number: u64,
    waiting: Vec<Waiting>,
}

// An event's part of a call.
#[derive(Debug)]
struct Waiting {
    item: Value,
    key: String,
    outcome: oneshot::Sender<Result<Value, Failure>>,
}

impl Steps<'_> {
    pub(super) fn http(&mut self, http: &HttpStep, path: &str, label: &str, key: &str) -> Option<HttpAction> {
        let method = Method::from_bytes(http.method.to_ascii_uppercase().as_bytes()).map_err(|_| {
            self.faults.add(format!("{path}.method"), format!("{:?} is no HTTP method", http.method));
        });
        // The request of one event sees what the step sees; one of many sees their items.
        let mut names = self.names.clone();
        let bulk = http.bulk.as_ref().map(|bulk| {
            let compiled = self.bulk(bulk, &format!("{path}.bulk"));
            names = self.around.clone();
            let items = compiled.as_ref().map_or(Kind::Any, |bulk| bulk.item.kind().clone());
            names.add("items", Kind::List(items.into()));
            compiled
        });
        let url = self.within(&http.url, &names, &format!("{path}.url"), Some(&Kind::Text));
        let mut headers = Vec::new();
        for (name, source) in &http.headers {
            let path = format!("{path}.headers.{name}");
            let value = self.within(source, &names, &path, None);
            match (name.parse::<HeaderName>(), value) {
                (Ok(header), _) if header.as_str() == "idempotency-key" => {
                    self.faults.add(path, "the Idempotency-Key is given by the platform");
                }
                (Ok(header), Some(value)) => headers.push((header, value)),
                (Ok(_), None) => {}
                (Err(_), _) => self.faults.add(path, format!("{name:?} is no header name")),
            }
        }
        let json = http.body.as_ref().and_then(|source| self.within(source, &names, &format!("{path}.body"), None)).map(Body::Json);
        let text =
            http.template.as_ref().and_then(|template| Template::compile(template, &names, &format!("{path}.template"), self.faults));
        let document =
            http.document.as_ref().and_then(|document| Document::compile(document, &names, &format!("{path}.document"), self.faults));
        let bodies = [http.body.is_some(), http.template.is_some(), http.document.is_some()];
        if bodies.into_iter().filter(|given| *given).count() > 1 {
            self.faults.add(path, "a call has at most one of body, template and document");
        }
        let timeout = self.duration(&http.timeout, &format!("{path}.timeout"));
        let endpoint = self.endpoint(http, path, label, key);
        Some(HttpAction {
            label: label.to_owned(),
            key: key.to_owned(),
            method: method.ok()?,
            url: url?,
            headers,
            body: json.or(text.map(Body::Text)).or(document.map(Body::Document)),
            expect: http.expect.clone(),
            timeout: timeout?,
            endpoint: endpoint?,
            bulk: match bulk {
                Some(bulk) => Some(bulk?),
                None => None,
            },
        })
    }

    fn bulk(&mut self, bulk: &BulkCall, path: &str) -> Option<Bulk> {
        let names = self.names.clone();
        let item = self.within(&bulk.item, &names, &format!("{path}.item"), None);
        let mut names = self.around.clone();
        for (name, kind) in [("status", Kind::Int), ("headers", Kind::Object(None)), ("body", Kind::Any)] {
            names.add(name, kind);
        }
        let results = self.within(&bulk.results, &names, &format!("{path}.results"), Some(&Kind::List(Kind::Any.into())));
        let mut names = self.around.clone();
        names.add("result", Kind::Any);
        let status = bulk.status.as_ref().map(|status| self.within(status, &names, &format!("{path}.status"), Some(&Kind::Int)));
        let max_wait = self.duration(&bulk.max_wait, &format!("{path}.maxWait"));
        Some(Bulk {
            item: item?,
            results: results?,
            status: status.flatten(),
            max_items: usize::try_from(bulk.max_items).unwrap_or(usize::MAX).max(1),
            max_wait: max_wait?,
            gathering: Mutex::default(),
            filled: Notify::new(),
        })
    }

    fn endpoint(&mut self, http: &HttpStep, path: &str, label: &str, key: &str) -> Option<Endpoint> {
        let credentials = match (&http.bearer_token_from, &http.basic, &http.oauth2) {
            (None, None, None) => Credentials::None,
            (Some(token), None, None) => Credentials::Bearer(token.clone()),
            (None, Some(basic), None) => Credentials::Basic(basic.clone()),
            (None, None, Some(grant)) => Credentials::OAuth2(Box::new(self.access_tokens(grant, &format!("{path}.oauth2"))?)),
            _ => {
                self.faults.add(path, "a call has at most one of bearerTokenFrom, basic and oauth2");
                return None;
            }
        };
        let breaker = match &http.circuit_breaker {
            Some(CircuitBreaker { failures, open_for }) => {
                Some(Breaker::new(*failures, self.duration(open_for, &format!("{path}.circuitBreaker.openFor"))?))
            }
            None => None,
        };
        let rate_limit = match &http.rate_limit {
            Some(micro_service::RateLimit { calls, per, burst }) => {
                Some(RateLimit::new(key, *calls, self.duration(per, &format!("{path}.rateLimit.per"))?, *burst))
            }
            None => None,
        };
        Some(Endpoint {
            name: label.to_owned(),
            credentials,
            signing_secret: http.signing_secret_from.clone(),
            tls: http.tls.clone().map(TlsClient::new),
            permits: http.concurrency.map(|calls| Semaphore::new(usize::try_from(calls).unwrap_or(1).max(1))),
            rate_limit,
            breaker,
            log: http.log.as_ref().map(CallLog::new),
        })
    }

    fn access_tokens(&mut self, grant: &OAuth2ClientCredentials, path: &str) -> Option<AccessTokens> {
        let path = format!("{path}.tokenUrl");
        let names = self.around.clone();
        let url = self.within(&grant.token_url, &names, &path, Some(&Kind::Text))?;
        // It depends on nothing that an event brings.
        match url.evaluate(self.surroundings, &Identity::default()) {
            Ok(Value::Text(url)) => Some(AccessTokens::new(url.to_string(), grant.clone())),
            Ok(other) => {
                self.faults.add(path, format!("the URL is {}, not a string", other.kind()));
                None
            }
            Err(error) => {
                self.faults.add(path, error.to_string());
                None
            }
        }
    }

    fn within(&mut self, source: &str, names: &Names, path: &str, wanted: Option<&Kind>) -> Option<Expression> {
        let expression = compile(source, names, path).map_err(|faults| self.faults.0.extend(faults.0)).ok()?;
        if let Some(wanted) = wanted.filter(|wanted| !expression.may_be(wanted)) {
            self.faults.add(path, format!("{wanted} is expected, `{source}` gives {}", expression.kind()));
        }
        Some(expression)
    }

    fn duration(&mut self, text: &str, path: &str) -> Option<Duration> {
        parse_duration(text).map_err(|message| self.faults.add(path, message)).ok()
    }
}

/// Who calls.
pub(super) struct Caller<'a> {
    pub(super) service: &'a CompiledService,
    pub(super) identity: &'a Identity<'a>,
    pub(super) http: &'a HttpCaller,
    /// What stands behind the step in idempotency keys: the elements that it is called for.
    pub(super) keys: &'a str,
}

impl HttpAction {
    /// Calls for an event with these variables; gives the step's outcome.
    pub(super) async fn call(&self, caller: &Caller<'_>, variables: &[Value]) -> Result<Value, Failure> {
        let Some(bulk) = &self.bulk else {
            let key = format!("{}/{}/{}{}", caller.service.name, caller.identity.event, self.key, caller.keys);
            return self.once(caller, variables, key).await.map(Answer::into_value);
        };
        let item = bulk.item.evaluate(variables, caller.identity).map_err(|error| self.fatal(error))?;
        let (outcome, told) = oneshot::channel();
        let filled = bulk.add(Waiting { item, key: format!("{}{}", caller.identity.event, caller.keys), outcome });
        let mine = match filled {
            Turn::Filled(waiting) => Some(waiting),
            Turn::First(number) => bulk.wait(number).await,
            Turn::Later => None,
        };
        if let Some(waiting) = mine {
            self.call_for(bulk, caller, waiting).await;
        }
        told.await.unwrap_or_else(|_| Err(Failure::retryable(format!("{}: the call was given up before it ended", self.label))))
    }

    async fn once(&self, caller: &Caller<'_>, variables: &[Value], idempotency_key: String) -> Result<Answer, Failure> {
        let evaluate = |expression: &Expression| expression.evaluate(variables, caller.identity).map_err(|error| self.fatal(error));
        let url = evaluate(&self.url)?;
        let Some(url) = url.as_text() else { return Err(self.fatal(format!("the URL is {}, not a string", url.kind()))) };
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            match evaluate(value)? {
                Value::Null => {}
                Value::Text(text) => headers.push((name.clone(), text.to_string())),
                other => headers.push((name.clone(), other.to_json())),
            }
        }
        let body = match &self.body {
            None => None,
            Some(Body::Json(body)) => Some(evaluate(body)?.to_json()),
            Some(Body::Text(template)) => {
                headers.push((CONTENT_TYPE, template.content_type().to_owned()));
                Some(template.write(variables, caller.identity).map_err(|error| self.fatal(error))?)
            }
            Some(Body::Document(document)) => {
                headers.push((CONTENT_TYPE, document.content_type().to_owned()));
                Some(document.write(variables, caller.identity).map_err(|error| self.fatal(error))?.text)
            }
        };
        let request = Request {
            method: self.method.clone(),
            url: url.to_owned(),
            headers,
            body,
            idempotency_key,
            expect: self.expect.clone(),
            timeout: self.timeout,
        };
        let answer = caller.http.call(request, &self.endpoint).await;
        answer.map_err(|failure| Failure { message: format!("{}: {}", self.label, failure.message), ..failure })
    }

    // One call for all who wait, each of whom is told their own outcome.
    async fn call_for(&self, bulk: &Bulk, caller: &Caller<'_>, waiting: Vec<Waiting>) {
        let outcomes = match self.results(bulk, caller, &waiting).await {
            Ok(outcomes) => outcomes,
            Err(failure) => vec![Err(failure); waiting.len()],
        };
        for (waiting, outcome) in waiting.into_iter().zip(outcomes) {
            // Whoever does not listen any more will come again.
            let _ = waiting.outcome.send(outcome);
        }
    }

    async fn results(&self, bulk: &Bulk, caller: &Caller<'_>, waiting: &[Waiting]) -> Result<Vec<Result<Value, Failure>>, Failure> {
        let items = Value::list(waiting.iter().map(|waiting| waiting.item.clone()));
        let [config, service] = caller.service.surroundings();
        let variables = [config.clone(), service.clone(), items];
        let keys = waiting.iter().fold(Sha256::new(), |keys, waiting| keys.chain_update(&waiting.key).chain_update("\n"));
        let keys: String = keys.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let answer = self.once(caller, &variables, format!("{}/bulk/{keys}/{}", caller.service.name, self.key)).await?;

        let (status, headers, body) = answer.into_parts();
        let seen = [config.clone(), service.clone(), status.clone(), headers.clone(), body];
        let results = bulk.results.evaluate(&seen, caller.identity).map_err(|error| self.fatal(error))?;
        let results = match results {
            Value::List(results) if results.len() == waiting.len() => results,
            Value::List(results) => {
                return Err(self.fatal(format!("bulk.results has {} elements for {} items", results.len(), waiting.len())));
            }
            other => return Err(self.fatal(format!("bulk.results is {}, not a list", other.kind()))),
        };
        let outcome = |result: &Value| {
            let status = match &bulk.status {
                None => status.clone(),
                Some(expression) => {
                    let variables = [config.clone(), service.clone(), result.clone()];
                    let status = expression.evaluate(&variables, caller.identity).map_err(|error| self.fatal(error))?;
                    self.judge(&status, result)?;
                    status
                }
            };
            Ok(Value::object([("status", status), ("headers", headers.clone()), ("body", result.clone())]))
        };
        Ok(results.iter().map(outcome).collect())
    }

    // What an item's own status means, as if it had been called for alone.
    fn judge(&self, status: &Value, result: &Value) -> Result<(), Failure> {
        let code = match status {
            Value::Int(code) => u16::try_from(*code).ok().and_then(|code| StatusCode::from_u16(code).ok()),
            _ => None,
        };
        let Some(code) = code else {
            return Err(self.fatal(format!("bulk.status gives {}, which is no status of HTTP", status.to_json())));
        };
        if is_expected(code, &self.expect) {
            return Ok(());
        }
        let excerpt: String = result.to_json().chars().take(300).collect();
        let message = format!("{}: the item was answered with {code}: {excerpt}", self.label);
        Err(Failure { retryable: may_pass(code), retry_after: None, message })
    }

    fn fatal(&self, what: impl std::fmt::Display) -> Failure {
        Failure::fatal(format!("{}: {what}", self.label))
    }
}

enum Turn {
    // The call is full, and who came last makes it.
    Filled(Vec<Waiting>),
    // Who came first waits for others, then makes the call of this number.
    First(u64),
    // Somebody else makes it.
    Later,
}

impl Bulk {
    fn add(&self, waiting: Waiting) -> Turn {
        let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
        gathering.waiting.push(waiting);
        if gathering.waiting.len() >= self.max_items {
            gathering.number += 1;
            self.filled.notify_waiters();
            return Turn::Filled(std::mem::take(&mut gathering.waiting));
        }
        if gathering.waiting.len() == 1 { Turn::First(gathering.number) } else { Turn::Later }
    }

    // Who waits for the call of this number, after the wait; none where it was filled before.
    async fn wait(&self, number: u64) -> Option<Vec<Waiting>> {
        let mut given_up = GivenUp { bulk: self, number: Some(number) };
        let filled = self.filled.notified();
        tokio::pin!(filled);
        let _ = tokio::time::timeout(self.max_wait, &mut filled).await;
        given_up.number = None;
        self.take(number)
    }

    fn take(&self, number: u64) -> Option<Vec<Waiting>> {
        let mut gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
        if gathering.number != number {
            return None;
        }
        gathering.number += 1;
        Some(std::mem::take(&mut gathering.waiting))
    }
}

// Who came first and is not waited for any more must not leave the others waiting for ever: their senders are dropped, and they fail for now.
struct GivenUp<'a> {
    bulk: &'a Bulk,
    number: Option<u64>,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            drop(self.bulk.take(number));
        }
    }
}
