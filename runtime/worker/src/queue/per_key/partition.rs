//! One partition in the hands of this worker: its events are fetched in order, and each key's are handled one after the other.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::message::StreamMessage;
use autonomy_crds::event::DeliveryHistory;
use autonomy_process::telemetry::error_chain;
use futures::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::event::{Event, Place, Source};
use super::super::handler::{Handler, Unhandled, Verdict};
use super::super::lanes::Lanes;
use super::journal::{Journal, Lost};
use super::keys::{Keys, waits};
use super::record::Error;
use super::window::Window;
use crate::dead_letter;

// So many events are in memory at the most, and so many are known of that are finished above one that is not.
const MOST_UNFINISHED: usize = 64;
const MOST_ABOVE_FLOOR: usize = 4096;
/// So many keys may wait; where more fail, it is no longer a matter of single keys, and the partition waits.
const MOST_WAITING_KEYS: usize = 1000;
const PAUSE: Duration = Duration::from_millis(500);

/// A partition in hand.
pub struct Partition {
    pub number: u64,
    pub handler: Arc<Handler>,
    pub journal: Journal,
    pub keys: Keys,
    pub window: Arc<Mutex<Window>>,
    /// Bounds how many heads are looked at at a time, over all partitions.
    pub looks: Arc<Semaphore>,
    /// Nothing new is begun any more.
    pub release: CancellationToken,
    /// Nothing is done any more.
    pub ended: CancellationToken,
    pub tasks: TaskTracker,
    state: Mutex<State>,
    lanes: Lanes<Item>,
    room: Notify,
}

#[derive(Default)]
struct State {
    // By hash.
    waiting: HashSet<String>,
    // Events that are becoming dead letters, by id.
    dying: HashSet<String>,
}

// What a key's lane carries.
#[allow(clippy::large_enum_variant, reason = "nearly all are events")]
enum Item {
    Event(Event),
    // It is time to look at the key's head.
    Head,
}

// Why work on an item ended early.
enum Ended {
    // Nothing more may be done.
    Lost,
    // To be looked at again.
    Trouble(Error),
}

impl From<Lost> for Ended {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Trouble(error)
    }
}

impl Partition {
    pub fn new(
        (number, handler, journal, keys): (u64, Arc<Handler>, Journal, Keys),
        window: Arc<Mutex<Window>>,
        looks: Arc<Semaphore>,
        (release, ended): (CancellationToken, CancellationToken),
    ) -> Arc<Self> {
        let (tasks, state, lanes, room) = Default::default();
        Arc::new(Self { number, handler, journal, keys, window, looks, release, ended, tasks, state, lanes, room })
    }

    pub(super) fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what the partition's last owner left: keys that wait, and events that are becoming dead letters.
    ///
    /// # Errors
    /// When the server does not tell.
    pub async fn take_up(self: &Arc<Self>) -> Result<(), Error> {
        let (keys, dying) = self.keys.all().await?;
        self.state().dying.extend(dying.iter().cloned());
        for id in dying {
            let Some(message) = self.keys.dying_of(&id).await? else { continue };
            let event = self.read(&message);
            if self.nothing_more_of(&event).await {
                self.bury(event, message.sequence);
            } else {
                self.keys.remove(message.sequence).await;
            }
        }
        self.state().waiting.extend(keys.iter().cloned());
        keys.into_iter().for_each(|key| self.enter(key, Item::Head));
        Ok(())
    }

    /// Waits until there is room; gives for how many events.
    pub async fn wait_for_room(&self) -> usize {
        loop {
            let more = self.room.notified();
            let room = {
                let window = self.window();
                let above = MOST_ABOVE_FLOOR.saturating_sub(window.span());
                MOST_UNFINISHED.saturating_sub(window.unfinished()).min(above)
            };
            // A good part, so that requests are few.
            if room >= MOST_UNFINISHED / 4 && self.state().waiting.len() < MOST_WAITING_KEYS {
                return room;
            }
            more.await;
        }
    }

    /// Takes on an event of the model's stream; never waits.
    pub fn accept(self: &Arc<Self>, message: async_nats::Message) {
        let Some((event, _)) = Event::read(message, Source::Model, &self.handler.service, &self.handler.jetstream, None) else { return };
        if !self.window().fetch(event.place.sequence) {
            return;
        }
        self.enter(key_of(&event, self.handler.service.partition_member.as_deref()), Item::Event(event));
    }

