//! NDJSON and CSV, both ways.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Api};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const CSV: (&str, &str) = ("content-type", "text/csv; charset=utf-8");

async fn sales(api: &Api) -> Value {
    let store = api.make("/api/shop/stores", json!({"code": "A", "name": "one, \"two\"\nthree"})).await;
    let product = api.make("/api/shop/products", json!({"title": "T"})).await;
    let list = json!([
        {"receipt": "1", "soldAt": "2026-11-25T10:00:00.123Z", "total": "12345678.90", "exact": "0.1000", "paid": true, "points": 9_007_199_254_740_993_i64,
         "notes": {"a": [1, "x,y"]}, "signature": "AP8Q", "storeId": store, "lines": [{"quantity": 1, "price": "2.50", "productId": product}]},
        {"receipt": "2", "soldAt": "2026-11-25T10:00:00Z", "total": 0, "storeId": store},
    ]);
    api.post("/api/shop/sales", &list).await.expect(201);
    api.get("/api/shop/sales?sort=receipt").await.expect(200).json()
}

async fn listed(api: &Api, path: &str, accept: &str) -> Answer {
    let answer = api.send(Method::GET, path, &[("accept", accept)], None).await.expect(200);
    assert_eq!(answer.header("content-type"), accept.split(';').next().unwrap());
    answer
}

fn without_times(mut objects: Value) -> Value {
    for object in objects.as_array_mut().unwrap() {
        for member in ["createdAt", "updatedAt", "version"] {
            object.as_object_mut().unwrap().remove(member);
        }
    }
    objects
}

#[tokio::test]
async fn what_is_read_as_csv_or_ndjson_is_written_back_the_same() {
    let api = Api::start().await;
    let before = sales(&api).await;
    for (media, header) in [("text/csv", CSV), ("application/x-ndjson", NDJSON)] {
        let stores = listed(&api, "/api/shop/stores?sort=code", media).await.text;
        let text = listed(&api, "/api/shop/sales?sort=receipt", media).await.text;
        api.execute("DELETE FROM shop.sale; DELETE FROM shop.store").await;
        api.send(Method::POST, "/api/shop/stores", &[header], Some(stores)).await.expect(201);
        let answer = api.send(Method::POST, "/api/shop/sales", &[header], Some(text)).await.expect(201);
        assert_eq!(answer.json().as_array().unwrap().len(), 2);
        let after = api.get("/api/shop/sales?sort=receipt").await.expect(200).json();
        assert_eq!(without_times(after), without_times(before.clone()), "{media}");
    }
    assert_eq!(api.get("/api/shop/stores").await.expect(200).json()[0]["name"], "one, \"two\"\nthree");
}

#[tokio::test]
async fn csv_has_a_heading_and_bare_values() {
    let api = Api::start().await;
    sales(&api).await;
    let text = listed(&api, "/api/shop/sales?sort=receipt&fields=receipt,soldAt,total,paid,points,signature", "text/csv").await.text;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "id,receipt,soldAt,total,paid,points,signature");
    assert!(lines[1].ends_with(",1,2026-11-25T10:00:00.123Z,12345678.90,true,9007199254740993,AP8Q"), "{}", lines[1]);
    assert!(lines[2].ends_with(",2,2026-11-25T10:00:00Z,0.00,false,,"), "{}", lines[2]);
    let text = listed(&api, "/api/shop/sales?sort=receipt&fields=receipt&embed=store", "text/csv").await.text;
    assert!(text.starts_with("id,receipt,store.id,store.version,store.createdAt,store.updatedAt,store.code,store.name"), "{text}");
    assert!(text.contains(",A,\"one, \"\"two\"\"\nthree\""), "{text}");
    assert_eq!(listed(&api, "/api/shop/products?title=none&fields=title", "text/csv").await.text, "id,title\n");
}

#[tokio::test]
async fn faults_are_told_by_row_and_member() {
    let api = Api::start().await;
    let csv = "code,rank,name\nA,1,x\nlower,many,\nB,200,\n";
    let answer = api.send(Method::POST, "/api/shop/stores", &[CSV], Some(csv.to_owned())).await.expect(422);
    assert_eq!(answer.pointers(), ["/1/code", "/1/rank", "/2/rank"]);
    let lines = "{\"code\": \"A\"}\n\n{\"code\": 5, \"no\": 1}\n";
    let answer = api.send(Method::POST, "/api/shop/stores", &[NDJSON], Some(lines.to_owned())).await.expect(422);
    assert_eq!(answer.pointers(), ["/1/code", "/1/no"]);
    for (header, body, told) in [
        (CSV, "", "heading"),
        (CSV, "code,no\nA,1\n", "\"no\""),
        (CSV, "code,code\nA,B\n", "twice"),
        (CSV, "code,rank\nA\n", "1 cells"),
        (NDJSON, "{\"code\": \"A\"}\n{\"code\": \n", "Line 2"),
    ] {
        let answer = api.send(Method::POST, "/api/shop/stores", &[header], Some(body.to_owned())).await.expect(400);
        assert!(answer.json()["detail"].as_str().unwrap().contains(told), "{}", answer.text);
    }
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 0);
}

#[tokio::test]
async fn tables_upsert_and_patch() {
    let api = Api::start().await;
    api.send(Method::POST, "/api/shop/stores", &[CSV], Some("code,name,rank\nA,one,1\nB,two,2\n".to_owned())).await.expect(201);
    api.send(Method::POST, "/api/shop/stores?onConflict=update", &[CSV], Some("code,rank\nA,5\nC,7\n".to_owned())).await.expect(201);
    let text = listed(&api, "/api/shop/stores?sort=code&fields=code,name,rank", "text/csv").await.text;
    let without_id = |text: &str| text.lines().map(|line| line.split_once(',').unwrap().1.to_owned()).collect::<Vec<_>>();
    assert_eq!(without_id(&text), ["code,name,rank", "A,one,5", "B,two,2", "C,,7"]);
    let patch = text.lines().map(|line| line.replace("two", "2nd")).collect::<Vec<_>>().join("\n");
    api.send(Method::PATCH, "/api/shop/stores", &[CSV], Some(patch)).await.expect(200);
    assert_eq!(api.get("/api/shop/stores?code=B").await.expect(200).json()[0]["name"], "2nd");
}
