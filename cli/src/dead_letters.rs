//! `autonomy dead-letters`: events that no attempt could handle. Listed, shown with every attempt, and handed to their service again.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use autonomy_crds::event::{self, Attempt, DeliveryHistory, HISTORY_HEADER, header};
use autonomy_worker::retry::ATTEMPTS_BEFORE_HEADER;
use clap::{Args, Subcommand, ValueEnum};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::place::{Messaging, Place, PlaceError};

// How many dead letters are handed over before it is waited until they are on disk.
const REDRIVE_BATCH: usize = 500;

/// Looks at dead letters and hands them to their service again.
#[derive(Debug, Args)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists dead letters, the oldest first.
    List {
        /// Only this service's.
        #[arg(long)]
        service: Option<String>,
        /// The form of the output.
        #[arg(short, long, value_enum, default_value_t = Form::Table)]
        output: Form,
    },
    /// Shows dead letters with their event, error and every attempt.
    Show {
        /// Only this service's.
        #[arg(long)]
        service: Option<String>,
        /// The events' ids.
        #[arg(required = true, value_name = "EVENT_ID")]
        events: Vec<String>,
        /// The form of the output.
        #[arg(short, long, value_enum, default_value_t = Form::Table)]
        output: Form,
    },
    /// Hands dead letters to their service again, with as many attempts as at first.
    Redrive {
        /// Only this service's.
        #[arg(long)]
        service: Option<String>,
        /// The events' ids.
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "EVENT_ID")]
        events: Vec<String>,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// JSON: a line for each dead letter.
    Json,
}

/// Why dead letters can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// NATS can't be reached.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// NATS did not do what was asked.
    #[error("can't {doing}")]
    Stream {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An event has no dead letter.
    #[error("there is no dead letter of {0}; `autonomy dead-letters list` shows all")]
    Unknown(String),
    /// Some could not be handed over.
    #[error("{failed} of {all} dead letters could not be handed over and are kept")]
    Some {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
    },
}

fn doing<E: Into<Box<dyn std::error::Error + Send + Sync>>>(doing: impl Into<String>) -> impl FnOnce(E) -> DeadLetterError {
    let doing = doing.into();
    move |source| DeadLetterError::Stream { doing, source: source.into() }
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// When the dead letters can't be had or handed over.
    pub async fn run(self) -> Result<(), DeadLetterError> {
        let letters = DeadLetters::open(&self.place).await?;
        match self.action {
            Action::List { service, output } => letters.list(service.as_deref(), output).await,
            Action::Show { service, events, output } => letters.show(service.as_deref(), &events, output).await,
            Action::Redrive { service, events, all } => {
                let events = if all { None } else { Some(events) };
                letters.redrive(service.as_deref(), events).await
            }
        }
    }
}

// The stream of dead letters of a namespace.
struct DeadLetters {
    messaging: Messaging,
    stream: Stream,
}

impl DeadLetters {
    async fn open(place: &Place) -> Result<Self, DeadLetterError> {
        let messaging = place.open("autonomy-dead-letters").await?;
        let name = event::dead_letter_stream(&messaging.namespace);
        let stream = messaging.jetstream.get_stream(&name).await.map_err(doing(format!("open the stream {name}")))?;
        Ok(Self { messaging, stream })
    }

    async fn list(&self, service: Option<&str>, form: Form) -> Result<(), DeadLetterError> {
        let subject = event::dead_letter_subject(&self.messaging.namespace, service.unwrap_or("*"), "*");
        let config = OrderedConfig { filter_subject: subject, ..OrderedConfig::default() };
        let mut consumer = self.stream.create_consumer(config).await.map_err(doing("read the dead letters"))?;
        let waiting = consumer.info().await.map_err(doing("read the dead letters"))?.num_pending;
        if form == Form::Table {
            println!("{:<28} {:<20} {:<34} {:>8}  ERROR", "EVENT", "SERVICE", "OF", "ATTEMPTS");
        }
        let messages = consumer.messages().await.map_err(doing("read the dead letters"))?;
        let mut messages = messages.take(usize::try_from(waiting).unwrap_or(usize::MAX));
        while let Some(message) = messages.try_next().await.map_err(doing("read the dead letters"))? {
            let letter = DeadLetter::new(message.subject.as_str(), message.headers.clone().unwrap_or_default(), &message.payload);
            match form {
                Form::Table => println!("{}", letter.row()),
                Form::Json => println!("{}", json!(letter.summary())),
            }
        }
        Ok(())
    }

