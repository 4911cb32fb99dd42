//! Every committed change becomes one event, as the contract has it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use autonomy_crds::event::{header, partition};
use futures::StreamExt;
use nix::sys::signal::Signal;
use support::{SHOP, World, assert_in_order, model};

#[test]
fn relay_process() {
    support::relay_process();
}

#[tokio::test]
async fn changes_arrive_with_subject_headers_and_data() {
    let world = World::start(vec![model("shop", SHOP)]).await;
    let relay = world.relay();
    let mut marks = world.client().await.subscribe("autonomy.default._watermark").await.unwrap();
    marks.next().await.unwrap();
    world
        .execute(
            "BEGIN;
             SELECT pg_logical_emit_message(true, 'autonomy.context', '{\"actor\":\"ann\",\"traceparent\":\"00-1-2-01\",\"causationId\":\"c\"}');
             INSERT INTO shop.customer (id, number, note) VALUES ('00000000-0000-0000-0000-000000000001', 'C1', repeat('long ', 20000));
             INSERT INTO shop.sale (id, total, sold_at, paid, picture, lines, customer_id) VALUES ('00000000-0000-0000-0000-000000000002',
               '1234567890.10', '2026-11-25 05:00:00.5+02', true, '\\x00ff', '[{\"a\": \"é\\n\"}]', '00000000-0000-0000-0000-000000000001');
             COMMIT",
        )
        .await;
    world.execute("UPDATE shop.sale SET status = 'on account', picture = NULL").await;
    world.execute("UPDATE shop.customer SET number = 'C2'").await;
    world.execute("DELETE FROM shop.sale").await;
    let events = world.wait_for("DEFAULT_SHOP", 5).await;
    assert_eq!(events.len(), 5);
    assert_in_order(&events);
    let customer_partition = partition("00000000-0000-0000-0000-000000000001");
    let subjects: Vec<_> = events.iter().map(|event| event.subject.as_str()).collect();
    assert_eq!(
        subjects,
        [
            &format!("autonomy.default.shop.Customer.created._.{customer_partition}"),
            &format!("autonomy.default.shop.Sale.created.new.{customer_partition}"),
            &format!("autonomy.default.shop.Sale.updated.on%20account.{customer_partition}"),
            &format!("autonomy.default.shop.Customer.updated._.{customer_partition}"),
            &format!("autonomy.default.shop.Sale.deleted.on%20account.{customer_partition}"),
        ]
    );
    let sale = &events[1];
    assert_eq!(sale.header(header::SPEC_VERSION), "1.0");
    assert_eq!(sale.header(header::SOURCE), "/namespaces/default/models/shop");
    assert_eq!(sale.header(header::TYPE), "dev.autonomy.shop.Sale.created");
    assert_eq!(sale.header(header::SUBJECT), "00000000-0000-0000-0000-000000000002");
    assert_eq!(sale.header(header::CONTENT_TYPE), "application/json");
    assert_eq!(sale.header(header::VERSION), "1");
    assert_eq!(sale.header(header::ACTOR), "ann");
    assert_eq!(sale.header(header::TRACEPARENT), "00-1-2-01");
    assert_eq!(sale.header(header::CAUSATION_ID), "c");
    assert!(sale.header(header::TIME).ends_with('Z'));
    assert_eq!(events[0].position().commit, sale.position().commit);
    assert_eq!((events[0].position().index, sale.position().index), (0, 1));
    assert_eq!(events[2].header(header::ACTOR), "");
    assert!(
        sale.text.contains(r#""total":1234567890.10,"status":"new","soldAt":"2026-11-25T03:00:00.5Z","paid":true,"picture":"AP8=""#),
        "{}",
        sale.text
    );
    assert_eq!(sale.data["lines"][0]["a"], "é\n");
    assert_eq!(events[2].data["picture"], serde_json::Value::Null);
    assert_eq!(events[2].data["before"], sale.data);
    // The long text was not touched: it is not in the log's new row.
    assert_eq!(events[3].data["note"], events[0].data["note"]);
    assert_eq!(events[3].data["before"], events[0].data);
    let mut last = events[2].data.clone();
    last.as_object_mut().unwrap().remove("before");
    assert_eq!(events[4].data, last);

    // The watermark tells the last sequence of each entity; a relay killed resumes behind what is there.
    let mark = world.caught_up().await;
    assert_eq!(mark.entities.get("shop/Sale"), Some(&5));
    assert_eq!(mark.entities.get("shop/Customer"), Some(&4));
    relay.child.signal(Signal::SIGKILL);
    relay.child.wait_exit().await;
    world.execute("INSERT INTO shop.customer (id, number) VALUES (gen_random_uuid(), 'C3')").await;
    let _relay = world.relay();
    let events = world.wait_for("DEFAULT_SHOP", 6).await;
    assert_eq!((events.len(), events[5].data["number"].as_str()), (6, Some("C3")));
    let mark = world.caught_up().await;
    assert_eq!(mark.entities.get("shop/Sale"), Some(&5));
    assert_eq!(mark.entities.get("shop/Customer"), Some(&6));
}

#[tokio::test]
async fn each_event_has_the_context_of_its_own_unit() {
    let world = World::start(vec![model("shop", SHOP)]).await;
    let _relay = world.relay();
    world.caught_up().await;
    world
        .execute(
            "BEGIN;
             SELECT pg_logical_emit_message(true, 'autonomy.context', '{\"actor\":\"accrual\",\"units\":[
               {\"actor\":\"accrual\",\"causationId\":\"first\",\"objects\":[\"00000000-0000-0000-0000-000000000001\"]},
               {\"actor\":\"accrual\",\"causationId\":\"second\",\"objects\":[\"00000000-0000-0000-0000-000000000002\"]}]}');
             INSERT INTO shop.customer (id, number) VALUES ('00000000-0000-0000-0000-000000000001', 'C1'),
               ('00000000-0000-0000-0000-000000000002', 'C2'), ('00000000-0000-0000-0000-000000000003', 'C3');
             COMMIT",
        )
        .await;
    let events = world.wait_for("DEFAULT_SHOP", 3).await;
    let causes: Vec<_> = events.iter().map(|event| event.header(header::CAUSATION_ID)).collect();
    assert_eq!(causes, ["first", "second", ""]);
    assert!(events.iter().all(|event| event.header(header::ACTOR) == "accrual"));
}
