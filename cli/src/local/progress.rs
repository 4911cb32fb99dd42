//! How far everything is: measured from PostgreSQL, NATS and the processes themselves, and put into a few lines.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use autonomy_crds::MicroService;
use autonomy_crds::event::{self, Watermark};
use autonomy_process::telemetry::error_chain;
use autonomy_worker::secrets::Secrets;
use futures::{StreamExt, TryStreamExt};
use sqlx::PgPool;
use tokio::sync::watch;

use super::session::{Platform, Running, process_name};
use super::supervisor::Supervisor;

/// How far everything is. What could not be measured (a server is being started again) is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// By model.
    pub models: BTreeMap<String, ModelProgress>,
    /// By service.
    pub services: BTreeMap<String, ServiceProgress>,
    /// Up to where PostgreSQL's log is written.
    pub flushed: Option<u64>,
    /// Up to where the relay has everything in the streams.
    pub relayed: Option<u64>,
    /// Processes that are not ready, with the reason.
    pub not_ready: BTreeMap<String, String>,
    /// How often processes were started again.
    pub restarts: u32,
}

/// How far a model is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelProgress {
    /// Its objects, about (PostgreSQL's statistics).
    pub objects: Option<i64>,
    /// Its events.
    pub events: Option<u64>,
    /// The last sequence of its stream.
    pub last_sequence: Option<u64>,
}

/// How far a service is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceProgress {
    /// Its consumer of events, for a queue trigger.
    pub events: Option<ConsumerProgress>,
    /// Its consumer of retries that are due, and of planned runs; none for a file trigger.
    pub due: Option<ConsumerProgress>,
    /// Whether it runs by time: it has no consumer of events.
    pub scheduled: bool,
    /// Retries that wait for their time.
    pub retries: Option<u64>,
    /// Its dead letters.
    pub dead_letters: Option<u64>,
    /// Files that wait, for a file trigger.
    pub files: Option<usize>,
}

/// How far a consumer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerProgress {
    /// Not delivered yet.
    pub pending: u64,
    /// Delivered, and not acknowledged yet.
    pub in_hand: u64,
    /// Deliveries so far.
    pub delivered: u64,
}

/// Measures progress.
pub struct Meter {
    platform: Platform,
    supervisor: Supervisor,
    namespace: String,
    running: watch::Receiver<Running>,
    relayed: Arc<Mutex<Option<u64>>>,
    secrets: Secrets,
    http: reqwest::Client,
}

impl Meter {
    /// Begins to listen to the relay's watermarks.
    pub fn start(
        platform: Platform,
        client: async_nats::Client,
        supervisor: Supervisor,
        namespace: String,
        running: watch::Receiver<Running>,
    ) -> Self {
        let relayed = Arc::new(Mutex::new(None));
        tokio::spawn(listen(client, event::watermark_subject(&namespace), Arc::downgrade(&relayed)));
        let secrets = Secrets::new(Some(platform.folder.join("secrets")));
        Self { platform, supervisor, namespace, running, relayed, secrets, http: autonomy_process::http_client::new() }
    }

    /// Measures now. A server that is away leaves gaps.
    pub async fn measure(&self) -> Progress {
        let running = self.running.borrow().clone();
        // The log's end is read first: what the relay says afterwards may be compared with it.
        let flushed = flushed(&self.platform.admin).await.ok();
        let (retries, dead_letters, not_ready) = tokio::join!(
            self.counts(event::retry_stream(&self.namespace), event::is_waiting),
            self.counts(event::dead_letter_stream(&self.namespace), |_| true),
            self.not_ready(),
        );
        let mut progress = Progress { flushed, not_ready, ..Progress::default() };
        progress.restarts = self.supervisor.processes().values().map(|process| process.restarts).sum();
        let objects = objects(&self.platform.admin).await.ok();
        for model in running.models.values() {
            let state = self.stream(&model.stream).await.map(|stream| stream.cached_info().state.clone());
            let of_model = ModelProgress {
                objects: objects.as_ref().map(|objects| objects.get(&model.schema).copied().unwrap_or_default()),
                events: state.as_ref().map(|state| state.messages),
                last_sequence: state.as_ref().map(|state| state.last_sequence),
            };
            progress.models.insert(model.name.clone(), of_model);
        }
        for (name, service) in &running.services {
            let mut of_service = self.service(name, service, &running).await;
            of_service.retries = retries.as_ref().map(|counts| counts.get(name).copied().unwrap_or_default());
            of_service.dead_letters = dead_letters.as_ref().map(|counts| counts.get(name).copied().unwrap_or_default());
            progress.services.insert(name.clone(), of_service);
        }
        progress.relayed = *self.relayed.lock().unwrap_or_else(PoisonError::into_inner);
        progress
    }

