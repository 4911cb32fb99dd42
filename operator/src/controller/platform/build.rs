//! The objects of a DataPlatform.

use std::collections::BTreeMap;

use autonomy_crds::DataPlatform;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget, ResourceMetricSource,
};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use serde_json::json;
use url::Url;

use super::super::context::Settings;
use super::super::workload::{self, OPERATIONS_PORT, Ownership, Role, secret_variable, variable};
use super::dereference::{API_PASSWORD, Dereferenced, RELAY_PASSWORD};
use super::{PlatformError, named};
use crate::catalog::hex_sha256;
use crate::sql::{api_role, relay_role};
use crate::streams::StreamSettings;

const API_PORT: i32 = 8080;
const API_CONNECTIONS: u32 = 16;
const API_DATABASE_URL: &str = "api-database-url";
const RELAY_DATABASE_URL: &str = "relay-database-url";
/// The key of the platform's Secret under which workers find the URL of NATS.
pub const NATS_URL: &str = "nats-url";
const NATS_READER_URL: &str = "nats-reader-url";
// Beyond the servers' own interval, for the sync itself to be done.
const SYNC_RESERVE_MILLISECONDS: u128 = 15_000;

/// Everything that a platform is made of.
pub struct Built {
    pub namespace: String,
    pub name: String,
    pub owner: String,
    pub max_slot_wal_keep_mebibytes: u32,
    pub streams: StreamSettings,
    pub connections: Secret,
    pub api: (Ownership, Deployment),
    pub relay: (Ownership, Deployment),
    pub services: Vec<Service>,
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    pub network_policies: Vec<NetworkPolicy>,
    pub monitor: Option<(ApiResource, DynamicObject)>,
}

/// The name of the Secret with the roles' passwords and URLs.
pub fn connections_secret(platform: &DataPlatform) -> String {
    connections_secret_of(&platform.name_any())
}

/// The same, by the platform's name.
pub fn connections_secret_of(platform: &str) -> String {
    format!("{platform}-connections")
}

/// Where the object API is served within the cluster.
pub fn api_url(platform: &DataPlatform) -> String {
    let (namespace, name) = named(platform);
    format!("http://{}.{namespace}.svc:{API_PORT}", api_name(&name))
}

/// How old an acknowledged message is when it is surely on disk, as the roles are told it.
pub fn sync_interval(declared: &str) -> Result<String, String> {
    let interval = autonomy_crds::names::parse_duration(declared)?;
    Ok(format!("{}ms", interval.as_millis() + SYNC_RESERVE_MILLISECONDS.min(interval.as_millis() + 1000)))
}

fn api_name(platform: &str) -> String {
    format!("{platform}-api")
}

fn relay_name(platform: &str) -> String {
    format!("{platform}-relay")
}

