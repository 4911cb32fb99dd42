//! The generated day: the same from the same seed, and an oracle of its own, which knows nothing but the files, comes to the same sums.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use retail_loyalty::expected::Expected;
use retail_loyalty::facts::{Size, World};
use retail_loyalty::written::{HEADER, TRAILER, write_day};
use serde_json::Value;

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let written = |seed| {
        let folder = tempfile::tempdir().unwrap();
        write_day(&Size::of(600, seed), folder.path()).unwrap();
        files(folder.path())
    };
    let (first, second, other) = (written(7), written(7), written(8));
    assert!(first == second);
    assert!(first != other);
}

#[test]
fn a_day_is_as_large_as_asked() {
    let world = World::new(&Size::of(50_000, 1));
    assert_eq!(world.customers.len(), 20_000);
    assert_eq!(world.customers.iter().filter(|customer| customer.membership.is_some()).count(), 15_000);
    let expected = Expected::of(&world);
    assert_eq!(expected.receipts, 50_000);
    assert!(expected.dead_letters["loyalty-accrual"] >= 50, "{expected:?}");
    assert!(expected.dead_letters["account-invoice"] >= 5, "{expected:?}");
    assert!(expected.rejected_receipts >= 20, "{expected:?}");
    assert!(expected.invoices.count >= 2_000, "{expected:?}");
    assert!(expected.sales_by_loyalty.values().all(|count| *count > 0), "{expected:?}");
}

fn reference(folder: &Path, path: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("reference").join(path)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

// "12.34" in cents; `None` where it is no amount.
fn cents(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.')?;
    Some(whole.parse::<i64>().ok()? * 100 + fraction.parse::<i64>().ok()?)
}

#[derive(Default, Debug, PartialEq)]
struct Oracle {
    receipts: BTreeSet<(String, String)>,
    sales: u64,
    sales_cents: i64,
    accruals: u64,
    points: i64,
    points_of_store: BTreeMap<String, i64>,
    payments: u64,
    invoices: u64,
    invoice_cents: i64,
    rejected: u64,
    loyalty_letters: u64,
    invoice_letters: u64,
    no_membership: u64,
}

// Reads what the stores wrote, as a clerk with a pencil would.
fn oracle(folder: &Path) -> Oracle {
    let members: HashSet<String> = serde_json::from_slice(&fs::read(folder.join("outside/members.json")).unwrap()).unwrap();
    let text = |value: &Value, member: &str| value[member].as_str().unwrap_or_default().to_owned();
    let customers: HashMap<String, String> = reference(folder, "retail/customers.ndjson")
        .iter()
        .map(|customer| (text(customer, "customerNumber"), text(customer, "id")))
        .collect();
    let rates: HashMap<String, i64> = reference(folder, "retail/loyaltyTiers.ndjson")
        .iter()
        .map(|tier| (text(tier, "id"), text(tier, "pointsPerUnit").replace('.', "").parse().unwrap()))
        .collect();
    let memberships: HashMap<String, (String, i64)> = reference(folder, "retail/loyaltyMemberships.ndjson")
        .iter()
        .filter(|membership| membership["status"] == "active")
        .map(|membership| (text(membership, "customerId"), (text(membership, "membershipNumber"), rates[&text(membership, "tierId")])))
        .collect();
    let products: HashSet<String> =
        reference(folder, "retail/products.ndjson").iter().map(|product| text(product, "productCode")).collect();

    let mut oracle = Oracle::default();
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    for bytes in files(&folder.join("stores")).into_values() {
        if !seen.insert(bytes.clone()) {
            continue;
        }
        let content = String::from_utf8(bytes).unwrap();
        let mut lines: Vec<&str> = content.lines().collect();
        assert_eq!(lines.remove(0), HEADER);
        if lines.last().is_none_or(|line| !line.starts_with(TRAILER)) {
            continue;
        }
        let trailer = lines.pop().unwrap();
        assert_eq!(trailer, format!("{TRAILER},{}", lines.len()));
        for rows in lines.chunk_by(|a, b| a.split(',').nth(1) == b.split(',').nth(1)) {
            one_receipt(&mut oracle, rows, &customers, &memberships, &members, &products);
        }
    }
    oracle
}

fn one_receipt(
    oracle: &mut Oracle,
    rows: &[&str],
    customers: &HashMap<String, String>,
    memberships: &HashMap<String, (String, i64)>,
    members: &HashSet<String>,
    products: &HashSet<String>,
) {
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.split(',').collect()).collect();
    let first = rows[0].clone();
    let (store, receipt) = (first[0].to_owned(), first[1].to_owned());
    assert!(oracle.receipts.insert((store.clone(), receipt)), "a receipt is in two files");
    let good = |row: &Vec<&str>| {
        row.len() == 13
            && !row[2].is_empty()
            && products.contains(row[9])
            && matches!((row[10].parse::<i64>(), cents(row[11]), cents(row[12])), (Ok(n), Some(price), Some(amount)) if n * price == amount)
    };
    let total = cents(first[7]).unwrap();
    if !rows.iter().all(good) || rows.iter().filter_map(|row| cents(row[12])).sum::<i64>() != total {
        oracle.rejected += 1;
        return;
    }
    oracle.sales += 1;
    oracle.sales_cents += total;
    if first[4] == "void" {
        return;
    }
    let customer = customers.get(first[5]);
    match (first[6], customer) {
        ("account", Some(_)) => {
            oracle.invoices += 1;
            oracle.invoice_cents += total;
        }
        ("account", None) => oracle.invoice_letters += 1,
        _ => oracle.payments += 1,
    }
    if first[5].is_empty() {
        return;
    }
    let Some(customer) = customer else {
        oracle.loyalty_letters += 1;
        return;
    };
    match memberships.get(customer) {
        None => oracle.no_membership += 1,
        Some((number, _)) if !members.contains(number) => oracle.loyalty_letters += 1,
        Some((_, rate)) => {
            let points = total * rate / 100_000;
            oracle.accruals += 1;
            oracle.points += points;
            *oracle.points_of_store.entry(store).or_default() += points;
        }
    }
}

