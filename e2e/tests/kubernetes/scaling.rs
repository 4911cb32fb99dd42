//! Scaling: workers by what waits, down to none and back; the API by its load.

use autonomy_crds::{DataModel, DataPlatform, MicroService};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::Api;
use kube::core::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;

use crate::support::{CLOSE, PLATFORM, SHOP, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn the_api_gets_more_pods_under_load() {
    let world = World::without_platform("hpa").await;
    world.apply(&PLATFORM.replace(
        "api: {replicas: 1}",
        "api: {replicas: 1, autoscaling: {maxReplicas: 3, targetCpuUtilizationPercentage: 10}, resources: {requests: {cpu: 20m}}}",
    ));
    world.ready::<DataPlatform>("default").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    let world = std::sync::Arc::new(world);
    let load: Vec<_> = (0..8)
        .map(|writer| {
            let world = world.clone();
            tokio::spawn(async move {
                for number in 0u64.. {
                    let sales: Vec<_> =
                        (0..200).map(|sale| json!({"receipt": format!("{writer}-{number}-{sale}"), "amount": 1.5})).collect();
                    // Pods that come and go are no concern of this test.
                    let _ = world.ask("POST", "/api/shop/sales?onConflict=ignore", Some(&json!(sales))).await;
                }
            })
        })
        .collect();
    world
        .until("default-api", "scaled out", |autoscaler: &HorizontalPodAutoscaler| {
            autoscaler.status.as_ref().is_some_and(|status| status.desired_replicas > 1)
        })
        .await;
    world
        .until("default-api", "at more than one pod", |deployment: &Deployment| {
            deployment.status.as_ref().is_some_and(|status| status.ready_replicas.unwrap_or(0) > 1)
        })
        .await;
    for writer in load {
        writer.abort();
        let _ = writer.await;
    }
    // The operator leaves the number to the autoscaler.
    world.kubectl(&["annotate", "dp", "default", "e2e/look=1"]);
    world.ready::<DataPlatform>("default").await;
    let deployment = world.api::<Deployment>().get("default-api").await.expect("the API");
    assert!(deployment.spec.and_then(|spec| spec.replicas).is_some_and(|replicas| replicas > 1));
    std::sync::Arc::into_inner(world).expect("nobody else has it").end().await;
}

#[tokio::test]
async fn workers_scale_from_none_by_what_waits_and_back() {
    let world = World::start("lag").await;
    if world.client.list_api_group_resources("external.metrics.k8s.io/v1beta1").await.is_err() {
        // `e2e/run` has said so.
        println!("KEDA is not in this cluster: scaling by lag is not tested");
        return world.end().await;
    }
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    let autoscaling = "{minReplicas: 0, maxReplicas: 2, eventsPerWorker: 1000, cooldownSeconds: 5}";
    world.apply(&format!("{CLOSE}  scaling:\n    autoscaling: {autoscaling}\n"));
    world.ready::<MicroService>("close").await;
    let none = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0);
    world.until("close-worker", "without a worker", none).await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"));
    let scaled: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &kind);
    assert!(scaled.get("close-worker").await.is_ok());
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;
    eventually("a worker came and handled it", async || {
        let sales = world.ask("GET", "/api/shop/sales?status=closed", None).await.ok()?;
        sales.as_array().filter(|sales| !sales.is_empty()).cloned()
    })
    .await;
    world.until("close-worker", "without a worker again", none).await;
    world.end().await;
}
