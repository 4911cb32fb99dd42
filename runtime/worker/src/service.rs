//! A MicroService, compiled: every expression parsed and checked once, before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use autonomy_crds::{Faults, MicroServiceSpec, Model};

use crate::expression::{ObjectReader, Value};
use crate::steps::{EventHead, EventInput, Failure};

/// A service ready to run.
#[derive(Debug)]
pub struct CompiledService {
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// As declared.
    pub spec: MicroServiceSpec,
    /// Reads the trigger's events; none for a files trigger.
    pub trigger_reader: Option<ObjectReader>,
    /// The caches, in the order declared.
    pub caches: Vec<CompiledCache>,
}

/// A cache of a service.
#[derive(Debug)]
pub struct CompiledCache {
    /// Its name.
    pub name: String,
    /// The DataModel.
    pub model: Arc<Model>,
    /// The entity's name.
    pub entity: String,
    /// Reads objects, keeping the members declared.
    pub reader: ObjectReader,
    /// The members to index, beside `id`.
    pub indexes: Vec<String>,
    /// The members to ask the API for (`fields=`): those held and those the filter needs; empty for all.
    pub fields: Vec<String>,
}

/// A request that raises a ticket.
#[derive(Clone, Debug)]
pub struct TicketRequest {
    /// Where to POST it.
    pub url: String,
    /// The JSON body.
    pub body: String,
}

impl CompiledService {
    /// Compiles a service. `models` are all models it names, by name; `config` is the service's `config` with environment variables put in.
    ///
    /// # Errors
    /// Everything that is wrong, each with its field path.
    pub fn compile(
        namespace: &str,
        name: &str,
        spec: &MicroServiceSpec,
        models: &BTreeMap<String, Arc<Model>>,
        config: &BTreeMap<String, String>,
    ) -> Result<Self, Faults> {
        let _ = (namespace, name, spec, models, config);
        Err(Faults::default())
    }

    /// Whether the trigger's `filter` lets the event pass.
    ///
    /// # Errors
    /// When the filter can't be evaluated for this event.
    pub fn passes_filter(&self, input: &EventInput) -> Result<bool, Failure> {
        let _ = input;
        Ok(true)
    }

    /// The group of an event's object in a batch window: the value of `batch.groupBy`, null without it.
    ///
    /// # Errors
    /// When the expression can't be evaluated for this object.
    pub fn group_of(&self, object: &Value) -> Result<Value, Failure> {
        let _ = object;
        Ok(Value::Null)
    }

    /// Whether a cache (by its place in [`Self::caches`]) holds this object. An object for which the filter can't be evaluated is not held.
    pub fn cache_holds(&self, cache: usize, object: &Value) -> bool {
        let _ = (cache, object);
        true
    }

    /// The ticket for a dead letter, where the service asks for one; `object` is null where the event's data can't be read.
    ///
    /// # Errors
    /// When its expressions can't be evaluated.
    pub fn ticket(&self, event: &EventHead, object: &Value, error: &str) -> Result<Option<TicketRequest>, Failure> {
        let _ = (event, object, error);
        Ok(None)
    }
}
