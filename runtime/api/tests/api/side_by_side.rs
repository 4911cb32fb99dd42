//! Requests of one object each that come side by side: done together, answered one by one.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Api};

async fn all<F: Future<Output = Answer> + Send + 'static>(requests: impl Iterator<Item = F>) -> Vec<Answer> {
    let tasks: Vec<_> = requests.map(tokio::spawn).collect();
    futures::future::join_all(tasks).await.into_iter().map(|answer| answer.unwrap()).collect()
}

async fn stores(api: &Api, count: usize) -> Vec<Value> {
    let list = Value::Array((0..count).map(|n| json!({"code": format!("S{n}"), "rank": 1})).collect());
    api.post("/api/shop/stores", &list).await.expect(201).json().as_array().unwrap().clone()
}

fn path(store: &Value) -> String {
    format!("/api/shop/stores/{}", store["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn new_objects_share_transactions_and_each_has_its_own_answer() {
    let api = Arc::new(Api::start().await);
    let request = |n: usize| {
        let api = api.clone();
        // Every tenth is refused by the database's limits, every tenth has a key that is taken.
        let body = match n % 10 {
            3 => json!({"code": format!("S{n}"), "rank": 5000}),
            7 => json!({"code": "TAKEN"}),
            _ => json!({"code": format!("S{n}"), "name": format!("store {n}")}),
        };
        let trace = format!("00-4bf92f3577b34da6a3ce929d0e0e{n:04x}-00f067aa0ba902b7-01");
        async move { api.send(Method::POST, "/api/shop/stores", &[("traceparent", &trace)], Some(body.to_string())).await }
    };
    let answers = all((0..300).map(request)).await;
    let mut taken = 0;
    for (n, answer) in answers.into_iter().enumerate() {
        match n % 10 {
            3 => assert_eq!(answer.expect(422).pointers(), ["/rank"]),
            7 if answer.status == 201 => taken += 1,
            7 => assert_eq!(answer.expect(409).pointers(), ["/code"]),
            _ => {
                let answer = answer.expect(201);
                let made = answer.json();
                assert_eq!((&made["code"], &made["name"]), (&json!(format!("S{n}")), &json!(format!("store {n}"))));
                assert_eq!(answer.header("location"), path(&made));
                assert_eq!(answer.header("etag"), "\"1\"");
            }
        }
    }
    assert_eq!(taken, 1);
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 241);
    let transactions = api.number("SELECT count(DISTINCT xmin::text) FROM shop.store").await;
    assert!(transactions < 241, "{transactions} transactions");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_lock_holds_up_nobody_else() {
    let api = Arc::new(Api::start().await);
    let stores = stores(&api, 40).await;
    let mut other = api.admin.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM shop.store WHERE code = 'S0' FOR UPDATE").execute(&mut *other).await.unwrap();
    let patch = |store: &Value| {
        let (api, path) = (api.clone(), path(store));
        async move { api.send(Method::PATCH, &path, &[], Some(json!({"rank": 2}).to_string())).await }
    };
    let waiting = tokio::spawn(patch(&stores[0]));
    for answer in all(stores[1..].iter().map(patch)).await {
        answer.expect(200);
    }
    assert!(!waiting.is_finished());
    other.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap().expect(200).json()["version"], 2);
    assert_eq!(api.number("SELECT count(*) FROM shop.store WHERE rank = 2 AND version = 2").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_one_object_come_one_after_the_other() {
    let api = Arc::new(Api::start().await);
    let stores = stores(&api, 1).await;
    let patch = |if_match: Option<&'static str>| {
        let (api, path) = (api.clone(), path(&stores[0]));
        async move {
            let headers: Vec<(&str, &str)> = if_match.iter().map(|tag| ("if-match", *tag)).collect();
            api.send(Method::PATCH, &path, &headers, Some(json!({"name": "x"}).to_string())).await
        }
    };
    let won = all((0..30).map(|_| patch(Some("\"1\"")))).await.into_iter().filter(|answer| answer.status == 200).count();
    assert_eq!(won, 1);
    let mut versions: Vec<i64> = Vec::new();
    for answer in all((0..30).map(|_| patch(None))).await {
        versions.push(answer.expect(200).json()["version"].as_i64().unwrap());
    }
    assert_eq!(api.number("SELECT version FROM shop.store").await, 32);
    // Of several in one transaction each is answered the object as it was after its own change.
    versions.sort_unstable();
    assert_eq!(versions, (3..=32).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_and_deleted_each_for_itself() {
    let api = Arc::new(Api::start().await);
    let stores = Arc::new(stores(&api, 50).await);
    let read = |n: usize| {
        let (api, stores) = (api.clone(), stores.clone());
        async move {
            let path = if n.is_multiple_of(5) { format!("/api/shop/stores/{}", Uuid::now_v7()) } else { path(&stores[n % 50]) };
            api.send(Method::GET, &path, &[("if-none-match", if n.is_multiple_of(7) { "\"1\"" } else { "\"9\"" })], None).await
        }
    };
    for (n, answer) in all((0..200).map(read)).await.into_iter().enumerate() {
        match n {
            n if n.is_multiple_of(5) => drop(answer.expect(404)),
            n if n.is_multiple_of(7) => drop(answer.expect(304)),
            n => assert_eq!(answer.expect(200).json(), stores[n % 50]),
        }
    }
    let delete = |n: usize| {
        let (api, path) = (api.clone(), path(&stores[n % 50]));
        async move { api.send(Method::DELETE, &path, &[], None).await }
    };
    let statuses: Vec<u16> = all((0..100).map(delete)).await.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 50);
    assert_eq!(statuses.iter().filter(|status| **status == 404).count(), 50);
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 0);
}
