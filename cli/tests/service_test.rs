//! `autonomy service test` as a user runs it: the tests of the retail example pass, and whatever is expected wrongly fails by its place.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn example() -> PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../examples/retail-loyalty")
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_autonomy")).args(["service", "test"]).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

// A test of the example with something else in it; its paths still lead to the example.
fn changed(folder: &Path, name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = std::fs::read_to_string(example().join("tests").join(name)).unwrap();
    text = text.replace("../", &format!("{}/", example().display()));
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn the_tests_of_the_retail_example_pass() {
    let output = run(&[example().join("tests").to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let said = said(&output);
    assert!(said.ends_with(" passed, 0 failed\n"), "{said}");
    let services = std::fs::read_dir(example().join("services")).unwrap().count();
    assert_eq!(std::fs::read_dir(example().join("tests")).unwrap().count(), services, "each service has its tests");
    assert!(said.matches("  ok     ").count() >= 12, "{said}");
}

#[test]
fn each_difference_is_told_by_its_place() {
    let folder = tempfile::tempdir().unwrap();
    for (name, case, from, to, told) in [
        (
            "loyalty-accrual.yaml",
            "rounded down",
            "              points: 38\n              amount: 0.38",
            "              points: 39\n              amount: 0.38",
            "/expect/writes/0/create/object/points: 39 is expected, 38 is found",
        ),
        (
            "loyalty-accrual.yaml",
            "rounded down",
            "object: {loyalty: accrued}",
            "object: {loyalty: accrued, version: 2}",
            "/expect/writes/1/patch/object/version: 2 is expected, and it is not there",
        ),
        (
            "loyalty-accrual.yaml",
            "rounded down",
            "            if: {loyalty: pending}\n",
            "",
            "/expect/writes/1/patch/if: null is expected, {\"loyalty\":\"pending\"} is found",
        ),
        (
            "loyalty-accrual.yaml",
            "rounded down",
            "reference: \"@sale\"\n                points: 38",
            "reference: \"@sale\"\n                points: 37",
            "/http/0/expect/body/accruals/0/points: 37 is expected, 38 is found",
        ),
        (
            "loyalty-accrual.yaml",
            "rounded down",
            "org/accruals/bulk\n          body",
            "org/accruals\n          body",
            "/http: POST https://provider.example.org/accruals/bulk is called, and there is no answer",
        ),
        (
            "loyalty-accrual.yaml",
            "rounded down",
            "totalAmount: 25.99",
            "totalAmount: 27.00",
            "/http/0/expect/body/accruals/0/amount: 25.99 is expected, 27.00 is found",
        ),
        (
            "loyalty-accrual.yaml",
            "nobody knows",
            "outcome: deadLetter",
            "outcome: handled",
            "/expect/outcome: handled is expected, deadLetter (there is no customer C9999999) is found",
        ),
        (
            "loyalty-accrual.yaml",
            "nobody knows",
            "queue: loyalty",
            "queue: accounting",
            "/expect/ticket/body/queue: \"accounting\" is expected, \"loyalty\" is found",
        ),
        ("loyalty-accrual.yaml", "busy", "after: 30s", "after: 31s", "/expect/after: 31s is expected"),
        (
            "ledger.yaml",
            "balanced",
            "object: {ledgerBatchId: \"${other}\"",
            "object: {ledgerBatchId: \"${batch}\"",
            "/expect/1/writes/1/patch/object/ledgerBatchId: ",
        ),
        (
            "ledger.yaml",
            "balanced",
            "          - patch: {<<: *posted, id: \"@third\"}\n",
            "",
            "/expect/0/writes/2: this is written, and it is not expected",
        ),
        ("store-file-loader.yaml", "rejected whole", "#END,7", "#END,8", "tells of 8 rows"),
        ("loyalty-accrual.yaml", "rounded down", "receiptNumber:", "reciptNumber:", "events[0].object.Sale has no member reciptNumber"),
        ("loyalty-accrual.yaml", "rounded down", "loyalty: pending\n", "loyalty: pendin\n", "\"pendin\" is no LoyaltyState"),
        ("loyalty-accrual.yaml", "rounded down", "  tiers:", "  tires:", "the service has no cache \"tires\""),
        ("loyalty-accrual.yaml", "rounded down", "  loyaltyProvider: h", "  provider: h", "the service has no \"provider\" in spec.config"),
        ("loyalty-accrual.yaml", "no such case", "x", "x", "no case has"),
    ] {
        let changes: &[(&str, &str)] = if from == to { &[] } else { &[(from, to)] };
        let file = changed(folder.path(), name, changes);
        let output = run(&["--case", case, file.to_str().unwrap()]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{to}: {said}");
        assert!(said.contains(told), "{to}: {said}");
    }
}

const NIGHTLY: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: nightly}
spec:
  trigger: {schedule: {cron: 30 2 * * *, timeZone: Europe/Amsterdam}}
  steps:
    - name: day
      set: addDays(date(scheduledAt, 'Europe/Amsterdam'), -1)
    - http: {url: \"'https://books.example.org/days/' + day + '/close'\"}
    - when: dayOfWeek(day) == 7
      fail: {reason: \"'the books are closed on Sundays'\"}
";

#[test]
fn runs_of_a_schedule_are_tested_at_the_moments_that_it_plans() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("nightly.yaml"), NIGHTLY).unwrap();
    let test = |moment: &str, closed: &str, outcome: &str| {
        let file = folder.path().join("test.yaml");
        let text = format!(
            "service: nightly.yaml
models: [{}]
cases:
  - name: closes the day before
    scheduledAt: {moment}
    http: [{{expect: {{url: https://books.example.org/days/{closed}/close}}}}]
    expect: {{outcome: {outcome}}}
",
            example().join("models").display()
        );
        std::fs::write(&file, text).unwrap();
        let output = run(&[file.to_str().unwrap()]);
        (output.status.success(), said(&output))
    };
    // Half past two in Amsterdam, in winter and in summer.
    for (moment, closed, outcome) in
        [("2026-11-25T01:30:00Z", "2026-11-24", "handled"), ("2026-07-06T00:30:00Z", "2026-07-05", "deadLetter")]
    {
        let (passed, said) = test(moment, closed, outcome);
        assert!(passed, "{said}");
    }
    let (passed, said) = test("2026-11-25T02:30:00Z", "2026-11-24", "handled");
    assert!(!passed && said.contains("no run is planned for 2026-11-25T02:30:00Z; the next one is of 2026-11-26T01:30:00Z"), "{said}");
}

#[test]
fn ci_servers_read_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let file = changed(folder.path(), "account-invoice.yaml", &[("invoiceNumber: R-7\n", "invoiceNumber: R<8\n")]);
    let output = run(&["--output", "json", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["passed"], &report["failed"]), (&2.into(), &1.into()));
    assert_eq!(report["files"][0]["cases"][1]["passed"], true);
    let output = run(&["--output", "junit", file.to_str().unwrap()]);
    let junit = said(&output);
    assert!(junit.contains("tests=\"3\" failures=\"1\""), "{junit}");
    assert!(
        junit.contains(
            "<failure message=\"/expect/writes/0/create/object/invoiceNumber: &quot;R&lt;8&quot; is expected, &quot;R-7&quot; is found\">"
        ),
        "{junit}"
    );
}
