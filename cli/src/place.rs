//! Where a platform is: a local mode's data folder, a DataPlatform in a cluster, or a NATS system by its URL.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream;
use autonomy_crds::DEFAULT_PLATFORM;
use autonomy_crds::names::parse_duration;
use autonomy_crds::resolve::DEFAULT_NAMESPACE;
use autonomy_process::options::{NatsConnectError, nats_connect_options};
use clap::Args;

use crate::cluster::{Cluster, ClusterError, Forward};
use crate::local::data_folder::{DataFolderError, LocalFile};

/// Where the platform is.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The data folder of a running local mode.
    #[arg(long, value_name = "DIR", default_value = ".autonomy/local", global = true)]
    pub data_dir: PathBuf,
    /// The cluster of the present kubeconfig instead of a local mode; so by itself as `kubectl autonomy`.
    #[arg(long, global = true)]
    pub cluster: bool,
    /// The DataPlatform; with `--cluster`.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_PLATFORM, global = true)]
    pub platform: String,
    /// A NATS system instead of a local mode's, `nats://user:password@host:port`; best given in the environment.
    #[arg(long, env = "AUTONOMY_NATS_URL", hide_env_values = true, global = true)]
    pub nats_url: Option<String>,
    /// The namespace; the kubeconfig's where left out.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// The sync interval of the NATS servers and some reserve; with `--nats-url`.
    #[arg(long, env = "AUTONOMY_NATS_SYNC_INTERVAL", default_value = "2m15s", value_parser = parse_duration, global = true)]
    pub nats_sync_interval: Duration,
}

/// Why a platform can't be had.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// No local mode runs.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    /// The cluster does not give it.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// NATS can't be reached.
    #[error(transparent)]
    Nats(#[from] NatsConnectError),
}

/// The JetStream of a platform.
pub struct Messaging {
    /// JetStream.
    pub jetstream: jetstream::Context,
    /// The namespace of the resources.
    pub namespace: String,
    /// How old an acknowledged message is when it is surely on disk.
    pub sync: Duration,
    // The way into the cluster lives as long as the connection is used.
    _forward: Option<Forward>,
}

/// Whether this process was called as `kubectl autonomy`.
pub fn is_kubectl_plugin() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.as_deref().and_then(std::path::Path::file_stem).is_some_and(|name| name == "kubectl-autonomy" || name == "kubectl_autonomy")
}

impl Place {
    /// Whether a cluster is meant.
    pub fn is_cluster(&self) -> bool {
        self.cluster || is_kubectl_plugin()
    }

    /// Connects to the platform's NATS; `name` is shown in the server's list of connections.
    ///
    /// # Errors
    /// When there is no such platform or NATS can't be reached.
    pub async fn open(&self, name: &str) -> Result<Messaging, PlaceError> {
        let namespace = || self.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let mut forward = None;
        let (url, namespace, sync) = if let Some(url) = &self.nats_url {
            (url.clone(), namespace(), self.nats_sync_interval)
        } else if self.is_cluster() {
            let cluster = Cluster::connect(self.namespace.as_deref()).await?;
            let nats = cluster.nats(&self.platform).await?;
            forward = nats.forward;
            (nats.url, cluster.namespace, nats.sync)
        } else {
            let local = LocalFile::read(&self.data_dir)?;
            (local.nats, local.namespace, Duration::from_millis(local.nats_sync_milliseconds))
        };
        let options = nats_connect_options(&url)?.name(name).ignore_discovered_servers();
        let client = options.connect(&url).await.map_err(NatsConnectError::from)?;
        Ok(Messaging { jetstream: jetstream::new(client), namespace, sync, _forward: forward })
    }
}
