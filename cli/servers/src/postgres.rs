//! A PostgreSQL server with logical decoding.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{User, chown, geteuid};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

use crate::child::{Child, own_process_group};
use crate::find::PostgresBinaries;
use crate::log_file::LogFile;
use crate::ports::PortChoice;
use crate::ready::Starting;
use crate::{ServerError, find, folder};

const SERVER: &str = "PostgreSQL";
// After a crash a server reads its log first, which may take its time.
const READY_SECONDS: u64 = 600;
const STOP_PATIENCE: Duration = Duration::from_secs(120);
// What a killed server left behind (its backends, its shared memory) goes within moments.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(30);
const SUPERUSER: &str = "postgres";
const UNPRIVILEGED_USER: &str = "postgres";
// Where data goes that the unprivileged user could not reach below a folder of root's.
const ROOT_DATA: &str = "/var/lib/autonomy";

/// How a PostgreSQL is started.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The folder of its data, password and log; made where it is not there.
    pub data_dir: PathBuf,
    /// The port on 127.0.0.1; a free one where none is given.
    pub port: Option<u16>,
    /// Settings beside the usual ones, or instead of them: `("max_slot_wal_keep_size", "64MB")`.
    pub settings: Vec<(String, String)>,
}

impl PostgresOptions {
    /// In that folder, on a free port, with the usual settings.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), port: None, settings: Vec::new() }
    }
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self::new("")
    }
}

/// A running PostgreSQL. Dropping it ends it at once, as a crash would; nothing committed is lost.
pub struct Postgres {
    child: Child,
    port: u16,
    password: String,
    binaries: PostgresBinaries,
    log: LogFile,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("port", &self.port).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Starts it (making the database cluster where the folder is new) and waits until it takes connections.
    ///
    /// # Errors
    /// When no binary is found, the folder can't be used, or the server does not come up (with the end of its log).
    pub async fn start(options: PostgresOptions) -> Result<Self, ServerError> {
        let home = Home::open(&options.data_dir)?;
        let binaries = find::postgres_binaries(home.data_version())?;
        let password = home.password()?;
        home.make_cluster(&binaries).await?;
        let log = LogFile::new(home.folder.join("postgresql.log"));
        let begun = Instant::now();
        let mut ports = PortChoice::new(options.port);
        loop {
            let port = ports.choose()?;
            let (child, from) = home.spawn(&binaries, port, &options.settings, &log)?;
            let server = Self { child, port, password: password.clone(), binaries: binaries.clone(), log: log.clone() };
            match server.ready(from).await {
                Ok(()) => return Ok(server),
                Err(ServerError::Ended { tail, .. }) if left_over(&tail) && begun.elapsed() < LEFTOVER_PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
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
            probe_limit: Duration::from_secs(5),
        };
        starting.until_ready(|| self.probe()).await
    }

    async fn probe(&self) -> Result<(), sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(SUPERUSER)
            .password(&self.password)
            .database("postgres")
            .ssl_mode(PgSslMode::Disable);
        PgConnection::connect_with(&options).await?.close().await
    }

    /// The superuser's URL for a database: a secret.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The programs it runs from.
    pub fn binaries(&self) -> &PostgresBinaries {
        &self.binaries
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        self.log.path()
    }

    /// Stops it: connections are cut, the data are written out. Waits until it has ended.
    pub async fn stop(&self) -> ExitStatus {
        self.child.stop(Signal::SIGINT, STOP_PATIENCE).await
    }

    /// Kills the postmaster (SIGKILL) without waiting; its backends see that and end.
    pub fn kill(&self) {
        self.child.signal(Signal::SIGKILL);
    }

    /// Waits for its end, whatever ends it.
    pub async fn wait_exit(&self) -> ExitStatus {
        self.child.wait_exit().await
    }
}

// Whether a start failed on what a server that was just killed has left and that will go by itself.
fn left_over(log_tail: &str) -> bool {
    log_tail.contains("pre-existing shared memory block") || log_tail.contains("lock file \"postmaster.pid\" already exists")
}

// The folder of a server and the user it runs as.
struct Home {
    folder: PathBuf,
    // Set where we are root.
    user: Option<User>,
}

