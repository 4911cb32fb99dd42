//! The data plane as a library: the command line of the binary `autonomy-runtime`, one subcommand a role.

use std::io;

use autonomy_process::telemetry::LogOptions;
use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// The data plane of Autonomy: one binary, one process a role.
#[derive(Debug, Parser)]
#[command(name = "autonomy-runtime", version)]
pub struct Command {
    /// How logs are written.
    #[command(flatten)]
    pub log: LogOptions,
    /// The role of this process.
    #[command(subcommand)]
    pub role: Role,
}

/// A role of the data plane.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Serves the object API.
    Api(autonomy_api::Options),
    /// Publishes every committed change to JetStream.
    Relay(autonomy_relay::Options),
    /// Runs one MicroService.
    Worker(autonomy_worker::Options),
}

/// Why a role ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object API.
    #[error("the object API stopped")]
    Api(#[from] autonomy_api::Error),
    /// The relay.
    #[error("the relay stopped")]
    Relay(#[from] autonomy_relay::Error),
    /// The worker.
    #[error("the worker stopped")]
    Worker(#[from] autonomy_worker::Error),
}

impl Role {
    /// Its name, as on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Api(_) => "api",
            Self::Relay(_) => "relay",
            Self::Worker(_) => "worker",
        }
    }

    /// Whether it makes spans of traces. The relay passes on what writers gave, and nothing is made for each event on its way.
    pub fn makes_spans(&self) -> bool {
        !matches!(self, Self::Relay(_))
    }

    /// The threads that the role works with. The relay's events go one after the other whatever is done, so it has one thread: nothing is handed
    /// from thread to thread, and what goes to NATS gathers into large writes.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn executor(&self) -> io::Result<Runtime> {
        let mut executor = match self {
            Self::Relay(_) => Builder::new_current_thread(),
            Self::Api(_) | Self::Worker(_) => Builder::new_multi_thread(),
        };
        executor.enable_all().build()
    }

    /// Runs the role until `stop`.
    ///
    /// # Errors
    /// When the role can't start, or can't go on.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        match self {
            Self::Api(options) => autonomy_api::run(options, stop).await.map_err(Error::from),
            Self::Relay(options) => autonomy_relay::run(options, stop).await.map_err(Error::from),
            Self::Worker(options) => autonomy_worker::run(options, None, stop).await.map_err(Error::from),
        }
    }
}
