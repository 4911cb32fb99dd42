//! Former versions: who writes them, what turns them on and off, and how they follow their table.

mod support;

use autonomy_crds::Model;
use autonomy_operator::apply::{Applied, ApplyError, apply, apply_models, plan_model};
use autonomy_operator::facts::{Facts, Rows};
use autonomy_operator::plan::{Plan, plan};
use autonomy_operator::step::HazardClass;
use autonomy_operator::{catalog, drift};
use sqlx::PgPool;
use support::{Server, execute, introspect, shop, text};

const PLAIN: &str = r"
enumerations: [{name: Status, values: [new, paid, lost]}]
entities:
  - name: Customer
    attributes: [{name: name, type: string}]
  - name: Sale
    attributes:
      - {name: total, type: string, maxLength: 20}
      - {name: status, type: Status}
      - {name: soldAt, type: dateTime}
    relationships: [{name: customer, target: Customer, onDelete: Cascade}]
";

fn with(options: &str) -> String {
    PLAIN.replace("  - name: Sale\n", &format!("  - name: Sale\n{options}"))
}

const HISTORY: &str = "    history: true\n";
const SOFT_DELETE: &str = "    softDelete: true\n";

async fn planned(pool: &PgPool, model: &Model) -> Plan {
    let catalog = catalog::read(pool).await.expect("catalog");
    plan_model(pool, &catalog, model, &[]).await.expect("planned")
}

async fn approve(pool: &PgPool, model: &Model) {
    let plan = planned(pool, model).await;
    apply(pool, &plan, Some(&plan.sha256())).await.unwrap_or_else(|error| panic!("{error:?}\n{plan}"));
}

// The former versions of sales: operation, version, total.
async fn kept(pool: &PgPool, table: &str) -> String {
    let rows = format!(
        "SELECT coalesce(string_agg(format('%s %s %s', operation, version, \"row\" ->> 'total'), ', ' ORDER BY number), '') FROM shop.{table}"
    );
    text(pool, &rows).await
}

#[tokio::test]
async fn former_versions_are_kept_as_the_model_says() {
    let server = Server::start().await;
    let pool = server.database("kept").await;
    let (plain, full, soft) = (shop(PLAIN), shop(&with(HISTORY)), shop(&with(SOFT_DELETE)));
    apply_models(&pool, std::slice::from_ref(&plain)).await.expect("applied");
    let bare = introspect(&pool, "shop").await;
    execute(&pool, "INSERT INTO shop.sale (total) VALUES ('1'); UPDATE shop.sale SET total = '2'").await;

    assert!(planned(&pool, &full).await.is_safe());
    apply_models(&pool, std::slice::from_ref(&full)).await.expect("applied");
    execute(&pool, "UPDATE shop.sale SET total = '3'; INSERT INTO shop.sale (total) VALUES ('9'); UPDATE shop.sale SET total = total || '0' WHERE total > '1'").await;
    assert_eq!(kept(&pool, "sale__history").await, "updated 2 2, updated 3 3, updated 1 9");
    execute(&pool, "DELETE FROM shop.sale WHERE total = '90'").await;
    assert_eq!(kept(&pool, "sale__history").await, "updated 2 2, updated 3 3, updated 1 9, deleted 2 90");
    // Versions follow one another without a gap.
    let gaps = "SELECT count(*)::text FROM shop.sale__history h JOIN shop.sale__history n ON n.id = h.id AND n.version = h.version + 1 AND n.valid_from <> h.valid_to";
    assert_eq!(text(&pool, gaps).await, "0");
    assert_eq!(text(&pool, "SELECT count(*)::text FROM pg_publication_tables WHERE tablename = 'sale__history'").await, "0");

    // Deletions that other deletions bring with them.
    execute(&pool, "WITH made AS (INSERT INTO shop.customer (name) VALUES ('a') RETURNING id) INSERT INTO shop.sale (total, customer_id) SELECT '5', id FROM made").await;
    execute(&pool, "DELETE FROM shop.customer").await;
    assert!(kept(&pool, "sale__history").await.ends_with(", deleted 1 5"));

    // Only deletions from here on; what was kept stays.
    assert!(planned(&pool, &soft).await.is_safe());
    apply_models(&pool, std::slice::from_ref(&soft)).await.expect("applied");
    execute(&pool, "UPDATE shop.sale SET total = '4'; DELETE FROM shop.sale").await;
    assert!(kept(&pool, "sale__history").await.ends_with(", deleted 1 5, deleted 5 4"));
    let fresh = server.database("fresh").await;
    apply_models(&fresh, std::slice::from_ref(&soft)).await.expect("applied");
    assert_eq!(introspect(&pool, "shop").await, introspect(&fresh, "shop").await);

    // Not to keep them any more loses them, and needs an approval.
    let error = apply_models(&pool, std::slice::from_ref(&plain)).await.expect_err("hazardous");
    assert!(
        matches!(error, ApplyError::Hazardous { .. }) && error.to_string().contains("sale__history is dropped with all former versions"),
        "{error}"
    );
    approve(&pool, &plain).await;
    assert_eq!(introspect(&pool, "shop").await, bare);
    execute(&pool, "INSERT INTO shop.sale (total) VALUES ('1'); UPDATE shop.sale SET total = '2'; DELETE FROM shop.sale").await;
    // An entity that goes takes its former versions with it, and says so.
    apply_models(&pool, std::slice::from_ref(&full)).await.expect("applied");
    let without = shop("entities: [{name: Customer, attributes: [{name: name, type: string}]}]");
    let hazards: Vec<String> = planned(&pool, &without).await.hazards().map(|hazard| hazard.reason.clone()).collect();
    assert!(hazards.iter().any(|reason| reason.contains("sale__history")), "{hazards:?}");
    approve(&pool, &without).await;
    assert_eq!(text(&pool, "SELECT count(*)::text FROM pg_class WHERE relname LIKE 'sale%'").await, "0");
}

