//! Former versions: objects as of a moment, an object's versions, deleted objects.

use autonomy_operator::apply::{apply, apply_models, plan_model};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::{Answer, Api, models};

const MODEL: &str = r#"
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  enumerations:
    - {name: SaleStatus, values: [new, paid]}
  entities:
    - name: Store
      attributes: [{name: code, type: string, required: true}]
      key: [code]
    - name: Sale
      history: true
      softDelete: true
      attributes:
        - {name: receipt, type: string, required: true, maxLength: 40}
        - {name: soldAt, type: dateTime}
        - {name: day, type: date}
        - {name: total, type: decimal, precision: 30, scale: 10, required: true}
        - {name: exact, type: decimal}
        - {name: points, type: integer}
        - {name: status, type: SaleStatus, required: true, default: new}
        - {name: paid, type: boolean}
        - {name: notes, type: json}
        - {name: signature, type: binary}
        - {name: token, type: uuid}
      key: [receipt]
      relationships: [{name: store, target: Store}]
      parts: [{name: lines, entity: SaleLine}]
    - name: SaleLine
      partOf: Sale
      attributes: [{name: price, type: decimal, precision: 10, scale: 2}]
    - name: Product
      softDelete: true
      attributes: [{name: title, type: string, unique: true}]
    - name: Balance
      attributes: [{name: asOf, type: date}]
    - name: Entry
      history: true
      attributes: [{name: title, type: string}]
"#;

// The database's clock: all that was written before lies before it, and what comes after lies after it.
async fn now(api: &Api) -> String {
    sqlx::query_scalar("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        .fetch_one(&api.admin)
        .await
        .unwrap()
}

fn receipts(answer: &Answer) -> Vec<String> {
    answer.json().as_array().unwrap().iter().map(|sale| sale["receipt"].as_str().unwrap().to_owned()).collect()
}

// A version without what it has beside the object.
fn object_of(version: &Value) -> Value {
    let mut object = version.clone();
    object.as_object_mut().unwrap().retain(|member, _| !member.starts_with('@'));
    object
}

fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link");
    link.strip_prefix('<').map(|rest| rest[..rest.find('>').unwrap()].to_owned())
}

#[tokio::test]
async fn objects_are_read_as_they_were_to_the_byte() {
    let api = Api::with(MODEL).await;
    let store = api.make("/api/shop/stores", json!({"code": "S1"})).await;
    let whole = r#"{"receipt":"A","soldAt":"2026-01-02T03:04:05.123456Z","day":"2026-01-02","total":12345678901234567890.1200000000,
        "exact":1.2300,"points":9223372036854775807,"paid":true,"notes":{"a":[1.50,"\u00e9\"\\"]},"signature":"AP8Q",
        "token":"0190a0a0-0000-7000-8000-000000000001","lines":[{"price":1.50},{"price":null}]}"#;
    let before = now(&api).await;
    let made = api
        .send(Method::POST, "/api/shop/sales", &[], Some(whole.replace("\"lines\"", &format!("\"storeId\":\"{store}\",\"lines\""))))
        .await
        .expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/shop/sales/{id}");
    let mut was = vec![(now(&api).await, api.get(&path).await.expect(200).text)];
    for patch in [
        json!({"total": "0.10", "exact": null, "signature": null, "status": "paid"}),
        json!({"lines": [], "notes": null, "token": null}),
        json!({"paid": false, "soldAt": null}),
    ] {
        api.patch(&path, &patch).await.expect(200);
        was.push((now(&api).await, api.get(&path).await.expect(200).text));
    }
    for (version, (moment, text)) in was.iter().enumerate() {
        let answer = api.get(&format!("{path}?asOf={moment}")).await.expect(200);
        assert_eq!(answer.text, *text);
        assert_eq!(answer.header("etag"), format!("\"{}\"", version + 1));
        assert_eq!(api.get(&format!("/api/shop/sales?asOf={moment}")).await.expect(200).text, format!("[{text}]"));
    }
    api.get(&format!("{path}?asOf={before}")).await.expect(404);
    assert_eq!(api.get(&format!("/api/shop/sales?asOf={before}&count=true")).await.expect(200).header("x-total-count"), "0");
    // The very moment at which a version begins is its own.
    let changed = serde_json::from_str::<Value>(&was[1].1).unwrap()["updatedAt"].as_str().unwrap().to_owned();
    assert_eq!(api.get(&format!("{path}?asOf={changed}")).await.expect(200).text, was[1].1);
    let some: Value = api.get(&format!("{path}?asOf={}&fields=total", was[0].0)).await.expect(200).json();
    assert_eq!(some.as_object().unwrap().len(), 2);
    // The versions are the same objects, the newest first.
    let versions = api.get(&format!("{path}/history")).await.expect(200);
    let list = versions.json().as_array().unwrap().clone();
    assert_eq!(list.len(), 4);
    for ((moment, text), version) in was.iter().rev().zip(&list) {
        assert!(versions.text.contains(&text[1..text.len() - 1]), "{text}\n{}", versions.text);
        assert_eq!(object_of(version), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(version["@validFrom"], version["updatedAt"]);
        assert!(version["@validFrom"].as_str().unwrap() <= moment.as_str());
    }
    assert_eq!((&list[0]["@operation"], &list[0]["@validTo"]), (&Value::Null, &Value::Null));
    for (later, earlier) in list.iter().zip(&list[1..]) {
        assert_eq!((&earlier["@operation"], &earlier["@validTo"]), (&json!("updated"), &later["@validFrom"]));
    }
}

