//! The directory of a files trigger: what waits in it, and the folders `processed` and `rejected` beside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::glob::Glob;

// A trailer is looked for in this many bytes at the end.
const TAIL: u64 = 4096;

/// The directory and its folders.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

/// A file as it lies there at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// When it was changed last.
    pub modified: SystemTime,
}

/// A file that only this process handles, as long as this lives.
#[derive(Debug)]
pub struct Claim {
    file: File,
}

impl Directory {
    /// Opens the directory; it and its folders are made where they are not there.
    ///
    /// # Errors
    /// When they can't be made.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        let directory = Self { root };
        fs::create_dir_all(directory.folder("processed").join(".loaded"))?;
        fs::create_dir_all(directory.folder("rejected"))?;
        Ok(directory)
    }

    /// The directory's own path.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Where a file lies.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// `processed` or `rejected`.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The files that wait, the oldest first. Hidden files and those that copying programs write under another name first (`.tmp`, `.part`,
    /// `.filepart`) are passed over.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn scan(&self, pattern: &Glob) -> io::Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let unfinished = [".tmp", ".part", ".filepart"].iter().any(|end| name.ends_with(end));
            if name.starts_with('.') || unfinished || !pattern.matches(&name) {
                continue;
            }
            // It may have been moved in the meantime.
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            if metadata.is_file() {
                candidates.push(Candidate { name, length: metadata.len(), modified: metadata.modified()? });
            }
        }
        candidates.sort_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
        Ok(candidates)
    }

    /// The last bytes of a file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn tail(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path_of(name))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail)?;
        Ok(tail)
    }

    /// Claims a file; `None` where another process has it, or it is there no more.
    ///
    /// # Errors
    /// When it can't be opened or locked.
    pub fn claim(&self, name: &str) -> io::Result<Option<Claim>> {
        let file = match File::open(self.path_of(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let claim = Claim { file };
        // Another one may have handled and moved it between opening and locking.
        Ok(claim.is_at(&self.path_of(name))?.then_some(claim))
    }

    /// Moves a file into `processed` or `rejected`, never over another one; gives the name it has there.
    ///
    /// # Errors
    /// When it can't be moved.
    pub fn move_to(&self, folder: &str, name: &str) -> io::Result<String> {
        let folder = self.folder(folder);
        let free = free_name(&folder, name)?;
        fs::rename(self.path_of(name), folder.join(&free))?;
        sync_folder(&folder)?;
        sync_folder(&self.root)?;
        Ok(free)
    }

    /// Rejects a file as a whole: moves it into `rejected`, with the reason beside it in `{name}.reason.txt`.
    ///
    /// # Errors
    /// When it can't be moved or the reason can't be written.
    pub fn reject(&self, name: &str, reason: &str) -> io::Result<()> {
        let folder = self.folder("rejected");
        let free = free_name(&folder, name)?;
        // The reason comes first: a file is never rejected without one. Interrupted here, the same reason is written over it.
        write_whole(&folder.join(format!("{free}.reason.txt")), format!("{reason}\n").as_bytes())?;
        self.move_to("rejected", name).map(drop)
    }

    /// Writes a note beside a processed file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn note(&self, moved: &str, note: &str) -> io::Result<()> {
        write_whole(&self.folder("processed").join(format!("{moved}.note.txt")), format!("{note}\n").as_bytes())
    }

    /// Claims a content, so that two files with the same one are loaded one after the other; `None` where another one is loaded now.
    ///
    /// # Errors
    /// When it can't be noted in `processed/.loaded`.
    pub fn claim_content(&self, sha256: &str) -> io::Result<Option<ContentClaim>> {
        let path = self.folder("processed").join(".loaded").join(sha256);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A line that is not whole was interrupted: as if it had not been written.
        let first = text.strip_suffix('\n').map(str::to_owned);
        Ok(Some(ContentClaim { file, first }))
    }

    /// Whether `processed` has a file of this name.
    pub fn is_processed(&self, name: &str) -> bool {
        self.folder("processed").join(name).exists()
    }
}

