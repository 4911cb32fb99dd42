//! In which order operations are applied: units that touch the same object come one after the other, in waves of a transaction each; the
//! operations of one unit in levels, so that all of a level can go in one statement an entity and kind.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::plan::ID;
use crate::rows::Value;
use crate::write::{Batch, Kind, Unit, Work};

/// The order of the operations of a request.
#[derive(Debug, Default)]
pub struct Order {
    /// Sets of units that do not touch one another; one set after the other.
    pub waves: Vec<Vec<u32>>,
    /// The level of each row of each batch.
    pub levels: Vec<Vec<u32>>,
}

// What operations touch: an object by its id, a place by its natural key, or an idempotency key.
#[derive(PartialEq, Eq, Hash)]
enum Touched {
    Object(usize, [u8; 16]),
    Key(usize, Vec<u8>),
    Idempotency([u8; 32]),
}

impl Order {
    /// The order of the units given.
    pub fn of(work: &Work, units: &[u32]) -> Self {
        let mut order = Self { waves: Vec::new(), levels: work.batches.iter().map(|batch| vec![0; batch.rows.len()]).collect() };
        if let ([only], [batch]) = (units, &work.batches[..])
            && batch.kind == Kind::Create
        {
            // The usual list of new objects needs no looking into: whatever clashes, clashes.
            order.waves.push(vec![*only]);
            return order;
        }
        // The wave of the last unit that touched it.
        let mut touched: HashMap<Touched, (usize, u32)> = HashMap::new();
        // Ids of objects that are made in this request.
        let mut made: HashMap<[u8; 16], (usize, u32)> = HashMap::new();
        for unit in units {
            let mine = order.touched_by(work, *unit);
            let later = |found: Option<&(usize, u32)>| match found {
                Some((wave, other)) if other != unit => wave + 1,
                Some((wave, _)) => *wave,
                None => 0,
            };
            let mut wave = mine.iter().map(|thing| later(touched.get(thing))).max().unwrap_or(0);
            for (batch, row) in &work.units[*unit as usize].operations {
                for id in references(&work.batches[*batch as usize], *row) {
                    wave = wave.max(later(made.get(&id)));
                }
            }
            for thing in mine {
                touched.insert(thing, (wave, *unit));
            }
            for (batch, row) in &work.units[*unit as usize].operations {
                let batch = &work.batches[*batch as usize];
                if batch.kind.makes() {
                    made.insert(batch.rows.id(*row as usize), (wave, *unit));
                }
            }
            if order.waves.len() <= wave {
                order.waves.resize_with(wave + 1, Vec::new);
            }
            order.waves[wave].push(*unit);
        }
        order
    }

    // What a unit touches; sets its operations' levels on the way.
    fn touched_by(&mut self, work: &Work, unit: u32) -> Vec<Touched> {
        let unit = &work.units[unit as usize];
        let in_sequence = if unit.needs.is_empty() {
            Cow::Borrowed(&unit.operations)
        } else {
            Cow::Owned(sequence_of(work, unit).into_iter().map(|operation| unit.operations[operation as usize]).collect())
        };
        let mut seen: HashMap<Touched, u32> = HashMap::new();
        let mut made: HashMap<[u8; 16], (u32, u32)> = HashMap::new();
        // Nothing after a deletion may come before it.
        let mut floor = 0;
        let mut highest = None;
        for (batch_index, row) in in_sequence.iter() {
            let batch = &work.batches[*batch_index as usize];
            let things = things(batch, *row);
            let mut level = things.iter().filter_map(|thing| seen.get(thing)).map(|level| level + 1).max().unwrap_or(0).max(floor);
            for id in references(batch, *row) {
                match made.get(&id) {
                    // Within one statement references are checked at its end.
                    Some((batch, made_level)) if batch == batch_index => level = level.max(*made_level),
                    Some((_, made_level)) => level = level.max(made_level + 1),
                    None => {}
                }
            }
            if batch.kind == Kind::Delete {
                // Deletions of one entity one after the other may go together.
                level = level
                    .max(highest.map_or(0, |(highest, kind)| if kind == (Kind::Delete, *batch_index) { highest } else { highest + 1 }));
                floor = level;
            } else if let Some((last, (Kind::Delete, _))) = highest {
                level = level.max(last + 1);
                floor = level;
            }
            if batch.kind.makes() {
                made.insert(batch.rows.id(*row as usize), (*batch_index, level));
            }
            if highest.is_none_or(|(highest, _)| level >= highest) {
                highest = Some((level, (batch.kind, *batch_index)));
            }
            for thing in things {
                seen.insert(thing, level);
            }
            self.levels[*batch_index as usize][*row as usize] = level;
        }
        seen.into_keys().chain(unit.keys.iter().map(|key| Touched::Idempotency(*key))).collect()
    }
}