    fn enter(self: &Arc<Self>, key: String, item: Item) {
        if let Some(item) = self.lanes.enter(&key, item) {
            let partition = self.clone();
            self.tasks.spawn(async move { partition.drive(&key, item).await });
        }
    }

    // Works on a key's items until there is none.
    async fn drive(self: Arc<Self>, key: &str, first: Item) {
        let mut next = Some(first);
        while let Some(item) = next {
            if self.release.is_cancelled() || self.ended.is_cancelled() {
                return;
            }
            let work = AssertUnwindSafe(async {
                tokio::select! {
                    biased;
                    () = self.ended.cancelled() => Err(Ended::Lost),
                    worked = self.work(key, item) => worked,
                }
            });
            match work.catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(Ended::Lost)) => return,
                Ok(Err(Ended::Trouble(error))) => {
                    tracing::warn!(partition = self.number, error = %error_chain(&*error), "a waiting key can't be looked at; trying again");
                    self.look_after(key, PAUSE);
                }
                Err(_) => {
                    tracing::error!(
                        partition = self.number,
                        "handling an event failed in a way that it never should; the partition is begun anew"
                    );
                    return self.ended.cancel();
                }
            }
            self.room.notify_one();
            next = self.lanes.leave(key);
        }
    }

    async fn work(self: &Arc<Self>, key: &str, item: Item) -> Result<(), Ended> {
        match item {
            Item::Event(event) => self.event(key, event).await,
            Item::Head => self.head(key).await,
        }
    }

    async fn event(self: &Arc<Self>, key: &str, event: Event) -> Result<(), Ended> {
        let (sequence, id) = (event.place.sequence, event.id.clone());
        let (is_dying, waits) = {
            let state = self.state();
            (state.dying.contains(&*id), state.waiting.contains(key))
        };
        if is_dying {
            self.window().finish(sequence, &id);
            return Ok(());
        }
        if waits {
            return Ok(self.journal.write(vec![self.keys.follower(key, &event)], Some((sequence, id))).await?);
        }
        match self.handle(&event).await {
            Ok(()) => self.window().finish(sequence, &id),
            Err(Unhandled::Stopping) => return Err(Ended::Lost),
            Err(Unhandled::Failed(failure)) => match self.handler.judge(&event, &failure, rand::random()) {
                (history, Verdict::Retry(wait)) => {
                    let head = self.keys.head(key, &event, &history, wait);
                    self.state().waiting.insert(key.to_owned());
                    self.journal.write(vec![head], Some((sequence, id))).await?;
                    self.handler.metrics.retried.inc();
                    self.look_after(key, wait);
                }
                (history, Verdict::DeadLetter) => self.die(event, &history, Some(sequence)).await?,
            },
        }
        Ok(())
    }

    async fn handle(&self, event: &Event) -> Result<(), Unhandled> {
        if self.handler.admit(event).await? {
            self.handler.attempt(event).await?;
            self.handler.metrics.handled.inc();
        }
        Ok(())
    }

    // Looks at a key's head, and tries it again where its time has come.
    async fn head(self: &Arc<Self>, key: &str) -> Result<(), Ended> {
        let head = {
            let _look = self.looks.acquire().await.map_err(|_| Ended::Lost)?;
            self.keys.head_of(key).await?
        };
        let Some(head) = head else {
            self.keys.remove_mark(key).await;
            self.state().waiting.remove(key);
            return Ok(());
        };
        if let Some(wait) = waits(&head) {
            self.look_after(key, wait);
            return Ok(());
        }
        let event = self.read(&head);
        let id = event.id.clone();
        // It was on its way to be a dead letter when the partition's last owner ended.
        if !self.state().dying.contains(&*id) {
            match self.handle(&event).await {
                Ok(()) => {}
                Err(Unhandled::Stopping) => return Err(Ended::Lost),
                Err(Unhandled::Failed(failure)) => match self.handler.judge(&event, &failure, rand::random()) {
                    (history, Verdict::Retry(wait)) => {
                        self.journal.write(vec![self.keys.head(key, &event, &history, wait)], None).await?;
                        self.handler.metrics.retried.inc();
                        self.look_after(key, wait);
                        return Ok(());
                    }
                    (history, Verdict::DeadLetter) => self.die(event, &history, None).await?,
                },
            }
        }
        self.follow(key, &id).await
    }

    // The head is done with: its first follower takes its place, or the key no longer waits.
    async fn follow(self: &Arc<Self>, key: &str, done: &str) -> Result<(), Ended> {
        loop {
            let Some(follower) = self.keys.first_follower(key).await? else {
                self.journal.write(vec![self.keys.done(key)], None).await?;
                self.state().waiting.remove(key);
                self.keys.remove_mark(key).await;
                return Ok(());
            };
            // Left over from a crash between the two writes below.
            if *self.read(&follower).id != *done {
                self.journal.write(vec![self.keys.promoted(key, &follower)], None).await?;
                self.keys.remove(follower.sequence).await;
                // Behind events of the key that came meanwhile: they become followers and leave the memory.
                self.enter(key.to_owned(), Item::Head);
                return Ok(());
            }
            self.keys.remove(follower.sequence).await;
        }
    }

    // An event becomes a dead letter: what is kept of it until that one is safe is written first, then no attempt of whomever can take effect any more.
    async fn die(self: &Arc<Self>, event: Event, history: &DeliveryHistory, sequence: Option<u64>) -> Result<(), Ended> {
        self.state().dying.insert(event.id.to_string());
        let finished = sequence.map(|sequence| (sequence, event.id.clone()));
        self.journal.write(vec![self.keys.dying(&event, history)], finished).await?;
        let kept = loop {
            match self.keys.dying_of(&event.id).await {
                Ok(Some(kept)) => break kept,
                // Somebody else has buried it, so the partition is somebody else's.
                Ok(None) => return Err(Ended::Lost),
                Err(error) => tracing::debug!(%error, "looking again"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        if self.nothing_more_of(&event).await {
            self.bury(self.read(&kept), kept.sequence);
        } else {
            self.keys.remove(kept.sequence).await;
        }
        Ok(())
    }

    // Whether the event has no effect, and none that is under way can come; false where it has one.
    async fn nothing_more_of(&self, event: &Event) -> bool {
        loop {
            match self.handler.use_up_key(event).await {
                Ok(has_effect) => return !has_effect,
                Err(error) if self.ended.is_cancelled() || self.handler.stop.is_cancelled() => {
                    tracing::debug!(%error, "whoever has the partition next goes on");
                    // The partition is ended, so nothing follows from this.
                    return std::future::pending().await;
                }
                Err(error) => tracing::warn!(event = %event.id, %error, "the key of a dead letter can't be used up; trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    // Writes the dead letter and raises its ticket, while the key goes on. What is kept of it goes when the dead letter counts as synced.
    fn bury(self: &Arc<Self>, event: Event, kept: u64) {
        let partition = self.clone();
        let burial = async move {
            let (handler, history) = (&partition.handler, event.history.clone());
            let Ok(written) = dead_letter::write(&handler.jetstream, &handler.service, &event, &history, &handler.stop).await else {
                return;
            };
            handler.metrics.dead_lettered.inc();
            let (id, ticket) = (event.id.clone(), handler.ticket(&event, &history));
            drop(event);
            if let Some((ticket, key)) = ticket
                && handler.raise(ticket, &key).await.is_err()
            {
                return;
            }
            tokio::time::sleep_until((written + handler.sync_interval).max(Instant::now()).into()).await;
            partition.keys.remove(kept).await;
            partition.state().dying.remove(&*id);
        };
        let (ended, release) = (self.ended.clone(), self.release.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = release.cancelled() => {}
                () = burial => {}
            }
        });
    }

    // Looks at a key's head after a while.
    fn look_after(self: &Arc<Self>, key: &str, wait: Duration) {
        let (partition, key) = (self.clone(), key.to_owned());
        self.tasks.spawn(async move {
            tokio::select! {
                () = partition.ended.cancelled() => {}
                () = partition.release.cancelled() => {}
                () = tokio::time::sleep(wait) => partition.enter(key, Item::Head),
            }
        });
    }

    fn read(&self, message: &StreamMessage) -> Event {
        // Kept as the model's stream had it.
        let place = Place { source: Source::Model, sequence: message.sequence };
        Event::parse(&self.handler.service, place, &message.subject, message.headers.clone(), message.payload.clone())
    }
}

// The hash of an event's key: its partition key, or its object's id where it has none.
fn key_of(event: &Event, member: Option<&str>) -> String {
    use sha2::{Digest, Sha256};
    let value = member.and_then(|member| match &event.input.object {
        crate::expression::Value::Object(object) => object.get(member).filter(|value| !matches!(value, crate::expression::Value::Null)),
        _ => None,
    });
    let text = match value {
        Some(value) => value.to_json(),
        None => event.input.event.subject.clone(),
    };
    Sha256::digest(text.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition").field("number", &self.number).finish_non_exhaustive()
    }
}
