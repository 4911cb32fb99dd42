//! What the object API counts.

use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::write::{Counts, Effect, Outcomes, UnitOutcome};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EffectLabels {
    effect: &'static str,
}

/// The counters.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    objects: Family<EffectLabels, Counter>,
    units: Family<EffectLabels, Counter>,
    subscribers: Gauge,
    events: Counter,
}

/// A subscriber to events, counted as long as this lives.
pub struct Subscriber {
    subscribers: Gauge,
    events: Counter,
}

impl Subscriber {
    /// An event was sent to it.
    pub fn sent(&self) {
        self.events.inc();
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.subscribers.dec();
    }
}

impl Metrics {
    /// Counters, registered.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 14))),
            objects: Family::default(),
            units: Family::default(),
            subscribers: Gauge::default(),
            events: Counter::default(),
        };
        registry.register("autonomy_api_requests", "Requests answered", metrics.requests.clone());
        registry.register("autonomy_api_request_seconds", "How long requests took until their answer began", metrics.seconds.clone());
        registry.register("autonomy_api_objects", "Objects written, by effect", metrics.objects.clone());
        registry.register("autonomy_api_units", "Units of operations, by outcome", metrics.units.clone());
        registry.register("autonomy_api_subscribers", "Subscribers to events now", metrics.subscribers.clone());
        registry.register("autonomy_api_events", "Events sent to subscribers", metrics.events.clone());
        metrics
    }

    /// Somebody subscribes to events.
    pub fn subscribed(&self) -> Subscriber {
        self.subscribers.inc();
        Subscriber { subscribers: self.subscribers.clone(), events: self.events.clone() }
    }

    /// A request was answered.
    pub fn answered(&self, method: &str, route: &'static str, status: StatusCode, took: Duration) {
        self.requests.get_or_create(&RequestLabels { method: method.to_owned(), route, status: status.as_u16() }).inc();
        self.seconds.get_or_create(&RouteLabels { route }).observe(took.as_secs_f64());
    }

    /// A list of new objects was written in pieces.
    pub fn wrote_in_pieces(&self, counts: &Counts) {
        self.count("created", counts.created);
        self.count("updated", counts.updated);
        self.count("ignored", counts.ignored);
        self.units.get_or_create(&EffectLabels { effect: "done" }).inc();
    }

    fn count(&self, effect: &'static str, count: u64) {
        if count > 0 {
            self.objects.get_or_create(&EffectLabels { effect }).inc_by(count);
        }
    }

    /// Units were written, or not.
    pub fn wrote(&self, outcomes: &Outcomes) {
        for outcome in outcomes.units.iter().flatten() {
            let effect = match outcome {
                UnitOutcome::Done { written, .. } => {
                    let of = |effect| written.iter().filter(|written| written.effect == effect).count() as u64;
                    self.count("created", of(Effect::Created));
                    self.count("updated", of(Effect::Updated));
                    self.count("ignored", of(Effect::Ignored));
                    self.count("deleted", of(Effect::Deleted));
                    "done"
                }
                UnitOutcome::Replayed { .. } => "replayed",
                UnitOutcome::Failed(_) => "failed",
            };
            self.units.get_or_create(&EffectLabels { effect }).inc();
        }
    }
}
