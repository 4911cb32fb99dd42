//! PostgreSQL, nats-server, API and relay of the test's own; workers in this process, or as a process that can be killed for real; and a web
//! service that misbehaves as told.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use autonomy_crds::documents::{self, Resource};
use autonomy_crds::{Model, resolve};
use autonomy_operator::apply::apply_models;
use autonomy_operator::prepare::{PrepareSettings, prepare};
use autonomy_operator::streams::{StreamSettings, ensure};
use autonomy_servers::{Child, Nats, NatsOptions, Postgres, PostgresOptions};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use clap::Parser;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub const MODEL: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  description: For a test.
  enumerations:
    - {name: SaleStatus, description: Where a sale stands., values: [new, accrued]}
  entities:
    - name: Customer
      description: Who buys.
      key: [number]
      attributes:
        - {name: number, type: string, required: true, maxLength: 20, description: A number.}
        - {name: segment, type: string, description: Which.}
    - name: Sale
      description: What was bought.
      attributes:
        - {name: total, type: decimal, precision: 12, scale: 2, required: true, description: How much.}
        - {name: status, type: SaleStatus, required: true, default: new, description: Where it stands.}
        - {name: customerNumber, type: string, description: Who.}
      events: {routing: status}
    - name: Accrual
      description: What is credited.
      attributes:
        - {name: points, type: integer, required: true, description: How many.}
        - {name: segment, type: string, description: Whose.}
        - {name: sales, type: integer, description: How many sales.}
      relationships:
        - {name: sale, target: Sale, description: For what.}
    - name: Movement
      description: What happens to an account.
      attributes:
        - {name: account, type: string, required: true, description: Which.}
        - {name: number, type: integer, required: true, description: Its place among those of the account.}
      events: {partitionKey: account}
    - name: Booking
      description: What was made of a movement.
      attributes:
        - {name: account, type: string, required: true, description: Which.}
        - {name: number, type: integer, required: true, description: Its place among those of the account.}
";

/// A service that looks up the customer, calls the provider, creates an accrual and patches the sale.
pub const ACCRUAL: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: accrual}
spec:
  trigger: {queue: {model: shop, entity: Sale, routing: [new], filter: 'object.total > 0.00'}}
  caches:
    - {name: customers, model: shop, entity: Customer, fields: [segment], indexes: [number]}
  config: {provider: 'PROVIDER'}
  steps:
    - {name: customer, lookup: {cache: customers, by: number, key: object.customerNumber, onMissing: fail}}
    - {name: answer, http: {url: 'config.provider + \"/accrue\"', body: '{\"sale\": object.id, \"number\": object.customerNumber}', timeout: 5s}}
    - {name: accrual, create: {model: shop, entity: Accrual, object: {saleId: object.id, points: answer.body.points, segment: customer.segment}}}
    - {patch: {model: shop, entity: Sale, id: object.id, object: {status: '\"accrued\"'}, if: {status: '\"new\"'}}}
  retry: {maxAttempts: 5, initialBackoff: 100ms, maxBackoff: 2s}
  deadLetter: {ticket: {url: 'config.provider + \"/tickets\"'}}
  scaling: {concurrency: 8}
";

/// A service that gathers sales into one accrual a customer.
pub const LEDGER: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: ledger}
spec:
  trigger: {queue: {model: shop, entity: Sale, routing: [new], batch: {maxObjects: 50, maxWait: 500ms, groupBy: object.customerNumber}}}
  steps:
    - {create: {model: shop, entity: Accrual, object: {points: '1', segment: group, sales: 'size(objects)'}}}
    - {patch: {model: shop, entity: Sale, forEach: objects, id: item.id, object: {status: '\"accrued\"'}, if: {status: '\"new\"'}}}
  retry: {maxAttempts: 5, initialBackoff: 100ms, maxBackoff: 2s}
";

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: autonomy_worker::Options,
}

#[derive(Parser)]
struct ApiArguments {
    #[command(flatten)]
    options: autonomy_api::Options,
}

#[derive(Parser)]
struct RelayArguments {
    #[command(flatten)]
    options: autonomy_relay::Options,
}

const CHILD: &str = "AUTONOMY_TEST_WORKER_ARGUMENTS";

/// The worker, where this process was started as one; a test `worker_process` calls this.
pub fn worker_process() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    log();
    let arguments = Arguments::parse_from(std::iter::once("worker").chain(arguments.split(' ')));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(autonomy_worker::run(arguments.options, None, CancellationToken::new())).unwrap();
}

