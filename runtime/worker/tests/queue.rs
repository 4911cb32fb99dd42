//! The queue trigger from end to end: PostgreSQL, relay, nats-server, worker, API.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod queue_support;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use autonomy_crds::event;
use autonomy_process::service_failures::ServiceFailures;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use queue_support::{ACCRUAL, LEDGER, World};
use serde_json::json;

#[test]
fn worker_process() {
    queue_support::worker_process();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_never_misses_the_customer_committed_with_it_and_is_handled_once() {
    let world = World::start().await;
    world.sell(0, 20).await;
    let (worker, operations) = world.worker(ACCRUAL);
    world.ready(operations).await;
    world.sell(20, 60).await;
    // The filter leaves it out.
    sqlx::raw_sql("INSERT INTO shop.sale(id, total) VALUES (gen_random_uuid(), 0)").execute(&world.pool).await.unwrap();
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 60).await;
    world.until_drained("accrual").await;
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual").await, 60);
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual a JOIN shop.sale s ON s.id = a.sale_id JOIN shop.customer c ON c.number = s.customer_number AND c.segment = a.segment").await, 60);
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
    let metrics = world.http.get(format!("http://{operations}/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("autonomy_worker_events_handled_total 60"), "{metrics}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_pass_is_tried_again_what_stays_becomes_a_dead_letter_with_a_ticket() {
    let world = World::start().await;
    let (worker, operations) = world.worker(ACCRUAL);
    world.ready(operations).await;
    // c1 passes at the third attempt, c2 runs out of attempts, c3 is refused for good; the desk is not there at first.
    world.provider.refuse("c1", 503, 2);
    world.provider.refuse("c2", 429, 1000);
    world.provider.refuse("c3", 422, 1000);
    world.provider.refuse_tickets(2);
    world.sell(0, 10).await;
    world.sell_unknown("nobody").await;
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 8).await;
    world.until("there are three dead letters", || async { world.messages("DEFAULT_DEAD_LETTERS").await == 3 }).await;
    world.until("there are three tickets", || async { world.provider.tickets().len() == 3 }).await;
    world.until_drained("accrual").await;
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual").await, 8);
    let mut failures = ServiceFailures::new("default", "accrual");
    let jetstream = world.jetstream().await;
    assert_eq!(failures.dead_letters(&jetstream).await.unwrap(), 3);
    let newest = failures.newest(&jetstream).await.unwrap().unwrap();
    assert!(newest.dead_letter && newest.event_id.len() == 25 && !newest.message.is_empty(), "{newest:?}");
    let told = || async { world.http.get(format!("http://{operations}/metrics")).send().await.unwrap().text().await.unwrap() };
    world
        .until("the worker tells what is so", || async {
            let metrics = told().await;
            ["autonomy_worker_dead_letters 3", "autonomy_worker_lag 0", "autonomy_worker_oldest_event_age_seconds 0.0"]
                .iter()
                .all(|line| metrics.lines().any(|told| told == *line))
        })
        .await;
    let metrics = told().await;
    for line in [
        "autonomy_worker_events_dead_lettered_total 3",
        "autonomy_worker_event_delay_seconds_count 8",
        "autonomy_worker_handling_duration_seconds_count{outcome=\"success\"} 8",
        "autonomy_worker_handling_duration_seconds_count{outcome=\"failed\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }

    // A redrive works once the cause is gone, and makes a new dead letter where it is not.
    world.provider.refuse("c2", 0, 0);
    let letters = jetstream.get_stream("DEFAULT_DEAD_LETTERS").await.unwrap();
    for sequence in letters.cached_info().state.first_sequence..=letters.cached_info().state.last_sequence {
        let Ok(letter) = letters.get_raw_message(sequence).await else { continue };
        let history: event::DeliveryHistory = serde_json::from_str(letter.headers.get(event::HISTORY_HEADER).unwrap().as_str()).unwrap();
        let expected = if history.attempts[0].retryable { 5 } else { 1 };
        assert_eq!(history.attempt_count, expected, "{history:?}");
        let id = letter.subject.rsplit('.').next().unwrap();
        let due = event::retry_due_subject("default", "accrual", id);
        let mut headers = HeaderMap::new();
        for (name, values) in letter.headers.iter() {
            headers.insert(name.clone(), values[0].clone());
        }
        jetstream.publish_with_headers(due, headers, letter.payload.clone()).await.unwrap().await.unwrap();
        // The worker may have been quicker: its next dead letter of the event takes this one's place, there is one a subject.
        if let Err(error) = letters.delete_message(sequence).await {
            assert!(letters.get_raw_message(sequence).await.is_err(), "the old dead letter is still there: {error}");
        }
    }
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 9).await;
    world.until("two are dead letters again", || async { world.messages("DEFAULT_DEAD_LETTERS").await == 2 }).await;
    world.until_drained("accrual").await;
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual").await, 9);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_given_up_at_their_age_and_dead_letters_of_a_kind_share_a_ticket() {
    let world = World::start().await;
    let service = ACCRUAL
        .replace("maxAttempts: 5,", "maxAttempts: 1000, maxAge: 1500ms,")
        .replace("\"/tickets\"'}", "\"/tickets\"', groupBy: error}");
    let (worker, operations) = world.worker(&service);
    world.ready(operations).await;
    // Four of one kind, one of another.
    for number in ["c1", "c2", "c3", "c4"] {
        world.provider.refuse(number, 503, 100_000);
    }
    world.provider.refuse("c5", 422, 1000);
    world.sell(0, 10).await;
    world.until("there are five dead letters", || async { world.messages("DEFAULT_DEAD_LETTERS").await == 5 }).await;
    world.until_drained("accrual").await;
    let letters = world.jetstream().await.get_stream("DEFAULT_DEAD_LETTERS").await.unwrap();
    for sequence in letters.cached_info().state.first_sequence..=letters.cached_info().state.last_sequence {
        let letter = letters.get_raw_message(sequence).await.unwrap();
        let history: event::DeliveryHistory = serde_json::from_str(letter.headers.get(event::HISTORY_HEADER).unwrap().as_str()).unwrap();
        let attempts = &history.attempts;
        assert!(attempts.iter().all(|attempt| attempt.revision.len() == 12), "{history:?}");
        if !attempts[0].retryable {
            assert_eq!(attempts.len(), 1);
            continue;
        }
        // As many as there is time for, and no more.
        let tried = attempts.last().unwrap().at.parse::<jiff::Timestamp>().unwrap().duration_since(attempts[0].at.parse().unwrap());
        assert!(attempts.len() > 1 && tried.as_secs() < 60 && attempts.len() < 40, "{history:?}");
    }
    assert_eq!(world.provider.tickets().len(), 2, "{:?}", world.provider.tickets());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_window_writes_one_unit_a_group() {
    let world = World::start().await;
    let (worker, operations) = world.worker(LEDGER);
    world.ready(operations).await;
    for _ in 0..3 {
        sqlx::raw_sql(
            "INSERT INTO shop.sale(id, total, customer_number) SELECT gen_random_uuid(), 1, 'c' || n % 4 FROM generate_series(1, 100) n",
        )
        .execute(&world.pool)
        .await
        .unwrap();
    }
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 300).await;
    world.until_drained("ledger").await;
    assert_eq!(world.count("SELECT sum(sales)::bigint FROM shop.accrual").await, 300);
    let groups = world.count("SELECT count(*) FROM shop.accrual").await;
    assert!((4..=60).contains(&groups), "{groups}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_in_one_group_though_the_worker_is_killed() {
    let world = World::start().await;
    for round in 0..8 {
        let worker = world.worker_process(LEDGER);
        sqlx::raw_sql(
            "INSERT INTO shop.sale(id, total, customer_number) SELECT gen_random_uuid(), 1, 'c' || n % 7 FROM generate_series(1, 100) n",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        let enough = 100 * (round + 1) - 60;
        world
            .until("groups are written", || async {
                world.count("SELECT coalesce(sum(sales), 0)::bigint FROM shop.accrual").await >= enough
            })
            .await;
        worker.signal(nix::sys::signal::Signal::SIGKILL);
        worker.wait_exit().await;
    }
    let (worker, _) = world.worker(LEDGER);
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 800).await;
    world.until_drained("ledger").await;
    assert_eq!(world.count("SELECT sum(sales)::bigint FROM shop.accrual").await, 800);
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_are_there_exactly_once_though_the_worker_is_killed() {
    let world = World::start().await;
    world.provider.delay(Duration::from_millis(30));
    for number in ["c3", "c30", "c70", "c111"] {
        world.provider.refuse(number, 503, 2);
    }
    world.provider.refuse("c5", 422, 1000);
    world.sell(0, 150).await;
    for kill in 1..=4 {
        let worker = world.worker_process(ACCRUAL);
        let seen = world.provider.calls();
        world.until("work is in the middle", || async { world.provider.calls() >= seen + 12 || world.provider.accrued() >= 149 }).await;
        worker.signal(nix::sys::signal::Signal::SIGKILL);
        worker.wait_exit().await;
        println!("kill {kill}: {} calls, {} accruals", world.provider.calls(), world.count("SELECT count(*) FROM shop.accrual").await);
    }
    let (worker, _) = world.worker(ACCRUAL);
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 149).await;
    world.until("there is one ticket", || async { world.provider.tickets().len() == 1 }).await;
    world.until_drained("accrual").await;
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual").await, 149);
    assert_eq!(world.count("SELECT count(DISTINCT sale_id) FROM shop.accrual").await, 149);
    assert_eq!(world.provider.accrued(), 149);
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_and_caches_survive_kills_of_nats_server() {
    let mut world = World::start().await;
    let (worker, operations) = world.worker(ACCRUAL);
    world.ready(operations).await;
    for n in 0..30 {
        world.provider.refuse(&format!("c{n}"), 503, 2);
    }
    world.sell(0, 15).await;
    world.until("retries are scheduled", || async { world.messages("DEFAULT_RETRIES").await > 0 }).await;
    world.restart_nats().await;
    world.sell(15, 30).await;
    world.restart_nats().await;
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 30).await;
    world.until_drained("accrual").await;
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual").await, 30);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_lost_its_tail_is_handled_from_there_on() {
    loses_its_tail(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_lost_what_was_synced_and_is_repaired_is_handled_from_there_on() {
    loses_its_tail(true).await;
}

// `synced`: more is lost than a server may lose; the relay then makes other messages in the place of those lost.
async fn loses_its_tail(synced: bool) {
    let mut world = World::start().await;
    let (worker, operations) = world.worker(ACCRUAL);
    world.ready(operations).await;
    world.sell(0, 10).await;
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 10).await;
    world.until_drained("accrual").await;
    // The server comes back with what it had a while ago: the relay publishes the rest anew.
    let copy = world.copy_nats().await;
    world.sell(10, 20).await;
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 20).await;
    if synced {
        world.until_synced().await;
    }
    world.nats.as_ref().unwrap().kill();
    world.nats.take().unwrap().wait_exit().await;
    std::fs::remove_dir_all(world.nats_folder()).unwrap();
    std::fs::rename(&copy, world.nats_folder()).unwrap();
    world.start_nats().await;
    world.sell(20, 30).await;
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 30).await;
    world.until_drained("accrual").await;
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual").await, 30);
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_longer_than_the_wait_for_its_acknowledgement_is_made_once() {
    let world = World::start().await;
    // The server would deliver the event again, to this worker or the other one, if it was not told that it is in hand.
    world.provider.delay(autonomy_process::service_consumers::ACK_WAIT + Duration::from_secs(8));
    let service = ACCRUAL.replace("timeout: 5s", "timeout: 2m");
    let (one, _) = world.worker(&service);
    let (other, _) = world.worker(&service);
    world.sell(0, 3).await;
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 3).await;
    world.until_drained("accrual").await;
    assert_eq!((world.provider.calls(), world.count("SELECT count(*) FROM shop.accrual").await), (3, 3));
    one.stop().await;
    other.stop().await;
}

/// A service whose logic is a program beside the worker.
const HANDLED: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: handled}
spec:
  trigger: {queue: {model: shop, entity: Sale, routing: [new]}}
  handler: {http: {image: example.org/handler, port: PORT, path: /events}}
  retry: {maxAttempts: 3, initialBackoff: 100ms, maxBackoff: 1s}
";

// A handler as a developer writes it: answers the first try of each event with 503, refuses sales of 13, and closes all others.
async fn handle(
    State(tried): State<Arc<Mutex<HashSet<String>>>>,
    headers: axum::http::HeaderMap,
    axum::Json(sale): axum::Json<serde_json::Value>,
) -> (StatusCode, axum::Json<serde_json::Value>) {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("ce-specversion"), "1.0");
    assert_eq!(header("ce-type"), "dev.autonomy.shop.Sale.created");
    assert_eq!(header("ce-subject"), sale["id"].as_str().unwrap());
    assert_eq!(header("idempotency-key"), format!("handled/{}", header("ce-id")));
    if tried.lock().unwrap().insert(header("ce-id")) {
        return (StatusCode::SERVICE_UNAVAILABLE, axum::Json(json!({})));
    }
    if sale["total"].to_string().starts_with("13") {
        return (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(json!({"detail": "no sale is of 13"})));
    }
    let operations = json!([
        {"op": "create", "model": "shop", "entity": "Accrual", "object": {"points": 1, "saleId": sale["id"]}},
        {"op": "patch", "model": "shop", "entity": "Sale", "id": sale["id"], "object": {"status": "accrued"}},
    ]);
    (StatusCode::OK, axum::Json(json!({"operations": operations})))
}

