//! The object API: every entity of every model as objects over HTTP, read from and written to PostgreSQL.
//!
//! A request becomes a plan and the plan becomes SQL: [`plan`] holds the models made ready, [`query`] and [`body`] read requests against
//! them, [`write`] and [`reading`] do them, and [`sql`] is the only place with SQL text.

pub mod body;
pub mod database;
pub mod metrics;
pub mod objects;
pub mod openapi;
pub mod part;
pub mod plan;
pub mod problem;
pub mod query;
pub mod reading;
pub mod rows;
pub mod server;
pub mod sql;
pub mod transactions;
pub mod value;
pub mod write;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use autonomy_process::catalog::{CatalogError, CatalogFollower};
use autonomy_process::operations::{self, Readiness};
use autonomy_process::options::{BadDatabaseUrl, DatabaseOptions};
use axum::Router;
use axum::extract::Request;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::database::Gate;
use crate::metrics::Metrics;
use crate::server::Service;

// How long a request waits for its place at the database.
const PATIENCE: Duration = Duration::from_secs(5);
// Requests that wait for a place at the database, at the most; more are sent away at once.
const MOST_WAITING: usize = 512;
// How often the database is asked whether it is there, for `/readyz`.
const PROBE: Duration = Duration::from_secs(2);

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
}

/// Why the object API stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database's URL can't be used.
    #[error(transparent)]
    DatabaseUrl(#[from] BadDatabaseUrl),
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
    let pool = options.database.pool("autonomy-api")?;
    let address = listener.local_addr().map_err(Error::Serve)?;
    let readiness = Readiness::default();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let operations = operations::router(Arc::new(registry), readiness.clone());
    // Before the catalog is read there is nothing to serve but the probes.
    let started = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        catalog = first_catalog(&pool, &readiness, &stop) => catalog,
    };
    // One connection listens for changes of the catalog; streams get a part of the rest.
    let places = (options.database.database_connections as usize).saturating_sub(1).max(2);
    let stream_places = (places / 3).max(1);
    let service = Arc::new(Service {
        catalog: started,
        plans: Default::default(),
        gate: Gate::new(pool.clone(), (places - stream_places).max(1), MOST_WAITING, PATIENCE),
        streams: Gate::new(pool.clone(), stream_places, MOST_WAITING, PATIENCE),
        budget: Arc::new(Semaphore::new((options.body_memory.max(options.max_body).div_ceil(1024) as usize).min(Semaphore::MAX_PERMITS))),
        most_body: options.max_body,
        metrics,
    });
    tokio::spawn(probe(pool.clone(), readiness, stop.clone()));
    let router = Router::new().merge(operations).fallback(move |request: Request| server::serve(service.clone(), request));
    tracing::info!(%address, "the object API is served");
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.map_err(Error::Serve)?;
    pool.close().await;
    Ok(())
}

// Tries until the catalog is read; the process may be there before its database.
async fn first_catalog(pool: &sqlx::PgPool, readiness: &Readiness, stop: &CancellationToken) -> CatalogFollower {
    loop {
        match CatalogFollower::start(pool.clone(), stop.clone()).await {
            Ok(follower) => {
                readiness.ready();
                return follower;
            }
            Err(error) => wait_after(&error, readiness).await,
        }
    }
}

async fn wait_after(error: &CatalogError, readiness: &Readiness) {
    let reason = autonomy_process::catalog::error_chain(error);
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
