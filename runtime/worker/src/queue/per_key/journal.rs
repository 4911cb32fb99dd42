//! Everything that changes of a partition is written with its record in one atomic batch, on condition that the record is still the one that this
//! worker wrote last. So a worker that has lost the partition can't change anything of it any more, and what is known of it never differs from what is there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;
use autonomy_crds::event::{Ordered, ordered_subject};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::record::Record;
use super::window::Window;
use crate::atomic::{self, BatchError, Message};

// How often progress is written that nothing else depends on.
const CHECKPOINT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
// A batch has at most a thousand messages.
const MOST_MESSAGES: usize = 500;
const QUEUE: usize = 64;

/// The partition is another worker's by now, or is about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the partition is another worker's")]
pub struct Lost;

struct Entry {
    messages: Vec<Message>,
    finished: Option<(u64, Arc<str>)>,
    written: oneshot::Sender<()>,
}

/// Where changes of a partition are handed in.
#[derive(Clone)]
pub struct Journal(mpsc::Sender<Entry>);

/// Writes a partition's changes.
pub struct Writer {
    pub jetstream: Context,
    pub retries: Stream<()>,
    pub namespace: String,
    pub service: String,
    pub partition: u64,
    /// The record as it is, with its sequence.
    pub record: Record,
    pub sequence: u64,
    pub window: Arc<Mutex<Window>>,
    /// Cancelled by the writer where the partition is lost; by others where it must not be worked on any longer.
    pub ended: CancellationToken,
}

impl Journal {
    /// A journal and where its writer takes from.
    pub fn begin(writer: Writer, release: CancellationToken) -> (Self, impl Future<Output = ()>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), writer.run(receiver, release))
    }

    /// Writes messages; when it returns they are stored, and the event (sequence and id) counts as finished with them.
    ///
    /// # Errors
    /// When the partition is lost: nothing of it may be done any more.
    pub async fn write(&self, messages: Vec<Message>, finished: Option<(u64, Arc<str>)>) -> Result<(), Lost> {
        let (written, stored) = oneshot::channel();
        self.0.send(Entry { messages, finished, written }).await.map_err(|_| Lost)?;
        stored.await.map_err(|_| Lost)
    }
}

impl Writer {
    // Until the partition is lost, or released when nobody works on it any more.
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>, release: CancellationToken) {
        let mut checkpoint = tokio::time::interval(CHECKPOINT);
        let mut answers = Vec::new();
        loop {
            let mut messages = Vec::new();
            tokio::select! {
                biased;
                () = self.ended.cancelled() => return,
                entry = entries.recv() => {
                    let Some(entry) = entry else { return };
                    self.take(entry, &mut messages, &mut answers);
                    while messages.len() < MOST_MESSAGES && let Ok(entry) = entries.try_recv() {
                        self.take(entry, &mut messages, &mut answers);
                    }
                }
                () = release.cancelled() => {
                    self.record.owner = None;
                    // The successor begins where the record is, whether this is told now or taken after a while.
                    let _ = self.write(Vec::new()).await;
                    self.ended.cancel();
                    return;
                }
                _ = checkpoint.tick() => {
                    if self.window().progress() == self.record.progress {
                        continue;
                    }
                }
            }
            if self.write(messages).await.is_err() {
                self.ended.cancel();
                return;
            }
            for written in answers.drain(..) {
                // Who no longer waits needs no answer.
                let _ = oneshot::Sender::send(written, ());
            }
        }
    }

    fn take(&self, entry: Entry, messages: &mut Vec<Message>, answers: &mut Vec<oneshot::Sender<()>>) {
        messages.extend(entry.messages);
        if let Some((sequence, id)) = entry.finished {
            self.window().finish(sequence, &id);
        }
        answers.push(entry.written);
    }

    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&mut self, messages: Vec<Message>) -> Result<(), Lost> {
        self.record.writes += 1;
        let progress = self.window().progress();
        self.record.progress = progress;
        let last = self.record.message(&self.namespace, &self.service, self.partition);
        loop {
            if self.ended.is_cancelled() {
                return Err(Lost);
            }
            match atomic::publish(&self.jetstream, messages.clone(), last.clone(), self.sequence).await {
                Ok(sequence) => {
                    self.sequence = sequence;
                    return Ok(());
                }
                Err(BatchError::Unknown(error)) => {
                    tracing::debug!(partition = self.partition, %error, "it is not known whether a change was stored; looking");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(BatchError::Overtaken) => {}
            }
            // An answer may have been lost on its way.
            let subject = ordered_subject(&self.namespace, &self.service, Ordered::Partition(self.partition));
            let Ok(there) = atomic::last(&self.retries, &subject).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Some(there) = there else { return Err(Lost) };
            if there.sequence == self.sequence {
                continue;
            }
            if serde_json::from_slice::<Record>(&there.payload).is_ok_and(|there| there == self.record) {
                self.sequence = there.sequence;
                return Ok(());
            }
            return Err(Lost);
        }
    }
}
