//! Lists of new objects larger than what is held in memory: written piece by piece, all or nothing.

use futures::stream;
use reqwest::{Body, Client, Method, StatusCode};
use serde_json::json;

use crate::support::{Answer, Api};

const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";
// More than the API holds of a body in these tests, and many pieces.
const SALES: usize = 40_000;

// Sends a body in chunks whose ends fall anywhere, its length not declared.
async fn post(api: &Api, path: &str, media_type: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> = body.as_bytes().chunks(65_521).map(|chunk| Ok(chunk.to_vec())).collect();
    let mut request = autonomy_process::http_client::new().post(format!("{}{path}", api.base)).header("content-type", media_type);
    request = request.header("prefer", "return=minimal");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.body(Body::wrap_stream(stream::iter(chunks))).send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, text: response.text().await.expect("a whole answer") }
}

async fn store_and_product(api: &Api) -> (String, String) {
    let store = api.make("/api/shop/stores", json!({"code": "A"})).await;
    (store, api.make("/api/shop/products", json!({"title": "T"})).await)
}

fn line(number: usize, store: &str, product: &str) -> String {
    let line = json!({"receipt": format!("R{number}"), "soldAt": "2026-11-25T10:00:00Z", "total": number, "storeId": store, "notes": {"text": "a\nb"},
        "lines": [{"quantity": 1, "price": 1.5, "productId": product}]});
    format!("{line}\n")
}

fn lines(store: &str, product: &str) -> Vec<String> {
    (0..SALES).map(|number| line(number, store, product)).collect()
}

#[tokio::test]
async fn a_large_list_of_lines_is_written_whole() {
    let api = Api::start().await;
    let (store, product) = store_and_product(&api).await;
    let body = lines(&store, &product).concat();
    let key = [("idempotency-key", "large")];
    let answer = post(&api, "/api/shop/sales", NDJSON, &key, &body).await.expect(201);
    assert_eq!(answer.json(), json!({"created": SALES, "updated": 0, "ignored": 0}));
    assert_eq!(answer.header("preference-applied"), "return=minimal");
    assert_eq!(api.number("SELECT count(*) FROM shop.sale").await, SALES as i64);
    assert_eq!(api.number("SELECT sum(total)::bigint FROM shop.sale").await, (0..SALES as i64).sum::<i64>());

    let again = post(&api, "/api/shop/sales", NDJSON, &key, &body).await.expect(201);
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.text, answer.text);
    let other = post(&api, "/api/shop/sales", NDJSON, &key, &format!("{body}{}", line(SALES, &store, &product))).await.expect(422);
    assert!(other.json()["type"].as_str().unwrap().ends_with("/idempotency-key-reused"));
    assert_eq!(api.number("SELECT count(*) FROM shop.sale").await, SALES as i64);
}

#[tokio::test]
async fn a_fault_in_a_late_piece_undoes_all() {
    let api = Api::start().await;
    let (store, product) = store_and_product(&api).await;
    let late = SALES - 10;
    let with = |wrong: String| {
        let mut lines = lines(&store, &product);
        lines[late] = wrong;
        lines.concat()
    };
    let cases = [
        (line(late, &store, &product).replace("\"total\":", "\"total\":\"x\",\"paid\":"), 422, format!("/{late}/paid")),
        (line(1, &store, &product), 409, format!("/{late}/receipt")),
        (line(late, "0190a0a0-0000-7000-8000-000000000000", &product), 422, format!("/{late}/storeId")),
        (line(late, &store, "0190a0a0-0000-7000-8000-000000000000"), 422, format!("/{late}/lines/0/productId")),
    ];
    for (wrong, status, pointer) in cases {
        let answer = post(&api, "/api/shop/sales", NDJSON, &[("idempotency-key", "faulty")], &with(wrong)).await.expect(status);
        assert!(answer.pointers().contains(&pointer), "{pointer} is not in {:?}", answer.faults());
        assert_eq!(api.number("SELECT count(*) FROM shop.sale").await, 0);
        assert_eq!(api.number("SELECT count(*) FROM autonomy.idempotency").await, 0);
    }
    let answer = post(&api, "/api/shop/sales", NDJSON, &[], &with("{\"receipt\":\n".to_owned())).await.expect(400);
    assert!(answer.json()["detail"].as_str().unwrap().contains(&format!("Line {} ", late + 1)), "{}", answer.text);
    // Connections whose COPY was refused are gone, and the others are as good as before.
    post(&api, "/api/shop/sales", NDJSON, &[("idempotency-key", "faulty")], &lines(&store, &product).concat()).await.expect(201);
}

