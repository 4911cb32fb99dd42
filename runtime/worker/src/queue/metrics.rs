//! What the queue trigger tells about itself.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = Vec<(&'static str, String)>;

/// The trigger's metrics.
#[derive(Clone, Debug, Default)]
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
    /// Objects in each cache.
    pub cache_objects: Family<Labels, Gauge>,
    /// Bytes of the objects in each cache.
    pub cache_bytes: Family<Labels, Gauge>,
    /// 1 where the cache is in sync.
    pub cache_ready: Family<Labels, Gauge>,
}

impl Metrics {
    /// Registers them; called once, before the operations endpoint is served.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
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
        registry.register("cache_objects", "Objects in a cache", metrics.cache_objects.clone());
        registry.register("cache_bytes", "Bytes of the objects in a cache", metrics.cache_bytes.clone());
        registry.register("cache_ready", "Whether a cache is in sync", metrics.cache_ready.clone());
        metrics
    }
}
