//! Services compiled and run without anything outside.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use super::*;
use crate::http_call::{HttpCaller, Metrics};
use crate::rehearsal::{self, CompileError};
use crate::secrets::Secrets;
use crate::service::{CompiledService, Group};

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

pub(super) fn service(spec: &str) -> Result<CompiledService, CompileError> {
    service_of(MODEL, spec)
}

fn service_of(model: &str, spec: &str) -> Result<CompiledService, CompileError> {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    rehearsal::compile(&format!(
        "{model}---\napiVersion: autonomy.dev/v1alpha1\nkind: MicroService\nmetadata: {{name: accrual}}\nspec:\n{indented}"
    ))
}

// A cache of one customer.
struct OneCustomer;

impl Lookups for OneCustomer {
    fn find(&self, cache: &str, by: &str, key: &Value) -> Option<Value> {
        assert_eq!((cache, by), ("customers", "number"));
        (key == &Value::text("c1")).then(|| Value::from_json(br#"{"id": "C-1", "number": "c1", "rate": 1.5000}"#).unwrap())
    }
}

pub(super) fn event(service: &CompiledService, data: &str) -> Input {
    let (object, before) = service.trigger_reader.as_ref().unwrap().read_event(data.as_bytes()).unwrap();
    let event = EventHead { id: "E-1".to_owned(), kind: "dev.autonomy.shop.Sale.created".to_owned(), ..EventHead::default() };
    Input::Event(EventInput { event, object, before })
}

pub(super) async fn operations(service: &CompiledService, input: Input) -> Result<Vec<String>, Failure> {
    let http = HttpCaller::new(4, Secrets::default(), Metrics::default()).unwrap();
    run(service, input, &OneCustomer, &http).await.map(|outcome| outcome.operations.into_iter().map(|operation| operation.json).collect())
}

pub(super) const SALE: &str = r#"{"id":"S-1","version":1,"createdAt":"2026-11-25T00:00:00Z","updatedAt":"2026-11-25T00:00:00Z","total":10.30,"status":"new",
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

#[test]
fn a_window_with_a_time_zone_parts_the_days_there() {
    let batch = "batch: {maxWait: 24h, timeZone: Europe/Amsterdam}";
    let service = service(&format!("trigger: {{queue: {{model: shop, entity: Sale, {batch}}}}}\nsteps: [{{name: a, set: '1'}}]")).unwrap();
    let day_of = |time: &str| {
        let Input::Event(mut one) = event(&service, SALE) else { panic!() };
        one.event.time = time.to_owned();
        service.group_of(&one).unwrap().day.unwrap().to_string()
    };
    // Winter and summer; the days at whose end the clocks change have 25 and 23 hours.
    for (time, day) in [
        ("2026-11-25T22:59:59.999Z", "2026-11-25"),
        ("2026-11-25T23:00:00Z", "2026-11-26"),
        ("2026-07-01T21:59:59Z", "2026-07-01"),
        ("2026-07-01T22:00:00Z", "2026-07-02"),
    ] {
        assert_eq!(day_of(time), day, "{time}");
    }
    let rest = |now: &str| service.rest_of_day(now.parse().unwrap()).unwrap().as_secs();
    assert_eq!(rest("2026-11-25T22:59:30Z"), 30);
    assert_eq!(rest("2026-11-25T23:00:00Z"), 24 * 3600);
    assert_eq!(rest("2026-10-24T22:00:00Z"), 25 * 3600);
    assert_eq!(rest("2026-03-28T23:00:00Z"), 23 * 3600);
    let wrong =
        self::service("trigger: {queue: {model: shop, entity: Sale, batch: {timeZone: Europe/Amsterdm}}}\nsteps: [{name: a, set: '1'}]");
    assert!(wrong.unwrap_err().to_string().contains("spec.trigger.queue.batch.timeZone: there is no time zone"));
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
    assert_eq!(grouped.group_of(&one), Ok(Group { day: None, value: Value::text("new") }));
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
    let read = |kind: &str| -> Vec<String> {
        let paths = std::fs::read_dir(folder.join(kind)).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    };
    let models = read("models").join("\n---\n");
    let services = read("services");
    for service in &services {
        rehearsal::compile(&format!("{models}\n---\n{service}")).unwrap_or_else(|error| panic!("{error}\n{service}"));
    }
    assert!(services.len() >= 4);
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

const BULK: &str = "
trigger: {queue: {model: shop, entity: Sale}}
config: {provider: 'PROVIDER'}
steps:
  - name: booked
    http:
      url: config.provider + '/bulk'
      body: '{\"accruals\": items}'
      bulk:
        item: '{\"sale\": object.id, \"total\": object.total}'
        results: body.results
        status: result.status
        maxItems: 4
        maxWait: 50ms
      expect: [201]
  - {patch: {model: shop, entity: Sale, id: object.id, object: {status: \"'accrued'\"}, if: {version: object.version}}}
";

// Books every item by its total: 1 is new, 2 is down for now, 3 is refused.
async fn provider(calls: Arc<std::sync::Mutex<Vec<usize>>>, broken: bool) -> String {
    use axum::Json;
    use serde_json::json;
    let book = move |Json(body): Json<serde_json::Value>| async move {
        let items = body["accruals"].as_array().unwrap();
        calls.lock().unwrap().push(items.len());
        let status = |item: &serde_json::Value| match item["total"].as_f64().unwrap() as i64 {
            1 => 201,
            2 => 503,
            _ => 422,
        };
        let mut results: Vec<_> = items.iter().map(|item| json!({"sale": item["sale"], "status": status(item)})).collect();
        if broken {
            results.pop();
        }
        Json(json!({"results": results}))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The bulk call itself is answered with 201.
    let router = axum::Router::new().route("/bulk", axum::routing::post(async |body| (axum::http::StatusCode::CREATED, book(body).await)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn sale(id: usize, total: u32) -> String {
    SALE.replace("S-1", &format!("S-{id}")).replace("\"total\":10.30", &format!("\"total\":{total}.00"))
}

async fn all(service: &CompiledService, sales: &[String]) -> Vec<Result<Vec<String>, Failure>> {
    futures::future::join_all(sales.iter().map(|data| operations(service, event(service, data)))).await
}

#[tokio::test]
async fn calls_of_several_events_are_one_call_and_each_has_its_own_outcome() {
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let url = provider(calls.clone(), false).await;
    let service = service(&BULK.replace("PROVIDER", &url)).unwrap();
    let sales: Vec<String> = [1, 2, 3, 1, 1, 1].iter().enumerate().map(|(index, total)| sale(index, *total)).collect();
    let outcomes = all(&service, &sales).await;
    assert_eq!(*calls.lock().unwrap(), [4, 2], "full after four; the others waited as long as they may");
    for (index, outcome) in outcomes.iter().enumerate() {
        match (index, outcome) {
            (1, Err(failure)) => assert!(failure.retryable && failure.message.contains("503"), "{failure}"),
            (2, Err(failure)) => assert!(!failure.retryable && failure.message.contains("S-2"), "{failure}"),
            (_, Ok(written)) => assert!(written[0].contains(&format!("S-{index}")), "{written:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn results_that_do_not_fit_the_items_fail_all_of_them() {
    let url = provider(Arc::default(), true).await;
    let service = service(&BULK.replace("PROVIDER", &url)).unwrap();
    let outcomes = all(&service, &[sale(1, 1), sale(2, 1)]).await;
    for outcome in outcomes {
        let failure = outcome.unwrap_err();
        assert!(!failure.retryable && failure.message.contains("1 elements for 2 items"), "{failure}");
    }
}

#[tokio::test]
async fn whoever_gives_up_waiting_leaves_nobody_waiting_for_ever() {
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let url = provider(calls.clone(), false).await;
    let service = service(&BULK.replace("PROVIDER", &url).replace("50ms", "1h")).unwrap();
    let data = [sale(1, 1), sale(2, 1)];
    let mut first = Box::pin(operations(&service, event(&service, &data[0])));
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(operations(&service, event(&service, &data[1])));
    assert!(futures::poll!(&mut second).is_pending());
    // The first one would have made the call.
    drop(first);
    assert!(second.await.unwrap_err().retryable);
    assert!(calls.lock().unwrap().is_empty());
}

#[test]
fn a_bulk_call_sees_its_items_and_no_event() {
    let wrong = BULK.replace("config.provider + '/bulk'", "object.id").replace("result.status", "result == null");
    let Err(CompileError::Service(faults)) = service(&wrong) else { panic!("it compiles, or has other faults") };
    let told: Vec<&str> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(told, ["spec.steps[0].http.bulk.status", "spec.steps[0].http.url"], "{faults}");
}

// What a web service gets as a document of the sale's lines.
async fn posted(document: &str) -> Result<(String, String), Failure> {
    let heard = std::sync::Arc::new(std::sync::Mutex::new((String::new(), String::new())));
    let hearing = heard.clone();
    let receive = move |headers: axum::http::HeaderMap, body: String| async move {
        let content_type = headers["content-type"].to_str().unwrap().to_owned();
        *hearing.lock().unwrap() = (content_type, body);
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/", axum::routing::post(receive))).await });
    let yaml = format!("trigger: {{queue: {{model: shop, entity: Sale}}}}\nsteps: [{{http: {{url: \"'{url}'\", document: {document}}}}}]");
    let service = service(&yaml).unwrap();
    operations(&service, event(&service, SALE)).await?;
    let heard = heard.lock().unwrap().clone();
    Ok(heard)
}

#[tokio::test]
async fn documents_have_their_rows_exactly() {
    let csv = "{rows: object.lines, csv: {columns: [{name: product, value: item.product}, {name: amount, value: item.amount}, {name: none, value: object.customerId}]}}";
    let wanted = ("text/csv; charset=utf-8".to_owned(), "product,amount,none\r\np,10.30,\r\n".to_owned());
    assert_eq!(posted(csv).await, Ok(wanted));
    let fixed = "{rows: object.lines, fixedWidth: {fields: [{value: item.product, length: 4}, {value: -item.quantity, length: 5, align: right, fill: '0'}, {value: item.amount, length: 8, align: right}]}}";
    assert_eq!(posted(fixed).await.unwrap().1, "p   -0002   10.30\r\n");
    assert_eq!(posted("{rows: object.lines, json: {}}").await.unwrap().1, "[{\"product\":\"p\",\"quantity\":2,\"amount\":10.30}]\n");
    assert_eq!(posted("{rows: '[1, 2.50]', ndjson: {}}").await.unwrap().1, "1\n2.50\n");
    // Nothing is cut off.
    let narrow = posted("{rows: object.lines, fixedWidth: {fields: [{value: item.amount, length: 4}]}}").await.unwrap_err();
    assert!(!narrow.retryable && narrow.message.contains("longer than the field of 4"), "{narrow}");
}

#[test]
fn wrong_documents_are_told_with_their_paths() {
    for (document, path) in [
        ("{rows: object.total, json: {}}", "spec.steps[0].http.document.rows"),
        ("{rows: object.lines, csv: {columns: [{name: a, value: item.price}]}}", "spec.steps[0].http.document.csv.columns[0].value"),
        ("{rows: object.lines}", "spec.steps[0].http.document"),
    ] {
        let yaml =
            format!("trigger: {{queue: {{model: shop, entity: Sale}}}}\nsteps: [{{http: {{url: \"'http://a'\", document: {document}}}}}]");
        let faults = service(&yaml).unwrap_err();
        assert!(faults.to_string().contains(path), "{document}: {faults}");
    }
}
