//! Idempotency keys of an attempt: looked up before anything is written, and kept with their answers at the end, in the same transaction. Two
//! requests with the same key meet there: the second waits for the first, and then finds the key used.

use std::collections::{HashMap, HashSet};

use axum::http::StatusCode;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Attempt, Outcome};
use crate::database::Session;
use crate::problem::{Extension, Problem};
use crate::sql::{self, KeptAnswer};
use crate::write::{Objects, Unit, UnitOutcome, Written};

impl Attempt<'_> {
    /// Leaves out the units whose keys were used before: they are done with.
    pub async fn leave_out_used(&mut self, session: &mut Session, outcome: &mut Outcome) -> Result<(), sqlx::Error> {
        let kept = self.kept_answers(session).await?;
        if kept.is_empty() {
            return Ok(());
        }
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
                Some(first) if request.is_some() && first.request != *request => UnitOutcome::Failed(Problem::idempotency_key_reused()),
                Some(first) if used_keys.len() == keys.len() => {
                    self.kept_request = first.request;
                    UnitOutcome::Replayed { status: first.status, answer: first.answer.clone() }
                }
                _ => {
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
        Ok(())
    }

    /// Whether keys of the units have been used by now. Where one fails because somebody else has just done the same with the same key, it has not
    /// failed.
    pub async fn has_used_keys(&self, session: &mut Session) -> Result<bool, sqlx::Error> {
        Ok(!self.kept_answers(session).await?.is_empty())
    }

    /// Keeps the answers for the units' keys; false where keys were used since they were looked up.
    pub(super) async fn keep_answers(
        &self,
        session: &mut Session,
        done: &[(u32, Vec<Written>)],
        objects: &Objects,
    ) -> Result<bool, sqlx::Error> {
        let mut kept = Vec::new();
        for (unit, written) in done {
            let Unit { keys, request, .. } = self.unit(*unit);
            if keys.is_empty() {
                continue;
            }
            let (status, answer) = (self.work.keep)(self.work, written, objects);
            kept.extend(keys.iter().map(|key| KeptAnswer { key: *key, request: *request, status, answer: answer.clone() }));
        }
        if kept.is_empty() {
            return Ok(true);
        }
        let free = session.rows(sql::keep_answers(&kept)).await?.len();
        // A unit may give a key twice.
        Ok(free == kept.iter().map(|kept| kept.key).collect::<HashSet<_>>().len())
    }

    async fn kept_answers(&self, session: &mut Session) -> Result<HashMap<[u8; 32], KeptAnswer>, sqlx::Error> {
        let keys: Vec<[u8; 32]> = self.units.iter().flat_map(|unit| self.unit(*unit).keys.iter().copied()).collect();
        let mut kept = HashMap::new();
        if keys.is_empty() {
            return Ok(kept);
        }
        for row in session.rows(sql::kept_answers(&keys)).await? {
            let Some(key) = hash(&row, 0) else { continue };
            let status: Option<i32> = row.try_get(2)?;
            let answer: Option<String> = row.try_get(3)?;
            let (status, answer) = (status.unwrap_or(200) as u16, answer.unwrap_or_else(|| "null".to_owned()));
            kept.insert(key, KeptAnswer { key, request: hash(&row, 1), status, answer });
        }
        Ok(kept)
    }
}

fn hash(row: &PgRow, column: usize) -> Option<[u8; 32]> {
    row.try_get_raw(column).ok()?.as_bytes().ok()?.try_into().ok()
}
