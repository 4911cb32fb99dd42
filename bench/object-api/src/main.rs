//! Benchmarks of the object API: Autonomy, the limit (parallel binary COPY) and the peers, one after the other, on one PostgreSQL with full
//! durability, the load generator on the same machine.

mod copy;
mod latency;
mod load;
mod measure;
mod peers;
mod platform;
mod results;
mod sales;
mod scenarios;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use hyper::Method;
use serde_json::json;

use crate::load::{Call, Connection};
use crate::measure::quantile;
use crate::peers::{Dialect, Peer};
use crate::platform::Platform;
use crate::results::Results;
use crate::sales::Kind;
use crate::scenarios::{Effort, System};

const STREAM: &str = "DEFAULT_SALES";
const RETAIL_STREAM: &str = "DEFAULT_RETAIL";
const LISTS: [u64; 3] = [20, 500, 5_000];

/// Measures the object API and its peers.
#[derive(Parser)]
struct Options {
    /// Seconds that each load lasts.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The folder `bench`.
    #[arg(long, default_value = "bench")]
    bench: PathBuf,
    /// Only these parts.
    #[arg(long, value_delimiter = ',', default_value = "bulk,limit,latency,export,transaction,retail,single,peers")]
    parts: Vec<String>,
    /// Rows of the one large transaction.
    #[arg(long, default_value_t = 5_000_000)]
    transaction_rows: u64,
    /// Where the results go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the table goes.
    #[arg(long)]
    markdown: Option<PathBuf>,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.parts.iter().any(|wanted| wanted == part)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let folder = tempfile::Builder::new().prefix("autonomy-bench").tempdir_in("/var/tmp")?;
    let mut results =
        Results { machine: machine(), versions: vec![("autonomy".to_owned(), env!("CARGO_PKG_VERSION").to_owned())], ..Results::default() };
    let effort = Effort { duration: Duration::from_secs(options.seconds), bulk_connections: 4, connections: 32 };
    let files = [options.bench.join("object-api/sales.yaml"), options.bench.join("../examples/retail-loyalty/models")];
    let programs = std::env::current_exe()?.parent().unwrap_or(Path::new(".")).to_owned();
    let platform = Platform::start(&programs, &files, folder.path(), "sales").await?;
    autonomy(&options, &platform, effort, &mut results).await?;
    retail(&options, &platform, effort, &programs, folder.path(), &mut results).await?;
    platform.stop().await;
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&results)?)?;
    }
    if let Some(file) = &options.markdown {
        std::fs::write(file, results.markdown())?;
    }
    Ok(())
}

fn machine() -> Vec<(String, String)> {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).map(|rest| rest.trim_start_matches(['\t', ' ', ':']));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    vec![
        ("CPUs".to_owned(), cpus.to_string()),
        ("model".to_owned(), model.unwrap_or("unknown").to_owned()),
        ("memory GiB".to_owned(), (kibibytes / 1_048_576).to_string()),
    ]
}

async fn autonomy(options: &Options, platform: &Platform, effort: Effort, results: &mut Results) -> Result<(), Box<dyn Error>> {
    let wants = |part: &str| options.wants(part);
    let mut system = System {
        name: "autonomy".to_owned(),
        target: platform.target(),
        collection: "/api/sales/sales".to_owned(),
        minimal: "",
        page: "?limit=100",
        receipts: 1,
    };
    let version: String = sqlx::query_scalar("SHOW server_version").fetch_one(&platform.admin).await?;
    results.versions.push(("PostgreSQL".to_owned(), version));
    results.versions.push(("nats-server".to_owned(), autonomy_servers::NATS_SERVER_VERSION.to_owned()));
    if wants("bulk") {
        for size in LISTS {
            let (rate, note) = scenarios::bulk(&mut system, &Kind::Plain, size, effort, Some((platform, STREAM))).await?;
            results.add(&format!("bulk POST, lists of {size}"), "Sales/s", "autonomy", rate, note);
        }
    }
    if wants("limit") {
        limit(platform, &mut system, effort, results).await?;
    }
    if wants("latency") {
        for (size, rate) in [(20, 10_000), (1, 1_000)] {
            let milliseconds = latency::measure(platform, &mut system, STREAM, size, rate, effort.duration).await?;
            let scenario = format!("commit to subscriber p99, {rate} changes/s in lists of {size}");
            results.add(&scenario, "ms", "autonomy", quantile(&milliseconds, 0.99), latency::note(&milliseconds));
        }
    }
    if wants("export") {
        let (rate, note) = scenarios::export(&system, 500_000).await?;
        results.add("export as NDJSON", "objects/s", "autonomy", rate, note);
    }
    if wants("transaction") {
        transaction(platform, options.transaction_rows, results).await?;
    }
    Ok(())
}

