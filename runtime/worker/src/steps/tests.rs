//! Services compiled and run without anything outside.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use autonomy_crds::documents::{self, Resource};
use autonomy_crds::{Faults, Model, resolve};

use super::*;
use crate::http_call::HttpCaller;
use crate::service::CompiledService;

const MODEL: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  description: For a test.
  enumerations:
    - {name: SaleStatus, description: Where a sale stands., values: [new, accrued]}
  entities:
    - name: Customer
      description: Who buys.
      attributes:
        - {name: number, type: string, required: true, maxLength: 20, description: A number.}
        - {name: rate, type: decimal, precision: 8, scale: 4, description: Points for each unit.}
    - name: Sale
      description: What was bought.
      attributes:
        - {name: total, type: decimal, precision: 12, scale: 2, required: true, description: How much.}
        - {name: status, type: SaleStatus, required: true, default: new, description: Where it stands.}
        - {name: customerNumber, type: string, description: Who.}
        - {name: soldAt, type: dateTime, description: When.}
      parts: [{name: lines, entity: SaleLine}]
      relationships: [{name: customer, target: Customer, description: Who.}]
    - name: SaleLine
      partOf: Sale
      description: A line.
      attributes:
        - {name: product, type: string, required: true, description: What.}
        - {name: quantity, type: integer, required: true, description: How many.}
        - {name: amount, type: decimal, precision: 12, scale: 2, required: true, description: How much.}
";

fn service(spec: &str) -> Result<CompiledService, Faults> {
    service_of(MODEL, spec)
}