#[tokio::test]
async fn lists_as_of_a_moment_are_filtered_sorted_paged_streamed_and_counted() {
    let api = Api::with(MODEL).await;
    let sales: Vec<Value> = (0..60).map(|n| json!({"receipt": format!("R{n:02}"), "total": n, "points": n % 3})).collect();
    let made = api.post("/api/shop/sales", &json!(sales)).await.expect(201).json();
    let ids: Vec<String> = made.as_array().unwrap().iter().map(|sale| sale["id"].as_str().unwrap().to_owned()).collect();
    let first = now(&api).await;
    let patches: Vec<Value> = ids[..40].iter().map(|id| json!({"id": id, "total": 1000, "status": "paid"})).collect();
    api.send(Method::PATCH, "/api/shop/sales", &[], Some(json!(patches).to_string())).await.expect(200);
    assert_eq!(api.number("SELECT count(*) FROM shop.sale__history").await, 40);
    let second = now(&api).await;
    for id in &ids[30..50] {
        api.send(Method::DELETE, &format!("/api/shop/sales/{id}"), &[], None).await.expect(204);
    }
    // Upserts: of those that are there, and of those that are not.
    let again: Vec<Value> = (20..40).map(|n| json!({"receipt": format!("R{n:02}"), "total": 7})).collect();
    api.post("/api/shop/sales?onConflict=update", &json!(again)).await.expect(201);
    let third = now(&api).await;
    for (moment, total, all, paid) in [(&first, 0.0, 60, 0), (&second, 1000.0, 60, 40), (&third, 1000.0, 50, 30)] {
        let count = api.get(&format!("/api/shop/sales?asOf={moment}&count=true&limit=0")).await.expect(200);
        assert_eq!(count.header("x-total-count"), all.to_string(), "{moment}");
        let list = api.get(&format!("/api/shop/sales?asOf={moment}&status=paid&limit=1000")).await.expect(200);
        assert_eq!(receipts(&list).len(), paid);
        assert_eq!(api.get(&format!("/api/shop/sales?asOf={moment}&receipt=R00")).await.expect(200).json()[0]["total"], total);
        let aggregates = api
            .get(&format!("/api/shop/sales?asOf={moment}&aggregate=count,sum(points)&groupBy=status&sort=-status"))
            .await
            .expect(200)
            .json();
        assert_eq!(aggregates[0]["count"], if paid > 0 { paid } else { all });
        // Pages in any order show what the whole list shows, and a stream too.
        for sort in ["", "-total,receipt", "points,-receipt", "status"] {
            let whole = receipts(&api.get(&format!("/api/shop/sales?asOf={moment}&sort={sort}&limit=1000")).await.expect(200));
            assert_eq!(whole.len(), all);
            let (mut seen, mut path) = (Vec::new(), Some(format!("/api/shop/sales?asOf={moment}&sort={sort}&limit=17")));
            while let Some(page) = path {
                let page = api.get(&page).await.expect(200);
                seen.extend(receipts(&page));
                path = next(&page);
            }
            assert_eq!(seen, whole, "{moment} {sort}");
            let streamed = api
                .send(Method::GET, &format!("/api/shop/sales?asOf={moment}&sort={sort}"), &[("accept", "application/x-ndjson")], None)
                .await
                .expect(200);
            let lines: Vec<String> = streamed
                .text
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()["receipt"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(lines, whole);
        }
    }
    // The present is the same with and without a moment.
    assert_eq!(api.get("/api/shop/sales?limit=1000").await.text, api.get(&format!("/api/shop/sales?limit=1000&asOf={third}")).await.text);
}

#[tokio::test]
async fn moments_that_are_none_are_told() {
    let api = Api::with(MODEL).await;
    let id = api.make("/api/shop/sales", json!({"receipt": "A", "total": 1})).await;
    let moment = now(&api).await;
    for path in ["/api/shop/sales".to_owned(), format!("/api/shop/sales/{id}")] {
        for bad in ["yesterday", "", "2026-01-02", "2026-01-02T03:04:05", "2999-01-01T00:00:00Z", "2026-13-02T03:04:05Z"] {
            let answer = api.get(&format!("{path}?asOf={bad}")).await.expect(400);
            assert_eq!(answer.pointers(), ["asOf"], "{path} {bad}");
        }
        let both = api.get(&format!("{path}?asOf={moment}&embed=store")).await.expect(400);
        assert_eq!(both.json()["type"], "https://autonomy.dev/problems/conflicting-parameters");
        assert_eq!(both.pointers(), ["embed"]);
    }
    for path in ["/api/shop/stores".to_owned(), "/api/shop/products".to_owned(), "/api/shop/products?aggregate=count".to_owned()] {
        let answer = api.get(&format!("{path}{}asOf={moment}", if path.contains('?') { '&' } else { '?' })).await.expect(400);
        assert!(answer.faults()[0].1.contains("keeps none"), "{}", answer.text);
    }
    // An attribute of that name is filtered by.
    api.post("/api/shop/balances", &json!([{"asOf": "2026-01-02"}, {"asOf": "2026-01-03"}])).await.expect(201);
    assert_eq!(api.get("/api/shop/balances?asOf=2026-01-03").await.expect(200).json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn versions_are_paged_and_go_on_over_deletions() {
    let api = Api::with(MODEL).await;
    let id = api.make("/api/shop/sales", json!({"receipt": "A", "total": 0})).await;
    let path = format!("/api/shop/sales/{id}");
    for total in 1..4 {
        api.patch(&path, &json!({"total": total})).await.expect(200);
    }
    api.send(Method::DELETE, &path, &[], None).await.expect(204);
    let gone = api.get(&path).await.expect(410);
    assert_eq!(gone.json()["type"], "https://autonomy.dev/problems/gone");
    // Its last version is what is put back.
    let last = api.get(&format!("{path}/history?limit=1")).await.expect(200);
    let version = last.json()[0].clone();
    assert_eq!((&version["@operation"], version["version"].as_i64()), (&json!("deleted"), Some(4)));
    assert_eq!(version["@validTo"], gone.json()["deletedAt"]);
    let mut object = object_of(&version);
    object.as_object_mut().unwrap().retain(|member, _| !matches!(member.as_str(), "version" | "createdAt" | "updatedAt"));
    api.send(Method::PUT, &path, &[], Some(object.to_string())).await.expect(201);
    assert_eq!(api.get(&path).await.expect(200).json()["total"], 3.0);
    api.patch(&path, &json!({"total": 9})).await.expect(200);
    let whole = api.get(&format!("{path}/history")).await.expect(200).json();
    let of = |versions: &Value| -> Vec<(i64, String)> {
        let list = versions.as_array().unwrap();
        list.iter()
            .map(|version| (version["version"].as_i64().unwrap(), version["@operation"].as_str().unwrap_or("present").to_owned()))
            .collect()
    };
    let expected = [(2, "present"), (1, "updated"), (4, "deleted"), (3, "updated"), (2, "updated"), (1, "updated")];
    assert_eq!(of(&whole), expected.map(|(version, operation)| (version, operation.to_owned())));
    // Pages stay in step although a version ends between them.
    let first = api.get(&format!("{path}/history?limit=1&fields=total")).await.expect(200);
    assert_eq!(first.json()[0].as_object().unwrap().len(), 5);
    api.patch(&path, &json!({"total": 10})).await.expect(200);
    let (mut totals, mut following) = (vec![first.json()[0]["total"].as_f64().unwrap()], next(&first));
    while let Some(page) = following {
        let page = api.get(&page).await.expect(200);
        totals.extend(page.json().as_array().unwrap().iter().map(|version| version["total"].as_f64().unwrap()));
        following = next(&page);
    }
    assert_eq!(totals, [9.0, 3.0, 3.0, 2.0, 1.0, 0.0]);
    let unfit = api.get(&format!("{path}/history?cursor=x&limit=z&sort=id&asOf=1")).await.expect(400);
    assert_eq!(unfit.pointers(), ["asOf", "limit", "sort"]);
    api.make("/api/shop/sales", json!({"receipt": "B", "total": 0})).await;
    let of_list = next(&api.get("/api/shop/sales?limit=1").await.expect(200)).expect("a link");
    for cursor in ["x", "", of_list.split_once("cursor=").unwrap().1] {
        let other = api.get(&format!("{path}/history?cursor={cursor}")).await.expect(400);
        assert_eq!(other.json()["type"], "https://autonomy.dev/problems/invalid-cursor", "{cursor}");
        assert_eq!(other.pointers(), ["cursor"]);
    }
    api.get(&format!("/api/shop/sales/{}/history", uuid::Uuid::now_v7())).await.expect(404);
    api.get("/api/shop/sales/x/history").await.expect(404);
    api.get(&format!("{path}/history/x")).await.expect(404);
    let answer = api.send(Method::DELETE, &format!("{path}/history"), &[], None).await.expect(405);
    assert_eq!(answer.header("allow"), "GET, HEAD");
    let store = api.make("/api/shop/stores", json!({"code": "S"})).await;
    assert!(api.get(&format!("/api/shop/stores/{store}/history")).await.expect(404).text.contains("keeps no history"));
}

#[tokio::test]
async fn what_is_deleted_softly_is_gone_and_its_last_version_kept() {
    let api = Api::with(MODEL).await;
    let id = api.make("/api/shop/products", json!({"title": "Tea"})).await;
    let path = format!("/api/shop/products/{id}");
    api.patch(&path, &json!({"title": "Green tea"})).await.expect(200);
    assert_eq!(api.number("SELECT count(*) FROM shop.product__history").await, 0, "only what is deleted is kept");
    api.send(Method::DELETE, &path, &[], None).await.expect(204);
    let gone = api.get(&path).await.expect(410).json();
    assert!(gone["deletedAt"].as_str().unwrap().ends_with('Z'), "{gone}");
    assert_eq!(api.send(Method::HEAD, &path, &[], None).await.status.as_u16(), 410);
    assert_eq!(api.get("/api/shop/products").await.expect(200).text, "[]");
    let versions = api.get(&format!("{path}/history")).await.expect(200).json();
    assert_eq!((versions.as_array().unwrap().len(), &versions[0]["title"]), (1, &json!("Green tea")));
    // What was unique is free.
    let other = api.make("/api/shop/products", json!({"title": "Green tea"})).await;
    api.send(Method::PUT, &path, &[], Some(json!({"title": "Green tea"}).to_string())).await.expect(409);
    api.send(Method::PUT, &path, &[], Some(json!({"title": "Tea"}).to_string())).await.expect(201);
    assert_eq!(api.get(&path).await.expect(200).json()["title"], "Tea");
    api.send(Method::DELETE, &path, &[], None).await.expect(204);
    let again = api.get(&path).await.expect(410).json();
    assert!(again["deletedAt"].as_str() > gone["deletedAt"].as_str());
    assert_eq!(api.get(&format!("{path}/history")).await.expect(200).json().as_array().unwrap().len(), 2);
    api.get(&format!("/api/shop/products/{}", uuid::Uuid::now_v7())).await.expect(404);
    // A history without softDelete tells no deletion, but still has the object.
    let entry = format!("/api/shop/entrys/{}", api.make("/api/shop/entrys", json!({"title": "x"})).await);
    api.send(Method::DELETE, &entry, &[], None).await.expect(204);
    api.get(&entry).await.expect(404);
    assert_eq!(api.get(&format!("{entry}/history")).await.expect(200).json()[0]["@operation"], "deleted");
    // In a transaction with others, and by psql.
    let units = json!({"units": [{"operations": [{"op": "delete", "model": "shop", "entity": "Product", "id": other}]}]});
    assert_eq!(api.post("/api/transactions", &units).await.expect(200).json()["units"][0]["status"], 200);
    api.get(&format!("/api/shop/products/{other}")).await.expect(410);
    let sale = api.make("/api/shop/sales", json!({"receipt": "P", "total": 1})).await;
    api.execute("UPDATE shop.sale SET total = 2; DELETE FROM shop.sale").await;
    assert_eq!(api.get(&format!("/api/shop/sales/{sale}/history")).await.expect(200).json().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn transactions_that_began_earlier_and_write_later_leave_one_version_at_each_moment() {
    let api = Api::with(MODEL).await;
    let id = api.make("/api/shop/entrys", json!({"title": "first"})).await;
    let mut early = sqlx::PgConnection::connect(&api.database).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT now()").execute(&mut early).await.unwrap();
    let begun = now(&api).await;
    let path = format!("/api/shop/entrys/{id}");
    api.patch(&path, &json!({"title": "second"})).await.expect(200);
    sqlx::raw_sql("UPDATE shop.entry SET title = 'third'; COMMIT").execute(&mut early).await.unwrap();
    let titles = async |moment: &str| -> Vec<Value> {
        let list = api.get(&format!("/api/shop/entrys?asOf={moment}")).await.expect(200).json();
        list.as_array().unwrap().iter().map(|entry| entry["title"].clone()).collect()
    };
    assert_eq!(titles(&begun).await, ["first"]);
    assert_eq!(titles(&now(&api).await).await, ["third"]);
    let third = api.get(&path).await.expect(200).json();
    assert_eq!(titles(third["updatedAt"].as_str().unwrap()).await, ["third"]);
    // Made again by a transaction that began before the deletion.
    sqlx::raw_sql("BEGIN; SELECT now()").execute(&mut early).await.unwrap();
    let begun = now(&api).await;
    api.send(Method::DELETE, &path, &[], None).await.expect(204);
    let sql = format!("INSERT INTO shop.entry (id, title) VALUES ('{id}', 'anew'); COMMIT");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut early).await.unwrap();
    assert_eq!(titles(&begun).await, ["anew"]);
    api.patch(&path, &json!({"title": "changed"})).await.expect(200);
    assert_eq!(titles(&begun).await, ["anew"]);
    assert_eq!(api.get(&format!("{path}?asOf={begun}")).await.expect(200).json()["title"], "anew");
}

#[tokio::test]
async fn former_versions_are_read_after_the_model_has_changed() {
    let api = Api::with(MODEL).await;
    let id = api.make("/api/shop/entrys", json!({"title": "first"})).await;
    let moment = now(&api).await;
    let path = format!("/api/shop/entrys/{id}");
    api.patch(&path, &json!({"title": "second"})).await.expect(200);
    let changed = MODEL
        .replace(
            "      attributes: [{name: title, type: string}]",
            "      attributes: [{name: label, renamedFrom: title, type: string}, {name: rank, type: integer, required: true, default: 7}]\n      parts: [{name: lines, entity: EntryLine}]",
        )
        .replace("    - name: Balance", "    - {name: EntryLine, partOf: Entry, attributes: [{name: price, type: integer}]}\n    - name: Balance");
    apply_models(&api.admin, &models(&changed)).await.expect("applied");
    let mut tries = 0;
    while !api.get(&path).await.expect(200).text.contains("label") {
        tries += 1;
        assert!(tries < 10_000, "the new name never appears");
        tokio::task::yield_now().await;
    }
    let then = api.get(&format!("{path}?asOf={moment}")).await.expect(200).json();
    assert_eq!((&then["label"], &then["rank"], &then["lines"]), (&json!("first"), &Value::Null, &json!([])));
    // A required attribute that was not there then is sorted and paged by as what it is, null.
    api.make("/api/shop/entrys", json!({"label": "third"})).await;
    api.send(Method::DELETE, &path, &[], None).await.expect(204);
    let page = api.get(&format!("/api/shop/entrys?asOf={moment}&sort=rank&limit=1")).await.expect(200);
    assert_eq!(page.json()[0]["label"], "first");
    // Without a history nothing of it is served, and its table is gone.
    let without = changed.replace("    - name: Entry\n      history: true", "    - name: Entry");
    let model = models(&without).remove(0);
    let catalog = autonomy_operator::catalog::read(&api.admin).await.unwrap();
    let plan = plan_model(&api.admin, &catalog, &model, &[]).await.unwrap();
    assert!(!plan.is_safe());
    apply(&api.admin, &plan, Some(&plan.sha256())).await.expect("approved");
    let mut tries = 0;
    while api.get(&format!("{path}/history")).await.status.as_u16() != 404 {
        tries += 1;
        assert!(tries < 10_000, "the history never goes");
        tokio::task::yield_now().await;
    }
    api.get(&format!("/api/shop/entrys?asOf={moment}")).await.expect(400);
}

#[tokio::test]
async fn the_description_has_what_is_kept_and_nothing_else() {
    let api = Api::with(MODEL).await;
    let document = api.get("/api/shop/openapi.json").await.expect(200).json();
    let has_moment = |path: &str| {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        parameters.iter().any(|parameter| parameter["name"] == "asOf" && parameter["schema"]["format"] == "date-time")
    };
    assert!(has_moment("/api/shop/sales") && has_moment("/api/shop/sales/{id}") && has_moment("/api/shop/entrys"));
    assert!(!has_moment("/api/shop/stores") && !has_moment("/api/shop/products/{id}"));
    for (entity, path, gone) in [("sales", true, true), ("products", true, true), ("entrys", true, false), ("stores", false, false)] {
        assert_eq!(document["paths"][format!("/api/shop/{entity}/{{id}}/history")].is_object(), path, "{entity}");
        assert_eq!(document["paths"][format!("/api/shop/{entity}/{{id}}")]["get"]["responses"]["410"].is_object(), gone, "{entity}");
    }
    assert!(document["components"]["schemas"]["SaleVersion"].is_object() && document["components"]["schemas"]["StoreVersion"].is_null());
    let text = document.to_string();
    for reference in text.split("\"#/").skip(1).map(|rest| &rest[..rest.find('"').unwrap()]) {
        assert!(document.pointer(&format!("/{reference}")).is_some(), "{reference}");
    }
}
