//! Limits of calls, with a real NATS server.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use autonomy_operator::streams::{StreamSettings, ensure};
use autonomy_process::options::NatsOptions;
use autonomy_servers::Nats;
use axum::Router;
use axum::routing::any;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::tests::{caller, request, serve};
use super::*;

const CALLS_PER_SECOND: u32 = 200;
const BURST: u32 = 10;

struct World {
    nats: Nats,
    url: String,
    calls: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nats = Nats::start(autonomy_servers::NatsOptions::new(folder.path().join("nats"))).await.unwrap();
        let jetstream = async_nats::jetstream::new(nats.connect().await.unwrap());
        ensure(&jetstream, "default", &[], &StreamSettings::default()).await.unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let url = serve(Router::new().route(
            "/",
            any(move || async move {
                counted.fetch_add(1, Ordering::SeqCst);
            }),
        ))
        .await;
        Self { nats, url, calls, _folder: folder }
    }

    // As another worker of the service would make it.
    fn worker(&self) -> (HttpCaller, Endpoint) {
        let nats = NatsOptions { nats_url: self.nats.url(), nats_sync_interval: Duration::from_secs(1) };
        let limit = RateLimit::new("booking", CALLS_PER_SECOND, Duration::from_secs(1), BURST);
        let endpoint = Endpoint { rate_limit: Some(limit), ..Endpoint::default() };
        (caller(64, None).limited(Timelines::new(nats, "default", "accrual")), endpoint)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.nats.pid()).unwrap()), signal).unwrap();
    }

    async fn call(&self, (caller, endpoint): &(HttpCaller, Endpoint), times: usize) {
        let calls = (0..times).map(|_| caller.call(request(self.url.clone()), endpoint));
        assert!(futures::future::join_all(calls).await.into_iter().all(|answer| answer.is_ok()));
    }
}

// Turns of so many calls last at least this long, however fast or slow the machine is.
fn least(calls: u32) -> Duration {
    Duration::from_secs(1) * (calls - BURST) / CALLS_PER_SECOND
}

#[tokio::test]
async fn all_workers_of_a_service_keep_to_one_limit() {
    let world = World::start().await;
    let (one, other) = (world.worker(), world.worker());
    let begun = Instant::now();
    tokio::join!(world.call(&one, 60), world.call(&other, 60));
    assert!(begun.elapsed() >= least(120), "{:?}", begun.elapsed());
    assert_eq!(world.calls.load(Ordering::SeqCst), 120);
}

#[tokio::test]
async fn turns_that_a_worker_gave_up_are_not_used_all_at_once_later() {
    let world = World::start().await;
    let worker = world.worker();
    world.call(&worker, 1).await;
    // Takes turns, and gives them up.
    let _ = tokio::time::timeout(Duration::from_millis(20), world.call(&worker, 200)).await;
    let given_up = world.calls.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    world.call(&worker, 40).await;
    assert!(begun.elapsed() >= least(40), "{:?}", begun.elapsed());
    assert_eq!(world.calls.load(Ordering::SeqCst), given_up + 40);
}

#[tokio::test]
async fn calls_wait_while_nobody_can_tell_whose_turn_it_is() {
    let world = World::start().await;
    let worker = world.worker();
    world.call(&worker, 1).await;
    world.signal(Signal::SIGSTOP);
    let waiting = tokio::time::timeout(Duration::from_millis(500), world.call(&worker, 1)).await;
    assert!(waiting.is_err() && world.calls.load(Ordering::SeqCst) == 1, "nobody had a turn");
    world.signal(Signal::SIGCONT);
    world.call(&worker, 1).await;
}
