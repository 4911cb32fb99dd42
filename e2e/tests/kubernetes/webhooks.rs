//! Webhooks: MicroServices that come and go with their DataModel's declaration.

use autonomy_crds::{DataModel, MicroService};
use kube::ResourceExt;
use serde_json::json;

use crate::support::{SHOP, World, eventually};

// The object API does not take CloudEvents: each event is refused for good.
const WEBHOOK: &str = "
  webhooks:
    - name: audit
      entity: Sale
      operations: [created]
      url: http://default-api:8080/api/shop/sales
      signingSecretFrom: {secretName: audit, key: signing}
";

#[tokio::test]
async fn a_webhook_is_a_service_of_its_model_that_waits_for_its_secret_and_goes_when_it_is_taken_away() {
    let world = World::start("webhooks").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    world.apply(&format!("{}{WEBHOOK}", SHOP.trim_end()));
    let told = |model: &DataModel, ready: bool, what: &str| {
        let webhooks = model.status.as_ref().map(|status| status.webhooks.clone()).unwrap_or_default();
        webhooks.iter().any(|webhook| {
            webhook.service == "shop-webhook-audit" && webhook.ready == ready && webhook.message.clone().unwrap_or_default().contains(what)
        })
    };
    world.until::<DataModel>("shop", "the model tells what its webhook waits for", |model| told(model, false, "Secret audit")).await;
    world.apply("{apiVersion: v1, kind: Secret, metadata: {name: audit}, stringData: {signing: whsec_c2VjcmV0}}");
    let service = world.ready::<MicroService>("shop-webhook-audit").await;
    assert_eq!(service.owner_references()[0].name, "shop");
    let since = service.spec.trigger.queue.and_then(|queue| queue.since).expect("the moment from which it sends");
    world.until::<DataModel>("shop", "the model tells that its webhook sends", |model| told(model, true, "")).await;

    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;
    let metrics = format!("/api/v1/namespaces/{}/services/http:shop-webhook-audit-worker:metrics/proxy/metrics", world.namespace);
    eventually("the event is sent, refused and kept", async || {
        let request = http::Request::get(&metrics).body(Vec::new()).ok()?;
        let text = world.client.request_text(request).await.ok()?;
        text.contains("autonomy_worker_events_dead_lettered_total 1").then_some(())
    })
    .await;

    // A change of the webhook keeps its place; taken away, its service goes.
    world.apply(&format!("{}{WEBHOOK}", SHOP.trim_end()).replace("[created]", "[created, deleted]"));
    let changed = world
        .until::<MicroService>("shop-webhook-audit", "the webhook's service is changed", |service| {
            service.spec.trigger.queue.as_ref().is_some_and(|queue| queue.operations.len() == 2)
        })
        .await;
    assert_eq!(changed.spec.trigger.queue.and_then(|queue| queue.since), Some(since));
    world.apply(SHOP);
    world.gone::<MicroService>("shop-webhook-audit").await;
    world
        .until::<DataModel>("shop", "the model has no webhook", |model| {
            model.status.as_ref().is_some_and(|status| status.webhooks.is_empty())
        })
        .await;
    world.end().await;
}
