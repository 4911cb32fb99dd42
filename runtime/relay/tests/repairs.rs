//! Where the log can't tell any more, a stream is brought to the state of its tables.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use autonomy_crds::event::header;
use autonomy_operator::removal::remove_model;
use nix::sys::signal::Signal;
use support::{SHOP, Stored, World, model};

#[test]
fn relay_process() {
    support::relay_process();
}

fn insert(from: u32, to: u32) -> String {
    format!(
        "INSERT INTO shop.customer (id, number) SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'C' || n \
         FROM generate_series({from}, {to}) n"
    )
}

fn customer(n: u32) -> String {
    format!("'00000000-0000-0000-0000-{n:012}'")
}

// What a reader of the whole stream ends up with: the present objects by id, with their versions.
fn state(messages: &[Stored]) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    let mut last = None;
    for message in messages {
        assert!(last < Some(message.position()), "positions rise");
        last = Some(message.position());
        let id = message.header(header::SUBJECT).to_owned();
        if message.operation() == "deleted" {
            assert!(state.remove(&id).is_some(), "{id} was there");
        } else {
            let before = state.insert(id.clone(), message.header(header::VERSION).to_owned());
            assert_eq!(before.is_some(), message.operation() == "updated", "{} of {id}", message.operation());
        }
    }
    state
}

async fn assert_equals_table(world: &World) {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT id::text, version::text FROM shop.customer UNION ALL SELECT id::text, version::text FROM shop.sale")
            .fetch_all(&world.pool)
            .await
            .unwrap();
    assert_eq!(state(&world.messages("DEFAULT_SHOP").await), rows.into_iter().collect());
}

#[tokio::test]
async fn rows_there_before_the_first_start_become_events() {
    let world = World::start(vec![model("shop", SHOP)]).await;
    world.execute(&insert(1, 300)).await;
    world.execute("UPDATE shop.customer SET note = 'x' WHERE number < 'C2'").await;
    let _relay = world.relay();
    let messages = world.wait_for("DEFAULT_SHOP", 300).await;
    assert_eq!(messages.len(), 300);
    assert!(messages.iter().all(|message| message.operation() == "created"));
    world.execute(&insert(301, 302)).await;
    world.wait_for("DEFAULT_SHOP", 302).await;
    assert_equals_table(&world).await;
}

#[tokio::test]
async fn a_dropped_slot_is_repaired() {
    let world = World::start(vec![model("shop", SHOP)]).await;
    let relay = world.relay();
    world.execute(&insert(1, 100)).await;
    world.wait_for("DEFAULT_SHOP", 100).await;
    world.caught_up().await;
    relay.child.signal(Signal::SIGKILL);
    relay.child.wait_exit().await;
    world.until("the slot is free", async || world.number("SELECT count(*) FROM pg_replication_slots WHERE active").await == 0).await;
    world.execute("SELECT pg_drop_replication_slot('autonomy')").await;
    world.execute(&insert(101, 110)).await;
    world.execute("UPDATE shop.customer SET note = 'y' WHERE number IN ('C1', 'C2', 'C105')").await;
    world.execute("DELETE FROM shop.customer WHERE number IN ('C3', 'C106')").await;
    // An object that went and came again.
    world.execute("DELETE FROM shop.customer WHERE number = 'C4'").await;
    world.execute(&insert(4, 4)).await;
    let _relay = world.relay();
    world.until("repaired", async || world.log().contains("equals its tables")).await;
    world.caught_up().await;
    let messages = world.messages("DEFAULT_SHOP").await;
    // C1, C2 and C4 updated, nine of 101 to 110 created, C3 deleted.
    assert_eq!(messages.len(), 100 + 3 + 9 + 1, "{}", world.log_end());
    assert_equals_table(&world).await;
    let updated = messages.iter().rfind(|message| customer(1).contains(message.header(header::SUBJECT))).unwrap();
    assert_eq!(
        (updated.operation(), &updated.data["note"], &updated.data["before"]["note"]),
        ("updated", &"y".into(), &serde_json::Value::Null)
    );
    let deleted = messages.iter().find(|message| message.operation() == "deleted").unwrap();
    assert_eq!((deleted.data["number"].as_str(), deleted.data.get("before")), (Some("C3"), None));
    assert!(world.log().contains("was dropped"));
    // What follows comes from the log again.
    world.execute("UPDATE shop.customer SET note = 'z' WHERE number = 'C1'").await;
    assert_eq!(world.wait_for("DEFAULT_SHOP", 114).await.len(), 114);
}

