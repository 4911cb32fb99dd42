//! What a MicroService's status tells while it runs, and that nothing is written when nothing changes.

use autonomy_crds::{DataModel, MicroService};
use kube::ResourceExt;
use serde_json::json;

use crate::support::{CLOSE, SHOP, World};

// Fails for good on one receipt.
const REFUSE: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: refuse}
spec:
  trigger: {queue: {model: shop, entity: Sale, operations: [created], filter: object.receipt == 'bad'}}
  steps:
    - fail: {reason: \"'a bad receipt'\"}
";

#[tokio::test]
async fn a_service_tells_what_waits_its_dead_letters_and_its_last_error() {
    let world = World::start("status").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    world.apply(REFUSE);
    world.ready::<MicroService>("refuse").await;
    for receipt in ["good", "bad"] {
        world.call("POST", "/api/shop/sales", Some(&json!({"receipt": receipt, "amount": 1.5}))).await;
    }
    let told = |service: &MicroService| {
        let status = service.status.clone().unwrap_or_default();
        let error = status.last_error.unwrap_or_default();
        status.lag == Some(0) && status.dead_letters == Some(1) && error.dead_letter && error.message.contains("a bad receipt")
    };
    let service = world.until::<MicroService>("refuse", "with a dead letter and its error", told).await;
    let error = service.status.as_ref().and_then(|status| status.last_error.clone()).expect("the last error");
    assert!(!error.time.is_empty() && error.event_id.len() == 25, "{error:?}");
    let columns = world.kubectl(&["get", "ms", "refuse"]);
    assert!(columns.contains("LAG") && columns.contains("DEAD"), "{columns}");

    // A look of the operator takes nothing away, and the two that write leave each other's members alone.
    world.kubectl(&["annotate", "ms/refuse", "e2e/look=1"]);
    // Another service that was seen later shows that all were looked at; this one, at rest, was not written.
    let before = world.ready::<MicroService>("refuse").await;
    world.apply(CLOSE);
    world.until("close", "looked at", |service: &MicroService| service.status.as_ref().is_some_and(|status| status.lag == Some(0))).await;
    let after = world.api::<MicroService>().get("refuse").await.expect("the service");
    assert_eq!(after.status, before.status);
    assert_eq!(after.resource_version(), before.resource_version(), "nothing is written at rest");
    assert!(told(&after));
    world.end().await;
}
