//! Writing: many units of operations, applied set-wise. Every statement takes all rows of one entity and one kind of operation at once;
//! a unit is all or nothing, and a unit that fails undoes itself alone.

mod attempt;
mod blame;
pub mod merge;
mod order;
pub mod transfer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::event::WriteContext;
use rand::RngExt;
use uuid::Uuid;

use crate::body::IF_MATCH;
use crate::database::{Failure, Gate, Meaning, meaning, problem};
use crate::plan::EntityPlan;
use crate::problem::{Fault, PartReference, Problem};
use crate::rows::Rows;
use crate::sql::Condition;
use attempt::{Attempt, Outcome};
pub use attempt::{id, object, text};
pub use order::{needed_by, sequence};

// A set that meets deadlocks or serialization failures is tried so often.
const TRIES: u32 = 8;
// So many sets may fail one after the other with a culprit found each time; then the set is halved.
const CULPRIT_ROUNDS: usize = 4;

/// What is done with the rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// New objects; an error where they are there.
    Create,
    /// New objects; those that are there stay as they are.
    CreateOrIgnore,
    /// New objects; those that are there get the members given.
    CreateOrUpdate,
    /// The whole of an object, which may be there or not.
    Put,
    /// Members of an object.
    Patch,
    /// The end of an object.
    Delete,
}

impl Kind {
    /// Whether rows of it are new objects.
    pub fn is_create(self) -> bool {
        matches!(self, Self::Create | Self::CreateOrIgnore | Self::CreateOrUpdate)
    }

    /// Whether it may bring objects with the ids given.
    pub fn makes(self) -> bool {
        self.is_create() || self == Self::Put
    }
}

/// Rows of one entity, for one kind of operation.
#[derive(Debug)]
pub struct Batch {
    /// The entity.
    pub plan: Arc<EntityPlan>,
    /// What is done with the rows.
    pub kind: Kind,
    /// The rows.
    pub rows: Rows,
    /// Each row's unit and its operation's number in it.
    pub owners: Vec<Owner>,
    /// Expectations of present values.
    pub conditions: Vec<Condition>,
    /// References from inside of parts.
    pub references: Vec<PartReference>,
}

/// The operation that a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The unit.
    pub unit: u32,
    /// The operation in the unit.
    pub operation: u32,
}

/// Operations that are done together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// Idempotency keys, hashed.
    pub keys: Vec<[u8; 32]>,
    /// The keys as given.
    pub key_texts: Vec<String>,
    /// What the request was, where a key must not be used for another one.
    pub request: Option<[u8; 32]>,
    /// Its context.
    pub context: WriteContext,
    /// Each operation's batch and row.
    pub operations: Vec<(u32, u32)>,
    /// Where operations refer to what later ones make: which operation needs which one before it.
    pub needs: Vec<(u32, u32)>,
}

/// Where in the request's body an operation's object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The body is the object.
    Body,
    /// The body is a list of objects, one an operation.
    Item,
    /// The body is a list of objects, one an operation, that comes in pieces; so many objects came before.
    LaterItem(u32),
    /// The body is a list of objects, one a unit.
    Unit,
    /// `/units/{unit}/operations/{operation}/object`.
    Operation,
}

impl Place {
    /// The pointer to an operation's object.
    pub fn pointer(self, owner: Owner) -> String {
        match self {
            Self::Body => String::new(),
            Self::Item => format!("/{}", owner.operation),
            Self::LaterItem(before) => format!("/{}", before + owner.operation),
            Self::Unit => format!("/{}", owner.unit),
            Self::Operation => format!("/units/{}/operations/{}/object", owner.unit, owner.operation),
        }
    }

    /// The fault that an operation's precondition does not hold, where it was said.
    pub fn precondition(self, owner: Owner) -> Fault {
        let detail = "does not hold: the object is another by now";
        let pointer = self.pointer(owner);
        match self {
            Self::Body => Fault::parameter("If-Match", detail),
            Self::Item | Self::LaterItem(_) | Self::Unit => Fault::at(format!("{pointer}/{IF_MATCH}"), detail),
            Self::Operation => Fault::at(format!("{}/if", pointer.trim_end_matches("/object")), detail),
        }
    }
}

