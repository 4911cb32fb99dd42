use std::collections::BTreeMap;

use super::*;
use crate::documents::{self, Resource};
use crate::resolved;

pub(super) const COMMON: &str = r"
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: common-business-entities, namespace: shop}
spec:
  enumerations:
    - {name: PartyStatus, values: [active, closed]}
  entities:
    - name: Party
      plural: Parties
      abstract: true
      attributes:
        - {name: partyNumber, type: string, maxLength: 20, required: true}
        - {name: status, type: PartyStatus, default: active, required: true}
      key: [partyNumber]
      events: {routing: status}
    - name: Person
      plural: People
      extends: Party
      attributes: [{name: givenName, type: string, classification: personal}]
";

pub(super) const RETAIL: &str = r#"
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: retail, namespace: shop}
spec:
  imports: [{model: common-business-entities, entities: [Party, Person]}]
  enumerations: [{name: SaleStatus, values: [new, accrued, invoiced]}]
  entities:
    - name: Customer
      extends: Party
      relationships: [{name: person, target: Person, onDelete: SetNull}]
      attributes: [{name: creditLimit, type: decimal, precision: 12, scale: 2, default: "100.00", minimum: 0}]
    - name: Sale
      attributes:
        - {name: saleNumber, type: string, maxLength: 40, required: true}
        - {name: soldAt, type: dateTime, required: true}
        - {name: total, type: decimal, precision: 14, scale: 2, required: true}
        - {name: paid, type: decimal, precision: 14, scale: 2}
        - {name: status, type: SaleStatus, required: true, default: new}
      key: [customer, saleNumber]
      relationships: [{name: customer, target: Customer, required: true}]
      parts: [{name: lines, entity: SaleLine, minItems: 1}]
      indexes: [{attributes: [soldAt, customer]}]
      checks: [{name: paidInBounds, attribute: paid, operator: lte, other: total}]
      events: {routing: status, partitionKey: customer}
    - name: SaleLine
      partOf: Sale
      attributes: [{name: quantity, type: integer, required: true, minimum: 1}]
      relationships: [{name: customer, target: Customer}]
"#;

pub(super) fn model(yaml: &str) -> DataModel {
    match documents::parse("test.yaml", yaml).expect("a document that can be read").remove(0) {
        Resource::DataModel(model) => model,
        other => panic!("no DataModel: {other:?}"),
    }
}

// A model `shop` of these parts of a spec.
fn spec(spec: &str) -> DataModel {
    // Not through `documents`, whose schema refuses some of what is tested here before `resolve` sees it.
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {{name: shop}}\nspec:\n{indented}");
    serde_saphyr::from_str(&text).expect("a DataModel")
}

fn faults_of(text: &str) -> Vec<String> {
    resolve(&spec(text), &BTreeMap::new()).map_or_else(|faults| faults.0.iter().map(ToString::to_string).collect(), |_| Vec::new())
}

// One fault exactly, at that path, whose message holds `part`.
fn assert_fault(text: &str, path: &str, part: &str) {
    let faults = faults_of(text);
    assert_eq!(faults.len(), 1, "{text}\n{faults:#?}");
    let (found, message) = faults[0].split_once(": ").expect("a path");
    assert_eq!(found, path, "{faults:#?}");
    assert!(message.contains(part), "{message:?} lacks {part:?}");
}

fn assert_attribute_fault(attribute: &str, field: &str, part: &str) {
    assert_fault(
        &format!("entities: [{{name: Sale, attributes: [{{{attribute}}}]}}]"),
        &format!("spec.entities[0].attributes[0].{field}"),
        part,
    );
}

