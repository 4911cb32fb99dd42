//! Calls against a web service that misbehaves.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use autonomy_crds::data_platform::SecretKeyReference;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{any, post};
use tokio::net::TcpListener;

use super::*;

pub(super) fn caller(concurrency: usize, secrets: Option<&Path>) -> HttpCaller {
    HttpCaller::new(concurrency, Secrets::new(secrets.map(Path::to_owned)), Metrics::default()).unwrap()
}

pub(super) fn secret(name: &str, key: &str) -> SecretKeyReference {
    SecretKeyReference { secret_name: name.to_owned(), key: key.to_owned() }
}

fn bearer(name: &str, key: &str) -> Endpoint {
    Endpoint { credentials: Credentials::Bearer(secret(name, key)), ..Endpoint::default() }
}

pub(super) async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

pub(super) fn request(url: String) -> Request {
    Request {
        method: Method::POST,
        url,
        headers: Vec::new(),
        body: Some("{\"amount\":1.10}".to_owned()),
        idempotency_key: "accrual/E-1/book".to_owned(),
        expect: Vec::new(),
        timeout: Duration::from_secs(20),
    }
}

fn json(text: impl Into<String>) -> impl IntoResponse {
    ([("content-type", "application/json; charset=utf-8"), ("x-a", "b")], text.into())
}

#[tokio::test]
async fn an_answer_is_read_exactly_and_a_call_carries_its_key_and_token() {
    let heard = Arc::new(Mutex::new((HeaderMap::new(), String::new())));
    let hearing = heard.clone();
    let url = serve(Router::new().route(
        "/book",
        post(move |headers: HeaderMap, body: String| async move {
            *hearing.lock().unwrap() = (headers, body);
            json("{\"points\": 10.50, \"id\": 7}")
        }),
    ))
    .await;
    let secrets = tempfile::tempdir().unwrap();
    std::fs::create_dir(secrets.path().join("provider")).unwrap();
    std::fs::write(secrets.path().join("provider/token"), "s3cret\n").unwrap();
    let caller = caller(2, Some(secrets.path()));
    let mut call = request(format!("{url}/book"));
    call.headers.push((HeaderName::from_static("x-shop"), "042".to_owned()));
    let answer = caller.call(call.clone(), &bearer("provider", "token")).await.unwrap().into_value();
    assert_eq!(answer.member("status"), Some(&Value::Int(200)));
    assert_eq!(answer.member("body").unwrap().to_json(), "{\"points\":10.50,\"id\":7}");
    assert_eq!(answer.member("headers").unwrap().member("x-a"), Some(&Value::text("b")));
    {
        let (headers, body) = &*heard.lock().unwrap();
        assert_eq!(body, "{\"amount\":1.10}");
        assert_eq!(headers["idempotency-key"], "accrual/E-1/book");
        assert_eq!(headers["authorization"], "Bearer s3cret");
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-shop"], "042");
    }
    assert!(!caller.call(call.clone(), &bearer("..", "x")).await.unwrap_err().retryable);
    assert!(caller.call(call, &bearer("late", "x")).await.unwrap_err().retryable);
}