pub fn log() {
    autonomy_process::telemetry::start_logging(&autonomy_process::telemetry::LogOptions {
        log: std::env::var("AUTONOMY_LOG").unwrap_or_else(|_| "warn,autonomy_worker=info".to_owned()),
        log_format: autonomy_process::telemetry::LogFormat::Text,
    });
}

pub fn parse(yaml: &str) -> Vec<Resource> {
    documents::parse("test.yaml", yaml).unwrap_or_else(|error| panic!("{error:?}"))
}

/// A running role in this process.
pub struct Role {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Role {
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

pub struct World {
    pub nats: Option<Nats>,
    pub pool: PgPool,
    pub model: Model,
    pub api: String,
    pub provider: Provider,
    pub http: reqwest::Client,
    nats_port: u16,
    pub nats_url: String,
    roles: Vec<Role>,
    api_database: String,
    _postgres: Postgres,
    folder: tempfile::TempDir,
}

impl World {
    pub async fn start() -> Self {
        Self::with("2s", &[]).await
    }

    /// With another sync interval of NATS, and more options of the API.
    pub async fn with(sync_interval: &str, api_options: &[&str]) -> Self {
        log();
        let folder = tempfile::tempdir().unwrap();
        let mut options = PostgresOptions::new(folder.path().join("postgresql"));
        options.settings = vec![("fsync".to_owned(), "off".to_owned())];
        let postgres = Postgres::start(options).await.unwrap();
        let admin = PgPool::connect(&postgres.url("postgres")).await.unwrap();
        sqlx::raw_sql("CREATE DATABASE shop").execute(&admin).await.unwrap();
        let pool = PgPool::connect(&postgres.url("shop")).await.unwrap();
        prepare(&pool, &PrepareSettings { api_password: "api".to_owned(), relay_password: "relay".to_owned() }).await.unwrap();
        let models: Vec<_> = parse(MODEL).into_iter().filter_map(|r| if let Resource::DataModel(m) = r { Some(m) } else { None }).collect();
        let models = resolve::resolve_all(&models).unwrap_or_else(|error| panic!("{error:?}"));
        apply_models(&pool, &models).await.unwrap();
        let nats = Nats::start(NatsOptions::new(folder.path().join("nats"))).await.unwrap();
        let jetstream = jetstream::new(nats.connect().await.unwrap());
        ensure(&jetstream, "default", &models, &StreamSettings::default()).await.unwrap();

        let database = |role: &str| format!("postgres://autonomy_shop_{role}:{role}@127.0.0.1:{}/shop", postgres.port());
        let listen = free_address();
        let (api_database, listen_text, nats_url) = (database("api"), listen.to_string(), nats.url());
        let api = ["api", "--database-url", &api_database, "--listen", &listen_text, "--nats-url", &nats_url];
        let api = ApiArguments::parse_from(api.iter().chain(api_options)).options;
        let operations = free_address().to_string();
        let relay = RelayArguments::parse_from([
            "relay",
            "--database-url",
            &database("relay"),
            "--nats-url",
            &nats.url(),
            "--nats-sync-interval",
            sync_interval,
            "--operations-listen",
            &operations,
        ])
        .options;
        let stop = CancellationToken::new();
        let roles = vec![
            role(&stop, {
                let stop = stop.clone();
                async move { autonomy_api::run(api, stop).await.unwrap() }
            }),
            role(&stop, {
                let stop = stop.clone();
                async move { autonomy_relay::run(relay, stop).await.unwrap() }
            }),
        ];
        let nats_port = nats.port();
        let world = Self {
            nats: Some(nats),
            pool,
            model: models.into_iter().next().unwrap(),
            api: format!("http://{listen}"),
            provider: Provider::start().await,
            http: autonomy_process::http_client::new(),
            nats_port,
            nats_url,
            roles,
            api_database,
            _postgres: postgres,
            folder,
        };
        world
            .until("the API answers", || async {
                world.http.get(format!("{}/api/shop", world.api)).send().await.is_ok_and(|a| a.status().is_success())
            })
            .await;
        world
    }

    fn service_file(&self, yaml: &str) -> PathBuf {
        let yaml = yaml.replace("PROVIDER", &self.provider.url);
        let Some(Resource::MicroService(service)) = parse(&yaml).into_iter().next() else { panic!("no service") };
        let name = service.metadata.name.clone().unwrap();
        let path = self.folder.path().join(format!("{name}.json"));
        let document = json!({"namespace": "default", "name": name, "spec": service.spec});
        // At once: another worker of the same service may be reading it.
        let new = path.with_extension(format!("{:x}", rand::random::<u64>()));
        std::fs::write(&new, document.to_string()).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }

