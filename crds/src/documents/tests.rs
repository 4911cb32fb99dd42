use super::*;

fn errors(text: &str) -> Vec<String> {
    match parse("shop.yaml", text) {
        Ok(resources) => panic!("no error: {resources:?}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

const HEAD: &str = "apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata:\n  name: shop\nspec:\n";

#[test]
fn documents_of_every_kind_are_read_with_their_defaults() {
    let text = r#"
# A comment.
---
apiVersion: autonomy.dev/v1alpha1
kind: DataPlatform
metadata: {name: default, labels: {a: b}}
spec: {}
---
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  entities: [{name: Sale, attributes: [{name: total, type: decimal, default: "1.10"}]}]
---
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: greeter}
spec:
  trigger: {queue: {model: shop, entity: Sale}}
  steps: [{name: x, set: "1"}]
"#;
    let resources = parse("shop.yaml", text).expect("resources");
    let [Resource::DataPlatform(platform), Resource::DataModel(model), Resource::MicroService(service)] = resources.as_slice() else {
        panic!("{resources:?}");
    };
    assert_eq!(platform.spec.api.replicas, 2);
    assert_eq!(model.spec.entities[0].attributes[0].default, Some("1.10".into()));
    assert_eq!(service.spec.retry.max_attempts, 20);
    assert_eq!(service.spec.trigger.queue.as_ref().map(|queue| queue.operations.len()), Some(1));
}

#[test]
fn all_faults_come_at_once_with_their_lines() {
    let text = format!(
        "{HEAD}  entites: []\n  suspend: \"yes\"\n  entities:\n    - name: Sale\n      attributes:\n        - name: total\n          type: decimal\n          scale: 2\n        - {{name: other, type: string, precision: 3}}\n        - {{type: 5}}\n"
    );
    let errors = errors(&text);
    let expected = [
        "shop.yaml:6: spec.entites: there is no field \"entites\" here (did you mean \"entities\"?)",
        "shop.yaml:7: spec.suspend: this must be true or false, and is \"yes\"",
        "shop.yaml:11: spec.entities[0].attributes[0]: scale needs precision",
        "shop.yaml:14: spec.entities[0].attributes[1]: precision is for type decimal",
        "shop.yaml:15: spec.entities[0].attributes[2].type: this must be a string",
        "shop.yaml:15: spec.entities[0].attributes[2].name: this is required",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
}

#[test]
fn unknown_kinds_and_versions_are_told() {
    let errors = errors("apiVersion: autonomy.dev/v1\nkind: Datamodel\nmetadata: {name: x}\n");
    assert_eq!(errors[0], "shop.yaml:1: apiVersion: \"autonomy.dev/v1\" is not known here; write autonomy.dev/v1alpha1");
    assert!(errors[1].contains("(did you mean \"DataModel\"?)"), "{errors:?}");
}

#[test]
fn rules_of_the_kinds_hold() {
    for (text, expected) in [
        (
            "apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {name: Shop}\nspec: {entities: [{name: A}]}\n",
            "metadata.name must be",
        ),
        ("apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {name: shop}\nspec: {entities: []}\n", "1 is the least"),
        (
            "apiVersion: autonomy.dev/v1alpha1\nkind: MicroService\nmetadata: {name: s}\nspec: {trigger: {}, steps: [{set: a}]}\n",
            "exactly one of queue, files and schedule",
        ),
        (
            "apiVersion: autonomy.dev/v1alpha1\nkind: MicroService\nmetadata: {name: s}\nspec: {trigger: {queue: {model: m, entity: E}}, steps: [{set: a, stop: {}}]}\n",
            "exactly one of lookup",
        ),
        (
            "apiVersion: autonomy.dev/v1alpha1\nkind: MicroService\nmetadata: {name: s}\nspec: {trigger: {queue: {model: m, entity: E}}, retry: {maxBackoff: soon}, steps: [{set: a}]}\n",
            "is no duration",
        ),
        ("apiVersion: autonomy.dev/v1alpha1\nkind: DataPlatform\nmetadata: {nmae: s}\nspec: {}\n", "did you mean \"name\"?"),
        ("apiVersion: autonomy.dev/v1alpha1\nkind: DataPlatform\n", "spec: this is required"),
        ("a: [\n", "no YAML"),
        ("a: 1\na: 2\n", "no YAML"),
        ("- 1\n", "no resource"),
    ] {
        let errors = errors(text);
        assert!(errors.iter().any(|error| error.contains(expected)), "{text}\n{errors:#?}");
    }
}

#[test]
fn numbers_must_fit() {
    let errors = errors(&format!(
        "{HEAD}  entities:\n    - name: Sale\n      parts: [{{name: lines, entity: L, minItems: -1, maxItems: 5000000000}}]\n"
    ));
    assert!(errors[0].contains("spec.entities[0].parts[0].minItems: -1 is too small"), "{errors:#?}");
    assert!(errors[1].contains("maxItems: 5000000000 is too large"), "{errors:#?}");
}
