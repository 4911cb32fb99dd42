//! The day on disk: the stores' files, the reference data for the object API, what the outside systems know, and what must come out.
//!
//! ```text
//! expected.json                       what must come out
//! reference/{model}/{plural}.ndjson   for POST /api/{model}/{plural}
//! outside/members.json                membership numbers that the loyalty provider knows
//! outside/debtors.json                account numbers that the accounting service knows
//! stores/sales-{store}-{date}-{n}.csv the stores' files
//! again/…                             the file that was cut short, whole
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::amount::Amount;
use crate::expected::{CUT_SHORT, Expected, REPEATED};
use crate::facts::{self, BUSINESS_DATE, FILES_PER_STORE, Flaw, Receipt, Settled, Size, TIERS, World};

/// Why a day can't be written.
#[derive(Debug, thiserror::Error)]
#[error("the trading day can't be written to {}", path.display())]
pub struct WriteError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError { path, source }
}

/// The accounts of the general ledger that the services book on: number, name, type.
pub const LEDGER_ACCOUNTS: [(&str, &str, &str); 2] =
    [("4510", "Loyalty programme expense", "expense"), ("1650", "Loyalty points owed to members", "liability")];

/// The entities of the reference data in the order in which they refer to one another: model, path.
pub const REFERENCE: [(&str, &str); 8] = [
    ("common-business-entities", "accounts"),
    ("common-business-entities", "organisations"),
    ("common-business-entities", "persons"),
    ("retail", "stores"),
    ("retail", "products"),
    ("retail", "loyaltyTiers"),
    ("retail", "customers"),
    ("retail", "loyaltyMemberships"),
];

/// The file of an entity's reference data.
pub fn reference_file(folder: &Path, model: &str, path: &str) -> PathBuf {
    folder.join("reference").join(model).join(format!("{path}.ndjson"))
}

/// The header of the stores' files.
pub const HEADER: &str = "store,receipt,soldAt,businessDate,type,customer,payment,total,line,product,quantity,unitPrice,amount";
/// The mark of a file's last row.
pub const TRAILER: &str = "#END";

/// Writes the whole day into a folder, and gives what must come out of it.
///
/// # Errors
/// When a file can't be written.
pub fn write_day(size: &Size, folder: &Path) -> Result<Expected, WriteError> {
    let world = World::new(size);
    let expected = Expected::of(&world);
    write_reference(&world, folder)?;
    write_outside(&world, &folder.join("outside"))?;
    write_store_files(&world, &folder.join("stores"))?;
    write_json(&folder.join("expected.json"), &json!(expected))?;
    Ok(expected)
}

fn write_json(path: &Path, value: &Value) -> Result<(), WriteError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other).map_err(at(path))?;
    fs::write(path, text + "\n").map_err(at(path))
}

fn write_lines(path: &Path, objects: impl Iterator<Item = Value>) -> Result<(), WriteError> {
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut out = BufWriter::new(File::create(path)?);
        for object in objects {
            writeln!(out, "{object}")?;
        }
        out.flush()
    };
    write().map_err(at(path))
}

const GIVEN: [&str; 16] =
    ["Anna", "Bram", "Chiara", "Daan", "Emma", "Finn", "Greta", "Hugo", "Isa", "Jan", "Karim", "Lotte", "Mila", "Noor", "Omar", "Saar"];
const FAMILY: [&str; 16] = [
    "de Vries",
    "Jansen",
    "Bakker",
    "van Dijk",
    "Visser",
    "Smit",
    "Meijer",
    "de Boer",
    "Mulder",
    "de Groot",
    "Bos",
    "Vos",
    "Peters",
    "Hendriks",
    "van Leeuwen",
    "Dekker",
];

