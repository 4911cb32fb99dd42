//! A PostgreSQL and a nats-server of the test's own, with a model applied, and relays as processes of their own that can be killed for real.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use autonomy_crds::documents::{self, Resource};
use autonomy_crds::event::{Position, Watermark, header};
use autonomy_crds::{Model, resolve};
use autonomy_operator::apply::apply_models;
use autonomy_operator::prepare::{PrepareSettings, prepare};
use autonomy_operator::streams::{StreamSettings, ensure};
use autonomy_servers::{Child, Nats, NatsOptions, Postgres, PostgresOptions, free_port};
use clap::Parser;
use futures::StreamExt;
use nix::sys::signal::Signal;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const SHOP: &str = "
enumerations:
  - {name: SaleStatus, description: Where a sale stands., values: [new, accrued, on account]}
entities:
  - name: Customer
    description: Who buys.
    key: [number]
    attributes:
      - {name: number, type: string, required: true, maxLength: 20, description: A number.}
      - {name: note, type: string, description: Anything.}
  - name: Sale
    description: What was bought.
    attributes:
      - {name: total, type: decimal, precision: 12, scale: 2, required: true, description: How much.}
      - {name: status, type: SaleStatus, required: true, default: new, description: Where it stands.}
      - {name: soldAt, type: dateTime, description: When.}
      - {name: paid, type: boolean, description: Whether.}
      - {name: picture, type: binary, description: What it looks like.}
      - {name: lines, type: json, description: What.}
    relationships:
      - {name: customer, target: Customer, description: Who.}
    events: {routing: status, partitionKey: customer}
";

pub fn model(name: &str, spec: &str) -> Model {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let yaml = format!(
        "apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {{name: {name}}}\nspec:\n  description: For a test.\n{indented}"
    );
    let resources = documents::parse("test.yaml", &yaml).unwrap_or_else(|error| panic!("{error:?}"));
    let models: Vec<_> = resources
        .into_iter()
        .filter_map(|resource| match resource {
            Resource::DataModel(model) => Some(model),
            _ => None,
        })
        .collect();
    resolve::resolve_all(&models).unwrap_or_else(|error| panic!("{error:?}")).remove(0)
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: autonomy_relay::Options,
}

const CHILD: &str = "AUTONOMY_TEST_RELAY_ARGUMENTS";

/// The relay, where this process was started as one; each test file has a test `relay_process` that calls this.
pub fn relay_process() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let arguments = Arguments::parse_from(std::iter::once("relay").chain(arguments.split(' ')));
    autonomy_process::telemetry::start_logging(&autonomy_process::telemetry::LogOptions {
        log: std::env::var("AUTONOMY_LOG").unwrap_or_else(|_| "info".to_owned()),
        log_format: autonomy_process::telemetry::LogFormat::Text,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(autonomy_relay::run(arguments.options, CancellationToken::new())).unwrap();
}

/// A relay process.
pub struct Relay {
    pub child: Child,
    pub operations: String,
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct Stored {
    pub sequence: u64,
    pub subject: String,
    pub headers: HeaderMap,
    pub data: serde_json::Value,
    pub text: String,
}

impl Stored {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.as_str()).unwrap_or_default()
    }

    pub fn position(&self) -> Position {
        self.header(header::ID).parse().unwrap()
    }

    pub fn operation(&self) -> &str {
        self.subject.split('.').nth(4).unwrap()
    }

    pub fn entity(&self) -> &str {
        self.subject.split('.').nth(3).unwrap()
    }
}

/// Servers with a model applied.
pub struct World {
    pub postgres: Option<Postgres>,
    pub nats: Option<Nats>,
    pub pool: PgPool,
    pub models: Vec<Model>,
    pub sync_interval: &'static str,
    postgres_settings: Vec<(String, String)>,
    postgres_port: u16,
    nats_port: u16,
    nats_url: String,
    folder: tempfile::TempDir,
}

impl World {
    pub async fn start(models: Vec<Model>) -> Self {
        Self::start_with(models, &[]).await
    }

    pub async fn start_with(models: Vec<Model>, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut postgres_settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // Killed processes lose nothing by this.
        postgres_settings.push(("fsync".to_owned(), "off".to_owned()));
        let mut options = PostgresOptions::new(folder.path().join("postgresql"));
        options.settings = postgres_settings.clone();
        let postgres = Postgres::start(options).await.unwrap();
        let admin = PgPool::connect(&postgres.url("postgres")).await.unwrap();
        sqlx::raw_sql("CREATE DATABASE shop").execute(&admin).await.unwrap();
        let pool = PgPoolOptions::new().max_connections(16).connect(&postgres.url("shop")).await.unwrap();
        let settings = PrepareSettings { api_password: "api".to_owned(), relay_password: "relay".to_owned() };
        prepare(&pool, &settings).await.unwrap();
        let nats = Nats::start(NatsOptions::new(folder.path().join("nats"))).await.unwrap();
        let (postgres_port, nats_port, nats_url) = (postgres.port(), nats.port(), nats.url());
        let world = Self {
            postgres: Some(postgres),
            nats: Some(nats),
            pool,
            models: Vec::new(),
            sync_interval: "2s",
            postgres_settings,
            postgres_port,
            nats_port,
            nats_url,
            folder,
        };
        world.with(models).await
    }

    async fn with(mut self, models: Vec<Model>) -> Self {
        self.apply(&models).await;
        self.ensure_streams(&models).await;
        self.models = models;
        self
    }