/// What is to be written.
#[derive(Debug)]
pub struct Work {
    /// The rows.
    pub batches: Vec<Batch>,
    /// The units.
    pub units: Vec<Unit>,
    /// Where faults point to.
    pub place: Place,
    /// Whether the objects as they then are, are answered.
    pub want_objects: bool,
    /// Whether the units are of different clients. Those of them that would hold up the others stay without an outcome, to be done alone.
    pub of_strangers: bool,
    /// How a unit's answer is kept for its idempotency keys: status and JSON.
    pub keep: fn(&Work, &[Written], &Objects) -> (u16, String),
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The object's id.
    pub id: [u8; 16],
    /// Its version afterwards; of a deleted one, its last.
    pub version: i64,
    /// What was done.
    pub effect: Effect,
}

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The object is new.
    Created,
    /// The object is changed.
    Updated,
    /// The object was there and stays as it was.
    Ignored,
    /// The object is gone.
    Deleted,
}

impl Effect {
    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Ignored => "ignored",
            Self::Deleted => "deleted",
        }
    }
}

/// How many objects were written, by what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// New ones.
    pub created: u64,
    /// Changed ones.
    pub updated: u64,
    /// Those that stay as they were.
    pub ignored: u64,
}

impl Counts {
    /// Counts what was written.
    pub fn of(written: &[Written]) -> Self {
        let mut counts = Self::default();
        written.iter().for_each(|written| counts.add(written.effect));
        counts
    }

    /// Counts one more.
    pub fn add(&mut self, effect: Effect) {
        match effect {
            Effect::Created => self.created += 1,
            Effect::Updated => self.updated += 1,
            Effect::Ignored => self.ignored += 1,
            Effect::Deleted => {}
        }
    }

    /// As answers have it.
    pub fn to_json(self) -> String {
        format!(r#"{{"created":{},"updated":{},"ignored":{}}}"#, self.created, self.updated, self.ignored)
    }
}

impl Written {
    /// The id as text.
    pub fn id_text(&self) -> String {
        Uuid::from_bytes(self.id).to_string()
    }
}

/// What became of a unit.
#[derive(Clone, Debug)]
pub enum UnitOutcome {
    /// Its operations were done.
    Done {
        /// What became of each of them.
        written: Vec<Written>,
        /// The objects as they were then, where they are wanted: of all units that were done in one transaction.
        objects: Arc<Objects>,
    },
    /// Its idempotency keys were used before: the answer given then.
    Replayed {
        /// Its status.
        status: u16,
        /// The answer as it was kept.
        answer: String,
    },
    /// It was undone.
    Failed(Problem),
}

/// Objects as JSON, by batch and id.
pub type Objects = HashMap<(u32, [u8; 16]), Vec<u8>>;

/// What became of the units.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Each unit's outcome.
    pub units: Vec<Option<UnitOutcome>>,
}

impl Outcomes {
    fn fail(&mut self, units: &[u32], problem: &Problem) {
        for unit in units {
            self.units[*unit as usize] = Some(UnitOutcome::Failed(problem.clone()));
        }
    }
}

