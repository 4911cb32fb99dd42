//! The worker's benchmark: loyalty accrual from the Sale's event to the committed effect, and the same service as a plain consumer in Python.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use autonomy_bench::load::{Call, Connection, Target};
use autonomy_bench::measure::{own, quantile, resident};
use autonomy_bench::platform::{Declared, Platform, spent};
use autonomy_bench::results::{Results, machine};
use autonomy_bench::sales::{Body, Kind, seed_retail};
use axum::routing::post;
use axum::{Json, Router};
use clap::Parser;
use futures::StreamExt;
use hyper::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

const STREAM: &str = "DEFAULT_RETAIL";
const SERVICE: &str = "worker/accrual";
const CUSTOMERS: u64 = 10_000;
const LIST: u64 = 500;
// Each Sale makes three events: it is created, its accrual is, and it is patched.
const EVENTS: u64 = 3;
const MADE: &str = "SELECT (SELECT count(*) FROM retail.store) + (SELECT count(*) FROM retail.product) + (SELECT count(*) FROM retail.loyalty_tier) \
                    + (SELECT count(*) FROM retail.customer) + (SELECT count(*) FROM retail.loyalty_membership)";

/// Measures the worker.
#[derive(Parser)]
struct Options {
    /// How many Sales wait in each scenario.
    #[arg(long, default_value_t = 100_000)]
    sales: u64,
    /// How many Sales come one by one to a worker that has nothing to do.
    #[arg(long, default_value_t = 200)]
    single_sales: u64,
    /// How many messages the consumer in Python gets.
    #[arg(long, default_value_t = 3_000)]
    peer_messages: u64,
    /// The folder `bench`.
    #[arg(long, default_value = "bench")]
    bench: PathBuf,
    /// Only these: bulk, single, peer.
    #[arg(long, value_delimiter = ',', default_value = "bulk,single,peer")]
    parts: Vec<String>,
    /// Where the table goes.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let provider = provider().await?;
    let mut results = Results { machine: machine(), ..Results::default() };
    results.versions.insert("Autonomy".to_owned(), env!("CARGO_PKG_VERSION").into());
    results.versions.insert("nats-server".to_owned(), autonomy_servers::NATS_SERVER_VERSION.into());
    for (part, name) in [("bulk", "the provider's bulk endpoint"), ("single", "a call a Sale")] {
        if options.parts.iter().any(|wanted| wanted == part) {
            accrual(&options, &provider, part, name, &mut results).await?;
        }
    }
    if options.parts.iter().any(|wanted| wanted == "peer") {
        peer(&options, &provider, &mut results)?;
    }
    if let Some(file) = &options.markdown {
        std::fs::write(file, results.markdown())?;
    }
    Ok(())
}

