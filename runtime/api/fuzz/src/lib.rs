//! What the fuzz targets have alike: a model with every type of attribute and every option, made ready as the API does it, and rows read back from their binary form.

use std::sync::{Arc, OnceLock};

use autonomy_api::plan::{EntityPlan, ID, PlanCache, Plans};
use autonomy_api::rows::{Rows, Value};
use autonomy_api::value::Encoder;
use autonomy_crds::documents::{self, Resource};
use autonomy_crds::object_json::write_string;
use autonomy_crds::resolve;
use autonomy_process::catalog::Catalog;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

const MODEL: &str = r#"
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  enumerations:
    - {name: SaleStatus, values: [new, accrued]}
  entities:
    - name: Sale
      history: true
      softDelete: true
      attributes:
        - {name: receipt, type: string, required: true, maxLength: 20, pattern: "[A-Z0-9]+"}
        - {name: soldAt, type: dateTime}
        - {name: day, type: date}
        - {name: total, type: decimal, precision: 12, scale: 2}
        - {name: exact, type: decimal}
        - {name: status, type: SaleStatus, required: true, default: new}
        - {name: paid, type: boolean, default: false}
        - {name: points, type: integer, minimum: 0}
        - {name: notes, type: json}
        - {name: signature, type: binary, maxLength: 16}
        - {name: token, type: uuid}
      key: [receipt]
      relationships:
        - {name: store, target: Store}
      parts:
        - {name: lines, entity: SaleLine, maxItems: 50}
    - name: SaleLine
      partOf: Sale
      attributes:
        - {name: quantity, type: integer, required: true, minimum: 1}
        - {name: price, type: decimal, precision: 10, scale: 2}
        - {name: note, type: string, default: none}
        - {name: at, type: dateTime}
        - {name: extra, type: json}
      relationships:
        - {name: store, target: Store}
    - name: Store
      requireIfMatch: true
      attributes:
        - {name: name, type: string, required: true, maxLength: 40}
      events: {routing: name}
      relationships:
        - {name: mother, target: Store}
"#;

/// The model made ready.
pub fn plans() -> &'static Arc<Plans> {
    static PLANS: OnceLock<Arc<Plans>> = OnceLock::new();
    PLANS.get_or_init(|| {
        let models: Vec<_> = documents::parse("model.yaml", MODEL)
            .expect("the model is YAML")
            .into_iter()
            .filter_map(|resource| match resource {
                Resource::DataModel(model) => Some(model),
                _ => None,
            })
            .collect();
        let models = resolve::resolve_all(&models).expect("the model is good");
        let catalog = Catalog {
            revisions: models.iter().map(|model| (model.name.clone(), 1)).collect(),
            models: models.into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect(),
        };
        PlanCache::default().of(&Arc::new(catalog))
    })
}

/// The entity that a byte chooses.
pub fn entity(choice: u8) -> &'static Arc<EntityPlan> {
    let entities = &plans().models["shop"].entities;
    &entities[usize::from(choice) % entities.len()]
}

/// A row as a JSON object, as a client would send it.
pub fn object(plan: &EntityPlan, rows: &Rows, row: usize) -> String {
    let mut json = vec![b'{'];
    for column in plan.writable() {
        let value = match rows.get(row, column) {
            Value::Absent => continue,
            Value::Null => None,
            Value::Bytes(bytes) => Some(bytes),
        };
        if json.len() > 1 {
            json.push(b',');
        }
        write_string(&plan.columns[column].member, &mut json);
        json.push(b':');
        match value {
            Some(bytes) => write_value(&plan.columns[column].encoder, bytes, &mut json),
            None => json.extend_from_slice(b"null"),
        }
    }
    json.push(b'}');
    String::from_utf8(json).expect("what is kept is UTF-8")
}

