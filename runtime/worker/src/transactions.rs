//! Writing through `POST /api/transactions`: units submitted at the same time travel in one request.

use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::event::WriteContext;
use autonomy_crds::object_json::write_string;
use autonomy_process::telemetry::error_chain;
use autonomy_process::trace;
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::http_call::{may_pass, retry_after};
use crate::steps::{Failure, Operation};

// A request that takes longer than this is tried again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
// A unit for which the API fails this often (500) goes back to whoever submitted it, so that it holds up no other.
const MOST_INTERNAL_ERRORS: u32 = 8;
// A request with several units that fails this often (500) is halved, to find the unit that does it.
const INTERNAL_ERRORS_BEFORE_SPLIT: u32 = 3;

/// Operations that are written all or nothing.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// The idempotency keys, `{service}/{event id}`, one for each event that the unit is for.
    pub keys: Vec<String>,
    /// Who writes and why.
    pub context: WriteContext,
    /// What is written.
    pub operations: Vec<Operation>,
}

/// What became of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitOutcome {
    /// Whether its keys had been used before, so that nothing was written now.
    pub replayed: bool,
    /// Whether it wrote something, now or then.
    pub wrote: bool,
}

/// Why a unit was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The API refused it. Retryable failures (the unit lost a race) are worth running the steps again; everything that passes by itself was
    /// tried again already.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// Some of the keys were used before: those events are done; form the unit anew without them.
    #[error("some idempotency keys of the unit were used before: {}", used_keys.join(", "))]
    PartlyUsed {
        /// The keys used before.
        used_keys: Vec<String>,
    },
    /// The worker stops; whether the unit was written is not known. Submitting it again after the restart is safe.
    #[error("the worker stops")]
    Stopping,
}

/// Bounds of what is on its way at a time.
#[derive(Clone, Debug)]
pub struct TransactionSettings {
    /// Units in a request at the most.
    pub max_units: usize,
    /// Bytes of a request at the most; one unit may be larger.
    pub max_bytes: usize,
    /// Requests at a time at the most.
    pub max_in_flight: usize,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self { max_units: 500, max_bytes: 4 << 20, max_in_flight: 4 }
    }
}

impl Unit {
    fn to_json(&self) -> String {
        let mut out = b"{\"idempotencyKey\":".to_vec();
        match self.keys.as_slice() {
            [key] => write_string(key, &mut out),
            keys => {
                out.push(b'[');
                for (index, key) in keys.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_string(key, &mut out);
                }
                out.push(b']');
            }
        }
        if self.context != WriteContext::default() {
            out.extend_from_slice(b",\"context\":");
            // Strings only: that does not fail.
            out.extend_from_slice(&serde_json::to_vec(&self.context).unwrap_or_else(|_| b"{}".to_vec()));
        }
        out.extend_from_slice(b",\"operations\":[");
        for (index, operation) in self.operations.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(operation.json.as_bytes());
        }
        out.extend_from_slice(b"]}");
        String::from_utf8(out).unwrap_or_default()
    }
}

/// Submits units; cheap to clone.
#[derive(Clone, Debug)]
pub struct TransactionClient {
    sender: mpsc::Sender<Submission>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Submission {
    json: String,
    // Of the span that submits it.
    traceparent: Option<String>,
    internal_errors: u32,
    reply: oneshot::Sender<Result<UnitOutcome, SubmitError>>,
}

impl Submission {
    fn answer(self, outcome: Result<UnitOutcome, SubmitError>) {
        // Who no longer waits needs no answer.
        let _ = self.reply.send(outcome);
    }
}

impl TransactionClient {
    /// A client of the API at `api_url`, that works until `stop`.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn start(api_url: &str, settings: TransactionSettings, stop: CancellationToken) -> Result<Self, reqwest::Error> {
        let client = autonomy_process::http_client::builder().timeout(REQUEST_TIMEOUT).connect_timeout(Duration::from_secs(5)).build()?;
        let url = format!("{}/api/transactions", api_url.trim_end_matches('/'));
        let (sender, receiver) = mpsc::channel(settings.max_units.max(1));
        let sending = Sending { client, url: url.into(), stop: stop.clone() };
        tokio::spawn(gather(receiver, settings, sending));
        Ok(Self { sender, stop })
    }

    /// Submits a unit and waits for its outcome. Network faults, 5xx and 429 are tried again with backoff until the worker stops: the keys make
    /// that safe. A unit without operations is sent too: its keys are then used.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, unit: Unit) -> Result<UnitOutcome, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let traceparent = if trace::is_on() { unit.context.traceparent.clone() } else { None };
        let submission = Submission { json: unit.to_json(), traceparent, internal_errors: 0, reply };
        drop(unit);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(SubmitError::Stopping),
            outcome = async {
                self.sender.send(submission).await.map_err(|_| SubmitError::Stopping)?;
                answer.await.unwrap_or(Err(SubmitError::Stopping))
            } => outcome,
        }
    }
}