// The loyalty provider, as fast as it can be: what is measured is the platform.
async fn provider() -> Result<String, Box<dyn Error>> {
    async fn one(Json(asked): Json<Value>) -> Json<Value> {
        Json(booked(&asked))
    }
    async fn many(Json(asked): Json<Value>) -> Json<Value> {
        let accruals = asked["accruals"].as_array().map(Vec::as_slice).unwrap_or_default();
        Json(json!({"results": accruals.iter().map(booked).collect::<Vec<_>>()}))
    }
    fn booked(asked: &Value) -> Value {
        json!({"status": 201, "transactionId": format!("LP-{}", asked["reference"].as_str().unwrap_or_default())})
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/accruals", post(one)).route("/accruals/bulk", post(many));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}

async fn accrual(options: &Options, provider: &str, part: &str, name: &str, results: &mut Results) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("autonomy-bench").tempdir_in("/var/tmp")?;
    let files = [options.bench.join("../examples/retail-loyalty/models"), options.bench.join(format!("worker/accrual-{part}.yaml"))];
    let programs = std::env::current_exe()?.parent().unwrap_or(Path::new(".")).to_owned();
    let environment = [("LOYALTY_PROVIDER_URL", provider)];
    let declared = Declared { files: &files, model: "retail", services: &["accrual"], environment: &environment };
    let platform = Platform::start(&programs, folder.path(), declared).await?;
    let empty = platform.pid(SERVICE).map(|pid| (own(pid), resident(pid))).unwrap_or_default();
    let (stores, products) = seed_retail(&platform).await?;
    seed_members(&platform).await?;
    // The relay may be behind with the events of what was made up to here.
    let made: i64 = sqlx::query_scalar(MADE).fetch_one(&platform.admin).await?;
    platform.wait_for_messages(STREAM, made.unsigned_abs()).await?;
    let kind = Kind::Loyalty { stores, products, customers: CUSTOMERS };
    let body = Arc::new(Body::list(&kind, LIST, 1));
    let lists = options.sales.div_ceil(LIST);
    let sales = lists * LIST;

    // A list first: the caches are loaded, and the path is warm.
    let before = platform.messages(STREAM).await?;
    post_lists(&platform, &body, 1).await?;
    platform.wait_for_messages(STREAM, before + EVENTS * LIST).await?;
    let idle = platform.pid(SERVICE).map(resident).unwrap_or_default();

    let before = platform.messages(STREAM).await?;
    platform.hold(SERVICE, true);
    post_lists(&platform, &body, lists).await?;
    platform.wait_for_messages(STREAM, before + sales).await?;
    platform.settle().await?;
    let costs = platform.costs();
    platform.hold(SERVICE, false);
    let seconds = platform.wait_for_messages(STREAM, before + EVENTS * sales).await?;
    let spent = spent(&costs, &platform.costs(), sales);
    results.add(&format!("accrual, {name}"), "Sales/s", "autonomy", sales as f64 / seconds, format!("events waited; {spent}"));

    let before = platform.messages(STREAM).await?;
    let begun = Instant::now();
    post_lists(&platform, &body, lists).await?;
    platform.wait_for_messages(STREAM, before + EVENTS * sales).await?;
    let rate = sales as f64 / begun.elapsed().as_secs_f64();
    results.add(&format!("accrual, {name}"), "Sales/s", "autonomy, from the POST on", rate, format!("lists of {LIST}"));
    counted(&platform).await?;

    let latencies = idle_latency(options, &platform, &kind).await?;
    let note = format!(
        "p99 {:.1} ms; {} Sales, one by one, from the POST's answer to the accrual's event",
        quantile(&latencies, 0.99),
        latencies.len()
    );
    results.add(&format!("idle latency p50, {name}"), "ms", "autonomy", quantile(&latencies, 0.5), note);
    let note = format!("nothing in its caches; {:.1} MiB with the pages of its program, which is not stripped", empty.1);
    results.add(&format!("the worker's memory, {name}"), "MiB", "autonomy, begun", empty.0, note);
    let note = format!("with {CUSTOMERS} customers and memberships in its caches");
    results.add(&format!("the worker's memory, {name}"), "MiB", "autonomy, idle", idle, note);
    let busy = platform.pid(SERVICE).map(|pid| autonomy_bench::measure::cost(pid).peak_mebibytes).unwrap_or_default();
    results.add(&format!("the worker's memory, {name}"), "MiB", "autonomy, peak", busy, String::new());
    platform.stop().await;
    Ok(())
}

async fn seed_members(platform: &Platform) -> Result<(), Box<dyn Error>> {
    let mut connection = Connection::open(&platform.target()).await?;
    let tier = uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_3000);
    let id = |base: u128, number: u64| uuid::Uuid::from_u128(base + u128::from(number));
    let customer = |n: u64| id(0x0190_0000_0000_7000_8000_0000_0100_0000, n);
    let customers: Vec<_> = (0..CUSTOMERS).map(|n| json!({"id": customer(n), "customerNumber": format!("C{n:07}")})).collect();
    let membership = |n: u64| {
        json!({"id": id(0x0190_0000_0000_7000_8000_0000_0200_0000, n), "membershipNumber": format!("M{n:08}"), "joinedOn": "2020-01-01",
               "customerId": customer(n), "tierId": tier})
    };
    let memberships: Vec<_> = (0..CUSTOMERS).map(membership).collect();
    let tiers = json!([{"id": tier, "code": "gold", "name": "Gold", "pointsPerUnit": 1.5, "pointValue": 0.01}]);
    for (path, list) in [("loyaltyTiers", tiers), ("customers", customers.into()), ("loyaltyMemberships", memberships.into())] {
        let call = Call { method: Method::POST, path: format!("/api/retail/{path}"), body: list.to_string().into() };
        connection.send(call).await?;
    }
    Ok(())
}

