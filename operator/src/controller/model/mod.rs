//! DataModels: a schema with its migrations, a stream, and the services of their webhooks.

mod apply;
mod build;
mod cleanup;
mod dereference;
mod validate;
mod webhooks;

use std::sync::Arc;

use autonomy_crds::DataModel;
use autonomy_crds::Faults;
use autonomy_crds::condition::DeletionPolicy;
use autonomy_crds::data_model::DataModelStatus;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};

use super::Failure;
use super::context::Context;
use super::server_side::{self, ServerSideError};
use super::verdict::{Reason, Verdict};
use crate::apply::ApplyError;
use crate::catalog::CatalogError;

const KIND: &str = "DataModel";
/// The schema and the stream are removed before the resource is.
const FINALIZER: &str = "autonomy.dev/schema";
/// The label of a Migration that names its DataModel.
const MODEL_LABEL: &str = "autonomy.dev/data-model";

/// Brings a DataModel to what its spec wants.
///
/// # Errors
/// When Kubernetes does not take what was found.
pub async fn reconcile(model: Arc<DataModel>, context: Arc<Context>) -> Result<Action, Failure> {
    if model.meta().deletion_timestamp.is_some() {
        return cleanup::clean_up(&model, &context).await;
    }
    if model.spec.suspend {
        return Ok(Action::await_change());
    }
    let current = model.status.as_ref();
    let mut status = current.cloned().unwrap_or_default();
    let verdict = match bring_about(&model, &context, &mut status).await {
        Ok(verdict) => verdict,
        Err(error) => error.verdict(),
    };
    context.conclude(KIND, model.as_ref(), current, status, &verdict).await
}

async fn bring_about(model: &DataModel, context: &Context, status: &mut DataModelStatus) -> Result<Verdict, ModelError> {
    let delete = model.spec.deletion_policy == DeletionPolicy::Delete;
    server_side::ensure_finalizer(&context.client, model, FINALIZER, delete).await?;

    let dereferenced = dereference::dereference(model, context).await?;
    let validated = validate::validate(model, &dereferenced)?;
    let built = build::build(model, &validated, &dereferenced).await?;
    let applied = apply::apply(context, model, &dereferenced, built, status).await?;

    status.entities = Some(i64::try_from(applied.entities).unwrap_or(i64::MAX));
    status.revision = Some(applied.revision);
    status.stream = Some(applied.stream);
    status.drift = applied.drift;
    status.webhooks = webhooks::apply(context, model).await?;
    if status.drift.is_empty() {
        return Ok(Verdict::new(Reason::Reconciled, format!("revision {} is served", applied.revision)));
    }
    let differences = status.drift.join("; ");
    let advice = "the operator does not undo this, since data would be lost or guessed; put it right by hand or change the model";
    Ok(Verdict::new(Reason::Drifted, format!("the database differs from the model: {differences}; {advice}")))
}

/// Why a model is not what its spec wants.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its platform is not there.
    #[error("there is no DataPlatform {0} in this namespace; it is waited for")]
    PlatformMissing(String),
    /// Its platform can't be used yet.
    #[error("DataPlatform {0} is not ready; see its conditions")]
    PlatformNotReady(String),
    /// It imports what is not there.
    #[error("spec.imports: there is no DataModel {0} in this namespace; it is waited for")]
    ImportMissing(String),
    /// It imports what is not in the database yet.
    #[error("spec.imports: {0} is not applied yet; it is waited for")]
    ImportNotReady(String),
    /// Its spec is wrong.
    #[error("{0}")]
    Invalid(Faults),
    /// Another namespace has a model of that name in this database.
    #[error("the database has a model {name} of namespace {namespace} already; give this one another name or another database")]
    NameTaken {
        /// The model.
        name: String,
        /// Whose it is.
        namespace: String,
    },
    /// The migration waits for approval.
    #[error(
        "Migration {migration} waits for approval, and the model is served as before: {hazards}; to let it run, set spec.migrations.approved to {sha256}"
    )]
    ApprovalNeeded {
        /// The Migration.
        migration: String,
        /// What is dangerous about it.
        hazards: String,
        /// Its plan.
        sha256: String,
    },
    /// The migration failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The catalog can't be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The schema can't be compared with the catalog.
    #[error("the schema can't be compared with the catalog")]
    Drift(#[source] sqlx::Error),
    /// The stream can't be made.
    #[error(transparent)]
    Streams(#[from] crate::streams::StreamError),
    /// Kubernetes does not take an object.
    #[error(transparent)]
    Kubernetes(#[from] ServerSideError),
}

impl ModelError {
    fn verdict(&self) -> Verdict {
        let reason = match self {
            Self::PlatformMissing(_) => Reason::PlatformMissing,
            Self::PlatformNotReady(_) => Reason::PlatformNotReady,
            Self::ImportMissing(_) => Reason::ModelMissing,
            Self::ImportNotReady(_) => Reason::ModelNotReady,
            Self::Invalid(_) => Reason::Invalid,
            Self::NameTaken { .. } => Reason::NameTaken,
            Self::ApprovalNeeded { .. } => Reason::ApprovalNeeded,
            Self::Apply(ApplyError::Busy { .. } | ApplyError::Outdated(_)) => Reason::TablesBusy,
            Self::Apply(ApplyError::Refused { source, .. }) if super::database_reason(source) == Reason::DatabaseUnavailable => {
                Reason::DatabaseUnavailable
            }
            Self::Apply(ApplyError::Refused { .. }) => Reason::MigrationFailed,
            // What was planned is known to be hazardous before it is applied.
            Self::Apply(ApplyError::Hazardous { .. }) => Reason::ApprovalNeeded,
            Self::Apply(ApplyError::Database(error)) | Self::Drift(error) => super::database_reason(error),
            Self::Apply(ApplyError::Catalog(_)) | Self::Catalog(_) => Reason::DatabaseUnavailable,
            Self::Streams(_) => Reason::MessagingUnavailable,
            Self::Kubernetes(error) => error.reason(),
        };
        Verdict::new(reason, autonomy_process::telemetry::error_chain(self))
    }
}

fn named(model: &DataModel) -> (String, String) {
    (model.namespace().unwrap_or_default(), model.name_any())
}
