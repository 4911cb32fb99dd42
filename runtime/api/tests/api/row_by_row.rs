//! Lists of which each object succeeds or fails for itself: `onError=continue`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Api;

fn statuses(rows: &Value) -> Vec<u64> {
    rows.as_array().unwrap().iter().map(|row| row["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn each_row_is_answered_for_itself() {
    let api = Api::start().await;
    api.make("/api/shop/stores", json!({"code": "A"})).await;
    let list = json!([{"code": "B", "rank": 1}, {"code": "A"}, {"code": "C", "rank": 500}, 5, {"code": "D"}, {"code": "B"}]);
    let answer = api.post("/api/shop/stores?onError=continue", &list).await.expect(207);
    let rows = answer.json();
    assert_eq!(statuses(&rows), [201, 409, 422, 422, 201, 409], "{rows}");
    assert_eq!((&rows[0]["effect"], &rows[0]["version"]), (&json!("created"), &json!(1)));
    let id = rows[0]["id"].as_str().unwrap();
    assert_eq!(api.get(&format!("/api/shop/stores/{id}")).await.expect(200).json()["code"], "B");
    assert_eq!(rows[2]["problem"]["errors"][0]["pointer"], "/2/rank");
    assert_eq!(rows[3]["problem"]["errors"][0]["pointer"], "/3");
    assert_eq!(rows[1]["problem"]["status"], 409);
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 3);

    let upsert = json!([{"code": "A", "rank": 9}, {"code": "E"}, {"code": "low"}]);
    let rows = api.post("/api/shop/stores?onError=continue&onConflict=update", &upsert).await.expect(207).json();
    assert_eq!(statuses(&rows), [200, 201, 422]);
    assert_eq!(rows[0]["effect"], "updated");
}

#[tokio::test]
async fn many_faults_and_patches_and_tables_too() {
    let api = Api::start().await;
    let list: Vec<Value> = (0..1000).map(|n| json!({"code": format!("S{n}"), "rank": if n % 2 == 0 { 0 } else { 1 }})).collect();
    let rows = api.post("/api/shop/stores?onError=continue", &Value::Array(list)).await.expect(207).json();
    assert_eq!(statuses(&rows).into_iter().filter(|status| *status == 201).count(), 500);
    assert!(rows.as_array().unwrap().iter().enumerate().all(|(n, row)| (row["status"] == 422) == (n % 2 == 0)));
    let patch = format!("id,rank\n{},7\n01a21512-2fea-7389-8410-ec50c23dc5d8,8\n", rows[1]["id"].as_str().unwrap());
    let answer =
        api.send(Method::PATCH, "/api/shop/stores?onError=continue", &[("content-type", "text/csv")], Some(patch)).await.expect(207);
    assert_eq!(statuses(&answer.json()), [200, 404]);
    assert_eq!(answer.json()[1]["problem"]["errors"][0]["pointer"], "/1/id");
    assert_eq!(api.get("/api/shop/stores?rank=7&count=true").await.expect(200).header("x-total-count"), "1");
    assert_eq!(api.post("/api/shop/stores?onError=continue", &json!([])).await.expect(207).text, "[]");
    api.post("/api/shop/stores?onError=continue", &json!({"code": "X"})).await.expect(422);
    api.post("/api/shop/stores?onError=maybe", &json!([])).await.expect(400);
}

#[tokio::test]
async fn a_replay_gives_each_row_its_first_answer() {
    let api = Api::start().await;
    let key = [("idempotency-key", "k1")];
    let list = json!([{"code": "A"}, {"code": "B", "rank": 500}, {"code": "C"}]).to_string();
    let path = "/api/shop/stores?onError=continue";
    let first = api.send(Method::POST, path, &key, Some(list.clone())).await.expect(207).json();
    let again = api.send(Method::POST, path, &key, Some(list.clone())).await.expect(207).json();
    assert_eq!((&again[0], &again[2]), (&first[0], &first[2]));
    assert_eq!(statuses(&again), [201, 422, 201]);
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 2);
    let other = api.send(Method::POST, path, &key, Some(list.replace("\"C\"", "\"D\""))).await.expect(207).json();
    assert_eq!(statuses(&other), [422, 422, 422], "the key is another request's");
}