// The order in which a unit's operations are looked at where some refer to what later ones make: what is referred to comes first, and what it
// stands on itself.
fn sequence_of(work: &Work, unit: &Unit) -> Vec<u32> {
    let mut needs = needed_by(unit.operations.len(), &unit.needs);
    let mut seen: HashMap<Touched, u32> = HashMap::new();
    let mut made: HashMap<[u8; 16], u32> = HashMap::new();
    for (operation, (batch, row)) in (0..).zip(&unit.operations) {
        let batch = &work.batches[*batch as usize];
        let needs = &mut needs[operation as usize];
        needs.extend(references(batch, *row).filter_map(|id| made.get(&id)));
        for thing in things(batch, *row) {
            // What is done with an object before it is made waits for it, and not the other way round.
            let waits = !(batch.kind.makes() && matches!(thing, Touched::Object(..)));
            needs.extend(seen.insert(thing, operation).filter(|_| waits));
        }
        if batch.kind.makes() {
            made.insert(batch.rows.id(*row as usize), operation);
        }
    }
    sequence(&needs).0
}

/// What each of so many things needs, from pairs of one and what it needs.
pub fn needed_by(count: usize, pairs: &[(u32, u32)]) -> Vec<Vec<u32>> {
    let mut needs = vec![Vec::new(); count];
    for (thing, needed) in pairs {
        needs[*thing as usize].push(*needed);
    }
    needs
}

/// Things in an order in which each comes after what it needs, otherwise as they are; and one of those that need one another in a circle.
pub fn sequence(needs: &[Vec<u32>]) -> (Vec<u32>, Option<u32>) {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Begun,
        Done,
    }
    let mut states = vec![State::New; needs.len()];
    let mut sequence = Vec::with_capacity(needs.len());
    let mut circle = None;
    // Not by recursion: a chain may be as long as the unit.
    let mut stack: Vec<(u32, usize)> = Vec::new();
    for first in 0..needs.len() as u32 {
        if states[first as usize] == State::New {
            states[first as usize] = State::Begun;
            stack.push((first, 0));
        }
        while let Some((thing, next)) = stack.last_mut() {
            let thing = *thing;
            let Some(needed) = needs[thing as usize].get(*next).copied() else {
                states[thing as usize] = State::Done;
                sequence.push(thing);
                stack.pop();
                continue;
            };
            *next += 1;
            match states[needed as usize] {
                State::New => {
                    states[needed as usize] = State::Begun;
                    stack.push((needed, 0));
                }
                State::Begun if needed != thing => circle = circle.or(Some(thing)),
                State::Begun | State::Done => {}
            }
        }
    }
    (sequence, circle)
}

fn entity(batch: &Batch) -> usize {
    std::sync::Arc::as_ptr(&batch.plan) as usize
}

fn things(batch: &Batch, row: u32) -> Vec<Touched> {
    let entity = entity(batch);
    let mut things = vec![Touched::Object(entity, batch.rows.id(row as usize))];
    if batch.kind != Kind::Patch && batch.kind != Kind::Delete && !batch.plan.key.is_empty() {
        let mut key = Vec::new();
        for column in &batch.plan.key {
            match crate::sql::new_value(&batch.plan, &batch.rows, row, *column) {
                Some(bytes) => {
                    key.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                    key.extend_from_slice(bytes);
                }
                // NULLs are not equal to one another.
                None => return things,
            }
        }
        things.push(Touched::Key(entity, key));
    }
    things
}

fn references(batch: &Batch, row: u32) -> impl Iterator<Item = [u8; 16]> {
    let columns = batch.plan.columns.iter().enumerate().skip(ID + 1).filter(|(_, column)| column.target.is_some());
    columns.filter_map(move |(at, _)| match batch.rows.get(row as usize, at) {
        Value::Bytes(bytes) => bytes.try_into().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_the_rest_stays_in_order() {
        assert_eq!(sequence(&[vec![], vec![], vec![]]), (vec![0, 1, 2], None));
        assert_eq!(sequence(&[vec![2], vec![], vec![1]]), (vec![1, 2, 0], None));
        assert_eq!(sequence(&[vec![0], vec![0]]), (vec![0, 1], None));
        assert_eq!(sequence(&[vec![1], vec![0]]), (vec![1, 0], Some(1)));
        let chain: Vec<Vec<u32>> = (0..100_000).map(|at| if at < 99_999 { vec![at + 1] } else { vec![] }).collect();
        assert_eq!(sequence(&chain).0.first(), Some(&99_999));
    }
}
