//! `/api/transactions`: units of operations over any entities of any models.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use autonomy_crds::event::WriteContext;
use autonomy_process::trace;
use axum::http::StatusCode;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use sonic_rs::LazyValue;
use tracing::Span;
use uuid::Uuid;

use crate::body::{self, Purpose};
use crate::named::{self, Names, Reference};
use crate::new_id::new_id;
use crate::plan::{EntityPlan, ID, Plans, VERSION};
use crate::problem::{Fault, Intake, Path, Problem};
use crate::rows::Rows;
use crate::sql::Condition;
use crate::value::{Form, Scalar};
use crate::write::{Batch, Kind, Objects, Outcomes, Owner, Place, Unit, UnitOutcome, Work, Written, needed_by, sequence};

// The most units of a request, and the most operations of all its units.
const MOST_UNITS: usize = 10_000;
const MOST_OPERATIONS: usize = 100_000;

/// A request read: what is to be written, and the units that have failed already.
pub struct Request {
    /// What is to be written.
    pub work: Work,
    /// Each unit's problem, where it has one.
    pub failed: Vec<Option<Problem>>,
}

impl Request {
    /// What a unit writes continues the trace that the unit was handed over with, or else that of the request; a request for several units is linked
    /// to their traces.
    pub fn continue_trace(&mut self, traceparent: Option<&str>) {
        let units = &mut self.work.units;
        if trace::is_on() && units.len() > 1 {
            trace::link(&Span::current(), units.iter().map(|unit| unit.context.traceparent.as_deref()));
        }
        let Some(traceparent) = traceparent else { return };
        for unit in units.iter_mut().filter(|unit| unit.context.traceparent.is_none()) {
            unit.context.traceparent = Some(traceparent.to_owned());
        }
    }
}

/// Reads a request.
///
/// # Errors
/// Where the body is no JSON or no list of units. What is wrong inside of a unit is the unit's.
///
/// `key` is the request's own: it stands for the units that have none.
pub fn read(text: &str, plans: &Plans, key: Option<&str>) -> Result<Request, Problem> {
    let root: LazyValue<'_> = body::read(text, std::marker::PhantomData::<LazyValue<'_>>)?;
    let mut intake = Intake::default();
    let mut units = None;
    for (name, value) in body::members(root.as_raw_str(), &Path::ROOT, &mut intake) {
        match name.as_str() {
            "units" => units = Some(value),
            _ => intake.push(&Path::ROOT.member(&name), "is no member of a transactions request"),
        }
    }
    let path = Path::ROOT.member("units");
    let units: Vec<LazyValue<'_>> = match &units {
        Some(list) if list.as_raw_str().starts_with('[') => sonic_rs::to_array_iter(list.as_raw_str()).filter_map(Result::ok).collect(),
        Some(_) => {
            intake.push(&path, "must be a list");
            Vec::new()
        }
        None => {
            intake.push(&path, "must be given");
            Vec::new()
        }
    };
    if units.len() > MOST_UNITS {
        intake.push(&path, format!("must have at most {MOST_UNITS} units"));
    }
    if !intake.faults.is_empty() {
        return Err(intake.faults.into_problem());
    }
    let mut reader = Reader { plans, batches: Vec::new(), by_kind: HashMap::new(), operations: 0, unconditional: Vec::new() };
    let mut request = Request {
        work: Work {
            batches: Vec::new(),
            units: Vec::with_capacity(units.len()),
            place: Place::Operation,
            want_objects: false,
            of_strangers: false,
            keep,
        },
        failed: Vec::with_capacity(units.len()),
    };
    for (index, raw) in units.iter().enumerate() {
        let mut intake = Intake::default();
        let mut unit = reader.unit(raw.as_raw_str(), index, &path.index(index), &mut intake);
        let unconditional = std::mem::take(&mut reader.unconditional);
        if let Some(key) = key.filter(|_| unit.keys.is_empty()) {
            unit.key_texts = vec![format!("{key}/units/{index}")];
            unit.keys = vec![Sha256::digest(&unit.key_texts[0]).into()];
            unit.request = Some(Sha256::digest(raw.as_raw_str()).into());
        }
        request.work.units.push(unit);
        request.failed.push(match unconditional.first() {
            _ if !intake.faults.is_empty() => Some(intake.faults.into_problem()),
            Some((entity, _)) => {
                let mut problem = Problem::precondition_required(entity, "patch and delete it with `if: {\"version\": …}`");
                problem.errors.extend(unconditional.into_iter().map(|(_, fault)| fault).take(100));
                Some(problem)
            }
            None => None,
        });
        if reader.operations > MOST_OPERATIONS {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-body",
                format!("A request may have at most {MOST_OPERATIONS} operations in all."),
            ));
        }
    }
    request.work.batches = reader.batches;
    Ok(request)
}

