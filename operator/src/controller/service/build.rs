//! The objects of a MicroService.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::micro_service::HttpHandler;
use autonomy_crds::names::parse_duration;
use autonomy_crds::resolved::Entity;
use autonomy_crds::{MicroService, MicroServiceSpec};
use autonomy_process::object_storage::Inbox;
use autonomy_process::service_consumers::ServiceConsumers;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapEnvSource, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvFromSource, KeyToPath,
    PersistentVolumeClaimVolumeSource, ProjectedVolumeSource, SecretEnvSource, SecretProjection, Service, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use serde_json::json;

use super::super::activation::OnDemand;
use super::super::context::Settings;
use super::super::lag::{Backlog, POLLING_SECONDS};
use super::super::platform;
use super::super::workload::{self, OPERATIONS_PORT, Ownership, Role, secret_variable, variable};
use super::ServiceError;
use super::dereference::Dereferenced;
use crate::catalog::hex_sha256;

const SERVICE_FOLDER: &str = "/etc/autonomy";
const SERVICE_FILE: &str = "service.json";
const SECRETS_FOLDER: &str = "/var/run/autonomy/secrets";
const FILES_FOLDER: &str = "/var/lib/autonomy/files";
// A bucket is not listed more often.
const LEAST_POLL: Duration = Duration::from_secs(1);

/// Everything that a service is made of.
pub struct Built {
    pub ownership: Ownership,
    pub declaration: ConfigMap,
    pub deployment: Deployment,
    pub metrics: Service,
    pub disruption_budget: PodDisruptionBudget,
    pub network_policy: NetworkPolicy,
    /// What waits for it.
    pub backlog: Backlog,
    /// Where it has workers only while there is work; the number of workers is told when they are there.
    pub on_demand: Option<OnDemand>,
    /// Where KEDA is and the service asks for it.
    pub scaled_object: Option<DynamicObject>,
    pub scaled_object_kind: Option<ApiResource>,
}

/// The kind by which KEDA is asked.
pub fn scaled_object_kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"))
}

/// The name of a service's Deployment and of what stands beside it.
pub fn worker_name(service: &str) -> String {
    format!("{service}-worker")
}

// Who says how many workers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scaler {
    // The spec.
    Fixed,
    // KEDA, by what waits.
    Keda,
    // The operator: none while nothing waits.
    Operator,
}

impl Scaler {
    fn of(spec: &MicroServiceSpec, keda: bool) -> Self {
        // What waits in a directory is seen by nobody but the worker.
        let seen = spec.trigger.files.as_ref().is_none_or(|files| files.s3.is_some());
        // Planned moments come without an event that would start a worker.
        let from_none = spec.trigger.schedule.is_none();
        match &spec.scaling.autoscaling {
            Some(_) if seen && keda && !spec.suspend => Self::Keda,
            Some(wanted) if seen && from_none && wanted.min_replicas == 0 && !spec.suspend => Self::Operator,
            _ => Self::Fixed,
        }
    }
}

fn on_demand(spec: &MicroServiceSpec, deployment: &str, scaler: Scaler) -> Option<OnDemand> {
    let wanted = spec.scaling.autoscaling.as_ref().filter(|wanted| wanted.min_replicas == 0 && spec.trigger.schedule.is_none())?;
    let by_operator = match scaler {
        Scaler::Fixed => return None,
        Scaler::Keda => false,
        Scaler::Operator => true,
    };
    let bucket = spec.trigger.files.as_ref().and_then(|files| files.s3.as_ref());
    Some(OnDemand {
        deployment: deployment.to_owned(),
        replicas: 0,
        first: if by_operator { count(spec.scaling.replicas.max(1)) } else { 1 },
        cooldown: by_operator.then(|| Duration::from_secs(u64::from(wanted.cooldown_seconds))),
        look: bucket.and_then(|bucket| parse_duration(&bucket.poll_interval).ok()).map(|interval| interval.max(LEAST_POLL)),
    })
}

fn backlog(service: &MicroService, from: &Dereferenced) -> Result<Backlog, ServiceError> {
    let trigger = &service.spec.trigger;
    if let Some(consumers) = ServiceConsumers::of(&from.namespace, &from.name, &service.spec) {
        return Ok(Backlog::Events(Arc::new(consumers)));
    }
    let Some((files, location)) = trigger.files.as_ref().and_then(|files| Some((files, files.s3.as_ref()?))) else {
        return Ok(Backlog::Unseen);
    };
    Ok(Backlog::Files(Arc::new(Inbox::new(location, &files.pattern, from.access_key.clone())?)))
}

fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Builds it all; pure.
pub fn build(service: &MicroService, from: &Dereferenced, settings: &Settings, keda: bool) -> Result<Built, ServiceError> {
    let spec = &service.spec;
    let ownership = Ownership::of(service, spec.platform(), "worker")
        .ok_or_else(|| ServiceError::ReferenceMissing("the resource has no identity yet".to_owned()))?;
    let name = worker_name(&from.name);
    let scaler = Scaler::of(spec, keda && !settings.operator_url.is_empty());
    let autoscaling = spec.scaling.autoscaling.as_ref().filter(|_| scaler == Scaler::Keda);
    let declaration = declaration(service, from, &ownership);
    let replicas = match scaler {
        Scaler::Keda | Scaler::Operator => None,
        Scaler::Fixed if spec.suspend => Some(0),
        Scaler::Fixed => Some(count(spec.scaling.replicas)),
    };
    // Planned moments come without an event that would start a worker.
    let fewest = u32::from(spec.trigger.schedule.is_some());
    let backlog = backlog(service, from)?;
    let scaled_object = autoscaling.map(|wanted| {
        let mut object = DynamicObject::new(&name, &scaled_object_kind()).data(json!({"spec": {
            "scaleTargetRef": {"name": name},
            "minReplicaCount": wanted.min_replicas.max(fewest),
            "maxReplicaCount": wanted.max_replicas,
            "pollingInterval": POLLING_SECONDS,
            "cooldownPeriod": wanted.cooldown_seconds,
            "triggers": [{"type": "metrics-api", "metadata": {
                "url": format!("{}/lag/{}/{}", settings.operator_url, from.namespace, from.name),
                "valueLocation": "lag",
                "targetValue": wanted.events_per_worker.to_string(),
                "activationTargetValue": "0",
            }}],
        }}));
        object.metadata = ownership.metadata(&name);
        object
    });
    Ok(Built {
        deployment: role(service, from, &name, replicas, &declaration)?.deployment(&ownership, settings),
        declaration,
        metrics: workload::service(&ownership, &name, ("metrics", OPERATIONS_PORT), true),
        disruption_budget: workload::disruption_budget(&ownership, &name),
        network_policy: workload::network_policy(&ownership, &name, "metrics"),
        backlog,
        on_demand: on_demand(spec, &name, scaler),
        scaled_object,
        scaled_object_kind: keda.then(scaled_object_kind),
        ownership,
    })
}

// The declaration as the worker reads it. Suspending and scaling are no part of it, so that they do not start workers anew.
fn declaration(service: &MicroService, from: &Dereferenced, ownership: &Ownership) -> ConfigMap {
    let mut spec = service.spec.clone();
    spec.suspend = false;
    spec.scaling.replicas = 1;
    spec.scaling.autoscaling = None;
    spec.scaling.resources = autonomy_crds::container::ContainerResources::default();
    let document = json!({"namespace": from.namespace, "name": from.name, "spec": spec});
    ConfigMap {
        metadata: ownership.metadata(&format!("{}-service", from.name)),
        data: Some([(SERVICE_FILE.to_owned(), document.to_string())].into()),
        ..ConfigMap::default()
    }
}

