//! The binary `autonomy-runtime`: one process a role.

use std::process::ExitCode;

use autonomy_process::role;
use autonomy_runtime::Command;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Command { log, role } = Command::parse();
    let (executor, name, spans) = (role.executor(), role.name(), role.makes_spans());
    role::run(executor, &log, name, spans, |stop| role.run(stop))
}
