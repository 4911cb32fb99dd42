//! One subscriber: Server-Sent Events as its client takes them. Nothing runs between: a client that takes nothing asks for nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Message;
use autonomy_crds::cloud_event;
use autonomy_crds::event::{Position, header};
use autonomy_process::catalog::Catalog;
use autonomy_process::telemetry::error_chain;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::deliveries::{Deliveries, Delivery, IDLE, Lost};
use super::matching::Matcher;
use super::nats::Nats;
use super::place::{self, Place};
use crate::metrics::Subscriber;
use crate::plan::EntityPlan;

// Events that are there already go out together, up to about so many bytes.
const PIECE_BYTES: usize = 64 * 1024;
// How often one who is ahead of the stream looks whether it has come.
const LOOK: Duration = Duration::from_millis(500);
// A client that got nothing for so long gets a comment when the present request's time is over.
const KEEP_ALIVE: Duration = IDLE.saturating_sub(Duration::from_secs(2));

/// What a session takes its events from.
pub enum Source {
    /// The relay has to bring this event again before anything behind it is told.
    Awaiting(Position),
    /// A consumer.
    Consumer(Box<Deliveries>),
}

/// A subscriber.
pub struct Session {
    /// The entity as it was when the subscription began; when it is another one, the session ends.
    pub plan: Arc<EntityPlan>,
    /// The filters.
    pub matcher: Matcher,
    /// The subjects of what is asked for.
    pub subjects: Vec<String>,
    /// The connection.
    pub nats: Arc<Nats>,
    /// Counts lost connections.
    pub interruptions: watch::Receiver<u64>,
    /// The catalog.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Cancelled when the process stops.
    pub stop: CancellationToken,
    /// Where events come from.
    pub source: Source,
    /// The last event that was told or passed over; where nothing is known of one, the first of all positions.
    pub last: Position,
    /// The last position that the client was told.
    pub told: Option<Position>,
    /// What the client gets before anything else.
    pub greeting: Option<Bytes>,
    /// When it last got something.
    pub sent: Instant,
    /// Whether nothing more will come.
    pub ended: bool,
    /// Counts it.
    pub subscriber: Subscriber,
    /// Its place among the subscribers.
    pub _permit: OwnedSemaphorePermit,
}

// What happened while a session waited.
enum Happening {
    End,
    Catalog,
    Look,
    Delivered(Delivery),
}

impl Session {
    /// The next piece of the answer; none at its end.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        let mut piece = Vec::new();
        while piece.is_empty() {
            if self.ended {
                return None;
            }
            match self.wait().await {
                Happening::End => self.ended = true,
                Happening::Catalog => self.ended = self.serves_another_entity(),
                Happening::Look => self.ended = self.look().await.is_none(),
                Happening::Delivered(delivery) => self.take(delivery, &mut piece).await,
            }
            if piece.is_empty() && !self.ended && self.sent.elapsed() >= KEEP_ALIVE {
                self.keep_alive(&mut piece);
            }
        }
        self.sent = Instant::now();
        Some(piece.into())
    }

    async fn wait(&mut self) -> Happening {
        let source = &mut self.source;
        let arriving = async {
            match source {
                Source::Awaiting(_) => {
                    tokio::time::sleep(LOOK).await;
                    Happening::Look
                }
                Source::Consumer(deliveries) => deliveries.next().await.map_or_else(lost, Happening::Delivered),
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Happening::End,
            // The server that is found again may have lost its tail.
            _ = self.interruptions.changed() => Happening::End,
            changed = self.catalog.changed() => changed.map_or(Happening::End, |()| Happening::Catalog),
            happening = arriving => happening,
        }
    }

    // Values and filters would have another meaning, or there is nothing to come any more.
    fn serves_another_entity(&mut self) -> bool {
        let catalog = self.catalog.borrow_and_update();
        let now = catalog.models.get(&self.plan.model.name);
        let same = now.is_some_and(|model| {
            model.stream == self.plan.model.stream
                && model.entity(&self.plan.entity().name).is_some_and(|entity| entity == self.plan.entity())
        });
        !same
    }

    // Begins behind the event that is waited for, when it has come; none where it will not come.
    async fn look(&mut self) -> Option<()> {
        let Source::Awaiting(wanted) = self.source else { return Some(()) };
        let model = &self.plan.model;
        let stream = self.nats.jetstream.get_stream(&model.stream).await.ok()?;
        match place::find(&stream, &model.stream_subjects, wanted).await.ok()? {
            Place::Ahead => {}
            Place::Gone => return None,
            Place::At(sequence) => {
                let deliveries = Deliveries::begin(&self.nats.jetstream, &stream, self.subjects.clone(), sequence + 1).await.ok()?;
                self.source = Source::Consumer(Box::new(deliveries));
            }
        }
        Some(())
    }

    // Writes an event, and those that are at hand behind it.
    async fn take(&mut self, first: Delivery, piece: &mut Vec<u8>) {
        let mut next = Some(first);
        while let Some(delivery) = next.take() {
            match delivery {
                Delivery::Message(message) => self.ended = !self.write(&message, piece),
                Delivery::Nothing => self.move_on().await,
            }
            if let Source::Consumer(deliveries) = &mut self.source
                && !self.ended
                && piece.len() < PIECE_BYTES
            {
                match deliveries.next_at_hand() {
                    Ok(delivery) => next = delivery,
                    // What is there is told before.
                    Err(error) => self.ended = matches!(lost(error), Happening::End),
                }
            }
        }
    }

    // False where the order is broken.
    fn write(&mut self, message: &Message, piece: &mut Vec<u8>) -> bool {
        let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str());
        let Some(position) = header(header::ID).and_then(|id| id.parse::<Position>().ok()) else {
            tracing::warn!(subject = %message.subject, "a message of a model's stream is no event of the relay; it is passed over");
            return true;
        };
        if position <= self.last {
            tracing::warn!(%position, last = %self.last, stream = self.plan.model.stream, "events are out of order; the subscriber is sent away");
            return false;
        }
        self.last = position;
        if !self.matcher.matches(&self.plan, &message.payload) {
            return true;
        }
        let operation = message.subject.split('.').nth(4).unwrap_or_default();
        piece.extend_from_slice(format!("id: {position}\nevent: {operation}\ndata: ").as_bytes());
        cloud_event::write_structured(header, &message.payload, piece);
        piece.extend_from_slice(b"\n\n");
        self.told = Some(position);
        self.subscriber.sent();
        true
    }

    // Where nothing comes for this subscriber, its place moves on with the stream all the same: so it does not expire.
    async fn move_on(&mut self) {
        let Source::Consumer(deliveries) = &self.source else { return };
        let model = &self.plan.model;
        let Ok(stream) = self.nats.jetstream.get_stream_no_info(&model.stream).await else { return };
        let Ok(Some((_, position))) = place::last(&stream, &model.stream_subjects).await else { return };
        // The end is read first: what the consumer has not delivered then is behind it.
        if position > self.last && deliveries.is_at_end().await {
            self.last = position;
        }
    }

    // A comment, and the place that the client comes back with, which is no event.
    fn keep_alive(&mut self, piece: &mut Vec<u8>) {
        piece.extend_from_slice(b": nothing new\n");
        if self.last != Position::default() && self.told != Some(self.last) && matches!(self.source, Source::Consumer(_)) {
            piece.extend_from_slice(format!("id: {}\n", self.last).as_bytes());
            self.told = Some(self.last);
        }
        piece.push(b'\n');
    }
}

fn lost(error: Lost) -> Happening {
    tracing::debug!(error = %error_chain(&error), "a subscriber is sent away to come back");
    Happening::End
}
