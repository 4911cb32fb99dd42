//! What a worker's process is told on its command line and in its environment.

use std::path::PathBuf;

use autonomy_process::options::{NatsOptions, OperationsOptions};
use clap::Args;

/// Runs one MicroService.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The service: a JSON file `{"namespace": …, "name": …, "spec": {…}}`.
    #[arg(long, env = "AUTONOMY_SERVICE")]
    pub service: PathBuf,
    /// The object API, for example `http://api:8080`.
    #[arg(long, env = "AUTONOMY_API_URL")]
    pub api_url: String,
    /// The folder below which relative directories of file triggers lie.
    #[arg(long, env = "AUTONOMY_FILES_DIR", default_value = ".")]
    pub files_dir: PathBuf,
    /// The folder with Secrets as Kubernetes mounts them: `{secret}/{key}` files.
    #[arg(long, env = "AUTONOMY_SECRETS_DIR")]
    pub secrets_dir: Option<PathBuf>,
    /// The NATS system.
    #[command(flatten)]
    pub nats: NatsOptions,
    /// Probes and metrics.
    #[command(flatten)]
    pub operations: OperationsOptions,
}