/// Builds it all; pure.
pub fn build(platform: &DataPlatform, from: Dereferenced, settings: &Settings, monitored: bool) -> Result<Built, PlatformError> {
    let ownership = |component| {
        Ownership::of(platform, &from.name, component).ok_or_else(|| PlatformError::Invalid("the resource has no identity yet".to_owned()))
    };
    let (api, relay) = (ownership("api")?, ownership("relay")?);
    let connections = connections(&api, &from)?;
    let sync =
        sync_interval(&from.nats.sync_interval).map_err(|message| PlatformError::Invalid(format!("spec.nats.syncInterval: {message}")))?;
    // Other connection URLs start the pods anew, since they read them once.
    let annotations = checksum(&connections);
    let retention = platform.spec.events.retention_days.map(|days| std::time::Duration::from_secs(u64::from(days) * 86_400));
    let api_deployment = api_role_of(platform, &from, annotations.clone()).deployment(&api, settings);
    let relay_deployment = relay_role_of(platform, &from, &sync, annotations).deployment(&relay, settings);
    Ok(Built {
        owner: api.owner.uid.clone(),
        max_slot_wal_keep_mebibytes: from.postgresql.max_slot_wal_keep_mebibytes,
        streams: StreamSettings { retention, ..StreamSettings::of(&from.nats) },
        connections,
        services: vec![
            workload::service(&api, &api_name(&from.name), ("http", API_PORT), false),
            workload::service(&relay, &relay_name(&from.name), ("metrics", OPERATIONS_PORT), true),
        ],
        autoscaler: platform.spec.api.autoscaling.as_ref().map(|wanted| HorizontalPodAutoscaler {
            metadata: api.metadata(&api_name(&from.name)),
            spec: Some(HorizontalPodAutoscalerSpec {
                scale_target_ref: CrossVersionObjectReference {
                    api_version: Some("apps/v1".to_owned()),
                    kind: "Deployment".to_owned(),
                    name: api_name(&from.name),
                },
                min_replicas: Some(count(platform.spec.api.replicas.max(1))),
                max_replicas: count(wanted.max_replicas.max(platform.spec.api.replicas)),
                metrics: Some(vec![MetricSpec {
                    type_: "Resource".to_owned(),
                    resource: Some(ResourceMetricSource {
                        name: "cpu".to_owned(),
                        target: MetricTarget {
                            type_: "Utilization".to_owned(),
                            average_utilization: Some(count(wanted.target_cpu_utilization_percentage)),
                            ..MetricTarget::default()
                        },
                    }),
                    ..MetricSpec::default()
                }]),
                ..HorizontalPodAutoscalerSpec::default()
            }),
            status: None,
        }),
        disruption_budgets: vec![
            workload::disruption_budget(&api, &api_name(&from.name)),
            workload::disruption_budget(&relay, &relay_name(&from.name)),
        ],
        network_policies: vec![
            workload::network_policy(&api, &api_name(&from.name), "http"),
            workload::network_policy(&relay, &relay_name(&from.name), "metrics"),
        ],
        monitor: monitored.then(|| monitor(&api, &from.name)),
        api: (api, api_deployment),
        relay: (relay, relay_deployment),
        namespace: from.namespace,
        name: from.name,
    })
}

// The Secret that pods read: their own roles' URLs, never the owner's.
fn connections(ownership: &Ownership, from: &Dereferenced) -> Result<Secret, PlatformError> {
    let mut data = BTreeMap::new();
    let mut put = |key: &str, value: &str| data.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
    put(API_PASSWORD, &from.passwords.api_password);
    put(RELAY_PASSWORD, &from.passwords.relay_password);
    put(API_DATABASE_URL, &url_of(&from.urls.postgresql, api_role, &from.passwords.api_password)?);
    put(RELAY_DATABASE_URL, &url_of(&from.urls.postgresql, relay_role, &from.passwords.relay_password)?);
    put(NATS_URL, &from.urls.nats);
    put(NATS_READER_URL, &from.nats_reader_url);
    Ok(Secret {
        metadata: ownership.metadata(&connections_secret_of(&from.name)),
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    })
}

// The owner's URL with another role in it.
fn url_of(owner: &str, role: impl Fn(&str) -> String, password: &str) -> Result<String, PlatformError> {
    let invalid = || {
        PlatformError::Invalid(
            "spec.postgresql.urlFrom: the Secret's text is no URL of the form postgres://user:password@host:port/database".to_owned(),
        )
    };
    let mut url = Url::parse(owner).map_err(|_| invalid())?;
    let database = url.path().trim_start_matches('/').to_owned();
    if database.is_empty() {
        return Err(invalid());
    }
    let database = percent_encoding::percent_decode_str(&database).decode_utf8().map_err(|_| invalid())?.into_owned();
    url.set_username(&role(&database)).map_err(|()| invalid())?;
    url.set_password(Some(password)).map_err(|()| invalid())?;
    Ok(url.into())
}

fn checksum(connections: &Secret) -> BTreeMap<String, String> {
    let content: Vec<u8> = connections.data.iter().flatten().flat_map(|(key, value)| [key.as_bytes(), &value.0].concat()).collect();
    [("autonomy.dev/connections-sha256".to_owned(), hex_sha256(&content))].into()
}

