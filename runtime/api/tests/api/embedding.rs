//! Objects inside of those that refer to them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Api;

const MODELS: &str = r#"
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: geo}
spec:
  entities:
    - {name: Region, key: [code], attributes: [{name: code, type: string, required: true}, {name: "since", type: date}]}
---
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  imports: [{model: geo, entities: [Region]}]
  entities:
    - {name: Store, attributes: [{name: code, type: string, required: true}], relationships: [{name: region, target: Region}]}
    - name: Sale
      key: [receipt]
      attributes: [{name: receipt, type: string, required: true}, {name: total, type: decimal, precision: 12, scale: 2}]
      relationships: [{name: store, target: Store}, {name: returnedTo, target: Store}]
"#;

async fn three_sales(api: &Api) -> (String, String) {
    let region = api.make("/api/geo/regions", json!({"code": "north", "since": "2020-02-29"})).await;
    let store = api.make("/api/shop/stores", json!({"code": "S1", "regionId": region})).await;
    let bare = api.make("/api/shop/stores", json!({"code": "S2"})).await;
    let list = json!([
        {"receipt": "1", "total": 1.50, "storeId": store, "returnedToId": bare},
        {"receipt": "2", "total": 2.50, "storeId": bare},
        {"receipt": "3", "total": 3.50},
    ]);
    api.post("/api/shop/sales", &list).await.expect(201);
    (region, store)
}

#[tokio::test]
async fn any_relationship_of_any_model_is_embedded_in_pages_objects_and_streams() {
    let api = Api::with(MODELS).await;
    let (region, store) = three_sales(&api).await;
    let whole_region = api.get(&format!("/api/geo/regions/{region}")).await.expect(200).json();
    let page = api.get("/api/shop/sales?sort=receipt&embed=store.region,returnedTo").await.expect(200);
    let sales = page.json();
    let mut expected = api.get(&format!("/api/shop/stores/{store}")).await.expect(200).json();
    expected["region"] = whole_region;
    assert_eq!(sales[0]["store"], expected);
    assert_eq!((&sales[0]["storeId"], &sales[0]["returnedTo"]["code"]), (&json!(store), &json!("S2")));
    assert_eq!(sales[0]["returnedTo"].get("region"), None, "it is embedded where it was asked for");
    assert_eq!((&sales[1]["store"]["region"], &sales[1]["returnedTo"]), (&Value::Null, &Value::Null));
    assert_eq!(sales[2]["store"], Value::Null);

    let path = format!("/api/shop/sales/{}?embed=store.region,returnedTo", sales[0]["id"].as_str().unwrap());
    let one = api.get(&path).await.expect(200);
    assert_eq!(one.json(), sales[0]);
    // Its ETag is the object's own, so it never says that what is embedded is unchanged.
    let known = [("if-none-match", one.header("etag"))];
    api.send(Method::GET, &path, &known, None).await.expect(200);

    let accept = [("accept", "application/x-ndjson")];
    let streamed = api.send(Method::GET, "/api/shop/sales?sort=receipt&embed=store.region,returnedTo", &accept, None).await.expect(200);
    let lines: Vec<Value> = streamed.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::Array(lines), sales);
}

#[tokio::test]
async fn embedding_goes_with_fields_filters_and_pages() {
    let api = Api::with(MODELS).await;
    three_sales(&api).await;
    let page = api.get("/api/shop/sales?sort=-total&limit=2&fields=receipt&embed=store&total.lt=3.5").await.expect(200);
    let sales = page.json();
    assert_eq!((sales[0]["receipt"].as_str(), sales[0]["store"]["code"].as_str()), (Some("2"), Some("S2")));
    assert_eq!(sales[1].as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "receipt", "store"]);
    let first = api.get("/api/shop/sales?sort=receipt&limit=1&embed=store").await.expect(200);
    let link = first.header("link");
    let second = api.get(&link[1..link.find('>').unwrap()]).await.expect(200).json();
    assert_eq!((second[0]["receipt"].as_str(), second[0]["store"]["code"].as_str()), (Some("2"), Some("S2")));
}

#[tokio::test]
async fn what_is_no_relationship_is_told() {
    let api = Api::with(MODELS).await;
    for embed in ["receipt", "storeId", "store.no", "store.region.x", "a.b.c.d.e"] {
        let answer = api.get(&format!("/api/shop/sales?embed={embed}")).await.expect(400);
        assert_eq!(answer.pointers(), ["embed"], "{embed}");
    }
    api.get(&format!("/api/shop/sales?embed={}", ["store"; 16].join(","))).await.expect(200);
    let many = api.get(&format!("/api/shop/sales?embed={}", ["store"; 17].join(","))).await.expect(400);
    assert_eq!(many.faults()[0].1, "has more than 16 items");
}
