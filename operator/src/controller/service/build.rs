//! The objects of a MicroService.

use std::collections::BTreeMap;

use autonomy_crds::MicroService;
use autonomy_crds::micro_service::HttpHandler;
use autonomy_crds::resolved::Entity;
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

use super::super::context::Settings;
use super::super::platform;
use super::super::workload::{self, OPERATIONS_PORT, Ownership, Role, secret_variable, variable};
use super::ServiceError;
use super::dereference::Dereferenced;
use crate::catalog::hex_sha256;

const SERVICE_FOLDER: &str = "/etc/autonomy";
const SERVICE_FILE: &str = "service.json";
const SECRETS_FOLDER: &str = "/var/run/autonomy/secrets";
const FILES_FOLDER: &str = "/var/lib/autonomy/files";
const POLLING_SECONDS: u32 = 5;

/// Everything that a service is made of.
pub struct Built {
    pub ownership: Ownership,
    pub declaration: ConfigMap,
    pub deployment: Deployment,
    pub metrics: Service,
    pub disruption_budget: PodDisruptionBudget,
    pub network_policy: NetworkPolicy,
    /// Of a queue trigger.
    pub consumers: Option<ServiceConsumers>,
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

/// Builds it all; pure.
pub fn build(service: &MicroService, from: &Dereferenced, settings: &Settings, keda: bool) -> Result<Built, ServiceError> {
    let spec = &service.spec;
    let ownership = Ownership::of(service, spec.platform(), "worker")
        .ok_or_else(|| ServiceError::ReferenceMissing("the resource has no identity yet".to_owned()))?;
    let name = worker_name(&from.name);
    let scaled = keda && !spec.suspend && !settings.operator_url.is_empty() && spec.trigger.queue.is_some();
    let autoscaling = spec.scaling.autoscaling.as_ref().filter(|_| scaled);
    let declaration = declaration(service, from, &ownership);
    let replicas = match autoscaling {
        Some(_) => None,
        None if spec.suspend => Some(0),
        None => Some(i32::try_from(spec.scaling.replicas).unwrap_or(i32::MAX)),
    };
    let scaled_object = autoscaling.map(|wanted| {
        let mut object = DynamicObject::new(&name, &scaled_object_kind()).data(json!({"spec": {
            "scaleTargetRef": {"name": name},
            "minReplicaCount": wanted.min_replicas,
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
        consumers: spec.trigger.queue.as_ref().map(|queue| ServiceConsumers::new(&from.namespace, &from.name, spec, queue)),
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
    if spec.handler.is_some() {
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
        // Two workers on one folder would take each other's files.
        one_at_a_time: spec.trigger.files.is_some(),
        beside: spec.handler.as_ref().map(|handler| handler_container(&handler.http, environment_from(service))),
    })
}

// The user's own logic, restricted like everything else in the pod. The worker waits for it: while it is away, events are tried again.
fn handler_container(handler: &HttpHandler, environment_from: Vec<EnvFromSource>) -> Container {
    let list = |texts: &Vec<String>| Some(texts.clone()).filter(|texts| !texts.is_empty());
    Container {
        name: "handler".to_owned(),
        image: Some(handler.image.clone()),
        command: list(&handler.command),
        args: list(&handler.args),
        env: Some(handler.environment.iter().map(|(name, value)| variable(name, value)).collect())
            .filter(|variables: &Vec<_>| !variables.is_empty()),
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
    for reference in service.spec.secret_keys() {
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
