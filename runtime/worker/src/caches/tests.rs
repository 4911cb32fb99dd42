//! What caches hold and by what it is found, without anything outside.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{CompiledCache, Store};
use crate::expression::Value;
use crate::rehearsal::{self, CompileError};
use crate::service::CompiledService;

const SHOP: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  entities:
    - name: Customer
      attributes:
        - {name: number, type: string}
        - {name: phone, type: string}
        - {name: email, type: string}
        - {name: region, type: integer}
        - {name: rate, type: decimal, precision: 8, scale: 2}
        - {name: note, type: json}
---
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: s}
spec:
  trigger: {queue: {model: shop, entity: Customer}}
  config: {country: '31'}
  caches: [{name: customers, model: shop, entity: Customer, CACHE}]
  steps: STEPS
";

fn compile(cache: &str, steps: &str) -> Result<CompiledService, CompileError> {
    rehearsal::compile(&SHOP.replace("CACHE", cache).replace("STEPS", steps))
}

fn cache(declared: &str) -> Arc<CompiledCache> {
    compile(declared, "[{stop: {}}]").unwrap_or_else(|faults| panic!("{faults}")).caches[0].clone()
}

fn id(n: u32) -> Uuid {
    Uuid::from_u128(u128::from(n) << 96)
}

fn found(store: &Store, by: &str, key: &str) -> Option<String> {
    let object = store.find(by, &Value::from_json(key.as_bytes()).unwrap())?;
    Some(object.member("id")?.as_text()?.to_owned())
}

#[test]
fn objects_are_found_by_what_they_are_now_and_by_nothing_else() {
    let cache = cache("indexes: [number, region]");
    let (reader, mut store) = (cache.reader.clone(), Store::new(cache));
    let mut known: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for round in 0..60_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (n, number, region) = ((random >> 50) as u32 % 500, (random >> 40) as u32 % 300, (random >> 33) as u32 % 3);
        if random.is_multiple_of(5) {
            store.remove(id(n));
            known.remove(&n);
        } else {
            // Some as the API writes them, some that have to be read, some from an event.
            let note = if round % 7 == 0 { "{\"a\": [1]}" } else { "null" };
            let line = format!(r#"{{"id":"{}","version":1,"number":"n{number}","region":{region},"note":{note}}}"#, id(n));
            if round % 3 == 0 {
                store.put(&reader.read(line.as_bytes()).unwrap());
            } else {
                store.take_line(line.as_bytes()).unwrap();
            }
            known.insert(n, (number, region));
        }
        if round % 200 == 0 {
            assert_eq!(store.len(), known.len());
            for number in 0..300 {
                let first = known.iter().find(|(_, (own, _))| *own == number).map(|(n, _)| id(*n).to_string());
                assert_eq!(found(&store, "number", &format!("\"n{number}\"")), first, "{round}: {number}");
            }
            for region in 0..3 {
                let first = known.iter().find(|(_, (_, own))| *own == region).map(|(n, _)| id(*n).to_string());
                assert_eq!(found(&store, "region", &format!("{region}.0")), first, "{round}: {region}");
            }
            let there = known.keys().next().copied().unwrap();
            assert_eq!(found(&store, "id", &format!("\"{}\"", id(there))), Some(id(there).to_string()));
        }
    }
    known.keys().for_each(|n| store.remove(id(*n)));
    assert_eq!((store.len(), store.bytes(), found(&store, "region", "1")), (0, 0, None));
}

