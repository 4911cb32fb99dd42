//! Running compiled steps.

use std::sync::Arc;

use autonomy_crds::object_json::write_string;

use super::compile::{Action, CompiledStep, CreateAction, HttpAction, PatchAction};
use super::{Failure, Input, Lookups, Operation, Outcome, handler};
use crate::expression::functions::created_id;
use crate::expression::{EvaluationError, Expression, Identity, Object, Shape, Value};
use crate::http_call::{HttpCaller, Request};
use crate::service::CompiledService;

/// Runs the steps for an input. Nothing is written: a failure has no effect but the calls made so far, and those carry idempotency keys.
///
/// # Errors
/// Why the input was not handled; the message names the step.
pub async fn run(service: &CompiledService, input: Input, lookups: &dyn Lookups, http: &HttpCaller) -> Result<Outcome, Failure> {
    if let Some(handler) = &service.spec.handler {
        return handler::call(service, &handler.http, input, http).await;
    }
    let (id, mut variables) = begin(service, input);
    let mut running = Running { service, identity: service.identity(&id), lookups, http, operations: Vec::new() };
    for (index, step) in service.steps.iter().enumerate() {
        let due = match &step.when {
            Some(when) => when.evaluate_condition(&variables, &running.identity).map_err(|error| at(step, &error))?,
            None => true,
        };
        if due && matches!(step.action, Action::Stop) {
            break;
        }
        let outcome = if due { running.act(step, index, &mut variables).await? } else { Value::Null };
        if step.named {
            variables.push(outcome);
        }
    }
    Ok(Outcome { operations: running.operations })
}

// The id that stands for the input, and the variables that expressions begin with, in the order of the compiler's names.
fn begin(service: &CompiledService, input: Input) -> (String, Vec<Value>) {
    let (id, mut variables) = match input {
        Input::Event(input) => {
            let event = input.event.value();
            (input.event.identity(), vec![event, input.object, input.before])
        }
        Input::Group(input) => {
            let events = Value::list(input.events.iter().map(super::EventHead::value));
            // A group's first event stands for it: it is written in one group only, so that ids made from it are never made twice.
            let id = input.events.into_iter().next().map(|event| event.identity()).unwrap_or_default();
            (id, vec![events, Value::list(input.objects), input.group])
        }
        Input::Record(input) => {
            let line = i64::try_from(input.line).unwrap_or(i64::MAX);
            (input.id, vec![input.row, Value::list(input.rows), input.file, Value::Int(line)])
        }
    };
    variables.extend(service.surroundings());
    (id, variables)
}

struct Running<'a> {
    service: &'a CompiledService,
    identity: Identity<'a>,
    lookups: &'a dyn Lookups,
    http: &'a HttpCaller,
    operations: Vec<Operation>,
}

fn at(step: &CompiledStep, error: &EvaluationError) -> Failure {
    Failure::fatal(format!("{}: {error}", step.label))
}

