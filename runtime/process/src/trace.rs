//! Traces by W3C Trace Context, from requests over events to what services do for them, exported by OTLP (http/protobuf).
//!
//! Standard environment variables say where to and how much (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, …). Without an endpoint there are no
//! spans: what makes one here costs a look at a flag. What a client or an event gives is passed on all the same.
//!
//! Spans have a target of their own, so that they are in no log, and what is logged is in no trace.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, Status, TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use opentelemetry_sdk::{Resource, runtime};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of all spans of traces.
pub const TARGET: &str = "autonomy::trace";

// A request may be for thousands of events.
const MOST_LINKS: usize = 64;

static ON: AtomicBool = AtomicBool::new(false);

tokio::task_local! {
    // The trace context of what is being handled, where this process makes no spans.
    static CARRIED: String;
}

/// Whether spans are made.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Why traces can't be exported.
#[derive(Debug, thiserror::Error)]
#[error("traces can't be exported; see the OTEL_ variables")]
pub struct TraceError(#[from] opentelemetry_otlp::ExporterBuildError);

/// Where the environment names an endpoint: who makes spans and exports them, under this name where the environment gives none. Called where
/// tokio runs.
pub(crate) fn provider(role: &'static str) -> Result<Option<SdkTracerProvider>, TraceError> {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| given("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let disabled = given("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if endpoint.is_none() || disabled || given("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none") {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().with_http_client(crate::http_client::new()).build()?;
    let named = given("OTEL_SERVICE_NAME").is_some()
        || given("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| attributes.contains("service.name="));
    let resource = Resource::builder();
    let resource = if named { resource } else { resource.with_service_name(format!("autonomy-{role}")) };
    let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
    let processor = BatchSpanProcessor::builder(exporter, runtime::Tokio).build();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build();
    ON.store(true, Ordering::Relaxed);
    Ok(Some(provider))
}

pub(crate) fn tracer(provider: &SdkTracerProvider) -> SdkTracer {
    provider.tracer("autonomy")
}

/// The span of a request that is served. `route` is its path with the variable parts as `{name}`, `traceparent` gives what the client sent.
pub fn server<'t>(method: &str, route: &str, path: &str, traceparent: impl FnOnce() -> Option<&'t str>) -> Span {
    if !is_on() {
        return Span::none();
    }
    let span = tracing::info_span!(target: TARGET, parent: None, "request", otel.name = format!("{method} {route}"), otel.kind = "server");
    span.set_attribute("http.request.method", method.to_owned());
    span.set_attribute("http.route", route.to_owned());
    span.set_attribute("url.path", path.to_owned());
    span.set_attribute("url.scheme", "http");
    child_of(&span, traceparent());
    span
}

/// The span of a call, below the present one.
pub fn client(method: &str, url: impl FnOnce() -> String, host: &str, port: Option<u16>) -> Span {
    if !is_on() {
        return Span::none();
    }
    let span = tracing::info_span!(target: TARGET, "call", otel.name = method, otel.kind = "client");
    called(&span, method, &url(), host, port);
    span
}

/// The span of a call that is made for units of work, each with the trace context that it was handed over with: below the only one, or linked to
/// all.
pub fn client_for<'t>(units: impl Iterator<Item = Option<&'t str>>, (method, url, host, port): (&str, &str, &str, Option<u16>)) -> Span {
    if !is_on() {
        return Span::none();
    }
    let span = tracing::info_span!(target: TARGET, parent: None, "call", otel.name = method, otel.kind = "client");
    called(&span, method, url, host, port);
    child_or_linked(&span, units);
    span
}

fn called(span: &Span, method: &str, url: &str, host: &str, port: Option<u16>) {
    span.set_attribute("http.request.method", method.to_owned());
    span.set_attribute("url.full", url.to_owned());
    span.set_attribute("server.address", host.to_owned());
    if let Some(port) = port {
        span.set_attribute("server.port", i64::from(port));
    }
}

/// What a service does for events, as its span tells it.
pub struct Processed<'e> {
    /// The service, in the role of a consumer group.
    pub service: &'e str,
    /// The stream.
    pub stream: String,
    /// What the events are of, for example `retail.Sale`.
    pub entity: String,
    /// The id of a single event.
    pub event: Option<&'e str>,
    /// How many attempts at it failed before.
    pub failed: u32,
}

