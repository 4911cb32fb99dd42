//! Moving objects: a copy, then a deletion. A reservation tells of it meanwhile: which object goes where. It keeps the name there, and whoever comes
//! after a crash finishes the move by it; without it, an object that lies in both places could not be told from a second one.

use futures::TryStreamExt;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};

use super::super::place::{Beside, Folder, PlaceError, names_like};
use super::{failed, found, path};

/// The moves of a bucket.
pub struct Moves<'a> {
    pub store: &'a AmazonS3,
    pub prefix: &'a str,
}

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    name: String,
    modified: String,
    length: u64,
    tag: Option<String>,
}

impl Source {
    /// That version.
    pub fn of(name: &str, object: &ObjectMeta) -> Self {
        Self { name: name.to_owned(), modified: object.last_modified.to_rfc3339(), length: object.size, tag: object.e_tag.clone() }
    }
}

// What a reservation says; its own key ends with `{folder}/{name there}`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reservation {
    source: Source,
    to: String,
}

impl Moves<'_> {
    /// Moves an object; what is beside it is there first.
    ///
    /// # Errors
    /// When the bucket refuses or does not answer; whoever claims the object next goes on.
    pub async fn begin(&self, source: Source, folder: Folder, beside: Option<Beside>) -> Result<(), PlaceError> {
        let (key, to) = self.reserve(&source, folder).await?;
        if let Some(beside) = beside {
            let path = self.key(&format!("{to}.{}", beside.end))?;
            let written = self.store.put(&path, format!("{}\n", beside.text).into()).await;
            written.map_err(|source| failed("can't write", &path, source))?;
        }
        self.finish(&key, &Reservation { source, to }).await
    }

    // A name that nothing has and nobody else has reserved.
    pub(super) async fn reserve(&self, source: &Source, folder: Folder) -> Result<(Path, String), PlaceError> {
        for name in names_like(&source.name) {
            let to = format!("{}/{name}", folder.name());
            if self.look(&self.key(&to)?).await?.is_some() {
                continue;
            }
            let key = self.key(&format!("processed/.moves/{to}"))?;
            let reservation = Reservation { source: source.clone(), to: to.clone() };
            let text = serde_json::to_vec(&reservation).map_err(|error| PlaceError::Io(error.into()))?;
            match self.store.put_opts(&key, text.into(), PutOptions::from(PutMode::Create)).await {
                Ok(_) => return Ok((key, to)),
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(failed("can't write", &key, error)),
            }
        }
        Err(PlaceError::NoNameLeft { folder: folder.name().to_owned(), name: source.name.clone() })
    }

    async fn finish(&self, key: &Path, reservation: &Reservation) -> Result<(), PlaceError> {
        let (from, to) = (self.key(&reservation.source.name)?, self.key(&reservation.to)?);
        // An object that came under that name meanwhile is another one, and waits.
        if self.is_there(&reservation.source).await? {
            self.store.copy(&from, &to).await.map_err(|source| failed("can't copy", &from, source))?;
            if self.is_there(&reservation.source).await? {
                self.delete(&from).await?;
            }
        }
        self.delete(key).await
    }

    /// Finishes a move of that object that was interrupted; false where there is none.
    ///
    /// # Errors
    /// When the bucket refuses or does not answer.
    pub async fn finish_interrupted(&self, source: &Source) -> Result<bool, PlaceError> {
        for (key, reservation) in self.all().await? {
            if reservation.source == *source {
                tracing::info!(file = source.name, to = reservation.to, "an interrupted move is finished");
                self.finish(&key, &reservation).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes reservations away whose objects are moved.
    ///
    /// # Errors
    /// When the bucket refuses or does not answer.
    pub async fn tidy(&self) -> Result<(), PlaceError> {
        for (key, reservation) in self.all().await? {
            if !self.is_there(&reservation.source).await? {
                self.delete(&key).await?;
            }
        }
        Ok(())
    }

    // There are as many as files are being moved, and as were when a process was killed.
    pub(super) async fn all(&self) -> Result<Vec<(Path, Reservation)>, PlaceError> {
        let prefix = self.key("processed/.moves")?;
        let listed: Vec<ObjectMeta> =
            self.store.list(Some(&prefix)).try_collect().await.map_err(|source| failed("can't list", &prefix, source))?;
        let mut all = Vec::with_capacity(listed.len());
        for ObjectMeta { location, .. } in listed {
            let read = async {
                match found(self.store.get(&location).await)? {
                    Some(object) => object.bytes().await.map(Some),
                    None => Ok(None),
                }
            };
            // One that is gone was finished meanwhile.
            let Some(text) = read.await.map_err(|source| failed("can't read", &location, source))? else { continue };
            let reservation = serde_json::from_slice(&text).map_err(|error| PlaceError::Io(error.into()))?;
            all.push((location, reservation));
        }
        Ok(all)
    }

    async fn is_there(&self, source: &Source) -> Result<bool, PlaceError> {
        let object = self.look(&self.key(&source.name)?).await?;
        Ok(object.is_some_and(|object| Source::of(&source.name, &object) == *source))
    }

    async fn look(&self, path: &Path) -> Result<Option<ObjectMeta>, PlaceError> {
        found(self.store.head(path).await).map_err(|source| failed("can't look at", path, source))
    }

    async fn delete(&self, path: &Path) -> Result<(), PlaceError> {
        found(self.store.delete(path).await).map(drop).map_err(|source| failed("can't delete", path, source))
    }

    fn key(&self, name: &str) -> Result<Path, PlaceError> {
        path(format!("{}{name}", self.prefix))
    }
}
