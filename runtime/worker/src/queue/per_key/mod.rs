//! Order per key: the 64 partitions of the model's stream are shared out among the service's workers, and each key's events are handled strictly one after
//! the other, also through retries, dead letters, and workers that come, go and die.
//!
//! [`members`] tells who is there and who has which partition; [`partition`] handles one; [`journal`] writes what changes of it, fenced against whoever has
//! lost it; [`keys`] has the events of keys that are tried again; [`window`] and [`record`] tell how far a partition is.

mod hand_over;
mod journal;
mod keys;
mod members;
mod partition;
mod record;
mod window;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use autonomy_crds::event::{Position, header};
use autonomy_process::service_consumers::DurableConsumer;
use autonomy_process::telemetry::error_chain;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::consumer::{Delivery, Requests};
use super::handler::Handler;
pub(super) use hand_over::hand_over;
use journal::{Journal, Writer};
use keys::Keys;
use members::{Feed, Member, SIGN_OF_LIFE, STOPS_AFTER, Standing, Table};
use partition::Partition;
use record::{Error, Record};
use window::Window;

// A request's messages take at most this much memory: that of the largest message that servers take, at least.
const MAX_BYTES: usize = 16 << 20;
const PAUSE: Duration = Duration::from_millis(500);
// How long what is in hand may take when a partition is let go.
const RELEASE_PATIENCE: Duration = Duration::from_secs(3);
const LOOKS: usize = 16;
// How often the service's durable consumer, by which its lag is told, is brought to where the service is.
const MARK_EVERY: Duration = Duration::from_secs(2);
// A consumer of a worker that is gone is forgotten.
const INACTIVE: Duration = Duration::from_secs(60);

/// Shares in handling the service's events, in order per key, until the worker stops.
pub struct Sharer {
    pub handler: Arc<Handler>,
    pub retries: Stream<()>,
    /// The service's consumer on the model's stream: nothing is delivered by it, it tells what waits.
    pub events: DurableConsumer,
    pub interruptions: watch::Receiver<u64>,
    /// Whether this worker is one among the others.
    pub ready: Arc<AtomicBool>,
}

