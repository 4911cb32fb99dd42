//! One stretch of work: from taking the slot and reading the streams' ends, through reading the log and publishing, to the first trouble. After
//! any trouble everything is read anew, so no fault needs a repair of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use autonomy_crds::event::{CONTEXT_MESSAGE_PREFIX, Position, TransactionContext, WriteContext, watermark_subject};
use autonomy_crds::micro_service::Operation;
use autonomy_process::options::{NatsConnectError, nats_connect_options};
use bytes::Bytes;
use futures::FutureExt;
use pgwire_replication::{Lsn, PgWireError, ReplicationClient, ReplicationEvent};
use prometheus_client::metrics::counter::Counter;
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::confirm::{Checkpoint, Confirming, Settling};
use crate::decode::{self, Change, DecodeError, Old, Tuple};
use crate::metrics::{EventLabels, Metrics};
use crate::publish::{PublishError, Publisher, Tail, Window};
use crate::render::{CatalogColumns, Event, Place, Plan, Renderer, Table, commit_time, row};
use crate::repair::{self, RepairError};
use crate::resume::{ResumeError, entity_end, stream_end};
use crate::slot::{SlotAccess, SlotError};
use crate::state::{self, CatalogEntry, Models, StateError};
use crate::watermark;

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

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Another relay works.
    #[error("another relay holds the replication slot")]
    Standby,
    /// NATS is not reached.
    #[error("NATS can't be reached")]
    Nats(#[from] NatsConnectError),
    /// The connection to NATS broke.
    #[error("the connection to NATS was lost")]
    NatsLost,
    /// The slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The relay's state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A stream's end.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// Publishing.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A repair.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// The log's connection.
    #[error("the replication stream ended")]
    Replication(#[source] PgWireError),
    /// The log's connection was closed.
    #[error("PostgreSQL closed the replication stream")]
    ReplicationClosed,
    /// The log's content.
    #[error("the log can't be read")]
    Decode(#[from] DecodeError),
    /// A change of a table that the log has not described.
    #[error("the log has a change of table {0} before its description")]
    UnknownRelation(u32),
    /// A stream has other content than was acknowledged.
    #[error("stream {stream} ends at {found}, though {acknowledged} was acknowledged: it lost messages")]
    Shrunk {
        /// The stream.
        stream: String,
        /// Its last sequence.
        found: u64,
        /// The last sequence acknowledged.
        acknowledged: u64,
    },
    /// A stream is ahead of the database.
    #[error(
        "stream {stream} ends at position {position}, beyond the end of the database's log ({log_end:016X}): the database was restored from an older \
         backup or replaced. Remove the stream; it is then made anew and filled by a snapshot"
    )]
    Ahead {
        /// The stream.
        stream: String,
        /// Its last event.
        position: Position,
        /// The end of the log.
        log_end: u64,
    },
    /// A change that can't be published as an event; the stream is repaired next.
    #[error("stream {stream} has to be repaired by a snapshot: {reason}")]
    Drift {
        /// The stream.
        stream: String,
        /// Why.
        reason: String,
    },
}

impl SessionError {
    /// A short name for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Nats(_) | Self::NatsLost => "nats",
            Self::Slot(_) => "slot",
            Self::State(_) => "state",
            Self::Resume(_) => "resume",
            Self::Publish(_) => "publish",
            Self::Repair(_) => "repair",
            Self::Replication(_) | Self::ReplicationClosed => "replication",
            Self::Decode(_) | Self::UnknownRelation(_) => "decode",
            Self::Shrunk { .. } | Self::Ahead { .. } => "stream",
            Self::Drift { .. } => "drift",
        }
    }
}

const TICK: Duration = Duration::from_millis(50);
// How seldom a watermark may be told, and how often it may.
const WATERMARK_AT_LEAST: Duration = Duration::from_millis(250);
const WATERMARK_AT_MOST: Duration = Duration::from_millis(5);
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
    ensure_slot(resources).await?;
    let (nats, lost) = connect_nats(&resources.nats_url).await?;
    tokio::select! {
        () = lost.cancelled() => Err(SessionError::NatsLost),
        ended = work(resources, nats, active) => ended,
    }
}

