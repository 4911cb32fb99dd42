//! References between the new objects of a unit, by name.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Api;

fn create(entity: &str, name: Option<&str>, object: Value) -> Value {
    let mut operation = json!({"op": "create", "model": "shop", "entity": entity, "object": object});
    if let Some(name) = name {
        operation["as"] = name.into();
    }
    operation
}

fn named(name: &str) -> Value {
    json!({"@ref": name})
}

fn sale(receipt: &str, store: Value, lines: Value) -> Value {
    json!({"receipt": receipt, "soldAt": "2026-11-25T10:00:00Z", "total": 1, "storeId": store, "lines": lines})
}

async fn units(api: &Api, units: Value) -> Vec<Value> {
    api.post("/api/transactions", &json!({"units": units})).await.expect(200).json()["units"].as_array().unwrap().clone()
}

fn statuses(units: &[Value]) -> Vec<u64> {
    units.iter().map(|unit| unit["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn new_objects_refer_to_one_another_in_any_order() {
    let api = Api::start().await;
    let line = |product: Value| json!({"productId": product, "quantity": 1, "price": 1});
    let own = Uuid::now_v7();
    let done = units(
        &api,
        json!([
            // What is referred to comes later, earlier, inside of parts, and with an id of its own.
            {"idempotencyKey": "names/1", "operations": [
                create("Sale", Some("sale"), sale("r-1", named("store"), json!([line(named("tea")), line(named("own"))]))),
                create("Product", Some("tea"), json!({"title": "Tea"})),
                create("Store", Some("store"), json!({"code": "A1"})),
                create("Product", Some("own"), json!({"id": own, "title": "Own"})),
                {"op": "patch", "model": "shop", "entity": "Sale", "id": named("sale"), "object": {"points": 7, "lines": [line(named("own"))]}},
                {"op": "patch", "model": "shop", "entity": "Store", "id": named("store"), "object": {"rank": 3}},
                create("Product", Some("gone"), json!({"title": "Gone"})),
                {"op": "delete", "model": "shop", "entity": "Product", "id": named("gone")},
            ]},
            // A name is its unit's: another unit may have it too, for something else.
            {"operations": [create("Sale", None, sale("r-2", named("store"), json!([]))), create("Store", Some("store"), json!({"code": "B2"}))]},
            // What is there is moved to what is new, before what it was at is taken away.
            {"operations": [create("Store", Some("store"), json!({"code": "C3"})), create("Sale", None, sale("r-3", named("store"), json!([])))]},
        ]),
    )
    .await;
    assert_eq!(statuses(&done), [200, 200, 200], "{done:?}");
    let results = done[0]["results"].as_array().unwrap();
    let effects: Vec<&str> = results.iter().map(|result| result["effect"].as_str().unwrap()).collect();
    assert_eq!(effects, ["created", "created", "created", "created", "updated", "updated", "created", "deleted"]);
    assert_eq!((&results[3]["id"], &results[4]["id"], &results[5]["id"]), (&json!(own), &results[0]["id"], &results[2]["id"]));
    let read = api.get(&format!("/api/shop/sales/{}?embed=store", results[0]["id"].as_str().unwrap())).await.expect(200).json();
    assert_eq!((&read["store"]["code"], &read["store"]["rank"], &read["points"]), (&json!("A1"), &json!(3), &json!(7)));
    assert_eq!(read["lines"][0]["productId"], json!(own));
    let embedded = api.get("/api/shop/sales?embed=store&sort=receipt").await.expect(200).json();
    assert_eq!((&embedded[1]["store"]["code"], &embedded[2]["store"]["code"]), (&json!("B2"), &json!("C3")));
    assert_eq!(api.number("SELECT count(*) FROM shop.product").await, 2);
    // Sent again the unit is not done again, though its ids would be others.
    let again = units(
        &api,
        json!([{"idempotencyKey": "names/1", "operations": [create("Store", Some("s"), json!({"code": "Z"})), create("Sale", None, sale("r-9", named("s"), json!([])))]}]),
    )
    .await;
    assert_eq!((&again[0]["replayed"], &again[0]["results"]), (&json!(true), &done[0]["results"]));
}

#[tokio::test]
async fn what_is_there_is_changed_to_refer_to_what_is_new() {
    let api = Api::start().await;
    let store = api.make("/api/shop/stores", json!({"code": "A1"})).await;
    let id = api.make("/api/shop/sales", sale("r-1", json!(store), json!([]))).await;
    let done = units(
        &api,
        json!([{"operations": [
            {"op": "patch", "model": "shop", "entity": "Sale", "id": id, "object": {"storeId": named("new")}},
            {"op": "delete", "model": "shop", "entity": "Store", "id": store},
            create("Store", Some("new"), json!({"code": "B2"})),
        ]}]),
    )
    .await;
    assert_eq!(statuses(&done), [200], "{done:?}");
    assert_eq!(api.number("SELECT count(*) FROM shop.sale JOIN shop.store ON store.id = sale.store_id WHERE code = 'B2'").await, 1);
    // Many at once, through COPY, each to another one.
    let list: Vec<Value> = (0..200)
        .map(|n| {
            let mut operations: Vec<Value> =
                (0..3).map(|at| create("Sale", None, sale(&format!("m-{n}-{at}"), named("s"), json!([])))).collect();
            operations.push(create("Store", Some("s"), json!({"code": format!("M{n}")})));
            json!({"operations": operations})
        })
        .collect();
    assert!(statuses(&units(&api, Value::Array(list)).await).iter().all(|status| *status == 200));
    let right =
        "SELECT count(*) FROM shop.sale JOIN shop.store ON store.id = sale.store_id WHERE receipt LIKE 'm-' || substr(code, 2) || '-%'";
    assert_eq!(api.number(right).await, 600);
}

#[tokio::test]
async fn names_that_stand_for_nothing_are_faults() {
    let api = Api::start().await;
    let store = |name: &str| create("Store", Some(name), json!({"code": "A1"}));
    let line = |product: Value| json!({"productId": product, "quantity": 1, "price": 1});
    let with = |member: &str, value: Value| {
        let mut operation = store("s");
        operation[member] = value;
        operation
    };
    let cases = [
        (json!([create("Sale", None, sale("r", named("none"), json!([])))]), vec!["0/object/storeId/@ref"]),
        (
            json!([store("s"), create("Sale", None, sale("r", named("s"), json!([line(named("s")), line(named("x"))])))]),
            vec!["1/object/lines/0/productId/@ref", "1/object/lines/1/productId/@ref"],
        ),
        (json!([store("s"), store("s"), store("t")]), vec!["1/as"]),
        (json!([{"op": "patch", "model": "shop", "entity": "Store", "id": named("x"), "object": {}}]), vec!["0/id/@ref"]),
        (json!([store("s"), {"op": "delete", "model": "shop", "entity": "Sale", "id": named("s")}]), vec!["1/id/@ref"]),
        (json!([{"op": "delete", "model": "shop", "entity": "Store", "id": Uuid::now_v7(), "as": "s"}]), vec!["0/as"]),
        (json!([with("onConflict", json!("update"))]), vec!["0/as"]),
        (json!([with("as", json!(""))]), vec!["0/as"]),
        (json!([with("as", json!("x".repeat(65)))]), vec!["0/as"]),
        (json!([with("as", json!(5))]), vec!["0/as"]),
        (json!([store("s"), create("Sale", None, sale("r", json!({"@ref": "s", "more": 1}), json!([])))]), vec!["1/object/storeId"]),
        (json!([store("s"), create("Sale", None, sale("r", json!({"ref": "s"}), json!([])))]), vec!["1/object/storeId"]),
        (json!([store("s"), create("Sale", None, sale("r", json!({"@ref": 5}), json!([])))]), vec!["1/object/storeId/@ref"]),
        // An attribute is no reference, whatever it holds.
        (json!([store("s"), create("Store", None, json!({"code": named("s")}))]), vec!["1/object/code"]),
    ];
    for (operations, pointers) in cases {
        let done = units(&api, json!([{"operations": operations}])).await;
        assert_eq!(statuses(&done), [422], "{operations} {done:?}");
        let errors = done[0]["problem"]["errors"].as_array().unwrap();
        let found: Vec<&str> = errors.iter().map(|fault| fault["pointer"].as_str().unwrap()).collect();
        let wanted: Vec<String> = pointers.iter().map(|pointer| format!("/units/0/operations/{pointer}")).collect();
        assert_eq!(found, wanted, "{operations}");
    }
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 0);
    // Outside of units nothing has a name.
    let answer = api.post("/api/shop/sales", &sale("r", named("s"), json!([line(named("s"))]))).await.expect(422);
    assert_eq!(answer.pointers(), ["/lines/0/productId", "/storeId"]);
}

#[tokio::test]
async fn objects_of_one_entity_refer_to_one_another_unless_in_a_circle() {
    let yaml = "apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {name: shop}\nspec:\n  entities:\n    - name: Person\n      plural: People\n      attributes: [{name: name, type: string, required: true}]\n      relationships: [{name: manager, target: Person}, {name: team, target: Team}]\n    - name: Team\n      attributes: [{name: name, type: string, required: true}]\n      relationships: [{name: lead, target: Person}]\n";
    let api = Api::with(yaml).await;
    let person = |name: &str, manager: Option<&str>, team: Option<&str>| {
        create("Person", Some(name), json!({"name": name, "managerId": manager.map(named), "teamId": team.map(named)}))
    };
    let team = |lead: Option<&str>| create("Team", Some("team"), json!({"name": "team", "leadId": lead.map(named)}));
    let done = units(
        &api,
        json!([
            {"operations": [person("a", Some("b"), None), person("b", Some("c"), Some("team")), person("c", None, None), person("self", Some("self"), None), team(Some("c"))]},
            {"operations": [person("d", Some("e"), None), person("e", Some("d"), None)]},
            {"operations": [person("f", None, Some("team")), team(Some("f"))]},
            {"operations": [person("g", None, Some("team")), team(None), {"op": "patch", "model": "shop", "entity": "Team", "id": named("team"), "object": {"leadId": named("g")}}]},
        ]),
    )
    .await;
    assert_eq!(statuses(&done), [200, 422, 422, 200], "{done:?}");
    for unit in [1, 2] {
        let fault = &done[unit]["problem"]["errors"][0];
        assert!(fault["pointer"].as_str().unwrap().starts_with(&format!("/units/{unit}/operations/")), "{fault}");
        assert!(fault["detail"].as_str().unwrap().contains("refers back"), "{fault}");
    }
    assert_eq!(api.number("SELECT count(*) FROM shop.person a JOIN shop.person b ON b.id = a.manager_id").await, 3);
    assert_eq!(api.number("SELECT count(*) FROM shop.team JOIN shop.person ON person.id = lead_id").await, 2);
}