#[tokio::test]
async fn a_large_table_may_have_line_breaks_in_its_cells() {
    let api = Api::start().await;
    let row = |number: usize| format!("S{number},\"a \"\"store\"\"\nwith, a line {}\"\n", "x".repeat(200));
    let body = format!("code,name\n{}", (0..20_000).map(row).collect::<String>());
    let answer = post(&api, "/api/shop/stores", CSV, &[], &body).await.expect(201);
    assert_eq!(answer.json()["created"], 20_000);
    assert_eq!(api.number("SELECT count(*) FROM shop.store WHERE name LIKE E'a \"store\"\\nwith, a line x%'").await, 20_000);
    let answer = post(&api, "/api/shop/stores?onConflict=update", CSV, &[], &body.replace("a line", "a new line")).await.expect(200);
    assert_eq!(answer.json(), json!({"created": 0, "updated": 20_000, "ignored": 0}));
    let answer = post(&api, "/api/shop/stores?onConflict=ignore", CSV, &[], &format!("{body}SNEW,new\n")).await.expect(201);
    assert_eq!(answer.json(), json!({"created": 1, "updated": 0, "ignored": 20_000}));
    let answer = post(&api, "/api/shop/stores", CSV, &[], &format!("{body}one cell\n")).await.expect(400);
    assert!(answer.json()["detail"].as_str().unwrap().contains("at line 40002"), "{}", answer.text);
}

#[tokio::test]
async fn a_body_that_ends_before_its_end_leaves_nothing() {
    let api = Api::start().await;
    let (store, product) = store_and_product(&api).await;
    let mut chunks: Vec<Result<String, std::io::Error>> = lines(&store, &product).into_iter().map(Ok).collect();
    chunks.push(Err(std::io::Error::other("the client dies")));
    let request = autonomy_process::http_client::new()
        .post(format!("{}/api/shop/sales", api.base))
        .header("content-type", NDJSON)
        .header("prefer", "return=minimal");
    assert!(request.body(Body::wrap_stream(stream::iter(chunks))).send().await.is_err());
    // The transaction is undone when the API sees it; until then it holds the table's lock.
    api.execute("LOCK TABLE shop.sale IN ACCESS EXCLUSIVE MODE").await;
    assert_eq!(api.number("SELECT count(*) FROM shop.sale").await, 0);
}

#[tokio::test]
async fn an_object_that_is_too_large_is_refused() {
    let api = Api::start().await;
    let body = format!("{{\"code\":\"A\",\"name\":\"{}\"}}\n", "x".repeat(9 << 20));
    let answer = post(&api, "/api/shop/stores", NDJSON, &[], &body).await.expect(413);
    assert!(answer.json()["detail"].as_str().unwrap().contains("An object"));
    let path = "/api/shop/stores";
    let answer = api.send(Method::POST, path, &[("content-type", NDJSON)], Some(body)).await.expect(413);
    assert!(answer.json()["detail"].as_str().unwrap().contains("return=minimal"), "{}", answer.text);
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let answer = post(&api, "/api/shop/stores?onError=continue", NDJSON, &[], "{}\n").await.expect(413);
    assert!(answer.json()["detail"].as_str().unwrap().contains("onError=continue"));
}