// Makes the slot where it is missing or lost. All streams are then repaired by a snapshot.
async fn ensure_slot(resources: &Resources) -> Result<(), SessionError> {
    let Resources { slot, pool, metrics, .. } = resources;
    let found = slot.inspect(pool).await?;
    let saved = match &found {
        Some(found) if found.active => return Err(SessionError::Standby),
        Some(found) if !found.lost => {
            let saved = state::read(pool).await?;
            if saved.started || !saved.streams.is_empty() {
                return Ok(());
            }
            saved
        }
        _ => state::read(pool).await?,
    };
    match found {
        Some(found) if found.lost => {
            metrics.slots_lost.inc();
            metrics.slot_in_danger.set(1);
            tracing::error!(
                slot = slot.name,
                "the replication slot is lost: it would have kept more log than max_slot_wal_keep_size allows. It is made anew, and every \
                 stream is compared with its tables and repaired; changes of changes in between become one event"
            );
            state::forget(pool).await?;
            slot.drop_slot(pool).await?;
        }
        // Made, but nothing was ever done with it.
        Some(_) => return Ok(()),
        None if !saved.started && saved.streams.is_empty() => tracing::info!(slot = slot.name, "first start: making the replication slot"),
        None => {
            metrics.slots_lost.inc();
            tracing::error!(
                slot = slot.name,
                "the replication slot is missing though this relay has worked before: it was dropped. It is made anew, and every stream is \
                 compared with its tables and repaired; changes of changes in between become one event"
            );
            state::forget(pool).await?;
        }
    }
    slot.create(pool).await?;
    Ok(())
}

// What a transaction tells of all its changes.
#[derive(Default)]
struct Transaction {
    open: bool,
    place: Place,
    micros: i64,
    // Of objects whose unit told more than the transaction's own context.
    contexts: HashMap<Uuid, Arc<WriteContext>>,
}

