//! Pulling messages from a durable consumer: only as many as there is room for, through lost connections, and without missing what a stream
//! that lost its tail gets anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::Consumer;
use async_nats::jetstream::consumer::pull::{self, BatchConfig};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;
use async_nats::{StatusCode, Subscriber};
use autonomy_crds::event::header;
use autonomy_process::service_consumers::DurableConsumer;
use autonomy_process::telemetry::error_chain;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

const HEARTBEAT: Duration = Duration::from_secs(1);
const EXPIRES: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);
// A request's messages take at most this much memory; there is always one.
const MAX_BYTES: usize = 32 << 20;
// How many of the newest messages are remembered, to see whether the stream still has them.
const REMEMBERED: usize = 1024;
// Of older ones, one in so many, and how many of those.
const SPARSE: u64 = 1024;
const SPARSE_REMEMBERED: usize = 1024;

/// Why a consumer can't be had at the moment.
#[derive(Debug, thiserror::Error)]
#[error("the consumer {consumer} of stream {stream} can't be had: {doing}")]
pub struct ConsumerError {
    consumer: String,
    stream: String,
    doing: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Pulls from one consumer.
pub struct Puller {
    jetstream: Context,
    wanted: DurableConsumer,
    room: Arc<Semaphore>,
    capacity: usize,
    remembered: VecDeque<(u64, String)>,
    sparse: VecDeque<(u64, String)>,
    // Counts lost connections.
    interruptions: watch::Receiver<u64>,
    stop: CancellationToken,
}

/// Asks a consumer for messages, a request at a time.
pub(super) struct Requests {
    consumer: Consumer<pull::Config>,
    inbox: String,
    messages: Subscriber,
    interruptions: watch::Receiver<u64>,
    outstanding: usize,
}

/// What comes of a request.
pub(super) enum Delivery {
    /// A message.
    Message(async_nats::Message),
    /// The request is answered, or its time is over.
    Answered,
    /// The connection or the consumer is lost: it must be looked at.
    Lost,
}

impl Requests {
    /// Subscribes to the answers. `interruptions` counts lost connections.
    ///
    /// # Errors
    /// When the client can't.
    pub async fn begin(
        client: &async_nats::Client,
        consumer: Consumer<pull::Config>,
        interruptions: watch::Receiver<u64>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await?;
        Ok(Self { consumer, inbox, messages, interruptions, outstanding: 0 })
    }

    /// The consumer.
    pub fn consumer(&self) -> &Consumer<pull::Config> {
        &self.consumer
    }

    /// Asks for so many messages.
    ///
    /// # Errors
    /// When the client can't.
    pub async fn ask(&mut self, batch: usize, max_bytes: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let request = BatchConfig { batch, expires: Some(EXPIRES), idle_heartbeat: HEARTBEAT, max_bytes, ..BatchConfig::default() };
        self.consumer.request_batch(request, self.inbox.clone().into()).await?;
        self.outstanding = batch;
        Ok(())
    }

    /// What comes next of the request.
    pub async fn next(&mut self) -> Delivery {
        while self.outstanding > 0 {
            let message = tokio::select! {
                biased;
                _ = self.interruptions.changed() => return Delivery::Lost,
                message = self.messages.next() => message,
                () = tokio::time::sleep(HEARTBEAT * 3) => {
                    tracing::debug!("no heartbeat; looking at the consumer");
                    return Delivery::Lost;
                }
            };
            let Some(message) = message else { return Delivery::Lost };
            match message.status {
                None | Some(StatusCode::OK) => {
                    self.outstanding -= 1;
                    return Delivery::Message(message);
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                // The request's time is over, or it is full by its bytes.
                Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => break,
                Some(StatusCode::REQUEST_TERMINATED)
                    if message.description.as_deref().is_some_and(|text| text.contains("MaxBytes") || text.contains("Batch Completed")) =>
                {
                    break;
                }
                // The consumer is gone, its leader changed, the server goes down.
                Some(_) => return Delivery::Lost,
            }
        }
        Delivery::Answered
    }
}

impl Puller {
    /// A puller with at most `capacity` messages in hand.
    pub fn new(
        jetstream: Context,
        wanted: DurableConsumer,
        capacity: usize,
        interruptions: watch::Receiver<u64>,
        stop: CancellationToken,
    ) -> Self {
        let room = Arc::new(Semaphore::new(capacity));
        Self { jetstream, wanted, room, capacity, remembered: VecDeque::new(), sparse: VecDeque::new(), interruptions, stop }
    }

