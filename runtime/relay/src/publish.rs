//! Publishing to JetStream: a single writer a stream, many messages on their way at once. Each message names the sequence that must be the
//! stream's last, so that after one that was lost or refused none behind it is taken: the stream holds an unbroken beginning of what was sent,
//! and an acknowledgement of one message is one of all before it. So only one in many asks for one: each costs the server a message, too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::header::HeaderName;
use async_nats::{Client, HeaderValue, Message, StatusCode, Subject, Subscriber};
use autonomy_crds::event::Position;
use autonomy_crds::micro_service::Operation;
use futures::{FutureExt, StreamExt};
use serde::Deserialize;

use crate::render::Event;

/// How much may be on its way. The acknowledgements' subscription holds more than `messages`, so none is ever dropped.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Messages.
    pub messages: usize,
    /// Bytes of data.
    pub bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self { messages: 8192, bytes: 16 << 20 }
    }
}

// The oldest message on its way is answered within this time, or the connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(15);
// In a row of messages to one stream so many share an acknowledgement.
const MESSAGES_AN_ACKNOWLEDGEMENT: u64 = 64;
const EXPECTED_LAST_SEQUENCE: HeaderName = HeaderName::from_static("Nats-Expected-Last-Sequence");

/// Why publishing stopped. What was on its way may be stored or not: the streams' tails tell.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The connection took no more.
    #[error("NATS takes no messages")]
    Send(#[source] async_nats::client::PublishError),
    /// The acknowledgements can't be heard.
    #[error("the subscription to acknowledgements can't be made or ended")]
    Subscription(#[source] Option<async_nats::SubscribeError>),
    /// No stream listens.
    #[error("no stream took an event of stream {stream}: it is missing, or its JetStream is not available")]
    NoStream {
        /// The stream meant.
        stream: String,
    },
    /// JetStream refused.
    #[error("stream {stream} refused the event that was to be its message {sequence}: {description} (error {code})")]
    Refused {
        /// The stream.
        stream: String,
        /// The sequence the message was to have.
        sequence: u64,
        /// JetStream's error code; 10071 is a wrong last sequence: another writer was there, or the stream lost its tail.
        code: u64,
        /// JetStream's words.
        description: String,
    },
    /// Another stream than the one meant answered.
    #[error("an event of stream {stream} was answered with {answer:?}; do the subjects of two streams overlap?")]
    Unexpected {
        /// The stream meant.
        stream: String,
        /// The answer.
        answer: String,
    },
    /// No answer in time.
    #[error("stream {stream} did not acknowledge within {} s", PATIENCE.as_secs())]
    Silent {
        /// The stream.
        stream: String,
    },
}

// A message on its way.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    sequence: u64,
    ordinal: u64,
    entity: u32,
    operation: Operation,
    bytes: u32,
    position: Position,
    sent: Instant,
}

/// The end of a stream as its writer knows it.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    /// The last sequence.
    pub sequence: u64,
    /// The position of the last event; `None` where there was none yet.
    pub position: Option<Position>,
}

#[derive(Debug)]
struct Output {
    stream: String,
    reply: Subject,
    // What was sent and what was acknowledged.
    sent: Tail,
    acknowledged: Tail,
    in_flight: VecDeque<InFlight>,
}

/// What an acknowledgement settled.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// The index of the entity.
    pub entity: usize,
    /// What happened.
    pub operation: Operation,
    /// Its sequence in the stream.
    pub sequence: u64,
}

/// The writer of the model streams.
pub struct Publisher {
    client: Client,
    answers: Subscriber,
    inbox: String,
    outputs: Vec<Output>,
    window: Window,
    messages: usize,
    bytes: usize,
    ordinal: u64,
    // The last message, until it is known whether another one follows it.
    held: Option<Event>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    seq: u64,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Publisher {
    /// A writer on this connection.
    ///
    /// # Errors
    /// When acknowledgements can't be subscribed to.
    pub async fn new(client: Client, window: Window) -> Result<Self, PublishError> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await.map_err(|error| PublishError::Subscription(Some(error)))?;
        Ok(Self { client, answers, inbox, outputs: Vec::new(), window, messages: 0, bytes: 0, ordinal: 0, held: None })
    }

