//! Preconditions: what a client says of the objects that it changes, in the headers `If-Match` and `If-None-Match`, and in lists in each
//! object's `@ifMatch`; and where a model wants them said.

use axum::http::header;

use super::{WriteRequest, text_header};
use crate::body::IF_MATCH;
use crate::etag::Tag;
use crate::plan::EntityPlan;
use crate::problem::{Fault, Path, Problem};
use crate::transactions::bad_header;
use crate::write::{Batch, Kind};

/// What the header `If-Match` says.
pub fn if_match(request: &WriteRequest<'_>) -> Result<Option<Tag>, Problem> {
    let Some(tags) = text_header(request.headers, &header::IF_MATCH)? else { return Ok(None) };
    if request.id.is_none() {
        return Err(bad_header("If-Match", "is for one object; in a list each object has @ifMatch"));
    }
    match Tag::parse(tags) {
        Some(tag) => Ok(Some(tag)),
        None => Err(Problem::precondition_failed("If-Match must be one ETag of this object.")),
    }
}

/// The headers' conditions on the object in the path.
pub fn of_one(request: &WriteRequest<'_>, batch: &mut Batch) -> Result<(), Problem> {
    let tag = if_match(request)?;
    if let (Some(tag), Some(id)) = (tag, request.id) {
        batch.conditions.push(tag.condition(0, id.into_bytes()));
    }
    if let Some(tags) = text_header(request.headers, &header::IF_NONE_MATCH)? {
        if tags.trim() != "*" || batch.kind != Kind::Put {
            return Err(bad_header("If-None-Match", "is for PUT with *, or for GET"));
        }
        batch.kind = Kind::Create;
    }
    // Whether a PUT without conditions changes something is seen where it is done.
    if tag.is_none() && request.id.is_some() && matches!(batch.kind, Kind::Patch | Kind::Delete) {
        require_if_match(&batch.plan)?;
    }
    Ok(())
}

/// A change of one object says nothing of the object.
pub fn require_if_match(plan: &EntityPlan) -> Result<(), Problem> {
    if !plan.entity().require_if_match {
        return Ok(());
    }
    Err(required(plan).with(Fault::parameter("If-Match", "must be given")))
}

/// The conditions of a list's objects; gives the rows that lack one where one is needed.
pub fn of_list(request: &WriteRequest<'_>, tags: &[(u32, Tag)], batch: &mut Batch) -> Result<Vec<u32>, Problem> {
    batch.conditions.extend(tags.iter().map(|(row, tag)| tag.condition(*row, batch.rows.id(*row as usize))));
    if !batch.plan.entity().require_if_match || request.id.is_some() {
        return Ok(Vec::new());
    }
    match batch.kind {
        Kind::Patch | Kind::Delete => {
            let lacks = |row: &u32| tags.binary_search_by_key(row, |(tagged, _)| *tagged).is_err();
            Ok((0..batch.rows.len() as u32).filter(lacks).collect())
        }
        kind => of_upsert(&batch.plan, kind).map(|()| Vec::new()),
    }
}

/// New objects may not change those that are there where the entity wants the version said: an upsert can't say it.
pub fn of_upsert(plan: &EntityPlan, kind: Kind) -> Result<(), Problem> {
    if kind != Kind::CreateOrUpdate || !plan.entity().require_if_match {
        return Ok(());
    }
    let detail = "update would change objects whatever their version; take error or ignore, and PATCH what is there";
    Err(Problem::precondition_required(&plan.entity().name, "onConflict=update can't").with(Fault::parameter("onConflict", detail)))
}

/// The problem of rows that say nothing of their objects.
pub fn required_of(plan: &EntityPlan, rows: &[u32]) -> Problem {
    let mut problem = required(plan);
    let faults = rows.iter().take(100).map(|row| Fault::at(Path::ROOT.index(*row as usize).member(IF_MATCH).pointer(), "must be given"));
    problem.errors.extend(faults);
    problem
}

fn required(plan: &EntityPlan) -> Problem {
    let how = "give its ETag in If-Match, or in a list in each object's @ifMatch";
    Problem::precondition_required(&plan.entity().name, how)
}
