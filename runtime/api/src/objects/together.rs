//! Requests that write one object each, and that come while others of the same entity are being written: done together, in one transaction.
//! Each is a unit of its own: one that fails undoes itself alone, and one that would hold up the others is done alone.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use tokio::sync::oneshot;

use super::{WriteRequest, respond_to};
use crate::database::{Failure, Gate};
use crate::gathering::Gathering;
use crate::metrics::Metrics;
use crate::plan::EntityPlan;
use crate::problem::{PartReference, Problem};
use crate::rows::Rows;
use crate::sql::Condition;
use crate::transactions::Request;
use crate::write::{self, Batch, Kind, Owner, Place, Unit, Work};

// Larger bodies are not copied into groups.
const MOST_BODY_BYTES: usize = 16 * 1024;

/// What can be done in one group: the entity's plan, the kind of writing, and whether the objects are answered.
pub type GroupKind = (usize, Kind, bool);

/// A request in a group.
pub struct Writing {
    request: Request,
    put_if_absent: bool,
    reply: oneshot::Sender<Reply>,
}

enum Reply {
    Answer(Result<Response<Body>, Problem>),
    // Nothing was done for it yet.
    Alone(Request),
}

/// Writes what was read of a request.
///
/// # Errors
/// A problem with it, or where the database refuses.
pub async fn write(
    writings: &Arc<Gathering<GroupKind, Writing>>,
    gate: &Gate,
    metrics: &Metrics,
    plan: &Arc<EntityPlan>,
    (asked, read): (&WriteRequest<'_>, Request),
    put_if_absent: bool,
) -> Result<Response<Body>, Failure> {
    let fits = read.work.place == Place::Body && read.work.batches[0].rows.len() == 1 && asked.body.len() <= MOST_BODY_BYTES;
    let alone = if fits {
        let kind = (Arc::as_ptr(plan) as usize, read.work.batches[0].kind, read.work.want_objects);
        let (reply, replied) = oneshot::channel();
        let (gate, metrics) = (gate.clone(), metrics.clone());
        let work = move |group| write_group(gate.clone(), metrics.clone(), group);
        if writings.submit(kind, Writing { request: read, put_if_absent, reply }, work).is_err() {
            return Err(Problem::unavailable("Too many requests are waiting for the database; try again.").into());
        }
        match replied.await {
            Ok(Reply::Answer(answer)) => return Ok(answer?),
            Ok(Reply::Alone(request)) => request,
            Err(_) => return Err(Problem::internal().into()),
        }
    } else {
        read
    };
    let outcomes = write::apply(gate, &alone.work, alone.failed).await?;
    metrics.wrote(&outcomes);
    Ok(super::respond(&alone.work, outcomes, put_if_absent)?)
}

async fn write_group(gate: Gate, metrics: Metrics, group: Vec<Writing>) {
    let gathered;
    let work = match &group[..] {
        [] => return,
        [only] => &only.request.work,
        [first, ..] => {
            gathered = gather(&first.request.work, &group);
            &gathered
        }
    };
    let applied = write::apply(&gate, work, Vec::new()).await;
    let mut answers = Vec::with_capacity(group.len());
    // Where the whole group failed, each is told for itself why.
    if let Ok(outcomes) = applied {
        metrics.wrote(&outcomes);
        for (outcome, writing) in outcomes.units.into_iter().zip(&group) {
            answers.push(outcome.map(|outcome| respond_to(work, Some(outcome), writing.put_if_absent)));
        }
    }
    answers.resize_with(group.len(), || None);
    for (answer, writing) in answers.into_iter().zip(group) {
        let reply = match answer {
            Some(answer) => Reply::Answer(answer),
            None => Reply::Alone(writing.request),
        };
        // Who asked may be gone.
        let _ = writing.reply.send(reply);
    }
}

// The works of the group, each of one unit and one row, as one work like the first of them.
fn gather(first: &Work, group: &[Writing]) -> Work {
    let mut units: Vec<Unit> = Vec::with_capacity(group.len());
    let Batch { ref plan, kind, .. } = first.batches[0];
    let mut batch = Batch {
        plan: plan.clone(),
        kind,
        rows: Rows::new(plan.columns.len()),
        owners: Vec::new(),
        conditions: Vec::new(),
        references: Vec::new(),
    };
    for (row, Writing { request: Request { work, .. }, .. }) in (0..).zip(group) {
        let Batch { rows, conditions, references, .. } = &work.batches[0];
        batch.rows.append(rows);
        batch.owners.push(Owner { unit: row, operation: 0 });
        batch.conditions.extend(conditions.iter().map(|condition| Condition { row, ..condition.clone() }));
        batch.references.extend(references.iter().map(|reference| PartReference { row, ..*reference }));
        units.push(Unit { operations: vec![(0, row)], ..work.units[0].clone() });
    }
    Work { batches: vec![batch], units, of_strangers: true, ..*first }
}
