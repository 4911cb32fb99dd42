//! Taking away what lies in the database: a model's schema and roles, or the platform's own part. Only where `deletionPolicy: Delete` asks for it.

use autonomy_crds::Model;
use autonomy_crds::names::quote_identifier;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::apply::with_lock;
use crate::catalog::{self, CATALOG_CHANNEL, CatalogError};
use crate::prepare;
use crate::sql::{PUBLICATION, api_role, relay_role, slot};

/// Why something was not taken away.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// Others need it; the text says who.
    #[error("{0}")]
    InUse(String),
    /// The catalog can't be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// PostgreSQL refused or did not answer.
    #[error("PostgreSQL did not remove it")]
    Database(#[from] sqlx::Error),
}

/// Drops a model's schema with all its data, its catalog entry and its roles; nothing where that is done already. The model as it was is given.
///
/// # Errors
/// When another model imports it, or PostgreSQL refuses; nothing has changed then.
pub async fn remove_model(pool: &PgPool, name: &str) -> Result<Option<Model>, RemovalError> {
    let mut transaction = pool.begin().await?;
    prepare::lock(&mut transaction).await?;
    let Some(entry) = catalog::read_model(&mut transaction, name).await? else { return Ok(None) };
    let importers: Vec<String> =
        sqlx::query_scalar("SELECT model FROM autonomy.catalog WHERE model <> $1 AND resolved->'imports' ? $1 ORDER BY model")
            .bind(name)
            .fetch_all(&mut *transaction)
            .await?;
    if !importers.is_empty() {
        return Err(RemovalError::InUse(format!("DataModels import it: {}; delete them or their imports first", importers.join(", "))));
    }
    let model = entry.model;
    let roles = [&model.reader_role, &model.writer_role];
    run(&mut transaction, &format!("DROP SCHEMA IF EXISTS {} CASCADE", quote_identifier(&model.schema))).await?;
    sqlx::query("DELETE FROM autonomy.catalog WHERE model = $1").bind(name).execute(&mut *transaction).await?;
    sqlx::query("SELECT pg_notify($1, $2)").bind(CATALOG_CHANNEL).bind(name).execute(&mut *transaction).await?;
    for role in roles {
        drop_role(&mut transaction, role).await?;
    }
    transaction.commit().await?;
    tracing::info!(model = name, "the model's schema is dropped");
    Ok(Some(model))
}

/// Drops the platform's own part: replication slot, publication, schema `autonomy`, roles.
///
/// # Errors
/// When the database still has models, or PostgreSQL refuses.
pub async fn remove_platform(pool: &PgPool) -> Result<(), RemovalError> {
    let models = match catalog::read(pool).await {
        Ok(catalog) => catalog,
        Err(CatalogError::NotPrepared) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !models.is_empty() {
        let names: Vec<&str> = models.keys().map(String::as_str).collect();
        let names = names.join(", ");
        return Err(RemovalError::InUse(format!(
            "the database still holds the models {names}, whose DataModels were deleted with Retain: drop their schemas and their rows in autonomy.catalog, or take the finalizer off"
        )));
    }
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(pool).await?;
    with_lock(pool, async |connection| {
        join_role(connection, &relay_role(&database)).await?;
        sqlx::query("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active")
            .bind(slot(&database))
            .execute(&mut *connection)
            .await?;
        sqlx::query("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1")
            .bind(slot(&database))
            .execute(&mut *connection)
            .await?;
        let mut transaction = connection.begin().await?;
        run(&mut transaction, &format!("DROP PUBLICATION IF EXISTS {PUBLICATION}")).await?;
        run(&mut transaction, "DROP SCHEMA IF EXISTS autonomy CASCADE").await?;
        for role in [api_role(&database), relay_role(&database)] {
            drop_role(&mut transaction, &role).await?;
        }
        transaction.commit().await
    })
    .await?;
    Ok(())
}

// A role may have rights in another database; then it stays, without any in this one.
async fn drop_role(connection: &mut PgConnection, role: &str) -> Result<(), sqlx::Error> {
    if !join_role(connection, role).await? {
        return Ok(());
    }
    let role = quote_identifier(role);
    run(connection, &format!("DROP OWNED BY {role}")).await?;
    run(
        connection,
        &format!("DO $autonomy$ BEGIN DROP ROLE {role}; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $autonomy$"),
    )
    .await
}

// Who is no superuser may end a role's connections, and drop what it has, only as its member. Gives whether there is such a role.
async fn join_role(connection: &mut PgConnection, role: &str) -> Result<bool, sqlx::Error> {
    let there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)").bind(role).fetch_one(&mut *connection).await?;
    if there {
        run(connection, &format!("GRANT {} TO CURRENT_USER", quote_identifier(role))).await?;
    }
    Ok(there)
}

async fn run(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.map(drop)
}
