//! Lists: filters, order, pages, streams.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Api};

async fn stores(api: &Api, count: usize) {
    let list: Vec<Value> = (0..count)
        .map(|n| {
            json!({
                "code": format!("S{n:04}"),
                "name": if n % 3 == 0 { Value::Null } else { json!(format!("Name_{}", n % 5)) },
                "rank": n % 7 + 1,
                "openedOn": if n % 4 == 0 { Value::Null } else { json!(format!("20{:02}-01-01", n % 50)) },
            })
        })
        .collect();
    api.post("/api/shop/stores", &Value::Array(list)).await.expect(201);
}

fn codes(answer: &Answer) -> Vec<String> {
    answer.json().as_array().unwrap().iter().map(|store| store["code"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn filters_find_what_they_say() {
    let api = Api::start().await;
    stores(&api, 50).await;
    let all: Vec<Value> = api.get("/api/shop/stores?limit=1000&sort=code").await.expect(200).json().as_array().unwrap().clone();
    let rank = |store: &Value| store["rank"].as_i64().unwrap();
    let check = async |query: &str, keep: &dyn Fn(&Value) -> bool| {
        let wanted: Vec<String> = all.iter().filter(|store| keep(store)).map(|store| store["code"].as_str().unwrap().to_owned()).collect();
        let found = codes(&api.get(&format!("/api/shop/stores?sort=code&limit=1000&{query}")).await.expect(200));
        assert_eq!(found, wanted, "{query}");
    };
    check("rank=3", &|store| rank(store) == 3).await;
    check("rank.gt=3&rank.lte=5", &|store| rank(store) > 3 && rank(store) <= 5).await;
    check("rank.lt=2", &|store| rank(store) < 2).await;
    check("rank.in=1,7", &|store| rank(store) == 1 || rank(store) == 7).await;
    check("name.isnull=true", &|store| store["name"].is_null()).await;
    check("name.isnull=false&rank.gte=7", &|store| !store["name"].is_null() && rank(store) >= 7).await;
    check("name.ne=Name_1", &|store| store["name"] != "Name_1").await;
    check("name.like=*_1", &|store| store["name"] == "Name_1").await;
    check("name.like=Name%251", &|store| store["name"] == "Name_1").await;
    check("name.like=Name1", &|_| false).await;
    check("code=S0007", &|store| store["code"] == "S0007").await;
    check("openedOn.gte=2030-01-01", &|store| store["openedOn"].as_str().is_some_and(|day| day >= "2030-01-01")).await;
    check("version=1&createdAt.gt=2020-01-01T00:00:00Z", &|_| true).await;
    check("name=no'such; DROP TABLE shop.store", &|_| false).await;
    let counted = api.get("/api/shop/stores?rank=3&limit=2&count=true").await.expect(200);
    assert_eq!(counted.header("x-total-count"), "7");
    assert_eq!(api.get("/api/shop/stores?limit=0&count=true").await.expect(200).text, "[]");
    assert_eq!(codes(&api.get("/api/shop/stores?sort=code&offset=48").await.expect(200)), ["S0048", "S0049"]);
}

#[tokio::test]
async fn pages_show_every_object_once_in_any_order() {
    let api = Api::start().await;
    stores(&api, 60).await;
    for sort in ["", "name", "-name", "-openedOn,name", "openedOn,-rank", "rank,-code", "-createdAt", "id", "-id"] {
        let whole = codes(&api.get(&format!("/api/shop/stores?limit=1000&sort={sort}")).await.expect(200));
        assert_eq!(whole.len(), 60);
        let mut seen = Vec::new();
        let mut path = format!("/api/shop/stores?limit=7&sort={sort}&fields=code");
        loop {
            let page = api.get(&path).await.expect(200);
            seen.extend(codes(&page));
            let link = page.header("link").to_owned();
            if link.is_empty() {
                break;
            }
            assert!(link.ends_with("; rel=\"next\""), "{link}");
            path = link[1..link.find('>').unwrap()].to_owned();
        }
        assert_eq!(seen, whole, "sort={sort}");
    }
}

#[tokio::test]
async fn a_stream_is_the_whole_list_from_one_snapshot() {
    let api = Api::start().await;
    stores(&api, 5_000).await;
    let accept = [("accept", "application/x-ndjson")];
    let before = api.number("SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint").await;
    let streamed = api.send(Method::GET, "/api/shop/stores?fields=code,rank,version&sort=code", &accept, None).await.expect(200);
    assert_eq!(streamed.header("content-type"), "application/x-ndjson");
    let position = streamed.header("autonomy-position");
    assert_eq!(position.len(), 16);
    assert!(i64::from_str_radix(position, 16).unwrap() >= before);
    let lines: Vec<&str> = streamed.text.lines().collect();
    assert_eq!(lines.len(), 5_000);
    let last: Value = serde_json::from_str(lines[4_999]).unwrap();
    assert_eq!((&last["code"], &last["version"], last.as_object().unwrap().len()), (&json!("S4999"), &json!(1), 4));
    let some = api.send(Method::GET, "/api/shop/stores?rank=3&limit=10", &accept, None).await.expect(200);
    assert_eq!(some.text.lines().count(), 10);
    api.send(Method::GET, "/api/shop/stores?rank=x", &accept, None).await.expect(400);
    // Whole objects are the same in a stream as in a page.
    let page = api.get("/api/shop/stores?sort=code&limit=1").await.expect(200).text;
    let line = api.send(Method::GET, "/api/shop/stores?sort=code&limit=1", &accept, None).await.expect(200).text;
    assert_eq!(page, format!("[{}]", line.trim_end()));
    // Streams that nobody reads to their end hold nothing up.
    for _ in 0..20 {
        let response = autonomy_process::http_client::new()
            .get(format!("{}/api/shop/stores", api.base))
            .header("accept", "application/x-ndjson")
            .send()
            .await
            .unwrap();
        assert!(response.status().is_success());
        drop(response);
    }
    assert_eq!(api.send(Method::GET, "/api/shop/stores?fields=id", &accept, None).await.expect(200).text.lines().count(), 5_000);
    let big = api.get("/api/shop/stores?limit=5000").await.expect(200);
    assert_eq!(big.json().as_array().unwrap().len(), 5_000);
}

#[tokio::test]
async fn a_bad_query_is_told_with_all_its_faults() {
    let api = Api::start().await;
    let answer = api
        .get("/api/shop/stores?rank=many&nosuch=1&code.about=x&limit=10001&sort=nosuch&fields=code,no&count=maybe&rank.like=1&offset=-1")
        .await
        .expect(400);
    assert_eq!(answer.pointers(), ["code.about", "count", "fields", "limit", "nosuch", "offset", "rank", "rank.like", "sort"]);
    for query in ["cursor=x", "cursor=e30", "cursor=eyJzIjoiaWQiLCJ2IjpbIm5vLXV1aWQiXX0", "sort=code,code", "id=5", "createdAt=yesterday"] {
        api.get(&format!("/api/shop/stores?{query}")).await.expect(400);
    }
    api.get("/api/shop/sales?lines=x").await.expect(400);
    api.get("/api/shop/sales?notes.isnull=true").await.expect(200);
    api.get("/api/shop/sales?status=old").await.expect(400);
    assert_eq!(api.get("/api/shop/sales?status.in=new,accrued&sort=-status,total").await.expect(200).text, "[]");
}
