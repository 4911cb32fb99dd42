//! Sums and counts over groups of objects.

use serde_json::{Value, json};

use crate::support::Api;

async fn sales(api: &Api) -> Vec<String> {
    let mut stores = Vec::new();
    for code in ["A", "B"] {
        stores.push(api.make("/api/shop/stores", json!({"code": code})).await);
    }
    let list: Vec<Value> = (0..10)
        .map(|n| {
            json!({
                "receipt": n.to_string(), "soldAt": format!("2026-11-{:02}T10:00:00Z", n + 1), "storeId": stores[n % 2],
                "total": format!("0.1{n}"), "status": if n < 5 { "new" } else { "accrued" },
                "points": if n == 9 { json!(9_007_199_254_740_993_i64) } else if n == 0 { Value::Null } else { json!(n) },
                "exact": "0.1",
            })
        })
        .collect();
    api.post("/api/shop/sales", &Value::Array(list)).await.expect(201);
    stores
}

#[tokio::test]
async fn aggregates_are_exact_and_grouped() {
    let api = Api::start().await;
    let stores = sales(&api).await;
    let all =
        api.get("/api/shop/sales?aggregate=count,sum(total),sum(points),avg(exact),min(soldAt),max(status),countDistinct(storeId)").await;
    assert_eq!(
        all.expect(200).text,
        concat!(
            r#"[{"count":10,"countDistinct":{"storeId":2},"sum":{"total":1.45,"points":9007199254741029},"#,
            r#""avg":{"exact":0.10000000000000000000},"min":{"soldAt":"2026-11-01T10:00:00Z"},"max":{"status":"accrued"}}]"#
        )
    );
    let grouped = api.get("/api/shop/sales?aggregate=sum(total),count&groupBy=storeId,status&sort=-status&receipt.ne=0").await.expect(200);
    let rows = grouped.json();
    let brief: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| (&row["storeId"], &row["status"], &row["count"], &row["sum"]["total"])).collect();
    let (a, b) = (json!(stores[0]), json!(stores[1]));
    let (new, accrued, two, three) = (json!("new"), json!("accrued"), json!(2), json!(3));
    let expected = [
        (&a, &accrued, &two, json!(0.34)),
        (&b, &accrued, &three, json!(0.51)),
        (&a, &new, &two, json!(0.26)),
        (&b, &new, &two, json!(0.24)),
    ];
    for (found, expected) in brief.iter().zip(&expected) {
        assert_eq!((found.0, found.1, found.2, found.3), (expected.0, expected.1, expected.2, &expected.3));
    }
    assert_eq!(brief.len(), 4);
    assert_eq!(
        api.get("/api/shop/sales?aggregate=count&groupBy=receipt&limit=2&offset=7&sort=-receipt").await.expect(200).json()[1]["receipt"],
        "1"
    );
    assert_eq!(api.get("/api/shop/sales?aggregate=sum(total)&receipt=none").await.expect(200).text, r#"[{"sum":{"total":null}}]"#);
    assert_eq!(api.get("/api/shop/sales?aggregate=sum(total)&groupBy=storeId&receipt=none").await.expect(200).text, "[]");
}

#[tokio::test]
async fn what_can_not_be_made_is_told() {
    let api = Api::start().await;
    for (query, parameter) in [
        ("aggregate=sum(receipt)", "aggregate"),
        ("aggregate=median(total)", "aggregate"),
        ("aggregate=sum(total", "aggregate"),
        ("aggregate=sum", "aggregate"),
        ("aggregate=count(total)", "aggregate"),
        ("aggregate=min(paid)", "aggregate"),
        ("groupBy=storeId", "aggregate"),
        ("aggregate=count&groupBy=notes", "groupBy"),
        ("aggregate=count&groupBy=no", "groupBy"),
        ("aggregate=count&groupBy=storeId&sort=total", "sort"),
        ("aggregate=count&fields=id", "fields"),
        ("aggregate=count&total=x", "total"),
    ] {
        assert_eq!(api.get(&format!("/api/shop/sales?{query}")).await.expect(400).pointers(), [parameter], "{query}");
    }
}