fn role(
    service: &MicroService,
    from: &Dereferenced,
    name: &str,
    replicas: Option<i32>,
    declaration: &ConfigMap,
) -> Result<Role, ServiceError> {
    let spec = &service.spec;
    let platform_secret = platform::connections_secret(&from.platform);
    let sync_declared = from.platform.spec.nats.as_ref().map_or("2m", |nats| nats.sync_interval.as_str());
    let sync = platform::sync_interval(sync_declared).map_err(|_| ServiceError::PlatformNotReady(spec.platform().to_owned()))?;
    let mut environment = vec![
        variable("AUTONOMY_SERVICE", format!("{SERVICE_FOLDER}/{SERVICE_FILE}")),
        variable("AUTONOMY_API_URL", platform::api_url(&from.platform)),
        secret_variable("AUTONOMY_NATS_URL", &platform_secret, platform::NATS_URL),
        variable("AUTONOMY_NATS_SYNC_INTERVAL", sync),
        variable("AUTONOMY_OPERATIONS_LISTEN", format!("0.0.0.0:{OPERATIONS_PORT}")),
        variable("AUTONOMY_LOG_FORMAT", "json"),
    ];
    environment.extend(workload::trace_variables(&from.platform.spec.telemetry, &from.namespace, &from.name));
    let declaration_name = declaration.metadata.name.clone().unwrap_or_default();
    let mut volumes = vec![(
        Volume {
            name: "service".to_owned(),
            config_map: Some(ConfigMapVolumeSource { name: declaration_name, ..ConfigMapVolumeSource::default() }),
            ..Volume::default()
        },
        mount("service", SERVICE_FOLDER, true),
    )];
    if spec.secret_keys().next().is_some() {
        environment.push(variable("AUTONOMY_SECRETS_DIR", SECRETS_FOLDER));
        volumes.push((secrets_volume(service), mount("secrets", SECRETS_FOLDER, true)));
    }
    if let Some(claim) = spec.trigger.files.as_ref().and_then(|files| files.volume_claim.clone()) {
        environment.push(variable("AUTONOMY_FILES_DIR", FILES_FOLDER));
        let source = PersistentVolumeClaimVolumeSource { claim_name: claim, read_only: None };
        volumes.push((
            Volume { name: "files".to_owned(), persistent_volume_claim: Some(source), ..Volume::default() },
            mount("files", FILES_FOLDER, false),
        ));
    }
    if spec.http_handler().is_some() {
        // Its root file system is read-only; many programs need a place for temporary files.
        let source = EmptyDirVolumeSource::default();
        volumes.push((
            Volume { name: "handler-tmp".to_owned(), empty_dir: Some(source), ..Volume::default() },
            mount("handler-tmp", "/tmp", false),
        ));
    }
    let content: String = declaration.data.iter().flatten().map(|(_, text)| text.as_str()).collect();
    let entities: Vec<&Entity> = spec.entities().into_iter().filter_map(|(model, entity)| from.models.get(model)?.entity(entity)).collect();
    let entities = serde_json::to_string(&entities).unwrap_or_default();
    Ok(Role {
        name: name.to_owned(),
        replicas,
        image: spec.handler.as_ref().and_then(|handler| Some(handler.embedded.as_ref()?.image.clone())),
        arguments: vec!["worker".to_owned()],
        environment,
        environment_from: environment_from(service),
        port: ("metrics", OPERATIONS_PORT),
        resources: spec.scaling.resources.clone(),
        least: ("50m", "64Mi"),
        volumes,
        // A worker reads its service and the entities that this names when it starts: another content of these starts it anew, and nothing else does.
        annotations: BTreeMap::from([
            ("autonomy.dev/service-sha256".to_owned(), hex_sha256(content.as_bytes())),
            ("autonomy.dev/entities-sha256".to_owned(), hex_sha256(entities.as_bytes())),
        ]),
        // Two workers on one folder would take each other's files. In a bucket they have leases.
        one_at_a_time: spec.trigger.files.as_ref().is_some_and(|files| files.directory.is_some()),
        beside: spec.http_handler().map(|handler| handler_container(handler, platform::api_url(&from.platform), environment_from(service))),
    })
}

// The user's own logic, restricted like everything else in the pod. The worker waits for it: while it is away, events are tried again.
fn handler_container(handler: &HttpHandler, api_url: String, environment_from: Vec<EnvFromSource>) -> Container {
    let caches = handler.caches_port.map(|port| variable("AUTONOMY_CACHES_URL", format!("http://127.0.0.1:{port}")));
    let given = handler.environment.iter().map(|(name, value)| variable(name, value));
    let list = |texts: &Vec<String>| Some(texts.clone()).filter(|texts| !texts.is_empty());
    Container {
        name: "handler".to_owned(),
        image: Some(handler.image.clone()),
        command: list(&handler.command),
        args: list(&handler.args),
        // What a user gives comes last, and counts.
        env: Some([variable("AUTONOMY_API_URL", api_url)].into_iter().chain(caches).chain(given).collect()),
        env_from: Some(environment_from).filter(|sources| !sources.is_empty()),
        resources: Some(workload::requirements(&handler.resources, ("50m", "64Mi"))),
        security_context: Some(workload::container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![mount("handler-tmp", "/tmp", false)]),
        ..Container::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), read_only: read_only.then_some(true), ..VolumeMount::default() }
}

