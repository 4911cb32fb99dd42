//! A service run without anything outside: its own filter, steps and caches, with objects given and web services that a stand-in plays. What it
//! would write comes back and is written nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::documents::{self, DocumentError, Resource};
use autonomy_crds::micro_service::Operation as Change;
use autonomy_crds::{Faults, Model, resolve};

use crate::caches::Store;
use crate::expression::Value;
use crate::http_call::{HttpCaller, Request, StandIn, StandInAnswer};
use crate::service::{CompiledService, TicketRequest};
use crate::steps::{self, EventHead, EventInput, Failure, Input, Lookups};

/// Why a text makes no service.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It can't be read.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Documents(Vec<DocumentError>),
    /// A DataModel is wrong.
    #[error("the DataModel {0} has faults:\n{1}")]
    Model(String, #[source] Faults),
    /// It declares none, or several.
    #[error("there must be one MicroService, and there are {0}")]
    NotOne(usize),
    /// The service is wrong.
    #[error(transparent)]
    Service(#[from] Faults),
}

/// Compiles the MicroService that a text of YAML declares, with the DataModels that are declared beside it, as a worker in the namespace
/// `default` does.
///
/// # Errors
/// What is wrong with the text.
pub fn compile(yaml: &str) -> Result<CompiledService, CompileError> {
    let (mut models, mut services) = (Vec::new(), Vec::new());
    for resource in documents::parse("yaml", yaml).map_err(CompileError::Documents)? {
        match resource {
            Resource::DataModel(model) => models.push(model),
            Resource::MicroService(service) => services.push(service),
            Resource::DataPlatform(_) => {}
        }
    }
    let models = resolve::resolve_all(&models).map_err(|faults| {
        let (name, faults) = faults.into_iter().next().unwrap_or_default();
        CompileError::Model(name, faults)
    })?;
    let models: BTreeMap<String, Arc<Model>> = models.into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect();
    let [service] = services.as_slice() else { return Err(CompileError::NotOne(services.len())) };
    let name = service.metadata.name.as_deref().unwrap_or_default();
    Ok(CompiledService::compile("default", name, &service.spec, &models, &service.spec.config)?)
}

/// A service with its caches filled.
#[derive(Debug)]
pub struct Rehearsal<'s> {
    service: &'s CompiledService,
    caches: FilledCaches,
    http: HttpCaller,
}

#[derive(Debug)]
struct FilledCaches(Vec<(String, Store)>);

impl Lookups for FilledCaches {
    fn find(&self, cache: &str, by: &str, key: &Value) -> Option<Value> {
        self.0.iter().find(|(name, _)| name == cache)?.1.find(by, key)
    }
}

#[derive(Debug)]
struct NoCalls;

impl StandIn for NoCalls {
    fn answer(&self, request: &Request) -> Result<StandInAnswer, Failure> {
        Err(Failure::fatal(format!("{} is called, and nothing is there to answer", request.url)))
    }
}

/// What became of an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// Its effects would be committed; there may be none.
    Handled,
    /// The trigger doesn't let it pass.
    Skipped,
    /// It would be tried again, after this wait where one was asked for.
    Retry(Option<Duration>),
    /// It failed for good: a dead letter, or a rejected record.
    Failed,
}

/// What a service makes of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Effects {
    /// What became of it.
    pub ending: Ending,
    /// Why it was not handled.
    pub error: Option<String>,
    /// What would be written as one unit, as `/api/transactions` takes it.
    pub operations: Vec<Value>,
}

impl<'s> Rehearsal<'s> {
    /// A service whose caches have these objects, as far as they hold them; `stand_in` answers its calls.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn new(
        service: &'s CompiledService,
        objects: &BTreeMap<String, Vec<Value>>,
        stand_in: Arc<dyn StandIn>,
    ) -> Result<Self, reqwest::Error> {
        let caches = service.caches.iter().map(|cache| {
            let mut store = Store::new(cache.clone());
            for object in objects.get(&cache.name).into_iter().flatten() {
                // An object is one, so that nothing can be wrong with it.
                let _ = store.take_line(object.to_json().as_bytes());
            }
            (cache.name.clone(), store)
        });
        Ok(Self { service, caches: FilledCaches(caches.collect()), http: HttpCaller::rehearsing(stand_in)? })
    }

    /// The same for a service that calls no web service: one that does fails.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn without_calls(service: &'s CompiledService, objects: &BTreeMap<String, Vec<Value>>) -> Result<Self, reqwest::Error> {
        Self::new(service, objects, Arc::new(NoCalls))
    }

    /// Whether the trigger would deliver this event: its operation, routing value and filter.
    ///
    /// # Errors
    /// When the filter can't be evaluated.
    pub fn delivers(&self, input: &EventInput) -> Result<bool, Failure> {
        let Some(queue) = &self.service.spec.trigger.queue else { return Ok(false) };
        if !queue.operations.iter().any(|wanted| Change::as_str(*wanted) == input.event.operation()) {
            return Ok(false);
        }
        if let Some(routing) = self.service.routing_of(&input.object)
            && !queue.routing.is_empty()
            && !queue.routing.iter().any(|wanted| **wanted == *routing)
        {
            return Ok(false);
        }
        self.service.passes_filter(input)
    }

    /// Runs the logic for an input that the trigger delivers.
    pub async fn run(&self, input: Input) -> Effects {
        match steps::run(self.service, input, &self.caches, &self.http).await {
            Ok(outcome) => {
                let operations = outcome.operations.iter().map(|operation| Value::from_json(operation.json.as_bytes()).unwrap_or_default());
                Effects { ending: Ending::Handled, error: None, operations: operations.collect() }
            }
            Err(failure) => Effects::of_failure(&failure),
        }
    }

    /// The ticket for a dead letter, where the service asks for one.
    ///
    /// # Errors
    /// When its expressions can't be evaluated.
    pub fn ticket(&self, event: &EventHead, object: &Value, error: &str) -> Result<Option<TicketRequest>, Failure> {
        self.service.ticket(event, object, error)
    }
}

impl Effects {
    /// Of an input that was not let pass.
    pub fn skipped() -> Self {
        Self { ending: Ending::Skipped, error: None, operations: Vec::new() }
    }

    /// Of an input that failed.
    pub fn of_failure(failure: &Failure) -> Self {
        let ending = if failure.retryable { Ending::Retry(failure.retry_after) } else { Ending::Failed };
        Self { ending, error: Some(failure.message.clone()), operations: Vec::new() }
    }
}