#[tokio::test]
async fn nobody_but_the_triggers_writes_former_versions() {
    let server = Server::start().await;
    let pool = server.database("privileged").await;
    let model = shop(&with(HISTORY));
    apply_models(&pool, std::slice::from_ref(&model)).await.expect("applied");
    for role in ["autonomy_privileged_api", "autonomy_privileged_relay"] {
        let mut transaction = pool.begin().await.expect("begun");
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("SET LOCAL ROLE {role}"))).execute(&mut *transaction).await.expect("role");
        if role.ends_with("api") {
            let writes = "INSERT INTO shop.sale (total) VALUES ('1'); UPDATE shop.sale SET total = '2'; DELETE FROM shop.sale";
            sqlx::raw_sql(writes).execute(&mut *transaction).await.expect("written");
            let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM shop.sale__history").fetch_one(&mut *transaction).await.expect("read");
            assert_eq!(kept, 2);
        }
        for refused in [
            "INSERT INTO shop.sale__history (id, version, operation, valid_from, valid_to, \"row\") VALUES (gen_random_uuid(), 1, 'updated', now(), now(), '{}')",
            "UPDATE shop.sale__history SET operation = 'x'",
            "DELETE FROM shop.sale__history",
            "TRUNCATE shop.sale__history",
            "DROP TABLE shop.sale__history",
            "ALTER TABLE shop.sale DISABLE TRIGGER autonomy_keep_updated",
            "CREATE TEMPORARY TABLE mine (id uuid, version bigint, updated_at timestamptz); \
             CREATE TRIGGER mine AFTER DELETE ON mine REFERENCING OLD TABLE AS former FOR EACH STATEMENT EXECUTE FUNCTION autonomy.keep_history('sale__history')",
        ] {
            sqlx::raw_sql("SAVEPOINT here").execute(&mut *transaction).await.expect("savepoint");
            let error = sqlx::raw_sql(sqlx::AssertSqlSafe(refused.to_owned())).execute(&mut *transaction).await.expect_err(refused);
            let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
            assert_eq!(code, "42501", "{refused}: {error}");
            sqlx::raw_sql("ROLLBACK TO here").execute(&mut *transaction).await.expect("back");
        }
        transaction.rollback().await.expect("undone");
    }
}

