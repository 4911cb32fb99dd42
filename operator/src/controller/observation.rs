//! What is seen of running services (how much waits, dead letters, the newest failure, how far a file is) and told in their status. All of this may
//! change all the time, so a status is written when it differs, and not more often than every 15 s; at rest nothing is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use autonomy_crds::MicroService;
use autonomy_crds::event::file_progress_subject;
use autonomy_crds::micro_service::{FileProgress, LastError, MicroServiceStatus};
use autonomy_process::service_failures::{ServiceFailures, newer};
use autonomy_process::telemetry::error_chain;
use futures::{FutureExt, StreamExt};
use kube::runtime::reflector::ObjectRef;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::lag::{Backlog, Entry, ServiceKey};
use super::server_side;

const LOOK: Duration = Duration::from_secs(5);
const LEAST_BETWEEN_WRITES: Duration = Duration::from_secs(15);
const AT_A_TIME: usize = 8;

/// What is told of a running service: these members of its status are written here and nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observations {
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letters: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileProgress>,
}

impl Observations {
    /// What a status tells.
    pub fn told_by(status: &MicroServiceStatus) -> Self {
        let MicroServiceStatus { lag, dead_letters, last_error, file, .. } = status.clone();
        Self { lag, dead_letters, last_error, file }
    }

    /// With what was told before in place of what could not be seen; a failure stays until there is a newer one.
    fn over(self, told: &Self) -> Self {
        Self {
            lag: self.lag.or(told.lag),
            dead_letters: self.dead_letters.or(told.dead_letters),
            last_error: newer(told.last_error.clone(), self.last_error),
            file: self.file.or_else(|| told.file.clone()),
        }
    }
}

// Whether what is seen is to be written, so long after the last time.
fn is_due(told: &Observations, seen: &Observations, since: Option<Duration>) -> bool {
    told != seen && since.is_none_or(|since| since >= LEAST_BETWEEN_WRITES)
}

// What is kept of a service between two looks.
struct Known {
    connection: u64,
    failures: ServiceFailures,
    // Where workers tell how far a file is.
    files: Option<Subscriber>,
    file: Option<FileProgress>,
    written: Option<Instant>,
}

impl Known {
    fn new((namespace, service): &ServiceKey, entry: &Entry) -> Self {
        Self { connection: entry.connection, failures: ServiceFailures::new(namespace, service), files: None, file: None, written: None }
    }

    async fn look(&mut self, key: &ServiceKey, entry: &Entry) -> Observations {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let mut seen = Observations::default();
        match entry.lag().await {
            Ok(lag) => seen.lag = lag.map(|lag| number(lag.total())),
            Err(error) => tracing::debug!(service = key.1, error = %error_chain(&error), "how much waits can't be told now"),
        }
        if !matches!(entry.backlog, Backlog::Events(_)) {
            self.follow_files(key, entry).await;
            seen.file = self.file.clone();
        }
        if matches!(entry.backlog, Backlog::Files(_)) {
            return seen;
        }
        match self.failures.dead_letters(&entry.jetstream).await {
            Ok(count) => seen.dead_letters = Some(number(count)),
            Err(error) => tracing::debug!(service = key.1, error = %error_chain(&error), "dead letters can't be counted now"),
        }
        match self.failures.newest(&entry.jetstream).await {
            Ok(newest) => seen.last_error = newest,
            Err(error) => tracing::debug!(service = key.1, error = %error_chain(&error), "the last failure can't be told now"),
        }
        seen
    }

    // Takes what its workers have told since the last look.
    async fn follow_files(&mut self, (namespace, service): &ServiceKey, entry: &Entry) {
        if self.files.is_none() {
            self.files = entry.jetstream.client().subscribe(file_progress_subject(namespace, service)).await.ok();
        }
        let Some(messages) = &mut self.files else { return };
        while let Some(message) = messages.next().now_or_never() {
            let Some(message) = message else {
                self.files = None;
                return;
            };
            self.file = serde_json::from_slice(&message.payload).ok().or(self.file.take());
        }
    }
}

/// Looks at the services of a scope until `stop`.
pub async fn observe(context: &Context, stop: &CancellationToken) {
    let mut known: HashMap<ServiceKey, Known> = HashMap::new();
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let looks = context.lag.entries().into_iter().filter_map(|(key, entry)| {
            let (namespace, name) = &key;
            let service = context.stores.services.get(&ObjectRef::new(name).within(namespace))?;
            let before = known.remove(&key).filter(|known| known.connection == entry.connection);
            let known = before.unwrap_or_else(|| Known::new(&key, &entry));
            Some(look(context, key, entry, service, known))
        });
        let looks: Vec<_> = looks.collect();
        known = futures::stream::iter(looks).buffer_unordered(AT_A_TIME).collect().await;
    }
}

async fn look(
    context: &Context,
    key: ServiceKey,
    entry: Entry,
    service: std::sync::Arc<MicroService>,
    mut known: Known,
) -> (ServiceKey, Known) {
    let told = service.status.as_ref().map(Observations::told_by).unwrap_or_default();
    let seen = known.look(&key, &entry).await.over(&told);
    if is_due(&told, &seen, known.written.map(|written| written.elapsed())) {
        match server_side::apply_observations(&context.client, service.as_ref(), &seen).await {
            Ok(()) => known.written = Some(Instant::now()),
            Err(error) => tracing::warn!(service = key.1, error = %error_chain(&error), "its status can't be written; it is tried again"),
        }
    }
    (key, known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(lag: i64) -> Observations {
        Observations { lag: Some(lag), ..Observations::default() }
    }

    #[test]
    fn a_status_is_written_when_it_differs_and_not_too_often() {
        assert!(is_due(&lag(0), &lag(1), None));
        assert!(!is_due(&lag(1), &lag(1), None), "nothing is written at rest");
        assert!(!is_due(&lag(0), &lag(1), Some(LEAST_BETWEEN_WRITES / 2)));
        assert!(is_due(&lag(0), &lag(1), Some(LEAST_BETWEEN_WRITES)));
    }

    #[test]
    fn what_can_not_be_seen_holds_what_is_told() {
        let failed = |time: &str| Some(LastError { time: time.to_owned(), ..LastError::default() });
        let told = Observations { lag: Some(7), dead_letters: Some(2), last_error: failed("2026-01-02T00:00:00Z"), file: None };
        assert_eq!(Observations::default().over(&told), told);
        // A failure whose retry succeeded is in no stream any more; an older one does not come back.
        let older = Observations { lag: Some(0), last_error: failed("2026-01-01T00:00:00Z"), ..Observations::default() };
        let seen = older.over(&told);
        assert_eq!((seen.lag, &seen.last_error), (Some(0), &told.last_error));
    }
}
