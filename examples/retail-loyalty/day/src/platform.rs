//! What a guest of the platform sees: its object API, its queues in NATS, and the folder for files. Nothing here knows its insides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::jetstream;
use autonomy_crds::event;
use futures::{StreamExt, TryStreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Where the platform is, on the command line: the data folder of an `autonomy local`, or the addresses of one in a cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Where {
    /// The data folder of `autonomy local`.
    #[arg(long, required_unless_present = "api")]
    data_dir: Option<PathBuf>,
    /// The object API's address.
    #[arg(long, env = "PLATFORM_API_URL", requires_all = ["nats", "files_dir"])]
    api: Option<String>,
    /// NATS's address; best given in the environment.
    #[arg(long, env = "PLATFORM_NATS_URL", hide_env_values = true)]
    nats: Option<String>,
    /// The base of the services' folders.
    #[arg(long, env = "PLATFORM_FILES_DIR")]
    files_dir: Option<PathBuf>,
    /// The Kubernetes namespace.
    #[arg(long, env = "PLATFORM_NAMESPACE", default_value = "default")]
    namespace: String,
}

impl Where {
    /// The addresses.
    ///
    /// # Errors
    /// When `local.json` is not there (yet) or can't be read.
    pub fn resolve(&self) -> Result<LocalState, PlatformError> {
        match (&self.data_dir, &self.api, &self.nats, &self.files_dir) {
            (Some(data_dir), ..) => LocalState::read(data_dir),
            (None, Some(api), Some(nats), Some(files_dir)) => Ok(LocalState {
                namespace: self.namespace.clone(),
                api: api.clone(),
                nats: nats.clone(),
                files_dir: files_dir.clone(),
                processes: Vec::new(),
            }),
            // The command line asks for one of both.
            _ => LocalState::read(Path::new(".")),
        }
    }
}

/// Where the platform is: `local.json`, which `autonomy local` writes into its data folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalState {
    /// The Kubernetes namespace whose names it uses.
    pub namespace: String,
    /// The object API's address.
    pub api: String,
    /// NATS's address.
    pub nats: String,
    /// The base of the services' folders.
    pub files_dir: PathBuf,
    /// What runs.
    #[serde(default)]
    pub processes: Vec<LocalProcess>,
}

/// A process of the platform.
#[derive(Clone, Debug, Deserialize)]
pub struct LocalProcess {
    /// `api`, `relay`, `worker/{service}` and so on.
    pub name: String,
}

impl LocalState {
    /// Reads `local.json` of a data folder.
    ///
    /// # Errors
    /// When it is not there (yet) or can't be read.
    pub fn read(data_dir: &Path) -> Result<Self, PlatformError> {
        let file = data_dir.join("local.json");
        let read = || serde_json::from_slice(&std::fs::read(&file)?).map_err(std::io::Error::other);
        read().map_err(|source| PlatformError::Local { file: file.clone(), source })
    }
}

/// Why the platform can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// `local.json` can't be read.
    #[error("{} can't be read; does `autonomy local` run there?", file.display())]
    Local {
        /// The file.
        file: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// The API or a stand-in does not answer.
    #[error("{url} can't be asked")]
    Http {
        /// What was asked.
        url: String,
        /// What happened.
        #[source]
        source: reqwest::Error,
    },
    /// The API answers with an error.
    #[error("{url} answers {status}: {body}")]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: StatusCode,
        /// What it says.
        body: String,
    },
    /// An answer is not understood.
    #[error("the answer of {url} is not understood: {detail}")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// NATS can't be asked.
    #[error("NATS can't be asked: {0}")]
    Nats(String),
    /// A folder can't be read.
    #[error("the folder {} can't be read", folder.display())]
    Folder {
        /// Which one.
        folder: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
}

/// A connection to the platform.
#[derive(Clone)]
pub struct Platform {
    /// Where it is.
    pub local: LocalState,
    http: Client,
    nats: jetstream::Context,
}

