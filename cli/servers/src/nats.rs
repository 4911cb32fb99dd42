//! A nats-server with JetStream.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::child::Child;
use crate::log_file::LogFile;
use crate::ports::PortChoice;
use crate::ready::Starting;
use crate::{ServerError, find, folder};

const SERVER: &str = "nats-server";
// JetStream reads its stores before it answers.
const READY_SECONDS: u64 = 120;
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const USER: &str = "autonomy";

/// How a nats-server is started.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// The folder of its streams, configuration, password and log; made where it is not there.
    pub store_dir: PathBuf,
    /// The port on 127.0.0.1; a free one where none is given.
    pub port: Option<u16>,
    /// How often JetStream syncs its files: what was acknowledged longer ago is on disk.
    pub sync_interval: Duration,
}

impl NatsOptions {
    /// In that folder, on a free port, synced every second.
    pub fn new(store_dir: impl Into<PathBuf>) -> Self {
        Self { store_dir: store_dir.into(), port: None, sync_interval: Duration::from_secs(1) }
    }
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self::new("")
    }
}

/// A running nats-server. Dropping it kills it.
pub struct Nats {
    child: Child,
    port: u16,
    password: String,
    log: LogFile,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("port", &self.port).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl Nats {
    /// Starts it and waits until JetStream answers.
    ///
    /// # Errors
    /// When no binary is found, the folder can't be used, or the server does not come up (with the end of its log).
    pub async fn start(options: NatsOptions) -> Result<Self, ServerError> {
        let program = find::nats_server()?;
        folder::create(&options.store_dir, 0o755)?;
        let store = folder::absolute(&options.store_dir)?;
        let password = folder::secret(&store.join("password"))?;
        let log = LogFile::new(store.join("nats-server.log"));
        let configuration = store.join("nats-server.conf");
        let mut ports = PortChoice::new(options.port);
        loop {
            let port = ports.choose()?;
            folder::write_private(&configuration, &configuration_text(&store, port, &password, options.sync_interval))?;
            let mut command = Command::new(&program);
            command.arg("--config").arg(&configuration);
            let (child, from) = Child::spawn_logging(command, Signal::SIGKILL, &log)?;
            let server = Self { child, port, password: password.clone(), log: log.clone() };
            match server.ready(from).await {
                Ok(()) => return Ok(server),
                Err(error) if ports.goes_on_after(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn ready(&self, log_from: u64) -> Result<(), ServerError> {
        let starting = Starting {
            server: SERVER,
            child: &self.child,
            log: &self.log,
            log_from,
            seconds: READY_SECONDS,
            probe_limit: Duration::from_secs(2),
        };
        starting.until_ready(|| self.probe()).await
    }

    async fn probe(&self) -> Result<(), String> {
        let client = self.connect().await.map_err(|error| error.to_string())?;
        async_nats::jetstream::new(client).query_account().await.map(|_| ()).map_err(|error| error.to_string())
    }

    /// A client of it.
    ///
    /// # Errors
    /// When it can't be reached.
    pub async fn connect(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        let options = async_nats::ConnectOptions::with_user_and_password(USER.to_owned(), self.password.clone());
        options.connect(format!("nats://127.0.0.1:{}", self.port)).await
    }

    /// The URL for clients, with user and password: a secret.
    pub fn url(&self) -> String {
        format!("nats://{USER}:{}@127.0.0.1:{}", self.password, self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        self.log.path()
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(&self) -> ExitStatus {
        self.child.stop(Signal::SIGTERM, STOP_PATIENCE).await
    }

    /// Kills it (SIGKILL) without waiting.
    pub fn kill(&self) {
        self.child.signal(Signal::SIGKILL);
    }

    /// Waits for its end, whatever ends it.
    pub async fn wait_exit(&self) -> ExitStatus {
        self.child.wait_exit().await
    }
}

fn configuration_text(store: &Path, port: u16, password: &str, sync_interval: Duration) -> String {
    // A JSON string is a valid string of the configuration language too; paths need the quoting.
    format!(
        "# Written by autonomy at each start.\n\
         host: \"127.0.0.1\"\n\
         port: {port}\n\
         server_name: \"autonomy\"\n\
         max_payload: 8388608\n\
         max_pending: 67108864\n\
         authorization {{ user: \"{USER}\", password: \"{password}\" }}\n\
         jetstream {{\n  store_dir: {store:?}\n  sync_interval: \"{milliseconds}ms\"\n}}\n",
        store = store.display().to_string(),
        milliseconds = sync_interval.as_millis().max(1),
    )
}
