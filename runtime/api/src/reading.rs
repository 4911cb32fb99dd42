//! Reading objects: one, a page of a list, or a whole list as a stream.

use std::collections::HashMap;
use std::sync::Arc;

use autonomy_crds::names::AS_OF;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use sqlx::Row;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::aggregate::{self, AggregateQuery};
use crate::database::{Failure, Gate, Meaning, Session, meaning};
use crate::embed::{self, Layout};
use crate::etag;
use crate::gathering::Gathering;
use crate::history;
use crate::plan::{EntityPlan, Plans, VERSION};
use crate::problem::{Fault, Faults, Problem};
use crate::query::{self, DEFAULT_LIMIT, ListQuery, MOST_LIMIT};
use crate::representation::{Representation, RowWriter};
use crate::sql;
use crate::write::{self, text};

// A page ends early when it grows beyond this; the next page goes on from there.
pub(crate) const MOST_PAGE_BYTES: usize = 32 * 1024 * 1024;
// The stream's pieces, and how many of them may wait for a slow reader.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES: usize = 4;

/// The header that says where in the log a streamed list is.
pub const POSITION_HEADER: &str = "autonomy-position";

/// A read of one object in a group of them.
pub struct Reading {
    id: [u8; 16],
    reply: oneshot::Sender<Option<Found>>,
}

// An object, and its version as text.
#[derive(Clone)]
struct Found {
    version: String,
    json: Bytes,
}

/// One object.
///
/// # Errors
/// Where there is none, or it can't be read.
pub async fn one(
    gate: &Gate,
    readings: &Arc<Gathering<usize, Reading>>,
    plans: &Plans,
    plan: &Arc<EntityPlan>,
    id: Uuid,
    parameters: &[(String, String)],
    headers: &HeaderMap,
) -> Result<Response<Body>, Failure> {
    if parameters.is_empty()
        && let Some(found) = one_of_many(gate, readings, plan, id).await?
    {
        return respond(&found.version, headers, true, || found.json);
    }
    let mut columns: Vec<usize> = (0..plan.columns.len()).collect();
    let mut embedded = Vec::new();
    let mut moment = None;
    let mut faults = Faults::default();
    for (name, value) in parameters {
        let read = match name.as_str() {
            "fields" => query::fields(plan, value).map(|fields| columns = fields),
            "embed" => embed::parse(plans, plan, value).map(|objects| embedded = objects),
            AS_OF => history::moment(plan, value).map(|at| moment = Some(at)),
            _ => Err("is no parameter of one object".to_owned()),
        };
        if let Err(detail) = read {
            faults.push(Fault::parameter(name, detail));
        }
    }
    if !faults.is_empty() {
        return Err(query::invalid_query(faults).into());
    }
    if moment.is_some() && !embedded.is_empty() {
        return Err(history::no_embedding().into());
    }
    let asked = columns.len();
    columns.push(VERSION);
    let mut session = gate.session().await?;
    let rows = session.rows(sql::object(plan, id.into_bytes(), moment, &columns, &embedded)).await?;
    let Some(row) = rows.first() else {
        return Err(history::absent(&mut session, plan, id, moment).await);
    };
    drop(session);
    let texts = texts(row)?;
    // The version is the object's own: it does not tell whether what is embedded has changed.
    respond(texts[asked].unwrap_or_default(), headers, embedded.is_empty(), || {
        let mut json = Vec::with_capacity(512);
        Layout::new(plan, &columns[..asked], &embedded, columns.len()).write(&texts, &mut json);
        json.into()
    })
}

// The object, read together with those that others ask for; none where it is not there, or could not be read so.
async fn one_of_many(
    gate: &Gate,
    readings: &Arc<Gathering<usize, Reading>>,
    plan: &Arc<EntityPlan>,
    id: Uuid,
) -> Result<Option<Found>, Problem> {
    let (reply, replied) = oneshot::channel();
    let (gate, group_plan) = (gate.clone(), plan.clone());
    let work = move |group| read_group(gate.clone(), group_plan.clone(), group);
    match readings.submit(Arc::as_ptr(plan) as usize, Reading { id: id.into_bytes(), reply }, work) {
        Ok(()) => Ok(replied.await.ok().flatten()),
        Err(_) => Err(Problem::unavailable("Too many requests are waiting for the database; try again.")),
    }
}

