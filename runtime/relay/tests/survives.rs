//! Exactly once and in order, whatever is killed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use autonomy_crds::event::header;
use nix::sys::signal::Signal;
use rand::{Rng, RngExt, SeedableRng};
use sqlx::postgres::PgPoolOptions;
use support::{SHOP, World, assert_in_order, model};

#[test]
fn relay_process() {
    support::relay_process();
}

// Writers of customers and sales, each change noted in a table of the test's own in the same transaction: what the stream has to hold.
const HISTORY: &str = "
    CREATE TABLE history (place bigserial PRIMARY KEY, entity text, id uuid, version bigint, operation text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF TG_OP = 'DELETE' THEN
        INSERT INTO history (entity, id, version, operation) VALUES (TG_TABLE_NAME, OLD.id, OLD.version, 'deleted');
      ELSE
        INSERT INTO history (entity, id, version, operation)
          VALUES (TG_TABLE_NAME, NEW.id, NEW.version, CASE TG_OP WHEN 'INSERT' THEN 'created' ELSE 'updated' END);
      END IF;
      RETURN NULL;
    END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON shop.customer FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON shop.sale FOR EACH ROW EXECUTE FUNCTION note();
";

async fn write(url: String, writer: u64, stop: Arc<AtomicBool>) {
    let mut random = rand::rngs::StdRng::seed_from_u64(writer);
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(2)).connect_lazy(&url).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let sql = match random.random_range(0..10) {
            0..4 => "INSERT INTO shop.customer (id, number) SELECT gen_random_uuid(), left(gen_random_uuid()::text, 18) FROM generate_series(1, 20)".to_owned(),
            4..6 => "WITH c AS (SELECT id FROM shop.customer ORDER BY random() LIMIT 3) INSERT INTO shop.sale (id, total, customer_id) \
                     SELECT gen_random_uuid(), 1, id FROM c".to_owned(),
            6..8 => "UPDATE shop.sale SET status = 'accrued' WHERE id IN (SELECT id FROM shop.sale ORDER BY random() LIMIT 5)".to_owned(),
            8 => "UPDATE shop.customer SET note = repeat('x', 3000) WHERE id IN (SELECT id FROM shop.customer ORDER BY random() LIMIT 5)".to_owned(),
            _ => "DELETE FROM shop.sale WHERE id IN (SELECT id FROM shop.sale ORDER BY random() LIMIT 3)".to_owned(),
        };
        // The database may be down; deadlocks happen.
        let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..5))).await;
    }
}

// The stream holds exactly what the history has: each version of each object once, in its order.
async fn assert_stream_equals_history(world: &World) {
    let wanted: Vec<(String, String, i64, String)> =
        sqlx::query_as("SELECT entity, id::text, version, operation FROM history ORDER BY place").fetch_all(&world.pool).await.unwrap();
    let caught_up = world.caught_up().await;
    let messages = world.messages("DEFAULT_SHOP").await;
    assert_in_order(&messages);
    if messages.len() != wanted.len() {
        let slot = world.text("SELECT row_to_json(s)::text FROM pg_replication_slots s").await;
        let kept = world.text("SELECT coalesce(json_agg(s), '[]')::text FROM autonomy.relay_stream s").await;
        println!("{caught_up:?}\n{slot}\n{kept}");
    }
    assert_eq!(messages.len(), wanted.len(), "{}", world.log_end());
    let mut by_object: HashMap<String, Vec<(i64, String)>> = HashMap::new();
    for (_, id, version, operation) in wanted {
        by_object.entry(id).or_default().push((version, operation));
    }
    let mut found: HashMap<String, Vec<(i64, String)>> = HashMap::new();
    for message in &messages {
        let version = message.header(header::VERSION).parse().unwrap();
        found.entry(message.header(header::SUBJECT).to_owned()).or_default().push((version, message.operation().to_owned()));
    }
    for (id, mut wanted) in by_object {
        // Concurrent notes of one object are in the order of its versions.
        wanted.sort_by_key(|(version, operation)| (*version, operation == "deleted"));
        assert_eq!(found.remove(&id).unwrap_or_default(), wanted, "object {id}");
    }
    assert!(found.is_empty());
}

