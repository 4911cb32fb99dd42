//! The durable consumers of a MicroService with a queue trigger, and how much waits in them. The operator makes them, so that nothing is
//! missed before the first worker starts and lag can be told while there is none; a worker makes them again where they are gone.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};
use autonomy_crds::event;
use autonomy_crds::micro_service::{MicroServiceSpec, QueueTrigger};
use futures::StreamExt;

/// How long the server waits for a sign before it delivers a message again.
pub const ACK_WAIT: Duration = Duration::from_secs(20);
// A worker has room for at least so many events.
const LEAST_IN_HAND: usize = 16;
// So many events may be delivered whose retry or dead letter is on its way to disk.
const MOST_DEFERRED: usize = 100_000;

/// A durable consumer as it is made.
#[derive(Clone, Debug)]
pub struct DurableConsumer {
    /// The stream.
    pub stream: String,
    /// The consumer's name.
    pub name: String,
    /// For people.
    pub description: String,
    /// What it listens to.
    pub subjects: Vec<String>,
    /// The most messages that may be delivered and not acknowledged.
    pub max_ack_pending: usize,
}

impl DurableConsumer {
    /// Its configuration.
    pub fn config(&self) -> pull::Config {
        pull::Config {
            durable_name: Some(self.name.clone()),
            description: Some(self.description.clone()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            filter_subjects: self.subjects.clone(),
            max_ack_pending: i64::try_from(self.max_ack_pending).unwrap_or(i64::MAX),
            ..pull::Config::default()
        }
    }
}

/// The consumers of one service.
#[derive(Clone, Debug)]
pub struct ServiceConsumers {
    /// On the model's stream.
    pub events: DurableConsumer,
    /// On the retry stream: retries whose time has come.
    pub due: DurableConsumer,
    /// The subjects of all of the service's retries, due or not.
    retries: String,
    /// How many events a worker has in hand at the most.
    pub capacity: usize,
}

impl ServiceConsumers {
    /// Those of a service with this queue trigger.
    pub fn new(namespace: &str, service: &str, spec: &MicroServiceSpec, queue: &QueueTrigger) -> Self {
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).max(1);
        let batch = queue.batch.as_ref().map_or(0, |batch| size(batch.max_objects).saturating_mul(2));
        let capacity = size(spec.scaling.concurrency).saturating_mul(2).max(LEAST_IN_HAND).max(batch);
        let max_ack_pending = capacity.saturating_add(MOST_DEFERRED);
        let events = DurableConsumer {
            stream: event::stream(namespace, &queue.model),
            name: service.to_owned(),
            description: format!("Events that trigger {service}"),
            subjects: event::filter_subjects(namespace, &queue.model, &queue.entity, &queue.operations, &queue.routing),
            max_ack_pending,
        };
        let due = DurableConsumer {
            stream: event::retry_stream(namespace),
            name: format!("{service}-retries"),
            description: format!("Retries of {service} that are due"),
            subjects: vec![event::retry_due_subject(namespace, service, "*")],
            max_ack_pending,
        };
        Self { events, due, retries: format!("autonomy.{namespace}._retries.{service}.>"), capacity }
    }

    /// How much waits for the service, as the leaders of consumer and stream tell it.
    ///
    /// # Errors
    /// When one of them does not answer, so that nobody takes silence for an empty queue.
    pub async fn lag(&self, jetstream: &Context) -> Result<Lag, LagError> {
        let events = jetstream.get_stream_no_info(&self.events.stream).await.map_err(|source| self.error(Box::new(source)))?;
        let (pending, unacknowledged) = match events.consumer_info(&self.events.name).await {
            Ok(info) => (info.num_pending, u64::try_from(info.num_ack_pending).unwrap_or(u64::MAX)),
            // Nobody has made it yet: everything waits.
            Err(error) if not_found(&error) => {
                let subjects = self.events.subjects.clone();
                let mut waiting = 0u64;
                for subject in subjects {
                    let counts = events.info_builder().subjects(subject).fetch().await.map_err(|source| self.error(Box::new(source)))?;
                    waiting += counts
                        .fold(0u64, |sum, count| std::future::ready(sum + count.map_or(0, |(_, count)| u64::try_from(count).unwrap_or(0))))
                        .await;
                }
                (waiting, 0)
            }
            Err(source) => return Err(self.error(Box::new(source))),
        };
        let retries = jetstream.get_stream_no_info(&self.due.stream).await.map_err(|source| self.error(Box::new(source)))?;
        let waiting = retries.info_builder().subjects(&self.retries).fetch().await.map_err(|source| self.error(Box::new(source)))?;
        // One message a subject.
        let retries = u64::try_from(waiting.count().await).unwrap_or(u64::MAX);
        Ok(Lag { pending, unacknowledged, retries })
    }

    fn error(&self, source: Box<dyn std::error::Error + Send + Sync>) -> LagError {
        LagError { service: self.events.name.clone(), source }
    }
}

fn not_found(error: &ConsumerInfoError) -> bool {
    matches!(error.kind(), ConsumerInfoErrorKind::NotFound)
        || matches!(error.kind(), ConsumerInfoErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

/// How much waits for a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Events that were not delivered yet.
    pub pending: u64,
    /// Events that are delivered and not acknowledged.
    pub unacknowledged: u64,
    /// Retries, due or waiting for their time.
    pub retries: u64,
}

impl Lag {
    /// All of it.
    pub fn total(self) -> u64 {
        self.pending.saturating_add(self.unacknowledged).saturating_add(self.retries)
    }
}

/// The lag can't be told at the moment.
#[derive(Debug, thiserror::Error)]
#[error("NATS does not tell how much waits for {service}")]
pub struct LagError {
    service: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}
