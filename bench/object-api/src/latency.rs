//! From commit to subscriber: changes come at a steady rate, a subscriber of the stream looks at each event's commit time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use futures::StreamExt;
use hyper::Method;

use crate::scenarios::System;
use autonomy_bench::load::{Call, Connection, LoadError};
use autonomy_bench::measure::quantile;
use autonomy_bench::platform::Platform;
use autonomy_bench::sales::{Body, Kind};

/// Why the latency could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum LatencyError {
    /// The load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The subscription.
    #[error("the stream can't be subscribed to")]
    Subscribe(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A task ended.
    #[error("a task ended")]
    Task(#[from] tokio::task::JoinError),
}

/// Posts lists of `size` so that `rate` changes come a second; gives the events' milliseconds from commit to arrival, sorted.
///
/// # Errors
/// When a request fails or nothing can be subscribed to.
pub async fn measure(
    platform: &Platform,
    system: &mut System,
    stream: &str,
    size: u64,
    rate: u64,
    duration: Duration,
) -> Result<Vec<f64>, LatencyError> {
    let found = platform.jetstream.get_stream(stream).await.map_err(|error| LatencyError::Subscribe(error.into()))?;
    let config =
        push::OrderedConfig { deliver_subject: "_bench.latency".to_owned(), deliver_policy: DeliverPolicy::New, ..Default::default() };
    let consumer = found.create_consumer(config).await.map_err(|error| LatencyError::Subscribe(error.into()))?;
    let mut messages = consumer.messages().await.map_err(|error| LatencyError::Subscribe(error.into()))?;
    let lists = rate * duration.as_secs() / size;
    let subscriber = tokio::spawn(async move {
        let mut milliseconds = Vec::with_capacity((lists * size) as usize);
        while (milliseconds.len() as u64) < lists * size {
            let Ok(Some(Ok(message))) = tokio::time::timeout(Duration::from_secs(10), messages.next()).await else { break };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as f64;
            let committed = message.headers.as_ref().and_then(|headers| headers.get("ce-time")).map(|time| time.as_str());
            let committed = committed.and_then(|time| time.parse::<jiff::Timestamp>().ok());
            if let Some(committed) = committed {
                milliseconds.push((now - committed.as_microsecond() as f64) / 1e3);
            }
        }
        milliseconds
    });
    let body = Arc::new(Body::list(&Kind::Plain, size, system.receipts));
    system.receipts += lists * size + 1;
    let connections = 4;
    let mut senders = Vec::new();
    let begun = tokio::time::Instant::now() + Duration::from_millis(100);
    for number in 0..connections {
        let mut connection = Connection::open(&system.target).await?;
        let (body, path) = (body.clone(), system.collection.clone());
        senders.push(tokio::spawn(async move {
            for list in (number..lists).step_by(connections as usize) {
                tokio::time::sleep_until(begun + Duration::from_nanos(list * size * 1_000_000_000 / rate)).await;
                connection.send(Call { method: Method::POST, path: path.clone(), body: body.fresh() }).await?;
            }
            Ok::<_, LoadError>(())
        }));
    }
    for sender in senders {
        sender.await??;
    }
    let mut milliseconds = subscriber.await?;
    milliseconds.sort_unstable_by(f64::total_cmp);
    Ok(milliseconds)
}

/// What is said of latencies.
pub fn note(milliseconds: &[f64]) -> String {
    let at = |share| quantile(milliseconds, share);
    format!("p50 {:.1} ms, p90 {:.1} ms, p99.9 {:.1} ms, {} events", at(0.5), at(0.9), at(0.999), milliseconds.len())
}