// Takes what waits, as much as a request may hold, each time one may be sent.
async fn gather(mut receiver: mpsc::Receiver<Submission>, settings: TransactionSettings, sending: Sending) {
    let in_flight = Arc::new(Semaphore::new(settings.max_in_flight.max(1)));
    // The first of the next request, that had no place in the last.
    let mut held: Option<Submission> = None;
    loop {
        let first = match held.take() {
            Some(first) => first,
            None => tokio::select! {
                () = sending.stop.cancelled() => return,
                received = receiver.recv() => match received {
                    Some(first) => first,
                    None => return,
                },
            },
        };
        let Ok(permit) = in_flight.clone().acquire_owned().await else { return };
        // Those that were woken by the same thing as the first get to submit too.
        tokio::task::yield_now().await;
        let mut bytes = first.json.len();
        let mut batch = vec![first];
        while batch.len() < settings.max_units {
            match receiver.try_recv() {
                Ok(next) if bytes + next.json.len() <= settings.max_bytes => {
                    bytes += next.json.len() + 1;
                    batch.push(next);
                }
                Ok(next) => {
                    held = Some(next);
                    break;
                }
                Err(_) => break,
            }
        }
        tokio::spawn(sending.clone().send_all(batch, permit));
    }
}

#[derive(Clone)]
struct Sending {
    client: reqwest::Client,
    url: Arc<str>,
    stop: CancellationToken,
}

// What became of a request.
enum Answered {
    // An answer for each unit.
    Units(Vec<UnitAnswer>),
    // Not now.
    Again { reason: String, after: Option<Duration>, internal: bool },
    // Not like this.
    Refused(Failure),
}

impl Sending {
    async fn send_all(self, batch: Vec<Submission>, permit: OwnedSemaphorePermit) {
        // Parts of the batch still to be sent; more than one only after it was halved.
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            tokio::select! {
                () = self.stop.cancelled() => break,
                halves = self.send(part) => parts.extend(halves),
            }
        }
        drop(permit);
    }

    // Sends until every unit is answered; gives back halves where the request as a whole was refused.
    async fn send(&self, mut batch: Vec<Submission>) -> Vec<Vec<Submission>> {
        let mut backoff = FIRST_BACKOFF;
        let mut internal_errors = 0;
        while !batch.is_empty() {
            let (reason, after) = match self.post(&batch).await {
                Answered::Units(answers) => {
                    let before = batch.len();
                    let mut waiting = Vec::new();
                    for (submission, answer) in batch.into_iter().zip(answers) {
                        waiting.extend(answer.give_to(submission));
                    }
                    batch = waiting;
                    if batch.len() < before {
                        backoff = FIRST_BACKOFF;
                    }
                    ("the API could not write some units".to_owned(), None)
                }
                Answered::Refused(failure) => {
                    if batch.len() > 1 {
                        return halves(batch);
                    }
                    for submission in batch {
                        submission.answer(Err(SubmitError::Refused(failure.clone())));
                    }
                    return Vec::new();
                }
                Answered::Again { reason, after, internal } => {
                    internal_errors += u32::from(internal);
                    if internal_errors >= INTERNAL_ERRORS_BEFORE_SPLIT && batch.len() > 1 {
                        return halves(batch);
                    }
                    if internal_errors >= MOST_INTERNAL_ERRORS {
                        for submission in batch {
                            submission.answer(Err(SubmitError::Refused(Failure::retryable(&reason))));
                        }
                        return Vec::new();
                    }
                    (reason, after)
                }
            };
            if batch.is_empty() {
                break;
            }
            let wait = after.unwrap_or_default().max(jittered(backoff));
            tracing::warn!(units = batch.len(), wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "{reason}; trying again");
            tokio::time::sleep(wait).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
        Vec::new()
    }

    // One a request, however many units are in it.
    fn span(&self, batch: &[Submission]) -> tracing::Span {
        if !trace::is_on() {
            return tracing::Span::none();
        }
        let url = reqwest::Url::parse(&self.url).ok();
        let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
        let port = url.as_ref().and_then(|url| url.port_or_known_default());
        trace::client_for(batch.iter().map(|submission| submission.traceparent.as_deref()), ("POST", &self.url, host, port))
    }

    async fn post(&self, batch: &[Submission]) -> Answered {
        let mut body = String::with_capacity(batch.iter().map(|submission| submission.json.len() + 1).sum::<usize>() + 12);
        body.push_str("{\"units\":[");
        for (index, submission) in batch.iter().enumerate() {
            if index > 0 {
                body.push(',');
            }
            body.push_str(&submission.json);
        }
        body.push_str("]}");
        let again = |reason: String| Answered::Again { reason, after: None, internal: false };
        let mut request = self.client.post(&*self.url).header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        let span = self.span(batch);
        if let Some(traceparent) = trace::traceparent(&span) {
            request = request.header("traceparent", traceparent);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                trace::failed(&span, "unreachable", &error_chain(&error));
                return again(format!("the API can't be reached: {}", error_chain(&error)));
            }
        };
        let status = response.status();
        trace::answered(&span, status.as_u16());
        let after = retry_after(response.headers());
        let text = match response.bytes().await {
            Ok(text) => text,
            Err(error) => return again(format!("the API's answer broke off: {}", error_chain(&error))),
        };
        if status.is_success() {
            return match serde_json::from_slice::<Answers>(&text) {
                Ok(answers) if answers.units.len() == batch.len() => Answered::Units(answers.units),
                Ok(answers) => again(format!("the API answered {} units of {}", answers.units.len(), batch.len())),
                Err(error) => again(format!("the API's answer is not understood: {error}")),
            };
        }
        let problem: Problem = serde_json::from_slice(&text).unwrap_or_default();
        let reason = format!("the API answered {status}: {}", problem.text(status));
        // Who may not write now, or asks at the wrong address, must be helped by an operator; the events can wait for that.
        let passes =
            may_pass(status) || status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN || status == StatusCode::NOT_FOUND;
        if passes {
            return Answered::Again { reason, after, internal: status == StatusCode::INTERNAL_SERVER_ERROR };
        }
        Answered::Refused(Failure::fatal(reason))
    }
}