fn write_value(encoder: &Encoder, bytes: &[u8], json: &mut Vec<u8>) {
    let text = |text: &str, json: &mut Vec<u8>| write_string(text, json);
    match encoder {
        Encoder::Text { .. } | Encoder::Enumeration { .. } => text(std::str::from_utf8(bytes).expect("texts are UTF-8"), json),
        Encoder::Uuid => text(&Uuid::from_slice(bytes).expect("16 bytes").to_string(), json),
        Encoder::Integer { .. } => json.extend(i64::from_be_bytes(bytes.try_into().expect("8 bytes")).to_string().into_bytes()),
        Encoder::Decimal { .. } => json.extend(numeric_text(bytes).into_bytes()),
        Encoder::Boolean => json.extend_from_slice(if bytes == [1] { b"true" } else { b"false" }),
        Encoder::Date => {
            let days = i32::from_be_bytes(bytes.try_into().expect("4 bytes"));
            let span = jiff::Span::new().try_days(days).expect("days of four-digit years");
            text(&jiff::civil::date(2000, 1, 1).checked_add(span).expect("a date").to_string(), json);
        }
        Encoder::DateTime => {
            let micros = i64::from_be_bytes(bytes.try_into().expect("8 bytes"));
            text(&jiff::Timestamp::from_microsecond(micros + 946_684_800_000_000).expect("a point in time").to_string(), json);
        }
        // Behind the version of jsonb's binary form.
        Encoder::Json | Encoder::Parts(_) => json.extend_from_slice(&bytes[1..]),
        Encoder::Binary { .. } => text(&STANDARD.encode(bytes), json),
    }
}

/// The text of PostgreSQL's binary `numeric`.
pub fn numeric_text(bytes: &[u8]) -> String {
    let number = |at: usize| i16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (count, weight, scale) = (i32::from(number(0)), i32::from(number(2)), i32::from(number(6)));
    assert_eq!(bytes.len() as i32, 8 + 2 * count);
    let group = |index: i32| if (0..count).contains(&index) { number(8 + 2 * index as usize) } else { 0 };
    assert!((0..count).all(|index| (0..10_000).contains(&group(index))));
    let four = |index: i32| format!("{:04}", group(index));
    let whole: String = (0..=weight).map(four).collect();
    let whole = whole.trim_start_matches('0');
    let fraction: String = (0..scale).map(|at| char::from(four(weight + 1 + at / 4).as_bytes()[at as usize % 4])).collect();
    let sign = if number(4) == 0 { "" } else { "-" };
    let point = if scale > 0 { "." } else { "" };
    format!("{sign}{}{point}{fraction}", if whole.is_empty() { "0" } else { whole })
}

/// A decimal as its sign, its digits without zeros at either end, and the power of ten of the last: equal where the numbers are.
pub fn canonical(text: &str) -> (bool, String, i64) {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let short = digits.trim_end_matches('0');
    if short.is_empty() {
        return (false, String::new(), 0);
    }
    let exponent: i64 = exponent.trim_start_matches('+').parse().expect("an exponent");
    (negative, short.to_owned(), exponent - fraction.len() as i64 + (digits.len() - short.len()) as i64)
}

/// Checks that every value is of its column's type, and that the row as JSON is read to the same row.
pub fn check_row(plan: &EntityPlan, rows: &Rows, row: usize, purpose: autonomy_api::body::Purpose) {
    use autonomy_api::body::{Purpose, read_object};
    use autonomy_api::problem::{Intake, Path};
    let json = object(plan, rows, row);
    let (mut again, mut intake) = (Rows::new(plan.columns.len()), Intake::default());
    read_object(&json, plan, purpose, &Path::ROOT, &mut again, &mut intake).expect("what is kept is JSON");
    assert!(intake.faults.is_empty(), "{json}: {:?}", intake.faults.list());
    for column in 0..plan.columns.len() {
        assert_eq!(rows.get(row, column), again.get(0, column), "{}: {json}", plan.columns[column].member);
    }
    let needs_id = matches!(purpose, Purpose::Create | Purpose::PatchWithId | Purpose::Delete);
    assert!(!needs_id || matches!(rows.get(row, ID), Value::Bytes(_)));
}
