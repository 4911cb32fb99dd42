//! `autonomy service`: what is done with a MicroService as a whole.

mod replay;
mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub use replay::ReplayError;
pub use test::TestError;

/// Works with MicroServices.
#[derive(Debug, Args)]
pub struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Hands events of the past to a service once more. What it did for them before is not done twice, unless `--as` is given.
    Replay(replay::Replay),
    /// Runs services on given events, with stand-ins of web services, and compares what they would write with what is expected. Needs nothing
    /// but files. Exits with 1 where a case fails.
    Test(test::Test),
}

/// Why a command for services failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// `autonomy service replay`.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// `autonomy service test`.
    #[error(transparent)]
    Test(#[from] TestError),
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// When it can't be done.
    pub async fn run(self) -> Result<ExitCode, ServiceError> {
        match self.action {
            Action::Replay(replay) => replay.run().await.map(|()| ExitCode::SUCCESS).map_err(ServiceError::from),
            Action::Test(test) => test.run().await.map_err(ServiceError::from),
        }
    }
}
