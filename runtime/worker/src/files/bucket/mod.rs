//! A bucket as a place of files: keys below a prefix, with `processed/` and `rejected/` below it too.

mod credentials;
mod lease;
mod moves;
mod object_file;
mod rejects;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use autonomy_crds::micro_service::S3Location;
use autonomy_crds::names::parse_duration;
use autonomy_process::object_storage;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use self::credentials::SecretCredentials;
use self::lease::{Lease, Leases};
use self::moves::{Moves, Source};
use self::object_file::ObjectFile;
use self::rejects::BucketRejects;
use super::glob::Glob;
use super::place::{Beside, Candidate, Claimed, Folder, Place, PlaceError};
use crate::expression::functions::hex;
use crate::secrets::Secrets;

// Of more files that wait, as many of the first keys are looked at; the others' turn comes when these are loaded.
const MOST_WAITING: usize = 10_000;
const DEFAULT_POLL: Duration = Duration::from_secs(10);

/// The bucket and the prefix.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Arc<AmazonS3>,
    name: String,
    // Empty, or with a slash at its end.
    prefix: String,
    poll_interval: Duration,
    leases: Leases,
}

/// An object that only this process handles, as long as this lives.
#[derive(Debug)]
pub struct Claim {
    name: String,
    object: ObjectMeta,
    _lease: Lease,
}

/// A content that only this process loads, as long as this lives.
#[derive(Debug)]
pub struct ContentClaim {
    manifest: Path,
    first: Option<String>,
    _lease: Lease,
}

/// A client of a declared bucket. Nothing is asked of it yet.
///
/// # Errors
/// When its address is none.
pub(crate) fn client(location: &S3Location, secrets: &Secrets) -> Result<AmazonS3, object_store::Error> {
    object_storage::bucket(location, SecretCredentials::of(location, secrets))
}

impl Bucket {
    /// The bucket of a trigger. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When its address is none.
    pub fn new(location: &S3Location, secrets: &Secrets) -> Result<Self, PlaceError> {
        let storage = |source| PlaceError::Storage { doing: "can't reach", key: location.bucket.clone(), source };
        let store = client(location, secrets).map_err(storage)?;
        let prefix = object_storage::folder_of(location);
        let store = Arc::new(store);
        let leases = Leases::new(store.clone(), format!("{prefix}processed/.claims/"));
        let poll_interval = parse_duration(&location.poll_interval).unwrap_or(DEFAULT_POLL);
        Ok(Self { store, name: location.bucket.clone(), prefix, poll_interval, leases })
    }

    /// Finishes what an earlier process left: reservations of moves that are done.
    ///
    /// # Errors
    /// When the bucket can't be read.
    pub async fn tidy(&self) -> Result<(), PlaceError> {
        self.moves().tidy().await
    }

    fn moves(&self) -> Moves<'_> {
        Moves { store: &self.store, prefix: &self.prefix }
    }

    fn key(&self, name: &str) -> Result<Path, PlaceError> {
        path(format!("{}{name}", self.prefix))
    }

    fn candidate(&self, object: ObjectMeta, pattern: &Glob) -> Option<Candidate> {
        let name = object.location.as_ref().strip_prefix(&self.prefix)?;
        if !pattern.takes(name) {
            return None;
        }
        let modified = SystemTime::from(object.last_modified);
        Some(Candidate { name: name.to_owned(), length: object.size, modified, tag: object.e_tag })
    }

    async fn range(&self, path: &Path, range: GetRange) -> Result<Vec<u8>, PlaceError> {
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let read = async { self.store.get_opts(path, options).await?.bytes().await };
        Ok(read.await.map_err(|source| failed("can't read", path, source))?.to_vec())
    }
}

fn path(key: String) -> Result<Path, PlaceError> {
    Path::parse(&key).map_err(|source| PlaceError::Storage { doing: "can't name", key, source: source.into() })
}

fn failed(doing: &'static str, path: &Path, source: object_store::Error) -> PlaceError {
    PlaceError::Storage { doing, key: path.to_string(), source }
}

// What may not be there.
fn found<T>(result: Result<T, object_store::Error>) -> Result<Option<T>, object_store::Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;

impl Place for Bucket {
    type Claim = Claim;
    type ContentClaim = ContentClaim;
    type File = ObjectFile;
    type Rejects = BucketRejects;

