//! Loading one file: read once to know its content (hash, header, trailer), and once more to load its records.
//!
//! Each record is a transaction unit of its own with the key `{service}/{sha256 of the file}/{record number}`. Units travel together in requests
//! and the API applies them set-wise; a bad one undoes itself alone, and a content that comes again has no effect, whatever its name and
//! wherever a crash interrupted it: reading then begins at the first row, and what was written before is only replayed.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::directory::{Claim, ContentClaim, Directory};
use super::metrics::Metrics;
use super::records::{FileError, Format, MAX_BYTES, MAX_ROWS, Record, RecordReader, row_value};
use super::rejects::{Reject, Rejects};
use crate::expression::{Shape, Value};
use crate::steps::{self, Failure, Input, Lookups, RecordInput};
use crate::transactions::{SubmitError, Unit};
use crate::worker::Context;

// Chunks of a file that are worked on at a time; twice as many again wait to be.
const CHUNKS: usize = 3;
const CHUNK_BYTES: usize = 4 << 20;
// Something that the API refuses but that may pass (an object referred to is not there) is tried this often.
const REFUSED_ATTEMPTS: u32 = 4;
const REFUSED_BACKOFF: Duration = Duration::from_millis(500);

/// Loads files.
pub struct Loader {
    /// What the worker has.
    pub context: Context,
    /// The trigger's directory.
    pub directory: Directory,
    /// How its files are written.
    pub format: Format,
    /// Records in a chunk.
    pub records_per_request: usize,
    /// The service's caches.
    pub lookups: Arc<dyn Lookups>,
    /// Counts.
    pub metrics: Metrics,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It was handled and moved.
    Done,
    /// Another process has it, or it is there no more.
    NotOurs,
    /// The worker stops; it is loaded from its beginning next time.
    Stopped,
}

/// Why a file could not be handled; it stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It can't be read, written or moved.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A part of the work broke down.
    #[error("a part of the work broke down")]
    Task(#[from] JoinError),
}

#[derive(Debug)]
struct Content {
    sha256: String,
    records: u64,
}

#[derive(Debug, Default)]
struct Tally {
    loaded: u64,
    replayed: u64,
    rejected: u64,
}

// What the records of a file have alike.
struct FileLoad {
    context: Context,
    lookups: Arc<dyn Lookups>,
    shape: Arc<Shape>,
    sha256: String,
    file: Value,
}

enum RecordOutcome {
    Loaded,
    Replayed,
    Rejected(Vec<Reject>),
    Stopped,
}

impl Loader {
    /// Handles a file that has settled.
    ///
    /// # Errors
    /// When it can't be read, written or moved.
    pub async fn load(&self, name: &str) -> Result<Loaded, LoadError> {
        let Some(claim) = self.blocking(name, |directory, name| directory.claim(&name)).await? else { return Ok(Loaded::NotOurs) };
        let claim = Arc::new(claim);
        let state = claim.state()?;
        let path = self.directory.path_of(name);
        let content = match self.examine(&claim, path.clone()).await? {
            Ok(content) => content,
            Err(reason) => {
                self.reject(name, reason).await?;
                return Ok(Loaded::Done);
            }
        };
        let sha256 = content.sha256.clone();
        let Some(content_claim) = self.blocking(name, move |directory, _| directory.claim_content(&sha256)).await? else {
            return Ok(Loaded::NotOurs);
        };
        tracing::info!(file = name, sha256 = content.sha256, records = content.records, "loading a file");
        let mut rejects = Rejects::new(&self.directory, name, &content.sha256);
        let tally = match self.load_records(&claim, path, name, &content, &mut rejects).await? {
            Ok(Some(tally)) => tally,
            Ok(None) => {
                rejects.discard();
                return Ok(Loaded::Stopped);
            }
            Err(reason) => {
                rejects.publish(name)?;
                self.reject(name, reason).await?;
                return Ok(Loaded::Done);
            }
        };
        if claim.state()? != state {
            let reason = "the file was changed while it was loaded; records that were good before are loaded".to_owned();
            rejects.publish(name)?;
            self.reject(name, reason).await?;
            return Ok(Loaded::Done);
        }
        self.finish(name, content_claim, tally, rejects).await?;
        drop(claim);
        Ok(Loaded::Done)
    }

