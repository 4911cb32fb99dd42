//! The object API: every entity of every model as objects over HTTP, read from and written to PostgreSQL.
//!
//! A request becomes a plan and the plan becomes SQL: [`plan`] holds the models made ready, [`query`] and [`body`] read requests against
//! them, [`write`] and [`reading`] do them, and [`sql`] is the only place with SQL text.

pub mod aggregate;
pub mod asyncapi;
pub mod body;
mod connections;
pub mod database;
pub mod docs;
pub mod embed;
pub mod etag;
pub mod events;
pub mod gathering;
pub mod history;
pub mod json_patch;
pub mod metrics;
pub mod named;
pub mod new_id;
pub mod objects;
pub mod openapi;
pub mod part;
pub mod plan;
pub mod problem;
pub mod query;
pub mod reading;
pub mod representation;
pub mod rows;
pub mod server;
pub mod sql;
pub mod transactions;
pub mod value;
pub mod write;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use autonomy_process::catalog::{CatalogError, CatalogFollower};
use autonomy_process::operations::{self, Readiness};
use autonomy_process::options::{BadDatabaseUrl, DatabaseOptions, NatsConnectError};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use prometheus_client::registry::Registry;
use sqlx::Row;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::decompression::{DecompressionBody, RequestDecompressionLayer};

use crate::connections::Patience;
use crate::database::Gate;
use crate::events::{EventOptions, Subscriptions};
use crate::gathering::Gathering;
use crate::metrics::Metrics;
use crate::plan::PlanCache;
use crate::server::Service;

// How long a request waits for its place at the database.
const PATIENCE: Duration = Duration::from_secs(5);
// Requests that wait for a place at the database, at the most; more are sent away at once.
const MOST_WAITING: usize = 512;
// Requests of one object each that wait to be done together, at the most.
const MOST_GATHERED: usize = 4096;
// How often the database is asked whether it is there, for `/readyz`.
const PROBE: Duration = Duration::from_secs(2);

// How long streams may go on after the stop was asked for.
const FAREWELL: Duration = Duration::from_secs(10);
// How often old idempotency keys are looked for, and how many are forgotten at once.
const FORGET_PAUSE: Duration = Duration::from_secs(600);
const FORGET_ROWS: i64 = 10_000;

/// Options of the object API.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseOptions,
    /// Where the API is served; `/healthz`, `/readyz` and `/metrics` too.
    #[arg(long, env = "AUTONOMY_API_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The largest body, in bytes.
    #[arg(long, env = "AUTONOMY_API_MAX_BODY", default_value_t = 32 * 1024 * 1024)]
    pub max_body: u64,
    /// Memory for the bodies of all requests at a time, in bytes.
    #[arg(long, env = "AUTONOMY_API_BODY_MEMORY", default_value_t = 256 * 1024 * 1024)]
    pub body_memory: u64,
    /// How long a request's headers may take to come, from their first byte: a connection that is slower is closed.
    #[arg(long, env = "AUTONOMY_API_HEADER_PATIENCE", default_value = "10s", value_parser = autonomy_crds::names::parse_duration)]
    pub header_patience: Duration,
    /// How long a connection is kept that nobody uses. Longer than clients and proxies keep theirs, so that none is closed as it is used again.
    #[arg(long, env = "AUTONOMY_API_IDLE_PATIENCE", default_value = "2m", value_parser = autonomy_crds::names::parse_duration)]
    pub idle_patience: Duration,
    /// How long a body may take to come; of one that is taken in pieces, how long nothing may come.
    #[arg(long, env = "AUTONOMY_API_BODY_PATIENCE", default_value = "60s", value_parser = autonomy_crds::names::parse_duration)]
    pub body_patience: Duration,
    /// How long idempotency keys are kept: longer than any client sends a request again, and than any event is delivered again.
    #[arg(long, env = "AUTONOMY_API_IDEMPOTENCY_RETENTION", default_value = "2160h", value_parser = autonomy_crds::names::parse_duration)]
    pub idempotency_retention: Duration,
    /// Subscriptions.
    #[command(flatten)]
    pub events: EventOptions,
}

