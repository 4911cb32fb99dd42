//! Who is to blame: from the database's error to the units whose data it refused, and to the members meant.

use axum::http::StatusCode;
use sqlx::Row;

use crate::database::{Session, Violation};
use crate::plan::{EntityPlan, ID};
use crate::problem::{Fault, Problem};
use crate::rows::Value;
use crate::sql;
use crate::write::attempt::{Step, id, reference_problem};
use crate::write::{Batch, Kind, SetFailure, Work};

/// The units to blame for an error that a statement of `step` met; the transaction is over, and `session` is free for questions.
pub async fn blame(work: &Work, set: &[u32], session: &mut Session, error: &sqlx::Error, step: Option<Step>) -> SetFailure {
    let Some((violation, step)) = Violation::of(error).zip(step) else {
        return SetFailure::Someone(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", "The database refused the data."));
    };
    let batch = &work.batches[step.batch as usize];
    let rows = match culprit_rows(work, batch, &step, session, &violation).await {
        Ok(rows) => rows,
        Err(error) => return SetFailure::Nobody(error),
    };
    if rows.is_empty() {
        return SetFailure::Someone(problem(work, batch, &violation, &[]));
    }
    let mut culprits: Vec<(u32, Vec<u32>)> = Vec::new();
    for row in rows {
        let unit = batch.owners[row as usize].unit;
        match culprits.iter_mut().find(|(known, _)| *known == unit) {
            Some((_, rows)) => rows.push(row),
            None => culprits.push((unit, vec![row])),
        }
    }
    culprits.retain(|(unit, _)| set.contains(unit));
    let culprits = culprits.into_iter().map(|(unit, rows)| (unit, problem(work, batch, &violation, &rows))).collect();
    SetFailure::Culprits { culprits, by_data: true }
}

// The rows whose data is refused: all of them where the database can be asked, otherwise the one it named; none where it is not known.
async fn culprit_rows(
    work: &Work,
    batch: &Batch,
    step: &Step,
    session: &mut Session,
    violation: &Violation,
) -> Result<Vec<u32>, sqlx::Error> {
    let plan = &batch.plan;
    if !violation.is_on(plan) || batch.kind == Kind::Delete {
        return Ok(if step.rows.len() == 1 { step.rows.clone() } else { still_referenced(batch, step, violation) });
    }
    let columns = violation.columns(plan);
    match violation.code.as_str() {
        "23505" if batch.kind != Kind::Patch && !columns.is_empty() => {
            let mut rows = Vec::new();
            for answer in session.rows(sql::by_key(plan, &batch.rows, &step.rows, &columns)).await? {
                let ordinal: i64 = answer.try_get(0)?;
                let own = id(&answer, 1)?;
                if let Some(row) = usize::try_from(ordinal - 1).ok().and_then(|at| step.rows.get(at)) {
                    // An upsert may meet its own object.
                    if batch.kind == Kind::Create || batch.rows.id(*row as usize) != own {
                        rows.push(*row);
                    }
                }
            }
            if rows.is_empty() { Ok(named_row(batch, step, violation, &columns)) } else { Ok(rows) }
        }
        "23503" if columns.len() == 1 => {
            let Some(target) = &plan.columns[columns[0]].target else { return Ok(Vec::new()) };
            let quote = autonomy_crds::names::quote_identifier;
            let table = format!("{}.{}", quote(&target.schema), quote(&target.table));
            let referred = |row: &u32| match batch.rows.get(*row as usize, columns[0]) {
                Value::Bytes(bytes) => <[u8; 16]>::try_from(bytes).ok(),
                _ => None,
            };
            let mut ids: Vec<[u8; 16]> = step.rows.iter().filter_map(referred).collect();
            ids.sort_unstable();
            ids.dedup();
            let mut present = std::collections::HashSet::new();
            for answer in session.rows(sql::present(&table, &ids, false)).await? {
                present.insert(id(&answer, 0)?);
            }
            // Objects that the request itself makes were there: the ones refused are others.
            for maker in work.batches.iter().filter(|maker| maker.plan.table == table && maker.kind.makes()) {
                present.extend((0..maker.rows.len()).map(|row| maker.rows.id(row)));
            }
            Ok(step.rows.iter().copied().filter(|row| referred(row).is_some_and(|id| !present.contains(&id))).collect())
        }
        _ => Ok(named_row(batch, step, violation, &columns)),
    }
}

// The row that the error itself names: by its place in a COPY, or by the values in its detail. Of rows that clash with one another the last.
fn named_row(batch: &Batch, step: &Step, violation: &Violation, columns: &[usize]) -> Vec<u32> {
    if let [only] = step.rows[..] {
        return vec![only];
    }
    if let Some(row) = violation.copy_row.and_then(|row| step.rows.get((row as usize).checked_sub(1)?)) {
        return vec![*row];
    }
    let Some((names, values)) = &violation.key else { return Vec::new() };
    if names.len() != columns.len() {
        return Vec::new();
    }
    let text = |row: u32| {
        let texts: Option<Vec<String>> = names
            .iter()
            .map(|name| {
                let column = batch.plan.column_of_name(name)?;
                let bytes = sql::new_value(&batch.plan, &batch.rows, row, column)?;
                batch.plan.columns[column].encoder.plain_text(bytes)
            })
            .collect();
        texts.map(|texts| texts.join(", "))
    };
    step.rows.iter().rev().copied().find(|row| text(*row).as_ref() == Some(values)).into_iter().collect()
}

// The deletion that is refused names the id that others refer to.
fn still_referenced(batch: &Batch, step: &Step, violation: &Violation) -> Vec<u32> {
    let Some((_, value)) = &violation.key else { return Vec::new() };
    let Ok(id) = uuid::Uuid::try_parse(value) else { return Vec::new() };
    step.rows.iter().copied().filter(|row| batch.rows.id(*row as usize) == id.into_bytes()).collect()
}

fn members(plan: &EntityPlan, columns: &[usize]) -> String {
    columns.iter().map(|column| plan.columns[*column].member.as_str()).collect::<Vec<_>>().join(", ")
}

fn problem(work: &Work, batch: &Batch, violation: &Violation, rows: &[u32]) -> Problem {
    let plan = &batch.plan;
    let entity = &plan.entity().name;
    let on_this = violation.is_on(plan) && batch.kind != Kind::Delete;
    let columns = if on_this { violation.columns(plan) } else { Vec::new() };
    let constraint = violation.constraint.as_deref().unwrap_or_default();
    let (mut problem, detail) = match violation.code.as_str() {
        "23505" => {
            let named = members(plan, &columns);
            let detail = if columns == [ID] {
                format!("There is a {entity} with this id already.")
            } else if columns == plan.key {
                format!("There is a {entity} with this key already ({named}).")
            } else {
                format!("There is a {entity} with the same {named} already.")
            };
            (Problem::new(StatusCode::CONFLICT, "unique", detail), "must be unique".to_owned())
        }
        "23503" if !on_this => {
            let others = violation.table.as_ref().map(|(schema, table)| format!("{schema}.{table}")).unwrap_or_default();
            let detail = format!("The {entity} is still referred to from {others}.");
            (Problem::new(StatusCode::CONFLICT, "still-referenced", detail), "is still referred to".to_owned())
        }
        "23503" => {
            let target = columns.first().and_then(|column| plan.columns[*column].target.as_ref()).map_or("object", |target| &target.entity);
            (reference_problem(), format!("there is no {target} with this id"))
        }
        "23514" => {
            let declared = plan.entity().checks.iter().find(|check| check.name == constraint);
            let detail = match declared {
                Some(check) => format!("The condition {} of {entity} is not met.", check.declared_name),
                None => format!("{} of {entity} is outside of its limits.", members(plan, &columns)),
            };
            let fault = match declared {
                Some(check) => format!("does not meet the condition {}", check.declared_name),
                None => "is outside of its limits".to_owned(),
            };
            (Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "check", detail), fault)
        }
        "23502" => (Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", "The body has a fault."), "must not be null".to_owned()),
        "21000" => {
            (Problem::new(StatusCode::CONFLICT, "unique", format!("The body has the same {entity} twice.")), "is there twice".to_owned())
        }
        _ => (
            Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-body",
                format!("The database refused the data: {}.", violation.message),
            ),
            "is refused by the database".to_owned(),
        ),
    };
    for row in rows.iter().take(100) {
        let base = work.place.pointer(batch.owners[*row as usize]);
        if columns.is_empty() {
            problem.errors.push(Fault::at(base.clone(), detail.clone()));
        }
        for column in &columns {
            problem.errors.push(Fault::at(format!("{base}/{}", plan.columns[*column].member), detail.clone()));
        }
    }
    problem
}
