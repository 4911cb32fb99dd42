//! The server: from a request's path to what answers it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use autonomy_process::catalog::{Catalog, CatalogFollower};
use autonomy_process::trace;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;
use uuid::Uuid;

use crate::database::{Failure, Gate, Meaning, meaning, problem};
use crate::events::{SubscribeRequest, Subscriptions};
use crate::gathering::Gathering;
use crate::metrics::Metrics;
use crate::objects::together::{GroupKind, Writing};
use crate::objects::{self, WriteRequest, streamed};
use crate::plan::{EntityPlan, ModelPlan, PlanCache, Plans};
use crate::problem::Problem;
use crate::reading::Reading;
use crate::representation::{Representation, content_type};
use crate::{aggregate, body, docs, history, json_patch, query, reading, transactions, write};

// What one object is patched with; JSON Patch goes its own way, and is here for those who are told what they may send.
const OBJECT_PATCHES: &[&str] = &["application/merge-patch+json", "application/json", json_patch::MEDIA_TYPE];
const LIST_PATCHES: &[&str] = &["application/merge-patch+json", "application/json", "application/x-ndjson", "text/csv"];
// Larger lists of new objects are written in pieces, where they can be.
const WHOLE_UP_TO: u64 = 4 * 1024 * 1024;
// The unit of the memory budget for bodies.
const BUDGET_UNIT: u64 = 1024;

/// What all requests share.
pub struct Service {
    /// The catalog as it is now.
    pub catalog: CatalogFollower,
    /// Its plans.
    pub plans: PlanCache,
    /// The way to the database.
    pub gate: Gate,
    /// The way to the database for streamed lists, which hold their connection long.
    pub streams: Gate,
    /// Reads of one object each, done together where they come together.
    pub readings: Arc<Gathering<usize, Reading>>,
    /// Writes of one object each, done together where they come together.
    pub writings: Arc<Gathering<GroupKind, Writing>>,
    /// Memory for bodies that are being worked on, in KiB.
    pub budget: Arc<Semaphore>,
    /// The largest body, in bytes.
    pub most_body: u64,
    /// How long a body that is read whole may take to come, and how long nothing may come of one that is taken in pieces.
    pub body_patience: Duration,
    /// Those who follow events.
    pub subscriptions: Subscriptions,
    /// Counters.
    pub metrics: Metrics,
}

/// The segments of a path behind `/api`.
enum Route<'p> {
    Docs,
    Models,
    Transactions,
    Model(&'p str),
    OpenApi(&'p str),
    AsyncApi(&'p str),
    Entity(&'p str, &'p str),
    Events(&'p str, &'p str),
    Object(&'p str, &'p str, &'p str),
    History(&'p str, &'p str, &'p str),
}

impl Route<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Docs => "docs",
            Self::Models => "models",
            Self::Transactions => "transactions",
            Self::Model(_) => "model",
            Self::OpenApi(_) => "openapi",
            Self::AsyncApi(_) => "asyncapi",
            Self::Entity(..) => "list",
            Self::Events(..) => "events",
            Self::Object(..) => "object",
            Self::History(..) => "history",
        }
    }

    // The path with its variable parts named.
    fn template(&self) -> &'static str {
        match self {
            Self::Docs => "/docs",
            Self::Models => "/api",
            Self::Transactions => "/api/transactions",
            Self::Model(_) => "/api/{model}",
            Self::OpenApi(_) => "/api/{model}/openapi.json",
            Self::AsyncApi(_) => "/api/{model}/asyncapi.json",
            Self::Entity(..) => "/api/{model}/{plural}",
            Self::Events(..) => "/api/{model}/{plural}/events",
            Self::Object(..) => "/api/{model}/{plural}/{id}",
            Self::History(..) => "/api/{model}/{plural}/{id}/history",
        }
    }
}

