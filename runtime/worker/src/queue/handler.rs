//! What becomes of one event: steps, the transaction, and where that fails a retry or a dead letter.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::DirectGetErrorKind;
use autonomy_crds::event::{self as names, DeliveryHistory, HISTORY_HEADER, WriteContext};
use autonomy_process::trace::{self, Processed};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::event::{Event, Source};
use super::holdings::Holdings;
use super::lanes::Lanes;
use super::metrics::Metrics;
use super::publish::Stopping;
use crate::caches::{Barrier, Caches};
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
    /// Before runs of a schedule, which have no place in the log.
    pub(super) barrier: Option<Barrier>,
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

/// Why an event was not handled.
#[derive(Debug)]
pub(super) enum Unhandled {
    /// It failed.
    Failed(Failure),
    /// The worker stops.
    Stopping,
}

/// What becomes of an event that failed.
pub(super) enum Verdict {
    /// It is tried again, after a while.
    Retry(Duration),
    /// It becomes a dead letter.
    DeadLetter,
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
        let Some((event, reply)) = Event::read(message, source, &self.service, &self.jetstream, Some(permit)) else {
            tracing::warn!("a message without a place in a stream was dropped");
            return;
        };
        if !self.holdings.take(event.place, &event.id, reply) {
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
            let span = tracing::info_span!("handle", event = %id);
            if AssertUnwindSafe(self.handle(event)).catch_unwind().instrument(span).await.is_err() {
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
        let attempt = match self.admit(&event).await {
            Ok(true) => match &self.window {
                // The receiver lives until the stop.
                Some(window) => return drop(window.send(event)),
                None => self.attempt(&event).await,
            },
            Ok(false) => return self.holdings.settle(event.place, &event.id).await,
            Err(error) => Err(error),
        };
        match attempt {
            Ok(()) => self.done(&event).await,
            Err(Unhandled::Failed(failure)) => self.fail(event, &failure, rand::random()).await,
            Err(Unhandled::Stopping) => {}
        }
    }

    /// Whether an event is to be handled, when the caches have seen what they must have seen.
    pub(super) async fn admit(&self, event: &Event) -> Result<bool, Unhandled> {
        if let Some(broken) = &event.broken {
            return Err(Unhandled::Failed(Failure::fatal(broken)));
        }
        if !self.caches_have_seen(event).await {
            return Err(Unhandled::Stopping);
        }
        let passes = self.service.passes_filter(&event.input).map_err(Unhandled::Failed)?;
        if !passes {
            self.metrics.filtered.inc();
        }
        Ok(passes)
    }

    /// Runs the steps for an event, when it has its turn, and writes what comes out.
    pub(super) async fn attempt(&self, event: &Event) -> Result<(), Unhandled> {
        let Some(_running) = self.turn().await else { return Err(Unhandled::Stopping) };
        match self.run(self.input(event), &[event]).await {
            // A single key that was used before is a replay; both ways the event is done with.
            Ok(()) | Err(SubmitError::PartlyUsed { .. }) => Ok(()),
            Err(SubmitError::Refused(failure)) => Err(Unhandled::Failed(failure)),
            Err(SubmitError::Stopping) => Err(Unhandled::Stopping),
        }
    }

    // Whether the caches have seen everything committed before the event, or before now for a run; not when the worker stops.
    async fn caches_have_seen(&self, event: &Event) -> bool {
        if let Some(barrier) = &self.barrier {
            return barrier.in_sync().await && barrier.pass().await;
        }
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = self.caches.wait_seen(event.commit) => true,
        }
    }