/// Applies units, each for itself, in as few transactions as can be. Units in `skip` have failed before. Only units of strangers can be left
/// without an outcome; nothing of them was written then.
///
/// # Errors
/// When the tables turn out to be other than the plans, before anything was written.
pub async fn apply(gate: &Gate, work: &Work, skip: Vec<Option<Problem>>) -> Result<Outcomes, Failure> {
    let mut written = Outcomes { units: skip.into_iter().map(|problem| problem.map(UnitOutcome::Failed)).collect() };
    written.units.resize_with(work.units.len(), || None);
    let active: Vec<u32> = (0..work.units.len() as u32).filter(|unit| written.units[*unit as usize].is_none()).collect();
    let order = order::Order::of(work, &active);
    let mut committed = false;
    for wave in &order.waves {
        let mut sets = vec![Set { units: wave.clone(), last: wave.len() == 1 }];
        let mut culprit_rounds = 0;
        while let Some(set) = sets.pop() {
            match try_set(gate, work, &order, &set.units).await {
                Ok(done) => {
                    committed |= done.committed;
                    for (unit, outcome) in done.units {
                        written.units[unit as usize] = Some(outcome);
                    }
                }
                Err(SetFailure::Culprits { culprits, by_data }) => {
                    let blamed = |unit: &u32| culprits.iter().any(|(culprit, _)| culprit == unit);
                    let rest: Vec<u32> = set.units.iter().copied().filter(|unit| !blamed(unit)).collect();
                    // Data that another unit of the set was in the way of may be right after it.
                    if by_data && !set.last {
                        sets.insert(0, Set { units: culprits.iter().map(|(unit, _)| *unit).collect(), last: true });
                    }
                    for (unit, problem) in culprits {
                        written.units[unit as usize] = Some(UnitOutcome::Failed(problem));
                    }
                    culprit_rounds += 1;
                    if culprit_rounds > CULPRIT_ROUNDS && rest.len() > 1 {
                        sets.extend(halves(&rest, set.last));
                    } else if !rest.is_empty() {
                        sets.push(Set { units: rest, last: set.last });
                    }
                }
                Err(SetFailure::Apart(_)) => {}
                Err(SetFailure::Someone(_)) if set.units.len() > 1 => sets.extend(halves(&set.units, set.last)),
                Err(SetFailure::Nobody(error)) if !committed && meaning(&error) == Meaning::Stale => return Err(error.into()),
                Err(SetFailure::Nobody(error)) => written.fail(&set.units, &problem(error.into())),
                Err(SetFailure::Someone(problem) | SetFailure::Refused(problem)) => written.fail(&set.units, &problem),
            }
        }
    }
    Ok(written)
}

// Units that are tried together.
struct Set {
    units: Vec<u32>,
    // Whether who fails in it has failed for good.
    last: bool,
}

// The first half is on top, so that it comes first.
fn halves(units: &[u32], last: bool) -> [Set; 2] {
    let (first, second) = units.split_at(units.len() / 2);
    [second, first].map(|units| Set { units: units.to_vec(), last })
}

// Why a set of units was not written.
enum SetFailure {
    // These units are to blame; for data that the database refused, or for what was found before.
    Culprits { culprits: Vec<(u32, Problem)>, by_data: bool },
    // One of them is; the problem is the one's where the set is one unit.
    Someone(Problem),
    // The database, not the units.
    Nobody(sqlx::Error),
    // Not even begun.
    Refused(Problem),
    // Strangers, of whom one met another transaction.
    Apart(sqlx::Error),
}

async fn try_set(gate: &Gate, work: &Work, order: &order::Order, set: &[u32]) -> Result<Outcome, SetFailure> {
    let mut tries = 0;
    loop {
        let mut session = gate.session().await.map_err(|failure| match failure {
            Failure::Problem(problem) => SetFailure::Refused(problem),
            Failure::Database(error) => SetFailure::Nobody(error),
        })?;
        let mut attempt = Attempt::new(work, order, set);
        let error = match attempt.run(&mut session).await {
            Ok(Some(outcome)) => return Ok(outcome),
            Ok(None) => continue,
            Err(attempt::Stop::Culprits(culprits)) => {
                session.roll_back().await;
                if attempt.has_used_keys(&mut session).await.map_err(SetFailure::Nobody)? {
                    continue;
                }
                return Err(SetFailure::Culprits { culprits, by_data: false });
            }
            Err(attempt::Stop::Database(error)) => error,
        };
        match meaning(&error) {
            Meaning::Conflict => {
                session.roll_back().await;
                drop(session);
                if work.of_strangers && set.len() > 1 {
                    return Err(SetFailure::Apart(error));
                }
                tries += 1;
                if tries >= TRIES {
                    return Err(SetFailure::Nobody(error));
                }
                let pause = rand::rng().random_range(1..=(5 << tries));
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            Meaning::Data => {
                let step = attempt.step.take();
                if attempt.copying {
                    // A connection whose COPY was refused is not trusted.
                    session.spoil();
                    drop(session);
                    session = gate.session().await.map_err(|_| SetFailure::Nobody(sqlx::Error::PoolTimedOut))?;
                } else {
                    session.roll_back().await;
                }
                if attempt.has_used_keys(&mut session).await.map_err(SetFailure::Nobody)? {
                    continue;
                }
                return Err(blame::blame(work, set, &mut session, &error, step).await);
            }
            _ => {
                if attempt.copying {
                    session.spoil();
                } else {
                    session.roll_back().await;
                }
                return Err(SetFailure::Nobody(error));
            }
        }
    }
}