struct Reader<'p> {
    plans: &'p Plans,
    batches: Vec<Batch>,
    by_kind: HashMap<(usize, Kind), u32>,
    operations: usize,
    // Of the unit being read: changes that lack a precondition, with their entities.
    unconditional: Vec<(String, Fault)>,
}

#[derive(Default)]
struct Operation<'t> {
    // The id of a new object that has a name and none of its own.
    id_made: Option<Uuid>,
    name: Option<LazyValue<'t>>,
    op: Option<String>,
    model: Option<String>,
    entity: Option<String>,
    id: Option<LazyValue<'t>>,
    object: Option<LazyValue<'t>>,
    conditions: Option<LazyValue<'t>>,
    on_conflict: Option<String>,
}

impl Reader<'_> {
    fn unit(&mut self, raw: &str, index: usize, path: &Path<'_>, intake: &mut Intake) -> Unit {
        let mut unit = Unit::default();
        let mut operations = None;
        for (name, value) in body::members(raw, path, intake) {
            let here = path.member(&name);
            match name.as_str() {
                "idempotencyKey" => unit.key_texts = keys(value.as_raw_str(), &here, intake),
                "context" => unit.context = context(value.as_raw_str(), &here, intake),
                "operations" => operations = Some(value),
                _ => intake.push(&here, "is no member of a unit"),
            }
        }
        unit.keys = unit.key_texts.iter().map(|key| Sha256::digest(key.as_bytes()).into()).collect();
        let here = path.member("operations");
        match &operations {
            Some(list) if list.as_raw_str().starts_with('[') => {
                let items: Vec<LazyValue<'_>> = sonic_rs::to_array_iter(list.as_raw_str()).filter_map(Result::ok).collect();
                self.operations += items.len();
                self.read_operations(&mut unit, &items, index as u32, &here, intake);
            }
            Some(_) => intake.push(&here, "must be a list"),
            None => intake.push(&here, "must be given"),
        }
        unit
    }

    // All of them are looked at before any is read, because each may refer to what another one makes.
    fn read_operations(&mut self, unit: &mut Unit, items: &[LazyValue<'_>], index: u32, path: &Path<'_>, intake: &mut Intake) {
        let mut names = Names::default();
        let mut operations = Vec::with_capacity(items.len());
        for (number, item) in items.iter().enumerate() {
            let here = path.index(number);
            let mut operation = members(item.as_raw_str(), &here, intake);
            name(&mut operation, number as u32, &mut names, &here, intake);
            operations.push(operation);
        }
        intake.names = Some(names);
        let mut needs: Vec<(u32, u32)> = Vec::new();
        for (number, operation) in operations.iter().enumerate() {
            let owner = Owner { unit: index, operation: number as u32 };
            if let Some(at) = self.operation(operation, owner, &path.index(number), intake) {
                unit.operations.push(at);
            }
            needs.extend(intake.needs.drain(..).map(|needed| (number as u32, needed)));
        }
        // What refers only to what comes before it is done in the order given, and in no circle.
        if needs.iter().all(|(operation, needed)| needed <= operation) {
            return;
        }
        if let (_, Some(operation)) = sequence(&needed_by(items.len(), &needs)) {
            let detail = "refers to a new object that refers back to it; make one without the reference, and patch it afterwards";
            intake.push(&path.index(operation as usize), detail);
        }
        unit.needs = needs;
    }

    fn operation(&mut self, operation: &Operation<'_>, owner: Owner, path: &Path<'_>, intake: &mut Intake) -> Option<(u32, u32)> {
        let plan = self.entity(operation, path, intake);
        let kind = kind(operation, path, intake);
        let (plan, kind) = (plan?, kind?);
        let batch_index = self.batch(&plan, kind);
        let batch = &mut self.batches[batch_index as usize];
        let row = batch.rows.len() as u32;
        if kind.is_create() {
            create(batch, operation, path, intake);
        } else {
            change(batch, operation, path, intake);
        }
        if unconditional(batch, operation) {
            self.unconditional.push((plan.entity().name.clone(), lacking(kind, path)));
        }
        // An object that was none left no row; its unit has a fault then.
        if batch.rows.len() as u32 == row {
            batch.rows.begin();
        }
        batch.references.append(&mut intake.references);
        batch.owners.push(owner);
        Some((batch_index, row))
    }

    fn entity(&self, operation: &Operation<'_>, path: &Path<'_>, intake: &mut Intake) -> Option<Arc<EntityPlan>> {
        let (Some(model), Some(entity)) = (&operation.model, &operation.entity) else {
            for (member, value) in [("model", &operation.model), ("entity", &operation.entity)] {
                if value.is_none() {
                    intake.push(&path.member(member), "must be given, as a string");
                }
            }
            return None;
        };
        let Some(model) = self.plans.models.get(model) else {
            intake.push(&path.member("model"), format!("there is no model {model}"));
            return None;
        };
        let plan = model.by_name(entity).cloned();
        if plan.is_none() {
            intake.push(&path.member("entity"), format!("model {} has no entity {entity}", model.model.name));
        }
        plan
    }

    fn batch(&mut self, plan: &Arc<EntityPlan>, kind: Kind) -> u32 {
        let batches = &mut self.batches;
        *self.by_kind.entry((Arc::as_ptr(plan) as usize, kind)).or_insert_with(|| {
            batches.push(Batch {
                rows: Rows::new(plan.columns.len()),
                plan: plan.clone(),
                kind,
                owners: Vec::new(),
                conditions: Vec::new(),
                references: Vec::new(),
            });
            (batches.len() - 1) as u32
        })
    }
}

