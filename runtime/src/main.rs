//! The binary `autonomy-runtime`: one process a role.

use std::process::ExitCode;

use autonomy_process::telemetry::error_chain;
use autonomy_process::{shutdown, telemetry};
use autonomy_runtime::Command;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Command::parse();
    telemetry::start_logging(&command.log);
    match command.role.executor() {
        Ok(executor) => executor.block_on(run(command)),
        Err(error) => {
            tracing::error!(%error, "the process can't have its threads");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> ExitCode {
    let stop = match shutdown::stop_on_signal() {
        Ok(stop) => stop,
        Err(error) => {
            tracing::error!(%error, "the signal handlers can't be set");
            return ExitCode::FAILURE;
        }
    };
    match command.role.run(stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error_chain(&error), "the process ends");
            ExitCode::FAILURE
        }
    }
}