/// The span of an attempt at events, each with the trace context in it: below a single one's, or linked to all of a group's.
pub fn consumer<'t>(processed: impl FnOnce() -> Processed<'t>, events: impl ExactSizeIterator<Item = Option<&'t str>>) -> Span {
    if !is_on() {
        return Span::none();
    }
    let Processed { service, stream, entity, event, failed } = processed();
    let name = format!("process {entity}");
    let span = tracing::info_span!(target: TARGET, parent: None, "process", otel.name = name, otel.kind = "consumer");
    span.set_attribute("messaging.system", "nats");
    span.set_attribute("messaging.operation.name", "process");
    span.set_attribute("messaging.operation.type", "process");
    span.set_attribute("messaging.destination.name", stream);
    span.set_attribute("messaging.consumer.group.name", service.to_owned());
    match event {
        Some(event) => {
            span.set_attribute("messaging.message.id", event.to_owned());
            span.set_attribute("autonomy.failed_attempts", i64::from(failed));
        }
        None => span.set_attribute("messaging.batch.message_count", i64::try_from(events.len()).unwrap_or(i64::MAX)),
    }
    child_or_linked(&span, events);
    span
}

/// The span of a file that a service loads: all its records are in one.
pub fn file(service: &str, file: &str) -> Span {
    if !is_on() {
        return Span::none();
    }
    let span = tracing::info_span!(target: TARGET, parent: None, "load", otel.name = format!("load {service}"), otel.kind = "consumer");
    span.set_attribute("file.name", file.to_owned());
    span
}

/// The answer to a request, or to a call. Of a request only a fault of the server's is one of the span's.
pub fn answered(span: &Span, status: u16) {
    if span.is_disabled() {
        return;
    }
    span.set_attribute("http.response.status_code", i64::from(status));
    if status >= 500 {
        span.set_attribute("error.type", status.to_string());
        span.set_status(Status::error(""));
    }
}

/// What was to be done failed.
pub fn failed(span: &Span, kind: &'static str, message: &str) {
    if span.is_disabled() {
        return;
    }
    span.set_attribute("error.type", kind);
    span.set_status(Status::error(message.to_owned()));
}

/// Links a span to the trace contexts of what was handed over together.
pub fn link<'t>(span: &Span, units: impl Iterator<Item = Option<&'t str>>) {
    if span.is_disabled() {
        return;
    }
    let mut known: Vec<SpanContext> = Vec::new();
    for context in units.flatten().filter_map(remote) {
        if known.len() < MOST_LINKS && !known.contains(&context) {
            span.add_link(context.clone());
            known.push(context);
        }
    }
}

fn child_or_linked<'t>(span: &Span, mut units: impl Iterator<Item = Option<&'t str>>) {
    let first = units.next().flatten();
    match units.next() {
        None => child_of(span, first),
        Some(second) => link(span, [first, second].into_iter().chain(units)),
    }
}

fn child_of(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(remote) {
        // It can't have been started: it was made just now.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// The trace context of a span as `traceparent`, where it is recorded. One that is not is told to nobody: it would cost every write a message in the
/// log, and whoever comes later decides by the same sampler.
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() { None } else { text(span.context().span().span_context()) }
}

/// The trace context to send along with what goes out now.
pub fn outgoing() -> Option<String> {
    let present = if is_on() { text(Context::current().span().span_context()) } else { None };
    present.or_else(|| CARRIED.try_with(Clone::clone).ok())
}

/// Does something for which a trace context was handed over, so that [`outgoing`] passes it on where no span is recorded.
pub async fn carrying<F: Future>(traceparent: Option<&str>, work: F) -> F::Output {
    match traceparent {
        Some(traceparent) => CARRIED.scope(traceparent.to_owned(), work).await,
        None => work.await,
    }
}

fn text(context: &SpanContext) -> Option<String> {
    (context.is_valid() && context.is_sampled())
        .then(|| format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8()))
}

fn remote(traceparent: &str) -> Option<SpanContext> {
    static PROPAGATOR: OnceLock<TraceContextPropagator> = OnceLock::new();
    let propagator = PROPAGATOR.get_or_init(TraceContextPropagator::new);
    let context = propagator.extract_with_context(&Context::new(), &OneHeader(traceparent));
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

struct OneHeader<'h>(&'h str);

impl Extractor for OneHeader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn trace_contexts_are_read_and_written_after_the_standard() {
        assert_eq!(remote(GIVEN).and_then(|context| text(&context)).as_deref(), Some(GIVEN));
        assert_eq!(remote("00-4bf92f3577b34da6a3ce929d0e0e4736"), None);
        assert_eq!(remote("00-00000000000000000000000000000000-00f067aa0ba902b7-01"), None, "no trace");
        assert_eq!(remote(&GIVEN.replace("-01", "-00")).and_then(|context| text(&context)), None, "not sampled");
    }

    #[tokio::test]
    async fn what_was_handed_over_is_passed_on_where_no_spans_are_made() {
        assert_eq!(outgoing(), None);
        assert_eq!(carrying(Some(GIVEN), async { outgoing() }).await.as_deref(), Some(GIVEN));
        assert_eq!(carrying(None, async { outgoing() }).await, None);
        assert!(server("GET", "/api", "/api", || Some(GIVEN)).is_disabled());
    }
}