    pub async fn apply(&self, models: &[Model]) {
        apply_models(&self.pool, models).await.unwrap();
    }

    pub async fn ensure_streams(&self, models: &[Model]) {
        ensure(&self.jetstream().await, "default", models, &StreamSettings::default()).await.unwrap();
    }

    pub fn relay(&self) -> Relay {
        let operations = format!("127.0.0.1:{}", free_port().unwrap());
        let mut command = Command::new(std::env::current_exe().unwrap());
        let log = OpenOptions::new().create(true).append(true).open(self.relay_log()).unwrap();
        command
            .args(["relay_process", "--exact", "--nocapture"])
            .env(CHILD, format!("--operations-listen {operations} --nats-sync-interval {}", self.sync_interval))
            .env("AUTONOMY_DATABASE_URL", format!("postgres://autonomy_shop_relay:relay@127.0.0.1:{}/shop", self.postgres_port))
            .env("AUTONOMY_NATS_URL", &self.nats_url)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Relay { child: Child::spawn(command, Signal::SIGKILL).unwrap(), operations }
    }

    pub fn relay_log(&self) -> PathBuf {
        self.folder.path().join("relay.log")
    }

    pub fn nats_folder(&self) -> PathBuf {
        self.folder.path().join("nats")
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub async fn restart_nats(&mut self) {
        self.nats = None;
        let mut options = NatsOptions::new(self.nats_folder());
        options.port = Some(self.nats_port);
        self.nats = Some(Nats::start(options).await.unwrap());
    }

    pub async fn restart_postgres(&mut self) {
        self.postgres = None;
        let mut options = PostgresOptions::new(self.folder.path().join("postgresql"));
        options.port = Some(self.postgres_port);
        options.settings = self.postgres_settings.clone();
        self.postgres = Some(Postgres::start(options).await.unwrap());
    }

    pub async fn client(&self) -> async_nats::Client {
        self.nats.as_ref().unwrap().connect().await.unwrap()
    }

    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client().await)
    }

    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub async fn text(&self, sql: &str) -> String {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The stream's last sequence.
    pub async fn last_sequence(&self, stream: &str) -> u64 {
        match self.jetstream().await.get_stream(stream).await {
            Ok(stream) => stream.cached_info().state.last_sequence,
            Err(_) => 0,
        }
    }

    /// All messages of a stream.
    pub async fn messages(&self, stream: &str) -> Vec<Stored> {
        let stream = self.jetstream().await.get_stream(stream).await.unwrap();
        let count = stream.cached_info().state.messages;
        let consumer = stream.create_consumer(OrderedConfig::default()).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let mut all = Vec::new();
        while (all.len() as u64) < count {
            let message = messages.next().await.unwrap().unwrap();
            all.push(Stored {
                sequence: message.info().unwrap().stream_sequence,
                subject: message.subject.to_string(),
                headers: message.headers.clone().unwrap_or_default(),
                data: serde_json::from_slice(&message.payload).unwrap(),
                text: String::from_utf8(message.payload.to_vec()).unwrap(),
            });
        }
        all
    }

    /// Waits until the stream has that many messages, and gives them; fails where it gets more.
    pub async fn wait_for(&self, stream: &str, count: u64) -> Vec<Stored> {
        self.until(&format!("{count} messages in {stream}"), async || self.last_sequence(stream).await >= count).await;
        self.messages(stream).await
    }

    /// Waits until a watermark tells that all committed by now is in the streams.
    pub async fn caught_up(&self) -> Watermark {
        let now: String = self.text("SELECT lpad(upper(to_hex((pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint)), 16, '0')").await;
        // The log's end is told only when something is written behind it.
        self.execute("SELECT txid_current()").await;
        let client = self.client().await;
        let mut marks = client.subscribe("autonomy.default._watermark").await.unwrap();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let mark: Watermark = serde_json::from_slice(&marks.next().await.unwrap().payload).unwrap();
                if mark.position >= now {
                    return mark;
                }
            }
        });
        match found.await {
            Ok(mark) => mark,
            Err(_) => panic!("no watermark reached {now}\n{}", self.log_end()),
        }
    }

    /// Waits for a condition; fails with the relay's log.
    pub async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !condition().await {
            assert!(start.elapsed() < PATIENCE, "{what}: not in time\n{}", self.log_end());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.relay_log()).unwrap_or_default();
        log.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.relay_log()).unwrap_or_default()
    }
}

/// Fails unless the messages are in the order of their positions, and each object's versions follow one another from 1 (a deletion ends them).
pub fn assert_in_order(messages: &[Stored]) {
    let mut versions: HashMap<String, i64> = HashMap::new();
    let mut last = None;
    for message in messages {
        let position = message.position();
        assert!(last < Some(position), "message {} at {position} follows {last:?}", message.sequence);
        last = Some(position);
        let id = message.header(header::SUBJECT).to_owned();
        let version: i64 = message.header(header::VERSION).parse().unwrap();
        let expected = match message.operation() {
            "created" => 1,
            "updated" => versions.get(&id).copied().unwrap_or(0) + 1,
            _ => versions.get(&id).copied().unwrap_or(0),
        };
        assert_eq!(version, expected, "{} of {id} at sequence {}", message.operation(), message.sequence);
        if message.operation() == "deleted" {
            versions.remove(&id);
        } else {
            versions.insert(id, version);
        }
    }
}
