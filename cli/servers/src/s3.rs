//! An S3 server, versitygw, whose buckets are folders: for tests.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use crate::child::Child;
use crate::log_file::LogFile;
use crate::ports::PortChoice;
use crate::ready::Starting;
use crate::{ServerError, find, folder};

const SERVER: &str = "versitygw";
const READY_SECONDS: u64 = 60;
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const ACCESS_KEY_ID: &str = "autonomy";

/// How an S3 server is started.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// The folder of its buckets, password and log; made where it is not there.
    pub folder: PathBuf,
    /// The port on 127.0.0.1; a free one where none is given.
    pub port: Option<u16>,
    /// The buckets that it has.
    pub buckets: Vec<String>,
}

/// A running S3 server. Dropping it kills it.
pub struct S3Server {
    child: Child,
    port: u16,
    secret: String,
    log: LogFile,
}

impl fmt::Debug for S3Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Server").field("port", &self.port).field("pid", &self.child.pid()).finish_non_exhaustive()
    }
}

impl S3Server {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When no binary is found, the folder can't be used, or the server does not come up (with the end of its log).
    pub async fn start(options: S3Options) -> Result<Self, ServerError> {
        let program = find::versitygw()?;
        folder::create(&options.folder, 0o755)?;
        let root = folder::absolute(&options.folder)?;
        let buckets = root.join("buckets");
        // Tags and metadata of objects are kept beside, since not every file system has extended attributes.
        for place in options.buckets.iter().map(|bucket| buckets.join(bucket)).chain([buckets.clone(), root.join("metadata")]) {
            folder::create(&place, 0o755)?;
        }
        let secret = folder::secret(&root.join("password"))?;
        let log = LogFile::new(root.join("versitygw.log"));
        let mut ports = PortChoice::new(options.port);
        loop {
            let port = ports.choose()?;
            let mut command = Command::new(&program);
            command
                .args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "posix", "--sidecar"])
                .args([root.join("metadata"), buckets.clone()])
                .env("ROOT_ACCESS_KEY_ID", ACCESS_KEY_ID)
                .env("ROOT_SECRET_ACCESS_KEY", &secret);
            let (child, from) = Child::spawn_logging(command, Signal::SIGKILL, &log)?;
            let server = Self { child, port, secret: secret.clone(), log: log.clone() };
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
        starting.until_ready(|| async { TcpStream::connect(("127.0.0.1", self.port)).await.map(drop) }).await
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The id of the access key that may do everything.
    pub fn access_key_id(&self) -> &str {
        ACCESS_KEY_ID
    }

    /// The secret access key.
    pub fn secret_access_key(&self) -> &str {
        &self.secret
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
