//! What becomes of one event: steps, the transaction, and where that fails a retry or a dead letter.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::DirectGetErrorKind;
use autonomy_crds::event::{self as names, DeliveryHistory, HISTORY_HEADER, WriteContext};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::{Event, Source};
use super::holdings::Holdings;
use super::lanes::Lanes;
use super::metrics::Metrics;
use crate::caches::Caches;
use crate::dead_letter::{self, TicketedGroups};
use crate::http_call::HttpCaller;
use crate::retry::{self, add_attempt, backoff};
use crate::service::{CompiledService, TicketRequest};
use crate::steps::{self, EventHead, Failure, Input};
use crate::transactions::{SubmitError, TransactionClient, Unit};

// Ticket desks are not for floods.
const TICKETS_AT_A_TIME: usize = 8;

/// Handles events.
pub struct Handler {
    pub(super) service: Arc<CompiledService>,
    pub(super) caches: Caches,
    pub(super) http: HttpCaller,
    pub(super) transactions: TransactionClient,
    pub(super) jetstream: Context,
    pub(super) holdings: Arc<Holdings>,
    pub(super) metrics: Metrics,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    /// What was acknowledged this long ago is synced.
    pub(super) sync_interval: Duration,
    /// Bounds what runs at a time.
    pub(super) running: Arc<Semaphore>,
    pub(super) tickets: Arc<Semaphore>,
    pub(super) ticketed: TicketedGroups,
    /// Where events go that are to be handled in groups.
    pub(super) window: Option<mpsc::UnboundedSender<Event>>,
    pub(super) lanes: Lanes<Event>,
}

// What already stands in for an event that is delivered again.
enum Standing {
    Retry,
    DeadLetter(DeliveryHistory),
}

