//! A directory as a place of files, with the folders `processed` and `rejected` beside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::glob::Glob;
use super::place::{Beside, Candidate, Claimed, Folder, Place, PlaceError, RejectFile, names_like, reject_names};

const LOADED: &str = ".loaded";

/// The directory and its folders. Claims are locks of the operating system on the files themselves, which end with the process.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

/// A file that only this process handles, as long as this lives.
#[derive(Debug)]
pub struct Claim {
    file: File,
    name: String,
    state: (u64, SystemTime),
}

/// A content that only this process loads, as long as this lives; its file in `processed/.loaded` keeps the name under which it was loaded first.
#[derive(Debug)]
pub struct ContentClaim {
    file: File,
    first: Option<String>,
}

impl Directory {
    /// Opens the directory; it and its folders are made where they are not there.
    ///
    /// # Errors
    /// When they can't be made.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        let directory = Self { root };
        fs::create_dir_all(directory.folder(Folder::Processed).join(LOADED))?;
        fs::create_dir_all(directory.folder(Folder::Rejected))?;
        Ok(directory)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn folder(&self, folder: Folder) -> PathBuf {
        self.root.join(folder.name())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> Result<T, PlaceError> + Send + 'static,
    ) -> Result<T, PlaceError> {
        let directory = self.clone();
        tokio::task::spawn_blocking(move || work(directory)).await?
    }

    fn scan(&self, pattern: &Glob) -> Result<Vec<Candidate>, PlaceError> {
        let mut candidates = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if !pattern.takes(&name) {
                continue;
            }
            // It may have been moved in the meantime.
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            if metadata.is_file() {
                candidates.push(Candidate { name, length: metadata.len(), modified: metadata.modified()?, tag: None });
            }
        }
        candidates.sort_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
        Ok(candidates)
    }

    fn try_claim(&self, name: String) -> Result<Claimed<Claim>, PlaceError> {
        let file = match File::open(self.path_of(&name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Claimed::NotOurs),
            Err(error) => return Err(error.into()),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Claimed::NotOurs),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let state = state(&file)?;
        let claim = Claim { file, name, state };
        // Another one may have handled and moved it between opening and locking.
        match claim.reopen(&self.root) {
            Ok(_) => Ok(Claimed::Ours(claim)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Claimed::NotOurs),
            Err(error) => Err(error.into()),
        }
    }

    // Only the holder of a file's claim moves it, so nobody takes the name in between.
    fn free_name(&self, folder: Folder, name: &str) -> Result<String, PlaceError> {
        let path = self.folder(folder);
        for candidate in names_like(name) {
            if !path.join(&candidate).try_exists()? {
                return Ok(candidate);
            }
        }
        Err(PlaceError::NoNameLeft { folder: path.display().to_string(), name: name.to_owned() })
    }

    fn rename_to(&self, folder: Folder, name: &str, beside: Option<&Beside>) -> Result<String, PlaceError> {
        let path = self.folder(folder);
        let free = self.free_name(folder, name)?;
        if let Some(beside) = beside {
            // Interrupted behind this, the same is written over it.
            write_whole(&path.join(format!("{free}.{}", beside.end)), format!("{}\n", beside.text).as_bytes())?;
        }
        fs::rename(self.path_of(name), path.join(&free))?;
        sync_folder(&path)?;
        sync_folder(&self.root)?;
        Ok(free)
    }

    fn try_claim_content(&self, sha256: &str) -> Result<Option<ContentClaim>, PlaceError> {
        let path = self.folder(Folder::Processed).join(LOADED).join(sha256);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A line that is not whole was interrupted: as if it had not been written.
        let first = text.strip_suffix('\n').map(str::to_owned);
        Ok(Some(ContentClaim { file, first }))
    }
}

impl Place for Directory {
    type Claim = Claim;
    type ContentClaim = ContentClaim;
    type File = File;
    type Rejects = DirectoryRejects;

