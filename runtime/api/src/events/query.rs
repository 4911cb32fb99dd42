//! What a subscriber asks for: which events, and from where on.

use autonomy_crds::event::{Position, filter_subjects};
use autonomy_crds::micro_service::Operation;
use axum::http::HeaderMap;

use crate::plan::EntityPlan;
use crate::problem::{Fault, Faults, Problem};
use crate::query::{self, Filter, Operator, invalid_query};
use crate::transactions::bad_header;
use crate::value::Encoder;

const LAST_EVENT_ID: &str = "last-event-id";
const OPERATIONS: [Operation; 3] = [Operation::Created, Operation::Updated, Operation::Deleted];
// With more subjects than this a consumer takes all of the entity's.
const MOST_SUBJECTS: usize = 32;

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what comes next.
    #[default]
    Next,
    /// With the first event that the stream has.
    First,
    /// Behind this one.
    Behind(Position),
}

/// A subscription as it is asked for.
#[derive(Debug, Default)]
pub struct EventQuery {
    /// What happened; anything where none.
    pub operations: Vec<Operation>,
    /// What holds for the event's object.
    pub filters: Vec<Filter>,
    /// Where it begins.
    pub start: Start,
}

impl EventQuery {
    /// Reads the query's parameters and the header `Last-Event-ID`. The header counts before `lastEventId`: a client that comes back sends
    /// its address as it was, with what it has seen since in the header.
    ///
    /// # Errors
    /// A problem with all that is wrong.
    pub fn parse(plan: &EntityPlan, parameters: &[(String, String)], headers: &HeaderMap) -> Result<Self, Problem> {
        let mut query = Self::default();
        let mut faults = Faults::default();
        let mut behind = None;
        for (name, value) in parameters {
            let read = match name.as_str() {
                "operation" => operations(value).map(|operations| query.operations = operations),
                "from" => match value.as_str() {
                    "first" => {
                        query.start = Start::First;
                        Ok(())
                    }
                    "next" => Ok(()),
                    _ => Err("must be first or next".to_owned()),
                },
                "lastEventId" => position(value).map(|position| behind = position),
                _ => query::filter(plan, name, value).map(|filter| query.filters.push(filter)),
            };
            if let Err(detail) = read {
                faults.push(Fault::parameter(name, detail));
            }
        }
        if !faults.is_empty() {
            return Err(invalid_query(faults));
        }
        if let Some(value) = headers.get(LAST_EVENT_ID) {
            let text = value.to_str().map_err(|_| bad_header("Last-Event-ID", "must be the id of an event"))?;
            if let Some(position) = position(text.trim()).map_err(|detail| bad_header("Last-Event-ID", detail))? {
                behind = Some(position);
            }
        }
        if let Some(position) = behind {
            query.start = Start::Behind(position);
        }
        Ok(query)
    }

    /// The subjects that have all events asked for. Only a subscription that begins with what comes next takes those of some routing values
    /// alone: older events have the subjects of what was the routing attribute then.
    pub fn subjects(&self, plan: &EntityPlan) -> Vec<String> {
        let model = &plan.model;
        let entity = plan.entity();
        let of = |routing: &[String]| filter_subjects(&model.namespace, &model.name, &entity.name, &self.operations, routing);
        if self.start == Start::Next
            && let Some(routing) = self.routing(plan)
        {
            let subjects = of(&routing);
            if subjects.len() <= MOST_SUBJECTS {
                return subjects;
            }
        }
        of(&[])
    }

    // The values that the filters leave for the routing attribute, where they name some.
    fn routing(&self, plan: &EntityPlan) -> Option<Vec<String>> {
        let column = plan.column_of_name(plan.entity().routing.as_deref()?)?;
        if !matches!(plan.columns[column].encoder, Encoder::Text { .. } | Encoder::Enumeration { .. }) {
            return None;
        }
        let named = |filter: &&Filter| filter.column == column && matches!(filter.operator, Operator::Eq | Operator::In);
        let filter = self.filters.iter().find(named)?;
        let mut values: Vec<String> = filter.values.iter().filter_map(|value| String::from_utf8(value.clone()).ok()).collect();
        values.sort_unstable();
        values.dedup();
        Some(values)
    }
}

fn operations(text: &str) -> Result<Vec<Operation>, String> {
    let mut operations = Vec::new();
    for name in text.split(',').map(str::trim) {
        let known = OPERATIONS.into_iter().find(|operation| operation.as_str() == name);
        let operation = known.ok_or_else(|| format!("{name:?} is no operation; there are created, updated and deleted"))?;
        if !operations.contains(&operation) {
            operations.push(operation);
        }
    }
    Ok(operations)
}

// An empty one is none, as browsers have it.
fn position(text: &str) -> Result<Option<Position>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| "must be the id of an event, as it was sent: 16 hex digits, a hyphen and 8 hex digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_a_list() {
        assert_eq!(operations("created, deleted,created"), Ok(vec![Operation::Created, Operation::Deleted]));
        assert!(operations("made").is_err());
        assert!(operations("").is_err());
    }

    #[test]
    fn ids_are_positions() {
        assert_eq!(position(""), Ok(None));
        assert_eq!(position("00000000000000FF-00000002"), Ok(Some(Position { commit: 0xFF, index: 2 })));
        for other in ["42", "+0000000000000FF-00000002", "00000000000000FF-+0000002", "00000000000000FG-00000002"] {
            assert!(position(other).is_err(), "{other}");
        }
    }
}
