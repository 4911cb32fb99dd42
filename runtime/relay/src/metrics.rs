//! What the relay measures of itself.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of published events.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EventLabels {
    /// The model.
    pub model: String,
    /// The entity.
    pub entity: String,
    /// `created`, `updated` or `deleted`.
    pub operation: String,
}

/// The label of repairs: their stream.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StreamLabels {
    /// The stream.
    pub stream: String,
}

/// The label of session ends.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabels {
    /// Why.
    pub reason: String,
}

/// The relay's metrics.
#[derive(Clone, Default)]
pub struct Metrics {
    /// 1 while this relay holds the slot and publishes.
    pub active: Gauge,
    /// Bytes of log that the server has written and the streams do not have yet.
    pub lag_bytes: Gauge<i64, AtomicI64>,
    /// Seconds since the oldest change that the streams do not have yet was committed; 0 where they have all.
    pub lag_seconds: Gauge<f64, AtomicU64>,
    /// Bytes of log that the slot keeps on the server's disk.
    pub slot_retained_bytes: Gauge<i64, AtomicI64>,
    /// 1 where the slot is in danger of being lost or is lost (`wal_status` unreserved or lost).
    pub slot_in_danger: Gauge,
    /// Slots found missing or lost.
    pub slots_lost: Counter,
    /// Events that JetStream acknowledged.
    pub events: Family<EventLabels, Counter>,
    /// Messages waiting for their acknowledgement.
    pub in_flight: Gauge<i64, AtomicI64>,
    /// Repairs begun by snapshot.
    pub repairs: Family<StreamLabels, Counter>,
    /// Events that repairs published.
    pub repaired_events: Family<StreamLabels, Counter>,
    /// Times the relay had to stop and resume.
    pub interruptions: Family<ReasonLabels, Counter>,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("autonomy_relay");
        registry.register("active", "1 while this relay holds the slot and publishes", self.active.clone());
        registry.register("lag_bytes", "Bytes of log that the streams do not have yet", self.lag_bytes.clone());
        registry.register(
            "lag_seconds",
            "Seconds since the oldest change that the streams do not have yet was committed",
            self.lag_seconds.clone(),
        );
        registry.register("slot_retained_bytes", "Bytes of log that the slot keeps on disk", self.slot_retained_bytes.clone());
        registry.register("slot_in_danger", "1 where the slot may be lost or is lost", self.slot_in_danger.clone());
        registry.register("slots_lost", "Slots found missing or lost, and repaired by snapshot", self.slots_lost.clone());
        registry.register("events", "Events that JetStream acknowledged", self.events.clone());
        registry.register("in_flight", "Messages waiting for their acknowledgement", self.in_flight.clone());
        registry.register("repairs", "Repairs begun by snapshot", self.repairs.clone());
        registry.register("repaired_events", "Events that repairs published", self.repaired_events.clone());
        registry.register("interruptions", "Times the relay had to stop and resume", self.interruptions.clone());
    }
}
