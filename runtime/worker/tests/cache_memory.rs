//! What a cache takes over its objects' own JSON, counted by the allocator.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use autonomy_worker::caches::Store;
use autonomy_worker::expression::Value;
use autonomy_worker::rehearsal;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is the system allocator's; only sizes are added up.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SHOP: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  entities:
    - name: Customer
      attributes:
        - {name: number, type: string, required: true}
        - {name: name, type: string}
        - {name: region, type: string}
---
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: s}
spec:
  trigger: {queue: {model: shop, entity: Customer}}
  caches: [{name: customers, model: shop, entity: Customer, fields: [name], indexes: [number, region]}]
  steps: [{stop: {}}]
";

// With an index where each object has a key of its own, and one where thousands share one.
fn line(n: u32) -> String {
    let id = format!("{:08x}-0000-7000-8000-{:012x}", n.wrapping_mul(0x9E37_79B9), n);
    format!(r#"{{"id":"{id}","name":"Customer {n}","number":"C{n:07}","region":"R{}"}}"#, n % 50)
}

#[test]
fn an_object_takes_at_most_a_hundred_bytes_over_its_own_data() {
    const OBJECTS: u32 = 1_000_000;
    let cache = rehearsal::compile(SHOP).unwrap().caches[0].clone();
    let before = HELD.load(Ordering::Relaxed);
    let mut store = Store::new(cache);
    for n in 0..OBJECTS {
        store.take_line(line(n).as_bytes()).unwrap();
    }
    let held = HELD.load(Ordering::Relaxed) - before;
    let over = |held: usize| (held - store.bytes()) as f64 / f64::from(OBJECTS);
    println!(
        "{:.1} bytes of JSON an object, {:.1} bytes over that with two indexes",
        store.bytes() as f64 / f64::from(OBJECTS),
        over(held)
    );
    assert!(over(held) <= 100.0, "{}", over(held));
    // What the metric tells is what is held.
    let told = store.memory() as f64 / held as f64;
    assert!((0.9..1.1).contains(&told), "{told}");
    assert_eq!(store.len(), OBJECTS as usize);
    let found = store.find("number", &Value::text("C0123456")).unwrap();
    assert_eq!(found.member("name"), Some(&Value::text("Customer 123456")));
}
