//! Publishing what replaces an event, until JetStream has it.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::context::Context;
use autonomy_crds::event::HISTORY_HEADER;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::retry::{ATTEMPTS_BEFORE_HEADER, TRIED_SINCE_HEADER};

const PAUSE: Duration = Duration::from_millis(250);

/// The worker stops before JetStream had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker stops")]
pub struct Stopping;

/// Publishes and waits for the acknowledgement, again and again until `stop`; gives when it was acknowledged. Repeats do no harm: the subjects
/// hold one message each.
///
/// # Errors
/// When told to stop.
pub async fn publish(
    jetstream: &Context,
    subject: &str,
    headers: &HeaderMap,
    payload: &Bytes,
    stop: &CancellationToken,
) -> Result<Instant, Stopping> {
    loop {
        let attempt = async {
            let acknowledgement = jetstream.publish_with_headers(subject.to_owned(), headers.clone(), payload.clone()).await?;
            acknowledgement.await
        };
        match attempt.await {
            Ok(_) => return Ok(Instant::now()),
            Err(error) => tracing::warn!(subject, %error, "JetStream did not take a message; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return Err(Stopping),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// The headers of an event that go on with it: those of the event itself, without what NATS or an earlier delivery added.
pub fn own_headers(headers: &HeaderMap) -> HeaderMap {
    let ours = [HISTORY_HEADER, ATTEMPTS_BEFORE_HEADER, TRIED_SINCE_HEADER];
    let mut own = HeaderMap::new();
    for (name, values) in headers.iter() {
        let text: &str = name.as_ref();
        if text.len() >= 5 && text.as_bytes()[..5].eq_ignore_ascii_case(b"nats-") || ours.contains(&text) {
            continue;
        }
        for value in values {
            own.append(name.clone(), value.clone());
        }
    }
    own
}
