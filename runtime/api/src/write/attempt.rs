//! One attempt to write a set of units in one transaction.

mod keys;
mod operations;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use autonomy_crds::event::{TransactionContext, UnitContext, WriteContext};
use axum::http::StatusCode;
use operations::{by_columns, gives_more_than_key, gives_nothing, gives_objects};
use sqlx::postgres::PgRow;
use sqlx::{Row, ValueRef};
use uuid::Uuid;

use crate::database::Session;
use crate::plan::EntityPlan;
use crate::problem::{Fault, Problem};
use crate::sql;
use crate::value::Encoder;
use crate::write::order::Order;
use crate::write::{Kind, Objects, Owner, Unit, UnitOutcome, Work, Written};

// From so many rows on, COPY is worth its own round trips.
const COPY_ROWS: usize = 32;

/// How transactions that write begin. All that they look for has a key: a plan that reads whole tables is wrong for them, though it be the cheapest
/// while a table is small, for it would be kept while the table grows.
pub const BEGIN: &str = "BEGIN; SET LOCAL enable_seqscan = off";
// Strangers do not wait for the locks of one of them.
const BEGIN_OF_STRANGERS: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL lock_timeout = '50ms'";

/// Why an attempt stopped.
pub enum Stop {
    /// These units can't be done.
    Culprits(Vec<(u32, Problem)>),
    /// The database refused.
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// What an attempt did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Each unit's outcome.
    pub units: Vec<(u32, UnitOutcome)>,
    /// Whether something was written.
    pub committed: bool,
}

/// The rows of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The batch.
    pub batch: u32,
    /// Its rows.
    pub rows: Vec<u32>,
}

/// An attempt.
pub struct Attempt<'a> {
    work: &'a Work,
    order: &'a Order,
    units: Vec<u32>,
    // By batch and row.
    results: Vec<Vec<Option<Written>>>,
    /// What the last statement was about.
    pub step: Option<Step>,
    /// Whether the last statement was a COPY.
    pub copying: bool,
    // The columns that statements answer together with what they write, and the objects so answered.
    answered: Vec<usize>,
    objects: Objects,
    /// The request that an idempotency key was used for before, where one was.
    pub kept_request: Option<[u8; 32]>,
}

impl<'a> Attempt<'a> {
    /// An attempt at these units.
    pub fn new(work: &'a Work, order: &'a Order, units: &[u32]) -> Self {
        let results = work.batches.iter().map(|batch| vec![None; batch.rows.len()]).collect();
        Self {
            work,
            order,
            units: units.to_vec(),
            results,
            step: None,
            copying: false,
            answered: Vec::new(),
            objects: Objects::new(),
            kept_request: None,
        }
    }

    /// Writes the units, or nothing; `None` where somebody else used keys of theirs meanwhile, which the next attempt finds used.
    pub async fn run(&mut self, session: &mut Session) -> Result<Option<Outcome>, Stop> {
        self.answered = self.answered_at_once();
        if self.is_one_statement() {
            return self.run_one_statement(session).await.map(Some);
        }
        let mut outcome = Outcome::default();
        session.begin(if self.work.of_strangers && self.units.len() > 1 { BEGIN_OF_STRANGERS } else { BEGIN }).await?;
        self.leave_out_used(session, &mut outcome).await?;
        if self.units.is_empty() {
            session.roll_back().await;
            return Ok(Some(outcome));
        }
        self.tell_context(session).await?;
        self.apply_all(session).await?;
        if self.work.want_objects && self.objects.is_empty() {
            self.read_objects(session).await?;
        }
        let done: Vec<(u32, Vec<Written>)> = self.units.iter().map(|unit| (*unit, self.written(*unit))).collect();
        let objects = Arc::new(std::mem::take(&mut self.objects));
        if !self.keep_answers(session, &done, &objects).await? {
            session.roll_back().await;
            return Ok(None);
        }
        session.commit().await?;
        outcome.committed = true;
        outcome.units.extend(done.into_iter().map(|(unit, written)| (unit, UnitOutcome::Done { written, objects: objects.clone() })));
        Ok(Some(outcome))
    }

    // The columns that are answered by the statement that writes them: where each object is written by one statement, and by one only.
    fn answered_at_once(&self) -> Vec<usize> {
        let [batch] = &self.work.batches[..] else { return Vec::new() };
        let at_once = match batch.kind {
            Kind::Create => !self.copies(batch.rows.len()),
            Kind::CreateOrUpdate | Kind::Put | Kind::Patch => batch.rows.len() == 1,
            Kind::CreateOrIgnore | Kind::Delete => false,
        };
        if at_once && self.work.want_objects { (0..batch.plan.columns.len()).collect() } else { Vec::new() }
    }

    // Whether so many new rows go by COPY. A refused COPY costs the connection: too much for what one of many strangers did wrong.
    fn copies(&self, rows: usize) -> bool {
        rows >= COPY_ROWS && !self.work.of_strangers
    }

