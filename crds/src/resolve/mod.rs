//! From declared resources to resolved models: every check, every name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resolved::Model;
use crate::{DataModel, Faults, MicroService};

/// Resolves one model against the others of its platform (by name; the model itself may be among them).
///
/// # Errors
/// All faults of the model at once, each with its field path.
pub fn resolve(model: &DataModel, others: &BTreeMap<String, DataModel>) -> Result<Model, Faults> {
    let _ = (model, others);
    let mut faults = Faults::default();
    faults.add("spec", "not there yet");
    Err(faults)
}

/// Resolves models that belong to one platform; those that are imported come first.
///
/// # Errors
/// The faults of every model that has some, by its name.
pub fn resolve_all(models: &[DataModel]) -> Result<Vec<Model>, BTreeMap<String, Faults>> {
    let _ = models;
    Ok(Vec::new())
}

/// Checks what a service refers to: models, entities, members, routing values, caches, steps. Expressions are checked by the worker's
/// compiler, not here.
///
/// # Errors
/// All faults of the service at once, each with its field path.
pub fn check_service(service: &MicroService, models: &BTreeMap<String, Arc<Model>>) -> Result<(), Faults> {
    let _ = (service, models);
    Ok(())
}
