//! The files trigger: files that arrive in a directory, loaded once whatever they are called.

use prometheus_client::registry::Registry;

use crate::worker::{Context, Error};

/// The trigger's metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// Registers them; called once, before the operations endpoint is served.
    pub fn register(registry: &mut Registry) -> Self {
        let _ = registry;
        Self {}
    }
}

/// Loads files until the worker stops.
///
/// # Errors
/// When the directory can't be used.
pub async fn run(context: Context, metrics: Metrics) -> Result<(), Error> {
    let _ = metrics;
    context.stop.cancelled().await;
    Ok(())
}
