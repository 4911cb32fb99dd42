//! A MicroService, compiled: every expression parsed and checked once, before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::event::WriteContext;
use autonomy_crds::micro_service::{Cache, FilesTrigger, QueueTrigger, Ticket};
use autonomy_crds::names::parse_duration;
use autonomy_crds::resolved::Entity;
use autonomy_crds::{Faults, MicroServiceSpec, Model};
use sha2::{Digest, Sha256};

use crate::expression::{EvaluationError, Expression, Identity, Kind, Names, ObjectReader, Value, compile};
use crate::files::Glob;
use crate::steps::{CompiledStep, EventHead, EventInput, Failure, Steps};

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
    /// The first wait of a retry.
    pub initial_backoff: Duration,
    /// The longest wait of a retry.
    pub max_backoff: Duration,
    /// A hash of the declaration, by which attempts of one revision of the service are known from those of another.
    pub revision: String,
    /// How long after its first failed attempt an event may still be tried.
    pub max_age: Option<Duration>,
    pub(crate) steps: Vec<CompiledStep>,
    // `{namespace}/{name}`: what ids are made from.
    seed: String,
    config: Value,
    service: Value,
    filter: Option<Expression>,
    group_by: Option<Expression>,
    ticket: Option<CompiledTicket>,
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
    /// Reads objects, keeping the members in `fields`.
    pub reader: ObjectReader,
    /// The members to index, beside `id`.
    pub indexes: Vec<String>,
    /// The members held, to ask the API for (`fields=`): those declared, the indexes, and those the filter needs; empty for all.
    pub fields: Vec<String>,
    filter: Option<Expression>,
}

/// A request that raises a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketRequest {
    /// Where to POST it.
    pub url: String,
    /// The JSON body.
    pub body: String,
    /// The group of dead letters that share it, as JSON, where they are grouped.
    pub group: Option<String>,
}

fn revision(spec: &MicroServiceSpec) -> String {
    let json = serde_json::to_vec(spec).unwrap_or_default();
    Sha256::digest(json)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug)]
struct CompiledTicket {
    url: Expression,
    body: Option<Expression>,
    group_by: Option<Expression>,
    interval: Duration,
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
        let config = Value::object(config.iter().map(|(key, value)| (key.as_str(), Value::text(value))));
        let service = Value::object([("namespace", Value::text(namespace)), ("name", Value::text(name))]);
        let mut compiler = Compiler { models, config: &config, faults: Faults::default() };

