//! What the tests of whole flows share: the binaries under test, and local mode as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize;

/// What `autonomy local` writes to `local.json` in its data folder; the part of it that tests need.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalState {
    /// The object API's address, `http://…`.
    pub api: String,
    /// Every process of the platform that runs now.
    pub processes: Vec<LocalProcess>,
}

/// A process of local mode.
#[derive(Clone, Debug, Deserialize)]
pub struct LocalProcess {
    /// `api`, `relay`, `worker/{service}`, `nats-server` or `postgresql`.
    pub name: String,
    /// Its process id.
    pub pid: i32,
    /// Where a role answers `/healthz`, `/readyz` and `/metrics`.
    #[serde(default)]
    pub operations: Option<SocketAddr>,
}

impl LocalState {
    /// The state of local mode in `data_dir`; `None` until it is written.
    pub fn read(data_dir: &Path) -> Option<Self> {
        let text = std::fs::read(data_dir.join("local.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// The project's root folder, as cargo tells it to the running test: checkouts share a build folder.
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&package).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A binary of the workspace, built once a test process from the same profile as the tests, so that a test never runs against a stale one.
///
/// # Panics
/// When it can't be built.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        // Build scripts (ring's) look at these: with the test's own, half of the packages would be built once more.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                cargo.env_remove(name);
            }
        }
        let status = cargo.args(["build", "--quiet", "--locked", "--workspace", "--bins"]).current_dir(root()).status();
        assert!(status.is_ok_and(|status| status.success()), "the workspace's binaries can't be built");
        // …/target/debug/deps/{test} → …/target/debug
        let test = std::env::current_exe().unwrap_or_default();
        test.ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
    });
    folder.join(name)
}
