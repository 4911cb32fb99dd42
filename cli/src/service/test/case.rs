//! Running a case: its inputs one after another, and what becomes of each compared with what is expected of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use autonomy_crds::event::{RUN_TYPE, service_source};
use autonomy_crds::names::parse_duration;
use autonomy_crds::schedule::RunId;
use autonomy_worker::expression::Value;
use autonomy_worker::files;
use autonomy_worker::rehearsal::{Effects, Ending, Rehearsal};
use autonomy_worker::service::{CompiledService, Group};
use autonomy_worker::steps::{EventHead, EventInput, GroupInput, Input, RecordInput};
use jiff::{SignedDuration, Timestamp};
use serde_json::Map;

use super::Models;
use super::comparison::{Comparison, Nulls};
use super::declared::{Case, Event, Expectation, ExpectedTicket, Outcome, TestFile};
use super::fixture::{self, Names};
use super::stand_in::{Script, json};

/// What became of an input, with the event that it began with.
struct Became {
    effects: Effects,
    event: Option<(EventHead, Value)>,
}

/// Runs a case; gives how it differs from what is expected.
///
/// # Errors
/// What is wrong with the case itself.
pub(super) async fn run(service: &CompiledService, models: &Models, file: &TestFile, case: &Case) -> Result<Vec<String>, String> {
    let names = Names::default();
    let wrong = |message: String| format!("case {:?}: {message}", case.name);
    let caches = caches(service, file, case, &names).map_err(wrong)?;
    let script = Arc::new(Script::new(&case.http, &names));
    let rehearsal = Rehearsal::new(service, &caches, script.clone()).map_err(|error| error.to_string())?;
    let became = if let Some(event) = &case.event {
        events(service, models, &rehearsal, std::slice::from_ref(event), &names).await
    } else if let Some(given) = &case.events {
        events(service, models, &rehearsal, given, &names).await
    } else if let Some(moment) = &case.scheduled_at {
        run_of_schedule(service, &rehearsal, moment).await.map(|became| vec![became])
    } else {
        records(service, &rehearsal, case, &names).await
    };
    let became = became.map_err(wrong)?;
    let expected = case.expect.read().map_err(wrong)?;
    let mut comparison = script.finish();
    if expected.len() != became.len() {
        let message = format!("{} outcomes are expected, {} are found: one for each event, group or record", expected.len(), became.len());
        comparison.note("/expect", message);
    }
    for (index, (expected, became)) in expected.iter().zip(&became).enumerate() {
        let pointer = if case.expect.is_list() { format!("/expect/{index}") } else { "/expect".to_owned() };
        compare(&rehearsal, service, expected, became, &pointer, &names, &mut comparison).map_err(wrong)?;
    }
    Ok(comparison.differences.iter().map(|difference| names.shown(difference)).collect())
}

fn caches(service: &CompiledService, file: &TestFile, case: &Case, names: &Names) -> Result<BTreeMap<String, Vec<Value>>, String> {
    let mut filled = BTreeMap::new();
    for (name, objects) in file.caches.iter().filter(|(name, _)| !case.caches.contains_key(*name)).chain(&case.caches) {
        let cache = service.caches.iter().find(|cache| cache.name == *name);
        let Some(cache) = cache else {
            let known: Vec<&str> = service.caches.iter().map(|cache| cache.name.as_str()).collect();
            return Err(format!("caches: the service has no cache {name:?}; it has {}", known.join(", ")));
        };
        let Some(entity) = cache.model.entity(&cache.entity) else { continue };
        let objects = objects.iter().enumerate().map(|(index, given)| {
            let needed = |member: &str| cache.fields.iter().any(|field| field == member);
            let object = fixture::object(entity, &names.members(given), index, needed);
            object.and_then(read).map_err(|message| format!("caches.{name}[{index}].{message}"))
        });
        filled.insert(name.clone(), objects.collect::<Result<Vec<Value>, String>>()?);
    }
    Ok(filled)
}

fn read(json: String) -> Result<Value, String> {
    Value::from_json(json.as_bytes()).map_err(|error| error.to_string())
}

