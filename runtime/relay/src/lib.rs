//! Change capture: from PostgreSQL's logical decoding to JetStream, each change exactly once.
//!
//! The relay reads the log of the publication through a replication slot ([`slot`], [`decode`]), makes each row change a message by the catalog as of that
//! place of the log ([`render`]), and publishes it as the only writer of the model's stream ([`publish`]). An event's identity is its position in
//! the log, so a stream's last message tells where to go on ([`resume`]). The slot is confirmed behind what is synced ([`confirm`], [`state`]).
//! Where the log can't tell any more, streams are brought to the state of their tables by a snapshot ([`repair`]).

use std::time::Duration;

use autonomy_process::operations::{self, Readiness};
use autonomy_process::options::{DatabaseOptions, NatsOptions, OperationsOptions};
use autonomy_process::telemetry::error_chain;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

pub mod confirm;
pub mod decode;
pub mod metrics;
pub mod publish;
pub mod render;
pub mod repair;
pub mod resume;
pub mod session;
pub mod slot;
pub mod state;
pub mod watermark;

use metrics::{Metrics, ReasonLabels};
use session::{Resources, SessionError};
use slot::SlotAccess;

/// Options of the relay.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseOptions,
    /// NATS.
    #[command(flatten)]
    pub nats: NatsOptions,
    /// Probes and metrics.
    #[command(flatten)]
    pub operations: OperationsOptions,
    /// The replication slot. Relays with the same slot stand in for one another: one works.
    #[arg(long, env = "AUTONOMY_RELAY_SLOT", default_value = "autonomy")]
    pub slot_name: String,
    /// The publication.
    #[arg(long, env = "AUTONOMY_RELAY_PUBLICATION", default_value = "autonomy")]
    pub publication: String,
}

/// Why the relay can't run at all. Anything that may pass is waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database URL.
    #[error(transparent)]
    DatabaseUrl(#[from] autonomy_process::options::BadDatabaseUrl),
    /// The slot's name, or the database URL for replication.
    #[error(transparent)]
    Slot(#[from] slot::SlotError),
    /// The operations endpoint.
    #[error("the operations endpoint can't listen at {address}")]
    Operations {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

// How soon a standby looks again, and how long the pause after trouble grows.
const STANDBY_PAUSE: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs the relay until `stop`.
///
/// # Errors
/// When it can't run at all.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    let slot = SlotAccess::new(&options.database.database_url, &options.slot_name, &options.publication)?;
    let pool = options.database.pool("autonomy-relay", &[])?;
    let metrics = Metrics::default();
    let readiness = Readiness::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let address = options.operations.operations_listen;
    let listening = operations::serve(address, registry.into(), readiness.clone(), stop.clone()).await;
    listening.map_err(|source| Error::Operations { address, source })?;
    let resources =
        Resources { slot, pool, nats_url: options.nats.nats_url, sync_interval: options.nats.nats_sync_interval, metrics, stop };
    work(&resources, &readiness).await;
    Ok(())
}

// Session after session. A standby is ready: it takes over as soon as it can.
async fn work(resources: &Resources, readiness: &Readiness) {
    let mut pause = FIRST_PAUSE;
    let mut standby = false;
    while !resources.stop.is_cancelled() {
        let mut was_active = false;
        let session = session::run(resources, || {
            was_active = true;
            readiness.ready();
            resources.metrics.active.set(1);
            tracing::info!(slot = resources.slot.name, "the relay works");
        });
        let ended = tokio::select! {
            () = resources.stop.cancelled() => Ok(()),
            ended = session => ended,
        };
        resources.metrics.active.set(0);
        let wait = match ended {
            Ok(()) => break,
            Err(SessionError::Standby) => {
                if !standby {
                    tracing::info!(slot = resources.slot.name, "another relay works; standing by");
                }
                readiness.ready();
                standby = true;
                STANDBY_PAUSE
            }
            Err(error) => {
                standby = false;
                let text = error_chain(&error);
                tracing::warn!(error = %text, "the relay was interrupted; it resumes from the streams' ends");
                readiness.not_ready(text);
                resources.metrics.interruptions.get_or_create(&ReasonLabels { reason: error.reason().to_owned() }).inc();
                pause = if was_active { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                pause
            }
        };
        tokio::select! {
            () = resources.stop.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
