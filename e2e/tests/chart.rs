//! The chart: installed by `e2e/run`, tested, upgraded, uninstalled and installed again, with everything that it holds kept.

#[path = "kubernetes/support.rs"]
#[allow(dead_code)]
mod support;

use autonomy_crds::{DataModel, DataPlatform};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use kube::{Client, ResourceExt};
use serde_json::json;

use support::{PLATFORM, RELEASE_NAMESPACE, SHOP, World, eventually, kubectl, leader, succeed, tool};

const INSTALL: [&str; 12] = [
    "upgrade",
    "--install",
    "autonomy",
    "charts/autonomy",
    "--namespace",
    RELEASE_NAMESPACE,
    "--wait",
    "--timeout=3m",
    "--set=bundled.enabled=true,images.tag=dev",
    "--set=operator.environment[0].name=AUTONOMY_RESYNC",
    "--set=operator.environment[0].value=10s",
    "--set=operator.log=debug",
];

#[tokio::test]
async fn an_upgrade_and_an_uninstall_keep_resources_data_and_what_runs() {
    let helm = tool("helm");
    let world = World::start("chart").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;
    succeed(&helm, &["test", "autonomy", "--namespace", RELEASE_NAMESPACE], "");

    let passwords =
        || kubectl(&["get", "secret", "-n", RELEASE_NAMESPACE, "autonomy-postgresql", "autonomy-nats", "-o", "jsonpath={.items[*].data}"]);
    let (before, api) = (passwords(), world.api::<Deployment>().get("default-api").await.expect("the API"));
    succeed(&helm, &INSTALL, "");
    eventually("an operator leads after the upgrade", async || leader(&world.client).await).await;
    assert_eq!(passwords(), before);

    succeed(&helm, &["uninstall", "autonomy", "--namespace", RELEASE_NAMESPACE, "--wait"], "");
    let operators: Api<Deployment> = Api::namespaced(world.client.clone(), RELEASE_NAMESPACE);
    assert!(operators.get_opt("autonomy-operator").await.expect("an answer").is_none());
    assert!(world.api::<DataModel>().get_opt("shop").await.expect("an answer").is_some(), "the CRDs and the resources stay");
    let kept = world.api::<Deployment>().get("default-api").await.expect("the API stays");
    assert_eq!(kept.uid(), api.uid());

    a_release_of_one_namespace_with_three_nats_servers_works(&world.client).await;

    succeed(&helm, &INSTALL, "");
    world.kubectl(&["annotate", "dp/default", "dm/shop", "e2e/look=1"]);
    world.ready::<DataPlatform>("default").await;
    world.ready::<DataModel>("shop").await;
    eventually("the data are there", async || {
        let sales = world.ask("GET", "/api/shop/sales", None).await.ok()?;
        (sales[0]["receipt"] == "1").then_some(())
    })
    .await;
    world.end().await;
}

// While no other operator looks after all namespaces.
async fn a_release_of_one_namespace_with_three_nats_servers_works(client: &Client) {
    let helm = tool("helm");
    let name = format!("e2e-three-{:05x}", rand::random::<u32>() & 0xf_ffff);
    let world = World { client: client.clone(), namespace: name.clone(), database: "autonomy".to_owned() };
    let pods = "pod-security.kubernetes.io/enforce: restricted";
    world.apply_raw(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{pods}}}}}}}"));
    let watched = format!("--set=watchNamespaces={{{name}}}");
    let options = "--set=crds.install=false,images.tag=dev,bundled.enabled=true,bundled.nats.replicas=3";
    succeed(&helm, &["install", "autonomy", "charts/autonomy", "--namespace", &name, "--wait", "--timeout=3m", options, &watched], "");
    world.apply(&PLATFORM.replace("syncInterval", "replicas: 3, syncInterval"));
    world.apply(SHOP);
    let model = world.ready::<DataModel>("shop").await;
    let stream = model.status.and_then(|status| status.stream).expect("a stream");
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;
    let told = format!("/api/v1/namespaces/{name}/pods/autonomy-nats-0:8222/proxy/jsz?streams=true&config=true");
    eventually("the event is in a stream of three replicas", async || {
        let told = kubectl(&["get", "--raw", &told]);
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let mut streams = told["account_details"][0]["stream_detail"].as_array()?.iter();
        let found = streams.find(|found| found["name"] == stream.as_str())?;
        (found["config"]["num_replicas"] == 3 && found["state"]["messages"] == 1).then_some(())
    })
    .await;
    kubectl(&["delete", "-n", &name, "dm,dp", "--all", "--wait=true"]);
    kubectl(&["delete", "namespace", &name, "--wait=false"]);
}
