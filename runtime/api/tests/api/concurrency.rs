//! Requests at the same time.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Api;

#[tokio::test]
async fn a_key_has_one_effect_and_one_answer() {
    let api = Api::start().await;
    let headers = [("idempotency-key", "k-1")];
    let body = Some(json!({"code": "A1"}).to_string());
    let first = api.send(Method::POST, "/api/shop/stores", &headers, body.clone()).await.expect(201);
    let again = api.send(Method::POST, "/api/shop/stores", &headers, body.clone()).await.expect(201);
    assert_eq!(
        (&first.text, first.header("location"), first.header("etag")),
        (&again.text, again.header("location"), again.header("etag"))
    );
    assert_eq!(again.header("idempotent-replayed"), "true");
    let other = api.send(Method::POST, "/api/shop/stores", &headers, Some(json!({"code": "B2"}).to_string())).await.expect(422);
    assert!(other.json()["type"].as_str().unwrap().ends_with("/idempotency-key-reused"));
    api.send(Method::POST, "/api/shop/products", &headers, body).await.expect(422);
    // A request that failed did not use its key.
    let headers = [("idempotency-key", "k-2")];
    api.send(Method::POST, "/api/shop/stores", &headers, Some(json!({"code": "A1"}).to_string())).await.expect(409);
    api.send(Method::POST, "/api/shop/stores", &headers, Some(json!({"code": "B2"}).to_string())).await.expect(201);
    let path = format!("/api/shop/stores/{}", first.json()["id"].as_str().unwrap());
    for _ in 0..2 {
        let patched = api.send(Method::PATCH, &path, &[("idempotency-key", "k-3")], Some(json!({"rank": 2}).to_string())).await.expect(200);
        assert_eq!(patched.json()["version"], 2);
    }
    for _ in 0..2 {
        api.send(Method::DELETE, &path, &[("idempotency-key", "k-4")], None).await.expect(204);
    }
    api.send(Method::DELETE, &path, &[("idempotency-key", "")], None).await.expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_the_same_key_at_once_have_one_effect() {
    let api = Arc::new(Api::start().await);
    let bases = [api.base.clone(), api.another().await];
    let turn = api.make("/api/shop/stores", json!({"code": "TURN", "rank": 1})).await;
    for round in 0..20 {
        let (key, id) = (format!("round-{round}"), Uuid::now_v7());
        let requests = (0..6).map(|n| {
            let (api, base, key, turn) = (api.clone(), bases[n % 2].clone(), key.clone(), turn.clone());
            // Who comes second finds both taken: the code, and the turn.
            let turn_was = if round == 1 { 1 } else { round - 1 };
            let unit = json!({"units": [{"idempotencyKey": key, "operations": [
                {"op": "create", "model": "shop", "entity": "Store", "object": {"id": id, "code": format!("S{round}")}},
                {"op": "patch", "model": "shop", "entity": "Store", "id": turn, "object": {"rank": round + 1}, "if": {"rank": turn_was}},
            ]}]});
            tokio::spawn(async move {
                if round % 2 == 0 {
                    let body = Some(json!({"code": format!("S{round}")}).to_string());
                    api.send_to(&base, Method::POST, "/api/shop/stores", &[("idempotency-key", &key)], body).await.expect(201).json()["id"]
                        .clone()
                } else {
                    let answer =
                        api.send_to(&base, Method::POST, "/api/transactions", &[], Some(unit.to_string())).await.expect(200).json();
                    assert_eq!(answer["units"][0]["status"], 200, "{answer}");
                    answer["units"][0]["results"][0]["id"].clone()
                }
            })
        });
        let ids: Vec<Value> = futures::future::join_all(requests).await.into_iter().map(|id| id.unwrap()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 21);
    assert_eq!(api.number("SELECT version FROM shop.store WHERE code = 'TURN'").await, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_one_another_s_way_all_succeed() {
    let api = Arc::new(Api::start().await);
    let made = api.post("/api/shop/stores", &Value::Array((0..20).map(|n| json!({"code": format!("S{n}"), "rank": 1})).collect())).await;
    let ids: Vec<Value> = made.expect(201).json().as_array().unwrap().iter().map(|store| store["id"].clone()).collect();
    let tasks = (0..8).map(|task| {
        let (api, mut ids) = (api.clone(), ids.clone());
        tokio::spawn(async move {
            if task % 2 == 0 {
                ids.reverse();
            }
            for _ in 0..5 {
                let units: Vec<Value> = ids
                    .chunks(2)
                    .map(|pair| {
                        let operation =
                            |id: &Value| json!({"op": "patch", "model": "shop", "entity": "Store", "id": id, "object": {"name": "x"}});
                        json!({"operations": pair.iter().map(operation).collect::<Vec<_>>()})
                    })
                    .collect();
                let answer = api.post("/api/transactions", &json!({"units": units})).await.expect(200).json();
                assert!(answer["units"].as_array().unwrap().iter().all(|unit| unit["status"] == 200), "{answer}");
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(api.number("SELECT min(version) FROM shop.store").await, 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_database_has_no_time_clients_are_told_to_come_again() {
    let api = Arc::new(Api::start().await);
    api.make("/api/shop/products", json!({"title": "Tea"})).await;
    let mut blocker = api.admin.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE shop.product IN ACCESS EXCLUSIVE MODE").execute(&mut *blocker).await.unwrap();
    let requests: Vec<_> = (0..12)
        .map(|_| {
            let api = api.clone();
            tokio::spawn(async move { api.get("/api/shop/products").await })
        })
        .collect();
    // Those that have no place are sent away; those that have one wait for the table.
    let (mut told, mut waiting) = (0, Vec::new());
    for request in requests {
        waiting.push(request);
    }
    while told == 0 {
        let (answer, _, rest) = futures::future::select_all(waiting).await;
        let answer = answer.unwrap().expect(503);
        assert!(!answer.header("retry-after").is_empty());
        told += 1;
        waiting = rest;
    }
    assert_eq!(api.get("/healthz").await.status.as_u16(), 200);
    blocker.rollback().await.unwrap();
    for request in waiting {
        assert!(matches!(request.await.unwrap().status.as_u16(), 200 | 503));
    }
    api.get("/api/shop/products").await.expect(200);
}

#[tokio::test]
async fn connections_that_break_are_made_again() {
    let api = Api::start().await;
    for round in 0..5 {
        api.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = (SELECT api_role FROM autonomy.platform) AND datname = current_database()",
        )
        .await;
        let headers = [("idempotency-key", format!("k-{round}"))];
        let headers = [(headers[0].0, headers[0].1.as_str())];
        // Sent again until it is done, as clients do; its effect is one.
        while api
            .send(Method::POST, "/api/shop/stores", &headers, Some(json!({"code": format!("S{round}")}).to_string()))
            .await
            .status
            .as_u16()
            != 201
        {}
    }
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 5);
}