    async fn show(&self, service: Option<&str>, events: &[String], form: Form) -> Result<(), DeadLetterError> {
        for (service, event_id) in self.find(service, Some(events)).await? {
            let Some(message) = self.get(&service, &event_id).await? else { continue };
            let letter = DeadLetter::new(message.subject.as_str(), message.headers, &message.payload);
            match form {
                Form::Table => println!("{}", letter.in_full()),
                Form::Json => println!("{}", letter.json()),
            }
        }
        Ok(())
    }

    // Hands over in batches: all of a batch are published and acknowledged, then it is waited until they are on disk, then their dead
    // letters go. Interrupted anywhere, nothing is lost; what was handed over and not deleted is handed over again, which does no harm,
    // since a service's effect for an event takes place once.
    async fn redrive(&self, service: Option<&str>, events: Option<Vec<String>>) -> Result<(), DeadLetterError> {
        let found: Vec<(String, String)> = self.find(service, events.as_deref()).await?.into_iter().collect();
        let mut failed = 0;
        for batch in found.chunks(REDRIVE_BATCH) {
            let mut handed = Vec::with_capacity(batch.len());
            for (service, event_id) in batch {
                let Some(message) = self.get(service, event_id).await? else { continue };
                match self.hand_over(service, event_id, &message).await {
                    Ok(()) => handed.push((service, event_id, message.sequence)),
                    Err(error) => {
                        eprintln!("{service} {event_id}: {}", autonomy_process::telemetry::error_chain(&error));
                        failed += 1;
                    }
                }
            }
            if handed.is_empty() {
                continue;
            }
            tokio::time::sleep(self.messaging.sync).await;
            for (service, event_id, sequence) in handed {
                self.remove(service, event_id, sequence).await?;
                println!("{service} {event_id} is handed over again");
            }
        }
        if failed > 0 {
            return Err(DeadLetterError::Some { failed, all: found.len() });
        }
        if found.is_empty() {
            println!("there are no dead letters");
        }
        Ok(())
    }

    async fn hand_over(&self, service: &str, event_id: &str, message: &StreamMessage) -> Result<(), DeadLetterError> {
        let subject = event::retry_due_subject(&self.messaging.namespace, service, event_id);
        let acknowledged = self
            .messaging
            .jetstream
            .publish_with_headers(subject, redriven_headers(&message.headers), message.payload.clone())
            .await
            .map_err(doing("hand it over"))?;
        acknowledged.await.map(|_| ()).map_err(doing("hand it over"))
    }

    // Removes the dead letter that was handed over. Where the service has failed again meanwhile, the newer dead letter stays.
    async fn remove(&self, service: &str, event_id: &str, sequence: u64) -> Result<(), DeadLetterError> {
        match self.stream.delete_message(sequence).await {
            Ok(_) => Ok(()),
            Err(error) => match self.get(service, event_id).await? {
                Some(left) if left.sequence == sequence => Err(doing(format!("remove the dead letter of {event_id}"))(error)),
                _ => Ok(()),
            },
        }
    }

    // The dead letters (service and event id) that are meant; all where no events are named.
    async fn find(&self, service: Option<&str>, events: Option<&[String]>) -> Result<BTreeSet<(String, String)>, DeadLetterError> {
        let mut found = BTreeSet::new();
        let patterns: Vec<String> = match events {
            Some(events) => events
                .iter()
                .map(|event_id| event::dead_letter_subject(&self.messaging.namespace, service.unwrap_or("*"), event_id))
                .collect(),
            None => vec![event::dead_letter_subject(&self.messaging.namespace, service.unwrap_or("*"), "*")],
        };
        for (index, pattern) in patterns.iter().enumerate() {
            let before = found.len();
            let mut subjects = self.stream.info_with_subjects(pattern).await.map_err(doing("look for dead letters"))?;
            while let Some((subject, _)) = subjects.try_next().await.map_err(doing("look for dead letters"))? {
                if let Some((service, event_id)) = service_and_event(&subject) {
                    found.insert((service.to_owned(), event_id.to_owned()));
                }
            }
            if let Some(events) = events
                && found.len() == before
                && !events[..index].contains(&events[index])
            {
                return Err(DeadLetterError::Unknown(events[index].clone()));
            }
        }
        Ok(found)
    }

