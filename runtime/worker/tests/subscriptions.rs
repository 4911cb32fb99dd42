//! Subscriptions to events over HTTP, end to end: PostgreSQL, relay, nats-server, API.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod queue_support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use autonomy_crds::documents::Resource;
use autonomy_crds::resolve;
use autonomy_operator::apply::apply_models;
use autonomy_operator::streams::{StreamSettings, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue_support::{PATIENCE, World, parse};
use serde_json::Value;

const SALES: &str = "/api/shop/sales";
const STREAM: &str = "DEFAULT_SHOP";

/// One event as a client sees it.
#[derive(Debug)]
struct Event {
    id: String,
    operation: String,
    data: Value,
}

impl Event {
    fn object(&self) -> &Value {
        &self.data["data"]
    }

    fn object_id(&self) -> &str {
        self.object()["id"].as_str().unwrap()
    }
}

/// A client after the standard for Server-Sent Events.
struct Client {
    response: reqwest::Response,
    buffer: Vec<u8>,
    last_id: String,
    comments: usize,
}

async fn ask(world: &World, path: &str, last_id: &str) -> reqwest::Response {
    ask_coded(world, path, last_id, "identity").await
}

async fn ask_coded(world: &World, path: &str, last_id: &str, codings: &str) -> reqwest::Response {
    let request = world.http.get(format!("{}{path}", world.api)).header("accept", "text/event-stream");
    let mut request = request.header("accept-encoding", codings);
    if !last_id.is_empty() {
        request = request.header("last-event-id", last_id);
    }
    request.send().await.unwrap()
}

impl Client {
    async fn open(world: &World, query: &str, last_id: &str) -> Self {
        // Places of those who left a moment ago may still be taken.
        Self::back(world, query, last_id).await
    }

    fn of(response: reqwest::Response, last_id: &str) -> Self {
        assert_eq!(response.status(), 200, "{:?}", response.headers());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(!response.headers().contains_key("content-encoding"));
        Self { response, buffer: Vec::new(), last_id: last_id.to_owned(), comments: 0 }
    }

    /// The same client coming back: it tries until it is let in.
    async fn back(world: &World, query: &str, last_id: &str) -> Self {
        Self::back_at(world, &format!("{SALES}/events?{query}"), last_id).await
    }

    async fn back_at(world: &World, path: &str, last_id: &str) -> Self {
        let begun = Instant::now();
        loop {
            // Events are not compressed: they would wait for one another.
            let response = ask_coded(world, path, last_id, "gzip, zstd").await;
            if response.status() != 503 {
                return Self::of(response, last_id);
            }
            assert!(begun.elapsed() < PATIENCE, "never let in again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The next event; none at the end of the answer.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.block().await? {
                return Some(event);
            }
        }
    }

    /// The next block; one without data is no event.
    async fn block(&mut self) -> Option<Option<Event>> {
        let block = loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                break String::from_utf8(self.buffer.drain(..end + 2).collect()).unwrap();
            }
            let piece = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("something comes").ok().flatten()?;
            self.buffer.extend_from_slice(&piece);
        };
        let (mut operation, mut data) = (String::new(), String::new());
        for line in block.lines() {
            match line.split_once(": ") {
                None if line.is_empty() => {}
                Some(("id", id)) => self.last_id = id.to_owned(),
                Some(("event", name)) => operation = name.to_owned(),
                Some(("data", text)) => data.push_str(text),
                Some(("retry", milliseconds)) => assert!(milliseconds.parse::<u32>().unwrap() >= 1000),
                Some(("", _)) => self.comments += 1,
                _ => panic!("{line:?}"),
            }
        }
        Some((!data.is_empty()).then(|| Event { id: self.last_id.clone(), operation, data: serde_json::from_str(&data).unwrap() }))
    }

    async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await.expect("an event and no end"));
        }
        events
    }

    /// Until an event of a sale with this total has come.
    async fn until(&mut self, total: f64) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            events.push(self.next().await.expect("an event and no end"));
            if events.last().unwrap().object()["total"] == total {
                return events;
            }
        }
    }

    async fn ends(&mut self) -> bool {
        self.next().await.is_none()
    }
}

async fn execute(world: &World, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&world.pool).await.unwrap();
}

async fn sell(world: &World, total: f64) {
    execute(world, &format!("INSERT INTO shop.sale(id, total) VALUES (gen_random_uuid(), {total})")).await;
}

