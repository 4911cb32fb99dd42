//! Metrics of the files trigger.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What became of a file or record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// `processed`, `repeated`, `rejected` of files; `loaded`, `replayed`, `rejected` of records.
    pub result: &'static str,
}

/// The trigger's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    files: Family<ResultLabel, Counter>,
    records: Family<ResultLabel, Counter>,
    rejected_rows: Counter,
    waiting: Gauge,
    in_hand: Gauge,
    oldest: Gauge<f64, AtomicU64>,
    duration: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            files: Family::default(),
            records: Family::default(),
            rejected_rows: Counter::default(),
            waiting: Gauge::default(),
            in_hand: Gauge::default(),
            oldest: Gauge::default(),
            // From 0.1 s to seven hours.
            duration: Histogram::new(exponential_buckets(0.1, 4.0, 10)),
        }
    }
}

impl Metrics {
    /// Registers them; called once, before the operations endpoint is served.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // Told from the start: of a counter that begins with its first event, Prometheus sees no increase.
        for result in ["processed", "repeated", "rejected"] {
            drop(metrics.files.get_or_create(&ResultLabel { result }));
        }
        for result in ["loaded", "replayed", "rejected"] {
            drop(metrics.records.get_or_create(&ResultLabel { result }));
        }
        registry.register("autonomy_worker_files", "Files that were handled, by result", metrics.files.clone());
        registry.register("autonomy_worker_file_records", "Records of files, by result", metrics.records.clone());
        registry.register("autonomy_worker_file_rejected_rows", "Rows in reject files", metrics.rejected_rows.clone());
        registry.register(
            "autonomy_worker_files_waiting",
            "Files that are not yet handled, those in hand included",
            metrics.waiting.clone(),
        );
        registry.register("autonomy_worker_files_in_hand", "Files that are being loaded", metrics.in_hand.clone());
        let help = "How long ago the oldest file that is not yet handled was written; 0 where there is none";
        registry.register_with_unit("autonomy_worker_oldest_file_age", help, Unit::Seconds, metrics.oldest.clone());
        let help = "How long files took, from when they were taken until they were moved";
        registry.register_with_unit("autonomy_worker_file_duration", help, Unit::Seconds, metrics.duration.clone());
        metrics
    }

    pub(super) fn file(&self, result: &'static str) {
        self.files.get_or_create(&ResultLabel { result }).inc();
    }

    pub(super) fn records(&self, result: &'static str, count: u64) {
        self.records.get_or_create(&ResultLabel { result }).inc_by(count);
    }

    pub(super) fn rejected_rows(&self, count: u64) {
        self.rejected_rows.inc_by(count);
    }

    /// The files that wait, each by when it was written, and how many of them are in hand.
    pub(super) fn waiting(&self, written: impl Iterator<Item = SystemTime>, in_hand: usize) {
        let (count, oldest) = written.fold((0, None), |(count, oldest), written| {
            (count + 1, Some(oldest.map_or(written, |oldest: SystemTime| oldest.min(written))))
        });
        let age = oldest.and_then(|oldest| oldest.elapsed().ok()).unwrap_or_default();
        self.waiting.set(count);
        self.in_hand.set(i64::try_from(in_hand).unwrap_or(i64::MAX));
        self.oldest.set(age.as_secs_f64());
    }

    /// A file was handled and moved.
    pub(super) fn took(&self, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
    }
}
