//! The loyalty case, all inside the cluster: applied with one command, a trading day run through it, counted as expected.

use autonomy_crds::{DataModel, DataPlatform, MicroService};
use k8s_openapi::api::batch::v1::Job;

use crate::support::{World, kubectl_path, succeed};

#[tokio::test]
async fn the_loyalty_case_applied_with_kubectl_counts_as_expected() {
    let world = World::without_platform("loyalty").await;
    succeed(kubectl_path(), &["apply", "-n", &world.namespace, "-k", "examples/retail-loyalty"], "");
    world.ready::<DataPlatform>("default").await;
    for model in ["common-business-entities", "retail"] {
        world.ready::<DataModel>(model).await;
    }
    for service in ["store-file-loader", "loyalty-accrual", "ledger", "ledger-export", "account-invoice"] {
        world.ready::<MicroService>(service).await;
    }
    let ended = |job: &Job| {
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| (condition.type_ == "Complete" || condition.type_ == "Failed") && condition.status == "True")
    };
    world.until("trading-day", "at its end", ended).await;
    let log = world.kubectl(&["logs", "job/trading-day", "-c", "trading-day"]);
    let summary: serde_json::Value = serde_json::from_str(log.trim().lines().last().unwrap_or_default()).expect("a summary");
    assert_eq!(summary["ok"], true, "{log}");
    assert!(summary["counted"]["sales"]["count"].as_u64().is_some_and(|sales| sales > 4_000), "{log}");
    let status = std::process::Command::new(autonomy_e2e::binary("autonomy"))
        .args(["status", "--cluster", "-n", &world.namespace])
        .output()
        .expect("autonomy status");
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(
        status.status.success() && text.contains("loyalty-accrual") && text.contains("64 dead letters"),
        "{text}{}",
        String::from_utf8_lossy(&status.stderr)
    );
    world.end().await;
}
