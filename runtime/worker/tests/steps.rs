//! Steps within steps, groups and named indexes against the real parts: PostgreSQL, relay, nats-server, worker, API and a web service.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod queue_support;

use nix::sys::signal::Signal;
use queue_support::World;

#[test]
fn worker_process() {
    queue_support::worker_process();
}

/// Sums up sales by customer; each group is credited at the provider, or written down as unknown.
const BY_CUSTOMER: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: by-customer}
spec:
  trigger: {queue: {model: shop, entity: Sale, routing: [new], batch: {maxObjects: 20, maxWait: 200ms}}}
  config: {provider: 'PROVIDER'}
  caches:
    - name: customers
      model: shop
      entity: Customer
      fields: [segment]
      namedIndexes:
        - {name: anyCase, members: [number], normalize: lowercase}
        - {name: both, members: [number, segment]}
  steps:
    - name: groups
      group: {list: objects, by: upper(item.customerNumber), values: {total: 'sum(items.map(i, i.total))', count: size(items)}}
    - forEach:
        list: groups
        as: sales
        concurrency: 4
        steps:
          - name: customer
            lookup: {cache: customers, by: anyCase, key: sales.key}
          - name: same
            lookup: {cache: customers, by: both, key: \"{'number': default(customer.number, ''), 'segment': default(customer.segment, '')}\"}
          - choose:
              - when: customer != null
                steps:
                  - {when: same.id != customer.id, fail: {reason: \"'the indexes differ'\"}}
                  - name: answer
                    http: {url: config.provider + '/accrue', body: \"{'number': customer.number, 'sale': sales.items[0].id}\"}
                  - create:
                      model: shop
                      entity: Accrual
                      object: {points: answer.body.points * sales.count, segment: customer.segment, sales: sales.count, saleId: 'sales.items[0].id'}
              - steps:
                  - create: {model: shop, entity: Accrual, object: {points: '0', sales: sales.count, saleId: 'sales.items[0].id'}}
          - patch: {model: shop, entity: Sale, forEach: sales.items, id: item.id, object: {status: \"'accrued'\"}, if: {status: \"'new'\"}}
  retry: {maxAttempts: 100, initialBackoff: 100ms, maxBackoff: 1s}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_a_batch_are_credited_once_each_though_calls_fail_and_the_worker_is_killed() {
    let world = World::start().await;
    for (n, number) in ["c1", "c2", "c3"].into_iter().enumerate() {
        world.provider.refuse(number, 503, 1 + n);
    }
    let customers =
        "INSERT INTO shop.customer(id, number, segment) SELECT gen_random_uuid(), 'c' || n, 's' || n FROM generate_series(0, 5) n";
    sqlx::raw_sql(customers).execute(&world.pool).await.unwrap();
    for round in 1..=3 {
        let worker = world.worker_process(BY_CUSTOMER);
        // c6 is nobody's number.
        let sales =
            "INSERT INTO shop.sale(id, total, customer_number) SELECT gen_random_uuid(), 1.50, 'C' || n % 7 FROM generate_series(1, 70) n";
        sqlx::raw_sql(sales).execute(&world.pool).await.unwrap();
        let enough = 70 * (round - 1) + 10;
        world
            .until("groups are written", || async {
                world.count("SELECT coalesce(sum(sales), 0)::bigint FROM shop.accrual").await >= enough
            })
            .await;
        worker.signal(Signal::SIGKILL);
        worker.wait_exit().await;
    }
    let (worker, operations) = world.worker(BY_CUSTOMER);
    world.until_count("SELECT count(*) FROM shop.sale WHERE status = 'accrued'", 210).await;
    world.until_drained("by-customer").await;
    assert_eq!(world.count("SELECT sum(sales)::bigint FROM shop.accrual").await, 210);
    assert_eq!(world.count("SELECT sum(points)::bigint FROM shop.accrual").await, 10 * 180);
    assert_eq!(world.count("SELECT sum(sales)::bigint FROM shop.accrual WHERE segment IS NULL").await, 30);
    let astray =
        "SELECT count(*) FROM shop.accrual a JOIN shop.sale s ON s.id = a.sale_id WHERE 's' || substr(s.customer_number, 2) <> a.segment";
    assert_eq!(world.count(astray).await, 0);
    assert_eq!(world.messages("DEFAULT_DEAD_LETTERS").await, 0);
    // Each credit that was written was made under a key of its own.
    assert!(world.provider.accrued() >= usize::try_from(world.count("SELECT count(*) FROM shop.accrual WHERE points > 0").await).unwrap());
    let metrics = world.http.get(format!("http://{operations}/metrics")).send().await.unwrap().text().await.unwrap();
    for metric in ["ready{cache=\"customers\"} 1", "objects{cache=\"customers\"} 6", "events_behind{cache=\"customers\"} 0"] {
        assert!(metrics.contains(&format!("autonomy_worker_cache_{metric}")), "{metric} is not in\n{metrics}");
    }
    assert!(metrics.contains("autonomy_worker_cache_seconds_behind{cache=\"customers\"}"), "{metrics}");
    worker.stop().await;
}
