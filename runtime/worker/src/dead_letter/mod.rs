//! Dead letters and tickets: what can't be handled is kept with its whole history, and somebody is told.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::context::Context;
use autonomy_crds::event::{self, DeliveryHistory, HISTORY_HEADER};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::http_call::HttpCaller;
use crate::queue::event::Event;
use crate::queue::publish::{Stopping, own_headers, publish};
use crate::retry::backoff;
use crate::service::{CompiledService, TicketRequest};

/// Writes an event's dead letter; gives when JetStream acknowledged it. There is one a subject: a repeat replaces it.
///
/// # Errors
/// When told to stop before.
pub async fn write(
    jetstream: &Context,
    service: &CompiledService,
    event: &Event,
    history: &DeliveryHistory,
    stop: &CancellationToken,
) -> Result<Instant, Stopping> {
    let mut headers: HeaderMap = own_headers(&event.headers);
    headers.insert(HISTORY_HEADER, serde_json::to_string(history).unwrap_or_default().as_str());
    let subject = event::dead_letter_subject(&service.namespace, &service.name, &event.id);
    publish(jetstream, &subject, &headers, &event.payload, stop).await
}

/// The ticket of a dead letter, where the service asks for one.
///
/// # Errors
/// Why there can't be one.
pub fn ticket(service: &CompiledService, event: &Event, history: &DeliveryHistory) -> Result<Option<TicketRequest>, String> {
    let error = history.attempts.last().map_or("", |attempt| attempt.error.as_str());
    service.ticket(&event.input.event, &event.input.object, error).map_err(|failure| failure.message)
}

// So many groups are remembered; those beyond are told of again, with the same key.
const MOST_GROUPS: usize = 10_000;

/// The groups of dead letters for which a ticket was raised in the present interval.
#[derive(Debug, Default)]
pub struct TicketedGroups {
    present: Mutex<(u64, HashSet<String>)>,
}

impl TicketedGroups {
    /// The idempotency key of a group's ticket, the same for all workers of the service in one interval; none where this worker has one
    /// already.
    pub fn key(&self, service: &CompiledService, group: &str) -> Option<String> {
        let interval = u64::try_from(service.ticket_interval().as_millis()).unwrap_or(u64::MAX).max(1);
        let interval = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default() / interval;
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if present.0 != interval {
            *present = (interval, HashSet::new());
        }
        if present.1.len() < MOST_GROUPS && !present.1.insert(group.to_owned()) {
            return None;
        }
        let hash: String = Sha256::digest(group.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("{}/ticket/{hash}/{interval}", service.name))
    }

    /// A group's ticket was not accepted: its next dead letter tries again.
    pub fn forget(&self, group: &str) {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).1.remove(group);
    }
}

/// The ticket's idempotency key: a dead letter that is raised again after a crash is the same ticket, one after a redrive is another.
pub fn ticket_key(service: &CompiledService, event_id: &str, history: &DeliveryHistory) -> String {
    format!("{}/ticket/{}", service.idempotency_key(event_id), history.attempt_count)
}

/// Raises a ticket, again and again until it is accepted or as many attempts as the service's `retry` allows have failed. True when accepted.
///
/// # Errors
/// When told to stop before.
pub async fn raise(
    http: &HttpCaller,
    service: &CompiledService,
    ticket: TicketRequest,
    key: &str,
    stop: &CancellationToken,
) -> Result<bool, Stopping> {
    let mut failed = 0;
    loop {
        let attempt = tokio::select! {
            () = stop.cancelled() => return Err(Stopping),
            attempt = http.post_json(&ticket.url, ticket.body.clone(), key) => attempt,
        };
        let Err(failure) = attempt else { return Ok(true) };
        failed += 1;
        if !failure.retryable || failed >= service.spec.retry.max_attempts {
            tracing::error!(key, error = failure.message, "a ticket could not be raised; the dead letter stands");
            return Ok(false);
        }
        let wait = backoff(service.initial_backoff, service.max_backoff, failed, failure.retry_after, rand::random());
        tracing::warn!(key, error = failure.message, wait = ?wait, "a ticket could not be raised; trying again");
        tokio::select! {
            () = stop.cancelled() => return Err(Stopping),
            () = tokio::time::sleep(wait.max(Duration::from_millis(10))) => {}
        }
    }
}
