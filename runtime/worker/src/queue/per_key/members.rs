//! Which workers of the service there are, and who has which partition: a table that every worker follows and writes to.
//!
//! A worker that is there says so again and again, each time on condition that its message is still the one it wrote last. Who finds that a worker has
//! said nothing for a while declares it gone on the same condition. So one of the two succeeds: a worker whose sign of life was stored was not gone.
//! Times are measured by each worker's own clock, and never compared with another one's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered as Follow, OrderedConfig};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;
use autonomy_crds::event::{Ordered, PARTITIONS, ordered_subject};
use bytes::Bytes;
use futures::StreamExt;

use super::record::{Error, Record};
use crate::atomic::{self, BatchError, Message};

/// How often a worker says that it is there.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// A worker whose last stored sign of life was sent this long ago does nothing more with its partitions.
pub const STOPS_AFTER: Duration = Duration::from_secs(5);
/// A worker that was not heard of for this long is gone.
const GONE_AFTER: Duration = Duration::from_secs(8);
const GONE: &str = "gone";

/// A worker's own place among the members.
#[derive(Debug)]
pub struct Member {
    pub jetstream: Context,
    pub retries: Stream<()>,
    pub namespace: String,
    pub service: String,
    /// Its name, made anew each time it joins.
    pub name: String,
    sequence: u64,
    /// When the last sign of life that was stored was sent.
    pub proven: Instant,
}

/// Whether a worker still belongs to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Member,
    /// It was declared gone, or has not been heard of for so long that it may have been.
    Gone,
}

impl Member {
    /// One that has not said anything yet.
    pub fn new(jetstream: Context, retries: Stream<()>, namespace: &str, service: &str) -> Self {
        let name = format!("{:016x}", rand::random::<u64>());
        let (namespace, service) = (namespace.to_owned(), service.to_owned());
        Self { jetstream, retries, namespace, service, name, sequence: 0, proven: Instant::now() }
    }

    fn message(&self, member: &str, payload: &'static str) -> Message {
        let subject = ordered_subject(&self.namespace, &self.service, Ordered::Member(member));
        Message { subject, headers: HeaderMap::new(), payload: Bytes::from_static(payload.as_bytes()) }
    }

    /// Says that it is there.
    pub async fn say_so(&mut self) -> Standing {
        let sent = Instant::now();
        let said = atomic::publish(&self.jetstream, Vec::new(), self.message(&self.name, ""), self.sequence).await;
        let stored = match said {
            Ok(sequence) => Some(sequence),
            // An answer may have been lost on its way; only this worker writes anything but that it is gone.
            Err(_) => {
                let subject = ordered_subject(&self.namespace, &self.service, Ordered::Member(&self.name));
                match atomic::last(&self.retries, &subject).await {
                    Ok(Some(there)) if there.payload != GONE.as_bytes() => {
                        self.sequence = there.sequence;
                        None
                    }
                    Ok(None) if self.sequence == 0 => None,
                    Ok(_) => return Standing::Gone,
                    Err(_) => None,
                }
            }
        };
        if let Some(sequence) = stored {
            (self.sequence, self.proven) = (sequence, sent);
        }
        if self.proven.elapsed() < STOPS_AFTER { Standing::Member } else { Standing::Gone }
    }

    /// Says that it is no longer there.
    pub async fn leave(&self) {
        let _ = atomic::publish(&self.jetstream, Vec::new(), self.message(&self.name, GONE), self.sequence).await;
    }

    /// Declares those gone that were not heard of, and forgets those that have been gone.
    pub async fn look_after(&self, table: &mut Table) {
        let silent: Vec<(String, u64)> = table
            .members
            .iter()
            .filter(|(name, seen)| **name != self.name && seen.heard.elapsed() > GONE_AFTER)
            .map(|(name, seen)| (name.clone(), seen.sequence))
            .collect();
        for (name, sequence) in silent {
            match atomic::publish(&self.jetstream, Vec::new(), self.message(&name, GONE), sequence).await {
                Ok(_) => tracing::warn!(worker = name, "a worker was not heard of; its partitions are free"),
                // Heard of in this moment, or forgotten by another one.
                Err(BatchError::Overtaken) => {
                    let subject = ordered_subject(&self.namespace, &self.service, Ordered::Member(&name));
                    if matches!(atomic::last(&self.retries, &subject).await, Ok(None)) {
                        table.members.remove(&name);
                    }
                }
                Err(BatchError::Unknown(error)) => tracing::debug!(%error, "a worker can't be declared gone now"),
            }
        }
        // The others should have heard of it by then.
        let (old, young): (Vec<_>, Vec<_>) =
            std::mem::take(&mut table.gone).into_iter().partition(|(_, heard)| heard.elapsed() > GONE_AFTER);
        table.gone = young;
        for (sequence, _) in old {
            let _ = self.retries.delete_message(sequence).await;
        }
    }

