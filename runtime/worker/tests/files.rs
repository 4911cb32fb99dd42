//! The files trigger against a real PostgreSQL, nats-server, API and relay.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod queue_support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use autonomy_crds::event::file_progress_subject;
use autonomy_crds::micro_service::{FileProgress, FileState};
use futures::StreamExt;
use queue_support::World;

#[test]
fn worker_process() {
    queue_support::worker_process();
}

/// A receipt is a sale and an accrual; its customer must be in the cache.
const LOADER: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: loader}
spec:
  trigger:
    files: {directory: DIRECTORY, pattern: 'sales-*.csv', csv: {trailer: '#END'}, groupBy: receipt, settle: 100ms, incompleteAfter: 1s, recordsPerRequest: 50}
  caches:
    - {name: customers, model: shop, entity: Customer, fields: [segment], indexes: [number]}
  steps:
    - {name: customer, lookup: {cache: customers, by: number, key: row.customer, onMissing: fail}}
    - {name: sale, create: {model: shop, entity: Sale, object: {total: 'sum(rows.map(r, decimal(r.amount)))', customerNumber: row.receipt}}}
    - {create: {model: shop, entity: Accrual, object: {saleId: sale.id, points: 'size(rows)', segment: customer.segment}}}
";

struct Inbox(PathBuf);

impl Inbox {
    fn new(folder: &Path) -> Self {
        let inbox = folder.join("in");
        fs::create_dir_all(&inbox).unwrap();
        Self(inbox)
    }

    fn service(&self) -> String {
        LOADER.replace("DIRECTORY", self.0.to_str().unwrap())
    }

