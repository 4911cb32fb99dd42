//! Putting a DataPlatform into effect: database, streams, then the objects in the cluster.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::Api;

use super::super::connections::Connection;
use super::super::context::Context;
use super::super::server_side::{ensure, ensure_in, remove};
use super::super::workload::Ownership;
use super::PlatformError;
use super::build::Built;
use crate::prepare::{self, PrepareSettings};
use crate::streams;

/// Puts it into effect; may be repeated at any time. Gives its Deployments as they are.
pub async fn apply(
    context: &Context,
    connection: &Connection,
    built: &Built,
    passwords: &PrepareSettings,
) -> Result<Vec<(Ownership, Deployment)>, PlatformError> {
    let client = &context.client;
    // First of all, so that no other password is ever made for these roles.
    ensure(client, &built.connections).await?;
    prepare::prepare(&connection.database, passwords).await?;
    prepare::limit_slots(&connection.database, built.max_slot_wal_keep_mebibytes).await?;
    streams::ensure(&connection.jetstream, &built.namespace, &[], &built.streams).await?;
    context.connections.set_prepared(&built.namespace, &built.name);

    let mut deployments = Vec::new();
    for (ownership, deployment) in [&built.api, &built.relay] {
        deployments.push((ownership.clone(), ensure(client, deployment).await?));
    }
    for service in &built.services {
        ensure(client, service).await?;
    }
    for budget in &built.disruption_budgets {
        ensure(client, budget).await?;
    }
    for policy in &built.network_policies {
        ensure(client, policy).await?;
    }
    match &built.autoscaler {
        Some(autoscaler) => drop(ensure(client, autoscaler).await?),
        None => remove::<HorizontalPodAutoscaler>(client, &built.namespace, &format!("{}-api", built.name), &built.owner).await?,
    }
    if let Some((resource, monitor)) = &built.monitor {
        let api = Api::namespaced_with(client.clone(), &built.namespace, resource);
        ensure_in(&api, monitor, &resource.kind).await?;
    }
    Ok(deployments)
}
