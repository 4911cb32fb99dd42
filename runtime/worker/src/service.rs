//! A MicroService, compiled: every expression parsed and checked once, before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::event::WriteContext;
use autonomy_crds::micro_service::{FilesTrigger, QueueTrigger, ScheduleTrigger, Ticket};
use autonomy_crds::names::parse_duration;
use autonomy_crds::resolved::Entity;
use autonomy_crds::schedule::{Schedule, time_zone_named};
use autonomy_crds::{Faults, MicroServiceSpec, Model};
use jiff02::Timestamp;
use jiff02::civil::Date;
use jiff02::tz::TimeZone;
use sha2::{Digest, Sha256};

use crate::caches::CompiledCache;
use crate::expression::{EvaluationError, Expression, Identity, Kind, Names, ObjectReader, Value, compile};
use crate::files::{Format, Glob};
use crate::http_call::Endpoint;
use crate::logic::EmbeddedLogic;
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
    /// Reads the trigger's events; none for a files or a schedule trigger.
    pub trigger_reader: Option<ObjectReader>,
    /// The member whose value is the key of order per key; none for the object's id.
    pub partition_member: Option<String>,
    /// When it runs; of a schedule trigger.
    pub schedule: Option<Schedule>,
    /// The caches, in the order declared.
    pub caches: Vec<Arc<CompiledCache>>,
    /// The first wait of a retry.
    pub initial_backoff: Duration,
    /// The longest wait of a retry.
    pub max_backoff: Duration,
    /// A hash of the declaration, by which attempts of one revision of the service are known from those of another.
    pub revision: String,
    /// How long after its first failed attempt an event may still be tried.
    pub max_age: Option<Duration>,
    pub(crate) steps: Vec<CompiledStep>,
    /// The logic of the worker's own program, where there is one.
    pub(crate) logic: Option<EmbeddedLogic>,
    /// The handler beside the worker, where there is one.
    pub(crate) handler: Endpoint,
    // `{namespace}/{name}`: what ids are made from.
    seed: String,
    config: Value,
    service: Value,
    filter: Option<Expression>,
    group_by: Option<Expression>,
    batch_zone: Option<TimeZone>,
    // The member of the trigger's objects by which events are routed.
    routing: Option<String>,
    ticket: Option<CompiledTicket>,
}

