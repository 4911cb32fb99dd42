//! One trace from a request over the events it causes to what services do for them, as real processes export it; and logs that tell of which event
//! they speak.

mod local_support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as Exported;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::{Value, json};

use local_support::Local;

const RESOURCES: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  entities:
    - name: Sale
      attributes:
        - {name: total, type: integer, required: true}
        - {name: status, type: string, maxLength: 20, default: open}
    - name: Accrual
      attributes: [{name: points, type: integer, required: true}]
      relationships: [{name: sale, target: Sale}]
---
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: accrual}
spec:
  trigger: {queue: {model: shop, entity: Sale, operations: [created]}}
  config: {provider: 'PROVIDER'}
  steps:
    - {name: answer, http: {url: 'config.provider + \"/accrue\"', body: '{\"sale\": object.id, \"total\": object.total}'}}
    - {create: {model: shop, entity: Accrual, object: {saleId: object.id, points: answer.body.points}}}
---
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: close}
spec:
  trigger: {queue: {model: shop, entity: Accrual}}
  steps:
    - {patch: {model: shop, entity: Sale, id: object.saleId, object: {status: '\"closed\"'}}}
";

#[derive(Clone, Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: SpanKind,
    service: String,
    attributes: Vec<(String, String)>,
}

impl Span {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Receives what is exported, and plays the provider that the service calls.
#[derive(Clone, Default)]
struct Receiver {
    spans: Arc<Mutex<Vec<Span>>>,
    // The trace contexts of the provider's calls.
    called_with: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    async fn start() -> (Self, String) {
        let receiver = Self::default();
        let routes = Router::new().route("/v1/traces", post(export)).route("/accrue", post(accrue)).with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await.expect("served") });
        (receiver, url)
    }

    fn of_trace(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| span.trace == trace).cloned().collect()
    }

    fn called_with(&self) -> Vec<String> {
        self.called_with.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn export(State(receiver): State<Receiver>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    for resource in request.resource_spans {
        let of_process = resource.resource.map(|resource| texts(&resource.attributes)).unwrap_or_default();
        let service = of_process.into_iter().find(|(name, _)| name == "service.name").map(|(_, name)| name).unwrap_or_default();
        let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| read(&span, &service));
        receiver.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
    }
    StatusCode::OK
}

fn read(span: &Exported, service: &str) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        kind: span.kind(),
        service: service.to_owned(),
        attributes: texts(&span.attributes),
    }
}

fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(&attribute.value))).collect()
}

async fn accrue(State(receiver): State<Receiver>, headers: HeaderMap, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let context = headers.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    receiver.called_with.lock().unwrap_or_else(PoisonError::into_inner).push(context);
    if body["total"] == 13 {
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": "an unlucky number"})));
    }
    (StatusCode::OK, Json(json!({"points": 10})))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_runs_from_a_request_over_its_events_to_what_services_do() {
    let (receiver, url) = Receiver::start().await;
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "200"), ("AUTONOMY_LOG_FORMAT", "json")];
    let local = Local::start(&RESOURCES.replace("PROVIDER", &url), &environment).await;
    let client = autonomy_process::http_client::new();
    let sales = format!("{}/api/shop/sales", local.api());

    // The client begins the trace.
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let posted = client.post(&sales).header("traceparent", format!("00-{trace}-{span}-01")).json(&json!({"total": 1})).send().await;
    assert!(posted.is_ok_and(|answer| answer.status().is_success()));
    local.until("the whole trace is exported", async || is_whole(&receiver.of_trace(trace), span)).await;
    let spans = receiver.of_trace(trace);
    assert_eq!(
        spans.iter().map(|span| span.service.as_str()).collect::<BTreeSet<_>>(),
        BTreeSet::from(["autonomy-api", "autonomy-worker"])
    );
    let process = named(&spans, "process shop.Sale");
    assert_eq!(process.kind, SpanKind::Consumer);
    assert_eq!(process.attribute("messaging.system"), Some("nats"));
    assert_eq!(process.attribute("messaging.destination.name"), Some("DEFAULT_SHOP"));
    assert_eq!(process.attribute("messaging.consumer.group.name"), Some("accrual"));
    assert!(process.attribute("messaging.message.id").is_some_and(|id| id.len() == 25));
    // What the provider was called with is the span of the call to it.
    let call = spans.iter().find(|span| span.attribute("url.full").is_some_and(|url| url.ends_with("/accrue"))).expect("the call");
    assert_eq!(
        (call.kind, call.parent.as_str(), call.attribute("http.response.status_code")),
        (SpanKind::Client, &*process.id, Some("200"))
    );
    assert_eq!(receiver.called_with(), [format!("00-{trace}-{}-01", call.id)]);

    // The API begins one where the client does not.
    let posted = client.post(&sales).json(&json!({"total": 2})).send().await;
    assert!(posted.is_ok_and(|answer| answer.status().is_success()));
    local
        .until("a trace begun by the API is whole", async || {
            let begun = receiver.called_with().get(1).and_then(|context| context.get(3..35).map(str::to_owned));
            begun.is_some_and(|begun| begun != trace && is_whole(&receiver.of_trace(&begun), ""))
        })
        .await;

    // Of what fails, trace and log tell.
    let posted = client.post(&sales).json(&json!({"total": 13})).send().await;
    assert!(posted.is_ok_and(|answer| answer.status().is_success()));
    local.until("the failure is logged", async || local.log("worker/accrual").contains("becomes a dead letter")).await;
    let log = local.log("worker/accrual");
    let line = log.lines().find(|line| line.contains("becomes a dead letter")).expect("the line");
    let line: Value = serde_json::from_str(line).expect("a line of JSON");
    assert_eq!(line["span"]["name"], "handle", "{line}");
    assert_eq!(line["span"]["event"].as_str().map(str::len), Some(25), "{line}");
    assert!(!log.contains("otel."), "spans of traces are in the log: {log}");
    local
        .until("the failed attempt is exported", async || {
            let spans = receiver.spans.lock().unwrap_or_else(PoisonError::into_inner);
            spans.iter().any(|span| span.name == "process shop.Sale" && span.attribute("error.type") == Some("failed"))
        })
        .await;
}

fn named(spans: &[Span], name: &str) -> Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("there is no span {name}: {spans:#?}")).clone()
}

// From the request over both events to the second write.
fn is_whole(spans: &[Span], parent: &str) -> bool {
    let of = |name: &str, kind: SpanKind, parent: &str| {
        let mut found = spans.iter().filter(|span| span.name == name && span.kind == kind && span.parent == parent);
        found.next().map(|span| span.id.clone())
    };
    let whole = || {
        let request = of("POST /api/{model}/{plural}", SpanKind::Server, parent)?;
        let sale = of("process shop.Sale", SpanKind::Consumer, &request)?;
        let writes = |by: &str| {
            let mut calls = spans.iter().filter(|span| span.kind == SpanKind::Client && span.parent == by);
            calls.find_map(|call| of("POST /api/transactions", SpanKind::Server, &call.id))
        };
        writes(&sale)?;
        let accrual = of("process shop.Accrual", SpanKind::Consumer, &sale)?;
        writes(&accrual)
    };
    whole().is_some()
}
