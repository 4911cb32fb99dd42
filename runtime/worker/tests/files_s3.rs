//! The files trigger on a bucket: a real S3 server, PostgreSQL, nats-server, API and relay.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod queue_support;

use std::collections::BTreeSet;
use std::sync::Arc;

use autonomy_crds::micro_service::S3Location;
use autonomy_process::object_storage::{self, bucket};
use autonomy_servers::{S3Options, S3Server};
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AwsCredential};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, StaticCredentialProvider};
use queue_support::World;

#[test]
fn worker_process() {
    queue_support::worker_process();
}

const LOADER: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: loader}
spec:
  trigger:
    files:
      s3: {bucket: stores, prefix: in, endpoint: 'ENDPOINT', pollInterval: 1s, accessKeyIdFrom: {secretName: s3, key: id}, secretAccessKeyFrom: {secretName: s3, key: secret}}
      pattern: 'sales-*.csv'
      csv: {trailer: '#END'}
      groupBy: receipt
      settle: 100ms
      incompleteAfter: 2s
      recordsPerRequest: 50
  caches:
    - {name: customers, model: shop, entity: Customer, fields: [segment], indexes: [number]}
  steps:
    - {name: customer, lookup: {cache: customers, by: number, key: row.customer, onMissing: fail}}
    - {name: sale, create: {model: shop, entity: Sale, object: {total: 'sum(rows.map(r, decimal(r.amount)))', customerNumber: row.receipt}}}
    - {create: {model: shop, entity: Accrual, object: {saleId: sale.id, points: 'size(rows)', segment: customer.segment}}}
";

struct Inbox {
    server: S3Server,
    store: AmazonS3,
    _folder: tempfile::TempDir,
}

impl Inbox {
    async fn start(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = S3Options { folder: folder.path().join("s3"), port: None, buckets: vec!["stores".to_owned()] };
        let server = S3Server::start(options).await.unwrap();
        let (key_id, secret_key) = (server.access_key_id().to_owned(), server.secret_access_key().to_owned());
        let secrets = world.secrets_dir().join("s3");
        std::fs::create_dir_all(&secrets).unwrap();
        std::fs::write(secrets.join("id"), &key_id).unwrap();
        std::fs::write(secrets.join("secret"), &secret_key).unwrap();
        let location = location(&server);
        let credentials = StaticCredentialProvider::new(AwsCredential { key_id, secret_key, token: None });
        let store = bucket(&location, Some(Arc::new(credentials))).unwrap();
        Self { server, store, _folder: folder }
    }

    // As the operator looks at it, which loads nothing.
    async fn waiting(&self) -> u64 {
        let key = (self.server.access_key_id().to_owned(), self.server.secret_access_key().to_owned());
        let location = S3Location { prefix: "in/".to_owned(), ..location(&self.server) };
        object_storage::Inbox::new(&location, "sales-*.csv", Some(key)).unwrap().waiting().await.unwrap()
    }

    fn service(&self) -> String {
        LOADER.replace("ENDPOINT", &self.server.endpoint())
    }

    async fn put(&self, name: &str, content: &[u8]) {
        self.store.put(&Path::parse(format!("in/{name}")).unwrap(), content.to_vec().into()).await.unwrap();
    }

    // Those that are not hidden, below a folder; without those below further ones.
    async fn names(&self, folder: &str) -> BTreeSet<String> {
        let prefix = Path::parse(format!("in/{folder}")).unwrap();
        let listed = self.store.list_with_delimiter(Some(&prefix)).await.unwrap();
        listed.objects.iter().filter_map(|object| object.location.filename()).map(str::to_owned).collect()
    }

    async fn read(&self, name: &str) -> String {
        self.text(&format!("in/{name}")).await
    }

    async fn text(&self, key: &str) -> String {
        let object = self.store.get(&Path::parse(key).unwrap()).await.unwrap();
        String::from_utf8(object.bytes().await.unwrap().to_vec()).unwrap()
    }

    async fn count_below(&self, folder: &str) -> usize {
        self.below(&format!("in/{folder}")).await.len()
    }

    async fn below(&self, folder: &str) -> Vec<object_store::ObjectMeta> {
        self.store.list(Some(&Path::parse(folder).unwrap())).try_collect().await.unwrap()
    }
}

