//! The databases and NATS systems of the DataPlatforms, opened once and shared by all that reconcile on them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream;
use autonomy_process::options::{DatabaseOptions, NatsConnectError, nats_connect_options};
use sqlx::PgPool;

use crate::catalog::{self, Catalog, CatalogError};

const DATABASE_CONNECTIONS: u32 = 4;
const NATS_PATIENCE: Duration = Duration::from_secs(5);

static OPENED: AtomicU64 = AtomicU64::new(0);

/// Why a platform's systems can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The database URL is none.
    #[error("the PostgreSQL URL is not usable; it has the form postgres://user:password@host:port/database")]
    DatabaseUrl(#[from] autonomy_process::options::BadDatabaseUrl),
    /// NATS can't be reached.
    #[error("NATS can't be reached")]
    Nats(#[from] NatsConnectError),
    /// NATS did not answer in time.
    #[error("NATS did not answer within {NATS_PATIENCE:?}")]
    NatsTimeout,
}

/// The URLs of a platform's systems, with passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Urls {
    /// PostgreSQL's, as the owner of the database.
    pub postgresql: String,
    /// NATS'.
    pub nats: String,
}

/// A platform's systems.
#[derive(Clone)]
pub struct Connection {
    /// The database, as its owner.
    pub database: PgPool,
    /// JetStream.
    pub jetstream: jetstream::Context,
    /// Another one for each time that a platform's systems are opened.
    pub number: u64,
    catalog: Arc<Mutex<Arc<Catalog>>>,
}

impl Connection {
    /// The catalog as it is now; entries that did not change since the last time are not read again.
    ///
    /// # Errors
    /// When the database can't be read or an entry is not understood.
    pub async fn catalog(&self) -> Result<Arc<Catalog>, CatalogError> {
        let known = self.catalog.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fresh = catalog::read_changes(&self.database, &known).await?;
        let Some(fresh) = fresh else { return Ok(known) };
        let fresh = Arc::new(fresh);
        *self.catalog.lock().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        Ok(fresh)
    }
}

struct Opened {
    urls: Urls,
    connection: Connection,
    // Whether the database was prepared by this process, so that others may use it.
    prepared: bool,
}

/// The platforms' connections, by namespace and name.
#[derive(Default)]
pub struct Connections(Mutex<HashMap<(String, String), Opened>>);

impl Connections {
    /// The connection of a platform, opened anew where its URLs changed.
    ///
    /// # Errors
    /// When an URL is not usable or NATS can't be reached. PostgreSQL is connected to at first use.
    pub async fn open(&self, namespace: &str, platform: &str, urls: &Urls) -> Result<Connection, ConnectionError> {
        let key = (namespace.to_owned(), platform.to_owned());
        if let Some(opened) = self.lock().get(&key).filter(|opened| opened.urls == *urls) {
            return Ok(opened.connection.clone());
        }
        let options = DatabaseOptions { database_url: urls.postgresql.clone(), database_connections: DATABASE_CONNECTIONS };
        let database = options.pool("autonomy-operator", &[])?;
        let connecting = nats_connect_options(&urls.nats)?.name("autonomy-operator").connect(&urls.nats);
        let client = tokio::time::timeout(NATS_PATIENCE, connecting)
            .await
            .map_err(|_| ConnectionError::NatsTimeout)?
            .map_err(NatsConnectError::from)?;
        let mut jetstream = jetstream::new(client);
        jetstream.set_timeout(NATS_PATIENCE);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let connection = Connection { database, jetstream, number, catalog: Arc::default() };
        let opened = Opened { urls: urls.clone(), connection: connection.clone(), prepared: false };
        let replaced = self.lock().insert(key, opened);
        if let Some(replaced) = replaced {
            replaced.connection.database.close().await;
        }
        Ok(connection)
    }

    /// Lets the models and services of a platform use its connection.
    pub fn set_prepared(&self, namespace: &str, platform: &str) {
        if let Some(opened) = self.lock().get_mut(&(namespace.to_owned(), platform.to_owned())) {
            opened.prepared = true;
        }
    }

    /// The connection of a platform whose database is prepared.
    pub fn prepared(&self, namespace: &str, platform: &str) -> Option<Connection> {
        let key = (namespace.to_owned(), platform.to_owned());
        self.lock().get(&key).filter(|opened| opened.prepared).map(|opened| opened.connection.clone())
    }

    /// Closes the connections of platforms that are not there any more.
    pub async fn keep(&self, is_there: impl Fn(&str, &str) -> bool) {
        let closed: Vec<Opened> = {
            let mut opened = self.lock();
            let gone: Vec<_> = opened.keys().filter(|(namespace, platform)| !is_there(namespace, platform)).cloned().collect();
            gone.iter().filter_map(|key| opened.remove(key)).collect()
        };
        for opened in closed {
            opened.connection.database.close().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Opened>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
