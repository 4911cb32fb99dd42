//! The object API.

use tokio_util::sync::CancellationToken;

/// Options of the object API.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {}

/// Why the object API stopped.
#[derive(Debug, thiserror::Error)]
#[error("not built yet")]
pub struct Error;

/// Serves the object API until `stop`.
///
/// # Errors
/// Always: not built yet.
pub async fn run(_options: Options, _stop: CancellationToken) -> Result<(), Error> {
    Err(Error)
}
