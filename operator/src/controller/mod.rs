//! The reconcilers: one folder a kind, each of the same five steps (dereference, validate, build, apply, status), and what they share.

pub mod activation;
pub mod connections;
pub mod context;
pub mod lag;
pub mod leader;
pub mod metrics;
mod model;
pub mod observation;
mod platform;
mod server_side;
mod service;
pub mod verdict;
mod workload;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::{DataModel, DataPlatform, MicroService, Migration};
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::Api;
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Predicate, WatchStreamExt, controller, predicates, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use self::context::{Context, Settings};
use self::metrics::Metrics;
use self::verdict::Reason;

/// The field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "autonomy-operator";
/// The label by which the operator's own objects are watched.
const MANAGED: &str = "app.kubernetes.io/managed-by=autonomy-operator";
// How often what is kept about resources that are gone is forgotten.
const FORGET: Duration = Duration::from_secs(30);
// Reconciles of one kind at the same time.
const CONCURRENCY: u16 = 8;

/// Where resources are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace.
    Cluster,
    /// In this one.
    Namespace(String),
}

impl Scope {
    /// The scopes that a comma separated list of namespaces stands for; the whole cluster where it is empty.
    pub fn parse(namespaces: &str) -> Vec<Self> {
        let mut scopes: Vec<Self> =
            namespaces.split(',').map(str::trim).filter(|name| !name.is_empty()).map(|name| Self::Namespace(name.to_owned())).collect();
        scopes.dedup();
        if scopes.is_empty() { vec![Self::Cluster] } else { scopes }
    }

    /// Whether a namespace is in it.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespace(name) => name == namespace,
        }
    }

    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// Reconciles the three kinds in a scope until `stop`, then ends when what is under way is done. Everything that belongs together lies in one
/// namespace, so scopes know nothing of one another.
pub async fn run(client: Client, scope: Scope, settings: Arc<Settings>, metrics: Arc<Metrics>, lag: lag::Board, stop: CancellationToken) {
    let platforms = controller::<DataPlatform>(&client, &scope, &stop);
    let models = controller::<DataModel>(&client, &scope, &stop);
    let services = controller::<MicroService>(&client, &scope, &stop);
    let stores = Stores { platforms: platforms.store(), models: models.store(), services: services.store() };
    let context = Arc::new(Context::new(client.clone(), settings, stores.clone(), scope.clone(), metrics, lag));

    let platforms = platforms
        .owns_stream(managed::<Deployment>(&client, &scope))
        .owns_stream(managed::<Service>(&client, &scope))
        .owns_stream(managed::<HorizontalPodAutoscaler>(&client, &scope))
        .owns_stream(managed::<PodDisruptionBudget>(&client, &scope))
        .owns_stream(managed::<NetworkPolicy>(&client, &scope))
        .watches_stream(changes::<Secret>(&client, &scope), {
            let platforms = stores.platforms.clone();
            move |secret| platforms_of_secret(&platforms, &secret)
        })
        .watches_stream(changes::<DataModel>(&client, &scope), {
            let platforms = stores.platforms.clone();
            move |model| platforms_that_wait(&platforms, &model)
        })
        .run(platform::reconcile, error_policy, context.clone());
    let models = models
        .owns_stream(changes::<Migration>(&client, &scope))
        .owns_stream(changes::<MicroService>(&client, &scope))
        .watches_stream(changes::<DataPlatform>(&client, &scope), {
            let models = stores.models.clone();
            move |platform| models_of_platform(&models, &platform)
        })
        .watches_stream(changes::<DataModel>(&client, &scope), {
            let models = stores.models.clone();
            move |changed| importers(&models, &changed)
        })
        .run(model::reconcile, error_policy, context.clone());
    let services = services
        .owns_stream(managed::<Deployment>(&client, &scope))
        .owns_stream(managed::<ConfigMap>(&client, &scope))
        .owns_stream(managed::<PodDisruptionBudget>(&client, &scope))
        .owns_stream(managed::<NetworkPolicy>(&client, &scope))
        .watches_stream(changes::<DataPlatform>(&client, &scope), {
            let services = stores.services.clone();
            move |platform| services_of_platform(&services, &platform)
        })
        .watches_stream(changes::<DataModel>(&client, &scope), {
            let services = stores.services.clone();
            move |model| services_of_model(&services, &model)
        })
        .watches_stream(changes::<Secret>(&client, &scope), {
            let services = stores.services.clone();
            move |secret| services_of_secret(&services, &secret)
        })
        .run(service::reconcile, error_policy, context.clone());

    tracing::info!(?scope, "reconciling");
    let forgetting = async {
        while stop.run_until_cancelled(tokio::time::sleep(FORGET)).await.is_some() {
            context.forget_what_is_gone().await;
        }
    };
    let observing = observation::observe(&context, &stop);
    tokio::join!(drain("DataPlatform", platforms), drain("DataModel", models), drain("MicroService", services), forgetting, observing);
    context.activation.end();
}

