//! The example models in a real PostgreSQL: applied, used by the platform's roles, applied again.

mod support;

use autonomy_crds::Model;
use autonomy_operator::apply::{Applied, apply_models};
use autonomy_operator::prepare::prepare;
use autonomy_operator::{catalog, facts::Facts, plan};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};
use support::{Server, execute, models, settings, text};

fn example_models() -> Vec<Model> {
    let root = std::path::Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../examples");
    let mut yaml = String::new();
    for folder in ["retail-loyalty/models", "clinic"] {
        let mut files: Vec<_> = std::fs::read_dir(root.join(folder)).expect("models").map(|file| file.expect("a file").path()).collect();
        files.sort();
        for file in files {
            yaml.push_str("---\n");
            yaml.push_str(&std::fs::read_to_string(file).expect("YAML"));
            yaml.push('\n');
        }
    }
    models(&yaml)
}

#[tokio::test]
async fn the_examples_are_applied_and_served_to_the_roles() {
    let server = Server::start().await;
    let pool = server.database("loyalty").await;
    let models = example_models();
    assert!(models.len() >= 3, "common, retail and clinic");
    let applied = apply_models(&pool, &models).await.expect("applied");
    assert!(applied.iter().all(|applied| matches!(applied, Applied::Changed { revision: 1, .. })), "{applied:?}");
    let catalog = catalog::read(&pool).await.expect("catalog");
    for model in &models {
        assert_eq!(&catalog[&model.name].model, model);
        assert!(plan::plan(Some(model), model, &Facts::default()).steps.is_empty());
    }
    // Again, and by several at once: nothing changes.
    prepare(&pool, &settings()).await.expect("prepared again");
    let again = futures::future::join_all((0..4).map(|_| apply_models(&pool, &models))).await;
    assert!(again.iter().all(|applied| applied.as_ref().expect("applied").iter().all(|one| *one == Applied::Unchanged)));
    the_roles_can_work(&server, &pool, &models).await;
}

async fn the_roles_can_work(server: &Server, pool: &PgPool, models: &[Model]) {
    let options: PgConnectOptions = server.postgres.url("loyalty").parse().expect("a URL");
    let api = options.clone().username("autonomy_loyalty_api").password(&settings().api_password);
    let mut api = PgConnection::connect_with(&api).await.expect("the API's login");
    let relay = options.username("autonomy_loyalty_relay").password(&settings().relay_password);
    let mut relay = PgConnection::connect_with(&relay).await.expect("the relay's login");
    for model in models {
        for entity in &model.entities {
            let table = format!("\"{}\".\"{}\"", model.schema, entity.table);
            let read = format!("SELECT count(*) FROM {table}");
            let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(read)).fetch_one(&mut relay).await.expect("the relay reads");
            assert_eq!(count, 0);
            for sql in [format!("SELECT FROM {table} FOR KEY SHARE"), format!("UPDATE {table} SET id = id"), format!("DELETE FROM {table}")]
            {
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut api).await.expect("the API writes");
            }
            let publication = format!(
                "SELECT count(*)::text FROM pg_publication_tables WHERE schemaname = '{}' AND tablename = '{}'",
                model.schema, entity.table
            );
            assert_eq!(text(pool, &publication).await, "1");
        }
    }
    for sql in [
        "SELECT pg_logical_emit_message(true, 'autonomy.context', '{}')",
        "SELECT pg_notify('x', '')",
        "INSERT INTO autonomy.idempotency (key_hash) VALUES ('\\x00')",
        "SELECT resolved FROM autonomy.catalog",
        "CREATE TEMP TABLE staged (id uuid) ON COMMIT DROP",
    ] {
        sqlx::raw_sql(sql).execute(&mut api).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for sql in [
        "SELECT pg_create_logical_replication_slot('autonomy', 'pgoutput')",
        "SELECT pg_drop_replication_slot('autonomy')",
        "INSERT INTO autonomy.relay_stream (stream, last_sequence) VALUES ('S', 1)",
        "SELECT pg_current_wal_flush_lsn()",
    ] {
        sqlx::raw_sql(sql).execute(&mut relay).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let refused = sqlx::raw_sql("INSERT INTO autonomy.catalog (model, namespace, revision, resolved, sha256) VALUES ('x','x',1,'{}','')")
        .execute(&mut api)
        .await;
    assert!(refused.is_err(), "only the operator writes the catalog");
}

#[tokio::test]
async fn tables_keep_their_system_columns_and_parts_have_a_view() {
    let server = Server::start().await;
    let pool = server.database("sales").await;
    let model = support::shop(
        r#"
entities:
  - name: Sale
    attributes:
      - {name: saleNumber, type: string, required: true, minLength: 2}
      - {name: total, type: decimal, precision: 10, scale: 2, default: "1.50", minimum: -5}
    key: [saleNumber]
    parts: [{name: lines, entity: SaleLine, maxItems: 2}]
  - name: SaleLine
    partOf: Sale
    attributes:
      - {name: productCode, type: string, required: true}
      - {name: quantity, type: decimal, precision: 8, scale: 3}
      - {name: scannedAt, type: dateTime}
      - {name: label, type: binary}
"#,
    );
    apply_models(&pool, std::slice::from_ref(&model)).await.expect("applied");
    execute(
        &pool,
        r#"INSERT INTO shop.sale (sale_number, lines) VALUES ('S1', '[
             {"productCode": "p1", "quantity": 2.500, "scannedAt": "2026-01-02T03:04:05Z", "label": "AP8="}, {"productCode": "p2", "quantity": null}]')"#,
    )
    .await;
    let line = text(
        &pool,
        "SELECT concat_ws('|', part_position, product_code, quantity, scanned_at AT TIME ZONE 'UTC', label) FROM shop.sale_line JOIN shop.sale ON sale.id = sale_id WHERE part_position = 0",
    )
    .await;
    assert_eq!(line, "0|p1|2.500|2026-01-02 03:04:05|\\x00ff");
    assert_eq!(text(&pool, "SELECT count(*)::text FROM shop.sale_line").await, "2");
    execute(&pool, "UPDATE shop.sale SET total = 3, version = 77, created_at = 'epoch'").await;
    assert_eq!(text(&pool, "SELECT concat(version, total, created_at > 'epoch') FROM shop.sale").await, "23.00t");
    for (sql, told) in [
        ("UPDATE shop.sale SET id = gen_random_uuid()", "can not change"),
        ("TRUNCATE shop.sale", "use DELETE"),
        ("UPDATE shop.sale SET lines = '{}'", "sale__lines__limits"),
        ("UPDATE shop.sale SET lines = '[1,2,3]'", "sale__lines__limits"),
        ("UPDATE shop.sale SET total = -6", "sale__total__limits"),
        ("UPDATE shop.sale SET sale_number = 'x'", "sale__sale_number__limits"),
        ("INSERT INTO shop.sale (sale_number) VALUES ('S1')", "sale__key"),
    ] {
        let error = sqlx::raw_sql(sql).execute(&pool).await.expect_err(sql).to_string();
        assert!(error.contains(told), "{sql}: {error}");
    }
}