impl Handler {
    pub(super) fn ticket_bound() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(TICKETS_AT_A_TIME))
    }

    /// Takes a delivered message on; never waits.
    pub fn accept(self: &Arc<Self>, message: async_nats::Message, source: Source, permit: OwnedSemaphorePermit) {
        let Some((event, acker)) = Event::read(message, source, &self.service, &self.jetstream, permit) else {
            tracing::warn!("a message without a place in a stream was dropped");
            return;
        };
        if !self.holdings.take(event.place, &event.id, acker) {
            return;
        }
        let key = event.lane().to_owned();
        if let Some(event) = self.lanes.enter(&key, event) {
            let handler = self.clone();
            self.tasks.spawn(async move { handler.drive(&key, event).await });
        }
    }

    // Handles an event and those of the same object that queue behind it.
    async fn drive(self: Arc<Self>, key: &str, first: Event) {
        let mut next = Some(first);
        while let Some(event) = next {
            let (place, id) = (event.place, event.id.clone());
            if AssertUnwindSafe(self.handle(event)).catch_unwind().await.is_err() {
                tracing::error!(event = %id, "handling an event failed in a way that it never should; it will be delivered again");
                self.holdings.let_go(place, &id);
            }
            next = self.lanes.leave(key);
        }
    }

    async fn handle(self: &Arc<Self>, event: Event) {
        if event.redelivered
            && let Some(standing) = self.standing(&event).await
        {
            return self.stand(event, standing);
        }
        if let Some(broken) = &event.broken {
            let failure = Failure::fatal(broken);
            return self.fail(event, &failure, rand::random()).await;
        }
        tokio::select! {
            () = self.stop.cancelled() => return,
            () = self.caches.wait_seen(event.commit) => {}
        }
        match self.service.passes_filter(&event.input) {
            Ok(true) => {}
            Ok(false) => {
                self.metrics.filtered.inc();
                return self.holdings.settle(event.place, &event.id).await;
            }
            Err(failure) => return self.fail(event, &failure, rand::random()).await,
        }
        if let Some(window) = &self.window {
            // The receiver lives until the stop.
            let _ = window.send(event);
            return;
        }
        let Some(_running) = self.turn().await else { return };
        match self.run(Input::Event(event.input.clone()), &[&event]).await {
            // A single key that was used before is a replay; both ways the event is done with.
            Ok(()) | Err(SubmitError::PartlyUsed { .. }) => self.done(&event).await,
            Err(SubmitError::Refused(failure)) => self.fail(event, &failure, rand::random()).await,
            Err(SubmitError::Stopping) => {}
        }
    }

    // A turn to run; none when the worker stops.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            permit = self.running.clone().acquire_owned() => permit.ok(),
        }
    }

    /// Runs the steps for events and writes what comes out, as one unit.
    pub(super) async fn run(&self, input: Input, events: &[&Event]) -> Result<(), SubmitError> {
        let outcome = steps::run(&self.service, input, &self.caches, &self.http).await?;
        if outcome.operations.is_empty() {
            return Ok(());
        }
        let head: Option<&EventHead> = events.first().map(|event| &event.input.event);
        let unit = Unit {
            keys: events.iter().map(|event| self.service.idempotency_key(&event.id)).collect(),
            context: WriteContext {
                actor: Some(format!("/namespaces/{}/microservices/{}", self.service.namespace, self.service.name)),
                traceparent: head.and_then(|head| head.traceparent.clone()),
                causation_id: head.map(|head| head.id.clone()),
            },
            operations: outcome.operations,
        };
        self.transactions.submit(unit).await.map(drop)
    }

    /// The event's effects are committed.
    pub(super) async fn done(&self, event: &Event) {
        self.metrics.handled.inc();
        self.holdings.settle(event.place, &event.id).await;
    }

    /// An attempt failed: the event goes to the retries, or becomes a dead letter. `jitter` (0 to 1) spreads retries; events that are to come
    /// back together have the same.
    pub(super) async fn fail(self: &Arc<Self>, event: Event, failure: &Failure, jitter: f64) {
        let failed = event.failed_attempts() + 1;
        let mut history = event.history.clone();
        add_attempt(&mut history, failure, &self.service.revision);
        let wait = backoff(self.service.initial_backoff, self.service.max_backoff, failed, failure.retry_after, jitter);
        let in_time = self.service.max_age.is_none_or(|age| event.tried_for() + wait <= age);
        if failure.retryable && failed < self.service.spec.retry.max_attempts && in_time {
            tracing::debug!(event = %event.id, failed, ?wait, error = failure.message, "to be tried again");
            if let Ok(at) = retry::schedule(&self.jetstream, &self.service, &event, &history, wait, &self.stop).await {
                self.metrics.retried.inc();
                self.holdings.defer(event.place, &event.id, at + self.sync_interval);
            }
            return;
        }
        tracing::warn!(event = %event.id, subject = history.subject, failed, error = failure.message, "becomes a dead letter");
        if let Ok(at) = dead_letter::write(&self.jetstream, &self.service, &event, &history, &self.stop).await {
            self.metrics.dead_lettered.inc();
            self.raise_ticket(event, &history, at);
        }
    }

    // The dead letter is written; its message is acknowledged when there is a ticket too. The event is no longer in hand meanwhile: a ticket
    // desk that is down holds up nothing.
    fn raise_ticket(self: &Arc<Self>, event: Event, history: &DeliveryHistory, written: Instant) {
        let (place, id) = (event.place, event.id.clone());
        let until = written + self.sync_interval;
        let ticket: TicketRequest = match dead_letter::ticket(&self.service, &event, history) {
            Ok(Some(ticket)) => ticket,
            Ok(None) => return self.holdings.defer(place, &id, until),
            Err(error) => {
                tracing::error!(event = %id, error, "there can be no ticket; the dead letter stands");
                self.metrics.tickets_failed.inc();
                return self.holdings.defer(place, &id, until);
            }
        };
        drop(event);
        let group = ticket.group.clone();
        let key = match &group {
            Some(group) => match self.ticketed.key(&self.service, group) {
                Some(key) => key,
                None => return self.holdings.defer(place, &id, until),
            },
            None => dead_letter::ticket_key(&self.service, &id, history),
        };
        let handler = self.clone();
        self.tasks.spawn(async move {
            let Ok(_turn) = handler.tickets.clone().acquire_owned().await else { return };
            match dead_letter::raise(&handler.http, &handler.service, ticket, &key, &handler.stop).await {
                Ok(true) => handler.metrics.tickets.inc(),
                Ok(false) => {
                    handler.metrics.tickets_failed.inc();
                    group.iter().for_each(|group| handler.ticketed.forget(group));
                    0
                }
                // Without an acknowledgement the event comes again, and finds its dead letter.
                Err(_) => return,
            };
            handler.holdings.defer(place, &id, until.max(Instant::now()));
        });
    }

    fn stand(self: &Arc<Self>, event: Event, standing: Standing) {
        let now = Instant::now();
        match standing {
            Standing::Retry => self.holdings.defer(event.place, &event.id, now + self.sync_interval),
            Standing::DeadLetter(history) => self.raise_ticket(event, &history, now),
        }
    }

    // Whether a crash came between the retry or dead letter of this event and its acknowledgement.
    async fn standing(&self, event: &Event) -> Option<Standing> {
        let (namespace, service) = (self.service.namespace.as_str(), self.service.name.as_str());
        let further = |history: &DeliveryHistory| history.attempt_count > event.history.attempt_count;
        let letter = names::dead_letter_subject(namespace, service, &event.id);
        if let Some(history) = self.history_of(names::dead_letter_stream(namespace), letter).await.filter(further) {
            return Some(Standing::DeadLetter(history));
        }
        let retries = names::retry_stream(namespace);
        for subject in
            [names::retry_scheduled_subject(namespace, service, &event.id), names::retry_due_subject(namespace, service, &event.id)]
        {
            if self.history_of(retries.clone(), subject).await.is_some_and(|history| further(&history)) {
                return Some(Standing::Retry);
            }
        }
        None
    }

    // The history of a subject's message. Where it can't be had the event is handled once more, which does no harm.
    async fn history_of(&self, stream: String, subject: String) -> Option<DeliveryHistory> {
        let stream = self.jetstream.get_stream_no_info(stream).await.ok()?;
        match stream.direct_get_last_for_subject(subject).await {
            Ok(message) => serde_json::from_str(message.headers.get(HISTORY_HEADER)?.as_str()).ok(),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => None,
            Err(error) => {
                tracing::debug!(%error, "it is not known whether a redelivered event has a retry");
                None
            }
        }
    }
}
