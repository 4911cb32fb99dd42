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
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    model(&format!("apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {{name: shop}}\nspec:\n{indented}"))
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