#[test]
fn the_loyalty_case_resolves() {
    let models = resolve_all(&[model(RETAIL), model(COMMON)]).expect("models without faults");
    assert_eq!(models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["common-business-entities", "retail"]);
    let (common, retail) = (&models[0], &models[1]);
    assert_eq!(common.schema, "common_business_entities");
    assert_eq!(common.stream, "SHOP_COMMON-BUSINESS-ENTITIES");
    assert_eq!(common.reader_role, "autonomy_shop_common-business-entities_reader");
    assert_eq!(common.entities.iter().map(|entity| entity.path.as_str()).collect::<Vec<_>>(), ["people"]);
    assert_eq!(retail.imports, ["common-business-entities"]);
    let customer = retail.entity("Customer").expect("an entity");
    assert_eq!(
        customer.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(),
        ["party_number", "status", "credit_limit", "person_id"]
    );
    assert_eq!(customer.key, ["party_number"]);
    assert_eq!(customer.routing.as_deref(), Some("status"));
    let resolved::ColumnKind::Attribute { value_type: resolved::ValueType::Enumeration { schema, type_name, .. } } =
        &customer.columns[1].kind
    else {
        panic!("an enumeration");
    };
    assert_eq!((schema.as_str(), type_name.as_str()), ("common_business_entities", "party_status"));
    let sale = retail.entity_by_path("sales").expect("an entity");
    assert_eq!(sale.key, ["customer_id", "sale_number"]);
    assert_eq!(sale.key_name(), "sale__key");
    assert_eq!(sale.indexes[0].name, "sale__sold_at__customer_id__idx");
    assert_eq!(sale.checks[0].name, "sale__paid_in_bounds__check");
    assert_eq!(sale.partition_key.as_deref(), Some("customer_id"));
    let lines = sale.by_member("lines").expect("a list of parts");
    let resolved::ColumnKind::Parts { part, min_items: 1, max_items: 10_000 } = &lines.kind else { panic!("parts: {lines:?}") };
    assert_eq!(part.view, "sale_line");
    assert_eq!(part.columns.iter().map(|column| column.member.as_str()).collect::<Vec<_>>(), ["quantity", "customerId"]);
    assert!(
        matches!(sale.constraint("sale__customer_id__fkey"), Some(resolved::Constraint::ForeignKey(column)) if column.member == "customerId")
    );
    let json = serde_json::to_string(retail).expect("JSON");
    assert_eq!(&serde_json::from_str::<Model>(&json).expect("the same model"), retail);
}

#[test]
fn attributes_have_known_types_and_fitting_limits() {
    for (attribute, field, part) in [
        ("name: Total, type: integer", "name", "write \"total\""),
        ("name: sold_at, type: date", "name", "write \"soldAt\""),
        ("name: naïve, type: date", "name", "not camelCase"),
        ("name: total, type: int", "type", "did you mean \"integer\"?"),
        ("name: total, type: Integer", "type", "did you mean \"integer\"?"),
        ("name: total, type: Sale", "type", "declare a relationship"),
        ("name: total, type: string, precision: 3", "precision", "for type decimal"),
        ("name: total, type: integer, maxLength: 3", "maxLength", "for type string and binary"),
        ("name: total, type: integer, minimum: 3, maximum: 2", "minimum", "larger than maximum"),
        ("name: total, type: string, minLength: 3, maxLength: 2", "minLength", "larger than maxLength"),
        ("name: total, type: string, pattern: \"(\"", "pattern", "no regular expression"),
        ("name: total, type: string, pattern: \"a(?=b)\"", "pattern", "no look-around"),
        ("name: total, type: json, unique: true", "unique", "can't be unique"),
        ("name: id, type: uuid", "name", "every object has this member"),
        ("name: createdAt, type: dateTime", "name", "every object has this member"),
        ("name: limit, type: integer", "name", "query parameter"),
        ("name: embed, type: integer", "name", "query parameter"),
        ("name: before, type: integer", "name", "event has a member"),
        ("name: xmin, type: integer", "name", "PostgreSQL has a column"),
        ("name: aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgHiJkLmNoPqRsTuVwXyZ, type: integer", "name", "PostgreSQL keeps 63"),
        ("name: total, type: integer, renamedFrom: total", "renamedFrom", "there still is"),
    ] {
        assert_attribute_fault(attribute, field, part);
    }
}

