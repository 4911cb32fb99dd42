//! The statements of an attempt: rows made, changed and deleted.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Attempt, Step, Stop, id, text};
use crate::database::Session;
use crate::plan::{ID, SYSTEM};
use crate::problem::{Fault, Problem};
use crate::rows::Value;
use crate::sql::{self, Conflict};
use crate::value::Encoder;
use crate::write::merge::merge_patch;
use crate::write::{Batch, Effect, Kind, Owner, Work, Written};

impl Attempt<'_> {
    pub(super) async fn apply(&mut self, session: &mut Session, step: &Step) -> Result<(), Stop> {
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
}

// A JSON object given for a JSON attribute.
pub(super) fn given_object(batch: &Batch, row: u32, column: usize) -> Option<&str> {
    match batch.rows.get(row as usize, column) {
        Value::Bytes(bytes) if matches!(batch.plan.columns[column].encoder, Encoder::Json) => {
            std::str::from_utf8(&bytes[1..]).ok().filter(|json| json.starts_with('{'))
        }
        _ => None,
    }
}

pub(super) fn gives_more_than_key(batch: &Batch, columns: &[usize]) -> bool {
    columns.iter().any(|column| !batch.plan.key.contains(column))
}

pub(super) fn gives_objects(batch: &Batch, row: u32) -> bool {
    (SYSTEM..batch.plan.columns.len()).any(|column| given_object(batch, row, column).is_some())
}

pub(super) fn gives_nothing(batch: &Batch, row: u32) -> bool {
    (SYSTEM..batch.plan.columns.len()).all(|column| batch.rows.get(row as usize, column) == Value::Absent)
}

// The row that an ordinality stands for.
fn place(answer: &PgRow, rows: &[u32]) -> Result<Option<u32>, sqlx::Error> {
    let ordinal: i64 = answer.try_get(0)?;
    Ok(usize::try_from(ordinal - 1).ok().and_then(|at| rows.get(at)).copied())
}

// The rows by the columns they give, in order.
pub(super) fn by_columns(batch: &Batch, rows: &[u32]) -> Vec<(Vec<usize>, Vec<u32>)> {
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
