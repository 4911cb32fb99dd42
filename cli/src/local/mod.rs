//! `autonomy local`: the whole platform on one machine, from the same YAML that a cluster takes. PostgreSQL, nats-server, API, relay and a worker
//! for each service run as processes of their own, supervised; the operator's planner applies the models; edits of the YAML are applied as
//! they are saved.

pub mod data_folder;
pub mod drained;
pub mod program;
pub mod progress;
pub mod session;
mod start;
pub(crate) use start::admin_pool;
pub mod supervisor;
pub mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use autonomy_process::shutdown;
use autonomy_process::telemetry::error_chain;
use clap::Args;

use self::data_folder::{DataFolder, DataFolderError};
use self::drained::Drained;
use self::program::StartError;
use self::progress::Meter;
use self::session::{Session, SessionError};
use self::supervisor::Supervisor;
use self::watch::FileWatch;
use crate::console::Console;
use crate::resources::{self, Problems};

// How often progress is measured.
const LOOK: Duration = Duration::from_secs(1);
// What may pass by itself is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(3);

/// Runs DataModels and MicroServices on this machine.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// A YAML file, or a folder with YAML files at any depth; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true, num_args = 1..)]
    pub files: Vec<PathBuf>,
    /// Where everything is kept; made where it is not there.
    #[arg(long, value_name = "DIR", default_value = ".autonomy/local")]
    pub data_dir: PathBuf,
    /// Where the object API is served; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// The program of a service with logic of its own in Rust (`handler.embedded`); may be given several times.
    #[arg(long = "worker", value_name = "SERVICE=PATH", value_parser = session::worker_program)]
    pub workers: Vec<(String, PathBuf)>,
    /// End when everything is done: no file, event or retry waits.
    #[arg(long)]
    pub once: bool,
}

/// Why local mode did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The files have faults.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// The data folder can't be used.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    /// The data plane's binary is missing.
    #[error("{0}")]
    Runtime(String),
    /// Another process listens where the API should.
    #[error("the object API can't be served at {address}: give another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The database can't be set up.
    #[error("the database can't be set up")]
    Database(#[from] sqlx::Error),
    /// The database can't be prepared.
    #[error(transparent)]
    Prepare(#[from] autonomy_operator::prepare::PrepareError),
    /// NATS can't be used.
    #[error(transparent)]
    Nats(#[from] autonomy_process::options::NatsConnectError),
    /// The resources can't be put into effect.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The files can't be watched.
    #[error("the YAML files can't be watched")]
    Watch(#[from] notify::Error),
    /// The signal handlers can't be set.
    #[error("the signal handlers can't be set")]
    Signals(#[source] std::io::Error),
}

/// Runs local mode until Ctrl-C, SIGTERM, or with `--once` until everything is done.
///
/// # Errors
/// When it can't start.
pub async fn run(options: Options) -> Result<(), LocalError> {
    let console = Console::default();
    let filter = std::env::var("AUTONOMY_LOG").unwrap_or_else(|_| "warn,async_nats=error,sqlx=error".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // A logger that is set already stays.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(console.clone()).with_ansi(false).try_init();
    let stop = shutdown::stop_on_signal().map_err(LocalError::Signals)?;

    let folder = Arc::new(DataFolder::take(&options.data_dir)?);
    let supervisor = Supervisor::new(folder.clone(), console.clone());
    let outcome = tokio::select! {
        outcome = work(&options, folder, &supervisor, &console) => outcome,
        () = stop.cancelled() => Ok(()),
    };
    console.end_status();
    console.say("stopping workers, relay, API, NATS and PostgreSQL; Ctrl-C again ends at once");
    supervisor.stop_all().await;
    if outcome.is_ok() {
        console.say("stopped; started again, it goes on from here");
    }
    outcome
}

async fn work(options: &Options, folder: Arc<DataFolder>, supervisor: &Supervisor, console: &Console) -> Result<(), LocalError> {
    let texts = resources::read(&options.files, folder.path())?;
    let resources = resources::check(&texts)?;
    resources.notes.iter().for_each(|note| console.say(note));
    // Watched before anything takes time: no edit is missed.
    let mut files = FileWatch::start(&options.files)?;

    let started = start::servers(options, folder, supervisor, console, &resources.namespace).await?;
    let platform = started.platform.clone();
    let mut session =
        Session::new(platform.clone(), supervisor.clone(), console.clone(), options.files.clone(), resources.namespace.clone());
    session.set_programs(options.workers.iter().cloned().collect());
    session.set_seen(texts);
    session.apply_models(&resources).await?;
    start::roles(&started, supervisor);
    session.apply_services(&resources).await?;
    start::tell_addresses(&started, &session, console);

    let meter = Meter::start(platform, started.nats.clone(), supervisor.clone(), resources.namespace.clone(), session.subscribe());
    let mut shown = ShowProgress { meter, console: console.clone(), once: options.once };
    tokio::select! {
        () = shown.run() => Ok(()),
        never = follow_edits(&mut session, &mut files, console) => match never {},
    }
}

struct ShowProgress {
    meter: Meter,
    console: Console,
    once: bool,
}

impl ShowProgress {
    // Shows progress; returns when everything is done, where it is to end then.
    async fn run(&mut self) {
        let mut drained = Drained::default();
        loop {
            let progress = self.meter.measure().await;
            self.console.status(progress.lines(), &progress.line());
            if self.once && drained.look(&progress) {
                self.console.end_status();
                self.console.say(format!("everything is done: {}", progress.line()));
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn follow_edits(session: &mut Session, files: &mut FileWatch, console: &Console) -> std::convert::Infallible {
    loop {
        files.changed().await;
        while let Err(error) = session.reload().await {
            console.say(error_chain(&error));
            if !error.passes() {
                break;
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
}
