//! Loading one file: read once to know its content (hash, header, trailer), and once more to load its records.
//!
//! Each record is a transaction unit of its own with the key `{service}/{sha256 of the file}/{record number}`. Units travel together in requests
//! and the API applies them set-wise; a bad one undoes itself alone, and a content that comes again has no effect, whatever its name and
//! wherever a crash interrupted it: reading then begins at the first row, and what was written before is only replayed.

use std::io::{self, BufReader, Read, Seek};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use autonomy_crds::micro_service::{FileProgress, FileState};
use autonomy_process::trace;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tracing::Instrument;

use super::formats::{FileError, Format};
use super::glob::Glob;
use super::metrics::Metrics;
use super::place::{Beside, Candidate, Claimed, Folder, Place, PlaceError};
use super::progress::Progress;
use super::records::{self, MAX_BYTES, MAX_ROWS, Record};
use super::rejects::{Reject, Rejects};
use super::unpack::{self, Packing};
use crate::expression::Value;
use crate::steps::{self, Failure, Input, Lookups, RecordInput};
use crate::transactions::{SubmitError, Unit};
use crate::worker::Context;

// Chunks of a file that are worked on at a time; twice as many again wait to be.
const CHUNKS: usize = 3;
const CHUNK_BYTES: usize = 4 << 20;
// Something that the API refuses but that may pass (an object referred to is not there) is tried this often.
const REFUSED_ATTEMPTS: u32 = 4;
const REFUSED_BACKOFF: Duration = Duration::from_millis(500);

const CONTENT_PAUSE: Duration = Duration::from_millis(500);
// A trailer is looked for in this many bytes at the end.
const TAIL: usize = 4096;

/// Loads files.
pub struct Loader<P> {
    /// What the worker has.
    pub context: Context,
    /// Where the files arrive.
    pub place: P,
    /// How its files are written.
    pub format: Format,
    /// Which files are meant, in archives too.
    pub pattern: Glob,
    /// Records in a chunk.
    pub records_per_request: usize,
    /// The service's caches.
    pub lookups: Arc<dyn Lookups>,
    /// Counts.
    pub metrics: Metrics,
    /// Told how far a file is.
    pub progress: Progress,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It was handled and moved.
    Done,
    /// It ends too early, for this reason; nothing of it was loaded.
    Incomplete(String),
    /// Another process has it, or it is there no more.
    NotOurs,
    /// The worker stops; it is loaded from its beginning next time.
    Stopped,
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

impl Tally {
    // What is told of a file of so many records.
    fn progress(&self, file: &str, state: FileState, records: u64) -> FileProgress {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let loaded = number(self.loaded + self.replayed);
        FileProgress { file: file.to_owned(), state, records: number(records), loaded, rejected: number(self.rejected) }
    }
}

// What the records of a file have alike.
struct FileLoad {
    context: Context,
    lookups: Arc<dyn Lookups>,
    sha256: String,
    file: Value,
    // Of the file's span.
    traceparent: Option<String>,
}

enum RecordOutcome {
    Loaded,
    Replayed,
    Rejected(Vec<Reject>),
    Stopped,
}

// What a claim stands for while a file is loaded.
struct Loading<'l, P: Place> {
    name: &'l str,
    claim: Arc<P::Claim>,
}

impl<P: Place> Loader<P> {
    /// Handles a file that has settled.
    ///
    /// # Errors
    /// When it can't be read, written or moved; it stays where it is.
    pub async fn load(&self, candidate: &Candidate) -> Result<Loaded, PlaceError> {
        let span = trace::file(&self.context.service.name, &candidate.name);
        self.load_claimed(candidate).instrument(span).await
    }