// Without events: the relay is held, so that the database's own work is compared.
async fn limit(platform: &Platform, system: &mut System, effort: Effort, results: &mut Results) -> Result<(), Box<dyn Error>> {
    let before: u64 = platform.messages(STREAM).await?;
    let first: i64 = sqlx::query_scalar("SELECT count(*) FROM sales.sale").fetch_one(&platform.admin).await?;
    platform.hold_relay(true);
    copy::make_table(&platform.admin).await?;
    for size in [500, 5_000] {
        let scenario = format!("without events, {size} a transaction");
        let outcome = scenarios::bulk(system, &Kind::Plain, size, effort, None).await;
        let url = platform.database_url("autonomy");
        let copied = copy::measure(&url, effort.bulk_connections as u32, size as usize, effort.duration).await?;
        let (rate, note) = outcome?;
        results.add(&scenario, "Sales/s", "autonomy", rate, note);
        results.add(&scenario, "Sales/s", "parallel binary COPY", copied, "no HTTP, no JSON, no checks".to_owned());
    }
    platform.hold_relay(false);
    let now: i64 = sqlx::query_scalar("SELECT count(*) FROM sales.sale").fetch_one(&platform.admin).await?;
    let backlog = u64::try_from(now - first).unwrap_or(0);
    let costs = platform.costs();
    let seconds = platform.wait_for_messages(STREAM, before + backlog).await?;
    let note = format!("{backlog} changes waited; {}", scenarios::spent(&costs, &platform.costs(), backlog));
    results.add("the relay alone, behind a backlog", "events/s", "autonomy", backlog as f64 / seconds, note);
    Ok(())
}

// One transaction of many rows, by SQL.
async fn transaction(platform: &Platform, rows: u64, results: &mut Results) -> Result<(), Box<dyn Error>> {
    let before = platform.messages(STREAM).await?;
    let insert = "INSERT INTO sales.sale (id, store_id, receipt_number, status, sold_at, business_date, customer_number, total_amount, tax_amount, \
                  currency, points, paid) SELECT gen_random_uuid(), '01900000-0000-7000-8000-000000000001', n::text, 'completed', now(), \
                  current_date, 'C1', 12.34, 1.97, 'EUR', 12, true FROM generate_series(1, $1) AS n";
    let begun = Instant::now();
    sqlx::query(insert).bind(i64::try_from(rows)?).execute(&platform.admin).await?;
    let committed = begun.elapsed().as_secs_f64();
    let costs = platform.costs();
    let seconds = platform.wait_for_messages(STREAM, before + rows).await?;
    let note =
        format!("committed after {committed:.0} s, last event {seconds:.0} s later; {}", scenarios::spent(&costs, &platform.costs(), rows));
    results.add(&format!("one transaction of {rows} rows"), "events/s", "autonomy", rows as f64 / seconds, note);
    Ok(())
}