#[tokio::test]
async fn former_versions_follow_renames_and_types() {
    let server = Server::start().await;
    let pool = server.database("followed").await;
    let first = shop(&with(HISTORY));
    apply_models(&pool, std::slice::from_ref(&first)).await.expect("applied");
    execute(
        &pool,
        "INSERT INTO shop.sale (total, status, sold_at) VALUES ('12.5', 'lost', '2026-01-02 03:04:05.5+00'); UPDATE shop.sale SET total = 'much'; \
         UPDATE shop.sale SET total = '7', status = 'new'",
    )
    .await;
    // Renames of the entity and of an attribute in one plan; the trigger writes where the table is now.
    let renamed = shop(
        &with(HISTORY)
            .replace("  - name: Sale\n", "  - name: Receipt\n    renamedFrom: Sale\n")
            .replace("name: total", "name: amount, renamedFrom: total"),
    );
    assert!(planned(&pool, &renamed).await.is_safe());
    apply_models(&pool, std::slice::from_ref(&renamed)).await.expect("applied");
    let fresh = server.database("fresh").await;
    apply_models(&fresh, std::slice::from_ref(&renamed)).await.expect("applied");
    assert_eq!(introspect(&pool, "shop").await, introspect(&fresh, "shop").await);
    execute(&pool, "UPDATE shop.receipt SET amount = '8'").await;
    let read = |column: &'static str| {
        let pool = pool.clone();
        async move {
            let sql = format!(
                "SELECT string_agg(coalesce(former.{column}::text, '-'), ' ' ORDER BY number) FROM shop.receipt__history h \
                 CROSS JOIN LATERAL jsonb_populate_record(NULL::shop.receipt, h.\"row\") former"
            );
            // PostgreSQL does not make a kept plan anew when only the row type in it has changed. The API's statements have the table in them too.
            let query = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql)).persistent(false);
            query.fetch_one(&pool).await.expect("former versions can be read")
        }
    };
    assert_eq!(read("amount").await, "12.5 much 7");
    // Of a large history a rename waits for an approval: it is rewritten under the table's lock.
    let mut facts = Facts::empty(Some(&first));
    facts.rows.insert("sale__history".to_owned(), Rows::Many);
    let hazards: Vec<HazardClass> = plan(Some(&first), &renamed, &facts).hazards().map(|hazard| hazard.class).collect();
    assert_eq!(hazards, [HazardClass::MayBlock]);

    // Another type: what does not fit any more reads as null and is set aside; what fits is converted as rows are.
    let text_of = |from: &str, to: &str| {
        shop(
            &with(HISTORY)
                .replace("  - name: Sale\n", "  - name: Receipt\n    renamedFrom: Sale\n")
                .replace("name: total", "name: amount, renamedFrom: total")
                .replace(from, to),
        )
    };
    let number = text_of("type: string, maxLength: 20", "type: integer");
    approve(&pool, &number).await;
    assert_eq!(read("amount").await, "- - 7");
    let aside = "SELECT string_agg(\"row\" ->> 'former__amount', ' ' ORDER BY number) FROM shop.receipt__history";
    assert_eq!(text(&pool, aside).await, "12.5 much");
    // A value that the enumeration loses.
    assert_eq!(read("status").await, "lost lost new");
    let fewer = shop(
        &with(HISTORY)
            .replace("  - name: Sale\n", "  - name: Receipt\n    renamedFrom: Sale\n")
            .replace("name: total, type: string, maxLength: 20", "name: amount, renamedFrom: total, type: integer")
            .replace("[new, paid, lost]", "[paid, new]"),
    );
    approve(&pool, &fewer).await;
    assert_eq!(read("status").await, "- - new");
    assert_eq!(read("sold_at").await, ["2026-01-02 03:04:05.5+00"; 3].join(" "));
    // A column that goes is gone in former versions too, so that another one of its name later begins without values.
    let without = shop(
        &with(HISTORY)
            .replace("  - name: Sale\n", "  - name: Receipt\n    renamedFrom: Sale\n")
            .replace("      - {name: total, type: string, maxLength: 20}\n", "")
            .replace("[new, paid, lost]", "[paid, new]"),
    );
    let reasons: Vec<String> = planned(&pool, &without).await.hazards().map(|hazard| hazard.reason.clone()).collect();
    assert_eq!(reasons, ["column receipt.amount is dropped with all its values, those of former versions too"]);
    approve(&pool, &without).await;
    assert_eq!(text(&pool, "SELECT count(*)::text FROM shop.receipt__history WHERE \"row\" ? 'amount'").await, "0");
    // The trigger keeps on after columns were dropped.
    execute(&pool, "UPDATE shop.receipt SET status = 'paid'; DELETE FROM shop.receipt").await;
    assert_eq!(read("status").await, "- - new new paid");
}

#[tokio::test]
async fn a_history_that_was_changed_by_hand_is_made_good_or_told() {
    let server = Server::start().await;
    let pool = server.database("drifted").await;
    let model = shop(&with(HISTORY));
    apply_models(&pool, std::slice::from_ref(&model)).await.expect("applied");
    assert_eq!(drift::repair(&pool, &model).await.expect("inspected"), drift::Drift::default());
    let whole = introspect(&pool, "shop").await;
    execute(
        &pool,
        &format!(
            "DROP TRIGGER autonomy_keep_updated ON shop.sale; ALTER TABLE shop.sale DISABLE TRIGGER autonomy_keep_deleted; \
             DROP INDEX shop.sale__history__ended; GRANT DELETE ON shop.sale__history TO \"{0}\"; REVOKE SELECT ON shop.sale__history FROM \"{1}\"",
            model.writer_role, model.reader_role
        ),
    )
    .await;
    assert_eq!(apply_models(&pool, std::slice::from_ref(&model)).await.expect("repaired"), [Applied::Unchanged]);
    assert_eq!(introspect(&pool, "shop").await, whole);
    execute(&pool, "INSERT INTO shop.sale (total) VALUES ('1'); UPDATE shop.sale SET total = '2'; DELETE FROM shop.sale").await;
    assert_eq!(kept(&pool, "sale__history").await, "updated 1 1, deleted 2 2");
    execute(&pool, "ALTER TABLE shop.sale__history DROP COLUMN operation").await;
    let found = drift::repair(&pool, &model).await.expect("inspected");
    assert_eq!(found.differences, ["column sale__history.operation is not there as text"]);
    execute(&pool, "DROP TABLE shop.sale__history").await;
    let found = drift::repair(&pool, &model).await.expect("inspected");
    assert_eq!((found.repairs.len(), found.differences), (0, vec!["table sale__history is not there".to_owned()]));
}
