//! A PostgreSQL, a nats-server and, for tests, an S3 server of one's own, started from what is installed: for local mode and for the tests. All listen on 127.0.0.1
//! only, keep everything in one folder, can be started again on it, and never outlive the process that started them.

mod child;
mod find;
mod folder;
mod log_file;
mod nats;
mod ports;
mod postgres;
mod ready;
mod s3;

pub use child::Child;
pub use find::{NATS_SERVER_VERSION, PostgresBinaries, VERSITYGW_VERSION, nats_server, postgres_binaries, versitygw};
pub use folder::{secret, write_private};
pub use log_file::LogFile;
pub use nats::{Nats, NatsOptions};
pub use ports::free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use s3::{S3Options, S3Server};

use std::path::PathBuf;
use std::process::ExitStatus;

/// Why a server can't be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No usable binary was found.
    #[error("{what} was not found (looked at {looked_at}); {remedy}")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// Where it was looked for.
        looked_at: String,
        /// What to do.
        remedy: String,
    },
    /// A binary is too old or of another major version than the data.
    #[error("{program} is version {found}, but {needed} is needed; {remedy}", program = program.display())]
    Version {
        /// The binary.
        program: PathBuf,
        /// Its version.
        found: String,
        /// The version needed.
        needed: String,
        /// What to do.
        remedy: String,
    },
    /// A file or folder can't be used.
    #[error("{doing} {path}", path = path.display())]
    Folder {
        /// What was being done, for example "can't create".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operating system refused to start the program or to give a port.
    #[error("can't {doing}")]
    System {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// We are root, PostgreSQL refuses to run as root, and there is no other user for it.
    #[error(
        "PostgreSQL does not run as root, and there is no user \"postgres\" to run it as; install the distribution's postgresql package"
    )]
    NoPostgresUser,
    /// The server ended instead of becoming ready.
    #[error("{server} ended while starting ({status}); the end of its log {log}:\n{tail}", log = log.display())]
    Ended {
        /// Which server.
        server: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The server did not become ready.
    #[error("{server} did not answer within {seconds} s ({last}); the end of its log {log}:\n{tail}", log = log.display())]
    NotReady {
        /// Which server.
        server: &'static str,
        /// How long was waited.
        seconds: u64,
        /// The last attempt's error.
        last: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}