    // The content's hash, and whether the whole of it can be loaded; the inner error is the reason for rejecting the file.
    async fn examine(&self, claim: &Arc<Claim>, path: PathBuf) -> Result<Result<Content, String>, LoadError> {
        let (claim, format) = (claim.clone(), self.format.clone());
        let examined = tokio::task::spawn_blocking(move || -> Result<Content, FileError> {
            let file = Hashing { file: claim.reopen(&path)?, hash: Sha256::new() };
            let mut reader = BufReader::with_capacity(1 << 16, file);
            let mut records = RecordReader::open(&mut reader, &format)?;
            let mut count = 0;
            while records.next_record()?.is_some() {
                count += 1;
            }
            drop(records);
            // What stands behind the last row belongs to the content too.
            io::copy(&mut reader, &mut io::sink())?;
            let sha256 = crate::expression::functions::hex(&reader.into_inner().hash.finalize());
            Ok(Content { sha256, records: count })
        });
        match examined.await? {
            Ok(content) => Ok(Ok(content)),
            Err(FileError::Wrong(reason)) => Ok(Err(reason)),
            Err(FileError::Io(error)) => Err(error.into()),
        }
    }

    // Loads all records; `None` when told to stop, the inner error where the file turned out wrong.
    async fn load_records(
        &self,
        claim: &Arc<Claim>,
        path: PathBuf,
        name: &str,
        content: &Content,
        rejects: &mut Rejects,
    ) -> Result<Result<Option<Tally>, String>, LoadError> {
        let (sender, mut chunks) = mpsc::channel::<Vec<Record>>(CHUNKS * 2);
        let file = claim.reopen(&path)?;
        let (format, most) = (self.format.clone(), self.records_per_request.max(1));
        let header = RecordReader::open(BufReader::new(claim.reopen(&path)?), &format);
        let shape = match header {
            Ok(header) => header.shape().clone(),
            Err(FileError::Wrong(reason)) => return Ok(Err(reason)),
            Err(FileError::Io(error)) => return Err(error.into()),
        };
        let reading = tokio::task::spawn_blocking(move || read_chunks(file, &format, most, &sender));
        let load = Arc::new(FileLoad {
            context: self.context.clone(),
            lookups: self.lookups.clone(),
            shape,
            sha256: content.sha256.clone(),
            file: Value::object([("name", Value::text(name)), ("sha256", Value::text(&content.sha256))]),
        });
        let mut tally = Tally::default();
        let mut running = FuturesOrdered::new();
        let mut more = true;
        while more || !running.is_empty() {
            tokio::select! {
                chunk = chunks.recv(), if more && running.len() < CHUNKS => match chunk {
                    Some(chunk) => running.push_back(tokio::spawn(load.clone().chunk(chunk))),
                    None => more = false,
                },
                // In order, so that the reject file is in the file's order and the same each time.
                Some(done) = running.next(), if !running.is_empty() => {
                    let Some(outcomes) = done? else { return Ok(Ok(None)) };
                    self.count(outcomes, &mut tally, rejects)?;
                }
            }
        }
        match reading.await? {
            Ok(()) => Ok(Ok(Some(tally))),
            Err(FileError::Wrong(reason)) => Ok(Err(format!("{reason}; records before that are loaded"))),
            Err(FileError::Io(error)) => Err(error.into()),
        }
    }

    fn count(&self, outcomes: Vec<RecordOutcome>, tally: &mut Tally, rejects: &mut Rejects) -> io::Result<()> {
        let mut chunk = Tally::default();
        for outcome in outcomes {
            match outcome {
                RecordOutcome::Loaded => chunk.loaded += 1,
                RecordOutcome::Replayed => chunk.replayed += 1,
                RecordOutcome::Rejected(rows) => {
                    chunk.rejected += 1;
                    rejects.add(&rows)?;
                }
                RecordOutcome::Stopped => {}
            }
        }
        self.metrics.records("loaded", chunk.loaded);
        self.metrics.records("replayed", chunk.replayed);
        tally.loaded += chunk.loaded;
        tally.replayed += chunk.replayed;
        tally.rejected += chunk.rejected;
        Ok(())
    }

