//! The durable consumers of a MicroService with a queue or a schedule trigger, and how much waits in them. The operator makes them, so that nothing is
//! missed before the first worker starts and lag can be told while there is none; a worker makes them again where they are gone.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use autonomy_crds::event;
use autonomy_crds::micro_service::{MicroServiceSpec, QueueTrigger};
use futures::StreamExt;
use time::OffsetDateTime;

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
    /// Where it begins when it is made.
    pub begins: DeliverPolicy,
}

impl DurableConsumer {
    /// Its configuration.
    pub fn config(&self) -> pull::Config {
        pull::Config {
            durable_name: Some(self.name.clone()),
            description: Some(self.description.clone()),
            deliver_policy: self.begins,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            filter_subjects: self.subjects.clone(),
            max_ack_pending: i64::try_from(self.max_ack_pending).unwrap_or(i64::MAX),
            ..pull::Config::default()
        }
    }

    /// The configuration to make it with on its stream. Where it is there already, it keeps where it began, which can't be changed.
    pub async fn config_on<I>(&self, stream: &Stream<I>) -> pull::Config {
        let mut config = self.config();
        if let Ok(info) = stream.consumer_info(&self.name).await {
            config.deliver_policy = info.config.deliver_policy;
        }
        config
    }
}

fn begins(queue: &QueueTrigger) -> DeliverPolicy {
    let since = queue.since_nanoseconds().and_then(|since| OffsetDateTime::from_unix_timestamp_nanos(since).ok());
    since.map_or(DeliverPolicy::All, |start_time| DeliverPolicy::ByStartTime { start_time })
}

/// The consumers of one service.
#[derive(Clone, Debug)]
pub struct ServiceConsumers {
    /// On the model's stream; none for a schedule trigger.
    pub events: Option<DurableConsumer>,
    /// On the retry stream: retries whose time has come, and planned runs.
    pub due: DurableConsumer,
    namespace: String,
    service: String,
    /// How many events a worker has in hand at the most.
    pub capacity: usize,
}

impl ServiceConsumers {
    /// Those of a service; none for a files trigger.
    pub fn of(namespace: &str, service: &str, spec: &MicroServiceSpec) -> Option<Self> {
        let queue = spec.trigger.queue.as_ref();
        (queue.is_some() || spec.trigger.schedule.is_some()).then(|| Self::new(namespace, service, spec, queue))
    }