    /// How many streams it writes to; the next one given to [`Self::add`] has this index.
    pub fn streams(&self) -> usize {
        self.outputs.len()
    }

    /// Takes a stream to write to, from its tail.
    pub fn add(&mut self, stream: String, tail: Tail) {
        let reply = Subject::from(format!("{}.{}", self.inbox, self.outputs.len()));
        self.outputs.push(Output { stream, reply, sent: tail.clone(), acknowledged: tail, in_flight: VecDeque::new() });
    }

    /// The position of the last event sent to a stream: nothing at or before it is sent again.
    pub fn sent(&self, feed: usize) -> Option<Position> {
        self.outputs.get(feed).and_then(|output| output.sent.position)
    }

    /// The end of a stream, as far as acknowledged.
    pub fn acknowledged(&self, feed: usize) -> Option<&Tail> {
        self.outputs.get(feed).map(|output| &output.acknowledged)
    }

    /// Takes a repair's place as the stream's, where it published nothing there.
    pub fn raise_position(&mut self, feed: usize, position: Position) {
        if let Some(output) = self.outputs.get_mut(feed) {
            output.sent.position = output.sent.position.max(Some(position));
            output.acknowledged.position = output.acknowledged.position.max(Some(position));
        }
    }

    /// Whether another message may be sent now.
    pub fn has_room(&self) -> bool {
        self.messages < self.window.messages && self.bytes < self.window.bytes
    }

    /// Messages on their way.
    pub fn in_flight(&self) -> usize {
        self.messages
    }

    /// How many messages were ever sent.
    pub fn sent_count(&self) -> u64 {
        self.ordinal
    }

    /// How many of the messages sent, counted from the first, are acknowledged without a gap.
    pub fn settled_count(&self) -> u64 {
        let oldest = self.outputs.iter().filter_map(|output| output.in_flight.front()).map(|message| message.ordinal).min();
        oldest.unwrap_or(self.ordinal)
    }

    /// Sends an event, at the latest with the next one or with [`Self::flush`]. The caller looks at [`Self::has_room`] first.
    ///
    /// # Errors
    /// When the connection takes no more.
    pub async fn publish(&mut self, mut event: Event) -> Result<(), PublishError> {
        let Some(output) = self.outputs.get_mut(event.feed) else {
            return Err(PublishError::NoStream { stream: format!("of model number {}", event.feed) });
        };
        event.headers.insert(EXPECTED_LAST_SEQUENCE, HeaderValue::from(output.sent.sequence));
        let bytes = event.data.len();
        output.sent = Tail { sequence: output.sent.sequence + 1, position: Some(event.position) };
        output.in_flight.push_back(InFlight {
            sequence: output.sent.sequence,
            ordinal: self.ordinal,
            entity: event.entity as u32,
            operation: event.operation,
            bytes: bytes as u32,
            position: event.position,
            sent: Instant::now(),
        });
        self.ordinal += 1;
        self.messages += 1;
        self.bytes += bytes;
        let feed = event.feed;
        match self.held.replace(event) {
            Some(before) => {
                let asks = before.feed != feed || self.ordinal.is_multiple_of(MESSAGES_AN_ACKNOWLEDGEMENT);
                self.send(before, asks).await
            }
            None => Ok(()),
        }
    }

    /// Sends what is held back. To be called before waiting for anything: what is dropped in the middle is not sent.
    ///
    /// # Errors
    /// When the connection takes no more.
    pub async fn flush(&mut self) -> Result<(), PublishError> {
        match self.held.take() {
            Some(last) => self.send(last, true).await,
            None => Ok(()),
        }
    }

    async fn send(&self, Event { feed, subject, headers, data, .. }: Event, asks_for_acknowledgement: bool) -> Result<(), PublishError> {
        let sent = match self.outputs.get(feed).filter(|_| asks_for_acknowledgement) {
            Some(output) => self.client.publish_with_reply_and_headers(subject, output.reply.clone(), headers, data).await,
            None => self.client.publish_with_headers(subject, headers, data).await,
        };
        sent.map_err(PublishError::Send)
    }