    // Publishes the rejects, notes that the content was loaded, moves the file: in this order, so that an interruption leaves nothing out.
    async fn finish(&self, name: &str, mut content: ContentClaim, tally: Tally, rejects: Rejects) -> Result<(), LoadError> {
        let metrics = self.metrics.clone();
        self.blocking(name, move |directory, name| {
            let before = content.first().map(str::to_owned);
            // The first one's finish was interrupted between the note and the move, where its name is not in `processed`.
            let interrupted = before.as_ref().is_some_and(|first| *first == name && !directory.is_processed(&name));
            let repeated = before.is_some() && !interrupted && tally.loaded == 0;
            if repeated {
                let first = before.unwrap_or_default();
                rejects.discard();
                let moved = directory.move_to("processed", &name)?;
                directory.note(&moved, &format!("The same content was loaded before, as {first}. Nothing was written this time."))?;
                metrics.file("repeated");
                tracing::info!(file = name, first, "the content was loaded before");
                return Ok(());
            }
            let rows = rejects.count();
            rejects.publish(&name)?;
            content.note_loaded(&name)?;
            directory.move_to("processed", &name)?;
            metrics.records("rejected", tally.rejected);
            metrics.rejected_rows(rows);
            metrics.file("processed");
            let Tally { loaded, replayed, rejected } = tally;
            tracing::info!(file = name, loaded, replayed, rejected, rejected_rows = rows, "a file is loaded");
            Ok(())
        })
        .await
    }

    /// Whether the end of a file is as it should be; one that can't be read is looked at when it is loaded.
    pub fn format_ends(&self, name: &str) -> bool {
        !self.format.has_trailer() || self.directory.tail(name).is_ok_and(|tail| self.format.ends_whole(&tail))
    }

    /// Rejects a file that is not whole, unless another process has it.
    ///
    /// # Errors
    /// When it can't be moved.
    pub async fn reject_incomplete(&self, name: &str, reason: String) -> Result<Loaded, LoadError> {
        let claim = self.blocking(name, |directory, name| directory.claim(&name)).await?;
        if claim.is_none() {
            return Ok(Loaded::NotOurs);
        }
        self.reject(name, reason).await?;
        Ok(Loaded::Done)
    }

    /// Rejects a file as a whole.
    ///
    /// # Errors
    /// When it can't be moved.
    pub async fn reject(&self, name: &str, reason: String) -> Result<(), LoadError> {
        tracing::warn!(file = name, reason, "a file is rejected");
        self.blocking(name, move |directory, name| directory.reject(&name, &reason)).await?;
        self.metrics.file("rejected");
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(Directory, String) -> io::Result<T> + Send + 'static,
    ) -> Result<T, LoadError> {
        let (directory, name) = (self.directory.clone(), name.to_owned());
        Ok(tokio::task::spawn_blocking(move || work(directory, name)).await??)
    }
}

// Reads records into chunks until the receiver is gone.
fn read_chunks(file: File, format: &Format, most: usize, sender: &mpsc::Sender<Vec<Record>>) -> Result<(), FileError> {
    let mut records = RecordReader::open(BufReader::with_capacity(1 << 16, file), format)?;
    let mut chunk = Vec::with_capacity(most);
    let mut bytes = 0;
    while let Some(record) = records.next_record()? {
        bytes += record.rows.iter().map(|row| row.raw.len()).sum::<usize>();
        chunk.push(record);
        if chunk.len() == most || bytes > CHUNK_BYTES {
            if sender.blocking_send(std::mem::replace(&mut chunk, Vec::with_capacity(most))).is_err() {
                return Ok(());
            }
            bytes = 0;
        }
    }
    if !chunk.is_empty() {
        // Nobody waits for it when the worker stops.
        let _ = sender.blocking_send(chunk);
    }
    Ok(())
}

