//! Logic in any language: the handler beside the worker gets events as CloudEvents over HTTP and answers with operations.

use std::time::Duration;

use autonomy_crds::micro_service::HttpHandler;
use autonomy_crds::names::parse_duration;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderName};

use super::{EventHead, EventInput, Failure, GroupInput, Input, Operation, Outcome};
use crate::expression::Value;
use crate::http_call::{HttpCaller, Request};
use crate::service::CompiledService;

const CLOUD_EVENTS_BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";
const FALLBACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Hands an input to the service's handler; what it answers is what is to be written.
///
/// # Errors
/// When it does not answer with success, or with something other than operations.
pub async fn call(service: &CompiledService, handler: &HttpHandler, input: Input, http: &HttpCaller) -> Result<Outcome, Failure> {
    let idempotency_key = service.idempotency_key(&input.identity());
    let (headers, body) = match input {
        Input::Event(input) => (binary_headers(&input.event), Some(data(&input).to_json())),
        Input::Group(input) => (vec![(CONTENT_TYPE, CLOUD_EVENTS_BATCH.to_owned())], Some(batch(input).to_json())),
        Input::Run(event) => (binary_headers(&event), None),
        Input::Record(_) => return Err(Failure::fatal("a handler gets events, and no records of files")),
    };
    let request = Request {
        method: Method::POST,
        url: format!("http://127.0.0.1:{}{}", handler.port, handler.path),
        headers,
        body,
        idempotency_key,
        expect: Vec::new(),
        timeout: parse_duration(&handler.timeout).unwrap_or(FALLBACK_TIMEOUT),
    };
    let answer = http
        .call(request, &service.handler)
        .await
        .map_err(|failure| Failure { message: format!("the handler: {}", failure.message), ..failure })?;
    operations(&answer.body)
}

// CloudEvents' HTTP binding, binary mode.
fn binary_headers(event: &EventHead) -> Vec<(HeaderName, String)> {
    let given = [
        ("ce-specversion", Some("1.0")),
        ("ce-id", Some(event.id.as_str())),
        ("ce-type", Some(event.kind.as_str())),
        ("ce-source", Some(event.source.as_str())),
        ("ce-subject", Some(event.subject.as_str())),
        ("ce-time", Some(event.time.as_str())),
        ("ce-traceparent", event.traceparent.as_deref()),
        ("traceparent", event.traceparent.as_deref()),
    ];
    given.into_iter().filter_map(|(name, value)| Some((HeaderName::from_static(name), value?.to_owned()))).collect()
}

// As in the stream: the object, of an update with a member `before`.
fn data(input: &EventInput) -> Value {
    match (&input.object, &input.before) {
        (Value::Object(object), before @ Value::Object(_)) => {
            Value::object(object.iter().map(|(name, value)| (name, value.clone())).chain([("before", before.clone())]))
        }
        (object, _) => object.clone(),
    }
}

// CloudEvents' JSON batch mode. The objects of a batch come without what they were before.
fn batch(input: GroupInput) -> Value {
    let events = input.events.iter().zip(input.objects).map(|(event, object)| {
        Value::object([
            ("specversion", Value::text("1.0")),
            ("id", Value::text(&event.id)),
            ("type", Value::text(&event.kind)),
            ("source", Value::text(&event.source)),
            ("subject", Value::text(&event.subject)),
            ("time", Value::text(&event.time)),
            ("datacontenttype", Value::text("application/json")),
            ("data", object),
        ])
    });
    Value::list(events)
}

fn operations(answer: &Value) -> Result<Outcome, Failure> {
    let wrong = || Failure::fatal("the handler: its answer is no JSON object with a list `operations`, as in {\"operations\": []}");
    let operations = match answer {
        Value::Null => return Ok(Outcome::default()),
        Value::Object(object) => match object.get("operations") {
            None | Some(Value::Null) if object.is_empty() => return Ok(Outcome::default()),
            Some(Value::List(operations)) => operations,
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    let operations = operations.iter().map(|operation| match operation {
        Value::Object(_) => Ok(Operation { json: operation.to_json() }),
        _ => Err(wrong()),
    });
    Ok(Outcome { operations: operations.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(json: &str) -> Result<Vec<String>, String> {
        let outcome = operations(&Value::from_json(json.as_bytes()).expect("JSON"));
        outcome.map(|outcome| outcome.operations.into_iter().map(|operation| operation.json).collect()).map_err(|failure| failure.message)
    }

    #[test]
    fn operations_are_passed_on_as_they_are_written() {
        let operation = r#"{"op":"patch","model":"shop","entity":"Sale","id":"1","object":{"amount":12.10}}"#;
        assert_eq!(answered(&format!(r#"{{"operations": [{operation}]}}"#)), Ok(vec![operation.to_owned()]));
        assert_eq!(answered("{}"), Ok(Vec::new()));
        assert_eq!(answered(r#"{"operations": []}"#), Ok(Vec::new()));
    }

    #[test]
    fn other_answers_are_told() {
        for wrong in ["[]", "\"text\"", r#"{"operations": {}}"#, r#"{"operation": []}"#, r#"{"operations": [1]}"#] {
            assert!(answered(wrong).is_err_and(|message| message.contains("operations")), "{wrong}");
        }
    }
}
