//! Metrics of the files trigger.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What became of a file or record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// `processed`, `repeated`, `rejected` of files; `loaded`, `replayed`, `rejected` of records.
    pub result: &'static str,
}

/// The trigger's metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    files: Family<ResultLabel, Counter>,
    records: Family<ResultLabel, Counter>,
    rejected_rows: Counter,
    waiting: Gauge,
}

impl Metrics {
    /// Registers them; called once, before the operations endpoint is served.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("autonomy_worker_files", "Files that were handled, by result", metrics.files.clone());
        registry.register("autonomy_worker_file_records", "Records of files, by result", metrics.records.clone());
        registry.register("autonomy_worker_file_rejected_rows", "Rows in reject files", metrics.rejected_rows.clone());
        registry.register("autonomy_worker_files_waiting", "Files in the directory that are not yet handled", metrics.waiting.clone());
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

    pub(super) fn waiting(&self, count: usize) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
