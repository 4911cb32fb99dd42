//! Command line options and environment variables that several roles take. Secrets come from the environment only, so that no process
//! list shows them.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

/// The PostgreSQL database of the DataPlatform.
#[derive(Clone, Args)]
pub struct DatabaseOptions {
    /// Connection URL, `postgres://user:password@host:port/database`; best given in the environment.
    #[arg(long, env = "AUTONOMY_DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// The most connections this process holds open.
    #[arg(long, env = "AUTONOMY_DATABASE_CONNECTIONS", default_value_t = 8)]
    pub database_connections: u32,
}

/// A database URL that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("AUTONOMY_DATABASE_URL is not a PostgreSQL connection URL")]
pub struct BadDatabaseUrl(#[source] sqlx::Error);

impl DatabaseOptions {
    /// A pool that connects when it is first used. Sessions speak UTC and ISO dates, on which the JSON form of values relies.
    pub fn pool(&self, application: &str) -> Result<PgPool, BadDatabaseUrl> {
        let options = PgConnectOptions::from_str(&self.database_url)
            .map_err(BadDatabaseUrl)?
            .application_name(application)
            .options([("TimeZone", "UTC"), ("DateStyle", "ISO"), ("IntervalStyle", "iso_8601"), ("bytea_output", "hex")]);
        Ok(PgPoolOptions::new()
            .max_connections(self.database_connections)
            .acquire_timeout(Duration::from_secs(10))
            .connect_lazy_with(options))
    }
}

impl std::fmt::Debug for DatabaseOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseOptions").finish_non_exhaustive()
    }
}

/// The NATS system of the DataPlatform.
#[derive(Clone, Args)]
pub struct NatsOptions {
    /// Connection URL, `nats://user:password@host:port`; best given in the environment.
    #[arg(long, env = "AUTONOMY_NATS_URL", hide_env_values = true)]
    pub nats_url: String,
    /// The `sync_interval` of the NATS servers and some reserve: what was acknowledged this long ago counts as being on disk.
    #[arg(long, env = "AUTONOMY_NATS_SYNC_INTERVAL", default_value = "2m15s", value_parser = autonomy_crds::names::parse_duration)]
    pub nats_sync_interval: Duration,
}

impl std::fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsOptions").field("nats_sync_interval", &self.nats_sync_interval).finish_non_exhaustive()
    }
}

/// The endpoint for probes and metrics.
#[derive(Clone, Debug, Args)]
pub struct OperationsOptions {
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    #[arg(long, env = "AUTONOMY_OPERATIONS_LISTEN", default_value = "127.0.0.1:9090")]
    pub operations_listen: SocketAddr,
}
