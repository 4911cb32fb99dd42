//! The life of a role's process: logs and traces, an orderly stop, and how it ended.

use std::error::Error;
use std::future::Future;
use std::io;
use std::process::ExitCode;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::shutdown;
use crate::telemetry::{LogOptions, Telemetry, error_chain, start_logging};

/// Runs `work` on `executor` until it ends or the process is told to stop; `name` names the process in traces, of which it makes some where `spans`.
pub fn run<W, E>(
    executor: io::Result<Runtime>,
    log: &LogOptions,
    name: &'static str,
    spans: bool,
    work: impl FnOnce(CancellationToken) -> W,
) -> ExitCode
where
    W: Future<Output = Result<(), E>>,
    E: Error,
{
    use_small_pages();
    let executor = match executor {
        Ok(executor) => executor,
        Err(error) => {
            eprintln!("the process can't have its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    executor.block_on(async {
        let telemetry = spans.then(|| Telemetry::start(log, name));
        if telemetry.is_none() {
            start_logging(log);
        }
        let code = until_stopped(work).await;
        if let Some(telemetry) = telemetry {
            telemetry.end().await;
        }
        code
    })
}

// Huge pages make an idle role four times as large, and a busy one no faster. A role does its work without this, too.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}

async fn until_stopped<W, E>(work: impl FnOnce(CancellationToken) -> W) -> ExitCode
where
    W: Future<Output = Result<(), E>>,
    E: Error,
{
    let stop = match shutdown::stop_on_signal() {
        Ok(stop) => stop,
        Err(error) => {
            tracing::error!(%error, "the signal handlers can't be set");
            return ExitCode::FAILURE;
        }
    };
    match work(stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error_chain(&error), "the process ends");
            ExitCode::FAILURE
        }
    }
}