/// What is known of the scope's resources, kept in sync by the watches.
#[derive(Clone)]
pub struct Stores {
    /// The DataPlatforms.
    pub platforms: Store<DataPlatform>,
    /// The DataModels.
    pub models: Store<DataModel>,
    /// The MicroServices.
    pub services: Store<MicroService>,
}

// What can be watched in a scope.
trait Watched: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}
impl<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Watched
    for K
{
}

fn controller<K: Watched>(client: &Client, scope: &Scope, stop: &CancellationToken) -> Controller<K> {
    let stop = stop.clone();
    // Only the managed fields are of no use here, and they are large.
    let stream = watcher(scope.api::<K>(client), watcher::Config::default()).default_backoff().modify(|object| {
        object.managed_fields_mut().clear();
    });
    let (reader, writer) = kube::runtime::reflector::store();
    let stream = stream.reflect(writer).applied_objects().predicate_filter(
        predicates::generation
            .combine(predicates::labels)
            .combine(predicates::annotations)
            .combine(predicates::finalizers)
            .combine(deletion),
        Default::default(),
    );
    Controller::for_stream(stream, reader)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(async move { stop.cancelled().await }.boxed().shared())
}

fn deletion<K: Resource>(object: &K) -> Option<u64> {
    Some(u64::from(object.meta().deletion_timestamp.is_some()))
}

type Metadata<K> = PartialObjectMeta<K>;

// Objects that the operator made, without their content: a change only asks for a look.
fn managed<K: Watched>(client: &Client, scope: &Scope) -> impl Stream<Item = watcher::Result<Metadata<K>>> + Send + 'static + use<K> {
    labelled(client, scope, MANAGED)
}

// Whatever changes of objects, their status too.
fn changes<K: Watched>(client: &Client, scope: &Scope) -> impl Stream<Item = watcher::Result<Metadata<K>>> + Send + 'static + use<K> {
    labelled(client, scope, "")
}

fn labelled<K: Watched>(
    client: &Client,
    scope: &Scope,
    labels: &str,
) -> impl Stream<Item = watcher::Result<Metadata<K>>> + Send + 'static + use<K> {
    watcher(scope.api::<Metadata<K>>(client), watcher::Config::default().labels(labels)).default_backoff().touched_objects()
}

fn error_policy<K>(_: Arc<K>, error: &Failure, _: Arc<Context>) -> Action {
    Action::requeue(error.again)
}

/// A reconcile could not even write down what it found; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("the Kubernetes API did not take what was found")]
pub struct Failure {
    again: Duration,
    #[source]
    source: server_side::ServerSideError,
}

