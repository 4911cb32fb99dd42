use super::*;
use crate::DataModel;
use crate::documents::{self, Resource};
use crate::resolve::resolve_all;

const OTHERS: &str = "
  - {name: Customer, attributes: [{name: name, type: string}]}
  - {name: Shop, attributes: [{name: name, type: string}]}";

fn models(text: &str) -> Vec<Model> {
    let documents = documents::parse("test.yaml", text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
    let models: Vec<DataModel> = documents
        .into_iter()
        .filter_map(|resource| match resource {
            Resource::DataModel(model) => Some(model),
            _ => None,
        })
        .collect();
    resolve_all(&models).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
}

fn retail(spec: &str) -> String {
    format!("apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {{name: retail}}\nspec:\n{spec}\n")
}

// The model retail with an entity Sale of these fields, and two others.
fn sale(fields: &str) -> Vec<Model> {
    let entity = format!("  - {{name: Sale, {fields}}}");
    models(&retail(&format!("  enumerations: [{{name: Status, values: [new, paid]}}]\n  entities:\n{entity}{OTHERS}")))
}

// Each difference as its path and its effects: R, W and S with ! for breaking, ? for a warning, . for information.
fn told(old: &[Model], new: &[Model]) -> Vec<String> {
    let told: Vec<String> = compare(old, new)
        .iter()
        .map(|difference| {
            assert!(!difference.change.is_empty() && !difference.advice.is_empty());
            assert_eq!(Some(difference.severity), difference.effects.iter().map(|effect| effect.severity).max());
            let effects: String = [(Audience::Readers, 'R'), (Audience::Writers, 'W'), (Audience::Subscribers, 'S')]
                .into_iter()
                .filter_map(|(audience, letter)| {
                    let mark = match difference.effect_on(audience)? {
                        Severity::Breaking => '!',
                        Severity::Warning => '?',
                        Severity::Information => '.',
                    };
                    Some(format!("{letter}{mark}"))
                })
                .collect();
            format!("{} {effects}", difference.path)
        })
        .collect();
    assert!(compare(new, new).is_empty() && compare(old, old).is_empty());
    told
}

fn assert_sale(old: &str, new: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|line| format!("/retail/entities/Sale{line}")).collect();
    assert_eq!(told(&sale(old), &sale(new)), expected, "{old} → {new}");
}

