//! The reject file in a bucket: uploaded in parts while it is written, and there as a whole or not at all.

use std::sync::Arc;

use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{Attribute, AttributeValue, Attributes, GetOptions, ObjectStore};
use tokio::io::AsyncWriteExt;

use super::super::place::{PlaceError, RejectFile, reject_names};
use super::{failed, found, path};

// The least that a part but the last must have.
const PART: usize = 5 << 20;
const UPLOADS: usize = 2;
// The object's metadata tell the sha256 of the content that was loaded.
const CONTENT: &str = "autonomy-content";

/// Gathers rejects; nothing is begun before the first.
pub struct BucketRejects {
    target: Target,
    upload: Option<(Path, BufWriter)>,
}

// Where they go, and what they are of.
struct Target {
    store: Arc<AmazonS3>,
    folder: String,
    name: String,
    sha256: String,
}

impl BucketRejects {
    /// None so far.
    pub fn new(store: Arc<AmazonS3>, folder: String, name: &str, sha256: &str) -> Self {
        Self { target: Target { store, folder, name: name.to_owned(), sha256: sha256.to_owned() }, upload: None }
    }
}

impl Target {
    async fn begin(&self) -> Result<(Path, BufWriter), PlaceError> {
        let path = self.free_path().await?;
        let attributes = Attributes::from_iter([(Attribute::Metadata(CONTENT.into()), AttributeValue::from(self.sha256.clone()))]);
        let upload = BufWriter::with_capacity(self.store.clone(), path.clone(), PART).with_max_concurrency(UPLOADS);
        Ok((path, upload.with_attributes(attributes)))
    }

    // Free, or that of an earlier attempt at the same content.
    async fn free_path(&self) -> Result<Path, PlaceError> {
        for name in reject_names(&self.name) {
            let path = path(format!("{}{name}", self.folder))?;
            let options = GetOptions { head: true, ..GetOptions::default() };
            let there = found(self.store.get_opts(&path, options).await).map_err(|source| failed("can't look at", &path, source))?;
            let Some(there) = there else { return Ok(path) };
            if there.attributes.get(&Attribute::Metadata(CONTENT.into())).is_some_and(|sha256| **sha256 == *self.sha256) {
                return Ok(path);
            }
        }
        Err(PlaceError::NoNameLeft { folder: self.folder.clone(), name: self.name.clone() })
    }
}

impl RejectFile for BucketRejects {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), PlaceError> {
        if self.upload.is_none() {
            self.upload = Some(self.target.begin().await?);
        }
        let Some((path, upload)) = &mut self.upload else { return Ok(()) };
        upload.put(Bytes::copy_from_slice(bytes)).await.map_err(|source| failed("can't write", path, source))
    }

    async fn publish(self) -> Result<(), PlaceError> {
        let Some((_, mut upload)) = self.upload else { return Ok(()) };
        Ok(upload.shutdown().await?)
    }

    async fn discard(self) {
        if let Some((path, mut upload)) = self.upload
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(object = %path, %error, "an upload can't be ended; it is not seen");
        }
    }
}