fn members<'t>(raw: &'t str, path: &Path<'_>, intake: &mut Intake) -> Operation<'t> {
    let mut operation = Operation::default();
    for (name, value) in body::members(raw, path, intake) {
        let here = path.member(&name);
        let raw = value.as_raw_str();
        match name.as_str() {
            "op" => operation.op = body::string(raw, &here, intake),
            "model" => operation.model = body::string(raw, &here, intake),
            "entity" => operation.entity = body::string(raw, &here, intake),
            "onConflict" => operation.on_conflict = body::string(raw, &here, intake),
            "id" => operation.id = Some(value),
            "object" => operation.object = Some(value),
            "if" => operation.conditions = Some(value),
            named::AS => operation.name = Some(value),
            _ => intake.push(&here, "is no member of an operation"),
        }
    }
    operation
}

// Notes the name of what an operation makes, with the id that it has or gets.
fn name(operation: &mut Operation<'_>, number: u32, names: &mut Names, path: &Path<'_>, intake: &mut Intake) {
    let Some(raw) = &operation.name else { return };
    let here = path.member(named::AS);
    let Some(name) = body::string(raw.as_raw_str(), &here, intake) else { return };
    if name.is_empty() || name.len() > named::MOST_NAME_BYTES {
        return intake.push(&here, format!("must have 1 to {} bytes", named::MOST_NAME_BYTES));
    }
    if operation.op.as_deref() != Some("create") {
        return intake.push(&here, "is for create only: what is there already has an id");
    }
    if operation.on_conflict.as_deref().is_some_and(|on_conflict| on_conflict != "error") {
        return intake.push(&here, "can't go with onConflict: what is there already has another id");
    }
    let own = operation.object.as_ref().and_then(|object| {
        let mut members = sonic_rs::to_object_iter(object.as_raw_str()).filter_map(Result::ok);
        let (_, id) = members.find(|(name, _)| name == "id")?;
        match Scalar::read(id.as_raw_str()) {
            Ok(Some(Scalar::String(id))) => Uuid::try_parse(&id).ok(),
            _ => None,
        }
    });
    if own.is_none() {
        operation.id_made = Some(new_id());
    }
    let id = own.or(operation.id_made).unwrap_or_default();
    let (model, entity) = (operation.model.as_deref().unwrap_or_default(), operation.entity.as_deref().unwrap_or_default());
    if !names.add(name, number, model, entity, id) {
        intake.push(&here, "is the name of two objects");
    }
}

// Whether an operation changes an object of which it says nothing, though the entity wants it.
fn unconditional(batch: &Batch, operation: &Operation<'_>) -> bool {
    if !batch.plan.entity().require_if_match {
        return false;
    }
    match batch.kind {
        Kind::CreateOrUpdate => true,
        // Nobody else can have changed what the unit itself makes.
        Kind::Patch | Kind::Delete if operation.id.as_ref().is_some_and(|id| id.as_raw_str().starts_with('{')) => false,
        Kind::Patch | Kind::Delete => {
            let row = batch.rows.len() as u32 - 1;
            !batch.conditions.iter().rev().take_while(|condition| condition.row == row).any(|condition| condition.column == VERSION)
        }
        _ => false,
    }
}

