//! The caches for a handler: look-ups over HTTP, on localhost only.
//!
//! `GET /caches/{cache}?{member}={value}` gives the object, or 404. `POST /caches/{cache}` with `{"by": member, "keys": [...]}` gives a list: an object
//! or null for each key. Members are `id` and the cache's indexes (of several members the key is an object); objects have the cache's fields.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Caches;
use crate::expression::Value;
use crate::service::CompiledService;
use crate::steps::Lookups;

// Of one request.
const MOST_KEYS: usize = 10_000;

#[derive(Clone)]
struct Served {
    caches: Caches,
    service: Arc<CompiledService>,
}

#[derive(Deserialize)]
struct Asked {
    by: String,
    // As they are written: numbers keep their digits.
    keys: Vec<Box<RawValue>>,
}

/// Serves look-ups on this port of localhost until `stop`.
///
/// # Errors
/// When the port can't be had.
pub async fn serve(port: u16, caches: Caches, service: Arc<CompiledService>, stop: CancellationToken) -> std::io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let router = Router::new().route("/caches/{cache}", get(one).post(many)).with_state(Served { caches, service });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "the handler's look-ups stopped");
        }
    });
    Ok(())
}

async fn one(State(served): State<Served>, Path(cache): Path<String>, Query(asked): Query<Vec<(String, String)>>) -> Response {
    let [(by, value)] = asked.as_slice() else {
        return problem(StatusCode::BAD_REQUEST, "ask by one member, as in /caches/customers?customerNumber=C0000042");
    };
    if let Err(refused) = served.check(&cache, by) {
        return *refused;
    }
    match served.caches.find(&cache, by, &Value::text(value)) {
        Some(object) => answer(object.to_json()),
        None => problem(StatusCode::NOT_FOUND, &format!("the cache {cache} has no object with {by} = {value}")),
    }
}

async fn many(State(served): State<Served>, Path(cache): Path<String>, Json(asked): Json<Asked>) -> Response {
    if let Err(refused) = served.check(&cache, &asked.by) {
        return *refused;
    }
    if asked.keys.len() > MOST_KEYS {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, &format!("a request has {MOST_KEYS} keys at the most"));
    }
    let key = |key: &RawValue| Value::from_json(key.get().as_bytes()).ok().filter(|key| !matches!(key, Value::Null | Value::List(_)));
    let found = asked.keys.iter().map(|asked_key| key(asked_key).and_then(|key| served.caches.find(&cache, &asked.by, &key)));
    answer(Value::list(found.map(Option::unwrap_or_default)).to_json())
}

impl Served {
    // Whether the cache can be asked by this member now.
    fn check(&self, cache: &str, by: &str) -> Result<(), Box<Response>> {
        let refused = |status, detail: String| Err(Box::new(problem(status, &detail)));
        let Some(declared) = self.service.caches.iter().find(|declared| declared.name == cache) else {
            let names: Vec<&str> = self.service.caches.iter().map(|declared| declared.name.as_str()).collect();
            return refused(StatusCode::NOT_FOUND, format!("there is no cache {cache}; the service has: {}", names.join(", ")));
        };
        if !declared.is_found_by(by) {
            return refused(StatusCode::BAD_REQUEST, format!("there is no index {by}: {}", declared.found_by()));
        }
        self.caches.ready().or_else(|reason| refused(StatusCode::SERVICE_UNAVAILABLE, reason))
    }
}

fn answer(json: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({"title": status.canonical_reason(), "status": status.as_u16(), "detail": detail});
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
