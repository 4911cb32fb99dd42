//! At rest the operator writes nothing, and what users apply stays theirs.

use autonomy_crds::{DataModel, DataPlatform};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;

use crate::support::{PLATFORM, SHOP, World, kubectl_path, run};

#[tokio::test]
async fn applying_the_same_again_changes_nothing_and_a_look_writes_nothing() {
    let world = World::start("quiet").await;
    world.apply(SHOP);
    let model: DataModel = world.ready("shop").await;
    let platform: DataPlatform = world.ready("default").await;
    let deployment = world.api::<Deployment>().get("default-relay").await.expect("the relay");

    // As Argo CD and Flux compare.
    for yaml in [SHOP, PLATFORM] {
        let arguments = ["diff", "--server-side", "--field-manager=e2e", "--force-conflicts", "-n", &world.namespace, "-f", "-"];
        let difference = run(kubectl_path(), &arguments, yaml);
        assert!(difference.status.success() && difference.stdout.is_empty(), "{}", String::from_utf8_lossy(&difference.stdout));
    }
    // An annotation asks for a look at both; another model that is Ready later shows that it was had.
    world.kubectl(&["annotate", "dm/shop", "dp/default", "e2e/look=1"]);
    world.apply(&SHOP.replace("name: shop", "name: other"));
    world.ready::<DataModel>("other").await;
    let later = world.api::<DataModel>().get("shop").await.expect("the model");
    assert_eq!(later.status, model.status);
    assert_eq!(
        world.api::<Deployment>().get("default-relay").await.expect("the relay").metadata.generation,
        deployment.metadata.generation
    );
    let managers: Vec<_> = later.managed_fields().iter().filter(|entry| entry.manager.as_deref() == Some("autonomy-operator")).collect();
    assert!(
        managers.iter().all(|entry| entry.subresource.as_deref() == Some("status")),
        "the operator has fields of the spec: {managers:?}"
    );
    assert_eq!(world.api::<DataPlatform>().get("default").await.expect("the platform").status, platform.status);
    world.end().await;
}