/// What waits in the platform's queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Files that wait for being loaded.
    pub files: u64,
    /// Events that wait for a service, or that one is busy with.
    pub events: u64,
    /// Events that wait for another attempt.
    pub retries: u64,
}

impl Queues {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Platform {
    /// Connects.
    ///
    /// # Errors
    /// When NATS can't be reached.
    pub async fn connect(local: LocalState) -> Result<Self, PlatformError> {
        let nats = |error: &dyn std::fmt::Display| PlatformError::Nats(error.to_string());
        let address: async_nats::ServerAddr = local.nats.parse().map_err(|error| nats(&error))?;
        // The client takes nothing but the address from a URL.
        let options = match (address.username(), address.password()) {
            (Some(user), Some(password)) => async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned()),
            _ => async_nats::ConnectOptions::new(),
        };
        let client = options.retry_on_initial_connect().connect(address).await.map_err(|error| nats(&error))?;
        let http = autonomy_process::http_client::builder().timeout(Duration::from_secs(300)).build();
        let http = http.map_err(|source| PlatformError::Http { url: local.api.clone(), source })?;
        Ok(Self { local, http, nats: jetstream::new(client) })
    }

    /// The address of a path of the API.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.local.api.trim_end_matches('/'))
    }

    /// How many objects there are; `query` as in `loyalty=accrued`, or empty.
    ///
    /// # Errors
    /// When the API does not say.
    pub async fn count(&self, path: &str, query: &str) -> Result<u64, PlatformError> {
        let separator = if query.is_empty() { "" } else { "&" };
        let url = self.url(&format!("{path}?{query}{separator}limit=1&fields=id&count=true"));
        let answer = ok(&url, self.http.get(&url).send().await).await?;
        let total = answer.headers().get("x-total-count").and_then(|count| count.to_str().ok()).and_then(|count| count.parse().ok());
        total.ok_or_else(|| PlatformError::Answer { url, detail: "there is no X-Total-Count".to_owned() })
    }

    /// Reads all objects of a path, one after the other.
    ///
    /// # Errors
    /// When the API does not answer, or an object is not understood.
    pub async fn each<T: DeserializeOwned>(&self, path: &str, mut take: impl FnMut(T)) -> Result<(), PlatformError> {
        let url = self.url(path);
        let answer = ok(&url, self.http.get(&url).header(ACCEPT, "application/x-ndjson").send().await).await?;
        let mut chunks = answer.bytes_stream();
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = chunks.next().await {
            rest.extend_from_slice(&chunk.map_err(|source| PlatformError::Http { url: url.clone(), source })?);
            let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            for line in rest[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                take(understood(&url, line)?);
            }
            rest.drain(..=end);
        }
        if !rest.is_empty() {
            take(understood(&url, &rest)?);
        }
        Ok(())
    }

    /// Posts a list of objects; those that are there already stay as they are. Tries again while the API is away.
    ///
    /// # Errors
    /// When the API refuses it, or stays away for a minute.
    pub async fn post(&self, path: &str, objects: &[Value]) -> Result<(), PlatformError> {
        let url = self.url(&format!("{path}?onConflict=ignore"));
        let body = serde_json::to_vec(objects).map_err(|error| PlatformError::Answer { url: url.clone(), detail: error.to_string() })?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let request = self.http.post(&url).header(CONTENT_TYPE, "application/json").header("Prefer", "return=minimal");
            match ok(&url, request.body(body.clone()).send().await).await {
                Ok(_) => return Ok(()),
                Err(PlatformError::Status { status, .. }) if status.is_server_error() && attempt < 60 => {}
                Err(PlatformError::Http { .. }) if attempt < 60 => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Whether the API serves both models and every service runs.
    pub async fn is_up(&self, services: &[&str]) -> bool {
        let running = |service: &&str| self.local.processes.iter().any(|process| process.name == format!("worker/{service}"));
        services.iter().all(running) && self.count("/api/retail/sales", "").await.is_ok()
    }

    /// How many dead letters each service has.
    ///
    /// # Errors
    /// When NATS does not say.
    pub async fn dead_letters(&self) -> Result<BTreeMap<String, u64>, PlatformError> {
        let stream = self.nats.get_stream(format!("{}_DEAD_LETTERS", self.local.namespace.to_uppercase())).await;
        let stream = stream.map_err(|error| PlatformError::Nats(error.to_string()))?;
        let subjects = stream.info_with_subjects(">").await.map_err(|error| PlatformError::Nats(error.to_string()))?;
        let subjects: Vec<(String, usize)> = subjects.try_collect().await.map_err(|error| PlatformError::Nats(error.to_string()))?;
        let mut letters = BTreeMap::new();
        for (subject, count) in subjects {
            // autonomy.{ns}._dead_letters.{service}.{event id}
            let service = subject.split('.').nth(3).unwrap_or("?").to_owned();
            *letters.entry(service).or_default() += count as u64;
        }
        Ok(letters)
    }

    /// What waits.
    ///
    /// # Errors
    /// When NATS does not say, or the folder can't be read.
    pub async fn queues(&self) -> Result<Queues, PlatformError> {
        let nats = |error: &dyn std::fmt::Display| PlatformError::Nats(error.to_string());
        let namespace = self.local.namespace.to_uppercase();
        let mut queues = Queues { files: self.waiting_files()?, ..Queues::default() };
        for model in ["COMMON-BUSINESS-ENTITIES", "RETAIL"] {
            let stream = self.nats.get_stream(format!("{namespace}_{model}")).await.map_err(|error| nats(&error))?;
            let mut consumers = stream.consumers();
            while let Some(consumer) = consumers.try_next().await.map_err(|error| nats(&error))? {
                // Those of caches have no durable name: they hold up nothing.
                if consumer.config.durable_name.is_some() {
                    queues.events += consumer.num_pending + consumer.num_ack_pending as u64;
                }
            }
        }
        let retries = self.nats.get_stream(format!("{namespace}_RETRIES")).await.map_err(|error| nats(&error))?;
        // What services keep there besides (who has which partition, what was planned last) waits for nothing.
        let mut subjects = retries.info_with_subjects(">").await.map_err(|error| nats(&error))?;
        while let Some((subject, messages)) = subjects.try_next().await.map_err(|error| nats(&error))? {
            if event::is_waiting(&subject) || event::is_due(&subject) {
                queues.retries += messages as u64;
            }
        }
        Ok(queues)
    }

    /// The folder into which stores put their files.
    pub fn incoming(&self) -> PathBuf {
        self.local.files_dir.join("stores/incoming")
    }

    fn waiting_files(&self) -> Result<u64, PlatformError> {
        let folder = self.incoming();
        let read = || -> std::io::Result<u64> {
            let mut count = 0;
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                count += u64::from(entry.file_type()?.is_file() && entry.file_name().to_string_lossy().starts_with("sales-"));
            }
            Ok(count)
        };
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            other => other.map_err(|source| PlatformError::Folder { folder: folder.clone(), source }),
        }
    }

    /// Reads JSON from an address outside the API.
    ///
    /// # Errors
    /// When it does not answer or is not understood.
    pub async fn read_json<T: DeserializeOwned>(&self, url: &str) -> Result<T, PlatformError> {
        let answer = ok(url, self.http.get(url).send().await).await?;
        let body = answer.bytes().await.map_err(|source| PlatformError::Http { url: url.to_owned(), source })?;
        understood(url, &body)
    }
}

fn understood<T: DeserializeOwned>(url: &str, json: &[u8]) -> Result<T, PlatformError> {
    serde_json::from_slice(json).map_err(|error| {
        let shown: String = String::from_utf8_lossy(json).chars().take(200).collect();
        PlatformError::Answer { url: url.to_owned(), detail: format!("{error} in {shown}") }
    })
}

async fn ok(url: &str, answer: Result<reqwest::Response, reqwest::Error>) -> Result<reqwest::Response, PlatformError> {
    let answer = answer.map_err(|source| PlatformError::Http { url: url.to_owned(), source })?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default().chars().take(2_000).collect();
    Err(PlatformError::Status { url: url.to_owned(), status, body })
}
