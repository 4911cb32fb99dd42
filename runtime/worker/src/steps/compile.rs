//! Compiling steps: each expression knows the names of the steps before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use autonomy_crds::micro_service::{CreateStep, FailStep, LookupStep, OnConflict, OnMissing, PatchStep, Step};
use autonomy_crds::object_json::write_string;
use autonomy_crds::resolved::Entity;
use autonomy_crds::{Faults, Model};

use super::http::HttpAction;
use super::nested::{Choose, ForEach, Group};
use super::object::{Members, missing};
use super::put_object::PutObject;
use crate::caches::CompiledCache;
use crate::expression::{Expression, Kind, Names, Value, compile};
use crate::service::find_entity;

/// A step, compiled.
#[derive(Debug)]
pub(crate) struct CompiledStep {
    // `spec.steps[2]`, with the name where there is one; for messages.
    pub(super) label: String,
    pub(super) named: bool,
    pub(super) when: Option<Expression>,
    pub(super) action: Action,
}

#[derive(Debug)]
pub(super) enum Action {
    Lookup { cache: String, by: String, key: Expression, fail: bool },
    Http(Box<HttpAction>),
    PutObject(Box<PutObject>),
    Create(Box<CreateAction>),
    Patch(Box<PatchAction>),
    Group(Box<Group>),
    Choose(Box<Choose>),
    ForEach(Box<ForEach>),
    Set(Expression),
    Fail { reason: Expression, retryable: bool, after: Option<Expression> },
    Stop,
}

#[derive(Debug)]
pub(super) struct CreateAction {
    // The operation's JSON up to the object's opening brace and its id.
    pub(super) head: String,
    pub(super) for_each: Option<Expression>,
    pub(super) id: Option<Expression>,
    pub(super) members: Members,
}

#[derive(Debug)]
pub(super) struct PatchAction {
    // The operation's JSON up to the id.
    pub(super) head: String,
    pub(super) for_each: Option<Expression>,
    pub(super) id: Expression,
    pub(super) members: Members,
    pub(super) precondition: Members,
}

/// What steps are compiled with.
pub(crate) struct Steps<'a> {
    /// The models that the service names.
    pub(crate) models: &'a BTreeMap<String, Arc<Model>>,
    /// The service's caches.
    pub(crate) caches: &'a [Arc<CompiledCache>],
    /// The trigger's variables; each named step adds its own.
    pub(crate) names: &'a mut Names,
    /// `config` and `service`, which expressions see that no event is known to.
    pub(crate) around: Names,
    /// Their values.
    pub(crate) surroundings: &'a [Value; 2],
    /// Where what is wrong is noted.
    pub(crate) faults: &'a mut Faults,
}