fn lacking(kind: Kind, path: &Path<'_>) -> Fault {
    match kind {
        Kind::CreateOrUpdate => Fault::at(path.member("onConflict").pointer(), "update would change objects whatever their version"),
        _ => Fault::at(path.member("if").member("version").pointer(), "must be given"),
    }
}

fn kind(operation: &Operation<'_>, path: &Path<'_>, intake: &mut Intake) -> Option<Kind> {
    let kind = match (operation.op.as_deref(), operation.on_conflict.as_deref()) {
        (Some("create"), None | Some("error")) => Kind::Create,
        (Some("create"), Some("ignore")) => Kind::CreateOrIgnore,
        (Some("create"), Some("update")) => Kind::CreateOrUpdate,
        (Some("create"), Some(_)) => {
            intake.push(&path.member("onConflict"), "must be error, ignore or update");
            return None;
        }
        (Some("patch"), None) => Kind::Patch,
        (Some("delete"), None) => Kind::Delete,
        (Some("patch" | "delete"), Some(_)) => {
            intake.push(&path.member("onConflict"), "is for create only");
            return None;
        }
        _ => {
            intake.push(&path.member("op"), "must be create, patch or delete");
            return None;
        }
    };
    if kind.is_create() && operation.conditions.is_some() {
        intake.push(&path.member("if"), "is for patch and delete only");
    }
    if kind == Kind::Delete && operation.object.is_some() {
        intake.push(&path.member("object"), "is for create and patch only");
    }
    Some(kind)
}

fn create(batch: &mut Batch, operation: &Operation<'_>, path: &Path<'_>, intake: &mut Intake) {
    let here = path.member("object");
    let Some(object) = &operation.object else {
        intake.push(&here, "must be given");
        return;
    };
    if operation.id.is_some() {
        intake.push(&path.member("id"), "of a new object belongs into the object");
    }
    let before = batch.rows.len();
    read_object(object.as_raw_str(), batch, Purpose::Create, &here, intake);
    if let Some(id) = operation.id_made.filter(|_| batch.rows.len() > before) {
        set_id(batch, id);
    }
}

fn set_id(batch: &mut Batch, id: Uuid) {
    batch.rows.set(ID, |out| {
        out.extend_from_slice(id.as_bytes());
        true
    });
}

fn change(batch: &mut Batch, operation: &Operation<'_>, path: &Path<'_>, intake: &mut Intake) {
    let id = id_of(operation, &batch.plan, &path.member("id"), intake);
    let here = path.member("object");
    let before = batch.rows.len();
    match &operation.object {
        Some(object) if batch.kind == Kind::Patch => read_object(object.as_raw_str(), batch, Purpose::Patch, &here, intake),
        None if batch.kind == Kind::Patch => intake.push(&here, "must be given"),
        _ => {}
    }
    if batch.rows.len() == before {
        batch.rows.begin();
    }
    let (Some(id), Some(row)) = (id, batch.rows.len().checked_sub(1)) else { return };
    if batch.rows.get(row, ID) != crate::rows::Value::Absent && batch.rows.id(row) != id.into_bytes() {
        intake.push(&here.member("id"), "is another than the operation's id");
    }
    set_id(batch, id);
    if let Some(conditions) = &operation.conditions {
        read_conditions(conditions.as_raw_str(), batch, row as u32, &path.member("if"), intake);
    }
}

fn id_of(operation: &Operation<'_>, plan: &EntityPlan, path: &Path<'_>, intake: &mut Intake) -> Option<Uuid> {
    let raw = operation.id.as_ref().map(LazyValue::as_raw_str).unwrap_or_default();
    match named::own_id(raw, plan, path, intake) {
        Reference::New { id, operation } => {
            intake.needs.push(operation);
            return Some(id);
        }
        Reference::Faulty => return None,
        Reference::Plain => {}
    }
    let id = match Scalar::read(raw) {
        Ok(Some(Scalar::String(id))) => Uuid::try_parse(&id).ok(),
        _ => None,
    };
    if id.is_none() {
        intake.push(path, "must be given, as a string with a UUID");
    }
    id
}

fn read_object(raw: &str, batch: &mut Batch, purpose: Purpose, path: &Path<'_>, intake: &mut Intake) {
    // The whole body is JSON, so each of its parts is.
    if let Err(problem) = body::read_object(raw, &batch.plan, purpose, path, &mut batch.rows, intake) {
        intake.push(path, problem.detail);
    }
}