/// What the events of a batch window that are handled as one have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The day on which they were committed, where `batch.timeZone` parts days.
    pub day: Option<Date>,
    /// The value of `batch.groupBy`; null without it.
    pub value: Value,
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
        let mut compiler = Compiler { models, config: &config, service: &service, faults: Faults::default() };

        let caches = compiler.caches(&spec.caches);
        let (mut names, trigger) = compiler.trigger(spec);
        let surroundings = [config.clone(), service.clone()];
        let around = compiler.names_around(&[]);
        let steps = Steps { models, caches: &caches, names: &mut names, around, surroundings: &surroundings, faults: &mut compiler.faults };
        let steps = steps.compile(&spec.steps);
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
            schedule: trigger.schedule,
            partition_member: trigger.partition_member,
            caches,
            initial_backoff,
            max_backoff,
            max_age,
            revision: revision(spec),
            steps,
            logic: None,
            handler: Endpoint::of_handler(),
            seed: format!("{namespace}/{name}"),
            config,
            service,
            filter: trigger.filter,
            group_by: trigger.group_by,
            batch_zone: trigger.batch_zone,
            routing: routing_member(spec, models),
            ticket,
        })
    }

    /// The same service with this logic, which `handler.embedded` stands for.
    ///
    /// # Errors
    /// Where the declaration and the program don't agree on whether there is logic in it.
    pub fn with_logic(mut self, logic: Option<EmbeddedLogic>) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        match (self.spec.has_embedded_logic(), logic.is_some()) {
            (true, false) => {
                faults.add("spec.handler.embedded", "the logic is in a program of its own, and this worker is not that program")
            }
            (false, true) => faults.add("spec.handler", "this worker has logic of its own: declare handler.embedded, and no steps"),
            _ => {}
        }
        self.logic = logic;
        faults.none_or(self)
    }

    /// The idempotency key of an event or record: `{service}/{id}`.
    pub fn idempotency_key(&self, id: &str) -> String {
        format!("{}/{id}", self.name)
    }

    /// A value of `config`.
    pub fn config_of(&self, name: &str) -> Option<&str> {
        self.config.member(name)?.as_text()
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

    /// The routing value of the trigger's objects, as it stands in subjects' filters; none where the entity declares no routing, or it is null.
    pub fn routing_of(&self, object: &Value) -> Option<String> {
        object.member(self.routing.as_deref()?)?.index_key().map(std::borrow::Cow::into_owned)
    }

    /// The group of an event in a batch window.
    ///
    /// # Errors
    /// When `batch.groupBy` can't be evaluated for this object.
    pub fn group_of(&self, input: &EventInput) -> Result<Group, Failure> {
        let day = self.batch_zone.as_ref().and_then(|zone| Some(input.event.time.parse::<Timestamp>().ok()?.to_zoned(zone.clone()).date()));
        let Some(group_by) = &self.group_by else { return Ok(Group { day, value: Value::Null }) };
        let variables = [input.object.clone(), self.config.clone(), self.service.clone()];
        let value = group_by.evaluate(&variables, &self.identity(""));
        Ok(Group { day, value: value.map_err(|error| failure("spec.trigger.queue.batch.groupBy", &error))? })
    }

    /// How long the calendar day of this moment still lasts, where batch windows close at its end.
    pub fn rest_of_day(&self, now: Timestamp) -> Option<Duration> {
        let zone = self.batch_zone.clone()?;
        let midnight = now.to_zoned(zone.clone()).date().tomorrow().ok()?.to_zoned(zone).ok()?.timestamp();
        Duration::try_from(midnight.duration_since(now)).ok()
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
            Ok::<String, Failure>(group.to_json())
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

fn routing_member(spec: &MicroServiceSpec, models: &BTreeMap<String, Arc<Model>>) -> Option<String> {
    let queue = spec.trigger.queue.as_ref()?;
    let entity = models.get(&queue.model)?.entity(&queue.entity)?;
    Some(entity.by_column(entity.routing.as_deref()?)?.member.clone())
}

fn failure(path: &str, error: &EvaluationError) -> Failure {
    Failure::fatal(format!("{path}: {error}"))
}

struct CompiledTrigger {
    reader: Option<ObjectReader>,
    schedule: Option<Schedule>,
    partition_member: Option<String>,
    filter: Option<Expression>,
    group_by: Option<Expression>,
    batch_zone: Option<TimeZone>,
    // What the trigger's objects are.
    kind: Kind,
}

impl CompiledTrigger {
    fn of(kind: Kind) -> Self {
        Self { reader: None, schedule: None, partition_member: None, filter: None, group_by: None, batch_zone: None, kind }
    }
}

/// Compiles the parts of a service, and notes all that is wrong.
pub(crate) struct Compiler<'a> {
    pub(crate) models: &'a BTreeMap<String, Arc<Model>>,
    pub(crate) config: &'a Value,
    pub(crate) service: &'a Value,
    pub(crate) faults: Faults,
}

impl<'a> Compiler<'a> {
    fn trigger(&mut self, spec: &MicroServiceSpec) -> (Names, CompiledTrigger) {
        match (&spec.trigger.queue, &spec.trigger.files, &spec.trigger.schedule) {
            (Some(queue), None, None) => self.queue(queue),
            (None, Some(files), None) => self.files(files),
            (None, None, Some(schedule)) => self.schedule(schedule),
            _ => {
                self.faults.add("spec.trigger", "a trigger has exactly one of queue, files and schedule");
                (Names::new(), CompiledTrigger::of(Kind::Any))
            }
        }
    }

    fn schedule(&mut self, schedule: &ScheduleTrigger) -> (Names, CompiledTrigger) {
        let schedule = Schedule::new(schedule).map_err(|faults| self.faults.0.extend(faults.0)).ok();
        let names = self.names_around(&[("event", EventHead::kind()), ("scheduledAt", Kind::Text)]);
        (names, CompiledTrigger { schedule, ..CompiledTrigger::of(Kind::Null) })
    }

    fn queue(&mut self, queue: &QueueTrigger) -> (Names, CompiledTrigger) {
        let path = "spec.trigger.queue";
        let found = find_entity(self.models, &queue.model, &queue.entity, path, &mut self.faults);
        let kind = found.map_or(Kind::Any, |(model, entity)| Kind::of_entity(&model.name, entity));
        let mut names = self.names_around(&[("event", EventHead::kind()), ("object", kind.clone()), ("before", kind.clone())]);
        let filter = queue.filter.as_ref().and_then(|filter| self.condition(filter, &mut names, &format!("{path}.filter")));
        let (mut group_by, mut batch_zone) = (None, None);
        if let Some(batch) = &queue.batch {
            batch_zone = batch
                .time_zone
                .as_deref()
                .and_then(|name| time_zone_named(name).map_err(|message| self.faults.add(format!("{path}.batch.timeZone"), message)).ok());
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
        let partition_member = found.and_then(|(_, entity)| {
            let column = entity.by_column(entity.partition_key.as_deref()?)?;
            Some(column.member.clone())
        });
        (names, CompiledTrigger { reader, partition_member, filter, group_by, batch_zone, ..CompiledTrigger::of(kind) })
    }

    fn files(&mut self, files: &FilesTrigger) -> (Names, CompiledTrigger) {
        let path = "spec.trigger.files";
        self.duration(&files.settle, &format!("{path}.settle"));
        self.duration(&files.incomplete_after, &format!("{path}.incompleteAfter"));
        if let Err(message) = Glob::new(&files.pattern) {
            self.faults.add(format!("{path}.pattern"), message);
        }
        let row = match Format::new(files) {
            Ok(format) => format.row_kind(),
            Err(message) => {
                self.faults.add(format!("{path}.encoding"), message);
                Kind::Any
            }
        };
        let file = Kind::object("a file", [("name", Kind::Text), ("sha256", Kind::Text)]);
        let names =
            self.names_around(&[("row", row.clone()), ("rows", Kind::List(Arc::new(row.clone()))), ("file", file), ("line", Kind::Int)]);
        (names, CompiledTrigger::of(row))
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
    pub(crate) fn names_around(&self, first: &[(&str, Kind)]) -> Names {
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

    pub(crate) fn expression(&mut self, source: &str, names: &Names, path: &str) -> Option<Expression> {
        compile(source, names, path).map_err(|faults| self.faults.0.extend(faults.0)).ok()
    }

    pub(crate) fn condition(&mut self, source: &str, names: &mut Names, path: &str) -> Option<Expression> {
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

pub(crate) fn has_member(kind: &Kind, member: &str) -> bool {
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