fn totals(events: &[Event]) -> Vec<f64> {
    events.iter().map(|event| event.object()["total"].as_f64().unwrap()).collect()
}

async fn problem(response: reqwest::Response, status: u16, kind: &str) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["type"], format!("https://autonomy.dev/problems/{kind}"));
    problem
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_arrives_in_order_to_those_who_asked_for_it() {
    let mut world = World::start().await;
    sell(&world, 1.0).await;
    world.until("the first event is there", || async { world.messages(STREAM).await == 1 }).await;

    let mut all = Client::open(&world, "", "").await;
    let mut accrued = Client::open(&world, "status=accrued&total.gt=5", "").await;
    let mut deleted = Client::open(&world, "operation=deleted", "").await;
    let mut exact = Client::open(&world, "operation=created,updated&total.in=5.0,20.000&status.ne=accrued", "").await;

    let sale =
        world.http.post(format!("{}{SALES}", world.api)).header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let sale: Value = sale.json(&serde_json::json!({"total": 20.00, "customerNumber": "C\n1"})).send().await.unwrap().json().await.unwrap();
    let id = sale["id"].as_str().unwrap();
    execute(&world, &format!("UPDATE shop.sale SET status = 'accrued' WHERE id = '{id}'; INSERT INTO shop.sale(id, total, status) VALUES (gen_random_uuid(), 5, 'accrued')")).await;
    execute(
        &world,
        &format!("INSERT INTO shop.customer(id, number) VALUES (gen_random_uuid(), 'c'); DELETE FROM shop.sale WHERE id = '{id}'"),
    )
    .await;

    let events = all.take(4).await;
    let told: Vec<&str> = events.iter().map(|event| event.operation.as_str()).collect();
    assert_eq!(told, ["created", "updated", "created", "deleted"]);
    assert!(events.is_sorted_by(|left, right| left.id < right.id), "{events:?}");
    let (created, updated) = (&events[0].data, &events[1].data);
    assert_eq!(created["data"], sale, "the object as the API gives it");
    assert_eq!(created["specversion"], "1.0");
    assert_eq!(created["id"], events[0].id);
    assert_eq!(created["source"], "/namespaces/default/models/shop");
    assert_eq!(created["type"], "dev.autonomy.shop.Sale.created");
    assert_eq!(created["subject"], id);
    assert_eq!(created["datacontenttype"], "application/json");
    assert_eq!(created["autonomyversion"], "1");
    assert_eq!(created["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert!(created["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(updated["data"]["status"], "accrued");
    assert_eq!(updated["data"]["before"], sale);
    assert_eq!(events[3].object()["version"], 2, "the object as it last was");

    let told: Vec<String> = accrued.take(2).await.into_iter().map(|event| event.operation).collect();
    assert_eq!(told, ["updated", "deleted"]);
    assert_eq!(deleted.take(1).await[0].object_id(), id);
    assert_eq!(exact.take(1).await[0].operation, "created");
    // Nothing else is on its way to them: the next thing that comes is the next thing that happens.
    execute(
        &world,
        "INSERT INTO shop.sale(id, total, status) VALUES (gen_random_uuid(), 5.01, 'accrued'); DELETE FROM shop.sale WHERE total = 5.01",
    )
    .await;
    sell(&world, 5.0).await;
    assert_eq!(totals(&accrued.take(2).await), [5.01, 5.01]);
    assert_eq!(totals(&deleted.take(1).await), [5.01]);
    assert_eq!(totals(&exact.take(1).await), [5.0]);

    let faults =
        problem(ask(&world, &format!("{SALES}/events?colour=red&total.gt=x&operation=made&limit=5"), "").await, 400, "invalid-query").await;
    let parameters: Vec<&str> = faults["errors"].as_array().unwrap().iter().map(|fault| fault["parameter"].as_str().unwrap()).collect();
    assert_eq!(parameters, ["colour", "total.gt", "operation", "limit"]);
    problem(ask(&world, &format!("{SALES}/events"), "42").await, 400, "bad-request").await;
    problem(ask(&world, &format!("{SALES}/events?lastEventId=42"), "").await, 400, "invalid-query").await;
    problem(ask(&world, "/api/shop/nothing/events", "").await, 404, "not-found").await;
    let post = world.http.post(format!("{}{SALES}/events", world.api)).send().await.unwrap();
    problem(post, 405, "method-not-allowed").await;
    let json = world.http.get(format!("{}{SALES}/events", world.api)).header("accept", "application/json").send().await.unwrap();
    problem(json, 406, "not-acceptable").await;

    // Those who follow do not hold up the stop.
    let begun = Instant::now();
    world.stop_roles().await;
    assert!(all.take(3).await.len() == 3 && all.ends().await);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_gets_exactly_what_was_missed() {
    let world = World::start().await;
    // Before the first event of all.
    let mut early = Client::open(&world, "", "").await;
    assert!(early.block().await.unwrap().is_none(), "the greeting is no event");
    assert_eq!(early.last_id, "0000000000000000-00000000");
    drop(early.response);
    for total in 1..=10 {
        sell(&world, f64::from(total)).await;
    }
    let mut late = Client::open(&world, "", &early.last_id).await;
    assert_eq!(totals(&late.take(10).await), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);

    // From each event on, by the header and by the parameter; the header counts before it.
    let mut first = Client::open(&world, "from=first", "").await;
    let events = first.take(10).await;
    for (at, event) in events.iter().enumerate().take(9) {
        let mut by_header = Client::open(&world, "from=first&lastEventId=0000000000000000-00000000", &event.id).await;
        let mut by_parameter = Client::open(&world, &format!("lastEventId={}", event.id), "").await;
        assert_eq!(by_header.next().await.unwrap().id, events[at + 1].id);
        assert_eq!(by_parameter.next().await.unwrap().id, events[at + 1].id);
    }

    // One who had seen none of the next events, with a filter by the routing attribute, and with another filter than before.
    let mut waiting = Client::open(&world, "status=accrued", "").await;
    assert!(waiting.block().await.unwrap().is_none());
    assert_eq!(waiting.last_id, events[9].id);
    drop(waiting.response);
    execute(&world, "UPDATE shop.sale SET status = 'accrued' WHERE total IN (3, 4)").await;
    sell(&world, 11.0).await;
    let mut back = Client::open(&world, "status=accrued", &waiting.last_id).await;
    let mut missed = totals(&back.take(2).await);
    missed.sort_by(f64::total_cmp);
    assert_eq!(missed, [3.0, 4.0]);
    let mut others = Client::open(&world, "operation=created", &waiting.last_id).await;
    assert_eq!(totals(&others.take(1).await), [11.0]);

    // A filter leaves the same in events as in lists.
    execute(
        &world,
        "INSERT INTO shop.sale(id, total, status, customer_number) SELECT gen_random_uuid(), (n % 100) - 50 + n / 1000.0, \
         (ARRAY['new', 'accrued'])[n % 2 + 1]::shop.sale_status, CASE WHEN n % 7 > 0 THEN 'Kü' || chr(64 + n % 50) END \
         FROM generate_series(1, 1000) n",
    )
    .await;
    for filter in [
        "total.gt=-1.5&total.lte=20.05",
        "total.lt=0&status=new",
        "status.gt=new",
        "customerNumber.isnull=true",
        "customerNumber.gte=K%C3%BCa",
        "customerNumber.like=*%C3%BC*Z",
        "customerNumber.ne=K%C3%BCA&total.in=-48.000,-47,2",
        "createdAt.gt=2020-01-01T00:00:00Z&version=1",
    ] {
        // Those that were changed since were made with other values.
        let filter = format!("version=1&total.ne=3&total.ne=4&{filter}");
        let list = format!("{}{SALES}?limit=10000&fields=id&{filter}", world.api);
        let list: Vec<Value> = world.http.get(list).send().await.unwrap().json().await.unwrap();
        let listed: BTreeSet<&str> = list.iter().map(|sale| sale["id"].as_str().unwrap()).collect();
        assert!(!listed.is_empty(), "{filter}");
        let mut client = Client::open(&world, &format!("from=first&operation=created&{filter}"), "").await;
        let events = client.take(listed.len()).await;
        let told: BTreeSet<&str> = events.iter().map(Event::object_id).filter(|id| listed.contains(id)).collect();
        assert_eq!(told.len(), listed.len(), "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_nats_server_costs_no_subscriber_an_event() {
    let mut world = World::with("60s", &[]).await;
    // From here on the log tells the relay all, and nothing of it is confirmed within the test.
    world.until_count("SELECT count(*) FROM autonomy.relay_stream WHERE stream = '_started'", 1).await;
    let mut client = Client::open(&world, "", "").await;
    sell(&world, 1.0).await;
    assert_eq!(totals(&client.take(1).await), [1.0]);

    let nats = world.nats.take().unwrap();
    nats.kill();
    nats.wait_exit().await;
    assert!(client.ends().await, "the client is to come back");
    sell(&world, 2.0).await;
    let away = ask(&world, &format!("{SALES}/events"), &client.last_id).await;
    assert!(away.headers().contains_key("retry-after"));
    problem(away, 503, "unavailable").await;
    let list: Vec<Value> = world.http.get(format!("{}{SALES}", world.api)).send().await.unwrap().json().await.unwrap();
    assert_eq!(list.len(), 2, "all else is served");

    // What the server has on disk now is all that it will have of the future.
    let copy = world.nats_folder().with_extension("copy");
    copy_folder(&world.nats_folder(), &copy);
    world.start_nats().await;
    let mut client = Client::back(&world, "", &client.last_id).await;
    assert_eq!(totals(&client.take(1).await), [2.0]);
    sell(&world, 3.0).await;
    sell(&world, 4.0).await;
    assert_eq!(totals(&client.take(2).await), [3.0, 4.0]);

    // The server loses what it had not synced: the relay brings it again, and the client has seen it.
    let nats = world.nats.take().unwrap();
    nats.kill();
    nats.wait_exit().await;
    assert!(client.ends().await);
    std::fs::remove_dir_all(world.nats_folder()).unwrap();
    std::fs::rename(&copy, world.nats_folder()).unwrap();
    world.start_nats().await;
    let mut client = Client::back(&world, "", &client.last_id).await;
    sell(&world, 5.0).await;
    assert_eq!(totals(&client.take(1).await), [5.0]);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_whose_event_is_gone_is_told_so_and_one_who_hears_nothing_keeps_a_good_one() {
    let world = World::with("2s", &["--max-subscribers", "3"]).await;
    for total in 1..=5 {
        sell(&world, f64::from(total)).await;
    }
    let mut client = Client::open(&world, "from=first", "").await;
    let events = client.take(5).await;
    drop(client.response);

    // The events of the first three expire.
    let jetstream = world.jetstream().await;
    let stream = jetstream.get_stream(STREAM).await.unwrap();
    stream.purge().sequence(4).await.unwrap();
    let gone = problem(ask(&world, &format!("{SALES}/events"), &events[1].id).await, 410, "event-gone").await;
    assert!(gone["detail"].as_str().unwrap().contains(&events[1].id), "{gone}");
    let mut there = Client::open(&world, "", &events[3].id).await;
    assert_eq!(totals(&there.take(1).await), [5.0]);
    // One that was never committed here.
    problem(ask(&world, &format!("{SALES}/events"), "7FFFFFFFFFFFFFFF-00000000").await, 410, "event-gone").await;

    // A subscriber for whom nothing comes is told how far the stream is.
    let mut quiet = Client::open(&world, "status=accrued", "").await;
    sell(&world, 6.0).await;
    let newest = there.take(1).await.remove(0).id;
    while quiet.last_id != newest {
        assert!(quiet.block().await.unwrap().is_none());
        assert!(quiet.comments < 3, "it is told {} and not {newest}", quiet.last_id);
    }
    assert!(quiet.comments >= 1);

    // There is room for three.
    let _third = Client::back(&world, "", "").await;
    let refused = ask(&world, &format!("{SALES}/events"), "").await;
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 503, "unavailable").await;
    drop(quiet);
    let mut again = Client::back(&world, "", &newest).await;
    let metrics = world.http.get(format!("{}/metrics", world.api)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("autonomy_api_subscribers 3"), "{metrics}");

    // A change of the entity ends subscriptions to it, and those to others go on.
    drop(there);
    let mut customers = Client::back_at(&world, "/api/shop/customers/events", "").await;
    let yaml = queue_support::MODEL.replace(
        "      events: {routing: status}",
        "        - {name: note, type: string, maxLength: 20, description: A note.}\n      events: {routing: note}",
    );
    let models: Vec<_> = parse(&yaml).into_iter().filter_map(|r| if let Resource::DataModel(m) = r { Some(m) } else { None }).collect();
    let models = resolve::resolve_all(&models).unwrap();
    apply_models(&world.pool, &models).await.unwrap();
    assert!(again.ends().await);
    execute(&world, "INSERT INTO shop.customer(id, number) VALUES (gen_random_uuid(), 'c'); INSERT INTO shop.sale(id, total, note) VALUES (gen_random_uuid(), 7, 'n')").await;
    assert_eq!(customers.take(1).await[0].object()["number"], "c");
    let mut again = Client::back(&world, "customerNumber.isnull=true&note.in=n,m", &again.last_id).await;
    assert_eq!(again.take(1).await[0].object()["note"], "n");

    // A stream that is made anew has none of the old events.
    jetstream.delete_stream(STREAM).await.unwrap();
    assert!(again.ends().await);
    ensure(&jetstream, "default", &models, &StreamSettings::default()).await.unwrap();
    let begun = Instant::now();
    loop {
        let response = ask(&world, &format!("{SALES}/events"), &again.last_id).await;
        match response.status().as_u16() {
            410 => break,
            // As long as the relay has not brought anything yet, it is waited for.
            200 => assert!(Client::of(response, "").ends().await),
            status => assert_eq!(status, 503),
        }
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_waited_for_and_the_api_needs_only_to_read() {
    let mut world = World::start().await;
    const SALES_COUNT: usize = 20_000;
    let filler = "x".repeat(1500);
    execute(&world, &format!("INSERT INTO shop.sale(id, total, customer_number) SELECT gen_random_uuid(), n, '{filler}' FROM generate_series(1, {SALES_COUNT}) n")).await;
    world.until("all events are there", || async { world.messages(STREAM).await == SALES_COUNT as u64 }).await;

    // From here on the API may do no more than what docs and chart ask for it; the server looks at its configuration again.
    let permissions = [
        "$JS.API.STREAM.INFO.*",
        "$JS.API.DIRECT.GET.>",
        "$JS.API.CONSUMER.CREATE.>",
        "$JS.API.CONSUMER.INFO.>",
        "$JS.API.CONSUMER.MSG.NEXT.>",
    ];
    let root = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../..");
    for place in ["charts/autonomy/templates/bundled/nats.yaml", "docs/install.md"] {
        let text = std::fs::read_to_string(root.join(place)).unwrap();
        assert!(permissions.iter().chain(&["_INBOX.api.>"]).all(|subject| text.contains(subject)), "{place}");
    }
    let configuration = world.nats_folder().join("nats-server.conf");
    let text = std::fs::read_to_string(&configuration).unwrap();
    let line = text.lines().find(|line| line.starts_with("authorization")).unwrap();
    let full = line.trim_start_matches("authorization").trim().trim_matches(['{', '}']).trim().to_owned();
    let reader =
        format!("{{user: \"reader\", password: \"reader\", permissions: {{publish: {permissions:?}, subscribe: [\"_INBOX.api.>\"]}}}}");
    let reader_only = text.replace(line, &format!("authorization {{ users: [ {{{full}}}, {reader} ] }}"));
    std::fs::write(&configuration, reader_only).unwrap();
    kill(Pid::from_raw(i32::try_from(world.nats.as_ref().unwrap().pid()).unwrap()), Signal::SIGHUP).unwrap();
    let address = world.nats_url.split_once('@').unwrap().1.to_owned();
    let reading = world.another_api(&format!("nats://reader:reader@{address}")).await;

    let response = world.http.get(format!("{reading}{SALES}/events?from=first")).send().await.unwrap();
    let mut slow = Client::of(response, "");
    let first = slow.take(1).await.remove(0);
    let sent = async || {
        let metrics = world.http.get(format!("{reading}/metrics")).send().await.unwrap().text().await.unwrap();
        let line = metrics.lines().find(|line| line.starts_with("autonomy_api_events_total")).unwrap().to_owned();
        line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()
    };
    // It settles far from the end, when the buffers of the two sockets are full.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = sent().await;
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < SALES_COUNT * 3 / 4, "{before} events were taken for a reader that reads nothing");
    let rest = slow.take(SALES_COUNT - 1).await;
    assert!(first.id < rest[0].id && rest.is_sorted_by(|left, right| left.id < right.id));
    assert_eq!(rest.last().unwrap().object()["total"], SALES_COUNT as f64);
    // Coming back needs no more rights either.
    let response = world.http.get(format!("{reading}{SALES}/events?lastEventId={}", rest[9_998].id)).send().await.unwrap();
    assert_eq!(Client::of(response, "").until(SALES_COUNT as f64).await.len(), 10_000);
}
