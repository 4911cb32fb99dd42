//! From declared resources to resolved models: every check, every name.

mod entity;
mod files_trigger;
mod naming;
mod relations;
mod scope;
mod service;
mod service_steps;
mod value;
mod webhook;

#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use naming::{did_you_mean, list};
pub use service::check_service;
pub use service_steps::RESERVED_VARIABLES;

use crate::fault::{Fault, Faults};
use crate::resolved::Model;
use crate::{DataModel, event, names};
use scope::Scopes;

/// The namespace that is meant where a resource names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Resolves one model against the others of its platform (by name; the model itself may be among them).
///
/// # Errors
/// All faults of the model at once, each with its field path.
pub fn resolve(model: &DataModel, others: &BTreeMap<String, DataModel>) -> Result<Model, Faults> {
    let mut all: BTreeMap<&str, &DataModel> = others.iter().map(|(name, other)| (name.as_str(), other)).collect();
    all.insert(name_of(model), model);
    resolve_in(model, &all)
}

/// Resolves models that belong to one platform; those that are imported come first, otherwise they keep their order.
///
/// # Errors
/// The faults of every model that has some, by its name.
pub fn resolve_all(models: &[DataModel]) -> Result<Vec<Model>, BTreeMap<String, Faults>> {
    let all: BTreeMap<&str, &DataModel> = models.iter().map(|model| (name_of(model), model)).collect();
    let mut faults: BTreeMap<String, Faults> = BTreeMap::new();
    let mut resolved = Vec::with_capacity(models.len());
    for (index, model) in models.iter().enumerate() {
        let name = name_of(model);
        if models[..index].iter().any(|earlier| name_of(earlier) == name) {
            let twice = format!("there are two DataModels of the name {name}; give one of them another name");
            faults.entry(name.to_owned()).or_default().add("metadata.name", twice);
            continue;
        }
        match resolve_in(model, &all) {
            Ok(model) => resolved.push(model),
            Err(found) => faults.entry(name.to_owned()).or_default().0.extend(found.0),
        }
    }
    if faults.is_empty() { Ok(imports_first(resolved)) } else { Err(faults) }
}

fn resolve_in(model: &DataModel, all: &BTreeMap<&str, &DataModel>) -> Result<Model, Faults> {
    let name = name_of(model);
    let namespace = model.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let mut faults = Faults::default();
    naming::check_model_name(name, &mut faults);
    let scopes = Scopes::new(model, all);
    scopes.check(&mut faults);
    let enumerations = value::resolve_enumerations(&model.spec.enumerations, &mut faults);
    let entities = entity::resolve_entities(&scopes, &mut faults);
    relations::check_schema(&enumerations, &entities, &mut faults);
    let imports = scopes.imports(entities.iter().map(|(_, entity)| entity));
    let resolved = Model {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        description: model.spec.description.clone(),
        schema: names::snake_case(name),
        stream: event::stream(namespace, name),
        stream_subjects: format!("autonomy.{namespace}.{name}.>"),
        reader_role: role(namespace, name, "reader"),
        writer_role: role(namespace, name, "writer"),
        imports,
        enumerations,
        entities: entities.into_iter().map(|(_, entity)| entity).collect(),
    };
    webhook::check_webhooks(model, &resolved, &mut faults);
    without_repeats(faults).none_or(resolved)
}

fn name_of(model: &DataModel) -> &str {
    model.metadata.name.as_deref().unwrap_or_default()
}

// Roles are the whole server's, so the namespace is in their names. Hyphens stay, since labels have no `_`: no two pairs share a name.
fn role(namespace: &str, model: &str, purpose: &str) -> String {
    names::shortened(format!("autonomy_{namespace}_{model}_{purpose}"))
}

fn without_repeats(faults: Faults) -> Faults {
    let mut kept: Vec<Fault> = Vec::with_capacity(faults.0.len());
    for fault in faults.0 {
        if !kept.contains(&fault) {
            kept.push(fault);
        }
    }
    Faults(kept)
}

// Import cycles are faults, so each round places at least one model.
fn imports_first(mut waiting: Vec<Model>) -> Vec<Model> {
    let mut placed: Vec<Model> = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let names: Vec<String> = waiting.iter().map(|model| model.name.clone()).collect();
        let before = placed.len();
        let (ready, later): (Vec<Model>, Vec<Model>) =
            waiting.into_iter().partition(|model| !model.imports.iter().any(|import| names.contains(import)));
        placed.extend(ready);
        waiting = later;
        if placed.len() == before {
            placed.append(&mut waiting);
        }
    }
    placed
}