    /// Waits for an acknowledgement, and takes all that are there. Can be dropped while it waits.
    ///
    /// # Errors
    /// When a message was refused or the connection ended.
    pub async fn answers(&mut self, mut acknowledged: impl FnMut(Acknowledged)) -> Result<(), PublishError> {
        let mut next = Some(self.answers.next().await);
        while let Some(message) = next {
            let message = message.ok_or(PublishError::Subscription(None))?;
            self.take(&message, &mut acknowledged)?;
            next = self.answers.next().now_or_never();
        }
        Ok(())
    }

    /// Fails where an acknowledgement is overdue.
    ///
    /// # Errors
    /// Names the stream.
    pub fn check(&self) -> Result<(), PublishError> {
        let overdue = self.outputs.iter().find(|output| output.in_flight.front().is_some_and(|oldest| oldest.sent.elapsed() > PATIENCE));
        match overdue {
            Some(output) => Err(PublishError::Silent { stream: output.stream.clone() }),
            None => Ok(()),
        }
    }

    fn take(&mut self, message: &Message, acknowledged: &mut impl FnMut(Acknowledged)) -> Result<(), PublishError> {
        let index = message.subject.rsplit('.').next().and_then(|token| token.parse::<usize>().ok());
        let Some(output) = index.and_then(|index| self.outputs.get_mut(index)) else {
            return Ok(());
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(PublishError::NoStream { stream: output.stream.clone() });
        }
        let sequence = match sequence_of(&message.payload, &output.stream) {
            Some(sequence) => sequence,
            None => return Err(refusal(output, &message.payload)),
        };
        while let Some(oldest) = output.in_flight.front().copied() {
            if oldest.sequence > sequence {
                break;
            }
            output.in_flight.pop_front();
            output.acknowledged = Tail { sequence: oldest.sequence, position: Some(oldest.position) };
            self.messages -= 1;
            self.bytes -= oldest.bytes as usize;
            acknowledged(Acknowledged { entity: oldest.entity as usize, operation: oldest.operation, sequence: oldest.sequence });
        }
        Ok(())
    }
}

// The sequence of a plain acknowledgement, `{"stream":"X","seq":1}`, without a JSON parser: this is done for each message.
fn sequence_of(payload: &[u8], stream: &str) -> Option<u64> {
    let rest = payload.strip_prefix(b"{\"stream\":\"")?.strip_prefix(stream.as_bytes())?;
    let rest = rest.strip_prefix(b"\",").map(|rest| rest.strip_prefix(b" ").unwrap_or(rest))?.strip_prefix(b"\"seq\":")?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

fn refusal(output: &Output, payload: &[u8]) -> PublishError {
    let unexpected = || PublishError::Unexpected { stream: output.stream.clone(), answer: String::from_utf8_lossy(payload).into_owned() };
    let Ok(answer) = serde_json::from_slice::<Answer>(payload) else {
        return unexpected();
    };
    match answer.error {
        Some(refusal) => PublishError::Refused {
            stream: output.stream.clone(),
            sequence: output.in_flight.front().map_or(0, |oldest| oldest.sequence),
            code: refusal.err_code,
            description: refusal.description,
        },
        None => {
            tracing::debug!(stream = answer.stream, seq = answer.seq, "an acknowledgement of a form not known");
            unexpected()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_read() {
        assert_eq!(sequence_of(br#"{"stream":"NS_RETAIL", "seq":42}"#, "NS_RETAIL"), Some(42));
        assert_eq!(sequence_of(br#"{"stream":"NS_RETAIL","seq":7,"domain":"x"}"#, "NS_RETAIL"), Some(7));
        assert_eq!(sequence_of(br#"{"stream":"OTHER","seq":7}"#, "NS_RETAIL"), None);
        assert_eq!(sequence_of(br#"{"error":{"code":400},"stream":"NS_RETAIL","seq":0}"#, "NS_RETAIL"), None);
    }
}
