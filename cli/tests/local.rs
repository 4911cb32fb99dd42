//! Local mode as a user runs it: the binary, a model of a clinic never seen before, edits, refusals, stop and restart.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use autonomy::local::data_folder::LocalFile;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

mod support;
use support::{Local, alive, until};

const CLINIC: &str = r#"
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata:
  name: clinic
spec:
  entities:
    - name: Patient
      plural: Patients
      key: [number]
      attributes:
        - {name: number, type: string, required: true, maxLength: 12}
        - {name: name, type: string, required: true, maxLength: 80}
        - {name: ward, type: string, maxLength: 20}
      events: {routing: ward}
"#;

fn write(folder: &Path, text: &str) {
    std::fs::create_dir_all(folder.join("yaml")).unwrap();
    std::fs::write(folder.join("yaml/clinic.yaml"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_never_seen_before_is_served_edited_and_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, CLINIC);
    std::fs::write(folder.join("yaml/kustomization.yaml"), "kind: Kustomization\n").unwrap();
    let mut local = Local::start(folder, &[]).await;
    assert!(local.said().contains("kustomization.yaml is passed over"));

    // The API answers, and the event arrives.
    let (status, patient) = local.post("/api/clinic/patients", json!({"number": "P-1", "name": "Ada", "ward": "west"})).await;
    assert_eq!(status, 201, "{patient}");
    let events = until("the event is there", || async { Some(local.events("CLINIC").await).filter(|events| !events.is_empty()) }).await;
    assert!(events[0].0.starts_with("autonomy.default.clinic.Patient.created.west."), "{}", events[0].0);
    assert_eq!(events[0].1["id"], patient["id"]);

    // A second one on the same folder is refused.
    let mut second = Local::spawn(folder, &[]);
    assert!(!second.end().await.success());
    second.wait_for("another `autonomy local`").await;

    // An edit adds an attribute in the running API.
    let edited = CLINIC.replace("      events:", "        - {name: allergies, type: string, maxLength: 200}\n      events:");
    write(folder, &edited);
    until("the attribute is there", || async {
        let patients = local.get("/api/clinic/patients").await;
        patients[0].as_object().unwrap().contains_key("allergies").then_some(())
    })
    .await;

    // Bad and hazardous edits are refused; the model is served as before.
    write(folder, &edited.replace("type: string, required: true, maxLength: 80", "type: text"));
    local.wait_for("nothing was changed").await;
    write(
        folder,
        &edited.replace("        - {name: ward, type: string, maxLength: 20}\n", "").replace("      events: {routing: ward}\n", ""),
    );
    local.wait_for("REFUSED").await;
    assert_eq!(local.get("/api/clinic/patients").await[0]["ward"], "west");
    write(folder, &edited);

    // A killed process comes again.
    let relay = |file: &LocalFile| file.processes.iter().find(|process| process.name == "relay").map(|process| process.pid);
    let before = LocalFile::read(&local.data_dir).unwrap();
    for process in &before.processes {
        kill(Pid::from_raw(i32::try_from(process.pid).unwrap()), Signal::SIGKILL).unwrap();
    }
    let after = until("everything runs again", || async {
        let now = LocalFile::read(&local.data_dir).unwrap();
        let again = now.processes.len() == before.processes.len()
            && now.processes.iter().all(|process| before.processes.iter().all(|old| old.pid != process.pid));
        again.then_some(now)
    })
    .await;
    assert_ne!(relay(&before), relay(&after));
    until("the API writes again", || async {
        let body = json!({"number": "P-2", "name": "Bo", "ward": null}).to_string();
        let request = autonomy_process::http_client::new()
            .post(format!("{}/api/clinic/patients", local.api))
            .header("content-type", "application/json");
        request.body(body).send().await.ok().filter(|answer| answer.status() == 201 || answer.status() == 409).map(|_| ())
    })
    .await;
    until("its event is there", || async { (local.events("CLINIC").await.len() == 2).then_some(()) }).await;

    // Ctrl-C stops everything.
    let pids: Vec<u32> = LocalFile::read(&local.data_dir).unwrap().processes.iter().map(|process| process.pid).collect();
    local.stop().await;
    assert!(pids.iter().all(|pid| !alive(*pid)));
    assert!(LocalFile::read(&local.data_dir).is_err());

    // Started again, it goes on where it was.
    let mut local = Local::start(folder, &[]).await;
    let patients = local.get("/api/clinic/patients?sort=number").await;
    assert_eq!(patients.as_array().unwrap().len(), 2);
    assert_eq!(patients[0]["id"], patient["id"]);
    let (status, _) = local.post("/api/clinic/patients", json!({"number": "P-3", "name": "Cy"})).await;
    assert_eq!(status, 201);
    until("the third event is there", || async { (local.events("CLINIC").await.len() == 3).then_some(()) }).await;
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_ends_when_everything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), CLINIC);
    let mut local = Local::spawn(folder.path(), &["--once"]);
    assert!(local.end().await.success());
    local.wait_for("everything is done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_faults_are_told_before_anything_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &CLINIC.replace("maxLength: 80", "maxLength: 80, colour: red").replace("key: [number]", "key: [nothing]"));
    std::fs::write(
        folder.path().join("yaml/other.yaml"),
        CLINIC.replace("name: clinic", "name: other").replace("type: string", "type: Unknown"),
    )
    .unwrap();
    let mut local = Local::spawn(folder.path(), &[]);
    assert!(!local.end().await.success());
    local.wait_for("clinic.yaml").await;
    local.wait_for("other.yaml").await;
    assert!(!local.data_dir.join("postgresql").exists());
}
