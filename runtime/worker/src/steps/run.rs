//! Running compiled steps.

use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::object_json::write_string;

use super::compile::{Action, CompiledStep, CreateAction, PatchAction};
use super::http::Caller;
use super::{Failure, Input, Lookups, Operation, Outcome, handler};
use crate::expression::functions::created_id;
use crate::expression::{EvaluationError, Expression, Identity, Object, Shape, Value};
use crate::http_call::HttpCaller;
use crate::service::CompiledService;

/// Runs the steps for an input. Nothing is written: a failure has no effect but the calls made so far, and those carry idempotency keys.
///
/// # Errors
/// Why the input was not handled; the message names the step.
pub async fn run(service: &CompiledService, input: Input, lookups: &dyn Lookups, http: &HttpCaller) -> Result<Outcome, Failure> {
    if let Some(handler) = service.spec.http_handler() {
        return handler::call(service, handler, input, http).await;
    }
    if let Some(logic) = &service.logic {
        return logic.handle(service, &input, lookups).await;
    }
    let id = input.identity();
    let variables = begin(service, input);
    let running = Running { service, identity: service.identity(&id), lookups, http };
    let mut strand = Strand { variables, ..Strand::default() };
    running.sequence(&service.steps, &mut strand).await?;
    Ok(Outcome { operations: strand.operations })
}

// The variables that expressions begin with, in the order of the compiler's names.
fn begin(service: &CompiledService, input: Input) -> Vec<Value> {
    let mut variables = match input {
        Input::Event(input) => vec![input.event.value(), input.object, input.before],
        Input::Group(input) => {
            let events = Value::list(input.events.iter().map(super::EventHead::value));
            vec![events, Value::list(input.objects), input.group]
        }
        Input::Record(input) => {
            let line = i64::try_from(input.line).unwrap_or(i64::MAX);
            vec![input.row, Value::list(input.rows), input.file, Value::Int(line)]
        }
        Input::Run(event) => vec![event.value(), Value::text(&event.time)],
    };
    variables.extend(service.surroundings());
    variables
}

/// What all steps of an input run with.
pub(super) struct Running<'a> {
    service: &'a CompiledService,
    pub(super) identity: Identity<'a>,
    lookups: &'a dyn Lookups,
    http: &'a HttpCaller,
}

/// Whether the steps go on.
pub(super) enum Flow {
    On,
    /// A step ended all.
    Stopped,
}

/// Steps that run one after another: what they see, and what they want written. Each element of `forEach` has one of its own.
#[derive(Default)]
pub(super) struct Strand {
    pub(super) variables: Vec<Value>,
    pub(super) operations: Vec<Operation>,
    /// The steps around, each with its branch or element: ids are made from it.
    pub(super) place: Vec<u64>,
    // The places of the elements that the steps run for, the outermost first.
    elements: Vec<usize>,
}

impl Strand {
    /// The strand for an element of the step at `index`.
    pub(super) fn branch_off(&self, index: usize, element: usize, item: Value) -> Self {
        let mut variables = Vec::with_capacity(self.variables.len() + 8);
        variables.extend_from_slice(&self.variables);
        variables.extend([item, Value::Int(i64::try_from(element).unwrap_or(i64::MAX))]);
        let mut place = self.place.clone();
        place.extend([index as u64, element as u64]);
        let mut elements = self.elements.clone();
        elements.push(element);
        Self { variables, operations: Vec::new(), place, elements }
    }

    /// A failure that stays, told with the step and the element.
    pub(super) fn at(&self, step: &CompiledStep, error: &EvaluationError) -> Failure {
        Failure::fatal(format!("{}{}: {error}", step.label, self.of_element()))
    }

    // What stands behind the step in idempotency keys.
    fn keys(&self) -> String {
        self.elements.iter().map(|element| format!("/{element}")).collect()
    }

    // A failure that names its step, with the element.
    fn told(&self, failure: Failure) -> Failure {
        if self.elements.is_empty() {
            return failure;
        }
        Failure { message: format!("{}{}", failure.message, self.of_element()), ..failure }
    }