        let caches = compiler.caches(&spec.caches);
        let (mut names, trigger) = compiler.trigger(spec);
        let steps = Steps { models, caches: &caches, names: &mut names, faults: &mut compiler.faults }.compile(&spec.steps);
        let ticket = spec.dead_letter.ticket.as_ref().and_then(|ticket| compiler.ticket(ticket, trigger.kind));
        let initial_backoff = compiler.duration(&spec.retry.initial_backoff, "spec.retry.initialBackoff");
        let max_backoff = compiler.duration(&spec.retry.max_backoff, "spec.retry.maxBackoff");
        let max_age = spec.retry.max_age.as_ref().map(|age| compiler.duration(age, "spec.retry.maxAge"));
        compiler.faults.none_or(())?;
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            spec: spec.clone(),
            trigger_reader: trigger.reader,
            caches,
            initial_backoff,
            max_backoff,
            max_age,
            revision: revision(spec),
            steps,
            seed: format!("{namespace}/{name}"),
            config,
            service,
            filter: trigger.filter,
            group_by: trigger.group_by,
            ticket,
        })
    }

    /// The idempotency key of an event or record: `{service}/{id}`.
    pub fn idempotency_key(&self, id: &str) -> String {
        format!("{}/{id}", self.name)
    }

    /// The context of what is written for an event: the service as the actor, the event as the cause.
    pub fn write_context(&self, event: &str, traceparent: Option<&str>) -> WriteContext {
        WriteContext {
            traceparent: traceparent.map(str::to_owned),
            actor: Some(format!("service/{}", self.name)),
            causation_id: Some(event.to_owned()),
        }
    }

    /// Whether the trigger's `filter` lets the event pass.
    ///
    /// # Errors
    /// When the filter can't be evaluated for this event.
    pub fn passes_filter(&self, input: &EventInput) -> Result<bool, Failure> {
        let Some(filter) = &self.filter else { return Ok(true) };
        let variables = [input.event.value(), input.object.clone(), input.before.clone(), self.config.clone(), self.service.clone()];
        filter.evaluate_condition(&variables, &self.identity(&input.event.id)).map_err(|error| failure("spec.trigger.queue.filter", &error))
    }

    /// The group of an event's object in a batch window: the value of `batch.groupBy`, null without it.
    ///
    /// # Errors
    /// When the expression can't be evaluated for this object.
    pub fn group_of(&self, object: &Value) -> Result<Value, Failure> {
        let Some(group_by) = &self.group_by else { return Ok(Value::Null) };
        let variables = [object.clone(), self.config.clone(), self.service.clone()];
        group_by.evaluate(&variables, &self.identity("")).map_err(|error| failure("spec.trigger.queue.batch.groupBy", &error))
    }

    /// Whether a cache (by its place in [`Self::caches`]) holds this object. An object for which the filter can't be evaluated is not held.
    pub fn cache_holds(&self, cache: usize, object: &Value) -> bool {
        let Some(filter) = self.caches.get(cache).and_then(|cache| cache.filter.as_ref()) else { return true };
        let variables = [object.clone(), self.config.clone(), self.service.clone()];
        filter.evaluate_condition(&variables, &self.identity("")).unwrap_or(false)
    }

    /// The ticket for a dead letter, where the service asks for one; `object` is null where the event's data can't be read.
    ///
    /// # Errors
    /// When its expressions can't be evaluated.
    pub fn ticket(&self, event: &EventHead, object: &Value, error: &str) -> Result<Option<TicketRequest>, Failure> {
        let Some(ticket) = &self.ticket else { return Ok(None) };
        let variables = [self.config.clone(), self.service.clone(), event.value(), object.clone(), Value::text(error)];
        let identity = self.identity(&event.id);
        let url = ticket.url.evaluate(&variables, &identity).map_err(|error| failure("spec.deadLetter.ticket.url", &error))?;
        let url = url.as_text().ok_or_else(|| Failure::fatal("spec.deadLetter.ticket.url gives no string"))?.to_owned();
        let body = match &ticket.body {
            Some(body) => body.evaluate(&variables, &identity).map_err(|error| failure("spec.deadLetter.ticket.body", &error))?,
            None => Value::object([
                ("service", Value::text(&self.name)),
                ("eventId", Value::text(&event.id)),
                ("type", Value::text(&event.kind)),
                ("subject", Value::text(&event.subject)),
                ("error", Value::text(error)),
            ]),
        };
        let group = ticket.group_by.as_ref().map(|group_by| {
            let group = group_by.evaluate(&variables, &identity).map_err(|error| failure("spec.deadLetter.ticket.groupBy", &error))?;
            Ok(group.to_json())
        });
        Ok(Some(TicketRequest { url, body: body.to_json(), group: group.transpose()? }))
    }

    /// How often a group of dead letters makes a ticket.
    pub fn ticket_interval(&self) -> Duration {
        self.ticket.as_ref().map_or(Duration::MAX, |ticket| ticket.interval)
    }

    pub(crate) fn identity<'a>(&'a self, event: &'a str) -> Identity<'a> {
        Identity { service: &self.seed, event }
    }

    // The variables that every expression of the steps ends its base with: `config` and `service`.
    pub(crate) fn surroundings(&self) -> [Value; 2] {
        [self.config.clone(), self.service.clone()]
    }
}

fn failure(path: &str, error: &EvaluationError) -> Failure {
    Failure::fatal(format!("{path}: {error}"))
}

struct CompiledTrigger {
    reader: Option<ObjectReader>,
    filter: Option<Expression>,
    group_by: Option<Expression>,
    // What the trigger's objects are.
    kind: Kind,
}

struct Compiler<'a> {
    models: &'a BTreeMap<String, Arc<Model>>,
    config: &'a Value,
    faults: Faults,
}