fn route(path: &str) -> Option<Route<'_>> {
    if matches!(path, "/docs" | "/docs/") {
        return Some(Route::Docs);
    }
    let rest = path.strip_prefix("/api")?;
    let segments: Vec<&str> = match rest.strip_prefix('/') {
        Some(rest) => rest.strip_suffix('/').unwrap_or(rest).split('/').filter(|segment| !segment.is_empty()).collect(),
        None if rest.is_empty() => Vec::new(),
        None => return None,
    };
    match segments[..] {
        [] => Some(Route::Models),
        ["transactions"] => Some(Route::Transactions),
        [model] => Some(Route::Model(model)),
        [model, "openapi.json"] => Some(Route::OpenApi(model)),
        [model, "asyncapi.json"] => Some(Route::AsyncApi(model)),
        [model, entity] => Some(Route::Entity(model, entity)),
        [model, entity, "events"] => Some(Route::Events(model, entity)),
        [model, entity, id] => Some(Route::Object(model, entity, id)),
        [model, entity, id, "history"] => Some(Route::History(model, entity, id)),
        _ => None,
    }
}

/// Answers a request, also before there is a service.
pub async fn serve_when_ready(service: Arc<OnceLock<Arc<Service>>>, request: Request<Body>) -> Response<Body> {
    match service.get() {
        Some(service) => serve(service.clone(), request).await,
        None => Problem::unavailable("The database can't be reached yet; try again.").into_response(),
    }
}

/// Answers a request; whatever it is, the answer is one.
pub async fn serve(service: Arc<Service>, request: Request<Body>) -> Response<Body> {
    let begun = Instant::now();
    let (mut parts, body) = request.into_parts();
    let path = percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned();
    let route = route(&path);
    let name = route.as_ref().map_or("unknown", Route::name);
    let template = route.as_ref().map_or("unknown", Route::template);
    let span = trace::server(known_method(&parts.method), template, parts.uri.path(), || objects::traceparent(&parts.headers));
    // What is written continues this request's trace.
    if let Some(Ok(traceparent)) = trace::traceparent(&span).map(HeaderValue::try_from) {
        parts.headers.insert(objects::TRACEPARENT, traceparent);
    }
    let answer = match route {
        None => Err(Problem::not_found("There is nothing at this path; see GET /api.")),
        Some(route) => {
            let incoming = Incoming {
                service: &service,
                method: parts.method.clone(),
                target: parts.uri.path_and_query().map_or("/", |target| target.as_str()),
                path: parts.uri.path(),
                query: parts.uri.query().unwrap_or(""),
                headers: &parts.headers,
            };
            incoming.answer(route, body).instrument(span.clone()).await
        }
    };
    let mut response = answer.unwrap_or_else(Problem::into_response);
    if parts.method == Method::PATCH && response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        // RFC 5789, section 2.2.
        let accepted = if name == "object" { OBJECT_PATCHES } else { LIST_PATCHES };
        if let Ok(accepted) = HeaderValue::from_str(&accepted.join(", ")) {
            response.headers_mut().insert("accept-patch", accepted);
        }
    }
    if parts.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    trace::answered(&span, response.status().as_u16());
    service.metrics.answered(known_method(&parts.method), name, response.status(), begun.elapsed());
    response
}

// Methods that nobody knows must not make a series, or a name, each.
fn known_method(method: &Method) -> &str {
    let known = matches!(*method, Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    if known { method.as_str() } else { "_OTHER" }
}

struct Incoming<'a> {
    service: &'a Service,
    method: Method,
    target: &'a str,
    path: &'a str,
    query: &'a str,
    headers: &'a HeaderMap,
}

