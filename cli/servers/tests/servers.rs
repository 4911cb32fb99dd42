//! Real servers: started, killed, started again on the same data, stopped.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use autonomy_servers::{Child, Nats, NatsOptions, Postgres, PostgresOptions, ServerError};
use futures::StreamExt;
use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection};

#[tokio::test]
async fn postgresql_keeps_what_was_committed_through_a_kill_and_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let options = PostgresOptions::new(folder.path().join("postgresql"));
    let server = Postgres::start(options.clone()).await.unwrap();
    let mut connection = PgConnection::connect(&server.url("postgres")).await.unwrap();
    let setting = |name: &'static str| sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(name);
    assert_eq!(setting("wal_level").fetch_one(&mut connection).await.unwrap(), "logical");
    assert_eq!(setting("fsync").fetch_one(&mut connection).await.unwrap(), "on");
    sqlx::raw_sql("CREATE TABLE kept(n int); INSERT INTO kept VALUES (1)").execute(&mut connection).await.unwrap();

    let port = server.port();
    server.kill();
    assert!(!server.wait_exit().await.success());
    let server = Postgres::start(PostgresOptions { port: Some(port), ..options.clone() }).await.unwrap();
    let mut connection = PgConnection::connect(&server.url("postgres")).await.unwrap();
    sqlx::raw_sql("INSERT INTO kept VALUES (2)").execute(&mut connection).await.unwrap();
    assert!(server.stop().await.success());

    let server = Postgres::start(options).await.unwrap();
    let mut connection = PgConnection::connect(&server.url("postgres")).await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(&mut connection).await.unwrap();
    assert_eq!(count, 2);
    let mode = std::fs::metadata(folder.path().join("postgresql/password")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn postgresql_that_does_not_start_tells_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let options = PostgresOptions {
        settings: vec![("shared_buffers".to_owned(), "many".to_owned())],
        ..PostgresOptions::new(folder.path().join("postgresql"))
    };
    let error = Postgres::start(options).await.unwrap_err();
    assert!(matches!(&error, ServerError::Ended { tail, .. } if tail.contains("shared_buffers")), "{error}");
}

#[tokio::test]
async fn nats_keeps_its_streams_through_a_kill_and_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let options = NatsOptions { sync_interval: Duration::from_millis(100), ..NatsOptions::new(folder.path().join("nats server")) };
    let server = Nats::start(options.clone()).await.unwrap();
    let jetstream = async_nats::jetstream::new(server.connect().await.unwrap());
    let config =
        async_nats::jetstream::stream::Config { name: "KEPT".to_owned(), subjects: vec!["kept.>".to_owned()], ..Default::default() };
    jetstream.create_stream(config).await.unwrap();
    jetstream.publish("kept.one", "1".into()).await.unwrap().await.unwrap();

    let port = server.port();
    server.kill();
    server.wait_exit().await;
    let server = Nats::start(NatsOptions { port: Some(port), ..options.clone() }).await.unwrap();
    assert_eq!(server.port(), port);
    jetstream.publish("kept.two", "2".into()).await.unwrap().await.unwrap();
    server.stop().await;

    let server = Nats::start(options).await.unwrap();
    let jetstream = async_nats::jetstream::new(server.connect().await.unwrap());
    let mut stream = jetstream.get_stream("KEPT").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 2);
    let anonymous = format!("nats://127.0.0.1:{}", server.port());
    assert!(async_nats::connect(anonymous).await.is_err());
}

// A process of its own starts servers, is killed with SIGKILL, and nothing stays.
#[tokio::test]
async fn servers_end_with_the_process_that_started_them() {
    if std::env::var_os("AUTONOMY_TEST_PARENT").is_some() {
        return; // The helper below is meant.
    }
    let folder = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap());
    parent.args(["--exact", "helper_that_starts_servers", "--nocapture", "--ignored"]).env("AUTONOMY_TEST_PARENT", folder.path());
    let parent = Child::spawn(parent, Signal::SIGKILL).unwrap();
    let pids = folder.path().join("pids");
    let text = until(|| std::fs::read_to_string(&pids).ok().filter(|text| text.ends_with('\n'))).await;
    parent.signal(Signal::SIGKILL);
    parent.wait_exit().await;
    for pid in text.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()) {
        until(|| (!alive(pid)).then_some(())).await;
    }
}

#[tokio::test]
#[ignore = "a helper of servers_end_with_the_process_that_started_them"]
async fn helper_that_starts_servers() {
    let Some(folder) = std::env::var_os("AUTONOMY_TEST_PARENT").map(std::path::PathBuf::from) else { return };
    let postgres = Postgres::start(PostgresOptions::new(folder.join("postgresql"))).await.unwrap();
    let nats = Nats::start(NatsOptions::new(folder.join("nats"))).await.unwrap();
    std::fs::write(folder.join("pids"), format!("{} {}\n", postgres.pid(), nats.pid())).unwrap();
    futures::stream::pending::<()>().next().await;
}

// A zombie has ended.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("did not come within 60 s")
}
