//! What the relay keeps in PostgreSQL beside the slot: each stream's end as of the confirmed position (`autonomy.relay_stream`), and the catalog as
//! of that position (`autonomy.relay_model`), with which changes of before a later migration are rendered as they were the first time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use autonomy_crds::Model;
use autonomy_crds::event::Position;
use sqlx::{PgConnection, PgPool};

use crate::publish::Tail;

/// The catalog at a place of the log, by model.
pub type Models = BTreeMap<String, CatalogEntry>;

/// A model in the catalog.
#[derive(Clone, Debug)]
pub struct CatalogEntry {
    /// Another one for each time that a model of this name is made: what was removed is told from what was applied again.
    pub uid: Arc<str>,
    /// The model.
    pub model: Arc<Model>,
}

/// Why the state can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The database did not answer as expected.
    #[error(
        "the relay's state (autonomy.relay_stream, autonomy.relay_model) can't be read or written; has the operator prepared the database?"
    )]
    Database(#[from] sqlx::Error),
    /// A model is not understood.
    #[error("the entry of model {model} is not understood; was it written by a newer version?")]
    Model {
        /// The model.
        model: String,
        /// What is not understood.
        #[source]
        source: serde_json::Error,
    },
}

/// What is kept of a stream.
#[derive(Clone, Debug, Default)]
pub struct StreamRow {
    /// Its last sequence at the confirmed position: with fewer messages, it has lost some that the slot no longer has.
    pub tail: Tail,
    /// Whether it is to be repaired by a snapshot before anything else goes to it.
    pub repairing: bool,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// Whether the first start was finished: from then on the log tells all, also of models applied later.
    pub started: bool,
    /// By stream.
    pub streams: HashMap<String, StreamRow>,
    /// The catalog at the confirmed position; empty before the first start.
    pub models: Models,
}

const REPAIRING: &str = "repairing";
const STREAMING: &str = "streaming";
// A row of `relay_stream` that is no stream (streams' names are in upper case): the first start was finished.
const STARTED: &str = "_started";

/// Reads the state.
///
/// # Errors
/// When the database can't be read or a model is not understood.
pub async fn read(pool: &PgPool) -> Result<Saved, StateError> {
    let rows: Vec<(String, i64, Option<String>, String)> =
        sqlx::query_as("SELECT stream, coalesce(last_sequence, 0), last_position, coalesce(state, '') FROM autonomy.relay_stream")
            .fetch_all(pool)
            .await?;
    let streams = rows.into_iter().map(|(stream, sequence, position, state)| {
        let tail =
            Tail { sequence: u64::try_from(sequence).unwrap_or(0), position: position.and_then(|text| text.parse::<Position>().ok()) };
        (stream, StreamRow { tail, repairing: state == REPAIRING })
    });
    let mut streams: HashMap<_, _> = streams.collect();
    let started = streams.remove(STARTED).is_some();
    let models = sqlx::query_as("SELECT model, uid::text, resolved::text FROM autonomy.relay_model").fetch_all(pool).await?;
    Ok(Saved { started, streams, models: parse_models(models)? })
}

/// Reads the compiled catalog as this connection's transaction sees it.
///
/// # Errors
/// When the database can't be read or a model is not understood.
pub async fn read_catalog(connection: &mut PgConnection) -> Result<Models, StateError> {
    parse_models(sqlx::query_as("SELECT model, uid::text, resolved::text FROM autonomy.catalog").fetch_all(connection).await?)
}

/// The uids that the catalog has now for those of the models that it has.
///
/// # Errors
/// When the database can't be read.
pub async fn catalog_uids(pool: &PgPool, models: &[&str]) -> Result<HashMap<String, String>, StateError> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT model, uid::text FROM autonomy.catalog WHERE model = ANY ($1)").bind(models).fetch_all(pool).await?;
    Ok(rows.into_iter().collect())
}

/// Reads one entry: name, uid, resolved model.
///
/// # Errors
/// When it is not understood.
pub fn parse_entry(name: &str, uid: &str, resolved: &str) -> Result<CatalogEntry, StateError> {
    let model = serde_json::from_str(resolved).map_err(|source| StateError::Model { model: name.to_owned(), source })?;
    Ok(CatalogEntry { uid: uid.into(), model: Arc::new(model) })
}

