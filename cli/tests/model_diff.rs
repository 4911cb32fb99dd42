//! `autonomy model diff` as a user runs it: files, folders, forms of output, exit codes.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const COMMON: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: common}
spec:
  entities:
    - {name: Party, abstract: true, attributes: [{name: number, type: string, maxLength: 20, required: true}]}
    - {name: Person, extends: Party, attributes: [{name: name, type: string}]}
---
";
const CLINIC: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: clinic}
spec:
  imports: [{model: common, entities: [Party]}]
  entities:
    - name: Patient
      extends: Party
      attributes:
        - {name: ward, type: string, maxLength: 20}
        - {name: note, type: string}
      events: {routing: ward}
";

fn diff(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_autonomy")).current_dir(folder).args(["model", "diff"]).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn versions_are_compared_from_files_and_folders_with_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let old = format!("{COMMON}{CLINIC}");
    std::fs::write(folder.join("old.yaml"), &old).unwrap();
    std::fs::write(folder.join("same.yaml"), &old).unwrap();
    std::fs::write(folder.join("more.yaml"), old.replace("maxLength: 20}", "maxLength: 30}")).unwrap();
    // The new version lies in a folder, a file a model, beside a service that needs what is not there.
    std::fs::create_dir_all(folder.join("new/models")).unwrap();
    std::fs::write(folder.join("new/common.yaml"), COMMON.replace("maxLength: 20", "maxLength: 10")).unwrap();
    std::fs::write(
        folder.join("new/models/clinic.yaml"),
        CLINIC.replace("name: note", "name: remark, renamedFrom: note").replace("events", "history: true\n      events"),
    )
    .unwrap();
    std::fs::write(folder.join("new/kustomization.yaml"), "kind: Kustomization\n").unwrap();

    let same = diff(folder, &["old.yaml", "same.yaml"]);
    assert_eq!((same.status.code(), said(&same).as_str()), (Some(0), "no difference\n"));

    let looser = diff(folder, &["old.yaml", "more.yaml"]);
    assert_eq!(looser.status.code(), Some(0), "{looser:?}");
    assert!(said(&looser).contains("information /clinic/entities/Patient/attributes/ward/maxLength"), "{}", said(&looser));

    let broken = diff(folder, &["old.yaml", "new"]);
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    let table = said(&broken);
    let line = table.lines().find(|line| line.contains("/clinic/entities/Patient/attributes/remark")).unwrap();
    assert!(
        line.starts_with("breaking") && line.contains("readers writers subscribers") && line.contains("note is called remark"),
        "{table}"
    );
    assert!(table.contains("→ ") && table.ends_with("3 breaking, 0 to look at, 1 for information\n"), "{table}");

    let json = diff(folder, &["old.yaml", "new", "--output", "json"]);
    assert_eq!(json.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["breaking"], true);
    let differences = json["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 4);
    let number = differences.iter().find(|one| one["path"] == "/common/entities/Person/attributes/number/maxLength").unwrap();
    assert_eq!(number["severity"], "breaking");
    assert_eq!(number["effects"], serde_json::json!([{"audience": "writers", "severity": "breaking"}]));
    assert!(number["advice"].is_string() && number["change"].as_str().unwrap().contains("10 in the place of 20"), "{number}");

    // What can't be compared is no difference.
    std::fs::write(folder.join("faulty.yaml"), old.replace("type: string, maxLength", "type: text, maxLength")).unwrap();
    std::fs::write(folder.join("clinic.yaml"), CLINIC).unwrap();
    std::fs::write(folder.join("none.yaml"), "").unwrap();
    for (file, words) in [
        ("faulty.yaml", "maxLength is for types string and binary"),
        ("clinic.yaml", "common"),
        ("none.yaml", "has no DataModel"),
        ("nowhere.yaml", "can't be read"),
    ] {
        let failed = diff(folder, &["old.yaml", file]);
        assert_eq!(failed.status.code(), Some(2), "{file}: {failed:?}");
        let error = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(error.contains(words) && failed.stdout.is_empty(), "{file}: {error}");
    }
    assert_eq!(diff(folder, &["old.yaml"]).status.code(), Some(2));
}
