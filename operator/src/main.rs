//! The binary `autonomy-operator`.

use std::process::ExitCode;

use autonomy_operator::process;
use autonomy_process::telemetry::{self, error_chain};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let command = process::Command::parse();
    telemetry::start_logging(&command.log);
    match command.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error_chain(&error), "the operator ends");
            ExitCode::FAILURE
        }
    }
}
