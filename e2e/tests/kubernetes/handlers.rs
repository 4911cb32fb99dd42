//! Logic in a container of its own, beside the worker in the pod.

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
