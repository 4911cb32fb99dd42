//! What local mode does with the declared resources: plans and applies models, makes streams, and gives each service its worker.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use autonomy_crds::data_platform::PersistMode;
use autonomy_crds::{Faults, MicroService, Model, webhook};
use autonomy_operator::apply::{self, Applied, ApplyError};
use autonomy_operator::catalog;
use autonomy_operator::streams::{self, StreamError, StreamSettings};
use autonomy_process::telemetry::error_chain;
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;

use super::data_folder::{DataFolder, DataFolderError};
use super::program::{Program, RoleProgram};
use super::supervisor::Supervisor;
use crate::console::Console;
use crate::resources::{self, Problems, Resources, Texts};

// How long the API may take to serve a new catalog before workers are started all the same.
const API_PATIENCE: Duration = Duration::from_secs(30);

/// Where everything is.
#[derive(Clone)]
pub struct Platform {
    /// The data folder.
    pub folder: Arc<DataFolder>,
    /// The superuser's pool on the database.
    pub admin: PgPool,
    /// JetStream.
    pub jetstream: jetstream::Context,
    /// The binary `autonomy-runtime`.
    pub runtime: PathBuf,
    /// Where the API listens.
    pub api: SocketAddr,
    /// The URL of NATS.
    pub nats_url: String,
    /// How old an acknowledged message is when it is surely on disk.
    pub nats_sync: Duration,
}