// The Sale of the retail example, with references, lines and indexes: Autonomy and its peers.
async fn retail(
    options: &Options,
    platform: &Platform,
    effort: Effort,
    programs: &Path,
    folder: &Path,
    results: &mut Results,
) -> Result<(), Box<dyn Error>> {
    let kind = stores_and_products(platform).await?;
    let mut system = System {
        name: "autonomy".to_owned(),
        target: platform.target(),
        collection: "/api/retail/sales".to_owned(),
        minimal: "",
        page: "?limit=100",
        receipts: 1,
    };
    if options.wants("retail") {
        for size in LISTS {
            let (rate, note) = scenarios::bulk(&mut system, &kind, size, effort, Some((platform, RETAIL_STREAM))).await?;
            results.add(&format!("bulk POST of retail Sales, lists of {size}"), "Sales/s", "autonomy", rate, note);
        }
    }
    if options.wants("single") {
        scenarios::single(&mut system, &kind, effort, results).await?;
    }
    if !options.wants("peers") {
        return Ok(());
    }
    for peer in peers(options, programs) {
        let mut running = peer.start(&platform.admin, |database| platform.database_url(database), folder).await?;
        if options.wants("retail") {
            for size in LISTS {
                let (rate, note) = scenarios::bulk(&mut running.system, &kind, size, effort, None).await?;
                let note = if note.is_empty() { peer.note.to_owned() } else { note };
                results.add(&format!("bulk POST of retail Sales, lists of {size}"), "Sales/s", peer.name, rate, note);
            }
        }
        if options.wants("single") {
            scenarios::single(&mut running.system, &kind, effort, results).await?;
        }
        running.stop().await;
    }
    Ok(())
}

async fn stores_and_products(platform: &Platform) -> Result<Kind, Box<dyn Error>> {
    let mut connection = Connection::open(&platform.target()).await?;
    let ids = |first: u128, count: u128| (0..count).map(|n| uuid::Uuid::from_u128(first + n)).collect::<Vec<_>>();
    let (stores, products) = (ids(0x0190_0000_0000_7000_8000_0000_0000_1000, 40), ids(0x0190_0000_0000_7000_8000_0000_0000_2000, 200));
    let store = |(n, id): (usize, &uuid::Uuid)| json!({"id": id, "storeNumber": format!("S{n:05}"), "name": "A store", "city": "Berlin"});
    let product = |(n, id): (usize, &uuid::Uuid)| json!({"id": id, "productCode": format!("P{n:06}"), "name": "A product", "category": "all", "unitPrice": 1});
    let store: Vec<_> = stores.iter().enumerate().map(store).collect();
    let product: Vec<_> = products.iter().enumerate().map(product).collect();
    for (path, list) in [("/api/retail/stores", store), ("/api/retail/products", product)] {
        let body = serde_json::Value::from(list).to_string().into();
        connection.send(Call { method: Method::POST, path: path.to_owned(), body }).await?;
    }
    Ok(Kind::Retail { stores, products })
}

fn peers(options: &Options, programs: &Path) -> Vec<Peer> {
    const DJANGO: Dialect =
        Dialect { collection: "/api/retail/sales", minimal: "", page: "?limit=100", headers: &[("prefer", "return=minimal")] };
    let django = options.bench.join("peers/django/start");
    vec![
        Peer {
            name: "minimal axum + sqlx",
            note: "no events",
            program: programs.join("bench-minimal-axum"),
            environment: Vec::new(),
            dialect: Dialect { collection: "/sales", minimal: "", page: "?limit=100", headers: &[] },
        },
        Peer {
            name: "Django + RabbitMQ",
            note: "events by pika after the commit",
            program: django.clone(),
            environment: vec![("PUBLISH", "1")],
            dialect: DJANGO,
        },
        Peer { name: "Django", note: "no events", program: django, environment: vec![("PUBLISH", "0")], dialect: DJANGO },
        Peer {
            name: "Directus",
            note: "no events",
            program: options.bench.join("peers/directus/start"),
            environment: Vec::new(),
            dialect: Dialect {
                collection: "/items/sale",
                minimal: "?fields=id",
                page: "?limit=100",
                headers: &[("authorization", "Bearer bench-token")],
            },
        },
    ]
}