impl Steps<'_> {
    /// Compiles the steps; after a fault what comes back is not whole.
    pub(crate) fn compile(mut self, steps: &[Step]) -> Vec<CompiledStep> {
        self.sequence(steps, "spec.steps", "")
    }

    // Steps in order. `within` begins the keys of their calls.
    pub(super) fn sequence(&mut self, steps: &[Step], path: &str, within: &str) -> Vec<CompiledStep> {
        let mut compiled = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            compiled.extend(self.step(step, index, &format!("{path}[{index}]"), within));
        }
        compiled
    }

    fn step(&mut self, step: &Step, index: usize, path: &str, within: &str) -> Option<CompiledStep> {
        let when = step.when.as_ref().and_then(|source| self.typed(source, &format!("{path}.when"), &Kind::Bool));
        let label = step.name.as_ref().map_or(path.to_owned(), |name| format!("{path} ({name})"));
        let key = format!("{within}{}", step.name.clone().unwrap_or_else(|| index.to_string()));
        let (action, outcome) = self.action(step, path, &label, &key);
        if let Some(name) = &step.name {
            self.add_name(name, outcome, path);
        }
        Some(CompiledStep { label, named: step.name.is_some(), when, action: action? })
    }

    fn add_name(&mut self, name: &str, outcome: Kind, path: &str) {
        let path = format!("{path}.name");
        let camel = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_alphanumeric());
        if !camel {
            self.faults.add(&path, format!("{name:?} is no name in camelCase, for example customerFound"));
        }
        if ["item", "index", "has", "true", "false", "null", "in"].contains(&name) || self.names.place(name).is_some() {
            self.faults.add(&path, format!("the name {name} is taken already"));
            return;
        }
        self.names.add(name, outcome);
    }

    // The action, and what kind of outcome is found under the step's name.
    fn action(&mut self, step: &Step, path: &str, label: &str, key: &str) -> (Option<Action>, Kind) {
        if !step.has_one_action() {
            self.faults.add(path, Step::ONE_ACTION);
            return (None, Kind::Any);
        }
        if let Some(lookup) = &step.lookup {
            return self.lookup(lookup, &format!("{path}.lookup"));
        }
        if let Some(http) = &step.http {
            let action = self.http(http, &format!("{path}.http"), label, key);
            return (action.map(|action| Action::Http(Box::new(action))), http_outcome());
        }
        if let Some(put) = &step.put_object {
            let action = self.put_object(put, &format!("{path}.putObject"), label, key);
            return (action.map(|action| Action::PutObject(Box::new(action))), PutObject::outcome());
        }
        if let Some(create) = &step.create {
            return (self.create(create, &format!("{path}.create")), written_outcome(create.for_each.is_some()));
        }
        if let Some(patch) = &step.patch {
            return (self.patch(patch, &format!("{path}.patch")), written_outcome(patch.for_each.is_some()));
        }
        if let Some(group) = &step.group {
            return self.group(group, &format!("{path}.group"));
        }
        if let Some(branches) = &step.choose {
            return self.choose(branches, &format!("{path}.choose"), key);
        }
        if let Some(for_each) = &step.for_each {
            return self.for_each_element(for_each, &format!("{path}.forEach"), key);
        }
        if let Some(fail) = &step.fail {
            return (self.fail(fail, &format!("{path}.fail")), Kind::Null);
        }
        if let Some(source) = &step.set {
            if step.name.is_none() {
                self.faults.add(path, "a set step has a name, under which its value is found");
            }
            let expression = self.expression(source, &format!("{path}.set"));
            let kind = expression.as_ref().map_or(Kind::Any, |expression| expression.kind().clone());
            return (expression.map(Action::Set), kind);
        }
        (Some(Action::Stop), Kind::Null)
    }

    fn lookup(&mut self, lookup: &LookupStep, path: &str) -> (Option<Action>, Kind) {
        let key = self.expression(&lookup.key, &format!("{path}.key"));
        let Some(cache) = self.caches.iter().find(|cache| cache.name == lookup.cache) else {
            self.faults.add(format!("{path}.cache"), format!("there is no cache {} in spec.caches", lookup.cache));
            return (None, Kind::Any);
        };
        if !cache.is_found_by(&lookup.by) {
            self.faults.add(format!("{path}.by"), cache.found_by());
        }
        if let (Some(index), Some(key)) = (cache.indexes.iter().find(|index| index.name == lookup.by), &key)
            && let Some(message) = key_misfit(&index.kind, key.kind())
        {
            self.faults.add(format!("{path}.key"), format!("the key of {} is {message}", index.name));
        }
        let kind =
            cache.model.entity(&cache.entity).map_or(Kind::Any, |entity| Kind::of_entity_keeping(&cache.model.name, entity, &cache.fields));
        // A list of keys finds a list of objects.
        let kind = match key.as_ref().map(Expression::kind) {
            Some(Kind::List(_)) => Kind::List(Arc::new(kind)),
            Some(Kind::Any) => Kind::Any,
            _ => kind,
        };
        let action = key.map(|key| Action::Lookup {
            cache: lookup.cache.clone(),
            by: lookup.by.clone(),
            key,
            fail: lookup.on_missing == OnMissing::Fail,
        });
        (action, kind)
    }

    fn create(&mut self, create: &CreateStep, path: &str) -> Option<Action> {
        let entity = find_entity(self.models, &create.model, &create.entity, path, self.faults).map(|(_, entity)| entity);
        let (for_each, names) = self.for_each(create.for_each.as_deref(), path);
        let mut members = Members::compile(&create.object, entity, &["id"], &names, &format!("{path}.object"), self.faults);
        for member in entity.map(|entity| missing(entity, &create.object)).unwrap_or_default() {
            self.faults.add(format!("{path}.object.{member}"), format!("{} must be given for a new {}", member, create.entity));
        }
        let on_conflict = match create.on_conflict {
            OnConflict::Error => "error",
            OnConflict::Ignore => "ignore",
            OnConflict::Update => "update",
        };
        if create.on_conflict == OnConflict::Update && entity.is_some_and(|entity| entity.require_if_match) {
            let message =
                format!("{} requires changes to name the version seen, which update can't; write ignore, or patch it", create.entity);
            self.faults.add(format!("{path}.onConflict"), message);
        }
        let mut head = operation_head("create", &create.model, &create.entity);
        head.push_str(&format!("\"onConflict\":\"{on_conflict}\",\"object\":{{\"id\":"));
        Some(Action::Create(Box::new(CreateAction { head, for_each: for_each?, id: members.take("id"), members })))
    }

    fn patch(&mut self, patch: &PatchStep, path: &str) -> Option<Action> {
        let entity: Option<&Entity> = find_entity(self.models, &patch.model, &patch.entity, path, self.faults).map(|(_, entity)| entity);
        let (for_each, names) = self.for_each(patch.for_each.as_deref(), path);
        let id = compile(&patch.id, &names, &format!("{path}.id")).map_err(|faults| self.faults.0.extend(faults.0)).ok();
        if let Some(id) = id.as_ref().filter(|id| !id.may_be(&Kind::Text)) {
            self.faults.add(format!("{path}.id"), format!("an id is a string, `{}` gives {}", patch.id, id.kind()));
        }
        let members = Members::compile(&patch.object, entity, &[], &names, &format!("{path}.object"), self.faults);
        let precondition = Members::compile(&patch.precondition, entity, &["version"], &names, &format!("{path}.if"), self.faults);
        if entity.is_some_and(|entity| entity.require_if_match) && !patch.precondition.contains_key("version") {
            let message = format!("{} requires changes to name the version seen, for example object.version", patch.entity);
            self.faults.add(format!("{path}.if.version"), message);
        }
        let mut head = operation_head("patch", &patch.model, &patch.entity);
        head.push_str("\"id\":");
        Some(Action::Patch(Box::new(PatchAction { head, for_each: for_each?, id: id?, members, precondition })))
    }

    // The list, and the names with `item` and `index` where there is one; the outer `None` is a list that can't be compiled.
    fn for_each(&mut self, source: Option<&str>, path: &str) -> (Option<Option<Expression>>, Names) {
        let mut names = self.names.clone();
        let Some(source) = source else { return (Some(None), names) };
        let path = format!("{path}.forEach");
        let list = self.typed(source, &path, &Kind::List(Arc::new(Kind::Any)));
        let item = match list.as_ref().map(Expression::kind) {
            Some(Kind::List(item)) => (**item).clone(),
            _ => Kind::Any,
        };
        names.push("item", item);
        names.push("index", Kind::Int);
        (list.map(Some), names)
    }

    fn fail(&mut self, fail: &FailStep, path: &str) -> Option<Action> {
        let reason = self.expression(&fail.reason, &format!("{path}.reason"));
        let after = fail.after.as_ref().and_then(|after| self.typed(after, &format!("{path}.after"), &Kind::Duration));
        Some(Action::Fail { reason: reason?, retryable: fail.retryable, after })
    }

    pub(super) fn expression(&mut self, source: &str, path: &str) -> Option<Expression> {
        compile(source, self.names, path).map_err(|faults| self.faults.0.extend(faults.0)).ok()
    }

    pub(super) fn typed(&mut self, source: &str, path: &str, wanted: &Kind) -> Option<Expression> {
        let expression = self.expression(source, path)?;
        if !expression.may_be(wanted) {
            self.faults.add(path, format!("{wanted} is expected, `{source}` gives {}", expression.kind()));
        }
        Some(expression)
    }
}