async fn read_group(gate: Gate, plan: Arc<EntityPlan>, group: Vec<Reading>) {
    let ids: Vec<[u8; 16]> = group.iter().map(|reading| reading.id).collect();
    // Where it fails, each reads for itself, and is told why.
    let found = read_many(&gate, &plan, &ids).await.unwrap_or_default();
    for Reading { id, reply } in group {
        // Who asked may be gone.
        let _ = reply.send(found.get(&id).cloned());
    }
}

async fn read_many(gate: &Gate, plan: &EntityPlan, ids: &[[u8; 16]]) -> Result<HashMap<[u8; 16], Found>, Failure> {
    let columns: Vec<usize> = (0..plan.columns.len()).collect();
    let rows = gate.session().await?.rows(sql::objects(plan, ids, &columns)).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let version = text(row, 1 + VERSION)?.unwrap_or_default().to_owned();
        found.insert(write::id(row, 0)?, Found { version, json: write::object(plan, row, 1)?.into() });
    }
    Ok(found)
}

// An object with its ETag, or that the client has it; `tells` where the version says all.
fn respond(version: &str, headers: &HeaderMap, tells: bool, json: impl FnOnce() -> Bytes) -> Result<Response<Body>, Failure> {
    let etag = HeaderValue::from_str(&format!("\"{version}\"")).map_err(|_| Problem::internal())?;
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).is_some_and(|tags| {
        tags.trim() == "*" || tags.split(',').any(|tag| etag::version_of(tag).is_some_and(|known| known.to_string() == version))
    });
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(header::ETAG, etag);
    if known && tells {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    *response.body_mut() = Body::from(json());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A page of a list.
///
/// # Errors
/// Where the query has faults, or the list can't be read.
pub async fn page(
    gate: &Gate,
    plans: &Plans,
    plan: &EntityPlan,
    path: &str,
    parameters: &[(String, String)],
) -> Result<Response<Body>, Failure> {
    let query = ListQuery::parse(plans, plan, parameters)?;
    let (columns, answered) = query.columns(plan);
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let mut session = gate.session().await?;
    let mut total = None;
    if query.count {
        let rows = session.rows(sql::count(plan, &query)).await?;
        total = rows.first().map(|row| row.try_get::<i64, _>(0)).transpose()?;
    }
    let layout = Layout::new(plan, &columns[..answered], &query.embedded, columns.len());
    let mut json = vec![b'['];
    let mut count = 0;
    let mut next = None;
    if limit > 0 {
        let statement = sql::list(plan, &query, &columns, &query.embedded, Some(limit + 1));
        session.busy(true);
        let mut rows = statement.query()?.fetch(session.connection());
        let mut last = None;
        loop {
            let row = rows.try_next().await.map_err(|error| bad_cursor(&query, error))?;
            let Some(row) = row else { break };
            if count == limit || json.len() > MOST_PAGE_BYTES {
                next = last.as_ref().map(|row| after(plan, &query, &columns, row)).transpose()?;
                break;
            }
            if count > 0 {
                json.push(b',');
            }
            layout.write(&texts(&row)?, &mut json);
            count += 1;
            last = Some(row);
        }
        // The statement is read to its end, so that the connection can be used again; a page that ended early closes it.
        let read_all = count <= limit && json.len() <= MOST_PAGE_BYTES && rows.try_next().await?.is_none();
        drop(rows);
        session.busy(!read_all);
    }
    drop(session);
    json.push(b']');
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(total) = total {
        headers.insert("x-total-count", HeaderValue::from(total));
    }
    if let Some(cursor) = next {
        let link = format!("<{path}?{}>; rel=\"next\"", query::next_page(parameters, &query.cursor(plan, cursor)));
        headers.insert(header::LINK, HeaderValue::from_str(&link).map_err(|_| Problem::internal())?);
    }
    Ok(response)
}

// Room is made at once: a list of results does not tell how long it will be.
pub(crate) fn texts(row: &sqlx::postgres::PgRow) -> Result<Vec<Option<&str>>, sqlx::Error> {
    let mut texts = Vec::with_capacity(row.len());
    for column in 0..row.len() {
        texts.push(text(row, column)?);
    }
    Ok(texts)
}

/// Aggregates in place of a list: an object a group.
///
/// # Errors
/// Where the query has faults, or the table can't be read.
pub async fn aggregates(gate: &Gate, plans: &Plans, plan: &EntityPlan, parameters: &[(String, String)]) -> Result<Response<Body>, Failure> {
    let query = AggregateQuery::parse(plans, plan, parameters)?;
    let limit = query.list.limit.unwrap_or(MOST_LIMIT);
    let mut session = gate.session().await?;
    let rows = session.rows(sql::aggregates(plan, &query, limit)).await?;
    drop(session);
    let mut json = vec![b'['];
    for (at, row) in rows.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        aggregate::write_group(plan, &query, &texts(row)?, &mut json);
    }
    json.push(b']');
    let mut response = Response::new(Body::from(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

// The texts of the sort columns.
fn after(plan: &EntityPlan, query: &ListQuery, columns: &[usize], row: &sqlx::postgres::PgRow) -> Result<Vec<Option<String>>, Failure> {
    let mut values = Vec::with_capacity(query.sort.len());
    for sort in &query.sort {
        let at = columns.iter().position(|column| *column == sort.column).ok_or_else(|| {
            tracing::error!(entity = plan.entity().name, "a sort column is not selected");
            Problem::internal()
        })?;
        values.push(text(row, at)?.map(str::to_owned));
    }
    Ok(values)
}

// A cursor that was tampered with holds texts that are no values.
fn bad_cursor(query: &ListQuery, error: sqlx::Error) -> Failure {
    if query.after.is_some() && meaning(&error) == Meaning::Data {
        return query::invalid_cursor().into();
    }
    error.into()
}

/// A whole list, an object a line, from one snapshot; the header says which.
///
/// # Errors
/// Where the query has faults, or the list can't be read.
pub async fn stream(
    gate: &Gate,
    plans: &Plans,
    plan: &EntityPlan,
    parameters: &[(String, String)],
    representation: Representation,
) -> Result<Response<Body>, Failure> {
    let query = ListQuery::parse(plans, plan, parameters)?;
    let (columns, answered) = query.columns(plan);
    let mut session = gate.session().await?;
    // As long as its reader wants.
    session.begin("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = 0").await?;
    let rows = session.rows(sql::position()).await?;
    let position: u64 = match rows.first() {
        Some(row) => text(row, 0)?.and_then(|text| text.parse().ok()).unwrap_or_default(),
        None => 0,
    };
    let mut total = None;
    if query.count {
        let rows = session.rows(sql::count(plan, &query)).await?;
        total = rows.first().map(|row| row.try_get::<i64, _>(0)).transpose()?;
    }
    let statement = sql::list(plan, &query, &columns, &query.embedded, query.limit);
    let writer = RowWriter::new(representation, plan, &columns[..answered], &query.embedded, columns.len());
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(PIECES);
    // The first piece is awaited, so that a list that can't be read is a problem and not a broken stream.
    let (started, begun) = tokio::sync::oneshot::channel();
    tokio::spawn(send_rows(session, statement, writer, sender, started));
    match begun.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(bad_cursor(&query, error)),
        Err(_) => return Err(Problem::internal().into()),
    }
    let pieces = futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) });
    // Who compresses it asks once more behind the end.
    let mut response = Response::new(Body::from_stream(pieces.fuse()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(representation.media_type()));
    if let Ok(value) = HeaderValue::from_str(&format!("{position:016X}")) {
        headers.insert(POSITION_HEADER, value);
    }
    if let Some(total) = total {
        headers.insert("x-total-count", HeaderValue::from(total));
    }
    Ok(response)
}

