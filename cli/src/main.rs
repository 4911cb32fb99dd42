//! The command `autonomy`.

use std::process::ExitCode;

use autonomy::Command;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match Command::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("autonomy: {}", autonomy_process::telemetry::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}
