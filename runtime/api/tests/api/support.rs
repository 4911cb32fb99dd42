//! What the tests have alike: one PostgreSQL for all, a database and an API for each.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};

use autonomy_api::Options;
use autonomy_api::events::EventOptions;
use autonomy_crds::documents::{self, Resource};
use autonomy_crds::{DataModel, Model, resolve};
use autonomy_operator::apply::apply_models;
use autonomy_operator::prepare::{PrepareSettings, prepare};
use autonomy_process::options::DatabaseOptions;
use autonomy_servers::{Postgres, PostgresOptions};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const MODEL: &str = r#"
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  description: A shop.
  enumerations:
    - {name: SaleStatus, values: [new, accrued, invoiced]}
  entities:
    - name: Store
      attributes:
        - {name: code, type: string, required: true, maxLength: 8, pattern: "[A-Z0-9]+"}
        - {name: name, type: string}
        - {name: openedOn, type: date}
        - {name: rank, type: integer, minimum: 1, maximum: 100}
      key: [code]
    - name: Product
      attributes:
        - {name: title, type: string, required: true}
    - name: Sale
      attributes:
        - {name: receipt, type: string, required: true, maxLength: 40}
        - {name: soldAt, type: dateTime, required: true}
        - {name: total, type: decimal, precision: 12, scale: 2, required: true}
        - {name: exact, type: decimal}
        - {name: status, type: SaleStatus, required: true, default: new}
        - {name: paid, type: boolean, default: false}
        - {name: points, type: integer}
        - {name: minPoints, type: integer}
        - {name: notes, type: json}
        - {name: signature, type: binary, maxLength: 16}
        - {name: token, type: uuid, unique: true}
      key: [receipt]
      relationships:
        - {name: store, target: Store, required: true}
      parts:
        - {name: lines, entity: SaleLine, maxItems: 50}
      checks:
        - {name: enoughPoints, attribute: points, operator: gte, other: minPoints}
      events: {routing: status}
    - name: SaleLine
      partOf: Sale
      attributes:
        - {name: quantity, type: integer, required: true, minimum: 1}
        - {name: price, type: decimal, precision: 10, scale: 2, required: true}
        - {name: note, type: string}
      relationships:
        - {name: product, target: Product, required: true}
"#;

// The server lives on a thread of its own, because it dies with the thread that started it.
fn server() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("api-postgresql");
                let _ = std::fs::remove_dir_all(&folder);
                let mut options = PostgresOptions::new(folder);
                options.settings = vec![("fsync".to_owned(), "off".to_owned()), ("max_connections".to_owned(), "200".to_owned())];
                let postgres = Postgres::start(options).await.expect("PostgreSQL");
                sender.send(postgres.url("{database}")).unwrap();
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().expect("PostgreSQL starts")
    })
}

/// What an API process ends with.
pub type Ended = JoinHandle<Result<(), autonomy_api::Error>>;

/// A database with the models, and an API on it.
pub struct Api {
    pub base: String,
    pub admin: PgPool,
    pub database: String,
    stop: CancellationToken,
    client: Client,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An answer, with its body as JSON where it is some.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks the status, and that a failure is a problem.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if status >= 400 {
            assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
            assert_eq!(self.json()["status"], status);
            assert!(self.json()["type"].is_string() && self.json()["title"].is_string() && self.json()["detail"].is_string());
        }
        self
    }

    /// The faults as pointer (or parameter) and detail.
    pub fn faults(&self) -> Vec<(String, String)> {
        let json = self.json();
        let list = json["errors"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        list.iter()
            .map(|fault| {
                let place = if fault["pointer"].is_string() { text(&fault["pointer"]) } else { text(&fault["parameter"]) };
                (place, text(&fault["detail"]))
            })
            .collect()
    }

    pub fn pointers(&self) -> Vec<String> {
        let mut pointers: Vec<String> = self.faults().into_iter().map(|(pointer, _)| pointer).collect();
        pointers.sort();
        pointers
    }
}

