//! What the API server admits, and what it refuses with a message that helps.

use std::collections::BTreeSet;

use autonomy_crds::schema::definitions;
use serde_json::Value;

use crate::support::{PLATFORM, SHOP, World};

const SERVICE: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: audit}
spec:
  trigger: {queue: {model: shop, entity: Sale}}
  steps: [{name: seen, set: 'true'}]
";

fn model(entity: &str) -> String {
    format!("{{apiVersion: autonomy.dev/v1alpha1, kind: DataModel, metadata: {{name: m}}, spec: {{entities: [{entity}]}}}}")
}

fn attribute(attribute: &str) -> String {
    model(&format!("{{name: E, attributes: [{{name: a, {attribute}}}]}}"))
}

fn service(spec: &str) -> String {
    let trigger = if spec.contains("trigger:") { "" } else { "trigger: {queue: {model: m, entity: E}}, " };
    let steps = if spec.contains("steps:") { "" } else { "steps: [{name: s, set: '1'}], " };
    format!("{{apiVersion: autonomy.dev/v1alpha1, kind: MicroService, metadata: {{name: s}}, spec: {{{trigger}{steps}{spec}}}}}")
}

// A resource that breaks one rule, and the rule's message.
fn bad() -> Vec<(String, &'static str)> {
    let former = "a part has no history of its own and is not deleted by itself: say it of its owner";
    let label = "metadata.name must be a DNS label of at most 40 characters that begins with a letter";
    vec![
        (PLATFORM.replace("name: default", "name: 1st"), label),
        (SHOP.replace("name: shop", "name: a.b"), label),
        (
            PLATFORM.replace("name: default", "name: other").replace("syncInterval: 30s", "replicas: 3, persistMode: Async"),
            "streams of several replicas can't have persistMode Async",
        ),
        (SERVICE.replace("name: audit", &format!("name: {}", "a".repeat(41))), label),
        (model("{name: P, partOf: O, key: [a]}"), "a part has no key of its own: it lives in its owner"),
        (model("{name: P, partOf: O, history: true}"), former),
        (model("{name: P, partOf: O, softDelete: true}"), former),
        (attribute("type: decimal, scale: 2"), "scale needs precision"),
        (attribute("type: decimal, precision: 2, scale: 3"), "scale can't be larger than precision"),
        (attribute("type: integer, minimum: 2, maximum: 1"), "minimum can't be larger than maximum"),
        (attribute("type: string, precision: 2"), "precision is for type decimal"),
        (attribute("type: integer, maxLength: 2"), "maxLength is for types string and binary"),
        (attribute("type: integer, pattern: 'a'"), "pattern is for type string"),
        (
            model("{name: E, attributes: [{name: a, type: integer}], checks: [{name: c, attribute: a, operator: eq}]}"),
            "a check compares with exactly one of other and sumOf",
        ),
        (service("trigger: {}"), "a trigger has exactly one of queue, files and schedule"),
        (
            service("trigger: {queue: {model: m, entity: E, order: perKey, batch: {}}}"),
            "a batch hands on many events at a time, so it can't be in order per key",
        ),
        (service("trigger: {files: {pattern: 'a'}}"), "files are in exactly one of directory and s3"),
        (
            service("trigger: {files: {s3: {bucket: stores, accessKeyIdFrom: {secretName: s, key: k}}}}"),
            "give both accessKeyIdFrom and secretAccessKeyFrom, or neither",
        ),
        (
            service("trigger: {files: {directory: in, ndjson: {}, json: {}}}"),
            "files have at most one format: csv, ndjson, json, xml or fixedWidth",
        ),
        (
            service("steps: [{name: s}]"),
            "a step has exactly one of lookup, http, putObject, create, patch, group, choose, forEach, set, fail and stop",
        ),
        (
            service("steps: [{http: {url: \"'http://a'\", document: {rows: objects, json: {}, ndjson: {}}}}]"),
            "a document has exactly one format: csv, fixedWidth, ndjson or json",
        ),
        (
            service(
                "steps: [{http: {url: \"'http://a'\", bearerTokenFrom: {secretName: s, key: k}, basic: {usernameFrom: {secretName: s, key: k}, passwordFrom: {secretName: s, key: k}}}}]",
            ),
            "a call has at most one of bearerTokenFrom, basic and oauth2",
        ),
        (
            service("caches: [{name: c, model: m, entity: E, namedIndexes: [{name: byA, members: [a], key: a}]}]"),
            "an index has exactly one of members and key",
        ),
        (service("scaling: {autoscaling: {minReplicas: 3, maxReplicas: 2}}"), "minReplicas must not be more than maxReplicas"),
        (service("handler: {http: {image: i}}"), "a service has either steps or a handler"),
        (
            service("handler: {http: {image: i}, embedded: {image: i}}").replace("steps: [{name: s, set: '1'}], ", ""),
            "a handler is exactly one of http and embedded",
        ),
        (service("environmentFrom: [{}]"), "name exactly one of configMap and secret"),
    ]
}

#[tokio::test]
async fn good_resources_are_admitted_and_bad_ones_refused_by_each_rule() {
    let world = World::without_platform("admission").await;
    for good in [PLATFORM, SHOP, SERVICE] {
        world.apply(good);
    }
    let mut tried = BTreeSet::new();
    for (yaml, message) in bad() {
        let refusal = world.refused(&yaml);
        assert!(refusal.contains(message), "{yaml}\nis refused by: {refusal}\nand not by: {message}");
        tried.insert(message.to_owned());
    }
    // Rules about changes can only be broken by a change.
    let refusal = world.refused(&PLATFORM.replace("syncInterval: 30s", "persistMode: Async"));
    let message = "NATS can't change the persist mode of a stream that is there";
    assert!(refusal.contains(message), "{refusal}");
    tried.insert(message.to_owned());
    let migration = "{apiVersion: autonomy.dev/v1alpha1, kind: Migration, metadata: {name: m}, spec: {dataModel: m, fromRevision: 0, hazardous: false, \
                     steps: [], sha256: 'SHA'}}";
    world.apply(&migration.replace("SHA", &"a".repeat(64)));
    let refusal = world.refused(&migration.replace("SHA", &"b".repeat(64)));
    let message = "a Migration's spec does not change: the operator makes a new one for a new plan";
    assert!(refusal.contains(message), "{refusal}");
    tried.insert(message.to_owned());

    let mut rules = BTreeSet::new();
    for definition in definitions() {
        messages(definition.schema(), &mut rules);
    }
    assert_eq!(tried, rules, "each rule has a resource here that breaks it");
    world.end().await;
}

fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            let rules = members.get("x-kubernetes-validations").and_then(Value::as_array);
            found.extend(rules.into_iter().flatten().filter_map(|rule| Some(rule["message"].as_str()?.to_owned())));
            members.values().for_each(|member| messages(member, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| messages(element, found)),
        _ => {}
    }
}

#[tokio::test]
async fn fields_are_explained_and_unknown_ones_refused() {
    let world = World::without_platform("explain").await;
    let refusal = world.refused(&SHOP.replace("key: [receipt]", "keys: [receipt]"));
    assert!(refusal.contains("keys"), "{refusal}");
    for (path, text) in [
        ("datamodels.spec.entities.attributes.renamedFrom", "rename"),
        ("microservices.spec.retry.maxAttempts", "tried"),
        ("dataplatforms.spec.nats.syncInterval", "sync"),
        ("migrations.spec.sha256", "sha256"),
    ] {
        let explained = world.kubectl(&["explain", path]);
        assert!(explained.contains("DESCRIPTION") && explained.contains(text), "{path}: {explained}");
    }
    world.end().await;
}
