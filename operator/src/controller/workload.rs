//! What the Deployments of API, relay and workers have alike, and what stands beside them.

use std::collections::BTreeMap;

use autonomy_crds::container::{ContainerResources, ResourceAmounts};
use autonomy_crds::data_platform::TelemetrySettings;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource, HTTPGetAction, Lifecycle, LifecycleHandler,
    LocalObjectReference, Pod, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretKeySelector, SecurityContext, Service, ServicePort, ServiceSpec, SleepAction, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, ListParams, ObjectMeta};
use kube::{Client, Resource, ResourceExt};

use super::context::Settings;
use super::verdict::{Reason, Verdict};

/// The user and group of the image's processes.
const NOBODY: i64 = 65_532;
/// The port of probes and metrics of relay and workers.
pub const OPERATIONS_PORT: i32 = 9090;
/// The label that names the DataPlatform.
pub const PLATFORM_LABEL: &str = "autonomy.dev/platform";
// How long a pod that ends still answers, until nobody sends it anything new.
const FAREWELL_SECONDS: i64 = 3;
const TERMINATION_SECONDS: i64 = 45;
// A Deployment without progress for so long has failed.
const PROGRESS_SECONDS: i32 = 300;

/// Who owns an object, and how it is labelled.
#[derive(Clone, Debug)]
pub struct Ownership {
    /// The namespace.
    pub namespace: String,
    /// The owner.
    pub owner: OwnerReference,
    /// The DataPlatform's name.
    pub platform: String,
    /// What tells these pods from all others: `app.kubernetes.io/component` and `instance`.
    pub component: &'static str,
    /// The resource's name.
    pub instance: String,
}

impl Ownership {
    /// Of a resource; none where it is not from the API server.
    pub fn of<K: Resource<DynamicType = ()>>(resource: &K, platform: &str, component: &'static str) -> Option<Self> {
        Some(Self {
            namespace: resource.namespace()?,
            owner: resource.controller_owner_ref(&())?,
            platform: platform.to_owned(),
            component,
            instance: resource.name_any(),
        })
    }

    /// The labels by which pods are selected; these never change.
    pub fn selector(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "autonomy"),
            ("app.kubernetes.io/component", self.component),
            ("app.kubernetes.io/instance", &self.instance),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// All labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/managed-by".to_owned(), super::FIELD_MANAGER.to_owned());
        labels.insert("app.kubernetes.io/part-of".to_owned(), "autonomy".to_owned());
        labels.insert(PLATFORM_LABEL.to_owned(), self.platform.clone());
        labels
    }

    /// An object's metadata.
    pub fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }

    fn label_selector(&self) -> LabelSelector {
        LabelSelector { match_labels: Some(self.selector()), ..LabelSelector::default() }
    }
}

