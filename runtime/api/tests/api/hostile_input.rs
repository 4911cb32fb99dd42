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
    let answer = api.send(Method::PUT, "/api/shop/stores", &[], body()).await.expect(405);
    assert_eq!(answer.header("allow"), "DELETE, GET, HEAD, PATCH, POST");
    for (method, path) in
        [(Method::POST, missing.as_str()), (Method::GET, "/api/transactions"), (Method::PUT, "/api"), (Method::POST, "/api/shop")]
    {
        api.send(method, path, &[], body()).await.expect(405);
    }
    api.send(Method::POST, "/api/shop/stores", &[("content-type", "text/plain")], body()).await.expect(415);
    let answer = api.send(Method::PATCH, &missing, &[("content-type", "application/xml")], body()).await.expect(415);
    assert_eq!(answer.header("accept-patch"), "application/merge-patch+json, application/json, application/json-patch+json");
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
    let patches = &document["paths"]["/api/shop/sales/{id}"]["patch"]["requestBody"]["content"];
    assert!(patches["application/json-patch+json"]["examples"]["tested"]["value"].is_array());
    let deletions = &document["paths"]["/api/shop/sales"]["delete"]["requestBody"]["content"];
    assert_eq!(deletions["application/json"]["schema"]["minItems"], 1);
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
        // Links name operations too.
        if let Some(name) = value.get("operationId").filter(|_| value.get("responses").is_some()).and_then(|name| name.as_str()) {
            assert!(names.insert(name), "{name}");
        }
        match value {
            serde_json::Value::Object(members) => stack.extend(members.values()),
            serde_json::Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
}

const INJECTIONS: [&str; 4] =
    ["'; DROP TABLE shop.store; --", "\" OR 1=1 --", "1); DELETE FROM shop.store; --", "$1::text || (SELECT version())"];

#[tokio::test]
async fn sql_is_text_wherever_it_stands() {
    let api = Api::start().await;
    api.make("/api/shop/stores", json!({"code": "A1", "name": "x"})).await;
    let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    for sql in INJECTIONS {
        let text = encode(sql);
        for path in [format!("/api/{text}"), format!("/api/{text}/stores"), format!("/api/shop/{text}"), format!("/api/shop/stores/{text}")]
        {
            api.get(&path).await.expect(404);
        }
        for query in [
            format!("{text}=1"),
            format!("name.{text}=1"),
            format!("{text}.eq=1"),
            format!("sort={text}"),
            format!("fields={text}"),
            format!("embed={text}"),
            format!("aggregate={text}"),
            format!("aggregate=sum({text})"),
            format!("aggregate=count&groupBy={text}"),
            format!("limit={text}"),
            format!("offset={text}"),
            format!("cursor={text}"),
            format!("rank={text}"),
            format!("openedOn.gte={text}"),
            format!("id.in={text}"),
        ] {
            api.get(&format!("/api/shop/stores?{query}")).await.expect(400);
        }
        // A cursor of the right form, with other values in it.
        for (sort, values) in [("id", json!([sql])), ("name,id", json!([sql, sql])), ("rank,id", json!([sql, null])), ("id", json!([null]))]
        {
            use base64::Engine;
            let cursor = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json!({"s": sort, "v": values}).to_string());
            let answer = api.get(&format!("/api/shop/stores?sort={sort}&cursor={cursor}")).await.expect(400);
            assert_eq!(answer.json()["type"], "https://autonomy.dev/problems/invalid-cursor");
        }
        for query in [format!("name={text}"), format!("name.in={text}"), format!("name.like={text}"), format!("code.gt={text}")] {
            api.get(&format!("/api/shop/stores?{query}")).await.expect(200);
        }
        let mut members = json!({"title": "x"});
        members[sql] = json!(1);
        api.post("/api/shop/products", &members).await.expect(422);
        let table = format!("\"{}\"\nx\n", sql.replace('"', "\"\""));
        api.send(Method::POST, "/api/shop/products", &[("content-type", "text/csv")], Some(table)).await.expect(400);
        for header in ["if-match", "idempotency-key", "prefer", "traceparent", "accept"] {
            let answer = api.send(Method::DELETE, &format!("/api/shop/stores/{}", uuid::Uuid::now_v7()), &[(header, sql)], None).await;
            assert!(answer.status.is_client_error(), "{header}: {}", answer.status);
        }
        let content_type = [("content-type", sql)];
        api.send(Method::POST, "/api/shop/stores", &content_type, Some("{}".to_owned())).await.expect(415);
        let unit = json!({"units": [{"idempotencyKey": sql, "context": {"actor": sql}, "operations": [
            {"op": "create", "model": sql, "entity": sql, "object": {}},
            {"op": "patch", "model": "shop", "entity": "Store", "id": sql, "object": {sql: sql}, "if": {sql: sql}},
        ]}]});
        let answer = api.post("/api/transactions", &unit).await.expect(200).json();
        assert_eq!(answer["units"][0]["status"], 422, "{answer}");
        let made = api.post("/api/shop/products", &json!({"title": sql})).await.expect(201);
        assert_eq!(made.json()["title"], sql);
    }
    assert_eq!(api.number("SELECT count(*) FROM shop.store").await, 1);
}