async fn post_lists(platform: &Platform, body: &Arc<Body>, lists: u64) -> Result<(), Box<dyn Error>> {
    const CONNECTIONS: u64 = 4;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        let mut connection = Connection::open(&platform.target()).await?;
        let body = body.clone();
        tasks.spawn(async move {
            for _ in (number..lists).step_by(CONNECTIONS as usize) {
                connection.send(Call { method: Method::POST, path: "/api/retail/sales".to_owned(), body: body.fresh() }).await?;
            }
            Ok::<_, autonomy_bench::load::LoadError>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

// Every Sale has its accrual, and no other one: a rate of something else would be worth nothing.
async fn counted(platform: &Platform) -> Result<(), Box<dyn Error>> {
    let counts = "SELECT (SELECT count(*) FROM retail.sale), (SELECT count(*) FROM retail.sale WHERE loyalty = 'accrued'), \
                  (SELECT count(*) FROM retail.loyalty_accrual)";
    let (sales, accrued, accruals): (i64, i64, i64) = sqlx::query_as(counts).fetch_one(&platform.admin).await?;
    if (accrued, accruals) != (sales, sales) {
        return Err(format!("{sales} Sales have {accruals} accruals, and {accrued} are marked").into());
    }
    Ok(())
}

// Milliseconds from the POST's answer, when the Sale is committed, to the arrival of its accrual's event, sorted.
async fn idle_latency(options: &Options, platform: &Platform, kind: &Kind) -> Result<Vec<f64>, Box<dyn Error>> {
    let client = platform.jetstream.client();
    let mut events = client.subscribe("autonomy.default.retail.LoyaltyAccrual.created.>").await?;
    client.flush().await?;
    let target = Target { address: platform.address().to_owned(), headers: Vec::new() };
    let mut connection = Connection::open(&target).await?;
    let body = Body::one(kind, 900_000_000_000);
    let mut milliseconds = Vec::new();
    for _ in 0..options.single_sales {
        let call = Call { method: Method::POST, path: "/api/retail/sales".to_owned(), body: body.fresh() };
        let sale: Value = serde_json::from_slice(&connection.send(call).await?)?;
        let committed = Instant::now();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await?.ok_or("the subscription ended")?;
            let accrual: Value = serde_json::from_slice(&event.payload)?;
            if accrual["saleId"] == sale["id"] {
                break;
            }
        }
        milliseconds.push(committed.elapsed().as_secs_f64() * 1e3);
        // Idle means that nothing is under way.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    milliseconds.sort_unstable_by(f64::total_cmp);
    Ok(milliseconds)
}

// The same service written by hand: a consumer of RabbitMQ, a message at a time, with PostgreSQL for the look-ups and the effects.
fn peer(options: &Options, provider: &str, results: &mut Results) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Handle::current();
    let folder = tempfile::Builder::new().prefix("autonomy-bench").tempdir_in("/var/tmp")?;
    let postgresql = tokio::task::block_in_place(|| {
        runtime.block_on(autonomy_servers::Postgres::start(autonomy_servers::PostgresOptions::new(folder.path().join("postgresql"))))
    })?;
    let output = std::process::Command::new(options.bench.join("peers/consumer/run"))
        .env("DATABASE_URL", postgresql.url("postgres"))
        .env("DATA_DIR", folder.path().join("consumer"))
        .env("LOYALTY_PROVIDER_URL", provider)
        .env("MESSAGES", options.peer_messages.to_string())
        .env("CUSTOMERS", CUSTOMERS.to_string())
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    let rate: f64 = told.lines().find_map(|line| line.strip_prefix("rate ")).ok_or("the consumer told no rate")?.trim().parse()?;
    results.add(
        "accrual, a call a Sale",
        "Sales/s",
        "Python, pika, a message at a time",
        rate,
        "RabbitMQ, psycopg, http.client".to_owned(),
    );
    Ok(())
}
