//! The peers: programs that take the same Sales over HTTP on the same PostgreSQL, one after the other.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use autonomy_servers::Child;
use nix::sys::signal::Signal;
use sqlx::{AssertSqlSafe, PgPool};

use crate::scenarios::System;
use autonomy_bench::load::Target;

const PATIENCE: Duration = Duration::from_secs(180);

/// Why a peer could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It can't be started.
    #[error("{0} can't be started")]
    Start(String, #[source] std::io::Error),
    /// It was not ready in time.
    #[error("{name} was not ready within {} s; see {log}", PATIENCE.as_secs(), log = log.display())]
    NotReady {
        /// The peer.
        name: String,
        /// Where it logs.
        log: PathBuf,
    },
    /// Its database can't be made.
    #[error("the peer's database can't be made")]
    Database(#[from] sqlx::Error),
    /// No port.
    #[error(transparent)]
    Port(#[from] autonomy_servers::ServerError),
}

/// A peer that can be started.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name in the results.
    pub name: &'static str,
    /// What is to be known of its bulk rates.
    pub note: &'static str,
    /// The program; it takes DATABASE_URL, PORT and DATA_DIR, and prints a line that begins with `ready` when it answers.
    pub program: PathBuf,
    /// What else it is told.
    pub environment: Vec<(&'static str, &'static str)>,
    /// How it is called.
    pub dialect: Dialect,
}

/// Where a peer has its Sales.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// The collection.
    pub collection: &'static str,
    /// The query of what posts, so that the objects are not answered.
    pub minimal: &'static str,
    /// The query of a page of 100.
    pub page: &'static str,
    /// Headers.
    pub headers: &'static [(&'static str, &'static str)],
}

/// A peer that runs.
pub struct Running {
    child: Child,
    /// How it is called.
    pub system: System,
}

impl Peer {
    /// Starts it on a new database.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(&self, admin: &PgPool, database_url: impl Fn(&str) -> String, folder: &Path) -> Result<Running, PeerError> {
        let database = format!("peer_{}", self.name.replace(|c: char| !c.is_ascii_alphanumeric(), "_").to_lowercase());
        for statement in [format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"), format!("CREATE DATABASE {database}")] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(admin).await?;
        }
        let port = autonomy_servers::free_port()?;
        let data = folder.join(&database);
        let log = folder.join(format!("{database}.log"));
        let start = |error| PeerError::Start(self.program.display().to_string(), error);
        std::fs::create_dir_all(&data).map_err(start)?;
        let output = std::fs::File::create(&log).map_err(start)?;
        let mut command = Command::new(&self.program);
        command
            .env("DATABASE_URL", database_url(&database))
            .env("PORT", port.to_string())
            .env("DATA_DIR", &data)
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(output.try_clone().map_err(start)?)
            .stdout(output);
        let child = Child::spawn(command, Signal::SIGTERM).map_err(start)?;
        let begun = Instant::now();
        while !std::fs::read_to_string(&log).unwrap_or_default().lines().any(|line| line.starts_with("ready")) {
            if begun.elapsed() > PATIENCE || child.exited().is_some() {
                return Err(PeerError::NotReady { name: self.name.to_owned(), log });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let Dialect { collection, minimal, page, headers } = self.dialect;
        let target = Target {
            address: format!("127.0.0.1:{port}"),
            headers: headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        };
        let system = System { name: self.name.to_owned(), target, collection: collection.to_owned(), minimal, page, receipts: 1 };
        Ok(Running { child, system })
    }
}

impl Running {
    /// Stops it.
    pub async fn stop(self) {
        self.child.stop(Signal::SIGTERM, Duration::from_secs(30)).await;
    }
}
