//! Suspend and resume.

use autonomy_crds::{DataModel, MicroService};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use crate::support::{CLOSE, SHOP, World, eventually};

fn suspended(yaml: &str, suspend: bool) -> String {
    yaml.replace("spec:\n", &format!("spec:\n  suspend: {suspend}\n"))
}

#[tokio::test]
async fn a_suspended_service_handles_nothing_and_goes_on_where_it_was() {
    let world = World::start("suspend").await;
    world.apply(SHOP);
    world.apply(&suspended(CLOSE, true));
    let service: MicroService = world.ready("close").await;
    assert_eq!(service.status.and_then(|status| status.replicas), Some(0));
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;

    world.apply(&suspended(CLOSE, false));
    world.ready::<MicroService>("close").await;
    let closed = async || {
        let sales = world.ask("GET", "/api/shop/sales?status=closed", None).await.ok()?;
        sales.as_array().filter(|sales| !sales.is_empty()).cloned()
    };
    eventually("the sale that waited is handled", closed).await;

    world.apply(&suspended(CLOSE, true));
    world
        .until("close-worker", "without pods", |deployment: &Deployment| {
            deployment
                .status
                .as_ref()
                .is_some_and(|status| status.replicas.unwrap_or(0) == 0 && status.observed_generation == deployment.metadata.generation)
        })
        .await;
    world.end().await;
}

#[tokio::test]
async fn a_suspended_model_is_left_as_it_is() {
    let world = World::start("held").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    let wider = SHOP.replace("- {name: status,", "- {name: cashier, type: string, maxLength: 60}\n        - {name: status,");
    world.apply(&suspended(&wider, true));
    // Another resource applied later is Ready, so the operator has passed this one.
    world.apply(&SHOP.replace("name: shop", "name: other"));
    world.ready::<DataModel>("other").await;
    assert_eq!(world.sql("SELECT count(*) FROM information_schema.columns WHERE table_schema = 'shop' AND column_name = 'cashier'"), "0");
    world.apply(&suspended(&wider, false));
    world.until("shop", "at revision 2", |model: &DataModel| model.status.as_ref().is_some_and(|status| status.revision == Some(2))).await;
    assert_eq!(world.sql("SELECT count(*) FROM information_schema.columns WHERE table_schema = 'shop' AND column_name = 'cashier'"), "1");
    world.end().await;
}