/// A Deployment of one of the runtime's roles.
#[derive(Clone, Debug, Default)]
pub struct Role {
    /// The Deployment's name.
    pub name: String,
    /// How many pods; left to an autoscaler where none.
    pub replicas: Option<i32>,
    /// The image, where it is not the runtime's.
    pub image: Option<String>,
    /// The role and its arguments.
    pub arguments: Vec<String>,
    /// The environment.
    pub environment: Vec<EnvVar>,
    /// ConfigMaps and Secrets whose entries are in the environment.
    pub environment_from: Vec<EnvFromSource>,
    /// The port that serves: name and number; probes go to it where it is the only one.
    pub port: (&'static str, i32),
    /// What it asks for.
    pub resources: ContainerResources,
    /// What it asks for where `resources` says nothing: CPU and memory.
    pub least: (&'static str, &'static str),
    /// Volumes and where they are mounted.
    pub volumes: Vec<(Volume, VolumeMount)>,
    /// Annotations of the pods: another value starts them anew.
    pub annotations: BTreeMap<String, String>,
    /// Whether an old pod ends before a new one begins.
    pub one_at_a_time: bool,
    /// A container beside the role's.
    pub beside: Option<Container>,
}

impl Role {
    /// The Deployment.
    pub fn deployment(self, ownership: &Ownership, settings: &Settings) -> Deployment {
        let (volumes, mounts): (Vec<Volume>, Vec<VolumeMount>) = self.volumes.into_iter().unzip();
        let (port_name, port) = self.port;
        let container = Container {
            name: ownership.component.to_owned(),
            image_pull_policy: Some(settings.runtime_image_pull_policy.clone()).filter(|policy| self.image.is_none() && !policy.is_empty()),
            image: Some(self.image.unwrap_or_else(|| settings.runtime_image.clone())),
            args: Some(self.arguments),
            env: Some(self.environment),
            env_from: Some(self.environment_from).filter(|sources| !sources.is_empty()),
            ports: Some(vec![ContainerPort { name: Some(port_name.to_owned()), container_port: port, ..ContainerPort::default() }]),
            startup_probe: Some(Probe { period_seconds: Some(1), failure_threshold: Some(120), ..probe("/healthz", port_name) }),
            liveness_probe: Some(Probe {
                period_seconds: Some(10),
                failure_threshold: Some(6),
                timeout_seconds: Some(5),
                ..probe("/healthz", port_name)
            }),
            readiness_probe: Some(Probe {
                period_seconds: Some(2),
                failure_threshold: Some(3),
                timeout_seconds: Some(3),
                ..probe("/readyz", port_name)
            }),
            lifecycle: Some(Lifecycle {
                pre_stop: Some(LifecycleHandler { sleep: Some(SleepAction { seconds: FAREWELL_SECONDS }), ..LifecycleHandler::default() }),
                ..Lifecycle::default()
            }),
            resources: Some(requirements(&self.resources, self.least)),
            security_context: Some(container_security()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: Some(mounts).filter(|mounts| !mounts.is_empty()),
            ..Container::default()
        };
        let pod = PodSpec {
            containers: [container].into_iter().chain(self.beside).collect(),
            volumes: Some(volumes).filter(|volumes| !volumes.is_empty()),
            image_pull_secrets: Some(
                settings.runtime_image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect(),
            )
            .filter(|secrets: &Vec<_>| !secrets.is_empty()),
            // Nothing in these pods speaks to Kubernetes.
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(pod_security()),
            termination_grace_period_seconds: Some(TERMINATION_SECONDS),
            topology_spread_constraints: Some(vec![TopologySpreadConstraint {
                max_skew: 1,
                topology_key: "kubernetes.io/hostname".to_owned(),
                when_unsatisfiable: "ScheduleAnyway".to_owned(),
                label_selector: Some(ownership.label_selector()),
                ..TopologySpreadConstraint::default()
            }]),
            ..PodSpec::default()
        };
        let strategy = if self.one_at_a_time {
            DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None }
        } else {
            // Never fewer than wanted.
            DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }
        };
        Deployment {
            metadata: ownership.metadata(&self.name),
            spec: Some(DeploymentSpec {
                replicas: self.replicas,
                revision_history_limit: Some(3),
                progress_deadline_seconds: Some(PROGRESS_SECONDS),
                selector: ownership.label_selector(),
                strategy: Some(strategy),
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta {
                        labels: Some(ownership.labels()),
                        annotations: Some(self.annotations).filter(|annotations| !annotations.is_empty()),
                        ..ObjectMeta::default()
                    }),
                    spec: Some(pod),
                },
                ..DeploymentSpec::default()
            }),
            status: None,
        }
    }
}

fn probe(path: &str, port: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NOBODY),
        run_as_group: Some(NOBODY),
        fs_group: Some(NOBODY),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// What no container of ours goes without.
pub fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// What a container asks for, with the least where nothing is said: CPU and memory.
pub fn requirements(resources: &ContainerResources, (cpu, memory): (&str, &str)) -> ResourceRequirements {
    let requests = ResourceAmounts {
        cpu: resources.requests.cpu.clone().or_else(|| Some(cpu.to_owned())),
        memory: resources.requests.memory.clone().or_else(|| Some(memory.to_owned())),
    };
    ResourceRequirements {
        requests: Some(amounts(&requests)),
        limits: Some(amounts(&resources.limits)).filter(|limits| !limits.is_empty()),
        claims: None,
    }
}

fn amounts(amounts: &ResourceAmounts) -> BTreeMap<String, Quantity> {
    let named = [("cpu", &amounts.cpu), ("memory", &amounts.memory)];
    named.into_iter().filter_map(|(name, amount)| Some((name.to_owned(), Quantity(amount.clone()?)))).collect()
}

/// An environment variable with a value.
pub fn variable(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

/// An environment variable from a Secret.
pub fn secret_variable(name: &str, secret: &str, key: &str) -> EnvVar {
    let selector = SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: None };
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() }),
    }
}

/// The environment variables that say where traces are sent, and as whose; none where the platform's are not wanted.
pub fn trace_variables(telemetry: &TelemetrySettings, namespace: &str, name: &str) -> Vec<EnvVar> {
    let Some(endpoint) = &telemetry.otlp_endpoint else { return Vec::new() };
    let ratio = f64::from(telemetry.trace_percentage) / 100.0;
    vec![
        variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.trim_end_matches('/')),
        variable("OTEL_SERVICE_NAME", name),
        variable("OTEL_RESOURCE_ATTRIBUTES", format!("service.namespace={namespace},k8s.namespace.name={namespace}")),
        variable("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        variable("OTEL_TRACES_SAMPLER_ARG", ratio.to_string()),
    ]
}