fn write_reference(world: &World, folder: &Path) -> Result<(), WriteError> {
    for (model, path) in REFERENCE {
        let file = reference_file(folder, model, path);
        match path {
            "accounts" => write_lines(&file, accounts(world)),
            "organisations" => write_lines(&file, parties(world, true)),
            "persons" => write_lines(&file, parties(world, false)),
            "stores" => write_lines(&file, stores(world)),
            "products" => write_lines(&file, products(world)),
            "loyaltyTiers" => write_lines(&file, tiers(world)),
            "customers" => write_lines(&file, customers(world)),
            _ => write_lines(&file, memberships(world)),
        }?;
    }
    Ok(())
}

fn accounts(world: &World) -> impl Iterator<Item = Value> {
    let ledger = LEDGER_ACCOUNTS
        .iter()
        .map(|(number, name, kind)| json!({"id": world.id("Account", number), "accountNumber": number, "name": name, "accountType": kind}));
    let debtors = world.customers.iter().filter_map(|customer| {
        let number = customer.account.as_ref()?;
        Some(json!({"id": world.id("Account", number), "accountNumber": number, "name": format!("Debtor {}", customer.number),
            "accountType": "asset"}))
    });
    ledger.chain(debtors)
}

fn parties(world: &World, organisations: bool) -> impl Iterator<Item = Value> {
    world.customers.iter().enumerate().filter(move |(_, customer)| customer.account.is_some() == organisations).map(
        move |(index, customer)| {
            let (given, family) = (GIVEN[index % GIVEN.len()], FAMILY[index / GIVEN.len() % FAMILY.len()]);
            let id = world.id("Party", &customer.number);
            let (number, city) = (index + 1, world.stores[index % world.stores.len()].city);
            let email = format!("customer{number}@example.com");
            let phone = format!("+31 20 {:07}", index % 10_000_000);
            if organisations {
                json!({"id": id, "partyNumber": format!("O-{number}"), "email": email, "phone": phone, "city": city,
                "name": format!("{family} & Co no. {number}"), "registrationNumber": format!("{:08}", 10_000_000 + number)})
            } else {
                let birth = format!("{}-{:02}-{:02}", 1940 + index % 65, 1 + index % 12, 1 + index % 28);
                json!({"id": id, "partyNumber": format!("P-{number}"), "email": email, "phone": phone, "city": city,
                "givenName": given, "familyName": family, "birthDate": birth})
            }
        },
    )
}

fn stores(world: &World) -> impl Iterator<Item = Value> {
    world.stores.iter().map(|store| {
        json!({"id": world.id("Store", &store.number), "storeNumber": store.number, "name": format!("{} {}", store.city, store.number),
            "city": store.city, "openedOn": "2019-04-01"})
    })
}

fn products(world: &World) -> impl Iterator<Item = Value> {
    world.products.iter().map(|product| {
        json!({"id": world.id("Product", &product.code), "productCode": product.code, "name": product.name, "category": product.category,
            "unitPrice": Amount::cents(product.cents).to_string()})
    })
}

fn tiers(world: &World) -> impl Iterator<Item = Value> {
    TIERS.iter().map(|tier| {
        json!({"id": world.id("LoyaltyTier", tier.code), "code": tier.code, "name": tier.name,
            "pointsPerUnit": facts::points_per_euro(*tier).to_string(), "pointValue": "0.01"})
    })
}

fn customers(world: &World) -> impl Iterator<Item = Value> {
    world.customers.iter().map(|customer| {
        let party = world.id("Party", &customer.number);
        let (role, account) = match &customer.account {
            Some(number) => ("organisationId", Some(world.id("Account", number))),
            None => ("personId", None),
        };
        json!({"id": world.id("Customer", &customer.number), "customerNumber": customer.number, "validFrom": "2020-01-01", role: party,
            "accountId": account})
    })
}

fn memberships(world: &World) -> impl Iterator<Item = Value> {
    world.customers.iter().filter_map(|customer| {
        let membership = customer.membership.as_ref()?;
        Some(json!({"id": world.id("LoyaltyMembership", &membership.number), "membershipNumber": membership.number,
            "status": if membership.active { "active" } else { "suspended" }, "joinedOn": "2021-09-01",
            "customerId": world.id("Customer", &customer.number), "tierId": world.id("LoyaltyTier", membership.tier.code)}))
    })
}