    /// Pulls until told to stop; `accept` gets each message and the room it takes. `ready` is told when the consumer is there.
    pub async fn run(mut self, ready: impl Fn(), mut accept: impl FnMut(async_nats::Message, OwnedSemaphorePermit)) {
        let stop = self.stop.clone();
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                result = self.pull(&ready, &mut accept) => if let Err(error) = result {
                    tracing::warn!(error = %error_chain(&error), "pulling was interrupted; going on");
                },
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    // Until something is lost.
    async fn pull(
        &mut self,
        ready: &impl Fn(),
        accept: &mut impl FnMut(async_nats::Message, OwnedSemaphorePermit),
    ) -> Result<(), ConsumerError> {
        let mut interruptions = self.interruptions.clone();
        interruptions.mark_unchanged();
        let consumer = self.consumer().await?;
        ready();
        let mut requests =
            Requests::begin(&self.jetstream.client(), consumer, interruptions).await.map_err(|source| self.error("subscribing", source))?;
        loop {
            let room = self.wait_for_room().await;
            requests.ask(room, MAX_BYTES).await.map_err(|source| self.error("asking", source))?;
            loop {
                match requests.next().await {
                    Delivery::Message(message) => {
                        self.remember(&message);
                        // There is room for all that was asked for.
                        let Ok(permit) = self.room.clone().acquire_owned().await else { return Ok(()) };
                        accept(message, permit);
                    }
                    Delivery::Answered => break,
                    Delivery::Lost => return Ok(()),
                }
            }
        }
    }

    // Waits until a good part of the room is free, so that requests are few; gives how much is.
    async fn wait_for_room(&self) -> usize {
        let enough = u32::try_from((self.capacity / 4).max(1)).unwrap_or(u32::MAX);
        // Taken to wait for it, and given back at once.
        drop(self.room.acquire_many(enough).await);
        self.room.available_permits().max(1)
    }

    fn remember(&mut self, message: &async_nats::Message) {
        let Some(id) = message.headers.as_ref().and_then(|headers| headers.get(header::ID)) else { return };
        let Some(sequence) = message.reply.as_ref().and_then(|reply| sequence_of(reply)) else { return };
        if self.remembered.back().is_some_and(|(last, _)| *last >= sequence) {
            return;
        }
        self.remembered.push_back((sequence, id.as_str().to_owned()));
        if self.remembered.len() > REMEMBERED
            && let Some(old) = self.remembered.pop_front()
            && self.sparse.back().is_none_or(|(last, _)| old.0 >= last + SPARSE)
        {
            self.sparse.push_back(old);
            if self.sparse.len() > SPARSE_REMEMBERED {
                self.sparse.pop_front();
            }
        }
    }

    // Makes the consumer or brings it to what is wanted, and sets it back where the stream is not what it was.
    async fn consumer(&mut self) -> Result<Consumer<pull::Config>, ConsumerError> {
        let stream = self
            .jetstream
            .get_stream(&self.wanted.stream)
            .await
            .map_err(|source| self.error("looking at the stream; has the DataModel been applied?", Box::new(source)))?;
        let config = self.wanted.config_on(&stream).await;
        let mut consumer = stream.create_consumer(config).await.map_err(|source| self.error("making it", Box::new(source)))?;
        let last = stream.cached_info().state.last_sequence;
        let info = consumer.cached_info().clone();
        if let Some(good) = self.last_known(&stream, last, info.delivered.stream_sequence).await? {
            let start = (good + 1).min(info.ack_floor.stream_sequence + 1).min(last + 1).max(1);
            tracing::warn!(
                stream = self.wanted.stream,
                consumer = self.wanted.name,
                last,
                delivered = info.delivered.stream_sequence,
                start,
                "the stream lost its tail or was made anew; the consumer is set back"
            );
            consumer.reset(Some(start)).await.map_err(|source| self.error("setting it back", Box::new(source)))?;
            self.remembered.retain(|(sequence, _)| *sequence < start);
            self.sparse.retain(|(sequence, _)| *sequence < start);
        }
        Ok(consumer)
    }

    // Where the stream is not what this worker or the consumer has seen: the last message that is still the same (0 for none).
    async fn last_known(&self, stream: &Stream, last: u64, delivered: u64) -> Result<Option<u64>, ConsumerError> {
        let newest = self.remembered.back();
        let same = match newest {
            Some(newest) => newest.0 <= last && self.is_same(stream, newest).await?,
            None => true,
        };
        if same && delivered <= last {
            return Ok(None);
        }
        for message in self.remembered.iter().rev().chain(self.sparse.iter().rev()) {
            if message.0 <= last && self.is_same(stream, message).await? {
                return Ok(Some(message.0));
            }
        }
        // Nothing is known of it: from what it still has, which was delivered as it is, if this worker knows no better.
        Ok(Some(if newest.is_none() { last } else { 0 }))
    }

    // Whether the stream holds this message as it was. One that is deleted or expired counts as the same: it tells nothing.
    async fn is_same(&self, stream: &Stream, (sequence, id): &(u64, String)) -> Result<bool, ConsumerError> {
        use async_nats::jetstream::stream::RawMessageErrorKind;
        match stream.get_raw_message(*sequence).await {
            Ok(message) => Ok(message.headers.get(header::ID).is_some_and(|own| own.as_str() == id)),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(true),
            Err(error) => Err(self.error("comparing messages", Box::new(error))),
        }
    }

    fn error(&self, doing: &'static str, source: Box<dyn std::error::Error + Send + Sync>) -> ConsumerError {
        ConsumerError { consumer: self.wanted.name.clone(), stream: self.wanted.stream.clone(), doing, source }
    }
}

// The stream sequence in a delivery's reply subject: `$JS.ACK.{stream}.{consumer}.{delivered}.{stream sequence}…`, with domain and account
// before the stream where there are eleven tokens and more.
fn sequence_of(reply: &str) -> Option<u64> {
    let tokens = reply.split('.').count();
    reply.split('.').nth(if tokens >= 11 { 7 } else { 5 })?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::sequence_of;

    #[test]
    fn the_stream_sequence_is_read_from_both_forms_of_the_reply() {
        assert_eq!(sequence_of("$JS.ACK.NS_RETAIL.svc.1.42.7.1700000000000000000.0"), Some(42));
        assert_eq!(sequence_of("$JS.ACK._.ACCHASH.NS_RETAIL.svc.1.42.7.1700000000000000000.0.tok"), Some(42));
    }
}
