//! How much waits for each service, for KEDA's metrics-api scaler: `GET /lag/{namespace}/{service}` gives `{"lag": 12}`. Where NATS or the bucket does
//! not tell, the answer is 503, so that KEDA leaves the workers as they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use autonomy_process::object_storage::{Inbox, InboxError};
use autonomy_process::service_consumers::{Lag, LagError, ServiceConsumers};
use autonomy_process::telemetry::error_chain;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

/// How often KEDA asks, in seconds.
pub const POLLING_SECONDS: u32 = 5;

/// A service's namespace and name.
pub type ServiceKey = (String, String);

/// What waits for a service.
#[derive(Clone, Debug)]
pub enum Backlog {
    /// Events in streams.
    Events(Arc<ServiceConsumers>),
    /// Files in a bucket.
    Files(Arc<Inbox>),
    /// What only its worker sees.
    Unseen,
}

/// How much waits can't be told at the moment.
#[derive(Debug, thiserror::Error)]
pub enum BacklogError {
    /// NATS does not tell.
    #[error(transparent)]
    Events(#[from] LagError),
    /// The bucket can't be listed.
    #[error(transparent)]
    Files(#[from] InboxError),
}

/// A service as it can be looked at without its workers.
#[derive(Clone)]
pub struct Entry {
    /// Its platform's JetStream.
    pub jetstream: jetstream::Context,
    /// Which connection that is: another one begins anew.
    pub connection: u64,
    /// What waits for it.
    pub backlog: Backlog,
}

impl Entry {
    /// How much waits; none where only the worker sees it. Files count as pending.
    ///
    /// # Errors
    /// When it can't be told, so that nobody takes silence for an empty queue.
    pub async fn lag(&self) -> Result<Option<Lag>, BacklogError> {
        match &self.backlog {
            Backlog::Events(consumers) => Ok(Some(consumers.lag(&self.jetstream).await?)),
            Backlog::Files(inbox) => Ok(Some(Lag { pending: inbox.waiting().await?, ..Lag::default() })),
            Backlog::Unseen => Ok(None),
        }
    }
}

#[derive(Default)]
struct Entries {
    services: HashMap<ServiceKey, Entry>,
    // When their first worker was started because something came.
    woken: HashMap<ServiceKey, Instant>,
}

/// The services whose lag can be asked for, by namespace and name.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<Entries>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the service's lag can be asked for.
    pub fn put(&self, namespace: &str, service: &str, entry: Entry) {
        self.lock().services.insert((namespace.to_owned(), service.to_owned()), entry);
    }

    /// Forgets services that are not there any more.
    pub fn keep(&self, is_there: impl Fn(&str, &str) -> bool) {
        let mut entries = self.lock();
        entries.services.retain(|(namespace, service), _| is_there(namespace, service));
        entries.woken.retain(|(namespace, service), _| is_there(namespace, service));
    }

    /// All of them.
    pub fn entries(&self) -> Vec<(ServiceKey, Entry)> {
        self.lock().services.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// One of them.
    pub fn entry(&self, key: &ServiceKey) -> Option<Entry> {
        self.lock().services.get(key).cloned()
    }

    /// The service's first worker was started. What made it necessary may be done before KEDA asks next; KEDA must see it all the same, so that
    /// its cooldown begins.
    pub fn woke(&self, key: &ServiceKey) {
        self.lock().woken.insert(key.clone(), Instant::now());
    }

    fn woke_just_now(&self, key: &ServiceKey) -> bool {
        self.lock().woken.get(key).is_some_and(|at| at.elapsed() < Duration::from_secs(2 * u64::from(POLLING_SECONDS)))
    }

    /// The route.
    pub fn router(self) -> Router {
        Router::new().route("/lag/{namespace}/{service}", get(answer)).with_state(self)
    }
}

async fn answer(State(board): State<Board>, Path(key): Path<ServiceKey>) -> Response {
    let lag = match board.entry(&key) {
        Some(entry) => entry.lag().await,
        None => Ok(None),
    };
    match lag {
        Ok(None) => {
            let (namespace, service) = key;
            (StatusCode::SERVICE_UNAVAILABLE, format!("the lag of {namespace}/{service} is not known to this replica\n")).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", error_chain(&error))).into_response(),
        Ok(Some(lag)) => Json(json!({
            "lag": lag.total().max(u64::from(board.woke_just_now(&key))),
            "pending": lag.pending,
            "unacknowledged": lag.unacknowledged,
            "retries": lag.retries,
        }))
        .into_response(),
    }
}
