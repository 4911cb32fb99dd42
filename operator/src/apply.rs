//! Applying a plan: one transaction changes the tables and the catalog together, or nothing at all.
//!
//! The catalog entry is written first in the transaction, so that in log order the relay knows the new model before it sees rows of its new form.
//! Whoever applies holds an advisory lock; the catalog is compared with what the plan was made from within the transaction. Locks on tables are
//! waited for only briefly, because every reader and writer queues up behind one who waits; then all is tried again.

use std::time::Duration;

use autonomy_crds::Model;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::catalog::{self, Catalog, CatalogError};
use crate::drift;
use crate::facts::Facts;
use crate::plan::{Plan, plan};
use crate::prepare;
use crate::step::{Hazard, Phase};

const LOCK_TIMEOUT: &str = "2s";
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_millis(200);
const TRIES_TO_PLAN: u32 = 5;

/// What applying a model did.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// The catalog had it already.
    Unchanged,
    /// It is served from now on.
    Changed {
        /// The catalog entry's revision.
        revision: i64,
        /// How many statements changed the schema.
        statements: usize,
        /// Statements of the plan's last phase that failed. The model is served without them; [`crate::drift::repair`] makes them good.
        unfinished: Vec<String>,
    },
}

/// Why a plan was not applied. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The plan is hazardous and was not approved.
    #[error("the change of model {model} is not safe, and nothing was changed: {}", list(hazards))]
    Hazardous {
        /// The model.
        model: String,
        /// Every hazard.
        hazards: Vec<Hazard>,
        /// The plan's sha256, by which it can be approved.
        sha256: String,
    },
    /// Another one changed the model since the plan was made.
    #[error("model {0} was changed by another one since the plan was made; plan again")]
    Outdated(String),
    /// A lock was not to be had.
    #[error("model {model} was not changed: its tables were locked by others for too long")]
    Busy {
        /// The model.
        model: String,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// The data or the schema did not allow a statement.
    #[error("model {model} was not changed: PostgreSQL refused {statement}")]
    Refused {
        /// The model.
        model: String,
        /// The statement.
        statement: String,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// The catalog could not be read or written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The database did not answer.
    #[error("PostgreSQL did not answer as expected")]
    Database(#[from] sqlx::Error),
}

fn list(hazards: &[Hazard]) -> String {
    hazards.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Brings the database to these models, imports first: plans each one, refuses all of them where one plan is hazardous, and applies them one
/// after the other. Gives what was done for each, in order. Models of the catalog that are not among them stay as they are.
///
/// # Errors
/// As [`apply`]; models before the one that failed are applied.
pub async fn apply_models(pool: &PgPool, models: &[Model]) -> Result<Vec<Applied>, ApplyError> {
    let catalog = catalog::read(pool).await?;
    for model in models {
        let plan = plan_model(pool, &catalog, model, models).await?;
        refuse_hazards(&plan, None)?;
    }
    let mut applied = Vec::with_capacity(models.len());
    for model in models {
        applied.push(apply_model(pool, model, models).await?);
    }
    Ok(applied)
}

async fn apply_model(pool: &PgPool, model: &Model, others: &[Model]) -> Result<Applied, ApplyError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let plan = plan_model(pool, &catalog::read(pool).await?, model, others).await?;
        match apply(pool, &plan, None).await {
            Err(ApplyError::Outdated(_)) if tries < TRIES_TO_PLAN => {}
            // What the last phase of an earlier plan left, or somebody took away by hand.
            Ok(Applied::Unchanged) => {
                let repaired = drift::repair(pool, model).await?;
                for difference in &repaired.differences {
                    tracing::warn!(model = model.name, difference, "the database differs from the catalog");
                }
                return Ok(Applied::Unchanged);
            }
            outcome => return outcome,
        }
    }
}

/// Plans a model against the catalog and the data there. `others` are models wanted beside it: a table that they rename is the same table.
///
/// # Errors
/// When the database can't be read.
pub async fn plan_model(pool: &PgPool, catalog: &Catalog, model: &Model, others: &[Model]) -> Result<Plan, ApplyError> {
    let current = catalog.get(&model.name).map(|entry| &entry.model);
    let others = others.iter().chain(catalog.values().map(|entry| &entry.model)).filter(|other| other.name != model.name);
    let facts = if current == Some(model) { Facts::default() } else { Facts::read(pool, current).await? };
    Ok(plan(current, model, &facts.with_renames_of(others)))
}

/// Applies a plan. A hazardous one only where `approved` is its sha256.
///
/// # Errors
/// When the plan is hazardous and not approved, outdated, or refused by the database; nothing has changed then.
pub async fn apply(pool: &PgPool, plan: &Plan, approved: Option<&str>) -> Result<Applied, ApplyError> {
    refuse_hazards(plan, approved)?;
    let mut tries = 0;
    let (revision, statements) = loop {
        tries += 1;
        match apply_once(pool, plan).await {
            Ok(Some(outcome)) => break outcome,
            Ok(None) => return Ok(Applied::Unchanged),
            Err(error) if tries < TRIES && passes(&error) => {
                tracing::debug!(model = plan.wanted.name, tries, "tables are locked; trying again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(ApplyError::Refused { model, source, .. }) if is_lock_timeout(&source) => return Err(ApplyError::Busy { model, source }),
            Err(error) => return Err(error),
        }
    };
    let unfinished = run_after(pool, &plan.statements(Phase::After)).await;
    Ok(Applied::Changed { revision, statements, unfinished })
}

fn refuse_hazards(plan: &Plan, approved: Option<&str>) -> Result<(), ApplyError> {
    if plan.is_safe() {
        return Ok(());
    }
    let sha256 = plan.sha256();
    if approved == Some(sha256.as_str()) {
        return Ok(());
    }
    Err(ApplyError::Hazardous { model: plan.wanted.name.clone(), hazards: plan.hazards().cloned().collect(), sha256 })
}

// The revision and the number of statements; None where the catalog has the model already.
async fn apply_once(pool: &PgPool, plan: &Plan) -> Result<Option<(i64, usize)>, ApplyError> {
    let before = plan.statements(Phase::Before);
    if !before.is_empty() {
        let mut transaction = pool.begin().await?;
        if !begin(&mut transaction, plan).await? {
            return Ok(None);
        }
        run(&mut transaction, &plan.wanted.name, &before).await?;
        transaction.commit().await?;
    }
    let mut transaction = pool.begin().await?;
    if !begin(&mut transaction, plan).await? {
        return Ok(None);
    }
    let revision = catalog::write(&mut transaction, &plan.wanted).await?;
    let statements = plan.statements(Phase::Together);
    run(&mut transaction, &plan.wanted.name, &statements).await?;
    transaction.commit().await?;
    Ok(Some((revision, before.len() + statements.len())))
}

// Takes the lock and compares the catalog with what the plan starts from. False where the wanted model is there already.
async fn begin(connection: &mut PgConnection, plan: &Plan) -> Result<bool, ApplyError> {
    prepare::lock(connection).await?;
    settings(connection).await?;
    let there = catalog::read_model(connection, &plan.wanted.name).await?.map(|entry| entry.model);
    if there.as_ref() == Some(&plan.wanted) {
        return Ok(false);
    }
    if there != plan.current {
        return Err(ApplyError::Outdated(plan.wanted.name.clone()));
    }
    Ok(true)
}

async fn settings(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let settings = format!(
        "SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL standard_conforming_strings = on; SET LOCAL timezone = 'UTC'; \
         SET LOCAL client_min_messages = warning; SET LOCAL search_path = pg_catalog"
    );
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await?;
    Ok(())
}

async fn run(connection: &mut PgConnection, model: &str, statements: &[String]) -> Result<(), ApplyError> {
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *connection).await.map_err(|source| ApplyError::Refused {
            model: model.to_owned(),
            statement: statement.clone(),
            source,
        })?;
    }
    Ok(())
}

// Each by itself and outside a transaction, as CREATE INDEX CONCURRENTLY asks; gives those that failed.
async fn run_after(pool: &PgPool, statements: &[String]) -> Vec<String> {
    if statements.is_empty() {
        return Vec::new();
    }
    let mut unfinished = Vec::new();
    let outcome = with_lock(pool, async |connection| {
        for statement in statements {
            if let Err(error) = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *connection).await {
                tracing::warn!(%error, statement, "a step beside running readers and writers failed; the next repair makes it good");
                unfinished.push(statement.clone());
            }
        }
        Ok(())
    });
    match outcome.await {
        Ok(()) => unfinished,
        Err(error) => {
            tracing::warn!(%error, "the steps beside running readers and writers did not run; the next repair makes them good");
            statements.to_vec()
        }
    }
}

/// Works on a connection of its own that has the operator's lock, outside a transaction.
pub(crate) async fn with_lock<T>(
    pool: &PgPool,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let mut connection = pool.acquire().await?.detach();
    let outcome = async {
        prepare::lock_session(&mut connection).await?;
        sqlx::raw_sql("SET standard_conforming_strings = on; SET timezone = 'UTC'").execute(&mut connection).await?;
        work(&mut connection).await
    }
    .await;
    // Closing the connection gives the lock back.
    connection.close().await?;
    outcome
}

fn passes(error: &ApplyError) -> bool {
    match error {
        ApplyError::Refused { source, .. } | ApplyError::Database(source) | ApplyError::Catalog(CatalogError::Database(source)) => {
            is_lock_timeout(source) || is_deadlock(source) || prepare::concurrent_change(source)
        }
        _ => false,
    }
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("55P03"))
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if matches!(error.code().as_deref(), Some("40P01" | "40001")))
}
