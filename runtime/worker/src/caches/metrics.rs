//! What caches tell about themselves: whether they are in sync, how far they are behind, and what they hold.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::Caches;

const EVERY: Duration = Duration::from_millis(500);

type Labels = Vec<(&'static str, String)>;

/// The caches' metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    ready: Family<Labels, Gauge>,
    objects: Family<Labels, Gauge>,
    bytes: Family<Labels, Gauge>,
    memory: Family<Labels, Gauge>,
    events_behind: Family<Labels, Gauge>,
    seconds_behind: Family<Labels, Gauge<f64, AtomicU64>>,
}

impl Metrics {
    /// Registers them; called once, before the operations endpoint is served.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("autonomy_worker_cache");
        registry.register("ready", "Whether a cache is in sync", metrics.ready.clone());
        registry.register("objects", "Objects in a cache", metrics.objects.clone());
        registry.register("bytes", "Bytes of the objects in a cache", metrics.bytes.clone());
        registry.register("memory_bytes", "Bytes of memory that a cache takes with its indexes", metrics.memory.clone());
        registry.register("events_behind", "Events in the stream that a cache has not seen", metrics.events_behind.clone());
        let text = "Seconds since a cache was last known to have seen everything";
        registry.register("seconds_behind", text, metrics.seconds_behind.clone());
        metrics
    }

    /// Tells of the caches until the worker stops.
    pub(super) async fn tell(self, caches: Caches, stop: CancellationToken) {
        loop {
            for cache in caches.iter() {
                let labels = vec![("cache", cache.name().to_owned())];
                let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
                let size = cache.size();
                self.ready.get_or_create(&labels).set(i64::from(cache.seen() > 0));
                self.objects.get_or_create(&labels).set(whole(size.objects as u64));
                self.bytes.get_or_create(&labels).set(whole(size.bytes as u64));
                self.memory.get_or_create(&labels).set(whole(size.memory as u64));
                self.events_behind.get_or_create(&labels).set(whole(cache.events_behind()));
                self.seconds_behind.get_or_create(&labels).set(cache.behind_for().as_secs_f64());
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}
