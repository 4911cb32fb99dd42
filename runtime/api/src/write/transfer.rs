//! A unit whose rows come in pieces, however many: one transaction, held open until the last piece is in. Nothing of it is tried again, for the
//! pieces before are gone: whoever was in the way, the client sends it anew.

use crate::database::{Failure, Gate, Meaning, Session, meaning};
use crate::problem::Problem;
use crate::sql;
use crate::write::attempt::{Attempt, BEGIN, Outcome, Stop};
use crate::write::order::Order;
use crate::write::{Batch, Counts, Objects, Owner, Place, SetFailure, Unit, UnitOutcome, Work, Written, blame};

/// A transfer that goes on.
pub struct Transfer {
    session: Session,
    unit: Unit,
    rows: u32,
    counts: Counts,
}

/// What the look at the idempotency key came to.
pub enum Begun {
    /// Rows may come.
    Transfer(Box<Transfer>),
    /// The key was used before: the hash of that request, and its answer.
    Used(Option<[u8; 32]>, UnitOutcome),
}

impl Transfer {
    /// Begins a transaction for the unit, which has no operations yet; its request's hash is told at the end.
    ///
    /// # Errors
    /// Where there is no connection to be had, or the database refuses.
    pub async fn begin(gate: &Gate, unit: Unit) -> Result<Begun, Failure> {
        let mut session = gate.session().await?;
        let work = Work {
            batches: Vec::new(),
            units: vec![unit],
            place: Place::Item,
            want_objects: false,
            of_strangers: false,
            keep: keep_nothing,
        };
        let order = Order::default();
        let mut attempt = Attempt::new(&work, &order, &[0]);
        session.begin(BEGIN).await?;
        let mut outcome = Outcome::default();
        let taken = match work.units[0].keys.first() {
            // What is to be kept for it is known when the body is at its end, which nobody else with the same key should have to come to.
            Some(key) => session.rows(sql::take_key(key)).await.map(|taken| !taken.is_empty()),
            None => Ok(true),
        };
        let looked = match taken {
            Ok(true) => Ok(()),
            Ok(false) => attempt.leave_out_used(&mut session, &mut outcome).await,
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            session.roll_back().await;
            return Err(error.into());
        }
        if let Some((_, used)) = outcome.units.pop() {
            let request = attempt.kept_request;
            session.roll_back().await;
            return Ok(Begun::Used(request, used));
        }
        if let Err(Stop::Database(error)) = attempt.tell_context(&mut session).await {
            session.roll_back().await;
            return Err(error.into());
        }
        let unit = work.units.into_iter().next().unwrap_or_default();
        Ok(Begun::Transfer(Box::new(Self { session, unit, rows: 0, counts: Counts::default() })))
    }

    /// Writes more rows. After an error the transaction is over.
    ///
    /// # Errors
    /// What is wrong with the rows; their pointers count from the first row of all.
    pub async fn add(mut self: Box<Self>, gate: &Gate, mut batch: Batch) -> Result<Box<Self>, Problem> {
        let count = batch.rows.len() as u32;
        batch.owners = (0..count).map(|operation| Owner { unit: 0, operation }).collect();
        let operations = (0..count).map(|row| (0, row)).collect();
        let unit = Unit { operations, ..Unit::default() };
        let work = Work {
            batches: vec![batch],
            units: vec![unit],
            place: Place::LaterItem(self.rows),
            want_objects: false,
            of_strangers: false,
            keep: keep_nothing,
        };
        let order = Order::of(&work, &[0]);
        let mut attempt = Attempt::new(&work, &order, &[0]);
        match attempt.apply_all(&mut self.session).await {
            Ok(()) => {
                for written in attempt.all_written() {
                    self.counts.add(written.effect);
                }
                self.rows = self.rows.saturating_add(count);
                Ok(self)
            }
            Err(Stop::Culprits(culprits)) => {
                self.session.roll_back().await;
                Err(only(culprits))
            }
            Err(Stop::Database(error)) => {
                if attempt.copying {
                    self.session.spoil();
                } else {
                    self.session.roll_back().await;
                }
                if meaning(&error) != Meaning::Data {
                    return Err(crate::database::problem(error.into()));
                }
                let step = attempt.step.take();
                drop(self);
                let mut questions = gate.session().await.map_err(crate::database::problem)?;
                Err(match blame::blame(&work, &[0], &mut questions, &error, step).await {
                    SetFailure::Culprits { culprits, .. } => only(culprits),
                    SetFailure::Someone(problem) | SetFailure::Refused(problem) => problem,
                    SetFailure::Nobody(error) | SetFailure::Apart(error) => crate::database::problem(error.into()),
                })
            }
        }
    }

    /// How many objects were written so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Commits. The answer is kept for the idempotency key, together with what the request was.
    ///
    /// # Errors
    /// Where it was not committed, or where that is not known.
    pub async fn commit(mut self: Box<Self>, request: [u8; 32], status: u16, answer: &str) -> Result<(), Failure> {
        if let Some(key) = self.unit.keys.first() {
            self.session.rows(sql::keep_answer_and_request(key, &request, status, answer)).await?;
        }
        self.session.commit().await?;
        Ok(())
    }
}

// Of one unit there is one problem.
fn only(culprits: Vec<(u32, Problem)>) -> Problem {
    culprits.into_iter().next().map_or_else(Problem::internal, |(_, problem)| problem)
}

fn keep_nothing(_: &Work, _: &[Written], _: &Objects) -> (u16, String) {
    (200, "null".to_owned())
}
