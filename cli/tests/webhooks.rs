//! Webhooks in local mode: signed CloudEvents, tried again, kept as dead letters.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

mod support;
use support::{Local, until};

const MODEL: &str = r#"
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: clinic}
spec:
  entities:
    - name: Patient
      plural: Patients
      attributes:
        - {name: name, type: string, required: true, maxLength: 80}
        - {name: weight, type: decimal, precision: 20, scale: 15}
WEBHOOKS"#;

const WEBHOOKS: &str = r#"
  webhooks:
    - name: registry
      entity: Patient
      operations: [created, updated]
      filter: object.name != 'Nobody'
      url: http://ADDRESS/patients
      signingSecretFrom: {secretName: registry, key: signing}
      retry: {maxAttempts: 3, initialBackoff: 50ms, maxBackoff: 100ms}
      circuitBreaker: {failures: 100, openFor: 1s}
"#;

fn write(folder: &Path, webhooks: &str) {
    std::fs::create_dir_all(folder.join("yaml")).unwrap();
    std::fs::write(folder.join("yaml/clinic.yaml"), MODEL.replace("WEBHOOKS", webhooks)).unwrap();
}

type Heard = Arc<Mutex<Vec<(HeaderMap, Vec<u8>)>>>;

// Refuses the first delivery for now, and whoever is named Refused for good.
async fn receiver() -> (String, Heard) {
    let heard = Heard::default();
    let hearing = heard.clone();
    let router = Router::new().route(
        "/patients",
        post(move |headers: HeaderMap, body: axum::body::Bytes| async move {
            let mut heard = hearing.lock().unwrap();
            heard.push((headers, body.to_vec()));
            match heard.len() {
                1 => StatusCode::SERVICE_UNAVAILABLE,
                _ if String::from_utf8_lossy(&body).contains("Refused") => StatusCode::UNPROCESSABLE_ENTITY,
                _ => StatusCode::ACCEPTED,
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, heard)
}

fn signature(secret: &[u8], headers: &HeaderMap, body: &[u8]) -> String {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(format!("{}.{}.", text("webhook-id"), text("webhook-timestamp")).as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_gets_signed_events_again_until_it_takes_them_and_what_it_refuses_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (address, heard) = receiver().await;
    write(folder, "");
    let mut local = Local::start(folder, &[]).await;
    let secrets = local.data_dir.join("secrets/registry");
    std::fs::create_dir_all(&secrets).unwrap();
    std::fs::write(secrets.join("signing"), format!("whsec_{}\n", BASE64.encode("new secret"))).unwrap();
    let (status, _) = local.post("/api/clinic/patients", json!({"name": "Before"})).await;
    assert_eq!(status, 201);

    // A fault of its own is told as the DataModel's.
    write(folder, &WEBHOOKS.replace("ADDRESS", &address).replace("object.name", "object.title"));
    local.wait_for("DataModel clinic: spec.webhooks[0].filter").await;
    write(folder, &WEBHOOKS.replace("ADDRESS", &address));
    local.wait_for("service clinic-webhook-registry is started").await;

    let exact = r#"{"name": "Ada", "weight": 71.123456789012345}"#;
    let client = autonomy_process::http_client::new();
    let answer = client
        .post(format!("{}/api/clinic/patients", local.api))
        .header("content-type", "application/json")
        .body(exact)
        .send()
        .await
        .unwrap();
    let ada: Value = answer.json().await.unwrap();
    until("a second attempt", || async { (heard.lock().unwrap().len() >= 2).then_some(()) }).await;
    for name in ["Nobody", "Refused"] {
        assert_eq!(local.post("/api/clinic/patients", json!({"name": name})).await.0, 201);
    }
    let path = format!("{}/api/clinic/patients/{}", local.api, ada["id"].as_str().unwrap());
    let patch = client.patch(&path).header("content-type", "application/merge-patch+json").body(r#"{"name": "Ada L."}"#);
    assert_eq!(patch.send().await.unwrap().status(), 200);
    assert_eq!(client.delete(&path).send().await.unwrap().status(), 204);
    until("four deliveries", || async { (heard.lock().unwrap().len() >= 4).then_some(()) }).await;

    let dead = until("a dead letter", || async {
        let listed = Command::new(env!("CARGO_BIN_EXE_autonomy"))
            .args(["dead-letters", "list", "-o", "json", "--data-dir"])
            .arg(&local.data_dir)
            .env_remove("AUTONOMY_NATS_URL")
            .output()
            .unwrap();
        let letter: Value = serde_json::from_str(String::from_utf8_lossy(&listed.stdout).lines().next()?).unwrap();
        Some(letter)
    })
    .await;
    assert_eq!(dead["service"], "clinic-webhook-registry");
    assert!(dead["error"].as_str().unwrap().contains("422"), "{dead}");

    let heard = heard.lock().unwrap().clone();
    let events: Vec<Value> = heard.iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect();
    // What came before the webhook, what its filter keeps back and the deletion are not among them.
    let mut told: Vec<String> =
        events.iter().map(|event| format!("{} {}", event["type"].as_str().unwrap(), event["data"]["name"].as_str().unwrap())).collect();
    told.sort();
    let (created, updated) = ("dev.autonomy.clinic.Patient.created", "dev.autonomy.clinic.Patient.updated");
    assert_eq!(told, [format!("{created} Ada"), format!("{created} Ada"), format!("{created} Refused"), format!("{updated} Ada L.")]);
    assert_eq!(events[0], events[1], "the same event in another attempt");
    assert_eq!(heard[0].0["webhook-id"], heard[1].0["webhook-id"]);
    assert!(String::from_utf8_lossy(&heard[0].1).contains("71.123456789012345"), "numbers are exact");
    let update = events.iter().find(|event| event["type"] == updated).unwrap();
    assert_eq!(update["data"]["before"]["name"], "Ada");
    assert_eq!((&update["specversion"], &update["subject"]), (&json!("1.0"), &ada["id"]));
    for (headers, body) in heard.iter() {
        assert_eq!(headers["content-type"], "application/cloudevents+json; charset=utf-8");
        assert_eq!(headers["webhook-signature"], signature(b"new secret", headers, body).as_str());
    }
    local.stop().await;
}