#[test]
fn an_oracle_of_its_own_comes_to_the_same() {
    for (sales, seed) in [(1_000, 3), (4_321, 11)] {
        let folder = tempfile::tempdir().unwrap();
        let expected = write_day(&Size::of(sales, seed), folder.path()).unwrap();
        let oracle = oracle(folder.path());
        let amount = |cents: i64| retail_loyalty::amount::Amount::cents(cents);
        assert_eq!((oracle.sales, amount(oracle.sales_cents)), (expected.sales.count, expected.sales.amount));
        assert_eq!(oracle.payments, expected.payments.count);
        assert_eq!((oracle.accruals, amount(oracle.points)), (expected.accruals.count, expected.accruals.amount));
        assert_eq!(oracle.points, expected.points as i64);
        assert_eq!((oracle.invoices, amount(oracle.invoice_cents)), (expected.invoices.count, expected.invoices.amount));
        assert_eq!(oracle.rejected, expected.rejected_receipts);
        assert_eq!(oracle.loyalty_letters, expected.dead_letters["loyalty-accrual"]);
        assert_eq!(oracle.invoice_letters, expected.dead_letters["account-invoice"]);
        assert_eq!(oracle.loyalty_letters + oracle.invoice_letters, expected.tickets);
        assert_eq!(oracle.no_membership, expected.sales_by_loyalty["noMembership"]);
        let by_store: BTreeMap<_, _> = oracle.points_of_store.into_iter().map(|(store, points)| (store, amount(points))).collect();
        assert_eq!(by_store, expected.liability_by_store);
        assert!(expected.rejected_receipts > 0 && expected.tickets > 0 && expected.invoices.count > 0);
    }
}
