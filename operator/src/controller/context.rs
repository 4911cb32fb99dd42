//! What every reconcile works with.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use autonomy_crds::condition::ReconciledStatus;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex as AsyncMutex;

use super::activation::Activation;
use super::connections::Connections;
use super::metrics::Metrics;
use super::server_side::{self, ServerSideError};
use super::verdict::{Reason, Standing, Verdict};
use super::{FIELD_MANAGER, Failure, Scope, Stores, lag};

// How long the pause after a failure is at first and at the most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
// Kinds of other operators may be installed later.
const KINDS_ARE_KNOWN_FOR: Duration = Duration::from_secs(60);
// An event's note may have a kilobyte.
const NOTE_LIMIT: usize = 1000;

/// What the operator was told when it was started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image of API, relay and workers.
    pub runtime_image: String,
    /// When it is pulled; by Kubernetes' rule where empty.
    pub runtime_image_pull_policy: String,
    /// Secrets for pulling it.
    pub runtime_image_pull_secrets: Vec<String>,
    /// Where KEDA reaches this operator, without a slash at the end; nothing is scaled by lag where it is empty.
    pub operator_url: String,
    /// This replica's name, for events.
    pub pod_name: String,
    /// How long what is ready is left alone before it is looked at again for drift.
    pub resync: Duration,
}

/// What every reconcile works with.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// The options.
    pub settings: Arc<Settings>,
    /// What is known of the scope's resources.
    pub stores: Stores,
    /// Databases and NATS systems that DataPlatforms opened.
    pub connections: Connections,
    /// The services whose lag KEDA may ask for.
    pub lag: lag::Board,
    /// The services that have workers only while there is work.
    pub activation: Activation,
    /// Counts.
    pub metrics: Arc<Metrics>,
    scope: Scope,
    recorder: Recorder,
    failures: Mutex<HashMap<(&'static str, String), u32>>,
    kinds: AsyncMutex<HashMap<&'static str, (bool, Instant)>>,
}

impl Context {
    /// With nothing opened yet.
    pub fn new(client: Client, settings: Arc<Settings>, stores: Stores, scope: Scope, metrics: Arc<Metrics>, lag: lag::Board) -> Self {
        let client_of_activation = client.clone();
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(settings.pod_name.clone()) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            settings,
            stores,
            scope,
            connections: Connections::default(),
            activation: Activation::new(client_of_activation, lag.clone()),
            lag,
            metrics,
            failures: Mutex::default(),
            kinds: AsyncMutex::default(),
        }
    }

    /// Ends a reconcile: writes the status where it changed, tells a change of its reason as an event, and says when to look again.
    ///
    /// # Errors
    /// When Kubernetes does not take the status.
    pub async fn conclude<K, S>(
        &self,
        kind: &'static str,
        resource: &K,
        current: Option<&S>,
        mut status: S,
        verdict: &Verdict,
    ) -> Result<Action, Failure>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
        S: ReconciledStatus + Serialize,
    {
        verdict.write(&mut status, resource.meta().generation);
        let key = key(resource);
        self.metrics.reconciled(kind, verdict.reason.as_str());
        server_side::ensure_status(&self.client, resource, current, &status)
            .await
            .map_err(|source| Failure { again: self.pause_after_failure(kind, key.clone()), source })?;
        if !verdict.is_told_by(current.unwrap_or(&S::default())) {
            self.tell(resource, verdict.reason.standing() == Standing::Stalled, verdict.reason.as_str(), &verdict.message).await;
        }
        Ok(Action::requeue(match verdict.reason.standing() {
            Standing::Ready => {
                self.forget_failures(kind, &key);
                self.resync_pause(&key)
            }
            // Whether a cause outside the cluster is gone is found out by trying.
            Standing::Progressing | Standing::Stalled => self.pause_after_failure(kind, key),
        }))
    }

    /// The failure of a reconcile that could not go on.
    pub fn failure<K: Resource<DynamicType = ()>>(&self, kind: &'static str, resource: &K, source: ServerSideError) -> Failure {
        self.metrics.reconciled(kind, Reason::KubernetesError.as_str());
        Failure { again: self.pause_after_failure(kind, key(resource)), source }
    }

    /// Tells something as an event of a resource. Where Kubernetes does not take it, the log has it.
    pub async fn tell<K: Resource<DynamicType = ()>>(&self, resource: &K, warning: bool, reason: &str, message: &str) {
        let reference = resource.object_ref(&());
        let name = reference.name.as_deref().unwrap_or_default();
        let kind = K::kind(&());
        if warning {
            tracing::warn!(%kind, name, namespace = reference.namespace, reason, "{message}");
        } else {
            tracing::info!(%kind, name, namespace = reference.namespace, reason, "{message}");
        }
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(message.chars().take(NOTE_LIMIT).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::debug!(%error, "an event was not taken");
        }
    }

    /// Forgets what is kept about resources that are gone: nothing tells of the deletion of one without a finalizer.
    pub async fn forget_what_is_gone(&self) {
        let Stores { platforms, models, services } = &self.stores;
        let is_platform = |namespace: &str, name: &str| platforms.get(&ObjectRef::new(name).within(namespace)).is_some();
        let is_model = |namespace: &str, name: &str| models.get(&ObjectRef::new(name).within(namespace)).is_some();
        let is_service = |namespace: &str, name: &str| services.get(&ObjectRef::new(name).within(namespace)).is_some();
        self.connections.keep(is_platform).await;
        self.lag.keep(|namespace, service| !self.scope.has(namespace) || is_service(namespace, service));
        self.activation.keep(is_service);
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, key), _| {
            key.split_once('/')
                .is_some_and(|(namespace, name)| is_platform(namespace, name) || is_model(namespace, name) || is_service(namespace, name))
        });
    }

    /// Whether the cluster has a kind of somebody else's, for example `monitoring.coreos.com/v1` `ServiceMonitor`.
    pub async fn has_kind(&self, group_version: &'static str, kind: &str) -> bool {
        let mut kinds = self.kinds.lock().await;
        if let Some((there, at)) = kinds.get(group_version)
            && at.elapsed() < KINDS_ARE_KNOWN_FOR
        {
            return *there;
        }
        let there = match self.client.list_api_group_resources(group_version).await {
            Ok(list) => list.resources.iter().any(|resource| resource.kind == kind),
            Err(_) => false,
        };
        kinds.insert(group_version, (there, Instant::now()));
        there
    }

    fn pause_after_failure(&self, kind: &'static str, key: String) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let spread = share_of(&key);
        let count = failures.entry((kind, key)).or_insert(0);
        *count = count.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow((*count - 1).min(16))).min(LONGEST_PAUSE);
        // Up to a fifth more, so that what failed together is not tried again together.
        pause + pause.mul_f64(spread / 5.0)
    }

    fn forget_failures(&self, kind: &'static str, key: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&(kind, key.to_owned()));
    }

    fn resync_pause(&self, key: &str) -> Duration {
        self.settings.resync + self.settings.resync.mul_f64(share_of(key) / 5.0)
    }
}

fn key<K: Resource<DynamicType = ()>>(resource: &K) -> String {
    format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any())
}

// A number from 0 to 1 that is the same for the same key.
fn share_of(key: &str) -> f64 {
    let mut hasher = std::hash::DefaultHasher::new();
    key.hash(&mut hasher);
    f64::from(u32::try_from(std::hash::Hasher::finish(&hasher) & 0xffff).unwrap_or(0)) / 65_535.0
}
