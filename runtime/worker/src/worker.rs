//! The worker's process: reads the service, asks the API for its models, compiles it, and hands it to its trigger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::{Faults, MicroServiceSpec, Model};
use autonomy_process::operations::{self, Readiness};
use autonomy_process::telemetry::error_chain;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::http_call::{self, HttpCaller, Timelines};
use crate::logic::EmbeddedLogic;
use crate::options::Options;
use crate::secrets::Secrets;
use crate::service::CompiledService;
use crate::transactions::{TransactionClient, TransactionSettings};
use crate::{caches, files, queue};

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service's file can't be read.
    #[error("the service file {} can't be read", path.display())]
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The service's file is not understood.
    #[error("the service file {} is not understood", path.display())]
    ServiceSyntax {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The service is wrong.
    #[error("the service {name} can't run:\n{faults}")]
    Service {
        /// The service's name.
        name: String,
        /// What is wrong.
        faults: Faults,
    },
    /// The operations endpoint can't be served.
    #[error("the operations endpoint can't be served")]
    Operations(#[source] std::io::Error),
    /// The HTTP client can't be made.
    #[error("the HTTP client can't be made")]
    HttpClient(#[from] reqwest::Error),
    /// A trigger can't go on.
    #[error("{what}")]
    Trigger {
        /// What can't be done.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a trigger works with.
#[derive(Clone)]
pub struct Context {
    /// The service.
    pub service: Arc<CompiledService>,
    /// The options.
    pub options: Arc<Options>,
    /// For `http` steps and tickets.
    pub http: HttpCaller,
    /// Of the caches.
    pub cache_metrics: caches::Metrics,
    /// The Secrets that it may read.
    pub secrets: Secrets,
    /// For what is to be written.
    pub transactions: TransactionClient,
    /// Told by the trigger: ready when it handles what comes.
    pub readiness: Readiness,
    /// Cancelled when the worker must stop.
    pub stop: CancellationToken,
}

// The service's file.
#[derive(Debug, Deserialize)]
struct ServiceDocument {
    namespace: String,
    name: String,
    spec: MicroServiceSpec,
}

/// Runs a worker until `stop`; `logic` is that of a program of its own, where it is one.
///
/// # Errors
/// When it can't begin or can't go on; what passes by itself is waited for.
pub async fn run(options: Options, logic: Option<EmbeddedLogic>, stop: CancellationToken) -> Result<(), Error> {
    let document = read_service(&options.service)?;
    let mut registry = Registry::default();
    let readiness = Readiness::default();
    let trigger = if document.spec.trigger.files.is_some() {
        Trigger::Files(files::Metrics::register(&mut registry))
    } else {
        Trigger::Queue(queue::Metrics::register(&mut registry))
    };
    let calls = http_call::Metrics::register(&mut registry);
    let cache_metrics = caches::Metrics::register(&mut registry);
    let listen = operations::serve(options.operations.operations_listen, Arc::new(registry), readiness.clone(), stop.clone())
        .await
        .map_err(Error::Operations)?;
    tracing::info!(service = document.name, operations = %listen, "the worker starts");

    let Some(models) = fetch_models(&options.api_url, &document.spec, &readiness, &stop).await? else {
        return Ok(());
    };
    let service = compile(&document, &models, logic)?;
    if document.spec.suspend {
        tracing::info!("the service is suspended; events wait in the stream");
        readiness.ready();
        stop.cancelled().await;
        return Ok(());
    }
    let concurrency = usize::try_from(document.spec.scaling.concurrency).unwrap_or(1);
    let secrets = Secrets::new(options.secrets_dir.clone());
    let context = Context {
        service: Arc::new(service),
        http: HttpCaller::new(concurrency, secrets.clone(), calls)?.limited(Timelines::new(
            options.nats.clone(),
            &document.namespace,
            &document.name,
        )),
        cache_metrics,
        secrets,
        transactions: TransactionClient::start(&options.api_url, transaction_settings(&document.spec), stop.clone())?,
        options: Arc::new(options),
        readiness,
        stop,
    };
    match trigger {
        Trigger::Files(metrics) => files::run(context, metrics).await,
        Trigger::Queue(metrics) => queue::run(context, metrics).await,
    }
}

fn transaction_settings(spec: &MicroServiceSpec) -> TransactionSettings {
    let mut settings = TransactionSettings::default();
    if let Some(files) = &spec.trigger.files {
        settings.max_units = usize::try_from(files.records_per_request).unwrap_or(settings.max_units);
    }
    settings
}

enum Trigger {
    Files(files::Metrics),
    Queue(queue::Metrics),
}

fn read_service(path: &Path) -> Result<ServiceDocument, Error> {
    let text = std::fs::read(path).map_err(|source| Error::ServiceFile { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| Error::ServiceSyntax { path: path.to_owned(), source })
}

fn compile(
    document: &ServiceDocument,
    models: &BTreeMap<String, Arc<Model>>,
    logic: Option<EmbeddedLogic>,
) -> Result<CompiledService, Error> {
    let wrong = |faults| Error::Service { name: document.name.clone(), faults };
    let config = resolve_config(&document.spec.config, |name| std::env::var(name).ok()).map_err(wrong)?;
    let service = CompiledService::compile(&document.namespace, &document.name, &document.spec, models, &config);
    service.and_then(|service| service.with_logic(logic)).map_err(wrong)
}

/// Puts environment variables (`${env:NAME}`) in a service's `config`.
///
/// # Errors
/// A fault for each variable that is not set and each `${` that is not understood.
pub fn resolve_config(
    config: &BTreeMap<String, String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, Faults> {
    let mut faults = Faults::default();
    let mut resolved = BTreeMap::new();
    for (key, text) in config {
        let path = format!("spec.config.{key}");
        let mut value = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${env:") {
            value.push_str(&rest[..start]);
            let after = &rest[start + "${env:".len()..];
            let Some(end) = after.find('}') else {
                faults.add(&path, "${env: has no closing }");
                break;
            };
            let name = &after[..end];
            match variable(name) {
                Some(found) => value.push_str(&found),
                None => faults.add(&path, format!("the environment variable {name} is not set in the worker")),
            }
            rest = &after[end + 1..];
        }
        value.push_str(rest);
        resolved.insert(key.clone(), value);
    }
    faults.none_or(resolved)
}

// Asks the API for the models until it has them all; `None` when told to stop.
async fn fetch_models(
    api_url: &str,
    spec: &MicroServiceSpec,
    readiness: &Readiness,
    stop: &CancellationToken,
) -> Result<Option<BTreeMap<String, Arc<Model>>>, Error> {
    let client = autonomy_process::http_client::builder().timeout(Duration::from_secs(10)).build()?;
    let mut models = BTreeMap::new();
    for name in spec.models() {
        loop {
            match fetch_model(&client, api_url, name).await {
                Ok(model) => {
                    models.insert(name.to_owned(), Arc::new(model));
                    break;
                }
                Err(error) => {
                    let reason = format!("model {name} can't be had from the API at {api_url} yet: {}", error_chain(&error));
                    tracing::warn!("{reason}");
                    readiness.not_ready(reason);
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }
    Ok(Some(models))
}

async fn fetch_model(client: &reqwest::Client, api_url: &str, name: &str) -> Result<Model, reqwest::Error> {
    let url = format!("{}/api/{name}", api_url.trim_end_matches('/'));
    client.get(url).send().await?.error_for_status()?.json().await
}
