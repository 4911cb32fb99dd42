//! Bodies compressed with gzip and zstd, both ways.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::Api;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut decoded).unwrap();
    decoded
}

fn products(count: usize) -> Vec<u8> {
    let list: Vec<Value> = (0..count).map(|number| json!({"title": format!("Product {number}")})).collect();
    serde_json::to_vec(&list).unwrap()
}

async fn post(api: &Api, coding: &str, body: Vec<u8>) -> Response {
    let request = autonomy_process::http_client::new().post(format!("{}/api/shop/products", api.base)).header("prefer", "return=minimal");
    request.header("content-type", "application/json").header("content-encoding", coding).body(body).send().await.expect("an answer")
}

#[tokio::test]
async fn bodies_come_compressed() {
    let api = Api::start().await;
    for (coding, body) in
        [("gzip", gzip(&products(1000))), ("zstd", zstd::bulk::compress(&products(1000), 1).unwrap()), ("identity", products(1000))]
    {
        let answer = post(&api, coding, body).await;
        assert_eq!(answer.status(), 201, "{coding}: {}", answer.text().await.unwrap());
        assert_eq!(api.number("SELECT count(*) FROM shop.product").await, 1000, "{coding}");
        api.execute("DELETE FROM shop.product").await;
    }
}

#[tokio::test]
async fn what_is_not_coded_as_it_says_is_refused() {
    let api = Api::start().await;
    let mut cut = gzip(&products(1000));
    cut.truncate(cut.len() / 2);
    for (coding, body, status, word) in [
        ("gzip", b"[{\"title\":\"plain\"}]".to_vec(), 400, "Content-Encoding"),
        ("gzip", cut, 400, "Content-Encoding"),
        ("br", products(1), 415, "br; gzip and zstd"),
        ("gzip, gzip", gzip(&gzip(&products(1))), 415, "gzip, gzip"),
    ] {
        let answer = post(&api, coding, body).await;
        assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (status, "application/problem+json"));
        let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
    }
    assert_eq!(api.number("SELECT count(*) FROM shop.product").await, 0);

    let id = api.make("/api/shop/products", json!({"title": "Tea"})).await;
    for media_type in ["application/merge-patch+json", "application/json-patch+json"] {
        let headers = [("content-type", media_type), ("content-encoding", "br")];
        let answer = api.send(Method::PATCH, &format!("/api/shop/products/{id}"), &headers, Some("[]".to_owned())).await.expect(415);
        assert!(answer.json()["type"].as_str().unwrap().ends_with("/unsupported-content-encoding"), "{media_type}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_small_body_that_grows_without_end_is_refused() {
    let api = Api::start().await;
    // The tests' API takes 4 MiB.
    let answer = post(&api, "gzip", gzip(&vec![b' '; 64 << 20])).await;
    assert_eq!(answer.status(), 413);
    let answer = post(&api, "zstd", zstd::bulk::compress(&vec![b' '; 64 << 20], 1).unwrap()).await;
    assert_eq!(answer.status(), 413);
}

#[tokio::test]
async fn answers_are_compressed_where_they_are_asked_for() {
    let api = Api::start().await;
    post(&api, "identity", products(500)).await;
    let plain = api.get("/api/shop/products?limit=500").await.expect(200).text;
    for accept in ["application/json", "application/x-ndjson"] {
        let get = |coding: &'static str| {
            let request = autonomy_process::http_client::new().get(format!("{}/api/shop/products?limit=500", api.base));
            request.header("accept", accept).header("accept-encoding", coding).send()
        };
        let answer = get("gzip").await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        assert!(answer.headers()["vary"].to_str().unwrap().contains("accept-encoding"));
        let gzipped = gunzip(&answer.bytes().await.unwrap());
        let answer = get("br, zstd;q=0.9").await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], "zstd");
        let decoded = zstd::decode_all(&*answer.bytes().await.unwrap()).unwrap();
        assert_eq!(gzipped, decoded);
        assert!(gzipped.len() > 30_000);
        if accept == "application/json" {
            assert_eq!(gzipped, plain.as_bytes());
        }
    }
}