    async fn get(&self, service: &str, event_id: &str) -> Result<Option<StreamMessage>, DeadLetterError> {
        let subject = event::dead_letter_subject(&self.messaging.namespace, service, event_id);
        match self.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(doing(format!("read the dead letter of {event_id}"))(error)),
        }
    }
}

// `autonomy.{namespace}._dead_letters.{service}.{event id}`
fn service_and_event(subject: &str) -> Option<(&str, &str)> {
    let mut tokens = subject.splitn(5, '.').skip(3);
    Some((tokens.next()?, tokens.next()?))
}

// The event's own headers and its history. What NATS itself reads (`Nats-…`) was for the dead letter's own publishing; a worker knows by the
// missing mark of the scheduler that the event was sent by a person, and counts its attempts anew.
fn redriven_headers(headers: &HeaderMap) -> HeaderMap {
    let mut redriven = HeaderMap::new();
    for (name, values) in headers.iter() {
        let text: &str = name.as_ref();
        if text == ATTEMPTS_BEFORE_HEADER || text.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("Nats-")) {
            continue;
        }
        for value in values {
            redriven.append(name.clone(), value.clone());
        }
    }
    redriven
}

// A dead letter as it is shown.
struct DeadLetter {
    service: String,
    event_id: String,
    headers: HeaderMap,
    history: DeliveryHistory,
    data: String,
}

/// A dead letter in one line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    service: &'a str,
    event_id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    object_id: &'a str,
    subject: &'a str,
    attempts: usize,
    at: &'a str,
    error: &'a str,
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
    fn new(subject: &str, headers: HeaderMap, data: &[u8]) -> Self {
        let (service, event_id) = service_and_event(subject).unwrap_or_default();
        let history = headers.get(HISTORY_HEADER).and_then(|text| serde_json::from_str(text.as_str()).ok()).unwrap_or_default();
        let data = String::from_utf8_lossy(data).into_owned();
        Self { service: service.to_owned(), event_id: event_id.to_owned(), headers, history, data }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.as_str()).unwrap_or_default()
    }

    fn summary(&self) -> Summary<'_> {
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

    // In all; of many, not every one is kept.
    fn attempts(&self) -> usize {
        self.history.attempts.len().max(usize::try_from(self.history.attempt_count).unwrap_or_default())
    }

    fn row(&self) -> String {
        let summary = self.summary();
        let of = summary.event_type.strip_prefix("dev.autonomy.").unwrap_or(summary.event_type);
        let error: String = summary.error.lines().next().unwrap_or_default().chars().take(100).collect();
        format!("{:<28} {:<20} {of:<34} {:>8}  {error}", summary.event_id, summary.service, summary.attempts)
    }

    // Numbers stay as they are written: the data are not parsed.
    fn json(&self) -> String {
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

    fn in_full(&self) -> String {
        let summary = self.summary();
        let mut text = format!(
            "event     {}\nservice   {}\ntype      {}\nobject    {}\nsubject   {}\nerror     {}\nattempts  {}\n",
            summary.event_id, summary.service, summary.event_type, summary.object_id, summary.subject, summary.error, summary.attempts
        );
        for attempt in &self.history.attempts {
            let kind = if attempt.retryable { "retryable" } else { "not retryable" };
            text.push_str(&format!("  {}  {kind}  {}\n", attempt.at, attempt.error));
        }
        text.push_str("data\n");
        text.push_str(&self.data);
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redriven_event_keeps_its_headers_and_history() {
        let history = DeliveryHistory {
            service: "s".to_owned(),
            subject: "autonomy.default.m.E.created._.1".to_owned(),
            attempts: vec![Default::default(), Default::default()],
            attempt_count: 20,
        };
        let mut headers = HeaderMap::new();
        headers.insert("ce-id", "1");
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        headers.insert(HISTORY_HEADER, serde_json::to_string(&history).expect("JSON"));
        let redriven = redriven_headers(&headers);
        assert_eq!(redriven.get("ce-id").map(|value| value.as_str()), Some("1"));
        assert!(redriven.get("Nats-Expected-Last-Subject-Sequence").is_none());
        let kept: DeliveryHistory = serde_json::from_str(redriven.get(HISTORY_HEADER).expect("history").as_str()).expect("JSON");
        assert_eq!(kept, history);
    }

    #[test]
    fn subjects_tell_service_and_event() {
        let subject = event::dead_letter_subject("default", "ledger", "0000-1");
        assert_eq!(service_and_event(&subject), Some(("ledger", "0000-1")));
    }
}
