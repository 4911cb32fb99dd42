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

/// What runs on the platform.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'d> {
    /// The YAML files.
    pub files: &'d [PathBuf],
    /// The model that the API must serve.
    pub model: &'d str,
    /// The services that must have their workers.
    pub services: &'d [&'d str],
    /// Environment variables.
    pub environment: &'d [(&'d str, &'d str)],
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
    /// The workers.
    pub workers: Cost,
    /// The load generator: this process itself, with whatever it plays.
    pub load: Cost,
}

/// CPU microseconds an object between two moments, process by process.
pub fn spent(before: &Costs, after: &Costs, objects: u64) -> String {
    let each = |before: Cost, after: Cost| (after.cpu_seconds - before.cpu_seconds) * 1e6 / objects.max(1) as f64;
    let workers = each(before.workers, after.workers);
    let workers = if workers > 0.0 { format!(", worker {workers:.1}") } else { String::new() };
    format!(
        "CPU µs each: API {:.1}, PostgreSQL {:.1}, relay {:.1}, NATS {:.1}{workers}, load {:.1}; peak MiB: API {:.0}, relay {:.0}",
        each(before.api, after.api),
        each(before.postgresql, after.postgresql),
        each(before.relay, after.relay),
        each(before.nats, after.nats),
        each(before.load, after.load),
        after.api.peak_mebibytes,
        after.relay.peak_mebibytes,
    )
}

impl Platform {
    /// Starts it and waits until all of it is there.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(programs: &Path, folder: &Path, declared: Declared<'_>) -> Result<Self, PlatformError> {
        let program = programs.join("autonomy");
        let log = folder.join("local.log");
        let output = std::fs::File::create(&log).map_err(|error| PlatformError::File(log.clone(), error))?;
        let errors = output.try_clone().map_err(|error| PlatformError::File(log.clone(), error))?;
        let data = folder.join("data");
        let mut command = Command::new(&program);
        command.arg("local");
        for file in declared.files {
            command.arg("--file").arg(file);
        }
        command.arg("--data-dir").arg(&data).args(["--listen", "127.0.0.1:0"]);
        command.envs(declared.environment.iter().copied()).stdin(Stdio::null()).stdout(output).stderr(errors);
        let local = Child::spawn(command, Signal::SIGTERM).map_err(|error| PlatformError::Start(program, error))?;
        let begun = Instant::now();
        let file = loop {
            let text = std::fs::read(data.join("local.json")).unwrap_or_default();
            if let Ok(file) = serde_json::from_slice::<LocalFile>(&text)
                && serves(&file, &declared).await
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
        let workers = self.file.processes.iter().filter(|process| process.name.starts_with("worker/"));
        let workers = workers.map(|process| cost(process.pid)).fold(Cost::default(), |sum, cost| Cost {
            cpu_seconds: sum.cpu_seconds + cost.cpu_seconds,
            peak_mebibytes: sum.peak_mebibytes.max(cost.peak_mebibytes),
        });
        Costs { api: of("api"), relay: of("relay"), nats: of("nats-server"), postgresql: of("postgresql"), workers, load: own_cost() }
    }

    /// Waits until PostgreSQL has no work left over from before: a checkpoint is made, and autovacuum comes to its end. What is measured next, of
    /// whatever system, pays for nothing but itself.
    ///
    /// # Errors
    /// When the database refuses, or does not come to rest.
    pub async fn settle(&self) -> Result<(), PlatformError> {
        sqlx::query("CHECKPOINT").execute(&self.admin).await?;
        let begun = Instant::now();
        loop {
            let busy: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'")
                .fetch_one(&self.admin)
                .await?;
            if busy == 0 {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE * 3 {
                return Err(PlatformError::NotReady { what: "PostgreSQL's autovacuum".to_owned(), log: PathBuf::from("postgresql.log") });
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Holds a process or lets it go on: the relay for what is measured without events, a worker so that events gather.
    pub fn hold(&self, process: &str, hold: bool) {
        if let Some(pid) = self.pid(process) {
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

    /// The process of this name: `api`, `relay`, `worker/{service}` and so on.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.file.processes.iter().find(|process| process.name == name).map(|process| process.pid)
    }
}

async fn serves(file: &LocalFile, declared: &Declared<'_>) -> bool {
    let target = Target { address: file.api.trim_start_matches("http://").to_owned(), headers: Vec::new() };
    let call = crate::load::Call { method: hyper::Method::GET, path: format!("/api/{}", declared.model), body: bytes::Bytes::new() };
    let is_there = |name: &str| file.processes.iter().any(|process| process.name == name);
    let all_there = ["postgresql", "nats-server", "api", "relay"].into_iter().all(is_there)
        && declared.services.iter().all(|service| is_there(&format!("worker/{service}")));
    match crate::load::Connection::open(&target).await {
        Ok(mut connection) => all_there && connection.send(call).await.is_ok(),
        Err(_) => false,
    }
}
