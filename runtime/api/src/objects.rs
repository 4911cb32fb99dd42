//! Writing objects of one entity: POST, PUT, PATCH and DELETE, each as one unit of [`crate::write`].

mod apart;
pub mod patched;
mod preconditions;
pub mod streamed;
pub mod together;

use std::collections::BTreeMap;
use std::sync::Arc;

use autonomy_crds::event::WriteContext;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::body::{self, Purpose, Shape};
use crate::plan::{EntityPlan, ID};
use crate::problem::{Fault, Faults, Intake, Path, Problem};
use crate::query::invalid_query;
use crate::representation::Representation;
use crate::rows::{Rows, Value};
use crate::transactions::{MOST_KEY_BYTES, Request, bad_header};
use crate::write::{Batch, Counts, Effect, Kind, Objects, Outcomes, Owner, Place, Unit, UnitOutcome, Work, Written};

/// A request that writes objects of one entity.
#[derive(Debug)]
pub struct WriteRequest<'a> {
    /// GET and HEAD aside, any method.
    pub method: &'a Method,
    /// Path and query, as they came.
    pub target: &'a str,
    /// The query's parameters.
    pub parameters: &'a [(String, String)],
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The id in the path.
    pub id: Option<Uuid>,
    /// What the body is, where it holds a list.
    pub representation: Representation,
    /// The body.
    pub body: &'a [u8],
}

/// What a request's method and parameters ask for: the kind of writing, and whether each object succeeds or fails for itself.
///
/// # Errors
/// Names the parameters that can't be used.
pub fn mode(method: &Method, parameters: &[(String, String)], one: bool) -> Result<(Kind, bool), Problem> {
    let mut apart = false;
    let mut kind = match *method {
        Method::POST => Kind::Create,
        Method::PUT => Kind::Put,
        Method::PATCH => Kind::Patch,
        _ => Kind::Delete,
    };
    let mut faults = Faults::default();
    for (name, value) in parameters {
        match (name.as_str(), value.as_str()) {
            ("onConflict", "error") if kind.is_create() => kind = Kind::Create,
            ("onConflict", "ignore") if kind.is_create() => kind = Kind::CreateOrIgnore,
            ("onConflict", "update") if kind.is_create() => kind = Kind::CreateOrUpdate,
            ("onError", "stop" | "continue") if kind != Kind::Put && !one => apart = value == "continue",
            ("onError", _) if kind != Kind::Put && !one => faults.push(Fault::parameter(name, "must be stop or continue")),
            ("onConflict", _) if kind.is_create() => faults.push(Fault::parameter(name, "must be error, ignore or update")),
            _ => faults.push(Fault::parameter(name, format!("is no parameter of {method} here"))),
        }
    }
    if faults.is_empty() { Ok((kind, apart)) } else { Err(invalid_query(faults)) }
}

/// Reads a request into what is to be written.
///
/// # Errors
/// A problem with all that is wrong with it.
pub fn read(request: &WriteRequest<'_>, plan: &Arc<EntityPlan>) -> Result<Request, Problem> {
    let (kind, apart) = mode(request.method, request.parameters, request.id.is_some())?;
    let mut batch = Batch {
        plan: plan.clone(),
        kind,
        rows: Rows::new(plan.columns.len()),
        owners: Vec::new(),
        conditions: Vec::new(),
        references: Vec::new(),
    };
    let mut intake = Intake { by_row: apart.then(BTreeMap::new), ..Intake::default() };
    let shape = read_body(request, &mut batch, &mut intake)?;
    preconditions::of_one(request, &mut batch)?;
    let unconditional = preconditions::of_list(request, &intake.tags, &mut batch)?;
    if apart {
        if shape == Shape::One {
            return Err(body::wrong_shape("must be a list of objects where each fails for itself"));
        }
        return apart::read(request, batch, intake.by_row.unwrap_or_default(), &unconditional);
    }
    if !unconditional.is_empty() {
        return Err(preconditions::required_of(plan, &unconditional));
    }
    whole(request, batch, if shape == Shape::One { Place::Body } else { Place::Item })
}