fn read_conditions(raw: &str, batch: &mut Batch, row: u32, path: &Path<'_>, intake: &mut Intake) {
    for (name, value) in body::members(raw, path, intake) {
        let here = path.member(&name);
        let Some(column) = batch.plan.column_of_member(&name, usize::MAX) else {
            intake.push(&here, format!("is no member of {}", batch.plan.entity().name));
            continue;
        };
        // Those of this row are the last ones.
        if batch.conditions.iter().rev().take_while(|condition| condition.row == row).any(|condition| condition.column == column) {
            intake.push(&here, "is given twice");
            continue;
        }
        match Scalar::read(value.as_raw_str()) {
            Ok(None) => batch.conditions.push(Condition { row, column, expected: None }),
            Ok(Some(scalar)) => {
                let mut expected = Vec::new();
                if batch.plan.columns[column].encoder.encode(&scalar, Form::Binary, &here, intake, &mut expected) {
                    batch.conditions.push(Condition { row, column, expected: Some(expected) });
                }
            }
            Err(detail) => intake.push(&here, detail),
        }
    }
    // Parts that are compared with refer to nothing new.
    intake.references.retain(|reference| reference.row != row || batch.kind == Kind::Patch);
}

// One key or a list of them.
fn keys(raw: &str, path: &Path<'_>, intake: &mut Intake) -> Vec<String> {
    let mut keys = Vec::new();
    let mut known = HashSet::new();
    let mut add = |raw: &str, path: &Path<'_>, intake: &mut Intake| {
        if let Some(key) = body::string(raw, path, intake) {
            if key.is_empty() || key.len() > MOST_KEY_BYTES {
                intake.push(path, format!("must have 1 to {MOST_KEY_BYTES} bytes"));
            } else if !known.insert(key.clone()) {
                intake.push(path, "is there twice");
            } else {
                keys.push(key);
            }
        }
    };
    if raw.starts_with('[') {
        for (index, key) in sonic_rs::to_array_iter(raw).filter_map(Result::ok).enumerate() {
            add(key.as_raw_str(), &path.index(index), intake);
        }
    } else {
        add(raw, path, intake);
    }
    keys
}

/// The longest idempotency key.
pub const MOST_KEY_BYTES: usize = 512;

fn context(raw: &str, path: &Path<'_>, intake: &mut Intake) -> WriteContext {
    let mut context = WriteContext::default();
    for (name, value) in body::members(raw, path, intake) {
        let here = path.member(&name);
        let mut text = body::string(value.as_raw_str(), &here, intake);
        if text.as_ref().is_some_and(|text| text.len() > MOST_KEY_BYTES || text.chars().any(char::is_control)) {
            intake.push(&here, format!("must be printable, with at most {MOST_KEY_BYTES} bytes"));
            text = None;
        }
        match name.as_str() {
            "actor" => context.actor = text,
            "traceparent" => context.traceparent = text,
            "causationId" => context.causation_id = text,
            _ => intake.push(&here, "is no member of a context"),
        }
    }
    context
}

fn results(written: &[Written]) -> Json {
    Json::Array(written.iter().map(result).collect())
}

/// What became of an operation, in answers.
pub fn result(written: &Written) -> Json {
    json!({"id": written.id_text(), "version": written.version, "effect": written.effect.name()})
}

// Kept is what a replay answers.
fn keep(_: &Work, written: &[Written], _: &Objects) -> (u16, String) {
    (200, results(written).to_string())
}

/// The answer's body.
pub fn answer(outcomes: Outcomes) -> Vec<u8> {
    let mut body = br#"{"units":["#.to_vec();
    for (index, outcome) in outcomes.units.into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let entry = match outcome {
            Some(UnitOutcome::Done { written, .. }) => json!({"status": 200, "replayed": false, "results": results(&written)}),
            Some(UnitOutcome::Replayed { status, answer }) => {
                json!({"status": status, "replayed": true, "results": serde_json::from_str::<Json>(&answer).unwrap_or_default()})
            }
            Some(UnitOutcome::Failed(problem)) => failed(&problem),
            None => failed(&Problem::internal()),
        };
        body.extend_from_slice(entry.to_string().as_bytes());
    }
    body.extend_from_slice(b"]}");
    body
}

/// The entry of an answer for what failed.
pub fn failed(problem: &Problem) -> Json {
    let mut entry = json!({"status": problem.status.as_u16()});
    entry["problem"] = serde_json::from_slice(&problem.to_json()).unwrap_or_default();
    if let Some(seconds) = problem.retry_after {
        entry["retryAfter"] = seconds.into();
    }
    entry
}

/// A fault in a header, as a problem.
pub fn bad_header(name: &'static str, detail: impl Into<String>) -> Problem {
    Problem::bad_request(format!("The header {name} can't be used.")).with(Fault::parameter(name, detail))
}
