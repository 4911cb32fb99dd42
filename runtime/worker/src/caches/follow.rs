//! Keeping one cache in sync: snapshot, then the entity's events in order from before the snapshot on.
//!
//! Events carry whole objects, so replaying them from an earlier place, in order, ends in the right state; until then nobody sees the
//! new state. A lost connection is gone on from the last processed message; where the stream went back behind it, all begins anew.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use autonomy_crds::event::{self, Watermark, header};
use autonomy_process::telemetry::error_chain;
use futures::StreamExt;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::snapshot::{self, SnapshotError};
use super::store::{Store, id_of};
use super::{CacheState, CompiledCache, Seen};
use crate::service::CompiledService;

// How far before the snapshot events are read: clocks of servers differ, and an event is stored after its commit.
const BEFORE_SNAPSHOT: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(2);
const PULL_EXPIRES: Duration = Duration::from_secs(10);
const PULL_MESSAGES: usize = 1000;
// How long the server keeps the consumer of a cache that doesn't come back.
const INACTIVE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(250);

/// Why a cache is interrupted.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("the snapshot can't be read")]
    Snapshot(#[from] SnapshotError),
    #[error("JetStream did not answer: {doing}")]
    JetStream {
        doing: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the stream has {last} messages and message {processed} was processed: it lost its tail or was made anew")]
    WentBack { last: u64, processed: u64 },
    #[error("message {sequence} of the stream is another one than was processed: it lost its tail and went on differently")]
    Differs { sequence: u64 },
    #[error("the connection was lost")]
    Interrupted,
    #[error("messages are missing: {what}")]
    Gap { what: String },
    #[error("an event's data is not an object of the entity")]
    Data(#[source] crate::expression::JsonError),
}

impl FollowError {
    fn jetstream(doing: &'static str) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |source| Self::JetStream { doing, source }
    }

    // Whether going on from the last processed message would not give the right state.
    fn needs_snapshot(&self) -> bool {
        matches!(self, Self::WentBack { .. } | Self::Differs { .. } | Self::Snapshot(_) | Self::Data(_))
    }
}

/// What a cache's task works with.
pub(super) struct Follower {
    pub jetstream: jetstream::Context,
    pub http: reqwest::Client,
    pub api_url: String,
    pub service: Arc<CompiledService>,
    pub place: usize,
    pub state: Arc<CacheState>,
    pub watermarks: broadcast::Sender<Arc<Watermark>>,
    pub interruptions: watch::Receiver<u64>,
    pub stop: CancellationToken,
}

// How far a cache is, and the last message processed (or, before one was, the one before the first): its sequence and its event's id.
struct Progress {
    seen: Seen,
    last: (u64, Option<String>),
}

// A cache on its way: loaded, but not shown before it has caught up with its snapshot.
struct Loading {
    store: Store,
    // Commits before this position are in the snapshot.
    snapshot: u64,
}

impl Follower {
    /// Follows until told to stop; interruptions are logged and gone on from.
    pub async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    fn cache(&self) -> &Arc<CompiledCache> {
        &self.service.caches[self.place]
    }

    async fn follow(&self) {
        let mut progress = None;
        let mut loading = None;
        loop {
            // Watermarks told from here on are kept until the cache has got there.
            let watermarks = self.watermarks.subscribe();
            if let Err(error) = self.follow_once(&mut progress, &mut loading, watermarks).await {
                tracing::warn!(cache = self.cache().name, error = %error_chain(&error), "following was interrupted; going on");
                if error.needs_snapshot() {
                    progress = None;
                    loading = None;
                    self.state.lose("its snapshot is read anew");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow_once(
        &self,
        progress: &mut Option<Progress>,
        loading: &mut Option<Loading>,
        mut watermarks: broadcast::Receiver<Arc<Watermark>>,
    ) -> Result<(), FollowError> {
        let cache = self.cache();
        let mut interruptions = self.interruptions.clone();
        interruptions.mark_unchanged();
        let stream = self
            .jetstream
            .get_stream(&cache.model.stream)
            .await
            .map_err(|error| FollowError::jetstream("looking at the stream")(Box::new(error)))?;
        let last = stream.cached_info().state.last_sequence;
        let deliver = match progress {
            Some(Progress { seen, .. }) if last < seen.processed() => {
                return Err(FollowError::WentBack { last, processed: seen.processed() });
            }
            Some(progress) => {
                let (sequence, id) = &progress.last;
                if *id != id_at(&stream, *sequence).await? {
                    return Err(FollowError::Differs { sequence: *sequence });
                }
                DeliverPolicy::ByStartSequence { start_sequence: progress.seen.processed() + 1 }
            }
            None => DeliverPolicy::ByStartTime { start_time: (SystemTime::now() - BEFORE_SNAPSHOT).into() },
        };
        let (mut messages, start) = self.messages(&stream, deliver).await?;
        let progress = match progress {
            Some(progress) => progress,
            None => {
                let mut store = Store::new(cache.clone());
                let snapshot = snapshot::read(&self.http, &self.api_url, cache, &mut store).await?;
                tracing::info!(cache = cache.name, objects = store.len(), "snapshot read");
                *loading = Some(Loading { store, snapshot });
                let last = (start, id_at(&stream, start).await?);
                progress.insert(Progress { seen: Seen::from_sequence(start), last })
            }
        };

        let key = cache.model.watermark_key(&cache.entity);
        let mut consumer_sequence = 0;
        loop {
            tokio::select! {
                biased;
                // Watermarks of a server that came back may speak of another stream than the one processed.
                _ = interruptions.changed() => return Err(FollowError::Interrupted),
                message = messages.next() => {
                    let message = message
                        .ok_or_else(|| FollowError::Gap { what: "the consumer ended".to_owned() })?
                        .map_err(|error| FollowError::jetstream("pulling events")(Box::new(error)))?;
                    let info = message.info().map_err(FollowError::jetstream("reading a message's place"))?;
                    consumer_sequence += 1;
                    if info.consumer_sequence != consumer_sequence {
                        let what = format!("delivery {} came where {consumer_sequence} was expected", info.consumer_sequence);
                        return Err(FollowError::Gap { what });
                    }
                    let sequence = info.stream_sequence;
                    self.apply(&message, loading)?;
                    progress.seen.process(sequence);
                    progress.last = (sequence, message.headers.as_ref().and_then(event_id));
                }
                watermark = watermarks.recv() => match watermark {
                    Ok(watermark) => {
                        if let Ok(position) = u64::from_str_radix(&watermark.position, 16) {
                            let last = watermark.entities.get(&key).copied().unwrap_or(0);
                            progress.seen.watermark(position, last);
                            self.state.tell_behind(last.saturating_sub(progress.seen.processed()));
                        }
                    }
                    // The next one tells more.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
            }
            self.show(&progress.seen, loading);
        }
    }

    // Messages of the entity, and the sequence behind which they begin.
    async fn messages(&self, stream: &Stream, deliver_policy: DeliverPolicy) -> Result<(pull::Stream, u64), FollowError> {
        let cache = self.cache();
        let config = pull::Config {
            description: Some(format!("cache {} of {}", cache.name, self.service.name)),
            deliver_policy,
            ack_policy: AckPolicy::None,
            filter_subject: format!("{}.>", cache.model.entity_subject(&cache.entity)),
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer =
            stream.create_consumer(config).await.map_err(|error| FollowError::jetstream("making a consumer")(Box::new(error)))?;
        let start = consumer.cached_info().delivered.stream_sequence;
        let messages = consumer
            .stream()
            .max_messages_per_batch(PULL_MESSAGES)
            .expires(PULL_EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|error| FollowError::jetstream("pulling events")(Box::new(error)))?;
        Ok((messages, start))
    }

    fn apply(&self, message: &jetstream::Message, loading: &mut Option<Loading>) -> Result<(), FollowError> {
        let cache = self.cache();
        let kind = message.headers.as_ref().and_then(|headers| headers.get(header::TYPE)).map(|value| value.as_str());
        let object = cache.reader.read(&message.payload).map_err(FollowError::Data)?;
        let Some(id) = id_of(&object) else { return Ok(()) };
        let held = kind.is_none_or(|kind| !kind.ends_with(".deleted")) && cache.holds(&object);
        let change = |store: &mut Store| if held { store.put(&object) } else { store.remove(id) };
        match loading {
            Some(loading) => change(&mut loading.store),
            None => change(&mut self.state.write()),
        }
        Ok(())
    }

    // Shows what is caught up.
    fn show(&self, seen: &Seen, loading: &mut Option<Loading>) {
        // The snapshot holds commits before its position, so having seen all up to one before it is enough.
        if loading.as_ref().is_some_and(|loading| seen.position() >= loading.snapshot.saturating_sub(1))
            && let Some(loaded) = loading.take()
        {
            *self.state.write() = loaded.store;
            tracing::info!(cache = self.cache().name, position = %format_args!("{:016X}", seen.position()), "cache in sync");
        }
        if loading.is_none() {
            self.state.advance(seen.position().max(1));
        }
    }
}

fn event_id(headers: &async_nats::HeaderMap) -> Option<String> {
    headers.get(header::ID).map(|id| id.as_str().to_owned())
}

// The event's id of a message; none where there is no such message.
async fn id_at(stream: &Stream, sequence: u64) -> Result<Option<String>, FollowError> {
    if sequence == 0 {
        return Ok(None);
    }
    match stream.get_raw_message(sequence).await {
        Ok(message) => Ok(event_id(&message.headers)),
        Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(error) => Err(FollowError::jetstream("comparing messages")(Box::new(error))),
    }
}

/// Hands on the namespace's watermarks until told to stop.
pub(super) async fn watermarks(
    client: async_nats::Client,
    namespace: String,
    to: broadcast::Sender<Arc<Watermark>>,
    stop: CancellationToken,
) {
    let subject = event::watermark_subject(&namespace);
    while !stop.is_cancelled() {
        // A subscription outlives reconnects.
        match client.subscribe(subject.clone()).await {
            Ok(mut subscription) => loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    message = subscription.next() => match message {
                        Some(message) => match serde_json::from_slice::<Watermark>(&message.payload) {
                            // No receiver: all caches are between two tries.
                            Ok(watermark) => drop(to.send(Arc::new(watermark))),
                            Err(error) => tracing::warn!(%error, "a watermark is not understood"),
                        },
                        None => break,
                    },
                }
            },
            Err(error) => tracing::warn!(%error, "watermarks can't be subscribed to; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