async fn drain<K, E>(kind: &'static str, stream: impl Stream<Item = Result<(ObjectRef<K>, Action), controller::Error<Failure, E>>>)
where
    K: Resource<DynamicType = ()>,
    E: std::error::Error + 'static,
{
    stream
        .for_each(|outcome| {
            match outcome {
                Ok((resource, action)) => tracing::debug!(kind, %resource, ?action, "reconciled"),
                // Deleted while it waited for its turn.
                Err(controller::Error::ObjectNotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(kind, error = %autonomy_process::telemetry::error_chain(&error), "reconciling failed; it is tried again")
                }
            }
            std::future::ready(())
        })
        .await;
}

// Whether PostgreSQL can't be reached, or refuses.
fn database_reason(error: &sqlx::Error) -> Reason {
    match error {
        // invalid_password and the like, no such database, no privilege, what can't be done.
        sqlx::Error::Database(error)
            if !error.code().is_some_and(|code| ["57P", "53", "08", "55P03"].iter().any(|class| code.starts_with(class))) =>
        {
            Reason::DatabaseRefused
        }
        _ => Reason::DatabaseUnavailable,
    }
}

fn in_same_namespace<A: ResourceExt, B: ResourceExt>(one: &A, other: &B) -> bool {
    one.namespace() == other.namespace()
}

fn references<K>(store: &Store<K>, wanted: impl Fn(&K) -> bool) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state_filter(|object: &K| wanted(object)).iter().map(|object| ObjectRef::from_obj(object.as_ref())).collect()
}

fn platforms_of_secret(platforms: &Store<DataPlatform>, secret: &Metadata<Secret>) -> Vec<ObjectRef<DataPlatform>> {
    let name = secret.name_any();
    references(platforms, |platform| {
        in_same_namespace(platform, secret)
            && (platform::secret_names(platform).any(|used| used == name) || platform::connections_secret(platform) == name)
    })
}

// A platform that is to go waits for its models to be gone.
fn platforms_that_wait(platforms: &Store<DataPlatform>, model: &Metadata<DataModel>) -> Vec<ObjectRef<DataPlatform>> {
    references(platforms, |platform| in_same_namespace(platform, model) && platform.meta().deletion_timestamp.is_some())
}

fn models_of_platform(models: &Store<DataModel>, platform: &Metadata<DataPlatform>) -> Vec<ObjectRef<DataModel>> {
    let name = platform.name_any();
    references(models, |model| in_same_namespace(model, platform) && model.spec.platform() == name)
}

fn importers(models: &Store<DataModel>, changed: &Metadata<DataModel>) -> Vec<ObjectRef<DataModel>> {
    let name = changed.name_any();
    references(models, |model| in_same_namespace(model, changed) && model.spec.imports.iter().any(|import| import.model == name))
}

fn services_of_platform(services: &Store<MicroService>, platform: &Metadata<DataPlatform>) -> Vec<ObjectRef<MicroService>> {
    let name = platform.name_any();
    references(services, |service| in_same_namespace(service, platform) && service.spec.platform() == name)
}

fn services_of_model(services: &Store<MicroService>, model: &Metadata<DataModel>) -> Vec<ObjectRef<MicroService>> {
    let name = model.name_any();
    references(services, |service| in_same_namespace(service, model) && service.spec.models().contains(name.as_str()))
}

fn services_of_secret(services: &Store<MicroService>, secret: &Metadata<Secret>) -> Vec<ObjectRef<MicroService>> {
    let name = secret.name_any();
    references(services, |service| in_same_namespace(service, secret) && service::secret_names(service).contains(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::Scope;

    #[test]
    fn a_list_of_namespaces_is_so_many_scopes_and_none_is_the_cluster() {
        assert_eq!(Scope::parse(""), [Scope::Cluster]);
        assert_eq!(Scope::parse(" , "), [Scope::Cluster]);
        assert_eq!(Scope::parse("shop, loyalty"), [Scope::Namespace("shop".to_owned()), Scope::Namespace("loyalty".to_owned())]);
    }
}
