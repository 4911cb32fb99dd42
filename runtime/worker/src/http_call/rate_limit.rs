//! How often a web service is called, over all workers of a service: they take their turns from one timeline, which JetStream keeps.
//!
//! The timeline is one message, the moment up to which turns are taken. Who wants turns moves it on, provided that it is still what they read; so no
//! two workers have the same turn. A worker that dies leaves its turns unused, and the message's loss is a short time with more calls than
//! wanted: neither loses an event. Turns are moments of the workers' own clocks: where these differ, turns are as far apart.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{Context, PublishError};
use autonomy_crds::event;
use autonomy_process::options::NatsOptions;
use autonomy_process::telemetry::error_chain;
use jiff::Timestamp;
use tokio::sync::{Mutex, OnceCell};

use crate::atomic::{self, BatchError, Message};

const PAUSE: Duration = Duration::from_millis(250);
const NANOSECONDS: i128 = 1_000_000_000;

/// Where the workers of a service keep the timelines of its limits.
#[derive(Debug)]
pub struct Timelines {
    nats: NatsOptions,
    namespace: String,
    service: String,
    jetstream: OnceCell<Context>,
}

/// The limit of one step.
#[derive(Debug)]
pub(crate) struct RateLimit {
    step: String,
    // Between two turns.
    interval: i128,
    // So far back a turn may lie that nobody has taken.
    slack: i128,
    // How many turns are taken at a time at the most.
    most: usize,
    waiting: AtomicUsize,
    slice: Mutex<Slice>,
}

// This worker's part of the timeline; moments are nanoseconds since 1970.
#[derive(Debug, Default)]
struct Slice {
    // The timeline as it was last seen: its message's sequence, and the moment up to which turns are taken.
    known: Option<(u64, i128)>,
    next: i128,
    left: usize,
}

/// Why turns can't be had at the moment.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error("NATS can't be reached")]
    Connect(#[from] autonomy_process::options::NatsConnectError),
    #[error("the timeline can't be read")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the timeline can't be moved on")]
    Write(#[source] PublishError),
}

impl Timelines {
    /// Of a service; NATS is connected to when a turn is wanted first.
    pub fn new(nats: NatsOptions, namespace: &str, service: &str) -> Self {
        Self { nats, namespace: namespace.to_owned(), service: service.to_owned(), jetstream: OnceCell::new() }
    }

    async fn jetstream(&self) -> Result<&Context, TurnError> {
        let connect = || async {
            let client = self.nats.connect(&format!("autonomy-worker/{}/limits", self.service)).await?;
            Ok(async_nats::jetstream::new(client))
        };
        self.jetstream.get_or_try_init(connect).await
    }

    // The timeline as the stream's leader has it; sequence 0 where there is none yet.
    async fn read(&self, subject: &str) -> Result<(u64, i128), TurnError> {
        let stream = event::retry_stream(&self.namespace);
        let stream = self.jetstream().await?.get_stream_no_info(stream).await.map_err(|source| TurnError::Read(source.into()))?;
        let message = atomic::last(&stream, subject).await.map_err(|source| TurnError::Read(source.into()))?;
        Ok(message.map_or((0, 0), |message| {
            let moment = std::str::from_utf8(&message.payload).ok().and_then(|text| text.parse().ok());
            (message.sequence, moment.unwrap_or_default())
        }))
    }

    // Moves the timeline on; none where somebody else did before.
    async fn advance(&self, subject: &str, sequence: u64, to: i128) -> Result<Option<u64>, TurnError> {
        let message = Message { subject: subject.to_owned(), headers: HeaderMap::new(), payload: to.to_string().into() };
        match atomic::publish(self.jetstream().await?, Vec::new(), message, sequence).await {
            Ok(sequence) => Ok(Some(sequence)),
            Err(BatchError::Overtaken) => Ok(None),
            Err(BatchError::Unknown(error)) => Err(TurnError::Write(error)),
        }
    }
}

impl RateLimit {
    /// So many calls in this time, of which `burst` may come at once after a pause. `step` stands for the step among those of the service.
    pub(crate) fn new(step: &str, calls: u32, per: Duration, burst: u32) -> Self {
        let interval = (i128::try_from(per.as_nanos()).unwrap_or(i128::MAX) / i128::from(calls.max(1))).max(1);
        Self {
            step: step.to_owned(),
            interval,
            slack: interval.saturating_mul(i128::from(burst.max(1) - 1)),
            // A worker that dies must not leave others waiting for long.
            most: usize::try_from(NANOSECONDS / interval).unwrap_or(usize::MAX).max(1),
            waiting: AtomicUsize::new(0),
            slice: Mutex::default(),
        }
    }

    /// Waits for a turn. While NATS does not answer nobody has one.
    pub(super) async fn turn(&self, timelines: &Timelines) {
        let at = {
            let waiting = Waiting::among(&self.waiting);
            let mut slice = self.slice.lock().await;
            if slice.left == 0 || slice.next < now() - self.slack {
                let wanted = self.waiting.load(Ordering::Relaxed).clamp(1, self.most);
                self.take(&mut slice, wanted, timelines).await;
            }
            drop(waiting);
            let at = slice.next;
            slice.next += self.interval;
            slice.left -= 1;
            at
        };
        if let Ok(wait) = u64::try_from(at - now()) {
            tokio::time::sleep(Duration::from_nanos(wait)).await;
        }
    }

    // Takes so many turns from the timeline.
    async fn take(&self, slice: &mut Slice, wanted: usize, timelines: &Timelines) {
        let subject = event::rate_limit_subject(&timelines.namespace, &timelines.service, &self.step);
        loop {
            match self.try_take(slice, wanted, timelines, &subject).await {
                Ok(true) => return,
                Ok(false) => slice.known = None,
                Err(error) => {
                    tracing::warn!(step = self.step, error = %error_chain(&error), "calls wait: their rate limit can't be kept at the moment");
                    slice.known = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_take(&self, slice: &mut Slice, wanted: usize, timelines: &Timelines, subject: &str) -> Result<bool, TurnError> {
        let (sequence, taken) = match slice.known {
            Some(known) => known,
            None => timelines.read(subject).await?,
        };
        let begin = taken.max(now() - self.slack);
        let end = begin + self.interval * i128::try_from(wanted).unwrap_or(1);
        let Some(sequence) = timelines.advance(subject, sequence, end).await? else { return Ok(false) };
        *slice = Slice { known: Some((sequence, end)), next: begin, left: wanted };
        Ok(true)
    }
}

// Counts one who waits, also where they give up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn now() -> i128 {
    Timestamp::now().as_nanosecond()
}
