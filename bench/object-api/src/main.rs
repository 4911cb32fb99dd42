//! Benchmarks of the object API: Autonomy, the limit (parallel binary COPY) and the peers, one after the other, on one PostgreSQL with full
//! durability, the load generator on the same machine.

mod copy;
mod latency;
mod peers;
mod scenarios;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use autonomy_bench::load;
use autonomy_bench::measure::quantile;
use autonomy_bench::platform::{Declared, Platform, spent};
use autonomy_bench::results::{Results, machine};
use autonomy_bench::sales::{Body, Kind, seed_retail};
use clap::Parser;

use crate::peers::{Dialect, Peer};
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
    #[arg(long, value_delimiter = ',', default_value = "latency,bulk,export,limit,transaction,retail,single,peers")]
    parts: Vec<String>,
    /// MiB of the one large body.
    #[arg(long, default_value_t = 2_048)]
    body_mebibytes: u64,
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
    let mut results = Results { machine: machine(), ..Results::default() };
    results.versions.insert("Autonomy".to_owned(), env!("CARGO_PKG_VERSION").into());
    let effort = Effort { duration: Duration::from_secs(options.seconds), bulk_connections: 4, connections: 32 };
    let files = [options.bench.join("object-api/sales.yaml"), options.bench.join("../examples/retail-loyalty/models")];
    let programs = std::env::current_exe()?.parent().unwrap_or(Path::new(".")).to_owned();
    let declared = Declared { files: &files, model: "sales", services: &[], environment: &[] };
    let platform = Platform::start(&programs, folder.path(), declared).await?;
    // What the peers do too comes first, in a database and streams that are small for all of them.
    retail(&options, &platform, effort, &programs, folder.path(), &mut results).await?;
    autonomy(&options, &platform, effort, &mut results).await?;
    platform.stop().await;
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&results)?)?;
    }
    if let Some(file) = &options.markdown {
        std::fs::write(file, results.markdown())?;
    }
    Ok(())
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
    results.versions.insert("PostgreSQL".to_owned(), version.into());
    results.versions.insert("nats-server".to_owned(), autonomy_servers::NATS_SERVER_VERSION.into());
    if wants("latency") {
        for (size, rate) in [(20, 10_000), (1, 1_000)] {
            let milliseconds = latency::measure(platform, &mut system, STREAM, size, rate, effort.duration).await?;
            let scenario = format!("commit to subscriber p99, {rate} changes/s in lists of {size}");
            results.add(&scenario, "ms", "autonomy", quantile(&milliseconds, 0.99), latency::note(&milliseconds));
        }
    }
    if wants("bulk") {
        for size in LISTS {
            platform.settle().await?;
            let (rate, note) = scenarios::bulk(&mut system, &Kind::Plain, size, effort, Some((platform, STREAM))).await?;
            results.add(&format!("bulk POST, lists of {size}"), "Sales/s", "autonomy", rate, note);
        }
    }
    if wants("export") {
        let (rate, note) = scenarios::export(&system).await?;
        results.add("export as NDJSON", "objects/s", "autonomy", rate, note);
    }
    if wants("limit") {
        limit(platform, &mut system, effort, results).await?;
    }
    if wants("transaction") {
        transaction(platform, &mut system, options.body_mebibytes, results).await?;
    }
    Ok(())
}

// Without events: the relay is held, so that the database's own work is compared.
async fn limit(platform: &Platform, system: &mut System, effort: Effort, results: &mut Results) -> Result<(), Box<dyn Error>> {
    let before: u64 = platform.messages(STREAM).await?;
    let first: i64 = sqlx::query_scalar("SELECT count(*) FROM sales.sale").fetch_one(&platform.admin).await?;
    platform.hold("relay", true);
    copy::make_table(&platform.admin).await?;
    for size in [500, 5_000] {
        platform.settle().await?;
        let scenario = format!("without events, {size} a transaction");
        let outcome = scenarios::bulk(system, &Kind::Plain, size, effort, None).await;
        let url = platform.database_url("autonomy");
        let copied = copy::measure(&url, effort.bulk_connections as u32, size as usize, effort.duration).await?;
        let (rate, note) = outcome?;
        results.add(&scenario, "Sales/s", "autonomy", rate, note);
        results.add(&scenario, "Sales/s", "parallel binary COPY", copied, "no HTTP, no JSON, no checks".to_owned());
    }
    platform.hold("relay", false);
    let now: i64 = sqlx::query_scalar("SELECT count(*) FROM sales.sale").fetch_one(&platform.admin).await?;
    let backlog = u64::try_from(now - first).unwrap_or(0);
    let costs = platform.costs();
    let seconds = platform.wait_for_messages(STREAM, before + backlog).await?;
    let note = format!("{backlog} changes waited; {}", spent(&costs, &platform.costs(), backlog));
    results.add("the relay alone, behind a backlog", "events/s", "autonomy", backlog as f64 / seconds, note);
    Ok(())
}

// One body of NDJSON, far larger than what is held of it, which is one transaction.
async fn transaction(platform: &Platform, system: &mut System, mebibytes: u64, results: &mut Results) -> Result<(), Box<dyn Error>> {
    let before = platform.messages(STREAM).await?;
    let lines = Body::lines(&Kind::Plain, 1_000, system.receipts);
    let pieces = (mebibytes << 20).div_ceil(lines.len() as u64);
    let rows = pieces * 1_000;
    system.receipts += rows;
    let costs = platform.costs();
    let begun = Instant::now();
    load::send_pieces(&system.target, &system.collection, pieces, lines).await?;
    let committed = begun.elapsed().as_secs_f64();
    let scenario = format!("one body of {mebibytes} MiB, one transaction");
    let note = format!("NDJSON, {rows} Sales; {}", spent(&costs, &platform.costs(), rows));
    results.add(&scenario, "Sales/s", "autonomy", rows as f64 / committed, note);
    let costs = platform.costs();
    let seconds = platform.wait_for_messages(STREAM, before + rows).await?;
    let note = format!("the last {seconds:.0} s behind the commit; {}", spent(&costs, &platform.costs(), rows));
    results.add("its events", "events/s", "autonomy", rows as f64 / seconds, note);
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
    let (stores, products) = seed_retail(platform).await?;
    let kind = Kind::Retail { stores, products };
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
            platform.settle().await?;
            let (rate, note) = scenarios::bulk(&mut system, &kind, size, effort, Some((platform, RETAIL_STREAM))).await?;
            results.add(&format!("bulk POST of retail Sales, lists of {size}"), "Sales/s", "autonomy", rate, note);
        }
    }
    if options.wants("single") {
        scenarios::single(&mut system, &kind, effort, platform, results).await?;
    }
    if !options.wants("peers") {
        return Ok(());
    }
    for peer in peers(options, programs) {
        let mut running = peer.start(&platform.admin, |database| platform.database_url(database), folder).await?;
        if options.wants("retail") {
            for size in LISTS {
                platform.settle().await?;
                let (rate, note) = scenarios::bulk(&mut running.system, &kind, size, effort, None).await?;
                let note = if note.is_empty() { peer.note.to_owned() } else { note };
                results.add(&format!("bulk POST of retail Sales, lists of {size}"), "Sales/s", peer.name, rate, note);
            }
        }
        if options.wants("single") {
            scenarios::single(&mut running.system, &kind, effort, platform, results).await?;
        }
        running.stop().await;
    }
    Ok(())
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