    async fn service(&self, name: &str, service: &MicroService, running: &Running) -> ServiceProgress {
        let mut progress = ServiceProgress::default();
        if let Some(queue) = &service.spec.trigger.queue
            && let Some(model) = running.models.get(&queue.model)
        {
            progress.events = self.consumer(&model.stream, name).await;
            progress.due = self.due(name).await;
        }
        if service.spec.trigger.schedule.is_some() {
            progress.scheduled = true;
            progress.due = self.due(name).await;
        }
        if let Some(trigger) = &service.spec.trigger.files {
            let waiting = autonomy_worker::files::waiting(trigger, &self.platform.files_dir(), &self.secrets).await;
            progress.files =
                waiting.map_err(|error| tracing::debug!(error = %error_chain(&error), service = name, "files can't be counted")).ok();
        }
        progress
    }

    async fn due(&self, service: &str) -> Option<ConsumerProgress> {
        self.consumer(&event::retry_stream(&self.namespace), &format!("{service}-retries")).await
    }

    async fn stream(&self, name: &str) -> Option<Stream> {
        self.platform.jetstream.get_stream(name).await.ok()
    }

    async fn consumer(&self, stream: &str, name: &str) -> Option<ConsumerProgress> {
        let stream = self.platform.jetstream.get_stream_no_info(stream).await.ok()?;
        let info = stream.consumer_info(name).await.ok()?;
        Some(ConsumerProgress {
            pending: info.num_pending,
            in_hand: u64::try_from(info.num_ack_pending).unwrap_or(u64::MAX),
            delivered: info.delivered.consumer_sequence,
        })
    }

    // Messages by service, of the subjects that count.
    async fn counts(&self, stream: String, counts_for: impl Fn(&str) -> bool) -> Option<BTreeMap<String, u64>> {
        let stream = self.stream(&stream).await?;
        let mut counts = BTreeMap::new();
        if stream.cached_info().state.messages == 0 {
            return Some(counts);
        }
        let mut subjects = stream.info_with_subjects(">").await.ok()?;
        while let Some((subject, messages)) = subjects.try_next().await.ok()? {
            // autonomy.{namespace}.{_retries|_dead_letters}.{service}.…
            let Some(service) = subject.split('.').nth(3) else { continue };
            if counts_for(&subject) {
                *counts.entry(service.to_owned()).or_default() += u64::try_from(messages).unwrap_or_default();
            }
        }
        Some(counts)
    }

    async fn not_ready(&self) -> BTreeMap<String, String> {
        let running = self.running.borrow().clone();
        let processes = self.supervisor.processes();
        let looks = processes.into_iter().map(|(name, state)| async move {
            let reason = match state.running {
                None => Some("not running".to_owned()),
                Some((_, None)) => None,
                Some((_, Some(operations))) => self.readiness(&operations.to_string()).await.err(),
            };
            Some((name, reason?))
        });
        let mut found: BTreeMap<String, String> = futures::future::join_all(looks).await.into_iter().flatten().collect();
        for service in running.services.keys().filter(|service| !self.supervisor.has(&process_name(service))) {
            found.insert(process_name(service), "not started".to_owned());
        }
        found
    }

    async fn readiness(&self, operations: &str) -> Result<(), String> {
        let url = format!("http://{operations}/readyz");
        let answer = self.http.get(url).timeout(Duration::from_secs(2)).send().await.map_err(|_| "no answer yet".to_owned())?;
        if answer.status().is_success() {
            return Ok(());
        }
        let reason = answer.text().await.unwrap_or_default();
        Err(reason.lines().next().unwrap_or("not ready").to_owned())
    }
}