#[tokio::test]
async fn the_sum_of_parts_is_checked_whoever_writes() {
    let server = Server::start().await;
    let pool = server.database("ledger").await;
    let batch = |list: &str, renamed_from: &str| {
        support::shop(&format!(
            "
entities:
  - name: Batch
    attributes: [{{name: total, type: decimal, precision: 10, scale: 2, required: true}}]
    parts: [{{name: {list}, entity: Entry{renamed_from}}}]
    checks: [{{name: entriesAddUp, attribute: total, operator: eq, sumOf: {{parts: {list}, attribute: debit}}}}]
  - {{name: Entry, partOf: Batch, attributes: [{{name: debit, type: decimal}}, {{name: credit, type: decimal}}]}}
"
        ))
    };
    let model = batch("entries", "");
    apply_models(&pool, std::slice::from_ref(&model)).await.expect("applied");
    let insert = |total: &str, entries: &str| format!("INSERT INTO shop.batch (total, entries) VALUES ({total}, '{entries}')");
    // Decimals are added up exactly; a part without the number adds nothing.
    execute(&pool, &insert("0.3", r#"[{"debit": 0.1}, {"debit": 0.2, "credit": 7}, {"debit": null}, {"credit": 7}]"#)).await;
    execute(&pool, &insert("0", "[]")).await;
    let refused = async |pool: &PgPool, sql: String| {
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.expect_err("refused").to_string();
        assert!(error.contains("batch__entries_add_up__check"), "{error}");
    };
    refused(&pool, insert("0.31", r#"[{"debit": 0.1}, {"debit": 0.2}]"#)).await;
    refused(&pool, "UPDATE shop.batch SET total = total + 1".to_owned()).await;
    // The API's role neither owns the function nor sees more than it needs to.
    let options: PgConnectOptions = server.postgres.url("ledger").parse().expect("a URL");
    let api = options.username("autonomy_ledger_api").password(&settings().api_password);
    let api = PgPool::connect_with(api).await.expect("the API's login");
    execute(&api, &insert("5", r#"[{"debit": 5}]"#)).await;
    refused(&api, insert("5", r#"[{"debit": 4}]"#)).await;
    // The check follows a rename of the list, without a look at the rows.
    let renamed = batch("lines", ", renamedFrom: entries");
    let facts = Facts::read(&pool, Some(&model)).await.expect("facts");
    assert!(plan::plan(Some(&model), &renamed, &facts).is_safe());
    apply_models(&pool, &[renamed]).await.expect("applied");
    let sql = r#"INSERT INTO shop.batch (total, lines) VALUES (5, '[{"debit": 4}]')"#;
    refused(&pool, sql.to_owned()).await;
}