#[test]
fn defaults_fit_their_type() {
    for (attribute, part) in [
        ("type: integer, default: 1.5", "a whole number"),
        ("type: integer, default: \"1\"", "a whole number"),
        ("type: integer, maximum: 5, default: 6", "outside"),
        ("type: decimal, default: x", "a decimal number"),
        ("type: decimal, precision: 4, scale: 2, default: \"1.234\"", "behind the point"),
        ("type: decimal, precision: 4, scale: 2, default: \"123\"", "does not fit"),
        ("type: decimal, minimum: 1, default: \"0.99\"", "outside"),
        ("type: boolean, default: \"true\"", "true or false"),
        ("type: date, default: \"2026-02-30\"", "a date"),
        ("type: date, default: now", "a date"),
        ("type: dateTime, default: \"2026-02-03T04:05:06\"", "with its offset"),
        ("type: uuid, default: x", "a UUID"),
        ("type: string, maxLength: 3, default: long", "4 characters"),
        ("type: string, pattern: \"[a-z]\", default: ab", "does not match"),
        ("type: string, default: 5", "a string"),
        ("type: binary, default: \"*\"", "base64"),
        ("type: binary, maxLength: 1, default: \"aGVsbG8=\"", "5 bytes"),
        ("type: string, unique: true, default: a", "no use for a default"),
    ] {
        assert_attribute_fault(&format!("name: value, {attribute}"), "default", part);
    }
    let text = "enumerations: [{name: Status, values: [new, done]}]\nentities: [{name: Sale, attributes: [{name: status, type: Status, default: nwe}]}]";
    assert_fault(text, "spec.entities[0].attributes[0].default", "did you mean \"new\"?");
    let model = resolve(
        &spec(
            r#"entities: [{name: Sale, attributes: [{name: a, type: decimal, default: "+1"}, {name: b, type: decimal, default: "-0012.50"}, {name: c, type: dateTime, default: "2026-11-25T05:05:19+02:00"}, {name: d, type: decimal, default: 1.5}]}]"#,
        ),
        &BTreeMap::new(),
    );
    assert!(model.expect_err("a fault").0[0].message.contains("a decimal number"), "no plus sign");
    let model = resolve(
        &spec(
            r#"entities: [{name: Sale, attributes: [{name: b, type: decimal, default: "-0012.50"}, {name: c, type: dateTime, default: "2026-11-25T05:05:19+02:00"}, {name: d, type: decimal, default: 1.5}]}]"#,
        ),
        &BTreeMap::new(),
    )
    .expect("a model");
    let defaults: Vec<_> = model.entities[0].columns.iter().filter_map(|column| column.default.clone()).collect();
    assert_eq!(defaults, [serde_json::json!("-12.50"), serde_json::json!("2026-11-25T03:05:19Z"), serde_json::json!(1.5)]);
}

#[test]
fn relationships_keys_indexes_and_checks_name_what_is_there() {
    let attributes = "attributes: [{name: a, type: integer, required: true}, {name: b, type: integer}, {name: t, type: string}, {name: j, type: json}, {name: d, type: decimal}]";
    for (rest, path, part) in [
        ("relationships: [{name: other, target: Shop}]", "relationships[0].target", "no entity \"Shop\""),
        ("relationships: [{name: other, target: Sales}]", "relationships[0].target", "did you mean \"Sale\"?"),
        (
            "relationships: [{name: other, target: Sale, required: true, onDelete: SetNull}]",
            "relationships[0].onDelete",
            "can't become null",
        ),
        ("relationships: [{name: a, target: Sale}]", "relationships[0].name", "there is a \"a\" already"),
        ("key: [b]", "key[0]", "make it required"),
        ("key: [x]", "key[0]", "no attribute or relationship \"x\""),
        ("key: [a, a]", "key[1]", "twice"),
        ("key: [id]", "key[0]", "kept by the platform"),
        ("relationships: [{name: other, target: Sale, required: true}], key: [otherId]", "key[0]", "write \"other\""),
        ("indexes: [{attributes: [j]}]", "indexes[0].attributes[0]", "json or binary"),
        ("indexes: [{attributes: [a]}, {attributes: [a], unique: true}]", "indexes[1]", "over the same"),
        ("key: [a], indexes: [{attributes: [a]}]", "indexes[0]", "the key brings"),
        ("relationships: [{name: other, target: Sale}], indexes: [{attributes: [other]}]", "indexes[0]", "has an index already"),
        ("checks: [{name: x, attribute: a, operator: lt, other: t}]", "checks[0].other", "can't be compared"),
        ("checks: [{name: x, attribute: a, operator: lt, other: a}]", "checks[0].other", "two different"),
        (
            "checks: [{name: x, attribute: a, operator: lt, other: b}, {name: x, attribute: a, operator: lt, other: d}]",
            "checks[1].name",
            "already",
        ),
        ("events: {routing: t}", "events.routing", "maxLength of at most 64"),
        ("events: {routing: d}", "events.routing", "can't route"),
        ("events: {routing: z}", "events.routing", "no attribute or relationship"),
        ("events: {partitionKey: d}", "events.partitionKey", "can't be a partition key"),
        ("extends: Other", "extends", "no entity \"Other\""),
        ("extends: Sale", "extends", "in a circle: Sale → Sale"),
        ("renamedFrom: Sale", "renamedFrom", "there still is"),
        ("plural: sale-lines", "plural", "can't be a path"),
        ("plural: Docs", "plural", "the API's own"),
        ("parts: [{name: lines, entity: Sale}]", "parts[0].entity", "part of itself"),
    ] {
        assert_fault(&format!("entities: [{{name: Sale, {attributes}, {rest}}}]"), &format!("spec.entities[0].{path}"), part);
    }
    let line = "{name: Line, partOf: Sale, attributes: [{name: amount, type: decimal}, {name: text, type: string}]}";
    for (left, sum, path, part) in [
        ("d", "{parts: lines, attribute: amuont}", "sumOf.attribute", "did you mean \"amount\"?"),
        ("d", "{parts: lines, attribute: text}", "sumOf.attribute", "is no number"),
        ("d", "{parts: a, attribute: amount}", "sumOf.parts", "no list of parts"),
        ("d", "{parts: rows, attribute: amount}", "sumOf.parts", "no attribute or relationship \"rows\""),
        ("t", "{parts: lines, attribute: amount}", "sumOf.attribute", "can't be compared"),
    ] {
        let check = format!("parts: [{{name: lines, entity: Line}}], checks: [{{name: x, attribute: {left}, operator: eq, sumOf: {sum}}}]");
        let text = format!("entities: [{{name: Sale, {attributes}, {check}}}, {line}]");
        assert_fault(&text, &format!("spec.entities[0].checks[0].{path}"), part);
    }
}

