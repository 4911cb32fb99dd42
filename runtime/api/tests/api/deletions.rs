//! Lists of objects to be deleted.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Api};

async fn products(api: &Api, count: usize) -> Vec<String> {
    let list = (0..count).map(|n| json!({"title": format!("P{n}")})).collect();
    let made = api.post("/api/shop/products", &Value::Array(list)).await.expect(201).json();
    made.as_array().unwrap().iter().map(|product| product["id"].as_str().unwrap().to_owned()).collect()
}

async fn delete(api: &Api, path: &str, headers: &[(&str, &str)], body: impl ToString) -> Answer {
    api.send(Method::DELETE, path, headers, Some(body.to_string())).await
}

async fn left(api: &Api) -> i64 {
    api.number("SELECT count(*) FROM shop.product").await
}

const PRODUCTS: &str = "/api/shop/products";

#[tokio::test]
async fn a_list_is_deleted_whole_or_not_at_all() {
    let api = Api::start().await;
    let ids = products(&api, 200).await;
    let missing = Uuid::now_v7();
    let answer = delete(&api, PRODUCTS, &[], json!([{"id": ids[0]}, {"id": missing}, {"id": ids[1], "@ifMatch": "*"}])).await.expect(404);
    assert_eq!(answer.pointers(), ["/1/id"]);
    let stale = json!([{"id": ids[0], "@ifMatch": "\"1\""}, {"id": ids[1], "@ifMatch": "\"2\""}]);
    assert_eq!(delete(&api, PRODUCTS, &[], stale).await.expect(412).pointers(), ["/1/@ifMatch"]);
    assert_eq!(left(&api).await, 200);
    let answer =
        delete(&api, PRODUCTS, &[], json!([{"id": ids[0], "@ifMatch": "\"1\""}, {"id": ids[1], "@ifMatch": "*"}, {"id": ids[2]}])).await;
    assert_eq!(answer.expect(200).json(), json!({"deleted": 3}));
    let lines: String = ids[3..100].iter().map(|id| format!("{{\"id\":\"{id}\"}}\n")).collect();
    let answer = delete(&api, PRODUCTS, &[("content-type", "application/x-ndjson")], lines).await;
    assert_eq!(answer.expect(200).json(), json!({"deleted": 97}));
    let table: String = ids[100..].iter().map(|id| format!("{id},1\n")).collect();
    let answer = delete(&api, PRODUCTS, &[("content-type", "text/csv")], format!("id,@ifMatch\n{table}")).await;
    assert_eq!(answer.expect(200).json(), json!({"deleted": 100}));
    assert_eq!(left(&api).await, 0);
    // What is still referred to stays, and so does the rest of the list.
    let made = api.post("/api/shop/stores", &json!([{"code": "A"}, {"code": "B"}])).await.expect(201).json();
    let sale = json!({"receipt": "r", "soldAt": "2026-11-25T10:00:00Z", "total": 1, "storeId": made[1]["id"]});
    api.make("/api/shop/sales", sale).await;
    let stores = json!([{"id": made[0]["id"]}, {"id": made[1]["id"]}]);
    let answer = delete(&api, "/api/shop/stores", &[], &stores).await.expect(409);
    assert_eq!(answer.pointers(), ["/1"]);
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 2);
    let rows = delete(&api, "/api/shop/stores?onError=continue", &[], &stores).await.expect(207).json();
    assert_eq!((&rows[0]["status"], &rows[0]["effect"], &rows[1]["status"]), (&json!(200), &json!("deleted"), &json!(409)), "{rows}");
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 1);
}

#[tokio::test]
async fn nothing_is_deleted_that_is_not_named() {
    let api = Api::start().await;
    let ids = products(&api, 3).await;
    api.send(Method::DELETE, PRODUCTS, &[], None).await.expect(400);
    for (content_type, body, status) in [
        ("application/json", "", 400),
        ("application/json", " ", 400),
        ("application/json", "[]", 422),
        ("application/json", "{}", 422),
        ("application/json", "null", 422),
        ("application/json", "[{}]", 422),
        ("application/json", "[5]", 422),
        ("application/x-ndjson", "", 422),
        ("application/x-ndjson", "\n\n", 422),
        ("text/csv", "", 400),
        ("text/csv", "id\n", 422),
        ("text/csv", "title\nP0\n", 422),
        ("text/plain", "x", 415),
    ] {
        for path in [PRODUCTS, "/api/shop/products?onError=continue"] {
            let answer = delete(&api, path, &[("content-type", content_type)], body).await;
            // Row by row, a row that names nothing fails for itself.
            let rows = answer.status.as_u16() == 207;
            assert!(
                rows && answer.json().as_array().unwrap().iter().all(|row| row["status"] == 422) || answer.status.as_u16() == status,
                "{content_type} {body:?} {path}: {}",
                answer.text
            );
        }
    }
    let one = json!({"id": ids[0]});
    delete(&api, PRODUCTS, &[], &one).await.expect(422);
    let answer = delete(&api, PRODUCTS, &[], json!([one, {"id": ids[1], "title": "P1", "version": 1}, {"title": "P1"}, {"id": "x"}]))
        .await
        .expect(422);
    assert_eq!(answer.pointers(), ["/1/title", "/1/version", "/2/id", "/2/title", "/3/id"]);
    delete(&api, "/api/shop/products?title=P1", &[], json!([one])).await.expect(400);
    delete(&api, "/api/shop/products?onConflict=ignore", &[], json!([one])).await.expect(400);
    assert_eq!(left(&api).await, 3);
    // Who names an object twice learns of it, and nothing is deleted.
    assert_eq!(delete(&api, PRODUCTS, &[], json!([one, one])).await.expect(404).pointers(), ["/1/id"]);
    assert_eq!(left(&api).await, 3);
}

#[tokio::test]
async fn a_list_of_deletions_sent_again_has_one_effect() {
    let api = Api::start().await;
    let ids = products(&api, 4).await;
    let list = json!([{"id": ids[0]}, {"id": ids[1]}]);
    let key = [("idempotency-key", "delete-1")];
    for round in 0..2 {
        let answer = delete(&api, PRODUCTS, &key, &list).await.expect(200);
        assert_eq!(answer.json(), json!({"deleted": 2}));
        assert_eq!(answer.header("idempotent-replayed"), if round == 0 { "" } else { "true" });
    }
    delete(&api, PRODUCTS, &key, json!([{"id": ids[2]}])).await.expect(422);
    let (path, key) = ("/api/shop/products?onError=continue", [("idempotency-key", "delete-2")]);
    let list = json!([{"id": ids[2]}, {"id": ids[0]}]);
    let first = delete(&api, path, &key, &list).await.expect(207).json();
    let again = delete(&api, path, &key, &list).await.expect(207).json();
    assert_eq!((&first[0]["status"], &first[0]["effect"], &first[1]["status"]), (&json!(200), &json!("deleted"), &json!(404)));
    assert_eq!((&again[0], &again[1]["status"]), (&first[0], &json!(404)));
    assert_eq!(left(&api).await, 1);
}
