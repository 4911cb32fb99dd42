//! Stand-ins for the systems outside: the loyalty provider, the accounting service, the general ledger and the ticket desk. They keep books of their own, keep to
//! `Idempotency-Key` as such services do (the same key and body get the first answer again), and misbehave: 429 with Retry-After, 503, no
//! answer at all, and answers that are lost after the thing was done.
//!
//! | system | asks | answers |
//! |---|---|---|
//! | loyalty provider | `POST /accruals` | 201 `{transactionId}`, 404 for a member it does not know |
//! | | `POST /accruals/bulk` `{accruals: […]}`, each with an `idempotencyKey` | 200 `{results: […]}`, each with the `status` that a call of its own would have got |
//! | | `POST /members` `{membershipNumber}` | 201: from now on it knows the member |
//! | accounting | `POST /invoices` | 201 `{invoiceNumber}`, 422 for an account it does not know |
//! | general ledger | `POST /journals`, CSV | 201 `{journalNumber}`, 422 for one whose debits are not its credits |
//! | ticket desk | `POST /tickets` | 201 `{ticketNumber}` |
//! | all | `GET /books` | sums; `GET /books/entries` has every booking |

pub mod books;
mod journal;
pub mod mood;
pub mod wire;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::amount::Amount;
use books::{Answered, Books, Entry, Totals};
use mood::{Mood, Temper};
use wire::{CuttableListener, Wire};

// Longer than any client waits.
const HANG: Duration = Duration::from_secs(30);

/// What a system is and knows.
#[derive(Debug)]
pub enum System {
    /// Books points for the members it knows.
    LoyaltyProvider(Mutex<HashSet<String>>),
    /// Makes invoices for the debtors it knows.
    Accounting(HashSet<String>),
    /// Imports journals of balanced entries.
    GeneralLedger,
    /// Takes tickets.
    TicketDesk,
}

impl System {
    /// The name, in paths of journals too.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LoyaltyProvider(_) => "loyalty-provider",
            Self::Accounting(_) => "accounting",
            Self::GeneralLedger => "general-ledger",
            Self::TicketDesk => "ticket-desk",
        }
    }

    fn path(&self) -> &'static str {
        match self {
            Self::LoyaltyProvider(_) => "/accruals",
            Self::Accounting(_) => "/invoices",
            Self::GeneralLedger => "/journals",
            Self::TicketDesk => "/tickets",
        }
    }
}

