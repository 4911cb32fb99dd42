//! The schedule trigger from end to end: each planned moment takes effect once, whatever is killed.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod queue_support;

use std::time::Duration;

use async_nats::HeaderMap;
use autonomy_crds::event::{self, DeliveryHistory, HISTORY_HEADER};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use queue_support::World;

/// Each second, and every one that was missed.
const EACH_SECOND: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: clock}
spec:
  trigger: {schedule: {cron: '* * * * * *', timeZone: Europe/Amsterdam, startingDeadline: 1h}}
  steps:
    - {create: {model: shop, entity: Accrual, object: {points: unixSeconds(timestamp(scheduledAt)), segment: event.id}}}
  retry: {maxAttempts: 3, initialBackoff: 100ms, maxBackoff: 1s}
";

/// A call of the provider before.
const CALLING: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: clock}
spec:
  trigger: {schedule: {cron: '* * * * * *', startingDeadline: 1h}}
  config: {provider: 'PROVIDER'}
  steps:
    - {http: {url: 'config.provider + \"/accrue\"', body: '{\"sale\": event.id, \"number\": \"c1\"}', timeout: 5s}}
    - {create: {model: shop, entity: Accrual, object: {points: unixSeconds(timestamp(event.time)), segment: event.id}}}
  retry: {maxAttempts: 3, initialBackoff: 100ms, maxBackoff: 1s}
  deadLetter: {ticket: {url: 'config.provider + \"/tickets\"'}}
";

#[test]
fn worker_process() {
    queue_support::worker_process();
}

// The moments that took effect, in seconds since 1970.
async fn moments(world: &World) -> Vec<i64> {
    sqlx::query_scalar("SELECT points FROM shop.accrual ORDER BY points").fetch_all(&world.pool).await.unwrap()
}

async fn until_runs(world: &World, count: usize) {
    world.until(&format!("{count} runs took effect"), || async { moments(world).await.len() >= count }).await;
}

async fn until_none_waits(world: &World) {
    world.until("no run waits", || async { world.ack_pending("DEFAULT_RETRIES", "clock-retries").await == 0 }).await;
}

// What the service planned last.
async fn planned_last(world: &World) -> i64 {
    let stream = world.jetstream().await.get_stream("DEFAULT_RETRIES").await.unwrap();
    let progress = stream.get_last_raw_message_by_subject(&event::schedule_progress_subject("default", "clock")).await.unwrap();
    let progress: serde_json::Value = serde_json::from_slice(&progress.payload).unwrap();
    progress["planned"].as_str().unwrap().parse::<Timestamp>().unwrap().as_second()
}

