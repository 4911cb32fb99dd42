//! Lists of new objects of any size: NDJSON and CSV are taken piece by piece, each piece written while the next one comes in, all in one
//! transaction. Memory is that of two pieces, whatever the body's size.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use bytes::BytesMut;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::{Answer, context, head_hash, idempotency_key, preconditions};
use crate::body::table::Table;
use crate::body::unreadable;
use crate::body::{self, Before, Purpose};
use crate::database::{Gate, problem};
use crate::plan::EntityPlan;
use crate::problem::{Intake, Problem};
use crate::representation::Representation;
use crate::rows::Rows;
use crate::write::transfer::{Begun, Transfer};
use crate::write::{Batch, Counts, Kind, Unit, UnitOutcome};

// Rows are read and written in pieces of about this size.
const PIECE: usize = 512 * 1024;
// One object has at most so many bytes.
const MOST_OBJECT: usize = 8 * 1024 * 1024;
// Whoever sends slower than this holds a transaction open for too little.
const SLOWEST_BYTES_A_SECOND: u64 = 16 * 1024;

/// Memory that a streamed body takes at the most, beside an object larger than a piece.
pub const MEMORY: u64 = 8 * PIECE as u64;

/// A list of new objects as it comes in.
pub struct Incoming<'a> {
    /// Path and query, as they came.
    pub target: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// NDJSON or CSV.
    pub representation: Representation,
    /// One that makes objects.
    pub kind: Kind,
    /// The body.
    pub body: Body,
    /// How long nothing of it may come.
    pub patience: Duration,
}

/// Writes new objects.
///
/// # Errors
/// A problem; then nothing of it is written.
pub async fn write(gate: &Gate, plan: &Arc<EntityPlan>, incoming: Incoming<'_>) -> Result<(Response<Body>, Counts), Problem> {
    let Incoming { target, headers, representation, kind, body, patience } = incoming;
    preconditions::of_upsert(plan, kind)?;
    let mut unit = Unit { context: context(headers), ..Unit::default() };
    let mut hash = None;
    if let Some(key) = idempotency_key(headers)? {
        unit.keys.push(Sha256::digest(key.as_bytes()).into());
        unit.key_texts.push(key);
        hash = Some(head_hash(&Method::POST, target, headers));
    }
    let mut pieces = Pieces::new(body, representation, hash, patience);
    let mut reader = PieceReader { plan: plan.clone(), kind, representation, table: None, before: Before::default() };
    // The first piece is read before anything is begun: most that is wrong shows there.
    let mut next = reader.batch(pieces.next().await?)?;
    let mut transfer = match Transfer::begin(gate, unit).await.map_err(problem)? {
        Begun::Transfer(transfer) => transfer,
        Begun::Used(request, outcome) => return replay(pieces, request, outcome).await,
    };
    while let Some(batch) = next {
        // The next piece is read while the database works on this one.
        (transfer, next) = tokio::try_join!(transfer.add(gate, batch), async { reader.batch(pieces.next().await?) })?;
    }
    let counts = transfer.counts();
    let answer = Answer::of_counts(&counts);
    transfer.commit(pieces.hash(), answer.status, &serde_json::to_string(&answer).unwrap_or_default()).await.map_err(problem)?;
    Ok((answer.into_response(false), counts))
}

// The key was used before: the rest of the body tells whether it was for this request.
async fn replay(mut pieces: Pieces, request: Option<[u8; 32]>, outcome: UnitOutcome) -> Result<(Response<Body>, Counts), Problem> {
    while pieces.next().await?.is_some() {}
    match outcome {
        UnitOutcome::Replayed { answer, .. } if request == Some(pieces.hash()) => {
            let answer: Answer = serde_json::from_str(&answer).map_err(|_| Problem::idempotency_key_reused())?;
            Ok((answer.into_response(true), Counts::default()))
        }
        UnitOutcome::Failed(problem) => Err(problem),
        _ => Err(Problem::idempotency_key_reused()),
    }
}

// From pieces of a body to rows.
struct PieceReader {
    plan: Arc<EntityPlan>,
    kind: Kind,
    representation: Representation,
    // The heading, where it is CSV.
    table: Option<Table>,
    before: Before,
}