fn api_role_of(platform: &DataPlatform, from: &Dereferenced, annotations: BTreeMap<String, String>) -> Role {
    let settings = &platform.spec.api;
    let body = u64::from(settings.max_body_mebibytes) << 20;
    let traces = workload::trace_variables(&platform.spec.telemetry, &from.namespace, &api_name(&from.name));
    Role {
        name: api_name(&from.name),
        replicas: settings.autoscaling.is_none().then(|| count(settings.replicas)),
        arguments: vec!["api".to_owned()],
        environment: [
            vec![
                secret_variable("AUTONOMY_DATABASE_URL", &connections_secret_of(&from.name), API_DATABASE_URL),
                variable("AUTONOMY_DATABASE_CONNECTIONS", API_CONNECTIONS.to_string()),
                secret_variable("AUTONOMY_NATS_URL", &connections_secret_of(&from.name), NATS_READER_URL),
                variable("AUTONOMY_API_LISTEN", format!("0.0.0.0:{API_PORT}")),
                variable("AUTONOMY_API_MAX_BODY", body.to_string()),
                variable("AUTONOMY_LOG_FORMAT", "json"),
            ],
            traces,
        ]
        .concat(),
        port: ("http", API_PORT),
        resources: settings.resources.clone(),
        least: ("100m", "64Mi"),
        annotations,
        ..Role::default()
    }
}

fn relay_role_of(platform: &DataPlatform, from: &Dereferenced, sync: &str, annotations: BTreeMap<String, String>) -> Role {
    let settings = &platform.spec.relay;
    Role {
        name: relay_name(&from.name),
        replicas: Some(count(settings.replicas)),
        arguments: vec!["relay".to_owned()],
        environment: vec![
            secret_variable("AUTONOMY_DATABASE_URL", &connections_secret_of(&from.name), RELAY_DATABASE_URL),
            secret_variable("AUTONOMY_NATS_URL", &connections_secret_of(&from.name), NATS_URL),
            variable("AUTONOMY_NATS_SYNC_INTERVAL", sync),
            variable("AUTONOMY_RELAY_SLOT", crate::sql::slot(&database_of(&from.urls.postgresql))),
            variable("AUTONOMY_OPERATIONS_LISTEN", format!("0.0.0.0:{OPERATIONS_PORT}")),
            variable("AUTONOMY_LOG_FORMAT", "json"),
        ],
        port: ("metrics", OPERATIONS_PORT),
        resources: settings.resources.clone(),
        least: ("50m", "64Mi"),
        annotations,
        ..Role::default()
    }
}

// The database's name in its URL; `connections` has refused an URL without one.
fn database_of(url: &str) -> String {
    let path = Url::parse(url).map(|url| url.path().trim_start_matches('/').to_owned()).unwrap_or_default();
    percent_encoding::percent_decode_str(&path).decode_utf8_lossy().into_owned()
}

// Prometheus' operator scrapes every Service of the platform: the API's own port has its metrics.
fn monitor(ownership: &Ownership, platform: &str) -> (ApiResource, DynamicObject) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("monitoring.coreos.com", "v1", "ServiceMonitor"));
    // The dashboard and the alerts tell services by the label `microservice`.
    let relabelings = json!([{
        "sourceLabels": ["__meta_kubernetes_service_label_app_kubernetes_io_component", "__meta_kubernetes_service_label_app_kubernetes_io_instance"],
        "regex": "worker;(.+)",
        "targetLabel": "microservice",
    }]);
    let endpoint = |port: &str| json!({"port": port, "path": "/metrics", "relabelings": relabelings});
    let mut object = DynamicObject::new(platform, &resource).data(json!({"spec": {
        "selector": {"matchLabels": {workload::PLATFORM_LABEL: platform}},
        "endpoints": [endpoint("http"), endpoint("metrics")],
    }}));
    object.metadata = ownership.metadata(platform);
    (resource, object)
}

fn count(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_their_own_roles_url() {
        let url = url_of("postgres://owner:p%40ss@db.shop:5432/retail?sslmode=disable", api_role, "abc").expect("an URL");
        assert_eq!(url, "postgres://autonomy_retail_api:abc@db.shop:5432/retail?sslmode=disable");
        assert!(url_of("postgres://owner@db", api_role, "abc").is_err(), "no database is named");
    }

    #[test]
    fn the_sync_interval_has_a_reserve() {
        assert_eq!(sync_interval("2m").expect("a duration"), "135000ms");
        assert_eq!(sync_interval("500ms").expect("a duration"), "2000ms");
    }
}
