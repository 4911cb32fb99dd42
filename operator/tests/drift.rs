//! What somebody changes by hand, or a process leaves undone, is made good or told.

mod support;

use autonomy_operator::apply::{Applied, ApplyError, apply, apply_models, plan_model};
use autonomy_operator::drift;
use autonomy_operator::facts::{Facts, Rows};
use autonomy_operator::plan::plan;
use autonomy_operator::step::{HazardClass, Phase};
use autonomy_operator::{catalog, prepare};
use support::{Server, execute, introspect, shop, text};

const BEFORE: &str = r"
entities:
  - name: Customer
    attributes: [{name: name, type: string, maxLength: 20, required: true}]
  - name: Sale
    attributes:
      - {name: total, type: integer, minimum: 5, default: 9}
      - {name: soldAt, type: dateTime}
    indexes: [{attributes: [soldAt]}]
    parts: [{name: lines, entity: SaleLine}]
  - name: SaleLine
    partOf: Sale
    attributes: [{name: quantity, type: integer, required: true}]
";

#[tokio::test]
async fn what_was_changed_by_hand_is_made_good_or_told() {
    let server = Server::start().await;
    let pool = server.database("drifted").await;
    let model = shop(BEFORE);
    apply_models(&pool, std::slice::from_ref(&model)).await.expect("applied");
    let whole = introspect(&pool, "shop").await;
    assert_eq!(drift::repair(&pool, &model).await.expect("inspected"), drift::Drift::default());
    execute(
        &pool,
        "DROP INDEX shop.sale__sold_at__idx; DROP TRIGGER autonomy_touch ON shop.sale; ALTER TABLE shop.sale DISABLE TRIGGER autonomy_refuse_truncate;
         ALTER TABLE shop.sale REPLICA IDENTITY DEFAULT; ALTER PUBLICATION autonomy DROP TABLE shop.sale; DROP VIEW shop.sale_line;
         REVOKE ALL ON shop.sale FROM PUBLIC, autonomy_drifted_api",
    )
    .await;
    execute(
        &pool,
        &format!("REVOKE ALL ON shop.sale FROM \"{}\"; REVOKE \"{}\" FROM autonomy_drifted_relay", model.writer_role, model.reader_role),
    )
    .await;
    assert_eq!(apply_models(&pool, std::slice::from_ref(&model)).await.expect("repaired"), [Applied::Unchanged]);
    assert_eq!(introspect(&pool, "shop").await, whole);
    assert_eq!(drift::repair(&pool, &model).await.expect("inspected"), drift::Drift::default());

    execute(&pool, "ALTER TABLE shop.sale DROP COLUMN total, ADD COLUMN more int; DROP TABLE shop.customer; CREATE TABLE shop.other ()")
        .await;
    let found = drift::repair(&pool, &model).await.expect("inspected");
    assert!(found.repairs.is_empty());
    assert_eq!(
        found.differences,
        [
            "table customer is not there",
            "column sale.total is not there",
            "column sale.more is in the table, but not in the model",
            "constraint sale__total__limits of table sale is not there",
            "other is in the schema, but not in the model",
        ]
    );
}

