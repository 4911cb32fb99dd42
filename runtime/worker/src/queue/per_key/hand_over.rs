//! Leaving order per key behind: a service that no longer asks for it hands what it kept that way to its retries.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::Stream;
use autonomy_crds::event::{self as names, HISTORY_HEADER, header};
use autonomy_process::telemetry::error_chain;
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::super::publish::{own_headers, publish};
use super::record::Error;
use crate::atomic;

// Workers of the former declaration may be there for a while, and keep more.
const EVERY: Duration = Duration::from_secs(60);

/// Hands over what is kept in order per key, now and from time to time, until the worker stops.
pub async fn hand_over(jetstream: Context, retries: Stream<()>, namespace: String, service: String, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match once(&jetstream, &retries, &namespace, &service, &stop).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "events that were kept in order per key are handed to the retries"),
            Err(error) => {
                tracing::warn!(error = %error_chain(&*error), "what was kept in order per key can't be handed over; trying again")
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn once(jetstream: &Context, retries: &Stream<()>, namespace: &str, service: &str, stop: &CancellationToken) -> Result<usize, Error> {
    let mut count = 0;
    for kind in names::ORDERED {
        let mut subjects = retries.info_with_subjects(names::retry_subjects_of_kind(namespace, service, kind)).await?;
        while let Some((subject, _)) = subjects.try_next().await? {
            let Some(message) = atomic::last(retries, &subject).await? else { continue };
            // Marks and records are no events.
            if let Some(id) = message.headers.get(header::ID) {
                let mut headers: HeaderMap = own_headers(&message.headers);
                if let Some(history) = message.headers.get(HISTORY_HEADER) {
                    headers.insert(HISTORY_HEADER, history.clone());
                }
                // One that was becoming a dead letter is one; no attempt at it can take effect any more.
                let place = match kind {
                    "dying" => names::dead_letter_subject(namespace, service, id.as_str()),
                    _ => names::retry_due_subject(namespace, service, id.as_str()),
                };
                publish(jetstream, &place, &headers, &message.payload, stop).await?;
                count += 1;
            }
            let _ = retries.delete_message(message.sequence).await;
        }
    }
    Ok(count)
}
