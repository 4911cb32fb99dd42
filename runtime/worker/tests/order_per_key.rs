//! Order per key: each key's events take effect in their order, once, whatever fails and whoever is killed; other keys go on.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod queue_support;

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use autonomy_crds::event::{self, Ordered, PARTITIONS, ordered_subject};
use nix::sys::signal::Signal;
use queue_support::{Role, World};
use serde_json::Value;

/// Calls the provider for each movement of an account, and books it.
const BOOKER: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: booker}
spec:
  trigger: {queue: {model: shop, entity: Movement, order: perKey}}
  config: {provider: 'PROVIDER'}
  steps:
    - {name: place, set: 'object.account + \"/\" + string(object.number)'}
    - {http: {url: 'config.provider + \"/accrue\"', body: '{\"sale\": place, \"number\": place}', timeout: 5s}}
    - {create: {model: shop, entity: Booking, object: {account: object.account, number: object.number}}}
  retry: {maxAttempts: 1000, initialBackoff: 50ms, maxBackoff: 400ms}
  deadLetter: {ticket: {url: 'config.provider + \"/tickets\"'}}
  scaling: {concurrency: 16}
";

#[test]
fn worker_process() {
    queue_support::worker_process();
}

// Movements of accounts `{prefix}1`, `{prefix}2`…, each with these numbers, one number after the other.
async fn move_accounts(world: &World, prefix: &str, accounts: usize, numbers: std::ops::RangeInclusive<usize>) {
    for number in numbers {
        let statement = format!(
            "INSERT INTO shop.movement(id, account, number) SELECT gen_random_uuid(), '{prefix}' || n, {number} FROM generate_series(1, {accounts}) n"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&world.pool).await.unwrap();
    }
}

async fn booked(world: &World) -> i64 {
    world.count("SELECT count(*) FROM shop.booking").await
}

// The numbers booked, by account, in the order in which they were committed.
async fn bookings(world: &World) -> BTreeMap<String, Vec<i64>> {
    let wanted = booked(world).await;
    let stream = world.jetstream().await.get_stream("DEFAULT_SHOP").await.unwrap();
    let subjects = || async {
        let counts = stream.info_with_subjects("autonomy.default.shop.Booking.>").await.unwrap();
        let counts: Vec<(String, usize)> = futures::TryStreamExt::try_collect(counts).await.unwrap();
        i64::try_from(counts.iter().map(|(_, count)| count).sum::<usize>()).unwrap() == wanted
    };
    world.until("the relay has told of all bookings", subjects).await;
    let mut accounts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut next = 1;
    while let Ok(message) = stream.get_first_raw_message_by_subject("autonomy.default.shop.Booking.>", next).await {
        next = message.sequence + 1;
        let object: Value = serde_json::from_slice(&message.payload).unwrap();
        accounts.entry(object["account"].as_str().unwrap().to_owned()).or_default().push(object["number"].as_i64().unwrap());
    }
    accounts
}

fn numbers(to: i64) -> Vec<i64> {
    (1..=to).collect()
}

// Waits until nothing waits in any way.
async fn until_idle(world: &World) {
    let idle = || async {
        let stream = world.jetstream().await.get_stream("DEFAULT_RETRIES").await.unwrap();
        let subjects = stream.info_with_subjects(">").await.unwrap();
        let subjects: Vec<(String, usize)> = futures::TryStreamExt::try_collect(subjects).await.unwrap();
        let none_waits = !subjects.iter().any(|(subject, _)| event::is_waiting(subject) || event::is_due(subject));
        none_waits && world.ack_pending("DEFAULT_SHOP", "booker").await == 0
    };
    world.until("nothing waits", idle).await;
}

