//! Dashboard and alerts, against what real processes tell a real Prometheus: every expression of the dashboard gives something, every rule can be
//! evaluated, and the alerts fire on failures that are there.

mod local_support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use autonomy_e2e::root;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use local_support::Local;

const RESOURCES: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  entities:
    - name: Customer
      attributes: [{name: name, type: string, maxLength: 40, required: true}]
    - name: Sale
      attributes:
        - {name: total, type: integer, required: true}
        - {name: status, type: string, maxLength: 20, default: open}
---
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: accrual}
spec:
  trigger: {queue: {model: shop, entity: Sale, operations: [created], filter: object.total > 0}}
  caches: [{name: customers, model: shop, entity: Customer}]
  config: {provider: 'PROVIDER'}
  steps:
    - {name: answer, http: {url: 'config.provider + \"/accrue\"', body: '{\"total\": object.total}', circuitBreaker: {}}}
    - {patch: {model: shop, entity: Sale, id: object.id, object: {status: '\"accrued\"'}}}
  deadLetter: {ticket: {url: 'config.provider + \"/tickets\"'}}
---
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: loader}
spec:
  trigger: {files: {directory: INBOX, pattern: 'sales-*.csv', settle: 100ms, incompleteAfter: 100ms}}
  steps:
    - {create: {model: shop, entity: Sale, object: {total: int(row.total)}}}
";

async fn accrue(Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    if body["total"] == 13 { (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({}))) } else { (StatusCode::OK, Json(json!({}))) }
}

// The provider, and a ticket desk that takes nothing.
async fn provider() -> String {
    let routes = Router::new().route("/accrue", post(accrue)).route("/tickets", post(async || StatusCode::UNPROCESSABLE_ENTITY));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await.expect("served") });
    url
}

fn rules_file() -> PathBuf {
    root().join("charts/autonomy/files/monitoring/alerts.yaml")
}

fn tool(name: &str) -> PathBuf {
    let output = Command::new(root().join("scripts/prometheus")).output().expect("scripts/prometheus");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).join(name)
}

/// A Prometheus of the test's own; it ends with this.
struct Prometheus {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// One that looks every second at all processes of local mode, with the labels that the ServiceMonitor of a DataPlatform sets.
    fn start(local: &Local) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let targets = local.state().expect("it runs").processes.into_iter().filter_map(|process| Some((process.name, process.operations?)));
        let targets = targets.map(|(name, address)| {
            let service = name.strip_prefix("worker/").map(|service| format!(", microservice: {service}")).unwrap_or_default();
            format!("      - {{targets: ['{address}'], labels: {{namespace: default{service}}}}}\n")
        });
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n  - job_name: autonomy\n    \
             static_configs:\n{}",
            rules_file().display(),
            targets.collect::<String>()
        );
        let file = folder.path().join("prometheus.yaml");
        fs::write(&file, config).expect("written");
        let address = SocketAddr::from(([127, 0, 0, 1], autonomy_servers::free_port().expect("a port")));
        let process = Command::new(tool("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn()
            .expect("Prometheus starts");
        Self { process, url: format!("http://{address}"), _folder: folder }
    }

    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let request = autonomy_process::http_client::new().get(format!("{}/api/v1/{path}", self.url)).query(parameters);
        let answer: Value = serde_json::from_str(&request.send().await.ok()?.text().await.ok()?).ok()?;
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        Some(answer["data"].clone())
    }

    /// How many series an expression gives.
    async fn series(&self, expression: &str) -> usize {
        let data = self.ask("query", &[("query", expression)]).await;
        data.and_then(|data| Some(data["result"].as_array()?.len())).unwrap_or_default()
    }

    /// The alerts that fire, each with its service.
    async fn firing(&self) -> Vec<(String, String)> {
        let alerts = self.ask("alerts", &[]).await.unwrap_or_default();
        let alerts = alerts["alerts"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["labels"]["microservice"]))).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// The expressions of the dashboard, with its variables as "All" sets them.
fn expressions_of_dashboard() -> Vec<String> {
    let text = fs::read_to_string(root().join("charts/autonomy/files/monitoring/dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| target["expr"].as_str().expect("an expression"));
    let plain = |text: &str| text.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$microservice", ".*");
    let expressions: Vec<String> = expressions.map(plain).collect();
    assert!(expressions.len() > 30 && expressions.iter().all(|expression| !expression.contains('$')), "{expressions:?}");
    expressions
}

// What alerts compare, without what they compare it with: an alert's own expression gives something only when there is a reason.
async fn expressions_of_alerts(prometheus: &Prometheus) -> Vec<String> {
    let rules = prometheus.ask("rules", &[]).await.unwrap_or_default();
    let groups = rules["groups"].as_array().cloned().unwrap_or_default();
    let rules: Vec<Value> = groups.iter().filter_map(|group| group["rules"].as_array().cloned()).flatten().collect();
    rules
        .iter()
        .map(|rule| {
            assert_ne!(rule["health"], "err", "{rule}");
            let expression = rule["query"].as_str().expect("an expression");
            let compared = expression.rfind(" > ").or_else(|| expression.rfind(" < ")).expect("a comparison");
            expression[..compared].to_owned()
        })
        .collect()
}

// What this run does not have: an operator, and requests that fail.
fn is_elsewhere(expression: &str) -> bool {
    expression.contains("autonomy_operator_") || expression.contains("status=~\"5..\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_expression_gives_something_and_alerts_fire_on_failures() {
    let checked = Command::new(tool("promtool")).args(["check", "rules"]).arg(rules_file()).output().expect("promtool");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let inbox = tempfile::tempdir().expect("a folder");
    fs::set_permissions(inbox.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let resources = RESOURCES.replace("PROVIDER", &provider().await).replace("INBOX", inbox.path().to_str().expect("a path"));
    let local = Local::start(&resources, &[]).await;
    let prometheus = Prometheus::start(&local);
    // Counters are seen to grow only when they were seen before.
    local.until("Prometheus has seen the workers", async || prometheus.series("autonomy_worker_events_handled_total").await == 1).await;
    local.until("Prometheus has seen the loader", async || prometheus.series("autonomy_worker_files_total").await == 3).await;

    let client = autonomy_process::http_client::new();
    let sales = format!("{}/api/shop/sales", local.api());
    for total in [0, 1, 2, 13] {
        let posted = client.post(&sales).json(&json!({"total": total})).send().await;
        assert!(posted.is_ok_and(|answer| answer.status().is_success()));
    }
    fs::write(inbox.path().join("sales-1.csv"), "total\n3\n4\nmany\n").expect("written");
    fs::write(inbox.path().join("sales-2.csv"), "").expect("written");

    let mut expressions = expressions_of_dashboard();
    expressions.extend(expressions_of_alerts(&prometheus).await);
    assert!(expressions.len() > 40, "the rules are not loaded: {expressions:?}");
    for expression in expressions.iter().filter(|expression| !is_elsewhere(expression)) {
        local.until(&format!("{expression} gives something"), async || prometheus.series(expression).await > 0).await;
    }
    for expression in expressions.iter().filter(|expression| is_elsewhere(expression)) {
        // It can be evaluated.
        prometheus.series(expression).await;
    }
    for (alert, service) in [("AutonomyDeadLetters", "accrual"), ("AutonomyTicketsFailed", "accrual"), ("AutonomyFilesRejected", "loader")]
    {
        let wanted = (alert.to_owned(), service.to_owned());
        local.until(&format!("{alert} fires"), async || prometheus.firing().await.contains(&wanted)).await;
    }
}