// What speaks against a lookup's key of this kind; a list has a key each.
fn key_misfit(wanted: &Kind, key: &Kind) -> Option<String> {
    match (wanted, key) {
        (wanted, Kind::List(key)) => key_misfit(wanted, key),
        (Kind::Object(Some(wanted)), Kind::Object(Some(key))) => {
            wanted.members.iter().find_map(|(member, kind)| match key.members.iter().find(|(own, _)| own == member) {
                Some((_, own)) => key_misfit(kind, own).map(|message| format!("an object whose {member} is {message}")),
                None => Some(format!(
                    "an object with {}",
                    wanted.members.iter().map(|(member, _)| member.as_str()).collect::<Vec<_>>().join(", ")
                )),
            })
        }
        (Kind::Object(Some(wanted)), key) if !key.may_be(&Kind::Object(None)) => {
            Some(format!("an object with {}", wanted.members.iter().map(|(member, _)| member.as_str()).collect::<Vec<_>>().join(", ")))
        }
        (wanted, key) if !key.may_be(wanted) => Some(format!("{wanted}, and not {key}")),
        _ => None,
    }
}

fn operation_head(operation: &str, model: &str, entity: &str) -> String {
    let mut head = format!("{{\"op\":\"{operation}\",\"model\":").into_bytes();
    write_string(model, &mut head);
    head.extend_from_slice(b",\"entity\":");
    write_string(entity, &mut head);
    head.push(b',');
    String::from_utf8_lossy(&head).into_owned()
}

fn http_outcome() -> Kind {
    Kind::object("the answer", [("status", Kind::Int), ("headers", Kind::Object(None)), ("body", Kind::Any)])
}

fn written_outcome(list: bool) -> Kind {
    let one = Kind::object("what was written", [("id", Kind::Text)]);
    if list { Kind::List(Arc::new(one)) } else { one }
}