    fn of_element(&self) -> String {
        self.elements.iter().map(|element| format!(", element {element}")).collect()
    }
}

impl Running<'_> {
    /// Runs steps in order; the outcomes of those with names become variables.
    pub(super) async fn sequence(&self, steps: &[CompiledStep], strand: &mut Strand) -> Result<Flow, Failure> {
        for (index, step) in steps.iter().enumerate() {
            let due = match &step.when {
                Some(when) => when.evaluate_condition(&strand.variables, &self.identity).map_err(|error| strand.at(step, &error))?,
                None => true,
            };
            let outcome = match due {
                true => match self.act(step, index, strand).await? {
                    Some(outcome) => outcome,
                    None => return Ok(Flow::Stopped),
                },
                false => Value::Null,
            };
            if step.named {
                strand.variables.push(outcome);
            }
        }
        Ok(Flow::On)
    }

    // The step's outcome; none where it ends all.
    async fn act(&self, step: &CompiledStep, index: usize, strand: &mut Strand) -> Result<Option<Value>, Failure> {
        let outcome = match &step.action {
            Action::Lookup { cache, by, key, fail } => self.look_up(step, (cache, by), key, *fail, strand)?,
            Action::Http(action) => {
                let keys = strand.keys();
                let called = action.call(&self.caller(&keys), &strand.variables).await;
                called.map_err(|failure| strand.told(failure))?
            }
            Action::PutObject(action) => {
                let keys = strand.keys();
                let put = action.put(&self.caller(&keys), &strand.variables).await;
                put.map_err(|failure| strand.told(failure))?
            }
            Action::Create(action) => self.create(action, index, strand).map_err(|error| strand.at(step, &error))?,
            Action::Patch(action) => self.patch(action, strand).map_err(|error| strand.at(step, &error))?,
            Action::Group(group) => {
                let grouped = self.group(group, &mut strand.variables);
                grouped.map_err(|error| strand.at(step, &error))?
            }
            Action::Choose(choose) => return self.choose(step, index, choose, strand).await,
            Action::ForEach(for_each) => return self.for_each(step, index, for_each, strand).await,
            Action::Set(expression) => expression.evaluate(&strand.variables, &self.identity).map_err(|error| strand.at(step, &error))?,
            Action::Fail { reason, retryable, after } => return Err(self.failure(step, reason, *retryable, after.as_ref(), strand)),
            Action::Stop => return Ok(None),
        };
        Ok(Some(outcome))
    }

    fn caller<'c>(&'c self, keys: &'c str) -> Caller<'c> {
        Caller { service: self.service, identity: &self.identity, http: self.http, keys }
    }

    fn failure(&self, step: &CompiledStep, reason: &Expression, retryable: bool, after: Option<&Expression>, strand: &Strand) -> Failure {
        let evaluate =
            |expression: &Expression| expression.evaluate(&strand.variables, &self.identity).map_err(|error| strand.at(step, &error));
        let reason = match evaluate(reason) {
            Ok(reason) => reason.as_text().map_or_else(|| reason.to_json(), str::to_owned),
            Err(failure) => return failure,
        };
        let retry_after = match after.map(evaluate).transpose() {
            Ok(None | Some(Value::Null)) => None,
            Ok(Some(Value::Duration(wait))) => Some(Duration::try_from(wait).unwrap_or_default()),
            Ok(Some(other)) => return strand.at(step, &EvaluationError::told(format!("after is {}, not a duration", other.kind()))),
            Err(failure) => return failure,
        };
        Failure { retryable, retry_after, message: reason }
    }

    fn look_up(
        &self,
        step: &CompiledStep,
        (cache, by): (&str, &str),
        key: &Expression,
        fail: bool,
        strand: &Strand,
    ) -> Result<Value, Failure> {
        let key = key.evaluate(&strand.variables, &self.identity).map_err(|error| strand.at(step, &error))?;
        let wrong = |message: String| strand.at(step, &EvaluationError::told(message));
        let one = |key: &Value| {
            let found = match key {
                Value::Null => None,
                Value::Object(_) if self.service.caches.iter().any(|known| known.name == cache && known.is_found_by_object(by)) => {
                    self.lookups.find(cache, by, key)
                }
                Value::List(_) | Value::Object(_) => {
                    return Err(wrong(format!("{} is no key to look up", key.kind())));
                }
                key => self.lookups.find(cache, by, key),
            };
            match found {
                Some(object) => Ok(object),
                None if fail => Err(wrong(format!("there is no object in the cache {cache} with {by} = {key}"))),
                None => Ok(Value::Null),
            }
        };
        match &key {
            Value::List(keys) => keys.iter().map(one).collect::<Result<Vec<Value>, Failure>>().map(Value::list),
            key => one(key),
        }
    }

    fn create(&self, action: &CreateAction, step: usize, strand: &mut Strand) -> Result<Value, EvaluationError> {
        let Strand { variables, operations, place, .. } = strand;
        self.each(action.for_each.as_ref(), variables, |variables, item| {
            let given = action.id.as_ref().map(|id| id.evaluate(variables, &self.identity)).transpose()?.unwrap_or_default();
            let id = match given {
                Value::Null => Value::text(created_id(&self.identity, place, step, item)),
                id => id,
            };
            let mut json = Vec::with_capacity(512);
            json.extend_from_slice(action.head.as_bytes());
            id.write_json(&mut json);
            action.members.write(variables, &self.identity, false, &mut json)?;
            json.extend_from_slice(b"}}");
            operations.push(operation(json));
            Ok(id)
        })
    }

    fn patch(&self, action: &PatchAction, strand: &mut Strand) -> Result<Value, EvaluationError> {
        let Strand { variables, operations, .. } = strand;
        self.each(action.for_each.as_ref(), variables, |variables, _| {
            let id = action.id.evaluate(variables, &self.identity)?;
            let Some(text) = id.as_text() else {
                return Err(EvaluationError::told(format!("the id of the object to patch is {}, not a string", id.kind())));
            };
            let mut json = Vec::with_capacity(256);
            json.extend_from_slice(action.head.as_bytes());
            write_string(text, &mut json);
            json.extend_from_slice(b",\"object\":{");
            action.members.write(variables, &self.identity, true, &mut json)?;
            json.push(b'}');
            if !action.precondition.is_empty() {
                json.extend_from_slice(b",\"if\":{");
                action.precondition.write(variables, &self.identity, true, &mut json)?;
                json.push(b'}');
            }
            json.push(b'}');
            operations.push(operation(json));
            Ok(id)
        })
    }

    // Does it once, or for each element with `item` and `index`; gives `{id}`, or a list of them.
    fn each(
        &self,
        list: Option<&Expression>,
        variables: &mut Vec<Value>,
        mut one: impl FnMut(&[Value], usize) -> Result<Value, EvaluationError>,
    ) -> Result<Value, EvaluationError> {
        let shape = Shape::new(["id"]);
        let written = |id: Value| Value::Object(Arc::new(Object::new(shape.clone(), vec![id])));
        let Some(list) = list else { return one(variables, 0).map(written) };
        let items = match list.evaluate(variables, &self.identity)? {
            Value::List(items) => items,
            other => return Err(EvaluationError::told(format!("forEach needs a list, `{}` gives {}", list.source(), other.kind()))),
        };
        let base = variables.len();
        let mut outcomes = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            variables.push(item.clone());
            variables.push(Value::Int(i64::try_from(index).unwrap_or(i64::MAX)));
            let outcome = one(variables, index);
            variables.truncate(base);
            outcomes.push(written(outcome.map_err(|error| error.at_item(index))?));
        }
        Ok(Value::list(outcomes))
    }
}

fn operation(json: Vec<u8>) -> Operation {
    // Values are written as text or ASCII.
    Operation { json: String::from_utf8(json).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()) }
}