// Sends the rows in pieces; a reader that is gone ends it.
async fn send_rows(
    mut session: Session,
    statement: sql::Statement,
    mut writer: RowWriter,
    sender: mpsc::Sender<Result<Bytes, std::io::Error>>,
    started: tokio::sync::oneshot::Sender<Result<(), sqlx::Error>>,
) {
    let mut started = Some(started);
    let sent: Result<(), sqlx::Error> = async {
        let mut rows = statement.query()?.fetch(session.connection());
        loop {
            let row = rows.try_next().await?;
            if let Some(started) = started.take() {
                let _ = started.send(Ok(()));
            }
            let Some(row) = row else { break };
            writer.write(&texts(&row)?);
            if writer.written() >= PIECE_BYTES && sender.send(Ok(writer.take().into())).await.is_err() {
                return Err(sqlx::Error::WorkerCrashed);
            }
        }
        let rest = writer.take();
        if !rest.is_empty() {
            let _ = sender.send(Ok(rest.into())).await;
        }
        Ok(())
    }
    .await;
    match sent {
        Ok(()) => {
            // The transaction only read; the connection can be used again.
            let _ = session.commit().await;
        }
        Err(error) => match started.take() {
            Some(started) => {
                let _ = started.send(Err(error));
            }
            None => {
                tracing::debug!(%error, "a streamed list ended before its end");
                let _ = sender.send(Err(std::io::Error::other("the list could not be read to its end"))).await;
            }
        },
    }
}
