//! What is measured of each system.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use serde_json::Value as Json;

use autonomy_bench::load::{Call, Connection, LoadError, Outcome, Target, count_lines, run};
use autonomy_bench::measure::quantile;
use autonomy_bench::platform::{Costs, Platform, PlatformError, spent};
use autonomy_bench::results::Results;
use autonomy_bench::sales::{Body, Kind};

/// Why a scenario could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// An answer was not understood.
    #[error("the answer to {0} is not understood")]
    Answer(String),
}

/// A system that takes Sales over HTTP.
#[derive(Clone, Debug)]
pub struct System {
    /// Its name in the results.
    pub name: String,
    /// Where it is called.
    pub target: Target,
    /// The path of its Sales, without a slash at the end.
    pub collection: String,
    /// The query of what posts, so that the objects are not answered.
    pub minimal: &'static str,
    /// The query of a page of 100.
    pub page: &'static str,
    /// The first receipt number that is free.
    pub receipts: u64,
}

impl System {
    fn post_path(&self) -> String {
        format!("{}{}", self.collection, self.minimal)
    }

    fn object_path(&self, id: &str) -> String {
        format!("{}/{id}", self.collection)
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How long each load lasts.
    pub duration: Duration,
    /// Connections of bulk loads.
    pub bulk_connections: usize,
    /// Connections of single requests.
    pub connections: usize,
}

/// Bulk POST of lists. With `stream`, a load counts as done when all its events are in that stream: the rate is one that the relay keeps up with.
///
/// # Errors
/// When a request fails.
pub async fn bulk(
    system: &mut System,
    kind: &Kind,
    size: u64,
    effort: Effort,
    events: Option<(&Platform, &str)>,
) -> Result<(f64, String), ScenarioError> {
    let body = Arc::new(Body::list(kind, size, system.receipts));
    let path = system.post_path();
    let calls = {
        let body = body.clone();
        Arc::new(move |_: usize, _: u64| Call { method: Method::POST, path: path.clone(), body: body.fresh() })
    };
    let warm = Effort { duration: effort.duration / 5, ..effort };
    let before = match events {
        Some((platform, stream)) => platform.messages(stream).await?,
        None => 0,
    };
    let first = run(&system.target, warm.bulk_connections, warm.duration, calls.clone()).await?;
    if let Some((platform, stream)) = events {
        platform.wait_for_messages(stream, before + first.requests * size).await?;
    }
    let costs = events.map(|(platform, _)| platform.costs());
    let outcome = run(&system.target, effort.bulk_connections, effort.duration, calls).await?;
    let sales = outcome.requests * size;
    let mut seconds = outcome.seconds;
    let mut note = String::new();
    if let (Some((platform, stream)), Some(costs)) = (events, costs) {
        let drained = platform.wait_for_messages(stream, before + (first.requests * size) + sales).await?;
        seconds += drained;
        note = format!("last event {drained:.2} s behind; {}", spent(&costs, &platform.costs(), sales));
    }
    system.receipts += first.requests * size + sales + size * 64;
    Ok((sales as f64 / seconds, note))
}

/// Single POST, GET by id, a page of 100, PATCH.
///
/// # Errors
/// When a request fails.
pub async fn single(
    system: &mut System,
    kind: &Kind,
    effort: Effort,
    platform: &Platform,
    results: &mut Results,
) -> Result<(), ScenarioError> {
    let one = Arc::new(Body::one(kind, system.receipts));
    let path = system.post_path();
    let post = Arc::new(move |_: usize, _: u64| Call { method: Method::POST, path: path.clone(), body: one.fresh() });
    platform.settle().await?;
    let costs = platform.costs();
    let outcome = run(&system.target, effort.connections, effort.duration, post).await?;
    system.receipts += outcome.requests + 10_000;
    add(results, "POST of one", system, &outcome, (&costs, &platform.costs()));

    let page_path = format!("{}{}", system.collection, system.page);
    let mut connection = Connection::open(&system.target).await?;
    let page = Call { method: Method::GET, path: page_path.clone(), body: Bytes::new() };
    let ids = Arc::new(ids(&connection.send(page.clone()).await?).ok_or_else(|| ScenarioError::Answer(page_path.clone()))?);

    let get_system = system.clone();
    let get_ids = ids.clone();
    let get = Arc::new(move |connection: usize, number: u64| {
        let id = &get_ids[(connection * 31 + number as usize) % get_ids.len()];
        Call { method: Method::GET, path: get_system.object_path(id), body: Bytes::new() }
    });
    platform.settle().await?;
    let costs = platform.costs();
    let outcome = run(&system.target, effort.connections, effort.duration, get).await?;
    add(results, "GET by id", system, &outcome, (&costs, &platform.costs()));

    platform.settle().await?;
    let costs = platform.costs();
    let outcome = run(&system.target, effort.connections, effort.duration, Arc::new(move |_, _| page.clone())).await?;
    add(results, "GET of a page of 100", system, &outcome, (&costs, &platform.costs()));

    let patch_system = system.clone();
    let patch = Arc::new(move |connection: usize, number: u64| {
        let id = &ids[(connection * 31 + number as usize) % ids.len()];
        Call {
            method: Method::PATCH,
            path: patch_system.object_path(id),
            body: format!(r#"{{"customerNumber":"C{:08}"}}"#, number % 1000).into(),
        }
    });
    platform.settle().await?;
    let costs = platform.costs();
    let outcome = run(&system.target, effort.connections, effort.duration, patch).await?;
    add(results, "PATCH of one", system, &outcome, (&costs, &platform.costs()));
    Ok(())
}

fn add(results: &mut Results, scenario: &str, system: &System, outcome: &Outcome, (before, after): (&Costs, &Costs)) {
    let mut note = format!("p50 {:.2} ms, p99 {:.2} ms", quantile(&outcome.milliseconds, 0.5), quantile(&outcome.milliseconds, 0.99));
    // A peer's own processes are not known here.
    if system.name == "autonomy" {
        note = format!("{note}; {}", spent(before, after, outcome.requests));
    }
    results.add(scenario, "requests/s", &system.name, outcome.requests as f64 / outcome.seconds, note);
}

// The ids in a page, wherever the system has its list.
fn ids(page: &[u8]) -> Option<Vec<String>> {
    let json: Json = serde_json::from_slice(page).ok()?;
    let list = json.as_array().or_else(|| json["results"].as_array()).or_else(|| json["data"].as_array())?;
    let ids: Vec<String> = list.iter().filter_map(|object| object["id"].as_str().map(str::to_owned)).collect();
    (!ids.is_empty()).then_some(ids)
}

/// The whole collection as NDJSON, objects a second.
///
/// # Errors
/// When the request fails.
pub async fn export(system: &System) -> Result<(f64, String), ScenarioError> {
    let mut target = system.target.clone();
    target.headers.push(("accept", "application/x-ndjson".to_owned()));
    let begun = Instant::now();
    let (lines, bytes) = count_lines(&target, &system.collection).await?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok((lines as f64 / seconds, format!("{lines} objects, {:.0} MiB/s", bytes as f64 / seconds / 1_048_576.0)))
}