fn assert_each_once(moments: &[i64], last: i64) {
    let expected: Vec<i64> = (moments[0]..=last).collect();
    assert_eq!(moments, expected, "each second of the time is there, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_planned_moment_takes_effect_once_and_missed_ones_are_made_up_for() {
    let world = World::start().await;
    let (worker, operations) = world.worker(EACH_SECOND);
    world.ready(operations).await;
    until_runs(&world, 3).await;
    worker.stop().await;
    let before = moments(&world).await;
    // Moments pass while no worker runs.
    world.until("time passes", || async { Timestamp::now().as_second() > before[before.len() - 1] + 3 }).await;
    let (worker, _) = world.worker(EACH_SECOND);
    until_runs(&world, before.len() + 6).await;
    worker.stop().await;
    // What was planned and not handled when the worker stopped waits for the next one, which plans more: so none is left for long.
    let (worker, _) = world.worker(&EACH_SECOND.replace("'* * * * * *'", "'0 0 1 1 *'"));
    until_none_waits(&world).await;
    worker.stop().await;
    let seen = moments(&world).await;
    assert_each_once(&seen, seen[seen.len() - 1]);
    assert!(planned_last(&world).await >= seen[seen.len() - 1]);
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_deadline_only_the_newest_missed_moment_is_made_up_for() {
    let world = World::start().await;
    let service = EACH_SECOND.replace(", startingDeadline: 1h", "");
    let (worker, _) = world.worker(&service);
    until_runs(&world, 2).await;
    worker.stop().await;
    let last = planned_last(&world).await;
    world.until("time passes", || async { Timestamp::now().as_second() > last + 4 }).await;
    let (worker, _) = world.worker(&service);
    world.until("it runs again", || async { moments(&world).await.last().is_some_and(|moment| *moment > last) }).await;
    worker.stop().await;
    let seen = moments(&world).await;
    assert!(!seen.iter().any(|moment| (last + 1..last + 4).contains(moment)), "{last}: {seen:?}");
    let mut once = seen.clone();
    once.dedup();
    assert_eq!(seen, once);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_moment_is_lost_or_doubled_though_workers_are_killed_again_and_again() {
    let world = World::start().await;
    let mut workers = [world.worker_process(EACH_SECOND), world.worker_process(EACH_SECOND)];
    until_runs(&world, 1).await;
    for kill in 0..8 {
        let seen = moments(&world).await.len();
        // The pause is what is random here: a kill in the middle of whatever is going on.
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..1500))).await;
        let killed = std::mem::replace(&mut workers[kill % 2], world.worker_process(EACH_SECOND));
        killed.signal(Signal::SIGKILL);
        killed.wait_exit().await;
        until_runs(&world, seen + 1).await;
    }
    for worker in workers {
        worker.signal(Signal::SIGKILL);
        worker.wait_exit().await;
    }
    // The last one only handles what is planned: its own schedule begins with it, and does not come.
    let (worker, _) = world.worker(&EACH_SECOND.replace("'* * * * * *'", "'0 0 1 1 *'"));
    until_none_waits(&world).await;
    let last = planned_last(&world).await;
    worker.stop().await;
    assert_each_once(&moments(&world).await, last);
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_fails_is_tried_again_and_becomes_a_dead_letter_that_can_be_redriven() {
    let world = World::start().await;
    // The first run passes at its third attempt; or the first ones share the refusals.
    world.provider.refuse("c1", 503, 2);
    let (worker, _) = world.worker(CALLING);
    until_runs(&world, 3).await;
    world.provider.refuse("c1", 422, 1);
    world.until("a run is a dead letter", || async { world.messages("DEFAULT_DEAD_LETTERS").await == 1 }).await;
    world.until("there is a ticket", || async { world.provider.tickets().len() == 1 }).await;
    let jetstream = world.jetstream().await;
    let letters = jetstream.get_stream("DEFAULT_DEAD_LETTERS").await.unwrap();
    let letter = letters.get_raw_message(letters.cached_info().state.first_sequence).await.unwrap();
    let history: DeliveryHistory = serde_json::from_str(letter.headers.get(HISTORY_HEADER).unwrap().as_str()).unwrap();
    assert_eq!((history.attempt_count, history.attempts[0].retryable), (1, false), "{history:?}");
    let id = letter.subject.rsplit('.').next().unwrap().to_owned();
    assert_eq!(world.provider.tickets()[0]["eventId"], id);
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual WHERE segment IS NULL").await, 0);
    // As `autonomy dead-letters redrive` does it.
    let mut headers = HeaderMap::new();
    for (name, values) in letter.headers.iter() {
        headers.insert(name.clone(), values[0].clone());
    }
    let due = event::retry_due_subject("default", "clock", &id);
    jetstream.publish_with_headers(due, headers, letter.payload.clone()).await.unwrap().await.unwrap();
    letters.delete_message(letter.sequence).await.unwrap();
    let taken = || async {
        let ids: Vec<String> = sqlx::query_scalar("SELECT segment FROM shop.accrual").fetch_all(&world.pool).await.unwrap();
        ids.contains(&id)
    };
    world.until("the redriven run takes effect", taken).await;
    worker.stop().await;
    let (worker, _) = world.worker(&CALLING.replace("'* * * * * *'", "'0 0 1 1 *'"));
    until_none_waits(&world).await;
    let retries = || async {
        let info = world.jetstream().await.get_stream("DEFAULT_RETRIES").await.unwrap();
        // Only what was planned last is left.
        info.cached_info().state.messages == 1
    };
    world.until("no retry waits", retries).await;
    worker.stop().await;
    let seen = moments(&world).await;
    assert_each_once(&seen, seen[seen.len() - 1]);
    assert_eq!(world.provider.accrued(), seen.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_gets_runs_as_events_without_data() {
    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;

    let world = World::start().await;
    let handle = |headers: HeaderMap, body: String| async move {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!((header("ce-type").as_str(), body.as_str()), ("dev.autonomy.schedule.due", ""));
        assert_eq!(header("idempotency-key"), format!("clock/{}", header("ce-id")));
        let points = header("ce-time").parse::<Timestamp>().unwrap().as_second();
        let create = serde_json::json!({"op": "create", "model": "shop", "entity": "Accrual", "object": {"points": points}});
        (StatusCode::OK, axum::Json(serde_json::json!({"operations": [create]})))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(handle))).await.unwrap() });
    let handler = format!("handler: {{http: {{image: example.org/handler, port: {port}, path: /}}}}\n  retry:");
    let steps = EACH_SECOND.find("steps:").unwrap()..EACH_SECOND.find("retry:").unwrap() + "retry:".len();
    let mut service = EACH_SECOND.to_owned();
    service.replace_range(steps, &handler);
    let (worker, _) = world.worker(&service);
    until_runs(&world, 3).await;
    worker.stop().await;
    let seen = moments(&world).await;
    assert_each_once(&seen, seen[seen.len() - 1]);
}
