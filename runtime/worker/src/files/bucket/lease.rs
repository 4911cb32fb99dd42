//! Leases in a bucket: an object that one process makes, renews while it lives, and takes away. One that was not renewed for a while is another's to
//! take. Nobody's clock is compared with another's: each process looks for itself how long a lease has stayed the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::super::place::PlaceError;
use super::{failed, found, path};

// A lease that has not changed for this long has lost its holder.
const LEASE: Duration = Duration::from_secs(10);
const RENEWAL: Duration = Duration::from_secs(3);
// Leases of others that are looked at; more are forgotten, and looked at anew.
const MOST_SEEN: usize = 1000;

// What others hold: the version seen, and since when.
type Seen = HashMap<String, (Option<String>, Instant)>;

/// The leases below a prefix.
#[derive(Clone, Debug)]
pub struct Leases {
    store: Arc<AmazonS3>,
    prefix: String,
    seen: Arc<Mutex<Seen>>,
}

/// A lease that is renewed as long as this lives, and given back then.
#[derive(Debug)]
pub struct Lease {
    store: Arc<AmazonS3>,
    path: Path,
    held: Arc<AtomicBool>,
    renewal: AbortHandle,
}

impl Leases {
    /// Those below a prefix with a slash at its end.
    pub fn new(store: Arc<AmazonS3>, prefix: String) -> Self {
        Self { store, prefix, seen: Arc::default() }
    }

    /// Takes the lease of that name; `None` while another process has it.
    ///
    /// # Errors
    /// When the bucket refuses or does not answer.
    pub async fn take(&self, name: &str) -> Result<Option<Lease>, PlaceError> {
        let path = path(format!("{}{name}", self.prefix))?;
        let taken = match put(&self.store, &path, PutMode::Create).await {
            Err(Error::AlreadyExists { .. }) => self.take_over(name, &path).await,
            created => created.map(Some),
        };
        Ok(match taken.map_err(|source| failed("can't lease", &path, source))? {
            Some(version) => {
                self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
                Some(Lease::renewed(self.store.clone(), path, version))
            }
            None => None,
        })
    }

    // Gives the version written, where the one before has stayed the same for long enough.
    async fn take_over(&self, name: &str, path: &Path) -> Result<Option<UpdateVersion>, Error> {
        let Some(object) = found(self.store.head(path).await)? else { return Ok(None) };
        if !self.has_expired(name, &object.e_tag) {
            return Ok(None);
        }
        tracing::info!(lease = name, "the lease of another process has expired and is taken over");
        match put(&self.store, path, PutMode::Update(UpdateVersion { e_tag: object.e_tag, version: None })).await {
            Ok(version) => Ok(Some(version)),
            // Another one was faster, or the holder still lives.
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn has_expired(&self, name: &str, version: &Option<String>) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST_SEEN && !seen.contains_key(name) {
            seen.clear();
        }
        let (known, since) = seen.entry(name.to_owned()).or_insert_with(|| (version.clone(), Instant::now()));
        if known != version {
            (*known, *since) = (version.clone(), Instant::now());
        }
        since.elapsed() >= LEASE
    }
}

// Each time with another content, so that each is another version.
async fn put(store: &AmazonS3, path: &Path, mode: PutMode) -> Result<UpdateVersion, Error> {
    let content = format!("{}\n", Uuid::now_v7());
    let written = store.put_opts(path, content.into(), PutOptions::from(mode)).await?;
    Ok(UpdateVersion { e_tag: written.e_tag, version: None })
}

impl Lease {
    fn renewed(store: Arc<AmazonS3>, path: Path, version: UpdateVersion) -> Self {
        let held = Arc::new(AtomicBool::new(true));
        let renewal = tokio::spawn(renew(store.clone(), path.clone(), version, held.clone())).abort_handle();
        Self { store, path, held, renewal }
    }
}

async fn renew(store: Arc<AmazonS3>, path: Path, mut version: UpdateVersion, held: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        match put(&store, &path, PutMode::Update(version.clone())).await {
            Ok(renewed) => version = renewed,
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => {
                held.store(false, Ordering::Relaxed);
                tracing::warn!(lease = %path, "another process has taken the lease over; what both do takes effect once");
                return;
            }
            Err(error) => tracing::warn!(lease = %path, %error, "the lease can't be renewed; trying again"),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        // Where it can't be given back, it expires.
        if self.held.load(Ordering::Relaxed)
            && let Ok(runtime) = Handle::try_current()
        {
            let (store, path) = (self.store.clone(), self.path.clone());
            drop(runtime.spawn(async move {
                if let Err(error) = store.delete(&path).await {
                    tracing::debug!(lease = %path, %error, "the lease can't be given back; it expires");
                }
            }));
        }
    }
}

#[cfg(test)]
impl Leases {
    pub async fn are_all_given_back(&self) -> bool {
        use futures::StreamExt;
        self.store.list(Some(&path(self.prefix.trim_end_matches('/').to_owned()).unwrap_or_default())).next().await.is_none()
    }

    // Takes all away, as if their time were over.
    pub async fn forget(&self) {
        use futures::TryStreamExt;
        let folder = path(self.prefix.trim_end_matches('/').to_owned()).unwrap_or_default();
        let all: Vec<object_store::ObjectMeta> = self.store.list(Some(&folder)).try_collect().await.unwrap_or_default();
        for lease in all {
            let _ = self.store.delete(&lease.location).await;
        }
    }
}

#[cfg(test)]
impl Lease {
    // Ends as with its process: it is neither renewed nor given back.
    pub fn die(self) {
        self.held.store(false, Ordering::Relaxed);
    }
}
