//! At rest the operator writes nothing, and what users apply stays theirs.

use autonomy_crds::{DataModel, DataPlatform, MicroService};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;

use crate::support::{CLOSE, PLATFORM, SHOP, World, kubectl_path, run};

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

#[tokio::test]
async fn a_worker_is_started_anew_only_by_what_its_own_spec_names() {
    let world = World::start("restart").await;
    let with_store = |attributes: &str| format!("{SHOP}    - {{name: Store, attributes: [{attributes}]}}\n");
    world.apply(&with_store("{name: code, type: string}"));
    let reopen = CLOSE.replace("name: close", "name: reopen").replace("[open]", "[closed]");
    let reopen = reopen.replace("routing: [closed]", "routing: [closed], filter: object.receipt == '7'").replace("'closed'", "'open'");
    for (name, yaml) in [("close", CLOSE), ("reopen", reopen.as_str())] {
        world.apply(yaml);
        world.ready::<MicroService>(name).await;
    }
    let template = async |name: &str| {
        let deployment = world.api::<Deployment>().get(name).await.expect("the worker");
        deployment.spec.expect("a spec").template
    };
    let (close, other) = (template("close-worker").await, template("reopen-worker").await);

    // Another entity of the model, the platform's API and the other service change; the last one applied shows that all were looked at.
    world.apply(&with_store("{name: code, type: string}, {name: town, type: string}"));
    world.until("shop", "at revision 2", |model: &DataModel| model.status.as_ref().is_some_and(|status| status.revision == Some(2))).await;
    world.apply(&PLATFORM.replace("replicas: 1", "replicas: 2"));
    world.apply(&CLOSE.replace("'closed'", "'done'"));
    let changed = |deployment: &Deployment| deployment.spec.as_ref().is_some_and(|spec| spec.template != close);
    world.until("close-worker", "with the new steps", changed).await;
    world.kubectl(&["annotate", "ms/reopen", "e2e/look=1"]);
    world.ready::<MicroService>("close").await;
    world.ready::<MicroService>("reopen").await;
    assert_eq!(template("reopen-worker").await, other);
    world.end().await;
}