impl<'a> Compiler<'a> {
    fn caches(&mut self, caches: &[Cache]) -> Vec<CompiledCache> {
        let mut compiled: Vec<CompiledCache> = Vec::new();
        for (index, cache) in caches.iter().enumerate() {
            let path = format!("spec.caches[{index}]");
            if compiled.iter().any(|other| other.name == cache.name) {
                self.faults.add(format!("{path}.name"), format!("another cache is named {} too", cache.name));
            }
            compiled.extend(self.cache(cache, &path));
        }
        compiled
    }

    fn cache(&mut self, cache: &Cache, path: &str) -> Option<CompiledCache> {
        let (model, entity) = find_entity(self.models, &cache.model, &cache.entity, path, &mut self.faults)?;
        let whole = Kind::of_entity(&model.name, entity);
        let filter = cache.filter.as_ref().and_then(|filter| {
            let mut names = self.names_around(&[("object", whole.clone())]);
            self.condition(filter, &mut names, &format!("{path}.filter"))
        });
        for (list, members) in [("fields", &cache.fields), ("indexes", &cache.indexes)] {
            for (index, member) in members.iter().enumerate() {
                if !has_member(&whole, member) {
                    self.faults.add(format!("{path}.{list}[{index}]"), format!("{}/{} has no member {member}", model.name, entity.name));
                }
            }
        }
        let mut fields = cache.fields.clone();
        if !fields.is_empty() {
            let needed = filter.as_ref().map_or(Some(Vec::new()), |filter| filter.members_of(0));
            match needed {
                // The filter takes the object as a whole.
                None => fields.clear(),
                Some(needed) => {
                    for member in ["id".to_owned()].into_iter().chain(cache.indexes.clone()).chain(needed) {
                        if !fields.contains(&member) {
                            fields.push(member);
                        }
                    }
                }
            }
        }
        Some(CompiledCache {
            name: cache.name.clone(),
            model: model.clone(),
            entity: entity.name.clone(),
            reader: ObjectReader::keeping(entity, &fields),
            indexes: cache.indexes.clone(),
            fields,
            filter,
        })
    }

    fn trigger(&mut self, spec: &MicroServiceSpec) -> (Names, CompiledTrigger) {
        match (&spec.trigger.queue, &spec.trigger.files) {
            (Some(queue), None) => self.queue(queue),
            (None, Some(files)) => self.files(files),
            _ => {
                self.faults.add("spec.trigger", "a trigger has exactly one of queue and files");
                (Names::new(), CompiledTrigger { reader: None, filter: None, group_by: None, kind: Kind::Any })
            }
        }
    }

    fn queue(&mut self, queue: &QueueTrigger) -> (Names, CompiledTrigger) {
        let path = "spec.trigger.queue";
        let found = find_entity(self.models, &queue.model, &queue.entity, path, &mut self.faults);
        let kind = found.map_or(Kind::Any, |(model, entity)| Kind::of_entity(&model.name, entity));
        let mut names = self.names_around(&[("event", EventHead::kind()), ("object", kind.clone()), ("before", kind.clone())]);
        let filter = queue.filter.as_ref().and_then(|filter| self.condition(filter, &mut names, &format!("{path}.filter")));
        let mut group_by = None;
        if let Some(batch) = &queue.batch {
            let mut group_kind = Kind::Null;
            if let Some(source) = &batch.group_by {
                let names = self.names_around(&[("object", kind.clone())]);
                group_by = self.expression(source, &names, &format!("{path}.batch.groupBy"));
                group_kind = group_by.as_ref().map_or(Kind::Any, |group_by| group_by.kind().clone());
            }
            let list = |kind: Kind| Kind::List(Arc::new(kind));
            names = self.names_around(&[("events", list(EventHead::kind())), ("objects", list(kind.clone())), ("group", group_kind)]);
        }
        let reader = found.map(|(_, entity)| ObjectReader::new(entity));
        (names, CompiledTrigger { reader, filter, group_by, kind })
    }

