//! DataPlatforms: a prepared database, the streams of retries and dead letters, the object API and the relay.

mod apply;
mod build;
mod cleanup;
mod dereference;

use std::sync::Arc;

use autonomy_crds::DataPlatform;
use autonomy_crds::condition::DeletionPolicy;
use autonomy_crds::data_platform::DataPlatformStatus;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};

use super::context::Context;
use super::server_side::{self, ServerSideError};
use super::verdict::{Reason, Verdict};
use super::{Failure, workload};
use crate::controller::connections::ConnectionError;

pub use build::{NATS_URL, api_url, connections_secret, sync_interval};

const KIND: &str = "DataPlatform";
/// What lies outside the cluster is removed before the resource is.
const FINALIZER: &str = "autonomy.dev/database";

/// Brings a DataPlatform to what its spec wants.
///
/// # Errors
/// When Kubernetes does not take what was found.
pub async fn reconcile(platform: Arc<DataPlatform>, context: Arc<Context>) -> Result<Action, Failure> {
    if platform.meta().deletion_timestamp.is_some() {
        return cleanup::clean_up(&platform, &context).await;
    }
    if platform.spec.suspend {
        return Ok(Action::await_change());
    }
    let current = platform.status.as_ref();
    let mut status = current.cloned().unwrap_or_default();
    let verdict = match bring_about(&platform, &context, &mut status).await {
        Ok(verdict) => verdict,
        Err(error) => error.verdict(),
    };
    context.conclude(KIND, platform.as_ref(), current, status, &verdict).await
}

async fn bring_about(platform: &DataPlatform, context: &Context, status: &mut DataPlatformStatus) -> Result<Verdict, PlatformError> {
    let delete = platform.spec.deletion_policy == DeletionPolicy::Delete;
    server_side::ensure_finalizer(&context.client, platform, FINALIZER, delete).await?;

    let dereferenced = dereference::dereference(platform, context).await?;
    let connection = context.connections.open(&dereferenced.namespace, &dereferenced.name, &dereferenced.urls).await?;
    let passwords = dereferenced.passwords.clone();
    let built =
        build::build(platform, dereferenced, &context.settings, context.has_kind("monitoring.coreos.com/v1", "ServiceMonitor").await)?;
    let deployments = apply::apply(context, &connection, &built, &passwords).await?;

    status.api_url = Some(build::api_url(platform));
    for (ownership, deployment) in &deployments {
        if let Some(trouble) = workload::trouble(&context.client, ownership, deployment).await {
            return Ok(trouble);
        }
    }
    Ok(Verdict::new(Reason::Reconciled, format!("the object API is served at {}", build::api_url(platform))))
}

/// The Secrets that a platform names.
pub fn secret_names(platform: &DataPlatform) -> impl Iterator<Item = &str> {
    let postgresql = platform.spec.postgresql.iter().map(|postgresql| &postgresql.url_from);
    let nats = platform.spec.nats.iter().flat_map(|nats| std::iter::once(&nats.url_from).chain(&nats.reader_url_from));
    postgresql.chain(nats).map(|reference| reference.secret_name.as_str())
}

/// Why a platform is not what its spec wants.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The spec lacks what a cluster needs.
    #[error("{0}")]
    Invalid(String),
    /// A Secret is not there, or lacks the key.
    #[error("{0}")]
    ReferenceMissing(String),
    /// Its systems can't be opened.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The database can't be prepared.
    #[error(transparent)]
    Prepare(#[from] crate::prepare::PrepareError),
    /// The streams can't be made.
    #[error(transparent)]
    Streams(#[from] crate::streams::StreamError),
    /// Kubernetes does not take an object.
    #[error(transparent)]
    Kubernetes(#[from] ServerSideError),
}

impl PlatformError {
    fn verdict(&self) -> Verdict {
        use crate::prepare::PrepareError;
        let reason = match self {
            Self::Invalid(_) | Self::Connection(ConnectionError::DatabaseUrl(_)) => Reason::Invalid,
            Self::ReferenceMissing(_) => Reason::ReferenceMissing,
            Self::Connection(_) | Self::Streams(_) => Reason::MessagingUnavailable,
            Self::Prepare(PrepareError::Database(error)) => super::database_reason(error),
            Self::Prepare(_) => Reason::DatabaseRefused,
            Self::Kubernetes(error) => error.reason(),
        };
        Verdict::new(reason, autonomy_process::telemetry::error_chain(self))
    }
}

fn named(platform: &DataPlatform) -> (String, String) {
    (platform.namespace().unwrap_or_default(), platform.name_any())
}
