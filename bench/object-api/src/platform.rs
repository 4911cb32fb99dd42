//! Autonomy as its users run it on one machine: `autonomy local` with the models that are measured.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use autonomy_process::options::{NatsConnectError, nats_connect_options};
use autonomy_servers::Child;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Deserialize;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::load::Target;
use crate::measure::{Cost, cost, own_cost};

const PATIENCE: Duration = Duration::from_secs(120);

/// Why the platform could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// A program can't be started.
    #[error("can't start {0}; run `make build` first")]
    Start(PathBuf, #[source] std::io::Error),
    /// It was not ready in time.
    #[error("{what} was not ready within {} s; see {log}", PATIENCE.as_secs(), log = log.display())]
    NotReady {
        /// What.
        what: String,
        /// Where it logs.
        log: PathBuf,
    },
    /// A file.
    #[error("can't use {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// `local.json`.
    #[error("local.json is not understood")]
    LocalFile(#[from] serde_json::Error),
    /// The database.
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
    /// NATS.
    #[error(transparent)]
    Nats(#[from] NatsConnectError),
    /// A stream.
    #[error("stream {0} can't be looked at")]
    Stream(String, #[source] jetstream::context::GetStreamError),
}

// The part of `local.json` that is read here.
#[derive(Deserialize)]
struct LocalFile {
    api: String,
    nats: String,
    postgresql: String,
    processes: Vec<LocalProcess>,
}

#[derive(Deserialize)]
struct LocalProcess {
    name: String,
    pid: u32,
}

/// The platform while it runs.
pub struct Platform {
    local: Child,
    file: LocalFile,
    /// The superuser's pool on its database.
    pub admin: PgPool,
    /// JetStream.
    pub jetstream: jetstream::Context,
}

/// What each process cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs {
    /// The object API.
    pub api: Cost,
    /// The relay.
    pub relay: Cost,
    /// The nats-server.
    pub nats: Cost,
    /// PostgreSQL, all its processes.
    pub postgresql: Cost,
    /// The load generator: this process itself.
    pub load: Cost,
}

impl Platform {
    /// Starts it with these YAML files and waits until the API serves `model`.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(programs: &Path, files: &[PathBuf], folder: &Path, model: &str) -> Result<Self, PlatformError> {
        let program = programs.join("autonomy");
        let log = folder.join("local.log");
        let output = std::fs::File::create(&log).map_err(|error| PlatformError::File(log.clone(), error))?;
        let errors = output.try_clone().map_err(|error| PlatformError::File(log.clone(), error))?;
        let data = folder.join("data");
        let mut command = Command::new(&program);
        command.arg("local");
        for file in files {
            command.arg("--file").arg(file);
        }
        command.arg("--data-dir").arg(&data).args(["--listen", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let local = Child::spawn(command, Signal::SIGTERM).map_err(|error| PlatformError::Start(program, error))?;
        let begun = Instant::now();
        let file = loop {
            let text = std::fs::read(data.join("local.json")).unwrap_or_default();
            if let Ok(file) = serde_json::from_slice::<LocalFile>(&text)
                && serves(&file, model).await
            {
                break file;
            }
            if begun.elapsed() > PATIENCE || local.exited().is_some() {
                return Err(PlatformError::NotReady { what: "autonomy local".to_owned(), log });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let admin = PgPoolOptions::new().max_connections(4).connect(&file.postgresql).await?;
        let nats = nats_connect_options(&file.nats)?.connect(&file.nats).await.map_err(NatsConnectError::from)?;
        Ok(Self { local, file, admin, jetstream: jetstream::new(nats) })
    }

    /// Where its API is called; answers are asked to be minimal.
    pub fn target(&self) -> Target {
        Target { address: self.address().to_owned(), headers: vec![("prefer", "return=minimal".to_owned())] }
    }

    /// `host:port` of the API.
    pub fn address(&self) -> &str {
        self.file.api.trim_start_matches("http://")
    }

    /// The superuser's URL of a database on its PostgreSQL.
    pub fn database_url(&self, database: &str) -> String {
        let (server, _) = self.file.postgresql.rsplit_once('/').unwrap_or((&self.file.postgresql, ""));
        format!("{server}/{database}")
    }

    /// What its processes have cost so far.
    pub fn costs(&self) -> Costs {
        let of = |name: &str| self.pid(name).map(cost).unwrap_or_default();
        Costs { api: of("api"), relay: of("relay"), nats: of("nats-server"), postgresql: of("postgresql"), load: own_cost() }
    }

    /// Holds or lets go on the relay, for what is measured without events.
    pub fn hold_relay(&self, hold: bool) {
        if let Some(pid) = self.pid("relay") {
            let signal = if hold { Signal::SIGSTOP } else { Signal::SIGCONT };
            // It fails only for a process that has ended.
            let _ = nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    /// How many messages a stream has.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub async fn messages(&self, stream: &str) -> Result<u64, PlatformError> {
        let found = self.jetstream.get_stream(stream).await.map_err(|error| PlatformError::Stream(stream.to_owned(), error))?;
        Ok(found.cached_info().state.messages)
    }

    /// Waits until a stream has so many messages; the seconds that took.
    ///
    /// # Errors
    /// When it can't be looked at, or does not come to it.
    pub async fn wait_for_messages(&self, stream: &str, messages: u64) -> Result<f64, PlatformError> {
        let begun = Instant::now();
        while self.messages(stream).await? < messages {
            if begun.elapsed() > PATIENCE * 5 {
                return Err(PlatformError::NotReady { what: format!("stream {stream}"), log: PathBuf::from("relay.log") });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Stops it.
    pub async fn stop(self) {
        self.local.stop(Signal::SIGTERM, Duration::from_secs(60)).await;
    }

    fn pid(&self, name: &str) -> Option<u32> {
        self.file.processes.iter().find(|process| process.name == name).map(|process| process.pid)
    }
}

async fn serves(file: &LocalFile, model: &str) -> bool {
    let target = Target { address: file.api.trim_start_matches("http://").to_owned(), headers: Vec::new() };
    let call = crate::load::Call { method: hyper::Method::GET, path: format!("/api/{model}"), body: bytes::Bytes::new() };
    let all_there =
        ["postgresql", "nats-server", "api", "relay"].iter().all(|name| file.processes.iter().any(|process| process.name == *name));
    match crate::load::Connection::open(&target).await {
        Ok(mut connection) => all_there && connection.send(call).await.is_ok(),
        Err(_) => false,
    }
}
