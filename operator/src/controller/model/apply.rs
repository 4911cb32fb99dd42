//! Putting a DataModel into effect: the Migration is written down, then run where it may; then the database is compared with the catalog, and the
//! stream is made.

use autonomy_crds::DataModel;
use autonomy_crds::data_model::DataModelStatus;
use autonomy_crds::migration::{Migration, MigrationState};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::super::context::Context;
use super::super::server_side::{self, ensure};
use super::super::verdict::{Reason, Verdict};
use super::build::Built;
use super::dereference::Dereferenced;
use super::{MODEL_LABEL, ModelError};
use crate::apply::{self as plan_apply, Applied as PlanApplied};
use crate::{drift, streams};

/// A model in effect.
pub struct Applied {
    pub revision: i64,
    pub entities: usize,
    pub stream: String,
    /// What differs and is not made good.
    pub drift: Vec<String>,
}

/// Puts it into effect; may be repeated at any time.
pub async fn apply(
    context: &Context,
    model: &DataModel,
    from: &Dereferenced,
    built: Built,
    status: &mut DataModelStatus,
) -> Result<Applied, ModelError> {
    let wanted = &built.plan.wanted;
    settle_others(context, from, built.from_revision, built.migration.as_ref()).await?;
    let mut revision = built.from_revision;
    if let Some(migration) = &built.migration {
        let migration = ensure(&context.client, migration).await?;
        status.migration = Some(migration.name_any());
        revision = run(context, model, &built, &migration, from).await?;
    }

    let database = &from.connection.database;
    let drift = drift::repair(database, wanted).await.map_err(ModelError::Drift)?;
    for repair in &drift.repairs {
        context.tell(model, true, "DriftRepaired", &format!("made good in the database: {}", repair.what)).await;
    }
    streams::ensure(&from.connection.jetstream, &from.namespace, std::slice::from_ref(wanted), &from.streams).await?;
    let entities = wanted.entities.len();
    Ok(Applied { revision, entities, stream: wanted.stream.clone(), drift: drift.differences })
}

// Runs a migration where it is safe or approved; gives the revision then served.
async fn run(context: &Context, model: &DataModel, built: &Built, migration: &Migration, from: &Dereferenced) -> Result<i64, ModelError> {
    let approved = model.spec.migrations.as_ref().and_then(|migrations| migrations.approved.as_deref());
    let sha256 = &migration.spec.sha256;
    if migration.spec.hazardous && approved != Some(sha256) {
        let hazards = built.plan.hazards().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let message = format!("waits for approval: set spec.migrations.approved of DataModel {} to {sha256}", from.name);
        tell(context, migration, MigrationState::WaitingForApproval, None, &Verdict::new(Reason::ApprovalNeeded, message)).await?;
        return Err(ModelError::ApprovalNeeded { migration: migration.name_any(), hazards, sha256: sha256.clone() });
    }
    tell(context, migration, MigrationState::Pending, None, &Verdict::new(Reason::MigrationRunning, "it is run")).await?;
    match plan_apply::apply(&from.connection.database, &built.plan, approved).await {
        Ok(PlanApplied::Unchanged) => Ok(built.from_revision),
        Ok(PlanApplied::Changed { revision, statements, unfinished }) => {
            let mut message = format!("{statements} statements ran; revision {revision} is served");
            if !unfinished.is_empty() {
                message.push_str(&format!("; tried again later: {}", unfinished.join("; ")));
            }
            tell(context, migration, MigrationState::Applied, Some(revision), &Verdict::new(Reason::Reconciled, message.clone())).await?;
            context.tell(model, false, "Migrated", &format!("Migration {}: {message}", migration.name_any())).await;
            Ok(revision)
        }
        Err(error) => {
            let error = ModelError::from(error);
            let verdict = error.verdict();
            if verdict.reason == Reason::MigrationFailed {
                tell(context, migration, MigrationState::Failed, None, &verdict).await?;
            }
            Err(error)
        }
    }
}

async fn tell(
    context: &Context,
    migration: &Migration,
    state: MigrationState,
    revision: Option<i64>,
    verdict: &Verdict,
) -> Result<(), ModelError> {
    let current = migration.status.as_ref();
    let mut status = current.cloned().unwrap_or_default();
    status.state = Some(state);
    if state == MigrationState::Applied && status.applied_at.is_none() {
        status.applied_at = Timestamp::from_second(Timestamp::now().as_second()).ok().map(|now| now.to_string());
        status.revision = revision;
    }
    verdict.write(&mut status, migration.metadata.generation);
    Ok(server_side::ensure_status(&context.client, migration, current, &status).await?)
}

// Migrations whose outcome was not written down: their plan was taken over by another one, or the operator ended in between.
async fn settle_others(context: &Context, from: &Dereferenced, revision: i64, present: Option<&Migration>) -> Result<(), ModelError> {
    let api: Api<Migration> = Api::namespaced(context.client.clone(), &from.namespace);
    let label = format!("{MODEL_LABEL}={}", from.name);
    let migrations = api.list(&ListParams::default().labels(&label).match_any()).await.map_err(|source| {
        server_side::ServerSideError::Api { kind: "Migration".to_owned(), name: label.clone(), doing: "listed", source: Box::new(source) }
    })?;
    for migration in &migrations.items {
        if present.is_some_and(|present| present.name_any() == migration.name_any()) {
            continue;
        }
        match outcome(migration, revision) {
            None => {}
            Some(MigrationState::Applied) => {
                let verdict = Verdict::new(Reason::Reconciled, format!("revision {revision} is served"));
                tell(context, migration, MigrationState::Applied, Some(revision), &verdict).await?;
            }
            Some(state) => {
                let verdict = Verdict::new(Reason::Reconciled, "another plan took its place before it ran");
                tell(context, migration, state, None, &verdict).await?;
            }
        }
    }
    Ok(())
}

// What became of a migration that is not the one at hand; none where that is written down already. Only one that was to run can have led to the
// present revision: from its revision there is one way, and whoever took another one has made it Superseded.
fn outcome(migration: &Migration, revision: i64) -> Option<MigrationState> {
    let from = migration.spec.from_revision;
    match migration.status.as_ref().and_then(|status| status.state) {
        Some(MigrationState::Applied | MigrationState::Superseded) => None,
        Some(MigrationState::Pending) if from + 1 == revision => Some(MigrationState::Applied),
        _ => Some(MigrationState::Superseded),
    }
}

#[cfg(test)]
mod tests {
    use autonomy_crds::migration::{MigrationSpec, MigrationStatus};

    use super::*;

    fn migration(from_revision: i64, state: Option<MigrationState>) -> Migration {
        let mut migration = Migration::new("m", MigrationSpec { from_revision, ..MigrationSpec::default() });
        migration.status = Some(MigrationStatus { state, ..MigrationStatus::default() });
        migration
    }

    #[test]
    fn what_was_left_open_is_settled_by_the_revision() {
        use MigrationState::{Applied, Failed, Pending, Superseded, WaitingForApproval};
        assert_eq!(outcome(&migration(1, Some(Pending)), 2), Some(Applied), "the operator ended before it wrote it down");
        assert_eq!(outcome(&migration(1, Some(Pending)), 1), Some(Superseded), "the spec was changed back");
        assert_eq!(outcome(&migration(1, Some(WaitingForApproval)), 2), Some(Superseded));
        assert_eq!(outcome(&migration(1, Some(Failed)), 1), Some(Superseded));
        assert_eq!(outcome(&migration(1, None), 1), Some(Superseded));
        assert_eq!(outcome(&migration(1, Some(Applied)), 5), None);
    }
}