fn assert_attribute(old: &str, new: &str, expected: &[&str]) {
    let of = |attribute: &str| format!("attributes: [{{name: total, {attribute}}}]");
    let expected: Vec<String> = expected.iter().map(|line| format!("/attributes/total{line}")).collect();
    assert_sale(&of(old), &of(new), &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn limits_that_tighten_break_writers_and_those_that_loosen_inform() {
    for (field, looser, tighter) in [
        ("maxLength", "type: string, maxLength: 20", "type: string, maxLength: 10"),
        ("minLength", "type: string, minLength: 2", "type: string, minLength: 3"),
        ("maxLength", "type: binary, maxLength: 20", "type: binary, maxLength: 10"),
        ("minimum", "type: integer, minimum: 1", "type: integer, minimum: 2"),
        ("maximum", "type: integer, maximum: 9", "type: integer, maximum: 8"),
        ("minimum", "type: decimal, minimum: 1", "type: decimal, minimum: 2"),
        ("maximum", "type: decimal, maximum: 9", "type: decimal, maximum: 8"),
        ("precision", "type: decimal, precision: 12, scale: 2", "type: decimal, precision: 10, scale: 2"),
        ("scale", "type: decimal, precision: 12, scale: 4", "type: decimal, precision: 10, scale: 2"),
        // None is the loosest.
        ("maxLength", "type: string", "type: string, maxLength: 10"),
        ("minimum", "type: integer", "type: integer, minimum: -5"),
        ("minLength", "type: string, minLength: 0", "type: string, minLength: 1"),
    ] {
        assert_attribute(looser, tighter, &[&format!("/{field} W!")]);
        assert_attribute(tighter, looser, &[&format!("/{field} R.S.")]);
    }
    // The same digits in all, and more of them behind the point.
    assert_attribute("type: decimal, precision: 12, scale: 2", "type: decimal, precision: 12, scale: 4", &["/precision W!", "/scale R.S."]);
    assert_attribute("type: decimal", "type: decimal, precision: 9, scale: 2", &["/precision W!", "/scale W!"]);
    assert_attribute("type: string", "type: string, pattern: a+", &["/pattern R.W!S."]);
    assert_attribute("type: string, pattern: b+", "type: string, pattern: a+", &["/pattern R.W!S."]);
    assert_attribute("type: string, pattern: b+", "type: string", &["/pattern R.S."]);
    assert_attribute("type: string, description: a", "type: string, description: b", &[]);
}

#[test]
fn types_that_widen_break_who_reads_and_those_that_narrow_who_writes() {
    assert_attribute("type: integer", "type: decimal", &["/type R!W.S!"]);
    assert_attribute("type: decimal", "type: integer", &["/type R?W!S."]);
    assert_attribute("type: Status", "type: string", &["/type R!W.S!"]);
    assert_attribute("type: string", "type: Status", &["/type R?W!S."]);
    assert_attribute("type: string, maxLength: 3", "type: Status", &["/type R!W!S!"]);
    assert_attribute("type: boolean", "type: json", &["/type R!W.S!"]);
    assert_attribute("type: string", "type: integer", &["/type R!W!S!"]);
    assert_attribute("type: date", "type: dateTime", &["/type R!W!S!"]);
}

#[test]
fn values_of_enumerations_are_told_once_where_they_are_declared() {
    let of = |values: &str, routing: &str| {
        let entity = |name: &str| format!("  - {{name: {name}, attributes: [{{name: status, type: Status}}]{routing}}}\n");
        models(&retail(&format!(
            "  enumerations: [{{name: Status, values: [{values}]}}]\n  entities:\n{}{}",
            entity("Sale"),
            entity("Order")
        )))
    };
    assert_eq!(told(&of("new, paid", ""), &of("new", "")), ["/retail/enumerations/Status/values/paid R?W!"]);
    assert_eq!(
        told(&of("new, paid", ", events: {routing: status}"), &of("new", ", events: {routing: status}")),
        ["/retail/enumerations/Status/values/paid R?W!S?"]
    );
    assert_eq!(told(&of("new", ""), &of("\"a/b\", new", "")), ["/retail/enumerations/Status/values/a~1b R?S?"]);
    assert_eq!(told(&of("new, paid", ""), &of("paid, new", "")), ["/retail/enumerations/Status/values R?"]);
    // Another enumeration with other values.
    let other = |name: &str, values: &str| {
        models(&retail(&format!(
            "  enumerations: [{{name: {name}, values: [{values}]}}]\n  entities: [{{name: Sale, attributes: [{{name: status, type: {name}}}]}}]"
        )))
    };
    assert_eq!(told(&other("Status", "new"), &other("State", "new")), [] as [String; 0]);
    assert_eq!(
        told(&other("Status", "new"), &other("State", "old")),
        ["/retail/entities/Sale/attributes/status/values/new R?W!", "/retail/entities/Sale/attributes/status/values/old R?S?"]
    );
}

#[test]
fn attributes_come_go_and_are_renamed() {
    let base = "attributes: [{name: code, type: string}]";
    let with = |attribute: &str| format!("attributes: [{{name: code, type: string}}, {{{attribute}}}]");
    assert_sale(base, &with("name: total, type: integer"), &["/attributes/total R.S."]);
    assert_sale(base, &with("name: total, type: integer, required: true, default: 1"), &["/attributes/total R.S."]);
    assert_sale(base, &with("name: total, type: integer, required: true"), &["/attributes/total R.W!S."]);
    assert_sale(&with("name: total, type: integer"), base, &["/attributes/total R!W!S!"]);
    assert_sale(&with("name: total, type: integer"), &with("name: sum, type: integer, renamedFrom: total"), &["/attributes/sum R!W!S!"]);
    assert_sale(
        &with("name: total, type: integer"),
        &with("name: sum, type: integer"),
        &["/attributes/total R!W!S!", "/attributes/sum R.S."],
    );
    // What is renamed is compared on; a renamedFrom of long ago is none.
    assert_sale(
        &with("name: total, type: integer"),
        &with("name: sum, type: integer, minimum: 1, renamedFrom: total"),
        &["/attributes/sum R!W!S!", "/attributes/sum/minimum W!"],
    );
    assert_sale(&with("name: sum, type: integer"), &with("name: sum, type: integer, renamedFrom: total"), &[]);
    assert_sale(
        &with("name: shop, type: uuid"),
        &format!("{base}, relationships: [{{name: shop, target: Shop}}]"),
        &["/attributes/shop R!W!S!", "/relationships/shop R.S."],
    );
    assert_sale(
        &with("name: shopId, type: uuid"),
        &format!("{base}, relationships: [{{name: shop, target: Shop}}]"),
        &["/relationships/shop R!W!S!"],
    );
}

#[test]
fn required_defaults_and_classifications() {
    assert_attribute("type: integer", "type: integer, required: true", &["/required W!"]);
    assert_attribute("type: integer, required: true", "type: integer", &["/required R?S?"]);
    assert_attribute("type: integer, default: 1", "type: integer, default: 2", &["/default W?"]);
    assert_attribute("type: integer", "type: integer, default: 2", &["/default W."]);
    assert_attribute("type: integer, default: 1", "type: integer", &["/default W?"]);
    assert_attribute("type: integer, default: 1, required: true", "type: integer, required: true", &["/default W!"]);
    assert_attribute("type: integer", "type: integer, classification: personal", &["/classification R.S."]);
}

#[test]
fn what_becomes_unique_breaks_writers() {
    let of = |code: &str, more: &str| format!("attributes: [{{name: code, type: string{code}}}, {{name: day, type: date}}]{more}");
    assert_sale(&of("", ""), &of(", unique: true", ""), &["/attributes/code/unique W!"]);
    assert_sale(&of(", unique: true", ""), &of("", ""), &["/attributes/code/unique R.W."]);
    assert_sale(&of("", ""), &of("", ", indexes: [{attributes: [code, day], unique: true}]"), &["/indexes/code,day/unique W!"]);
    assert_sale(&of("", ", indexes: [{attributes: [code, day], unique: true}]"), &of("", ""), &["/indexes/code,day/unique R.W."]);
    assert_sale(&of("", ""), &of("", ", indexes: [{attributes: [code, day]}]"), &[]);
    let required = ", required: true";
    assert_sale(&of(required, ""), &of(required, ", key: [code]"), &["/key W!"]);
    assert_sale(&of(required, ", key: [code]"), &of(required, ""), &["/key W!"]);
    // Who writes now can't agree in what nobody wrote before.
    let token = "attributes: [{name: code, type: string}, {name: day, type: date}, {name: token, type: uuid, unique: true}]";
    assert_sale(&of("", ""), token, &["/attributes/token R.S.", "/attributes/token/unique W."]);
    // A key follows a rename, which is told for itself.
    assert_sale(
        "attributes: [{name: code, type: string, required: true}], key: [code]",
        "attributes: [{name: number, type: string, required: true, renamedFrom: code}], key: [number]",
        &["/attributes/number R!W!S!"],
    );
}

#[test]
fn checks_tighten_and_loosen() {
    let of = |check: &str| format!("attributes: [{{name: paid, type: integer}}, {{name: total, type: integer}}]{check}");
    let check = |operator: &str| of(&format!(", checks: [{{name: bounds, attribute: paid, operator: {operator}, other: total}}]"));
    assert_sale(&of(""), &check("lte"), &["/checks/bounds W!"]);
    assert_sale(&check("lte"), &of(""), &["/checks/bounds R."]);
    assert_sale(&check("lt"), &check("lte"), &["/checks/bounds R."]);
    assert_sale(&check("lte"), &check("lt"), &["/checks/bounds W!"]);
    let sum = |attribute: &str| {
        let check = format!("{{name: bounds, attribute: paid, operator: eq, sumOf: {{parts: lines, attribute: {attribute}}}}}");
        let sale = of(&format!(", parts: [{{name: lines, entity: SaleLine}}], checks: [{check}]"));
        let line = "{name: SaleLine, partOf: Sale, attributes: [{name: amount, type: integer}, {name: tax, type: integer}]}";
        models(&retail(&format!("  entities: [{{name: Sale, {sale}}}, {line}]")))
    };
    assert_eq!(told(&sum("amount"), &sum("tax")), ["/retail/entities/Sale/checks/bounds W!"]);
}

#[test]
fn relationships_change_their_target_and_rule() {
    let of = |more: &str| format!("attributes: [{{name: code, type: string}}], relationships: [{{name: buyer, {more}}}]");
    assert_sale(&of("target: Customer"), &of("target: Shop"), &["/relationships/buyer/target R!W!S!"]);
    assert_sale(&of("target: Customer, onDelete: Cascade"), &of("target: Customer"), &["/relationships/buyer/onDelete W!"]);
    assert_sale(&of("target: Customer"), &of("target: Customer, onDelete: Cascade"), &["/relationships/buyer/onDelete W?S?"]);
    assert_sale(&of("target: Customer"), &of("target: Customer, onDelete: SetNull"), &["/relationships/buyer/onDelete R?S?"]);
    assert_sale(&of("target: Customer"), &of("target: Customer, required: true"), &["/relationships/buyer/required W!"]);
    assert_sale(&of("target: Customer"), &of("target: Customer, unique: true"), &["/relationships/buyer/unique W!"]);
}

#[test]
fn parts_are_compared_member_by_member() {
    let of = |list: &str, members: &str| {
        models(&retail(&format!(
            "  entities:\n  - {{name: Sale, attributes: [{{name: code, type: string}}], parts: [{{name: lines, entity: SaleLine{list}}}]}}\n  - {{name: SaleLine, partOf: Sale, attributes: [{members}]}}"
        )))
    };
    let quantity = "{name: quantity, type: integer}";
    let lines = "/retail/entities/Sale/parts/lines";
    let check = |old: (&str, &str), new: (&str, &str), expected: &str| {
        assert_eq!(told(&of(old.0, old.1), &of(new.0, new.1)), [format!("{lines}{expected}")]);
    };
    check(("", quantity), (", minItems: 1", quantity), "/minItems W!");
    check((", minItems: 1", quantity), ("", quantity), "/minItems R.S.");
    check((", maxItems: 9", quantity), (", maxItems: 5", quantity), "/maxItems W!");
    check(("", quantity), ("", "{name: quantity, type: integer, required: true}"), "/attributes/quantity/required W!");
    check(("", "{name: quantity, type: integer}, {name: note, type: string}"), ("", quantity), "/attributes/note R!W!S!");
    check(("", quantity), ("", "{name: quantity, type: integer}, {name: note, type: string}"), "/attributes/note R.S.");
    let without = models(&retail("  entities: [{name: Sale, attributes: [{name: code, type: string}]}]"));
    assert_eq!(told(&of("", quantity), &without), [format!("{lines} R!W!S!")]);
    assert_eq!(told(&without, &of(", minItems: 1", quantity)), [format!("{lines} R.W!S.")]);
    assert_eq!(told(&without, &of("", quantity)), [format!("{lines} R.S.")]);
}

#[test]
fn subjects_and_paths_and_what_is_kept() {
    let code = "attributes: [{name: code, type: string, maxLength: 9}]";
    let with = |more: &str| format!("{code}, {more}");
    assert_sale(code, &with("events: {routing: code}"), &["/events/routing S!"]);
    assert_sale(&with("events: {routing: code}"), code, &["/events/routing S!"]);
    assert_sale(code, &with("events: {partitionKey: code}"), &["/events/partitionKey S!"]);
    assert_sale(
        &with("events: {routing: code}"),
        "attributes: [{name: number, type: string, maxLength: 9, renamedFrom: code}], events: {routing: number}",
        &["/attributes/number R!W!S!"],
    );
    assert_sale(code, &with("plural: Receipts"), &["/plural R!W!"]);
    assert_sale(code, &with("history: true"), &["/history R."]);
    assert_sale(&with("history: true"), code, &["/history R!"]);
    assert_sale(code, &with("softDelete: true"), &["/softDelete R?"]);
    assert_sale(&with("softDelete: true"), code, &["/softDelete R?"]);
}

#[test]
fn entities_and_models_come_go_and_are_renamed() {
    let of = |entities: &str| {
        models(&retail(&format!("  entities:\n  - {{name: Shop, attributes: [{{name: code, type: string}}]}}\n{entities}")))
    };
    let sale = "  - {name: Sale, attributes: [{name: code, type: string}], relationships: [{name: shop, target: Shop}]}";
    assert_eq!(told(&of(""), &of(sale)), ["/retail/entities/Sale R."]);
    assert_eq!(told(&of(sale), &of("")), ["/retail/entities/Sale R!W!S!"]);
    assert_eq!(told(&of(sale), &of(&sale.replace("name: Sale", "name: Receipt, renamedFrom: Sale"))), ["/retail/entities/Receipt R!W!S!"]);
    // References to an entity follow its rename.
    let renamed = models(&retail(&format!(
        "  entities:\n  - {{name: Store, renamedFrom: Shop, plural: shops, attributes: [{{name: code, type: string}}]}}\n{}",
        sale.replace("target: Shop", "target: Store")
    )));
    assert_eq!(told(&of(sale), &renamed), ["/retail/entities/Store R!W!S!"]);
    assert_eq!(told(&of(sale), &[]), ["/retail R!W!S!"]);
    assert_eq!(told(&[], &of(sale)), ["/retail R."]);
    let elsewhere = models(
        &retail("  entities:\n  - {name: Shop, attributes: [{name: code, type: string}]}")
            .replace("{name: retail}", "{name: retail, namespace: shop}"),
    );
    assert_eq!(told(&of(""), &elsewhere), ["/retail/namespace S!"]);
}

#[test]
fn the_worst_comes_first_and_imports_are_followed() {
    let common = |length: u32| {
        format!(
            "apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {{name: common}}\nspec:\n  entities:\n  - {{name: Party, abstract: true, attributes: [{{name: number, type: string, maxLength: {length}}}]}}\n  - {{name: Person, extends: Party, attributes: [{{name: name, type: string}}]}}\n---\n"
        )
    };
    let of = |length: u32, more: &str| {
        models(&format!(
            "{}{}",
            common(length),
            retail(&format!(
                "  imports: [{{model: common, entities: [Party]}}]\n  entities: [{{name: Customer, extends: Party, attributes: [{{name: code, type: string}}{more}]}}]"
            ))
        ))
    };
    assert_eq!(
        told(&of(9, ""), &of(8, ", {name: new, type: date}")),
        [
            "/common/entities/Person/attributes/number/maxLength W!",
            "/retail/entities/Customer/attributes/number/maxLength W!",
            "/retail/entities/Customer/attributes/new R.S.",
        ]
    );
}
