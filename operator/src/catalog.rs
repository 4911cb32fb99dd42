//! The compiled catalog: the models as the database has them.

use std::collections::BTreeMap;

use autonomy_crds::Model;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};

/// The channel that is notified when the catalog changes, with the model's name.
pub const CATALOG_CHANNEL: &str = "autonomy_catalog";

/// A model in the catalog.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The model.
    pub model: Model,
    /// Raised by one with every change.
    pub revision: i64,
    /// The sha256 of the model's JSON, in hex.
    pub sha256: String,
}

/// Models by name.
pub type Catalog = BTreeMap<String, Entry>;

/// Why the catalog can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The database was not prepared.
    #[error("the database has no schema autonomy yet; prepare it first (autonomy_operator::prepare)")]
    NotPrepared,
    /// The database did not answer as expected.
    #[error("the catalog in PostgreSQL can't be read or written")]
    Database(#[source] sqlx::Error),
    /// An entry is not a model that this version understands.
    #[error("the catalog's entry for model {model} is not understood; was it written by a newer operator?")]
    Model {
        /// The model's name.
        model: String,
        /// What is not understood.
        #[source]
        source: serde_json::Error,
    },
}

impl From<sqlx::Error> for CatalogError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // undefined_table, invalid_schema_name
            sqlx::Error::Database(found) if matches!(found.code().as_deref(), Some("42P01" | "3F000")) => Self::NotPrepared,
            _ => Self::Database(error),
        }
    }
}

/// Reads the whole catalog.
///
/// # Errors
/// When the database was not prepared or can't be read, or an entry is not understood.
pub async fn read(pool: &PgPool) -> Result<Catalog, CatalogError> {
    let rows: Vec<Row> = sqlx::query_as("SELECT model, revision, sha256, resolved::text FROM autonomy.catalog").fetch_all(pool).await?;
    rows.into_iter().map(|row| Ok((row.0.clone(), entry(row)?))).collect()
}

/// Reads what is other than in `known`; none where nothing is.
///
/// # Errors
/// As [`read`].
pub async fn read_changes(pool: &PgPool, known: &Catalog) -> Result<Option<Catalog>, CatalogError> {
    let revisions: Vec<(String, i64, String)> =
        sqlx::query_as("SELECT model, revision, sha256 FROM autonomy.catalog").fetch_all(pool).await?;
    let is_known = |(name, revision, sha256): &&(String, i64, String)| {
        known.get(name).is_some_and(|entry| entry.revision == *revision && entry.sha256 == *sha256)
    };
    let changed: Vec<&String> = revisions.iter().filter(|row| !is_known(row)).map(|(name, ..)| name).collect();
    if changed.is_empty() && revisions.len() == known.len() {
        return Ok(None);
    }
    let rows: Vec<Row> = sqlx::query_as("SELECT model, revision, sha256, resolved::text FROM autonomy.catalog WHERE model = ANY($1)")
        .bind(&changed)
        .fetch_all(pool)
        .await?;
    let kept = revisions.iter().filter_map(|(name, ..)| known.get_key_value(name)).map(|(name, entry)| (name.clone(), entry.clone()));
    let mut catalog: Catalog = kept.collect();
    for row in rows {
        catalog.insert(row.0.clone(), entry(row)?);
    }
    Ok(Some(catalog))
}

/// Reads one model's entry on a connection.
///
/// # Errors
/// As [`read`].
pub async fn read_model(connection: &mut PgConnection, model: &str) -> Result<Option<Entry>, CatalogError> {
    let row: Option<Row> = sqlx::query_as("SELECT model, revision, sha256, resolved::text FROM autonomy.catalog WHERE model = $1")
        .bind(model)
        .fetch_optional(connection)
        .await?;
    row.map(entry).transpose()
}

/// Writes a model's entry and notifies those who follow the catalog; gives the new revision.
///
/// # Errors
/// When the database can't be written.
pub async fn write(connection: &mut PgConnection, model: &Model) -> Result<i64, CatalogError> {
    let json = json(model)?;
    let revision: i64 = sqlx::query_scalar(
        "INSERT INTO autonomy.catalog AS catalog (model, namespace, revision, resolved, sha256, applied_at) \
         VALUES ($1, $2, 1, $3::jsonb, $4, now()) \
         ON CONFLICT (model) DO UPDATE SET namespace = excluded.namespace, revision = catalog.revision + 1, \
           resolved = excluded.resolved, sha256 = excluded.sha256, applied_at = excluded.applied_at \
         RETURNING revision",
    )
    .bind(&model.name)
    .bind(&model.namespace)
    .bind(&json)
    .bind(hex_sha256(json.as_bytes()))
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("SELECT pg_notify($1, $2)").bind(CATALOG_CHANNEL).bind(&model.name).execute(connection).await?;
    Ok(revision)
}

type Row = (String, i64, String, String);

fn entry((model, revision, sha256, resolved): Row) -> Result<Entry, CatalogError> {
    let model = serde_json::from_str(&resolved).map_err(|source| CatalogError::Model { model, source })?;
    Ok(Entry { model, revision, sha256 })
}

fn json(model: &Model) -> Result<String, CatalogError> {
    serde_json::to_string(model).map_err(|source| CatalogError::Model { model: model.name.clone(), source })
}

/// A sha256 in hex.
pub fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