    fn arguments(&self, service: &Path, operations: SocketAddr) -> Vec<String> {
        ["--service", service.to_str().unwrap(), "--api-url", &self.api, "--nats-url", &self.nats_url, "--nats-sync-interval", "2s"]
            .into_iter()
            .map(str::to_owned)
            .chain(["--operations-listen".to_owned(), operations.to_string()])
            .chain(["--secrets-dir".to_owned(), self.secrets_dir().display().to_string()])
            .collect()
    }

    /// A worker in this process; gives where its operations endpoint is.
    pub fn worker(&self, yaml: &str) -> (Role, SocketAddr) {
        let operations = free_address();
        let arguments = self.arguments(&self.service_file(yaml), operations);
        let options = Arguments::parse_from(std::iter::once("worker".to_owned()).chain(arguments)).options;
        let stop = CancellationToken::new();
        let running = stop.clone();
        (role(&stop, async move { autonomy_worker::run(options, None, running).await.unwrap() }), operations)
    }

    /// A worker as a process.
    pub fn worker_process(&self, yaml: &str) -> Child {
        let arguments = self.arguments(&self.service_file(yaml), free_address());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["worker_process", "--exact", "--nocapture"]).env(CHILD, arguments.join(" "));
        Child::spawn(command, Signal::SIGKILL).unwrap()
    }

    pub async fn ready(&self, operations: SocketAddr) {
        self.until("the worker is ready", || async {
            self.http.get(format!("http://{operations}/readyz")).send().await.is_ok_and(|a| a.status().is_success())
        })
        .await;
    }

    pub async fn until<F: Future<Output = bool>>(&self, what: &str, condition: impl Fn() -> F) {
        let begun = Instant::now();
        while !condition().await {
            assert!(begun.elapsed() < PATIENCE, "it never came true that {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    pub async fn until_count(&self, query: &'static str, wanted: i64) {
        self.until(&format!("{query} gives {wanted}"), || async { self.count(query).await == wanted }).await;
    }

    /// Sales of customers that are committed with them, so that only a cache that is in sync finds them.
    pub async fn sell(&self, from: usize, to: usize) {
        for n in from..to {
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
                "BEGIN; INSERT INTO shop.customer(id, number, segment) VALUES (gen_random_uuid(), 'c{n}', 's{}');
                 INSERT INTO shop.sale(id, total, customer_number) VALUES (gen_random_uuid(), {n}.50, 'c{n}'); COMMIT",
                n % 3
            )))
            .execute(&self.pool)
            .await
            .unwrap();
        }
    }

    pub async fn sell_unknown(&self, number: &'static str) {
        sqlx::query("INSERT INTO shop.sale(id, total, customer_number) VALUES (gen_random_uuid(), 5, $1)")
            .bind(number)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub async fn jetstream(&self) -> jetstream::Context {
        let options = autonomy_process::options::nats_connect_options(&self.nats_url).unwrap();
        jetstream::new(options.connect(&self.nats_url).await.unwrap())
    }

    pub async fn ack_pending(&self, stream: &str, consumer: &str) -> usize {
        let stream = self.jetstream().await.get_stream(stream).await.unwrap();
        stream.consumer_info(consumer).await.map_or(usize::MAX, |info| info.num_ack_pending + usize::try_from(info.num_pending).unwrap())
    }

    pub async fn messages(&self, stream: &str) -> u64 {
        self.jetstream().await.get_stream(stream).await.unwrap().cached_info().state.messages
    }

    /// Waits until everything is acknowledged and nothing waits in the retry stream.
    pub async fn until_drained(&self, service: &str) {
        self.until("all is acknowledged", || async {
            self.ack_pending("DEFAULT_SHOP", service).await == 0
                && self.ack_pending("DEFAULT_RETRIES", &format!("{service}-retries")).await == 0
                && self.messages("DEFAULT_RETRIES").await == 0
        })
        .await;
    }

    /// Copies what NATS has on its disk, beside it: what a server comes back with that lost the rest.
    pub async fn copy_nats(&mut self) -> PathBuf {
        let copy = self.nats_folder().with_extension("older");
        self.nats.as_ref().unwrap().stop().await;
        assert!(Command::new("cp").arg("-a").arg(self.nats_folder()).arg(&copy).status().unwrap().success());
        self.start_nats().await;
        copy
    }

    /// Until the relay counts as synced all that the model's stream has.
    pub async fn until_synced(&self) {
        let last = i64::try_from(self.messages("DEFAULT_SHOP").await).unwrap();
        let known = "SELECT coalesce(max(last_sequence), 0)::bigint FROM autonomy.relay_stream";
        self.until("the relay counts all as synced", || async { self.count(known).await >= last }).await;
    }

    pub async fn restart_nats(&mut self) {
        let nats = self.nats.take().unwrap();
        nats.kill();
        nats.wait_exit().await;
        self.start_nats().await;
    }

    pub async fn start_nats(&mut self) {
        let options = NatsOptions { port: Some(self.nats_port), ..NatsOptions::new(self.folder.path().join("nats")) };
        self.nats = Some(Nats::start(options).await.unwrap());
    }

    /// Another API on the same database, with another user of NATS; gives its address.
    pub async fn another_api(&mut self, nats_url: &str) -> String {
        let listen = free_address();
        let arguments = ["api", "--database-url", &self.api_database, "--listen", &listen.to_string(), "--nats-url", nats_url];
        let options = ApiArguments::parse_from(arguments).options;
        let stop = CancellationToken::new();
        let running = stop.clone();
        self.roles.push(role(&stop, async move { autonomy_api::run(options, running).await.unwrap() }));
        let ready = format!("http://{listen}/readyz");
        self.until("the API is ready", || async { self.http.get(&ready).send().await.is_ok_and(|a| a.status().is_success()) }).await;
        format!("http://{listen}")
    }

    /// Stops API and relay.
    pub async fn stop_roles(&mut self) {
        for role in self.roles.drain(..) {
            role.stop().await;
        }
    }

    /// Where the workers find Secrets.
    pub fn secrets_dir(&self) -> PathBuf {
        self.folder.path().join("secrets")
    }

    pub fn nats_folder(&self) -> PathBuf {
        self.folder.path().join("nats")
    }
}

fn role(stop: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) -> Role {
    Role { stop: stop.clone(), task: tokio::spawn(work) }
}

fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], autonomy_servers::free_port().unwrap()))
}

