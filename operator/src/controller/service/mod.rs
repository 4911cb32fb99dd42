//! MicroServices: a worker Deployment with its service's declaration, its durable consumers, and its scaling.

mod apply;
mod build;
mod dereference;

use std::collections::BTreeSet;
use std::sync::Arc;

use autonomy_crds::micro_service::MicroServiceStatus;
use autonomy_crds::resolve::check_service;
use autonomy_crds::{Faults, MicroService};
use autonomy_process::object_storage::InboxError;
use autonomy_worker::service::CompiledService;
use kube::Resource;
use kube::runtime::controller::Action;

use self::dereference::Dereferenced;
use super::context::Context;
use super::server_side::ServerSideError;
use super::verdict::{Reason, Verdict};
use super::{Failure, workload};
use crate::catalog::CatalogError;

const KIND: &str = "MicroService";

/// Brings a MicroService to what its spec wants.
///
/// # Errors
/// When Kubernetes does not take what was found.
pub async fn reconcile(service: Arc<MicroService>, context: Arc<Context>) -> Result<Action, Failure> {
    if service.meta().deletion_timestamp.is_some() {
        // Its place in the stream stays, so that a service made again goes on where it was.
        return Ok(Action::await_change());
    }
    // What is seen of it while it runs is written by whoever looks at that.
    let current = service.status.clone().map(MicroServiceStatus::without_observations);
    let mut status = current.clone().unwrap_or_default();
    let verdict = match bring_about(&service, &context, &mut status).await {
        Ok(verdict) => verdict,
        Err(error) => error.verdict(),
    };
    context.conclude(KIND, service.as_ref(), current.as_ref(), status, &verdict).await
}

async fn bring_about(service: &MicroService, context: &Context, status: &mut MicroServiceStatus) -> Result<Verdict, ServiceError> {
    let dereferenced = dereference::dereference(service, context).await?;
    check(service, &dereferenced).map_err(ServiceError::Invalid)?;
    let keda = context.has_kind("keda.sh/v1alpha1", "ScaledObject").await;
    let built = build::build(service, &dereferenced, &context.settings, keda)?;
    let deployment = apply::apply(context, &dereferenced, &built).await?;

    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    status.replicas = Some(wanted);
    status.ready_replicas = Some(deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0));
    if service.spec.suspend {
        return Ok(Verdict::new(Reason::Suspended, "the service is suspended; its events wait in the stream"));
    }
    if let Some(trouble) = workload::trouble(&context.client, &built.ownership, &deployment).await {
        return Ok(trouble);
    }
    Ok(Verdict::new(
        Reason::Reconciled,
        if wanted == 0 { "no worker is wanted now".to_owned() } else { "its workers are ready".to_owned() },
    ))
}

// What it refers to, and every expression, by the compiler of the worker that will run it: what is wrong is told before a pod is started or
// replaced. Expressions know that a value of `config` is a text, and nothing of what is in it, so environment variables may stay unknown here.
fn check(service: &MicroService, from: &Dereferenced) -> Result<(), Faults> {
    check_service(service, &from.models)?;
    CompiledService::compile(&from.namespace, &from.name, &service.spec, &from.models, &service.spec.config).map(|_| ())
}

/// The Secrets that a service names.
pub fn secret_names(service: &MicroService) -> BTreeSet<&str> {
    let keys = service.spec.secret_keys().map(|(_, reference)| reference.secret_name.as_str());
    keys.chain(service.spec.environment_from.iter().filter_map(|source| source.secret.as_deref())).collect()
}

/// Why a service is not what its spec wants.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Its platform is not there.
    #[error("there is no DataPlatform {0} in this namespace; it is waited for")]
    PlatformMissing(String),
    /// Its platform can't be used yet.
    #[error("DataPlatform {0} is not ready; see its conditions")]
    PlatformNotReady(String),
    /// It uses a model that is not there.
    #[error("there is no DataModel {0} in this namespace; it is waited for")]
    ModelMissing(String),
    /// It uses a model that is not in the database yet.
    #[error("DataModel {0} is not applied yet; it is waited for")]
    ModelNotReady(String),
    /// The stream of a model is not there.
    #[error("the stream {0} is not there yet; it is waited for")]
    StreamMissing(String),
    /// A Secret, ConfigMap or claim is not there.
    #[error("{0}")]
    ReferenceMissing(String),
    /// Its spec is wrong.
    #[error("{0}")]
    Invalid(Faults),
    /// The catalog can't be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The bucket of its files is not usable.
    #[error(transparent)]
    Bucket(#[from] InboxError),
    /// Its consumers can't be made.
    #[error("the consumer {name} of stream {stream} can't be made")]
    Consumer {
        /// The consumer.
        name: String,
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Kubernetes does not take an object.
    #[error(transparent)]
    Kubernetes(#[from] ServerSideError),
}

impl ServiceError {
    fn verdict(&self) -> Verdict {
        let reason = match self {
            Self::PlatformMissing(_) => Reason::PlatformMissing,
            Self::PlatformNotReady(_) => Reason::PlatformNotReady,
            Self::ModelMissing(_) => Reason::ModelMissing,
            Self::ModelNotReady(_) | Self::StreamMissing(_) => Reason::ModelNotReady,
            Self::ReferenceMissing(_) => Reason::ReferenceMissing,
            Self::Invalid(_) | Self::Bucket(_) => Reason::Invalid,
            Self::Catalog(_) => Reason::DatabaseUnavailable,
            Self::Consumer { .. } => Reason::MessagingUnavailable,
            Self::Kubernetes(error) => error.reason(),
        };
        Verdict::new(reason, autonomy_process::telemetry::error_chain(self))
    }
}