async fn kills(rounds: u32, seed: u64) {
    println!("seed {seed}");
    let mut world = World::start(vec![model("shop", SHOP)]).await;
    world.execute(HISTORY).await;
    // From its first start on the log tells all; before that, the tables are all that is known.
    let mut relay = world.relay();
    world.caught_up().await;
    let stop = Arc::new(AtomicBool::new(false));
    let url = world.postgres.as_ref().unwrap().url("shop");
    let writers: Vec<_> = (0..3).map(|writer| tokio::spawn(write(url.clone(), seed + writer, stop.clone()))).collect();
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(random.random_range(50..900))).await;
        match random.random_range(0..4) {
            0 | 1 => {
                relay.child.signal(Signal::SIGKILL);
                relay.child.wait_exit().await;
                relay = world.relay();
            }
            2 => {
                world.nats.as_ref().unwrap().kill();
                world.nats.as_ref().unwrap().wait_exit().await;
                world.restart_nats().await;
            }
            _ => {
                world.postgres.as_ref().unwrap().kill();
                world.postgres.as_ref().unwrap().wait_exit().await;
                world.restart_postgres().await;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert_stream_equals_history(&world).await;
    let log = world.log();
    assert_eq!(log.matches("equals its tables").count(), 1, "nothing was lost, so nothing is repaired but the first start:\n{log}");
}

#[tokio::test]
async fn kills_of_relay_nats_and_postgresql() {
    // AUTONOMY_TEST_KILLS=200 for a long run.
    let rounds = std::env::var("AUTONOMY_TEST_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12);
    kills(rounds, rand::rng().next_u64() >> 1).await;
}

#[tokio::test]
async fn a_tail_that_nats_lost_comes_again() {
    let mut world = World::start(vec![model("shop", SHOP)]).await;
    world.sync_interval = "1h";
    world.execute(HISTORY).await;
    let relay = world.relay();
    let insert =
        "INSERT INTO shop.customer (id, number) SELECT gen_random_uuid(), left(gen_random_uuid()::text, 18) FROM generate_series(1, 500)";
    world.execute(insert).await;
    world.wait_for("DEFAULT_SHOP", 500).await;
    // What is on disk now is what will have been synced.
    world.nats.as_ref().unwrap().stop().await;
    let (store, copy) = (world.nats_folder(), world.folder().join("synced"));
    copy_folder(&store, &copy);
    world.restart_nats().await;
    world.execute(insert).await;
    world.execute("UPDATE shop.customer SET note = 'x'").await;
    world.wait_for("DEFAULT_SHOP", 2000).await;
    world.nats.as_ref().unwrap().kill();
    world.nats.as_ref().unwrap().wait_exit().await;
    std::fs::remove_dir_all(&store).unwrap();
    copy_folder(&copy, &store);
    world.restart_nats().await;
    world.execute("UPDATE shop.customer SET note = 'y' WHERE id IN (SELECT id FROM shop.customer LIMIT 10)").await;
    assert_stream_equals_history(&world).await;
    assert!(relay.child.exited().is_none());
    assert_eq!(world.log().matches("equals its tables").count(), 1);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn a_second_relay_waits_and_takes_over() {
    let world = World::start(vec![model("shop", SHOP)]).await;
    let first = world.relay();
    world.execute("INSERT INTO shop.customer (id, number) VALUES (gen_random_uuid(), 'a')").await;
    world.wait_for("DEFAULT_SHOP", 1).await;
    let second = world.relay();
    world.until("the second stands by", async || world.log().contains("standing by")).await;
    world.execute("INSERT INTO shop.customer (id, number) VALUES (gen_random_uuid(), 'b')").await;
    world.wait_for("DEFAULT_SHOP", 2).await;
    first.child.signal(Signal::SIGKILL);
    first.child.wait_exit().await;
    world.execute("INSERT INTO shop.customer (id, number) VALUES (gen_random_uuid(), 'c')").await;
    let messages = world.wait_for("DEFAULT_SHOP", 3).await;
    assert_in_order(&messages);
    assert_eq!(messages.len(), 3);
    assert!(second.child.exited().is_none());
}
