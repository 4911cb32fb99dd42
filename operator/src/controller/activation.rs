//! Services that have workers only while there is work: the first worker is started as soon as something comes, not when somebody looks next.
//!
//! While a service has no worker, its subjects are listened to on core NATS, of each for one message: the relay's publishing of an event is the
//! sign. What was published while nobody listened, and files in a bucket, are found by looking. Where KEDA is, it takes over from the first worker,
//! and ends the last one after its cooldown; where it is not, that is done here. In both cases work in hand counts as work.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use autonomy_process::telemetry::error_chain;
use futures::StreamExt;
use futures::stream::SelectAll;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::lag::{Backlog, Board, Entry, ServiceKey};

// Not the one that applies Deployments: that one leaves the number of pods alone.
const FIELD_MANAGER: &str = "autonomy-operator-activation";
// How often it is looked whether there is work: signs come at once, so this finds only what was missed.
const LOOK_ASLEEP: Duration = Duration::from_secs(10);
const LOOK_AWAKE: Duration = Duration::from_secs(5);
// After a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// A service that has workers only while there is work, as a reconcile found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDemand {
    /// The Deployment of its workers.
    pub deployment: String,
    /// How many workers are wanted now.
    pub replicas: i32,
    /// How many are started when work comes.
    pub first: i32,
    /// How long there must be no work before the last one is ended; none where KEDA does that.
    pub cooldown: Option<Duration>,
    /// How often it is looked for work where no sign of it comes.
    pub look: Option<Duration>,
}

/// What is to be done about a service's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Stay,
    /// Start the first.
    Wake,
    /// End them.
    Sleep,
}

impl OnDemand {
    // What is to be done when so much waits; none where that can't be told, and then everything stays as it is. `idle` is how long nothing has waited.
    fn step(&self, lag: Option<u64>, idle: Duration) -> Step {
        match (lag, self.cooldown) {
            (Some(lag), _) if lag > 0 && self.replicas == 0 => Step::Wake,
            (Some(0), Some(cooldown)) if self.replicas > 0 && idle >= cooldown => Step::Sleep,
            _ => Step::Stay,
        }
    }

    fn pause(&self) -> Duration {
        if self.replicas > 0 { LOOK_AWAKE } else { self.look.unwrap_or(LOOK_ASLEEP) }
    }
}

struct Guarded {
    service: OnDemand,
    // How many workers there are as far as is known; whoever looks after it changes it too.
    replicas: Arc<AtomicI32>,
    connection: u64,
    end: CancellationToken,
}

impl Guarded {
    fn is(&self, found: &OnDemand, entry: &Entry) -> bool {
        let service = OnDemand { replicas: self.replicas.load(Ordering::Relaxed), ..self.service.clone() };
        service == *found && self.connection == entry.connection
    }
}

/// The services that have workers only while there is work, each with who looks after it.
pub struct Activation {
    client: Client,
    board: Board,
    guarded: Mutex<HashMap<ServiceKey, Guarded>>,
}