#[test]
fn objects_are_found_by_several_members_and_however_keys_are_written() {
    let mut store = Store::new(cache(
        "fields: [rate], namedIndexes: [
            {name: byPhone, members: [phone], normalize: phone, callingCode: '31'},
            {name: byMail, members: [email], normalize: email},
            {name: regionAndRate, members: [region, rate]},
            {name: initial, key: \"upper(substring(object.number, 0, 1)) + config.country\"}]",
    ));
    for line in [
        r#"{"id":"00000000-0000-7000-8000-000000000001","number":"anna","phone":"020-123 4567","email":" Anna@Example.ORG","region":1,"rate":1.50}"#,
        r#"{"id":"00000000-0000-7000-8000-000000000002","number":"bram","phone":"+32 (0)20 1234567","email":null,"region":11,"rate":0.50}"#,
        r#"{"id":"00000000-0000-7000-8000-000000000003","number":null,"phone":"none","email":" ","region":1,"rate":null}"#,
    ] {
        store.take_line(line.as_bytes()).unwrap();
    }
    let last = |by: &str, key: &str| found(&store, by, key).map(|id| id.chars().last().unwrap());
    assert_eq!(last("byPhone", "\"0031 20 1234567\""), Some('1'));
    assert_eq!(last("byPhone", "\"+32201234567\""), Some('2'));
    assert_eq!(last("byPhone", "\"none\""), None);
    assert_eq!(last("byMail", "\"ANNA@example.org\""), Some('1'));
    assert_eq!(last("byMail", "\"\""), None);
    assert_eq!(last("regionAndRate", r#"{"region": 1.0, "rate": 1.5}"#), Some('1'));
    assert_eq!(last("regionAndRate", r#"{"rate": 0.5, "region": 11}"#), Some('2'));
    assert_eq!(last("regionAndRate", r#"{"region": 1}"#), None);
    assert_eq!(last("regionAndRate", r#"{"region": 1, "rate": null}"#), None);
    assert_eq!(last("initial", "\"B31\""), Some('2'));
    assert_eq!(last("initial", "\"31\""), None);
    // What is needed for the indexes is held.
    assert_eq!(cache("fields: [rate], namedIndexes: [{name: k, key: object.number}]").fields, ["rate", "id", "number"]);
}

#[test]
fn a_cache_with_a_filter_holds_what_it_lets_pass() {
    let mut store = Store::new(cache("fields: [number], indexes: [number], filter: object.rate > 1"));
    for (n, rate) in [(1, "1.50"), (2, "0.50"), (3, "null")] {
        store.take_line(format!(r#"{{"id":"{}","number":"n","rate":{rate}}}"#, id(n)).as_bytes()).unwrap();
    }
    assert_eq!((store.len(), found(&store, "number", "\"n\"")), (1, Some(id(1).to_string())));
    assert!(store.take_line(b"{\"id\":").is_err() && store.take_line(b"[]").is_err());
}

#[test]
fn wrong_indexes_and_keys_are_told_with_their_paths() {
    let lookups = "[
        {name: a, lookup: {cache: customers, by: both, key: object.number}},
        {name: b, lookup: {cache: customers, by: both, key: \"{'number': object.number}\"}},
        {name: c, lookup: {cache: customers, by: both, key: \"{'number': 1, 'region': 1}\"}},
        {name: d, lookup: {cache: customers, by: number, key: object.rate}},
        {name: e, lookup: {cache: customers, by: number, key: '[object.region]'}},
        {name: f, lookup: {cache: customers, by: phone, key: object.phone}},
        {name: g, lookup: {cache: customers, by: both, key: \"[{'number': 'a', 'region': object.region}]\"}}]";
    let cache = "indexes: [number], namedIndexes: [{name: both, members: [number, region]}, {name: number, members: [nummer]},
                 {name: x, members: [region], normalize: trim}, {name: w, key: object.nummer}, {name: z, key: '[1]'}]";
    let told = compile(cache, lookups).unwrap_err().to_string();
    for expected in [
        "spec.caches[0].namedIndexes[1].name: another index is named number too",
        "spec.caches[0].namedIndexes[1].members[0]: there is no member nummer",
        "spec.caches[0].namedIndexes[2].normalize: region is a whole number, and only strings are made alike",
        "spec.caches[0].namedIndexes[3].key: object (shop/Customer) has no member nummer",
        "spec.caches[0].namedIndexes[4].key: a key is a single value",
        "spec.steps[0].lookup.key: the key of both is an object with number, region",
        "spec.steps[1].lookup.key: the key of both is an object with number, region",
        "spec.steps[2].lookup.key: the key of both is an object whose number is a string, and not a whole number",
        "spec.steps[3].lookup.key: the key of number is a string, and not a decimal",
        "spec.steps[4].lookup.key: the key of number is a string, and not a whole number",
        "spec.steps[5].lookup.by: the cache customers can be looked up by id, number, both",
    ] {
        assert!(told.contains(expected), "{expected}\n-- is not in --\n{told}");
    }
    assert!(!told.contains("spec.steps[6]"), "{told}");
}