    async fn load_claimed(&self, candidate: &Candidate) -> Result<Loaded, PlaceError> {
        let name = candidate.name.as_str();
        let claim = match self.place.claim(candidate).await? {
            Claimed::Ours(claim) => Arc::new(claim),
            Claimed::NotOurs => return Ok(Loaded::NotOurs),
            Claimed::Settled => return Ok(Loaded::Done),
        };
        let file = Loading { name, claim };
        let content = match self.examine(&file).await? {
            Ok(content) => content,
            Err(FileError::CutShort(reason)) => return Ok(Loaded::Incomplete(reason)),
            Err(FileError::Wrong(reason)) => return self.reject(&file, reason).await,
            Err(FileError::Io(error)) => return Err(error.into()),
        };
        let Some(content_claim) = self.content_claim(&content.sha256).await? else { return Ok(Loaded::Stopped) };
        tracing::info!(file = name, sha256 = content.sha256, records = content.records, "loading a file");
        let mut rejects = Rejects::new(self.place.rejects(name, &content.sha256));
        let tally = match self.load_records(&file, &content, &mut rejects).await? {
            Ok(Some(tally)) => tally,
            Ok(None) => {
                rejects.discard().await;
                return Ok(Loaded::Stopped);
            }
            Err(reason) => {
                rejects.publish().await?;
                return self.reject(&file, reason).await;
            }
        };
        if !self.place.is_unchanged(&file.claim).await? {
            let reason = "the file was changed while it was loaded; records that were good before are loaded".to_owned();
            rejects.publish().await?;
            return self.reject(&file, reason).await;
        }
        let progress = tally.progress(name, FileState::Processed, content.records);
        self.finish(&file, content_claim, tally, rejects).await?;
        self.progress.tell(progress);
        Ok(Loaded::Done)
    }

    // Waits while another file with the same content is loaded, so that this one need not be read again; none when told to stop.
    async fn content_claim(&self, sha256: &str) -> Result<Option<P::ContentClaim>, PlaceError> {
        loop {
            if let Some(claim) = self.place.claim_content(sha256).await? {
                return Ok(Some(claim));
            }
            tokio::select! {
                () = self.context.stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(CONTENT_PAUSE) => {}
            }
        }
    }

    // The content's hash, and whether the whole of it can be loaded.
    async fn examine(&self, file: &Loading<'_, P>) -> Result<Result<Content, FileError>, PlaceError> {
        let (place, claim, source) = (self.place.clone(), file.claim.clone(), self.source(file.name));
        Ok(tokio::task::spawn_blocking(move || source.examine(|| place.open(&claim))).await?)
    }

    fn source(&self, name: &str) -> Source {
        Source { name: name.to_owned(), format: self.format.clone(), pattern: self.pattern.clone() }
    }

    // Loads all records; `None` when told to stop, the inner error where the file turned out wrong.
    async fn load_records(
        &self,
        file: &Loading<'_, P>,
        content: &Content,
        rejects: &mut Rejects<P::Rejects>,
    ) -> Result<Result<Option<Tally>, String>, PlaceError> {
        let (sender, mut chunks) = mpsc::channel::<Vec<Record>>(CHUNKS * 2);
        let (place, claim) = (self.place.clone(), file.claim.clone());
        let (source, most) = (self.source(file.name), self.records_per_request.max(1));
        let reading = tokio::task::spawn_blocking(move || source.read_chunks(place.open(&claim)?, most, &sender));
        let load = Arc::new(FileLoad {
            context: self.context.clone(),
            lookups: self.lookups.clone(),
            sha256: content.sha256.clone(),
            file: Value::object([("name", Value::text(file.name)), ("sha256", Value::text(&content.sha256))]),
            traceparent: trace::outgoing(),
        });
        let mut tally = Tally::default();
        let mut running = FuturesOrdered::new();
        let mut more = true;
        while more || !running.is_empty() {
            tokio::select! {
                chunk = chunks.recv(), if more && running.len() < CHUNKS => match chunk {
                    Some(chunk) => running.push_back(tokio::spawn(load.clone().chunk(chunk).in_current_span())),
                    None => more = false,
                },
                // In order, so that the reject file is in the file's order and the same each time.
                Some(done) = running.next(), if !running.is_empty() => {
                    let Some(outcomes) = done? else { return Ok(Ok(None)) };
                    self.count(outcomes, &mut tally, rejects).await?;
                    self.progress.tell(tally.progress(file.name, FileState::Loading, content.records));
                }
            }
        }
        match reading.await? {
            Ok(()) => Ok(Ok(Some(tally))),
            Err(FileError::Wrong(reason) | FileError::CutShort(reason)) => Ok(Err(format!("{reason}; records before that are loaded"))),
            Err(FileError::Io(error)) => Err(error.into()),
        }
    }