/// A loyalty provider and a ticket desk.
#[derive(Clone)]
pub struct Provider {
    pub url: String,
    state: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    // How many answers of this status a customer number gets before it is served.
    refusals: HashMap<String, (u16, usize)>,
    delay: Duration,
    // By idempotency key.
    accrued: HashMap<String, String>,
    calls: usize,
    tickets: HashMap<String, Value>,
    ticket_refusals: usize,
    ticket_calls: usize,
}

impl Provider {
    async fn start() -> Self {
        let state: Arc<Mutex<Books>> = Arc::default();
        let app = Router::new().route("/accrue", post(accrue)).route("/tickets", post(ticket)).with_state(state.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, state }
    }

    pub fn refuse(&self, number: &str, status: u16, times: usize) {
        self.state.lock().unwrap().refusals.insert(number.to_owned(), (status, times));
    }

    pub fn refuse_tickets(&self, times: usize) {
        self.state.lock().unwrap().ticket_refusals = times;
    }

    pub fn delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    /// Sales credited; each idempotency key once.
    pub fn accrued(&self) -> usize {
        self.state.lock().unwrap().accrued.len()
    }

    pub fn tickets(&self) -> Vec<Value> {
        self.state.lock().unwrap().tickets.values().cloned().collect()
    }

    pub fn calls(&self) -> usize {
        self.state.lock().unwrap().calls
    }
}

async fn accrue(State(state): State<Arc<Mutex<Books>>>, headers: HeaderMap, body: String) -> impl IntoResponse {
    let delay = state.lock().unwrap().delay;
    tokio::time::sleep(delay).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let key = headers.get("idempotency-key").unwrap().to_str().unwrap().to_owned();
    let mut books = state.lock().unwrap();
    books.calls += 1;
    if let Some((status, times)) = books.refusals.get_mut(body["number"].as_str().unwrap())
        && *times > 0
    {
        *times -= 1;
        return (StatusCode::from_u16(*status).unwrap(), axum::Json(json!({"error": "told to refuse"})));
    }
    books.accrued.insert(key, body["sale"].as_str().unwrap().to_owned());
    (StatusCode::OK, axum::Json(json!({"points": 10})))
}

async fn ticket(State(state): State<Arc<Mutex<Books>>>, headers: HeaderMap, body: String) -> StatusCode {
    let mut books = state.lock().unwrap();
    books.ticket_calls += 1;
    if books.ticket_refusals > 0 {
        books.ticket_refusals -= 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let key = headers.get("idempotency-key").unwrap().to_str().unwrap().to_owned();
    books.tickets.insert(key, serde_json::from_str(&body).unwrap());
    StatusCode::CREATED
}
