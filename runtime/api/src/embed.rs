//! Embedding: objects that an object refers to, read by the same statement and written inside of it; also, in relationships of theirs.

use std::sync::Arc;

use autonomy_crds::object_json::{ObjectWriter, write_string};
use autonomy_crds::resolved::ColumnKind;

use crate::plan::{EntityPlan, Plans};
use crate::query;

// How many objects an object may have in it, and how deep.
pub(crate) const MOST_EMBEDDED: usize = 16;
pub(crate) const MOST_DEPTH: usize = 4;

/// An object that is embedded: `customer` where there is `customerId`.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// The member that it becomes.
    pub member: String,
    /// The column of its parent that refers to it.
    pub column: usize,
    /// Its entity.
    pub plan: Arc<EntityPlan>,
    /// What is embedded in it in turn.
    pub inside: Vec<Embedded>,
}

/// Reads the parameter `embed`: relationships, comma-separated, those of an embedded object behind a dot, as in `customer,customer.account`.
///
/// # Errors
/// What is wrong with it.
pub fn parse(plans: &Plans, plan: &EntityPlan, text: &str) -> Result<Vec<Embedded>, String> {
    let mut embedded = Vec::new();
    let mut count = 0;
    for (index, path) in query::items(text).enumerate() {
        let path = path?;
        if index == MOST_EMBEDDED {
            return Err(format!("has more than {MOST_EMBEDDED} items"));
        }
        let names: Vec<&str> = path.split('.').collect();
        if names.len() > MOST_DEPTH {
            return Err(format!("{path} is deeper than {MOST_DEPTH} relationships"));
        }
        insert(plans, plan, &names, &mut embedded, &mut count)?;
        if count > MOST_EMBEDDED {
            return Err(format!("names more than {MOST_EMBEDDED} objects"));
        }
    }
    Ok(embedded)
}

fn insert(plans: &Plans, plan: &EntityPlan, names: &[&str], embedded: &mut Vec<Embedded>, count: &mut usize) -> Result<(), String> {
    let Some((name, inner)) = names.split_first() else { return Ok(()) };
    let at = match embedded.iter().position(|known| known.member == *name) {
        Some(at) => at,
        None => {
            embedded.push(one(plans, plan, name)?);
            *count += 1;
            embedded.len() - 1
        }
    };
    let found = &mut embedded[at];
    let inside_of = found.plan.clone();
    insert(plans, &inside_of, inner, &mut found.inside, count)
}

fn one(plans: &Plans, plan: &EntityPlan, name: &str) -> Result<Embedded, String> {
    let entity = plan.entity();
    let found = entity.columns.iter().find_map(|column| match &column.kind {
        ColumnKind::Relationship { relationship, target, .. } if relationship == name => Some((column, target)),
        _ => None,
    });
    let Some((column, target)) = found else {
        return Err(format!("{name} is no relationship of {}", entity.name));
    };
    let there = plans.models.get(&target.model).and_then(|model| model.by_name(&target.entity));
    match (plan.column_of_name(&column.name), there) {
        (Some(column), Some(there)) => Ok(Embedded { member: name.to_owned(), column, plan: there.clone(), inside: Vec::new() }),
        _ => Err(format!("{name} can't be embedded now: {} of model {} is not served", target.entity, target.model)),
    }
}

/// How a row's texts become an object with what is embedded in it.
#[derive(Debug)]
pub struct Layout {
    writer: ObjectWriter,
    columns: std::ops::Range<usize>,
    // Each with its member, quoted, with the comma before it and the colon behind it.
    inside: Vec<(Vec<u8>, Layout)>,
}

impl Layout {
    /// Of rows that begin with the members of `answered`, and have the columns of what is embedded from `first` on, as
    /// [`crate::sql::list`] selects them.
    pub fn new(plan: &EntityPlan, answered: &[usize], embedded: &[Embedded], first: usize) -> Self {
        let mut next = first;
        Self::at(plan, answered, 0..answered.len(), embedded, &mut next)
    }

    fn at(plan: &EntityPlan, answered: &[usize], columns: std::ops::Range<usize>, embedded: &[Embedded], next: &mut usize) -> Self {
        let members = answered.iter().map(|column| (plan.columns[*column].member.as_str(), plan.columns[*column].encoding));
        let writer = ObjectWriter::of_members(members);
        let inside = embedded
            .iter()
            .map(|object| {
                let mut head = vec![b','];
                write_string(&object.member, &mut head);
                head.push(b':');
                let all: Vec<usize> = (0..object.plan.columns.len()).collect();
                let columns = *next..*next + all.len();
                *next = columns.end;
                (head, Self::at(&object.plan, &all, columns, &object.inside, next))
            })
            .collect();
        Self { writer, columns, inside }
    }

    /// Writes an object from all texts of its row.
    pub fn write(&self, texts: &[Option<&str>], out: &mut Vec<u8>) {
        out.push(b'{');
        self.writer.write_members(texts[self.columns.clone()].iter().copied(), out);
        for (head, object) in &self.inside {
            out.extend_from_slice(head);
            // The first column is the id.
            match texts[object.columns.start] {
                Some(_) => object.write(texts, out),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
    }
}