/// The Service of these pods: with an address of its own, or (headless) only for those that look for each pod, as Prometheus does.
pub fn service(ownership: &Ownership, name: &str, (port_name, port): (&str, i32), headless: bool) -> Service {
    Service {
        metadata: ownership.metadata(name),
        spec: Some(ServiceSpec {
            selector: Some(ownership.selector()),
            cluster_ip: headless.then(|| "None".to_owned()),
            ports: Some(vec![ServicePort {
                name: Some(port_name.to_owned()),
                port,
                target_port: Some(IntOrString::String(port_name.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// At most one of these pods is taken away at a time when nodes are drained.
pub fn disruption_budget(ownership: &Ownership, name: &str) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: ownership.metadata(name),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(ownership.label_selector()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// Only this port of these pods can be reached.
pub fn network_policy(ownership: &Ownership, name: &str, port: &str) -> NetworkPolicy {
    NetworkPolicy {
        metadata: ownership.metadata(name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(ownership.label_selector()),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: None,
                ports: Some(vec![NetworkPolicyPort {
                    port: Some(IntOrString::String(port.to_owned())),
                    protocol: Some("TCP".to_owned()),
                    end_port: None,
                }]),
            }]),
            egress: None,
        }),
    }
}

/// Whether a Deployment has all its pods, and if not, why: none where it has.
pub async fn trouble(client: &Client, ownership: &Ownership, deployment: &Deployment) -> Option<Verdict> {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let seen = status.observed_generation == deployment.metadata.generation;
    let (updated, ready) = (status.updated_replicas.unwrap_or(0), status.ready_replicas.unwrap_or(0));
    let old = status.replicas.unwrap_or(0) - updated;
    if seen && updated >= wanted && ready >= wanted && old <= 0 {
        return None;
    }
    let name = deployment.name_any();
    let pods = format!("Deployment {name}: {ready} of {wanted} pods are ready");
    let failing = condition(&status.conditions.unwrap_or_default(), "Progressing").is_some_and(|found| found.status == "False");
    let cause = pods_trouble(client, ownership).await.map(|cause| format!("; {cause}")).unwrap_or_default();
    Some(Verdict::new(if failing { Reason::PodsFailing } else { Reason::PodsStarting }, pods + &cause))
}

fn condition<'a>(conditions: &'a [DeploymentCondition], name: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|condition| condition.type_ == name)
}

// What keeps the newest pod that is not ready from it.
async fn pods_trouble(client: &Client, ownership: &Ownership) -> Option<String> {
    let selector: Vec<String> = ownership.selector().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &ownership.namespace);
    let pods = pods.list(&ListParams::default().labels(&selector.join(",")).match_any()).await.ok()?;
    let mut waiting: Vec<&Pod> = pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    waiting.sort_by_key(|pod| std::cmp::Reverse(pod.metadata.creation_timestamp.clone()));
    waiting.into_iter().find_map(pod_trouble)
}

fn pod_trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = pod.name_any();
    for container in status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten()) {
        let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let state = container.state.as_ref();
        if let Some(ended) = state.and_then(|state| state.terminated.as_ref()).or(ended).filter(|ended| ended.exit_code != 0) {
            let message = ended.message.as_deref().unwrap_or_default().trim();
            let last = message.lines().last().unwrap_or_default();
            return Some(format!("pod {name} ended with exit code {}: {last}", ended.exit_code));
        }
        if let Some(waits) = state.and_then(|state| state.waiting.as_ref()) {
            let reason = waits.reason.as_deref().unwrap_or("waiting");
            if reason != "ContainerCreating" && reason != "PodInitializing" {
                return Some(format!("pod {name}: {reason} {}", waits.message.as_deref().unwrap_or_default()).trim_end().to_owned());
            }
        }
    }
    let unschedulable = status.conditions.iter().flatten().find(|found| found.type_ == "PodScheduled" && found.status == "False")?;
    Some(format!("pod {name} can't be placed: {}", unschedulable.message.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_sent_where_the_platform_says_and_nowhere_else() {
        assert_eq!(trace_variables(&TelemetrySettings::default(), "shop", "default-api"), []);
        let telemetry = TelemetrySettings { otlp_endpoint: Some("http://collector:4318/".to_owned()), trace_percentage: 10 };
        let variables = trace_variables(&telemetry, "shop", "default-api");
        let value = |name: &str| variables.iter().find(|variable| variable.name == name).and_then(|variable| variable.value.as_deref());
        assert_eq!(value("OTEL_EXPORTER_OTLP_ENDPOINT"), Some("http://collector:4318"));
        assert_eq!(value("OTEL_SERVICE_NAME"), Some("default-api"));
        assert_eq!(value("OTEL_TRACES_SAMPLER_ARG"), Some("0.1"));
    }
}