#[test]
fn names_that_meet_in_the_database_are_told() {
    let a = "attributes: [{name: a, type: integer}]";
    for (text, path, part) in [
        (format!("entities: [{{name: Sale, {a}}}, {{name: Sale, {a}}}]"), "spec.entities[1].name", "two entities"),
        (
            format!("entities: [{{name: SaleURL, {a}}}, {{name: SaleUrl, plural: Others, {a}}}]"),
            "spec.entities[1].name",
            "would both be \"sale_url\"",
        ),
        (format!("entities: [{{name: Sale, {a}}}, {{name: Purchase, plural: Sales, {a}}}]"), "spec.entities[1].plural", "path \"sales\""),
        (
            format!("enumerations: [{{name: Sale, values: [x]}}]\nentities: [{{name: Sale, {a}}}]"),
            "spec.enumerations[0].name",
            "would both be \"sale\"",
        ),
        (
            "entities: [{name: Sale, attributes: [{name: soldURL, type: integer}, {name: soldUrl, type: integer}]}]".to_owned(),
            "spec.entities[0].attributes[1].name",
            "would both be the column",
        ),
        (
            "entities: [{name: Sale, attributes: [{name: shopId, type: integer}], relationships: [{name: shop, target: Sale}]}]".to_owned(),
            "spec.entities[0].relationships[0].name",
            "already",
        ),
        (format!("entities: [{{name: A, abstract: true, {a}}}]"), "spec.entities", "nothing here has a table"),
        ("entities: [{name: A}]".to_owned(), "spec.entities[0]", "nothing of its own"),
        (format!("enumerations: [{{name: E, values: [x, x]}}]\nentities: [{{name: A, {a}}}]"), "spec.enumerations[0].values[1]", "twice"),
        (
            format!("entities: [{{name: Base, abstract: true, {a}}}, {{name: Sale, extends: Base, {a}}}]"),
            "spec.entities[1].attributes[0].name",
            "taken over by extends",
        ),
        (
            format!("entities: [{{name: Base, abstract: true, {a}}}, {{name: Sale, {a}, relationships: [{{name: base, target: Base}}]}}]"),
            "spec.entities[1].relationships[0].target",
            "abstract",
        ),
    ] {
        assert_fault(&text, path, part);
    }
}