async fn events(
    service: &CompiledService,
    models: &Models,
    rehearsal: &Rehearsal<'_>,
    given: &[Event],
    names: &Names,
) -> Result<Vec<Became>, String> {
    let mut inputs = Vec::with_capacity(given.len());
    for (index, event) in given.iter().enumerate() {
        inputs.push(input(service, models, event, index, names).map_err(|message| format!("events[{index}].{message}"))?);
    }
    let is_batch = service.spec.trigger.queue.as_ref().is_some_and(|queue| queue.batch.is_some());
    let mut became = Vec::new();
    let mut groups: Vec<(Group, GroupInput)> = Vec::new();
    for input in inputs {
        let event = Some((input.event.clone(), input.object.clone()));
        let effects = match rehearsal.delivers(&input) {
            Ok(false) => Effects::skipped(),
            Err(failure) => Effects::of_failure(&failure),
            Ok(true) if is_batch => match service.group_of(&input) {
                Ok(own) => {
                    let place = groups.iter().position(|(group, _)| *group == own).unwrap_or_else(|| {
                        let input = GroupInput { events: Vec::new(), objects: Vec::new(), group: own.value.clone() };
                        groups.push((own, input));
                        groups.len() - 1
                    });
                    groups[place].1.events.push(input.event);
                    groups[place].1.objects.push(input.object);
                    continue;
                }
                Err(failure) => Effects::of_failure(&failure),
            },
            Ok(true) => rehearsal.run(Input::Event(input)).await,
        };
        became.push(Became { effects, event });
    }
    for (_, group) in groups {
        let event = group.events.first().cloned().zip(group.objects.first().cloned());
        became.push(Became { effects: rehearsal.run(Input::Group(group)).await, event });
    }
    Ok(became)
}

fn input(service: &CompiledService, models: &Models, event: &Event, index: usize, names: &Names) -> Result<EventInput, String> {
    let (Some(queue), Some(reader)) = (&service.spec.trigger.queue, &service.trigger_reader) else {
        return Err("the service has no queue trigger: give file or rows".to_owned());
    };
    let entity = fixture::entity(models, &queue.model, &queue.entity).ok_or("its entity is in none of the models")?;
    let read = |given: &Map<String, serde_json::Value>, what: &str| {
        let json = fixture::object(entity, &names.members(given), index, |_| true).map_err(|message| format!("{what}.{message}"))?;
        reader.read(json.as_bytes()).map_err(|error| format!("{what}: {error}"))
    };
    let object = read(&event.object, "object")?;
    let before = event.before.as_ref().map_or(Ok(Value::Null), |before| read(before, "before"))?;
    let text = |member: &str| object.member(member).and_then(Value::as_text).unwrap_or_default().to_owned();
    let head = EventHead {
        id: event.id.clone().unwrap_or_else(|| format!("{:016X}-{:08X}", index + 1, 0)),
        kind: format!("dev.autonomy.{}.{}.{}", queue.model, queue.entity, event.operation.as_str()),
        source: format!("/namespaces/{}/models/{}", service.namespace, queue.model),
        subject: text("id"),
        time: event.time.clone().unwrap_or_else(|| fixture::MOMENT.to_owned()),
        version: if let Some(Value::Int(version)) = object.member("version") { *version } else { 1 },
        actor: event.actor.clone(),
        causation_id: event.causation_id.clone(),
        ..EventHead::default()
    };
    Ok(EventInput { event: head, object, before })
}

async fn run_of_schedule(service: &CompiledService, rehearsal: &Rehearsal<'_>, moment: &str) -> Result<Became, String> {
    let Some(schedule) = &service.schedule else {
        return Err("the service has no schedule trigger: give event, events, file or rows".to_owned());
    };
    let planned: Timestamp = moment.parse().map_err(|error| format!("scheduledAt: {moment:?} is no moment: {error}"))?;
    let just_before = planned.checked_sub(SignedDuration::from_secs(1)).map_err(|error| format!("scheduledAt: {error}"))?;
    match schedule.next_after(just_before) {
        Some(next) if next == planned => {}
        next => {
            let next = next.map_or_else(|| "there is none behind it".to_owned(), |next| format!("the next one is of {next}"));
            return Err(format!("scheduledAt: no run is planned for {planned}; {next}"));
        }
    }
    let head = EventHead {
        id: RunId(planned).to_string(),
        kind: RUN_TYPE.to_owned(),
        source: service_source(&service.namespace, &service.name),
        subject: service.name.clone(),
        time: planned.to_string(),
        ..EventHead::default()
    };
    Ok(Became { effects: rehearsal.run(Input::Run(head.clone())).await, event: Some((head, Value::Null)) })
}