impl PieceReader {
    fn batch(&mut self, piece: Option<BytesMut>) -> Result<Option<Batch>, Problem> {
        let Some(piece) = piece else { return Ok(None) };
        let mut rows = Rows::new(self.plan.columns.len());
        let mut intake = Intake::default();
        let mut before = self.before;
        match self.representation {
            Representation::Csv => {
                let mut text = body::utf8(&piece)?;
                if self.table.is_none() {
                    let (table, rest) = Table::read_heading(text, &self.plan)?;
                    self.table = Some(table);
                    text = rest;
                    before.lines += 1;
                }
                if let Some(table) = &self.table {
                    table.read(text, &self.plan, Purpose::Create, before, &mut rows, &mut intake)?;
                }
            }
            _ => body::read_lines(body::text(&piece)?, &self.plan, Purpose::Create, before, &mut rows, &mut intake)?,
        }
        self.before.lines += piece.iter().filter(|byte| **byte == b'\n').count();
        self.before.objects += rows.len();
        if u32::try_from(self.before.objects).is_err() {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload-too-large",
                "The body has more than 4,294,967,295 objects; send it in parts.",
            ));
        }
        if !intake.faults.is_empty() {
            return Err(intake.faults.into_problem());
        }
        Ok(Some(Batch {
            plan: self.plan.clone(),
            kind: self.kind,
            rows,
            owners: Vec::new(),
            conditions: Vec::new(),
            references: intake.references,
        }))
    }
}

// A body cut at the ends of its records.
struct Pieces {
    stream: BodyDataStream,
    buffer: BytesMut,
    ended: bool,
    csv: bool,
    // Of a CSV body: how far it was looked at, whether that is inside of quotes, and the last end of a record.
    looked_at: usize,
    quoted: bool,
    record_end: usize,
    hash: Option<Sha256>,
    received: u64,
    begun: Instant,
    patience: Duration,
}

impl Pieces {
    fn new(body: Body, representation: Representation, hash: Option<Sha256>, patience: Duration) -> Self {
        Self {
            stream: body.into_data_stream(),
            buffer: BytesMut::with_capacity(PIECE + PIECE / 4),
            ended: false,
            csv: representation == Representation::Csv,
            looked_at: 0,
            quoted: false,
            record_end: 0,
            hash,
            received: 0,
            begun: Instant::now(),
            patience,
        }
    }

    // The next whole records.
    async fn next(&mut self) -> Result<Option<BytesMut>, Problem> {
        loop {
            if let Some(end) = self.end_of_records() {
                let piece = self.buffer.split_to(end);
                self.looked_at -= end;
                self.record_end = 0;
                return Ok(Some(piece));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                self.looked_at = 0;
                return Ok((!rest.is_empty()).then_some(rest));
            }
            if self.buffer.len() > MOST_OBJECT {
                let detail = format!("An object of the body has more than {MOST_OBJECT} bytes.");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload-too-large", detail));
            }
            self.receive().await?;
        }
    }

    fn end_of_records(&mut self) -> Option<usize> {
        if self.csv {
            for byte in &self.buffer[self.looked_at..] {
                self.looked_at += 1;
                match byte {
                    b'"' => self.quoted = !self.quoted,
                    b'\n' if !self.quoted => self.record_end = self.looked_at,
                    _ => {}
                }
            }
            return (self.buffer.len() >= PIECE && self.record_end > 0).then_some(self.record_end);
        }
        // What was looked at before has no end of a line.
        let from = std::mem::replace(&mut self.looked_at, self.buffer.len());
        if self.buffer.len() < PIECE {
            self.looked_at = 0;
            return None;
        }
        self.buffer[from..].iter().rposition(|byte| *byte == b'\n').map(|at| from + at + 1)
    }

    async fn receive(&mut self) -> Result<(), Problem> {
        let too_slow = || Problem::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "The body comes too slowly.");
        let frame = tokio::time::timeout(self.patience, self.stream.next()).await.map_err(|_| too_slow())?;
        let Some(frame) = frame else {
            self.ended = true;
            return Ok(());
        };
        let frame = frame.map_err(|_| unreadable())?;
        if let Some(hash) = &mut self.hash {
            hash.update(&frame);
        }
        self.received += frame.len() as u64;
        let elapsed = self.begun.elapsed();
        if elapsed > self.patience && self.received < elapsed.as_secs() * SLOWEST_BYTES_A_SECOND {
            return Err(too_slow());
        }
        self.buffer.extend_from_slice(&frame);
        Ok(())
    }

    // The hash of the request, when all of it was received.
    fn hash(&self) -> [u8; 32] {
        self.hash.clone().map(|hash| hash.finalize().into()).unwrap_or_default()
    }
}
