//! How fast a cache is loaded: objects as the API writes them, over HTTP on this machine, into a store with two indexes.
//!
//! `bench/caches/run [OBJECTS]`. The sender is a web server in this process with the answer ready in memory, so that what is measured is the
//! worker's own reading; "in memory" leaves HTTP out too.

use std::convert::Infallible;
use std::time::Instant;

use autonomy_bench::measure::resident;
use autonomy_worker::caches::{Store, read_snapshot};
use autonomy_worker::rehearsal;
use axum::body::{Body, Bytes};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHOP: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  entities:
    - name: Customer
      attributes:
        - {name: number, type: string, required: true}
        - {name: name, type: string}
        - {name: phone, type: string}
        - {name: balance, type: decimal, precision: 12, scale: 2}
---
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: s}
spec:
  trigger: {queue: {model: shop, entity: Customer}}
  caches: [{name: customers, model: shop, entity: Customer, fields: [name, balance], indexes: [number], CACHE}]
  steps: [{stop: {}}]
";

type Failure = Box<dyn std::error::Error>;

fn line(n: u32) -> String {
    let id = format!("{:08x}-0000-7000-8000-{:012x}", n.wrapping_mul(0x9E37_79B9), n);
    format!(
        "{{\"id\":\"{id}\",\"number\":\"C{n:07}\",\"name\":\"Customer number {n}\",\"phone\":\"+31 20 {n:07}\",\"balance\":{}.{:02}}}\n",
        n % 1000,
        n % 100
    )
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let objects: u32 = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut piece = Vec::new();
    for n in 0..objects {
        piece.extend_from_slice(line(n).as_bytes());
        if piece.len() > 64 << 10 {
            pieces.push(std::mem::take(&mut piece).into());
        }
    }
    pieces.push(piece.into());
    let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();

    let sent = pieces.clone();
    let answer = move || {
        let stream = futures::stream::iter(sent.clone().into_iter().map(Ok::<_, Infallible>));
        async { ([("autonomy-position", "0000000000000001")], Body::from_stream(stream)) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let router = axum::Router::new().route("/api/shop/customers", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });

    println!(
        "| cache of {objects} objects, {} bytes of JSON each | objects/s | bytes an object over its JSON |\n|---|---|---|",
        all.len() / objects as usize
    );
    let kinds = [
        ("two indexes", "namedIndexes: [{name: balances, members: [balance]}]"),
        ("an index, and one of telephone numbers made alike", "namedIndexes: [{name: phones, members: [phone], normalize: phone}]"),
        ("two indexes and a filter", "namedIndexes: [{name: names, members: [name]}], filter: object.balance >= 0.00"),
        ("an index, and one with a key in CEL", "namedIndexes: [{name: initials, key: 'substring(object.number, 0, 5)'}]"),
    ];
    for (what, declared) in kinds {
        let cache = rehearsal::compile(&SHOP.replace("CACHE", declared))?.caches[0].clone();
        let before = resident_bytes();
        let mut store = Store::new(cache.clone());
        let begun = Instant::now();
        all.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).try_for_each(|line| store.take_line(line))?;
        report(&format!("{what}, in memory"), objects, begun, &store, before);
        drop(store);
        let mut store = Store::new(cache.clone());
        let before = resident_bytes();
        let begun = Instant::now();
        read_snapshot(&autonomy_process::http_client::new(), &url, &cache, &mut store).await?;
        report(&format!("{what}, over HTTP"), objects, begun, &store, before);
    }
    Ok(())
}

fn resident_bytes() -> usize {
    (resident(std::process::id()) * f64::from(1 << 20)) as usize
}

fn report(what: &str, objects: u32, begun: Instant, store: &Store, before: usize) {
    let rate = f64::from(objects) / begun.elapsed().as_secs_f64();
    let over = (store.memory() - store.bytes()) as f64 / f64::from(objects);
    let resident = resident_bytes().saturating_sub(before).saturating_sub(store.bytes()) as f64 / f64::from(objects);
    assert_eq!(store.len(), objects as usize, "{what}");
    println!("| {what} | {rate:.0} | {over:.0} (resident: {resident:.0}) |");
}
