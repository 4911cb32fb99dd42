//! Subscriptions without NATS. With it they are tested where there is a relay: `runtime/worker/tests/subscriptions.rs`.

use autonomy_api::events::EventOptions;
use reqwest::Method;

use crate::support::Api;

#[tokio::test]
async fn without_nats_nobody_can_subscribe_and_all_else_is_served() {
    let api = Api::start().await;
    // Nothing listens there.
    let away = EventOptions { nats_url: Some("nats://127.0.0.1:1".to_owned()), ..EventOptions::default() };
    let away = api.another_with(away).await;
    for base in [&api.base, &away] {
        let get = async |path: &str| api.send_to(base, Method::GET, path, &[], None).await;
        get("/api/shop/stores/events").await.expect(503);
        assert_eq!(get("/api/shop/stores/events?rank=x&colour=red").await.expect(400).faults().len(), 2);
        get("/api/shop/stores").await.expect(200);
        get("/readyz").await.expect(200);
    }
    assert_eq!(api.send_to(&away, Method::GET, "/api/shop/stores/events", &[], None).await.header("retry-after"), "10");
    api.send(Method::DELETE, "/api/shop/stores/events", &[], None).await.expect(405);
}

#[tokio::test]
async fn the_description_has_every_entitys_events() {
    let api = Api::start().await;
    let document = api.get("/api/shop/openapi.json").await.expect(200).json();
    let operation = &document["paths"]["/api/shop/sales/events"]["get"];
    assert_eq!(operation["operationId"], "followSale");
    let parameters = operation["parameters"].as_array().unwrap();
    let has = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
    assert!(has("Last-Event-ID") && has("operation") && has("from") && has("total.gt") && !has("limit") && !has("notes"));
    assert!(operation["responses"]["200"]["content"]["text/event-stream"].is_object());
    assert!(document["components"]["schemas"]["CloudEvent"]["properties"]["causationid"].is_object());
}