// The rows as one unit.
fn whole(request: &WriteRequest<'_>, mut batch: Batch, place: Place) -> Result<Request, Problem> {
    let count = batch.rows.len() as u32;
    batch.owners = (0..count).map(|operation| Owner { unit: 0, operation }).collect();
    let want_objects = !prefers_minimal(request.headers) && batch.kind != Kind::Delete;
    let mut unit = Unit { context: context(request.headers), operations: (0..count).map(|row| (0, row)).collect(), ..Unit::default() };
    if let Some(key) = idempotency_key(request.headers)? {
        unit.keys.push(Sha256::digest(key.as_bytes()).into());
        unit.key_texts.push(key);
        unit.request = Some(request_hash(request));
    }
    let work = Work { batches: vec![batch], units: vec![unit], place, want_objects, of_strangers: false, keep };
    Ok(Request { work, failed: Vec::new() })
}

fn read_body(request: &WriteRequest<'_>, batch: &mut Batch, intake: &mut Intake) -> Result<Shape, Problem> {
    let mut shape = Shape::One;
    let plan = batch.plan.clone();
    if batch.kind == Kind::Delete && request.id.is_some() {
        batch.rows.begin();
    } else {
        let purpose = match (batch.kind, request.id) {
            (Kind::Put, _) => Purpose::Replace,
            (Kind::Patch, Some(_)) => Purpose::Patch,
            (Kind::Patch, None) => Purpose::PatchWithId,
            (Kind::Delete, _) => Purpose::Delete,
            _ => Purpose::Create,
        };
        if request.id.is_some() {
            body::read_object(body::text(request.body)?, &plan, purpose, &Path::ROOT, &mut batch.rows, intake)?;
        } else {
            shape = body::read_objects(request.body, request.representation, &plan, purpose, &mut batch.rows, intake)?;
        }
    }
    let is_change = matches!(batch.kind, Kind::Patch | Kind::Delete);
    if is_change && request.id.is_none() && intake.faults.is_empty() {
        if shape == Shape::One {
            return Err(body::wrong_shape("must be a list of objects, each with its id"));
        }
        if batch.kind == Kind::Delete && batch.rows.is_empty() {
            return Err(body::wrong_shape("must be a list of at least one object: a list without any deletes nothing"));
        }
    }
    set_id(request, batch, intake);
    batch.references = std::mem::take(&mut intake.references);
    if intake.faults.is_empty() { Ok(shape) } else { Err(std::mem::take(&mut intake.faults).into_problem()) }
}

// The id in the path is the object's, whatever the body says.
fn set_id(request: &WriteRequest<'_>, batch: &mut Batch, intake: &mut Intake) {
    let Some(id) = request.id.filter(|_| !batch.rows.is_empty()) else { return };
    if batch.rows.get(0, ID) != Value::Absent && batch.rows.id(0) != id.into_bytes() {
        intake.push(&Path::ROOT.member("id"), "is another than the id in the path");
    }
    batch.rows.set(ID, |out| {
        out.extend_from_slice(id.as_bytes());
        true
    });
}

fn text_header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    headers.get(name).map(|value| value.to_str().map_err(|_| Problem::bad_request(format!("The header {name} is not ASCII.")))).transpose()
}

/// The request's own idempotency key.
///
/// # Errors
/// Where it can't be used.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let name = HeaderName::from_static("idempotency-key");
    let Some(text) = text_header(headers, &name)? else { return Ok(None) };
    // The draft of the header has it as a quoted string; most send it bare.
    let key = match text.trim() {
        quoted if quoted.starts_with('"') => {
            quoted[1..].strip_suffix('"').ok_or_else(|| bad_header("Idempotency-Key", "begins with a quote and ends without one"))?
        }
        bare => bare,
    };
    if key.is_empty() || key.len() > MOST_KEY_BYTES {
        return Err(bad_header("Idempotency-Key", format!("must have 1 to {MOST_KEY_BYTES} bytes")));
    }
    Ok(Some(key.to_owned()))
}

// The same key with another request is a mistake; what makes the request is what it does.
fn request_hash(request: &WriteRequest<'_>) -> [u8; 32] {
    let mut hash = head_hash(request.method, request.target, request.headers);
    hash.update(request.body);
    hash.finalize().into()
}

fn head_hash(method: &Method, target: &str, headers: &HeaderMap) -> Sha256 {
    let mut hash = Sha256::new();
    for part in [method.as_str(), target] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    for name in [&header::IF_MATCH, &header::IF_NONE_MATCH] {
        hash.update(headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default());
        hash.update([0]);
    }
    hash
}

/// The header of W3C's trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

fn context(headers: &HeaderMap) -> WriteContext {
    WriteContext { actor: None, traceparent: traceparent(headers).map(str::to_owned), causation_id: None }
}

/// The trace context of a request.
pub fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(TRACEPARENT)?.to_str().ok()?;
    (value.len() <= MOST_KEY_BYTES).then_some(value)
}

