//! Supervision: every process runs until it is asked to stop; one that ends is started again, after a wait that grows while it keeps ending.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use autonomy_process::telemetry::error_chain;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::data_folder::{DataFolder, LocalFile, LocalProcess};
use super::program::{Program, Started};
use crate::console::Console;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
// Who ran this long begins anew with the shortest wait.
const RAN_WELL: Duration = Duration::from_secs(5);

/// What is known of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessState {
    /// Its process id and operations endpoint, while it runs.
    pub running: Option<(u32, Option<SocketAddr>)>,
    /// How often it was started again.
    pub restarts: u32,
}

/// All processes of a local mode. Clones are of the same one.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    folder: Arc<DataFolder>,
    console: Console,
    board: Mutex<Board>,
    handles: Mutex<BTreeMap<String, Handle>>,
}

struct Board {
    addresses: LocalFile,
    processes: BTreeMap<String, ProcessState>,
}

struct Handle {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Supervises nothing yet.
    pub fn new(folder: Arc<DataFolder>, console: Console) -> Self {
        let board = Board { addresses: LocalFile::default(), processes: BTreeMap::new() };
        Self(Arc::new(Inner { folder, console, board: Mutex::new(board), handles: Mutex::default() }))
    }

    /// Tells the addresses that stand in `local.json` beside the processes.
    pub fn set_addresses(&self, addresses: LocalFile) {
        self.change(|board| board.addresses = addresses);
    }

    /// What is known of every process, by name.
    pub fn processes(&self) -> BTreeMap<String, ProcessState> {
        self.board().processes.clone()
    }

    /// Supervises a program from now on. `first` is its process where it runs already.
    pub fn add(&self, name: &str, program: Program, first: Option<Started>) {
        self.set_running(name, first.as_ref());
        let stop = CancellationToken::new();
        let watch = Watch { supervisor: self.clone(), name: name.to_owned(), program, stop: stop.clone() };
        let task = tokio::spawn(watch.run(first));
        self.handles().insert(name.to_owned(), Handle { stop, task });
    }

    /// Whether it is supervised.
    pub fn has(&self, name: &str) -> bool {
        self.handles().contains_key(name)
    }

    /// Stops one and waits until it has ended.
    pub async fn stop(&self, name: &str) {
        let handle = self.handles().remove(name);
        if let Some(Handle { stop, task }) = handle {
            stop.cancel();
            let _ = task.await;
            self.change(|board| {
                board.processes.remove(name);
            });
        }
    }

    /// Stops all, in order: workers, relay, API, NATS, PostgreSQL.
    pub async fn stop_all(&self) {
        let names: Vec<String> = self.handles().keys().cloned().collect();
        let workers: Vec<&String> = names.iter().filter(|name| name.starts_with("worker/")).collect();
        futures::future::join_all(workers.into_iter().map(|name| self.stop(name))).await;
        for name in ["relay", "api", "nats-server", "postgresql"] {
            self.stop(name).await;
        }
        self.0.folder.remove_local_file();
    }

    fn set_running(&self, name: &str, started: Option<&Started>) {
        self.change(|board| {
            let state = board.processes.entry(name.to_owned()).or_insert(ProcessState { running: None, restarts: 0 });
            state.running = started.map(|started| (started.pid, started.operations));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Board)) {
        let mut board = self.board();
        change(&mut board);
        if board.addresses.namespace.is_empty() {
            return;
        }
        let mut content = board.addresses.clone();
        content.processes = board
            .processes
            .iter()
            .filter_map(|(name, state)| state.running.map(|(pid, operations)| LocalProcess { name: name.clone(), pid, operations }))
            .collect();
        if let Err(error) = self.0.folder.write_local_file(&content) {
            self.0.console.say(format!("local.json can't be written: {}", error_chain(&error)));
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.0.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// The supervision of one process.
struct Watch {
    supervisor: Supervisor,
    name: String,
    program: Program,
    stop: CancellationToken,
}

impl Watch {
    async fn run(self, mut first: Option<Started>) {
        let mut wait = FIRST_WAIT;
        loop {
            let begun = Instant::now();
            let trouble = match first.take() {
                Some(started) => self.attend(started).await,
                None => match self.start().await {
                    Some(Ok(started)) => self.attend(started).await,
                    Some(Err(trouble)) => Some(trouble),
                    None => None,
                },
            };
            let Some(trouble) = trouble else { return };
            if begun.elapsed() > RAN_WELL {
                wait = FIRST_WAIT;
            }
            self.supervisor.0.console.say(format!("{trouble}; it is started again in {} ms", wait.as_millis()));
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
            self.supervisor.change(|board| {
                if let Some(state) = board.processes.get_mut(&self.name) {
                    state.restarts += 1;
                }
            });
        }
    }

    // `None` when told to stop meanwhile; the half-started process dies with its future.
    async fn start(&self) -> Option<Result<Started, String>> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            started = self.program.start() => Some(started.map_err(|error| format!("{} did not start: {}", self.name, error_chain(&error)))),
        }
    }

    // Waits for the end: `None` where it was asked for, otherwise what to tell.
    async fn attend(&self, started: Started) -> Option<String> {
        self.supervisor.set_running(&self.name, Some(&started));
        let status = tokio::select! {
            () = self.stop.cancelled() => {
                started.running.stop().await;
                return None;
            }
            status = started.running.wait_exit() => status,
        };
        self.supervisor.set_running(&self.name, None);
        let mut trouble = format!("{} (process {}) ended: {status}", self.name, started.pid);
        if status.code().is_some() {
            trouble.push_str(&started.running.last_words());
        }
        Some(trouble)
    }
}
