//! One stretch of work: from taking the slot and reading the streams' ends, through reading the log and publishing, to the first trouble. After
//! any trouble everything is read anew, so no fault needs a repair of its own.

mod beginning;
mod changes;
mod error;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use autonomy_crds::event::watermark_subject;
use autonomy_process::options::{NatsConnectError, nats_connect_options};
use futures::FutureExt;
use pgwire_replication::{Lsn, ReplicationClient};
use prometheus_client::metrics::counter::Counter;
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::confirm::{Checkpoint, Confirming, Settling};
use crate::decode::Tuple;
use crate::metrics::Metrics;
use crate::publish::{PublishError, Publisher, Tail, Window};
use crate::render::Renderer;
use crate::resume::stream_end;
use crate::slot::SlotAccess;
use crate::state::{self, Models};
use crate::watermark;
use changes::Transaction;

pub use error::SessionError;

/// What sessions work with.
pub struct Resources {
    /// The slot.
    pub slot: SlotAccess,
    /// The database.
    pub pool: PgPool,
    /// NATS, as a URL.
    pub nats_url: String,
    /// What was acknowledged this long ago counts as synced.
    pub sync_interval: Duration,
    /// What is measured.
    pub metrics: Metrics,
    /// The end of the work.
    pub stop: CancellationToken,
}

const TICK: Duration = Duration::from_millis(50);
// How seldom a watermark may be told, and how often it may.
const WATERMARK_AT_LEAST: Duration = Duration::from_millis(250);
const WATERMARK_AT_MOST: Duration = Duration::from_millis(2);
const INSPECTION: Duration = Duration::from_secs(2);
// How many messages of the log are taken in between two looks at the acknowledgements.
const BURST: usize = 256;

/// Connects to NATS; the token is cancelled when the connection breaks, for then a session is over: it never goes on across a reconnect.
///
/// # Errors
/// When the URL is none or the server can't be reached.
pub async fn connect_nats(url: &str) -> Result<(async_nats::Client, CancellationToken), NatsConnectError> {
    let lost = CancellationToken::new();
    let told = lost.clone();
    let client = nats_connect_options(url)?
        .name("autonomy-relay")
        .max_reconnects(1)
        .client_capacity(4096)
        .ping_interval(Duration::from_secs(5))
        .event_callback(move |event| {
            let told = told.clone();
            async move {
                if matches!(event, async_nats::Event::Disconnected | async_nats::Event::Closed) {
                    told.cancel();
                }
            }
        })
        .connect(url)
        .await?;
    Ok((client, lost))
}

/// Works until the stop or the first trouble. `active` is called once the slot is held and the streams are in order.
///
/// # Errors
/// The trouble.
pub async fn run(resources: &Resources, active: impl FnOnce()) -> Result<(), SessionError> {
    beginning::ensure_slot(resources).await?;
    let (nats, lost) = connect_nats(&resources.nats_url).await?;
    tokio::select! {
        () = lost.cancelled() => Err(SessionError::NatsLost),
        ended = work(resources, nats, active) => ended,
    }
}

struct Work<'a> {
    resources: &'a Resources,
    nats: async_nats::Client,
    jetstream: jetstream::Context,
    publisher: Publisher,
    renderer: Renderer,
    new: Tuple,
    old: Tuple,
    transaction: Transaction,
    settling: Settling,
    confirming: Confirming,
    // Per entity: the last sequence acknowledged, and the counters of its events.
    sequences: Vec<u64>,
    counters: Vec<[Counter; 3]>,
    saved_tails: HashMap<String, u64>,
    saved_models: Option<Arc<Models>>,
    told: Instant,
    told_end: u64,
}

async fn work(resources: &Resources, nats: async_nats::Client, active: impl FnOnce()) -> Result<(), SessionError> {
    // The slot comes first: while it is held no other relay publishes, so what is read of the streams stays true.
    let mut log = match resources.slot.stream().await {
        Ok(log) => log,
        Err(error) => {
            let held = resources.slot.inspect(&resources.pool).await?.is_some_and(|slot| slot.active);
            return Err(if held { SessionError::Standby } else { error.into() });
        }
    };
    let mut work = Work::open(resources, nats).await?;
    active();
    let ended = work.run(&mut log).await;
    log.stop();
    ended
}

impl<'a> Work<'a> {
    async fn open(resources: &'a Resources, nats: async_nats::Client) -> Result<Self, SessionError> {
        let mut work = Self {
            resources,
            jetstream: jetstream::new(nats.clone()),
            publisher: Publisher::new(nats.clone(), Window::default()).await?,
            nats,
            renderer: Renderer::default(),
            new: Tuple::default(),
            old: Tuple::default(),
            transaction: Transaction::default(),
            settling: Settling::default(),
            confirming: Confirming::new(resources.sync_interval),
            sequences: Vec::new(),
            counters: Vec::new(),
            saved_tails: HashMap::new(),
            saved_models: None,
            told: Instant::now(),
            told_end: 0,
        };
        work.resume().await?;
        Ok(work)
    }

