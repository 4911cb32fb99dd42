//! A cluster as the kubeconfig names it: its namespace, and a way to the NATS of one of its DataPlatforms.

use std::net::SocketAddr;
use std::time::Duration;

use autonomy_crds::DataPlatform;
use autonomy_crds::names::parse_duration;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{Api, ListParams};
use kube::{Client, Config, ResourceExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

// For the sync itself to be done.
const SYNC_RESERVE: Duration = Duration::from_secs(15);

/// Why a cluster does not give what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no usable kubeconfig.
    #[error("no cluster is configured: set KUBECONFIG, or give --data-dir for a local mode")]
    Configuration(#[from] kube::config::InferConfigError),
    /// The API does not answer, or refuses.
    #[error("{what} can't be read from the cluster")]
    Api {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Something is not there.
    #[error("{0}")]
    Missing(String),
    /// No port can be had for the way into the cluster.
    #[error("no local port can be had")]
    Port(#[from] std::io::Error),
}

fn reading(what: impl Into<String>) -> impl FnOnce(kube::Error) -> ClusterError {
    let what = what.into();
    move |source| ClusterError::Api { what, source: Box::new(source) }
}

/// A cluster, and the namespace meant.
pub struct Cluster {
    /// Kubernetes.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

/// The way to a platform's NATS.
pub struct NatsAccess {
    /// The URL, with user and password.
    pub url: String,
    /// How old an acknowledged message is when it is surely on disk.
    pub sync: Duration,
    /// Where the URL leads through the Kubernetes API, the way there.
    pub forward: Option<Forward>,
}

/// A local port that leads to a pod; closed when this is dropped.
pub struct Forward {
    /// The local address.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// The cluster of the kubeconfig, and its namespace where none is named.
    ///
    /// # Errors
    /// When there is no usable kubeconfig.
    pub async fn connect(namespace: Option<&str>) -> Result<Self, ClusterError> {
        let config = Config::infer().await?;
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config).map_err(reading("the configuration"))?;
        Ok(Self { client, namespace })
    }

    /// An API of the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The way to the NATS of a DataPlatform, by the Secret that the operator keeps for its workers.
    ///
    /// # Errors
    /// When the platform or its Secret is not there, or no pod of NATS is.
    pub async fn nats(&self, platform: &str) -> Result<NatsAccess, ClusterError> {
        let namespace = &self.namespace;
        let declared = self.api::<DataPlatform>().get_opt(platform).await.map_err(reading(format!("DataPlatform {platform}")))?;
        let declared =
            declared.ok_or_else(|| ClusterError::Missing(format!("there is no DataPlatform {platform} in namespace {namespace}")))?;
        let secret = format!("{platform}-connections");
        let found = self.api::<Secret>().get_opt(&secret).await.map_err(reading(format!("Secret {secret}")))?;
        let url = found.and_then(|secret| String::from_utf8(secret.data?.remove("nats-url")?.0).ok());
        let url =
            url.ok_or_else(|| ClusterError::Missing(format!("Secret {secret} is not there yet: is DataPlatform {platform} Ready?")))?;
        let interval =
            declared.spec.nats.as_ref().and_then(|nats| parse_duration(&nats.sync_interval).ok()).unwrap_or(Duration::from_secs(120));
        let sync = interval + SYNC_RESERVE.min(interval + Duration::from_secs(1));
        let Some((service, service_namespace)) = service_of(&url) else { return Ok(NatsAccess { url, sync, forward: None }) };
        let port = url.rsplit(':').next().and_then(|port| port.trim_end_matches('/').parse().ok()).unwrap_or(4222);
        let forward = self.forward(&service_namespace, &service, port).await?;
        let credentials =
            url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(credentials, _)| format!("{credentials}@"));
        let url = format!("nats://{}{}", credentials.unwrap_or_default(), forward.address);
        Ok(NatsAccess { url, sync, forward: Some(forward) })
    }

    /// A local port that leads to a ready pod behind a Service.
    ///
    /// # Errors
    /// When there is no such pod.
    pub async fn forward(&self, namespace: &str, service: &str, port: u16) -> Result<Forward, ClusterError> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let found = services.get_opt(service).await.map_err(reading(format!("Service {service}")))?;
        let selector = found.and_then(|service| service.spec?.selector).unwrap_or_default();
        let selector: Vec<String> = selector.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = pods.list(&ListParams::default().labels(&selector.join(","))).await.map_err(reading("pods"))?;
        let pod = found.items.into_iter().find(|pod| !selector.is_empty() && is_ready(pod)).map(|pod| pod.name_any());
        let pod = pod.ok_or_else(|| ClusterError::Missing(format!("no ready pod is behind Service {service} of namespace {namespace}")))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((mut local, _)) = listener.accept().await {
                let (pods, pod) = (pods.clone(), pod.clone());
                tokio::spawn(async move {
                    let forwarded = pods.portforward(&pod, &[port]).await;
                    let stream = forwarded.and_then(|mut forwarded| {
                        forwarded.take_stream(port).ok_or_else(|| kube::Error::Service("the port is taken already".into()))
                    });
                    match stream {
                        // Whoever ends the connection ends it for both.
                        Ok(mut remote) => drop(tokio::io::copy_bidirectional(&mut local, &mut remote).await),
                        Err(error) => tracing::warn!(%error, pod, port, "the way into the cluster can't be opened"),
                    }
                });
            }
        });
        Ok(Forward { address, task })
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

// The Service and its namespace, where the URL's host is a cluster's: `nats.messaging.svc`, `nats.messaging.svc.cluster.local`.
fn service_of(url: &str) -> Option<(String, String)> {
    let host = url.split_once("://")?.1;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = host.split([':', '/']).next()?;
    let mut labels = host.split('.').rev().skip_while(|label| *label != "svc").skip(1);
    let namespace = labels.next()?.to_owned();
    // A pod of a StatefulSet has its own name before.
    Some((labels.next()?.to_owned(), namespace))
}

#[cfg(test)]
mod tests {
    use super::service_of;

    #[test]
    fn hosts_of_a_cluster_are_told_from_others() {
        let service = |url| service_of(url).map(|(service, namespace)| format!("{namespace}/{service}"));
        assert_eq!(service("nats://u:p@nats.messaging.svc:4222").as_deref(), Some("messaging/nats"));
        assert_eq!(service("nats://u:p@nats-0.nats.messaging.svc.cluster.local:4222").as_deref(), Some("messaging/nats"));
        assert_eq!(service("nats://u:p@nats.example.com:4222"), None);
        assert_eq!(service("nats://127.0.0.1:4222"), None);
    }
}
