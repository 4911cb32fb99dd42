//! Local mode as a child process, with resources and environment of the test's own.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use autonomy_e2e::{LocalState, binary, root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything takes that works.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Local mode; it ends with this.
pub struct Local {
    process: Child,
    folder: tempfile::TempDir,
}

impl Local {
    /// Starts it with these resources, waits until its API answers and its workers are ready.
    pub async fn start(yaml: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // PostgreSQL runs as another user where we are root: it must be able to reach its folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let resources = folder.path().join("resources.yaml");
        fs::write(&resources, yaml).expect("written");
        let output = File::create(folder.path().join("local.log")).expect("a log file");
        let process = Command::new(binary("autonomy"))
            .args(["local", "--listen", "127.0.0.1:0", "-f"])
            .arg(&resources)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .current_dir(root())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the log file"))
            .stderr(output)
            .spawn()
            .expect("local mode starts");
        let local = Self { process, folder };
        let workers = yaml.matches("kind: MicroService").count();
        let client = autonomy_process::http_client::new();
        local
            .until("API, relay and workers are ready", async || {
                let Some(state) = local.state() else { return false };
                let roles: Vec<_> = state.processes.iter().filter_map(|process| process.operations).collect();
                if roles.len() < workers + 2 {
                    return false;
                }
                for address in &roles {
                    let answer = client.get(format!("http://{address}/readyz")).send().await;
                    if !answer.is_ok_and(|answer| answer.status().is_success()) {
                        return false;
                    }
                }
                true
            })
            .await;
        local
    }

    /// What it says of itself.
    pub fn state(&self) -> Option<LocalState> {
        LocalState::read(&self.folder.path().join("data"))
    }

    /// The object API's address.
    pub fn api(&self) -> String {
        self.state().expect("it runs").api
    }

    /// The log of one of its processes.
    pub fn log(&self, process: &str) -> String {
        fs::read_to_string(self.logs().join(format!("{}.log", process.replace('/', "-")))).unwrap_or_default()
    }

    fn logs(&self) -> PathBuf {
        self.folder.path().join("data/logs")
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let begun = Instant::now();
        while !condition().await {
            let log = || fs::read_to_string(self.folder.path().join("local.log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "it never came true that {what}:\n{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap_or_default()), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}