// A partition that this worker has.
struct Held {
    release: CancellationToken,
    ended: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Sharer {
    /// Shares until the worker stops.
    pub async fn run(self) {
        let stop = self.handler.stop.clone();
        while !stop.is_cancelled() {
            if let Err(error) = self.share().await {
                tracing::warn!(error = %error_chain(&*error), "sharing was interrupted; joining again");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    // One membership, until it ends.
    async fn share(&self) -> Result<(), Error> {
        let (namespace, service) = (self.handler.service.namespace.as_str(), self.handler.service.name.as_str());
        let stream = self.handler.jetstream.get_stream(&self.events.stream).await?;
        let mut marker = stream.create_consumer(self.events.config_on(&stream).await).await?;
        let mut feed = Feed::open(&self.retries, namespace, service).await?;
        let mut member = Member::new(self.handler.jetstream.clone(), self.retries.clone(), namespace, service);
        let mut table = Table::default();
        let mut held: HashMap<u64, Held> = HashMap::new();
        let looks = Arc::new(Semaphore::new(LOOKS));
        let (tail, tails) = watch::channel(0);
        let mut turn = tokio::time::interval(SIGN_OF_LIFE);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut marked = (0, Instant::now());
        // Lets everything go the moment the last sign of life is too old, whatever else this worker is busy with.
        let proven = Arc::new(Mutex::new(Instant::now()));
        let everything = CancellationToken::new();
        let watchdog = tokio::spawn(watchdog(proven.clone(), everything.clone()));
        let outcome = loop {
            tokio::select! {
                () = self.handler.stop.cancelled() => break Ok(()),
                told = feed.next() => match told {
                    Ok(told) => table.note(&told),
                    Err(error) => break Err(error),
                },
                _ = turn.tick() => {
                    if member.say_so().await == Standing::Gone || everything.is_cancelled() {
                        break Err("this worker was not heard of for too long".into());
                    }
                    *proven.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = member.proven;
                    // What is known of others is as old as what is known of oneself.
                    if !feed.is_complete() || table.heard_of(&member.name).is_none_or(|heard| heard.elapsed() > 3 * SIGN_OF_LIFE) {
                        continue;
                    }
                    self.ready.store(true, Ordering::Relaxed);
                    member.look_after(&mut table).await;
                    held.retain(|_, held| !held.task.is_finished());
                    for (partition, there) in &table.partitions {
                        if there.1.owner.as_ref() == Some(&member.name) && !held.contains_key(partition) {
                            member.give_back(*partition, there).await;
                        }
                    }
                    self.let_go_of_surplus(&table, &held);
                    let begins = marker.cached_info().ack_floor.stream_sequence;
                    for partition in table.free() {
                        if held.len() >= table.share() {
                            break;
                        }
                        if held.contains_key(&partition) {
                            continue;
                        }
                        if let Some(record) = member.claim(partition, table.partitions.get(&partition), begins).await {
                            held.insert(partition, self.hold(partition, record, &stream, &everything, &looks, &tails));
                        }
                    }
                    if marked.1.elapsed() >= MARK_EVERY {
                        marked.1 = Instant::now();
                        tail.send_replace(stream.get_info().await?.state.last_sequence);
                        if held.contains_key(&0) && let Some(floor) = table.floor().filter(|floor| *floor != marked.0) {
                            if let Err(error) = marker.reset(Some(floor + 1)).await {
                                tracing::debug!(%error, "how much waits can't be told now");
                            }
                            marked.0 = floor;
                        }
                    }
                }
            }
        };
        // One that stops lets go in order, one that is not sure of itself at once.
        if outcome.is_err() {
            everything.cancel();
        }
        held.values().for_each(|held| held.release.cancel());
        for (_, mut held) in held {
            let _ = (&mut held.task).await;
        }
        everything.cancel();
        let _ = watchdog.await;
        member.leave().await;
        self.ready.store(false, Ordering::Relaxed);
        outcome
    }

    fn let_go_of_surplus(&self, table: &Table, held: &HashMap<u64, Held>) {
        let keeping = held.values().filter(|held| !held.release.is_cancelled()).count();
        let surplus = keeping.saturating_sub(table.share());
        held.values().filter(|held| !held.release.is_cancelled()).take(surplus).for_each(|held| held.release.cancel());
    }

    fn hold(
        &self,
        number: u64,
        (sequence, record): (u64, Record),
        stream: &Stream,
        everything: &CancellationToken,
        looks: &Arc<Semaphore>,
        tails: &watch::Receiver<u64>,
    ) -> Held {
        let (release, ended) = (CancellationToken::new(), everything.child_token());
        let window = Arc::new(Mutex::new(Window::new(record.progress.clone())));
        let service = &self.handler.service;
        let keys =
            Keys { retries: self.retries.clone(), namespace: service.namespace.clone(), service: service.name.clone(), partition: number };
        let writer = Writer {
            jetstream: self.handler.jetstream.clone(),
            retries: self.retries.clone(),
            namespace: service.namespace.clone(),
            service: service.name.clone(),
            partition: number,
            record,
            sequence,
            window: window.clone(),
            ended: ended.clone(),
        };
        let finished = CancellationToken::new();
        let (journal, writing) = Journal::begin(writer, finished.clone());
        let partition =
            Partition::new((number, self.handler.clone(), journal, keys), window, looks.clone(), (release.clone(), ended.clone()));
        let fetcher = Fetcher {
            stream: stream.clone(),
            subjects: self.events.subjects.iter().map(|subject| format!("{}{number}", subject.trim_end_matches('*'))).collect(),
            interruptions: self.interruptions.clone(),
            tails: tails.clone(),
            partition,
        };
        let task = tokio::spawn(async move {
            let writing = tokio::spawn(writing);
            fetcher.run(finished).await;
            let _ = writing.await;
        });
        Held { release, ended, task }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Whoever forgets a partition must not work on it.
        if !self.task.is_finished() {
            self.ended.cancel();
        }
    }
}

// Cancels when nothing was proven for too long.
async fn watchdog(proven: Arc<Mutex<Instant>>, everything: CancellationToken) {
    loop {
        let until = *proven.lock().unwrap_or_else(std::sync::PoisonError::into_inner) + STOPS_AFTER;
        if until <= Instant::now() {
            return everything.cancel();
        }
        tokio::select! {
            () = everything.cancelled() => return,
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}

// Fetches a partition's events in order.
struct Fetcher {
    stream: Stream,
    subjects: Vec<String>,
    interruptions: watch::Receiver<u64>,
    tails: watch::Receiver<u64>,
    partition: Arc<Partition>,
}

impl Fetcher {
    // Until the partition is released or lost; `finished` is told when nobody works on it any more.
    async fn run(self, finished: CancellationToken) {
        let partition = self.partition.clone();
        let (ended, release) = (partition.ended.clone(), partition.release.clone());
        let work = async {
            while let Err(error) = partition.take_up().await {
                tracing::warn!(partition = partition.number, error = %error_chain(&*error), "a partition can't be taken up; trying again");
                tokio::time::sleep(PAUSE).await;
            }
            tracing::debug!(partition = partition.number, "a partition is taken up");
            loop {
                if let Err(error) = self.fetch().await {
                    tracing::warn!(partition = partition.number, error = %error_chain(&*error), "fetching was interrupted; going on");
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = ended.cancelled() => {}
            () = release.cancelled() => {}
            () = work => {}
        }
        partition.tasks.close();
        let _ = tokio::time::timeout(RELEASE_PATIENCE, partition.tasks.wait()).await;
        // The record is let go when nothing is under way; otherwise the partition ends first, and its record is given back.
        if partition.tasks.is_empty() {
            finished.cancel();
        } else {
            ended.cancel();
        }
    }

    // Until something is lost.
    async fn fetch(&self) -> Result<(), Error> {
        let partition = &self.partition;
        let mut interruptions = self.interruptions.clone();
        interruptions.mark_unchanged();
        self.know_again().await?;
        let config = Config {
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: partition.window().last_fetched() + 1 },
            filter_subjects: self.subjects.clone(),
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        let consumer = self.stream.create_consumer(config).await?;
        let mut requests = Requests::begin(&partition.handler.jetstream.client(), consumer, interruptions).await?;
        let mut delivered = 0;
        loop {
            let room = partition.wait_for_room().await;
            self.pass_over(requests.consumer(), delivered).await?;
            requests.ask(room, MAX_BYTES).await?;
            loop {
                match requests.next().await {
                    Delivery::Message(message) => {
                        // Nothing is acknowledged, so what is lost on its way must be noticed.
                        let place =
                            message.reply.as_ref().and_then(|reply| consumer_sequence_of(reply)).ok_or("a message of no consumer")?;
                        delivered += 1;
                        if place != delivered {
                            return Err("a message was lost on its way".into());
                        }
                        partition.accept(message);
                    }
                    Delivery::Answered => break,
                    Delivery::Lost => return Ok(()),
                }
            }
        }
    }

    // Where the partition has no event up to the stream's end, it is that far: so lag tells of what waits, and of nothing else. `delivered` counts
    // what has come of the consumer.
    async fn pass_over(&self, consumer: &Consumer<Config>, delivered: u64) -> Result<(), Error> {
        let (tail, last) = (*self.tails.borrow(), self.partition.window().last_fetched());
        if tail <= last || self.partition.window().span() > 0 {
            return Ok(());
        }
        let info = consumer.get_info().await?;
        if info.num_pending == 0 && info.delivered.consumer_sequence == delivered {
            self.partition.window().nothing_up_to(tail);
        }
        Ok(())
    }

    // Sets the window back where the stream is not what it was: it lost its tail, or was made anew.
    async fn know_again(&self) -> Result<(), Error> {
        let Some((sequence, id)) = self.partition.window().newest().cloned() else { return Ok(()) };
        let last = self.stream.get_info().await?.state.last_sequence;
        if self.partition.window().last_fetched() <= last && self.id_at(sequence).await?.is_none_or(|there| there == id) {
            return Ok(());
        }
        let Ok(reached) = id.parse::<Position>() else { return Ok(()) };
        // Events are in the order of their positions, so it is looked for backwards, in growing steps.
        let (mut at, mut step) = (last, 1);
        while at > 0 {
            let position = self.id_at(at).await?.and_then(|id| id.parse::<Position>().ok());
            if position.is_some_and(|position| position <= reached) {
                break;
            }
            at = at.saturating_sub(step);
            step *= 2;
        }
        tracing::warn!(partition = self.partition.number, last, at, "the stream lost its tail or was made anew; the partition is set back");
        self.partition.window().set_back(at);
        Ok(())
    }

    // The id of the event in this place; none where it is deleted or expired.
    async fn id_at(&self, sequence: u64) -> Result<Option<String>, Error> {
        match self.stream.get_raw_message(sequence).await {
            Ok(message) => Ok(message.headers.get(header::ID).map(|id| id.as_str().to_owned())),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

// The consumer's own sequence in a delivery's reply subject, behind the stream's.
fn consumer_sequence_of(reply: &str) -> Option<u64> {
    let tokens = reply.split('.').count();
    reply.split('.').nth(if tokens >= 11 { 8 } else { 6 })?.parse().ok()
}
