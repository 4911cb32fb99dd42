//! Objects one by one and in lists: what is written is read back, what is wrong is told.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Api;

fn sale(store: &str, receipt: &str) -> Value {
    json!({"receipt": receipt, "soldAt": "2026-11-25T10:00:00Z", "total": 12.5, "storeId": store})
}

#[tokio::test]
async fn what_is_written_is_read_back_exactly() {
    let api = Api::start().await;
    let store = api.make("/api/shop/stores", json!({"code": "A1", "openedOn": "1999-12-31", "name": "Ä \"quoted\"\n"})).await;
    let product = api.make("/api/shop/products", json!({"title": "Tea"})).await;
    let id = Uuid::now_v7();
    let body = format!(
        r#"{{"id":"{id}","receipt":"r-1","soldAt":"2026-11-25T05:35:19.12+02:30","total":"1234567890.10","exact":-0.000000000000000000012345678901234567890,
            "paid":true,"points":9223372036854775807,"minPoints":-1,"notes":{{"b":[1.10,null,"x"],"a":1e2}},"signature":"AP8Q","token":"{id}",
            "storeId":"{store}","lines":[{{"productId":"{product}","quantity":2,"price":3}},{{"price":0.5,"quantity":1,"productId":"{product}","note":"last"}}]}}"#
    );
    let made = api.send(Method::POST, "/api/shop/sales", &[], Some(body)).await.expect(201);
    let path = format!("/api/shop/sales/{id}");
    assert_eq!(made.header("location"), path);
    assert_eq!(made.header("etag"), "\"1\"");
    for part in [
        r#""soldAt":"2026-11-25T03:05:19.12Z""#,
        r#""total":1234567890.10"#,
        r#""exact":-0.000000000000000000012345678901234567890"#,
        r#""points":9223372036854775807"#,
        r#""status":"new""#,
        r#""signature":"AP8Q""#,
        r#""notes":{"a": 100, "b": [1.10, null, "x"]}"#,
        r#""price": 3.00"#,
    ] {
        assert!(made.text.contains(part), "{part} in {}", made.text);
    }
    assert_eq!(made.json()["lines"][0]["note"], Value::Null);
    assert_eq!(made.json()["lines"][1]["note"], "last");
    let read = api.get(&path).await.expect(200);
    assert_eq!(read.text, made.text);
    assert_eq!(read.header("etag"), "\"1\"");
    api.send(Method::GET, &path, &[("if-none-match", "\"1\"")], None).await.expect(304);
    api.send(Method::GET, &path, &[("if-none-match", "\"2\"")], None).await.expect(200);
    let fields = api.get(&format!("{path}?fields=total,status")).await.expect(200);
    assert_eq!(fields.text, format!(r#"{{"id":"{id}","total":1234567890.10,"status":"new"}}"#));
    // The same through a list, a stream, and a PUT of what was read.
    assert_eq!(api.get("/api/shop/sales").await.expect(200).text, format!("[{}]", read.text));
    let put = api.send(Method::PUT, &path, &[], Some(read.text.clone())).await.expect(200);
    assert_eq!(put.json()["version"], 2);
    assert_eq!(put.json()["lines"], read.json()["lines"]);
    assert_eq!(put.json()["createdAt"], read.json()["createdAt"]);
    let store = api.get(&format!("/api/shop/stores/{store}")).await.expect(200).json();
    assert_eq!((store["name"].as_str(), store["openedOn"].as_str()), (Some("Ä \"quoted\"\n"), Some("1999-12-31")));
}

#[tokio::test]
async fn all_faults_of_a_body_come_at_once() {
    let api = Api::start().await;
    let body = json!([
        {"receipt": 5, "soldAt": "2026-11-25T10:00:00", "total": 1.005, "status": "old", "unknown": 1, "paid": "yes",
         "lines": [{"quantity": 0, "price": "x"}, 7]},
        5,
        {"receipt": "r", "receipt2": null, "soldAt": null, "total": 99999999999.0, "storeId": "x", "id": "y", "signature": "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
    ]);
    let answer = api.post("/api/shop/sales", &body).await.expect(422);
    assert_eq!(
        answer.pointers(),
        [
            "/0/lines/0/price",
            "/0/lines/0/productId",
            "/0/lines/0/quantity",
            "/0/lines/1",
            "/0/paid",
            "/0/receipt",
            "/0/soldAt",
            "/0/status",
            "/0/storeId",
            "/0/total",
            "/0/unknown",
            "/1",
            "/2/id",
            "/2/receipt2",
            "/2/signature",
            "/2/soldAt",
            "/2/storeId",
            "/2/total",
        ]
    );
    assert_eq!(api.number("SELECT count(*) FROM shop.sale").await, 0);
    let twice = api.send(Method::POST, "/api/shop/products", &[], Some(r#"{"title":"a","title":"b"}"#.to_owned())).await.expect(422);
    assert_eq!(twice.faults(), [("/title".to_owned(), "is given twice".to_owned())]);
    let many: Vec<Value> = (0..1_000).map(|_| json!({})).collect();
    let answer = api.post("/api/shop/products", &Value::Array(many)).await.expect(422);
    assert_eq!(answer.faults().len(), 100);
    assert!(answer.json()["detail"].as_str().unwrap().contains("1000 faults"));
}

#[tokio::test]
async fn changes_respect_what_the_client_has_seen() {
    let api = Api::start().await;
    let id = api.make("/api/shop/stores", json!({"code": "A1", "rank": 5})).await;
    let path = format!("/api/shop/stores/{id}");
    let patched = api.patch(&path, &json!({"rank": null, "name": "One"})).await.expect(200);
    assert_eq!((&patched.json()["version"], &patched.json()["rank"], &patched.json()["code"]), (&json!(2), &Value::Null, &json!("A1")));
    let stale = [("if-match", "\"1\"")];
    let body = Some(json!({"code": "B2"}).to_string());
    api.send(Method::PATCH, &path, &stale, body.clone()).await.expect(412);
    api.send(Method::PUT, &path, &stale, body.clone()).await.expect(412);
    api.send(Method::DELETE, &path, &stale, None).await.expect(412);
    let current = [("if-match", "\"2\"")];
    let put = api.send(Method::PUT, &path, &current, body.clone()).await.expect(200);
    assert_eq!((&put.json()["code"], &put.json()["name"], put.header("etag")), (&json!("B2"), &Value::Null, "\"3\""));
    assert_eq!(api.patch(&path, &json!({})).await.expect(200).json()["version"], 3);
    api.send(Method::PUT, &path, &[("if-none-match", "*")], body.clone()).await.expect(412);
    api.patch(&path, &json!({"code": null})).await.expect(422);
    api.patch(&path, &json!({"id": Uuid::now_v7()})).await.expect(422);
    let minimal = api.send(Method::PATCH, &path, &[("prefer", "return=minimal")], Some(json!({"rank": 7}).to_string())).await.expect(204);
    assert_eq!((minimal.text.as_str(), minimal.header("etag"), minimal.header("preference-applied")), ("", "\"4\"", "return=minimal"));
    api.send(Method::DELETE, &path, &[("if-match", "*")], None).await.expect(204);
    api.get(&path).await.expect(404);
    api.send(Method::DELETE, &path, &[], None).await.expect(404);
    api.patch(&path, &json!({"rank": 1})).await.expect(404);
    api.send(Method::PUT, &path, &[("if-match", "*")], body.clone()).await.expect(412);
    let made = api.send(Method::PUT, &path, &[], body).await.expect(201);
    assert_eq!((made.json()["id"].as_str(), made.header("location")), (Some(id.as_str()), path.as_str()));
}

#[tokio::test]
async fn a_list_is_written_whole_or_not_at_all() {
    let api = Api::start().await;
    let store = api.make("/api/shop/stores", json!({"code": "A1"})).await;
    let sales = |from: usize, to: usize| Value::Array((from..to).map(|n| sale(&store, &format!("r-{n}"))).collect());
    let made = api.post("/api/shop/sales", &sales(0, 3)).await.expect(201).json();
    assert_eq!(made.as_array().unwrap().iter().map(|sale| sale["receipt"].as_str().unwrap()).collect::<Vec<_>>(), ["r-0", "r-1", "r-2"]);
    let bulk =
        api.send(Method::POST, "/api/shop/sales", &[("prefer", "return=minimal")], Some(sales(3, 5_003).to_string())).await.expect(201);
    assert_eq!(bulk.json(), json!({"created": 5000, "updated": 0, "ignored": 0}));
    assert_eq!(api.number("SELECT count(*) FROM shop.sale WHERE lines = '[]' AND status = 'new' AND version = 1").await, 5_003);
    // A row that clashes with an older one, in a COPY and in a short list; then rows that clash with one another.
    for count in [100, 5] {
        let mut list = sales(10_000, 10_000 + count);
        list[3]["receipt"] = json!("r-7");
        let answer = api.post("/api/shop/sales", &list).await.expect(409);
        assert_eq!(answer.pointers(), ["/3/receipt"], "{}", answer.text);
        list[3]["receipt"] = json!("r-10004");
        let answer = api.post("/api/shop/sales", &list).await.expect(409);
        assert!(answer.pointers() == ["/4/receipt"] || answer.pointers() == ["/3/receipt"], "{}", answer.text);
    }
    // After so many refused COPYs every connection still works.
    for _ in 0..20 {
        let mut list = sales(20_000, 20_100);
        list[50]["storeId"] = json!(Uuid::now_v7());
        let answer = api.post("/api/shop/sales", &list).await.expect(422);
        assert_eq!(answer.pointers(), ["/50/storeId"]);
    }
    assert_eq!(api.number("SELECT count(*) FROM shop.sale").await, 5_003);
    api.post("/api/shop/sales", &sales(20_000, 20_100)).await.expect(201);
    assert_eq!(api.post("/api/shop/sales", &json!([])).await.expect(201).json(), json!([]));
}

#[tokio::test]
async fn lists_are_upserted_by_natural_key() {
    let api = Api::start().await;
    let first = api.make("/api/shop/stores", json!({"code": "A1", "name": "One", "rank": 1})).await;
    let list = json!([{"code": "A1", "name": "Uno"}, {"code": "B2"}, {"code": "C3", "rank": 3}]);
    let ignored = api.post("/api/shop/stores?onConflict=ignore", &list).await.expect(201).json();
    assert_eq!((ignored[0]["id"].as_str(), ignored[0]["name"].as_str()), (Some(first.as_str()), Some("One")));
    // Only the members given are changed; a key that is there twice in a list is applied in order.
    let list = json!([{"code": "A1", "name": "Uno"}, {"code": "A1", "rank": 9}, {"code": "D4"}]);
    let updated = api.post("/api/shop/stores?onConflict=update", &list).await.expect(201).json();
    assert_eq!((&updated[1]["id"], &updated[1]["name"], &updated[1]["rank"]), (&json!(first), &json!("Uno"), &json!(9)));
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 4);
    let counts =
        api.send(Method::POST, "/api/shop/stores?onConflict=update", &[("prefer", "return=minimal")], Some(list.to_string())).await;
    assert_eq!(counts.expect(200).json()["updated"], 3 - 1);
    api.post("/api/shop/stores?onConflict=never", &list).await.expect(400);
}

#[tokio::test]
async fn a_list_of_patches_goes_together() {
    let api = Api::start().await;
    let made = api.post("/api/shop/stores", &json!([{"code": "A1"}, {"code": "B2"}, {"code": "C3"}])).await.expect(201).json();
    let id = |at: usize| made[at]["id"].clone();
    let list = json!([{"id": id(2), "rank": 3}, {"id": id(0), "name": "One"}, {"id": id(2), "name": "Three"}]);
    let patched = api.patch("/api/shop/stores", &list).await.expect(200).json();
    assert_eq!((&patched[0]["rank"], &patched[2]["name"], &patched[1]["rank"]), (&json!(3), &json!("Three"), &Value::Null));
    assert_eq!(patched[2]["version"], 3);
    let missing = Uuid::now_v7();
    let answer = api.patch("/api/shop/stores", &json!([{"id": id(1), "rank": 3}, {"id": missing, "rank": 1}])).await.expect(404);
    assert_eq!(answer.pointers(), ["/1/id"]);
    assert_eq!(api.number("SELECT count(*) FROM shop.store WHERE rank = 3").await, 1);
    api.patch("/api/shop/stores", &json!([{"rank": 3}])).await.expect(422);
    api.patch("/api/shop/stores", &json!({"rank": 3})).await.expect(422);
}

#[tokio::test]
async fn what_the_database_refuses_is_told_in_the_model_s_words() {
    let api = Api::start().await;
    let store = api.make("/api/shop/stores", json!({"code": "A1"})).await;
    let answer = api.post("/api/shop/stores", &json!({"code": "A1"})).await.expect(409);
    assert_eq!(answer.pointers(), ["/code"]);
    assert!(answer.json()["detail"].as_str().unwrap().contains("Store"), "{}", answer.text);
    let answer = api.post("/api/shop/stores", &json!({"code": "B2", "id": store})).await.expect(409);
    assert_eq!(answer.pointers(), ["/id"]);
    let answer = api.post("/api/shop/sales", &sale(&Uuid::now_v7().to_string(), "r")).await.expect(422);
    assert_eq!(answer.faults(), [("/storeId".to_owned(), "there is no Store with this id".to_owned())]);
    let mut bad = sale(&store, "r");
    (bad["points"], bad["minPoints"]) = (json!(1), json!(2));
    let answer = api.post("/api/shop/sales", &bad).await.expect(422);
    assert!(answer.json()["detail"].as_str().unwrap().contains("enoughPoints"), "{}", answer.text);
    assert_eq!(answer.pointers(), ["/minPoints", "/points"]);
    let token = Uuid::now_v7();
    let mut one = sale(&store, "r-1");
    one["token"] = json!(token);
    let id = api.make("/api/shop/sales", one.clone()).await;
    one["receipt"] = json!("r-2");
    assert_eq!(api.post("/api/shop/sales", &one).await.expect(409).pointers(), ["/token"]);
    one["token"] = Value::Null;
    let other = api.make("/api/shop/sales", one).await;
    assert_eq!(api.patch(&format!("/api/shop/sales/{other}"), &json!({"token": token})).await.expect(409).pointers(), ["/token"]);
    api.send(Method::DELETE, &format!("/api/shop/stores/{store}"), &[], None).await.expect(409);
    api.send(Method::DELETE, &format!("/api/shop/sales/{id}"), &[], None).await.expect(204);
}

#[tokio::test]
async fn references_from_inside_of_parts_are_checked() {
    let api = Api::start().await;
    let store = api.make("/api/shop/stores", json!({"code": "A1"})).await;
    let product = api.make("/api/shop/products", json!({"title": "Tea"})).await;
    let line = |product: &str| json!({"productId": product, "quantity": 1, "price": 1});
    let missing = Uuid::now_v7().to_string();
    let mut bad = sale(&store, "r-1");
    bad["lines"] = json!([line(&product), line(&missing)]);
    let answer = api.post("/api/shop/sales", &bad).await.expect(422);
    assert_eq!(answer.pointers(), ["/lines/1/productId"]);
    bad["lines"] = json!([line(&product)]);
    let id = api.make("/api/shop/sales", bad).await;
    let answer = api.patch(&format!("/api/shop/sales/{id}"), &json!({"lines": [line(&missing)]})).await.expect(422);
    assert_eq!(answer.pointers(), ["/lines/0/productId"]);
    assert_eq!(api.number("SELECT version FROM shop.sale").await, 1);
}

#[tokio::test]
async fn json_attributes_are_merged_by_patches() {
    let api = Api::start().await;
    let store = api.make("/api/shop/stores", json!({"code": "A1"})).await;
    let mut new = sale(&store, "r");
    new["notes"] = json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
    let path = format!("/api/shop/sales/{}", api.make("/api/shop/sales", new).await);
    let patched = api.patch(&path, &json!({"notes": {"a": {"b": null, "e": 3}, "d": [3]}, "points": 1})).await.expect(200).json();
    assert_eq!((&patched["notes"], &patched["points"]), (&json!({"a": {"c": 2, "e": 3}, "d": [3]}), &json!(1)));
    assert_eq!(api.patch(&path, &json!({"notes": [1]})).await.expect(200).json()["notes"], json!([1]));
    assert_eq!(api.patch(&path, &json!({"notes": {"x": 1, "y": null}})).await.expect(200).json()["notes"], json!({"x": 1}));
    assert_eq!(api.patch(&path, &json!({"notes": null})).await.expect(200).json()["notes"], Value::Null);
}
