//! The command `autonomy`: everything on one machine (`local`), how resources stand in a cluster (`status`), events and dead letters (`events`,
//! `dead-letters`), services (`service`), and what a change of models would do (`model`). Installed as `kubectl-autonomy` it is `kubectl autonomy`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod cluster;
pub mod console;
pub mod dead_letters;
pub mod events;
pub mod local;
pub mod model;
mod moment;
pub mod place;
mod rate;
pub mod resources;
pub mod service;
pub mod status;

/// The data-autonomy platform on this machine, and tools for it.
#[derive(Debug, Parser)]
#[command(name = "autonomy", version)]
pub struct Command {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Runs DataModels and MicroServices on this machine: PostgreSQL, NATS, API, relay and workers.
    Local(local::Options),
    /// Tells how the resources of a namespace of a cluster stand.
    Status(status::Command),
    /// Shows the changes of a model's objects as they come.
    Events(events::Command),
    /// Looks at events that could not be handled, and hands them to their service again.
    DeadLetters(dead_letters::Command),
    /// Works with MicroServices: tests them, and hands events of the past to them once more.
    Service(service::Command),
    /// Looks at what a change of DataModels would do.
    Model(model::Command),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `autonomy local`.
    #[error(transparent)]
    Local(#[from] local::LocalError),
    /// `autonomy status`.
    #[error(transparent)]
    Status(#[from] status::StatusError),
    /// `autonomy events`.
    #[error(transparent)]
    Events(#[from] events::EventsError),
    /// `autonomy dead-letters`.
    #[error(transparent)]
    DeadLetters(#[from] dead_letters::DeadLetterError),
    /// `autonomy service`.
    #[error(transparent)]
    Service(#[from] service::ServiceError),
    /// `autonomy model`.
    #[error(transparent)]
    Model(#[from] model::ModelError),
}

impl Error {
    /// What the command exits with. `model diff` says with 1 that it has found something, so it fails with 2.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Model(model::ModelError::Diff(_)) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What it could not do.
    pub async fn run(self) -> Result<ExitCode, Error> {
        if !matches!(self.action, Action::Local(_)) {
            end_with_the_reader();
        }
        match self.action {
            Action::Local(options) => local::run(options).await.map(|()| ExitCode::SUCCESS).map_err(Error::from),
            Action::Status(command) => command.run().await.map(|()| ExitCode::SUCCESS).map_err(Error::from),
            Action::Events(command) => command.run().await.map(|()| ExitCode::SUCCESS).map_err(Error::from),
            Action::DeadLetters(command) => command.run().await.map(|()| ExitCode::SUCCESS).map_err(Error::from),
            Action::Service(command) => command.run().await.map_err(Error::from),
            Action::Model(command) => command.run().await.map_err(Error::from),
        }
    }
}

// `autonomy dead-letters list | head` ends when `head` does, as other commands do. Local mode goes on: its processes are its work.
fn end_with_the_reader() {
    // SAFETY: the default action is no handler, so nothing runs in a signal's context.
    let set = unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) };
    if let Err(error) = set {
        tracing::debug!(%error, "SIGPIPE stays ignored");
    }
}
