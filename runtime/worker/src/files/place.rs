//! A place where files arrive: what the loader needs of one, be it a directory or a bucket.

use std::io::{self, Read, Seek};
use std::time::{Duration, SystemTime};

use tokio::task::JoinError;

use super::glob::Glob;

/// A file as it lies there at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// When it was changed last.
    pub modified: SystemTime,
    /// What else tells one version of it from another.
    pub tag: Option<String>,
}

/// Where files are moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// What was loaded.
    Processed,
    /// What can't be loaded.
    Rejected,
}

impl Folder {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Rejected => "rejected",
        }
    }
}

/// A text that is written beside a file that is moved, as `{name there}.{end}`.
#[derive(Clone, Debug)]
pub struct Beside {
    /// `reason.txt` or `note.txt`.
    pub end: &'static str,
    /// What is in it.
    pub text: String,
}

/// Whose a file is.
#[derive(Debug)]
pub enum Claimed<C> {
    /// This process's, as long as the claim lives.
    Ours(C),
    /// Another one's; or it is there no more.
    NotOurs,
    /// Nobody's: it was handled before, and only its move had been interrupted, which is now done.
    Settled,
}

/// Why a place can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A file can't be read, written or moved.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The object storage refuses or does not answer.
    #[error("{doing} the object {key}")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// The object's key, or the keys' beginning.
        key: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// There are too many files of that name.
    #[error("{folder} has too many files named {name}")]
    NoNameLeft {
        /// The folder.
        folder: String,
        /// The name.
        name: String,
    },
    /// A part of the work broke down.
    #[error("a part of the work broke down")]
    Task(#[from] JoinError),
}

/// A place where files arrive.
///
/// What holds whatever process is killed when:
///
/// - **Nothing is lost.** A file waits until it lies in `processed` or `rejected`, and nothing there is ever replaced by another file: the second
///   `sales.csv` becomes `sales.2.csv`. What is written beside a file is there before it is.
/// - **A move that was interrupted is finished** by whoever claims the file next, under the name that it had begun with; the file is not loaded
///   again for that.
/// - **One at a time.** A claim on a file, and one on a content, is held by one process at a time, and ends by itself where that process dies. In a
///   bucket this is a lease, which a process that stands still can outlive: nothing is done twice even then, because each record is written under
///   its own idempotency key, and each move under a name that it reserved.
/// - **What was loaded stays known**: a content under the name that it was loaded under first, by its sha256.
pub trait Place: Clone + Send + Sync + 'static {
    /// Keeps a file for this process.
    type Claim: Send + Sync + 'static;
    /// Keeps a content for this process.
    type ContentClaim: Send + 'static;
    /// A claimed file, read from its beginning by a thread that may block. It gives the version that was claimed, or fails.
    type File: Read + Seek + 'static;
    /// The reject file of a file.
    type Rejects: RejectFile;

    /// What it is, for people.
    fn describe(&self) -> String;

    /// How much time lies between two looks at the least.
    fn poll_interval(&self) -> Duration;

    /// The files that wait and are meant, the oldest first; of very many, some. Hidden ones and those whose names say that they are still being
    /// written are not among them.
    fn list(&self, pattern: &Glob) -> impl Future<Output = Result<Vec<Candidate>, PlaceError>> + Send;

    /// The first and the last bytes of a file.
    fn ends(&self, candidate: &Candidate, head: usize, tail: usize) -> impl Future<Output = Result<(Vec<u8>, Vec<u8>), PlaceError>> + Send;

    /// Claims a file.
    fn claim(&self, candidate: &Candidate) -> impl Future<Output = Result<Claimed<Self::Claim>, PlaceError>> + Send;

    /// Opens a claimed file; called where blocking is allowed.
    ///
    /// # Errors
    /// When it can't be opened.
    fn open(&self, claim: &Self::Claim) -> io::Result<Self::File>;

    /// Whether a claimed file is what it was when it was claimed.
    fn is_unchanged(&self, claim: &Self::Claim) -> impl Future<Output = Result<bool, PlaceError>> + Send;

    /// Moves a claimed file into a folder, never over another one. It waits no more then.
    fn move_to(&self, claim: &Self::Claim, folder: Folder, beside: Option<Beside>) -> impl Future<Output = Result<(), PlaceError>> + Send;

    /// Claims a content, so that two files with the same one are loaded one after the other; `None` where another one is loaded now.
    fn claim_content(&self, sha256: &str) -> impl Future<Output = Result<Option<Self::ContentClaim>, PlaceError>> + Send;

    /// The name under which the content was loaded first, where it was.
    fn loaded_as<'c>(&self, content: &'c Self::ContentClaim) -> Option<&'c str>;

    /// Notes that the content was loaded under this name.
    fn note_loaded(&self, content: &mut Self::ContentClaim, name: &str) -> impl Future<Output = Result<(), PlaceError>> + Send;

    /// Whether `processed` has a file of this name.
    fn is_processed(&self, name: &str) -> impl Future<Output = Result<bool, PlaceError>> + Send;

    /// The reject file of a file with that content, with nothing in it.
    fn rejects(&self, name: &str, sha256: &str) -> Self::Rejects;
}

/// A reject file: it is seen by nobody before it is whole. Begun again for the same content, it replaces its former self.
pub trait RejectFile: Send + 'static {
    /// Writes on.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), PlaceError>> + Send;

    /// Publishes it as `{name}.rejects.csv` in `rejected`, or as `{name}.2.rejects.csv` and so on where that is another one.
    fn publish(self) -> impl Future<Output = Result<(), PlaceError>> + Send;

    /// Throws it away.
    fn discard(self) -> impl Future<Output = ()> + Send;
}

/// `sales.csv`, `sales.2.csv`, `sales.3.csv`, …
pub fn names_like(name: &str) -> impl Iterator<Item = String> {
    let (stem, end) = match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    };
    (1..100_000).map(move |number| if number == 1 { format!("{stem}{end}") } else { format!("{stem}.{number}{end}") })
}

/// `sales.csv.rejects.csv`, `sales.csv.2.rejects.csv`, …
pub fn reject_names(name: &str) -> impl Iterator<Item = String> {
    (1..100_000).map(move |number| if number == 1 { format!("{name}.rejects.csv") } else { format!("{name}.{number}.rejects.csv") })
}
