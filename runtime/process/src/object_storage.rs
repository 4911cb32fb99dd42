//! Buckets of S3 and of compatible object storage.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::glob::Glob;
use autonomy_crds::micro_service::S3Location;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectMeta, RetryConfig, StaticCredentialProvider};

// How long one request may be tried.
const PATIENCE: Duration = Duration::from_secs(30);
const RETRIES: usize = 5;

/// A client of a bucket. Where no credentials are given, the environment tells who it is (`AWS_…` variables, a web identity, an instance's role).
///
/// # Errors
/// When the address is none, or the HTTP client can't be made.
pub fn bucket(location: &S3Location, credentials: Option<AwsCredentialProvider>) -> Result<AmazonS3, object_store::Error> {
    crate::http_client::choose_cryptography();
    let mut builder = if credentials.is_some() { AmazonS3Builder::new() } else { AmazonS3Builder::from_env() };
    if let Some(credentials) = credentials {
        builder = builder.with_credentials(credentials);
    }
    if let Some(endpoint) = &location.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: PATIENCE, ..RetryConfig::default() };
    builder
        .with_bucket_name(&location.bucket)
        .with_region(&location.region)
        .with_virtual_hosted_style_request(location.virtual_hosted_style)
        // An answer that streams a file takes as long as its reader; one that gives nothing for this long is begun again.
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout_disabled().with_read_timeout(PATIENCE))
        .with_retry(retry)
        .build()
}

/// What the keys of a location's files begin with: nothing, or a folder with a slash at its end.
pub fn folder_of(location: &S3Location) -> String {
    match location.prefix.trim_end_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    }
}

/// The objects directly in a folder that `wanted` takes, each once, in the order of their keys; of more than `most`, about so many.
///
/// # Errors
/// When the storage does not answer or refuses.
pub async fn list_folder<T>(
    store: &AmazonS3,
    folder: &str,
    most: usize,
    wanted: impl Fn(ObjectMeta) -> Option<T>,
) -> Result<Vec<T>, object_store::Error> {
    let prefix = Some(folder).filter(|folder| !folder.is_empty());
    let mut known: HashSet<Path> = HashSet::new();
    let mut found = Vec::new();
    let mut page_token = None;
    loop {
        let options = PaginatedListOptions { delimiter: Some("/".into()), page_token, ..PaginatedListOptions::default() };
        let page = store.list_paginated(prefix, options).await?;
        for object in page.result.objects {
            let path = object.location.clone();
            if let Some(object) = wanted(object)
                && known.insert(path)
            {
                found.push(object);
            }
        }
        page_token = page.page_token;
        if page_token.is_none() || found.len() >= most {
            return Ok(found);
        }
    }
}

// Whoever asks how many wait wants to know whether any do, and about how many.
const MOST_COUNTED: usize = 1000;

/// The folder in a bucket where a service's files arrive, for one who does not load them and only counts.
#[derive(Clone, Debug)]
pub struct Inbox {
    store: AmazonS3,
    folder: String,
    pattern: Glob,
}

/// The files that wait can't be counted.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// The storage can't be reached, or refuses.
    #[error("the bucket {bucket} can't be listed")]
    Storage {
        /// The bucket.
        bucket: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// The pattern is none.
    #[error("spec.trigger.files.pattern: {0}")]
    Pattern(String),
}

impl Inbox {
    /// The inbox at a location. `access_key` is the access key's id and the secret one; the environment tells who asks where there is none.
    ///
    /// # Errors
    /// When the address or the pattern is none.
    pub fn new(location: &S3Location, pattern: &str, access_key: Option<(String, String)>) -> Result<Self, InboxError> {
        let credentials = access_key.map(|(key_id, secret_key)| -> AwsCredentialProvider {
            Arc::new(StaticCredentialProvider::new(AwsCredential { key_id, secret_key, token: None }))
        });
        let store = bucket(location, credentials).map_err(|source| InboxError::Storage { bucket: location.bucket.clone(), source })?;
        let pattern = Glob::new(pattern).map_err(InboxError::Pattern)?;
        Ok(Self { store, folder: folder_of(location), pattern })
    }

    /// How many files wait or are being loaded; of very many, some.
    ///
    /// # Errors
    /// When the storage does not answer or refuses.
    pub async fn waiting(&self) -> Result<u64, InboxError> {
        let wanted = |object: ObjectMeta| {
            let name = object.location.as_ref().strip_prefix(&self.folder)?;
            self.pattern.takes(name).then_some(())
        };
        match list_folder(&self.store, &self.folder, MOST_COUNTED, wanted).await {
            Ok(found) => Ok(u64::try_from(found.len()).unwrap_or(u64::MAX)),
            Err(source) => Err(InboxError::Storage { bucket: self.store.to_string(), source }),
        }
    }
}
