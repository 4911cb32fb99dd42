//! Objects held in memory, in sync with the stream.
//!
//! A cache tells up to which position of the log it has seen everything; an event is handled only when every cache has seen everything
//! committed before it, so that a Sale never misses the Customer committed with it.

mod arena;
mod barrier;
mod compiled;
mod flat_object;

mod follow;
mod index_key;
mod metrics;
mod seen;
mod serve;
mod snapshot;
mod store;
mod table;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::expression::Value;
use crate::service::CompiledService;
use crate::steps::Lookups;

pub use barrier::Barrier;
pub use compiled::CompiledCache;
pub use index_key::CompiledIndex;
pub use metrics::Metrics;
pub use seen::Seen;
pub use serve::serve;
pub use snapshot::{SnapshotError, read as read_snapshot};
pub use store::Store;

// Watermarks on their way from the subscription to the caches.
const WATERMARKS: usize = 1024;

/// The caches of a service.
#[derive(Clone, Debug)]
pub struct Caches {
    caches: Arc<[Arc<CacheState>]>,
}

/// What others see of one cache.
#[derive(Debug)]
pub struct CacheState {
    name: String,
    store: RwLock<Store>,
    // 0 until the cache is in sync.
    seen: watch::Sender<u64>,
    reason: Mutex<String>,
    // Events of the entity that are in the stream and not in the cache.
    events_behind: AtomicU64,
    // When it was last known to have seen everything.
    caught_up: Mutex<Instant>,
}

/// How large a cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The objects.
    pub objects: usize,
    /// The bytes of their JSON.
    pub bytes: usize,
    /// The bytes of memory in all.
    pub memory: usize,
}

/// Why caches can't be kept.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for snapshots can't be made")]
pub struct CacheError(#[from] reqwest::Error);

impl Caches {
    /// Begins to load and follow the service's caches, and to tell of them, until `stop`. `interruptions` counts lost connections: after one nothing is trusted before
    /// it is known that the stream is what it was.
    ///
    /// # Errors
    /// When the HTTP client can't be made.
    pub fn start(
        client: &async_nats::Client,
        interruptions: &watch::Receiver<u64>,
        jetstream: &jetstream::Context,
        api_url: &str,
        service: &Arc<CompiledService>,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> Result<Self, CacheError> {
        // No timeout for the whole: a snapshot takes as long as it takes, as long as something comes.
        let http = autonomy_process::http_client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60))
            .build()?;
        let (watermarks, _) = broadcast::channel(WATERMARKS);
        if !service.caches.is_empty() {
            tokio::spawn(follow::watermarks(client.clone(), service.namespace.clone(), watermarks.clone(), stop.clone()));
        }
        let caches = service.caches.iter().enumerate().map(|(place, cache)| {
            let state = Arc::new(CacheState {
                name: cache.name.clone(),
                store: RwLock::new(Store::new(cache.clone())),
                seen: watch::Sender::new(0),
                reason: Mutex::new("it is being loaded".to_owned()),
                events_behind: AtomicU64::new(0),
                caught_up: Mutex::new(Instant::now()),
            });
            let follower = follow::Follower {
                jetstream: jetstream.clone(),
                http: http.clone(),
                api_url: api_url.to_owned(),
                service: service.clone(),
                place,
                state: state.clone(),
                watermarks: watermarks.clone(),
                interruptions: interruptions.clone(),
                stop: stop.clone(),
            };
            tokio::spawn(follower.run());
            state
        });
        let caches = Self { caches: caches.collect() };
        tokio::spawn(metrics.clone().tell(caches.clone(), stop.clone()));
        Ok(caches)
    }

    /// Waits until every cache has seen everything committed at or before this position.
    pub async fn wait_seen(&self, commit: u64) {
        for cache in self.caches.iter() {
            // The sender lives as long as we do.
            let _ = cache.seen.subscribe().wait_for(|seen| *seen > 0 && *seen >= commit).await;
        }
    }

    /// `Ok` where all caches are in sync; otherwise which one is not and why.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn ready(&self) -> Result<(), String> {
        match self.caches.iter().find(|cache| *cache.seen.borrow() == 0) {
            None => Ok(()),
            Some(cache) => {
                let reason = cache.reason.lock().unwrap_or_else(PoisonError::into_inner);
                Err(format!("the cache {} is not in sync: {reason}", cache.name))
            }
        }
    }

    /// Each cache.
    pub fn iter(&self) -> impl Iterator<Item = &CacheState> {
        self.caches.iter().map(AsRef::as_ref)
    }
}

impl CacheState {
    /// The cache's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How large it is.
    pub fn size(&self) -> Size {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        Size { objects: store.len(), bytes: store.bytes(), memory: store.memory() }
    }

    /// How many events in the stream it has not seen, as far as the relay has told.
    pub fn events_behind(&self) -> u64 {
        self.events_behind.load(Ordering::Relaxed)
    }

    /// How long ago it was known to have seen everything.
    pub fn behind_for(&self) -> Duration {
        self.caught_up.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    // Of a watermark: how many events of those that it tells of are still to come.
    fn tell_behind(&self, events: u64) {
        self.events_behind.store(events, Ordering::Relaxed);
        if events == 0 && self.seen() > 0 {
            *self.caught_up.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    /// The position up to which it has seen everything; 0 while it is not in sync.
    pub fn seen(&self) -> u64 {
        *self.seen.borrow()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, position: u64) {
        self.seen.send_if_modified(|seen| {
            let further = position > *seen;
            if further {
                *seen = position;
            }
            further
        });
    }

    fn lose(&self, reason: &str) {
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
        self.seen.send_replace(0);
    }
}

impl Lookups for Caches {
    fn find(&self, cache: &str, by: &str, key: &Value) -> Option<Value> {
        let cache = self.caches.iter().find(|state| state.name == cache)?;
        cache.store.read().unwrap_or_else(PoisonError::into_inner).find(by, key)
    }
}
