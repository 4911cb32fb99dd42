//! What a service refers to, checked against the resolved models.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::files_trigger;
use super::naming::{check_camel, did_you_mean, is_label, list};
use crate::MicroService;
use crate::fault::Faults;
use crate::micro_service::{
    BatchWindow, Cache, CreateStep, Document, HttpStep, LookupStep, MicroServiceSpec, Normalization, OnConflict, Order, PatchStep,
    QueueTrigger,
};
use crate::names::{is_system_member, parse_duration};
use crate::resolved::{Column, ColumnKind, Entity, Model, SYSTEM_COLUMNS, ValueType};
use crate::schedule::{Schedule, time_zone_named};

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"];

/// Checks what a service refers to: models, entities, members, routing values, caches, steps. Expressions are checked by the worker's
/// compiler, not here.
///
/// # Errors
/// All faults of the service at once, each with its field path.
pub fn check_service(service: &MicroService, models: &BTreeMap<String, Arc<Model>>) -> Result<(), Faults> {
    let mut check = ServiceCheck { spec: &service.spec, models, faults: Faults::default() };
    let name = service.metadata.name.as_deref().unwrap_or_default();
    if !is_label(name) {
        let message = "a service's name has at most 40 lower case letters, digits and hyphens, with a letter first and no hyphen last";
        check.faults.add("metadata.name", format!("{name:?} can't name a service: {message}"));
    }
    check.trigger();
    check.caches();
    check.steps();
    check.retry();
    check.faults.none_or(())
}

pub(super) struct ServiceCheck<'a> {
    pub(super) spec: &'a MicroServiceSpec,
    models: &'a BTreeMap<String, Arc<Model>>,
    pub(super) faults: Faults,
}

impl<'a> ServiceCheck<'a> {
    fn trigger(&mut self) {
        let path = "spec.trigger";
        let trigger = &self.spec.trigger;
        match (&trigger.queue, &trigger.files, &trigger.schedule) {
            (Some(queue), None, None) => self.queue(queue, &format!("{path}.queue")),
            (None, Some(files), None) => files_trigger::check(files, &format!("{path}.files"), &mut self.faults),
            (None, None, Some(schedule)) => {
                if let Err(faults) = Schedule::new(schedule) {
                    self.faults.0.extend(faults.0);
                }
            }
            _ => self.faults.add(path, "a trigger has exactly one of queue, files and schedule"),
        }
    }

    fn queue(&mut self, queue: &QueueTrigger, path: &str) {
        if queue.operations.is_empty() {
            self.faults.add(format!("{path}.operations"), "name at least one of created, updated and deleted");
        }
        for (index, operation) in queue.operations.iter().enumerate() {
            if queue.operations[..index].contains(operation) {
                self.faults.add(format!("{path}.operations[{index}]"), format!("{} is in the list twice", operation.as_str()));
            }
        }
        if let Some(since) = &queue.since
            && since.parse::<jiff::Timestamp>().is_err()
        {
            self.faults
                .add(format!("{path}.since"), format!("{since:?} is no moment as RFC 3339 writes it, for example 2026-11-26T08:00:00Z"));
        }
        if let Some(BatchWindow { max_wait, time_zone, .. }) = &queue.batch {
            self.duration(max_wait, &format!("{path}.batch.maxWait"));
            if let Some(Err(message)) = time_zone.as_deref().map(time_zone_named) {
                self.faults.add(format!("{path}.batch.timeZone"), message);
            }
            if queue.order == Order::PerKey {
                let message = "a batch hands on many events at a time, so it can't be in order per key; take batch or order away";
                self.faults.add(format!("{path}.order"), message);
            }
        }
        let Some(entity) = self.entity(&queue.model, &queue.entity, path) else { return };
        if queue.routing.is_empty() {
            return;
        }
        let Some(column) = entity.routing.as_deref().and_then(|routing| entity.by_column(routing)) else {
            let message = format!("the events of {} have no routing: declare events.routing there, or take this away", entity.name);
            self.faults.add(format!("{path}.routing"), message);
            return;
        };
        for (index, value) in queue.routing.iter().enumerate() {
            let path = format!("{path}.routing[{index}]");
            if queue.routing[..index].contains(value) {
                self.faults.add(&path, format!("{value:?} is in the list twice"));
            }
            if let Some(message) = no_routing_value(column, value) {
                self.faults.add(path, message);
            }
        }
    }

