//! A delivered message, and the event in it.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::Context;
use async_nats::{HeaderMap, Subject};
use autonomy_crds::event::{DeliveryHistory, HISTORY_HEADER, Position, REPLAY_HEADER, header};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use crate::expression::Value;
use crate::retry::{ATTEMPTS_BEFORE_HEADER, TRIED_SINCE_HEADER};
use crate::service::CompiledService;
use crate::steps::{EventHead, EventInput};

/// The consumer that delivered a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The model's stream.
    Model,
    /// The retry stream.
    Retries,
}

/// Where a message stands: its consumer and its stream sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The consumer.
    pub source: Source,
    /// The stream sequence.
    pub sequence: u64,
}

/// An event as it was delivered; not acknowledged yet.
#[derive(Debug)]
pub struct Event {
    /// Where the message stands.
    pub place: Place,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// What stands for the event: its id, which is its position, and the name of its replay; where it has none, one made from its place.
    pub id: Arc<str>,
    /// Its commit position, 0 where it has none.
    pub commit: u64,
    /// What the steps see.
    pub input: EventInput,
    /// What is wrong with the message itself.
    pub broken: Option<String>,
    /// The message's headers.
    pub headers: HeaderMap,
    /// The message's data.
    pub payload: Bytes,
    /// What happened to it so far.
    pub history: DeliveryHistory,
    /// Failed attempts that don't count any more, because the event was sent on its way again by a person.
    pub attempts_before: u32,
    /// When its first attempt that counts failed, where one has.
    pub tried_since: Option<Timestamp>,
    // Given back when the event is no longer in hand; none where something else bounds what is.
    pub(super) _in_hand: Option<OwnedSemaphorePermit>,
}

impl Event {
    /// Reads a delivered message, and where to acknowledge it; `None` where it does not come from a JetStream consumer.
    pub fn read(
        message: async_nats::Message,
        source: Source,
        service: &CompiledService,
        jetstream: &Context,
        in_hand: Option<OwnedSemaphorePermit>,
    ) -> Option<(Self, Subject)> {
        let message = async_nats::jetstream::Message { message, context: jetstream.clone() };
        let info = message.info().ok()?;
        let place = Place { source, sequence: info.stream_sequence };
        let redelivered = info.delivered > 1;
        let message = message.message;
        let reply = message.reply?;
        let headers = message.headers.unwrap_or_default();
        let mut event = Self::parse(service, place, &message.subject, headers, message.payload);
        (event.redelivered, event._in_hand) = (redelivered, in_hand);
        Some((event, reply))
    }

    /// Reads an event as it is stored; not redelivered.
    pub fn parse(service: &CompiledService, place: Place, subject: &str, headers: HeaderMap, payload: Bytes) -> Self {
        let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());

        let position: Option<Position> = text(header::ID).and_then(|id| id.parse().ok());
        // Runs of a schedule have an id of their own.
        let run = text(header::ID).filter(|id| service.schedule.is_some() && !id.is_empty());
        let mut broken = (position.is_none() && run.is_none()).then(|| format!("the header {} is not an event's position", header::ID));
        let id = position.map(|position| position.to_string()).or(run).unwrap_or_else(|| format!("message-{}", place.sequence));
        let event = EventHead {
            id,
            kind: text(header::TYPE).unwrap_or_default(),
            source: text(header::SOURCE).unwrap_or_default(),
            subject: text(header::SUBJECT).unwrap_or_default(),
            time: text(header::TIME).unwrap_or_default(),
            version: text(header::VERSION).and_then(|version| version.parse().ok()).unwrap_or_default(),
            actor: text(header::ACTOR),
            traceparent: text(header::TRACEPARENT),
            causation_id: text(header::CAUSATION_ID),
            replay: text(REPLAY_HEADER),
        };
        let (object, before) = match service.trigger_reader.as_ref().map(|reader| reader.read_event(&payload)) {
            Some(Ok(read)) => read,
            Some(Err(error)) => {
                broken.get_or_insert_with(|| format!("the event's data can't be read: {error}"));
                (Value::Null, Value::Null)
            }
            None => (Value::Null, Value::Null),
        };
        let history = text(HISTORY_HEADER).and_then(|json| serde_json::from_str(&json).ok());
        let mut history: DeliveryHistory = history.unwrap_or_default();
        if history.subject.is_empty() {
            history.service.clone_from(&service.name);
            history.subject = subject.to_owned();
        }
        // What comes due without the server's scheduler was sent by a person: its attempts begin anew.
        let redriven = place.source == Source::Retries && headers.get(async_nats::header::NATS_SCHEDULER).is_none();
        let attempts_before = if redriven {
            history.attempt_count
        } else {
            text(ATTEMPTS_BEFORE_HEADER).and_then(|count| count.parse().ok()).unwrap_or_default()
        };
        let tried_since = text(TRIED_SINCE_HEADER).and_then(|since| since.parse().ok());
        let id = event.identity();
        Self {
            place,
            redelivered: false,
            id: id.into(),
            commit: position.map_or(0, |position| position.commit),
            input: EventInput { event, object, before },
            broken,
            headers,
            payload,
            history,
            attempts_before,
            tried_since,
            _in_hand: None,
        }
    }

    /// What events of the same object share: they are handled one after another.
    pub fn lane(&self) -> &str {
        &self.input.event.subject
    }

    /// How long it has been tried, since its first attempt that counts.
    pub fn tried_for(&self) -> Duration {
        self.tried_since.and_then(|since| Duration::try_from(Timestamp::now().duration_since(since)).ok()).unwrap_or_default()
    }

    /// How many attempts failed that count.
    pub fn failed_attempts(&self) -> u32 {
        self.history.attempt_count.saturating_sub(self.attempts_before)
    }
}
