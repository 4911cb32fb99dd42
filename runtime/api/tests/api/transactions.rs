//! Units of operations.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Api;

fn create(entity: &str, object: Value) -> Value {
    json!({"op": "create", "model": "shop", "entity": entity, "object": object})
}

fn patch(entity: &str, id: &Value, object: Value) -> Value {
    json!({"op": "patch", "model": "shop", "entity": entity, "id": id, "object": object})
}

fn id() -> Value {
    json!(Uuid::now_v7())
}

async fn units(api: &Api, units: Value) -> Vec<Value> {
    let count = units.as_array().unwrap().len();
    let answer = api.post("/api/transactions", &json!({"units": units})).await.expect(200).json();
    let answered = answer["units"].as_array().unwrap().clone();
    assert_eq!(answered.len(), count);
    answered
}

fn statuses(units: &[Value]) -> Vec<u64> {
    units.iter().map(|unit| unit["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_unit_makes_and_changes_objects_that_refer_to_one_another() {
    let api = Api::start().await;
    let (store, sale, product) = (id(), id(), id());
    let done = units(
        &api,
        json!([{
            "idempotencyKey": "service/1",
            "context": {"actor": "test", "causationId": "1"},
            "operations": [
                create("Store", json!({"id": store, "code": "A1"})),
                create("Product", json!({"id": product, "title": "Tea"})),
                create("Sale", json!({"id": sale, "receipt": "r", "soldAt": "2026-11-25T10:00:00Z", "total": 1, "storeId": store,
                    "lines": [{"productId": product, "quantity": 1, "price": 1}]})),
                patch("Sale", &sale, json!({"status": "accrued"})),
                patch("Store", &store, json!({"name": "One"})),
                patch("Sale", &sale, json!({"points": 7})),
            ],
        }]),
    )
    .await;
    assert_eq!((&done[0]["status"], &done[0]["replayed"]), (&json!(200), &json!(false)), "{done:?}");
    let results = done[0]["results"].as_array().unwrap();
    assert_eq!(results.iter().map(|result| result["version"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 1, 1, 2, 2, 3]);
    assert_eq!((&results[2]["id"], &results[2]["effect"], &results[5]["effect"]), (&sale, &json!("created"), &json!("updated")));
    let read = api.get(&format!("/api/shop/sales/{}", sale.as_str().unwrap())).await.expect(200).json();
    assert_eq!((&read["status"], &read["points"]), (&json!("accrued"), &json!(7)));
    // Deleted in an order in which it can be done, and made again.
    let delete = |entity: &str, id: &Value| json!({"op": "delete", "model": "shop", "entity": entity, "id": id});
    let done = units(
        &api,
        json!([{"operations": [
            delete("Sale", &sale), delete("Store", &store), create("Store", json!({"id": id(), "code": "A1"})),
        ]}]),
    )
    .await;
    assert_eq!(statuses(&done), [200], "{done:?}");
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 1);
}

#[tokio::test]
async fn units_on_the_same_object_are_applied_in_order() {
    let api = Api::start().await;
    let store = json!(api.make("/api/shop/stores", json!({"code": "A1", "rank": 1})).await);
    let raise = |from: i64, to: i64| {
        let mut operation = patch("Store", &store, json!({"rank": to}));
        operation["if"] = json!({"rank": from});
        json!({"operations": [operation]})
    };
    let done = units(&api, json!([raise(1, 2), raise(2, 3), raise(1, 9), raise(3, 4)])).await;
    assert_eq!(statuses(&done), [200, 200, 412, 200], "{done:?}");
    let read = api.get(&format!("/api/shop/stores/{}", store.as_str().unwrap())).await.expect(200).json();
    assert_eq!((&read["rank"], &read["version"]), (&json!(4), &json!(4)));
    // An object that an earlier unit makes can be referred to and changed by a later one.
    let new = id();
    let done = units(
        &api,
        json!([
            {"operations": [create("Store", json!({"id": new, "code": "B2"}))]},
            {"operations": [patch("Store", &new, json!({"rank": 5}))]},
            {"operations": [create("Sale", json!({"receipt": "r", "soldAt": "2026-11-25T10:00:00Z", "total": 1, "storeId": new}))]},
            {"operations": [create("Store", json!({"id": id(), "code": "B2"}))]},
        ]),
    )
    .await;
    assert_eq!(statuses(&done), [200, 200, 200, 409], "{done:?}");
}

#[tokio::test]
async fn a_failing_unit_undoes_itself_alone() {
    let api = Api::start().await;
    let store = json!(api.make("/api/shop/stores", json!({"code": "A1"})).await);
    let sale = |n: usize| json!({"receipt": format!("r-{n}"), "soldAt": "2026-11-25T10:00:00Z", "total": 1, "storeId": store});
    let mut list = Vec::new();
    for n in 0..200 {
        let mut sale = sale(n);
        let mut other = create("Product", json!({"title": format!("p-{n}")}));
        match n {
            17 | 18 => sale["storeId"] = id(),
            40 => sale["total"] = json!("1.001"),
            60 => sale["receipt"] = json!("r-3"),
            80 => (sale["points"], sale["minPoints"]) = (json!(1), json!(2)),
            90 => other = patch("Store", &id(), json!({"rank": 1})),
            100 => other["entity"] = json!("Nothing"),
            110 => sale["lines"] = json!([{"productId": id(), "quantity": 1, "price": 1}]),
            _ => {}
        }
        list.push(json!({"idempotencyKey": format!("k-{n}"), "operations": [other, create("Sale", sale)]}));
    }
    let wanted: Vec<u64> = (0..200)
        .map(|n| match n {
            17 | 18 | 40 | 80 | 100 | 110 => 422,
            60 => 409,
            90 => 404,
            _ => 200,
        })
        .collect();
    let done = units(&api, Value::Array(list.clone())).await;
    assert_eq!(statuses(&done), wanted, "{done:?}");
    assert_eq!(done[17]["problem"]["errors"][0]["pointer"], "/units/17/operations/1/object/storeId");
    assert_eq!(done[40]["problem"]["errors"][0]["pointer"], "/units/40/operations/1/object/total");
    assert_eq!(done[60]["problem"]["errors"][0]["pointer"], "/units/60/operations/1/object/receipt");
    assert_eq!(done[100]["problem"]["errors"][0]["pointer"], "/units/100/operations/0/entity");
    assert_eq!(done[110]["problem"]["errors"][0]["pointer"], "/units/110/operations/1/object/lines/0/productId");
    assert_eq!(api.number("SELECT count(*) FROM shop.sale").await, 192);
    assert_eq!(api.number("SELECT count(*) FROM shop.product").await, 192);
    assert_eq!(api.number("SELECT count(*) FROM autonomy.idempotency").await, 192);
    // The same again: what was done is answered again, what failed fails again.
    let again = units(&api, Value::Array(list)).await;
    assert_eq!(statuses(&again), wanted);
    assert_eq!((&again[0]["replayed"], &again[0]["results"]), (&json!(true), &done[0]["results"]));
    assert_eq!(api.number("SELECT count(*) FROM shop.sale").await, 192);
}

#[tokio::test]
async fn keys_that_were_partly_used_are_named() {
    let api = Api::start().await;
    let unit = |keys: Value, code: &str| json!({"idempotencyKey": keys, "operations": [create("Store", json!({"code": code}))]});
    units(&api, json!([unit(json!(["a", "b"]), "A1")])).await;
    let done = units(&api, json!([unit(json!(["b", "c"]), "B2"), unit(json!(["a", "b"]), "X9"), unit(json!(["d"]), "D4")])).await;
    assert_eq!(statuses(&done), [409, 200, 200]);
    assert_eq!(done[0]["problem"]["usedKeys"], json!(["b"]));
    assert!(done[0]["problem"]["type"].as_str().unwrap().ends_with("/idempotency-key-partly-used"));
    assert_eq!(done[1]["replayed"], true);
    // The key that was not used is free still.
    let done = units(&api, json!([unit(json!("c"), "C3")])).await;
    assert_eq!((statuses(&done), &done[0]["replayed"]), (vec![200], &json!(false)));
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 3);
}

#[tokio::test]
async fn creates_may_meet_objects_that_are_there() {
    let api = Api::start().await;
    let first = json!(api.make("/api/shop/stores", json!({"code": "A1", "rank": 1})).await);
    let with = |conflict: &str, object: Value| {
        let mut operation = create("Store", object);
        operation["onConflict"] = json!(conflict);
        json!({"operations": [operation]})
    };
    let done = units(
        &api,
        json!([
            with("ignore", json!({"id": id(), "code": "A1"})),
            with("ignore", json!({"id": first, "code": "A1"})),
            with("update", json!({"id": id(), "code": "A1", "rank": 2})),
            with("error", json!({"id": id(), "code": "A1"})),
            with("update", json!({"id": id(), "code": "B2"})),
        ]),
    )
    .await;
    assert_eq!(statuses(&done), [200, 200, 200, 409, 200], "{done:?}");
    let effects: Vec<&Value> = [0, 1, 2, 4].iter().map(|at: &usize| &done[*at]["results"][0]["effect"]).collect();
    assert_eq!(effects, [&json!("ignored"), &json!("ignored"), &json!("updated"), &json!("created")]);
    assert_eq!((&done[0]["results"][0]["id"], &done[2]["results"][0]["id"]), (&first, &first));
}

#[tokio::test]
async fn a_request_that_is_none_is_refused_whole() {
    let api = Api::start().await;
    for body in ["{}", "[]", "5", r#"{"units":{}}"#, r#"{"units":[],"more":1}"#] {
        api.send(Method::POST, "/api/transactions", &[], Some(body.to_owned())).await.expect(422);
    }
    for body in ["", "{", r#"{"units":[}"#, "\u{0}"] {
        api.send(Method::POST, "/api/transactions", &[], Some(body.to_owned())).await.expect(400);
    }
    assert_eq!(units(&api, json!([])).await.len(), 0);
    let hostile = json!([
        5, {}, {"operations": 5}, {"operations": [5]}, {"operations": [{}]}, {"operations": [], "idempotencyKey": ""},
        {"operations": [], "idempotencyKey": [1]}, {"operations": [{"op": "patch", "model": "shop", "entity": "Store", "object": {}}]},
        {"operations": [{"op": "patch", "model": "shop", "entity": "Store", "id": "x", "object": 5}]},
        {"operations": [{"op": "create", "model": "shop", "entity": "Store"}]},
        {"operations": [{"op": "create", "model": "none", "entity": "Store", "object": {}}]},
        {"operations": [{"op": "delete", "model": "shop", "entity": "Store", "id": "x", "onConflict": "ignore"}]},
        {"operations": [], "context": {"actor": 5}},
    ]);
    let done = units(&api, hostile).await;
    assert!(statuses(&done).iter().all(|status| *status == 422), "{done:?}");
    assert_eq!(statuses(&units(&api, json!([{"operations": []}])).await), [200]);
}

#[tokio::test]
async fn blame_falls_on_no_other_unit() {
    let api = Api::start().await;
    let store = json!(api.make("/api/shop/stores", json!({"code": "A1"})).await);
    let sale = |receipt: &str, store: &Value| {
        create("Sale", json!({"receipt": receipt, "soldAt": "2026-11-25T10:00:00Z", "total": 1, "storeId": store}))
    };
    // Units that make what they refer to, beside one that refers to nothing.
    let mut list: Vec<Value> = (0..40)
        .map(|n| {
            let own = id();
            json!({"operations": [create("Store", json!({"id": own, "code": format!("N{n}")})), sale(&format!("r-{n}"), &own)]})
        })
        .collect();
    list.insert(20, json!({"operations": [sale("bad", &id())]}));
    // A unit that frees a key, and a later one that takes it.
    list.push(json!({"operations": [patch("Store", &store, json!({"code": "Z9"}))]}));
    list.push(json!({"operations": [create("Store", json!({"code": "A1"}))]}));
    let done = units(&api, Value::Array(list)).await;
    let wanted: Vec<u64> = (0..43).map(|n| if n == 20 { 422 } else { 200 }).collect();
    assert_eq!(statuses(&done), wanted, "{done:?}");
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 42);
}

