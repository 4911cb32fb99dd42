//! Subscriptions: the events of an entity as Server-Sent Events, for those who don't speak NATS. Each event is a CloudEvent in JSON, and its
//! id, the event's position, is where a client goes on that comes back: a subscription ends rather than leaving one out.

mod deliveries;
mod matching;
mod nats;
mod place;
pub mod query;
mod session;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::Stream;
use autonomy_crds::event::Position;
use autonomy_process::catalog::CatalogFollower;
use autonomy_process::options::NatsConnectError;
use autonomy_process::telemetry::error_chain;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::database::{Failure, Gate};
use crate::metrics::Metrics;
use crate::plan::EntityPlan;
use crate::problem::Problem;
use crate::representation::bare;
use crate::sql;
use crate::write::text;
use deliveries::Deliveries;
use matching::Matcher;
use nats::Nats;
use place::Place;
use query::{EventQuery, Start};
use session::{Session, Source};

/// The media type of Server-Sent Events.
pub const EVENT_STREAM: &str = "text/event-stream";
// When one who is turned away may come again.
const COME_BACK_SECONDS: u32 = 10;
// After how many milliseconds a client comes back whose connection ended: at least, and how many more by chance, so that not all come at once.
const RETRY: (u16, u16) = (1_000, 3_000);

/// Options of subscriptions.
#[derive(Clone, clap::Args)]
pub struct EventOptions {
    /// The NATS system whose streams are read for subscribers, `nats://user:password@host:port`; best given in the environment. Without it
    /// nobody can subscribe.
    #[arg(long, env = "AUTONOMY_NATS_URL", hide_env_values = true)]
    pub nats_url: Option<String>,
    /// The most subscribers at a time.
    #[arg(long, env = "AUTONOMY_API_MAX_SUBSCRIBERS", default_value_t = 1000)]
    pub max_subscribers: usize,
}

impl Default for EventOptions {
    fn default() -> Self {
        Self { nats_url: None, max_subscribers: 1000 }
    }
}

impl std::fmt::Debug for EventOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventOptions").field("max_subscribers", &self.max_subscribers).finish_non_exhaustive()
    }
}

/// What subscribers share.
pub struct Subscriptions {
    nats: Option<Arc<Nats>>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

/// A request to subscribe.
pub struct SubscribeRequest<'a> {
    /// The entity.
    pub plan: Arc<EntityPlan>,
    /// The query's parameters.
    pub parameters: &'a [(String, String)],
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The catalog.
    pub catalog: &'a CatalogFollower,
    /// The way to the database.
    pub gate: &'a Gate,
    /// Counters.
    pub metrics: &'a Metrics,
}

impl Subscriptions {
    /// Begins to connect to NATS where there is one.
    ///
    /// # Errors
    /// When its URL is none.
    pub async fn new(options: &EventOptions, stop: CancellationToken) -> Result<Self, NatsConnectError> {
        let nats = match &options.nats_url {
            Some(url) => Some(Arc::new(Nats::connect(url).await?)),
            None => None,
        };
        Ok(Self { nats, places: Arc::new(Semaphore::new(options.max_subscribers.min(Semaphore::MAX_PERMITS))), stop })
    }

    /// Answers a subscriber.
    ///
    /// # Errors
    /// Where the request has faults, the place to go on from is gone, or there is no place or no NATS for it now.
    pub async fn subscribe(&self, request: SubscribeRequest<'_>) -> Result<Response<Body>, Failure> {
        if !accepts_event_stream(request.headers) {
            let detail = format!("Events are sent as {EVENT_STREAM} only.");
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", detail).into());
        }
        let query = EventQuery::parse(&request.plan, request.parameters, request.headers)?;
        let nats = self.nats.as_ref().ok_or_else(|| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "This API has no NATS to take events from (AUTONOMY_NATS_URL is not set).",
            )
        })?;
        let permit = self.places.clone().try_acquire_owned().map_err(|_| come_back("There are too many subscribers now."))?;
        // What is asked from here on belongs to one life of the connection.
        let (interruptions, mut catalog) = (nats.interruptions(), request.catalog.subscribe());
        // The plan may be of an earlier one: it is looked at first of all.
        catalog.mark_changed();
        if !nats.is_connected() {
            return Err(come_back("NATS can't be reached.").into());
        }
        let model = &request.plan.model;
        let stream = stream(nats, &model.stream).await?;
        let subjects = query.subjects(&request.plan);
        let (source, last, told) = match query.start {
            Start::First => (begin(nats, &stream, &subjects, 1).await?, Position::default(), None),
            Start::Next => match beginning(&stream, &model.stream_subjects).await? {
                (sequence, Some(last)) => (begin(nats, &stream, &subjects, sequence + 1).await?, last, Some(last)),
                (sequence, None) => (begin(nats, &stream, &subjects, sequence + 1).await?, Position::default(), None),
            },
            Start::Behind(wanted) => {
                let found = place::find(&stream, &model.stream_subjects, wanted).await.map_err(unreadable)?;
                let source = match found {
                    Place::At(sequence) => begin(nats, &stream, &subjects, sequence + 1).await?,
                    Place::Ahead if wanted.commit < end_of_log(request.gate).await? => Source::Awaiting(wanted),
                    Place::Ahead | Place::Gone => return Err(gone(wanted).into()),
                };
                (source, wanted, Some(wanted))
            }
        };
        let session = Session {
            matcher: Matcher::new(query.filters),
            subjects,
            nats: nats.clone(),
            interruptions,
            catalog,
            stop: self.stop.clone(),
            source,
            last,
            told,
            greeting: Some(greeting(told)),
            sent: Instant::now(),
            ended: false,
            subscriber: request.metrics.subscribed(),
            _permit: permit,
            plan: request.plan,
        };
        Ok(respond(session))
    }
}

