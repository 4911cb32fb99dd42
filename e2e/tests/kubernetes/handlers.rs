//! Logic in a container of its own, beside the worker in the pod, and in a worker of its own.

use autonomy_crds::{DataModel, MicroService};
use serde_json::json;

use crate::support::{SHOP, World, eventually};

#[tokio::test]
async fn a_handler_container_beside_the_worker_gets_events_and_its_answer_is_written() {
    let world = World::start("handler").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    world.apply(
        "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: close}
spec:
  trigger: {queue: {model: shop, entity: Sale, routing: [open]}}
  handler:
    http:
      image: autonomy.dev/demo:dev
      args: [handler, --attribute=status, --value=closed]
",
    );
    world.ready::<MicroService>("close").await;
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;
    eventually("the handler closed the sale", async || {
        let sales = world.ask("GET", "/api/shop/sales?status=closed", None).await.ok()?;
        sales.as_array().filter(|sales| sales.len() == 1).cloned()
    })
    .await;
    world.end().await;
}

#[tokio::test]
async fn a_worker_with_logic_in_rust_takes_the_place_of_the_platforms_own() {
    let world = World::start("embedded").await;
    world.apply(include_str!("../../../examples/handlers/model.yaml"));
    world.ready::<DataModel>("desk").await;
    let service = include_str!("../../../examples/handlers/rust/service.yaml");
    assert!(service.contains("image: example.org/triage-worker:1"));
    world.apply(&service.replace("image: example.org/triage-worker:1", "image: autonomy.dev/triage:dev"));
    world.ready::<MicroService>("triage").await;
    world.call("POST", "/api/desk/customers", Some(&json!({"number": "C1", "contract": "premium"}))).await;
    world.call("POST", "/api/desk/tickets", Some(&json!({"customerNumber": "C1", "subject": "How do I print?"}))).await;
    eventually("the ticket is triaged", async || {
        let tickets = world.ask("GET", "/api/desk/tickets?priority=urgent", None).await.ok()?;
        tickets.as_array().filter(|tickets| tickets.len() == 1).cloned()
    })
    .await;
    world.end().await;
}