    // Whether all there is to do is one statement, which is a transaction by itself.
    fn is_one_statement(&self) -> bool {
        let ([unit], [batch]) = (&self.units[..], &self.work.batches[..]) else { return false };
        let unit = self.unit(*unit);
        if !unit.keys.is_empty() || !unit.context.is_empty() || !batch.conditions.is_empty() || !batch.references.is_empty() {
            return false;
        }
        match batch.kind {
            // Objects that must come one after the other are of several levels, and so of several statements.
            Kind::Create => (1..COPY_ROWS).contains(&batch.rows.len()) && self.steps().len() == 1,
            // What would be left as it is, is not answered by the statement.
            Kind::CreateOrUpdate => {
                batch.rows.len() == 1 && by_columns(batch, &[0]).iter().any(|(columns, _)| gives_more_than_key(batch, columns))
            }
            Kind::Put => batch.rows.len() == 1 && !sql::own_columns(&batch.plan).is_empty() && !batch.plan.entity().require_if_match,
            Kind::Patch => batch.rows.len() == 1 && !gives_nothing(batch, 0) && !gives_objects(batch, 0),
            Kind::CreateOrIgnore | Kind::Delete => false,
        }
    }

    async fn run_one_statement(&mut self, session: &mut Session) -> Result<Outcome, Stop> {
        session.busy(true);
        self.apply_all(session).await?;
        session.busy(false);
        let objects = Arc::new(std::mem::take(&mut self.objects));
        let done = |unit: &u32| (*unit, UnitOutcome::Done { written: self.written(*unit), objects: objects.clone() });
        Ok(Outcome { units: self.units.iter().map(done).collect(), committed: true })
    }

    fn take_object(&mut self, step: &Step, answer: &PgRow, first: usize) -> Result<(), sqlx::Error> {
        if !self.answered.is_empty() {
            let batch = &self.work.batches[step.batch as usize];
            self.objects.insert((step.batch, id(answer, 0)?), object(&batch.plan, answer, first)?);
        }
        Ok(())
    }

    /// Tells the transaction's context to those who read the log.
    pub async fn tell_context(&self, session: &mut Session) -> Result<(), Stop> {
        if let Some(context) = self.context() {
            session.rows(sql::context(context)).await?;
        }
        Ok(())
    }

    /// Applies the units' operations in the transaction that is open.
    pub async fn apply_all(&mut self, session: &mut Session) -> Result<(), Stop> {
        for step in self.steps() {
            self.step = Some(step.clone());
            self.apply(session, &step).await?;
        }
        self.step = None;
        self.check_part_references(session).await
    }

    /// What became of the operations so far.
    pub fn all_written(&self) -> impl Iterator<Item = &Written> {
        self.results.iter().flatten().flatten()
    }