    fn new(namespace: &str, service: &str, spec: &MicroServiceSpec, queue: Option<&QueueTrigger>) -> Self {
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).max(1);
        let batch = queue.and_then(|queue| queue.batch.as_ref()).map_or(0, |batch| size(batch.max_objects).saturating_mul(2));
        let capacity = size(spec.scaling.concurrency).saturating_mul(2).max(LEAST_IN_HAND).max(batch);
        let max_ack_pending = capacity.saturating_add(MOST_DEFERRED);
        let events = queue.map(|queue| DurableConsumer {
            stream: event::stream(namespace, &queue.model),
            name: service.to_owned(),
            description: format!("Events that trigger {service}"),
            subjects: event::filter_subjects(namespace, &queue.model, &queue.entity, &queue.operations, &queue.routing),
            max_ack_pending,
            begins: begins(queue),
        });
        let due = DurableConsumer {
            stream: event::retry_stream(namespace),
            name: format!("{service}-retries"),
            description: format!("Retries of {service} that are due"),
            subjects: vec![event::retry_due_subject(namespace, service, "*")],
            max_ack_pending,
            begins: DeliverPolicy::All,
        };
        Self { events, due, namespace: namespace.to_owned(), service: service.to_owned(), capacity }
    }

    /// How much waits for the service, as the leaders of consumer and stream tell it.
    ///
    /// # Errors
    /// When one of them does not answer, so that nobody takes silence for an empty queue.
    pub async fn lag(&self, jetstream: &Context) -> Result<Lag, LagError> {
        let (pending, unacknowledged) = match &self.events {
            Some(events) => self.waiting_events(jetstream, events).await?,
            None => (0, 0),
        };
        let retries = jetstream.get_stream_no_info(&self.due.stream).await.map_err(|source| self.error(Box::new(source)))?;
        // Most of the time nothing waits there, for any service: then there is nothing to list.
        let state = retries.get_info().await.map_err(|source| self.error(Box::new(source)))?.state;
        if state.messages == 0 {
            return Ok(Lag { pending, unacknowledged, retries: 0 });
        }
        let waiting = retries
            .info_builder()
            .subjects(event::service_retry_subjects(&self.namespace, &self.service))
            .fetch()
            .await
            .map_err(|source| self.error(Box::new(source)))?;
        // One message a subject. What else the service keeps there waits for nothing.
        let is_retry = |subject: &str| event::is_waiting(subject) || event::is_due(subject);
        let retries =
            waiting.fold(0u64, |sum, count| std::future::ready(sum + count.map_or(0, |(subject, _)| u64::from(is_retry(&subject))))).await;
        Ok(Lag { pending, unacknowledged, retries })
    }

    // Events that were not delivered, and those that are delivered and not acknowledged.
    async fn waiting_events(&self, jetstream: &Context, consumer: &DurableConsumer) -> Result<(u64, u64), LagError> {
        let events = jetstream.get_stream_no_info(&consumer.stream).await.map_err(|source| self.error(Box::new(source)))?;
        match events.consumer_info(&consumer.name).await {
            Ok(info) => Ok((info.num_pending, u64::try_from(info.num_ack_pending).unwrap_or(u64::MAX))),
            // Nobody has made it yet: everything waits.
            Err(error) if not_found(&error) => {
                let subjects = consumer.subjects.clone();
                let mut waiting = 0u64;
                for subject in subjects {
                    let counts = events.info_builder().subjects(subject).fetch().await.map_err(|source| self.error(Box::new(source)))?;
                    waiting += counts
                        .fold(0u64, |sum, count| std::future::ready(sum + count.map_or(0, |(_, count)| u64::try_from(count).unwrap_or(0))))
                        .await;
                }
                Ok((waiting, 0))
            }
            Err(source) => Err(self.error(Box::new(source))),
        }
    }

    /// When the events were committed that wait longest, as their headers tell: in the model's stream, for each subject that the service listens
    /// to, the first that is not acknowledged; of the retries the one that was put off first. `lag` says where there is something to look for.
    ///
    /// # Errors
    /// When the leaders do not answer.
    pub async fn oldest(&self, jetstream: &Context, lag: Lag) -> Result<Vec<String>, LagError> {
        let mut times = Vec::new();
        if lag.pending + lag.unacknowledged > 0
            && let Some(consumer) = &self.events
        {
            let events = jetstream.get_stream_no_info(&consumer.stream).await.map_err(|source| self.error(Box::new(source)))?;
            let begin = match events.consumer_info(&consumer.name).await {
                Ok(info) => info.ack_floor.stream_sequence + 1,
                Err(error) if not_found(&error) => 1,
                Err(source) => return Err(self.error(Box::new(source))),
            };
            for subject in &consumer.subjects {
                times.extend(self.first_from(&events, begin, subject).await?);
            }
        }
        if lag.retries > 0 {
            let retries = jetstream.get_stream_no_info(&self.due.stream).await.map_err(|source| self.error(Box::new(source)))?;
            for kind in event::WAITING.into_iter().chain([event::DUE]) {
                let subjects = event::retry_subjects_of_kind(&self.namespace, &self.service, kind);
                times.extend(self.first_from(&retries, 1, &subjects).await?);
            }
        }
        Ok(times)
    }

    // The commit time of the first event of a subject from a sequence on.
    async fn first_from(&self, stream: &Stream<()>, sequence: u64, subject: &str) -> Result<Option<String>, LagError> {
        match stream.get_first_raw_message_by_subject(subject, sequence).await {
            Ok(message) => Ok(message.headers.get(event::header::TIME).map(|time| time.as_str().to_owned())),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(source) => Err(self.error(Box::new(source))),
        }
    }

    fn error(&self, source: Box<dyn std::error::Error + Send + Sync>) -> LagError {
        LagError { service: self.service.clone(), source }
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
