//! What is changed by hand is made good, or told loudly where data are concerned.

use autonomy::cluster::Cluster;
use autonomy_crds::DataModel;
use autonomy_process::options::nats_connect_options;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{SHOP, World, eventually};

#[tokio::test]
async fn changed_and_deleted_objects_in_the_cluster_are_made_good() {
    let world = World::start("objects").await;
    let before = world.api::<Deployment>().get("default-api").await.expect("the API");
    let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "api", "args": ["nonsense"]}]}}}});
    world.api::<Deployment>().patch("default-api", &PatchParams::default(), &Patch::Strategic(&change)).await.expect("changed");
    world
        .until("default-api", "as before", |deployment: &Deployment| {
            deployment.metadata.generation > before.metadata.generation && arguments(deployment) == arguments(&before)
        })
        .await;
    let service = world.api::<Service>().get("default-api").await.expect("the Service");
    world.api::<Service>().delete("default-api", &DeleteParams::default()).await.expect("deleted");
    world.until("default-api", "made again", |again: &Service| again.uid() != service.uid()).await;
    world.end().await;
}

fn arguments(deployment: &Deployment) -> Option<Vec<String>> {
    deployment.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.args.clone()
}

#[tokio::test]
async fn a_dropped_index_and_grant_and_a_deleted_stream_are_made_good() {
    let world = World::start("drift").await;
    let model = SHOP.replace("      events:", "      indexes: [{attributes: [amount]}]\n      events:");
    world.apply(&model);
    world.ready::<DataModel>("shop").await;
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;
    let index = world.sql("SELECT indexname FROM pg_indexes WHERE schemaname = 'shop' AND indexdef LIKE '%(amount)%'");
    let writer = format!("autonomy_{}_shop_writer", world.namespace);
    world.sql(&format!("DROP INDEX shop.\"{index}\"; REVOKE INSERT ON shop.sale FROM \"{writer}\""));

    let cluster = Cluster::connect(Some(&world.namespace)).await.expect("the cluster");
    let nats = cluster.nats("default").await.expect("a way to NATS");
    let client = nats_connect_options(&nats.url).expect("options").ignore_discovered_servers().connect(&nats.url).await.expect("NATS");
    let jetstream = async_nats::jetstream::new(client);
    let stream = format!("{}_SHOP", world.namespace.to_uppercase());
    eventually("the event is in the stream", async || {
        let mut stream = jetstream.get_stream(&stream).await.ok()?;
        (stream.info().await.ok()?.state.messages == 1).then_some(())
    })
    .await;
    jetstream.delete_stream(&stream).await.expect("deleted");

    // A look is asked for by any change; without one the operator looks at the next resync.
    world.kubectl(&["annotate", "dm", "shop", "e2e/look=1"]);
    eventually("the index is there", async || {
        (world.sql(&format!("SELECT count(*) FROM pg_indexes WHERE indexname = '{index}'")) == "1").then_some(())
    })
    .await;
    eventually("the grant is there", async || {
        world.ask("POST", "/api/shop/sales", Some(&json!({"receipt": "2", "amount": 1.5}))).await.ok()
    })
    .await;
    eventually("the stream is there with every object", async || {
        let mut stream = jetstream.get_stream(&stream).await.ok()?;
        (stream.info().await.ok()?.state.messages == 2).then_some(())
    })
    .await;
    let events = world.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]);
    assert!(events.contains("DriftRepaired"), "{events}");
    world.end().await;
}

#[tokio::test]
async fn a_dropped_column_is_told_loudly_and_never_made_again_empty() {
    let world = World::start("dropped").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    world.sql("ALTER TABLE shop.sale DROP COLUMN amount");
    world.kubectl(&["annotate", "dm", "shop", "e2e/look=1"]);
    let message = world.not_ready::<DataModel>("shop", "Drifted").await;
    assert!(message.contains("column sale.amount is not there"), "{message}");
    let missing =
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'shop' AND table_name = 'sale' AND column_name = 'amount'";
    assert_eq!(world.sql(missing), "0");
    // Put right by hand, it recovers by itself.
    world.sql(
        "ALTER TABLE shop.sale ADD COLUMN amount numeric(12, 2) NOT NULL DEFAULT 0; ALTER TABLE shop.sale ALTER COLUMN amount DROP DEFAULT",
    );
    world.ready::<DataModel>("shop").await;
    world.end().await;
}
