//! What is looked for by a key is found by its index, whatever the table was when the plan was made.

use serde_json::{Value, json};

use crate::support::Api;

fn stores(from: usize, to: usize) -> Value {
    Value::Array((from..to).map(|n| json!({"code": format!("S{n}"), "rank": 1})).collect())
}

#[tokio::test]
async fn plans_made_for_a_small_table_hold_for_a_large_one() {
    let api = Api::start().await;
    api.post("/api/shop/stores", &stores(0, 3)).await.expect(201);
    api.execute("VACUUM ANALYZE shop.store").await;
    let upsert = |from: usize, to: usize| {
        let api = &api;
        async move {
            let answer = api.post("/api/shop/stores?onConflict=update", &stores(from, to)).await.expect(200).json();
            let list = answer.as_array().unwrap().iter().map(|store| json!({"id": store["id"], "@ifMatch": "*", "rank": 2})).collect();
            api.patch("/api/shop/stores", &Value::Array(list)).await.expect(200);
        }
    };
    // Often enough that every connection keeps its plans.
    for _ in 0..60 {
        upsert(0, 3).await;
    }
    api.post("/api/shop/stores", &stores(3, 4_000)).await.expect(201);
    let read = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relid = 'shop.store'::regclass";
    let found = "SELECT idx_scan FROM pg_stat_user_tables WHERE relid = 'shop.store'::regclass";
    let (read_before, found_before) = (api.number(read).await, api.number(found).await);
    // What a session counts is told to others after a while.
    while api.number(found).await < found_before + 2_000 {
        upsert(100, 300).await;
    }
    let rows = api.number(read).await - read_before;
    assert!(rows < 4_000, "{rows} rows were read one after the other");
}