/// Whether the request asks for an answer without the objects.
pub fn prefers_minimal(headers: &HeaderMap) -> bool {
    let prefers = HeaderName::from_static("prefer");
    headers
        .get_all(prefers)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .any(|preference| preference.trim().eq_ignore_ascii_case("return=minimal"))
}

/// An answer that can be kept for a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    minimal: bool,
    // As text, so that a replay is the same to the byte.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    body: String,
}

impl Answer {
    fn of(work: &Work, written: &[Written], objects: &Objects) -> Self {
        let batch = &work.batches[0];
        let object = |written: &Written| objects.get(&(0, written.id)).map(|json| String::from_utf8_lossy(json)).unwrap_or_default();
        let minimal = !work.want_objects && batch.kind != Kind::Delete;
        let created = written.iter().filter(|written| written.effect == Effect::Created).count();
        if work.place == Place::Item {
            let body = if work.want_objects {
                let items: Vec<_> = written.iter().map(object).collect();
                format!("[{}]", items.join(","))
            } else if batch.kind == Kind::Delete {
                format!(r#"{{"deleted":{}}}"#, written.len())
            } else {
                Counts::of(written).to_json()
            };
            let status = if batch.kind.is_create() && (created > 0 || written.is_empty()) { 201 } else { 200 };
            return Self { status, minimal, body, ..Self::default() };
        }
        let Some(one) = written.first() else { return Self { status: 200, ..Self::default() } };
        let body = if work.want_objects { object(one).into_owned() } else { String::new() };
        let status = match one.effect {
            Effect::Created => 201,
            Effect::Deleted => 204,
            _ if body.is_empty() => 204,
            _ => 200,
        };
        let location = (one.effect == Effect::Created).then(|| location(&batch.plan, &one.id_text()));
        let etag = (one.effect != Effect::Deleted).then(|| format!("\"{}\"", one.version));
        Self { status, location, etag, minimal, body }
    }

    // For a list of new objects that was too large to be held.
    fn of_counts(counts: &Counts) -> Self {
        let status = if counts.created > 0 || *counts == Counts::default() { 201 } else { 200 };
        Self { status, minimal: true, body: counts.to_json(), ..Self::default() }
    }

    fn into_response(self, replayed: bool) -> Response<Body> {
        let has_body = !self.body.is_empty();
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        if has_body {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in [(header::LOCATION, self.location), (header::ETAG, self.etag)] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                headers.insert(name, value);
            }
        }
        if self.minimal {
            headers.insert("preference-applied", HeaderValue::from_static("return=minimal"));
        }
        if replayed {
            headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

/// The path of an object.
pub fn location(plan: &EntityPlan, id: &str) -> String {
    format!("/api/{}/{}/{id}", plan.model.name, plan.entity().path)
}

fn keep(work: &Work, written: &[Written], objects: &Objects) -> (u16, String) {
    let answer = Answer::of(work, written, objects);
    (answer.status, serde_json::to_string(&answer).unwrap_or_default())
}

/// The answer to a request.
///
/// # Errors
/// Where it failed.
pub fn respond(work: &Work, mut outcomes: Outcomes, put_if_absent: bool) -> Result<Response<Body>, Problem> {
    if work.place == Place::Unit {
        return Ok(apart::respond(outcomes));
    }
    respond_to(work, outcomes.units.pop().flatten(), put_if_absent)
}

// The answer to a request that is one unit.
fn respond_to(work: &Work, outcome: Option<UnitOutcome>, put_if_absent: bool) -> Result<Response<Body>, Problem> {
    match outcome {
        Some(UnitOutcome::Done { written, objects }) => Ok(Answer::of(work, &written, &objects).into_response(false)),
        Some(UnitOutcome::Replayed { answer, .. }) => replay(&answer),
        Some(UnitOutcome::Failed(mut problem)) => {
            if put_if_absent && problem.kind == "unique" {
                problem.status = StatusCode::PRECONDITION_FAILED;
                problem.kind = "precondition-failed";
            }
            Err(problem)
        }
        None => Err(Problem::internal()),
    }
}

// The answer that was kept for an idempotency key.
fn replay(kept: &str) -> Result<Response<Body>, Problem> {
    match serde_json::from_str::<Answer>(kept) {
        Ok(answer) => Ok(answer.into_response(true)),
        Err(_) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "This Idempotency-Key was used for a request of another kind; take a new key for each new request.",
        )),
    }
}
