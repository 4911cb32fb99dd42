//! The program of a service with logic of its own in Rust.

use std::process::ExitCode;

use autonomy_process::role;
use autonomy_process::telemetry::LogOptions;
use clap::{Parser, Subcommand};

use crate::logic::{EmbeddedLogic, Logic};
use crate::options::Options;

// The same command line as that of the platform's own worker, whose place it takes.
#[derive(Debug, Parser)]
#[command(version, about = "A worker with logic of its own")]
struct Command {
    #[command(flatten)]
    log: LogOptions,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Runs one MicroService.
    Worker(Options),
}

/// Runs a worker with this logic until it is told to stop: the whole `main` of its program. The command line and the environment are those of
/// `autonomy-runtime worker`; `autonomy local --worker` and the operator give them.
pub fn main(logic: impl Logic) -> ExitCode {
    let Command { log, role: Role::Worker(options) } = Command::parse();
    let logic = EmbeddedLogic::new(logic);
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    role::run(executor, &log, "worker", true, |stop| crate::run(options, Some(logic), stop))
}
