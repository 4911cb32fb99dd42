//! Former versions of objects: the moment as of which a request reads, an object's versions, and what is told of a deleted one.

use std::time::{SystemTime, UNIX_EPOCH};

use autonomy_crds::names::AS_OF;
use autonomy_crds::object_json::{Encoding, ObjectWriter};
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::database::{Failure, Gate, Session};
use crate::plan::{EntityPlan, HistoryPlan};
use crate::problem::{Extension, Fault, Faults, Problem};
use crate::query::{self, DEFAULT_LIMIT, MOST_LIMIT};
use crate::reading::{MOST_PAGE_BYTES, texts};
use crate::sql;
use crate::value::parse_date_time;
use crate::write::text;

// Seconds from 1970 to 2000.
const EPOCH: u64 = 946_684_800;
// The database's clock, from which the times of versions are, may be before this process's.
const CLOCK_DIFFERENCE_MICROS: i64 = 1_000_000;
// The order of versions, as cursors name it.
const ORDER: &str = "-@number";
// The members of versions beside those of objects.
const VERSION_MEMBERS: [(&str, Encoding); 3] =
    [("@operation", Encoding::Text), ("@validFrom", Encoding::DateTime), ("@validTo", Encoding::DateTime)];

/// Whether `asOf` is a moment in a list's query, and no filter by an attribute of that name, which only an entity without a history can have.
pub fn is_moment_of(plan: &EntityPlan) -> bool {
    plan.entity().by_member(AS_OF).is_none()
}

/// Reads a moment as of which objects are asked for, in microseconds since 2000.
///
/// # Errors
/// Where it is none, lies in the future, or the entity keeps no history.
pub fn moment(plan: &EntityPlan, text: &str) -> Result<i64, String> {
    if plan.history.as_ref().is_none_or(|history| !history.complete) {
        return Err(format!("is for entities that keep a history, and {} keeps none (history: true in its DataModel)", plan.entity().name));
    }
    let moment = parse_date_time(text)?;
    let since_2000 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(std::time::Duration::from_secs(EPOCH));
    let now = i64::try_from(since_2000.as_micros()).unwrap_or(i64::MAX);
    if moment > now.saturating_add(CLOCK_DIFFERENCE_MICROS) {
        return Err("must not lie in the future".to_owned());
    }
    Ok(moment)
}

/// The problem of a read that asks for `embed` beside a moment.
pub fn no_embedding() -> Problem {
    let detail = "can't be combined with asOf: what is referred to may keep no history; read it by its own path with the same asOf";
    let mut faults = Faults::default();
    faults.push(Fault::parameter("embed", detail));
    query::conflicting_parameters(faults)
}

/// What is answered where an object is not there: that it was deleted, where that is kept, or that there is none.
pub async fn absent(session: &mut Session, plan: &EntityPlan, id: Uuid, moment: Option<i64>) -> Failure {
    match absent_problem(session, plan, id, moment).await {
        Ok(problem) => problem.into(),
        Err(error) => error.into(),
    }
}

async fn absent_problem(session: &mut Session, plan: &EntityPlan, id: Uuid, moment: Option<i64>) -> Result<Problem, sqlx::Error> {
    let name = &plan.entity().name;
    if moment.is_some() {
        return Ok(Problem::not_found(format!("There was no {name} with the id {id} then, as far as is known.")));
    }
    if let Some(history) = plan.history.as_ref().filter(|history| history.tells_deleted) {
        let rows = session.rows(sql::deleted_at(plan, history, id.into_bytes())).await?;
        if let Some(deleted_at) = rows.first().map(|row| text(row, 0)).transpose()?.flatten() {
            return Ok(gone(name, id, deleted_at));
        }
    }
    Ok(Problem::not_found(format!("There is no {name} with the id {id}.")))
}

fn gone(name: &str, id: Uuid, deleted_at: &str) -> Problem {
    let mut json = Vec::new();
    Encoding::DateTime.write(deleted_at, &mut json);
    let deleted_at = String::from_utf8_lossy(&json).trim_matches('"').to_owned();
    let detail = format!("The {name} with the id {id} was deleted at {deleted_at}; …/{id}/history has it, and PUT makes it anew.");
    let mut problem = Problem::new(StatusCode::GONE, "gone", detail);
    problem.extension = Extension::DeletedAt(deleted_at.into());
    problem
}