async fn listen(client: async_nats::Client, subject: String, relayed: std::sync::Weak<Mutex<Option<u64>>>) {
    let Ok(mut watermarks) = client.subscribe(subject).await else { return };
    while let Some(message) = watermarks.next().await {
        let Some(relayed) = relayed.upgrade() else { return };
        let position = serde_json::from_slice::<Watermark>(&message.payload)
            .ok()
            .and_then(|watermark| u64::from_str_radix(&watermark.position, 16).ok());
        if let Some(position) = position {
            *relayed.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
        }
    }
}

// The end of PostgreSQL's log on disk.
async fn flushed(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let text: String = sqlx::query_scalar("SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::text").fetch_one(pool).await?;
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

async fn objects(pool: &PgPool) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    // After a crash the statistics begin anew, and the last analysis is the better guess.
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT schemaname::text, sum(greatest(n_live_tup, reltuples::bigint))::bigint \
         FROM pg_stat_user_tables JOIN pg_class ON pg_class.oid = relid GROUP BY 1",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().collect())
}

impl ServiceProgress {
    // The consumer by which it is triggered.
    fn triggering(&self) -> Option<ConsumerProgress> {
        if self.scheduled { self.due } else { self.events }
    }
}

impl Progress {
    /// Bytes of log that the relay has still to read.
    pub fn relay_lag(&self) -> Option<u64> {
        // A watermark's position is one less than the log position up to which it is complete.
        Some(self.flushed?.saturating_sub(self.relayed?.saturating_add(1)))
    }

    /// The status as lines that fit a terminal.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        for (name, model) in &self.models {
            lines.push(format!("  {name:<28} objects {:>12}   events {:>12}", number(model.objects), number(model.events)));
        }
        for (name, service) in &self.services {
            let work = match (service.files, service.triggering()) {
                (Some(files), _) => format!("files   {files:>12}   "),
                (None, events) => format!(
                    "handled {:>12}   pending {:>10}   in hand {:>6}   ",
                    number(events.map(|consumer| consumer.delivered.saturating_sub(consumer.in_hand))),
                    number(events.map(|consumer| consumer.pending)),
                    number(events.map(|consumer| consumer.in_hand)),
                ),
            };
            lines.push(format!(
                "  {name:<28} {work}retries {:>6}   dead letters {:>6}",
                number(service.retries),
                number(service.dead_letters)
            ));
        }
        lines.push(format!("  relay lag {}{}", self.relay_lag().map_or_else(|| "unknown".to_owned(), bytes), self.troubles()));
        lines
    }

    /// The status in one line.
    pub fn line(&self) -> String {
        let models =
            self.models.iter().map(|(name, model)| format!("{name}: {} objects, {} events", number(model.objects), number(model.events)));
        let services = self.services.iter().map(|(name, service)| {
            let work = match (service.files, service.triggering()) {
                (Some(files), _) => format!("{files} files"),
                (None, events) => format!(
                    "{} handled, {} pending",
                    number(events.map(|consumer| consumer.delivered.saturating_sub(consumer.in_hand))),
                    number(events.map(|consumer| consumer.pending + consumer.in_hand)),
                ),
            };
            format!("{name}: {work}, {} retries, {} dead letters", number(service.retries), number(service.dead_letters))
        });
        let relay = std::iter::once(format!("relay lag {}", self.relay_lag().map_or_else(|| "unknown".to_owned(), bytes)));
        let parts: Vec<String> = models.chain(services).chain(relay).collect();
        format!("{}{}", parts.join(" · "), self.troubles())
    }

    fn troubles(&self) -> String {
        let mut text = String::new();
        if self.restarts > 0 {
            text.push_str(&format!("   restarts {}", self.restarts));
        }
        for (name, reason) in &self.not_ready {
            text.push_str(&format!("   {name}: {reason}"));
        }
        text
    }
}

fn number(value: Option<impl ToString>) -> String {
    let Some(value) = value else { return "?".to_owned() };
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + 4);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=9_999_999 => format!("{} KB", count / 1_000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(number(Some(1_234_567)), "1,234,567");
        assert_eq!(number(Some(12)), "12");
        assert_eq!(number(None::<u64>), "?");
    }
}
