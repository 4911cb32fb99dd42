//! Counting: what the platform and the systems outside have, beside what must be there.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::expected::{Expected, Sum};
use crate::platform::{Platform, PlatformError};
use crate::rejects;
use crate::stand_ins::books::Totals;

/// Where the systems outside are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// The loyalty provider's base URL.
    #[arg(long, env = "LOYALTY_PROVIDER_URL")]
    pub loyalty_provider: String,
    /// The accounting service's base URL.
    #[arg(long, env = "ACCOUNTING_URL")]
    pub accounting: String,
    /// The general ledger's base URL.
    #[arg(long, env = "GENERAL_LEDGER_URL")]
    pub general_ledger: String,
    /// The ticket desk's base URL.
    #[arg(long, env = "TICKET_DESK_URL")]
    pub ticket_desk: String,
}

/// What is there.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// Sales in the platform.
    pub sales: Sum,
    /// Sales by what the loyalty programme made of them.
    pub sales_by_loyalty: BTreeMap<String, u64>,
    /// Sales by how they are settled.
    pub sales_by_settlement: BTreeMap<String, u64>,
    /// Payments.
    pub payments: Sum,
    /// Loyalty accruals.
    pub accruals: Sum,
    /// Their points.
    pub points: u64,
    /// The ledger.
    pub ledger: Ledger,
    /// Invoices.
    pub invoices: Sum,
    /// Receipts in reject files.
    pub rejected_receipts: u64,
    /// Files rejected as a whole.
    pub rejected_files: u64,
    /// Files passed over, since their content was loaded before.
    pub repeated_files: u64,
    /// Dead letters by service.
    pub dead_letters: BTreeMap<String, u64>,
    /// The loyalty provider's books.
    pub loyalty_provider: Totals,
    /// Accounting's books.
    pub accounting: Totals,
    /// The general ledger's books.
    pub general_ledger: Totals,
    /// The ticket desk's books.
    pub ticket_desk: Totals,
}

/// What accounting gets.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Batches.
    pub batches: u64,
    /// The debits of all entries together.
    pub debit: Amount,
    /// The credits of all entries together.
    pub credit: Amount,
    /// Accruals that are in a batch that is there.
    pub accruals_in_a_batch: u64,
    /// Batches whose own sums or count are not those of their entries and accruals, or of another store's accruals.
    pub wrong_batches: u64,
    /// Batches that the general ledger has, as the platform knows.
    pub exported: u64,
    /// Debits by store number.
    pub by_store: BTreeMap<String, Amount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sale {
    total_amount: Amount,
    loyalty: String,
    settlement: String,
}

