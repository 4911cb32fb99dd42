//! Retries that hold up no other event: a scheduled message (ADR-51) in the retry stream, which the server delivers when its time has come.

use std::time::{Duration, Instant};

use async_nats::header::{NATS_SCHEDULE, NATS_SCHEDULE_TARGET};
use async_nats::jetstream::context::Context;
use autonomy_crds::event::{self, Attempt, DeliveryHistory, HISTORY_HEADER};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::queue::event::Event;
use crate::queue::publish::{Stopping, own_headers, publish};
use crate::service::CompiledService;
use crate::steps::Failure;

/// The header of retries that says how many failed attempts don't count, because they were made before a person sent the event on its way
/// again.
pub const ATTEMPTS_BEFORE_HEADER: &str = "autonomy-attempts-before";
/// The header of retries that says when the event's first attempt that counts failed, RFC 3339.
pub const TRIED_SINCE_HEADER: &str = "autonomy-tried-since";
// A history keeps this many of the oldest attempts and of the newest.
const OLDEST_KEPT: usize = 10;
const NEWEST_KEPT: usize = 40;
const LONGEST_ERROR: usize = 1000;

/// How long to wait after so many failed attempts (from 1): doubling from `initial` with jitter (between half and the whole), at least what was
/// asked for, at most `max`. `jitter` is from 0 to 1.
pub fn backoff(initial: Duration, max: Duration, failed: u32, asked: Option<Duration>, jitter: f64) -> Duration {
    let doubled = initial.saturating_mul(2_u32.saturating_pow(failed.saturating_sub(1).min(30))).min(max);
    let jittered = doubled.div_f64(2.0) + doubled.mul_f64(jitter / 2.0);
    // Those who were asked to wait come back spread out too.
    let asked = asked.map_or(Duration::ZERO, |asked| asked.min(max).mul_f64(1.0 + jitter / 10.0));
    jittered.max(asked).min(max)
}

/// Adds a failed attempt; beyond 50 the middle ones are left out.
pub fn add_attempt(history: &mut DeliveryHistory, failure: &Failure, revision: &str) {
    let error: String = failure.message.chars().take(LONGEST_ERROR).collect();
    history.attempts.push(Attempt { at: Timestamp::now().to_string(), error, retryable: failure.retryable, revision: revision.to_owned() });
    history.attempt_count = history.attempt_count.saturating_add(1);
    if history.attempts.len() > OLDEST_KEPT + NEWEST_KEPT {
        history.attempts.drain(OLDEST_KEPT..history.attempts.len() - NEWEST_KEPT);
    }
}

/// Schedules an event's next attempt, with the history given; gives when JetStream acknowledged it.
///
/// # Errors
/// When told to stop before.
pub async fn schedule(
    jetstream: &Context,
    service: &CompiledService,
    event: &Event,
    history: &DeliveryHistory,
    wait: Duration,
    stop: &CancellationToken,
) -> Result<Instant, Stopping> {
    let mut headers = own_headers(&event.headers);
    let history = serde_json::to_string(history).unwrap_or_default();
    headers.insert(HISTORY_HEADER, history.as_str());
    if event.attempts_before > 0 {
        headers.insert(ATTEMPTS_BEFORE_HEADER, event.attempts_before.to_string().as_str());
    }
    headers.insert(TRIED_SINCE_HEADER, event.tried_since.unwrap_or_else(Timestamp::now).to_string().as_str());
    let wait = jiff::SignedDuration::try_from(wait).unwrap_or(jiff::SignedDuration::MAX);
    let at = Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX);
    headers.insert(NATS_SCHEDULE, format!("@at {at}").as_str());
    headers.insert(NATS_SCHEDULE_TARGET, event::retry_due_subject(&service.namespace, &service.name, &event.id).as_str());
    let subject = event::retry_scheduled_subject(&service.namespace, &service.name, &event.id);
    publish(jetstream, &subject, &headers, &event.payload, stop).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_within_bounds() {
        assert_eq!(backoff(SECOND, 60 * SECOND, 1, None, 1.0), SECOND);
        assert_eq!(backoff(SECOND, 60 * SECOND, 1, None, 0.0), SECOND / 2);
        assert_eq!(backoff(SECOND, 60 * SECOND, 3, None, 1.0), 4 * SECOND);
        assert_eq!(backoff(SECOND, 60 * SECOND, 1000, None, 1.0), 60 * SECOND);
    }

    #[test]
    fn what_was_asked_for_is_the_least_and_the_bound_the_most() {
        assert_eq!(backoff(SECOND, 60 * SECOND, 1, Some(20 * SECOND), 0.0), 20 * SECOND);
        assert_eq!(backoff(SECOND, 60 * SECOND, 1, Some(3600 * SECOND), 1.0), 60 * SECOND);
    }

    #[test]
    fn long_histories_lose_their_middle() {
        let mut history = DeliveryHistory::default();
        for n in 0..200 {
            add_attempt(&mut history, &Failure::retryable(n.to_string()), "1");
        }
        assert_eq!(history.attempt_count, 200);
        assert_eq!(history.attempts.len(), 50);
        assert_eq!(history.attempts[0].error, "0");
        assert_eq!(history.attempts[49].error, "199");
    }
}