#[test]
fn parts_live_in_one_owner_and_are_simple() {
    let part =
        |line: &str| format!("entities:\n- {{name: Sale, parts: [{{name: lines, entity: Line}}]}}\n- {{name: Line, partOf: Sale, {line}}}");
    let a = "attributes: [{name: a, type: integer}]";
    for (line, path, message) in [
        ("indexes: [{attributes: [a]}], attributes: [{name: a, type: integer}]", "indexes", "no index"),
        ("attributes: [{name: a, type: integer, unique: true}]", "attributes[0].unique", "can't be unique"),
        ("attributes: [{name: saleId, type: integer}]", "", ""),
        ("relationships: [{name: x, target: Sale, onDelete: Cascade}]", "relationships[0].onDelete", "only be Restrict"),
        ("relationships: [{name: x, target: Line}]", "relationships[0].target", "refer to \"Sale\""),
        ("abstract: true, attributes: [{name: a, type: integer}]", "abstract", "not abstract"),
        ("events: {routing: a}, attributes: [{name: a, type: integer}]", "events.routing", "no events"),
        ("requireIfMatch: true, attributes: [{name: a, type: integer}]", "requireIfMatch", "changed with its owner"),
    ] {
        if path.is_empty() {
            assert_fault(&part(line), "spec.entities[0].parts[0].entity", "for itself");
        } else {
            assert_fault(&part(line), &format!("spec.entities[1].{path}"), message);
        }
    }
    let unlisted = format!("entities: [{{name: Sale, {a}}}, {{name: Line, partOf: Sale, {a}}}]");
    assert_fault(&unlisted, "spec.entities[1].partOf", "does not list it");
    let no_part = format!("entities: [{{name: Sale, parts: [{{name: lines, entity: Line}}]}}, {{name: Line, {a}}}]");
    // Sale has no other member, but it declares one: the list.
    let faults = faults_of(&no_part);
    assert!(faults.iter().any(|fault| fault.contains("partOf: Sale")), "{faults:#?}");
    assert_fault(
        &part(a).replace("entity: Line}", "entity: Line, minItems: 3, maxItems: 2}"),
        "spec.entities[0].parts[0].minItems",
        "larger",
    );
    let nested = "entities:\n- {name: Sale, parts: [{name: lines, entity: Line}]}\n- {name: Line, partOf: Sale, attributes: [{name: a, type: integer}], parts: [{name: xs, entity: X}]}\n- {name: X, partOf: Line, attributes: [{name: a, type: integer}]}";
    let faults = faults_of(nested);
    assert!(faults.iter().any(|fault| fault.starts_with("spec.entities[1].parts: ")), "{faults:#?}");
    assert!(faults.iter().any(|fault| fault.starts_with("spec.entities[2].partOf: ")), "{faults:#?}");
}

#[test]
fn if_match_is_required_where_an_entity_or_what_it_extends_says_so() {
    let a = "attributes: [{name: a, type: integer}]";
    let model = spec(&format!(
        "entities:\n- {{name: Base, abstract: true, requireIfMatch: true, {a}}}\n- {{name: Strict, extends: Base}}\n- {{name: Own, requireIfMatch: true, {a}}}\n- {{name: Free, {a}}}"
    ));
    let models = resolve_all(&[model]).expect("resolved");
    let required = |name: &str| models[0].entity(name).expect("an entity").require_if_match;
    assert_eq!((required("Strict"), required("Own"), required("Free")), (true, true, false));
    // What is false is not stored, so that catalogs written before are the same to the byte.
    let json = serde_json::to_string(models[0].entity("Free").expect("an entity")).expect("JSON");
    assert!(!json.contains("requireIfMatch"), "{json}");
    let read: resolved::Entity = serde_json::from_str(&json).expect("an entity");
    assert!(!read.require_if_match);
    assert_eq!(&serde_json::from_str::<Model>(&serde_json::to_string(&models[0]).expect("JSON")).expect("the same model"), &models[0]);
}