// Each key as `{secret}/{key}`.
fn secrets_volume(service: &MicroService) -> Volume {
    let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (_, reference) in service.spec.secret_keys() {
        let keys = keys.entry(&reference.secret_name).or_default();
        if !keys.contains(&reference.key.as_str()) {
            keys.push(&reference.key);
        }
    }
    let sources = keys.into_iter().map(|(secret, keys)| VolumeProjection {
        secret: Some(SecretProjection {
            name: secret.to_owned(),
            items: Some(
                keys.into_iter().map(|key| KeyToPath { key: key.to_owned(), path: format!("{secret}/{key}"), mode: None }).collect(),
            ),
            optional: None,
        }),
        ..VolumeProjection::default()
    });
    Volume {
        name: "secrets".to_owned(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources.collect()), default_mode: None }),
        ..Volume::default()
    }
}

fn environment_from(service: &MicroService) -> Vec<EnvFromSource> {
    let sources = service.spec.environment_from.iter();
    sources
        .map(|source| EnvFromSource {
            config_map_ref: source.config_map.clone().map(|name| ConfigMapEnvSource { name, optional: None }),
            secret_ref: source.secret.clone().map(|name| SecretEnvSource { name, optional: None }),
            ..EnvFromSource::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use autonomy_crds::documents::{self, Resource};

    use super::*;

    fn spec(trigger: &str, scaling: &str) -> MicroServiceSpec {
        let yaml = format!(
            "apiVersion: autonomy.dev/v1alpha1\nkind: MicroService\nmetadata: {{name: close}}\nspec:\n  trigger: {trigger}\n  scaling: {scaling}\n  \
             steps: [{{patch: {{model: shop, entity: Sale, id: object.id, object: {{status: \"'closed'\"}}}}}}]\n"
        );
        let resources = documents::parse("test.yaml", &yaml).unwrap_or_else(|error| panic!("{error:?}"));
        let Some(Resource::MicroService(service)) = resources.into_iter().next() else { panic!("no service") };
        service.spec
    }

    const QUEUE: &str = "{queue: {model: shop, entity: Sale}}";
    const BUCKET: &str = "{files: {s3: {bucket: stores, pollInterval: 30s}}}";
    const DIRECTORY: &str = "{files: {directory: in}}";
    const TO_NONE: &str = "{replicas: 2, autoscaling: {maxReplicas: 5, cooldownSeconds: 90}}";

    #[test]
    fn who_scales_depends_on_what_can_be_seen_and_who_is_there() {
        for (trigger, scaling, with_keda, without) in [
            (QUEUE, TO_NONE, Scaler::Keda, Scaler::Operator),
            (BUCKET, TO_NONE, Scaler::Keda, Scaler::Operator),
            (DIRECTORY, TO_NONE, Scaler::Fixed, Scaler::Fixed),
            (QUEUE, "{autoscaling: {minReplicas: 1, maxReplicas: 5}}", Scaler::Keda, Scaler::Fixed),
            (QUEUE, "{replicas: 3}", Scaler::Fixed, Scaler::Fixed),
        ] {
            let mut spec = spec(trigger, scaling);
            assert_eq!((Scaler::of(&spec, true), Scaler::of(&spec, false)), (with_keda, without), "{trigger} {scaling}");
            spec.suspend = true;
            assert_eq!((Scaler::of(&spec, true), Scaler::of(&spec, false)), (Scaler::Fixed, Scaler::Fixed), "suspended");
        }
    }

    #[test]
    fn the_first_worker_comes_with_work_whoever_ends_the_last() {
        let by_keda = on_demand(&spec(QUEUE, TO_NONE), "close-worker", Scaler::Keda).expect("on demand");
        assert_eq!((by_keda.first, by_keda.cooldown, by_keda.look), (1, None, None));
        let by_operator = on_demand(&spec(BUCKET, TO_NONE), "close-worker", Scaler::Operator).expect("on demand");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!((by_operator.first, by_operator.cooldown, by_operator.look), (2, seconds(90), seconds(30)));
        assert_eq!(on_demand(&spec(QUEUE, "{autoscaling: {minReplicas: 1, maxReplicas: 5}}"), "close-worker", Scaler::Keda), None);
        assert_eq!(on_demand(&spec(DIRECTORY, TO_NONE), "close-worker", Scaler::Fixed), None);
    }
}