    fn caches(&mut self) {
        let caches: &'a [Cache] = &self.spec.caches;
        for (index, cache) in caches.iter().enumerate() {
            let path = format!("spec.caches[{index}]");
            check_camel(&cache.name, &format!("{path}.name"), "cache", &mut self.faults);
            if caches[..index].iter().any(|earlier| earlier.name == cache.name) {
                self.faults.add(format!("{path}.name"), format!("there are two caches {:?}", cache.name));
            }
            let Some(entity) = self.entity(&cache.model, &cache.entity, &path) else { continue };
            for (field, members) in [("fields", &cache.fields), ("indexes", &cache.indexes)] {
                for (index, member) in members.iter().enumerate() {
                    let path = format!("{path}.{field}[{index}]");
                    if members[..index].contains(member) {
                        self.faults.add(&path, format!("{member:?} is in the list twice"));
                    }
                    let column = self.member(entity, member, &path);
                    if field == "indexes" && (is_system_member(member) || column.is_some_and(|column| !is_scalar(column))) {
                        let message = match member.as_str() {
                            "id" => "an object is always found by its id; take this away".to_owned(),
                            _ => format!(
                                "objects can't be looked up by {member:?}: take an attribute with single values, or a relationship's id"
                            ),
                        };
                        self.faults.add(path, message);
                    }
                }
            }
            self.named_indexes(cache, entity, &path);
        }
    }

    fn named_indexes(&mut self, cache: &Cache, entity: &Entity, path: &str) {
        for (place, index) in cache.named_indexes.iter().enumerate() {
            let path = format!("{path}.namedIndexes[{place}]");
            check_camel(&index.name, &format!("{path}.name"), "index", &mut self.faults);
            let others = cache.indexes.iter().chain(cache.named_indexes[..place].iter().map(|other| &other.name));
            if index.name == "id" || others.into_iter().any(|other| *other == index.name) {
                self.faults.add(format!("{path}.name"), format!("there are two indexes {:?}", index.name));
            }
            if index.members.is_empty() == index.key.is_none() {
                self.faults.add(&path, "an index has exactly one of members and key");
            }
            if index.normalize.is_some() && index.key.is_some() {
                self.faults
                    .add(format!("{path}.normalize"), "a key in CEL is made alike in CEL, for example email(object.mail); take this away");
            }
            if index.calling_code.is_some() && index.normalize != Some(Normalization::Phone) {
                self.faults
                    .add(format!("{path}.callingCode"), "only telephone numbers have one: write normalize: phone, or take this away");
            }
            for (number, member) in index.members.iter().enumerate() {
                let path = format!("{path}.members[{number}]");
                if index.members[..number].contains(member) {
                    self.faults.add(&path, format!("{member:?} is in the list twice"));
                }
                if self.member(entity, member, &path).is_some_and(|column| !is_scalar(column)) {
                    self.faults.add(path, format!("objects can't be looked up by {member:?}: take members with single values"));
                }
            }
        }
    }

    pub(super) fn lookup(&mut self, lookup: &LookupStep, path: &str) {
        let Some(cache) = self.spec.caches.iter().find(|cache| cache.name == lookup.cache) else {
            let names = || self.spec.caches.iter().map(|cache| cache.name.as_str());
            let near = did_you_mean(&lookup.cache, names());
            let message = format!("there is no cache {:?}{near}; there are: {}", lookup.cache, list(names()));
            self.faults.add(format!("{path}.cache"), message);
            return;
        };
        let is_named = cache.named_indexes.iter().any(|index| index.name == lookup.by);
        if lookup.by != "id" && !cache.indexes.contains(&lookup.by) && !is_named {
            let message = format!("cache {:?} has no index {:?}: take id, or add it to the cache's indexes", cache.name, lookup.by);
            self.faults.add(format!("{path}.by"), message);
        }
    }

    pub(super) fn document(&mut self, document: &Document, path: &str) {
        if !document.has_one_format() {
            self.faults.add(path, "a document has exactly one format: csv, fixedWidth, ndjson or json");
        }
    }

