//! Names of new objects: where an operation of a unit makes an object with `"as": "sale"`, `{"@ref": "sale"}` stands for its id in the
//! others.

use std::collections::HashMap;

use autonomy_crds::resolved::EntityReference;
use uuid::Uuid;

use crate::body;
use crate::plan::EntityPlan;
use crate::problem::{Intake, Path};

/// The member of an operation that gives the object made a name.
pub const AS: &str = "as";
/// The member of what stands for an id.
pub const REF: &str = "@ref";
/// The longest name, in bytes.
pub const MOST_NAME_BYTES: usize = 64;

/// The named objects of a unit.
#[derive(Debug, Default)]
pub struct Names(HashMap<String, Named>);

#[derive(Clone, Debug)]
struct Named {
    operation: u32,
    model: String,
    entity: String,
    id: Uuid,
}

impl Names {
    /// Notes what an operation makes; says whether the name was free.
    pub fn add(&mut self, name: String, operation: u32, model: &str, entity: &str, id: Uuid) -> bool {
        let named = Named { operation, model: model.to_owned(), entity: entity.to_owned(), id };
        match self.0.entry(name) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(named);
                true
            }
        }
    }
}

/// What stands where an id is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// No name: an id, or something that is none.
    Plain,
    /// The name of a new object.
    New {
        /// Its id.
        id: Uuid,
        /// The operation that makes it.
        operation: u32,
    },
    /// A name that stands for nothing; the fault is noted.
    Faulty,
}

/// Reads JSON that may name a new object of `target`.
pub fn reference(raw: &str, target: &EntityReference, path: &Path<'_>, intake: &mut Intake) -> Reference {
    read(raw, &target.model, &target.entity, path, intake)
}

/// Reads the id of an operation on an object of `plan`, which may name a new one.
pub fn own_id(raw: &str, plan: &EntityPlan, path: &Path<'_>, intake: &mut Intake) -> Reference {
    read(raw, &plan.model.name, &plan.entity().name, path, intake)
}

fn read(raw: &str, model: &str, entity: &str, path: &Path<'_>, intake: &mut Intake) -> Reference {
    // Names are for transactions; elsewhere an object is just no id.
    if !raw.starts_with('{') || intake.names.is_none() {
        return Reference::Plain;
    }
    let members = body::members(raw, path, intake);
    let [(member, value)] = &members[..] else {
        intake.push(path, format!("must be an id, or {{\"{REF}\": the name of a new object}}"));
        return Reference::Faulty;
    };
    if member != REF {
        intake.push(path, format!("must be an id, or {{\"{REF}\": the name of a new object}}"));
        return Reference::Faulty;
    }
    let here = path.member(REF);
    let Some(name) = body::string(value.as_raw_str(), &here, intake) else { return Reference::Faulty };
    let named = intake.names.as_ref().and_then(|names| names.0.get(&name)).cloned();
    match named {
        Some(named) if named.model == model && named.entity == entity => Reference::New { id: named.id, operation: named.operation },
        Some(named) => {
            intake.push(&here, format!("is a {} of model {}; a {entity} of model {model} is expected", named.entity, named.model));
            Reference::Faulty
        }
        None => {
            intake.push(&here, format!("no operation of this unit makes an object \"{AS}\" this name"));
            Reference::Faulty
        }
    }
}
