//! The command `autonomy`.

use std::process::ExitCode;

use autonomy::Command;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match Command::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("autonomy: {}", autonomy_process::telemetry::error_chain(&error));
            error.exit_code()
        }
    }
}