    fn describe(&self) -> String {
        format!("the bucket {} below {:?}", self.name, self.prefix)
    }

    fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    async fn list(&self, pattern: &Glob) -> Result<Vec<Candidate>, PlaceError> {
        let listed = object_storage::list_folder(&self.store, &self.prefix, MOST_WAITING, |object| self.candidate(object, pattern)).await;
        let mut candidates = listed.map_err(|source| PlaceError::Storage { doing: "can't list", key: self.prefix.clone(), source })?;
        candidates.sort_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
        Ok(candidates)
    }

    async fn ends(&self, candidate: &Candidate, head: usize, tail: usize) -> Result<(Vec<u8>, Vec<u8>), PlaceError> {
        let path = self.key(&candidate.name)?;
        let head = self.range(&path, GetRange::Bounded(0..(head as u64).min(candidate.length))).await?;
        let tail = self.range(&path, GetRange::Suffix((tail as u64).min(candidate.length))).await?;
        Ok((head, tail))
    }

    async fn claim(&self, candidate: &Candidate) -> Result<Claimed<Claim>, PlaceError> {
        let Some(lease) = self.leases.take(&hex(&Sha256::digest(&candidate.name))).await? else { return Ok(Claimed::NotOurs) };
        let path = self.key(&candidate.name)?;
        let object = found(self.store.head(&path).await).map_err(|source| failed("can't look at", &path, source))?;
        let Some(object) = object else { return Ok(Claimed::NotOurs) };
        let source = Source::of(&candidate.name, &object);
        if self.moves().finish_interrupted(&source).await? {
            return Ok(Claimed::Settled);
        }
        Ok(Claimed::Ours(Claim { name: candidate.name.clone(), object, _lease: lease }))
    }

    fn open(&self, claim: &Claim) -> io::Result<ObjectFile> {
        Ok(ObjectFile::new(self.store.clone(), claim.object.clone()))
    }

    async fn is_unchanged(&self, claim: &Claim) -> Result<bool, PlaceError> {
        let path = &claim.object.location;
        let now = found(self.store.head(path).await).map_err(|source| failed("can't look at", path, source))?;
        Ok(now.is_some_and(|now| Source::of(&claim.name, &now) == Source::of(&claim.name, &claim.object)))
    }

    async fn move_to(&self, claim: &Claim, folder: Folder, beside: Option<Beside>) -> Result<(), PlaceError> {
        self.moves().begin(Source::of(&claim.name, &claim.object), folder, beside).await
    }

    async fn claim_content(&self, sha256: &str) -> Result<Option<ContentClaim>, PlaceError> {
        let Some(lease) = self.leases.take(&format!("content-{sha256}")).await? else { return Ok(None) };
        let manifest = self.key(&format!("processed/.loaded/{sha256}"))?;
        let read = async { found(self.store.get(&manifest).await)?.map(|object| object.bytes()).map_or(Ok(None), |bytes| Ok(Some(bytes))) };
        let text = match read.await.map_err(|source| failed("can't read", &manifest, source))? {
            Some(bytes) => Some(bytes.await.map_err(|source| failed("can't read", &manifest, source))?),
            None => None,
        };
        let first = text.map(|text| String::from_utf8_lossy(&text).trim_end().to_owned());
        Ok(Some(ContentClaim { manifest, first, _lease: lease }))
    }

    fn loaded_as<'c>(&self, content: &'c ContentClaim) -> Option<&'c str> {
        content.first.as_deref()
    }

    async fn note_loaded(&self, content: &mut ContentClaim, name: &str) -> Result<(), PlaceError> {
        let written = self.store.put(&content.manifest, format!("{name}\n").into()).await;
        written.map(drop).map_err(|source| failed("can't write", &content.manifest, source))
    }

    async fn is_processed(&self, name: &str) -> Result<bool, PlaceError> {
        let path = self.key(&format!("processed/{name}"))?;
        Ok(found(self.store.head(&path).await).map_err(|source| failed("can't look at", &path, source))?.is_some())
    }

    fn rejects(&self, name: &str, sha256: &str) -> BucketRejects {
        BucketRejects::new(self.store.clone(), format!("{}rejected/", self.prefix), name, sha256)
    }
}
