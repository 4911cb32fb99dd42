//! Idempotency keys of an attempt: taken before anything is written, their answers kept in the same transaction.

use std::collections::{HashMap, HashSet};

use axum::http::StatusCode;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Attempt, Outcome, Stop};
use crate::database::Session;
use crate::problem::{Extension, Problem};
use crate::sql;
use crate::write::{Objects, Unit, UnitOutcome, Written};

impl Attempt<'_> {
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

    pub(super) async fn keep_answers(&self, session: &mut Session, done: &[(u32, Vec<Written>)], objects: &Objects) -> Result<(), Stop> {
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

fn hash(row: &PgRow, column: usize) -> Option<[u8; 32]> {
    row.try_get_raw(column).ok()?.as_bytes().ok()?.try_into().ok()
}