    // As a careful sender does it.
    fn drop_file(&self, name: &str, text: &[u8]) {
        let temporary = self.0.join(format!("{name}.part"));
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.0.join(name)).unwrap();
    }

    fn names(&self, folder: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.0.join(folder)).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.') && name.contains('.'))
            .collect()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const GOOD: &[u8] = b"receipt,customer,amount\nr1,c1,1.10\nr1,c1,2.20\nr2,c1,5\nr3,c2,\"7.00\"\n#END,4\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_is_loaded_once_and_what_is_bad_is_told_by_line() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let inbox = Inbox::new(folder.path());
    let nats = world.jetstream().await.client();
    let mut told = nats.subscribe(file_progress_subject("default", "loader")).await.unwrap();
    nats.flush().await.unwrap();
    let (worker, operations) = world.worker(&inbox.service());
    world.ready(operations).await;
    // Committed just before the file is dropped: the caches are waited for.
    sqlx::raw_sql("INSERT INTO shop.customer(number, segment) VALUES ('c1', 'gold'), ('c2', 'iron')").execute(&world.pool).await.unwrap();
    inbox.drop_file("sales-1.csv", GOOD);
    world.until("the file is processed", || async { inbox.names("processed") == names(&["sales-1.csv"]) }).await;
    assert_eq!(world.count("SELECT count(*) FROM shop.sale").await, 3);
    assert_eq!(world.count("SELECT count(*) FROM shop.sale WHERE total = 3.30 AND customer_number = 'r1'").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual a JOIN shop.sale s ON s.id = a.sale_id WHERE a.segment = 'gold'").await, 2);

    // The same content again, under its own name and under another.
    inbox.drop_file("sales-1.csv", GOOD);
    inbox.drop_file("sales-2.csv", GOOD);
    inbox.drop_file("other.csv", GOOD);
    let processed = ["sales-1.csv", "sales-1.2.csv", "sales-1.2.csv.note.txt", "sales-2.csv", "sales-2.csv.note.txt"];
    world.until("repeated files are processed", || async { inbox.names("processed") == names(&processed) }).await;
    assert!(inbox.read("processed/sales-2.csv.note.txt").contains("loaded before, as sales-1.csv"));
    assert_eq!(world.count("SELECT count(*) FROM shop.sale").await, 3);

    // Bad rows: of a field too few, no number, not UTF-8, an unknown customer, an amount that the API refuses.
    let bad = b"receipt,customer,amount\nb1,c1,1\nb1,c1\nb2,c1,one\nb3,c1,\xFF\nb4,nobody,4\nb5,c2,99999999999999.00\nb6,c2,6.00\n#END,7\n";
    inbox.drop_file("sales-3.csv", bad);
    world.until("bad rows are told", || async { inbox.names("rejected") == names(&["sales-3.csv.rejects.csv"]) }).await;
    world.until("the rest is processed", || async { inbox.names("processed").contains("sales-3.csv") }).await;
    let rejects = inbox.read("rejected/sales-3.csv.rejects.csv");
    let lines: Vec<&str> = rejects.lines().collect();
    assert_eq!(lines[0], "line,reason,row");
    assert_eq!(lines[1], "2,line 3 of the same record is bad,\"b1,c1,1\"");
    assert_eq!(lines[2], "3,\"the row has 2 fields, the header has 3\",\"b1,c1\"");
    assert!(lines[3].starts_with("4,") && lines[3].contains("is no number") && lines[3].ends_with("\"b2,c1,one\""), "{}", lines[3]);
    assert_eq!(lines[4], "5,the row is not UTF-8,\"b3,c1,\u{FFFD}\"");
    assert!(lines[5].starts_with("6,") && lines[5].contains("no object in the cache customers"), "{}", lines[5]);
    assert!(lines[6].starts_with("7,") && lines[6].contains("/operations/0/object/total"), "{}", lines[6]);
    assert_eq!(lines.len(), 7, "{rejects}");
    assert_eq!(world.count("SELECT count(*) FROM shop.sale WHERE customer_number = 'b6'").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM shop.sale").await, 4);
    let end = FileProgress { file: "sales-3.csv".to_owned(), state: FileState::Processed, records: 6, loaded: 1, rejected: 5 };
    tokio::time::timeout(queue_support::PATIENCE, async {
        while serde_json::from_slice::<FileProgress>(&told.next().await.unwrap().payload).unwrap() != end {}
    })
    .await
    .expect("how far the file is was told");

    // Cut short, wrongly counted, without a header that fits, empty.
    inbox.drop_file("sales-4.csv", &GOOD[..GOOD.len() - 9]);
    inbox.drop_file("sales-5.csv", b"receipt,customer,amount\nx1,c1,1\n#END,2\n");
    inbox.drop_file("sales-6.csv", b"a,b\n1,2\n#END,1\n");
    inbox.drop_file("sales-7.csv", b"");
    let all = ["sales-3.csv.rejects.csv".to_owned()]
        .into_iter()
        .chain((4..8).flat_map(|n| [format!("sales-{n}.csv"), format!("sales-{n}.csv.reason.txt")]))
        .collect::<BTreeSet<String>>();
    world.until("unfit files are rejected", || async { inbox.names("rejected") == all }).await;
    assert!(inbox.read("rejected/sales-4.csv.reason.txt").contains("cut short"));
    assert!(inbox.read("rejected/sales-5.csv.reason.txt").contains("tells of 2 rows, the file has 1"));
    assert!(inbox.read("rejected/sales-6.csv.reason.txt").contains("no column receipt"));
    assert_eq!(world.count("SELECT count(*) FROM shop.sale").await, 4);

    // One that is being written is waited for.
    let path = inbox.0.join("sales-8.csv");
    let mut growing = fs::File::create(&path).unwrap();
    for part in [&b"receipt,customer,amount\n"[..], b"g1,c1,1\ng2,", b"c2,2\n", b"#END,2\n"] {
        growing.write_all(part).unwrap();
        growing.sync_all().unwrap();
        assert!(path.exists());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    drop(growing);
    world.until("the grown file is processed", || async { inbox.names("processed").contains("sales-8.csv") }).await;
    assert_eq!(world.count("SELECT count(*) FROM shop.sale").await, 6);
    assert_eq!(inbox.names("."), names(&["other.csv"]));

    let metrics = world.http.get(format!("http://{operations}/metrics")).send().await.unwrap().text().await.unwrap();
    for line in [
        "autonomy_worker_files_total{result=\"processed\"} 3",
        "autonomy_worker_files_total{result=\"repeated\"} 2",
        "autonomy_worker_files_total{result=\"rejected\"} 4",
        "autonomy_worker_file_records_total{result=\"loaded\"} 6",
        "autonomy_worker_file_records_total{result=\"rejected\"} 5",
        "autonomy_worker_file_rejected_rows_total 6",
        "autonomy_worker_file_duration_seconds_count 9",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    worker.stop().await;
}

/// Loads sales, written in another way each.
const OTHER_FORMATS: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: loader-NAME}
spec:
  trigger: {files: {directory: DIRECTORY, settle: 100ms, incompleteAfter: 1s, FORMAT}}
  steps: [{create: {model: shop, entity: Sale, object: {total: TOTAL, customerNumber: NUMBER}}}]
";

// A service, and a file for it with two good records and a bad one.
struct Case<'a> {
    name: &'a str,
    format: &'a str,
    total: &'a str,
    number: &'a str,
    file: &'a str,
    content: &'a [u8],
    // How the bad one's line in the reject file begins.
    reject: &'a str,
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

// `A1`, `B2` with -12.34 packed, and one that is no number; code page 273.
const RECORDS: &[u8] = b"\xC1\xF1\x01\x23\x4C\xC2\xF2\x01\x23\x4D\xC3\xF3\x40\x00\x00";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_formats_are_loaded_too_and_their_bad_rows_told() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let zipped = zip(&[("in/a.csv", b"number,total\nz1,12.34\nz2\n"), ("readme", b"-"), ("in/b.csv", b"number,total\nz3,-12.34\n")]);
    let document =
        gzip(b"{\"day\": {\"sales\": [{\"n\": \"j1\", \"t\": 12.34},\n{\"n\": \"j2\", \"t\": \"x\"}, {\"n\": \"j3\", \"t\": -12.34}]}}");
    let xml = b"<?xml version='1.0' encoding='iso-8859-15'?><day><sale n='x\xA4'><t>12.34</t></sale>\n<sale n='x2'/><sale n='x3'><t>-12.34</t></sale></day>";
    let cases = [
        Case {
            name: "ndjson",
            format: "ndjson: {}, groupBy: 'n'",
            total: "'sum(rows.map(r, r.t))'",
            number: "row.n",
            file: "s.ndjson",
            content: b"{\"n\": \"n1\", \"t\": 10}\n{\"n\": \"n1\", \"t\": 2.34}\n{\"n\": }\n{\"n\": \"n3\", \"t\": -12.34}\n",
            reject: "3,",
        },
        Case {
            name: "json",
            format: "pattern: '*.json', json: {records: /day/sales}",
            total: "row.t",
            number: "row.n",
            file: "s.json.gz",
            content: &document,
            reject: "2,",
        },
        Case {
            name: "xml",
            format: "xml: {record: sale}",
            total: "decimal(row.t)",
            number: "\"row['@n']\"",
            file: "s.xml",
            content: xml,
            reject: "2,",
        },
        Case {
            name: "as400",
            format: "encoding: ibm273, fixedWidth: {recordLength: 5, fields: [{name: number, start: 1, length: 2}, \
                     {name: amount, start: 3, length: 3, type: packed, scale: 2}]}",
            total: "row.amount",
            number: "row.number",
            file: "s.dat",
            content: RECORDS,
            reject: "3,amount: 400000 is no packed decimal,C3F3400000",
        },
        Case {
            name: "zip",
            format: "pattern: '{*.zip,*.csv}'",
            total: "decimal(row.total)",
            number: "row.number",
            file: "s.zip",
            content: &zipped,
            reject: "3,\"a.csv: the row has 1 fields",
        },
    ];
    let mut workers = Vec::new();
    for Case { name, format, total, number, file, content, reject } in cases {
        let inbox = Inbox::new(&folder.path().join(name));
        let service = OTHER_FORMATS.replace("NAME", name).replace("FORMAT", format).replace("TOTAL", total).replace("NUMBER", number);
        let (worker, _) = world.worker(&service.replace("DIRECTORY", inbox.0.to_str().unwrap()));
        inbox.drop_file(file, content);
        workers.push((worker, inbox, file, reject, content));
    }
    for (_, inbox, file, reject, content) in &workers {
        world.until("the file is processed", || async { inbox.names("processed").contains(*file) }).await;
        let rejects = inbox.read(&format!("rejected/{file}.rejects.csv"));
        let lines: Vec<&str> = rejects.lines().skip(1).collect();
        assert!(lines.len() == 1 && lines[0].starts_with(reject), "{file}: {rejects}");
        // Cut short in the middle: nothing of it is loaded. Of NDJSON it would be a bad row.
        if *file != "s.ndjson" {
            inbox.drop_file(&format!("cut.{file}"), &content[..content.len() - 3]);
        }
    }
    assert_eq!(world.count("SELECT count(*) FROM shop.sale WHERE total = 12.34").await, 5);
    assert_eq!(world.count("SELECT count(*) FROM shop.sale WHERE total = -12.34").await, 5);
    assert_eq!(world.count("SELECT count(*) FROM shop.sale WHERE customer_number IN ('n1', 'j3', 'x€', 'B2', 'z3')").await, 5);
    for (worker, inbox, file, ..) in workers {
        if file != "s.ndjson" {
            let reason = format!("rejected/cut.{file}.reason.txt");
            world.until("the cut file is rejected", || async { inbox.0.join(&reason).exists() }).await;
            assert!(inbox.read(&reason).contains("cut short"), "{}", inbox.read(&reason));
        }
        worker.stop().await;
    }
    assert_eq!(world.count("SELECT count(*) FROM shop.sale").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_in_the_middle_and_two_workers_do_no_harm() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let inbox = Inbox::new(folder.path());
    sqlx::raw_sql("INSERT INTO shop.customer(number, segment) VALUES ('c1', 'gold')").execute(&world.pool).await.unwrap();
    let mut text = String::from("receipt,customer,amount\n");
    let receipts = 4000;
    for n in 0..receipts {
        let customer = if n % 100 == 7 { "nobody" } else { "c1" };
        text.push_str(&format!("r{n},{customer},1.10\nr{n},{customer},2.20\n"));
    }
    text.push_str(&format!("#END,{}\n", receipts * 2));
    inbox.drop_file("sales-1.csv", text.as_bytes());
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
    // Two workers on one directory, and the same content twice more.
    inbox.drop_file("sales-2.csv", text.as_bytes());
    let service = inbox.service();
    let (one, _) = world.worker(&service);
    let (other, _) = world.worker(&service);
    inbox.drop_file("sales-3.csv", text.as_bytes());
    world
        .until("all is processed", || async {
            let processed = inbox.names("processed");
            ["sales-1.csv", "sales-2.csv", "sales-3.csv"].iter().all(|name| processed.contains(*name)) && inbox.names(".").is_empty()
        })
        .await;
    one.stop().await;
    other.stop().await;
    assert_eq!(world.count(sales).await, i64::from(good));
    assert_eq!(world.count("SELECT count(*) FROM shop.accrual").await, i64::from(good));
    assert_eq!(world.count("SELECT count(DISTINCT customer_number) FROM shop.sale WHERE total = 3.30").await, i64::from(good));
    // The rejects are told once, and all of them; the other two are repetitions.
    let rejected: Vec<String> = inbox.names("rejected").into_iter().collect();
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert_eq!(inbox.read(&format!("rejected/{}", rejected[0])).lines().count() as i32, 1 + receipts / 100 * 2);
    assert_eq!(inbox.names("processed").iter().filter(|name| name.ends_with(".note.txt")).count(), 2);
}