// The service, and its program listening.
async fn handled() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let router = Router::new().route("/events", post(handle)).with_state(Arc::default());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    HANDLED.replace("PORT", &port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_in_any_language_gets_events_and_answers_with_what_is_written() {
    let world = World::start().await;
    let (worker, operations) = world.worker(&handled().await);
    world.ready(operations).await;
    sqlx::raw_sql("INSERT INTO shop.sale(id, total) SELECT gen_random_uuid(), 10 + n FROM generate_series(1, 30) n")
        .execute(&world.pool)
        .await
        .unwrap();
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 29).await;
    world.until("the refused one is a dead letter", || async { world.messages("DEFAULT_DEAD_LETTERS").await == 1 }).await;
    world.until_drained("handled").await;
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual").await, 29);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_answers_is_written_exactly_once_though_the_worker_is_killed() {
    let world = World::start().await;
    let service = handled().await;
    for round in 0..6 {
        let worker = world.worker_process(&service);
        sqlx::raw_sql("INSERT INTO shop.sale(id, total) SELECT gen_random_uuid(), 200 + n FROM generate_series(1, 50) n")
            .execute(&world.pool)
            .await
            .unwrap();
        let enough = 50 * round + 10;
        world.until("work is in the middle", || async { world.count("SELECT count(*) FROM shop.accrual").await >= enough }).await;
        worker.signal(nix::sys::signal::Signal::SIGKILL);
        worker.wait_exit().await;
    }
    let (worker, _) = world.worker(&service);
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 300).await;
    world.until_drained("handled").await;
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual").await, 300);
    assert_eq!(world.count("SELECT count(DISTINCT sale_id) FROM shop.accrual").await, 300);
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
    worker.stop().await;
}
