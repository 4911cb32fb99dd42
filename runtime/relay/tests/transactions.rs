//! Large transactions at bounded memory, and catalog changes in the middle of the log.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use autonomy_crds::event::header;
use nix::sys::signal::Signal;
use support::{SHOP, World, assert_in_order, model};

#[test]
fn relay_process() {
    support::relay_process();
}

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

// AUTONOMY_TEST_ROWS=1000000 for the large one.
#[tokio::test]
async fn a_large_transaction_passes_at_bounded_memory_and_goes_on_in_its_middle() {
    let rows: u64 = std::env::var("AUTONOMY_TEST_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(100_000);
    let world = World::start(vec![model("shop", SHOP)]).await;
    let relay = world.relay();
    world.caught_up().await;
    world.execute(&format!("INSERT INTO shop.sale (id, total, lines) SELECT gen_random_uuid(), n % 1000, '[{{\"sku\": \"{}\"}}]' FROM generate_series(1, {rows}) n", "x".repeat(300))).await;
    let start = std::time::Instant::now();
    world.until("half of it", async || world.last_sequence("DEFAULT_SHOP").await >= rows / 2).await;
    let used = resident_mib(relay.child.pid());
    relay.child.signal(Signal::SIGKILL);
    relay.child.wait_exit().await;
    let relay = world.relay();
    world.until("all of it", async || world.last_sequence("DEFAULT_SHOP").await >= rows).await;
    let elapsed = start.elapsed();
    world.caught_up().await;
    assert_eq!(world.last_sequence("DEFAULT_SHOP").await, rows);
    let used = used.max(resident_mib(relay.child.pid()));
    println!("{rows} rows in one transaction in {elapsed:?}, at most {used} MiB");
    assert!(used < 200, "{used} MiB");
    if rows <= 200_000 {
        let messages = world.messages("DEFAULT_SHOP").await;
        assert_in_order(&messages);
        assert!(messages.iter().enumerate().all(|(index, message)| message.position().index == index as u32));
    }
}

#[tokio::test]
async fn a_catalog_change_takes_effect_at_its_place_of_the_log() {
    let mut world = World::start(vec![model("shop", SHOP)]).await;
    // Nothing is confirmed in this test: the relay killed below reads all of the log again.
    world.sync_interval = "1h";
    let relay = world.relay();
    world.execute("INSERT INTO shop.customer (id, number) VALUES (gen_random_uuid(), 'old')").await;
    world.wait_for("DEFAULT_SHOP", 1).await;
    world.caught_up().await;
    relay.child.signal(Signal::SIGKILL);
    relay.child.wait_exit().await;
    // Written while no relay works: rows of before and after the change, and a model of its own whose stream comes late.
    world.execute("UPDATE shop.customer SET note = 'before the change'").await;
    let wider =
        SHOP.replace("      - {name: note,", "      - {name: colour, type: string, default: red, description: New.}\n      - {name: note,");
    let other = model(
        "garage",
        "entities:\n  - name: Car\n    description: New.\n    attributes: [{name: plate, type: string, description: New.}]\n",
    );
    world.apply(&[model("shop", &wider), other.clone()]).await;
    world
        .execute("UPDATE shop.customer SET note = 'after the change'; INSERT INTO garage.car (id, plate) VALUES (gen_random_uuid(), 'A 1')")
        .await;
    world.execute("INSERT INTO shop.customer (id, number, colour) VALUES (gen_random_uuid(), 'new', 'blue')").await;
    let relay = world.relay();
    world.wait_for("DEFAULT_SHOP", 2).await;
    world.until("the missing stream is told", async || world.log().contains("DEFAULT_GARAGE is missing")).await;
    assert_eq!(world.last_sequence("DEFAULT_SHOP").await, 2, "nothing is skipped");
    world.ensure_streams(std::slice::from_ref(&other)).await;
    let messages = world.wait_for("DEFAULT_SHOP", 4).await;
    assert_in_order(&messages);
    assert_eq!(messages[1].data.get("colour"), None);
    assert_eq!(messages[2].data["colour"], "red");
    assert_eq!(messages[3].data["colour"], "blue");
    let cars = world.wait_for("DEFAULT_GARAGE", 1).await;
    assert_eq!((cars.len(), cars[0].header(header::TYPE)), (1, "dev.autonomy.garage.Car.created"));
    let mark = world.caught_up().await;
    assert_eq!((mark.entities.get("garage/Car"), mark.entities.get("shop/Customer")), (Some(&1), Some(&4)));
    // Read again from the start of the log: nothing comes twice.
    relay.child.signal(Signal::SIGKILL);
    relay.child.wait_exit().await;
    let _relay = world.relay();
    world.caught_up().await;
    assert_eq!((world.messages("DEFAULT_SHOP").await.len(), world.messages("DEFAULT_GARAGE").await.len()), (4, 1));
    assert!(!world.log().contains("repaired"), "{}", world.log_end());
}

#[tokio::test]
async fn a_model_applied_after_the_first_start_has_all_its_events() {
    let world = World::start(Vec::new()).await;
    let relay = world.relay();
    world.until("the first start", async || world.log().contains("the relay works")).await;
    relay.child.signal(Signal::SIGKILL);
    relay.child.wait_exit().await;
    let shop = model("shop", SHOP);
    world.apply(std::slice::from_ref(&shop)).await;
    world.ensure_streams(&[shop]).await;
    world.execute("INSERT INTO shop.customer (id, number) VALUES (gen_random_uuid(), 'a')").await;
    world.execute("UPDATE shop.customer SET note = 'x'").await;
    let _relay = world.relay();
    let messages = world.wait_for("DEFAULT_SHOP", 2).await;
    assert_in_order(&messages);
    assert_eq!(messages.len(), 2);
}