#[test]
fn imports_are_there_and_make_no_circle() {
    let other = |name: &str, rest: &str| {
        model(&format!("apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {{name: {name}}}\nspec: {{{rest}}}\n"))
    };
    let entity = "entities: [{name: A, attributes: [{name: a, type: integer}]}]";
    let faults = resolve_all(&[
        other("one", &format!("imports: [{{model: two, entities: [B]}}], {entity}")),
        other("two", &format!("imports: [{{model: three, entities: [A]}}], {}", entity.replace("name: A", "name: B"))),
        other("three", &format!("imports: [{{model: one, enumerations: [E]}}], {entity}")),
        other("four", &format!("imports: [{{model: fvie, entities: [A]}}, {{model: four, entities: [A]}}, {{model: one}}], {entity}")),
        other("five", "imports: [{model: one, entities: [A, Z]}], entities: [{name: A, extends: B}]"),
        other("five", entity),
    ])
    .expect_err("faults");
    let shown: Vec<String> =
        faults.iter().flat_map(|(name, faults)| faults.0.iter().map(move |fault| format!("{name}: {fault}"))).collect();
    for expected in [
        "one: spec.imports[0].model: the imports go in a circle: one → two → three → one",
        "two: spec.imports[0].model: the imports go in a circle",
        "three: spec.imports[0].model: the imports go in a circle",
        "three: spec.imports[0].enumerations[0]: model \"one\" declares no enumeration",
        "four: spec.imports[0].model: there is no DataModel \"fvie\" (did you mean \"five\"?)",
        "four: spec.imports[1].model: a model can't import itself",
        "four: spec.imports[2]: nothing is taken",
        "five: metadata.name: there are two",
    ] {
        assert!(shown.iter().any(|fault| fault.starts_with(expected)), "{expected}\n{shown:#?}");
    }
}

#[test]
fn models_have_names_of_their_own() {
    for name in ["transactions", "docs", "public", "retries", "information-schema", "pg-catalog", "autonomy", "autonomy-x"] {
        let text = format!(
            "apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {{name: {name}}}\nspec: {{entities: [{{name: A, attributes: [{{name: a, type: json}}]}}]}}\n"
        );
        let faults = resolve(&model(&text), &BTreeMap::new()).expect_err("a fault");
        assert_eq!(faults.0.len(), 1, "{faults}");
        assert_eq!(faults.0[0].path, "metadata.name");
    }
}

#[test]
fn what_several_entities_take_over_has_views_of_their_own() {
    let text = "entities:\n- {name: Doc, abstract: true, parts: [{name: lines, entity: Line}], indexes: [{attributes: [a]}], attributes: [{name: a, type: integer}]}\n- {name: Line, partOf: Doc, attributes: [{name: a, type: integer}]}\n- {name: Order, extends: Doc}\n- {name: Quote, extends: Doc}";
    let model = resolve(&spec(text), &BTreeMap::new()).expect("a model");
    let views: Vec<&str> = model
        .entities
        .iter()
        .flat_map(|entity| &entity.columns)
        .filter_map(|column| match &column.kind {
            resolved::ColumnKind::Parts { part, .. } => Some(part.view.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(views, ["order_lines", "quote_lines"]);
    assert_eq!(model.entities[1].indexes[0].name, "quote__a__idx");
}

#[test]
fn history_is_taken_over_and_named_and_not_written_where_there_is_none() {
    let parts = "entities:\n  - {name: Base, abstract: true, history: true, attributes: [{name: code, type: string}]}\n  - {name: Sale, extends: Base}\n  - {name: Plain, softDelete: true, attributes: [{name: code, type: string}]}\n  - {name: Other, attributes: [{name: asOf, type: date}]}";
    let model = resolve(&spec(parts), &BTreeMap::new()).expect("no faults");
    let entity = |name: &str| model.entity(name).expect("an entity").clone();
    assert!(entity("Sale").history && !entity("Sale").soft_delete && entity("Plain").soft_delete && !entity("Plain").history);
    assert_eq!(entity("Sale").history_table().as_deref(), Some("sale__history"));
    assert_eq!(entity("Sale").history_key_name(), "sale__history__pkey");
    assert_eq!(entity("Other").history_table(), None);
    let long = resolved::Entity { table: "a".repeat(60), ..entity("Sale") };
    assert!(long.history_table().expect("a table").len() == names::MAX_IDENTIFIER);
    let json = serde_json::to_string(&entity("Other")).expect("JSON");
    assert!(!json.contains("istory") && !json.contains("oftDelete"), "{json}");
    assert_eq!(serde_json::from_str::<resolved::Entity>(&json).expect("an entity"), entity("Other"));
    assert_fault(
        "entities: [{name: Sale, history: true, attributes: [{name: asOf, type: date}]}]",
        "spec.entities[0].history",
        "query parameter",
    );
    assert_fault(
        "entities: [{name: Sale, parts: [{name: lines, entity: Line}]}, {name: Line, partOf: Sale, history: true, attributes: [{name: a, type: date}]}]",
        "spec.entities[1].history",
        "in its owner's",
    );
}