    fn files(&mut self, files: &FilesTrigger) -> (Names, CompiledTrigger) {
        let path = "spec.trigger.files";
        self.duration(&files.settle, &format!("{path}.settle"));
        self.duration(&files.incomplete_after, &format!("{path}.incompleteAfter"));
        if let Err(message) = Glob::new(&files.pattern) {
            self.faults.add(format!("{path}.pattern"), message);
        }
        if files.csv.delimiter.len() != 1 {
            self.faults.add(format!("{path}.csv.delimiter"), "the delimiter is one ASCII character");
        }
        let row = Kind::Object(None);
        let file = Kind::object("a file", [("name", Kind::Text), ("sha256", Kind::Text)]);
        let names =
            self.names_around(&[("row", row.clone()), ("rows", Kind::List(Arc::new(row.clone()))), ("file", file), ("line", Kind::Int)]);
        (names, CompiledTrigger { reader: None, filter: None, group_by: None, kind: row })
    }

    fn ticket(&mut self, ticket: &Ticket, object: Kind) -> Option<CompiledTicket> {
        let mut names = Names::new();
        names.add("config", self.config_kind());
        names.add("service", service_kind());
        names.add("event", EventHead::kind());
        names.add("object", object);
        names.add("error", Kind::Text);
        let url = self.expression(&ticket.url, &names, "spec.deadLetter.ticket.url");
        let body = ticket.body.as_ref().map(|body| self.expression(body, &names, "spec.deadLetter.ticket.body"));
        let group_by = ticket.group_by.as_ref().map(|group_by| self.expression(group_by, &names, "spec.deadLetter.ticket.groupBy"));
        let interval = self.duration(&ticket.interval, "spec.deadLetter.ticket.interval");
        Some(CompiledTicket { url: url?, body: body.flatten(), group_by: group_by.flatten(), interval })
    }

    // These names, and `config` and `service` behind them.
    fn names_around(&self, first: &[(&str, Kind)]) -> Names {
        let mut names = Names::new();
        for (name, kind) in first {
            names.add(*name, kind.clone());
        }
        names.add("config", self.config_kind());
        names.add("service", service_kind());
        names
    }

    fn config_kind(&self) -> Kind {
        match self.config {
            Value::Object(config) => Kind::object("spec.config", config.iter().map(|(key, _)| (key, Kind::Text))),
            _ => Kind::Object(None),
        }
    }

    fn expression(&mut self, source: &str, names: &Names, path: &str) -> Option<Expression> {
        compile(source, names, path).map_err(|faults| self.faults.0.extend(faults.0)).ok()
    }

    fn condition(&mut self, source: &str, names: &mut Names, path: &str) -> Option<Expression> {
        let expression = self.expression(source, names, path)?;
        if !expression.may_be(&Kind::Bool) {
            self.faults.add(path, format!("true or false is expected, `{source}` gives {}", expression.kind()));
        }
        Some(expression)
    }

    fn duration(&mut self, text: &str, path: &str) -> Duration {
        parse_duration(text).unwrap_or_else(|message| {
            self.faults.add(path, message);
            Duration::ZERO
        })
    }
}

fn service_kind() -> Kind {
    Kind::object("the service", [("namespace", Kind::Text), ("name", Kind::Text)])
}

fn has_member(kind: &Kind, member: &str) -> bool {
    match kind {
        Kind::Object(Some(object)) => object.members.iter().any(|(own, _)| own == member),
        _ => true,
    }
}

/// The entity that `model` and `entity` at `path` name.
pub(crate) fn find_entity<'m>(
    models: &'m BTreeMap<String, Arc<Model>>,
    model: &str,
    entity: &str,
    path: &str,
    faults: &mut Faults,
) -> Option<(&'m Arc<Model>, &'m Entity)> {
    let Some(found) = models.get(model) else {
        faults.add(format!("{path}.model"), format!("there is no DataModel {model}"));
        return None;
    };
    let Some(entity_found) = found.entity(entity) else {
        let names: Vec<&str> = found.entities.iter().map(|entity| entity.name.as_str()).collect();
        faults.add(format!("{path}.entity"), format!("the DataModel {model} has no entity {entity}; it has {}", names.join(", ")));
        return None;
    };
    Some((found, entity_found))
}
