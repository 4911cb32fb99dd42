use std::collections::BTreeMap;
use std::sync::Arc;

use super::tests::{COMMON, RETAIL, model};
use super::{check_service, resolve_all};
use crate::documents::{self, Resource};

fn faults_of(spec: &str) -> Vec<String> {
    let models: BTreeMap<_, _> = resolve_all(&[model(RETAIL), model(COMMON)])
        .expect("models")
        .into_iter()
        .map(|model| (model.name.clone(), Arc::new(model)))
        .collect();
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("apiVersion: autonomy.dev/v1alpha1\nkind: MicroService\nmetadata: {{name: greeter}}\nspec:\n{indented}");
    let Resource::MicroService(service) = documents::parse("service.yaml", &text).expect("a document").remove(0) else {
        panic!("a service")
    };
    check_service(&service, &models).map_or_else(|faults| faults.0.iter().map(ToString::to_string).collect(), |()| Vec::new())
}

const TRIGGER: &str = "trigger: {queue: {model: retail, entity: Sale, routing: [new]}}";
const STEP: &str = "steps: [{name: x, set: \"1\"}]";

fn fixed_width(format: &str) -> String {
    format!("trigger: {{files: {{directory: in, fixedWidth: {{{format}}}}}}}\n{STEP}")
}

#[test]
fn a_service_without_faults_has_none() {
    let spec = r#"
trigger: {queue: {model: retail, entity: Sale, operations: [created, updated], routing: [new, accrued], batch: {maxWait: 1.5s, groupBy: object.status}}}
caches: [{name: customers, model: retail, entity: Customer, fields: [partyNumber], indexes: [partyNumber, personId]}]
steps:
  - {name: customer, lookup: {cache: customers, by: personId, key: object.customerId}}
  - {name: answer, http: {url: config.url, headers: {X-Shop: "'a'"}, expect: [200, 404]}}
  - {create: {model: retail, entity: Customer, object: {partyNumber: "'1'"}, onConflict: ignore}}
  - {patch: {model: retail, entity: Sale, id: object.id, object: {status: "'accrued'", customerId: customer.id}, if: {version: object.version}}}
  - {when: "true", stop: {}}
"#;
    assert_eq!(faults_of(spec), Vec::<String>::new());
}

