//! What a resource depends on may come later, or go for a while: the reason is told at once, and it recovers by itself.

use autonomy_crds::{DataModel, DataPlatform, MicroService};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::support::{PLATFORM, SHOP, World, eventually};

const LOYALTY: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: loyalty}
spec:
  imports: [{model: shop, entities: [Sale]}]
  entities:
    - name: Accrual
      attributes: [{name: points, type: integer, required: true}]
      relationships: [{name: sale, target: Sale}]
";

const SERVICE: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: accrue}
spec:
  trigger: {queue: {model: shop, entity: Sale}}
  steps:
    - create: {model: loyalty, entity: Accrual, object: {points: '1', saleId: object.id}}
";

#[tokio::test]
async fn resources_applied_in_any_order_become_ready_when_the_last_one_is_there() {
    let world = World::without_platform("order").await;
    for name in ["autonomy-postgresql", "autonomy-nats"] {
        world.api::<Secret>().delete(name, &DeleteParams::default()).await.expect("deleted");
    }
    world.apply(SERVICE);
    world.not_ready::<MicroService>("accrue", "PlatformMissing").await;
    world.apply(LOYALTY);
    world.not_ready::<DataModel>("loyalty", "PlatformMissing").await;
    world.apply(PLATFORM);
    let message = world.not_ready::<DataPlatform>("default", "ReferenceMissing").await;
    assert!(message.contains("spec.postgresql.urlFrom: there is no Secret autonomy-postgresql"), "{message}");
    world.not_ready::<DataModel>("loyalty", "PlatformNotReady").await;

    world.add_secrets();
    world.ready::<DataPlatform>("default").await;
    let message = world.not_ready::<DataModel>("loyalty", "ModelMissing").await;
    assert!(message.contains("shop"), "{message}");
    world.not_ready::<MicroService>("accrue", "ModelMissing").await;

    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    world.ready::<DataModel>("loyalty").await;
    world.ready::<MicroService>("accrue").await;
    world.end().await;
}

#[tokio::test]
async fn an_invalid_model_is_told_with_every_field_and_recovers_when_it_is_corrected() {
    let world = World::start("invalid").await;
    world.apply(&LOYALTY.replace("target: Sale}]", "target: Sail}]").replace("type: integer", "type: integr"));
    world.apply(SHOP);
    let message = world.not_ready::<DataModel>("loyalty", "Invalid").await;
    assert!(message.contains("Sail") && message.contains("integr") && message.contains("spec.entities[0]"), "{message}");
    world.apply(LOYALTY);
    world.ready::<DataModel>("loyalty").await;
    world.end().await;
}

#[tokio::test]
async fn a_wrong_name_in_an_expression_is_told_with_its_path_before_anything_runs() {
    let world = World::start("expression").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    let service = |amount: &str| {
        format!(
            "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {{name: close}}
spec:
  config: {{limit: '${{env:LIMIT}}'}}
  trigger: {{queue: {{model: shop, entity: Sale, routing: [open]}}}}
  steps:
    - when: {amount} > 0.0
      patch: {{model: shop, entity: Sale, id: object.id, object: {{status: \"'closed'\"}}}}
"
        )
    };
    world.apply(&service("object.amuont"));
    let message = world.not_ready::<MicroService>("close", "Invalid").await;
    assert!(message.contains("spec.steps[0].when") && message.contains("amuont"), "{message}");
    assert!(
        world.api::<Deployment>().list(&ListParams::default().labels("app.kubernetes.io/component=worker")).await.unwrap().items.is_empty()
    );
    // What is in a variable is known to the worker only.
    world.apply(&service("object.amount").replace("${env:LIMIT}", "5"));
    world.ready::<MicroService>("close").await;
    // An edit that is wrong leaves the worker that runs as it is.
    world.apply(&service("object.amuont"));
    world.not_ready::<MicroService>("close", "Invalid").await;
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;
    eventually("the sale is closed", async || {
        let sales = world.ask("GET", "/api/shop/sales?status=closed", None).await.ok()?;
        sales.as_array().filter(|sales| sales.len() == 1).cloned()
    })
    .await;
    world.end().await;
}

#[tokio::test]
async fn a_wrong_password_or_server_is_told_and_recovers_when_the_secret_is_corrected() {
    let world = World::without_platform("secret").await;
    let secret =
        |name: &str, url: &str| format!("{{apiVersion: v1, kind: Secret, metadata: {{name: {name}}}, stringData: {{url: '{url}'}}}}");
    world.apply(&secret("autonomy-postgresql", "postgres://postgres:wrong@autonomy-postgresql.default.svc:5432/postgres"));
    world.apply(PLATFORM);
    let message = world.not_ready::<DataPlatform>("default", "DatabaseRefused").await;
    assert!(!message.contains("wrong@"), "a password is in the status: {message}");
    world.apply(&secret("autonomy-nats", "nats://u:p@nowhere.default.svc:4222"));
    world.not_ready::<DataPlatform>("default", "MessagingUnavailable").await;
    world.add_secrets();
    world.ready::<DataPlatform>("default").await;
    world.end().await;
}
