//! One operator leads; when it is killed, wherever it is, another one finishes what it began.

use autonomy_crds::DataModel;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams};

use crate::support::{RELEASE_NAMESPACE, SHOP, World, eventually, leader};

/// How many models are applied while leaders are killed.
const MODELS: usize = 12;
const KILLS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn leaders_killed_in_the_middle_of_reconciling_lose_nothing() {
    let world = World::start("leader").await;
    // On a thread of its own: kubectl keeps this one busy.
    let killer = std::thread::spawn(|| tokio::runtime::Runtime::new().expect("a runtime").block_on(kill_leaders()));
    for number in 0..MODELS {
        world.apply(&SHOP.replace("name: shop", &format!("name: shop{number}")));
        // A second change of each while the first may be under way.
        let wider = SHOP.replace("- {name: status,", "- {name: cashier, type: string, maxLength: 60}\n        - {name: status,");
        world.apply(&wider.replace("name: shop", &format!("name: shop{number}")));
    }
    for number in 0..MODELS {
        world.ready::<DataModel>(&format!("shop{number}")).await;
    }
    killer.join().expect("leaders were killed");
    for number in 0..MODELS {
        world.kubectl(&["annotate", "dm", &format!("shop{number}"), "e2e/look=1"]);
        world.ready::<DataModel>(&format!("shop{number}")).await;
    }
    let cashiers = world.sql("SELECT count(*) FROM information_schema.columns WHERE table_name = 'sale' AND column_name = 'cashier'");
    assert_eq!(cashiers, MODELS.to_string());
    let states = world.kubectl(&["get", "mig", "-o", "jsonpath={range .items[*]}{.status.state}{'\\n'}{end}"]);
    assert!(states.lines().all(|state| state == "Applied" || state == "Superseded"), "{states}");
    assert!(states.lines().filter(|state| *state == "Applied").count() >= MODELS, "{states}");
    world.end().await;
}

async fn kill_leaders() {
    let client = Client::try_default().await.expect("a cluster");
    let pods: Api<Pod> = Api::namespaced(client.clone(), RELEASE_NAMESPACE);
    for _ in 0..KILLS {
        let name = eventually("an operator leads", async || leader(&client).await).await;
        // Without a grace period: as a node's failure does it, in the middle of whatever is done.
        pods.delete(&name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.expect("killed");
        eventually("another one leads", async || leader(&client).await.filter(|other| *other != name)).await;
    }
}
