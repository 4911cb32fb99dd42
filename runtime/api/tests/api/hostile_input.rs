//! Whatever comes in, the answer is a problem of the client's, and the next request is served.

use reqwest::Method;
use serde_json::json;

use crate::support::Api;

#[tokio::test]
async fn hostile_bodies_are_answered_as_the_client_s_fault() {
    let api = Api::start().await;
    let deep = format!("{{\"notes\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(String, u16)> = [
        ("", 400),
        ("{", 400),
        ("nul", 400),
        ("{\"receipt\":\"\u{1}\"}", 400),
        ("{\"receipt\":1e999999999}", 422),
        ("{\"total\":1e-999999999,\"exact\":1e999999999}", 422),
        ("{\"receipt\":\"\\u0000\",\"notes\":\"\\u0000\"}", 422),
        ("{\"receipt\":\"\\ud800\"}", 422),
        ("{\"notes\":{\"a\":\"\\ud800\"}}", 422),
        ("{\"exact\":\"NaN\",\"total\":\"Infinity\"}", 422),
        ("{\"soldAt\":\"infinity\"}", 422),
        ("{} {}", 400),
        ("[{}],", 400),
        ("true", 422),
        ("\"x\"", 422),
        ("[[]]", 422),
        ("{\"\":1,\"/~\":2}", 422),
        ("{\"lines\":{}}", 422),
        ("{\"lines\":[null,[],\"x\",{\"quantity\":null}]}", 422),
    ]
    .into_iter()
    .map(|(body, status)| (body.to_owned(), status))
    .chain([(deep, 400), (format!("{{\"exact\":{}}}", "9".repeat(100_000)), 422)])
    .collect();
    for (body, status) in cases {
        let shown: String = body.chars().take(60).collect();
        let answer = api.send(Method::POST, "/api/shop/sales", &[], Some(body)).await;
        assert_eq!(answer.status.as_u16(), status, "{shown}: {}", answer.text);
        answer.expect(status);
    }
    let slashes = api.send(Method::POST, "/api/shop/products", &[], Some("{\"title\":\"x\",\"/~\":2}".to_owned())).await.expect(422);
    assert_eq!(slashes.pointers(), ["/~1~0"]);
    let bytes =
        autonomy_process::http_client::new().post(format!("{}/api/shop/products", api.base)).body(vec![0xFF, 0xFE]).send().await.unwrap();
    assert_eq!(bytes.status().as_u16(), 400);
    let large = format!("{{\"title\":\"{}\"}}", "x".repeat(5 * 1024 * 1024));
    api.send(Method::POST, "/api/shop/products", &[], Some(large)).await.expect(413);
    let odd = json!({"title": "'; DROP TABLE shop.product; -- \\ \" $1 {} %s \u{10FFFF}"});
    let made = api.post("/api/shop/products", &odd).await.expect(201);
    assert_eq!(made.json()["title"], odd["title"]);
}

#[tokio::test]
async fn paths_methods_and_media_types_that_are_none_are_problems() {
    let api = Api::start().await;
    let body = || Some("{}".to_owned());
    for path in
        ["/", "/nothing", "/api/nothing", "/api/shop/nothing", "/api/shop/stores/x", "/api/shop/stores/x/y/z", "/api/%00/%FF", "/apix"]
    {
        api.get(path).await.expect(404);
    }
    let missing = format!("/api/shop/stores/{}", uuid::Uuid::now_v7());
    api.get(&missing).await.expect(404);
    let answer = api.send(Method::DELETE, "/api/shop/stores", &[], None).await.expect(405);
    assert_eq!(answer.header("allow"), "GET, HEAD, PATCH, POST");
    for (method, path) in
        [(Method::POST, missing.as_str()), (Method::GET, "/api/transactions"), (Method::PUT, "/api"), (Method::POST, "/api/shop")]
    {
        api.send(method, path, &[], body()).await.expect(405);
    }
    api.send(Method::POST, "/api/shop/stores", &[("content-type", "text/plain")], body()).await.expect(415);
    api.send(Method::PATCH, &missing, &[("content-type", "application/json-patch+json")], body()).await.expect(415);
    api.send(Method::POST, "/api/shop/stores", &[("if-match", "\"1\"")], Some(json!({"code": "A"}).to_string())).await.expect(400);
    api.send(Method::DELETE, &missing, &[("if-match", "x")], None).await.expect(412);
    api.get("/api/shop/stores?%00=1").await.expect(400);
    api.get("/api/shop/stores?name=%FF").await.expect(400);
    api.get(&format!("{missing}?limit=1")).await.expect(400);
    let head = api.send(Method::HEAD, "/api/shop/stores", &[], None).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
}

#[tokio::test]
async fn the_api_describes_itself() {
    let api = Api::start().await;
    let models = api.get("/api").await.expect(200).json();
    assert_eq!(models["models"][0]["entities"][0]["path"], "/api/shop/stores");
    let model: autonomy_crds::Model = serde_json::from_value(api.get("/api/shop").await.expect(200).json()).unwrap();
    assert_eq!(model.entity("Sale").unwrap().path, "sales");
    let document = api.get("/api/shop/openapi.json").await.expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let events = api.get("/api/shop/asyncapi.json").await.expect(200).json();
    assert_eq!(events["asyncapi"], "3.0.0");
    let message = &events["components"]["messages"]["SaleUpdated"];
    let sale = model.entity("Sale").unwrap();
    assert_eq!(message["name"], model.event_type(sale, autonomy_crds::micro_service::Operation::Updated));
    let address = events["channels"]["Sale"]["address"].as_str().unwrap();
    let subject = model.subject(sale, autonomy_crds::micro_service::Operation::Created, Some("new"), "x");
    assert!(subject.starts_with(&address[..address.find('{').unwrap()]), "{address} {subject}");
    let page = api.get("/docs").await.expect(200);
    assert!(page.text.contains("<h1>Object API</h1>") && page.header("content-security-policy").contains("'sha256-"));
    assert!(!page.text.contains("http://") && !page.text.contains("https://"), "it works without a network");
    all_references_resolve(&document);
    all_references_resolve(&events);
    for schema in ["Sale", "SaleCreate", "SalePatch", "SaleLine", "Problem", "Transactions"] {
        assert!(document["components"]["schemas"][schema].is_object(), "{schema}");
    }
    assert!(document["paths"]["/api/shop/sales/{id}"]["patch"].is_object());
    assert_eq!(api.get("/healthz").await.status.as_u16(), 200);
    assert_eq!(api.get("/readyz").await.status.as_u16(), 200);
    assert!(api.get("/metrics").await.text.contains("autonomy_api_requests_total"));
}

// Every reference points to something, and every operation has a name of its own.
fn all_references_resolve(document: &serde_json::Value) {
    let mut names = std::collections::BTreeSet::new();
    let mut stack = vec![document];
    while let Some(value) = stack.pop() {
        if let Some(reference) = value.get("$ref").and_then(|reference| reference.as_str()) {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
        if let Some(name) = value.get("operationId").and_then(|name| name.as_str()) {
            assert!(names.insert(name), "{name}");
        }
        match value {
            serde_json::Value::Object(members) => stack.extend(members.values()),
            serde_json::Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
}
