//! The streams on a real nats-server.

mod support;

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, Context, stream};
use autonomy_crds::data_platform::PersistMode;
use autonomy_crds::event;
use autonomy_operator::streams::{StreamSettings, ensure};
use autonomy_servers::{Nats, NatsOptions};
use futures::StreamExt;

async fn config(jetstream: &Context, stream: &str) -> stream::Config {
    jetstream.get_stream(stream).await.expect("the stream").cached_info().config.clone()
}

#[tokio::test]
async fn streams_are_made_changed_in_place_and_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Nats::start(NatsOptions::new(folder.path().join("nats"))).await.expect("nats-server");
    let client = server.connect().await.expect("connected");
    let jetstream = jetstream::new(client);
    let model = support::shop("entities: [{name: Sale, attributes: [{name: total, type: integer}]}]");
    let models = std::slice::from_ref(&model);
    let settings = StreamSettings::default();
    ensure(&jetstream, "default", models, &settings).await.expect("made");
    let made = config(&jetstream, "DEFAULT_SHOP").await;
    assert_eq!(made.subjects, ["autonomy.default.shop.>"]);
    assert_eq!(made.storage, stream::StorageType::File);
    assert!(made.deny_delete && made.allow_direct && made.persist_mode.is_none());
    // Again, also at the same time: nothing changes, nothing fails.
    let again = futures::future::join_all((0..4).map(|_| ensure(&jetstream, "default", models, &settings))).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    assert_eq!(config(&jetstream, "DEFAULT_SHOP").await, made);

    jetstream.publish("autonomy.default.shop.Sale.created._.1", "{}".into()).await.expect("sent").await.expect("stored");
    // What an administrator set stays; what is wanted changes in place.
    let mut by_hand = config(&jetstream, "DEFAULT_SHOP").await;
    by_hand.max_bytes = 1 << 30;
    by_hand.duplicate_window = Duration::from_secs(60);
    jetstream.update_stream(by_hand).await.expect("changed by hand");
    let week = StreamSettings { retention: Some(Duration::from_secs(7 * 24 * 3600)), ..settings.clone() };
    ensure(&jetstream, "default", models, &week).await.expect("changed");
    let changed = jetstream.get_stream("DEFAULT_SHOP").await.expect("the stream").cached_info().clone();
    assert_eq!(changed.config.max_age, Duration::from_secs(7 * 24 * 3600));
    assert_eq!(changed.config.max_bytes, 1 << 30);
    assert_eq!(changed.config.duplicate_window, made.duplicate_window);
    assert_eq!(changed.state.messages, 1);

    // The mode of a stream that is there can't be changed, and is left.
    let quick = StreamSettings { persist_mode: PersistMode::Async, ..settings.clone() };
    ensure(&jetstream, "default", models, &quick).await.expect("left");
    assert_eq!(config(&jetstream, "DEFAULT_SHOP").await.persist_mode, None);
    jetstream.delete_stream("DEFAULT_SHOP").await.expect("deleted by hand");
    ensure(&jetstream, "default", models, &quick).await.expect("made");
    assert_eq!(config(&jetstream, "DEFAULT_SHOP").await.persist_mode, Some(stream::PersistenceMode::Async));
    assert_eq!(config(&jetstream, "DEFAULT_DEAD_LETTERS").await.persist_mode, None);

    jetstream.delete_stream("DEFAULT_SHOP").await.expect("deleted by hand");
    ensure(&jetstream, "default", models, &settings).await.expect("made again");
    assert_eq!(jetstream.get_stream("DEFAULT_SHOP").await.expect("the stream").cached_info().state.messages, 0);

    a_scheduled_retry_comes_due(&jetstream).await;
    one_dead_letter_an_event(&jetstream).await;
}

async fn a_scheduled_retry_comes_due(jetstream: &Context) {
    let due = event::retry_due_subject("default", "svc", "1");
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Schedule", "@at 2020-01-01T00:00:00Z");
    headers.insert("Nats-Schedule-Target", due.as_str());
    let scheduled = event::retry_scheduled_subject("default", "svc", "1");
    jetstream.publish_with_headers(scheduled, headers, "retry".into()).await.expect("sent").await.expect("stored");
    let retries = jetstream.get_stream("DEFAULT_RETRIES").await.expect("the stream");
    let consumer = retries.create_consumer(pull::Config { filter_subject: due, ..pull::Config::default() }).await.expect("a consumer");
    let mut arrived = consumer.messages().await.expect("messages");
    let retry = arrived.next().await.expect("it comes due").expect("a message");
    assert_eq!(retry.payload, "retry");
}

async fn one_dead_letter_an_event(jetstream: &Context) {
    let subject = event::dead_letter_subject("default", "svc", "1");
    for text in ["first", "second"] {
        jetstream.publish(subject.clone(), text.into()).await.expect("sent").await.expect("stored");
    }
    let letters = jetstream.get_stream("DEFAULT_DEAD_LETTERS").await.expect("the stream");
    assert_eq!(letters.cached_info().state.messages, 1);
}
