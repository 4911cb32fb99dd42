//! JSON Patch on objects: read, patched, checked as a whole, and written where nobody was faster.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Api};

const JSON_PATCH: (&str, &str) = ("content-type", "application/json-patch+json");

async fn json_patch(api: &Api, path: &str, headers: &[(&str, &str)], patch: &Value) -> Answer {
    let headers: Vec<(&str, &str)> = [JSON_PATCH].into_iter().chain(headers.iter().copied()).collect();
    api.send(Method::PATCH, path, &headers, Some(patch.to_string())).await
}

// A sale with two lines; its path and its product.
async fn sale(api: &Api) -> (String, String) {
    let store = api.make("/api/shop/stores", json!({"code": "A1"})).await;
    let product = api.make("/api/shop/products", json!({"title": "Tea"})).await;
    let line = |quantity: i64| json!({"productId": product, "quantity": quantity, "price": "1.50"});
    let body = json!({"receipt": "r-1", "soldAt": "2026-11-25T10:00:00Z", "total": "1234567890.10", "exact": "0.000000000000000000012345678901234567890",
        "storeId": store, "points": 9_007_199_254_740_993_i64, "notes": {"a": {"b": 1}, "list": [1, 2]}, "lines": [line(1), line(2)]});
    (format!("/api/shop/sales/{}", api.make("/api/shop/sales", body).await), product)
}