/// Why the object API stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database's URL can't be used.
    #[error(transparent)]
    DatabaseUrl(#[from] BadDatabaseUrl),
    /// The URL of NATS can't be used.
    #[error(transparent)]
    Nats(#[from] NatsConnectError),
    /// The address can't be had.
    #[error("can't listen at {0}; is another process there?")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The server ended.
    #[error("the server ended")]
    Serve(#[source] std::io::Error),
}

/// Serves the object API until `stop`.
///
/// # Errors
/// When it can't be served.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), Error> {
    let listener = TcpListener::bind(options.listen).await.map_err(|error| Error::Listen(options.listen, error))?;
    run_on(listener, options, stop).await
}

/// [`run`] on a listener of one's own.
///
/// # Errors
/// When it can't be served.
pub async fn run_on(listener: TcpListener, options: Options, stop: CancellationToken) -> Result<(), Error> {
    let pool = options.database.pool("autonomy-api", &database::SETTINGS)?;
    let subscriptions = Subscriptions::new(&options.events, stop.clone()).await?;
    let address = listener.local_addr().map_err(Error::Serve)?;
    let patience = Patience { headers: options.header_patience, idle: options.idle_patience };
    let readiness = Readiness::default();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let operations = operations::router(Arc::new(registry), readiness.clone());
    // Before the catalog is read there is nothing to serve but the probes.
    let service = Arc::new(OnceLock::new());
    tokio::spawn(begin_service(pool.clone(), options, subscriptions, metrics, readiness, service.clone(), stop.clone()));
    let router = Router::new()
        .merge(operations)
        .fallback(move |request: Request| server::serve_when_ready(service.clone(), request))
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        // A coding that is not known is refused by the server, as a problem.
        .layer((
            RequestDecompressionLayer::new().pass_through_unaccepted(true),
            MapRequestLayer::new(|request: Request<DecompressionBody<Body>>| request.map(Body::new)),
        ));
    tracing::info!(%address, "the object API is served");
    connections::serve(listener, router, patience, FAREWELL, stop).await;
    Ok(())
}

async fn begin_service(
    pool: sqlx::PgPool,
    options: Options,
    subscriptions: Subscriptions,
    metrics: Metrics,
    readiness: Readiness,
    service: Arc<OnceLock<Arc<Service>>>,
    stop: CancellationToken,
) {
    let catalog = tokio::select! {
        () = stop.cancelled() => return,
        catalog = first_catalog(&pool, &readiness, &stop) => catalog,
    };
    // One connection listens for changes of the catalog; streams get a part of the rest.
    let places = (options.database.database_connections as usize).saturating_sub(1).max(2);
    let stream_places = (places / 3).max(1);
    let gate = Gate::new(pool.clone(), places - stream_places, MOST_WAITING, PATIENCE);
    let budget = options.body_memory.max(options.max_body).div_ceil(1024) as usize;
    let made = Service {
        catalog,
        plans: PlanCache::default(),
        gate: gate.clone(),
        streams: Gate::new(pool.clone(), stream_places, MOST_WAITING, PATIENCE),
        readings: Gathering::new(MOST_GATHERED),
        writings: Gathering::new(MOST_GATHERED),
        budget: Arc::new(Semaphore::new(budget.min(Semaphore::MAX_PERMITS))),
        most_body: options.max_body,
        body_patience: options.body_patience,
        subscriptions,
        metrics,
    };
    if service.set(Arc::new(made)).is_ok() {
        readiness.ready();
    }
    tokio::join!(probe(pool, readiness, stop.clone()), forget_old_keys(gate, options.idempotency_retention, stop));
}

// Idempotency keys are kept long, and not for ever. A few at a time, so that nobody waits for it.
async fn forget_old_keys(gate: Gate, retention: Duration, stop: CancellationToken) {
    let seconds = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
    let mut pause = FORGET_PAUSE;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let forgotten = match gate.session().await {
            Ok(mut session) => session.rows(sql::forget_keys(seconds, FORGET_ROWS)).await,
            Err(_) => continue,
        };
        let count: i64 = match forgotten {
            Ok(rows) => rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "old idempotency keys can't be forgotten now");
                0
            }
        };
        pause = if count == FORGET_ROWS { Duration::from_secs(1) } else { FORGET_PAUSE };
    }
}

// Tries until the catalog is read; the process may be there before its database.
async fn first_catalog(pool: &sqlx::PgPool, readiness: &Readiness, stop: &CancellationToken) -> CatalogFollower {
    loop {
        match CatalogFollower::start(pool.clone(), stop.clone()).await {
            Ok(follower) => return follower,
            Err(error) => wait_after(&error, readiness).await,
        }
    }
}

async fn wait_after(error: &CatalogError, readiness: &Readiness) {
    let reason = autonomy_process::telemetry::error_chain(error);
    tracing::warn!(error = %reason, "the catalog can't be read yet; trying again");
    readiness.not_ready(reason);
    tokio::time::sleep(Duration::from_secs(1)).await;
}

async fn probe(pool: sqlx::PgPool, readiness: Readiness, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PROBE) => {}
        }
        match tokio::time::timeout(PROBE, sqlx::query("SELECT 1").execute(&pool)).await {
            Ok(Ok(_)) => readiness.ready(),
            Ok(Err(error)) => readiness.not_ready(format!("the database can't be reached: {error}")),
            // All connections are busy: that is work, not failure.
            Err(_) => {}
        }
    }
}