    fn unit(&self, unit: u32) -> &'a Unit {
        &self.work.units[unit as usize]
    }

    fn set_result(&mut self, step: &Step, row: u32, written: Written) {
        self.results[step.batch as usize][row as usize] = Some(written);
    }

    fn written(&self, unit: u32) -> Vec<Written> {
        self.unit(unit).operations.iter().filter_map(|(batch, row)| self.results[*batch as usize][*row as usize]).collect()
    }

    // One message for the transaction: what is common to all units, and where they differ, each unit's own with its objects' ids.
    fn context(&self) -> Option<String> {
        let contexts: Vec<&WriteContext> = self.units.iter().map(|unit| &self.unit(*unit).context).collect();
        if contexts.iter().all(|context| context.is_empty()) {
            return None;
        }
        let common = |part: fn(&WriteContext) -> &Option<String>| {
            contexts.iter().all(|context| part(context) == part(contexts[0])).then(|| part(contexts[0]).clone()).flatten()
        };
        let shared = WriteContext {
            actor: common(|context| &context.actor),
            traceparent: common(|context| &context.traceparent),
            causation_id: common(|context| &context.causation_id),
        };
        let mut whole = TransactionContext { shared, units: Vec::new() };
        if contexts.iter().any(|context| **context != whole.shared) {
            let units = self.units.iter().map(|unit| self.unit(*unit)).filter(|unit| !unit.context.is_empty());
            whole.units = units
                .map(|unit| UnitContext {
                    context: unit.context.clone(),
                    objects: unit.operations.iter().map(|at| self.object(*at)).collect(),
                })
                .collect();
        }
        // A context of texts and ids can always be written.
        serde_json::to_string(&whole).ok()
    }

    fn object(&self, (batch, row): (u32, u32)) -> Uuid {
        Uuid::from_bytes(self.work.batches[batch as usize].rows.id(row as usize))
    }

    // Level by level; in a level, tables in the order of their names, so that transactions lock in the same order.
    fn steps(&self) -> Vec<Step> {
        let mut steps: BTreeMap<(u32, &str, Kind, u32), Vec<u32>> = BTreeMap::new();
        for unit in &self.units {
            for (batch, row) in &self.unit(*unit).operations {
                let of = &self.work.batches[*batch as usize];
                let level = self.order.levels[*batch as usize][*row as usize];
                steps.entry((level, of.plan.table.as_str(), of.kind, *batch)).or_default().push(*row);
            }
        }
        let in_order = |mut rows: Vec<u32>| {
            rows.sort_unstable();
            rows
        };
        steps.into_iter().map(|((_, _, _, batch), rows)| Step { batch, rows: in_order(rows) }).collect()
    }

    fn culprits(&self, step: &Step, rows: &[u32], problem: impl Fn(Owner) -> Problem) -> Stop {
        let batch = &self.work.batches[step.batch as usize];
        let mut culprits: Vec<(u32, Problem)> = Vec::new();
        for row in rows {
            let owner = batch.owners[*row as usize];
            match culprits.iter_mut().find(|(unit, _)| *unit == owner.unit) {
                Some((_, known)) if known.errors.len() < 100 => known.errors.extend(problem(owner).errors),
                Some(_) => {}
                None => culprits.push((owner.unit, problem(owner))),
            }
        }
        Stop::Culprits(culprits)
    }

    async fn check_part_references(&self, session: &mut Session) -> Result<(), Stop> {
        let active: HashSet<u32> = self.units.iter().copied().collect();
        // By table, so that all of one go in one statement.
        let mut wanted: BTreeMap<String, HashSet<[u8; 16]>> = BTreeMap::new();
        let mut asked = Vec::new();
        for batch in &self.work.batches {
            for reference in &batch.references {
                let Encoder::Parts(parts) = &batch.plan.columns[reference.column as usize].encoder else { continue };
                let column = &parts.columns[reference.part_column as usize];
                let Some(target) = column.target.as_ref().filter(|_| active.contains(&batch.owners[reference.row as usize].unit)) else {
                    continue;
                };
                let quote = autonomy_crds::names::quote_identifier;
                let table = format!("{}.{}", quote(&target.schema), quote(&target.table));
                wanted.entry(table.clone()).or_default().insert(reference.id);
                asked.push((batch, reference, column, target, table));
            }
        }
        for (table, ids) in &mut wanted {
            let mut list: Vec<[u8; 16]> = ids.iter().copied().collect();
            list.sort_unstable();
            for answer in session.rows(sql::present(table, &list, true)).await? {
                ids.remove(&id(&answer, 0)?);
            }
        }
        let mut culprits: BTreeMap<u32, Problem> = BTreeMap::new();
        for (batch, reference, column, target, table) in asked {
            if !wanted[&table].contains(&reference.id) {
                continue;
            }
            let owner = batch.owners[reference.row as usize];
            let pointer = format!(
                "{}/{}/{}/{}",
                self.work.place.pointer(owner),
                batch.plan.columns[reference.column as usize].member,
                reference.item,
                column.member
            );
            let problem = culprits.entry(owner.unit).or_insert_with(reference_problem);
            if problem.errors.len() < 100 {
                problem.errors.push(Fault::at(pointer, format!("there is no {} with this id", target.entity)));
            }
        }
        if culprits.is_empty() { Ok(()) } else { Err(Stop::Culprits(culprits.into_iter().collect())) }
    }

    async fn read_objects(&mut self, session: &mut Session) -> Result<(), Stop> {
        for (index, batch) in self.work.batches.iter().enumerate() {
            if batch.kind == Kind::Delete {
                continue;
            }
            let ids: Vec<[u8; 16]> = self.results[index].iter().flatten().map(|written| written.id).collect();
            let columns: Vec<usize> = (0..batch.plan.columns.len()).collect();
            for answer in session.rows(sql::objects(&batch.plan, &ids, &columns)).await? {
                self.objects.insert((index as u32, id(&answer, 0)?), object(&batch.plan, &answer, 1)?);
            }
        }
        Ok(())
    }
}

/// A whole object as JSON from a row of texts, from the column `first` on.
pub fn object(plan: &EntityPlan, row: &PgRow, first: usize) -> Result<Vec<u8>, sqlx::Error> {
    let mut texts = Vec::with_capacity(plan.columns.len());
    for column in first..first + plan.columns.len() {
        texts.push(text(row, column)?);
    }
    let mut json = Vec::with_capacity(256);
    plan.writer.write(texts, &mut json);
    Ok(json)
}

/// A value that was selected as text.
pub fn text(row: &PgRow, column: usize) -> Result<Option<&str>, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() { Ok(None) } else { value.as_str().map(Some).map_err(sqlx::Error::Decode) }
}

/// A value that is a UUID.
pub fn id(row: &PgRow, column: usize) -> Result<[u8; 16], sqlx::Error> {
    let value = row.try_get_raw(column)?;
    let bytes = value.as_bytes().map_err(sqlx::Error::Decode)?;
    bytes.try_into().map_err(|_| sqlx::Error::Decode("an id is not of 16 bytes".into()))
}

/// The problem of references that point to nothing; its faults say which.
pub fn reference_problem() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "reference", "The body refers to objects that are not there.")
}
