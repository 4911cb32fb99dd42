//! A dead letter as it is shown: in a line, in full, as JSON.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use autonomy_crds::event::{Attempt, DeliveryHistory, HISTORY_HEADER, header};
use serde::Serialize;
use serde_json::value::RawValue;

/// A dead letter as it is shown.
pub struct DeadLetter {
    service: String,
    event_id: String,
    headers: HeaderMap,
    history: DeliveryHistory,
    data: String,
}

/// A dead letter in one line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary<'a> {
    service: &'a str,
    event_id: &'a str,
    #[serde(rename = "type")]
    /// The event's type.
    pub event_type: &'a str,
    object_id: &'a str,
    subject: &'a str,
    attempts: usize,
    /// When the last attempt failed.
    pub at: &'a str,
    /// Why.
    pub error: &'a str,
}

/// A dead letter in full.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Full<'a> {
    service: &'a str,
    event_id: &'a str,
    subject: &'a str,
    attempt_count: usize,
    attempts: &'a [Attempt],
    headers: BTreeMap<&'a str, &'a str>,
    data: Option<Box<RawValue>>,
}

impl DeadLetter {
    /// Reads a message of the stream of dead letters.
    pub fn new(subject: &str, headers: HeaderMap, data: &[u8]) -> Self {
        let (service, event_id) = service_and_event(subject).unwrap_or_default();
        let history = headers.get(HISTORY_HEADER).and_then(|text| serde_json::from_str(text.as_str()).ok()).unwrap_or_default();
        let data = String::from_utf8_lossy(data).into_owned();
        Self { service: service.to_owned(), event_id: event_id.to_owned(), headers, history, data }
    }

    /// One of the event's headers; empty where it has none of that name.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.as_str()).unwrap_or_default()
    }

    /// In short.
    pub fn summary(&self) -> Summary<'_> {
        let last = self.history.attempts.last();
        Summary {
            service: &self.service,
            event_id: &self.event_id,
            event_type: self.header(header::TYPE),
            object_id: self.header(header::SUBJECT),
            subject: &self.history.subject,
            attempts: self.attempts(),
            at: last.map(|attempt| attempt.at.as_str()).unwrap_or_default(),
            error: last.map(|attempt| attempt.error.as_str()).unwrap_or_default(),
        }
    }

    /// Service and event id.
    pub fn key(&self) -> (String, String) {
        (self.service.clone(), self.event_id.clone())
    }

    // In all; of many, not every one is kept.
    fn attempts(&self) -> usize {
        self.history.attempts.len().max(usize::try_from(self.history.attempt_count).unwrap_or_default())
    }

    /// A line of the table.
    pub fn row(&self) -> String {
        let summary = self.summary();
        let of = summary.event_type.strip_prefix("dev.autonomy.").unwrap_or(summary.event_type);
        let error: String = summary.error.lines().next().unwrap_or_default().chars().take(100).collect();
        format!("{:<28} {:<20} {of:<34} {:>8}  {error}", summary.event_id, summary.service, summary.attempts)
    }

    /// In full, as JSON. Numbers stay as they are written: the data are not parsed.
    pub fn json(&self) -> String {
        let headers: BTreeMap<&str, &str> = self
            .headers
            .iter()
            .map(|(name, values)| (name.as_ref(), values.first().map(|value| value.as_str()).unwrap_or_default()))
            .filter(|(name, _)| *name != HISTORY_HEADER)
            .collect();
        let text = serde_json::to_string(&self.data).unwrap_or_default();
        let data = RawValue::from_string(self.data.clone()).or_else(|_| RawValue::from_string(text)).ok();
        let full = Full {
            service: &self.service,
            event_id: &self.event_id,
            subject: &self.history.subject,
            attempt_count: self.attempts(),
            attempts: &self.history.attempts,
            headers,
            data,
        };
        serde_json::to_string(&full).unwrap_or_default()
    }

    /// In full, for people.
    pub fn in_full(&self) -> String {
        let summary = self.summary();
        let mut text = format!(
            "event     {}\nservice   {}\ntype      {}\nobject    {}\nsubject   {}\nerror     {}\nattempts  {}\n",
            summary.event_id, summary.service, summary.event_type, summary.object_id, summary.subject, summary.error, summary.attempts
        );
        for attempt in &self.history.attempts {
            let kind = if attempt.retryable { "retryable" } else { "not retryable" };
            text.push_str(&format!("  {}  {kind}  revision {}  {}\n", attempt.at, attempt.revision, attempt.error));
        }
        text.push_str("data\n");
        text.push_str(&self.data);
        text.push('\n');
        text
    }
}

/// Service and event id in a dead letter's subject, `autonomy.{namespace}._dead_letters.{service}.{event id}`.
pub fn service_and_event(subject: &str) -> Option<(&str, &str)> {
    let mut tokens = subject.splitn(5, '.').skip(3);
    Some((tokens.next()?, tokens.next()?))
}