#[tokio::test]
async fn a_slot_beyond_its_size_is_lost_loudly_and_repaired() {
    let settings = [("max_slot_wal_keep_size", "1MB"), ("min_wal_size", "32MB"), ("max_wal_size", "32MB")];
    let world = World::start_with(vec![model("shop", SHOP)], &settings).await;
    let relay = world.relay();
    world.execute(&insert(1, 10)).await;
    world.wait_for("DEFAULT_SHOP", 10).await;
    relay.child.signal(Signal::SIGKILL);
    relay.child.wait_exit().await;
    world.execute("CREATE TABLE filler (text text)").await;
    world
        .until("the slot is lost", async || {
            world.execute("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 5000)").await;
            world.execute("SELECT pg_switch_wal()").await;
            world.execute("CHECKPOINT").await;
            world.number("SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'").await == 1
        })
        .await;
    world.execute(&insert(11, 15)).await;
    let _relay = world.relay();
    assert_eq!(world.wait_for("DEFAULT_SHOP", 15).await.len(), 15);
    assert!(world.log().contains("the replication slot is lost"));
    world.caught_up().await;
    assert_equals_table(&world).await;
}

#[tokio::test]
async fn a_stream_removed_and_made_again_is_filled() {
    let world = World::start(vec![model("shop", SHOP)]).await;
    let _relay = world.relay();
    world.execute(&insert(1, 50)).await;
    world.wait_for("DEFAULT_SHOP", 50).await;
    // It counts as lost, and not only as unsynced, when its events were confirmed.
    world.until("confirmed", async || world.number("SELECT coalesce(max(last_sequence), 0) FROM autonomy.relay_stream").await == 50).await;
    world.jetstream().await.delete_stream("DEFAULT_SHOP").await.unwrap();
    world.execute("DELETE FROM shop.customer WHERE number = 'C7'").await;
    world.ensure_streams(&world.models).await;
    world.execute(&insert(51, 52)).await;
    world.until("filled", async || world.last_sequence("DEFAULT_SHOP").await >= 51).await;
    world.caught_up().await;
    assert_equals_table(&world).await;
    assert!(world.log().contains("equals its tables"));
}

#[tokio::test]
async fn a_model_removed_and_applied_again_gets_none_of_the_former_ones_events() {
    let (shop, club) = (model("shop", SHOP), model("club", SHOP));
    let world = World::start(vec![shop.clone()]).await;
    let relay = world.relay();
    world.execute(&insert(1, 10)).await;
    world.wait_for("DEFAULT_SHOP", 10).await;
    // The relay knows one model from its own notes and the other from the log alone.
    world.apply(std::slice::from_ref(&club)).await;
    world.ensure_streams(std::slice::from_ref(&club)).await;
    world.execute(&insert(1, 10).replace("shop.", "club.")).await;
    world.wait_for("DEFAULT_CLUB", 10).await;
    relay.child.signal(Signal::SIGKILL);
    relay.child.wait_exit().await;

    world.execute(&insert(11, 12)).await;
    for model in [&shop, &club] {
        remove_model(&world.pool, &model.name).await.unwrap();
        world.jetstream().await.delete_stream(&model.stream).await.unwrap();
    }
    world.apply(&[shop.clone(), club.clone()]).await;
    world.ensure_streams(&[shop, club]).await;
    world.execute(&insert(21, 23)).await;
    world.execute(&insert(21, 24).replace("shop.", "club.")).await;
    let _relay = world.relay();
    for (stream, count) in [("DEFAULT_SHOP", 3), ("DEFAULT_CLUB", 4)] {
        world.wait_for(stream, count).await;
        world.caught_up().await;
        let messages = world.messages(stream).await;
        let ids: Vec<_> = messages.iter().map(|message| message.header(header::SUBJECT)[34..].to_owned()).collect();
        let expected: Vec<_> = (21..21 + count).map(|n| n.to_string()).collect();
        assert_eq!(ids, expected, "{stream}");
    }
}

#[tokio::test]
async fn a_truncated_table_is_repaired() {
    let world = World::start(vec![model("shop", SHOP)]).await;
    let _relay = world.relay();
    world.execute(&insert(1, 20)).await;
    world.wait_for("DEFAULT_SHOP", 20).await;
    // The operator refuses it by a trigger; a superuser can do it all the same.
    world.execute("SET session_replication_role = replica; TRUNCATE shop.customer CASCADE; RESET session_replication_role").await;
    world.execute(&insert(21, 22)).await;
    world.until("repaired", async || world.last_sequence("DEFAULT_SHOP").await >= 42).await;
    world.caught_up().await;
    assert_equals_table(&world).await;
    assert!(world.log().contains("TRUNCATE"));
}