    fn describe(&self) -> String {
        format!("the directory {}", self.root.display())
    }

    fn poll_interval(&self) -> Duration {
        Duration::ZERO
    }

    async fn list(&self, pattern: &Glob) -> Result<Vec<Candidate>, PlaceError> {
        let pattern = pattern.clone();
        self.blocking(move |directory| directory.scan(&pattern)).await
    }

    async fn ends(&self, candidate: &Candidate, head: usize, tail: usize) -> Result<(Vec<u8>, Vec<u8>), PlaceError> {
        let name = candidate.name.clone();
        let ends = move |directory: Self| {
            let mut file = File::open(directory.path_of(&name))?;
            let mut first = Vec::with_capacity(head);
            (&mut file).take(head as u64).read_to_end(&mut first)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(tail as u64)))?;
            let mut last = Vec::new();
            file.take(tail as u64).read_to_end(&mut last)?;
            Ok((first, last))
        };
        self.blocking(ends).await
    }

    async fn claim(&self, candidate: &Candidate) -> Result<Claimed<Claim>, PlaceError> {
        let name = candidate.name.clone();
        self.blocking(move |directory| directory.try_claim(name)).await
    }

    fn open(&self, claim: &Claim) -> io::Result<File> {
        claim.reopen(&self.root)
    }

    async fn is_unchanged(&self, claim: &Claim) -> Result<bool, PlaceError> {
        Ok(state(&claim.file)? == claim.state)
    }

    async fn move_to(&self, claim: &Claim, folder: Folder, beside: Option<Beside>) -> Result<(), PlaceError> {
        let name = claim.name.clone();
        self.blocking(move |directory| directory.rename_to(folder, &name, beside.as_ref()).map(drop)).await
    }

    async fn claim_content(&self, sha256: &str) -> Result<Option<ContentClaim>, PlaceError> {
        let sha256 = sha256.to_owned();
        self.blocking(move |directory| directory.try_claim_content(&sha256)).await
    }

    fn loaded_as<'c>(&self, content: &'c ContentClaim) -> Option<&'c str> {
        content.first.as_deref()
    }

    async fn note_loaded(&self, content: &mut ContentClaim, name: &str) -> Result<(), PlaceError> {
        content.file.set_len(0)?;
        content.file.rewind()?;
        content.file.write_all(format!("{name}\n").as_bytes())?;
        Ok(content.file.sync_all()?)
    }

    async fn is_processed(&self, name: &str) -> Result<bool, PlaceError> {
        Ok(self.folder(Folder::Processed).join(name).try_exists()?)
    }

    fn rejects(&self, name: &str, sha256: &str) -> DirectoryRejects {
        let folder = self.folder(Folder::Rejected);
        let temporary = folder.join(format!(".{name}.{}.rejects.tmp", &sha256[..sha256.len().min(16)]));
        DirectoryRejects { folder, temporary, name: name.to_owned(), writer: None }
    }
}

impl Claim {
    // A further handle on the claimed file, at its beginning; an error where the path leads elsewhere by now.
    fn reopen(&self, root: &Path) -> io::Result<File> {
        let file = File::open(root.join(&self.name))?;
        let (own, other) = (self.file.metadata()?, file.metadata()?);
        if (own.dev(), own.ino()) != (other.dev(), other.ino()) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was replaced by another one"));
        }
        Ok(file)
    }
}

fn state(file: &File) -> io::Result<(u64, SystemTime)> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.modified()?))
}

/// A reject file that is written aside. A restart begins it anew: the file is read again from its first row, so the rejects are whole again.
#[derive(Debug)]
pub struct DirectoryRejects {
    folder: PathBuf,
    temporary: PathBuf,
    name: String,
    writer: Option<BufWriter<File>>,
}