impl Transaction {
    fn tell(&mut self, context: TransactionContext) {
        self.place.context = Arc::new(context.shared);
        self.contexts.clear();
        for unit in context.units {
            let context = Arc::new(unit.context);
            self.contexts.extend(unit.objects.into_iter().map(|object| (object, context.clone())));
        }
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

    // Compares the streams with what is known of them, repairs those that lost more than the log still has, and takes up the others' ends.
    async fn resume(&mut self) -> Result<(), SessionError> {
        let resources = self.resources;
        let saved = state::read(&resources.pool).await?;
        let log_end = resources.slot.inspect(&resources.pool).await?.map_or(0, |slot| slot.log_end);
        let first_start = !saved.started;
        let models = if first_start {
            let mut connection = resources.pool.acquire().await.map_err(StateError::from)?;
            state::read_catalog(&mut connection).await?
        } else {
            self.without_removed(saved.models.clone()).await?
        };
        self.renderer = Renderer::new(models);
        let mut damaged = Vec::new();
        for feed in self.renderer.feeds().to_vec() {
            let end = self.wait_for_stream(&feed.stream).await?;
            let row = saved.streams.get(&feed.stream).cloned().unwrap_or_default();
            if let Some(position) = end.tail.position
                && position.commit > log_end
            {
                return Err(SessionError::Ahead { stream: feed.stream, position, log_end });
            }
            let lost = end.tail.sequence < row.tail.sequence;
            // The place of the last message, or what is known where that message has expired.
            let position = end.tail.position.max(if lost { None } else { row.tail.position });
            let unknown = position.is_none() && end.tail.sequence > 0;
            if first_start || row.repairing || lost || unknown {
                if lost {
                    tracing::error!(
                        stream = feed.stream,
                        found = end.tail.sequence,
                        known = row.tail.sequence,
                        "the stream has lost messages that the log no longer has; it is compared with its tables and repaired"
                    );
                }
                damaged.push(feed.stream.clone());
            }
            tracing::debug!(stream = feed.stream, sequence = end.tail.sequence, position = ?position, "resuming");
            self.publisher.add(feed.stream.clone(), Tail { sequence: end.tail.sequence, position });
            self.saved_tails.insert(feed.stream, row.tail.sequence);
        }
        self.take_entities().await?;
        if !first_start {
            self.saved_models = Some(self.renderer.models().clone());
        }
        if !damaged.is_empty() || first_start {
            state::mark_repairing(&resources.pool, &damaged).await?;
            self.repair(&damaged).await?;
            if first_start {
                state::save(&resources.pool, &[], Some(self.renderer.models())).await?;
                state::mark_started(&resources.pool).await?;
                self.saved_models = Some(self.renderer.models().clone());
            }
        }
        Ok(())
    }

    // Brings streams to the state of their tables at one place of the log.
    async fn repair(&mut self, streams: &[String]) -> Result<(), SessionError> {
        let Self { resources, renderer, publisher, jetstream, sequences, counters, .. } = self;
        let mut acknowledged = |done: crate::publish::Acknowledged| {
            sequences[done.entity] = sequences[done.entity].max(done.sequence);
            counters[done.entity][done.operation as usize].inc();
        };
        let repaired = repair::repair(resources, jetstream, renderer, publisher, streams, &mut acknowledged).await?;
        state::save(&resources.pool, &repaired, None).await?;
        for (stream, tail) in repaired {
            self.saved_tails.insert(stream, tail.sequence);
        }
        Ok(())
    }

    // Without the models whose tables and stream were removed since: what the log still has of them has no place to go.
    async fn without_removed(&self, models: Models) -> Result<Models, SessionError> {
        let names: Vec<&str> = models.keys().map(String::as_str).collect();
        let uids = state::catalog_uids(&self.resources.pool, &names).await?;
        let mut there = Models::new();
        for (name, entry) in models {
            if self.is_removed(&entry, &uids).await? {
                tracing::info!(model = name, "the model and its stream were removed; the rest of its changes is passed over");
            } else {
                there.insert(name, entry);
            }
        }
        Ok(there)
    }

    // Whether another model of the name took its place, or neither the catalog has it any more nor NATS its stream.
    async fn is_removed(&self, entry: &CatalogEntry, uids: &HashMap<String, String>) -> Result<bool, SessionError> {
        Ok(match uids.get(&entry.model.name) {
            Some(uid) => **uid != *entry.uid,
            None => matches!(stream_end(&self.jetstream, &entry.model.stream).await, Err(ResumeError::Missing { .. })),
        })
    }

    // Waits until the stream is there. The slot keeps the log meanwhile: no event is skipped.
    async fn wait_for_stream(&self, stream: &str) -> Result<crate::resume::StreamEnd, SessionError> {
        let mut waited = Duration::ZERO;
        let mut warned = false;
        loop {
            match stream_end(&self.jetstream, stream).await {
                Err(error @ ResumeError::Missing { .. }) => {
                    if waited >= Duration::from_secs(2) && !warned {
                        tracing::error!(stream, "{error}");
                        warned = true;
                    }
                    let pause = Duration::from_millis(if warned { 500 } else { 50 });
                    tokio::select! {
                        () = self.resources.stop.cancelled() => return Err(error.into()),
                        () = tokio::time::sleep(pause) => waited += pause,
                    }
                }
                other => return Ok(other?),
            }
        }
    }

    // Reads where entities new to the renderer end.
    async fn take_entities(&mut self) -> Result<(), SessionError> {
        for index in self.sequences.len()..self.renderer.entities().len() {
            let entity = &self.renderer.entities()[index];
            let feed = &self.renderer.feeds()[entity.feed];
            self.sequences.push(entity_end(&self.jetstream, feed, entity).await?);
            let counter = |operation: Operation| {
                self.resources.metrics.events.get_or_create_owned(&EventLabels {
                    model: feed.model.clone(),
                    entity: entity.entity.clone(),
                    operation: operation.as_str().to_owned(),
                })
            };
            self.counters.push([counter(Operation::Created), counter(Operation::Updated), counter(Operation::Deleted)]);
        }
        Ok(())
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
            let Self { publisher, sequences, counters, .. } = self;
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
            }
            self.settling.settle(self.publisher.settled_count());
            if self.settling.settled() > self.told_end && self.told.elapsed() >= WATERMARK_AT_MOST {
                self.tell().await?;
            }
        }
    }

    async fn take(&mut self, event: Result<Option<ReplicationEvent>, PgWireError>) -> Result<(), SessionError> {
        match event.map_err(SessionError::Replication)?.ok_or(SessionError::ReplicationClosed)? {
            ReplicationEvent::XLogData { data, .. } => self.change(&data).await?,
            ReplicationEvent::Begin { final_lsn, commit_time_micros, .. } => {
                self.transaction = Transaction {
                    open: true,
                    place: Place {
                        position: Position { commit: final_lsn.as_u64(), index: 0 },
                        time: commit_time(commit_time_micros).into(),
                        context: Arc::default(),
                    },
                    micros: commit_time_micros,
                    contexts: HashMap::new(),
                };
            }
            ReplicationEvent::Commit { end_lsn, .. } => {
                self.transaction.open = false;
                self.settling.mark(end_lsn.as_u64(), self.publisher.sent_count(), self.renderer.models());
            }
            ReplicationEvent::KeepAlive { wal_end, .. } => {
                // Within a transaction it tells nothing of that transaction.
                if !self.transaction.open {
                    self.settling.mark(wal_end.as_u64(), self.publisher.sent_count(), self.renderer.models());
                }
            }
            ReplicationEvent::Message { transactional: true, prefix, content, .. } if prefix == CONTEXT_MESSAGE_PREFIX => {
                match serde_json::from_slice(&content) {
                    Ok(context) => self.transaction.tell(context),
                    Err(error) => tracing::warn!(%error, "a transaction's context is not the JSON expected; its events go without"),
                }
            }
            ReplicationEvent::Message { .. } | ReplicationEvent::StoppedAt { .. } => {}
        }
        Ok(())
    }

    async fn change(&mut self, data: &Bytes) -> Result<(), SessionError> {
        match decode::decode(data, &mut self.new, &mut self.old)? {
            Change::Relation(relation) => self.renderer.set_relation(relation),
            Change::Insert { relation } => match self.table(relation)? {
                Table::Entity(plan) => self.created(&plan, data).await?,
                Table::Catalog(columns) => self.catalog_changed(data, columns).await?,
                Table::Ignored => {}
            },
            Change::Update { relation, old } => match self.table(relation)? {
                Table::Entity(plan) => {
                    let whole = old == Old::Full && self.new.settle(&self.old);
                    if !whole {
                        return self
                            .drift(&plan, "an update came without the whole row of before: the table is not REPLICA IDENTITY FULL")
                            .await;
                    }
                    self.updated(&plan, data).await?;
                }
                Table::Catalog(columns) => {
                    self.new.settle(&self.old);
                    self.catalog_changed(data, columns).await?;
                }
                Table::Ignored => {}
            },
            Change::Delete { relation, old } => match self.table(relation)? {
                Table::Entity(plan) => {
                    if old != Old::Full {
                        return self
                            .drift(&plan, "a delete came without the whole row of before: the table is not REPLICA IDENTITY FULL")
                            .await;
                    }
                    self.deleted(&plan, data).await?;
                }
                Table::Catalog(CatalogColumns { model, .. }) => {
                    if let Some(name) = self.old.text(data, model) {
                        self.renderer.remove_model(name);
                    }
                }
                Table::Ignored => {}
            },
            Change::Truncate { relations } => {
                for relation in relations {
                    if let Table::Entity(plan) = self.table(relation)? {
                        self.drift(&plan, "a table was emptied by TRUNCATE, which tells nothing of its rows").await?;
                    }
                }
            }
            Change::Other => {}
        }
        Ok(())
    }

    fn table(&self, relation: u32) -> Result<Table, SessionError> {
        self.renderer.relation(relation).map(|(_, table)| table.clone()).ok_or(SessionError::UnknownRelation(relation))
    }

    // Gives the next position of the transaction to an event; false where the stream has it already.
    fn place_next(&mut self, plan: &Plan) -> bool {
        let position = self.transaction.place.position;
        self.transaction.place.position.index += 1;
        self.publisher.sent(plan.feed) < Some(position)
    }

    // The place of the event that `place_next` was called for; the event is of the object with this id.
    fn place(&self, id: Option<&str>) -> Place {
        let mut place = self.transaction.place.clone();
        place.position.index -= 1;
        if !self.transaction.contexts.is_empty()
            && let Some(context) = id.and_then(|id| id.parse().ok()).and_then(|id: Uuid| self.transaction.contexts.get(&id))
        {
            place.context = context.clone();
        }
        place
    }

    async fn created(&mut self, plan: &Plan, data: &[u8]) -> Result<(), SessionError> {
        if self.place_next(plan) {
            let place = self.place(plan.id(row(data, &self.new)));
            let event = self.renderer.written(plan, &place, row(data, &self.new), None::<fn(usize) -> Option<&'static str>>);
            self.publish(event).await?;
        }
        Ok(())
    }

    async fn updated(&mut self, plan: &Plan, data: &[u8]) -> Result<(), SessionError> {
        if plan.id(row(data, &self.new)) != plan.id(row(data, &self.old)) {
            // Another id is another object.
            self.deleted(plan, data).await?;
            return self.created(plan, data).await;
        }
        if self.place_next(plan) {
            let place = self.place(plan.id(row(data, &self.new)));
            let event = self.renderer.written(plan, &place, row(data, &self.new), Some(row(data, &self.old)));
            self.publish(event).await?;
        }
        Ok(())
    }

    async fn deleted(&mut self, plan: &Plan, data: &[u8]) -> Result<(), SessionError> {
        if self.place_next(plan) {
            let place = self.place(plan.id(row(data, &self.old)));
            let event = self.renderer.deleted(plan, &place, row(data, &self.old));
            self.publish(event).await?;
        }
        Ok(())
    }

    async fn publish(&mut self, event: Event) -> Result<(), SessionError> {
        Ok(self.publisher.publish(event).await?)
    }

    async fn catalog_changed(&mut self, data: &[u8], columns: CatalogColumns) -> Result<(), SessionError> {
        let text = |column| self.new.text(data, column);
        let (Some(name), Some(uid), Some(resolved)) = (text(columns.model), text(columns.uid), text(columns.resolved)) else {
            return Ok(());
        };
        let entry = state::parse_entry(name, uid, resolved)?;
        // What follows may wait for a stream.
        self.publisher.flush().await?;
        let uids = state::catalog_uids(&self.resources.pool, &[name]).await?;
        if self.is_removed(&entry, &uids).await? {
            tracing::info!(model = name, "the model was removed since, and its stream; its changes are passed over");
            return Ok(());
        }
        tracing::info!(model = name, position = %self.transaction.place.position, "the catalog changed");
        self.renderer.set_model(entry);
        for index in self.publisher.streams()..self.renderer.feeds().len() {
            let stream = self.renderer.feeds()[index].stream.clone();
            let end = self.wait_for_stream(&stream).await?;
            self.publisher.add(stream, end.tail);
        }
        self.take_entities().await
    }

    // A change that no event can tell of: unless a repair was made since, the stream is repaired now.
    async fn drift(&mut self, plan: &Plan, reason: &str) -> Result<(), SessionError> {
        let position = self.transaction.place.position;
        if self.publisher.sent(plan.feed) >= Some(position) {
            return Ok(());
        }
        let stream = self.renderer.feeds()[plan.feed].stream.clone();
        state::mark_repairing(&self.resources.pool, std::slice::from_ref(&stream)).await?;
        Err(SessionError::Drift { stream, reason: reason.to_owned() })
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
