//! Putting a MicroService into effect: its consumers first, so that nothing is missed, then what runs in the cluster.

use async_nats::jetstream::consumer::Config;
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{Context as JetStream, ErrorCode};
use autonomy_process::service_consumers::DurableConsumer;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;

use super::super::activation::OnDemand;
use super::super::context::Context;
use super::super::lag::{Backlog, Entry};
use super::super::server_side::{ensure, ensure_in, remove_in};
use super::ServiceError;
use super::build::{Built, worker_name};
use super::dereference::Dereferenced;

/// Puts it into effect; may be repeated at any time. Gives the Deployment as it is.
pub async fn apply(context: &Context, from: &Dereferenced, built: &Built) -> Result<Deployment, ServiceError> {
    let client = &context.client;
    if let Backlog::Events(consumers) = &built.backlog {
        for consumer in consumers.events.iter().chain([&consumers.due]) {
            ensure_consumer(&from.connection.jetstream, consumer).await?;
        }
    }
    let (jetstream, connection) = (from.connection.jetstream.clone(), from.connection.number);
    context.lag.put(&from.namespace, &from.name, Entry { jetstream, connection, backlog: built.backlog.clone() });
    ensure(client, &built.declaration).await?;
    let deployment = ensure(client, &built.deployment).await?;
    ensure(client, &built.metrics).await?;
    ensure(client, &built.disruption_budget).await?;
    ensure(client, &built.network_policy).await?;
    if let Some(kind) = &built.scaled_object_kind {
        let api = Api::namespaced_with(client.clone(), &from.namespace, kind);
        match &built.scaled_object {
            Some(object) => drop(ensure_in(&api, object, &kind.kind).await?),
            None => remove_in(&api, &worker_name(&from.name), &built.ownership.owner.uid, &kind.kind).await?,
        }
    }
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let on_demand = built.on_demand.clone().map(|service| OnDemand { replicas, ..service });
    context.activation.set(&from.namespace, &from.name, on_demand);
    Ok(deployment)
}

// Makes the consumer where it is not there, or not what is wanted.
async fn ensure_consumer(jetstream: &JetStream, wanted: &DurableConsumer) -> Result<(), ServiceError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| ServiceError::Consumer {
        name: wanted.name.clone(),
        stream: wanted.stream.clone(),
        source,
    };
    let stream = jetstream.get_stream_no_info(&wanted.stream).await.map_err(|error| failed(error.into()))?;
    let mut config = wanted.config();
    if let Ok(info) = stream.consumer_info(&wanted.name).await {
        if is_wanted(&info.config, wanted) {
            return Ok(());
        }
        // Where it began can't be changed, and it goes on where it is.
        config.deliver_policy = info.config.deliver_policy;
    }
    match stream.create_consumer(config).await {
        Ok(_) => {}
        // The model is in the catalog, and its stream is made right after that.
        Err(error) if matches!(error.kind(), ConsumerErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND) => {
            return Err(ServiceError::StreamMissing(wanted.stream.clone()));
        }
        Err(error) => return Err(failed(error.into())),
    }
    tracing::info!(consumer = wanted.name, stream = wanted.stream, "consumer made");
    Ok(())
}

fn is_wanted(there: &Config, wanted: &DurableConsumer) -> bool {
    let wanted = wanted.config();
    // The server keeps a single subject as such.
    let subjects: Vec<&String> =
        there.filter_subjects.iter().chain([&there.filter_subject].into_iter().filter(|subject| !subject.is_empty())).collect();
    subjects.into_iter().eq(&wanted.filter_subjects) && there.max_ack_pending == wanted.max_ack_pending && there.ack_wait == wanted.ack_wait
}
