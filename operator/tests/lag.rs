//! What KEDA is told of a service's lag, on a real nats-server: how much waits, and nothing that it could take for an empty queue.

mod support;

use std::sync::Arc;

use async_nats::jetstream;
use autonomy_crds::documents::{self, Resource};
use autonomy_crds::event;
use autonomy_operator::controller::lag::{Backlog, Board, Entry};
use autonomy_operator::streams::{StreamSettings, ensure};
use autonomy_process::service_consumers::ServiceConsumers;
use autonomy_servers::{Nats, NatsOptions};

const CLOSE: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: close}
spec:
  trigger: {queue: {model: shop, entity: Sale}}
  steps: [{patch: {model: shop, entity: Sale, id: object.id, object: {total: '1'}}}]
";

async fn ask(url: &str) -> (u16, serde_json::Value) {
    let answer = autonomy_process::http_client::new().get(url).send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.expect("a text")).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_told_and_silence_is_never_an_empty_queue() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Nats::start(NatsOptions::new(folder.path().join("nats"))).await.expect("nats-server");
    let client = server.connect().await.expect("connected");
    let mut jetstream = jetstream::new(client);
    jetstream.set_timeout(std::time::Duration::from_secs(1));
    let model = support::shop("entities: [{name: Sale, attributes: [{name: total, type: integer}]}]");
    ensure(&jetstream, "default", &[model], &StreamSettings::default()).await.expect("made");
    let resource = documents::parse("test.yaml", CLOSE).expect("a document").remove(0);
    let Resource::MicroService(service) = resource else { panic!("no service") };
    let consumers = ServiceConsumers::of("default", "close", &service.spec).expect("consumers");

    let board = Board::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let url = format!("http://{}/lag/default/close", listener.local_addr().expect("an address"));
    let routes = board.clone().router();
    tokio::spawn(async move { axum::serve(listener, routes).await });

    assert_eq!(ask(&url).await.0, 503, "before the operator knows the service");
    let backlog = Backlog::Events(Arc::new(consumers));
    board.put("default", "close", Entry { jetstream: jetstream.clone(), connection: 1, backlog });
    assert_eq!(ask(&url).await, (200, serde_json::json!({"lag": 0, "pending": 0, "unacknowledged": 0, "retries": 0})));
    // An event without a consumer yet, and a retry.
    jetstream.publish("autonomy.default.shop.Sale.created._.1", "{}".into()).await.expect("sent").await.expect("stored");
    let due = event::retry_due_subject("default", "close", "1");
    jetstream.publish(due, "{}".into()).await.expect("sent").await.expect("stored");
    assert_eq!(ask(&url).await, (200, serde_json::json!({"lag": 2, "pending": 1, "unacknowledged": 0, "retries": 1})));

    server.kill();
    server.wait_exit().await;
    assert_eq!(ask(&url).await.0, 503, "KEDA leaves the workers as they are");

    // What only the worker sees is not told either.
    board.put("default", "close", Entry { jetstream, connection: 1, backlog: Backlog::Unseen });
    assert_eq!(ask(&url).await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_worker_that_was_started_by_an_event_is_seen_by_keda_although_the_event_is_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Nats::start(NatsOptions::new(folder.path().join("nats"))).await.expect("nats-server");
    let jetstream = jetstream::new(server.connect().await.expect("connected"));
    let model = support::shop("entities: [{name: Sale, attributes: [{name: total, type: integer}]}]");
    ensure(&jetstream, "default", &[model], &StreamSettings::default()).await.expect("made");
    let resource = documents::parse("test.yaml", CLOSE).expect("a document").remove(0);
    let Resource::MicroService(service) = resource else { panic!("no service") };
    let backlog = Backlog::Events(Arc::new(ServiceConsumers::of("default", "close", &service.spec).expect("consumers")));
    let board = Board::default();
    board.put("default", "close", Entry { jetstream, connection: 1, backlog });
    board.woke(&("default".to_owned(), "close".to_owned()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let url = format!("http://{}/lag/default/close", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, board.router()).await });
    let (status, told) = ask(&url).await;
    assert_eq!((status, &told["lag"], &told["pending"]), (200, &serde_json::json!(1), &serde_json::json!(0)));
}
