//! The model changes while the API runs.

use autonomy_operator::apply::apply_models;
use reqwest::Method;
use serde_json::json;

use crate::support::{Api, MODEL, models};

#[tokio::test]
async fn an_attribute_that_is_added_is_served_without_a_restart() {
    let api = Api::start().await;
    let id = api.make("/api/shop/products", json!({"title": "Tea"})).await;
    let path = format!("/api/shop/products/{id}");
    // Every connection has seen the table as it was.
    for _ in 0..30 {
        api.get("/api/shop/products").await.expect(200);
        api.patch(&path, &json!({"title": "Tea"})).await.expect(200);
    }
    let wider = MODEL.replace(
        "        - {name: title, type: string, required: true}\n",
        "        - {name: title, type: string, required: true}\n        - {name: origin, type: string, default: unknown}\n",
    );
    apply_models(&api.admin, &models(&wider)).await.expect("applied");
    let mut tries = 0;
    while !api.get(&path).await.expect(200).text.contains("origin") {
        tries += 1;
        assert!(tries < 10_000, "the new attribute never appears");
        tokio::task::yield_now().await;
    }
    assert_eq!(api.get(&path).await.expect(200).json()["origin"], "unknown");
    for _ in 0..30 {
        api.patch(&path, &json!({"origin": "Assam"})).await.expect(200);
        assert_eq!(api.get("/api/shop/products?origin=Assam").await.expect(200).json()[0]["origin"], "Assam");
    }
    assert!(api.get("/api/shop/openapi.json").await.expect(200).text.contains("origin"));
    let list: Vec<_> = (0..100).map(|n| json!({"title": format!("t-{n}"), "origin": "x"})).collect();
    api.post("/api/shop/products", &json!(list)).await.expect(201);
}

#[tokio::test]
async fn preconditions_are_wanted_from_when_the_model_says_so() {
    let api = Api::start().await;
    let path = format!("/api/shop/products/{}", api.make("/api/shop/products", json!({"title": "Tea"})).await);
    api.patch(&path, &json!({"title": "Green tea"})).await.expect(200);
    let strict = MODEL.replace("    - name: Product\n", "    - name: Product\n      requireIfMatch: true\n");
    apply_models(&api.admin, &models(&strict)).await.expect("applied");
    let mut tries = 0;
    while api.patch(&path, &json!({"title": "Tea"})).await.status.as_u16() != 428 {
        tries += 1;
        assert!(tries < 10_000, "the catalog's change never appears");
    }
    let etag = api.get(&path).await.expect(200).header("etag").to_owned();
    api.send(Method::DELETE, &path, &[("if-match", &etag)], None).await.expect(204);
}

#[tokio::test]
async fn a_table_that_is_other_than_the_catalog_said_is_met_with_the_newest_catalog() {
    let api = Api::start().await;
    api.make("/api/shop/products", json!({"title": "Tea"})).await;
    // The table and the catalog change together, as the operator does it, but nobody is told.
    api.execute(
        "BEGIN; ALTER TABLE shop.product RENAME COLUMN title TO label;
         UPDATE autonomy.catalog SET revision = revision + 1,
           resolved = replace(resolved::text, '\"title\"', '\"label\"')::jsonb WHERE model = 'shop'; COMMIT",
    )
    .await;
    assert_eq!(api.get("/api/shop/products").await.expect(200).json()[0]["label"], "Tea");
    // A table that is gone altogether is no crash, and its neighbours are served on.
    api.execute("DROP TABLE shop.product CASCADE").await;
    api.get("/api/shop/products").await.expect(503);
    api.send(Method::POST, "/api/shop/products", &[], Some(json!({"label": "x"}).to_string())).await.expect(503);
    api.get("/api/shop/stores").await.expect(200);
}
