//! Connections whose clients are slow, leave them unused, or are still there when the API stops.

use std::time::Duration;

use autonomy_api::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::support::Api;

const SHORT: Duration = Duration::from_millis(300);
// Nothing that is waited for takes so long, also on a busy machine; all other times of an API are longer.
const LONG: Duration = Duration::from_secs(20);

struct Connection(TcpStream);

impl Connection {
    async fn new(base: &str) -> Self {
        Self(TcpStream::connect(base.trim_start_matches("http://")).await.unwrap())
    }

    async fn with(base: &str, bytes: &str) -> Self {
        let mut connection = Self::new(base).await;
        connection.send(bytes).await;
        connection
    }

    async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    // The head of the next answer, and as much of its body as has come with it.
    async fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains("\r\n\r\n") {
            let read = tokio::time::timeout(LONG, self.0.read_buf(&mut answer)).await.expect("an answer").unwrap();
            assert!(read > 0, "closed");
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    // All that still comes until the server closes the connection, of itself.
    async fn rest(mut self) -> String {
        let mut answer = Vec::new();
        // What the server has not read when it closes makes this an error, behind the answer.
        let _ = tokio::time::timeout(LONG, self.0.read_to_end(&mut answer)).await.expect("closed");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

async fn with(change: impl FnOnce(&mut Options)) -> (Api, String) {
    let api = Api::start().await;
    let base = api.another_as(change).await;
    (api, base)
}

fn store(length: &str, body: &str) -> String {
    format!("POST /api/shop/stores HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\n\r\n{body}")
}

#[tokio::test]
async fn slow_headers_are_cut() {
    let (_api, base) = with(|options| options.header_patience = SHORT).await;
    let begun = "GET /api HTTP/1.1\r\nhost: x\r\n";
    for slow in ["G", begun, &format!("{begun}x-slow: ")] {
        assert_eq!(Connection::with(&base, slow).await.rest().await, "", "{slow}");
    }
    // Bytes that come one by one do not make it longer.
    let mut connection = Connection::with(&base, begun).await;
    let mut sent = 0;
    while connection.0.write_all(b"x").await.is_ok() {
        sent += 1;
        assert!(sent < 200, "it is never cut");
        tokio::time::sleep(SHORT / 6).await;
    }
    // A request before makes no difference.
    let mut connection = Connection::with(&base, &format!("{begun}\r\n")).await;
    assert!(connection.answer().await.starts_with("HTTP/1.1 200 "));
    connection.send(begun).await;
    assert!(!connection.rest().await.contains("HTTP/1.1"));
}

#[tokio::test]
async fn a_connection_may_be_idle_for_longer_than_headers_take() {
    let (_api, base) = with(|options| options.header_patience = SHORT).await;
    let mut connection = Connection::new(&base).await;
    for _ in 0..3 {
        tokio::time::sleep(SHORT * 2).await;
        connection.send("HEAD /api HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(connection.answer().await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    // Long enough that none is closed before it is used.
    let idle = Duration::from_secs(1);
    let (_api, base) = with(|options| options.idle_patience = idle).await;
    assert_eq!(Connection::new(&base).await.rest().await, "");
    let mut connection = Connection::with(&base, "HEAD /api HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(connection.answer().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(connection.rest().await, "");
    // Headers that have begun have their own time.
    let mut connection = Connection::with(&base, "HEAD /api HTTP/1.1\r\n").await;
    tokio::time::sleep(idle * 2).await;
    connection.send("host: x\r\n\r\n").await;
    assert!(connection.answer().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn slow_bodies_are_answered() {
    let (api, base) = with(|options| options.body_patience = SHORT).await;
    let patch =
        "PATCH /api/shop/stores/01900000-0000-7000-8000-000000000001 HTTP/1.1\r\nhost: x\r\ncontent-type: application/json-patch+json";
    // Taken in pieces.
    let list = "POST /api/shop/stores HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\nprefer: return=minimal";
    for slow in [
        store("content-length: 100", "{\"code\":"),
        store("content-length: 100", ""),
        store("transfer-encoding: chunked", "8\r\n{\"code\":\r\n"),
        format!("{patch}\r\ncontent-length: 100\r\n\r\n["),
        format!("{list}\r\ntransfer-encoding: chunked\r\n\r\nf\r\n{{\"code\":\"PIECE\"\r\n"),
    ] {
        let answer = Connection::with(&base, &slow).await.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"), "{slow}: {answer}");
        assert!(answer.contains("https://autonomy.dev/problems/request-timeout"), "{slow}: {answer}");
    }
    let mut connection = Connection::with(&base, &store("content-length: 100", "{\"code\":\"DRIP\",")).await;
    let mut sent = 0;
    while connection.0.write_all(b" ").await.is_ok() && sent < 70 {
        sent += 1;
        tokio::time::sleep(SHORT / 6).await;
    }
    assert!(connection.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 0);
}

#[tokio::test]
async fn a_stop_lets_what_was_begun_be_finished() {
    let api = Api::start().await;
    let stop = CancellationToken::new();
    let (base, ended) = api.another_until(stop.clone(), |_| {}).await;
    let mut idle = Connection::with(&base, "HEAD /api HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(idle.answer().await.starts_with("HTTP/1.1 200 "));
    let mut writing = Connection::with(&base, &store("content-length: 12\r\nexpect: 100-continue", "")).await;
    // Then the request has begun.
    assert!(writing.answer().await.starts_with("HTTP/1.1 100 "));
    stop.cancel();
    assert_eq!(idle.rest().await, "");
    let address = base.trim_start_matches("http://").to_owned();
    while TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!ended.is_finished());
    writing.send("{\"code\":\"A\"}").await;
    let answer = writing.rest().await.to_lowercase();
    assert!(answer.starts_with("http/1.1 201 ") && answer.contains("connection: close"), "{answer}");
    tokio::time::timeout(LONG, ended).await.expect("ended").unwrap().unwrap();
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 1);
}