async fn records(service: &CompiledService, rehearsal: &Rehearsal<'_>, case: &Case, names: &Names) -> Result<Vec<Became>, String> {
    let Some(trigger) = &service.spec.trigger.files else {
        return Err("the service has no files trigger: give event or events".to_owned());
    };
    let inputs = match (&case.file, &case.rows) {
        (Some(file), _) => files::inputs(trigger, &file.name, file.content.as_bytes()).map_err(|error| format!("file: {error}"))?,
        (None, rows) => {
            let rows: Vec<Value> = rows.iter().flatten().map(|row| json(&names.value(row))).collect();
            let file = Value::object([("name", Value::text("test")), ("sha256", Value::text("0".repeat(64)))]);
            let row = rows.first().cloned().ok_or("rows: there must be one at least")?;
            vec![Ok(RecordInput { id: format!("{}/0", "0".repeat(64)), row, rows, file, line: 2 })]
        }
    };
    let mut became = Vec::with_capacity(inputs.len());
    for input in inputs {
        let effects = match input {
            Ok(input) => rehearsal.run(Input::Record(input)).await,
            Err(error) => Effects { ending: Ending::Failed, error: Some(error), operations: Vec::new() },
        };
        became.push(Became { effects, event: None });
    }
    Ok(became)
}

fn compare(
    rehearsal: &Rehearsal<'_>,
    service: &CompiledService,
    expected: &Expectation,
    became: &Became,
    pointer: &str,
    names: &Names,
    comparison: &mut Comparison,
) -> Result<(), String> {
    let Became { effects, event } = became;
    let error = effects.error.as_deref();
    let outcome = match effects.ending {
        Ending::Handled => Outcome::Handled,
        Ending::Skipped => Outcome::Skipped,
        Ending::Retry(_) => Outcome::Retry,
        Ending::Failed if service.spec.trigger.files.is_some() => Outcome::Rejected,
        Ending::Failed => Outcome::DeadLetter,
    };
    if outcome != expected.outcome {
        let why = error.map(|error| format!(" ({error})")).unwrap_or_default();
        comparison
            .note(&format!("{pointer}/outcome"), format!("{} is expected, {}{why} is found", expected.outcome.as_str(), outcome.as_str()));
        return Ok(());
    }
    if let Some(part) = &expected.error
        && !error.is_some_and(|error| names.shown(error).contains(part))
    {
        comparison.note(&format!("{pointer}/error"), format!("{part:?} is expected in it, {:?} is found", error.unwrap_or_default()));
    }
    if let Some(after) = &expected.after {
        let wanted = parse_duration(after)?;
        let found = if let Ending::Retry(after) = effects.ending { after } else { None };
        if found != Some(wanted) {
            comparison.note(&format!("{pointer}/after"), format!("{after} is expected, {found:?} is found"));
        }
    }
    if let (Some(expected), Some((event, object))) = (&expected.ticket, event) {
        ticket(rehearsal, expected, event, object, error.unwrap_or_default(), &format!("{pointer}/ticket"), names, comparison)?;
    }
    writes(expected, &effects.operations, &format!("{pointer}/writes"), names, comparison)
}

#[allow(clippy::too_many_arguments, reason = "all of them are about one ticket")]
fn ticket(
    rehearsal: &Rehearsal<'_>,
    expected: &ExpectedTicket,
    event: &EventHead,
    object: &Value,
    error: &str,
    pointer: &str,
    names: &Names,
    comparison: &mut Comparison,
) -> Result<(), String> {
    match rehearsal.ticket(event, object, error) {
        Ok(Some(found)) => {
            if let Some(url) = &expected.url {
                comparison.compare(&Value::text(names.text(url)), &Value::text(found.url), &format!("{pointer}/url"), Nulls::Count);
            }
            if let Some(body) = &expected.body {
                comparison.compare(&json(&names.value(body)), &read(found.body)?, &format!("{pointer}/body"), Nulls::Count);
            }
        }
        Ok(None) => comparison.note(pointer, "a ticket is expected, and the service raises none"),
        Err(failure) => comparison.note(pointer, failure),
    }
    Ok(())
}