struct VersionsQuery {
    columns: Vec<usize>,
    limit: u64,
    before: Option<i64>,
}

impl VersionsQuery {
    fn parse(plan: &EntityPlan, parameters: &[(String, String)]) -> Result<Self, Problem> {
        let mut query = Self { columns: (0..plan.columns.len()).collect(), limit: DEFAULT_LIMIT, before: None };
        let mut faults = Faults::default();
        let mut cursor = None;
        for (name, value) in parameters {
            let read = match name.as_str() {
                "limit" => query::number(value, MOST_LIMIT).map(|limit| query.limit = limit),
                "fields" => query::fields(plan, value).map(|fields| query.columns = fields),
                "cursor" => {
                    cursor = Some(value);
                    Ok(())
                }
                _ => Err("is no parameter of an object's history".to_owned()),
            };
            if let Err(detail) = read {
                faults.push(Fault::parameter(name, detail));
            }
        }
        if !faults.is_empty() {
            return Err(query::invalid_query(faults));
        }
        query.before = cursor.map(|cursor| read_cursor(cursor).ok_or_else(query::invalid_cursor)).transpose()?;
        Ok(query)
    }
}

fn read_cursor(text: &str) -> Option<i64> {
    query::read_cursor(ORDER, text)?.first()?.as_deref()?.parse().ok()
}

/// A page of an object's versions, the newest first.
///
/// # Errors
/// Where there never was such an object, or the entity keeps no former versions.
pub async fn versions(
    gate: &Gate,
    plan: &EntityPlan,
    id: Uuid,
    path: &str,
    parameters: &[(String, String)],
) -> Result<Response<Body>, Failure> {
    let name = &plan.entity().name;
    let Some(history) = &plan.history else {
        return Err(Problem::not_found(format!("{name} keeps no history: its DataModel does not say history: true.")).into());
    };
    let query = VersionsQuery::parse(plan, parameters)?;
    let mut session = gate.session().await?;
    let page = read_page(&mut session, plan, history, id, &query).await?;
    drop(session);
    if page.count == 0 && query.before.is_none() && query.limit > 0 {
        return Err(Problem::not_found(format!("There never was a {name} with the id {id}, as far as is known.")).into());
    }
    let mut response = Response::new(Body::from(page.json));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(number) = page.next {
        let cursor = query::write_cursor(ORDER.to_owned(), vec![Some(number)]);
        let link = format!("<{path}?{}>; rel=\"next\"", query::next_page(parameters, &cursor));
        headers.insert(header::LINK, HeaderValue::from_str(&link).map_err(|_| Problem::internal())?);
    }
    Ok(response)
}

struct Page {
    json: Vec<u8>,
    count: u64,
    // The number of the last version, where more come behind it.
    next: Option<String>,
}

async fn read_page(
    session: &mut Session,
    plan: &EntityPlan,
    history: &HistoryPlan,
    id: Uuid,
    query: &VersionsQuery,
) -> Result<Page, Failure> {
    let members = query.columns.iter().map(|column| (plan.columns[*column].member.as_str(), plan.columns[*column].encoding));
    let writer = ObjectWriter::of_members(members.chain(VERSION_MEMBERS));
    let mut page = Page { json: vec![b'['], count: 0, next: None };
    if query.limit > 0 {
        let statement = sql::versions(plan, history, id.into_bytes(), query.before, &query.columns, query.limit + 1);
        session.busy(true);
        let mut rows = statement.query()?.fetch(session.connection());
        let mut last = None;
        let mut read_all = true;
        while let Some(row) = rows.try_next().await? {
            if page.count == query.limit || page.json.len() > MOST_PAGE_BYTES {
                page.next = last;
                read_all = rows.try_next().await?.is_none();
                break;
            }
            if page.count > 0 {
                page.json.push(b',');
            }
            let texts = texts(&row)?;
            writer.write(texts.iter().copied(), &mut page.json);
            page.count += 1;
            last = texts.last().copied().flatten().map(str::to_owned);
        }
        drop(rows);
        // A page that ended early leaves rows unread: the connection is not used again.
        session.busy(!read_all);
    }
    page.json.push(b']');
    Ok(page)
}