#[tokio::test]
async fn what_may_pass_is_told_from_what_stays() {
    let date = jiff::fmt::rfc2822::to_string(
        &(Timestamp::now() + jiff::SignedDuration::from_secs(120)).to_zoned_datetime(jiff::tz::TimeZone::UTC),
    )
    .unwrap();
    let url = serve(
        Router::new()
            .route(
                "/status/{status}",
                any(|path: axum::extract::Path<u16>| async move { (StatusCode::from_u16(*path).unwrap(), "no such member") }),
            )
            .route("/seconds", any(|| async { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")]) }))
            .route("/date", any(move || async move { (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", date)]) }))
            .route("/endless", any(|| async { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "99999999")]) }))
            .route("/moved", any(|| async { (StatusCode::FOUND, [("location", "/status/200")]) }))
            .route("/long", any(|| async { "x".repeat(MAX_ANSWER + 1) }))
            .route("/broken", any(|| async { json("{\"a\":") }))
            .route("/text", any(|| async { "plain" }))
            .route("/nothing", any(|| async { StatusCode::NO_CONTENT }))
            .route("/never", any(|| async { std::future::pending::<()>().await })),
    )
    .await;
    let caller = caller(4, None);
    let call = async |path: &str| caller.call(request(format!("{url}{path}?secret=1")), &Endpoint::default()).await;
    for (status, retryable) in
        [(400, false), (401, false), (404, false), (409, false), (408, true), (425, true), (429, true), (500, true), (503, true)]
    {
        let failure = call(&format!("/status/{status}")).await.unwrap_err();
        assert_eq!(failure.retryable, retryable, "{status}");
        assert!(failure.message.contains(&status.to_string()) && failure.message.contains("no such member"), "{failure}");
        assert!(!failure.message.contains("secret"), "{failure}");
    }
    assert_eq!(call("/seconds").await.unwrap_err().retry_after, Some(Duration::from_secs(7)));
    let wait = call("/date").await.unwrap_err().retry_after.unwrap();
    assert!(wait > Duration::from_secs(60) && wait <= Duration::from_secs(120), "{wait:?}");
    assert_eq!(call("/endless").await.unwrap_err().retry_after, Some(MAX_RETRY_AFTER));
    assert!(!call("/moved").await.unwrap_err().retryable);
    assert!(!call("/long").await.unwrap_err().retryable);
    assert!(call("/broken").await.unwrap_err().retryable);
    assert_eq!(call("/text").await.unwrap().body, Value::text("plain"));
    assert_eq!(call("/nothing").await.unwrap().body, Value::Null);
    let mut expected = request(format!("{url}/status/404"));
    expected.expect = vec![200, 404];
    assert_eq!(caller.call(expected, &Endpoint::default()).await.unwrap().status, StatusCode::NOT_FOUND);
    let mut slow = request(format!("{url}/never"));
    slow.timeout = Duration::from_millis(50);
    let failure = caller.call(slow, &Endpoint::default()).await.unwrap_err();
    assert!(failure.retryable && failure.message.contains("took too long"), "{failure}");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(caller.call(request(format!("http://{gone}/")), &Endpoint::default()).await.unwrap_err().retryable);
    assert!(!caller.call(request("not a url".to_owned()), &Endpoint::default()).await.unwrap_err().retryable);
    assert!(!caller.call(request("ftp://127.0.0.1/".to_owned()), &Endpoint::default()).await.unwrap_err().retryable);
}

#[tokio::test]
async fn no_more_calls_at_a_time_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counting, highest) = (now.clone(), most.clone());
    let url = serve(Router::new().route(
        "/",
        any(move || async move {
            highest.fetch_max(counting.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Gives others the time to come in, were they let.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            counting.fetch_sub(1, Ordering::SeqCst);
        }),
    ))
    .await;
    let caller = caller(3, None);
    let plain = Endpoint::default();
    let calls = (0..60).map(|_| caller.call(request(url.clone()), &plain));
    assert!(futures::future::join_all(calls).await.into_iter().all(|answer| answer.is_ok()));
    assert!(most.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn an_open_breaker_lets_calls_wait_and_costs_no_further_ones() {
    let (down, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (state, count) = (down.clone(), asked.clone());
    let url = serve(Router::new().route(
        "/",
        any(move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            if state.load(Ordering::SeqCst) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
        }),
    ))
    .await;
    let caller = caller(8, None);
    let endpoint = Endpoint { breaker: Some(Breaker::new(3, Duration::from_millis(50))), ..Endpoint::default() };
    for _ in 0..3 {
        assert!(caller.call(request(url.clone()), &endpoint).await.unwrap_err().retryable);
    }
    let mut waiting = tokio::task::JoinSet::new();
    let endpoint = Arc::new(endpoint);
    for _ in 0..40 {
        let (caller, endpoint, request) = (caller.clone(), endpoint.clone(), request(url.clone()));
        waiting.spawn(async move { caller.call(request, &endpoint).await });
    }
    let failed = |outcome: Result<_, _>| outcome.unwrap_err();
    for probes in 1..=3 {
        let failure: Failure = failed(waiting.join_next().await.unwrap().unwrap());
        assert!(failure.retryable);
        assert!(asked.load(Ordering::SeqCst) <= 3 + probes + 1, "nothing but probes, one at a time");
    }
    down.store(false, Ordering::SeqCst);
    let outcomes = waiting.join_all().await;
    assert!(outcomes.iter().filter(|outcome| outcome.is_err()).count() <= 1, "{outcomes:?}");
    assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() >= 36, "{outcomes:?}");
}