/// Why the stand-ins can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// What a system knows, or its journal, can't be read.
    #[error("{file} can't be read; was the day generated?")]
    Read {
        /// The file.
        file: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A port can't be had.
    #[error("the stand-in {system} can't listen on {address}")]
    Listen {
        /// Which one.
        system: &'static str,
        /// Where.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// A running system.
#[derive(Clone)]
pub struct StandIn {
    office: Arc<Office>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl StandIn {
    /// Starts a system; it ends with the process.
    ///
    /// # Errors
    /// When its journal can't be read or its port can't be had.
    pub async fn start(system: System, temper: Temper, journal: &Path, address: SocketAddr) -> Result<Self, StandInError> {
        let books = Books::open(journal).map_err(|source| StandInError::Read { file: journal.display().to_string(), source })?;
        let name = system.name();
        let path = system.path();
        let listen = |source| StandInError::Listen { system: name, address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let office = Arc::new(Office { system, temper, books: Mutex::new(books), attempts: Mutex::default() });
        let router = Router::new()
            .route(path, post(ask))
            .route("/accruals/bulk", post(ask_for_many))
            .route("/members", post(enrol))
            .route("/books", get(totals))
            .route("/books/entries", get(entries))
            .with_state(office.clone());
        tokio::spawn(async move {
            let service = router.into_make_service_with_connect_info::<Wire>();
            // Accepting goes on after errors; it does not end.
            let _ = axum::serve(CuttableListener(listener), service).await;
        });
        Ok(Self { office, address })
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its books, summed up.
    pub fn totals(&self) -> Totals {
        lock(&self.office.books).totals().clone()
    }
}

/// The four systems.
#[derive(Clone)]
pub struct StandIns {
    /// Books points.
    pub loyalty_provider: StandIn,
    /// Makes invoices.
    pub accounting: StandIn,
    /// Imports journals.
    pub general_ledger: StandIn,
    /// Takes tickets.
    pub ticket_desk: StandIn,
}

/// Where the systems listen; a port of 0 takes a free one.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Addresses {
    /// Where the loyalty provider listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub loyalty_provider: SocketAddr,
    /// Where the accounting service listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub accounting: SocketAddr,
    /// Where the general ledger listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub general_ledger: SocketAddr,
    /// Where the ticket desk listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub ticket_desk: SocketAddr,
}

impl StandIns {
    /// Starts the systems with what they know of a generated day; their journals are in `books/` of its folder.
    ///
    /// # Errors
    /// When the day's files can't be read or a port can't be had.
    pub async fn start(folder: &Path, seed: u64, addresses: Addresses) -> Result<Self, StandInError> {
        let members = known(&folder.join("outside/members.json"))?;
        let debtors = known(&folder.join("outside/debtors.json"))?;
        let journal = |system: &System| folder.join("books").join(format!("{}.ndjson", system.name()));
        let start = async |system: System, of_thousand, address| {
            let journal = journal(&system);
            StandIn::start(system, Temper { seed, of_thousand }, &journal, address).await
        };
        Ok(Self {
            loyalty_provider: start(System::LoyaltyProvider(Mutex::new(members)), 80, addresses.loyalty_provider).await?,
            accounting: start(System::Accounting(debtors), 80, addresses.accounting).await?,
            general_ledger: start(System::GeneralLedger, 200, addresses.general_ledger).await?,
            ticket_desk: start(System::TicketDesk, 200, addresses.ticket_desk).await?,
        })
    }
}

fn known(file: &Path) -> Result<HashSet<String>, StandInError> {
    let read = || serde_json::from_slice(&std::fs::read(file)?).map_err(io::Error::other);
    read().map_err(|source| StandInError::Read { file: file.display().to_string(), source })
}

struct Office {
    system: System,
    temper: Temper,
    books: Mutex<Books>,
    // Of things that met trouble.
    attempts: Mutex<HashMap<String, u32>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn totals(State(office): State<Arc<Office>>) -> Json<Totals> {
    Json(lock(&office.books).totals().clone())
}

async fn entries(State(office): State<Arc<Office>>) -> Json<Vec<Entry>> {
    Json(lock(&office.books).entries().cloned().collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Enrolment {
    membership_number: String,
}

async fn enrol(State(office): State<Arc<Office>>, Json(enrolment): Json<Enrolment>) -> StatusCode {
    match &office.system {
        System::LoyaltyProvider(members) => {
            lock(members).insert(enrolment.membership_number);
            StatusCode::CREATED
        }
        _ => StatusCode::NOT_FOUND,
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    #[serde(default)]
    reference: String,
    #[serde(default)]
    membership_number: String,
    #[serde(default)]
    account_number: String,
    #[serde(default)]
    amount: Amount,
    #[serde(default)]
    points: u64,
    #[serde(default)]
    queue: String,
    #[serde(default)]
    event_id: String,
    #[serde(default)]
    service: String,
    // Of one among many.
    #[serde(default)]
    idempotency_key: String,
    // Where the caller says that it stands among those of its party.
    #[serde(default)]
    position: String,
}

async fn ask(State(office): State<Arc<Office>>, ConnectInfo(wire): ConnectInfo<Wire>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).filter(|key| !key.is_empty()) else {
        return office.problem(StatusCode::BAD_REQUEST, "the header Idempotency-Key is missing");
    };
    let asked = match office.read(&body) {
        Ok(asked) => asked,
        Err((status, detail)) => return office.problem(status, &detail),
    };
    match office.mood(&office.reference(&asked)) {
        Mood::Good => office.answer(key, &body, asked).into_response(),
        Mood::Busy => {
            office.note("429");
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], "too many requests\n").into_response()
        }
        Mood::Down => {
            office.note("503");
            (StatusCode::SERVICE_UNAVAILABLE, "down for a moment\n").into_response()
        }
        Mood::Hangs => {
            office.note("timeout");
            tokio::time::sleep(HANG).await;
            wire.cut();
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Mood::AnswerLost => {
            let answer = office.answer(key, &body, asked);
            office.note("lost");
            wire.cut();
            answer.into_response()
        }
    }
}

#[derive(Deserialize)]
struct Many {
    accruals: Vec<Box<RawValue>>,
}

// The first one's mood is that of the line; any other one that meets trouble is told so alone.
async fn ask_for_many(State(office): State<Arc<Office>>, ConnectInfo(wire): ConnectInfo<Wire>, body: Bytes) -> Response {
    let not_understood = |error: serde_json::Error| (StatusCode::BAD_REQUEST, format!("the body is not understood: {error}"));
    let read = || -> Result<Vec<(String, Asked)>, Refusal> {
        let many: Many = serde_json::from_slice(&body).map_err(not_understood)?;
        let each = many.accruals.into_iter().map(|one| Ok((one.get().to_owned(), office.read(one.get().as_bytes())?)));
        each.collect()
    };
    let many = match read() {
        Ok(many) => many,
        Err((status, detail)) => return office.problem(status, &detail),
    };
    let mut results = Vec::with_capacity(many.len());
    let mut line = Mood::Good;
    for (place, (text, asked)) in many.into_iter().enumerate() {
        let mood = office.mood(&office.reference(&asked));
        if place == 0 {
            line = mood;
        }
        if place == 0 && mood == Mood::Hangs {
            office.note("timeout");
            tokio::time::sleep(HANG).await;
            wire.cut();
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let key = asked.idempotency_key.clone();
        let answer = match mood {
            _ if key.is_empty() => office.refused(StatusCode::BAD_REQUEST, "an idempotencyKey is missing"),
            Mood::Good => office.answer(&key, text.as_bytes(), asked),
            Mood::Busy => office.refused(StatusCode::TOO_MANY_REQUESTS, "too many requests"),
            Mood::Down | Mood::Hangs => office.refused(StatusCode::SERVICE_UNAVAILABLE, "down for a moment"),
            Mood::AnswerLost => {
                let answer = office.answer(&key, text.as_bytes(), asked);
                office.note("lost");
                if place == 0 { answer } else { Answer { status: StatusCode::GATEWAY_TIMEOUT, ..answer } }
            }
        };
        results.push(answer.as_result());
    }
    if line == Mood::AnswerLost {
        wire.cut();
    }
    Json(json!({"results": results})).into_response()
}

// A status, and why nothing was done.
type Refusal = (StatusCode, String);

/// What came of one request.
struct Answer {
    status: StatusCode,
    body: Value,
    replayed: bool,
}

impl Answer {
    // As one of many.
    fn as_result(&self) -> Value {
        let mut result = self.body.clone();
        result["status"] = self.status.as_u16().into();
        result
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if !self.status.is_success() {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        } else if self.replayed {
            response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

impl Office {
    // What a request is about.
    fn reference(&self, asked: &Asked) -> String {
        match self.system {
            System::TicketDesk => format!("{}/{}", asked.service, asked.event_id),
            _ => asked.reference.clone(),
        }
    }

    fn mood(&self, reference: &str) -> Mood {
        let mut attempts = lock(&self.attempts);
        let attempt = attempts.get(reference).copied().unwrap_or(0) + 1;
        let mood = self.temper.mood(self.system.name(), reference, attempt);
        if mood != Mood::Good {
            attempts.insert(reference.to_owned(), attempt);
        }
        mood
    }

    fn note(&self, answer: &str) {
        lock(&self.books).note(answer);
    }

    // What a request asks for; of the general ledger in CSV, of the others in JSON.
    fn read(&self, body: &[u8]) -> Result<Asked, Refusal> {
        match self.system {
            System::GeneralLedger => journal::read(body),
            _ => serde_json::from_slice(body).map_err(|error| (StatusCode::BAD_REQUEST, format!("the body is not understood: {error}"))),
        }
    }

    fn problem(&self, status: StatusCode, detail: &str) -> Response {
        self.refused(status, detail).into_response()
    }

    fn refused(&self, status: StatusCode, detail: &str) -> Answer {
        self.note(status.as_str());
        let body = json!({"title": status.canonical_reason(), "status": status.as_u16(), "detail": detail});
        Answer { status, body, replayed: false }
    }

    fn answer(&self, key: &str, body: &[u8], asked: Asked) -> Answer {
        let fingerprint = hex(&Sha256::digest(body));
        let mut books = lock(&self.books);
        if let Some(answered) = books.answered(key) {
            if answered.fingerprint != fingerprint {
                drop(books);
                return self.refused(StatusCode::UNPROCESSABLE_ENTITY, "this Idempotency-Key was used for another request");
            }
            let body = answered.answer.clone();
            books.note("replayed");
            return Answer { status: StatusCode::CREATED, body, replayed: true };
        }
        if let Some((status, detail)) = self.refusal(&asked) {
            drop(books);
            return self.refused(status, &detail);
        }
        let reference = self.reference(&asked);
        let (answer, entry) = self.entry(books.next_number(), reference, asked);
        let answered = Answered { key: key.to_owned(), fingerprint, answer: answer.clone(), entry };
        match books.book(answered) {
            Ok(()) => {
                books.note("201");
                Answer { status: StatusCode::CREATED, body: answer, replayed: false }
            }
            Err(error) => {
                drop(books);
                self.refused(StatusCode::INTERNAL_SERVER_ERROR, &format!("the journal can't be written: {error}"))
            }
        }
    }

    // Why nothing is booked.
    fn refusal(&self, asked: &Asked) -> Option<Refusal> {
        match &self.system {
            System::LoyaltyProvider(members) => (!lock(members).contains(&asked.membership_number))
                .then(|| (StatusCode::NOT_FOUND, format!("there is no member {}", asked.membership_number))),
            System::Accounting(debtors) => (!debtors.contains(&asked.account_number))
                .then(|| (StatusCode::UNPROCESSABLE_ENTITY, format!("there is no account {}", asked.account_number))),
            System::GeneralLedger | System::TicketDesk => None,
        }
    }

    fn entry(&self, number: u64, reference: String, asked: Asked) -> (Value, Entry) {
        let (name, number, party) = match self.system {
            System::LoyaltyProvider(_) => ("transactionId", format!("LP-{number:08}"), asked.membership_number),
            System::Accounting(_) => ("invoiceNumber", format!("INV-{number:07}"), asked.account_number),
            System::GeneralLedger => ("journalNumber", format!("J-{number:06}"), asked.account_number),
            System::TicketDesk => ("ticketNumber", format!("T-{number:06}"), asked.queue),
        };
        let answer = json!({name: number, "reference": reference});
        (answer, Entry { number, reference, party, amount: asked.amount, points: asked.points, position: asked.position })
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