/// A content that only this process loads, as long as this lives; its file in `processed/.loaded` keeps the name under which it was loaded first.
#[derive(Debug)]
pub struct ContentClaim {
    file: File,
    first: Option<String>,
}

impl ContentClaim {
    /// The name under which the content was loaded first, where it was.
    pub fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// Notes that the content was loaded under this name.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn note_loaded(&mut self, name: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(format!("{name}\n").as_bytes())?;
        self.file.sync_all()
    }
}

impl Claim {
    /// A further handle on the claimed file, at its beginning.
    ///
    /// # Errors
    /// When the path leads elsewhere by now.
    pub fn reopen(&self, path: &Path) -> io::Result<File> {
        let file = File::open(path)?;
        let (own, other) = (self.file.metadata()?, file.metadata()?);
        if (own.dev(), own.ino()) != (other.dev(), other.ino()) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was replaced by another one"));
        }
        Ok(file)
    }

    /// The file's length and time of change, to see whether it was changed.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn state(&self) -> io::Result<(u64, SystemTime)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.len(), metadata.modified()?))
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        match self.reopen(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// `sales.csv`, or the first of `sales.2.csv`, `sales.3.csv`, … that is not in the folder. Only the holder of a file's claim moves it, so
/// nobody takes the name in between.
fn free_name(folder: &Path, name: &str) -> io::Result<String> {
    let (stem, end) = match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    };
    for number in 1..100_000 {
        let candidate = if number == 1 { name.to_owned() } else { format!("{stem}.{number}{end}") };
        if !folder.join(&candidate).try_exists()? {
            return Ok(candidate);
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} has too many files named {name}", folder.display())))
}

/// Publishes a finished temporary file under a name of its own in its folder: the name wanted, where that is free or has the very same content
/// (then this is the second attempt of an interrupted one).
///
/// # Errors
/// When it can't be renamed.
pub fn publish(temporary: &Path, folder: &Path, name: &str, end: &str) -> io::Result<String> {
    for number in 1..100_000 {
        let candidate = if number == 1 { format!("{name}{end}") } else { format!("{name}.{number}{end}") };
        let target = folder.join(&candidate);
        if target.try_exists()? && !same_content(temporary, &target)? {
            continue;
        }
        fs::rename(temporary, &target)?;
        sync_folder(folder)?;
        return Ok(candidate);
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} has too many files named {name}{end}", folder.display())))
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

    #[test]
    fn nothing_is_overwritten_and_claims_are_exclusive() {
        let folder = tempfile::tempdir().expect("folder");
        let directory = Directory::open(folder.path().join("in")).expect("open");
        for (index, moved) in ["a.csv", "a.2.csv", "a.3.csv"].iter().enumerate() {
            fs::write(directory.path_of("a.csv"), index.to_string()).expect("write");
            assert_eq!(&directory.move_to("processed", "a.csv").expect("move"), moved);
        }
        fs::write(directory.path_of("b.csv"), "b").expect("write");
        let claim = directory.claim("b.csv").expect("claim").expect("free");
        assert!(directory.claim("b.csv").expect("claim").is_none());
        drop(claim);
        assert!(directory.claim("b.csv").expect("claim").is_some());
        assert!(directory.claim("gone.csv").expect("claim").is_none());
        directory.reject("b.csv", "why").expect("reject");
        assert_eq!(fs::read_to_string(directory.folder("rejected").join("b.csv.reason.txt")).expect("reason"), "why\n");
        let mut content = directory.claim_content("hash").expect("claim").expect("free");
        assert_eq!(content.first(), None);
        assert!(directory.claim_content("hash").expect("claim").is_none());
        content.note_loaded("a.csv").expect("noted");
        drop(content);
        assert_eq!(directory.claim_content("hash").expect("claim").expect("free").first(), Some("a.csv"));
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
            publish(&temporary, folder.path(), "a.csv", ".rejects.csv").expect("publish")
        };
        assert_eq!(publish_text("x"), "a.csv.rejects.csv");
        assert_eq!(publish_text("x"), "a.csv.rejects.csv");
        assert_eq!(publish_text("y"), "a.csv.2.rejects.csv");
    }
}
