//! The load generator: connections that each send one request after the other and wait for its answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::sales::Body;

/// A request to send.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The body; none where empty.
    pub body: Bytes,
}

/// Makes the requests: called with the connection's number and the request's on it.
pub type Calls = Arc<dyn Fn(usize, u64) -> Call + Send + Sync>;

/// Where and how requests are sent.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// Headers of each request, beside Host and the body's own.
    pub headers: Vec<(&'static str, String)>,
}

impl Target {
    async fn connect<B>(&self) -> Result<SendRequest<B>, LoadError>
    where
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| LoadError::Connect(self.address.clone(), error))?;
        // Without it the last packet of a small request waits.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, method: &Method, path: &str) -> Builder {
        let request = Request::builder().method(method).uri(path).header("host", &self.address);
        self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
    }
}

/// Why a load could not be put on.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No connection.
    #[error("can't connect to {0}")]
    Connect(String, #[source] std::io::Error),
    /// A request failed.
    #[error("a request failed")]
    Http(#[from] hyper::Error),
    /// A request could not be made.
    #[error("a request can't be made")]
    Request(#[from] hyper::http::Error),
    /// An answer was no success.
    #[error("{method} {path} was answered {status}: {body}")]
    Refused {
        /// The request's method.
        method: Method,
        /// Its path.
        path: String,
        /// The answer's status.
        status: StatusCode,
        /// The beginning of the answer.
        body: String,
    },
    /// A task ended.
    #[error("a connection's task ended")]
    Task(#[from] tokio::task::JoinError),
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests answered.
    pub requests: u64,
    /// Seconds from the first request to the last answer.
    pub seconds: f64,
    /// How long each request took, in milliseconds, sorted.
    pub milliseconds: Vec<f64>,
}

/// One connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nothing listens.
    pub async fn open(target: &Target) -> Result<Self, LoadError> {
        let sender = target.connect().await?;
        Ok(Self { sender, target: target.clone() })
    }

    /// Sends a request and gives the answer's body.
    ///
    /// # Errors
    /// When it fails or the answer is no success.
    pub async fn send(&mut self, call: Call) -> Result<Bytes, LoadError> {
        let mut request = self.target.request(&call.method, &call.path);
        if !call.body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        // Some servers close a connection after each answer.
        if self.sender.ready().await.is_err() {
            *self = Self::open(&self.target).await?;
        }
        let answer = self.sender.send_request(request.body(Full::new(call.body))?).await?;
        whole(answer, &call.method, &call.path).await
    }
}

// An answer's body, where it is a success.
async fn whole(answer: Response<Incoming>, method: &Method, path: &str) -> Result<Bytes, LoadError> {
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let body = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
    Err(LoadError::Refused { method: method.clone(), path: path.to_owned(), status, body })
}

/// Sends requests over so many connections for so long.
///
/// # Errors
/// At the first request that fails.
pub async fn run(target: &Target, connections: usize, duration: Duration, calls: Calls) -> Result<Outcome, LoadError> {
    let mut tasks = JoinSet::new();
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(target).await?);
    }
    let begun = Instant::now();
    for (number, mut connection) in open.into_iter().enumerate() {
        let calls = calls.clone();
        tasks.spawn(async move {
            let mut milliseconds = Vec::new();
            while begun.elapsed() < duration {
                let call = calls(number, milliseconds.len() as u64);
                let sent = Instant::now();
                connection.send(call).await?;
                milliseconds.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, LoadError>(milliseconds)
        });
    }
    let mut outcome = Outcome::default();
    while let Some(ended) = tasks.join_next().await {
        outcome.milliseconds.extend(ended??);
    }
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome.requests = outcome.milliseconds.len() as u64;
    outcome.milliseconds.sort_unstable_by(f64::total_cmp);
    Ok(outcome)
}

/// Gets what is many lines, and counts them and their bytes.
///
/// # Errors
/// When it fails or the answer is no success.
pub async fn count_lines(target: &Target, path: &str) -> Result<(u64, u64), LoadError> {
    let request = target.request(&Method::GET, path).body(Full::new(Bytes::new()))?;
    let answer = target.connect().await?.send_request(request).await?;
    if !answer.status().is_success() {
        return whole(answer, &Method::GET, path).await.map(|_| (0, 0));
    }
    let (mut lines, mut bytes, mut body) = (0, 0, answer.into_body());
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            lines += data.iter().filter(|byte| **byte == b'\n').count() as u64;
            bytes += data.len() as u64;
        }
    }
    Ok((lines, bytes))
}

/// Posts a body of NDJSON in so many pieces, its length not declared.
///
/// # Errors
/// When it fails or the answer is no success.
pub async fn send_pieces(target: &Target, path: &str, pieces: u64, lines: Body) -> Result<(), LoadError> {
    let pieces = futures::stream::iter((0..pieces).map(move |_| Ok::<_, Infallible>(Frame::data(lines.fresh()))));
    let request = target.request(&Method::POST, path).header("content-type", "application/x-ndjson").body(StreamBody::new(pieces))?;
    let answer = target.connect().await?.send_request(request).await?;
    whole(answer, &Method::POST, path).await.map(drop)
}
