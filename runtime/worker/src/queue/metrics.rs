//! What the queue trigger tells about itself.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::steps::Failure;
use crate::transactions::SubmitError;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    outcome: &'static str,
}

/// The trigger's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Events handled: their effects are committed.
    pub handled: Counter,
    /// Events that the filter did not let pass.
    pub filtered: Counter,
    /// Failed attempts that are tried again.
    pub retried: Counter,
    /// Dead letters written.
    pub dead_lettered: Counter,
    /// Tickets accepted.
    pub tickets: Counter,
    /// Tickets that could not be raised.
    pub tickets_failed: Counter,
    /// Events in hand.
    pub in_hand: Gauge,
    /// Events whose retry or dead letter is not synced yet.
    pub deferred: Gauge,
    /// Events in the stream that are not delivered yet.
    pub pending: Gauge,
    /// Events that wait in the retry stream, due ones included.
    pub retries_waiting: Gauge,
    /// All that waits for the service, whichever worker has it: not delivered, not acknowledged, or to be tried again.
    pub lag: Gauge,
    /// How long ago the oldest event of these was committed.
    pub oldest_event_age: Gauge<f64, AtomicU64>,
    /// Dead letters of the service that wait for somebody to decide.
    pub dead_letters: Gauge,
    /// How long attempts took: steps, calls and the transaction.
    pub handling: Family<OutcomeLabel, Histogram>,
    /// How long it took from an event's commit until its effects were committed.
    pub event_delay: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // From 1 ms to 16 s.
        let attempts = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        Self {
            handled: Counter::default(),
            filtered: Counter::default(),
            retried: Counter::default(),
            dead_lettered: Counter::default(),
            tickets: Counter::default(),
            tickets_failed: Counter::default(),
            in_hand: Gauge::default(),
            deferred: Gauge::default(),
            pending: Gauge::default(),
            retries_waiting: Gauge::default(),
            lag: Gauge::default(),
            oldest_event_age: Gauge::default(),
            dead_letters: Gauge::default(),
            handling: Family::new_with_constructor(attempts as fn() -> Histogram),
            // From 10 ms to nearly three hours.
            event_delay: Histogram::new(exponential_buckets(0.01, 4.0, 11)),
        }
    }
}

impl Metrics {
    /// Registers them; called once, before the operations endpoint is served.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // Told from the start: of a counter that begins with its first event, Prometheus sees no increase.
        for outcome in ["success", "retryable", "failed"] {
            drop(metrics.handling.get_or_create(&OutcomeLabel { outcome }));
        }
        let registry = registry.sub_registry_with_prefix("autonomy_worker");
        registry.register("events_handled", "Events whose effects are committed", metrics.handled.clone());
        registry.register("events_filtered", "Events that the filter did not let pass", metrics.filtered.clone());
        registry.register("events_retried", "Failed attempts that are tried again", metrics.retried.clone());
        registry.register("events_dead_lettered", "Dead letters written", metrics.dead_lettered.clone());
        registry.register("tickets_raised", "Tickets accepted", metrics.tickets.clone());
        registry.register("tickets_failed", "Tickets that could not be raised", metrics.tickets_failed.clone());
        registry.register("events_in_hand", "Events in hand", metrics.in_hand.clone());
        registry.register("events_deferred", "Events whose retry or dead letter is not synced yet", metrics.deferred.clone());
        registry.register("events_pending", "Events in the stream that are not delivered yet", metrics.pending.clone());
        registry.register("retries_waiting", "Events that wait for another attempt", metrics.retries_waiting.clone());
        registry.register("lag", "Events of the service that wait, those in hand and to be tried again included", metrics.lag.clone());
        let help = "How long ago the oldest event that waits was committed; 0 where none waits";
        registry.register_with_unit("oldest_event_age", help, Unit::Seconds, metrics.oldest_event_age.clone());
        registry.register("dead_letters", "Dead letters of the service that wait for somebody to decide", metrics.dead_letters.clone());
        let help = "How long attempts took, by outcome (success, retryable, failed)";
        registry.register_with_unit("handling_duration", help, Unit::Seconds, metrics.handling.clone());
        let help = "How long it took from an event's commit until its effects were committed";
        registry.register_with_unit("event_delay", help, Unit::Seconds, metrics.event_delay.clone());
        metrics
    }

    /// An attempt ended.
    pub fn attempted(&self, result: &Result<(), SubmitError>, took: Duration) {
        let outcome = match result {
            // Used before: done, or done by halves.
            Ok(()) | Err(SubmitError::PartlyUsed { .. }) => "success",
            Err(SubmitError::Refused(Failure { retryable: true, .. })) => "retryable",
            Err(SubmitError::Refused(_)) => "failed",
            // It has no end.
            Err(SubmitError::Stopping) => return,
        };
        self.handling.get_or_create(&OutcomeLabel { outcome }).observe(took.as_secs_f64());
    }

    /// The effects of an event that was committed at this time (RFC 3339) are committed.
    pub fn done(&self, committed: &str) {
        self.handled.inc();
        if let Some(age) = age(committed) {
            self.event_delay.observe(age.as_secs_f64());
        }
    }
}

/// How long ago a time was that is written after RFC 3339; clocks that differ make it zero.
pub fn age(time: &str) -> Option<Duration> {
    let time: Timestamp = time.parse().ok()?;
    Some(Duration::try_from(Timestamp::now().duration_since(time)).unwrap_or_default())
}
