//! Scaling: workers by what waits, down to none and back; the API by its load.

use autonomy_crds::{DataModel, DataPlatform, MicroService};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
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

#[tokio::test]
async fn the_first_event_starts_the_first_worker_with_keda_and_without() {
    let world = World::start("wake").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    world.apply(&format!("{CLOSE}  scaling:\n    autoscaling: {{minReplicas: 0, maxReplicas: 2, cooldownSeconds: 5}}\n"));
    world.ready::<MicroService>("close").await;
    let pods = |wanted: i32| {
        move |deployment: &Deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(wanted) && status.replicas.unwrap_or(0) == wanted
        }
    };
    // Twice: what ended a worker has to listen again.
    for receipt in ["1", "2"] {
        world.until("close-worker", "without a worker", pods(0)).await;
        // The operator has seen that there is none, and listens.
        world
            .until("close", "without workers", |service: &MicroService| {
                service.status.as_ref().is_some_and(|status| status.replicas == Some(0) && status.ready_replicas == Some(0))
            })
            .await;
        let begun = std::time::Instant::now();
        world.call("POST", "/api/shop/sales", Some(&json!({"receipt": receipt, "amount": 1.5}))).await;
        let woken = world.until("close-worker", "with a worker", |deployment: &Deployment| {
            deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(1)
        });
        let woken = woken.await;
        println!("the first worker was started {:?} after the event", begun.elapsed());
        if world.client.list_api_group_resources("keda.sh/v1alpha1").await.is_err() {
            let managers = woken.metadata.managed_fields.unwrap_or_default();
            assert!(managers.iter().any(|entry| entry.manager.as_deref() == Some("autonomy-operator-activation")), "{managers:?}");
        }
        eventually("the worker handled it", async || {
            let sales = world.ask("GET", &format!("/api/shop/sales?status=closed&receipt={receipt}"), None).await.ok()?;
            sales.as_array().filter(|sales| !sales.is_empty()).cloned()
        })
        .await;
    }
    // A suspended service is not woken: its event waits.
    world.until("close-worker", "without a worker", pods(0)).await;
    world.apply(&format!("{CLOSE}  suspend: true\n  scaling:\n    autoscaling: {{minReplicas: 0, maxReplicas: 2, cooldownSeconds: 5}}\n"));
    world
        .until("close", "suspended", |service: &MicroService| {
            let conditions = service.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            conditions.iter().any(|condition| condition.reason == "Suspended")
        })
        .await;
    // A pod that ends works to its end.
    let pods = world.api::<Pod>();
    let of_workers = ListParams::default().labels("app.kubernetes.io/component=worker");
    eventually("no worker is left", async || pods.list(&of_workers).await.ok()?.items.is_empty().then_some(())).await;
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "3", "amount": 1.5}))).await;
    world
        .until("close", "with an event that waits", |service: &MicroService| {
            service.status.as_ref().is_some_and(|status| status.lag == Some(1))
        })
        .await;
    let deployment = world.api::<Deployment>().get("close-worker").await.expect("the worker's Deployment");
    assert_eq!(deployment.spec.and_then(|spec| spec.replicas), Some(0));
    world.end().await;
}