    async fn count(&self, outcomes: Vec<RecordOutcome>, tally: &mut Tally, rejects: &mut Rejects<P::Rejects>) -> Result<(), PlaceError> {
        let mut chunk = Tally::default();
        for outcome in outcomes {
            match outcome {
                RecordOutcome::Loaded => chunk.loaded += 1,
                RecordOutcome::Replayed => chunk.replayed += 1,
                RecordOutcome::Rejected(rows) => {
                    chunk.rejected += 1;
                    rejects.add(&rows).await?;
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
    async fn finish(
        &self,
        file: &Loading<'_, P>,
        mut content: P::ContentClaim,
        tally: Tally,
        rejects: Rejects<P::Rejects>,
    ) -> Result<(), PlaceError> {
        let name = file.name;
        let before = self.place.loaded_as(&content).map(str::to_owned);
        // The first one's finish was interrupted between the note and the move, where its name is not in `processed`.
        let interrupted = before.as_deref() == Some(name) && !self.place.is_processed(name).await?;
        if let Some(first) = before.filter(|_| !interrupted && tally.loaded == 0) {
            rejects.discard().await;
            let text = format!("The same content was loaded before, as {first}. Nothing was written this time.");
            self.place.move_to(&file.claim, Folder::Processed, Some(Beside { end: "note.txt", text })).await?;
            self.metrics.file("repeated");
            tracing::info!(file = name, first, "the content was loaded before");
            return Ok(());
        }
        let rows = rejects.count();
        rejects.publish().await?;
        self.place.note_loaded(&mut content, name).await?;
        self.place.move_to(&file.claim, Folder::Processed, None).await?;
        self.metrics.records("rejected", tally.rejected);
        self.metrics.rejected_rows(rows);
        self.metrics.file("processed");
        let Tally { loaded, replayed, rejected } = tally;
        tracing::info!(file = name, loaded, replayed, rejected, rejected_rows = rows, "a file is loaded");
        Ok(())
    }

    /// Why a file is not whole, as far as its length and its end tell; the rest is seen when it is loaded.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn incomplete(&self, candidate: &Candidate) -> Result<Option<String>, PlaceError> {
        if candidate.length == 0 {
            return Ok(Some("the file is empty".to_owned()));
        }
        let Some(trailer) = self.format.trailer() else { return Ok(None) };
        let (head, tail) = self.place.ends(candidate, unpack::HEAD, TAIL).await?;
        let is_packed = !matches!(Packing::of(&candidate.name, &head), Ok(Packing::None));
        if is_packed || self.format.ends_whole(&tail) {
            return Ok(None);
        }
        Ok(Some(format!("the file has no trailer {trailer}: it was cut short")))
    }

    /// Rejects a file that is not whole, unless another process has it.
    ///
    /// # Errors
    /// When it can't be moved.
    pub async fn reject_incomplete(&self, candidate: &Candidate, reason: String) -> Result<Loaded, PlaceError> {
        match self.place.claim(candidate).await? {
            Claimed::Ours(claim) => self.reject(&Loading { name: &candidate.name, claim: Arc::new(claim) }, reason).await,
            Claimed::NotOurs => Ok(Loaded::NotOurs),
            Claimed::Settled => Ok(Loaded::Done),
        }
    }

    async fn reject(&self, file: &Loading<'_, P>, reason: String) -> Result<Loaded, PlaceError> {
        tracing::warn!(file = file.name, reason, "a file is rejected");
        self.place.move_to(&file.claim, Folder::Rejected, Some(Beside { end: "reason.txt", text: reason })).await?;
        self.metrics.file("rejected");
        self.progress.tell(Tally::default().progress(file.name, FileState::Rejected, 0));
        Ok(Loaded::Done)
    }
}

// How a file of a name is read.
struct Source {
    name: String,
    format: Format,
    pattern: Glob,
}

impl Source {
    // Reads all of a file once; of an archive, whose list is at its end, once for the hash and once for what is in it.
    fn examine<R: Read + Seek>(&self, open: impl Fn() -> io::Result<R>) -> Result<Content, FileError> {
        let packing = self.packing(&mut open()?)?;
        let mut reader = BufReader::with_capacity(1 << 16, Hashing { file: open()?, hash: Sha256::new() });
        let mut count = 0;
        let each = |_| {
            count += 1;
            ControlFlow::Continue(())
        };
        match packing {
            Packing::Zip => records::read_archive(open()?, &self.pattern, &self.format, each)?,
            packing => records::read(&mut reader, packing, &self.format, each)?,
        }
        // What stands behind the last row belongs to the content too.
        io::copy(&mut reader, &mut io::sink())?;
        let sha256 = crate::expression::functions::hex(&reader.into_inner().hash.finalize());
        Ok(Content { sha256, records: count })
    }

    fn packing(&self, file: &mut impl Read) -> Result<Packing, FileError> {
        let mut head = Vec::with_capacity(unpack::HEAD);
        file.take(unpack::HEAD as u64).read_to_end(&mut head)?;
        Packing::of(&self.name, &head)
    }

    // Reads records into chunks until the receiver is gone.
    fn read_chunks<R: Read + Seek>(&self, mut file: R, most: usize, sender: &mpsc::Sender<Vec<Record>>) -> Result<(), FileError> {
        let packing = self.packing(&mut file)?;
        file.rewind()?;
        let mut chunk = Vec::with_capacity(most);
        let mut bytes = 0;
        let each = |record: Record| {
            bytes += record.rows.iter().map(|row| row.raw.len()).sum::<usize>();
            chunk.push(record);
            if chunk.len() < most && bytes <= CHUNK_BYTES {
                return ControlFlow::Continue(());
            }
            bytes = 0;
            match sender.blocking_send(std::mem::replace(&mut chunk, Vec::with_capacity(most))) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        match packing {
            Packing::Zip => records::read_archive(file, &self.pattern, &self.format, each)?,
            packing => records::read(BufReader::with_capacity(1 << 16, file), packing, &self.format, each)?,
        }
        if !chunk.is_empty() {
            // Nobody waits for it when the worker stops.
            let _ = sender.blocking_send(chunk);
        }
        Ok(())
    }
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
                return RecordOutcome::Rejected(Reject::of(&record, |_| failure.message.clone()));
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
            return Err(Reject::of(record, |_| format!("the record has more than {MAX_ROWS} rows or {MAX_BYTES} bytes")));
        }
        let Some(bad) = record.rows.iter().find(|row| row.value.is_err()) else {
            return Ok(record.rows.iter().flat_map(|row| row.value.clone()).collect());
        };
        let of_another = format!("line {} of the same record is bad", bad.line);
        Err(Reject::of(record, |index| record.rows[index].value.clone().err().unwrap_or_else(|| of_another.clone())))
    }

    async fn attempt(&self, id: &str, input: RecordInput) -> Result<RecordOutcome, Refusal> {
        let service = &self.context.service;
        let outcome = steps::run(service, Input::Record(input), &*self.lookups, &self.context.http).await.map_err(Refusal::Steps)?;
        if outcome.operations.is_empty() {
            return Ok(RecordOutcome::Loaded);
        }
        let context = service.write_context(id, self.traceparent.as_deref());
        let unit = Unit { keys: vec![service.idempotency_key(id)], context, operations: outcome.operations };
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
struct Hashing<R> {
    file: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
