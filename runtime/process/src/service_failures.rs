//! What NATS holds of a MicroService's failures: how many dead letters, and the newest failed attempt.

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, State, Stream};
use autonomy_crds::event::{self, DeliveryHistory, HISTORY_HEADER};
use autonomy_crds::micro_service::LastError;
use futures::StreamExt;

// A message of several lines or pages is of no use in a status.
const LONGEST_MESSAGE: usize = 500;

/// The failures of one service, as they were last read: what has not changed since is not asked for again.
#[derive(Clone, Debug)]
pub struct ServiceFailures {
    namespace: String,
    service: String,
    dead_letters: Seen<u64>,
    newest_dead_letter: Seen<Option<LastError>>,
    newest_retry: Seen<Option<LastError>>,
}

// What was found in a stream, and in which state the stream was.
#[derive(Clone, Debug, Default)]
struct Seen<T> {
    state: Option<(u64, u64)>,
    found: T,
}

/// NATS does not tell.
#[derive(Debug, thiserror::Error)]
#[error("NATS does not tell of the failures of {service}")]
pub struct FailuresError {
    service: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl ServiceFailures {
    /// Those of a service; nothing is read yet.
    pub fn new(namespace: &str, service: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            dead_letters: Seen::default(),
            newest_dead_letter: Seen::default(),
            newest_retry: Seen::default(),
        }
    }

    /// How many dead letters the service has.
    ///
    /// # Errors
    /// When NATS does not answer.
    pub async fn dead_letters(&mut self, jetstream: &Context) -> Result<u64, FailuresError> {
        let stream = self.stream(jetstream, &event::dead_letter_stream(&self.namespace)).await?;
        let state = state_of(&stream.get_info().await.map_err(|source| self.error(source))?.state);
        if self.dead_letters.state != Some(state) {
            let found = if state.1 == 0 { 0 } else { self.count(&stream).await? };
            self.dead_letters = Seen { state: Some(state), found };
        }
        Ok(self.dead_letters.found)
    }

    // One message a subject.
    async fn count(&self, stream: &Stream<()>) -> Result<u64, FailuresError> {
        let subjects = stream.info_builder().subjects(self.dead_letter_subjects()).fetch().await.map_err(|source| self.error(source))?;
        let mut count = 0;
        let mut subjects = std::pin::pin!(subjects);
        while let Some(subject) = subjects.next().await {
            subject.map_err(|source| self.error(source))?;
            count += 1;
        }
        Ok(count)
    }

    /// The newest failed attempt that NATS tells of, among dead letters and retries that wait.
    ///
    /// # Errors
    /// When NATS does not answer.
    pub async fn newest(&mut self, jetstream: &Context) -> Result<Option<LastError>, FailuresError> {
        let letters = self.stream(jetstream, &event::dead_letter_stream(&self.namespace)).await?;
        let subjects = self.dead_letter_subjects();
        self.newest_dead_letter = self.look(&letters, &subjects, true, &self.newest_dead_letter).await?;
        let retries = self.stream(jetstream, &event::retry_stream(&self.namespace)).await?;
        // Those that are due have failed no later than they were put off.
        let subjects = event::retry_scheduled_subject(&self.namespace, &self.service, "*");
        self.newest_retry = self.look(&retries, &subjects, false, &self.newest_retry).await?;
        Ok(newer(self.newest_dead_letter.found.clone(), self.newest_retry.found.clone()))
    }

    async fn look(
        &self,
        stream: &Stream<()>,
        subjects: &str,
        dead_letter: bool,
        before: &Seen<Option<LastError>>,
    ) -> Result<Seen<Option<LastError>>, FailuresError> {
        let state = state_of(&stream.get_info().await.map_err(|source| self.error(source))?.state);
        if before.state == Some(state) {
            return Ok(before.clone());
        }
        let found = match stream.get_last_raw_message_by_subject(subjects).await {
            Ok(message) => {
                let id = message.subject.rsplit('.').next().unwrap_or_default();
                message.headers.get(HISTORY_HEADER).and_then(|history| last_error(history.as_str(), id, dead_letter))
            }
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => None,
            Err(source) => return Err(self.error(source)),
        };
        Ok(Seen { state: Some(state), found })
    }

    fn dead_letter_subjects(&self) -> String {
        event::dead_letter_subject(&self.namespace, &self.service, "*")
    }

    async fn stream(&self, jetstream: &Context, name: &str) -> Result<Stream<()>, FailuresError> {
        jetstream.get_stream_no_info(name).await.map_err(|source| self.error(source))
    }

    fn error(&self, source: impl std::error::Error + Send + Sync + 'static) -> FailuresError {
        FailuresError { service: self.service.clone(), source: Box::new(source) }
    }
}

// What changes with whatever is written or deleted.
fn state_of(state: &State) -> (u64, u64) {
    (state.last_sequence, state.messages)
}

// Of the last attempt of a history.
fn last_error(history: &str, event_id: &str, dead_letter: bool) -> Option<LastError> {
    let history: DeliveryHistory = serde_json::from_str(history).ok()?;
    let attempt = history.attempts.into_iter().next_back()?;
    let message = attempt.error.chars().take(LONGEST_MESSAGE).collect();
    Some(LastError { time: attempt.at, event_id: event_id.to_owned(), message, dead_letter })
}

/// The one that failed later. Both times were written by workers, in UTC and after RFC 3339, where the order of texts is that of times up to fractions
/// of a second.
pub fn newer(one: Option<LastError>, other: Option<LastError>) -> Option<LastError> {
    one.into_iter().chain(other).max_by(|a, b| a.time.cmp(&b.time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(time: &str) -> Option<LastError> {
        Some(LastError { time: time.to_owned(), ..LastError::default() })
    }

    #[test]
    fn the_last_attempt_is_told_and_the_later_failure_wins() {
        let history = r#"{"service":"s","subject":"a","attemptCount":2,"attempts":[
            {"at":"2026-01-01T00:00:00Z","error":"first","retryable":true},{"at":"2026-01-01T00:00:05Z","error":"second","retryable":false}]}"#;
        let found = last_error(history, "0-1", true).expect("an error");
        assert_eq!((found.message.as_str(), found.event_id.as_str(), found.dead_letter), ("second", "0-1", true));
        assert_eq!(last_error("{}", "0-1", true), None);
        let (earlier, later) = (failed("2026-01-01T00:00:00Z"), failed("2026-01-01T00:00:01Z"));
        assert_eq!(newer(earlier.clone(), later.clone()), later);
        assert_eq!(newer(later.clone(), earlier), later);
        assert_eq!(newer(None, None), None);
    }
}