    pub(super) fn http(&mut self, http: &HttpStep, path: &str) {
        if !METHODS.contains(&http.method.as_str()) {
            let near = did_you_mean(&http.method, METHODS);
            self.faults.add(format!("{path}.method"), format!("{:?} is no method{near}; there are {}", http.method, list(METHODS)));
        }
        self.duration(&http.timeout, &format!("{path}.timeout"));
        if let Some(bulk) = &http.bulk {
            self.duration(&bulk.max_wait, &format!("{path}.bulk.maxWait"));
            if self.spec.trigger.queue.as_ref().is_some_and(|queue| queue.batch.is_some()) {
                self.faults.add(format!("{path}.bulk"), "the trigger's batch hands the step many events already; take one of the two away");
            }
        }
        if let Some(breaker) = &http.circuit_breaker {
            self.duration(&breaker.open_for, &format!("{path}.circuitBreaker.openFor"));
        }
        let credentials = [http.bearer_token_from.is_some(), http.basic.is_some(), http.oauth2.is_some()];
        if credentials.into_iter().filter(|given| *given).count() > 1 {
            self.faults.add(path, "a call has at most one of bearerTokenFrom, basic and oauth2");
        }
        let bodies = [http.body.is_some(), http.template.is_some(), http.document.is_some()];
        if bodies.into_iter().filter(|given| *given).count() > 1 {
            self.faults.add(path, "a call has at most one of body, template and document");
        }
        if let Some(document) = &http.document {
            self.document(document, &format!("{path}.document"));
        }
        for (index, status) in http.expect.iter().enumerate() {
            if !(100..=599).contains(status) {
                self.faults.add(format!("{path}.expect[{index}]"), format!("{status} is no status of HTTP"));
            }
        }
        for name in http.headers.keys() {
            let path = format!("{path}.headers[{name}]");
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)) {
                self.faults.add(&path, format!("{name:?} is no name of a header"));
            }
            if http.headers.keys().any(|other| other < name && other.eq_ignore_ascii_case(name)) {
                self.faults.add(&path, "this header is given twice, in another case");
            }
            if name.eq_ignore_ascii_case("idempotency-key") {
                self.faults.add(&path, "the platform sends a key of its own from the service, the event and the step; take this away");
            }
            if name.eq_ignore_ascii_case("content-type") && (http.template.is_some() || http.document.is_some()) {
                self.faults.add(&path, "the template's contentType, or the document's format, gives this header; take one of the two away");
            }
            if name.eq_ignore_ascii_case("authorization") && credentials.contains(&true) {
                self.faults.add(&path, "bearerTokenFrom, basic and oauth2 give this header; take one of the two away");
            }
            if name.to_ascii_lowercase().starts_with("webhook-") && http.signing_secret_from.is_some() {
                self.faults.add(&path, "signingSecretFrom gives this header; take one of the two away");
            }
        }
    }

    pub(super) fn create(&mut self, create: &CreateStep, path: &str) {
        let Some(entity) = self.entity(&create.model, &create.entity, path) else { return };
        for (member, expression) in &create.object {
            // An id may be given; what else the platform keeps may not.
            if member != "id" {
                self.written(entity, member, expression, &format!("{path}.object.{member}"));
            }
        }
        let missing = entity
            .columns
            .iter()
            .filter(|column| column.required && column.default.is_none() && !create.object.contains_key(&column.member));
        for column in missing {
            let message = format!("each {} needs a value here, and there is no default: give an expression", entity.name);
            self.faults.add(format!("{path}.object.{}", column.member), message);
        }
        if create.on_conflict != OnConflict::Error && entity.key.is_empty() {
            let message = format!("{} has no natural key to conflict on: declare its key, or take onConflict away", entity.name);
            self.faults.add(format!("{path}.onConflict"), message);
        }
    }

    pub(super) fn patch(&mut self, patch: &PatchStep, path: &str) {
        let Some(entity) = self.entity(&patch.model, &patch.entity, path) else { return };
        if patch.object.is_empty() {
            self.faults.add(format!("{path}.object"), "name at least one member to change");
        }
        for (member, expression) in &patch.object {
            self.written(entity, member, expression, &format!("{path}.object.{member}"));
        }
        for member in patch.precondition.keys() {
            self.member(entity, member, &format!("{path}.if.{member}"));
        }
    }

    // A member that a step gives a value.
    fn written(&mut self, entity: &Entity, member: &str, expression: &str, path: &str) {
        if is_system_member(member) {
            self.faults.add(path, format!("{member:?} is kept by the platform; take it away"));
            return;
        }
        let column = self.member(entity, member, path);
        if column.is_some_and(|column| column.required) && expression.trim() == "null" {
            self.faults.add(path, format!("each {} needs a value here; it can't be null", entity.name));
        }
    }

    // The column of a member; none for the members that every object has.
    fn member<'e>(&mut self, entity: &'e Entity, member: &str, path: &str) -> Option<&'e Column> {
        if is_system_member(member) {
            return None;
        }
        let found = entity.by_member(member);
        if found.is_none() {
            let relationship = entity
                .columns
                .iter()
                .find(|column| matches!(&column.kind, ColumnKind::Relationship { relationship, .. } if relationship == member));
            let members =
                || SYSTEM_COLUMNS.iter().map(|(_, member)| *member).chain(entity.columns.iter().map(|column| column.member.as_str()));
            let near = match relationship {
                Some(column) => format!(" (did you mean {:?}?)", column.member),
                None => did_you_mean(member, members()),
            };
            self.faults.add(path, format!("{} has no member {member:?}{near}; it has: {}", entity.name, list(members())));
        }
        found
    }

    fn entity(&mut self, model: &str, entity: &str, path: &str) -> Option<&'a Entity> {
        let Some(resolved) = self.models.get(model) else {
            let names = || self.models.keys().map(String::as_str);
            let near = did_you_mean(model, names());
            self.faults.add(format!("{path}.model"), format!("there is no model {model:?}{near}; there are: {}", list(names())));
            return None;
        };
        let found = resolved.entity(entity);
        if found.is_none() {
            let names = || resolved.entities.iter().map(|entity| entity.name.as_str());
            let near = did_you_mean(entity, names());
            let message = format!("model {model:?} has no entity {entity:?} with objects of its own{near}; there are: {}", list(names()));
            self.faults.add(format!("{path}.entity"), message);
        }
        found
    }

    fn retry(&mut self) {
        let retry = &self.spec.retry;
        if retry.max_attempts == 0 {
            self.faults.add("spec.retry.maxAttempts", "an event is tried at least once");
        }
        let initial = self.duration(&retry.initial_backoff, "spec.retry.initialBackoff");
        let longest = self.duration(&retry.max_backoff, "spec.retry.maxBackoff");
        if let (Some(initial), Some(longest)) = (initial, longest)
            && initial > longest
        {
            let message = format!("initialBackoff {} is longer than maxBackoff {}", retry.initial_backoff, retry.max_backoff);
            self.faults.add("spec.retry.initialBackoff", message);
        }
        if let Some(max_age) = &retry.max_age {
            self.duration(max_age, "spec.retry.maxAge");
        }
        if self.spec.scaling.concurrency == 0 {
            self.faults.add("spec.scaling.concurrency", "a worker handles at least one event at a time");
        }
    }

    pub(super) fn duration(&mut self, text: &str, path: &str) -> Option<Duration> {
        match parse_duration(text) {
            Ok(duration) => Some(duration),
            Err(message) => {
                self.faults.add(path, message);
                None
            }
        }
    }
}

fn is_scalar(column: &Column) -> bool {
    match &column.kind {
        ColumnKind::Parts { .. } => false,
        ColumnKind::Relationship { .. } => true,
        ColumnKind::Attribute { value_type } => !matches!(value_type, ValueType::Json),
    }
}

// Why no object can have that routing value.
fn no_routing_value(column: &Column, value: &str) -> Option<String> {
    let ColumnKind::Attribute { value_type } = &column.kind else { return None };
    match value_type {
        ValueType::Enumeration { enumeration, values, .. } if !values.iter().any(|each| each == value) => {
            let values = || values.iter().map(String::as_str);
            let near = did_you_mean(value, values());
            Some(format!("{value:?} is no value of {enumeration}{near}; its values are {}", list(values())))
        }
        ValueType::Integer { .. } if value.parse::<i64>().map_or(true, |number| number.to_string() != value) => {
            Some(format!("{value:?} is no whole number, and {:?} is one", column.member))
        }
        ValueType::Boolean if !matches!(value, "true" | "false") => Some(format!("{value:?} is neither true nor false")),
        ValueType::String { max_length: Some(most), .. } if value.chars().count() > *most as usize => {
            Some(format!("{value:?} is longer than {:?} can be", column.member))
        }
        _ => None,
    }
}
