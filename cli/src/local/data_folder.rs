//! The data folder of local mode, and `local.json` in it, from which other commands learn where everything is.
//!
//! ```text
//! lock            held while a local mode runs here
//! local.json      addresses and processes, with passwords in the URLs (mode 0600)
//! postgresql/     data, password, log          nats/       streams, configuration, password, log
//! passwords/      of API and relay             services/   each service as its worker reads it
//! logs/           of API, relay and workers    files/      where file triggers look
//! secrets/        {secret}/{key}: what services refer to as Secrets
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use autonomy_servers::{LogFile, ServerError};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// Another local mode runs on it.
    #[error("another `autonomy local` (process {pid}) runs on {folder}; stop it, or give another --data-dir", folder = folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Who holds it.
        pid: String,
    },
    /// A file or folder in it can't be used.
    #[error("{path} can't be used", path = path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A password file can't be used.
    #[error(transparent)]
    Secret(#[from] ServerError),
    /// No local mode runs there.
    #[error("{file} can't be read: is an `autonomy local` running on that --data-dir?", file = file.display())]
    NotRunning {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It was written by another version.
    #[error("{file} is not understood; was it written by another version?", file = file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What `local.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalFile {
    /// The namespace of the resources.
    pub namespace: String,
    /// The object API's address, `http://127.0.0.1:8080`.
    pub api: String,
    /// The URL of NATS, with user and password.
    pub nats: String,
    /// The superuser's URL of the database.
    pub postgresql: String,
    /// The folder below which relative directories of file triggers lie.
    pub files_dir: PathBuf,
    /// How old an acknowledged message is when it is surely on disk, in milliseconds.
    #[serde(default)]
    pub nats_sync_milliseconds: u64,
    /// The processes that run now.
    pub processes: Vec<LocalProcess>,
}

/// A process of local mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalProcess {
    /// `postgresql`, `nats-server`, `api`, `relay` or `worker/{service}`.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// Where it answers `/healthz`, `/readyz` and `/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<SocketAddr>,
}

impl LocalFile {
    /// Reads the file of a data folder.
    ///
    /// # Errors
    /// When there is none, or it is not understood.
    pub fn read(data_dir: &Path) -> Result<Self, DataFolderError> {
        let file = data_dir.join("local.json");
        let text = std::fs::read(&file).map_err(|source| DataFolderError::NotRunning { file: file.clone(), source })?;
        serde_json::from_slice(&text).map_err(|source| DataFolderError::Syntax { file, source })
    }
}

/// A data folder that is ours while this lives.
#[derive(Debug)]
pub struct DataFolder {
    root: PathBuf,
    _lock: Flock<File>,
}

impl DataFolder {
    /// Makes the folder where it is not there, and takes it.
    ///
    /// # Errors
    /// When it can't be made or another one has it.
    pub fn take(path: &Path) -> Result<Self, DataFolderError> {
        let fault = |path: &Path| {
            let path = path.to_owned();
            move |source| DataFolderError::Path { path, source }
        };
        std::fs::create_dir_all(path).map_err(fault(path))?;
        let root = path.canonicalize().map_err(fault(path))?;
        let lock_path = root.join("lock");
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(fault(&lock_path))?;
        let mut lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(mut file, _)| {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            DataFolderError::InUse { folder: root.clone(), pid: pid.trim().to_owned() }
        })?;
        let write = || -> std::io::Result<()> {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        let mut write = write;
        write().map_err(fault(&lock_path))?;
        for below in ["passwords", "services", "logs", "files", "secrets"] {
            let folder = root.join(below);
            std::fs::create_dir_all(&folder).map_err(fault(&folder))?;
        }
        Ok(Self { root, _lock: lock })
    }

    /// The folder, absolute.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// A file or folder in it.
    pub fn join(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// The password of one of the platform's roles; made at first.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn password(&self, role: &str) -> Result<String, DataFolderError> {
        Ok(autonomy_servers::secret(&self.root.join("passwords").join(role))?)
    }

    /// The log of a process; `worker/ledger` logs to `logs/worker-ledger.log`.
    pub fn log(&self, process: &str) -> LogFile {
        LogFile::new(self.root.join("logs").join(format!("{}.log", process.replace('/', "-"))))
    }

    /// Writes `local.json`.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_local_file(&self, content: &LocalFile) -> Result<(), DataFolderError> {
        let text = serde_json::to_string_pretty(content).unwrap_or_default();
        Ok(autonomy_servers::write_private(&self.root.join("local.json"), &text)?)
    }

    /// Takes `local.json` away: nothing runs any more.
    pub fn remove_local_file(&self) {
        let _ = std::fs::remove_file(self.root.join("local.json"));
    }
}