fn parse_models(rows: Vec<(String, String, String)>) -> Result<Models, StateError> {
    rows.into_iter().map(|(name, uid, resolved)| Ok((name.clone(), parse_entry(&name, &uid, &resolved)?))).collect()
}

/// Writes the ends of streams, and the catalog where one is given, at once.
///
/// # Errors
/// When the database can't be written.
pub async fn save(pool: &PgPool, streams: &[(String, Tail)], models: Option<&Models>) -> Result<(), StateError> {
    let mut transaction = pool.begin().await?;
    let names: Vec<&str> = streams.iter().map(|(name, _)| name.as_str()).collect();
    let sequences: Vec<i64> = streams.iter().map(|(_, tail)| i64::try_from(tail.sequence).unwrap_or(i64::MAX)).collect();
    let positions: Vec<Option<String>> = streams.iter().map(|(_, tail)| tail.position.map(|position| position.to_string())).collect();
    sqlx::query(
        "INSERT INTO autonomy.relay_stream AS kept (stream, last_sequence, last_position, state, updated_at) \
         SELECT stream, sequence, position, $4, now() FROM unnest($1::text[], $2::bigint[], $3::text[]) AS given (stream, sequence, position) \
         ON CONFLICT (stream) DO UPDATE SET last_sequence = excluded.last_sequence, last_position = excluded.last_position, \
         state = excluded.state, updated_at = excluded.updated_at",
    )
    .bind(&names)
    .bind(&sequences)
    .bind(&positions)
    .bind(STREAMING)
    .execute(&mut *transaction)
    .await?;
    if let Some(models) = models {
        let names: Vec<&str> = models.keys().map(String::as_str).collect();
        let uids: Vec<&str> = models.values().map(|entry| &*entry.uid).collect();
        let mut texts = Vec::with_capacity(models.len());
        for (name, entry) in models {
            texts.push(serde_json::to_string(&*entry.model).map_err(|source| StateError::Model { model: name.clone(), source })?);
        }
        sqlx::query("DELETE FROM autonomy.relay_model WHERE model <> ALL ($1::text[])").bind(&names).execute(&mut *transaction).await?;
        sqlx::query(
            "INSERT INTO autonomy.relay_model (model, uid, resolved, updated_at) \
             SELECT model, uid::uuid, resolved::jsonb, now() FROM unnest($1::text[], $2::text[], $3::text[]) AS given (model, uid, resolved) \
             ON CONFLICT (model) DO UPDATE SET uid = excluded.uid, resolved = excluded.resolved, updated_at = excluded.updated_at",
        )
        .bind(&names)
        .bind(&uids)
        .bind(&texts)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Notes that streams are to be repaired.
///
/// # Errors
/// When the database can't be written.
pub async fn mark_repairing(pool: &PgPool, streams: &[String]) -> Result<(), StateError> {
    sqlx::query(
        "INSERT INTO autonomy.relay_stream AS kept (stream, last_sequence, last_position, state, updated_at) \
         SELECT stream, 0, NULL, $2, now() FROM unnest($1::text[]) AS given (stream) \
         ON CONFLICT (stream) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at",
    )
    .bind(streams)
    .bind(REPAIRING)
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes that the first start is finished.
///
/// # Errors
/// When the database can't be written.
pub async fn mark_started(pool: &PgPool) -> Result<(), StateError> {
    sqlx::query("INSERT INTO autonomy.relay_stream (stream, state) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(STARTED)
        .bind(STREAMING)
        .execute(pool)
        .await?;
    Ok(())
}

/// Notes that all streams are to be repaired and that no catalog is known: the state before a slot is made.
///
/// # Errors
/// When the database can't be written.
pub async fn forget(pool: &PgPool) -> Result<(), StateError> {
    let mut transaction = pool.begin().await?;
    sqlx::query("UPDATE autonomy.relay_stream SET state = $1, updated_at = now()").bind(REPAIRING).execute(&mut *transaction).await?;
    sqlx::query("DELETE FROM autonomy.relay_stream WHERE stream = $1").bind(STARTED).execute(&mut *transaction).await?;
    sqlx::query("DELETE FROM autonomy.relay_model").execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}
