//! The client against a stand-in of the protocol that misbehaves; that the real API does what is said is tested with the triggers.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;

use super::*;

// Keys written, requests seen, and what is answered to the next requests in place of the work.
#[derive(Default)]
struct Books {
    written: HashMap<String, u32>,
    requests: Vec<usize>,
    troubles: Vec<u16>,
    most_bytes: usize,
}

type Shared = Arc<Mutex<Books>>;

async fn transact(State(books): State<Shared>, body: String) -> Response {
    let mut books = books.lock().unwrap();
    let request: Json = serde_json::from_str(&body).unwrap();
    let units = request["units"].as_array().unwrap();
    books.requests.push(units.len());
    books.most_bytes = books.most_bytes.max(body.len());
    if let Some(trouble) = books.troubles.pop() {
        return StatusCode::from_u16(trouble).unwrap().into_response();
    }
    if units.iter().any(|unit| unit["idempotencyKey"] == "s/poison") {
        return (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(json!({"detail": "not read"}))).into_response();
    }
    if units.iter().any(|unit| unit["idempotencyKey"] == "s/panic") {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let answers: Vec<Json> = units.iter().enumerate().map(|(index, unit)| answer(&mut books, index, unit)).collect();
    axum::Json(json!({"units": answers})).into_response()
}

fn answer(books: &mut Books, index: usize, unit: &Json) -> Json {
    let key = unit["idempotencyKey"].as_str().unwrap_or("list").to_owned();
    let problem = |status: u16, kind: &str| {
        json!({"status": status, "problem": {"type": format!("https://autonomy.dev/problems/{kind}"), "detail": "It can't be.",
            "usedKeys": ["s/1"], "errors": [{"pointer": format!("/units/{index}/operations/0/object/a"), "detail": "is taken"}]}})
    };
    match key.as_str() {
        "s/bad" => problem(409, "unique"),
        "s/reference" => problem(409, "reference"),
        "list" => problem(409, "idempotency-key-partly-used"),
        // Passes at the third time.
        "s/slow" if books.written.get(&key).copied().unwrap_or_default() < 2 => {
            *books.written.entry(key).or_default() += 1;
            problem(503, "unavailable")
        }
        _ => {
            let times = books.written.entry(key).or_default();
            *times += 1;
            json!({"status": 200, "replayed": *times > 1, "results": []})
        }
    }
}

async fn start(settings: TransactionSettings) -> (TransactionClient, Shared, CancellationToken) {
    let books = Shared::default();
    let router = Router::new().route("/api/transactions", post(transact)).with_state(books.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let stop = CancellationToken::new();
    (TransactionClient::start(&format!("http://{address}/"), settings, stop.clone()).unwrap(), books, stop)
}

fn unit(key: &str) -> Unit {
    let operation = Operation { json: "{\"op\":\"create\",\"object\":{\"amount\":1.10}}".to_owned() };
    Unit { keys: vec![key.to_owned()], context: WriteContext::default(), operations: vec![operation] }
}

#[tokio::test]
async fn units_travel_together_within_bounds() {
    let settings = TransactionSettings { max_units: 50, max_bytes: 2000, max_in_flight: 2 };
    let (client, books, _stop) = start(settings).await;
    let units: Vec<String> = (0..500).map(|n| format!("s/{n}")).collect();
    let outcomes = futures::future::join_all(units.iter().map(|key| client.submit(unit(key)))).await;
    assert!(outcomes.into_iter().all(|outcome| outcome == Ok(UnitOutcome { replayed: false, wrote: false })));
    assert_eq!(client.submit(unit("s/7")).await, Ok(UnitOutcome { replayed: true, wrote: false }));
    let books = books.lock().unwrap();
    assert_eq!(books.written.len(), 500);
    assert!(books.requests.len() < 100, "{} requests", books.requests.len());
    assert!(books.requests.iter().all(|units| *units <= 50));
    assert!(books.most_bytes <= 2100, "{}", books.most_bytes);
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_stays_is_told() {
    let (client, books, _stop) = start(TransactionSettings::default()).await;
    books.lock().unwrap().troubles = vec![503, 429, 502, 401];
    assert_eq!(client.submit(unit("s/1")).await, Ok(UnitOutcome { replayed: false, wrote: false }));
    assert_eq!(client.submit(unit("s/slow")).await, Ok(UnitOutcome { replayed: true, wrote: false }));
    let submitted = ["s/2", "s/bad", "s/reference", "s/3"].map(|key| client.submit(unit(key)));
    let outcomes = futures::future::join_all(submitted).await;
    assert!(outcomes[0].is_ok() && outcomes[3].is_ok());
    let Err(SubmitError::Refused(failure)) = &outcomes[1] else { panic!("{:?}", outcomes[1]) };
    assert!(!failure.retryable);
    assert_eq!(failure.message, "It can't be.; /operations/0/object/a is taken");
    assert!(matches!(&outcomes[2], Err(SubmitError::Refused(failure)) if failure.retryable));
    let mut group = unit("s/1");
    group.keys.push("s/2".to_owned());
    assert_eq!(client.submit(group).await, Err(SubmitError::PartlyUsed { used_keys: vec!["s/1".to_owned()] }));
}

#[tokio::test(start_paused = true)]
async fn one_bad_unit_takes_no_other_with_it() {
    let (client, _, _stop) = start(TransactionSettings { max_in_flight: 1, ..TransactionSettings::default() }).await;
    for bad in ["s/poison", "s/panic"] {
        let keys: Vec<String> = (0..20).map(|n| if n == 13 { bad.to_owned() } else { format!("s/{bad}{n}") }).collect();
        let outcomes = futures::future::join_all(keys.iter().map(|key| client.submit(unit(key)))).await;
        for (key, outcome) in keys.iter().zip(outcomes) {
            match outcome {
                Err(SubmitError::Refused(failure)) => assert!(key == bad && failure.retryable == (bad == "s/panic"), "{key}: {failure}"),
                other => assert!(key != bad && other.is_ok(), "{key}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_stop_ends_waiting() {
    let stop = CancellationToken::new();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = TransactionClient::start(&format!("http://{gone}"), TransactionSettings::default(), stop.clone()).unwrap();
    let submitting = tokio::spawn({
        let client = client.clone();
        async move { client.submit(unit("s/1")).await }
    });
    tokio::task::yield_now().await;
    stop.cancel();
    assert_eq!(submitting.await.unwrap(), Err(SubmitError::Stopping));
    assert_eq!(client.submit(unit("s/2")).await, Err(SubmitError::Stopping));
}
