//! `autonomy local` as a child process, and what it said.
#![allow(dead_code, missing_docs)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use autonomy::local::data_folder::LocalFile;
use autonomy_process::options::nats_connect_options;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

// A running `autonomy local`, and what it said.
pub struct Local {
    pub child: std::process::Child,
    said: Arc<Mutex<String>>,
    pub data_dir: PathBuf,
    pub api: String,
}

impl Local {
    pub async fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut local = Self::spawn(folder, arguments);
        local.wait_for("autonomy local runs").await;
        local.api = LocalFile::read(&local.data_dir).unwrap().api;
        local
    }

    pub fn spawn(folder: &Path, arguments: &[&str]) -> Self {
        let data_dir = folder.join("data");
        let mut command = Command::new(env!("CARGO_BIN_EXE_autonomy"));
        command.arg("local").arg("-f").arg(folder.join("yaml")).arg("--data-dir").arg(&data_dir).args(["--listen", "127.0.0.1:0"]);
        command.args(arguments).env("AUTONOMY_RUNTIME", runtime()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        for stream in [Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>, Box::new(child.stderr.take().unwrap())] {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    eprintln!("| {line}");
                    said.lock().unwrap().push_str(&format!("{line}\n"));
                }
            });
        }
        Self { child, said, data_dir, api: String::new() }
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub async fn wait_for(&mut self, text: &str) {
        let said = self.said.clone();
        until(&format!("{text:?} is said"), || async { said.lock().unwrap().contains(text).then_some(()) }).await;
    }

    pub async fn stop(&mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGINT).unwrap();
        assert!(self.end().await.success());
    }

    pub async fn end(&mut self) -> std::process::ExitStatus {
        let child = Mutex::new(&mut self.child);
        until("local mode ends", || async { child.lock().unwrap().try_wait().unwrap() }).await
    }

    pub async fn get(&self, path: &str) -> Value {
        autonomy_process::http_client::new().get(format!("{}{path}", self.api)).send().await.unwrap().json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = autonomy_process::http_client::new().post(format!("{}{path}", self.api)).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    pub async fn events(&self, model: &str) -> Vec<(String, Value)> {
        let local = LocalFile::read(&self.data_dir).unwrap();
        let client = nats_connect_options(&local.nats).unwrap().connect(&local.nats).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream(format!("DEFAULT_{model}")).await.unwrap();
        let mut events = Vec::new();
        for sequence in 1..=stream.cached_info().state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            events.push((message.subject.to_string(), serde_json::from_slice(&message.payload).unwrap()));
        }
        events
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// Built by its own crate: beside the test's executable, or named in the environment.
fn runtime() -> PathBuf {
    if let Some(named) = std::env::var_os("AUTONOMY_RUNTIME") {
        return named.into();
    }
    let beside = Path::new(env!("CARGO_BIN_EXE_autonomy")).with_file_name("autonomy-runtime");
    assert!(beside.exists(), "build it first: cargo build -p autonomy-runtime");
    beside
}

pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    tokio::time::timeout(Duration::from_secs(120), async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