    async fn run(&mut self, log: &mut ReplicationClient) -> Result<(), SessionError> {
        let stop = self.resources.stop.clone();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inspected = Instant::now();
        loop {
            for _ in 0..BURST {
                if !self.publisher.has_room() {
                    break;
                }
                match log.recv().now_or_never() {
                    Some(event) => self.take(event).await?,
                    None => break,
                }
            }
            self.publisher.flush().await?;
            let room = self.publisher.has_room();
            let untold = self.settling.settled() > self.told_end;
            let Self { publisher, sequences, counters, told, .. } = self;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = tick.tick() => {
                    self.publisher.check()?;
                    self.confirm(log).await?;
                    self.measure();
                    if inspected.elapsed() >= INSPECTION {
                        inspected = Instant::now();
                        self.inspect().await?;
                    }
                    if self.told.elapsed() >= WATERMARK_AT_LEAST {
                        self.tell().await?;
                    }
                }
                answered = publisher.answers(|done| {
                    sequences[done.entity] = sequences[done.entity].max(done.sequence);
                    counters[done.entity][done.operation as usize].inc();
                }) => answered?,
                event = log.recv(), if room => self.take(event).await?,
                () = sleep_until((*told + WATERMARK_AT_MOST).into()), if untold => {}
            }
            self.settling.settle(self.publisher.settled_count());
            if self.settling.settled() > self.told_end && self.told.elapsed() >= WATERMARK_AT_MOST {
                self.tell().await?;
            }
        }
    }

    // Tells the watermark of each namespace.
    async fn tell(&mut self) -> Result<(), SessionError> {
        let end = self.settling.settled();
        self.told = Instant::now();
        self.told_end = end;
        if end == 0 {
            return Ok(());
        }
        let mut namespaces: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
        for (index, entity) in self.renderer.entities().iter().enumerate() {
            let entities = namespaces.entry(&self.renderer.feeds()[entity.feed].namespace).or_default();
            if self.sequences[index] > 0 {
                entities.insert(entity.key.clone(), self.sequences[index]);
            }
        }
        for (namespace, entities) in namespaces {
            let text = watermark::text(end, entities);
            self.nats.publish(watermark_subject(namespace), text.into()).await.map_err(PublishError::Send)?;
        }
        Ok(())
    }

    // Takes a checkpoint of what is acknowledged, and confirms the newest one that counts as synced: the relay's own state first, then the slot.
    async fn confirm(&mut self, log: &ReplicationClient) -> Result<(), SessionError> {
        let now = Instant::now();
        self.settling.settle(self.publisher.settled_count());
        let end = self.settling.settled();
        if self.confirming.wants(end, now)
            && let Some(models) = self.settling.models()
        {
            let tail = |(index, feed): (usize, &crate::render::Feed)| {
                self.publisher.acknowledged(index).map(|tail| (feed.stream.clone(), tail.clone()))
            };
            let tails = self.renderer.feeds().iter().enumerate().filter_map(tail).collect();
            self.confirming.push(now, Checkpoint { end, tails, models: models.clone() });
        }
        let Some(checkpoint) = self.confirming.synced(now) else {
            return Ok(());
        };
        let changed = |(stream, tail): &&(String, Tail)| self.saved_tails.get(stream) != Some(&tail.sequence);
        let tails: Vec<_> = checkpoint.tails.iter().filter(changed).cloned().collect();
        let same_models = self.saved_models.as_ref().is_some_and(|saved| Arc::ptr_eq(saved, &checkpoint.models));
        if !tails.is_empty() || !same_models {
            let models = (!same_models).then_some(&*checkpoint.models);
            state::save(&self.resources.pool, &tails, models).await?;
            for (stream, tail) in tails {
                self.saved_tails.insert(stream, tail.sequence);
            }
            self.saved_models = Some(checkpoint.models.clone());
        }
        log.update_applied_lsn(Lsn::from_u64(checkpoint.end));
        Ok(())
    }

    fn measure(&self) {
        let metrics = &self.resources.metrics;
        metrics.in_flight.set(self.publisher.in_flight() as i64);
        let behind = self.transaction.open || self.publisher.in_flight() > 0;
        let lag = if behind {
            let committed = self.transaction.micros.saturating_add(946_684_800_000_000);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_micros() as i64;
            now.saturating_sub(committed).max(0) as f64 / 1e6
        } else {
            0.0
        };
        metrics.lag_seconds.set(lag);
    }

    // Looks at the slot, and whether the streams still have what they acknowledged.
    async fn inspect(&mut self) -> Result<(), SessionError> {
        let metrics = &self.resources.metrics;
        if let Some(slot) = self.resources.slot.inspect(&self.resources.pool).await? {
            metrics.slot_retained_bytes.set(slot.retained_bytes);
            metrics.lag_bytes.set(slot.log_end.saturating_sub(self.settling.settled()) as i64);
            let danger = i64::from(slot.in_danger);
            if metrics.slot_in_danger.set(danger) != danger && slot.in_danger {
                tracing::error!(
                    retained_bytes = slot.retained_bytes,
                    "the replication slot is about to be lost: the log it keeps exceeds max_slot_wal_keep_size"
                );
            }
        }
        for (index, feed) in self.renderer.feeds().iter().enumerate() {
            let acknowledged = self.publisher.acknowledged(index).map_or(0, |tail| tail.sequence);
            let found = stream_end(&self.jetstream, &feed.stream).await?.tail.sequence;
            if found < acknowledged {
                return Err(SessionError::Shrunk { stream: feed.stream.clone(), found, acknowledged });
            }
        }
        Ok(())
    }
}
