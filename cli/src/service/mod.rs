//! `autonomy service`: what is done with a MicroService as a whole.

mod replay;

use clap::{Args, Subcommand};

pub use replay::ReplayError;

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
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// When it can't be done.
    pub async fn run(self) -> Result<(), ReplayError> {
        match self.action {
            Action::Replay(replay) => replay.run().await,
        }
    }
}