#[tokio::test]
async fn a_unit_whose_own_objects_clash_leaves_none_of_them() {
    let api = Api::start().await;
    let store = || create("Store", json!({"code": "A1"}));
    // The second unit waits for the first one's end, so each is a set of its own.
    let done = units(&api, json!([{"operations": [store(), store()]}, {"operations": [store()]}])).await;
    assert_eq!(statuses(&done), [409, 200], "{done:?}");
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 1);
}

#[tokio::test]
async fn the_key_of_a_request_stands_for_its_units() {
    let api = Api::start().await;
    let headers = [("idempotency-key", "request-1")];
    let body = |code: &str| {
        Some(
            json!({"units": [{"operations": [create("Store", json!({"code": code}))]}, {"operations": [create("Store", json!({}))]}]})
                .to_string(),
        )
    };
    let first = api.send(Method::POST, "/api/transactions", &headers, body("A1")).await.expect(200).json();
    let again = api.send(Method::POST, "/api/transactions", &headers, body("A1")).await.expect(200).json();
    assert_eq!((&again["units"][0]["replayed"], &again["units"][0]["results"]), (&json!(true), &first["units"][0]["results"]));
    assert_eq!((statuses(first["units"].as_array().unwrap()), &again["units"][1]["status"]), (vec![200, 422], &json!(422)));
    let other = api.send(Method::POST, "/api/transactions", &headers, body("B2")).await.expect(200).json();
    assert_eq!(other["units"][0]["status"], 422);
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 1);
}