fn writes(expected: &Expectation, found: &[Value], pointer: &str, names: &Names, comparison: &mut Comparison) -> Result<(), String> {
    for (index, write) in expected.writes.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        let wanted = Write::read(&names.value(write)).map_err(|message| format!("{pointer}: {message}"))?;
        match found.get(index) {
            Some(found) => wanted.compare(found, &pointer, comparison),
            None => {
                comparison.note(&pointer, format!("a {} of {} is expected, and nothing more is written", wanted.operation, wanted.entity))
            }
        }
    }
    for (index, write) in found.iter().enumerate().skip(expected.writes.len()) {
        comparison.note(&format!("{pointer}/{index}"), format!("this is written, and it is not expected: {write}"));
    }
    Ok(())
}

/// A write that is expected, as a step says it: `create: {entity: Sale, object: {…}}`.
struct Write {
    operation: String,
    entity: String,
    members: Value,
}

impl Write {
    fn read(given: &serde_json::Value) -> Result<Self, String> {
        let form = "a write is {create: {entity, object}}, {patch: {entity, id, object}} or {delete: {entity, id}}";
        let members = given.as_object().filter(|members| members.len() == 1).ok_or(form)?;
        let (operation, inner) = members.iter().next().ok_or(form)?;
        let inner = inner.as_object().ok_or(form)?;
        let known: &[&str] = match operation.as_str() {
            "create" => &["model", "entity", "object", "onConflict"],
            "patch" => &["model", "entity", "id", "object", "if"],
            "delete" => &["model", "entity", "id", "if"],
            _ => return Err(form.to_owned()),
        };
        if let Some(unknown) = inner.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("{operation} has no {unknown:?}; it has {}", known.join(", ")));
        }
        let entity = inner.get("entity").and_then(serde_json::Value::as_str).ok_or("the entity must be named")?;
        Ok(Self { operation: operation.clone(), entity: entity.to_owned(), members: json(&serde_json::Value::Object(inner.clone())) })
    }

    fn compare(&self, found: &Value, pointer: &str, comparison: &mut Comparison) {
        let text = |member: &str| found.member(member).and_then(Value::as_text).unwrap_or_default();
        if text("op") != self.operation || text("entity") != self.entity {
            let message = format!("a {} of {} is expected, a {} of {} is found", self.operation, self.entity, text("op"), text("entity"));
            return comparison.note(pointer, message);
        }
        let pointer = format!("{pointer}/{}", self.operation);
        for member in ["model", "onConflict"] {
            if let Some(expected) = self.members.member(member) {
                comparison.compare(expected, found.member(member).unwrap_or(&Value::Null), &format!("{pointer}/{member}"), Nulls::Count);
            }
        }
        for member in ["id", "if"] {
            let (expected, found) = (self.members.member(member), found.member(member));
            match (expected, found) {
                (None, None) => {}
                (expected, found) => {
                    let absent = Value::Null;
                    comparison.compare(expected.unwrap_or(&absent), found.unwrap_or(&absent), &format!("{pointer}/{member}"), Nulls::Count);
                }
            }
        }
        let none = Value::object::<&str>([]);
        let wanted = self.members.member("object").unwrap_or(&none);
        let object = found.member("object").unwrap_or(&none);
        if self.operation == "create" && wanted.member("id").is_none() {
            // The id is made by the platform, and what becomes of a new object's null is nothing.
            let Value::Object(members) = object else { return };
            let object = Value::object(members.iter().filter(|(name, _)| *name != "id").map(|(name, value)| (name, value.clone())));
            return comparison.compare(wanted, &object, &format!("{pointer}/object"), Nulls::AreNothing);
        }
        let nulls = if self.operation == "create" { Nulls::AreNothing } else { Nulls::Count };
        comparison.compare(wanted, object, &format!("{pointer}/object"), nulls);
    }
}