    fn input(&self, event: &Event) -> Input {
        match self.service.schedule {
            Some(_) => Input::Run(event.input.event.clone()),
            None => Input::Event(event.input.clone()),
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
        let begun = Instant::now();
        let span = trace::consumer(|| self.processed(events), events.iter().map(|event| event.input.event.traceparent.as_deref()));
        let traceparent = events.first().and_then(|event| event.input.event.traceparent.as_deref());
        let result = trace::carrying(traceparent, self.run_and_write(input, events)).instrument(span.clone()).await;
        if let Err(SubmitError::Refused(failure)) = &result {
            trace::failed(&span, if failure.retryable { "retryable" } else { "failed" }, &failure.message);
        }
        self.metrics.attempted(&result, begun.elapsed());
        result
    }

    fn processed<'e>(&'e self, events: &[&'e Event]) -> Processed<'e> {
        let queue = self.service.spec.trigger.queue.as_ref();
        let one = if let [event] = events { Some(*event) } else { None };
        Processed {
            service: &self.service.name,
            stream: queue.map(|queue| names::stream(&self.service.namespace, &queue.model)).unwrap_or_default(),
            entity: queue.map(|queue| format!("{}.{}", queue.model, queue.entity)).unwrap_or_default(),
            event: one.map(|event| &*event.id),
            failed: one.map_or(0, Event::failed_attempts),
        }
    }

    async fn run_and_write(&self, input: Input, events: &[&Event]) -> Result<(), SubmitError> {
        let outcome = steps::run(&self.service, input, &self.caches, &self.http).await?;
        if outcome.operations.is_empty() {
            return Ok(());
        }
        let head: Option<&EventHead> = events.first().map(|event| &event.input.event);
        let unit = Unit {
            keys: events.iter().map(|event| self.key(event)).collect(),
            context: WriteContext {
                actor: Some(names::service_source(&self.service.namespace, &self.service.name)),
                traceparent: trace::outgoing(),
                causation_id: head.map(|head| head.id.clone()),
            },
            operations: outcome.operations,
        };
        self.transactions.submit(unit).await.map(drop)
    }

    // The key of an event's effects. In order per key the key of a dead letter is used up, so that one sent on its way again needs another.
    fn key(&self, event: &Event) -> String {
        let key = self.service.idempotency_key(&event.id);
        if event.attempts_before > 0 && self.service.spec.is_ordered_by_key() {
            return format!("{key}~{}", event.attempts_before);
        }
        key
    }

    /// Sees to it that no attempt at this event can take effect any more, wherever it is under way; true where one has already.
    pub(super) async fn use_up_key(&self, event: &Event) -> Result<bool, SubmitError> {
        let unit = Unit { keys: vec![self.key(event)], ..Unit::default() };
        self.transactions.submit(unit).await.map(|outcome| outcome.wrote)
    }

    /// The event's effects are committed.
    pub(super) async fn done(&self, event: &Event) {
        self.metrics.done(&event.input.event.time);
        self.holdings.settle(event.place, &event.id).await;
    }

    /// An attempt failed: the event goes to the retries, or becomes a dead letter. `jitter` (0 to 1) spreads retries; events that are to come
    /// back together have the same.
    pub(super) async fn fail(self: &Arc<Self>, event: Event, failure: &Failure, jitter: f64) {
        let (history, verdict) = self.judge(&event, failure, jitter);
        if let Verdict::Retry(wait) = verdict {
            if let Ok(at) = retry::schedule(&self.jetstream, &self.service, &event, &history, wait, &self.stop).await {
                self.metrics.retried.inc();
                self.holdings.defer(event.place, &event.id, at + self.sync_interval);
            }
            return;
        }
        if let Ok(at) = dead_letter::write(&self.jetstream, &self.service, &event, &history, &self.stop).await {
            self.metrics.dead_lettered.inc();
            self.raise_ticket(event, &history, at);
        }
    }

    /// What becomes of an event that failed, and its history with this attempt.
    pub(super) fn judge(&self, event: &Event, failure: &Failure, jitter: f64) -> (DeliveryHistory, Verdict) {
        let failed = event.failed_attempts() + 1;
        let mut history = event.history.clone();
        add_attempt(&mut history, failure, &self.service.revision);
        let wait = backoff(self.service.initial_backoff, self.service.max_backoff, failed, failure.retry_after, jitter);
        let in_time = self.service.max_age.is_none_or(|age| event.tried_for() + wait <= age);
        if failure.retryable && failed < self.service.spec.retry.max_attempts && in_time {
            tracing::debug!(event = %event.id, failed, ?wait, error = failure.message, "to be tried again");
            return (history, Verdict::Retry(wait));
        }
        tracing::warn!(event = %event.id, subject = history.subject, failed, error = failure.message, "becomes a dead letter");
        (history, Verdict::DeadLetter)
    }

    // The dead letter is written; its message is acknowledged when there is a ticket too. The event is no longer in hand meanwhile: a ticket
    // desk that is down holds up nothing.
    fn raise_ticket(self: &Arc<Self>, event: Event, history: &DeliveryHistory, written: Instant) {
        let (place, id) = (event.place, event.id.clone());
        let until = written + self.sync_interval;
        let Some((ticket, key)) = self.ticket(&event, history) else { return self.holdings.defer(place, &id, until) };
        drop(event);
        let handler = self.clone();
        let span = tracing::Span::current();
        let raising = async move {
            // Without an acknowledgement the event comes again, and finds its dead letter.
            if handler.raise(ticket, &key).await.is_ok() {
                handler.holdings.defer(place, &id, until.max(Instant::now()));
            }
        };
        self.tasks.spawn(raising.instrument(span));
    }

    /// The ticket to raise for a dead letter, and its key; none where there is none, or its group has one already.
    pub(super) fn ticket(&self, event: &Event, history: &DeliveryHistory) -> Option<(TicketRequest, String)> {
        let ticket = dead_letter::ticket(&self.service, event, history).unwrap_or_else(|error| {
            tracing::error!(event = %event.id, error, "there can be no ticket; the dead letter stands");
            self.metrics.tickets_failed.inc();
            None
        })?;
        let key = match &ticket.group {
            Some(group) => self.ticketed.key(&self.service, group)?,
            None => dead_letter::ticket_key(&self.service, &event.id, history),
        };
        Some((ticket, key))
    }

    /// Raises a ticket, however long that takes.
    ///
    /// # Errors
    /// When told to stop before.
    pub(super) async fn raise(&self, ticket: TicketRequest, key: &str) -> Result<(), Stopping> {
        let Ok(_turn) = self.tickets.clone().acquire_owned().await else { return Err(Stopping) };
        let group = ticket.group.clone();
        if dead_letter::raise(&self.http, &self.service, ticket, key, &self.stop).await? {
            self.metrics.tickets.inc();
        } else {
            self.metrics.tickets_failed.inc();
            group.iter().for_each(|group| self.ticketed.forget(group));
        }
        Ok(())
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
