//! What a service refers to, checked against the resolved models.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::naming::{check_camel, did_you_mean, is_label, list};
use crate::MicroService;
use crate::fault::Faults;
use crate::micro_service::{
    BatchWindow, Cache, CreateStep, FilesTrigger, HttpStep, LookupStep, MicroServiceSpec, OnConflict, PatchStep, QueueTrigger, Step,
};
use crate::names::{is_system_member, parse_duration};
use crate::resolved::{Column, ColumnKind, Entity, Model, SYSTEM_COLUMNS, ValueType};

/// Names that expressions find without a step of that name.
pub const RESERVED_VARIABLES: [&str; 14] =
    ["config", "event", "object", "objects", "group", "before", "row", "rows", "item", "file", "line", "cache", "now", "service"];

// Words of CEL, which can't be variables.
const CEL_WORDS: [&str; 20] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
];
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

struct ServiceCheck<'a> {
    spec: &'a MicroServiceSpec,
    models: &'a BTreeMap<String, Arc<Model>>,
    faults: Faults,
}

impl<'a> ServiceCheck<'a> {
    fn trigger(&mut self) {
        let path = "spec.trigger";
        match (&self.spec.trigger.queue, &self.spec.trigger.files) {
            (Some(queue), None) => self.queue(queue, &format!("{path}.queue")),
            (None, Some(files)) => self.files(files, &format!("{path}.files")),
            _ => self.faults.add(path, "a trigger has exactly one of queue and files"),
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
        if let Some(BatchWindow { max_wait, .. }) = &queue.batch {
            self.duration(max_wait, &format!("{path}.batch.maxWait"));
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

    fn files(&mut self, files: &FilesTrigger, path: &str) {
        if files.directory.trim().is_empty() || files.directory.contains('\0') || files.directory.split('/').any(|part| part == "..") {
            self.faults.add(format!("{path}.directory"), "name a directory, without \"..\" in it");
        }
        if let Err(message) = check_glob(&files.pattern) {
            self.faults.add(format!("{path}.pattern"), message);
        }
        let delimiter = files.csv.delimiter.as_bytes();
        if delimiter.len() != 1 || !delimiter[0].is_ascii() || matches!(delimiter[0], b'"' | b'\r' | b'\n') {
            self.faults
                .add(format!("{path}.csv.delimiter"), "the delimiter is one character of ASCII, and neither a quote nor the end of a line");
        }
        self.duration(&files.settle, &format!("{path}.settle"));
        self.duration(&files.incomplete_after, &format!("{path}.incompleteAfter"));
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
        }
    }

    fn steps(&mut self) {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let steps: &'a [Step] = &self.spec.steps;
        match &self.spec.handler {
            None if steps.is_empty() => self.faults.add("spec.steps", "a service needs at least one step, or a handler"),
            Some(_) if !steps.is_empty() => self.faults.add("spec.handler", "a service has either steps or a handler"),
            Some(_) if self.spec.trigger.queue.is_none() => {
                self.faults.add("spec.handler", "a handler gets events, so its service needs trigger.queue")
            }
            Some(handler) => drop(self.duration(&handler.http.timeout, "spec.handler.http.timeout")),
            None => {}
        }
        for (index, step) in steps.iter().enumerate() {
            let path = format!("spec.steps[{index}]");
            if let Some(name) = &step.name {
                let name_path = format!("{path}.name");
                check_camel(name, &name_path, "step", &mut self.faults);
                if RESERVED_VARIABLES.contains(&name.as_str()) || CEL_WORDS.contains(&name.as_str()) {
                    let message = format!("{name:?} means something else in expressions; give the step another name");
                    self.faults.add(name_path, message);
                } else if !names.insert(name) {
                    self.faults.add(name_path, format!("there are two steps {name:?}; the second would hide the first's outcome"));
                }
            }
            self.step(step, &path);
        }
    }

    fn step(&mut self, step: &Step, path: &str) {
        if !step.has_one_action() {
            self.faults.add(path, "a step has exactly one of lookup, http, create, patch, set, fail and stop");
        }
        if step.set.is_some() && step.name.is_none() {
            self.faults.add(path, "a set step needs a name, under which its value is found");
        }
        if let Some(lookup) = &step.lookup {
            self.lookup(lookup, &format!("{path}.lookup"));
        }
        if let Some(http) = &step.http {
            self.http(http, &format!("{path}.http"));
        }
        if let Some(create) = &step.create {
            self.create(create, &format!("{path}.create"));
        }
        if let Some(patch) = &step.patch {
            self.patch(patch, &format!("{path}.patch"));
        }
    }

    fn lookup(&mut self, lookup: &LookupStep, path: &str) {
        let Some(cache) = self.spec.caches.iter().find(|cache| cache.name == lookup.cache) else {
            let names = || self.spec.caches.iter().map(|cache| cache.name.as_str());
            let near = did_you_mean(&lookup.cache, names());
            let message = format!("there is no cache {:?}{near}; there are: {}", lookup.cache, list(names()));
            self.faults.add(format!("{path}.cache"), message);
            return;
        };
        if lookup.by != "id" && !cache.indexes.contains(&lookup.by) {
            let message = format!("cache {:?} has no index {:?}: take id, or add it to the cache's indexes", cache.name, lookup.by);
            self.faults.add(format!("{path}.by"), message);
        }
    }

    fn http(&mut self, http: &HttpStep, path: &str) {
        if !METHODS.contains(&http.method.as_str()) {
            let near = did_you_mean(&http.method, METHODS);
            self.faults.add(format!("{path}.method"), format!("{:?} is no method{near}; there are {}", http.method, list(METHODS)));
        }
        self.duration(&http.timeout, &format!("{path}.timeout"));
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
            if name.eq_ignore_ascii_case("authorization") && http.bearer_token_from.is_some() {
                self.faults.add(&path, "bearerTokenFrom gives this header; take one of the two away");
            }
        }
    }

    fn create(&mut self, create: &CreateStep, path: &str) {
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

    fn patch(&mut self, patch: &PatchStep, path: &str) {
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

    fn duration(&mut self, text: &str, path: &str) -> Option<Duration> {
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

/// Checks a glob on file names: `*`, `?`, `[…]` and `{…,…}`.
fn check_glob(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() || pattern.contains(['/', '\0']) {
        return Err(format!("{pattern:?} is no pattern of file names: it has no \"/\", for example \"sales-*.csv\""));
    }
    let mut inside: Option<char> = None;
    for character in pattern.chars() {
        inside = match (inside, character) {
            (None, '[') => Some(']'),
            (None, '{') => Some('}'),
            (None, ']' | '}') => return Err(format!("{pattern:?} closes {character:?}, which it has not opened")),
            (Some(close), character) if character == close => None,
            (inside, _) => inside,
        };
    }
    match inside {
        Some(close) => Err(format!("{pattern:?} lacks a closing {close:?}")),
        None => Ok(()),
    }
}