#[derive(Deserialize)]
struct Paid {
    amount: Amount,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accrual {
    points: u64,
    amount: Amount,
    store_id: String,
    ledger_batch_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    id: String,
    store_id: String,
    accrual_count: u64,
    total_debit: Amount,
    total_credit: Amount,
    state: String,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    debit: Amount,
    credit: Amount,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Store {
    id: String,
    store_number: String,
}

// What the accruals of a batch come to.
#[derive(Default)]
struct InBatch {
    count: u64,
    amount: Amount,
    stores: Vec<String>,
}

impl Counted {
    /// Counts everything.
    ///
    /// # Errors
    /// When something can't be asked.
    pub async fn read(platform: &Platform, outside: &Outside) -> Result<Self, PlatformError> {
        let mut counted = Self::default();
        platform
            .each("/api/retail/sales?fields=totalAmount,loyalty,settlement", |sale: Sale| {
                counted.sales.add(sale.total_amount);
                *counted.sales_by_loyalty.entry(sale.loyalty).or_default() += 1;
                *counted.sales_by_settlement.entry(sale.settlement).or_default() += 1;
            })
            .await?;
        platform.each("/api/retail/payments?fields=amount", |payment: Paid| counted.payments.add(payment.amount)).await?;
        platform.each("/api/retail/invoices?fields=amount", |invoice: Paid| counted.invoices.add(invoice.amount)).await?;
        counted.read_ledger(platform).await?;
        let rejects = rejects::read(&platform.incoming())?;
        (counted.rejected_receipts, counted.rejected_files, counted.repeated_files) = (rejects.receipts, rejects.files, rejects.repeated);
        counted.dead_letters = platform.dead_letters().await?;
        counted.loyalty_provider = platform.read_json(&format!("{}/books", outside.loyalty_provider)).await?;
        counted.accounting = platform.read_json(&format!("{}/books", outside.accounting)).await?;
        counted.general_ledger = platform.read_json(&format!("{}/books", outside.general_ledger)).await?;
        counted.ticket_desk = platform.read_json(&format!("{}/books", outside.ticket_desk)).await?;
        Ok(counted)
    }

    async fn read_ledger(&mut self, platform: &Platform) -> Result<(), PlatformError> {
        let mut stores = HashMap::new();
        platform
            .each("/api/retail/stores?fields=id,storeNumber", |store: Store| {
                stores.insert(store.id, store.store_number);
            })
            .await?;
        let mut in_batches: HashMap<String, InBatch> = HashMap::new();
        platform
            .each("/api/retail/loyaltyAccruals?fields=points,amount,storeId,ledgerBatchId", |accrual: Accrual| {
                self.accruals.add(accrual.amount);
                self.points += accrual.points;
                if let Some(batch) = accrual.ledger_batch_id {
                    let sum = in_batches.entry(batch).or_default();
                    sum.count += 1;
                    sum.amount += accrual.amount;
                    if !sum.stores.contains(&accrual.store_id) {
                        sum.stores.push(accrual.store_id);
                    }
                }
            })
            .await?;
        let ledger = &mut self.ledger;
        platform
            .each("/api/retail/ledgerBatches?fields=id,storeId,accrualCount,totalDebit,totalCredit,state,entries", |batch: Batch| {
                let accruals = in_batches.remove(&batch.id).unwrap_or_default();
                let debit: Amount = batch.entries.iter().map(|entry| entry.debit).sum();
                let credit: Amount = batch.entries.iter().map(|entry| entry.credit).sum();
                let balanced = [batch.total_debit, batch.total_credit, credit, accruals.amount].iter().all(|amount| *amount == debit);
                let whole = accruals.count == batch.accrual_count && accruals.stores == [batch.store_id.as_str()];
                ledger.batches += 1;
                ledger.debit += debit;
                ledger.credit += credit;
                ledger.accruals_in_a_batch += accruals.count;
                ledger.exported += u64::from(batch.state == "exported");
                ledger.wrong_batches += u64::from(!(balanced && whole));
                let store = stores.get(&batch.store_id).cloned().unwrap_or(batch.store_id);
                *ledger.by_store.entry(store).or_default() += debit;
            })
            .await
    }

    /// Each thing counted, beside what is expected.
    pub fn compare(&self, expected: &Expected) -> Comparison {
        let mut rows = Comparison::default();
        let number = |value: u64| thousands(&value.to_string());
        let money = |value: Amount| thousands(&value.to_string());
        rows.add("Sales loaded from the stores' files", number(self.sales.count), number(expected.sales.count));
        rows.add("  their total, EUR", money(self.sales.amount), money(expected.sales.amount));
        for (state, label) in [
            ("accrued", "  points booked"),
            ("noMembership", "  customer has no membership"),
            ("notApplicable", "  no card shown, or voided"),
            ("pending", "  left open (see dead letters)"),
        ] {
            rows.add(label, number(of(&self.sales_by_loyalty, state)), number(of(&expected.sales_by_loyalty, state)));
        }
        rows.add("Payments at the tills", number(self.payments.count), number(expected.payments.count));
        rows.add("  their total, EUR", money(self.payments.amount), money(expected.payments.amount));
        rows.add("Loyalty accruals", number(self.accruals.count), number(expected.accruals.count));
        rows.add("  points", number(self.points), number(expected.points));
        rows.add("  what the points are worth, EUR", money(self.accruals.amount), money(expected.accruals.amount));
        rows.add("Loyalty provider's own bookings", number(self.loyalty_provider.entries), number(expected.accruals.count));
        rows.add("  for so many different sales", number(self.loyalty_provider.references), number(expected.accruals.count));
        rows.add("  points, against those of the accruals", number(self.loyalty_provider.points), number(self.points));
        rows.add("Ledger debits, EUR", money(self.ledger.debit), money(expected.accruals.amount));
        rows.add("  credits, against the debits", money(self.ledger.credit), money(self.ledger.debit));
        rows.add("  accruals in exactly one batch", number(self.ledger.accruals_in_a_batch), number(expected.accruals.count));
        let batches = format!("  batches that don't add up, of {}", number(self.ledger.batches));
        rows.add(&batches, number(self.ledger.wrong_batches), number(0));
        let stores = expected.liability_by_store.len() as u64;
        let right = expected.liability_by_store.iter().filter(|(store, amount)| self.ledger.by_store.get(*store) == Some(amount)).count();
        rows.add("  stores whose sums are right", number(right as u64), number(stores));
        let journals = &self.general_ledger;
        rows.add("  batches exported to the general ledger", number(self.ledger.exported), number(self.ledger.batches));
        rows.add("General ledger's own journals", number(journals.entries), number(self.ledger.batches));
        rows.add("  for so many different batches", number(journals.references), number(self.ledger.batches));
        rows.add("  their debits, EUR", money(journals.amount), money(expected.accruals.amount));
        rows.add("  journals of a store out of order", number(journals.out_of_order), number(0));
        rows.add("Invoices", number(self.invoices.count), number(expected.invoices.count));
        rows.add("  their total, EUR", money(self.invoices.amount), money(expected.invoices.amount));
        let invoiced = of(&self.sales_by_settlement, "invoiced");
        rows.add("  sales marked as invoiced", number(invoiced), number(of(&expected.sales_by_settlement, "invoiced")));
        rows.add("Accounting's own invoices", number(self.accounting.entries), number(expected.invoices.count));
        rows.add("  their total, EUR", money(self.accounting.amount), money(expected.invoices.amount));
        rows.add("Receipts rejected as wrong", number(self.rejected_receipts), number(expected.rejected_receipts));
        rows.add("Files rejected as cut short", number(self.rejected_files), number(expected.rejected_files));
        rows.add("Files passed over as loaded before", number(self.repeated_files), number(expected.repeated_files));
        let services = self.dead_letters.keys().chain(expected.dead_letters.keys()).collect::<std::collections::BTreeSet<_>>();
        for service in services {
            let label = format!("Dead letters of {service}");
            rows.add(&label, number(of(&self.dead_letters, service)), number(of(&expected.dead_letters, service)));
        }
        rows.add("Tickets at the ticket desk", number(self.ticket_desk.entries), number(expected.tickets));
        rows
    }

    /// How often the systems outside misbehaved, in words.
    pub fn troubles(&self) -> String {
        let mut sum: BTreeMap<&str, u64> = BTreeMap::new();
        for totals in [&self.loyalty_provider, &self.accounting, &self.general_ledger, &self.ticket_desk] {
            for (answer, count) in &totals.answers {
                *sum.entry(answer).or_default() += count;
            }
        }
        let of = |answer: &str| thousands(&sum.get(answer).copied().unwrap_or(0).to_string());
        format!(
            "{} × too many requests (429), {} × down (503), {} × no answer, {} × answer lost after the booking; {} requests repeated one that was booked",
            of("429"),
            of("503"),
            of("timeout"),
            of("lost"),
            of("replayed")
        )
    }
}

fn of(map: &BTreeMap<String, u64>, key: &str) -> u64 {
    map.get(key).copied().unwrap_or(0)
}

/// Counted and expected, side by side.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// What was compared.
    pub rows: Vec<Row>,
}

/// One thing compared.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// What was counted.
    pub counted: String,
    /// What must be there.
    pub expected: String,
}

impl Row {
    fn is_right(&self) -> bool {
        self.counted == self.expected
    }
}

impl Comparison {
    fn add(&mut self, name: &str, counted: String, expected: String) {
        self.rows.push(Row { name: name.to_owned(), counted, expected });
    }

    /// What differs.
    pub fn differences(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.is_right())
    }

    /// Whether nothing differs.
    pub fn is_right(&self) -> bool {
        self.differences().next().is_none()
    }

    /// As a table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let line = "─".repeat(76);
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {:<42}{:>15} {:>15}", "", "counted", "expected");
        let _ = writeln!(text, "  {line}");
        for row in &self.rows {
            let mark = if row.is_right() { "✓" } else { "✗" };
            let _ = writeln!(text, "  {:<42}{:>15} {:>15} {mark}", row.name, row.counted, row.expected);
        }
        let _ = write!(text, "  {line}");
        text
    }
}

// `1234567.89` as `1,234,567.89`.
fn thousands(digits: &str) -> String {
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut text = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// A number with commas between its thousands.
pub fn readable(number: u64) -> String {
    thousands(&number.to_string())
}
