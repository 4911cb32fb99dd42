//! The queue trigger, changes of objects, and the schedule trigger, which goes its way.
//!
//! A durable consumer on the model's stream and one on the retry stream deliver events (runs of a schedule come by the latter); each is handled when the caches have seen everything
//! committed before it, and acknowledged when its effects are committed, or when what replaces it (a retry, a dead letter) counts as synced.

mod acknowledgements;
mod batch;
mod consumer;
pub mod event;
mod handler;
mod holdings;
mod lanes;
mod metrics;
mod per_key;
pub mod publish;
mod schedule;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::ContextBuilder;
use autonomy_crds::event as names;
use autonomy_crds::names::parse_duration;
use autonomy_process::options::nats_connect_options;
use autonomy_process::service_consumers::ServiceConsumers;
use autonomy_process::service_failures::ServiceFailures;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::caches::{Barrier, Caches};
use crate::dead_letter::TicketedGroups;
use crate::worker::{Context, Error};
use acknowledgements::Acknowledgements;
use consumer::Puller;
use event::Source;
use handler::Handler;
use holdings::Holdings;

pub use metrics::Metrics;

// How long what is in hand may take when the worker stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const WATCH: Duration = Duration::from_millis(500);
const LAG_EVERY: u32 = 8;

/// Handles events until the worker stops.
///
/// # Errors
/// When it can't go on.
pub async fn run(context: Context, metrics: Metrics) -> Result<(), Error> {
    let service = context.service.clone();
    let Some(consumers) = ServiceConsumers::of(&service.namespace, &service.name, &service.spec) else { return Ok(()) };
    let batch = service.spec.trigger.queue.as_ref().and_then(|queue| queue.batch.clone());
    let (client, interruptions) = connect(&context).await?;
    let jetstream = ContextBuilder::new()
        .timeout(Duration::from_secs(5))
        .ack_timeout(Duration::from_secs(5))
        .max_ack_inflight(4096)
        .build(client.clone());
    let caches =
        Caches::start(&client, &interruptions, &jetstream, &context.options.api_url, &service, &context.cache_metrics, &context.stop)
            .map_err(|source| trigger_error("the caches can't be kept", source))?;
    if let Some(port) = service.spec.http_handler().and_then(|handler| handler.caches_port) {
        crate::caches::serve(port, caches.clone(), service.clone(), context.stop.clone())
            .await
            .map_err(|source| trigger_error(&format!("the caches can't be offered on port {port} (handler.http.cachesPort)"), source))?;
    }

    let namespace = service.namespace.as_str();
    let retries = names::retry_stream(namespace);
    let retry_handle =
        jetstream.get_stream_no_info(&retries).await.map_err(|source| trigger_error("the retry stream can't be named", source))?;
    let acknowledgements = Acknowledgements::start(client.clone(), interruptions.clone());
    let holdings = Arc::new(Holdings::new(client.clone(), acknowledgements, retry_handle.clone(), context.stop.clone()));
    let concurrency = usize::try_from(service.spec.scaling.concurrency).unwrap_or(usize::MAX).max(1);
    let (window, windows) = batch.as_ref().map(|_| mpsc::unbounded_channel()).unzip();
    let barrier = service.schedule.as_ref().map(|_| Barrier::new(&context, caches.clone())).transpose()?;
    let handler = Arc::new(Handler {
        barrier,
        service: service.clone(),
        caches: caches.clone(),
        http: context.http.clone(),
        transactions: context.transactions.clone(),
        jetstream: jetstream.clone(),
        holdings: holdings.clone(),
        metrics: metrics.clone(),
        tasks: TaskTracker::new(),
        stop: context.stop.clone(),
        sync_interval: context.options.nats.nats_sync_interval,
        running: Arc::new(Semaphore::new(concurrency)),
        tickets: Handler::ticket_bound(),
        ticketed: TicketedGroups::default(),
        window,
        lanes: lanes::Lanes::default(),
    });
    if let (Some(batch), Some(windows)) = (&batch, windows) {
        let max_objects = usize::try_from(batch.max_objects).unwrap_or(usize::MAX).max(1);
        let max_wait = parse_duration(&batch.max_wait).map_err(|text| trigger_error("batch.maxWait is no duration", text))?;
        tokio::spawn(batch::gather(handler.clone(), windows, max_objects, max_wait));
    }

    let capacity = consumers.capacity;
    let end = CancellationToken::new();
    let keeper = tokio::spawn({
        let (holdings, end) = (holdings.clone(), end.clone());
        async move { holdings.keep(end).await }
    });
    let pullers = TaskTracker::new();
    let mut ready: Vec<Arc<AtomicBool>> = Vec::new();
    let ordered = service.spec.is_ordered_by_key();
    let events = consumers.events.iter().filter(|_| !ordered).map(|events| (events.clone(), Source::Model));
    for (wanted, source) in events.chain([(consumers.due.clone(), Source::Retries)]) {
        let puller = Puller::new(jetstream.clone(), wanted, capacity, interruptions.clone(), context.stop.clone());
        let (handler, is_ready) = (handler.clone(), Arc::<AtomicBool>::default());
        ready.push(is_ready.clone());
        pullers.spawn(async move {
            puller.run(|| is_ready.store(true, Ordering::Relaxed), |message, permit| handler.accept(message, source, permit)).await;
        });
    }

    if let (Some(trigger), Some(schedule)) = (service.spec.trigger.schedule.clone(), service.schedule.clone()) {
        let (jetstream, stop) = (jetstream.clone(), context.stop.clone());
        let (namespace, service) = (service.namespace.clone(), service.name.clone());
        pullers.spawn(schedule::Planner { jetstream, namespace, service, trigger, schedule, stop }.run());
    }

    if !ordered && consumers.events.is_some() {
        let (namespace, service) = (service.namespace.clone(), service.name.clone());
        pullers.spawn(per_key::hand_over(jetstream.clone(), retry_handle.clone(), namespace, service, context.stop.clone()));
    }
    if let Some(events) = consumers.events.clone().filter(|_| ordered) {
        let (handler, interruptions, is_ready) = (handler.clone(), interruptions.clone(), Arc::<AtomicBool>::default());
        ready.push(is_ready.clone());
        let sharer = per_key::Sharer { handler, retries: retry_handle.clone(), events, interruptions, ready: is_ready };
        pullers.spawn(sharer.run());
    }

    report(&context, &client, &jetstream, &caches, &holdings, &ready, &metrics, &consumers).await;

    pullers.close();
    pullers.wait().await;
    handler.tasks.close();
    let _ = tokio::time::timeout(STOP_PATIENCE, handler.tasks.wait()).await;
    end.cancel();
    let _ = keeper.await;
    holdings.give_back().await;
    let _ = tokio::time::timeout(STOP_PATIENCE, client.flush()).await;
    tracing::info!("the queue trigger has stopped");
    Ok(())
}