fn halves(mut batch: Vec<Submission>) -> Vec<Vec<Submission>> {
    let second = batch.split_off(batch.len() / 2);
    vec![second, batch]
}

fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.5..1.0))
}

#[derive(Deserialize)]
struct Answers {
    units: Vec<UnitAnswer>,
}

#[derive(Deserialize)]
struct UnitAnswer {
    status: u16,
    #[serde(default)]
    replayed: bool,
    // Counted only.
    #[serde(default)]
    results: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    problem: Problem,
}

// RFC 9457, as far as it matters here.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Problem {
    r#type: String,
    title: String,
    detail: String,
    errors: Vec<ProblemFault>,
    used_keys: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ProblemFault {
    pointer: String,
    detail: String,
}

impl UnitAnswer {
    // Answers the submission, or gives it back to be sent again.
    fn give_to(self, mut submission: Submission) -> Option<Submission> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_success() {
            submission.answer(Ok(UnitOutcome { replayed: self.replayed, wrote: !self.results.is_empty() }));
            return None;
        }
        let text = self.problem.text(status);
        if may_pass(status) {
            submission.internal_errors += u32::from(status == StatusCode::INTERNAL_SERVER_ERROR);
            if submission.internal_errors < MOST_INTERNAL_ERRORS {
                return Some(submission);
            }
            submission.answer(Err(SubmitError::Refused(Failure::retryable(text))));
            return None;
        }
        let error = match self.problem.kind() {
            "idempotency-key-partly-used" => SubmitError::PartlyUsed { used_keys: self.problem.used_keys },
            // What is referred to was deleted, or is not there yet: the steps may find otherwise when they run again.
            "reference" => SubmitError::Refused(Failure::retryable(text)),
            _ => SubmitError::Refused(Failure::fatal(text)),
        };
        submission.answer(Err(error));
        None
    }
}

impl Problem {
    // The last segment of its type.
    fn kind(&self) -> &str {
        self.r#type.rsplit('/').next().unwrap_or_default()
    }

    // What it says in one line: the detail, and the faults with their places in the unit.
    fn text(&self, status: StatusCode) -> String {
        let mut text = match (self.detail.as_str(), self.title.as_str()) {
            ("", "") => status.to_string(),
            ("", title) => title.to_owned(),
            (detail, _) => detail.to_owned(),
        };
        for fault in self.errors.iter().take(10) {
            // `/units/7` says only where the unit was in its request.
            let place = fault.pointer.strip_prefix("/units/").and_then(|rest| rest.find('/').map(|slash| &rest[slash..]));
            text.push_str(&format!("; {} {}", place.unwrap_or(&fault.pointer), fault.detail));
        }
        text
    }
}

#[cfg(test)]
mod tests;