impl Activation {
    /// None yet. `board` tells what waits.
    pub fn new(client: Client, board: Board) -> Self {
        Self { client, board, guarded: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceKey, Guarded>> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a reconcile found; none where the number of workers does not depend on work. Whoever looks after it begins anew where something is
    /// another than before.
    pub fn set(&self, namespace: &str, service: &str, found: Option<OnDemand>) {
        let key = (namespace.to_owned(), service.to_owned());
        let mut guarded = self.lock();
        let found = found.and_then(|found| Some((found, self.board.entry(&key)?)));
        let Some((service, entry)) = found else {
            if let Some(former) = guarded.remove(&key) {
                former.end.cancel();
            }
            return;
        };
        if guarded.get(&key).is_some_and(|guarded| guarded.is(&service, &entry)) {
            return;
        }
        let (end, replicas) = (CancellationToken::new(), Arc::new(AtomicI32::new(service.replicas)));
        let now = Guarded { service: service.clone(), replicas: replicas.clone(), connection: entry.connection, end: end.clone() };
        let (client, board) = (self.client.clone(), self.board.clone());
        let guard = Guard { client, board, key: key.clone(), entry, service, replicas, idle_since: None };
        if let Some(former) = guarded.insert(key, now) {
            former.end.cancel();
        }
        tokio::spawn(async move { end.run_until_cancelled(guard.run()).await });
    }

    /// Forgets services that are not there any more.
    pub fn keep(&self, is_there: impl Fn(&str, &str) -> bool) {
        self.lock().retain(|(namespace, service), guarded| {
            let stays = is_there(namespace, service);
            if !stays {
                guarded.end.cancel();
            }
            stays
        });
    }

    /// Ends looking after all of them.
    pub fn end(&self) {
        self.lock().drain().for_each(|(_, guarded)| guarded.end.cancel());
    }
}

impl Drop for Activation {
    fn drop(&mut self) {
        self.end();
    }
}

// Looks after one service.
struct Guard {
    client: Client,
    board: Board,
    key: ServiceKey,
    entry: Entry,
    service: OnDemand,
    replicas: Arc<AtomicI32>,
    idle_since: Option<Instant>,
}

impl Guard {
    async fn run(mut self) {
        let mut signs: SelectAll<Subscriber> = SelectAll::new();
        loop {
            // Before it is looked: what comes behind the look gives a sign.
            if signs.is_empty() {
                signs = self.signs().await;
            }
            match self.look().await {
                Step::Stay => {
                    let pause = tokio::time::sleep(self.service.pause());
                    tokio::select! {
                        () = pause => continue,
                        Some(_) = signs.next() => tracing::debug!(service = self.key.1, "an event was published"),
                    }
                    self.wake().await;
                }
                Step::Wake => self.wake().await,
                Step::Sleep => self.sleep().await,
            }
            signs.clear();
        }
    }

    // One message of each subject at the most: the server ends a subscription with it, so that no flood comes here.
    async fn signs(&self) -> SelectAll<Subscriber> {
        let mut signs: SelectAll<Subscriber> = SelectAll::new();
        let Backlog::Events(consumers) = &self.entry.backlog else { return signs };
        if self.service.replicas > 0 {
            return signs;
        }
        let client = self.entry.jetstream.client();
        for subject in consumers.events.iter().flat_map(|events| &events.subjects).chain(&consumers.due.subjects) {
            let subscribing = async {
                let mut subscriber = client.subscribe(subject.clone()).await?;
                subscriber.unsubscribe_after(1).await?;
                Ok::<Subscriber, Box<dyn std::error::Error + Send + Sync>>(subscriber)
            };
            match subscribing.await {
                Ok(subscriber) => signs.push(subscriber),
                Err(error) => tracing::warn!(service = self.key.1, subject, %error, "it is not listened for events; it is looked for them"),
            }
        }
        // What is published from now on is seen, so a look that follows misses nothing.
        if let Err(error) = client.flush().await {
            tracing::debug!(%error, "NATS does not answer");
        }
        signs
    }

    async fn look(&mut self) -> Step {
        let lag = match self.entry.lag().await {
            Ok(lag) => lag.map(|lag| lag.total()),
            Err(error) => {
                tracing::debug!(service = self.key.1, error = %error_chain(&error), "how much waits can't be told; its workers stay as they are");
                None
            }
        };
        self.idle_since = if lag == Some(0) { self.idle_since.or_else(|| Some(Instant::now())) } else { None };
        self.service.step(lag, self.idle_since.map(|since| since.elapsed()).unwrap_or_default())
    }

    async fn wake(&mut self) {
        if self.scale(0, self.service.first).await {
            self.board.woke(&self.key);
            tracing::info!(service = self.key.1, namespace = self.key.0, "work came; the first worker is started");
        }
    }

    // What comes from here on is seen by the look that follows, which begins with listening.
    async fn sleep(&mut self) {
        if self.scale(self.service.replicas, 0).await {
            tracing::info!(service = self.key.1, namespace = self.key.0, "nothing waits; its workers end");
        }
    }

    // Changes the number of workers, where it is still what it was; what it then is, is remembered.
    async fn scale(&mut self, from: i32, to: i32) -> bool {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &self.key.0);
        let name = self.service.deployment.clone();
        let scaled = async {
            let Some(there) = deployments.get_opt(&name).await? else { return Ok(None) };
            let replicas = there.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            if replicas != from {
                return Ok(Some((replicas, false)));
            }
            // The version makes the API refuse it where somebody else changed it since.
            let patch = json!({"metadata": {"resourceVersion": there.metadata.resource_version}, "spec": {"replicas": to}});
            let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            match deployments.patch(&name, &parameters, &Patch::Merge(&patch)).await {
                Ok(_) => Ok(Some((to, true))),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
                Err(error) => Err(error),
            }
        };
        match scaled.await {
            Ok(Some((replicas, done))) => {
                self.service.replicas = replicas;
                self.replicas.store(replicas, Ordering::Relaxed);
                self.idle_since = None;
                done
            }
            // Somebody else changes it just now.
            Ok(None) => {
                tokio::time::sleep(PAUSE / 4).await;
                false
            }
            Err(error) => {
                tracing::warn!(service = self.key.1, error = %error_chain(&error), "its workers can't be started or ended; it is tried again");
                tokio::time::sleep(PAUSE).await;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(replicas: i32, cooldown: Option<u64>) -> OnDemand {
        OnDemand { deployment: "close-worker".to_owned(), replicas, first: 1, cooldown: cooldown.map(Duration::from_secs), look: None }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn work_wakes_and_only_what_is_known_to_be_idle_sleeps() {
        let asleep = service(0, Some(60));
        assert_eq!(asleep.step(Some(1), Duration::ZERO), Step::Wake);
        assert_eq!(asleep.step(Some(0), LONG), Step::Stay);
        assert_eq!(asleep.step(None, LONG), Step::Stay);
        let awake = service(2, Some(60));
        assert_eq!(awake.step(Some(5), Duration::ZERO), Step::Stay);
        assert_eq!(awake.step(Some(0), Duration::from_secs(59)), Step::Stay, "not before its cooldown is over");
        assert_eq!(awake.step(Some(0), Duration::from_secs(60)), Step::Sleep);
        assert_eq!(awake.step(None, LONG), Step::Stay, "an unknown lag holds the workers");
    }

    #[test]
    fn keda_ends_the_last_worker_where_it_is() {
        assert_eq!(service(1, None).step(Some(0), LONG), Step::Stay);
        assert_eq!(service(0, None).step(Some(3), Duration::ZERO), Step::Wake);
    }
}
