//! Command line options and environment variables that several roles take. Secrets come from the environment only, so that no process
//! list shows them.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

// For so long a connection is trusted to be there still.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

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
    /// A pool that connects when it is first used. Sessions speak UTC and ISO dates, on which the JSON form of values relies; `settings` are
    /// theirs beside that.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn pool(&self, application: &str, settings: &[(&str, &str)]) -> Result<PgPool, BadDatabaseUrl> {
        let options = PgConnectOptions::from_str(&self.database_url)
            .map_err(BadDatabaseUrl)?
            .application_name(application)
            .options([("TimeZone", "UTC"), ("DateStyle", "ISO"), ("IntervalStyle", "iso_8601"), ("bytea_output", "hex")])
            .options(settings.iter().copied());
        Ok(PgPoolOptions::new()
            .max_connections(self.database_connections)
            .acquire_timeout(Duration::from_secs(10))
            // A connection that was used just now is there; asking each time would be a round trip a request.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
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

/// A NATS URL that can't be used, or a server that can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum NatsConnectError {
    /// The URL is none.
    #[error("AUTONOMY_NATS_URL is not a NATS connection URL")]
    Url(#[source] std::io::Error),
    /// No connection.
    #[error("can't connect to NATS")]
    Connect(#[from] async_nats::ConnectError),
}

/// Options of a connection with the user and password (or the token) that stand in the URL, which async-nats does not use by itself.
///
/// # Errors
/// When the URL is none.
pub fn nats_connect_options(url: &str) -> Result<async_nats::ConnectOptions, NatsConnectError> {
    let address: async_nats::ServerAddr = url.parse().map_err(NatsConnectError::Url)?;
    let options = async_nats::ConnectOptions::new();
    Ok(match (address.username(), address.password()) {
        (Some(user), Some(password)) => options.user_and_password(user.to_owned(), password.to_owned()),
        (Some(token), None) => options.token(token.to_owned()),
        _ => options,
    })
}

impl NatsOptions {
    /// Connects; `name` is shown in the server's list of connections. Where the server is away, later or from the start, it keeps trying.
    ///
    /// # Errors
    /// When the URL is none.
    pub async fn connect(&self, name: &str) -> Result<async_nats::Client, NatsConnectError> {
        let options = nats_connect_options(&self.nats_url)?.name(name).retry_on_initial_connect();
        Ok(options.connect(&self.nats_url).await?)
    }
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
