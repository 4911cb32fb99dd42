//! Steps within steps, groups, templates and failures, compiled and run without anything outside but web services.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::tests::{SALE, event, operations, service};
use super::*;

const NESTED: &str = "
trigger: {queue: {model: shop, entity: Sale}}
config: {provider: 'PROVIDER'}
steps:
  - name: lines
    forEach:
      list: object.lines
      as: line
      concurrency: 3
      steps:
        - name: booked
          choose:
            - when: line.quantity > 1
              steps:
                - name: answer
                  http: {url: config.provider + '/line', body: '{\"product\": line.product, \"place\": lineIndex}'}
                - {create: {model: shop, entity: Customer, object: {number: \"line.product + '-' + answer.body.number\", rate: '1.5'}}}
            - steps:
                - {name: free, set: line.product}
  - {name: numbers, set: \"lines.map(l, l.booked.answer == null ? l.booked.free : l.booked.answer.body.number)\"}
  - {patch: {model: shop, entity: Sale, id: object.id, object: {customerNumber: \"numbers.join('+')\"}}}
";

type Calls = Arc<Mutex<Vec<(String, String)>>>;

// Answers the later lines first; keeps keys and bodies.
async fn web_service(calls: Calls) -> String {
    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::post;
    let line = move |headers: HeaderMap, body: String| async move {
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        calls.lock().unwrap().push((key, body.clone()));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let place = body["place"].as_u64().unwrap();
        // The one before waits until the one behind it was asked for.
        while place == 0 && calls.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        axum::Json(serde_json::json!({"number": format!("n{place}")}))
    };
    let xml = move |headers: HeaderMap, body: String| async move {
        assert_eq!(headers["content-type"], "application/xml");
        (axum::http::StatusCode::OK, [("content-type", "application/xml")], format!("<ok>{body}</ok>"))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/line", post(line)).route("/xml", post(xml))).await });
    format!("http://{address}")
}

fn sale_of(quantities: &[u32]) -> String {
    let lines: Vec<String> = quantities.iter().map(|n| format!(r#"{{"product":"p{n}","quantity":{n},"amount":1.00}}"#)).collect();
    let (head, _) = SALE.split_once("\"lines\":").unwrap();
    format!("{head}\"lines\":[{}]}}", lines.join(","))
}

#[tokio::test]
async fn steps_run_for_each_element_side_by_side_and_what_they_write_stays_in_order() {
    let calls = Calls::default();
    let service = service(&NESTED.replace("PROVIDER", &web_service(calls.clone()).await)).unwrap();
    let written = operations(&service, event(&service, &sale_of(&[4, 1, 3]))).await.unwrap();
    assert!(written[0].contains(r#""number":"p4-n0""#) && written[1].contains(r#""number":"p3-n2""#), "{written:?}");
    assert!(written[2].contains(r#""customerNumber":"n0+p1+n2""#), "{written:?}");
    assert_eq!(written.len(), 3);
    let mut keys: Vec<String> = calls.lock().unwrap().iter().map(|(key, _)| key.clone()).collect();
    keys.sort();
    assert_eq!(keys, ["accrual/E-1/lines.booked.0.answer/0", "accrual/E-1/lines.booked.0.answer/2"]);
    // The same in every attempt, and every object another id.
    assert_eq!(written, operations(&service, event(&service, &sale_of(&[4, 1, 3]))).await.unwrap());
    let id = |json: &String| Value::from_json(json.as_bytes()).unwrap().member("object").unwrap().member("id").cloned();
    assert_ne!(id(&written[0]), id(&written[1]));
}

#[tokio::test]
async fn lists_that_are_too_long_and_steps_that_fail_tell_their_place() {
    let bounded = NESTED.replace("concurrency: 3", "maxItems: 2");
    let service = super::tests::service(&bounded.replace("PROVIDER", "ftp://nowhere")).unwrap();
    let failure = operations(&service, event(&service, &sale_of(&[1, 1, 1]))).await.unwrap_err();
    assert_eq!(failure, Failure::fatal("spec.steps[0] (lines): `object.lines` has 3 elements; 2 are the most"));
    let failure = operations(&service, event(&service, &sale_of(&[1, 2]))).await.unwrap_err();
    assert!(failure.message.starts_with("spec.steps[0].forEach.steps[0].choose[0].steps[0] (answer): "), "{failure}");
    assert!(failure.message.ends_with(", element 1"), "{failure}");
}

#[tokio::test]
async fn a_stop_within_steps_ends_all_and_keeps_what_was_before() {
    let service = service(
        "
trigger: {queue: {model: shop, entity: Sale}}
steps:
  - forEach:
      list: range(5)
      steps:
        - choose:
            - {when: index == 2, steps: [{stop: {}}]}
        - {create: {model: shop, entity: Customer, object: {number: string(item)}}}
  - {fail: {reason: \"'not reached'\"}}
",
    )
    .unwrap();
    let written = operations(&service, event(&service, SALE)).await.unwrap();
    assert_eq!(written.len(), 2, "{written:?}");
}

#[tokio::test]
async fn lists_are_grouped_with_values_of_each_group() {
    let service = service(
        "
trigger: {queue: {model: shop, entity: Sale}}
steps:
  - name: products
    group:
      list: object.lines
      by: item.product
      values: {total: \"sum(items.map(i, i.amount))\", pieces: \"sum(items.map(i, i.quantity))\", text: \"key + '*' + string(size(items))\"}
  - name: customers
    create: {model: shop, entity: Customer, forEach: products, object: {number: item.text, rate: item.total * item.pieces}}
",
    )
    .unwrap();
    let written = operations(&service, event(&service, &sale_of(&[2, 3, 2]))).await.unwrap();
    let members = |json: &String| {
        let object = Value::from_json(json.as_bytes()).unwrap().member("object").unwrap().clone();
        (object.member("number").unwrap().to_json(), object.member("rate").unwrap().to_json())
    };
    let expected = [("\"p2*2\"", "8.00"), ("\"p3*1\"", "3.00")].map(|(number, rate)| (number.to_owned(), rate.to_owned()));
    assert_eq!(written.iter().map(members).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_failure_says_when_to_come_back() {
    let failing = |fail: &str| format!("trigger: {{queue: {{model: shop, entity: Sale}}}}\nsteps: [{{fail: {{{fail}}}}}]");
    for (fail, after) in [
        ("reason: \"'busy'\", retryable: true, after: \"duration(object.status == 'new' ? '90s' : '1s')\"", Some(Duration::from_secs(90))),
        ("reason: \"'busy'\", retryable: true, after: 'null'", None),
        ("reason: \"'busy'\", retryable: true", None),
    ] {
        let service = service(&failing(fail)).unwrap();
        let failure = operations(&service, event(&service, SALE)).await.unwrap_err();
        assert_eq!(failure, Failure { retryable: true, retry_after: after, message: "busy".to_owned() });
    }
    let faults = service(&failing("reason: \"'x'\", retryable: true, after: \"'5m'\"")).unwrap_err().to_string();
    assert!(faults.contains("spec.steps[0].fail.after: a duration is expected"), "{faults}");
}

#[tokio::test]
async fn a_template_is_sent_as_text_of_its_media_type() {
    let url = web_service(Calls::default()).await;
    let service = service(&format!(
        "
trigger: {{queue: {{model: shop, entity: Sale}}}}
config: {{provider: '{url}'}}
steps:
  - name: answer
    http:
      url: config.provider + '/xml'
      template: {{contentType: application/xml, text: '<sale id=\"{{{{ object.id }}}}\">{{% for l in object.lines %}}<l n=\"{{{{ l.quantity }}}}\"/>{{% endfor %}}</sale>'}}
  - {{create: {{model: shop, entity: Customer, object: {{number: answer.body}}}}}}
"
    ))
    .unwrap();
    let sale = sale_of(&[2, 3]).replace("S-1", "<1>");
    let written = operations(&service, event(&service, &sale)).await.unwrap();
    let number = r#""number":"<ok><sale id=\"&lt;1&gt;\"><l n=\"2\"/><l n=\"3\"/></sale></ok>""#;
    assert!(written[0].contains(number), "{written:?}");
}

#[test]
fn faults_in_steps_within_steps_are_told_with_their_paths() {
    let faults = service(
        "
trigger: {queue: {model: shop, entity: Sale}}
steps:
  - name: lines
    forEach:
      list: object.lines
      steps:
        - name: kind
          choose:
            - {when: item.quantity, steps: [{name: a, set: item.amuont}]}
            - steps:
                - {create: {model: shop, entity: Sale, object: {total: item.amount, status: \"'acrued'\"}}}
                - {name: lines, set: '1'}
        - {set: '1'}
        - {patch: {model: shop, entity: Sale, id: object.id, object: {totl: kind.b}}}
  - {forEach: {list: object.id, steps: [{stop: {}}]}}
  - {when: kind == null, stop: {}}
  - {name: groups, group: {list: object.lines, by: item.prodcut, values: {n: size(item)}}}
  - {when: \"lines[0].kind.a == null && groups[0].m == 1\", stop: {}}
  - {http: {url: \"'http://x'\", template: {contentType: text/xml, text: 'x {{ object.totl }}'}}}
",
    )
    .unwrap_err();
    let told = faults.to_string();
    for expected in [
        "spec.steps[0].forEach.steps[0].choose[0].when: a boolean is expected",
        "spec.steps[0].forEach.steps[0].choose[0].steps[0].set: item (SaleLine) has no member amuont; is amount meant?",
        "spec.steps[0].forEach.steps[0].choose[1].steps[0].create.object.status: \"acrued\" is no SaleStatus",
        "spec.steps[0].forEach.steps[1]: a set step has a name",
        "spec.steps[0].forEach.steps[2].patch.object.totl: Sale has no member totl",
        "spec.steps[0].forEach.steps[2].patch.object.totl: kind (choose) has no member b",
        "spec.steps[1].forEach.list: a list is expected",
        "spec.steps[2].when: there is no variable kind here",
        "spec.steps[3].group.by: item (SaleLine) has no member prodcut; is product meant?",
        "spec.steps[3].group.values.n: there is no variable item here",
        "(group) has no member m",
        "spec.steps[5].http.template.text: line 1: object (shop/Sale) has no member totl; is total meant?",
    ] {
        assert!(told.contains(expected), "{expected}\n-- is not in --\n{told}");
    }
}