fn trigger_error(what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Trigger { what: what.to_owned(), source: source.into() }
}

// Connects, waiting for a server that is not there yet. The number counts lost connections: the server that is found again may have lost what
// it had not synced.
pub(crate) async fn connect(context: &Context) -> Result<(async_nats::Client, watch::Receiver<u64>), Error> {
    let wrong = |source| trigger_error("NATS can't be connected to; is AUTONOMY_NATS_URL a NATS URL?", source);
    let options = nats_connect_options(&context.options.nats.nats_url).map_err(wrong)?;
    let (lost, interruptions) = watch::channel(0);
    let client = options
        .event_callback(move |event| {
            if matches!(event, async_nats::Event::Disconnected) {
                lost.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        })
        .name(format!("autonomy-worker/{}", context.service.name))
        .retry_on_initial_connect()
        .ping_interval(Duration::from_secs(5))
        .request_timeout(Some(Duration::from_secs(5)))
        .reconnect_delay_callback(|attempts| Duration::from_millis(50 * u64::try_from(attempts.min(20)).unwrap_or(20)))
        .connect(&context.options.nats.nats_url)
        .await
        .map_err(|source| wrong(source.into()))?;
    Ok((client, interruptions))
}

// Tells readiness and metrics until the worker stops.
#[allow(clippy::too_many_arguments)]
async fn report(
    context: &Context,
    client: &async_nats::Client,
    jetstream: &jetstream::Context,
    caches: &Caches,
    holdings: &Holdings,
    ready: &[Arc<AtomicBool>],
    metrics: &Metrics,
    consumers: &ServiceConsumers,
) {
    let mut turns: u32 = 0;
    let mut failures = ServiceFailures::new(&context.service.namespace, &context.service.name);
    loop {
        let state = if client.connection_state() != async_nats::connection::State::Connected {
            Err("NATS is not connected".to_owned())
        } else if !ready.iter().all(|ready| ready.load(Ordering::Relaxed)) {
            Err("the streams' consumers are not there yet".to_owned())
        } else {
            caches.ready()
        };
        match state {
            Ok(()) => context.readiness.ready(),
            Err(reason) => context.readiness.not_ready(reason),
        }
        let (in_hand, deferred) = holdings.counts();
        metrics.in_hand.set(i64::try_from(in_hand).unwrap_or(i64::MAX));
        metrics.deferred.set(i64::try_from(deferred).unwrap_or(i64::MAX));
        if turns.is_multiple_of(LAG_EVERY) {
            tell_of_what_waits(jetstream, consumers, &mut failures, metrics).await;
        }
        turns = turns.wrapping_add(1);
        tokio::select! {
            () = context.stop.cancelled() => return,
            () = tokio::time::sleep(WATCH) => {}
        }
    }
}

// What can't be read stays as it was told last.
async fn tell_of_what_waits(
    jetstream: &jetstream::Context,
    consumers: &ServiceConsumers,
    failures: &mut ServiceFailures,
    metrics: &Metrics,
) {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    if let Ok(lag) = consumers.lag(jetstream).await {
        metrics.pending.set(number(lag.pending));
        metrics.retries_waiting.set(number(lag.retries));
        metrics.lag.set(number(lag.total()));
        if let Ok(times) = consumers.oldest(jetstream, lag).await {
            let oldest = times.iter().filter_map(|time| metrics::age(time)).max().unwrap_or_default();
            metrics.oldest_event_age.set(oldest.as_secs_f64());
        }
    }
    if let Ok(count) = failures.dead_letters(jetstream).await {
        metrics.dead_letters.set(number(count));
    }
}