/// The models of a YAML text.
pub fn models(yaml: &str) -> Vec<Model> {
    let resources = documents::parse("test.yaml", yaml).expect("documents");
    let models: Vec<DataModel> = resources
        .into_iter()
        .filter_map(|resource| match resource {
            Resource::DataModel(model) => Some(model),
            _ => None,
        })
        .collect();
    resolve::resolve_all(&models).expect("resolved")
}

impl Api {
    pub async fn start() -> Self {
        Self::with(MODEL).await
    }

    pub async fn with(yaml: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = tokio::task::spawn_blocking(server).await.unwrap();
        let database = format!("api_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        {
            let postgres = PgPool::connect(&server.replace("{database}", "postgres").replace("%7Bdatabase%7D", "postgres")).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&postgres).await.unwrap();
            postgres.close().await;
        }
        let url = server.replace("{database}", &database).replace("%7Bdatabase%7D", &database);
        let admin = PgPool::connect(&url).await.unwrap();
        let settings = PrepareSettings { api_password: "api".to_owned(), relay_password: "relay".to_owned() };
        prepare(&admin, &settings).await.expect("prepared");
        apply_models(&admin, &models(yaml)).await.expect("applied");
        let mut api = Self {
            base: String::new(),
            admin,
            database: url,
            stop: CancellationToken::new(),
            client: autonomy_process::http_client::new(),
        };
        api.base = api.another().await;
        api
    }

    /// Starts another API process on the same database; gives its address.
    pub async fn another(&self) -> String {
        self.another_with(EventOptions::default()).await
    }

    /// The same, with events.
    pub async fn another_with(&self, events: EventOptions) -> String {
        self.another_as(|options| options.events = events).await
    }

    /// The same, with options changed.
    pub async fn another_as(&self, change: impl FnOnce(&mut Options)) -> String {
        self.another_until(self.stop.clone(), change).await.0
    }

    /// The same, until `stop`; gives what it ends with too.
    pub async fn another_until(&self, stop: CancellationToken, change: impl FnOnce(&mut Options)) -> (String, Ended) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (_, rest) = self.database.split_once('@').unwrap();
        let role = autonomy_operator::sql::api_role(rest.split_once('/').unwrap().1);
        let mut options = Options {
            database: DatabaseOptions { database_url: format!("postgres://{role}:api@{rest}"), database_connections: 6 },
            listen: "127.0.0.1:0".parse().unwrap(),
            max_body: 4 * 1024 * 1024,
            body_memory: 32 * 1024 * 1024,
            header_patience: std::time::Duration::from_secs(60),
            idle_patience: std::time::Duration::from_secs(120),
            body_patience: std::time::Duration::from_secs(60),
            idempotency_retention: std::time::Duration::from_secs(3600),
            events: EventOptions::default(),
        };
        change(&mut options);
        let ended = tokio::spawn(autonomy_api::run_on(listener, options, stop));
        while self.send_to(&base, Method::GET, "/readyz", &[], None).await.status != StatusCode::OK {
            tokio::task::yield_now().await;
        }
        (base, ended)
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<String>) -> Answer {
        self.send_to(&self.base, method, path, headers, body).await
    }

    pub async fn send_to(&self, base: &str, method: Method, path: &str, headers: &[(&str, &str)], body: Option<String>) -> Answer {
        let mut request = self.client.request(method, format!("{base}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            if !headers.iter().any(|(name, _)| *name == "content-type") {
                request = request.header("content-type", "application/json");
            }
            request = request.body(body);
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("a whole answer") }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, &[], Some(body.to_string())).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, &[("content-type", "application/merge-patch+json")], Some(body.to_string())).await
    }

    /// Makes an object and gives its id.
    pub async fn make(&self, path: &str, body: Value) -> String {
        self.post(path, &body).await.expect(201).json()["id"].as_str().unwrap().to_owned()
    }

    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.admin).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.admin).await.unwrap();
    }
}