    /// Gives a partition back that is this worker's by its record, and that it does not work on.
    pub async fn give_back(&self, partition: u64, (sequence, record): &(u64, Record)) {
        let record = Record { owner: None, writes: record.writes + 1, progress: record.progress.clone() };
        let message = record.message(&self.namespace, &self.service, partition);
        let _ = atomic::publish(&self.jetstream, Vec::new(), message, *sequence).await;
    }

    /// Takes a partition that nobody has; its record and its sequence where it was taken.
    pub async fn claim(&self, partition: u64, there: Option<&(u64, Record)>, begins: u64) -> Option<(u64, Record)> {
        let (sequence, mut record) = there.cloned().unwrap_or_else(|| {
            let mut record = Record::default();
            record.progress.floor = begins;
            (0, record)
        });
        record.owner = Some(self.name.clone());
        record.writes += 1;
        let message = record.message(&self.namespace, &self.service, partition);
        let taken = atomic::publish(&self.jetstream, Vec::new(), message, sequence).await.ok()?;
        Some((taken, record))
    }
}

#[derive(Debug)]
struct Seen {
    sequence: u64,
    heard: Instant,
}

/// Who is there and who has what, as far as this worker has heard.
#[derive(Debug, Default)]
pub struct Table {
    members: BTreeMap<String, Seen>,
    // What is left to take away of workers that are gone.
    gone: Vec<(u64, Instant)>,
    /// The partitions' records, each with its sequence.
    pub partitions: BTreeMap<u64, (u64, Record)>,
}

impl Table {
    /// Notes a message.
    pub fn note(&mut self, message: &Told) {
        let mut tokens = message.subject.split('.').skip(4);
        match (tokens.next(), tokens.next()) {
            (Some("members"), Some(name)) if message.payload == GONE.as_bytes() => {
                self.members.remove(name);
                self.gone.push((message.sequence, Instant::now()));
            }
            (Some("members"), Some(name)) => {
                self.members.insert(name.to_owned(), Seen { sequence: message.sequence, heard: Instant::now() });
            }
            (Some("partitions"), Some(number)) => {
                if let (Ok(number), Ok(record)) = (number.parse(), serde_json::from_slice(&message.payload)) {
                    self.partitions.insert(number, (message.sequence, record));
                }
            }
            _ => {}
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.members.len()
    }

    /// When this worker last heard of itself, so that what it knows of others is not older.
    pub fn heard_of(&self, name: &str) -> Option<Instant> {
        self.members.get(name).map(|seen| seen.heard)
    }

    /// The partitions that nobody has.
    pub fn free(&self) -> Vec<u64> {
        let is_free = |record: &Record| record.owner.as_ref().is_none_or(|owner| !self.members.contains_key(owner));
        (0..PARTITIONS).filter(|number| self.partitions.get(number).is_none_or(|(_, record)| is_free(record))).collect()
    }

    /// The most partitions that a worker should have.
    pub fn share(&self) -> usize {
        usize::try_from(PARTITIONS).unwrap_or(usize::MAX).div_ceil(self.workers().max(1))
    }

    /// The sequence up to which every partition is finished; none as long as one was never taken.
    pub fn floor(&self) -> Option<u64> {
        let all = u64::try_from(self.partitions.len()) == Ok(PARTITIONS);
        self.partitions.values().map(|(_, record)| record.progress.floor).min().filter(|_| all)
    }
}

/// A message of the table.
#[derive(Debug)]
pub struct Told {
    sequence: u64,
    subject: String,
    payload: Bytes,
}

/// The table's messages: those that are there, and all that follow.
pub struct Feed {
    messages: Follow,
    // How many of those that are there were not read yet.
    left: u64,
}

impl Feed {
    /// Begins to read.
    ///
    /// # Errors
    /// When the server does not give them.
    pub async fn open(retries: &Stream<()>, namespace: &str, service: &str) -> Result<Self, Error> {
        let of_all = |kept: Ordered<'_>| ordered_subject(namespace, service, kept);
        let partitions = format!("{}*", of_all(Ordered::Partition(0)).trim_end_matches('0'));
        let config = OrderedConfig {
            filter_subjects: vec![of_all(Ordered::Member("*")), partitions],
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..OrderedConfig::default()
        };
        let consumer = retries.create_consumer(config).await?;
        let left = consumer.cached_info().num_pending;
        Ok(Self { messages: consumer.messages().await?, left })
    }

    /// Whether everything that was there has been read.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// The next message.
    ///
    /// # Errors
    /// When the feed must be opened anew.
    pub async fn next(&mut self) -> Result<Told, Error> {
        let message = self.messages.next().await.ok_or("the feed ended")??;
        self.left = self.left.saturating_sub(1);
        let sequence = message.info()?.stream_sequence;
        Ok(Told { sequence, subject: message.subject.to_string(), payload: message.payload.clone() })
    }
}
