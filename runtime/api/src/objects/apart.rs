//! `onError=continue`: each object of a list succeeds or fails for itself.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::{WriteRequest, context, idempotency_key, preconditions, request_hash};
use crate::problem::{Fault, Faults, MOST_ROWS_APART, Problem};
use crate::transactions::{self, Request};
use crate::write::{Batch, Effect, Objects, Outcomes, Owner, Place, Unit, UnitOutcome, Work, Written};

/// What is to be written: each row as a unit of its own, those with faults, or without a precondition that they need, failed already.
pub fn read(
    request: &WriteRequest<'_>,
    mut batch: Batch,
    mut faults: BTreeMap<u32, Faults>,
    unconditional: &[u32],
) -> Result<Request, Problem> {
    let count = batch.rows.len() as u32;
    if count as usize > MOST_ROWS_APART {
        let fault = Fault::at("", format!("must be a list of at most {MOST_ROWS_APART} objects, where each fails for itself"));
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", "The body has a fault.").with(fault));
    }
    batch.owners = (0..count).map(|unit| Owner { unit, operation: 0 }).collect();
    let key = idempotency_key(request.headers)?;
    let hash = key.as_ref().map(|_| request_hash(request));
    let context = context(request.headers);
    let units = (0..count).map(|row| {
        let key_texts: Vec<String> = key.iter().map(|key| format!("{key}/rows/{row}")).collect();
        Unit {
            keys: key_texts.iter().map(|key| Sha256::digest(key.as_bytes()).into()).collect(),
            key_texts,
            request: hash,
            context: context.clone(),
            operations: vec![(0, row)],
            needs: Vec::new(),
        }
    });
    let units = units.collect();
    let failed = (0..count).map(|row| match faults.remove(&row) {
        Some(faults) => Some(faults.into_problem()),
        None => unconditional.binary_search(&row).is_ok().then(|| preconditions::required_of(&batch.plan, &[row])),
    });
    let failed = failed.collect();
    Ok(Request { work: Work { batches: vec![batch], units, place: Place::Unit, want_objects: false, of_strangers: false, keep }, failed })
}

fn row_status(written: &Written) -> u16 {
    if written.effect == Effect::Created { 201 } else { 200 }
}

fn keep(_: &Work, written: &[Written], _: &Objects) -> (u16, String) {
    match written.first() {
        Some(written) => (row_status(written), transactions::result(written).to_string()),
        None => (200, "{}".to_owned()),
    }
}

/// Each row's status, with what became of it or its problem.
pub fn respond(outcomes: Outcomes) -> Response<Body> {
    let entry = |status: u16, result: Json| {
        let mut entry = json!({"status": status});
        if let (Some(entry), Json::Object(result)) = (entry.as_object_mut(), result) {
            entry.extend(result);
        }
        entry
    };
    let mut replayed_all = !outcomes.units.is_empty();
    let mut rows = Vec::with_capacity(outcomes.units.len());
    for outcome in outcomes.units {
        let replayed = matches!(outcome, Some(UnitOutcome::Replayed { .. }));
        replayed_all &= replayed;
        rows.push(match outcome {
            Some(UnitOutcome::Done { written, .. }) => {
                written.first().map_or(json!({}), |row| entry(row_status(row), transactions::result(row)))
            }
            Some(UnitOutcome::Replayed { status, answer }) => entry(status, serde_json::from_str(&answer).unwrap_or_default()),
            Some(UnitOutcome::Failed(problem)) => transactions::failed(&problem),
            None => transactions::failed(&Problem::internal()),
        });
    }
    let mut response = Response::new(Body::from(Json::Array(rows).to_string()));
    *response.status_mut() = StatusCode::MULTI_STATUS;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if replayed_all {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}