fn location(server: &S3Server) -> S3Location {
    S3Location { bucket: "stores".to_owned(), endpoint: Some(server.endpoint()), region: "us-east-1".to_owned(), ..S3Location::default() }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const GOOD: &[u8] = b"receipt,customer,amount\nr1,c1,1.10\nr1,c1,2.20\nr2,c1,5\nr3,c2,\"7.00\"\n#END,4\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_loaded_as_a_directory_is() {
    let world = World::start().await;
    let inbox = Inbox::start(&world).await;
    assert_eq!(inbox.waiting().await, 0);
    sqlx::raw_sql("INSERT INTO shop.customer(number, segment) VALUES ('c1', 'gold'), ('c2', 'iron')").execute(&world.pool).await.unwrap();
    inbox.put("sales-1.csv", GOOD).await;
    inbox.put("sales-1.csv.part", GOOD).await;
    assert_eq!(inbox.waiting().await, 1);
    let (worker, operations) = world.worker(&inbox.service());
    world.ready(operations).await;
    world.until("the object is processed", || async { inbox.names("processed").await == names(&["sales-1.csv"]) }).await;
    assert_eq!(world.count("SELECT count(*) FROM shop.sale").await, 3);
    assert_eq!(world.count("SELECT count(*) FROM shop.sale WHERE total = 3.30 AND customer_number = 'r1'").await, 1);

    // The same content again, under its own name and under another.
    inbox.put("sales-1.csv", GOOD).await;
    inbox.put("sales-2.csv", GOOD).await;
    inbox.put("other.csv", GOOD).await;
    let processed = ["sales-1.csv", "sales-1.2.csv", "sales-1.2.csv.note.txt", "sales-2.csv", "sales-2.csv.note.txt"];
    world.until("repeated objects are processed", || async { inbox.names("processed").await == names(&processed) }).await;
    assert!(inbox.read("processed/sales-2.csv.note.txt").await.contains("loaded before, as sales-1.csv"));
    assert_eq!(world.count("SELECT count(*) FROM shop.sale").await, 3);

    let bad = b"receipt,customer,amount\nb1,c1,1\nb2,c1,one\nb3,nobody,4\n#END,3\n";
    inbox.put("sales-3.csv", bad).await;
    world.until("bad rows are told", || async { inbox.names("rejected").await == names(&["sales-3.csv.rejects.csv"]) }).await;
    world.until("the rest is processed", || async { inbox.names("processed").await.contains("sales-3.csv") }).await;
    assert_eq!(inbox.read("rejected/sales-3.csv.rejects.csv").await.lines().count(), 3);
    assert_eq!(world.count("SELECT count(*) FROM shop.sale").await, 4);

    inbox.put("sales-4.csv", &GOOD[..GOOD.len() - 9]).await;
    inbox.put("sales-5.csv", b"receipt,customer,amount\nx1,c1,1\n#END,2\n").await;
    let rejected = ["sales-3.csv.rejects.csv", "sales-4.csv", "sales-4.csv.reason.txt", "sales-5.csv", "sales-5.csv.reason.txt"];
    world.until("unfit objects are rejected", || async { inbox.names("rejected").await == names(&rejected) }).await;
    assert!(inbox.read("rejected/sales-4.csv.reason.txt").await.contains("cut short"));
    world.until("only the other files wait", || async { inbox.names("").await == names(&["other.csv", "sales-1.csv.part"]) }).await;
    assert_eq!(inbox.waiting().await, 0);
    assert_eq!(inbox.count_below("processed/.moves").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_in_the_middle_and_two_workers_do_no_harm_in_a_bucket() {
    let world = World::start().await;
    let inbox = Inbox::start(&world).await;
    sqlx::raw_sql("INSERT INTO shop.customer(number, segment) VALUES ('c1', 'gold')").execute(&world.pool).await.unwrap();
    let mut text = String::from("receipt,customer,amount\n");
    let receipts = 4000;
    for n in 0..receipts {
        let customer = if n % 100 == 7 { "nobody" } else { "c1" };
        text.push_str(&format!("r{n},{customer},1.10\nr{n},{customer},2.20\n"));
    }
    text.push_str(&format!("#END,{}\n", receipts * 2));
    inbox.put("sales-1.csv", text.as_bytes()).await;
    let good = receipts - receipts / 100;
    let sales = "SELECT count(*) FROM shop.sale";
    for kill in 1..=4 {
        let worker = world.worker_process(&inbox.service());
        let before = world.count(sales).await;
        let step = i64::from(good) / 8;
        world.until("work is in the middle", || async { world.count(sales).await >= (before + step).min(i64::from(good)) }).await;
        worker.signal(nix::sys::signal::Signal::SIGKILL);
        worker.wait_exit().await;
        println!("kill {kill}: {} sales", world.count(sales).await);
    }
    // Two workers on one bucket, and the same content twice more.
    inbox.put("sales-2.csv", text.as_bytes()).await;
    let service = inbox.service();
    let (one, _) = world.worker(&service);
    let (other, _) = world.worker(&service);
    inbox.put("sales-3.csv", text.as_bytes()).await;
    world
        .until("all is processed", || async {
            let processed = inbox.names("processed").await;
            ["sales-1.csv", "sales-2.csv", "sales-3.csv"].iter().all(|name| processed.contains(*name)) && inbox.names("").await.is_empty()
        })
        .await;
    one.stop().await;
    other.stop().await;
    assert_eq!(world.count(sales).await, i64::from(good));
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual").await, i64::from(good));
    assert_eq!(world.count("SELECT count(DISTINCT customer_number) FROM shop.sale WHERE total = 3.30").await, i64::from(good));
    let rejected: Vec<String> = inbox.names("rejected").await.into_iter().collect();
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert_eq!(inbox.read(&format!("rejected/{}", rejected[0])).await.lines().count() as i32, 1 + receipts / 100 * 2);
    assert_eq!(inbox.names("processed").await.iter().filter(|name| name.ends_with(".note.txt")).count(), 2);
    assert_eq!(inbox.count_below("processed/.moves").await, 0);
}

const EXPORT: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: export}
spec:
  trigger: {queue: {model: shop, entity: Sale}}
  steps:
    - name: file
      putObject:
        s3: {bucket: stores, prefix: out, endpoint: 'ENDPOINT', accessKeyIdFrom: {secretName: s3, key: id}, secretAccessKeyFrom: {secretName: s3, key: secret}}
        key: \"'sale-' + object.customerNumber + '.csv'\"
        document:
          rows: '[object, object]'
          csv: {delimiter: ';', columns: [{name: number, value: item.customerNumber}, {name: 'a;b', value: index}, {name: total, value: item.total}]}
    - {create: {model: shop, entity: Accrual, object: {saleId: object.id, points: file.rows, segment: file.key}}}
  retry: {maxAttempts: 50, initialBackoff: 100ms, maxBackoff: 200ms}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_is_put_into_a_bucket_once_and_nothing_is_replaced() {
    let world = World::start().await;
    let inbox = Inbox::start(&world).await;
    // A key that somebody else has.
    inbox.store.put(&Path::parse("out/sale-taken.csv").unwrap(), "theirs".into()).await.unwrap();
    let sell = "INSERT INTO shop.sale(total, customer_number) SELECT n + 0.10, 'c' || n FROM generate_series(1, 40) n";
    sqlx::raw_sql(sell).execute(&world.pool).await.unwrap();
    sqlx::raw_sql("INSERT INTO shop.sale(total, customer_number) VALUES (1, 'taken')").execute(&world.pool).await.unwrap();
    let service = EXPORT.replace("ENDPOINT", &inbox.server.endpoint());
    // Killed in the middle: an object that is there is found again, and its effects are committed.
    for put in [5, 20] {
        let worker = world.worker_process(&service);
        world.until("some are put", || async { inbox.below("out").await.len() > put }).await;
        worker.signal(nix::sys::signal::Signal::SIGKILL);
        worker.wait_exit().await;
    }
    let worker = world.worker_process(&service);
    world.until_count("SELECT count(*) FROM shop.accrual", 40).await;
    world.until("the other one is a dead letter", || async { world.messages("DEFAULT_DEAD_LETTERS").await == 1 }).await;
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual WHERE points = 2 AND segment LIKE 'out/sale-c%.csv'").await, 40);
    assert_eq!(inbox.below("out").await.len(), 41);
    assert_eq!(inbox.text("out/sale-c7.csv").await, "number;\"a;b\";total\r\nc7;0;7.10\r\nc7;1;7.10\r\n");
    assert_eq!(inbox.text("out/sale-taken.csv").await, "theirs");
    drop(worker);
}
