//! The schedule trigger: each planned moment becomes a message among those that are due, once, however many workers plan and whichever die.
//!
//! What was planned last is a message of the retry stream, and a run is published together with the next one in one atomic batch, on condition that
//! nobody else has planned meanwhile. So runs and what is known of them can't differ, not even where the server loses what it had not synced.
//! From there on a run is handled as every event: tried again, kept as a dead letter, its effects there once by its id, which is its moment.

use std::time::Duration;

use crate::atomic::{self, BatchError, Message};
use async_nats::HeaderMap;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;
use autonomy_crds::event::{self as names, RUN_TYPE, header};
use autonomy_crds::micro_service::ScheduleTrigger;
use autonomy_crds::schedule::{RunId, Schedule};
use autonomy_process::telemetry::error_chain;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

// The clock may be set; so the next moment is looked for anew at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);
// While so many runs wait, moments pass as if there were no worker: a service that is slower than its schedule must not pile up runs for ever.
const MOST_WAITING: u64 = 100;

/// What was planned last, and by which schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    planned: Timestamp,
    cron: String,
    time_zone: String,
}

/// Why planning was interrupted.
#[derive(Debug, thiserror::Error)]
#[error("can't {doing}")]
struct PlanError {
    doing: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Plans the runs of a service; each of its workers has one.
pub(super) struct Planner {
    pub jetstream: Context,
    pub namespace: String,
    pub service: String,
    pub trigger: ScheduleTrigger,
    pub schedule: Schedule,
    pub stop: CancellationToken,
}

impl Planner {
    /// Plans until the worker stops.
    pub async fn run(self) {
        let started = Timestamp::now();
        while !self.stop.is_cancelled() {
            let wait = match self.plan(started).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(error = %error_chain(&error), "planning was interrupted; going on");
                    PAUSE
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    // Publishes the run that is due, where one is; gives how long there is nothing to do.
    async fn plan(&self, started: Timestamp) -> Result<Duration, PlanError> {
        let retries =
            self.jetstream.get_stream_no_info(names::retry_stream(&self.namespace)).await.map_err(doing("open the retry stream"))?;
        let (sequence, progress) = self.progress(&retries).await?;
        let now = Timestamp::now();
        let Some(progress) = progress else {
            // The first worker that the service ever has: what comes from now on counts.
            tracing::info!("the schedule begins");
            self.write(Vec::new(), now, sequence).await?;
            return Ok(Duration::ZERO);
        };
        // What a former schedule left out was not missed; what passed since this worker runs was not left out by it.
        let same = progress.cron == self.trigger.cron && progress.time_zone == self.trigger.time_zone;
        let last = if same { progress.planned } else { progress.planned.max(started) };
        let Some(moment) = self.schedule.due(last, now) else {
            let next = self.schedule.next_after(last.max(now)).unwrap_or(Timestamp::MAX);
            // A clock that is read too early, by the fraction of a second that a sleep may be short of, would only look once more.
            return Ok(Duration::try_from(next.duration_since(now)).unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP));
        };
        if self.waiting(&retries).await? >= MOST_WAITING {
            return Ok(PAUSE);
        }
        if self.write(vec![self.due(moment)], moment, sequence).await? {
            tracing::info!(run = %RunId(moment), "a run is planned");
        }
        Ok(Duration::ZERO)
    }

    // The present progress and its sequence, 0 for none, as the stream's leader has it.
    async fn progress(&self, retries: &Stream<()>) -> Result<(u64, Option<Progress>), PlanError> {
        let subject = names::schedule_progress_subject(&self.namespace, &self.service);
        let message = atomic::last(retries, &subject).await.map_err(doing("see what was planned last"))?;
        // One that is not understood is written anew.
        Ok(message.map_or((0, None), |message| (message.sequence, serde_json::from_slice(&message.payload).ok())))
    }

    async fn waiting(&self, retries: &Stream<()>) -> Result<u64, PlanError> {
        let info = retries.consumer_info(format!("{}-retries", self.service)).await.map_err(doing("see how many runs wait"))?;
        Ok(info.num_pending.saturating_add(u64::try_from(info.num_ack_pending).unwrap_or(u64::MAX)))
    }

    // Whether it was written; if not, another worker was faster.
    async fn write(&self, runs: Vec<Message>, planned: Timestamp, sequence: u64) -> Result<bool, PlanError> {
        let progress = Progress { planned, cron: self.trigger.cron.clone(), time_zone: self.trigger.time_zone.clone() };
        let progress = Message {
            subject: names::schedule_progress_subject(&self.namespace, &self.service),
            headers: HeaderMap::new(),
            payload: serde_json::to_vec(&progress).map_err(doing("write what was planned"))?.into(),
        };
        match atomic::publish(&self.jetstream, runs, progress, sequence).await {
            Ok(_) => Ok(true),
            Err(BatchError::Overtaken) => Ok(false),
            // If it was stored nevertheless, the next look finds it.
            Err(BatchError::Unknown(error)) => Err(doing("publish a run")(error)),
        }
    }

    // The message of a run: a CloudEvent without data.
    fn due(&self, moment: Timestamp) -> Message {
        let id = RunId(moment).to_string();
        let mut headers = HeaderMap::new();
        headers.insert(header::SPEC_VERSION, "1.0");
        headers.insert(header::ID, id.as_str());
        headers.insert(header::TYPE, RUN_TYPE);
        headers.insert(header::SOURCE, names::service_source(&self.namespace, &self.service).as_str());
        headers.insert(header::SUBJECT, self.service.as_str());
        headers.insert(header::TIME, moment.to_string().as_str());
        Message { subject: names::retry_due_subject(&self.namespace, &self.service, &id), headers, payload: Bytes::new() }
    }
}

fn doing<E: Into<Box<dyn std::error::Error + Send + Sync>>>(doing: &'static str) -> impl FnOnce(E) -> PlanError {
    move |source| PlanError { doing, source: source.into() }
}
