//! Messages that are delivered and not acknowledged yet: the server is told again and again that they are in hand, and those whose retry or
//! dead letter is on its way are acknowledged when that one counts as synced.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::message::AckKind;
use async_nats::jetstream::stream::{DeleteMessageErrorKind, Stream};
use async_nats::{Client, Subject};
use autonomy_process::telemetry::error_chain;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::acknowledgements::Acknowledgements;
use super::event::{Place, Source};

const PROGRESS: Duration = Duration::from_secs(5);
// How often deferred acknowledgements are looked at.
const TICK: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(200);
const AT_A_TIME: usize = 64;

/// The messages of both consumers that are not acknowledged.
#[derive(Debug)]
pub struct Holdings {
    held: Mutex<HashMap<Place, Held>>,
    client: Client,
    acknowledgements: Acknowledgements,
    // Retries are deleted when they are done with: their stream keeps what waits, and nothing else.
    retries: Stream<()>,
    stop: CancellationToken,
}

struct Held {
    // Where the server is told what becomes of it.
    reply: Subject,
    event: Arc<str>,
    // When what replaces the message counts as synced; none while the message is in hand.
    until: Option<Instant>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("event", &self.event).field("until", &self.until).finish_non_exhaustive()
    }
}

impl Holdings {
    /// Nothing held. `retries` is the retry stream; `acknowledgements` are those of the model's events.
    pub fn new(client: Client, acknowledgements: Acknowledgements, retries: Stream<()>, stop: CancellationToken) -> Self {
        Self { held: Mutex::default(), client, acknowledgements, retries, stop }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message in hand; false where it is held already, so that this delivery is a repetition.
    pub fn take(&self, place: Place, event: &Arc<str>, reply: Subject) -> bool {
        let mut held = self.lock();
        match held.get_mut(&place) {
            // The same event once more: whatever happens to the one in hand counts for this delivery too.
            Some(own) if own.event == *event => {
                own.reply = reply;
                false
            }
            _ => {
                held.insert(place, Held { reply, event: event.clone(), until: None });
                true
            }
        }
    }

    /// The message is acknowledged at this time, unless its event is done with before.
    pub fn defer(&self, place: Place, event: &Arc<str>, until: Instant) {
        if let Some(held) = self.lock().get_mut(&place).filter(|held| held.event == *event) {
            held.until = Some(until);
        }
    }

    /// Lets a message go without acknowledging it: the server delivers it again.
    pub fn let_go(&self, place: Place, event: &Arc<str>) {
        let mut held = self.lock();
        // A stream that lost its tail may have another event in this place by now.
        if held.get(&place).is_some_and(|held| held.event == *event) {
            held.remove(&place);
        }
    }

    /// The event is done with: acknowledges the message, and whatever else waits for the same event.
    pub async fn settle(&self, place: Place, event: &Arc<str>) {
        self.acknowledge(place, event).await;
        let others: Vec<Place> = {
            let held = self.lock();
            // Only a retry has another message that waits: the one it replaces.
            if place.source == Source::Model {
                return;
            }
            held.iter().filter(|(_, held)| held.until.is_some() && held.event == *event).map(|(place, _)| *place).collect()
        };
        for other in others {
            self.acknowledge(other, event).await;
        }
    }

    /// How many messages are in hand, and how many wait for what replaces them to be synced.
    pub fn counts(&self) -> (usize, usize) {
        let held = self.lock();
        let deferred = held.values().filter(|held| held.until.is_some()).count();
        (held.len() - deferred, deferred)
    }

    // Acknowledges with the server's confirmation. It goes on trying through a lost connection: a message that is delivered again would do
    // no harm, but would call web services once more.
    async fn acknowledge(&self, place: Place, event: &Arc<str>) {
        let mut tries = 0;
        loop {
            let reply = self.lock().get(&place).filter(|held| held.event == *event).map(|held| held.reply.clone());
            let Some(reply) = reply else { return };
            let done = match place.source {
                Source::Model if tries == 0 => self.acknowledgements.acknowledge(reply).await.map_err(|error| error_chain(&*error)),
                Source::Model => self.acknowledgements.acknowledge_alone(reply).await.map_err(|error| error_chain(&*error)),
                Source::Retries => self.delete(reply, place.sequence).await,
            };
            tries += 1;
            match done {
                Ok(()) => break,
                Err(error) if self.stop.is_cancelled() || tries >= 100 => {
                    tracing::warn!(sequence = place.sequence, error, "a message could not be acknowledged; it will be delivered again");
                    break;
                }
                Err(error) => tracing::debug!(sequence = place.sequence, error, "acknowledging again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.let_go(place, event);
    }

    // Deleting first: a crash in between leaves an entry of the consumer without a message, which the server drops by itself.
    async fn delete(&self, reply: Subject, sequence: u64) -> Result<(), String> {
        match self.retries.delete_message(sequence).await {
            Ok(_) => {}
            // Replaced by a newer one, or deleted before.
            Err(error) if matches!(error.kind(), DeleteMessageErrorKind::JetStream(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        self.client.publish(reply, AckKind::Ack.into()).await.map_err(|error| error.to_string())
    }

    /// Keeps the server told, and acknowledges what is due, until told to end.
    pub async fn keep(&self, end: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        let mut told = Instant::now();
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                _ = tick.tick() => {}
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let replies: Vec<Subject> = self.lock().values().map(|held| held.reply.clone()).collect();
                for reply in replies {
                    if let Err(error) = self.client.publish(reply, AckKind::Progress.into()).await {
                        tracing::debug!(%error, "the server could not be told that messages are in hand");
                        break;
                    }
                }
            }
            let now = Instant::now();
            let due: Vec<(Place, Arc<str>)> = self
                .lock()
                .iter()
                .filter(|(_, held)| held.until.is_some_and(|until| until <= now))
                .map(|(place, held)| (*place, held.event.clone()))
                .collect();
            let acknowledge = |(place, event): (Place, Arc<str>)| async move { self.acknowledge(place, &event).await };
            // The others still need their signs of life, so this waits no longer than until the next is due.
            let _ = tokio::time::timeout(PROGRESS, futures::stream::iter(due).for_each_concurrent(AT_A_TIME, acknowledge)).await;
        }
    }

    /// Gives everything in hand back, so that another worker gets it at once.
    pub async fn give_back(&self) {
        let replies: Vec<Subject> = self.lock().drain().filter(|(_, held)| held.until.is_none()).map(|(_, held)| held.reply).collect();
        for reply in replies {
            if self.client.publish(reply, AckKind::Nak(None).into()).await.is_err() {
                return;
            }
        }
    }
}
