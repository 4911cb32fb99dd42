//! The operator's process: options, leader election, probes and metrics around the reconcilers.

use std::sync::Arc;
use std::time::Duration;

use autonomy_process::operations::{self, Readiness};
use autonomy_process::options::OperationsOptions;
use autonomy_process::shutdown;
use autonomy_process::telemetry::LogOptions;
use clap::{Args, Parser, Subcommand};
use futures::future::join_all;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::controller::context::Settings;
use crate::controller::leader::{Candidate, LeaderError};
use crate::controller::metrics::Metrics;
use crate::controller::{self, Scope, lag};

// How long reconciles that are under way may take when the process stops.
const FAREWELL: Duration = Duration::from_secs(20);
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// The operator of Autonomy.
#[derive(Debug, Parser)]
#[command(name = "autonomy-operator", version)]
pub struct Command {
    /// How logs are written.
    #[command(flatten)]
    pub log: LogOptions,
    /// What to do; reconcile where nothing is said.
    #[command(subcommand)]
    pub action: Option<Action>,
    /// How to reconcile.
    #[command(flatten)]
    pub options: Options,
}

/// What to do beside reconciling.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Asks a URL once and fails unless it answers with success: for `helm test`.
    Probe {
        /// For example `http://autonomy-operator:9090/readyz`.
        url: String,
    },
}

/// How to reconcile.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The namespace that this operator runs in, where its Lease is.
    #[arg(long, env = "AUTONOMY_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// The namespaces that are looked after, separated by commas; all where left out.
    #[arg(long, env = "AUTONOMY_WATCH_NAMESPACES", default_value = "")]
    pub watch_namespaces: String,
    /// This replica's name.
    #[arg(long, env = "AUTONOMY_POD_NAME", default_value = "autonomy-operator")]
    pub pod_name: String,
    /// This replica's address, where the leader is reached.
    #[arg(long, env = "AUTONOMY_POD_IP")]
    pub pod_ip: Option<String>,
    /// The image of API, relay and workers.
    #[arg(long, env = "AUTONOMY_RUNTIME_IMAGE", default_value = "autonomy.dev/runtime:dev")]
    pub runtime_image: String,
    /// When that image is pulled; by Kubernetes' rule where left out.
    #[arg(long, env = "AUTONOMY_RUNTIME_IMAGE_PULL_POLICY", default_value = "")]
    pub runtime_image_pull_policy: String,
    /// Secrets for pulling that image, separated by commas; they are looked for in the namespace of each pod.
    #[arg(long, env = "AUTONOMY_RUNTIME_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pub runtime_image_pull_secrets: Vec<String>,
    /// Where KEDA reaches the leader, for example `http://autonomy-operator-leader.autonomy.svc:9090`; without it nothing is scaled by lag.
    #[arg(long, env = "AUTONOMY_OPERATOR_URL", default_value = "")]
    pub operator_url: String,
    /// How long what is ready is left alone before it is looked at again for drift.
    #[arg(long, env = "AUTONOMY_RESYNC", default_value = "2m", value_parser = autonomy_crds::names::parse_duration)]
    pub resync: Duration,
    /// Probes, metrics and lag.
    #[command(flatten)]
    pub operations: OperationsOptions,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to Kubernetes.
    #[error("there is no usable configuration for Kubernetes")]
    Configuration(#[from] kube::config::InferConfigError),
    /// Kubernetes can't be spoken to.
    #[error("Kubernetes can't be spoken to")]
    Kubernetes(#[from] kube::Error),
    /// The operations endpoint can't be served.
    #[error("the operations endpoint can't be served")]
    Operations(#[source] std::io::Error),
    /// The signal handlers can't be set.
    #[error("the signal handlers can't be set")]
    Signals(#[source] std::io::Error),
    /// This replica is not the leader any more.
    #[error(transparent)]
    Leader(#[from] LeaderError),
    /// The probe failed.
    #[error("{url} does not answer with success")]
    Probe {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

impl Command {
    /// Runs until SIGTERM.
    ///
    /// # Errors
    /// When it can't start, or leadership is lost; Kubernetes then starts it anew.
    pub async fn run(self) -> Result<(), Error> {
        match self.action {
            Some(Action::Probe { url }) => probe(url).await,
            None => reconcile(self.options).await,
        }
    }
}

async fn probe(url: String) -> Result<(), Error> {
    let ask = async {
        let client = autonomy_process::http_client::builder().timeout(PROBE_PATIENCE).build()?;
        client.get(&url).send().await?.error_for_status()
    };
    ask.await.map(drop).map_err(|source| Error::Probe { url: url.clone(), source })
}

async fn reconcile(options: Options) -> Result<(), Error> {
    let stop = shutdown::stop_on_signal().map_err(Error::Signals)?;
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::register(&mut registry));
    let readiness = Readiness::default();
    let lag = lag::Board::default();
    let routes = operations::router(Arc::new(registry), readiness.clone()).merge(lag.clone().router());
    let listener = TcpListener::bind(options.operations.operations_listen).await.map_err(Error::Operations)?;
    let serving = stop.clone();
    tokio::spawn(async move { axum::serve(listener, routes).with_graceful_shutdown(serving.cancelled_owned()).await });

    let config = kube::Config::infer().await?;
    let client = Client::try_from(config)?;
    let candidate = Candidate::new(client.clone(), &options.namespace, &options.pod_name);
    // A replica that stands by is ready: it takes over when it is needed.
    readiness.ready();
    if !candidate.become_leader(&stop).await {
        return Ok(());
    }
    tracing::info!(name = options.pod_name, "this replica is the leader");
    metrics.leader.set(1);
    if let (Some(service), Some(address)) = (leader_service(&options.operator_url), &options.pod_ip) {
        candidate.announce(service, address, i32::from(options.operations.operations_listen.port())).await;
    }

    let settings = Arc::new(Settings {
        runtime_image: options.runtime_image,
        runtime_image_pull_policy: options.runtime_image_pull_policy,
        runtime_image_pull_secrets: options.runtime_image_pull_secrets.into_iter().filter(|name| !name.is_empty()).collect(),
        operator_url: options.operator_url.trim_end_matches('/').to_owned(),
        pod_name: options.pod_name,
        resync: options.resync,
    });
    let scopes = Scope::parse(&options.watch_namespaces);
    let reconciling = join_all(
        scopes
            .into_iter()
            .map(|scope| controller::run(client.clone(), scope, settings.clone(), metrics.clone(), lag.clone(), stop.clone())),
    );
    tokio::pin!(reconciling);
    tokio::select! {
        // Ends at once: what is under way must not go on beside another leader.
        kept = candidate.stay_leader(&stop) => kept?,
        _ = &mut reconciling => {}
    }
    if tokio::time::timeout(FAREWELL, &mut reconciling).await.is_err() {
        tracing::warn!("reconciles were under way for too long; they go on with the next leader");
    }
    candidate.resign().await;
    Ok(())
}

// The Service's name in the leader's URL.
fn leader_service(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split(['.', ':', '/']).next().filter(|name| !name.is_empty())
}