async fn begin(nats: &Nats, stream: &Stream, subjects: &[String], sequence: u64) -> Result<Source, Problem> {
    match Deliveries::begin(&nats.jetstream, stream, subjects.to_vec(), sequence).await {
        Ok(deliveries) => Ok(Source::Consumer(Box::new(deliveries))),
        Err(error) => {
            tracing::warn!(error = %error_chain(&error), stream = stream.cached_info().config.name, "a subscriber gets no consumer");
            Err(come_back("NATS does not answer."))
        }
    }
}

fn respond(session: Session) -> Response<Body> {
    let pieces =
        futures::stream::unfold(session, |mut session| async { session.next().await.map(|piece| (Ok::<_, Infallible>(piece), session)) });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that gather answers would keep events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

// When to come back, and from where, also where no event has come before. An id alone is no event.
fn greeting(told: Option<Position>) -> Bytes {
    let retry = RETRY.0 + rand::random::<u16>() % RETRY.1;
    let id = told.map(|position| format!("id: {position}\n")).unwrap_or_default();
    format!("retry: {retry}\n{id}\n").into()
}

// What one who begins with the next event leaves behind: up to which sequence, and the last event there. Before the first of all it is the first
// of all positions, and where all have expired there is nothing to name.
async fn beginning(stream: &Stream, subjects: &str) -> Result<(u64, Option<Position>), Problem> {
    let state = &stream.cached_info().state;
    Ok(match place::last(stream, subjects).await.map_err(unreadable)? {
        Some((sequence, position)) => (sequence, Some(position)),
        None => (state.last_sequence, (state.last_sequence == 0).then(Position::default)),
    })
}

async fn stream(nats: &Nats, name: &str) -> Result<Stream, Problem> {
    nats.jetstream.get_stream(name).await.map_err(|error| {
        tracing::warn!(error = %error_chain(&error), stream = name, "the stream of a subscriber can't be looked at");
        match error.kind() {
            GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                come_back("The model has no stream of events yet.")
            }
            _ => come_back("NATS does not answer."),
        }
    })
}

// Where the database's log ends: an event behind it was never committed here.
async fn end_of_log(gate: &Gate) -> Result<u64, Failure> {
    let mut session = gate.session().await?;
    let rows = session.rows(sql::position()).await?;
    let end = rows.first().map(|row| text(row, 0)).transpose()?.flatten();
    Ok(end.and_then(|text| text.parse().ok()).unwrap_or_default())
}

fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut any = false;
    accepted.any(|range| {
        any = true;
        let media_type = bare(range);
        ["*/*", "text/*", EVENT_STREAM].iter().any(|good| media_type.eq_ignore_ascii_case(good))
    }) || !any
}

fn come_back(detail: &str) -> Problem {
    let mut problem = Problem::unavailable(format!("{detail} Try again later; an event that comes meanwhile is kept in the stream."));
    problem.retry_after = Some(COME_BACK_SECONDS);
    problem
}

fn unreadable(error: place::PlaceError) -> Problem {
    tracing::warn!(error = %error_chain(&error), "a subscriber's place can't be looked for");
    come_back("The stream can't be read.")
}

fn gone(wanted: Position) -> Problem {
    let detail = format!(
        "The event {wanted} is not in the stream any more (it is older than events are kept, or the stream was made anew), and so what came \
         behind it may be missing. Subscribe without an id, then read the list for what is there now."
    );
    Problem::new(StatusCode::GONE, "event-gone", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_events_is_told_from_what_does_not() {
        let accepts = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            accepts_event_stream(&headers)
        };
        assert!(accepts_event_stream(&HeaderMap::new()));
        assert!(accepts("text/event-stream") && accepts("application/json, */*;q=0.1") && accepts("Text/*"));
        assert!(!accepts("application/json") && !accepts(""));
    }
}
