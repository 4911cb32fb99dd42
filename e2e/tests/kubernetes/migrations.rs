//! Changes of a model: safe ones run by themselves beside a running load, hazardous ones wait for their approval.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use autonomy_crds::migration::MigrationState;
use autonomy_crds::{DataModel, Migration};
use serde_json::json;

use crate::support::{SHOP, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_additive_change_under_load_fails_no_request() {
    let world = Arc::new(World::start("additive").await);
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (world, stop, written) = (world.clone(), stop.clone(), written.clone());
            tokio::spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let sale = json!({"receipt": format!("{writer}-{number}"), "amount": 1.5});
                    world.call("POST", "/api/shop/sales", Some(&sale)).await;
                    world.call("GET", "/api/shop/sales?limit=5", None).await;
                    written.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let some = |least: u64| {
        let written = written.clone();
        async move { eventually("writers write", async || (written.load(Ordering::Relaxed) >= least).then_some(())).await }
    };
    some(20).await;
    let wider = SHOP.replace(
        "- {name: status,",
        "- {name: cashier, type: string, maxLength: 60}\n        - {name: loyal, type: boolean, required: true, default: false}\n        - {name: status,",
    );
    world.apply(&wider);
    world.until("shop", "at revision 2", |model: &DataModel| model.status.as_ref().is_some_and(|status| status.revision == Some(2))).await;
    let before = written.load(Ordering::Relaxed);
    some(before + 20).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("no request failed");
    }
    let sale = json!({"receipt": "last", "amount": 2, "cashier": "Ada"});
    let answer = world.call("POST", "/api/shop/sales", Some(&sale)).await;
    assert_eq!((&answer["cashier"], &answer["loyal"]), (&json!("Ada"), &json!(false)));
    let counted = world.sql("SELECT count(*) FROM shop.sale");
    assert_eq!(counted, (written.load(Ordering::Relaxed) + 1).to_string());
    Arc::into_inner(world).expect("nobody else has it").end().await;
}

#[tokio::test]
async fn a_hazardous_change_is_held_back_until_its_plan_is_approved() {
    let world = World::start("hazard").await;
    world.apply(SHOP);
    world.ready::<DataModel>("shop").await;
    world.call("POST", "/api/shop/sales", Some(&json!({"receipt": "1", "amount": 1.5}))).await;

    let narrower = SHOP
        .replace("        - {name: status, type: string, maxLength: 20, default: open}\n", "")
        .replace("      events: {routing: status}\n", "");
    world.apply(&narrower);
    let message = world.not_ready::<DataModel>("shop", "ApprovalNeeded").await;
    assert!(message.contains("loses data"), "{message}");
    let model = world.api::<DataModel>().get("shop").await.expect("the model");
    let name = model.status.and_then(|status| status.migration).expect("a Migration");
    let migration: Migration =
        world.until(&name, "waiting", |migration: &Migration| state(migration) == Some(MigrationState::WaitingForApproval)).await;
    assert!(migration.spec.steps.iter().any(|step| step.sql.iter().any(|sql| sql.contains("DROP COLUMN")) && !step.hazards.is_empty()));
    let served = world.call("GET", "/api/shop/sales", None).await;
    assert_eq!(served[0]["status"], "open", "the model is served as before");

    // Another plan voids the approval of this one.
    let sha256 = &migration.spec.sha256;
    let approved = |yaml: &str| yaml.replace("spec:\n  entities", &format!("spec:\n  migrations: {{approved: {sha256}}}\n  entities"));
    world.apply(&approved(&narrower.replace("maxLength: 40, required: true", "maxLength: 10, required: true")));
    world.until(&name, "superseded", |migration: &Migration| state(migration) == Some(MigrationState::Superseded)).await;
    world.not_ready::<DataModel>("shop", "ApprovalNeeded").await;
    assert_eq!(world.call("GET", "/api/shop/sales", None).await[0]["status"], "open");

    world.apply(&approved(&narrower));
    world.ready::<DataModel>("shop").await;
    world.until(&name, "applied", |migration: &Migration| state(migration) == Some(MigrationState::Applied)).await;
    eventually("the API serves the narrower model", async || {
        world.ask("GET", "/api/shop/sales", None).await.ok().filter(|sales| sales[0]["status"].is_null() && sales[0]["receipt"] == "1")
    })
    .await;
    world.end().await;
}

fn state(migration: &Migration) -> Option<MigrationState> {
    migration.status.as_ref().and_then(|status| status.state)
}
