//! JSON Patch on an object: it is read, patched as JSON, checked like the body of a PUT, and written on condition that it is still the one
//! that was read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use rand::RngExt;
use sha2::{Digest, Sha256};
use sqlx::Row;

use super::{WriteRequest, idempotency_key, mode, preconditions, replay, request_hash, respond, set_id, whole};
use crate::body::{self, Purpose};
use crate::database::{Failure, Gate};
use crate::etag::Tag;
use crate::json_patch::{self, Patch, Patched};
use crate::metrics::Metrics;
use crate::plan::{EntityPlan, SYSTEM, VERSION};
use crate::problem::{Intake, Path, Problem};
use crate::representation::content_type;
use crate::rows::Rows;
use crate::sql;
use crate::transactions::Request;
use crate::write::{self, Batch, Kind, Outcomes, Owner, Place, UnitOutcome, object};

// A patch that meets other writers each time is tried so often.
const TRIES: u32 = 8;

/// Whether a request's body is a JSON Patch.
pub fn is_asked(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|media_type| media_type.eq_ignore_ascii_case(json_patch::MEDIA_TYPE))
}

/// Patches the object in the path.
///
/// # Errors
/// A problem with all that is wrong with the patch or with what comes out of it, or where the database refuses.
pub async fn write(gate: &Gate, metrics: &Metrics, request: &WriteRequest<'_>, plan: &Arc<EntityPlan>) -> Result<Response<Body>, Failure> {
    mode(request.method, request.parameters, true)?;
    let wanted = preconditions::if_match(request)?;
    if wanted.is_none() {
        preconditions::require_if_match(plan)?;
    }
    if request.headers.contains_key(header::IF_NONE_MATCH) {
        return Err(crate::transactions::bad_header("If-None-Match", "is for PUT with *, or for GET").into());
    }
    let kept: Vec<&str> = plan.columns[..SYSTEM].iter().map(|column| column.member.as_str()).collect();
    let patch = Patch::read(body::text(request.body)?, &kept)?;
    let mut tries = 0;
    loop {
        let Looked { present, kept } = look(gate, request, plan).await?;
        // The first answer is given again, whatever became of the object since.
        if let Some(answer) = kept {
            let replayed = UnitOutcome::Replayed { status: 200, answer: answer.clone() };
            metrics.wrote(&Outcomes { units: vec![Some(replayed)] });
            return Ok(replay(&answer)?);
        }
        let Some(present) = present else {
            return Err(Problem::not_found(format!("There is no {} with this id.", plan.entity().name)).into());
        };
        if matches!(wanted, Some(Tag::Version(version)) if version != present.version) {
            let problem = Problem::precondition_failed(format!("The object has version {} by now.", present.version));
            return Err(problem.with(Place::Body.precondition(Owner { unit: 0, operation: 0 })).into());
        }
        let prepared = prepare(request, plan, &patch, &present)?;
        let outcomes = write::apply(gate, &prepared.work, prepared.failed).await?;
        let lost = matches!(&outcomes.units[..], [Some(UnitOutcome::Failed(problem))] if problem.status == StatusCode::PRECONDITION_FAILED);
        if lost && !matches!(wanted, Some(Tag::Version(_))) {
            if tries == TRIES {
                return Err(Problem::precondition_failed("Others have changed the object each time; read it and try again.").into());
            }
            tries += 1;
            let pause = rand::rng().random_range(1..=(5 << tries));
            tokio::time::sleep(Duration::from_millis(pause)).await;
            continue;
        }
        metrics.wrote(&outcomes);
        return Ok(respond(&prepared.work, outcomes, false)?);
    }
}

// The object as it is now.
struct Present {
    version: i64,
    json: String,
}

// The object, and the answer kept for the request's idempotency key.
struct Looked {
    present: Option<Present>,
    kept: Option<String>,
}

// The object is read first: a request that has changed it since with the same key has kept its answer by the time of the second look.
async fn look(gate: &Gate, request: &WriteRequest<'_>, plan: &EntityPlan) -> Result<Looked, Failure> {
    let id = request.id.unwrap_or_default();
    let columns: Vec<usize> = (0..plan.columns.len()).collect();
    let mut session = gate.session().await?;
    let rows = session.rows(sql::object(plan, id.into_bytes(), None, &columns, &[])).await?;
    let present = match rows.first() {
        Some(row) => {
            let version = write::text(row, VERSION)?.and_then(|version| version.parse().ok()).ok_or_else(Problem::internal)?;
            let json = String::from_utf8(object(plan, row, 0)?).map_err(|_| Problem::internal())?;
            Some(Present { version, json })
        }
        None => None,
    };
    let Some(key) = idempotency_key(request.headers)? else { return Ok(Looked { present, kept: None }) };
    let rows = session.rows(sql::kept_answers(&[Sha256::digest(key.as_bytes()).into()])).await?;
    let Some(row) = rows.first() else { return Ok(Looked { present, kept: None }) };
    let for_request: Option<Vec<u8>> = row.try_get(1)?;
    if for_request.as_deref() != Some(&request_hash(request)) {
        return Err(Problem::idempotency_key_reused().into());
    }
    let answer: Option<String> = row.try_get(3)?;
    Ok(Looked { present, kept: Some(answer.unwrap_or_default()) })
}

// The patched object, to be written in the place of the one that was read; or nothing but its version looked at, where it stays the same.
fn prepare(request: &WriteRequest<'_>, plan: &Arc<EntityPlan>, patch: &Patch<'_>, present: &Present) -> Result<Request, Problem> {
    let patched = patch.apply(&present.json)?;
    let mut batch = Batch {
        plan: plan.clone(),
        kind: if patched == Patched::Unchanged { Kind::Patch } else { Kind::Put },
        rows: Rows::new(plan.columns.len()),
        owners: Vec::new(),
        conditions: vec![Tag::Version(present.version).condition(0, request.id.unwrap_or_default().into_bytes())],
        references: Vec::new(),
    };
    let mut intake = Intake::default();
    match &patched {
        Patched::Unchanged => batch.rows.begin(),
        Patched::Changed(text) => body::read_object(text, plan, Purpose::Replace, &Path::ROOT, &mut batch.rows, &mut intake)?,
    }
    set_id(request, &mut batch, &mut intake);
    if !intake.faults.is_empty() {
        let mut problem = intake.faults.into_problem();
        problem.detail = format!("The object would have faults after the patch: their pointers are into the object. {}", problem.detail);
        return Err(problem);
    }
    batch.references = intake.references;
    whole(request, batch, Place::Body)
}
