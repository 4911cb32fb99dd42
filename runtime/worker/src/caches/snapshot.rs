//! Reading all objects of an entity from the API, from one snapshot of the database.

use futures::TryStreamExt;

use super::store::Store;
use crate::service::{CompiledCache, CompiledService};

// One object's JSON; the API takes no larger one.
const LONGEST_LINE: usize = 64 << 20;
/// The header with the position of the snapshot, as 16 hex digits.
pub const POSITION_HEADER: &str = "autonomy-position";

/// Why a snapshot can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The API can't be reached, or broke off.
    #[error("the API did not answer with all objects")]
    Http(#[from] reqwest::Error),
    /// The answer does not say where in the log it stands.
    #[error("the API's answer has no Autonomy-Position header of 16 hex digits")]
    NoPosition,
    /// A line is no object.
    #[error("line {line} of the API's answer is not an object of the entity")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong.
        #[source]
        source: crate::expression::JsonError,
    },
    /// A line does not end.
    #[error("line {line} of the API's answer is longer than {LONGEST_LINE} bytes")]
    LongLine {
        /// From 1.
        line: u64,
    },
    /// The cache's entity is not in its model.
    #[error("the model {model} has no entity {entity}")]
    NoEntity {
        /// The model.
        model: String,
        /// The entity.
        entity: String,
    },
}

/// Fills `store` with the cache's objects; gives the position of the snapshot: every change committed before it is in there.
///
/// # Errors
/// When the answer is not complete.
pub async fn read(
    http: &reqwest::Client,
    api_url: &str,
    service: &CompiledService,
    place: usize,
    cache: &CompiledCache,
    store: &mut Store,
) -> Result<u64, SnapshotError> {
    let entity = cache
        .model
        .entity(&cache.entity)
        .ok_or_else(|| SnapshotError::NoEntity { model: cache.model.name.clone(), entity: cache.entity.clone() })?;
    let mut request = http
        .get(format!("{}/api/{}/{}", api_url.trim_end_matches('/'), cache.model.name, entity.path))
        .header(reqwest::header::ACCEPT, "application/x-ndjson");
    if !cache.fields.is_empty() {
        request = request.query(&[("fields", cache.fields.join(","))]);
    }
    let response = request.send().await?.error_for_status()?;
    let position = response
        .headers()
        .get(POSITION_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(SnapshotError::NoPosition)?;

    let mut line_number = 0;
    let mut take = |line: &[u8], store: &mut Store| {
        line_number += 1;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let object = cache.reader.read(line).map_err(|source| SnapshotError::Line { line: line_number, source })?;
        if service.cache_holds(place, &object) {
            store.put(&object);
        }
        Ok::<(), SnapshotError>(())
    };
    let mut begun: Vec<u8> = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.try_next().await? {
        let mut rest = &chunk[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if begun.is_empty() {
                take(&rest[..end], store)?;
            } else {
                begun.extend_from_slice(&rest[..end]);
                take(&begun, store)?;
                begun.clear();
            }
            rest = &rest[end + 1..];
        }
        begun.extend_from_slice(rest);
        if begun.len() > LONGEST_LINE {
            return Err(SnapshotError::LongLine { line: line_number + 1 });
        }
    }
    if !begun.is_empty() {
        take(&begun, store)?;
    }
    Ok(position)
}
