//! How much waits for each service, for KEDA's metrics-api scaler: `GET /lag/{namespace}/{service}` gives `{"lag": 12}`. Where NATS does not tell,
//! the answer is 503, so that KEDA leaves the workers as they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::jetstream;
use autonomy_process::service_consumers::{Lag, LagError, ServiceConsumers};
use autonomy_process::telemetry::error_chain;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

#[derive(Clone)]
struct Entry {
    jetstream: jetstream::Context,
    consumers: Arc<ServiceConsumers>,
}

/// The services whose lag can be asked for, by namespace and name.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<HashMap<(String, String), Entry>>>);

impl Board {
    /// From now on the service's lag can be asked for.
    pub fn put(&self, namespace: &str, service: &str, jetstream: jetstream::Context, consumers: ServiceConsumers) {
        let entry = Entry { jetstream, consumers: Arc::new(consumers) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((namespace.to_owned(), service.to_owned()), entry);
    }

    /// Forgets services that are not there any more.
    pub fn keep(&self, is_there: impl Fn(&str, &str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(namespace, service), _| is_there(namespace, service));
    }

    async fn lag(&self, namespace: &str, service: &str) -> Option<Result<Lag, LagError>> {
        let key = (namespace.to_owned(), service.to_owned());
        let entry = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()?;
        Some(entry.consumers.lag(&entry.jetstream).await)
    }

    /// The route.
    pub fn router(self) -> Router {
        Router::new().route("/lag/{namespace}/{service}", get(answer)).with_state(self)
    }
}

async fn answer(State(board): State<Board>, Path((namespace, service)): Path<(String, String)>) -> Response {
    match board.lag(&namespace, &service).await {
        None => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the lag of {namespace}/{service} is not known to this replica\n")).into_response()
        }
        Some(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", error_chain(&error))).into_response(),
        Some(Ok(lag)) => Json(json!({
            "lag": lag.total(),
            "pending": lag.pending,
            "unacknowledged": lag.unacknowledged,
            "retries": lag.retries,
        }))
        .into_response(),
    }
}