impl Home {
    fn open(data_dir: &Path) -> Result<Self, ServerError> {
        let user = unprivileged_user()?;
        if let Some(parent) = data_dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            folder::create(parent, 0o755)?;
        }
        if let Some(user) = &user
            && std::fs::symlink_metadata(data_dir).is_err()
            && !reachable(data_dir, user)?
        {
            open_temporary_parents(data_dir)?;
            if !reachable(data_dir, user)? {
                place_elsewhere(data_dir)?;
            }
        }
        folder::create(data_dir, 0o755)?;
        let home = Self { folder: folder::absolute(data_dir)?, user };
        home.own(&home.folder)?;
        Ok(home)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    // The major version of the data, where there are some.
    fn data_version(&self) -> Option<u32> {
        std::fs::read_to_string(self.data().join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    fn password(&self) -> Result<String, ServerError> {
        let file = self.folder.join("password");
        let password = folder::secret(&file)?;
        self.own(&file)?;
        Ok(password)
    }

    // Gives a path to the user the server runs as.
    fn own(&self, path: &Path) -> Result<(), ServerError> {
        let Some(user) = &self.user else { return Ok(()) };
        chown(path, Some(user.uid), Some(user.gid))
            .map_err(std::io::Error::from)
            .map_err(folder::fault("can't give to the user \"postgres\"", path))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).current_dir(&self.folder).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C").env("TZ", "UTC");
        if let Some(user) = &self.user {
            // As root, std drops the supplementary groups with this.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        own_process_group(&mut command);
        command
    }

    // initdb, into a folder aside that is renamed when it is whole.
    async fn make_cluster(&self, binaries: &PostgresBinaries) -> Result<(), ServerError> {
        if self.data_version().is_some() {
            return Ok(());
        }
        let aside = self.folder.join("data.new");
        if aside.exists() {
            std::fs::remove_dir_all(&aside).map_err(folder::fault("can't clear the half-made folder", &aside))?;
        }
        let log = LogFile::new(self.folder.join("initdb.log"));
        let (output, from) = log.open()?;
        let program = binaries.program("initdb");
        let system = |source| ServerError::System { doing: format!("start {}", program.display()), source };
        let mut command = self.command(&program);
        command
            .args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-instructions"])
            .arg(format!("--username={SUPERUSER}"))
            .arg("--pwfile")
            .arg(self.folder.join("password"))
            .arg("--pgdata")
            .arg(&aside)
            .stdout(output.try_clone().map_err(system)?)
            .stderr(output);
        let status = Child::spawn(command, Signal::SIGKILL).map_err(system)?.wait_exit().await;
        if !status.success() {
            return Err(ServerError::Ended { server: "initdb", status, log: log.path().to_owned(), tail: log.tail(from) });
        }
        let data = self.data();
        std::fs::rename(&aside, &data).map_err(folder::fault("can't put into its place", &data))
    }

    fn spawn(
        &self,
        binaries: &PostgresBinaries,
        port: u16,
        settings: &[(String, String)],
        log: &LogFile,
    ) -> Result<(Child, u64), ServerError> {
        let mut command = self.command(&binaries.program("postgres"));
        command.arg("-D").arg(self.data()).arg("-p").arg(port.to_string());
        let given = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in SETTINGS.iter().copied().chain(given) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // SIGQUIT: should we die, it ends at once with all its backends, as after a crash.
        Child::spawn_logging(command, Signal::SIGQUIT, log)
    }
}

// On the command line, so that a folder made by an older version gets them too; a setting given later wins. Durability is on.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("max_connections", "100"),
    ("shared_buffers", "256MB"),
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("wal_level", "logical"),
    ("wal_compression", "on"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("max_slot_wal_keep_size", "4GB"),
    ("jit", "off"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %q%a@%d "),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
];

fn unprivileged_user() -> Result<Option<User>, ServerError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    match User::from_name(UNPRIVILEGED_USER) {
        Ok(Some(user)) => Ok(Some(user)),
        _ => Err(ServerError::NoPostgresUser),
    }
}

// Whether that user can get to the folder's parent: every folder above must let it through. Tried, not computed, so that access lists count.
fn reachable(data_dir: &Path, user: &User) -> Result<bool, ServerError> {
    let parent = data_dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = folder::absolute(parent)?;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "cd \"$0\""]).arg(&parent).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir("/").uid(user.uid.as_raw()).gid(user.gid.as_raw());
    command
        .status()
        .map(|status| status.success())
        .map_err(|source| ServerError::System { doing: "try a folder as the user \"postgres\"".to_owned(), source })
}

// Lets every user pass through the folders above that are below the system's temporary folder: those are made for us, as a rule with mode 0700.
fn open_temporary_parents(data_dir: &Path) -> Result<(), ServerError> {
    let temporary = std::env::temp_dir();
    for parent in data_dir.ancestors().skip(1).take_while(|parent| parent.starts_with(&temporary) && **parent != temporary) {
        let fault = folder::fault("can't let the user \"postgres\" pass through", parent);
        let mode = std::fs::metadata(parent).map_err(&fault)?.permissions().mode();
        std::fs::set_permissions(parent, std::fs::Permissions::from_mode(mode | 0o111)).map_err(&fault)?;
    }
    Ok(())
}

// Makes `data_dir` a symbolic link to a new folder below /var/lib/autonomy.
fn place_elsewhere(data_dir: &Path) -> Result<(), ServerError> {
    let root = Path::new(ROOT_DATA);
    folder::create(root, 0o755)?;
    let place = root.join(format!("postgresql-{}", folder::random_hex()?));
    folder::create(&place, 0o700)?;
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).map_err(folder::fault("can't set the mode of", &place))?;
    std::os::unix::fs::symlink(&place, data_dir).map_err(folder::fault("can't link", data_dir))?;
    tracing::info!("the user \"postgres\" can't reach {}; PostgreSQL's data are in {}", data_dir.display(), place.display());
    Ok(())
}