#[tokio::test]
async fn huge_numbers_and_characters_that_are_none_are_faults_everywhere() {
    let api = Api::start().await;
    let digits = "9".repeat(10_000);
    for number in ["1e400", "-1e400", "1e-400000", &digits, &format!("0.{digits}")] {
        let sale = format!(
            r#"{{"receipt":"{}","soldAt":"2026-11-25T10:00:00Z","total":1,"points":{number},"storeId":"{}"}}"#,
            uuid::Uuid::now_v7(),
            uuid::Uuid::now_v7()
        );
        let answer = api.send(Method::POST, "/api/shop/sales", &[], Some(sale)).await.expect(422);
        assert_eq!(answer.pointers(), ["/points"], "{}", answer.text);
        api.get(&format!("/api/shop/sales?points={number}")).await.expect(400);
        api.get(&format!("/api/shop/sales?limit={number}")).await.expect(400);
        api.get(&format!("/api/shop/sales?offset={number}")).await.expect(400);
        let body = format!("code,rank\nA,{number}\n");
        api.send(Method::POST, "/api/shop/stores", &[("content-type", "text/csv")], Some(body)).await.expect(422);
    }
    for (query, status) in
        [("exact=1e400", 200), ("exact.gt=-1e400", 200), ("offset=9223372036854775807", 200), ("version=9223372036854775808", 400)]
    {
        api.get(&format!("/api/shop/sales?{query}")).await.expect(status);
    }
    let bytes = |path: &str, media_type: &'static str, body: &'static [u8]| {
        let request =
            autonomy_process::http_client::new().post(format!("{}{path}", api.base)).header("content-type", media_type).body(body);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    for media_type in ["application/json", "application/x-ndjson", "text/csv"] {
        for body in [&b"\xFF\xFE"[..], b"{\"title\":\"\xC3\x28\"}", b"title\n\xF0\x28\x8C\xBC\n", b"{\"title\":\"\xED\xA0\x80\"}"] {
            assert_eq!(bytes("/api/shop/products", media_type, body).await, 400, "{media_type}: {body:?}");
        }
    }
    assert_eq!(bytes("/api/transactions", "application/json", b"{\"units\":[\"\xFF\"]}").await, 400);
    for path in ["/api/shop/stores/%00", "/api/%00/stores", "/api/shop/%FF"] {
        api.get(path).await.expect(404);
    }
    for query in ["name=a%00b", "name.like=%00", "sort=%00", "cursor=%00", "aggregate=%00", "%FF=1"] {
        api.get(&format!("/api/shop/stores?{query}")).await.expect(400);
    }
    let nul = [
        ("text/csv", "title\na\0b\n"),
        ("application/x-ndjson", "{\"title\":\"a\\u0000b\"}\n"),
        ("application/json", "{\"title\":\"a\\u0000b\"}"),
    ];
    for (media_type, body) in nul {
        let answer = api.send(Method::POST, "/api/shop/products", &[("content-type", media_type)], Some(body.to_owned())).await;
        assert!(matches!(answer.status.as_u16(), 400 | 422), "{media_type}: {}", answer.text);
    }
}

#[tokio::test]
async fn nesting_has_a_depth_in_every_kind_of_body() {
    let api = Api::start().await;
    for depth in [65, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let sale = format!("{{\"notes\":{open}{close}}}");
        for (path, media_type, body, statuses) in [
            ("/api/shop/sales", "application/json", sale.clone(), [400, 400]),
            ("/api/shop/sales", "application/x-ndjson", format!("{sale}\n"), [400, 400]),
            ("/api/shop/sales", "text/csv", format!("notes\n{open}{close}\n"), [400, 422]),
            ("/api/transactions", "application/json", format!("{{\"units\":{open}{close}}}"), [400, 400]),
            ("/api/shop/sales", "application/json", open.clone(), [400, 400]),
            ("/api/shop/sales", "application/json", "{\"a\":".repeat(depth), [400, 400]),
        ] {
            let answer = api.send(Method::POST, path, &[("content-type", media_type)], Some(body)).await;
            assert!(statuses.contains(&answer.status.as_u16()), "{media_type}, {depth}: {}", answer.text);
        }
    }
}

// Sends bytes as they are, and gives the answer's status; none where the connection ends without one.
async fn raw(api: &Api, request: &[u8]) -> Option<u16> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(api.base.trim_start_matches("http://")).await.unwrap();
    // A server that has answered already need not take the rest.
    let _ = connection.write_all(request).await;
    let mut answer = [0; 64];
    let read = tokio::time::timeout(std::time::Duration::from_secs(20), connection.read(&mut answer)).await.expect("an answer in time");
    let text = String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned();
    text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[tokio::test]
async fn heads_that_are_too_large_are_answered() {
    let api = Api::start().await;
    let many: String = (0..5_000).map(|number| format!("x-{number}: y\r\n")).collect();
    let cases = [
        (format!("GET /api HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431),
        (format!("GET /api HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1_000_000)), 431),
        (format!("GET /api/shop/stores?name={} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(100_000)), 414),
        ("GET /api HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n".to_owned(), 400),
        ("GET /api HTTP/1.1\r\nhost: x\r\n: y\r\n\r\n".to_owned(), 400),
        ("\x16\x03\x01\x02\x00\r\n\r\n".to_owned(), 400),
        ("POST /api/shop/stores HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_owned(), 400),
        ("POST /api/shop/stores HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999\r\n\r\n".to_owned(), 413),
        ("POST /api/shop/stores HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(), 400),
    ];
    for (request, status) in cases {
        let shown: String = request.chars().take(80).collect();
        assert_eq!(raw(&api, request.as_bytes()).await, Some(status), "{shown}");
    }
    let long = format!("/api/shop/stores?name={}", "y".repeat(60_000));
    assert_eq!(api.get(&long).await.expect(200).json(), json!([]));
    api.get("/api/shop/stores").await.expect(200);
}