fn write_outside(world: &World, folder: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let memberships = world.customers.iter().filter_map(|customer| customer.membership.as_ref());
    let members: Vec<&str> =
        memberships.filter(|membership| membership.known_to_provider).map(|membership| membership.number.as_str()).collect();
    write_json(&folder.join("members.json"), &json!(members))?;
    let debtors: Vec<&str> = world.customers.iter().filter_map(|customer| customer.account.as_deref()).collect();
    write_json(&folder.join("debtors.json"), &json!(debtors))
}

/// A store file's name.
pub fn file_name(world: &World, store: usize, file: usize) -> String {
    format!("sales-{}-{}-{}.csv", world.stores[store].number, BUSINESS_DATE.replace('-', ""), file + 1)
}

fn write_store_files(world: &World, folder: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    for store in 0..world.stores.len() {
        for file in 0..FILES_PER_STORE {
            let path = folder.join(file_name(world, store, file));
            let mut text = store_file(world, store, file);
            if (store, file) == CUT_SHORT {
                let again = folder.with_file_name("again");
                fs::create_dir_all(&again).map_err(at(&again))?;
                let whole = again.join(file_name(world, store, file));
                fs::write(&whole, &text).map_err(at(&whole))?;
                // In the middle of a row, as when the line breaks.
                text.truncate(text.len() * 3 / 5);
            }
            fs::write(&path, &text).map_err(at(&path))?;
            if (store, file) == REPEATED {
                let again = folder.join(file_name(world, store, file).replace(".csv", "-again.csv"));
                fs::write(&again, &text).map_err(at(&again))?;
            }
        }
    }
    Ok(())
}

/// A store's file as it should be: header, rows, trailer.
pub fn store_file(world: &World, store: usize, file: usize) -> String {
    let mut text = format!("{HEADER}\n");
    let mut rows = 0;
    for receipt in world.receipts(store, file) {
        for line in 0..receipt.lines.len() {
            text.push_str(&row(world, store, &receipt, line));
            text.push('\n');
            rows += 1;
        }
    }
    text.push_str(&format!("{TRAILER},{rows}\n"));
    text
}

fn row(world: &World, store: usize, receipt: &Receipt, index: usize) -> String {
    let line = receipt.lines[index];
    let last = index + 1 == receipt.lines.len();
    // The flaw is in the receipt's last row; a wrong total and a missing time are in all of them, as a till would have it.
    let flaw = receipt.flaw.filter(|flaw| last || matches!(flaw, Flaw::Total | Flaw::SoldAt));
    let sold_at = if flaw == Some(Flaw::SoldAt) { "" } else { &receipt.sold_at };
    let kind = if receipt.voided { "void" } else { "sale" };
    let customer = world.customer_number(receipt.buyer).unwrap_or_default();
    let payment = match receipt.settled {
        Settled::Paid(method) => method,
        Settled::OnAccount => "account",
    };
    let total = Amount::cents(receipt.cents() + if flaw == Some(Flaw::Total) { 100 } else { 0 });
    let product = if flaw == Some(Flaw::Product) { "P999999" } else { &world.products[line.product].code };
    let quantity = if flaw == Some(Flaw::Quantity) { "two".to_owned() } else { line.quantity.to_string() };
    let amount = Amount::cents(line.quantity * line.cents + if flaw == Some(Flaw::Amount) { 1 } else { 0 });
    let head = format!(
        "{},{},{sold_at},{BUSINESS_DATE},{kind},{customer},{payment},{total},{},{product}",
        world.stores[store].number,
        receipt.number,
        index + 1
    );
    if flaw == Some(Flaw::ShortRow) { head } else { format!("{head},{quantity},{},{amount}", Amount::cents(line.cents)) }
}
