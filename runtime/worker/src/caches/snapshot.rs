//! Reading all objects of an entity from the API, from one snapshot of the database.

use std::io::BufRead;

use futures::TryStreamExt;

use super::CompiledCache;
use super::store::Store;

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
pub async fn read(http: &reqwest::Client, api_url: &str, cache: &CompiledCache, store: &mut Store) -> Result<u64, SnapshotError> {
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

    let mut lines = Lines { store, number: 0, begun: Vec::new() };
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.try_next().await? {
        lines.take(&chunk)?;
    }
    lines.end()?;
    Ok(position)
}

// Lines in pieces, as they come over the network.
struct Lines<'s> {
    store: &'s mut Store,
    number: u64,
    // A line whose end has not come.
    begun: Vec<u8>,
}

impl Lines<'_> {
    fn take(&mut self, mut chunk: &[u8]) -> Result<(), SnapshotError> {
        loop {
            let whole = chunk;
            // The standard library's search for a byte is the processor's.
            let length = chunk.skip_until(b'\n').unwrap_or_default();
            let Some(line) = whole[..length].strip_suffix(b"\n") else {
                self.begun.extend_from_slice(&whole[..length]);
                break;
            };
            if self.begun.is_empty() {
                self.line(line)?;
            } else {
                let mut begun = std::mem::take(&mut self.begun);
                begun.extend_from_slice(line);
                self.line(&begun)?;
                begun.clear();
                self.begun = begun;
            }
        }
        if self.begun.len() > LONGEST_LINE {
            return Err(SnapshotError::LongLine { line: self.number + 1 });
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), SnapshotError> {
        let begun = std::mem::take(&mut self.begun);
        self.line(&begun)
    }

    fn line(&mut self, line: &[u8]) -> Result<(), SnapshotError> {
        self.number += 1;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        self.store.take_line(line).map_err(|source| SnapshotError::Line { line: self.number, source })
    }
}
