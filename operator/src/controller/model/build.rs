//! The plan of a DataModel, and the Migration that shows it.

use autonomy_crds::migration::{Migration, MigrationHazard, MigrationHazardClass, MigrationPhase, MigrationSpec, MigrationStep};
use autonomy_crds::{DataModel, Model};
use kube::Resource;
use kube::api::ObjectMeta;

use super::super::FIELD_MANAGER;
use super::dereference::Dereferenced;
use super::{MODEL_LABEL, ModelError};
use crate::apply::plan_model;
use crate::plan::Plan;
use crate::sql;
use crate::step::{HazardClass, Phase};

/// A model's way to what is wanted.
pub struct Built {
    pub plan: Plan,
    /// The revision that the plan starts from.
    pub from_revision: i64,
    /// The Migration that shows the plan; none where there is nothing to do.
    pub migration: Option<Migration>,
}

/// Plans it. The database is only asked how many rows its tables have.
pub async fn build(model: &DataModel, wanted: &Model, from: &Dereferenced) -> Result<Built, ModelError> {
    let plan = plan_model(&from.connection.database, &from.catalog, wanted, &[]).await?;
    let from_revision = from.catalog.get(&from.name).map_or(0, |entry| entry.revision);
    let migration = (!plan.is_empty()).then(|| migration(model, from, &plan, from_revision));
    Ok(Built { plan, from_revision, migration })
}

/// The Migration of a plan; pure. The same plan from the same revision has the same name.
pub fn migration(model: &DataModel, from: &Dereferenced, plan: &Plan, from_revision: i64) -> Migration {
    let sha256 = plan.sha256();
    let steps = plan.steps.iter().map(|planned| MigrationStep {
        phase: match planned.phase {
            Phase::Before => MigrationPhase::Before,
            Phase::Together => MigrationPhase::Together,
            Phase::After => MigrationPhase::After,
        },
        sql: sql::statements(&plan.wanted.schema, &planned.step),
        hazards: planned
            .hazards
            .iter()
            .map(|hazard| MigrationHazard {
                class: match hazard.class {
                    HazardClass::LosesData => MigrationHazardClass::LosesData,
                    HazardClass::MayFail => MigrationHazardClass::MayFail,
                    HazardClass::MayBlock => MigrationHazardClass::MayBlock,
                },
                reason: hazard.reason.clone(),
            })
            .collect(),
    });
    let name = format!("{}-r{}-{}", from.name, from_revision + 1, &sha256[..10]);
    let labels = [(MODEL_LABEL, from.name.as_str()), ("app.kubernetes.io/managed-by", FIELD_MANAGER)];
    Migration {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(from.namespace.clone()),
            labels: Some(labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into()),
            owner_references: Some(model.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        spec: MigrationSpec { data_model: from.name.clone(), from_revision, sha256, hazardous: !plan.is_safe(), steps: steps.collect() },
        status: None,
    }
}
