//! What the operator counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reconcile {
    kind: &'static str,
    reason: &'static str,
}

/// What the operator counts.
#[derive(Debug, Default)]
pub struct Metrics {
    reconciles: Family<Reconcile, Counter>,
    /// 1 while this replica is the leader.
    pub leader: Gauge,
}

impl Metrics {
    /// Registered under `autonomy_operator`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("autonomy_operator");
        registry.register("reconciles", "Reconciles by kind and the reason they ended with", metrics.reconciles.clone());
        registry.register("leader", "1 while this replica is the leader", metrics.leader.clone());
        metrics
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, kind: &'static str, reason: &'static str) {
        self.reconciles.get_or_create(&Reconcile { kind, reason }).inc();
    }
}
