//! Deleting a DataPlatform. What lies in the cluster goes with its owner; with `deletionPolicy: Delete` the platform's own part of database and NATS
//! goes too, once no DataModel needs it.

use autonomy_crds::DataPlatform;
use autonomy_crds::condition::DeletionPolicy;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::super::Failure;
use super::super::context::Context;
use super::super::server_side::ensure_finalizer;
use super::super::verdict::{Reason, Verdict};
use super::{FINALIZER, KIND, PlatformError, dereference, named};
use crate::{removal, streams};

/// Removes what has to be removed, then lets the resource go.
pub async fn clean_up(platform: &DataPlatform, context: &Context) -> Result<Action, Failure> {
    if platform.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        let removed = if platform.spec.deletion_policy == DeletionPolicy::Delete { remove(platform, context).await } else { Ok(()) };
        if let Err(verdict) = removed {
            let current = platform.status.as_ref();
            return context.conclude(KIND, platform, current, current.cloned().unwrap_or_default(), &verdict).await;
        }
        ensure_finalizer(&context.client, platform, FINALIZER, false).await.map_err(|source| context.failure(KIND, platform, source))?;
    }
    Ok(Action::await_change())
}

async fn remove(platform: &DataPlatform, context: &Context) -> Result<(), Verdict> {
    let (namespace, name) = named(platform);
    let models =
        context.stores.models.state_filter(|model| model.namespace().as_ref() == Some(&namespace) && model.spec.platform() == name);
    if !models.is_empty() {
        let names: Vec<String> = models.iter().map(|model| model.name_any()).collect();
        return Err(Verdict::new(Reason::StillInUse, format!("DataModels are on this platform: {}; delete them first", names.join(", "))));
    }
    let outside = async {
        let dereferenced = dereference::dereference(platform, context).await?;
        let connection = context.connections.open(&namespace, &name, &dereferenced.urls).await?;
        Ok::<_, PlatformError>(connection)
    };
    let connection = outside.await.map_err(|error| {
        let verdict = error.verdict();
        Verdict::new(
            verdict.reason,
            format!(
                "what is outside the cluster can't be removed: {}; to leave it there, take the finalizer {FINALIZER} off",
                verdict.message
            ),
        )
    })?;
    match removal::remove_platform(&connection.database).await {
        Ok(()) => {}
        Err(removal::RemovalError::InUse(what)) => return Err(Verdict::new(Reason::StillInUse, what)),
        Err(error) => return Err(Verdict::new(Reason::Deleting, autonomy_process::telemetry::error_chain(&error))),
    }
    let others = context.stores.platforms.state_filter(|other| other.namespace().as_ref() == Some(&namespace) && other.name_any() != name);
    if others.is_empty() {
        streams::remove_shared(&connection.jetstream, &namespace)
            .await
            .map_err(|error| Verdict::new(Reason::Deleting, autonomy_process::telemetry::error_chain(&error)))?;
    }
    Ok(())
}