impl RejectFile for DirectoryRejects {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), PlaceError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(BufWriter::new(File::create(&self.temporary)?)),
        };
        Ok(writer.write_all(bytes)?)
    }

    async fn publish(self) -> Result<(), PlaceError> {
        let Some(writer) = self.writer else { return Ok(()) };
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        publish(&self.temporary, &self.folder, &self.name).map(drop)
    }

    async fn discard(self) {
        if self.writer.is_some() {
            // A leftover is hidden, and begun anew the next time.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

// Under a name that is free or has the very same content: then this is the second attempt of an interrupted one.
fn publish(temporary: &Path, folder: &Path, name: &str) -> Result<String, PlaceError> {
    for candidate in reject_names(name) {
        let target = folder.join(&candidate);
        if target.try_exists()? && !same_content(temporary, &target)? {
            continue;
        }
        fs::rename(temporary, &target)?;
        sync_folder(folder)?;
        return Ok(candidate);
    }
    Err(PlaceError::NoNameLeft { folder: folder.display().to_string(), name: name.to_owned() })
}

fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    if fs::metadata(one)?.len() != fs::metadata(other)?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (io::BufReader::new(File::open(one)?), io::BufReader::new(File::open(other)?));
    let (mut a, mut b) = ([0; 8192], [0; 8192]);
    loop {
        let read = one.read(&mut a)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut b[..read])?;
        if a[..read] != b[..read] {
            return Ok(false);
        }
    }
}

// Whole or not at all.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(directory: &Directory, name: &str) -> Option<Claim> {
        match directory.try_claim(name.to_owned()).expect("claim") {
            Claimed::Ours(claim) => Some(claim),
            _ => None,
        }
    }

    #[tokio::test]
    async fn nothing_is_overwritten_and_claims_are_exclusive() {
        let folder = tempfile::tempdir().expect("folder");
        let directory = Directory::open(folder.path().join("in")).expect("open");
        for (index, moved) in ["a.csv", "a.2.csv", "a.3.csv"].iter().enumerate() {
            fs::write(directory.path_of("a.csv"), index.to_string()).expect("write");
            assert_eq!(&directory.rename_to(Folder::Processed, "a.csv", None).expect("move"), moved);
        }
        fs::write(directory.path_of("b.csv"), "b").expect("write");
        let claim = claimed(&directory, "b.csv").expect("free");
        assert!(claimed(&directory, "b.csv").is_none() && claimed(&directory, "gone.csv").is_none());
        let beside = Beside { end: "reason.txt", text: "why".to_owned() };
        directory.move_to(&claim, Folder::Rejected, Some(beside)).await.expect("move");
        assert_eq!(fs::read_to_string(directory.folder(Folder::Rejected).join("b.csv.reason.txt")).expect("reason"), "why\n");
        let mut content = directory.claim_content("hash").await.expect("claim").expect("free");
        assert_eq!(directory.loaded_as(&content), None);
        assert!(directory.claim_content("hash").await.expect("claim").is_none());
        directory.note_loaded(&mut content, "a.csv").await.expect("noted");
        drop(content);
        let content = directory.claim_content("hash").await.expect("claim").expect("free");
        assert_eq!(directory.loaded_as(&content), Some("a.csv"));
        fs::write(directory.path_of(".hidden.csv"), "").expect("write");
        fs::write(directory.path_of("c.csv.tmp"), "").expect("write");
        assert_eq!(directory.scan(&Glob::new("*").expect("glob")).expect("scan"), []);
    }

    #[test]
    fn an_interrupted_publication_is_not_doubled() {
        let folder = tempfile::tempdir().expect("folder");
        let temporary = folder.path().join(".t");
        let publish_text = |text: &str| {
            fs::write(&temporary, text).expect("write");
            publish(&temporary, folder.path(), "a.csv").expect("publish")
        };
        assert_eq!(publish_text("x"), "a.csv.rejects.csv");
        assert_eq!(publish_text("x"), "a.csv.rejects.csv");
        assert_eq!(publish_text("y"), "a.csv.2.rejects.csv");
    }
}