#[tokio::test]
async fn steps_over_a_large_table_run_beside_its_writers() {
    let server = Server::start().await;
    let pool = server.database("large").await;
    let before = shop(BEFORE);
    let after = shop(
        &BEFORE
            .replace("minimum: 5", "minimum: 1")
            .replace("indexes: [", "relationships: [{name: customer, target: Customer}]\n    indexes: [{attributes: [total]}, "),
    );
    apply_models(&pool, std::slice::from_ref(&before)).await.expect("applied");
    execute(&pool, "INSERT INTO shop.sale (total) VALUES (7)").await;
    // Facts are an input: the planner takes the table for large.
    let mut facts = Facts::default();
    facts.rows.insert("sale".to_owned(), Rows::Many);
    let planned = plan(Some(&before), &after, &facts);
    assert!(planned.is_safe(), "{planned}");
    let late = planned.statements(Phase::After);
    assert_eq!(late.iter().filter(|statement| statement.contains("VALIDATE")).count(), 2, "{late:#?}");
    assert_eq!(late.iter().filter(|statement| statement.contains("CONCURRENTLY")).count(), 2, "{late:#?}");
    let applied = apply(&pool, &planned, None).await.expect("applied");
    assert!(matches!(applied, Applied::Changed { revision: 2, ref unfinished, .. } if unfinished.is_empty()), "{applied:?}");
    let fresh = server.database("fresh").await;
    apply_models(&fresh, std::slice::from_ref(&after)).await.expect("applied");
    assert_eq!(introspect(&pool, "shop").await, introspect(&fresh, "shop").await);

    // What its last phase would have done is done by the next repair.
    execute(&pool, "DROP INDEX shop.sale__total__idx; ALTER TABLE shop.sale DROP CONSTRAINT sale__total__limits, ADD CONSTRAINT sale__total__limits CHECK (total >= (1)::bigint) NOT VALID").await;
    apply_models(&pool, std::slice::from_ref(&after)).await.expect("repaired");
    assert_eq!(introspect(&pool, "shop").await, introspect(&fresh, "shop").await);

    // A large table is neither scanned nor rewritten under its lock without being asked.
    let unique = shop(
        &BEFORE
            .replace("{name: soldAt, type: dateTime}", "{name: soldAt, type: dateTime, unique: true}")
            .replace("indexes: [{attributes: [soldAt]}]", "description: x"),
    );
    let hazards: Vec<HazardClass> = plan(Some(&before), &unique, &facts).hazards().map(|hazard| hazard.class).collect();
    assert_eq!(hazards, [HazardClass::MayFail, HazardClass::MayBlock]);
}

#[tokio::test]
async fn plans_are_refused_when_outdated_hazardous_or_locked_out() {
    let server = Server::start().await;
    let pool = server.database("refused").await;
    let before = shop(BEFORE);
    apply_models(&pool, std::slice::from_ref(&before)).await.expect("applied");
    let wider = shop(&BEFORE.replace("maxLength: 20", "maxLength: 40"));
    let without =
        shop(&BEFORE.replace("      - {name: soldAt, type: dateTime}\n", "").replace("    indexes: [{attributes: [soldAt]}]\n", ""));
    let outdated = plan_model(&pool, &catalog::read(&pool).await.expect("catalog"), &without, &[]).await.expect("planned");
    let error = apply(&pool, &outdated, None).await.expect_err("refused");
    assert!(error.to_string().contains("column sale.sold_at is dropped with all its values (loses data)"), "{error}");

    // Several at once that want the same end up with it once.
    let all = futures::future::join_all((0..5).map(|_| apply_models(&pool, std::slice::from_ref(&wider)))).await;
    let changed = all.iter().flat_map(|one| one.as_ref().expect("applied")).filter(|one| matches!(one, Applied::Changed { .. })).count();
    assert_eq!(changed, 1);
    let error = apply(&pool, &outdated, Some(&outdated.sha256())).await.expect_err("outdated");
    assert!(matches!(error, ApplyError::Outdated(_)), "{error:?}");

    // A table that somebody holds is waited for only briefly at a time, so that others get through in between; then the change comes.
    let mut holder = pool.begin().await.expect("a transaction");
    sqlx::raw_sql("LOCK TABLE shop.customer IN ROW EXCLUSIVE MODE").execute(&mut *holder).await.expect("locked");
    let widest = shop(&BEFORE.replace("maxLength: 20", "maxLength: 60"));
    let applying = {
        let pool = pool.clone();
        tokio::spawn(async move { apply_models(&pool, &[widest]).await })
    };
    while text(&pool, "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await == "0" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    holder.commit().await.expect("committed");
    applying.await.expect("no panic").expect("applied");
    assert_eq!(catalog::read(&pool).await.expect("catalog")["shop"].revision, 3);

    let unprepared = sqlx::PgPool::connect(&server.postgres.url("postgres")).await.expect("connected");
    let error = apply_models(&unprepared, &[before]).await.expect_err("not prepared");
    assert!(error.to_string().contains("prepare it first"), "{error}");
    let no_password = prepare::PrepareSettings { api_password: String::new(), relay_password: "x".to_owned() };
    assert!(matches!(prepare::prepare(&pool, &no_password).await, Err(prepare::PrepareError::Password("API"))));
}
