//! `autonomy dead-letters`: events that no attempt could handle. Listed, shown with every attempt, handed to their service again, or given up.

mod letter;
mod selection;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use autonomy_crds::event::{self, header};
use autonomy_worker::retry::ATTEMPTS_BEFORE_HEADER;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use futures::TryStreamExt;
use serde_json::{Value as Json, json};
use tokio::time::MissedTickBehavior;

use crate::place::{Messaging, Place, PlaceError};
use crate::rate::rate;
use letter::{DeadLetter, service_and_event};
use selection::Selection;

// How many dead letters are handed over before it is waited until they are on disk.
const REDRIVE_BATCH: usize = 500;

/// Looks at dead letters, hands them to their service again, or gives them up.
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
        #[command(flatten)]
        selection: Selection,
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
        #[command(flatten)]
        meant: Meant,
        /// Hands over so many a second at the most.
        #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
        rate: Option<Duration>,
        /// A file with the object as the service is to see it, in place of the event's; for one event. `-` is the standard input.
        #[arg(long, value_name = "FILE", conflicts_with = "all")]
        data: Option<PathBuf>,
    },
    /// Deletes dead letters for good: their service never sees these events again.
    Discard {
        #[command(flatten)]
        meant: Meant,
    },
}

// The dead letters that are handed over or deleted.
#[derive(Debug, Args)]
struct Meant {
    /// The events' ids.
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "EVENT_ID")]
    events: Vec<String>,
    /// All that are selected.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    selection: Selection,
    /// Only tells which they are.
    #[arg(long)]
    dry_run: bool,
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
    /// The edited data can't be taken.
    #[error("the data in {file} can't be taken: {detail}")]
    Data {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
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
            Action::List { selection, output } => letters.list(&selection, output).await,
            Action::Show { service, events, output } => letters.show(service, &events, output).await,
            Action::Redrive { meant, rate, data } => letters.redrive(&meant, rate, data).await,
            Action::Discard { meant } => letters.discard(&meant).await,
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

    // Looks at all dead letters that are selected, the oldest first.
    async fn each(&self, selection: &Selection, mut look: impl FnMut(&DeadLetter)) -> Result<(), DeadLetterError> {
        let subject = event::dead_letter_subject(&self.messaging.namespace, selection.service.as_deref().unwrap_or("*"), "*");
        let config = OrderedConfig { filter_subject: subject, ..OrderedConfig::default() };
        let mut consumer = self.stream.create_consumer(config).await.map_err(doing("read the dead letters"))?;
        let mut left = consumer.info().await.map_err(doing("read the dead letters"))?.num_pending;
        let mut messages = consumer.messages().await.map_err(doing("read the dead letters"))?;
        while left > 0 {
            let Some(message) = messages.try_next().await.map_err(doing("read the dead letters"))? else { break };
            left -= 1;
            let letter = DeadLetter::new(message.subject.as_str(), message.headers.clone().unwrap_or_default(), &message.payload);
            if selection.selects(&letter) {
                look(&letter);
            }
        }
        Ok(())
    }

    async fn list(&self, selection: &Selection, form: Form) -> Result<(), DeadLetterError> {
        if form == Form::Table {
            println!("{:<28} {:<20} {:<34} {:>8}  ERROR", "EVENT", "SERVICE", "OF", "ATTEMPTS");
        }
        self.each(selection, |letter| match form {
            Form::Table => println!("{}", letter.row()),
            Form::Json => println!("{}", json!(letter.summary())),
        })
        .await
    }

    async fn show(&self, service: Option<String>, events: &[String], form: Form) -> Result<(), DeadLetterError> {
        let selection = Selection { service, ..Selection::default() };
        for (service, event_id) in self.of_events(&selection, events).await? {
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
    async fn redrive(&self, meant: &Meant, rate: Option<Duration>, data: Option<PathBuf>) -> Result<(), DeadLetterError> {
        let found = self.find(meant).await?;
        let data = data.map(|file| EditedData::read(&file, found.len())).transpose()?;
        if meant.dry_run || found.is_empty() {
            return tell(&found, "would be handed over again");
        }
        let mut turns = rate.map(tokio::time::interval);
        if let Some(turns) = &mut turns {
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut failed = 0;
        for batch in found.chunks(REDRIVE_BATCH) {
            let mut handed = Vec::with_capacity(batch.len());
            for (service, event_id) in batch {
                let Some(message) = self.get(service, event_id).await? else { continue };
                let payload = match &data {
                    Some(data) => data.for_event(&message)?,
                    None => message.payload.clone(),
                };
                if let Some(turns) = &mut turns {
                    turns.tick().await;
                }
                match self.hand_over(service, event_id, &message, payload).await {
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
        Ok(())
    }

    async fn discard(&self, meant: &Meant) -> Result<(), DeadLetterError> {
        let found = self.find(meant).await?;
        if meant.dry_run || found.is_empty() {
            return tell(&found, "would be discarded");
        }
        for (service, event_id) in &found {
            let Some(message) = self.get(service, event_id).await? else { continue };
            self.remove(service, event_id, message.sequence).await?;
            println!("{service} {event_id} is discarded");
        }
        Ok(())
    }

    async fn hand_over(&self, service: &str, event_id: &str, message: &StreamMessage, payload: Bytes) -> Result<(), DeadLetterError> {
        let subject = event::retry_due_subject(&self.messaging.namespace, service, event_id);
        let acknowledged = self
            .messaging
            .jetstream
            .publish_with_headers(subject, redriven_headers(&message.headers), payload)
            .await
            .map_err(doing("hand it over"))?;
        acknowledged.await.map(|_| ()).map_err(doing("hand it over"))
    }

    // Removes a dead letter. Where the service has failed again meanwhile, the newer dead letter stays.
    async fn remove(&self, service: &str, event_id: &str, sequence: u64) -> Result<(), DeadLetterError> {
        match self.stream.delete_message(sequence).await {
            Ok(_) => Ok(()),
            Err(error) => match self.get(service, event_id).await? {
                Some(left) if left.sequence == sequence => Err(doing(format!("remove the dead letter of {event_id}"))(error)),
                _ => Ok(()),
            },
        }
    }

    // The dead letters (service and event id) that are meant.
    async fn find(&self, meant: &Meant) -> Result<Vec<(String, String)>, DeadLetterError> {
        let named = if meant.all { None } else { Some(self.of_events(&meant.selection, &meant.events).await?) };
        let mut found = BTreeSet::new();
        match named {
            None => {
                self.each(&meant.selection, |letter| {
                    found.insert(letter.key());
                })
                .await?;
            }
            Some(named) => {
                for (service, event_id) in named {
                    let Some(message) = self.get(&service, &event_id).await? else { continue };
                    if meant.selection.selects(&DeadLetter::new(message.subject.as_str(), message.headers, &message.payload)) {
                        found.insert((service, event_id));
                    }
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    // The dead letters of these events; several services may have one of the same event.
    async fn of_events(&self, selection: &Selection, events: &[String]) -> Result<BTreeSet<(String, String)>, DeadLetterError> {
        let mut found = BTreeSet::new();
        for event_id in events {
            let pattern = event::dead_letter_subject(&self.messaging.namespace, selection.service.as_deref().unwrap_or("*"), event_id);
            let mut subjects = self.stream.info_with_subjects(&pattern).await.map_err(doing("look for dead letters"))?;
            let mut any = false;
            while let Some((subject, _)) = subjects.try_next().await.map_err(doing("look for dead letters"))? {
                if let Some((service, event_id)) = service_and_event(&subject) {
                    found.insert((service.to_owned(), event_id.to_owned()));
                    any = true;
                }
            }
            if !any {
                return Err(DeadLetterError::Unknown(event_id.clone()));
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

fn tell(found: &[(String, String)], what: &str) -> Result<(), DeadLetterError> {
    if found.is_empty() {
        println!("there are no such dead letters");
    }
    for (service, event_id) in found {
        println!("{service} {event_id} {what}");
    }
    Ok(())
}

// What a person gives in place of an event's data.
struct EditedData {
    file: String,
    text: String,
    id: Option<String>,
}

impl EditedData {
    fn read(file: &std::path::Path, events: usize) -> Result<Self, DeadLetterError> {
        let fault = |detail: String| DeadLetterError::Data { file: file.display().to_string(), detail };
        if events > 1 {
            return Err(fault(format!("it would be the data of {events} events; name one of them, and its service")));
        }
        let text = if file.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
        let text = text.map_err(|error| fault(error.to_string()))?;
        let json: Json = serde_json::from_str(&text).map_err(|error| fault(format!("it is no JSON: {error}")))?;
        if !json.is_object() {
            return Err(fault("it is no JSON object".to_owned()));
        }
        Ok(Self { file: file.display().to_string(), text, id: json["id"].as_str().map(str::to_owned) })
    }

    // Another object's data under this event's id would be taken for this event's from then on.
    fn for_event(&self, message: &StreamMessage) -> Result<Bytes, DeadLetterError> {
        let object = message.headers.get(header::SUBJECT).map(|id| id.as_str());
        if self.id.as_deref() != object {
            let detail = format!("its id must be that of the event's object, {}", object.unwrap_or_default());
            return Err(DeadLetterError::Data { file: self.file.clone(), detail });
        }
        Ok(self.text.clone().into())
    }
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

#[cfg(test)]
mod tests {
    use autonomy_crds::event::{DeliveryHistory, HISTORY_HEADER};

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