fn service_of(model: &str, spec: &str) -> Result<CompiledService, Faults> {
    let parse = |text: &str| documents::parse("test.yaml", text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let models: Vec<_> =
        parse(model).into_iter().filter_map(|r| if let Resource::DataModel(model) = r { Some(model) } else { None }).collect();
    let models: BTreeMap<String, Arc<Model>> =
        resolve::resolve_all(&models).unwrap().into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect();
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let text = format!("apiVersion: autonomy.dev/v1alpha1\nkind: MicroService\nmetadata: {{name: accrual}}\nspec:\n{indented}");
    let Some(Resource::MicroService(service)) = parse(&text).into_iter().next() else { panic!("no service") };
    CompiledService::compile("default", "accrual", &service.spec, &models, &service.spec.config)
}

// A cache of one customer.
struct OneCustomer;

impl Lookups for OneCustomer {
    fn find(&self, cache: &str, by: &str, key: &Value) -> Option<Value> {
        assert_eq!((cache, by), ("customers", "number"));
        (key == &Value::text("c1")).then(|| Value::from_json(br#"{"id": "C-1", "number": "c1", "rate": 1.5000}"#).unwrap())
    }
}

fn event(service: &CompiledService, data: &str) -> Input {
    let (object, before) = service.trigger_reader.as_ref().unwrap().read_event(data.as_bytes()).unwrap();
    let event = EventHead { id: "E-1".to_owned(), kind: "dev.autonomy.shop.Sale.created".to_owned(), ..EventHead::default() };
    Input::Event(EventInput { event, object, before })
}

async fn operations(service: &CompiledService, input: Input) -> Result<Vec<String>, Failure> {
    let http = HttpCaller::new(1, None).unwrap();
    run(service, input, &OneCustomer, &http).await.map(|outcome| outcome.operations.into_iter().map(|operation| operation.json).collect())
}

const SALE: &str = r#"{"id":"S-1","version":1,"createdAt":"2026-11-25T00:00:00Z","updatedAt":"2026-11-25T00:00:00Z","total":10.30,"status":"new",
    "customerNumber":"c1","soldAt":"2026-11-25T23:30:00Z","customerId":null,"lines":[{"product":"p","quantity":2,"amount":10.30}]}"#;

const ACCRUAL: &str = "
trigger: {queue: {model: shop, entity: Sale, filter: object.total > 1}}
caches: [{name: customers, model: shop, entity: Customer, fields: [rate], indexes: [number], filter: object.rate != null}]
config: {zone: Europe/Amsterdam}
steps:
  - {name: customer, lookup: {cache: customers, by: number, key: object.customerNumber}}
  - {when: customer == null, fail: {reason: \"'no customer ' + object.customerNumber\"}}
  - {name: points, set: 'round(object.total * customer.rate, 2)'}
  - name: copy
    create:
      model: shop
      entity: Sale
      object: {total: points, customerId: customer.id, soldAt: timestamp(object.soldAt), lines: 'object.lines.map(l, {\"product\": l.product, \"quantity\": l.quantity, \"amount\": l.amount})'}
  - {create: {model: shop, entity: Customer, forEach: object.lines, onConflict: ignore, object: {number: \"copy.id + '-' + string(index)\", rate: item.amount}}}
  - {patch: {model: shop, entity: Sale, id: object.id, object: {status: \"'accrued'\"}, if: {status: \"'new'\", version: object.version}}}
  - {when: \"localDate(object.soldAt, config.zone) == '2026-11-26'\", stop: {}}
  - {fail: {reason: \"'not reached'\"}}
";

#[tokio::test]
async fn steps_give_exact_operations_and_the_same_in_every_attempt() {
    let service = service(ACCRUAL).unwrap();
    assert_eq!(service.caches[0].fields, ["rate", "id", "number"]);
    let first = operations(&service, event(&service, SALE)).await.unwrap();
    assert_eq!(first, operations(&service, event(&service, SALE)).await.unwrap());
    let id = |text: &str| {
        Value::from_json(text.as_bytes()).unwrap().member("object").unwrap().member("id").unwrap().as_text().unwrap().to_owned()
    };
    let (copy, customer) = (id(&first[0]), id(&first[1]));
    assert_eq!(uuid::Uuid::parse_str(&copy).unwrap().get_version_num(), 8);
    assert_ne!(copy, customer);
    assert_eq!(
        first,
        [
            format!(
                r#"{{"op":"create","model":"shop","entity":"Sale","onConflict":"error","object":{{"id":"{copy}","customerId":"C-1","lines":[{{"product":"p","quantity":2,"amount":10.30}}],"soldAt":"2026-11-25T23:30:00Z","total":15.45}}}}"#
            ),
            format!(
                r#"{{"op":"create","model":"shop","entity":"Customer","onConflict":"ignore","object":{{"id":"{customer}","number":"{copy}-0","rate":10.30}}}}"#
            ),
            r#"{"op":"patch","model":"shop","entity":"Sale","id":"S-1","object":{"status":"accrued"},"if":{"status":"new","version":1}}"#
                .to_owned(),
        ]
    );
    let failure = operations(&service, event(&service, &SALE.replace("c1", "c2"))).await.unwrap_err();
    assert_eq!(failure, Failure::fatal("no customer c2"));
    let Input::Event(cheap) = event(&service, &SALE.replace("10.30", "0.99")) else { panic!() };
    assert_eq!(service.passes_filter(&cheap), Ok(false));
    // A decimal without fraction is a decimal all the same.
    let Input::Event(whole) = event(&service, &SALE.replace("10.30", "7")) else { panic!() };
    assert!(matches!(whole.object.member("total"), Some(Value::Decimal(_))));
}

#[tokio::test]
async fn groups_and_records_have_their_variables() {
    let grouped = service(
        "
trigger: {queue: {model: shop, entity: Sale, batch: {groupBy: object.status}}}
steps:
  - {name: total, set: 'sum(objects.map(o, o.total))'}
  - {create: {model: shop, entity: Customer, object: {number: \"group + '/' + events[0].id + '/' + string(size(objects))\", rate: total}}}
",
    )
    .unwrap();
    let Input::Event(one) = event(&grouped, SALE) else { panic!() };
    assert_eq!(grouped.group_of(&one.object), Ok(Value::text("new")));
    let group =
        GroupInput { events: vec![one.event.clone(), one.event], objects: vec![one.object.clone(), one.object], group: Value::text("new") };
    let written = operations(&grouped, Input::Group(group)).await.unwrap();
    assert!(written[0].contains(r#""number":"new/E-1/2","rate":20.60"#), "{written:?}");

    let loader = service(
        "
trigger: {files: {directory: in, groupBy: receipt}}
steps:
  - {when: \"row.kind == 'void'\", stop: {}}
  - {create: {model: shop, entity: Sale, object: {total: 'sum(rows.map(r, decimal(r.amount)))', customerNumber: \"nullIfEmpty(row['customer no'])\", status: \"file.name == 'a.csv' && line == 2 ? 'new' : 'accrued'\"}}}
",
    )
    .unwrap();
    let row = |amount: &str| {
        Value::object([("kind", "sale"), ("customer no", " "), ("amount", amount)].map(|(name, value)| (name, Value::text(value))))
    };
    let record = RecordInput {
        id: "hash/0".to_owned(),
        row: row("1.10"),
        rows: vec![row("1.10"), row("2.20")],
        file: Value::object([("name", Value::text("a.csv")), ("sha256", Value::text("hash"))]),
        line: 2,
    };
    let written = operations(&loader, Input::Record(record)).await.unwrap();
    assert!(written[0].contains(r#""customerNumber":null,"status":"new","total":3.30"#), "{written:?}");
}

#[test]
fn everything_wrong_is_told_at_once_with_its_path() {
    let faults = service(
        "
trigger: {queue: {model: shop, entity: Sale, filter: object.totl > 1}}
caches: [{name: customers, model: shop, entity: Customer, fields: [rate], indexes: [nummer]}]
steps:
  - {name: customer, lookup: {cache: customers, by: rate, key: object.customerNumber}}
  - {name: customer, lookup: {cache: clients, key: object.id}}
  - {when: object.total, set: '1'}
  - {create: {model: shop, entity: Sale, object: {customer: '1', status: \"'acrued'\", total: '1.0', lines: '[{\"product\": \"p\", \"qty\": 1}]'}}}
  - {create: {model: shop, entity: Sail, object: {}}}
  - {create: {model: shop, entity: Customer, object: {rate: \"'a' + customer.number\"}}}
  - {patch: {model: shop, entity: Sale, id: object.version, object: {version: '1', soldAt: '5'}}}
  - {http: {url: config.provider, headers: {Idempotency-Key: \"'x'\"}}}
",
    )
    .unwrap_err();
    let told = faults.to_string();
    for expected in [
        "spec.trigger.queue.filter: object (shop/Sale) has no member totl; is total meant?",
        "spec.caches[0].indexes[0]: shop/Customer has no member nummer",
        "spec.steps[0].lookup.by: the cache customers can be looked up by id, nummer",
        "spec.steps[1].lookup.cache: there is no cache clients in spec.caches",
        "spec.steps[1].name: the name customer is taken already",
        "spec.steps[2].when: a boolean is expected",
        "spec.steps[2]: a set step has a name",
        "spec.steps[3].create.object.customer: Sale has no member customer; customerId is",
        "spec.steps[3].create.object.status: \"acrued\" is no SaleStatus; there is new, accrued",
        "spec.steps[3].create.object.lines: SaleLine has no member qty; it has product, quantity, amount",
        "spec.steps[4].create.entity: the DataModel shop has no entity Sail; it has Customer, Sale",
        "spec.steps[5].create.object.number: number must be given for a new Customer",
        "spec.steps[5].create.object.rate: customer (shop/Customer) has no member number",
        "spec.steps[6].patch.id: an id is a string",
        "spec.steps[6].patch.object.version: version is given by the platform",
        "spec.steps[6].patch.object.soldAt: soldAt is a string, the expression gives a whole number",
        "spec.steps[7].http.url: ",
        "spec.steps[7].http.headers.Idempotency-Key: the Idempotency-Key is given by the platform",
    ] {
        assert!(told.contains(expected), "{expected}\n-- is not in --\n{told}");
    }
}

#[test]
fn the_services_of_the_loyalty_case_compile() {
    let folder =
        std::path::Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../../examples/retail-loyalty");
    let read = |kind: &str| -> Vec<Resource> {
        let mut paths: Vec<_> = std::fs::read_dir(folder.join(kind)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let parse = |path: std::path::PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap();
            documents::parse(&path.to_string_lossy(), &text).unwrap_or_else(|errors| panic!("{errors:?}"))
        };
        paths.into_iter().flat_map(parse).collect()
    };
    let models: Vec<_> =
        read("models").into_iter().filter_map(|r| if let Resource::DataModel(model) = r { Some(model) } else { None }).collect();
    let models: BTreeMap<String, Arc<Model>> =
        resolve::resolve_all(&models).unwrap().into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect();
    let mut count = 0;
    for resource in read("services") {
        let Resource::MicroService(service) = resource else { continue };
        let name = service.metadata.name.clone().unwrap();
        CompiledService::compile("default", &name, &service.spec, &models, &service.spec.config)
            .unwrap_or_else(|faults| panic!("{name}:\n{faults}"));
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn changes_of_an_entity_that_requires_if_match_name_the_version() {
    let strict = MODEL.replace("    - name: Customer\n", "    - name: Customer\n      requireIfMatch: true\n");
    let steps = |version: &str, on_conflict: &str| {
        format!(
            "trigger: {{queue: {{model: shop, entity: Sale}}}}
steps:
- patch: {{model: shop, entity: Customer, id: object.customerId, object: {{rate: '1.5'}}, if: {{{version}}}}}
- create: {{model: shop, entity: Customer, object: {{number: object.customerNumber}}, onConflict: {on_conflict}}}
- patch: {{model: shop, entity: Sale, id: object.id, object: {{status: \"'accrued'\"}}}}"
        )
    };
    let faults = service_of(&strict, &steps("", "update")).unwrap_err().to_string();
    for path in ["spec.steps[0].patch.if.version", "spec.steps[1].create.onConflict"] {
        assert!(faults.contains(path), "{faults}");
    }
    assert!(!faults.contains("spec.steps[2]"), "{faults}");
    assert!(service_of(&strict, &steps("version: '1'", "ignore")).is_ok());
    assert!(service(&steps("", "update")).is_ok());
}