#[tokio::test]
async fn an_object_is_patched_and_the_rest_stays_exact() {
    let api = Api::start().await;
    let (path, product) = sale(&api).await;
    let before = api.get(&path).await.expect(200).text;
    let patch = json!([
        {"op": "test", "path": "/version", "value": 1},
        {"op": "test", "path": "/total", "value": 1_234_567_890.1},
        {"op": "test", "path": "/status", "value": "new"},
        {"op": "replace", "path": "/status", "value": "accrued"},
        {"op": "add", "path": "/lines/-", "value": {"productId": product, "quantity": 3, "price": 2}},
        {"op": "remove", "path": "/lines/0"},
        {"op": "move", "from": "/notes/list", "path": "/notes/a/list"},
        {"op": "copy", "from": "/notes/a/b", "path": "/notes/c"},
        {"op": "add", "path": "/minPoints", "value": 5},
        {"op": "remove", "path": "/points"},
        {"op": "add", "path": "/points", "value": 7},
    ]);
    let patched = json_patch(&api, &path, &[], &patch).await.expect(200);
    assert_eq!(patched.header("etag"), "\"2\"");
    let json = patched.json();
    assert_eq!((&json["status"], &json["points"], &json["minPoints"]), (&json!("accrued"), &json!(7), &json!(5)));
    assert_eq!(json["lines"].as_array().unwrap().iter().map(|line| line["quantity"].as_i64().unwrap()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(json["notes"], json!({"a": {"b": 1, "list": [1, 2]}, "c": 1}));
    for exact in [r#""total":1234567890.10"#, r#""exact":0.000000000000000000012345678901234567890"#] {
        assert!(before.contains(exact) && patched.text.contains(exact), "{}", patched.text);
    }
    assert_eq!(api.get(&path).await.expect(200).text, patched.text);
    // What is removed is as if a PUT did not give it: null, or its default.
    let removed = json!([{"op": "remove", "path": "/status"}, {"op": "remove", "path": "/notes"}, {"op": "remove", "path": "/lines"}]);
    let json = json_patch(&api, &path, &[], &removed).await.expect(200).json();
    assert_eq!((&json["status"], &json["notes"], &json["lines"], &json["version"]), (&json!("new"), &Value::Null, &json!([]), &json!(3)));
    let minimal =
        json_patch(&api, &path, &[("prefer", "return=minimal")], &json!([{"op": "replace", "path": "/paid", "value": true}])).await;
    assert_eq!(minimal.expect(204).header("etag"), "\"4\"");
    // A patch that changes nothing makes no version.
    for same in [
        json!([]),
        json!([{"op": "test", "path": "/paid", "value": true}]),
        json!([{"op": "replace", "path": "/total", "value": 1_234_567_890.100}]),
    ] {
        let answer = json_patch(&api, &path, &[], &same).await.expect(200);
        assert_eq!((answer.header("etag"), answer.json()["version"].as_i64()), ("\"4\"", Some(4)), "{same}");
    }
    // The whole object, as a PUT.
    let whole = json!([{"op": "test", "path": "/paid", "value": true}, {"op": "replace", "path": "", "value": {
        "receipt": "r-2", "soldAt": "2026-11-25T10:00:00Z", "total": 1, "storeId": json["storeId"]}}]);
    let json = json_patch(&api, &path, &[], &whole).await.expect(200).json();
    assert_eq!((&json["receipt"], &json["paid"], &json["version"]), (&json!("r-2"), &json!(false), &json!(5)));
}

#[tokio::test]
async fn what_can_not_be_patched_changes_nothing() {
    let api = Api::start().await;
    let (path, _) = sale(&api).await;
    let good = json!({"op": "replace", "path": "/paid", "value": true});
    let with = |operation: Value| json!([good, operation]);
    for (operation, status, pointer) in [
        (json!({"op": "test", "path": "/total", "value": 1}), 409, "/1/path"),
        (json!({"op": "test", "path": "/total", "value": "1234567890.10"}), 409, "/1/path"),
        (json!({"op": "remove", "path": "/lines/2"}), 422, "/1/path"),
        (json!({"op": "replace", "path": "/notes/x", "value": 1}), 422, "/1/path"),
        (json!({"op": "copy", "from": "/nothing", "path": "/points"}), 422, "/1/from"),
    ] {
        assert_eq!(json_patch(&api, &path, &[], &with(operation)).await.expect(status).pointers(), [pointer]);
    }
    let own = json!([
        {"op": "replace", "path": "/version", "value": 7}, {"op": "remove", "path": "/createdAt"}, {"op": "move", "from": "/updatedAt", "path": "/notes"},
        {"op": "add", "path": "/id", "value": Uuid::now_v7()}, {"op": "nonsense", "path": "/paid"},
    ]);
    let answer = json_patch(&api, &path, &[], &own).await.expect(422);
    assert_eq!(answer.pointers(), ["/0/path", "/1/path", "/2/from", "/3/path", "/4/op"]);
    let other = json!([{"op": "add", "path": "", "value": {"id": Uuid::now_v7()}}]);
    let answer = json_patch(&api, &path, &[], &other).await.expect(422);
    assert_eq!(answer.pointers(), ["/id", "/receipt", "/soldAt", "/storeId", "/total"]);
    // What comes out is checked as a whole, with pointers into the object.
    let invalid = json!([
        {"op": "remove", "path": "/receipt"}, {"op": "replace", "path": "/total", "value": 1.005}, {"op": "add", "path": "/unknown", "value": 1},
        {"op": "replace", "path": "/lines/1/quantity", "value": 0}, {"op": "remove", "path": "/lines/0/productId"}, {"op": "replace", "path": "/status", "value": "old"},
    ]);
    let answer = json_patch(&api, &path, &[], &invalid).await.expect(422);
    assert_eq!(answer.pointers(), ["/lines/0/productId", "/lines/1/quantity", "/receipt", "/status", "/total", "/unknown"]);
    assert!(answer.json()["detail"].as_str().unwrap().contains("after the patch"), "{}", answer.text);
    let missing = json!([{"op": "replace", "path": "/lines/0/productId", "value": Uuid::now_v7()}]);
    assert_eq!(json_patch(&api, &path, &[], &missing).await.expect(422).pointers(), ["/lines/0/productId"]);
    let reference = json!([{"op": "replace", "path": "/storeId", "value": Uuid::now_v7()}]);
    assert_eq!(json_patch(&api, &path, &[], &reference).await.expect(422).pointers(), ["/storeId"]);
    let twice = vec![good.clone(); 1_001];
    json_patch(&api, &path, &[], &Value::Array(twice)).await.expect(422);
    json_patch(&api, &path, &[], &json!({"paid": true})).await.expect(422);
    json_patch(&api, &format!("{path}?onError=continue"), &[], &json!([good])).await.expect(400);
    json_patch(&api, &path, &[("if-none-match", "*")], &json!([good])).await.expect(400);
    for body in ["", "[", "[{\"op\":]", "\u{0}"] {
        api.send(Method::PATCH, &path, &[JSON_PATCH], Some(body.to_owned())).await.expect(400);
    }
    json_patch(&api, &format!("/api/shop/sales/{}", Uuid::now_v7()), &[], &json!([good])).await.expect(404);
    json_patch(&api, "/api/shop/sales", &[], &json!([good])).await.expect(415);
    assert_eq!(api.number("SELECT version FROM shop.sale").await, 1);
}

#[tokio::test]
async fn what_the_client_has_seen_comes_before_the_patch() {
    let api = Api::start().await;
    let (path, _) = sale(&api).await;
    let patch = json!([{"op": "test", "path": "/paid", "value": false}, {"op": "replace", "path": "/paid", "value": true}]);
    assert_eq!(json_patch(&api, &path, &[("if-match", "\"2\"")], &patch).await.expect(412).pointers(), ["If-Match"]);
    json_patch(&api, &path, &[("if-match", "nonsense")], &patch).await.expect(412);
    json_patch(&api, &path, &[("if-match", "\"1\"")], &patch).await.expect(200);
    // The version is another by now: that is told, and not that the test fails.
    json_patch(&api, &path, &[("if-match", "\"1\"")], &patch).await.expect(412);
    json_patch(&api, &path, &[("if-match", "\"2\"")], &patch).await.expect(409);
    json_patch(&api, &path, &[("if-match", "*")], &json!([{"op": "replace", "path": "/paid", "value": false}])).await.expect(200);
    assert_eq!(api.number("SELECT version FROM shop.sale").await, 3);
}

#[tokio::test]
async fn a_replay_gives_the_first_answer_though_the_object_has_changed() {
    let api = Api::start().await;
    let (path, _) = sale(&api).await;
    let key = [("idempotency-key", "patch-1")];
    let patch = json!([{"op": "test", "path": "/status", "value": "new"}, {"op": "replace", "path": "/status", "value": "accrued"}]);
    let first = json_patch(&api, &path, &key, &patch).await.expect(200);
    assert_eq!(first.header("idempotent-replayed"), "");
    // Without the key the test fails by now.
    json_patch(&api, &path, &[], &patch).await.expect(409);
    api.patch(&path, &json!({"status": "invoiced", "points": 8})).await.expect(200);
    for _ in 0..2 {
        let again = json_patch(&api, &path, &key, &patch).await.expect(200);
        assert_eq!((&again.text, again.header("etag")), (&first.text, first.header("etag")));
        assert_eq!(again.header("idempotent-replayed"), "true");
    }
    assert_eq!(api.number("SELECT version FROM shop.sale").await, 3);
    let other = json_patch(&api, &path, &key, &json!([{"op": "replace", "path": "/status", "value": "new"}])).await.expect(422);
    assert!(other.json()["type"].as_str().unwrap().ends_with("/idempotency-key-reused"));
    api.send(Method::DELETE, &path, &[], None).await.expect(204);
    assert_eq!(json_patch(&api, &path, &key, &patch).await.expect(200).text, first.text);
    // A patch that failed did not use its key, and one that changes nothing keeps its answer too.
    let (path, key) = (
        format!("/api/shop/stores/{}", api.make("/api/shop/stores", json!({"code": "B2", "rank": 1})).await),
        [("idempotency-key", "patch-2")],
    );
    let body = json!([{"op": "test", "path": "/rank", "value": 1}]);
    json_patch(&api, &path, &key, &json!([{"op": "test", "path": "/rank", "value": 2}])).await.expect(409);
    json_patch(&api, &path, &key, &body).await.expect(200);
    api.patch(&path, &json!({"rank": 5})).await.expect(200);
    assert_eq!(json_patch(&api, &path, &key, &body).await.expect(200).json()["rank"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_that_meet_are_all_applied() {
    let api = Arc::new(Api::start().await);
    let (path, product) = sale(&api).await;
    let others = [api.base.clone(), api.another().await];
    let line =
        |quantity: i64| json!([{"op": "add", "path": "/lines/-", "value": {"productId": product, "quantity": quantity, "price": 1}}]);
    let tasks = (0..5_usize).map(|task| {
        let (api, path, patch, base) = (api.clone(), path.clone(), line(task as i64 + 10), others[task % 2].clone());
        tokio::spawn(async move { api.send_to(&base, Method::PATCH, &path, &[JSON_PATCH], Some(patch.to_string())).await.expect(200) })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
    let json = api.get(&path).await.expect(200).json();
    let mut quantities: Vec<i64> = json["lines"].as_array().unwrap().iter().map(|line| line["quantity"].as_i64().unwrap()).collect();
    quantities.sort_unstable();
    assert_eq!((quantities, json["version"].as_i64()), (vec![1, 2, 10, 11, 12, 13, 14], Some(6)));
    // Of those that have seen the same version one comes first; with the same key all are the same.
    for (round, header) in [("if-match", "\"6\""), ("idempotency-key", "same")].into_iter().enumerate() {
        let tasks = (0..5).map(|task| {
            let value = if round == 0 { task } else { 50 };
            let (api, path, patch) = (api.clone(), path.clone(), json!([{"op": "replace", "path": "/points", "value": value}]));
            tokio::spawn(async move { json_patch(&api, &path, &[header], &patch).await.status.as_u16() })
        });
        let mut statuses: Vec<u16> = futures::future::join_all(tasks).await.into_iter().map(|status| status.unwrap()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, if round == 0 { [200, 412, 412, 412, 412] } else { [200; 5] });
        assert_eq!(api.number("SELECT version FROM shop.sale").await, 7 + round as i64);
    }
}

#[tokio::test]
async fn the_description_says_what_is_never_taken() {
    let api = Api::start().await;
    let (path, _) = sale(&api).await;
    let document = api.get("/api/shop/openapi.json").await.expect(200).json();
    let operations = document["components"]["schemas"]["JsonPatch"]["items"]["oneOf"].as_array().unwrap();
    let remove = operations.iter().find(|operation| operation["properties"]["op"]["enum"] == json!(["remove"])).unwrap();
    assert_eq!(remove["properties"]["path"]["pattern"], "^/");
    assert_eq!(json_patch(&api, &path, &[], &json!([{"op": "remove", "path": ""}])).await.expect(422).pointers(), ["/0/path"]);
    // An ETag is what GET answers: parsing a number would take more.
    let tag = &document["components"]["schemas"]["Deletion"]["properties"]["@ifMatch"]["pattern"];
    assert_eq!(tag, "^(\\*|\"[0-9]{1,18}\")$");
    for unfit in ["\"+1\"", "1", "\"1", "\"99999999999999999999\""] {
        let list = json!([{"id": path.rsplit('/').next(), "@ifMatch": unfit}]);
        let answer = api.send(Method::DELETE, "/api/shop/sales", &[], Some(list.to_string())).await.expect(422);
        assert_eq!(answer.pointers(), ["/0/@ifMatch"], "{unfit}");
    }
}
