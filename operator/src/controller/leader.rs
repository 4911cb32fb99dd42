//! Leader election by a Lease: of several replicas one reconciles, and another one takes over when it is gone.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::FIELD_MANAGER;

const LEASE: &str = "autonomy-operator";
/// How long a leader that says nothing is believed.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long gives up, before another one may take over.
const GIVE_UP: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(2);

/// Why leadership ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// Another replica is the leader now.
    #[error("another replica took the lease")]
    Lost,
    /// The lease could not be renewed in time.
    #[error("the lease could not be renewed for {GIVE_UP:?}")]
    NotRenewed(#[source] kube::Error),
}

/// The lease, for one that wants to be the leader.
pub struct Candidate {
    leases: Api<Lease>,
    endpoints: Api<EndpointSlice>,
    name: String,
}

// Another one's lease as last seen: clocks of machines differ, so its age is measured by ours, from when it last changed.
struct Seen {
    version: Option<String>,
    at: Instant,
}

impl Candidate {
    /// `name` is this replica's, different from all others'.
    pub fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self { leases: Api::namespaced(client.clone(), namespace), endpoints: Api::namespaced(client, namespace), name: name.to_owned() }
    }

    /// Leads those who ask the leader's Service, KEDA among them, to this replica's address. The Service has no selector; this is its only address.
    pub async fn announce(&self, service: &str, address: &str, port: i32) {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": service, "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": FIELD_MANAGER,
            }},
            "addressType": if address.contains(':') { "IPv6" } else { "IPv4" },
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
            "ports": [{"name": "lag", "port": port, "protocol": "TCP"}],
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        if let Err(error) = self.endpoints.patch(service, &parameters, &Patch::Apply(&slice)).await {
            tracing::warn!(%error, service, "the leader's address can't be told; KEDA does not reach it");
        }
    }

    /// Waits until this replica is the leader; false where it was stopped before.
    pub async fn become_leader(&self, stop: &CancellationToken) -> bool {
        let mut seen: Option<Seen> = None;
        let mut told = None;
        loop {
            match self.try_to_lead(&mut seen).await {
                Ok(None) => return true,
                Ok(Some(holder)) if told.as_ref() != Some(&holder) => {
                    tracing::info!(leader = holder, "another replica is the leader; standing by");
                    told = Some(holder);
                }
                Ok(Some(_)) => {}
                Err(error) => tracing::warn!(%error, "the lease can't be looked at; trying again"),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Renews the lease until `stop`, and gives it back then, so that another replica takes over at once.
    ///
    /// # Errors
    /// When leadership is lost: whatever is under way must end.
    pub async fn stay_leader(&self, stop: &CancellationToken) -> Result<(), LeaderError> {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RENEW) => {}
            }
            match tokio::time::timeout(RENEW, self.renew()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return Err(LeaderError::Lost),
                Ok(Err(error)) if renewed.elapsed() > GIVE_UP => return Err(LeaderError::NotRenewed(error)),
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed; trying again"),
                Err(_) if renewed.elapsed() > GIVE_UP => {
                    return Err(LeaderError::NotRenewed(kube::Error::Service("the API does not answer".into())));
                }
                Err(_) => tracing::warn!("the lease was not renewed: the API does not answer; trying again"),
            }
        }
    }

    /// Gives the lease back.
    pub async fn resign(&self) {
        let given_back = async {
            let Some(mut lease) = self.leases.get_opt(LEASE).await? else { return Ok(()) };
            if holder(&lease) == Some(&self.name) {
                if let Some(spec) = &mut lease.spec {
                    spec.holder_identity = None;
                    spec.renew_time = Some(now());
                }
                self.leases.replace(LEASE, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(RENEW, given_back).await {
            Ok(Ok(())) => tracing::info!("the lease is given back"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be given back; it runs out by itself"),
            Err(_) => tracing::warn!("the lease could not be given back: the API does not answer; it runs out by itself"),
        }
    }

    // None where this replica has it now; otherwise who has it.
    async fn try_to_lead(&self, seen: &mut Option<Seen>) -> Result<Option<String>, kube::Error> {
        let Some(lease) = self.leases.get_opt(LEASE).await? else {
            let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(0)) };
            return taken(self.leases.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone();
        match holder(&lease) {
            Some(other) if *other != self.name => {
                let fresh = seen.as_ref().is_none_or(|seen| seen.version != version);
                if fresh {
                    *seen = Some(Seen { version, at: Instant::now() });
                }
                if seen.as_ref().is_some_and(|seen| seen.at.elapsed() <= DURATION) {
                    return Ok(Some(other.clone()));
                }
                tracing::info!(leader = other, "the leader has not renewed its lease; taking over");
            }
            _ => {}
        }
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0) + 1;
        let lease = Lease { spec: Some(self.spec(transitions)), ..lease };
        taken(self.leases.replace(LEASE, &PostParams::default(), &lease).await)
    }

    // False where another one has it.
    async fn renew(&self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.leases.get_opt(LEASE).await? else { return Ok(false) };
        if holder(&lease) != Some(&self.name) {
            return Ok(false);
        }
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(now());
        }
        Ok(taken(self.leases.replace(LEASE, &PostParams::default(), &lease).await)?.is_none())
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(now()),
            renew_time: Some(now()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

// A conflict means that another one was quicker.
fn taken(outcome: Result<Lease, kube::Error>) -> Result<Option<String>, kube::Error> {
    match outcome {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Some("another one, just now".to_owned())),
        Err(error) => Err(error),
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}