impl Running<'_> {
    async fn act(&mut self, step: &CompiledStep, index: usize, variables: &mut Vec<Value>) -> Result<Value, Failure> {
        match &step.action {
            Action::Lookup { cache, by, key, fail } => self.look_up(step, (cache, by), key, *fail, variables),
            Action::Http(action) => self.call(step, action, variables).await,
            Action::Create(action) => self.create(action, index, variables).map_err(|error| at(step, &error)),
            Action::Patch(action) => self.patch(action, variables).map_err(|error| at(step, &error)),
            Action::Set(expression) => expression.evaluate(variables, &self.identity).map_err(|error| at(step, &error)),
            Action::Fail { reason, retryable } => {
                let reason = reason.evaluate(variables, &self.identity).map_err(|error| at(step, &error))?;
                let message = reason.as_text().map_or_else(|| reason.to_json(), str::to_owned);
                Err(Failure { retryable: *retryable, retry_after: None, message })
            }
            Action::Stop => Ok(Value::Null),
        }
    }

    fn look_up(
        &self,
        step: &CompiledStep,
        (cache, by): (&str, &str),
        key: &Expression,
        fail: bool,
        variables: &[Value],
    ) -> Result<Value, Failure> {
        let key = key.evaluate(variables, &self.identity).map_err(|error| at(step, &error))?;
        let one = |key: &Value| {
            let found = match key {
                Value::Null => None,
                Value::List(_) | Value::Object(_) => {
                    return Err(Failure::fatal(format!("{}: {} is no key to look up", step.label, key.kind())));
                }
                key => self.lookups.find(cache, by, key),
            };
            match found {
                Some(object) => Ok(object),
                None if fail => Err(Failure::fatal(format!("{}: there is no object in the cache {cache} with {by} = {key}", step.label))),
                None => Ok(Value::Null),
            }
        };
        match &key {
            Value::List(keys) => keys.iter().map(one).collect::<Result<Vec<Value>, Failure>>().map(Value::list),
            key => one(key),
        }
    }

    async fn call(&self, step: &CompiledStep, action: &HttpAction, variables: &[Value]) -> Result<Value, Failure> {
        let evaluate = |expression: &Expression| expression.evaluate(variables, &self.identity).map_err(|error| at(step, &error));
        let url = evaluate(&action.url)?;
        let Some(url) = url.as_text() else {
            return Err(Failure::fatal(format!("{}: the URL is {}, not a string", step.label, url.kind())));
        };
        let mut headers = Vec::with_capacity(action.headers.len());
        for (name, value) in &action.headers {
            match evaluate(value)? {
                Value::Null => {}
                Value::Text(text) => headers.push((name.clone(), text.to_string())),
                other => headers.push((name.clone(), other.to_json())),
            }
        }
        let request = Request {
            method: action.method.clone(),
            url: url.to_owned(),
            headers,
            body: action.body.as_ref().map(evaluate).transpose()?.map(|body| body.to_json()),
            idempotency_key: format!("{}/{}/{}", self.service.name, self.identity.event, step.key),
            expect: action.expect.clone(),
            timeout: action.timeout,
            bearer_token_from: action.bearer_token_from.clone(),
        };
        let answer = self
            .http
            .call(request)
            .await
            .map_err(|failure| Failure { message: format!("{}: {}", step.label, failure.message), ..failure })?;
        Ok(answer.into_value())
    }

    fn create(&mut self, action: &CreateAction, step: usize, variables: &mut Vec<Value>) -> Result<Value, EvaluationError> {
        let head = &action.head;
        self.each(action.for_each.as_ref(), variables, |running, variables, item| {
            let given = action.id.as_ref().map(|id| id.evaluate(variables, &running.identity)).transpose()?.unwrap_or_default();
            let id = match given {
                Value::Null => Value::text(created_id(&running.identity, step, item)),
                id => id,
            };
            let mut json = Vec::with_capacity(512);
            json.extend_from_slice(head.as_bytes());
            id.write_json(&mut json);
            action.members.write(variables, &running.identity, false, &mut json)?;
            json.extend_from_slice(b"}}");
            running.operations.push(operation(json));
            Ok(id)
        })
    }

    fn patch(&mut self, action: &PatchAction, variables: &mut Vec<Value>) -> Result<Value, EvaluationError> {
        self.each(action.for_each.as_ref(), variables, |running, variables, _| {
            let id = action.id.evaluate(variables, &running.identity)?;
            let Some(text) = id.as_text() else {
                return Err(EvaluationError::told(format!("the id of the object to patch is {}, not a string", id.kind())));
            };
            let mut json = Vec::with_capacity(256);
            json.extend_from_slice(action.head.as_bytes());
            write_string(text, &mut json);
            json.extend_from_slice(b",\"object\":{");
            action.members.write(variables, &running.identity, true, &mut json)?;
            json.push(b'}');
            if !action.precondition.is_empty() {
                json.extend_from_slice(b",\"if\":{");
                action.precondition.write(variables, &running.identity, true, &mut json)?;
                json.push(b'}');
            }
            json.push(b'}');
            running.operations.push(operation(json));
            Ok(id)
        })
    }

    // Does it once, or for each element with `item` and `index`; gives `{id}`, or a list of them.
    fn each(
        &mut self,
        list: Option<&Expression>,
        variables: &mut Vec<Value>,
        mut one: impl FnMut(&mut Self, &[Value], usize) -> Result<Value, EvaluationError>,
    ) -> Result<Value, EvaluationError> {
        let shape = Shape::new(["id"]);
        let written = |id: Value| Value::Object(Arc::new(Object::new(shape.clone(), vec![id])));
        let Some(list) = list else { return one(self, variables, 0).map(written) };
        let items = match list.evaluate(variables, &self.identity)? {
            Value::List(items) => items,
            other => return Err(EvaluationError::told(format!("forEach needs a list, `{}` gives {}", list.source(), other.kind()))),
        };
        let base = variables.len();
        let mut outcomes = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            variables.push(item.clone());
            variables.push(Value::Int(i64::try_from(index).unwrap_or(i64::MAX)));
            let outcome = one(self, variables, index);
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
