//! The examples of handlers: logic in Python and in TypeScript beside a worker, asking its caches, and in Rust within it.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use autonomy_servers::free_port;
use serde_json::{Value, json};

mod support;
use support::{Local, until};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/handlers")
}

// The program, ended with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, ports: (u16, u16)) -> Self {
        command.env("PORT", ports.0.to_string()).env("AUTONOMY_CACHES_URL", format!("http://127.0.0.1:{}", ports.1));
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn beside_the_worker(command: &mut Command) {
    let ports = (free_port().unwrap(), free_port().unwrap());
    let service = std::fs::read_to_string(examples().join("service.yaml")).unwrap();
    let service =
        service.replace("port: 8000", &format!("port: {}", ports.0)).replace("cachesPort: 8001", &format!("cachesPort: {}", ports.1));
    // The first ticket comes before the handler is there, and waits for it.
    triages(&service, &[], || Some(Running::start(command, ports))).await;
}

async fn triages(service: &str, arguments: &[&str], begin: impl FnOnce() -> Option<Running>) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir_all(folder.join("yaml")).unwrap();
    std::fs::copy(examples().join("model.yaml"), folder.join("yaml/model.yaml")).unwrap();
    std::fs::write(folder.join("yaml/service.yaml"), service).unwrap();
    let mut local = Local::start(folder, arguments).await;
    local.wait_for("service triage is started").await;

    local.post("/api/desk/customers", json!([{"number": "C1", "contract": "premium"}, {"number": "C2", "contract": "basic"}])).await;
    let ticket = |number: &str, subject: &str| json!({"customerNumber": number, "subject": subject});
    local.post("/api/desk/tickets", ticket("C1", "How do I print?")).await;
    let _handler = begin();
    for (number, subject) in [("C2", "How do I print?"), ("C2", "Everything is DOWN"), ("C3", "Who am I?")] {
        local.post("/api/desk/tickets", ticket(number, subject)).await;
    }

    until("three tickets are triaged", async || {
        let assignments = local.get("/api/desk/assignments?embed=ticket").await;
        let mut found: Vec<(String, String, String)> = assignments
            .as_array()?
            .iter()
            .map(|one| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (text(&one["ticket"]["customerNumber"]), text(&one["ticket"]["priority"]), text(&one["team"]))
            })
            .collect();
        found.sort();
        let wanted = [("C1", "urgent", "first-aid"), ("C2", "normal", "service"), ("C2", "urgent", "first-aid")];
        (found == wanted.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))).then_some(())
    })
    .await;
    until("the fourth is a dead letter that tells why", async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autonomy"));
        command.args(["dead-letters", "list", "-o", "json", "--data-dir"]).arg(&local.data_dir).env_remove("AUTONOMY_NATS_URL");
        let listed = command.output().unwrap().stdout;
        String::from_utf8_lossy(&listed).contains("there is no customer C3").then_some(())
    })
    .await;
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_in_python_asks_the_caches_and_its_answer_is_written() {
    beside_the_worker(Command::new("python3").arg(examples().join("python/handler.py"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_in_typescript_asks_the_caches_and_its_answer_is_written() {
    // Compiled in a folder of its own: the checkout stays as it is.
    let build = tempfile::tempdir().unwrap();
    for file in ["handler.ts", "package.json", "package-lock.json", "tsconfig.json"] {
        std::fs::copy(examples().join("typescript").join(file), build.path().join(file)).unwrap();
    }
    for arguments in [["ci", "--no-audit", "--no-fund", "--loglevel=error"].as_slice(), &["run", "--silent", "build"]] {
        let status = Command::new("npm").args(arguments).current_dir(build.path()).status().unwrap();
        assert!(status.success(), "npm {arguments:?}");
    }
    beside_the_worker(Command::new("node").arg(build.path().join("dist/handler.js"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_logic_in_rust_asks_its_caches_and_what_it_says_is_written() {
    let service = std::fs::read_to_string(examples().join("rust/service.yaml")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_autonomy")).with_file_name("triage");
    assert!(program.exists(), "build it first: cargo build --workspace --bins");
    triages(&service, &["--worker", &format!("triage={}", program.display())], || None).await;
}