impl Incoming<'_> {
    async fn answer(&self, route: Route<'_>, body: Body) -> Result<Response<Body>, Problem> {
        let reads = matches!(self.method, Method::GET | Method::HEAD);
        let parameters = query::parameters(self.query)?;
        match route {
            Route::Docs if reads => Ok(docs::page()),
            Route::Docs => Err(not_allowed("GET, HEAD")),
            Route::Models if reads => Ok(json_response(self.models())),
            Route::Models => Err(not_allowed("GET, HEAD")),
            Route::Transactions if self.method == Method::POST => self.transactions(body).await,
            Route::Transactions => Err(not_allowed("POST")),
            Route::Model(model) => {
                let model = self.model(model)?;
                if reads { Ok(json_response(model.json.clone())) } else { Err(not_allowed("GET, HEAD")) }
            }
            Route::OpenApi(model) => {
                let model = self.model(model)?;
                if reads { Ok(json_response(model.openapi.clone())) } else { Err(not_allowed("GET, HEAD")) }
            }
            Route::AsyncApi(model) => {
                let model = self.model(model)?;
                if reads { Ok(json_response(model.asyncapi.clone())) } else { Err(not_allowed("GET, HEAD")) }
            }
            Route::Entity(model, entity) => {
                self.entity(model, entity)?;
                match self.method {
                    Method::GET | Method::HEAD => self.list(model, entity, &parameters).await,
                    Method::POST => {
                        self.write(model, entity, None, &parameters, Some(body), &["application/json", "application/x-ndjson", "text/csv"])
                            .await
                    }
                    Method::PATCH => self.write(model, entity, None, &parameters, Some(body), LIST_PATCHES).await,
                    Method::DELETE => {
                        self.write(model, entity, None, &parameters, Some(body), &["application/json", "application/x-ndjson", "text/csv"])
                            .await
                    }
                    _ => Err(not_allowed("DELETE, GET, HEAD, PATCH, POST")),
                }
            }
            Route::Events(model, entity) => {
                let plan = self.entity(model, entity)?;
                if self.method == Method::GET { self.events(plan, &parameters).await } else { Err(not_allowed("GET")) }
            }
            Route::Object(model, entity, id) => {
                let id = id_of(self.entity(model, entity)?.as_ref(), id)?;
                match self.method {
                    Method::GET | Method::HEAD => {
                        self.again_when_stale(|plans| async move {
                            let plan = entity_of(&plans, model, entity)?;
                            let Service { gate, readings, .. } = self.service;
                            reading::one(gate, readings, &plans, &plan, id, &query::parameters(self.query)?, self.headers).await
                        })
                        .await
                    }
                    Method::PUT => self.write(model, entity, Some(id), &parameters, Some(body), &["application/json"]).await,
                    Method::PATCH if objects::patched::is_asked(self.headers) => {
                        self.json_patch(model, entity, id, &parameters, body).await
                    }
                    Method::PATCH => self.write(model, entity, Some(id), &parameters, Some(body), OBJECT_PATCHES).await,
                    Method::DELETE => self.write(model, entity, Some(id), &parameters, None, &[]).await,
                    _ => Err(not_allowed("DELETE, GET, HEAD, PATCH, PUT")),
                }
            }
            Route::History(model, entity, id) => {
                let id = id_of(self.entity(model, entity)?.as_ref(), id)?;
                if !reads {
                    return Err(not_allowed("GET, HEAD"));
                }
                let parameters = &parameters;
                self.again_when_stale(|plans| async move {
                    let plan = entity_of(&plans, model, entity)?;
                    history::versions(&self.service.gate, &plan, id, self.path, parameters).await
                })
                .await
            }
        }
    }

    fn plans(&self) -> Arc<Plans> {
        self.service.plans.of(&self.service.catalog.current())
    }

    fn model(&self, model: &str) -> Result<Arc<ModelPlan>, Problem> {
        let plans = self.plans();
        let found = plans.models.get(model).cloned();
        found.ok_or_else(|| Problem::not_found(format!("There is no model {model}; GET /api lists what there is.")))
    }

    fn entity(&self, model: &str, entity: &str) -> Result<Arc<EntityPlan>, Problem> {
        entity_of(&self.plans(), model, entity)
    }

    fn models(&self) -> Bytes {
        let plans = self.plans();
        let models: Vec<_> = plans
            .models
            .values()
            .map(|plan| {
                let name = &plan.model.name;
                let entities: Vec<_> = plan
                    .model
                    .entities
                    .iter()
                    .map(|entity| json!({"name": entity.name, "description": entity.description, "path": format!("/api/{name}/{}", entity.path)}))
                    .collect();
                json!({
                    "name": name,
                    "description": plan.model.description,
                    "path": format!("/api/{name}"),
                    "openapi": format!("/api/{name}/openapi.json"),
                    "asyncapi": format!("/api/{name}/asyncapi.json"),
                    "entities": entities,
                })
            })
            .collect();
        json!({"models": models}).to_string().into()
    }

    async fn list(&self, model: &str, entity: &str, parameters: &[(String, String)]) -> Result<Response<Body>, Problem> {
        let representation = Representation::accepted(self.headers);
        self.again_when_stale(|plans| async move {
            let plan = entity_of(&plans, model, entity)?;
            if aggregate::is_asked(parameters) {
                return reading::aggregates(&self.service.gate, &plans, &plan, parameters).await;
            }
            match representation {
                Representation::Json => reading::page(&self.service.gate, &plans, &plan, self.path, parameters).await,
                streamed => reading::stream(&self.service.streams, &plans, &plan, parameters, streamed).await,
            }
        })
        .await
    }

    async fn events(&self, plan: Arc<EntityPlan>, parameters: &[(String, String)]) -> Result<Response<Body>, Problem> {
        let Service { catalog, gate, metrics, .. } = self.service;
        let request = SubscribeRequest { plan, parameters, headers: self.headers, catalog, gate, metrics };
        self.service.subscriptions.subscribe(request).await.map_err(problem)
    }

    async fn write(
        &self,
        model: &str,
        entity: &str,
        id: Option<Uuid>,
        parameters: &[(String, String)],
        body: Option<Body>,
        accepted: &'static [&'static str],
    ) -> Result<Response<Body>, Problem> {
        let (representation, (bytes, _memory)) = match body {
            Some(body) => {
                let representation = self.check_content_type(accepted)?;
                if self.method == Method::POST && self.comes_in_pieces(representation) {
                    return self.write_in_pieces(model, entity, parameters, representation, body).await;
                }
                (representation, self.read_body(body).await?)
            }
            None => (Representation::Json, (Bytes::new(), None)),
        };
        let request =
            WriteRequest { method: &self.method, target: self.target, parameters, headers: self.headers, id, representation, body: &bytes };
        let request = &request;
        let put_if_absent = self.method == Method::PUT && self.headers.contains_key(header::IF_NONE_MATCH);
        self.again_when_stale(|plans| async move {
            let plan = entity_of(&plans, model, entity)?;
            let read = objects::read(request, &plan)?;
            let Service { gate, writings, metrics, .. } = self.service;
            objects::together::write(writings, gate, metrics, &plan, (request, read), put_if_absent).await
        })
        .await
    }

    async fn json_patch(
        &self,
        model: &str,
        entity: &str,
        id: Uuid,
        parameters: &[(String, String)],
        body: Body,
    ) -> Result<Response<Body>, Problem> {
        let (bytes, _memory) = self.read_body(body).await?;
        let (method, target, headers, representation) = (&self.method, self.target, self.headers, Representation::Json);
        let request = WriteRequest { method, target, parameters, headers, id: Some(id), representation, body: &bytes };
        let request = &request;
        self.again_when_stale(|plans| async move {
            let plan = entity_of(&plans, model, entity)?;
            objects::patched::write(&self.service.gate, &self.service.metrics, request, &plan).await
        })
        .await
    }

    // Whether a list of new objects is so large, or may be, that it is not held in memory. Its objects are then not answered.
    fn comes_in_pieces(&self, representation: Representation) -> bool {
        representation != Representation::Json
            && objects::prefers_minimal(self.headers)
            && self.declared_length().is_none_or(|length| length > WHOLE_UP_TO.min(self.service.most_body))
    }

    async fn write_in_pieces(
        &self,
        model: &str,
        entity: &str,
        parameters: &[(String, String)],
        representation: Representation,
        body: Body,
    ) -> Result<Response<Body>, Problem> {
        self.check_content_encoding()?;
        let plan = self.entity(model, entity)?;
        let (kind, apart) = objects::mode(&self.method, parameters, false)?;
        if apart {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload-too-large",
                format!("With onError=continue the body's length must be declared, and be at most {WHOLE_UP_TO} bytes; send it in parts."),
            ));
        }
        let _memory = self.reserve(streamed::MEMORY).await?;
        let (target, headers, patience) = (self.target, self.headers, self.service.body_patience);
        let incoming = streamed::Incoming { target, headers, representation, kind, body, patience };
        let (response, counts) = streamed::write(&self.service.streams, &plan, incoming).await?;
        self.service.metrics.wrote_in_pieces(&counts);
        Ok(response)
    }

    async fn transactions(&self, body: Body) -> Result<Response<Body>, Problem> {
        self.check_content_type(&["application/json"])?;
        let (bytes, _memory) = self.read_body(body).await?;
        let text = body::text(&bytes)?;
        let key = objects::idempotency_key(self.headers)?;
        let key = key.as_deref();
        self.again_when_stale(|plans| async move {
            let mut request = transactions::read(text, &plans, key)?;
            request.continue_trace(objects::traceparent(self.headers));
            let outcomes = write::apply(&self.service.gate, &request.work, request.failed).await?;
            self.service.metrics.wrote(&outcomes);
            Ok(json_response(transactions::answer(outcomes).into()))
        })
        .await
    }

    // Once more with the newest catalog, where the tables turned out to be others, or where a name is not known yet.
    async fn again_when_stale<F: Future<Output = Result<Response<Body>, Failure>>>(
        &self,
        mut answer: impl FnMut(Arc<Plans>) -> F,
    ) -> Result<Response<Body>, Problem> {
        match answer(self.plans()).await {
            Err(Failure::Database(error)) if meaning(&error) == Meaning::Stale => {
                tracing::info!(%error, "the tables have changed; reading the catalog");
                let catalog: Arc<Catalog> = self.service.catalog.refresh().await.map_err(|error| {
                    tracing::warn!(error = %autonomy_process::telemetry::error_chain(&error), "the catalog can't be read");
                    Problem::unavailable("The database can't be reached; try again.")
                })?;
                answer(self.service.plans.of(&catalog)).await.map_err(problem)
            }
            answered => answered.map_err(problem),
        }
    }

    // What the body is; JSON where nothing says, and a merge patch is JSON too.
    fn check_content_type(&self, accepted: &'static [&'static str]) -> Result<Representation, Problem> {
        let Some(media_type) = content_type(self.headers) else { return Ok(Representation::Json) };
        if accepted.iter().any(|accepted| media_type.eq_ignore_ascii_case(accepted)) {
            return Ok(Representation::of_media_type(media_type).unwrap_or(Representation::Json));
        }
        let detail = format!("The body must be {}.", accepted.join(" or "));
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail))
    }

    // What is known was decoded before, and its header taken off.
    fn check_content_encoding(&self) -> Result<(), Problem> {
        let coding = self.headers.get(header::CONTENT_ENCODING).filter(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        let Some(coding) = coding else { return Ok(()) };
        let detail = format!("The body's Content-Encoding is {}; gzip and zstd are taken.", String::from_utf8_lossy(coding.as_bytes()));
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-content-encoding", detail))
    }

    fn declared_length(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
    }

    // Memory for a body of so many bytes.
    async fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Problem> {
        let reserved = bytes.div_ceil(BUDGET_UNIT).max(1) as u32;
        match tokio::time::timeout(Duration::from_secs(5), self.service.budget.clone().acquire_many_owned(reserved)).await {
            Ok(Ok(memory)) => Ok(memory),
            _ => Err(Problem::unavailable("Too many large bodies are being worked on; try again.")),
        }
    }

    // The body, and the memory reserved for it.
    async fn read_body(&self, body: Body) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
        self.check_content_encoding()?;
        let most = self.service.most_body;
        let too_large = || {
            Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload-too-large",
                format!(
                    "The body must have at most {most} bytes; send it in parts. Lists of new objects of any size are taken as NDJSON or CSV \
                     with Prefer: return=minimal."
                ),
            )
        };
        let declared = self.declared_length();
        if declared.is_some_and(|length| length > most) {
            return Err(too_large());
        }
        let memory = self.reserve(declared.unwrap_or(most)).await?;
        let reading = async {
            let mut stream = body.into_data_stream();
            let mut bytes = BytesMut::with_capacity(declared.unwrap_or(0).min(most) as usize);
            while let Some(piece) = stream.next().await {
                let piece = piece.map_err(|_| body::unreadable())?;
                if (bytes.len() + piece.len()) as u64 > most {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes.freeze())
        };
        match tokio::time::timeout(self.service.body_patience, reading).await {
            Ok(bytes) => Ok((bytes?, Some(memory))),
            Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "The body took too long to come.")),
        }
    }
}

fn entity_of(plans: &Plans, model: &str, entity: &str) -> Result<Arc<EntityPlan>, Problem> {
    let Some(model_plan) = plans.models.get(model) else {
        return Err(Problem::not_found(format!("There is no model {model}; GET /api lists what there is.")));
    };
    model_plan
        .by_path(entity)
        .cloned()
        .ok_or_else(|| Problem::not_found(format!("Model {model} has no entity at {entity}; GET /api lists what there is.")))
}

fn id_of(plan: &EntityPlan, id: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(id).map_err(|_| Problem::not_found(format!("There is no {} with this id: it is no UUID.", plan.entity().name)))
}

fn not_allowed(allow: &'static str) -> Problem {
    let mut problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", format!("This path takes {allow}."));
    problem.allow = Some(allow);
    problem
}

fn json_response(json: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