impl Platform {
    /// The API's base address.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// The folder below which relative directories of file triggers lie.
    pub fn files_dir(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// A role's program with what every role is told.
    pub fn role(&self, process: &str, arguments: Vec<OsString>, environment: Vec<(&'static str, OsString)>) -> RoleProgram {
        let mut all: Vec<(&'static str, OsString)> = vec![
            ("AUTONOMY_NATS_URL", self.nats_url.clone().into()),
            ("AUTONOMY_NATS_SYNC_INTERVAL", format!("{}ms", self.nats_sync.as_millis()).into()),
            ("AUTONOMY_API_URL", self.api_url().into()),
        ];
        all.extend(environment);
        RoleProgram { binary: self.runtime.clone(), arguments, environment: all, operations: None, log: self.folder.log(process) }
    }
}

/// Why the declared resources could not be put into effect. What ran before still runs.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The files have faults.
    #[error(transparent)]
    Problems(#[from] Problems),
    /// The resources changed their namespace.
    #[error("the namespace of the resources changed from {from} to {to}; stop local mode and use another --data-dir for it")]
    Namespace {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// The models could not be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] catalog::CatalogError),
    /// The streams could not be made.
    #[error(transparent)]
    Streams(#[from] StreamError),
    /// A service's file could not be written.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
}

impl SessionError {
    /// Whether it may pass by itself, so that it is worth another try.
    pub fn passes(&self) -> bool {
        match self {
            Self::Problems(_) | Self::Namespace { .. } | Self::Folder(_) => false,
            Self::Apply(error) => {
                matches!(error, ApplyError::Busy { .. } | ApplyError::Database(_) | ApplyError::Catalog(_) | ApplyError::Outdated(_))
            }
            Self::Catalog(_) | Self::Streams(_) => true,
        }
    }
}

/// What runs now: followed by progress and by the look whether all is drained.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// The models served, by name.
    pub models: BTreeMap<String, Arc<Model>>,
    /// The services that have a worker, by name.
    pub services: BTreeMap<String, MicroService>,
}

/// The declared resources in effect.
pub struct Session {
    platform: Platform,
    supervisor: Supervisor,
    console: Console,
    paths: Vec<PathBuf>,
    namespace: String,
    last: Texts,
    // What each worker was started with.
    workers: BTreeMap<String, Value>,
    // The programs of services with logic of their own.
    programs: BTreeMap<String, PathBuf>,
    // When each webhook was seen first, from when on it sends.
    webhooks: BTreeMap<String, String>,
    running: watch::Sender<Running>,
}

impl Session {
    /// Nothing is in effect yet. `paths` are read again at each change.
    pub fn new(platform: Platform, supervisor: Supervisor, console: Console, paths: Vec<PathBuf>, namespace: String) -> Self {
        let running = watch::Sender::new(Running::default());
        Self {
            platform,
            supervisor,
            console,
            paths,
            namespace,
            last: Texts::new(),
            workers: BTreeMap::new(),
            programs: BTreeMap::new(),
            webhooks: BTreeMap::new(),
            running,
        }
    }

    /// Takes these programs, by service, as workers with logic of their own.
    pub fn set_programs(&mut self, programs: BTreeMap<String, PathBuf>) {
        self.programs = programs;
    }

    /// Follows what runs.
    pub fn subscribe(&self) -> watch::Receiver<Running> {
        self.running.subscribe()
    }

    /// Reads the files again and puts them into effect, where they have changed.
    ///
    /// # Errors
    /// When they have faults or can't be applied; what runs stays as it is.
    pub async fn reload(&mut self) -> Result<(), SessionError> {
        let texts = resources::read(&self.paths, self.platform.folder.path())?;
        if texts == self.last {
            return Ok(());
        }
        let outcome = match resources::check(&texts) {
            Ok(resources) => {
                self.console.say("the YAML changed; it is applied");
                let applied = self.apply_models(&resources).await;
                match applied {
                    Ok(()) => self.apply_services(&resources).await,
                    Err(error) => Err(error),
                }
            }
            Err(problems) => Err(problems.into()),
        };
        // What may pass is tried again; faults are told once.
        if !matches!(&outcome, Err(error) if error.passes()) {
            self.last = texts;
        }
        outcome
    }

    /// Marks the texts that the first resources came from.
    pub fn set_seen(&mut self, texts: Texts) {
        self.last = texts;
    }

    /// Plans and applies the models and makes the streams. A hazardous plan is told, and the models served stay as they are.
    ///
    /// # Errors
    /// When the database or NATS does not do it.
    pub async fn apply_models(&mut self, resources: &Resources) -> Result<(), SessionError> {
        if resources.namespace != self.namespace && !resources.models.is_empty() {
            return Err(SessionError::Namespace { from: self.namespace.clone(), to: resources.namespace.clone() });
        }
        let before = catalog::read(&self.platform.admin).await?;
        match apply::apply_models(&self.platform.admin, &resources.models).await {
            Ok(applied) => self.tell_applied(resources, &applied),
            Err(error @ ApplyError::Hazardous { .. }) => self.console.say(hazards_text(&error)),
            Err(error) => return Err(error.into()),
        }
        let served = catalog::read(&self.platform.admin).await?;
        for name in before.keys().filter(|name| !resources.models.iter().any(|model| model.name == **name)) {
            let told_before = !self.running.borrow().models.is_empty() && !self.last_declared(name);
            if !told_before {
                self.console.say(format!(
                    "model {name} is not declared any more: its data, its API and its stream stay as they are; \
                     local mode never deletes data"
                ));
            }
        }
        let models: Vec<Model> = served.values().map(|entry| entry.model.clone()).collect();
        streams::ensure(&self.platform.jetstream, &self.namespace, &models, &stream_settings(resources)).await?;
        let models = models.into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect();
        self.running.send_modify(|running| running.models = models);
        Ok(())
    }

    // Whether the texts last put into effect declare the model.
    fn last_declared(&self, name: &str) -> bool {
        resources::check(&self.last).is_ok_and(|resources| resources.models.iter().any(|model| model.name == name))
    }

    fn tell_applied(&self, resources: &Resources, applied: &[Applied]) {
        for (model, applied) in resources.models.iter().zip(applied) {
            match applied {
                Applied::Unchanged => {}
                Applied::Changed { revision, statements, unfinished } => {
                    let name = &model.name;
                    self.console.say(format!("model {name} is applied: revision {revision}, {statements} statements"));
                    for statement in unfinished {
                        self.console.say(format!("model {name}: this statement did not succeed yet: {statement}"));
                    }
                }
            }
        }
    }

    /// Gives each service its worker: new ones are started, changed ones started again, removed ones stopped.
    ///
    /// # Errors
    /// When a service's file can't be written.
    pub async fn apply_services(&mut self, resources: &Resources) -> Result<(), SessionError> {
        let models = self.running.borrow().models.clone();
        self.wait_for_api(&models).await;
        let mut kept = BTreeMap::new();
        for (name, service) in &resources.services {
            if service.spec.suspend || service.spec.scaling.replicas == 0 {
                self.console.say(format!("service {name} is suspended; its events wait in the stream"));
                continue;
            }
            if let Err(faults) = resources::check_service(&self.namespace, service, &models) {
                self.console.say(service_faults_text(name, &faults, self.workers.contains_key(name)));
                if let Some(old) = self.running.borrow().services.get(name) {
                    kept.insert(name.clone(), old.clone());
                }
                continue;
            }
            if service.spec.has_embedded_logic() && !self.programs.contains_key(name) {
                self.console.say(format!(
                    "service {name} is not started: its logic is in a program of its own (handler.embedded); name that with --worker {name}=PATH"
                ));
                continue;
            }
            let service = self.with_beginning(name, service.clone());
            self.give_worker(name, &service, &models).await?;
            kept.insert(name.clone(), service);
        }
        let gone: Vec<String> = self.workers.keys().filter(|name| !kept.contains_key(*name)).cloned().collect();
        for name in gone {
            self.supervisor.stop(&process_name(&name)).await;
            self.workers.remove(&name);
            self.console.say(format!("service {name} is stopped; its place in the stream is kept"));
        }
        self.running.send_modify(|running| running.services = kept);
        Ok(())
    }

    // A webhook that says nothing else begins with what comes after it was declared. One that has a place in the stream goes on there.
    fn with_beginning(&mut self, name: &str, mut service: MicroService) -> MicroService {
        let is_webhook = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(webhook::MODEL_LABEL));
        if let Some(queue) = service.spec.trigger.queue.as_mut().filter(|queue| is_webhook && queue.since.is_none()) {
            let seen = self.webhooks.entry(name.to_owned()).or_insert_with(|| Timestamp::now().to_string());
            queue.since = Some(seen.clone());
        }
        service
    }

    async fn give_worker(&mut self, name: &str, service: &MicroService, models: &BTreeMap<String, Arc<Model>>) -> Result<(), SessionError> {
        let document = json!({"namespace": self.namespace, "name": name, "spec": service.spec});
        // A worker learns its models when it starts, so it is started again when one of them changes.
        let started_with = json!({"service": document, "models": models_of(service, models)});
        if self.workers.get(name) == Some(&started_with) {
            return Ok(());
        }
        let process = process_name(name);
        let again = self.supervisor.has(&process);
        self.supervisor.stop(&process).await;
        let file = self.platform.folder.join("services").join(format!("{name}.json"));
        autonomy_servers::write_private(&file, &document.to_string()).map_err(DataFolderError::from)?;
        let files_dir = self.platform.files_dir();
        if let Some(directory) = service.spec.trigger.files.as_ref().and_then(|files| files.directory.as_ref()) {
            let directory = files_dir.join(directory);
            std::fs::create_dir_all(&directory).map_err(|source| DataFolderError::Path { path: directory, source })?;
        }
        let arguments = vec![
            "worker".into(),
            "--service".into(),
            file.into(),
            "--files-dir".into(),
            files_dir.into(),
            "--secrets-dir".into(),
            self.platform.folder.join("secrets").into(),
        ];
        let mut program = self.platform.role(&process, arguments, Vec::new());
        if let Some(own) = self.programs.get(name).filter(|_| service.spec.has_embedded_logic()) {
            program.binary.clone_from(own);
        }
        self.supervisor.add(&process, Program::Role(program), None);
        self.console.say(format!("service {name} is {}", if again { "started again with its change" } else { "started" }));
        self.workers.insert(name.to_owned(), started_with);
        Ok(())
    }

    // Waits until the API serves these models, from which the workers learn theirs.
    async fn wait_for_api(&self, models: &BTreeMap<String, Arc<Model>>) {
        let client = autonomy_process::http_client::new();
        let begun = Instant::now();
        for model in models.values() {
            let url = format!("{}/api/{}", self.platform.api_url(), model.name);
            loop {
                let answer = client.get(&url).timeout(Duration::from_secs(5)).send().await;
                let served = match answer.and_then(reqwest::Response::error_for_status) {
                    Ok(answer) => answer.json::<Model>().await.is_ok_and(|served| served == **model),
                    Err(_) => false,
                };
                if served {
                    break;
                }
                if begun.elapsed() > API_PATIENCE {
                    self.console.say(format!("the API does not serve model {} as it is now; see its log in logs/api.log", model.name));
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A service and its program, as `--worker` takes them.
///
/// # Errors
/// When the text is not `SERVICE=PATH`, or there is no such file.
pub fn worker_program(text: &str) -> Result<(String, PathBuf), String> {
    let (service, path) =
        text.split_once('=').ok_or_else(|| "write SERVICE=PATH, for example my-service=target/debug/my-service".to_owned())?;
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    if !path.is_file() {
        return Err(format!("there is no program {}; build it first", path.display()));
    }
    Ok((service.to_owned(), path))
}

/// The name of a service's worker among the processes.
pub fn process_name(service: &str) -> String {
    format!("worker/{service}")
}

fn models_of(service: &MicroService, models: &BTreeMap<String, Arc<Model>>) -> Vec<Arc<Model>> {
    service.spec.models().into_iter().filter_map(|name| models.get(name).cloned()).collect()
}

fn stream_settings(resources: &Resources) -> StreamSettings {
    let days = resources.platform.as_ref().and_then(|platform| platform.spec.events.retention_days);
    let retention = days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
    // There will never be a second replica.
    StreamSettings { replicas: 1, retention, persist_mode: PersistMode::Async }
}

fn hazards_text(error: &ApplyError) -> String {
    let ApplyError::Hazardous { model, hazards, .. } = error else { return error_chain(error) };
    let mut text = format!("REFUSED: the change of model {model} is not safe; no model was changed, and all are served as before:");
    for hazard in hazards {
        text.push_str(&format!("\n  {hazard}"));
    }
    text
}

fn service_faults_text(name: &str, faults: &Faults, runs: bool) -> String {
    let goes_on = if runs { "; it goes on as before" } else { "; it is not started" };
    let mut text = format!("service {name} does not fit the models served{goes_on}:");
    for fault in &faults.0 {
        text.push_str(&format!("\n  {fault}"));
    }
    text
}
