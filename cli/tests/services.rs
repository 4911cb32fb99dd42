//! Services in local mode: workers, edits of a service, dead letters and their redrive, the end with `--once`.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use autonomy::local::data_folder::LocalFile;
use serde_json::{Value, json};

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
        - {name: ward, type: string, maxLength: 20}
        - {name: weight, type: decimal, precision: 20, scale: 15}
"#;

const GREETER: &str = r#"
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: greeter}
spec:
  trigger:
    queue: {model: clinic, entity: Patient}
  retry: {maxAttempts: 3, initialBackoff: 50ms, maxBackoff: 100ms}
  steps:
    - when: object.ward == 'closed'
      fail: {reason: "'the ward is closed'"}
    - when: object.ward == 'busy'
      fail: {reason: "'the ward is busy'", retryable: true}
    - patch: {model: clinic, entity: Patient, id: object.id, object: {name: "object.name + ' (greeted)'"}}
"#;

const WATCHER: &str = r#"
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: watcher}
spec:
  trigger:
    queue: {model: clinic, entity: Patient, operations: [deleted]}
  steps:
    - stop: {}
"#;

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(folder.join("yaml")).unwrap();
    std::fs::write(folder.join("yaml").join(name), text).unwrap();
}

fn dead_letters(local: &Local, arguments: &[&str]) -> String {
    let output = run(local, &[&["dead-letters"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn run(local: &Local, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_autonomy"));
    command.args(arguments).arg("--data-dir").arg(&local.data_dir).env_remove("AUTONOMY_NATS_URL").output().unwrap()
}

fn listed(local: &Local) -> Vec<Value> {
    dead_letters(local, &["list", "-o", "json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn pid_of(local: &Local, name: &str) -> Option<u32> {
    LocalFile::read(&local.data_dir).unwrap().processes.iter().find(|process| process.name == name).map(|process| process.pid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_service_could_not_handle_is_listed_and_handled_after_its_edit_and_redrive() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "clinic.yaml", MODEL);
    write(folder, "greeter.yaml", GREETER);
    write(folder, "watcher.yml", WATCHER);
    let mut local = Local::start(folder, &[]).await;
    for (name, ward) in [("Ada", "west"), ("Bo", "closed"), ("Cy", "busy")] {
        let (status, answer) = local.post("/api/clinic/patients", json!({"name": name, "ward": ward})).await;
        assert_eq!(status, 201, "{answer}");
    }
    let request =
        autonomy_process::http_client::new().post(format!("{}/api/clinic/patients", local.api)).header("content-type", "application/json");
    let exact = r#"{"name": "Di", "ward": "closed", "weight": 71.123456789012345}"#;
    assert_eq!(request.body(exact).send().await.unwrap().status(), 201);

    let letters = until("three dead letters", || async { Some(listed(&local)).filter(|letters| letters.len() == 3) }).await;
    let of = |error: &str| letters.iter().filter(|letter| letter["error"].as_str().unwrap().contains(error)).collect::<Vec<_>>();
    assert_eq!(of("closed").len(), 2);
    assert_eq!(of("busy")[0]["attempts"], 3);
    assert_eq!(of("busy")[0]["type"], "dev.autonomy.clinic.Patient.created");
    until("the greeting", || async {
        let patients = local.get("/api/clinic/patients?name=Ada%20(greeted)").await;
        (patients.as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    let busy = of("busy")[0]["eventId"].as_str().unwrap();
    let shown = dead_letters(&local, &["show", busy]);
    assert_eq!(shown.matches("the ward is busy").count(), 4, "{shown}");
    let exact = of("closed")
        .iter()
        .map(|letter| dead_letters(&local, &["show", "-o", "json", letter["eventId"].as_str().unwrap()]))
        .collect::<String>();
    assert!(exact.contains("71.123456789012345"), "{exact}");

    // A service's edit starts its own worker again and no other one. A faulty edit starts none.
    let (greeter, watcher) = (pid_of(&local, "worker/greeter"), pid_of(&local, "worker/watcher"));
    write(folder, "greeter.yaml", &GREETER.replace("object.ward == 'busy'", "object.nothing == 'busy'"));
    local.wait_for("nothing was changed").await;
    assert_eq!(pid_of(&local, "worker/greeter"), greeter);
    write(folder, "greeter.yaml", &GREETER.replace("== 'closed'", "== 'shut'").replace("== 'busy'", "== 'full'"));
    local.wait_for("service greeter is started again").await;
    until("another worker", || async { pid_of(&local, "worker/greeter").filter(|pid| Some(*pid) != greeter) }).await;
    assert_eq!(pid_of(&local, "worker/watcher"), watcher);

    // Handed over again, the events are handled.
    dead_letters(&local, &["redrive", busy]);
    dead_letters(&local, &["redrive", "--service", "greeter", "--all"]);
    assert!(listed(&local).is_empty());
    until("all are greeted", || async {
        let patients = local.get("/api/clinic/patients").await;
        patients.as_array().unwrap().iter().all(|patient| patient["name"].as_str().unwrap().ends_with("(greeted)")).then_some(())
    })
    .await;

    // A service that is no longer declared stops.
    std::fs::remove_file(folder.join("yaml/watcher.yml")).unwrap();
    local.wait_for("service watcher is stopped").await;
    assert_eq!(pid_of(&local, "worker/watcher"), None);
    local.stop().await;

    let mut once = Local::spawn(folder, &["--once"]);
    assert!(once.end().await.success());
    once.wait_for("everything is done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_selected_edited_and_discarded_and_events_of_the_past_are_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "clinic.yaml", MODEL);
    write(folder, "greeter.yaml", GREETER);
    let mut local = Local::start(folder, &[]).await;
    for (name, ward) in [("Ada", "west"), ("Bo", "closed"), ("Cy", "closed"), ("Di", "busy")] {
        let (status, answer) = local.post("/api/clinic/patients", json!({"name": name, "ward": ward})).await;
        assert_eq!(status, 201, "{answer}");
    }
    let letters = until("three dead letters", || async { Some(listed(&local)).filter(|letters| letters.len() == 3) }).await;
    let selected = |arguments: &[&str]| dead_letters(&local, &[&["list", "-o", "json"], arguments].concat()).lines().count();
    assert_eq!(selected(&["--error", "WARD IS CLOSED", "--entity", "clinic.Patient"]), 2);
    assert_eq!(selected(&["--since", "1h", "--service", "greeter"]), 3);
    assert_eq!(selected(&["--until", "1h"]), 0);
    assert_eq!(selected(&["--entity", "Doctor"]), 0);

    // What is only tried out changes nothing.
    assert_eq!(dead_letters(&local, &["discard", "--all", "--error", "busy", "--dry-run"]).matches("would be discarded").count(), 1);
    assert_eq!(dead_letters(&local, &["redrive", "--all", "--dry-run"]).matches("would be handed over").count(), 3);
    assert_eq!(listed(&local).len(), 3);
    assert_eq!(dead_letters(&local, &["discard", "--all", "--error", "busy"]).matches("is discarded").count(), 1);
    assert_eq!(listed(&local).len(), 2);

    // An edited object is what the service then sees.
    let event = letters[0]["eventId"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&dead_letters(&local, &["show", "-o", "json", event])).unwrap();
    let mut data = shown["data"].clone();
    data["ward"] = json!("west");
    let file = folder.join("edited.json");
    let text = data.to_string();
    for (wrong, told) in [(text.replace(data["id"].as_str().unwrap(), "another"), "id must be"), ("[1]".to_owned(), "no JSON object")] {
        std::fs::write(&file, wrong).unwrap();
        let output = run(&local, &["dead-letters", "redrive", event, "--data", file.to_str().unwrap()]);
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains(told), "{output:?}");
    }
    std::fs::write(&file, text).unwrap();
    dead_letters(&local, &["redrive", event, "--rate", "10", "--data", file.to_str().unwrap()]);
    until("the edited one is greeted", || async {
        let greeted = local.get("/api/clinic/patients?name.like=*(greeted)&sort=name").await;
        (greeted.as_array().unwrap().len() == 2).then_some(())
    })
    .await;

    // A replay does nothing twice; under a name of its own it does.
    let replay = |arguments: &[&str]| {
        let output = run(&local, &[&["service", "replay", "greeter", "--from", "1h"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(replay(&["--dry-run"]), "4 events would be handed to greeter once more\n");
    assert_eq!(replay(&[]), "4 events are handed to greeter once more\n");
    until("the replayed ones have failed again", || async { (listed(&local).len() == 3).then_some(()) }).await;
    assert_eq!(replay(&["--as", "once-more"]), "4 events are handed to greeter once more\n");
    let ada = until("Ada is greeted once more", || async {
        let ada = local.get("/api/clinic/patients?name=Ada%20(greeted)").await[0].clone();
        (ada["version"] != 2).then_some(ada)
    })
    .await;
    assert_eq!(ada["version"], 3);
    let output = run(&local, &["service", "replay", "nobody", "--from", "1h"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody has no consumer"), "{output:?}");
    local.stop().await;
}