impl FileLoad {
    // `None` when told to stop.
    async fn chunk(self: Arc<Self>, records: Vec<Record>) -> Option<Vec<RecordOutcome>> {
        let outcomes = futures::future::join_all(records.into_iter().map(|record| self.record(record))).await;
        (!outcomes.iter().any(|outcome| matches!(outcome, RecordOutcome::Stopped))).then_some(outcomes)
    }

    async fn record(&self, record: Record) -> RecordOutcome {
        let rows = match self.rows(&record) {
            Ok(rows) => rows,
            Err(rejects) => return RecordOutcome::Rejected(rejects),
        };
        let id = format!("{}/{}", self.sha256, record.number);
        let input = RecordInput {
            id: id.clone(),
            row: rows.first().cloned().unwrap_or_default(),
            rows,
            file: self.file.clone(),
            line: record.line(),
        };
        let retry = &self.context.service.spec.retry;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (failure, attempts) = match self.attempt(&id, input.clone()).await {
                Ok(outcome) => return outcome,
                Err(Refusal::Steps(failure)) => (failure, retry.max_attempts),
                Err(Refusal::Api(failure)) => (failure, retry.max_attempts.min(REFUSED_ATTEMPTS)),
            };
            if !failure.retryable || attempt >= attempts {
                return RecordOutcome::Rejected(record.rows.iter().map(|row| Reject::new(row, &failure.message)).collect());
            }
            let wait = failure.retry_after.unwrap_or_default().max(self.backoff(attempt));
            tokio::select! {
                () = self.context.stop.cancelled() => return RecordOutcome::Stopped,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    // Doubles with each attempt, with jitter.
    fn backoff(&self, attempt: u32) -> Duration {
        let service = &self.context.service;
        let initial = service.initial_backoff.max(REFUSED_BACKOFF);
        let wait = initial.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(service.max_backoff.max(initial));
        wait.mul_f64(rand::random_range(0.5..1.0))
    }

    // The rows as expressions see them; where one is bad, the whole record is rejected.
    fn rows(&self, record: &Record) -> Result<Vec<Value>, Vec<Reject>> {
        if record.too_large {
            let reason = format!("the record has more than {MAX_ROWS} rows or {MAX_BYTES} bytes");
            return Err(record.rows.iter().map(|row| Reject::new(row, &reason)).collect());
        }
        let rows: Vec<Result<Value, String>> = record.rows.iter().map(|row| row_value(&self.shape, row)).collect();
        let Some(bad) = rows.iter().position(Result::is_err) else { return Ok(rows.into_iter().flatten().collect()) };
        let line = record.rows[bad].line;
        let reason = |read: Result<Value, String>| read.err().unwrap_or_else(|| format!("line {line} of the same record is bad"));
        Err(record.rows.iter().zip(rows).map(|(row, read)| Reject::new(row, reason(read))).collect())
    }

    async fn attempt(&self, id: &str, input: RecordInput) -> Result<RecordOutcome, Refusal> {
        let service = &self.context.service;
        let outcome = steps::run(service, Input::Record(input), &*self.lookups, &self.context.http).await.map_err(Refusal::Steps)?;
        if outcome.operations.is_empty() {
            return Ok(RecordOutcome::Loaded);
        }
        let unit =
            Unit { keys: vec![service.idempotency_key(id)], context: service.write_context(id, None), operations: outcome.operations };
        match self.context.transactions.submit(unit).await {
            Ok(written) if written.replayed => Ok(RecordOutcome::Replayed),
            Ok(_) => Ok(RecordOutcome::Loaded),
            // A unit of one key has it used or not.
            Err(SubmitError::PartlyUsed { .. }) => Ok(RecordOutcome::Replayed),
            Err(SubmitError::Refused(failure)) => Err(Refusal::Api(failure)),
            Err(SubmitError::Stopping) => Ok(RecordOutcome::Stopped),
        }
    }
}

enum Refusal {
    Steps(Failure),
    Api(Failure),
}

// Hashes what is read.
struct Hashing {
    file: File,
    hash: Sha256,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