#[test]
fn what_is_not_there_is_told() {
    for (spec, path, part) in [
        (format!("trigger: {{queue: {{model: retial, entity: Sale}}}}\n{STEP}"), "spec.trigger.queue.model", "did you mean \"retail\"?"),
        (format!("trigger: {{queue: {{model: retail, entity: SaleLine}}}}\n{STEP}"), "spec.trigger.queue.entity", "objects of its own"),
        (
            format!("trigger: {{queue: {{model: retail, entity: Sale, routing: [nwe]}}}}\n{STEP}"),
            "spec.trigger.queue.routing[0]",
            "did you mean",
        ),
        (
            format!("trigger: {{queue: {{model: retail, entity: Sale, operations: [created, created]}}}}\n{STEP}"),
            "spec.trigger.queue.operations[1]",
            "twice",
        ),
        (format!("trigger: {{files: {{directory: in, pattern: \"sales-[.csv\"}}}}\n{STEP}"), "spec.trigger.files.pattern", "closing"),
        (format!("trigger: {{files: {{s3: {{bucket: stores, prefix: /in}}}}}}\n{STEP}"), "spec.trigger.files.s3.prefix", "no prefix"),
        (format!("trigger: {{files: {{s3: {{bucket: stores}}, volumeClaim: v}}}}\n{STEP}"), "spec.trigger.files.volumeClaim", "no volume"),
        (format!("trigger: {{files: {{directory: ../in}}}}\n{STEP}"), "spec.trigger.files.directory", "without"),
        (
            format!("trigger: {{files: {{directory: in, json: {{records: data}}}}}}\n{STEP}"),
            "spec.trigger.files.json.records",
            "no JSON Pointer",
        ),
        (
            fixed_width("fields: [{name: a, start: 1, length: 4, type: packed}]"),
            "spec.trigger.files.fixedWidth.fields[0].type",
            "recordLength",
        ),
        (fixed_width("fields: [{name: a, start: 1, length: 4, scale: 2}]"), "spec.trigger.files.fixedWidth.fields[0].scale", "type: zoned"),
        (
            fixed_width("fields: [{name: a, start: 1, length: 2, type: zoned, scale: 3}]"),
            "spec.trigger.files.fixedWidth.fields[0].scale",
            "2 digits",
        ),
        (
            fixed_width("fields: [{name: a, start: 1, length: 2}, {name: a, start: 3, length: 2}]"),
            "spec.trigger.files.fixedWidth.fields[1].name",
            "two",
        ),
        (
            fixed_width("fields: [{name: a, start: 1, length: 2}], recordLength: 10, recordType: {start: 10, length: 2, values: [\"10\"]}"),
            "spec.trigger.files.fixedWidth.recordType",
            "behind the record's 10 bytes",
        ),
        (
            fixed_width("fields: [{name: a, start: 1, length: 2}]").replace("directory: in", "directory: in, groupBy: b"),
            "spec.trigger.files.groupBy",
            "no field \"b\"",
        ),
        (
            format!("{TRIGGER}\ncaches: [{{name: c, model: retail, entity: Customer, fields: [nme]}}]\n{STEP}"),
            "spec.caches[0].fields[0]",
            "no member",
        ),
        (
            format!("{TRIGGER}\ncaches: [{{name: c, model: retail, entity: Sale, indexes: [lines]}}]\n{STEP}"),
            "spec.caches[0].indexes[0]",
            "looked up",
        ),
        (
            format!(
                "{TRIGGER}\ncaches: [{{name: c, model: retail, entity: Sale, namedIndexes: [{{name: byA, members: [lines]}}]}}]\n{STEP}"
            ),
            "spec.caches[0].namedIndexes[0].members[0]",
            "single values",
        ),
        (
            format!(
                "{TRIGGER}\ncaches: [{{name: c, model: retail, entity: Sale, namedIndexes: [{{name: byA, key: a, normalize: trim}}]}}]\n{STEP}"
            ),
            "spec.caches[0].namedIndexes[0].normalize",
            "made alike in CEL",
        ),
        (
            format!(
                "{TRIGGER}\ncaches: [{{name: c, model: retail, entity: Customer, indexes: [partyNumber], namedIndexes: [{{name: partyNumber, key: a}}]}}]\n{STEP}"
            ),
            "spec.caches[0].namedIndexes[0].name",
            "two indexes",
        ),
        (
            format!(
                "{TRIGGER}\ncaches: [{{name: c, model: retail, entity: Customer, namedIndexes: [{{name: byA, members: [partyNumber], callingCode: \"31\"}}]}}]\n{STEP}"
            ),
            "spec.caches[0].namedIndexes[0].callingCode",
            "telephone",
        ),
        (format!("trigger: {{schedule: {{cron: 61 * * * *}}}}\n{STEP}"), "spec.trigger.schedule.cron", "no cron expression"),
        (format!("trigger: {{schedule: {{cron: 0 0 30 2 *}}}}\n{STEP}"), "spec.trigger.schedule.cron", "never comes"),
        (
            format!("trigger: {{schedule: {{cron: '@daily', timeZone: Europe/Paradise}}}}\n{STEP}"),
            "spec.trigger.schedule.timeZone",
            "no time zone",
        ),
        (format!("{TRIGGER}\nsteps: [{{name: event, set: a}}]"), "spec.steps[0].name", "something else"),
        (format!("{TRIGGER}\nsteps: [{{name: in, set: a}}]"), "spec.steps[0].name", "something else"),
        (format!("{TRIGGER}\nsteps: [{{name: a, set: a}}, {{name: a, set: a}}]"), "spec.steps[1].name", "two steps"),
        (format!("{TRIGGER}\nsteps: [{{set: a}}]"), "spec.steps[0]", "needs a name"),
        (format!("{TRIGGER}\nsteps: [{{name: a, lookup: {{cache: c, key: a}}}}]"), "spec.steps[0].lookup.cache", "no cache"),
        (
            format!(
                "{TRIGGER}\ncaches: [{{name: c, model: retail, entity: Customer}}]\nsteps: [{{name: a, lookup: {{cache: c, by: status, key: a}}}}]"
            ),
            "spec.steps[0].lookup.by",
            "no index",
        ),
        (format!("{TRIGGER}\nsteps: [{{http: {{url: a, method: get}}}}]"), "spec.steps[0].http.method", "did you mean \"GET\"?"),
        (
            format!("{TRIGGER}\nsteps: [{{create: {{model: retail, entity: Customer, object: {{}}}}}}]"),
            "spec.steps[0].create.object.partyNumber",
            "needs a value",
        ),
        (
            format!("{TRIGGER}\nsteps: [{{patch: {{model: retail, entity: Sale, id: a, object: {{customer: a}}}}}}]"),
            "spec.steps[0].patch.object.customer",
            "did you mean \"customerId\"?",
        ),
        (
            format!("{TRIGGER}\nsteps: [{{patch: {{model: retail, entity: Sale, id: a, object: {{version: a}}}}}}]"),
            "spec.steps[0].patch.object.version",
            "kept by the platform",
        ),
        (
            format!("{TRIGGER}\nsteps: [{{forEach: {{list: a, as: config, steps: [{{name: x, set: a}}]}}}}]"),
            "spec.steps[0].forEach.as",
            "something else",
        ),
        (
            format!("{TRIGGER}\nsteps: [{{name: x, set: a}}, {{choose: [{{steps: [{{name: x, set: a}}]}}]}}]"),
            "spec.steps[1].choose[0].steps[0].name",
            "two steps",
        ),
        (
            format!("{TRIGGER}\nsteps: [{{choose: [{{steps: [{{name: x, set: a}}]}}, {{when: a, steps: [{{name: x, set: a}}]}}]}}]"),
            "spec.steps[0].choose[0].when",
            "only the last branch",
        ),
        (
            format!(
                "{TRIGGER}\nsteps: [{{forEach: {{list: a, concurrency: 2, steps: [{{choose: [{{when: a, steps: [{{stop: {{}}}}]}}]}}]}}}}]"
            ),
            "spec.steps[0].forEach.steps[0].choose[0].steps[0].stop",
            "several elements at a time",
        ),
        (
            format!(
                "{TRIGGER}\nsteps: [{{choose: [{{steps: [{{forEach: {{list: a, steps: [{{patch: {{model: retail, entity: Sale, id: a, object: {{customer: a}}}}}}]}}}}]}}]}}]"
            ),
            "spec.steps[0].choose[0].steps[0].forEach.steps[0].patch.object.customer",
            "did you mean \"customerId\"?",
        ),
        (
            format!("{TRIGGER}\nsteps: [{{name: a, group: {{list: a, by: a, values: {{key: a}}}}}}]"),
            "spec.steps[0].group.values.key",
            "already",
        ),
        (format!("{TRIGGER}\nsteps: [{{fail: {{reason: a, after: a}}}}]"), "spec.steps[0].fail.after", "retryable: true"),
        (
            format!("{TRIGGER}\nsteps: [{{http: {{url: a, body: a, template: {{contentType: a/b, text: a}}}}}}]"),
            "spec.steps[0].http",
            "at most one of body, template and document",
        ),
        (
            format!("{TRIGGER}\nretry: {{initialBackoff: 1h, maxBackoff: 1m}}\n{STEP}"),
            "spec.retry.initialBackoff",
            "longer than maxBackoff",
        ),
    ] {
        let faults = faults_of(&spec);
        assert_eq!(faults.len(), 1, "{spec}\n{faults:#?}");
        assert!(faults[0].starts_with(&format!("{path}: ")) && faults[0].contains(part), "{spec}\n{faults:#?}");
    }
}
