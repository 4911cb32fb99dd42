//! The files trigger: files that arrive in a directory or in a bucket, loaded once whatever they are called.

mod bucket;
mod directory;
mod formats;
mod load;
mod metrics;
mod place;
mod progress;
mod records;
mod rejects;
mod unpack;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use autonomy_crds::glob;
use autonomy_crds::micro_service::FilesTrigger;
use autonomy_crds::names::parse_duration;
use autonomy_process::telemetry::error_chain;
use notify::{RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

pub use autonomy_crds::glob::Glob;
pub(crate) use bucket::client as bucket_client;
pub use formats::Format;
pub use metrics::Metrics;
pub use place::PlaceError;
pub use records::inputs;

use self::bucket::Bucket;
use self::directory::Directory;
use self::load::{Loaded, Loader};
use self::place::{Candidate, Place};
use self::progress::Progress;
use crate::caches::{Barrier, Caches};
use crate::secrets::Secrets;
use crate::steps::{Lookups, NoLookups};
use crate::worker::{Context, Error};

// Files that are loaded at a time.
const FILES: usize = 4;
// A file that can't be handled (a full disk, a missing right) is tried again after this.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_POLL: Duration = Duration::from_secs(1);
// How long files in hand may take to notice that the worker stops.
const GRACE: Duration = Duration::from_secs(10);

/// Loads files until the worker stops.
///
/// # Errors
/// When the place of the files can't be used, or the service's caches can't be kept.
pub async fn run(context: Context, metrics: Metrics) -> Result<(), Error> {
    let Some(trigger) = context.service.spec.trigger.files.clone() else { return Ok(()) };
    match &trigger.s3 {
        Some(location) => {
            let bucket = Bucket::new(location, &context.secrets).map_err(|error| trouble("the bucket can't be used", error))?;
            if let Err(error) = bucket.tidy().await {
                tracing::warn!(error = %error_chain(&error), "{} can't be tidied now", bucket.describe());
            }
            watch_place(context, metrics, trigger, bucket, None).await
        }
        None => {
            let path = directory_of(&trigger, &context.options.files_dir);
            let directory =
                Directory::open(path.clone()).map_err(|error| trouble(format!("the directory {} can't be used", path.display()), error))?;
            watch_place(context, metrics, trigger, directory, Some(&path)).await
        }
    }
}

fn trouble(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Trigger { what: what.into(), source: source.into() }
}

fn directory_of(trigger: &FilesTrigger, files_dir: &Path) -> PathBuf {
    files_dir.join(trigger.directory.as_deref().unwrap_or_default())
}

/// How many files wait for a trigger.
///
/// # Errors
/// When the place of the files can't be read.
pub async fn waiting(trigger: &FilesTrigger, files_dir: &Path, secrets: &Secrets) -> Result<usize, PlaceError> {
    let pattern = Glob::new(&trigger.pattern).map_err(std::io::Error::other)?;
    let waiting = match &trigger.s3 {
        Some(location) => Bucket::new(location, secrets)?.list(&pattern).await?,
        None => Directory::open(directory_of(trigger, files_dir))?.list(&pattern).await?,
    };
    Ok(waiting.len())
}

// `changes`: a folder whose changes can be followed.
async fn watch_place<P: Place>(
    context: Context,
    metrics: Metrics,
    trigger: FilesTrigger,
    place: P,
    changes: Option<&Path>,
) -> Result<(), Error> {
    let pattern = Glob::new(&trigger.pattern).map_err(|message| trouble("the files trigger is wrong", message))?;
    let format = Format::new(&trigger).map_err(|message| trouble("the files trigger is wrong", message))?;

    let (client, interruptions) = crate::queue::connect(&context).await?;
    let progress = Progress::start(client.clone(), &context.service.namespace, &context.service.name, context.stop.clone());
    let caches = if context.service.caches.is_empty() { None } else { Some(start_caches(&context, &client, &interruptions)?) };
    let lookups: Arc<dyn Lookups> = match &caches {
        Some(caches) => Arc::new(caches.clone()),
        None => Arc::new(NoLookups),
    };
    let barrier = match caches {
        Some(caches) => Some(Barrier::new(&context, caches).map_err(|error| trouble("the HTTP client can't be made", error))?),
        None => None,
    };
    if let Some(barrier) = &barrier
        && !barrier.in_sync().await
    {
        return Ok(());
    }
    let loader = Loader {
        place,
        format,
        pattern: pattern.clone(),
        records_per_request: usize::try_from(trigger.records_per_request).unwrap_or(1),
        lookups,
        metrics,
        progress,
        context: context.clone(),
    };
    let mut watch = Watch {
        settle: duration(&trigger.settle),
        incomplete_after: duration(&trigger.incomplete_after),
        trigger,
        pattern,
        loader: Arc::new(loader),
        barrier: barrier.map(Arc::new),
        seen: HashMap::new(),
        in_hand: HashSet::new(),
        running: JoinSet::new(),
        waiting: Vec::new(),
        next_look: Instant::now(),
    };
    watch.run(&context, changes).await;
    Ok(())
}

fn start_caches(context: &Context, client: &async_nats::Client, interruptions: &watch::Receiver<u64>) -> Result<Caches, Error> {
    let jetstream = async_nats::jetstream::new(client.clone());
    Caches::start(client, interruptions, &jetstream, &context.options.api_url, &context.service, &context.cache_metrics, &context.stop)
        .map_err(|error| Error::Trigger { what: "the caches can't be kept".to_owned(), source: error.into() })
}

// The compiler has looked at it.
fn duration(text: &str) -> Duration {
    parse_duration(text).unwrap_or(LONGEST_POLL)
}

// What was last seen of a file.
struct Seen {
    candidate: Candidate,
    since: Instant,
    // Not looked at before.
    not_before: Option<Instant>,
    // Why it is not whole, where that was seen.
    incomplete: Option<String>,
}

struct Watch<P> {
    trigger: FilesTrigger,
    settle: Duration,
    incomplete_after: Duration,
    pattern: Glob,
    loader: Arc<Loader<P>>,
    barrier: Option<Arc<Barrier>>,
    seen: HashMap<String, Seen>,
    in_hand: HashSet<String>,
    running: JoinSet<(String, Result<Loaded, PlaceError>)>,
    // As the place was at the last look.
    waiting: Vec<Candidate>,
    next_look: Instant,
}

impl<P: Place> Watch<P> {
    async fn run(&mut self, context: &Context, changes: Option<&Path>) {
        let changed = Arc::new(Notify::new());
        let _watcher = changes.and_then(|folder| watcher(folder, changed.clone()));
        let poll = (self.settle / 2).clamp(Duration::from_millis(20), LONGEST_POLL);
        let place = self.loader.place.describe();
        tracing::info!(place, pattern = self.trigger.pattern, "watching for files");
        loop {
            match self.look().await {
                Ok(()) => context.readiness.ready(),
                Err(error) => {
                    let reason = format!("{place} can't be read: {}", error_chain(&error));
                    tracing::warn!("{reason}");
                    context.readiness.not_ready(reason);
                }
            }
            tokio::select! {
                () = context.stop.cancelled() => break,
                Some(done) = self.running.join_next() => self.done(done),
                () = tokio::time::sleep(poll) => {}
                // A burst of changes is looked at once.
                () = changed.notified() => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!("files in hand did not stop in time; they are loaded from their beginning next time");
        }
    }

    async fn look(&mut self) -> Result<(), PlaceError> {
        let now = Instant::now();
        if now >= self.next_look {
            let interval = self.loader.place.poll_interval();
            self.next_look = now + interval;
            self.waiting = self.loader.place.list(&self.pattern).await?;
            // What was seen for the first time, or has changed, is looked at again as soon as it may have settled.
            if self.waiting.iter().any(|candidate| self.seen.get(&candidate.name).is_none_or(|seen| seen.candidate != *candidate)) {
                self.next_look = now + interval.min(self.settle);
            }
            let names: HashSet<&str> = self.waiting.iter().map(|candidate| candidate.name.as_str()).collect();
            self.seen.retain(|name, _| names.contains(name.as_str()));
        }
        self.loader.metrics.waiting(self.waiting.iter().map(|candidate| candidate.modified), self.in_hand.len());
        for candidate in self.waiting.clone() {
            if !self.in_hand.contains(&candidate.name) {
                self.consider(candidate, now);
            }
        }
        Ok(())
    }

    fn consider(&mut self, candidate: Candidate, now: Instant) {
        let name = candidate.name.clone();
        let seen = self
            .seen
            .entry(name.clone())
            .and_modify(|seen| {
                if seen.candidate != candidate {
                    *seen = Seen { candidate: candidate.clone(), since: now, not_before: None, incomplete: None };
                }
            })
            .or_insert_with(|| Seen { candidate: candidate.clone(), since: now, not_before: None, incomplete: None });
        let unchanged = now.duration_since(seen.since);
        if unchanged < self.settle || seen.not_before.is_some_and(|not_before| now < not_before) || self.running.len() >= FILES {
            return;
        }
        if seen.incomplete.is_some() && unchanged < self.incomplete_after {
            return;
        }
        let after = &self.trigger.incomplete_after;
        let reason = seen.incomplete.as_ref().map(|reason| format!("{reason}, and has not grown for {after}"));
        let (loader, barrier) = (self.loader.clone(), self.barrier.clone());
        self.in_hand.insert(name.clone());
        self.running.spawn(async move {
            let begun = Instant::now();
            let outcome = match reason {
                Some(reason) => loader.reject_incomplete(&candidate, reason).await,
                None => take(&loader, barrier.as_deref(), &candidate).await,
            };
            if matches!(outcome, Ok(Loaded::Done)) {
                loader.metrics.took(begun.elapsed());
            }
            (name, outcome)
        });
    }

    fn done(&mut self, done: Result<(String, Result<Loaded, PlaceError>), tokio::task::JoinError>) {
        let (name, outcome) = match done {
            Ok(done) => done,
            Err(error) => {
                // Which one is not told; all that is in hand no longer is looked at again.
                tracing::error!(error = %error_chain(&error), "loading a file broke down");
                if self.running.is_empty() {
                    self.in_hand.clear();
                }
                return;
            }
        };
        self.in_hand.remove(&name);
        match outcome {
            Ok(Loaded::Done) => {
                self.seen.remove(&name);
                self.waiting.retain(|candidate| candidate.name != name);
            }
            Ok(Loaded::Incomplete(reason)) => {
                if let Some(seen) = self.seen.get_mut(&name) {
                    seen.incomplete = Some(reason);
                }
            }
            Ok(Loaded::NotOurs | Loaded::Stopped) => self.pause(&name, LONGEST_POLL),
            Err(error) => {
                tracing::warn!(file = name, error = %error_chain(&error), "a file can't be handled; it is tried again");
                self.pause(&name, PAUSE);
            }
        }
    }

    fn pause(&mut self, name: &str, pause: Duration) {
        if let Some(seen) = self.seen.get_mut(name) {
            seen.not_before = Some(Instant::now() + pause);
        }
    }
}

async fn take<P: Place>(loader: &Loader<P>, barrier: Option<&Barrier>, candidate: &Candidate) -> Result<Loaded, PlaceError> {
    if let Some(reason) = loader.incomplete(candidate).await? {
        return Ok(Loaded::Incomplete(reason));
    }
    if let Some(barrier) = barrier
        && !barrier.pass().await
    {
        return Ok(Loaded::Stopped);
    }
    loader.load(candidate).await
}

// Without a watcher, polling alone does it.
fn watcher(folder: &Path, changed: Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let watch = || -> notify::Result<notify::RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |_| changed.notify_one())?;
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    };
    watch().map_err(|error| tracing::warn!(error = %error_chain(&error), "the directory can't be watched; it is polled")).ok()
}
