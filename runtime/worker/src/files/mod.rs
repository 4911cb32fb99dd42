//! The files trigger: files that arrive in a directory, loaded once whatever they are called.

mod barrier;
mod directory;
mod glob;
mod load;
mod metrics;
mod records;
mod rejects;
mod rows;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use autonomy_crds::micro_service::FilesTrigger;
use autonomy_crds::names::parse_duration;
use autonomy_process::telemetry::error_chain;
use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use glob::Glob;
pub use metrics::Metrics;

use self::barrier::Barrier;
use self::directory::{Candidate, Directory};
use self::load::{LoadError, Loaded, Loader};
use self::records::Format;
use crate::caches::Caches;
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
/// When the directory can't be used, or the service's caches can't be kept.
pub async fn run(context: Context, metrics: Metrics) -> Result<(), Error> {
    let Some(trigger) = context.service.spec.trigger.files.clone() else { return Ok(()) };
    let trouble = |what: String, source: Box<dyn std::error::Error + Send + Sync>| Error::Trigger { what, source };
    let path = context.options.files_dir.join(&trigger.directory);
    let directory =
        Directory::open(path.clone()).map_err(|error| trouble(format!("the directory {} can't be used", path.display()), error.into()))?;
    let pattern = Glob::new(&trigger.pattern).map_err(|message| trouble("the files trigger is wrong".to_owned(), message.into()))?;

    let caches = if context.service.caches.is_empty() { None } else { Some(start_caches(&context).await?) };
    let lookups: Arc<dyn Lookups> = match &caches {
        Some(caches) => Arc::new(caches.clone()),
        None => Arc::new(NoLookups),
    };
    let barrier = match caches {
        Some(caches) => {
            Some(Barrier::new(&context, caches).map_err(|error| trouble("the HTTP client can't be made".to_owned(), error.into()))?)
        }
        None => None,
    };
    if let Some(barrier) = &barrier
        && !barrier.in_sync().await
    {
        return Ok(());
    }
    let loader = Loader {
        directory: directory.clone(),
        format: Format::new(&trigger),
        records_per_request: usize::try_from(trigger.records_per_request).unwrap_or(1),
        lookups,
        metrics,
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
    };
    watch.run(&context).await;
    Ok(())
}

async fn start_caches(context: &Context) -> Result<Caches, Error> {
    let (client, interruptions) = crate::queue::connect(context).await?;
    let jetstream = async_nats::jetstream::new(client.clone());
    Caches::start(&client, &interruptions, &jetstream, &context.options.api_url, &context.service, &context.stop)
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
    // Whether its end was looked at and is not its trailer.
    incomplete: bool,
}

struct Watch {
    trigger: FilesTrigger,
    settle: Duration,
    incomplete_after: Duration,
    pattern: Glob,
    loader: Arc<Loader>,
    barrier: Option<Arc<Barrier>>,
    seen: HashMap<String, Seen>,
    in_hand: HashSet<String>,
    running: JoinSet<(String, Result<Loaded, LoadError>)>,
}

impl Watch {
    async fn run(&mut self, context: &Context) {
        let changed = Arc::new(Notify::new());
        let _watcher = self.watcher(changed.clone());
        let poll = (self.settle / 2).clamp(Duration::from_millis(20), LONGEST_POLL);
        tracing::info!(directory = %self.loader.directory.path().display(), pattern = self.trigger.pattern, "watching for files");
        loop {
            match self.look() {
                Ok(()) => context.readiness.ready(),
                Err(error) => {
                    let reason = format!("the directory {} can't be read: {error}", self.loader.directory.path().display());
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

    // Without a watcher, polling alone does it.
    fn watcher(&self, changed: Arc<Notify>) -> Option<notify::RecommendedWatcher> {
        let watch = || -> notify::Result<notify::RecommendedWatcher> {
            let mut watcher = notify::recommended_watcher(move |_| changed.notify_one())?;
            watcher.watch(self.loader.directory.path(), RecursiveMode::NonRecursive)?;
            Ok(watcher)
        };
        watch().map_err(|error| tracing::warn!(error = %error_chain(&error), "the directory can't be watched; it is polled")).ok()
    }

    fn look(&mut self) -> std::io::Result<()> {
        let candidates = self.loader.directory.scan(&self.pattern)?;
        self.loader.metrics.waiting(candidates.len());
        let now = Instant::now();
        let names: HashSet<&str> = candidates.iter().map(|candidate| candidate.name.as_str()).collect();
        self.seen.retain(|name, _| names.contains(name.as_str()));
        for candidate in candidates {
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
                    *seen = Seen { candidate: candidate.clone(), since: now, not_before: None, incomplete: false };
                }
            })
            .or_insert_with(|| Seen { candidate, since: now, not_before: None, incomplete: false });
        let unchanged = now.duration_since(seen.since);
        if unchanged < self.settle || seen.not_before.is_some_and(|not_before| now < not_before) || self.running.len() >= FILES {
            return;
        }
        if !seen.incomplete {
            let whole = seen.candidate.length > 0 && self.loader.format_ends(&name);
            seen.incomplete = !whole;
        }
        if seen.incomplete && unchanged < self.incomplete_after {
            return;
        }
        let reason = seen.incomplete.then(|| self.incomplete_reason());
        let (loader, barrier) = (self.loader.clone(), self.barrier.clone());
        self.in_hand.insert(name.clone());
        self.running.spawn(async move {
            let outcome = match reason {
                Some(reason) => loader.reject_incomplete(&name, reason).await,
                None => match barrier {
                    Some(barrier) if !barrier.pass().await => Ok(Loaded::Stopped),
                    _ => loader.load(&name).await,
                },
            };
            (name, outcome)
        });
    }

    fn incomplete_reason(&self) -> String {
        let after = &self.trigger.incomplete_after;
        match &self.trigger.csv.trailer {
            Some(trailer) => format!("the file has no trailer {trailer} and has not grown for {after}: it was cut short"),
            None => format!("the file is empty and has not grown for {after}"),
        }
    }

    fn done(&mut self, done: Result<(String, Result<Loaded, LoadError>), tokio::task::JoinError>) {
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
