//! Deleting resources: nothing outside the cluster goes with them by default, and everything with `deletionPolicy: Delete`.

use autonomy_crds::{DataModel, DataPlatform};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use crate::support::{PLATFORM, SHOP, World, eventually};

fn with_delete(yaml: &str) -> String {
    yaml.replace("spec:\n", "spec:\n  deletionPolicy: Delete\n")
}

#[tokio::test]
async fn a_deleted_model_keeps_its_data_and_takes_it_over_again() {
    let world = World::start("retain").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;
    world.kubectl(&["delete", "dm", "shop", "--wait=true"]);
    world.gone::<DataModel>("shop").await;
    assert_eq!(world.sql("SELECT count(*) FROM shop.sale"), "1");
    world.call("GET", "/api/shop/sales", None).await;
    world.apply(SHOP);
    let again: DataModel = world.ready("shop").await;
    assert_eq!(again.status.and_then(|status| status.revision), Some(1), "there was nothing to change");
    world.end().await;
}

#[tokio::test]
async fn with_deletion_policy_delete_schema_roles_and_stream_go_and_the_rest_works_on() {
    let world = World::start("delete").await;
    world.apply(&with_delete(SHOP));
    world.apply(&SHOP.replace("name: shop", "name: other"));
    let importer = "{apiVersion: autonomy.dev/v1alpha1, kind: DataModel, metadata: {name: loyalty}, spec: {imports: [{model: shop, entities: [Sale]}], \
                    entities: [{name: Accrual, relationships: [{name: sale, target: Sale}]}]}}";
    world.apply(importer);
    for name in ["shop", "other", "loyalty"] {
        world.ready::<DataModel>(name).await;
    }
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;
    world.kubectl(&["delete", "dm", "shop", "--wait=false"]);
    let message = world.not_ready::<DataModel>("shop", "StillInUse").await;
    assert!(message.contains("loyalty"), "{message}");
    assert_eq!(world.sql("SELECT count(*) FROM shop.sale"), "1");

    world.apply(&importer.replace("spec: {", "spec: {deletionPolicy: Delete, "));
    world.ready::<DataModel>("loyalty").await;
    world.kubectl(&["delete", "dm", "loyalty", "--wait=true"]);
    world.gone::<DataModel>("shop").await;
    assert_eq!(world.sql("SELECT count(*) FROM pg_namespace WHERE nspname IN ('shop', 'loyalty')"), "0");
    assert_eq!(world.sql(&format!("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'autonomy_{}_shop_%'", world.namespace)), "0");

    // API and relay go on with the other model, and take a model of the same name as a new one.
    world.apply(&SHOP.replace("precision: 12", "precision: 14"));
    world.ready::<DataModel>("shop").await;
    eventually("the new model is served", async || {
        world.ask("POST", "/api/shop/sales", Some(&json!({"receipt": "2", "amount": 1.5}))).await.ok()
    })
    .await;
    world.call("POST", "/api/other/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;
    eventually("the relay publishes the new model's changes", async || {
        let log = world.sql("SELECT last_sequence FROM autonomy.relay_stream WHERE stream LIKE '%\\_SHOP'");
        (log == "1").then_some(())
    })
    .await;
    world.end().await;
}

#[tokio::test]
async fn a_platform_deleted_with_policy_delete_leaves_no_slot_and_no_role() {
    let world = World::without_platform("platform").await;
    world.apply(&with_delete(PLATFORM));
    world.ready::<DataPlatform>("default").await;
    world.apply(&with_delete(SHOP));
    world.ready::<DataModel>("shop").await;
    world.kubectl(&["delete", "dp", "default", "--wait=false"]);
    let message = world.not_ready::<DataPlatform>("default", "StillInUse").await;
    assert!(message.contains("shop"), "{message}");
    world.kubectl(&["delete", "dm", "shop", "--wait=true"]);
    world.gone::<DataPlatform>("default").await;
    world.gone::<Deployment>("default-relay").await;
    assert_eq!(world.sql(&format!("SELECT count(*) FROM pg_replication_slots WHERE database = '{}'", world.database)), "0");
    assert_eq!(world.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'autonomy'"), "0");
    assert_eq!(world.sql(&format!("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'autonomy_{}_%'", world.database)), "0");
    world.end().await;
}
