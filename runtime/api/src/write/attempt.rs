//! One attempt to write a set of units in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use autonomy_crds::event::{TransactionContext, UnitContext, WriteContext};
use axum::http::StatusCode;
use sqlx::postgres::PgRow;
use sqlx::{Row, ValueRef};
use uuid::Uuid;

use crate::database::Session;
use crate::plan::{EntityPlan, ID, SYSTEM};
use crate::problem::{Extension, Fault, Problem};
use crate::rows::Value;
use crate::sql::{self, Conflict};
use crate::value::Encoder;
use crate::write::merge::merge_patch;
use crate::write::order::Order;
use crate::write::{Batch, Effect, Kind, Objects, Owner, Unit, UnitOutcome, Work, Written};

// From so many rows on, COPY is worth its own round trips.
const COPY_ROWS: usize = 32;

/// How transactions that write begin.
pub const BEGIN: &str = "BEGIN";
// Strangers do not wait for the locks of one of them.
const BEGIN_OF_STRANGERS: &str = "BEGIN; SET LOCAL lock_timeout = '50ms'";

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

    /// Writes the units, or nothing.
    pub async fn run(&mut self, session: &mut Session) -> Result<Outcome, Stop> {
        self.answered = self.answered_at_once();
        if self.is_one_statement() {
            return self.run_one_statement(session).await;
        }
        let mut outcome = Outcome::default();
        session.begin(if self.work.of_strangers && self.units.len() > 1 { BEGIN_OF_STRANGERS } else { BEGIN }).await?;
        self.take_keys(session, &mut outcome).await?;
        if self.units.is_empty() {
            // Keys were at the most given back: there is nothing to keep.
            session.roll_back().await;
            return Ok(outcome);
        }
        self.tell_context(session).await?;
        self.apply_all(session).await?;
        if self.work.want_objects && self.objects.is_empty() {
            self.read_objects(session).await?;
        }
        let done: Vec<(u32, Vec<Written>)> = self.units.iter().map(|unit| (*unit, self.written(*unit))).collect();
        let objects = Arc::new(std::mem::take(&mut self.objects));
        self.keep_answers(session, &done, &objects).await?;
        session.commit().await?;
        outcome.committed = true;
        outcome.units.extend(done.into_iter().map(|(unit, written)| (unit, UnitOutcome::Done { written, objects: objects.clone() })));
        Ok(outcome)
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

    /// Takes the units' idempotency keys; those whose keys were used before are done with.
    pub async fn take_keys(&mut self, session: &mut Session, outcome: &mut Outcome) -> Result<(), Stop> {
        let mut hashes = Vec::new();
        let mut requests = Vec::new();
        for unit in &self.units {
            for key in &self.unit(*unit).keys {
                hashes.push(*key);
                requests.push(self.unit(*unit).request);
            }
        }
        if hashes.is_empty() {
            return Ok(());
        }
        let mut free: HashSet<[u8; 32]> = HashSet::new();
        for row in session.rows(sql::take_keys(&hashes, &requests)).await? {
            free.extend(hash(&row, 0));
        }
        let used: Vec<[u8; 32]> = hashes.iter().copied().filter(|key| !free.contains(key)).collect();
        if used.is_empty() {
            return Ok(());
        }
        let mut kept = HashMap::new();
        for row in session.rows(sql::kept_answers(&used)).await? {
            if let Some(key) = hash(&row, 0) {
                let status: Option<i32> = row.try_get(2)?;
                let answer: Option<String> = row.try_get(3)?;
                kept.insert(key, (hash(&row, 1), status.unwrap_or(200) as u16, answer.unwrap_or_else(|| "null".to_owned())));
            }
        }
        self.kept_request = used.first().and_then(|key| kept.get(key)).and_then(|(request, _, _)| *request);
        let mut given_back = Vec::new();
        let mut going_on = Vec::new();
        for unit in std::mem::take(&mut self.units) {
            let Unit { keys, key_texts, request, .. } = self.unit(unit);
            let used_keys: Vec<String> =
                keys.iter().zip(key_texts).filter(|(key, _)| kept.contains_key(*key)).map(|(_, text)| text.clone()).collect();
            let result = match keys.first().and_then(|key| kept.get(key)) {
                _ if used_keys.is_empty() => {
                    going_on.push(unit);
                    continue;
                }
                Some((first, _, _)) if request.is_some() && first != request => UnitOutcome::Failed(Problem::idempotency_key_reused()),
                Some((_, status, answer)) if used_keys.len() == keys.len() => {
                    UnitOutcome::Replayed { status: *status, answer: answer.clone() }
                }
                _ => {
                    given_back.extend(keys.iter().copied().filter(|key| free.contains(key)));
                    let mut problem = Problem::new(
                        StatusCode::CONFLICT,
                        "idempotency-key-partly-used",
                        "Some of the unit's idempotency keys were used before; form the unit again without what they stand for.",
                    );
                    problem.extension = Extension::UsedKeys(used_keys.into());
                    UnitOutcome::Failed(problem)
                }
            };
            outcome.units.push((unit, result));
        }
        self.units = going_on;
        if !given_back.is_empty() && !self.units.is_empty() {
            session.rows(sql::give_back_keys(&given_back)).await?;
        }
        Ok(())
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

    async fn apply(&mut self, session: &mut Session, step: &Step) -> Result<(), Stop> {
        let batch = &self.work.batches[step.batch as usize];
        match batch.kind {
            Kind::Create if self.copies(step.rows.len()) => self.copy(session, batch, step).await,
            Kind::Create => self.insert(session, batch, step, &step.rows, &Conflict::Fail).await,
            Kind::CreateOrIgnore => self.insert(session, batch, step, &step.rows, &Conflict::Ignore).await,
            Kind::CreateOrUpdate => {
                for (columns, rows) in by_columns(batch, &step.rows) {
                    let conflict = match columns.iter().copied().filter(|column| !batch.plan.key.contains(column)).collect::<Vec<_>>() {
                        columns if columns.is_empty() => Conflict::Ignore,
                        columns if batch.plan.key.is_empty() => Conflict::UpdateById(columns),
                        columns => Conflict::UpdateByKey(columns),
                    };
                    self.insert(session, batch, step, &rows, &conflict).await?;
                }
                Ok(())
            }
            Kind::Put => self.put(session, batch, step).await,
            Kind::Patch => self.patch(session, batch, step).await,
            Kind::Delete => self.delete(session, batch, step).await,
        }
    }

    async fn copy(&mut self, session: &mut Session, batch: &Batch, step: &Step) -> Result<(), Stop> {
        let data = sql::copy_data(&batch.plan, &batch.rows, &step.rows);
        let statement = sql::copy(&batch.plan);
        self.copying = true;
        let mut copy = session.connection().copy_in_raw(&statement).await?;
        // In pieces, so that the driver's buffer stays small.
        for piece in data.chunks(256 * 1024) {
            copy.send(piece).await?;
        }
        copy.finish().await?;
        self.copying = false;
        for row in &step.rows {
            let id = batch.rows.id(*row as usize);
            self.set_result(step, *row, Written { id, version: 1, effect: Effect::Created });
        }
        Ok(())
    }

    async fn insert(&mut self, session: &mut Session, batch: &Batch, step: &Step, rows: &[u32], conflict: &Conflict) -> Result<(), Stop> {
        let answers = session.rows(sql::insert(&batch.plan, &batch.rows, rows, conflict, &self.answered)).await?;
        if *conflict != Conflict::Ignore {
            // Every row is answered, in order.
            for (row, answer) in rows.iter().zip(&answers) {
                let effect = if answer.try_get(2)? { Effect::Created } else { Effect::Updated };
                self.set_result(step, *row, Written { id: id(answer, 0)?, version: answer.try_get(1)?, effect });
                self.take_object(step, answer, 3)?;
            }
            return Ok(());
        }
        let mut new = HashMap::new();
        for answer in &answers {
            new.insert(id(answer, 0)?, answer.try_get::<i64, _>(1)?);
        }
        let mut there = Vec::new();
        for row in rows {
            let id = batch.rows.id(*row as usize);
            match new.remove(&id) {
                Some(version) => {
                    self.set_result(step, *row, Written { id, version, effect: Effect::Created });
                }
                None => there.push(*row),
            }
        }
        if there.is_empty() {
            return Ok(());
        }
        let columns = if batch.plan.key.is_empty() { &[ID][..] } else { &batch.plan.key };
        for answer in session.rows(sql::by_key(&batch.plan, &batch.rows, &there, columns)).await? {
            if let Some(row) = place(&answer, &there)? {
                let written = Written { id: id(&answer, 1)?, version: answer.try_get(2)?, effect: Effect::Ignored };
                self.set_result(step, row, written);
            }
        }
        Ok(())
    }

    async fn put(&mut self, session: &mut Session, batch: &Batch, step: &Step) -> Result<(), Stop> {
        let conditional = conditions(batch, &step.rows).next().is_some();
        if conditional {
            let present = self.lock(session, batch, step, &step.rows).await?;
            let gone: Vec<u32> = step.rows.iter().copied().filter(|row| !present.contains_key(row)).collect();
            if !gone.is_empty() {
                return Err(self.culprits(step, &gone, |_| Problem::precondition_failed("The object is not there.")));
            }
        } else if batch.plan.entity().require_if_match {
            // It may make the object, but not replace one.
            let present = self.lock(session, batch, step, &step.rows).await?;
            if !present.is_empty() {
                let there: Vec<u32> = present.into_keys().collect();
                return Err(self.culprits(step, &there, |_| {
                    let how = "give its ETag in If-Match, or If-None-Match: * where the object is meant to be new";
                    Problem::precondition_required(&batch.plan.entity().name, how).with(Fault::parameter("If-Match", "must be given"))
                }));
            }
            return self.insert(session, batch, step, &step.rows, &Conflict::Fail).await;
        }
        let columns = sql::own_columns(&batch.plan);
        if columns.is_empty() {
            return self.insert(session, batch, step, &step.rows, &Conflict::Ignore).await;
        }
        self.insert(session, batch, step, &step.rows, &Conflict::UpdateById(columns)).await
    }

    async fn patch(&mut self, session: &mut Session, batch: &Batch, step: &Step) -> Result<(), Stop> {
        let columns: Vec<usize> = (SYSTEM..batch.plan.columns.len())
            .filter(|column| step.rows.iter().any(|row| batch.rows.get(*row as usize, *column) != Value::Absent))
            .collect();
        let conditional = conditions(batch, &step.rows).next().is_some();
        let mut versions = HashMap::new();
        if conditional || step.rows.len() > 1 || columns.is_empty() {
            versions = self.lock(session, batch, step, &step.rows).await?;
            let gone: Vec<u32> = step.rows.iter().copied().filter(|row| !versions.contains_key(row)).collect();
            if !gone.is_empty() {
                return Err(self.culprits(step, &gone, |owner| not_there(batch, &gone, self.work, owner)));
            }
        }
        let (empty, rows): (Vec<u32>, Vec<u32>) =
            step.rows.iter().copied().partition(|row| columns.iter().all(|column| batch.rows.get(*row as usize, *column) == Value::Absent));
        for row in &empty {
            let (id, version) = (batch.rows.id(*row as usize), versions.get(row).copied().unwrap_or_default());
            self.set_result(step, *row, Written { id, version, effect: Effect::Updated });
        }
        if rows.is_empty() {
            return Ok(());
        }
        let merged = self.merge(session, batch, step, &rows, &columns).await?;
        let mut changed = HashMap::new();
        for answer in session.rows(sql::update(&batch.plan, &batch.rows, &rows, &columns, &merged, &self.answered)).await? {
            changed.insert(id(&answer, 0)?, answer.try_get::<i64, _>(1)?);
            self.take_object(step, &answer, 2)?;
        }
        self.take_results(step, batch, &rows, &changed, Effect::Updated)
    }

    // Objects given for JSON attributes are merged into those that are there (RFC 7396); who is read here stays as it is until the end.
    async fn merge(&self, session: &mut Session, batch: &Batch, step: &Step, rows: &[u32], columns: &[usize]) -> Result<sql::Merged, Stop> {
        let given = |row: u32, column: usize| given_object(batch, row, column);
        let columns: Vec<usize> = columns.iter().copied().filter(|column| rows.iter().any(|row| given(*row, *column).is_some())).collect();
        let mut merged = sql::Merged::new();
        if columns.is_empty() {
            return Ok(merged);
        }
        self.lock(session, batch, step, rows).await?;
        let ids: Vec<[u8; 16]> = rows.iter().map(|row| batch.rows.id(*row as usize)).collect();
        let mut present = HashMap::new();
        for answer in session.rows(sql::objects(&batch.plan, &ids, &columns)).await? {
            for (at, column) in columns.iter().enumerate() {
                present.insert((id(&answer, 0)?, *column), text(&answer, at + 1)?.map(str::to_owned));
            }
        }
        for row in rows {
            for column in &columns {
                if let Some(patch) = given(*row, *column) {
                    let target = present.get(&(batch.rows.id(*row as usize), *column)).and_then(Option::as_deref);
                    let mut json = vec![1];
                    merge_patch(target, patch, &mut json);
                    merged.insert((*row, *column), json);
                }
            }
        }
        Ok(merged)
    }

    async fn delete(&mut self, session: &mut Session, batch: &Batch, step: &Step) -> Result<(), Stop> {
        let present = self.lock(session, batch, step, &step.rows).await?;
        let gone: Vec<u32> = step.rows.iter().copied().filter(|row| !present.contains_key(row)).collect();
        if !gone.is_empty() {
            return Err(self.culprits(step, &gone, |owner| not_there(batch, &gone, self.work, owner)));
        }
        let ids: Vec<[u8; 16]> = step.rows.iter().map(|row| batch.rows.id(*row as usize)).collect();
        let mut deleted = HashMap::new();
        for answer in session.rows(sql::delete(&batch.plan, &ids)).await? {
            deleted.insert(id(&answer, 0)?, answer.try_get::<i64, _>(1)?);
        }
        // One deletion may have taken another with it.
        for (row, version) in present {
            deleted.entry(batch.rows.id(row as usize)).or_insert(version);
        }
        self.take_results(step, batch, &step.rows, &deleted, Effect::Deleted)
    }

    fn take_results(
        &mut self,
        step: &Step,
        batch: &Batch,
        rows: &[u32],
        versions: &HashMap<[u8; 16], i64>,
        effect: Effect,
    ) -> Result<(), Stop> {
        let mut gone = Vec::new();
        for row in rows {
            let id = batch.rows.id(*row as usize);
            match versions.get(&id) {
                Some(version) => {
                    self.set_result(step, *row, Written { id, version: *version, effect });
                }
                None => gone.push(*row),
            }
        }
        if gone.is_empty() { Ok(()) } else { Err(self.culprits(step, &gone, |owner| not_there(batch, &gone, self.work, owner))) }
    }

    // The versions of the objects that are there, locked; stops where conditions do not hold.
    async fn lock(&self, session: &mut Session, batch: &Batch, step: &Step, rows: &[u32]) -> Result<HashMap<u32, i64>, Stop> {
        let conditions: Vec<&sql::Condition> = conditions(batch, rows).collect();
        let statement = sql::lock(&batch.plan, &batch.rows, rows, &conditions, batch.kind == Kind::Delete);
        let mut versions = HashMap::new();
        let mut unmet = Vec::new();
        for answer in session.rows(statement).await? {
            if let Some(row) = place(&answer, rows)? {
                versions.insert(row, answer.try_get(1)?);
                if !answer.try_get::<bool, _>(2)? {
                    unmet.push(row);
                }
            }
        }
        if unmet.is_empty() {
            return Ok(versions);
        }
        Err(self.culprits(step, &unmet, |owner| {
            let row = self.unit(owner.unit).operations.get(owner.operation as usize).map(|(_, row)| *row);
            let members: Vec<&str> = conditions
                .iter()
                .filter(|condition| Some(condition.row) == row)
                .map(|condition| batch.plan.columns[condition.column].member.as_str())
                .collect();
            Problem::precondition_failed(format!("The object has not the values expected of: {}.", members.join(", ")))
                .with(self.work.place.precondition(owner))
        }))
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

    async fn keep_answers(&self, session: &mut Session, done: &[(u32, Vec<Written>)], objects: &Objects) -> Result<(), Stop> {
        let (mut hashes, mut statuses, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for (unit, written) in done {
            let keys = &self.unit(*unit).keys;
            if keys.is_empty() {
                continue;
            }
            let (status, answer) = (self.work.keep)(self.work, written, objects);
            for key in keys {
                hashes.push(*key);
                statuses.push(status);
                answers.push(answer.clone());
            }
        }
        if !hashes.is_empty() {
            session.rows(sql::keep_answers(&hashes, &statuses, &answers)).await?;
        }
        Ok(())
    }
}

// A JSON object given for a JSON attribute.
fn given_object(batch: &Batch, row: u32, column: usize) -> Option<&str> {
    match batch.rows.get(row as usize, column) {
        Value::Bytes(bytes) if matches!(batch.plan.columns[column].encoder, Encoder::Json) => {
            std::str::from_utf8(&bytes[1..]).ok().filter(|json| json.starts_with('{'))
        }
        _ => None,
    }
}

fn gives_more_than_key(batch: &Batch, columns: &[usize]) -> bool {
    columns.iter().any(|column| !batch.plan.key.contains(column))
}

fn gives_objects(batch: &Batch, row: u32) -> bool {
    (SYSTEM..batch.plan.columns.len()).any(|column| given_object(batch, row, column).is_some())
}

fn gives_nothing(batch: &Batch, row: u32) -> bool {
    (SYSTEM..batch.plan.columns.len()).all(|column| batch.rows.get(row as usize, column) == Value::Absent)
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

fn hash(row: &PgRow, column: usize) -> Option<[u8; 32]> {
    row.try_get_raw(column).ok()?.as_bytes().ok()?.try_into().ok()
}

// The row that an ordinality stands for.
fn place(answer: &PgRow, rows: &[u32]) -> Result<Option<u32>, sqlx::Error> {
    let ordinal: i64 = answer.try_get(0)?;
    Ok(usize::try_from(ordinal - 1).ok().and_then(|at| rows.get(at)).copied())
}

// The rows by the columns they give, in order.
fn by_columns(batch: &Batch, rows: &[u32]) -> Vec<(Vec<usize>, Vec<u32>)> {
    let mut groups: Vec<(Vec<usize>, Vec<u32>)> = Vec::new();
    for row in rows {
        let given: Vec<usize> =
            (SYSTEM..batch.plan.columns.len()).filter(|column| batch.rows.get(*row as usize, *column) != Value::Absent).collect();
        match groups.iter_mut().find(|(columns, _)| *columns == given) {
            Some((_, rows)) => rows.push(*row),
            None => groups.push((given, vec![*row])),
        }
    }
    groups
}

// The conditions on these rows, which are in order.
fn conditions<'b>(batch: &'b Batch, rows: &[u32]) -> impl Iterator<Item = &'b sql::Condition> {
    batch.conditions.iter().filter(move |condition| rows.binary_search(&condition.row).is_ok())
}

/// The problem of references that point to nothing; its faults say which.
pub fn reference_problem() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "reference", "The body refers to objects that are not there.")
}

fn not_there(batch: &Batch, _gone: &[u32], work: &Work, owner: Owner) -> Problem {
    let entity = &batch.plan.entity().name;
    let mut problem = Problem::not_found(format!("There is no {entity} with this id."));
    let pointer = work.place.pointer(owner);
    let pointer = match work.place {
        crate::write::Place::Body => return problem,
        crate::write::Place::Item | crate::write::Place::LaterItem(_) | crate::write::Place::Unit => format!("{pointer}/id"),
        crate::write::Place::Operation => format!("{}/id", pointer.trim_end_matches("/object")),
    };
    problem.errors.push(Fault::at(pointer, format!("there is no {entity} with this id")));
    problem
}
