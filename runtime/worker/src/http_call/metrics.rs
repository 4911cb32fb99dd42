//! What is told about calls of web services.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Answer;
use crate::steps::Failure;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    step: String,
    outcome: &'static str,
}

/// The metrics of calls.
#[derive(Clone, Debug)]
pub struct Metrics {
    duration: Family<CallLabels, Histogram>,
    breaker_open: Family<Vec<(&'static str, String)>, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        // From 1 ms to 16 s.
        let histogram = || Histogram::new((0..15).map(|power| 0.001 * f64::from(1u32 << power)));
        Self { duration: Family::new_with_constructor(histogram as fn() -> Histogram), breaker_open: Family::default() }
    }
}

impl Metrics {
    /// Registers them; called once, before the operations endpoint is served.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("autonomy_worker");
        let help = "How long calls of web services took, by step and outcome (success, retryable, failed)";
        registry.register_with_unit("http_call_duration", help, Unit::Seconds, metrics.duration.clone());
        registry.register("circuit_breaker_open", "Whether calls of a step wait for its web service", metrics.breaker_open.clone());
        metrics
    }

    pub(super) fn told(&self, step: &str, outcome: &Result<Answer, Failure>, took: Duration) {
        let outcome = match outcome {
            Ok(_) => "success",
            Err(failure) if failure.retryable => "retryable",
            Err(_) => "failed",
        };
        self.duration.get_or_create(&CallLabels { step: step.to_owned(), outcome }).observe(took.as_secs_f64());
    }

    pub(super) fn breaker(&self, step: &str, closed: bool) {
        self.breaker_open.get_or_create(&vec![("step", step.to_owned())]).set(i64::from(!closed));
    }
}
