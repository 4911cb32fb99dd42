//! The queue trigger: changes of objects.

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

/// Handles events until the worker stops.
///
/// # Errors
/// When it can't go on.
pub async fn run(context: Context, metrics: Metrics) -> Result<(), Error> {
    let _ = metrics;
    context.stop.cancelled().await;
    Ok(())
}