// How many partitions each worker has.
async fn shares(world: &World) -> Vec<usize> {
    let stream = world.jetstream().await.get_stream("DEFAULT_RETRIES").await.unwrap();
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let subject = ordered_subject("default", "booker", Ordered::Partition(partition));
        let Ok(message) = stream.get_last_raw_message_by_subject(&subject).await else { continue };
        let record: Value = serde_json::from_slice(&message.payload).unwrap();
        if let Some(owner) = record["owner"].as_str() {
            *owners.entry(owner.to_owned()).or_default() += 1;
        }
    }
    let mut shares: Vec<usize> = owners.into_values().collect();
    shares.sort_unstable();
    shares
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_is_in_order_and_nothing_is_lost_or_doubled_though_calls_fail_and_workers_are_killed() {
    const ACCOUNTS: usize = 30;
    const NUMBERS: usize = 24;
    let world = World::start().await;
    world.provider.delay(Duration::from_millis(5));
    for account in 1..=ACCOUNTS {
        for number in 1..=NUMBERS {
            if rand::random_range(0..8) == 0 {
                let status = [503, 429, 500][rand::random_range(0..3)];
                world.provider.refuse(&format!("a{account}/{number}"), status, rand::random_range(1..4));
            }
        }
    }
    let mut workers = [world.worker_process(BOOKER), world.worker_process(BOOKER), world.worker_process(BOOKER)];
    let batches = 4;
    for batch in 0..batches {
        let size = NUMBERS / batches;
        let before = booked(&world).await;
        move_accounts(&world, "a", ACCOUNTS, batch * size + 1..=(batch + 1) * size).await;
        let enough = before + i64::try_from(rand::random_range(10..ACCOUNTS * size / 2)).unwrap();
        world.until("work is in the middle", || async { booked(&world).await >= enough }).await;
        let killed = std::mem::replace(&mut workers[rand::random_range(0..3)], world.worker_process(BOOKER));
        killed.signal(Signal::SIGKILL);
        killed.wait_exit().await;
        println!("kill {batch}: {} booked", booked(&world).await);
    }
    let all = i64::try_from(ACCOUNTS * NUMBERS).unwrap();
    world.until("everything is booked", || async { booked(&world).await >= all }).await;
    until_idle(&world).await;
    let bookings = bookings(&world).await;
    assert_eq!(bookings.len(), ACCOUNTS);
    for (account, booked) in bookings {
        assert_eq!(booked, numbers(i64::try_from(NUMBERS).unwrap()), "{account}");
    }
    assert_eq!(world.provider.accrued(), ACCOUNTS * NUMBERS);
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_keys_go_on_while_one_waits_and_its_events_follow_in_order() {
    let world = World::start().await;
    world.provider.refuse("slow1/2", 503, usize::MAX);
    let (worker, operations) = world.worker(BOOKER);
    world.ready(operations).await;
    move_accounts(&world, "slow", 1, 1..=200).await;
    move_accounts(&world, "a", 40, 1..=10).await;
    // One of the slow account, and all others, those of its partition too.
    let all = || async { booked(&world).await == 401 };
    world.until("the others are booked", all).await;
    assert_eq!(bookings(&world).await["slow1"], [1]);
    // The next worker finds what waits.
    worker.stop().await;
    let (worker, operations) = world.worker(BOOKER);
    world.ready(operations).await;
    let calls = world.provider.calls();
    world.until("it is tried again", || async { world.provider.calls() > calls }).await;
    assert_eq!(booked(&world).await, 401);
    world.provider.refuse("slow1/2", 503, 0);
    move_accounts(&world, "slow", 1, 201..=220).await;
    world.until("everything is booked", || async { booked(&world).await == 620 }).await;
    until_idle(&world).await;
    let bookings = bookings(&world).await;
    assert_eq!(bookings["slow1"], numbers(220));
    assert!((1..=40).all(|account| bookings[&format!("a{account}")] == numbers(10)));
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_dead_letter_its_key_goes_on_and_a_redrive_takes_effect() {
    let world = World::start().await;
    // One is refused for good at once, the other after some attempts.
    world.provider.refuse("a1/2", 422, usize::MAX);
    world.provider.refuse("a2/3", 503, usize::MAX);
    let (worker, operations) = world.worker(&BOOKER.replace("maxAttempts: 1000", "maxAttempts: 4"));
    world.ready(operations).await;
    move_accounts(&world, "a", 3, 1..=10).await;
    world.until("all others are booked", || async { booked(&world).await == 28 }).await;
    world.until("there are two dead letters", || async { world.messages("DEFAULT_DEAD_LETTERS").await == 2 }).await;
    world.until("there are two tickets", || async { world.provider.tickets().len() == 2 }).await;
    until_idle(&world).await;
    let without = |number: i64| numbers(10).into_iter().filter(|each| *each != number).collect::<Vec<_>>();
    let seen = bookings(&world).await;
    assert_eq!((&seen["a1"], &seen["a2"], &seen["a3"]), (&without(2), &without(3), &numbers(10)));

    // As `autonomy dead-letters redrive` does it.
    world.provider.refuse("a1/2", 422, 0);
    world.provider.refuse("a2/3", 503, 0);
    let jetstream = world.jetstream().await;
    let letters = jetstream.get_stream("DEFAULT_DEAD_LETTERS").await.unwrap();
    for sequence in letters.cached_info().state.first_sequence..=letters.cached_info().state.last_sequence {
        let Ok(letter) = letters.get_raw_message(sequence).await else { continue };
        let mut headers = HeaderMap::new();
        for (name, values) in letter.headers.iter() {
            headers.insert(name.clone(), values[0].clone());
        }
        let due = event::retry_due_subject("default", "booker", letter.subject.rsplit('.').next().unwrap());
        jetstream.publish_with_headers(due, headers, letter.payload.clone()).await.unwrap().await.unwrap();
        letters.delete_message(sequence).await.unwrap();
    }
    world.until("both are booked", || async { booked(&world).await == 30 }).await;
    until_idle(&world).await;
    let seen = bookings(&world).await;
    assert_eq!((seen["a1"].last(), seen["a2"].last()), (Some(&2), Some(&3)));
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_come_and_go_share_the_partitions_and_order_stays() {
    let world = World::start().await;
    let (one, _) = world.worker(BOOKER);
    world.until("one worker has all", || async { shares(&world).await == [64] }).await;
    move_accounts(&world, "a", 20, 1..=10).await;
    let (other, _) = world.worker(BOOKER);
    move_accounts(&world, "a", 20, 11..=20).await;
    world.until("each has half", || async { shares(&world).await == [32, 32] }).await;
    move_accounts(&world, "a", 20, 21..=30).await;
    one.stop().await;
    move_accounts(&world, "a", 20, 31..=40).await;
    world.until("the other one has all", || async { shares(&world).await == [64] }).await;
    world.until("everything is booked", || async { booked(&world).await == 800 }).await;
    until_idle(&world).await;
    let bookings = bookings(&world).await;
    assert!(bookings.len() == 20 && bookings.values().all(|booked| *booked == numbers(40)), "{bookings:?}");
    assert_eq!(world.provider.accrued(), 800);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_leaves_order_per_key_and_comes_back_loses_nothing() {
    let world = World::start().await;
    world.provider.refuse("a1/2", 503, usize::MAX);
    let (worker, _) = world.worker(BOOKER);
    move_accounts(&world, "a", 3, 1..=20).await;
    world.until("the others are booked", || async { booked(&world).await == 41 }).await;
    worker.stop().await;
    world.provider.refuse("a1/2", 503, 0);
    let (worker, _) = world.worker(&BOOKER.replace(", order: perKey", ""));
    move_accounts(&world, "a", 3, 21..=30).await;
    world.until("everything is booked", || async { booked(&world).await == 90 }).await;
    worker.stop().await;
    let (worker, _) = world.worker(BOOKER);
    move_accounts(&world, "a", 3, 31..=40).await;
    world.until("everything is booked", || async { booked(&world).await == 120 }).await;
    until_idle(&world).await;
    let bookings = bookings(&world).await;
    assert!(["a2", "a3"].iter().all(|account| bookings[*account][30..] == numbers(40)[30..]), "{bookings:?}");
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_stays_through_kills_of_nats_server() {
    let mut world = World::start().await;
    let workers = [world.worker_process(BOOKER), world.worker_process(BOOKER)];
    for account in 1..=10 {
        world.provider.refuse(&format!("a{account}/{account}"), 503, 3);
    }
    for round in 0..3 {
        let before = booked(&world).await;
        move_accounts(&world, "a", 20, round * 10 + 1..=(round + 1) * 10).await;
        world.until("work is in the middle", || async { booked(&world).await >= before + 20 }).await;
        world.restart_nats().await;
    }
    world.until("everything is booked", || async { booked(&world).await >= 600 }).await;
    until_idle(&world).await;
    let bookings = bookings(&world).await;
    assert!(bookings.len() == 20 && bookings.values().all(|booked| *booked == numbers(30)), "{bookings:?}");
    assert_eq!(world.provider.accrued(), 600);
    drop(workers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_away_for_so_long_that_others_took_over_does_no_harm() {
    let world = World::start().await;
    world.provider.delay(Duration::from_millis(10));
    for account in 1..=20 {
        world.provider.refuse(&format!("a{account}/{}", account % 10 + 1), 503, 2);
    }
    let workers = [world.worker_process(BOOKER), world.worker_process(BOOKER)];
    world.until("each has half", || async { shares(&world).await == [32, 32] }).await;
    for (round, worker) in workers.iter().enumerate() {
        let before = booked(&world).await;
        move_accounts(&world, "a", 20, round * 20 + 1..=(round + 1) * 20).await;
        world.until("work is in the middle", || async { booked(&world).await >= before + 40 }).await;
        // It has events in hand, calls under way and parts of a transaction, and goes on with them when it is woken.
        worker.signal(Signal::SIGSTOP);
        world.until("the other one has all", || async { shares(&world).await == [64] }).await;
        let all = i64::try_from((round + 1) * 400).unwrap();
        world.until("everything is booked", || async { booked(&world).await >= all }).await;
        worker.signal(Signal::SIGCONT);
        world.until("it takes part again", || async { shares(&world).await == [32, 32] }).await;
    }
    until_idle(&world).await;
    let bookings = bookings(&world).await;
    assert!(bookings.len() == 20 && bookings.values().all(|booked| *booked == numbers(40)), "{bookings:?}");
    assert_eq!((world.provider.accrued(), world.messages("DEFAULT_DEAD_LETTERS").await), (800, 0));
    drop(workers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_lost_their_tails_are_handled_from_there_on_in_order() {
    loses_tails_and_goes_on("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_models_stream_that_alone_lost_its_tail_is_handled_from_there_on_in_order() {
    loses_tails_and_goes_on("DEFAULT_SHOP").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_models_stream_that_is_repaired_is_handled_from_there_on() {
    // What was lost comes anew as other events, of which the service knows nothing: that they take effect once more is no matter of order.
    let (world, worker) = loses_tails("DEFAULT_SHOP", true).await;
    world.until_count("SELECT count(DISTINCT (account, number)) FROM shop.booking", 150).await;
    until_idle(&world).await;
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
    worker.stop().await;
}

// Everything is booked once and in order all the same.
async fn loses_tails_and_goes_on(stream: &str) {
    let (world, worker) = loses_tails(stream, false).await;
    world.until("everything is booked", || async { booked(&world).await == 150 }).await;
    until_idle(&world).await;
    let bookings = bookings(&world).await;
    assert!(bookings.len() == 5 && bookings.values().all(|booked| *booked == numbers(30)), "{bookings:?}");
    assert_eq!((world.provider.accrued(), world.messages("DEFAULT_DEAD_LETTERS").await), (150, 0));
    worker.stop().await;
}

// The path of a stream's folder below NATS's.
fn stream_folder(nats: &std::path::Path, stream: &str) -> std::path::PathBuf {
    let mut folders = vec![nats.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.ends_with(stream) {
            return folder;
        }
        let inside = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        folders.extend(inside.filter(|path| path.is_dir()));
    }
    panic!("there is no folder of {stream}")
}

// `stream`: the one that loses its tail; all where empty. `synced`: more is lost than a server may lose, and the relay repairs the stream.
async fn loses_tails(stream: &str, synced: bool) -> (World, Role) {
    let mut world = World::start().await;
    world.provider.refuse("a3/7", 503, usize::MAX);
    let (worker, _) = world.worker(BOOKER);
    move_accounts(&world, "a", 5, 1..=10).await;
    world.until("the others are booked", || async { booked(&world).await == 46 }).await;
    // The server comes back with what it had a while ago, of the model's stream and of what is kept of keys and partitions.
    let copy = world.copy_nats().await;
    move_accounts(&world, "a", 5, 11..=20).await;
    world.until("the others are booked", || async { booked(&world).await == 86 }).await;
    if synced {
        world.until_synced().await;
    }
    world.nats.as_ref().unwrap().kill();
    world.nats.take().unwrap().wait_exit().await;
    let (lost, older) = match stream {
        "" => (world.nats_folder(), copy),
        stream => (stream_folder(&world.nats_folder(), stream), stream_folder(&copy, stream)),
    };
    std::fs::remove_dir_all(&lost).unwrap();
    std::fs::rename(older, lost).unwrap();
    world.start_nats().await;
    world.provider.refuse("a3/7", 503, 0);
    move_accounts(&world, "a", 5, 21..=30).await;
    (world, worker)
}
