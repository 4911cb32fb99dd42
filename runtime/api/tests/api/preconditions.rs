//! What clients say of the objects they change: `@ifMatch` in lists, and entities that want it said.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Api, MODEL};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const CSV: (&str, &str) = ("content-type", "text/csv");

async fn stores(api: &Api, count: usize) -> Vec<String> {
    let list = (0..count).map(|n| json!({"code": format!("S{n}"), "rank": 1})).collect();
    let made = api.post("/api/shop/stores", &Value::Array(list)).await.expect(201).json();
    made.as_array().unwrap().iter().map(|store| store["id"].as_str().unwrap().to_owned()).collect()
}

fn statuses(rows: &Value) -> Vec<u64> {
    rows.as_array().unwrap().iter().map(|row| row["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_list_of_patches_says_what_was_seen() {
    let api = Api::start().await;
    let ids = stores(&api, 4).await;
    let list = json!([
        {"id": ids[0], "@ifMatch": "\"1\"", "rank": 2}, {"id": ids[1], "@ifMatch": "*", "rank": 2}, {"id": ids[2], "rank": 2},
        // The same object again, as it is by then.
        {"@ifMatch": "\"2\"", "id": ids[0], "name": "again"},
    ]);
    let patched = api.patch("/api/shop/stores", &list).await.expect(200).json();
    assert_eq!((&patched[0]["version"], &patched[3]["name"]), (&json!(3), &json!("again")));
    // Some are others by now: the whole list is refused, and nothing is changed.
    let stale = json!([
        {"id": ids[3], "@ifMatch": "\"1\"", "rank": 9}, {"id": ids[0], "@ifMatch": "\"1\"", "rank": 9}, {"id": ids[1], "@ifMatch": "*", "rank": 9},
        {"id": ids[2], "@ifMatch": "\"1\""},
    ]);
    let answer = api.patch("/api/shop/stores", &stale).await.expect(412);
    assert_eq!(answer.pointers(), ["/1/@ifMatch", "/3/@ifMatch"]);
    assert_eq!(api.number("SELECT count(*) FROM shop.store WHERE rank = 9").await, 0);
    let rows = api.patch("/api/shop/stores?onError=continue", &stale).await.expect(207).json();
    assert_eq!(statuses(&rows), [200, 412, 200, 412], "{rows}");
    assert_eq!(rows[1]["problem"]["errors"][0]["pointer"], "/1/@ifMatch");
    assert_eq!(api.number("SELECT count(*) FROM shop.store WHERE rank = 9").await, 2);
    let missing = json!([{"id": Uuid::now_v7(), "@ifMatch": "*", "rank": 1}]);
    assert_eq!(api.patch("/api/shop/stores", &missing).await.expect(404).pointers(), ["/0/id"]);
}

#[tokio::test]
async fn long_lists_say_it_of_every_object() {
    let api = Api::start().await;
    let ids = stores(&api, 5_000).await;
    let list = |tag: &str| -> Vec<Value> { ids.iter().map(|id| json!({"id": id, "@ifMatch": tag, "rank": 2})).collect() };
    let minimal = [("prefer", "return=minimal")];
    let answer = api.send(Method::PATCH, "/api/shop/stores", &minimal, Some(Value::Array(list("\"1\"")).to_string())).await.expect(200);
    assert_eq!(answer.json()["updated"], 5_000);
    let mut deletions: Vec<Value> = ids.iter().map(|id| json!({"id": id, "@ifMatch": "\"2\""})).collect();
    deletions[4_321]["@ifMatch"] = json!("\"1\"");
    let answer = api.send(Method::DELETE, "/api/shop/stores", &[], Some(Value::Array(deletions.clone()).to_string())).await.expect(412);
    assert_eq!(answer.pointers(), ["/4321/@ifMatch"]);
    let answer = api.patch("/api/shop/stores", &Value::Array(list("\"1\""))).await.expect(412);
    assert_eq!(answer.pointers().len(), 100);
    deletions[4_321]["@ifMatch"] = json!("*");
    let answer = api.send(Method::DELETE, "/api/shop/stores", &[], Some(Value::Array(deletions).to_string())).await.expect(200);
    assert_eq!(answer.json()["deleted"], 5_000);
}

#[tokio::test]
async fn lines_and_tables_say_it_too() {
    let api = Api::start().await;
    let ids = stores(&api, 3).await;
    let lines = format!(
        "{{\"id\":\"{}\",\"@ifMatch\":\"\\\"1\\\"\",\"rank\":2}}\n{{\"id\":\"{}\",\"rank\":2,\"@ifMatch\":\"\\\"7\\\"\"}}\n",
        ids[0], ids[1]
    );
    let answer = api.send(Method::PATCH, "/api/shop/stores", &[NDJSON], Some(lines.clone())).await.expect(412);
    assert_eq!(answer.pointers(), ["/1/@ifMatch"]);
    api.send(Method::PATCH, "/api/shop/stores", &[NDJSON], Some(lines.replace("\\\"7\\\"", "\\\"1\\\""))).await.expect(200);
    let table = format!("id,@ifMatch,rank\n{},\"\"\"1\"\"\",3\n{},*,3\n{},,3\n", ids[2], ids[0], ids[1]);
    api.send(Method::PATCH, "/api/shop/stores", &[CSV], Some(table.clone())).await.expect(200);
    let answer = api.send(Method::PATCH, "/api/shop/stores", &[CSV], Some(table)).await.expect(412);
    assert_eq!(answer.pointers(), ["/0/@ifMatch"]);
    // What a table answers as `version` stands for the ETag.
    let text =
        api.send(Method::GET, "/api/shop/stores?fields=id,version,rank&sort=code", &[("accept", "text/csv")], None).await.expect(200).text;
    let seen = text.replacen("version", "@ifMatch", 1).replace(",3\n", ",4\n");
    api.send(Method::PATCH, "/api/shop/stores", &[CSV], Some(seen.clone())).await.expect(200);
    assert_eq!(api.send(Method::PATCH, "/api/shop/stores", &[CSV], Some(seen)).await.expect(412).pointers().len(), 3);
    assert_eq!(api.number("SELECT count(*) FROM shop.store WHERE rank = 4").await, 3);
}

#[tokio::test]
async fn an_if_match_that_is_none_is_a_fault() {
    let api = Api::start().await;
    let ids = stores(&api, 1).await;
    let id = &ids[0];
    let body = format!(
        r#"[{{"id":"{id}","@ifMatch":1}},{{"id":"{id}","@ifMatch":null}},{{"id":"{id}","@ifMatch":"1"}},{{"id":"{id}","@ifMatch":"*","@ifMatch":"*"}},{{"id":"{id}","@other":1}}]"#
    );
    let answer = api.send(Method::PATCH, "/api/shop/stores", &[], Some(body)).await.expect(422);
    assert_eq!(answer.pointers(), ["/0/@ifMatch", "/1/@ifMatch", "/2/@ifMatch", "/3/@ifMatch", "/4/@other"]);
    // Where it has no place it is not passed over silently.
    let object = json!({"code": "X", "@ifMatch": "*"});
    for answer in [
        api.post("/api/shop/stores", &object).await,
        api.post("/api/shop/stores?onConflict=update", &json!([object])).await,
        api.patch(&format!("/api/shop/stores/{id}"), &object).await,
        api.send(Method::PUT, &format!("/api/shop/stores/{id}"), &[], Some(object.to_string())).await,
    ] {
        let answer = answer.expect(422);
        assert!(answer.faults()[0].0.ends_with("/@ifMatch") && answer.faults()[0].1.contains("If-Match"), "{}", answer.text);
    }
    let unit =
        json!({"units": [{"operations": [{"op": "patch", "model": "shop", "entity": "Store", "id": id, "object": {"@ifMatch": "*"}}]}]});
    let answer = api.post("/api/transactions", &unit).await.expect(200).json();
    assert_eq!(answer["units"][0]["problem"]["errors"][0]["pointer"], "/units/0/operations/0/object/@ifMatch");
    api.send(Method::PATCH, "/api/shop/stores", &[("if-match", "\"1\"")], Some("[]".to_owned())).await.expect(400);
}

fn strict_model() -> String {
    MODEL.replace("    - name: Store\n", "    - name: Store\n      requireIfMatch: true\n")
}

#[tokio::test]
async fn an_entity_may_want_every_change_to_say_it() {
    let api = Api::with(&strict_model()).await;
    let ids = stores(&api, 3).await;
    let path = format!("/api/shop/stores/{}", ids[0]);
    let body = Some(json!({"code": "NEW", "rank": 5}).to_string());
    let json_patch = ("content-type", "application/json-patch+json");
    let patch = Some(json!([{"op": "replace", "path": "/rank", "value": 5}]).to_string());
    for answer in [
        api.send(Method::PUT, &path, &[], body.clone()).await,
        api.send(Method::PATCH, &path, &[], body.clone()).await,
        api.send(Method::PATCH, &path, &[json_patch], patch.clone()).await,
        api.send(Method::DELETE, &path, &[], None).await,
    ] {
        let answer = answer.expect(428);
        assert_eq!((answer.pointers(), answer.json()["title"].as_str()), (vec!["If-Match".to_owned()], Some("A precondition is required")));
    }
    let list = json!([{"id": ids[0], "rank": 5}, {"id": ids[1], "@ifMatch": "\"1\"", "rank": 5}, {"id": ids[2], "rank": 5}]);
    assert_eq!(api.patch("/api/shop/stores", &list).await.expect(428).pointers(), ["/0/@ifMatch", "/2/@ifMatch"]);
    let deletions = json!([{"id": ids[0], "@ifMatch": "*"}, {"id": ids[1]}]);
    let answer = api.send(Method::DELETE, "/api/shop/stores", &[], Some(deletions.to_string())).await.expect(428);
    assert_eq!(answer.pointers(), ["/1/@ifMatch"]);
    let upsert = json!([{"code": "S0", "rank": 5}]);
    api.post("/api/shop/stores?onConflict=update", &upsert).await.expect(428);
    // In pieces too: a body without a length is.
    let lines = reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>("{\"code\": \"S0\", \"rank\": 5}\n")]));
    let request = autonomy_process::http_client::new().post(format!("{}/api/shop/stores?onConflict=update", api.base)).body(lines);
    let answer = request.header("content-type", NDJSON.1).header("prefer", "return=minimal").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 428);
    assert_eq!(api.number("SELECT count(*) FROM shop.store WHERE version = 1 AND rank = 1").await, 3);

    // Row by row, those that say it are changed.
    let rows = api.patch("/api/shop/stores?onError=continue", &list).await.expect(207).json();
    assert_eq!(statuses(&rows), [428, 200, 428]);
    assert_eq!(rows[2]["problem"]["errors"][0]["pointer"], "/2/@ifMatch");
    let answer = api.send(Method::DELETE, "/api/shop/stores?onError=continue", &[], Some(deletions.to_string())).await.expect(207).json();
    assert_eq!(statuses(&answer), [200, 428]);

    // With a precondition everything goes; an object that is new needs none.
    let path = format!("/api/shop/stores/{}", ids[2]);
    api.send(Method::PATCH, &path, &[("if-match", "\"1\"")], body.clone()).await.expect(200);
    api.send(Method::PATCH, &path, &[("if-match", "*"), json_patch], patch).await.expect(200);
    api.send(Method::PUT, &path, &[("if-match", "\"2\"")], body.clone()).await.expect(200);
    api.send(Method::PUT, &path, &[("if-none-match", "*")], body.clone()).await.expect(412);
    api.send(Method::DELETE, &path, &[("if-match", "\"3\"")], None).await.expect(204);
    api.send(Method::PUT, &path, &[("if-none-match", "*")], body.clone()).await.expect(201);
    api.send(Method::DELETE, &path, &[("if-match", "*")], None).await.expect(204);
    api.send(Method::PUT, &path, &[], body.clone()).await.expect(201);
    api.send(Method::PUT, &path, &[], body).await.expect(428);
    // Another entity is as free as before.
    let product = api.make("/api/shop/products", json!({"title": "Tea"})).await;
    api.send(Method::DELETE, &format!("/api/shop/products/{product}"), &[], None).await.expect(204);
}

