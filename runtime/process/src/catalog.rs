//! Following the compiled catalog: the resolved models that the operator keeps in `autonomy.catalog`, in the transaction that changes
//! their tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::Model;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::telemetry::error_chain;

/// The channel that is notified when the catalog changes.
pub const CATALOG_CHANNEL: &str = "autonomy_catalog";
// A notification can be lost with its connection; then this is how late a change is seen at the most.
const POLL: Duration = Duration::from_secs(5);

/// The models served, as of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// By the DataModel's name.
    pub models: BTreeMap<String, Arc<Model>>,
    /// Each model's revision: raised by one with every change of it.
    pub revisions: BTreeMap<String, i64>,
}

/// Why the catalog can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The database did not answer as expected.
    #[error("the catalog can't be read from PostgreSQL")]
    Database(#[from] sqlx::Error),
    /// A catalog row is not a model that this version understands.
    #[error("the catalog's entry for model {model} is not understood; was it written by a newer operator?")]
    Model {
        /// The model's name.
        model: String,
        /// What is not understood.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads the whole catalog.
///
/// # Errors
/// When the database can't be read or an entry is not understood.
pub async fn read(pool: &PgPool) -> Result<Catalog, CatalogError> {
    let rows: Vec<(String, i64, String)> =
        sqlx::query_as("SELECT model, revision, resolved::text FROM autonomy.catalog ORDER BY model").fetch_all(pool).await?;
    let mut catalog = Catalog::default();
    for (name, revision, resolved) in rows {
        let model: Model = serde_json::from_str(&resolved).map_err(|source| CatalogError::Model { model: name.clone(), source })?;
        catalog.models.insert(name.clone(), Arc::new(model));
        catalog.revisions.insert(name, revision);
    }
    Ok(catalog)
}

/// A catalog that is kept up to date.
#[derive(Clone)]
pub struct CatalogFollower {
    pool: PgPool,
    sender: Arc<watch::Sender<Arc<Catalog>>>,
}

impl CatalogFollower {
    /// Reads the catalog and keeps following it until `stop`.
    ///
    /// # Errors
    /// When the first read fails; later failures are logged and tried again.
    pub async fn start(pool: PgPool, stop: CancellationToken) -> Result<Self, CatalogError> {
        let first = read(&pool).await?;
        let follower = Self { pool, sender: Arc::new(watch::Sender::new(Arc::new(first))) };
        let following = follower.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = following.follow() => {}
            }
        });
        Ok(follower)
    }

    /// The catalog as last read.
    pub fn current(&self) -> Arc<Catalog> {
        self.sender.borrow().clone()
    }

    /// Changes as they are seen.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Catalog>> {
        self.sender.subscribe()
    }

    /// Reads the catalog now, for one who found the tables different from what [`Self::current`] says.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub async fn refresh(&self) -> Result<Arc<Catalog>, CatalogError> {
        let catalog = Arc::new(read(&self.pool).await?);
        self.sender.send_if_modified(|current| {
            let changed = **current != *catalog;
            if changed {
                *current = catalog.clone();
            }
            changed
        });
        Ok(catalog)
    }

    async fn follow(&self) {
        loop {
            // While the listener can't connect, the catalog is polled all the same.
            if let Err(error) = self.listen().await {
                tracing::warn!(error = %error_chain(&error), "following the catalog was interrupted; trying again");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn listen(&self) -> Result<(), CatalogError> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CATALOG_CHANNEL).await?;
        loop {
            self.refresh().await?;
            if let Ok(received) = tokio::time::timeout(POLL, listener.try_recv()).await {
                received?;
            }
        }
    }
}
