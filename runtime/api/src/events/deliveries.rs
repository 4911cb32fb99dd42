//! The messages of one subscriber's consumer, asked for in small numbers: what a slow subscriber has not taken stays in the stream. Whatever
//! is lost ends it: the subscriber comes back with the id of the last event it has seen, and the place is looked for anew.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::{self, BatchConfig};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;
use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

/// How long a request for messages waits, so that a subscriber for whom nothing comes hears of it.
pub const IDLE: Duration = Duration::from_secs(15);
const HEARTBEAT: Duration = Duration::from_secs(5);
// The server forgets the consumer of a subscriber that takes nothing for so long.
const INACTIVE: Duration = Duration::from_secs(60);
// What is asked for at a time; an event larger than the bytes comes alone.
const MESSAGES: usize = 256;
const BYTES: usize = 1 << 20;

/// Why there are no more deliveries.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Making the consumer or asking it failed.
    #[error("the consumer can't be had: {doing}")]
    Consumer {
        /// What failed.
        doing: &'static str,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
    /// The server fell silent.
    #[error("nothing was heard of the consumer, not even a heartbeat")]
    Silent,
    /// The server ended it.
    #[error("the server ended the consumer's deliveries: {0}")]
    Ended(String),
}

/// What came.
#[derive(Debug)]
pub enum Delivery {
    /// A message.
    Message(Message),
    /// A request's time, [`IDLE`], is over: nothing is there by now.
    Nothing,
}

/// A consumer of one's own.
pub struct Deliveries {
    consumer: Consumer<pull::Config>,
    inbox: Subject,
    messages: Subscriber,
    // Of the present request: what was not delivered yet, and what was.
    outstanding: usize,
    taken: usize,
    // The next message is larger than a request's bytes.
    large: bool,
    // Messages of the consumer in all.
    received: u64,
}

impl Deliveries {
    /// Makes a consumer of these subjects that begins at a sequence.
    ///
    /// # Errors
    /// When JetStream does not answer or refuses.
    pub fn begin<'a>(
        jetstream: &'a Context,
        stream: &'a Stream,
        subjects: Vec<String>,
        sequence: u64,
    ) -> BoxFuture<'a, Result<Self, Lost>> {
        Self::make(jetstream, stream, subjects, sequence).boxed()
    }

    async fn make(jetstream: &Context, stream: &Stream, subjects: Vec<String>, sequence: u64) -> Result<Self, Lost> {
        let lost = |doing| move |source: async_nats::Error| Lost::Consumer { doing, source };
        let client = jetstream.client();
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await.map_err(|error| lost("subscribing")(error.into()))?;
        let mut config = pull::Config {
            name: Some(format!("subscriber-{}", uuid::Uuid::now_v7().simple())),
            description: Some("A subscriber of the object API".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: sequence.max(1) },
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        match <[String; 1]>::try_from(subjects) {
            Ok([subject]) => config.filter_subject = subject,
            Err(subjects) => config.filter_subjects = subjects,
        }
        let consumer = stream.create_consumer(config).await.map_err(|error| lost("making it")(error.into()))?;
        Ok(Self { consumer, inbox: inbox.into(), messages, outstanding: 0, taken: 0, large: false, received: 0 })
    }

    /// Waits for the next one. May be dropped while it waits.
    ///
    /// # Errors
    /// When there will be none.
    pub async fn next(&mut self) -> Result<Delivery, Lost> {
        loop {
            if self.outstanding == 0 {
                self.ask().await?;
            }
            let message = tokio::time::timeout(HEARTBEAT * 3, self.messages.next()).await.map_err(|_| Lost::Silent)?;
            if let Some(delivery) = self.take(message)? {
                return Ok(delivery);
            }
        }
    }

    /// The next one that is there already; none where it must be waited for.
    ///
    /// # Errors
    /// When there will be none.
    pub fn next_at_hand(&mut self) -> Result<Option<Delivery>, Lost> {
        while self.outstanding > 0 {
            let Some(message) = self.messages.next().now_or_never() else { break };
            if let Some(delivery) = self.take(message)? {
                return Ok(Some(delivery));
            }
        }
        Ok(None)
    }

    /// Whether all that the stream has for this consumer by now was taken.
    pub async fn is_at_end(&self) -> bool {
        let info = self.consumer.get_info().await;
        info.is_ok_and(|info| info.num_pending == 0 && info.delivered.consumer_sequence == self.received)
    }

    async fn ask(&mut self) -> Result<(), Lost> {
        let (batch, max_bytes) = if self.large { (1, 0) } else { (MESSAGES, BYTES) };
        let request = BatchConfig { batch, max_bytes, expires: Some(IDLE), idle_heartbeat: HEARTBEAT, ..BatchConfig::default() };
        // Noted first: where this is dropped before it is sent, the silence that follows ends it.
        (self.outstanding, self.taken) = (batch, 0);
        let sent = self.consumer.request_batch(request, self.inbox.clone()).await;
        sent.map_err(|error| Lost::Consumer { doing: "asking it", source: error.into() })
    }

    fn take(&mut self, message: Option<Message>) -> Result<Option<Delivery>, Lost> {
        let message = message.ok_or(Lost::Silent)?;
        let told = message.description.as_deref().unwrap_or_default();
        match message.status {
            None | Some(StatusCode::OK) => {
                self.outstanding -= 1;
                self.taken += 1;
                self.received += 1;
                self.large = false;
                Ok(Some(Delivery::Message(message)))
            }
            Some(StatusCode::IDLE_HEARTBEAT) => Ok(None),
            // The request's time is over.
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                self.outstanding = 0;
                Ok(Some(Delivery::Nothing))
            }
            // It is full by its bytes.
            Some(StatusCode::REQUEST_TERMINATED) if told.contains("MaxBytes") || told.contains("Batch Completed") => {
                self.outstanding = 0;
                self.large = self.taken == 0;
                Ok(None)
            }
            // The consumer is gone, its leader changed, the server goes down.
            Some(status) => Err(Lost::Ended(format!("{status} {told}"))),
        }
    }
}