#[tokio::test]
async fn units_say_it_by_the_version() {
    let api = Api::with(&strict_model()).await;
    let ids = stores(&api, 2).await;
    let operation = |op: &str, id: &str, object: Value, condition: Value| {
        let mut operation = json!({"op": op, "model": "shop", "entity": "Store", "id": id});
        for (member, value) in [("object", object), ("if", condition)] {
            if !value.is_null() {
                operation[member] = value;
            }
        }
        operation
    };
    let product = json!({"op": "create", "model": "shop", "entity": "Product", "object": {"title": "Tea"}});
    let create = |on_conflict: &str| json!({"op": "create", "model": "shop", "entity": "Store", "object": {"code": "S0"}, "onConflict": on_conflict});
    let units = json!({"units": [
        {"operations": [product, operation("patch", &ids[0], json!({"rank": 5}), Value::Null), operation("delete", &ids[1], Value::Null, json!({"rank": 1}))]},
        {"operations": [create("update")]},
        {"operations": [create("ignore")]},
        {"operations": [operation("patch", &ids[0], json!({"rank": 5}), json!({"version": 2}))]},
        {"operations": [operation("patch", &ids[0], json!({"rank": 5}), json!({"version": 1, "rank": 1})), operation("delete", &ids[1], Value::Null, json!({"version": 1}))]},
        // What the unit itself makes, nobody else can have changed.
        {"operations": [
            {"op": "create", "model": "shop", "entity": "Store", "object": {"code": "NEW"}, "as": "new"},
            {"op": "patch", "model": "shop", "entity": "Store", "id": {"@ref": "new"}, "object": {"rank": 3}},
        ]},
    ]});
    let answer = api.post("/api/transactions", &units).await.expect(200).json();
    assert_eq!(statuses(&answer["units"]), [428, 428, 200, 412, 200, 200], "{answer}");
    let pointers = |unit: usize| -> Vec<&str> {
        let errors = answer["units"][unit]["problem"]["errors"].as_array().unwrap();
        errors.iter().map(|fault| fault["pointer"].as_str().unwrap()).collect()
    };
    assert_eq!(pointers(0), ["/units/0/operations/1/if/version", "/units/0/operations/2/if/version"]);
    assert_eq!(pointers(1), ["/units/1/operations/0/onConflict"]);
    assert_eq!(pointers(3), ["/units/3/operations/0/if"]);
    assert_eq!(api.number("SELECT count(*) FROM shop.product").await, 0);
    assert_eq!(api.number("SELECT count(*) FROM shop.store WHERE rank IN (3, 5)").await, 2);
    let document = api.get("/api/shop/openapi.json").await.expect(200).json();
    let patch = |path: &str| document["paths"][path]["patch"]["responses"]["428"].is_object();
    assert!(patch("/api/shop/stores/{id}") && patch("/api/shop/stores") && !patch("/api/shop/sales/{id}"));
    assert_eq!(document["components"]["parameters"]["IfMatchRequired"]["required"], true);
    let other = Api::start().await.get("/api/shop/openapi.json").await.expect(200).json();
    assert!(other["components"]["parameters"]["IfMatchRequired"].is_null(), "no operation uses it");
}
