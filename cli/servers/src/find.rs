//! Where the servers' binaries are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ServerError;

/// The nats-server version that `make setup` builds and that everything is tested with.
pub const NATS_SERVER_VERSION: &str = "2.15.2";
// Scheduled messages came with 2.12, the fast-ingest batch with 2.14.
const OLDEST_NATS_SERVER: (u32, u32) = (2, 14);
const OLDEST_POSTGRES: u32 = 15;

/// The folder with `postgres` and `initdb`, and their major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresBinaries {
    /// The folder.
    pub folder: PathBuf,
    /// The major version, for example 15.
    pub major: u32,
}

impl PostgresBinaries {
    /// The path of one of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Finds PostgreSQL's server programs: in `AUTONOMY_POSTGRES_BIN`, where Debian, Red Hat and Homebrew put them, and in PATH. The newest is
/// taken, or the one of the major version `major` where data of that version is there already.
///
/// # Errors
/// When there is none, or none of that version.
pub fn postgres_binaries(major: Option<u32>) -> Result<PostgresBinaries, ServerError> {
    let named = env::var_os("AUTONOMY_POSTGRES_BIN").map(PathBuf::from);
    let folders = named.map_or_else(postgres_folders, |folder| vec![folder]);
    let mut found: Vec<PostgresBinaries> = folders
        .iter()
        .filter(|folder| folder.join("initdb").exists())
        .filter_map(|folder| Some(PostgresBinaries { folder: folder.clone(), major: postgres_major(&folder.join("postgres"))? }))
        .collect();
    found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    let Some(newest) = found.first().cloned() else {
        return Err(ServerError::Missing {
            what: "PostgreSQL's server",
            looked_at: listed(&folders),
            remedy: format!(
                "run `make setup`, or install it (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17), \
                 version {OLDEST_POSTGRES} or later; AUTONOMY_POSTGRES_BIN may name the folder of `postgres` and `initdb`"
            ),
        });
    };
    let wanted = match major {
        Some(major) => found.into_iter().find(|binaries| binaries.major == major),
        None => Some(newest.clone()).filter(|newest| newest.major >= OLDEST_POSTGRES),
    };
    wanted.ok_or_else(|| ServerError::Version {
        program: newest.program("postgres"),
        found: newest.major.to_string(),
        needed: major.map_or_else(|| format!("{OLDEST_POSTGRES} or later"), |major| format!("{major} (the data's version)")),
        remedy: "install that version of PostgreSQL".to_owned(),
    })
}

fn postgres_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for (parent, below) in [("/usr/lib/postgresql", "bin"), ("/usr", "bin"), ("/opt/homebrew/opt", "bin"), ("/usr/local/opt", "bin")] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(
            entries
                .filter(|entry| {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    parent == "/usr/lib/postgresql" || name.starts_with("pgsql-") || name.starts_with("postgresql")
                })
                .map(|entry| entry.path().join(below)),
        );
    }
    folders.extend(path_folders());
    folders
}

fn postgres_major(program: &Path) -> Option<u32> {
    let text = version_text(program)?;
    // "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Finds nats-server: `AUTONOMY_NATS_SERVER`, the cache folder where `make setup` puts the pinned version, then PATH.
///
/// # Errors
/// When there is none, or it is too old.
pub fn nats_server() -> Result<PathBuf, ServerError> {
    let mut candidates: Vec<PathBuf> = match env::var_os("AUTONOMY_NATS_SERVER") {
        Some(named) => vec![PathBuf::from(named)],
        None => cache_folder()
            .map(|cache| cache.join(format!("autonomy/nats-server-v{NATS_SERVER_VERSION}/nats-server")))
            .into_iter()
            .chain(path_folders().into_iter().map(|folder| folder.join("nats-server")))
            .collect(),
    };
    let looked_at = listed(&candidates);
    candidates.retain(|candidate| candidate.is_file());
    let remedy = || {
        format!(
            "run `make setup`, which builds version {NATS_SERVER_VERSION} (or: go install \
             github.com/nats-io/nats-server/v2@v{NATS_SERVER_VERSION}); AUTONOMY_NATS_SERVER may name the binary"
        )
    };
    let mut too_old = None;
    for candidate in candidates {
        match nats_version(&candidate) {
            Some(version) if version >= OLDEST_NATS_SERVER => return Ok(candidate),
            Some((major, minor)) => too_old = too_old.or(Some((candidate, format!("{major}.{minor}")))),
            None => {}
        }
    }
    Err(match too_old {
        Some((program, found)) => ServerError::Version {
            program,
            found,
            needed: format!("{}.{} or later", OLDEST_NATS_SERVER.0, OLDEST_NATS_SERVER.1),
            remedy: remedy(),
        },
        None => ServerError::Missing { what: "nats-server", looked_at, remedy: remedy() },
    })
}

/// The version of versitygw, an S3 server, that `make setup` builds and that tests run against.
pub const VERSITYGW_VERSION: &str = "1.8.0";

/// Finds versitygw: `AUTONOMY_VERSITYGW`, or the cache folder where `make setup` puts the pinned version.
///
/// # Errors
/// When there is none.
pub fn versitygw() -> Result<PathBuf, ServerError> {
    let candidate = match env::var_os("AUTONOMY_VERSITYGW") {
        Some(named) => Some(PathBuf::from(named)),
        None => cache_folder().map(|cache| cache.join(format!("autonomy/versitygw-v{VERSITYGW_VERSION}/versitygw"))),
    };
    let looked_at = listed(candidate.as_slice());
    candidate.filter(|candidate| candidate.is_file()).ok_or_else(|| ServerError::Missing {
        what: "versitygw, an S3 server,",
        looked_at,
        remedy: format!("run `make setup`, which builds version {VERSITYGW_VERSION}; AUTONOMY_VERSITYGW may name the binary"),
    })
}

fn nats_version(program: &Path) -> Option<(u32, u32)> {
    // "nats-server: v2.15.2"
    let text = version_text(program)?;
    let version = text.split_whitespace().last()?.trim_start_matches('v');
    let mut numbers = version.split('.').map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn version_text(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn cache_folder() -> Option<PathBuf> {
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
}

fn path_folders() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

fn listed(paths: &[PathBuf]) -> String {
    let texts: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}
