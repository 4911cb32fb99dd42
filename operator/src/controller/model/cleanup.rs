//! Deleting a DataModel. By default everything outside the cluster stays; with `deletionPolicy: Delete` the schema and the stream go with it.

use autonomy_crds::condition::DeletionPolicy;
use autonomy_crds::{DataModel, event};
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::super::Failure;
use super::super::context::Context;
use super::super::server_side::ensure_finalizer;
use super::super::verdict::{Reason, Verdict};
use super::{FINALIZER, KIND, named};
use crate::removal::{self, RemovalError};
use crate::streams;

/// Removes what has to be removed, then lets the resource go.
pub async fn clean_up(model: &DataModel, context: &Context) -> Result<Action, Failure> {
    if model.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        let removed = if model.spec.deletion_policy == DeletionPolicy::Delete { remove(model, context).await } else { Ok(()) };
        if let Err(verdict) = removed {
            let current = model.status.as_ref();
            return context.conclude(KIND, model, current, current.cloned().unwrap_or_default(), &verdict).await;
        }
        ensure_finalizer(&context.client, model, FINALIZER, false).await.map_err(|source| context.failure(KIND, model, source))?;
    }
    Ok(Action::await_change())
}

// First the tables, in one transaction with the catalog; the relay passes over what it still reads of them once the stream is gone too.
async fn remove(model: &DataModel, context: &Context) -> Result<(), Verdict> {
    let (namespace, name) = named(model);
    let platform = model.spec.platform();
    let Some(connection) = context.connections.prepared(&namespace, platform) else {
        let message = format!(
            "the schema and the stream can't be removed, since DataPlatform {platform} is not ready; to leave them there, take the finalizer {FINALIZER} off"
        );
        return Err(Verdict::new(Reason::PlatformNotReady, message));
    };
    let others = connection.catalog().await.map_err(|error| outside(&error))?;
    if others.get(&name).is_some_and(|entry| entry.model.namespace != namespace) {
        return Ok(());
    }
    match removal::remove_model(&connection.database, &name).await {
        Ok(_) => {}
        Err(RemovalError::InUse(what)) => return Err(Verdict::new(Reason::StillInUse, what)),
        Err(error) => return Err(outside(&error)),
    }
    streams::remove_model(&connection.jetstream, &event::stream(&namespace, &name)).await.map_err(|error| outside(&error))
}

fn outside(error: &(dyn std::error::Error + 'static)) -> Verdict {
    Verdict::new(Reason::Deleting, format!("it could not be removed yet: {}", autonomy_process::telemetry::error_chain(error)))
}
