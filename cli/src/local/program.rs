//! The programs that local mode supervises, and their running processes.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use autonomy_servers::{Child, LogFile, Nats, NatsOptions, Postgres, PostgresOptions, ServerError};
use nix::sys::signal::Signal;

const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A program and how it is started.
#[derive(Clone)]
pub enum Program {
    /// PostgreSQL, on the same port each time.
    Postgres(PostgresOptions),
    /// nats-server, on the same port each time.
    Nats(NatsOptions),
    /// A role of the data plane.
    Role(RoleProgram),
}

/// A role of the data plane: `autonomy-runtime` with a subcommand.
#[derive(Clone)]
pub struct RoleProgram {
    /// The binary.
    pub binary: PathBuf,
    /// The subcommand and its options.
    pub arguments: Vec<OsString>,
    /// What it is told in its environment: secrets are here, never among the arguments.
    pub environment: Vec<(&'static str, OsString)>,
    /// Where it answers probes; a free port of 127.0.0.1 at each start where none is given.
    pub operations: Option<SocketAddr>,
    /// Where it logs.
    pub log: LogFile,
}

/// A program that has been started.
pub struct Started {
    /// Its process.
    pub running: Running,
    /// Its process id.
    pub pid: u32,
    /// Its operations endpoint.
    pub operations: Option<SocketAddr>,
}

/// A running process.
pub enum Running {
    /// PostgreSQL.
    Postgres(Postgres),
    /// nats-server.
    Nats(Nats),
    /// A role, its log, and where in it this process began.
    Role(Child, LogFile, u64),
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A role.
    #[error("can't start {}", binary.display())]
    Role {
        /// The binary.
        binary: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Program {
    /// Starts it; servers answer when this returns, roles have only begun.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(&self) -> Result<Started, StartError> {
        match self {
            Self::Postgres(options) => Ok(Started::postgres(Postgres::start(options.clone()).await?)),
            Self::Nats(options) => Ok(Started::nats(Nats::start(options.clone()).await?)),
            Self::Role(role) => role.start(),
        }
    }
}

impl Started {
    /// A PostgreSQL that runs.
    pub fn postgres(server: Postgres) -> Self {
        Self { pid: server.pid(), operations: None, running: Running::Postgres(server) }
    }

    /// A nats-server that runs.
    pub fn nats(server: Nats) -> Self {
        Self { pid: server.pid(), operations: None, running: Running::Nats(server) }
    }
}

impl RoleProgram {
    fn start(&self) -> Result<Started, StartError> {
        let operations = match self.operations {
            Some(fixed) => fixed,
            None => SocketAddr::from(([127, 0, 0, 1], autonomy_servers::free_port()?)),
        };
        let (output, from) = self.log.open()?;
        let role = |source| StartError::Role { binary: self.binary.clone(), source };
        let mut command = Command::new(&self.binary);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .env("AUTONOMY_OPERATIONS_LISTEN", operations.to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(role)?)
            .stderr(output)
            // Ctrl-C in the terminal is for us: we stop the processes in order.
            .process_group(0);
        let child = Child::spawn(command, Signal::SIGKILL).map_err(role)?;
        let pid = child.pid();
        Ok(Started { running: Running::Role(child, self.log.clone(), from), pid, operations: Some(operations) })
    }
}

impl Running {
    /// Waits for its end.
    pub async fn wait_exit(&self) -> ExitStatus {
        match self {
            Self::Postgres(server) => server.wait_exit().await,
            Self::Nats(server) => server.wait_exit().await,
            Self::Role(child, ..) => child.wait_exit().await,
        }
    }

    /// Asks it to stop and waits until it has ended.
    pub async fn stop(&self) {
        match self {
            Self::Postgres(server) => server.stop().await,
            Self::Nats(server) => server.stop().await,
            Self::Role(child, ..) => child.stop(Signal::SIGTERM, STOP_PATIENCE).await,
        };
    }

    /// Where it logs, and the last lines there, to be told after an end that nobody asked for.
    pub fn last_words(&self) -> String {
        match self {
            Self::Role(_, log, from) => {
                let tail = log.tail(*from);
                let lines: Vec<&str> = tail.lines().collect();
                let last = lines[lines.len().saturating_sub(4)..].join("\n    ");
                format!(" (log: {})\n    {last}\n ", log.path().display())
            }
            Self::Postgres(server) => format!(" (log: {})", server.log().display()),
            Self::Nats(server) => format!(" (log: {})", server.log().display()),
        }
    }
}

/// Finds `autonomy-runtime`: `AUTONOMY_RUNTIME`, then beside our own executable.
///
/// # Errors
/// A message that says what to do.
pub fn find_runtime() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("AUTONOMY_RUNTIME").map(PathBuf::from) {
        return if named.is_file() { Ok(named) } else { Err(format!("AUTONOMY_RUNTIME names no file: {}", named.display())) };
    }
    let own = std::env::current_exe().map_err(|error| format!("the own executable can't be found: {error}"))?;
    let beside = own.parent().unwrap_or(Path::new(".")).join("autonomy-runtime");
    if beside.is_file() {
        return Ok(beside);
    }
    Err(format!("{} is missing; run `make build` (or: cargo build -p autonomy-runtime), or name it in AUTONOMY_RUNTIME", beside.display()))
}
