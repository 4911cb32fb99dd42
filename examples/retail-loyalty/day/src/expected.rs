//! What must come out of a day, worked out from its facts alone: no file, no service and no expression of the platform has a part in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::facts::{self, Buyer, FILES_PER_STORE, Receipt, Settled, World};

/// What must come out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expected {
    /// The seed of the day.
    pub seed: u64,
    /// Receipts in all files that the stores wrote, the one cut short included.
    pub receipts: u64,
    /// Sales loaded.
    pub sales: Sum,
    /// Sales by what the loyalty programme made of them.
    pub sales_by_loyalty: BTreeMap<String, u64>,
    /// Sales by how they are settled.
    pub sales_by_settlement: BTreeMap<String, u64>,
    /// Payments at the till.
    pub payments: Sum,
    /// Loyalty accruals; the sum is what the points are worth.
    pub accruals: Sum,
    /// Their points.
    pub points: u64,
    /// What the points are worth, by store number.
    pub liability_by_store: BTreeMap<String, Amount>,
    /// Invoices.
    pub invoices: Sum,
    /// Receipts that are rejected since something is wrong with them.
    pub rejected_receipts: u64,
    /// Files that are rejected as a whole, since they were cut short.
    pub rejected_files: u64,
    /// Files that came a second time.
    pub repeated_files: u64,
    /// Dead letters, by service.
    pub dead_letters: BTreeMap<String, u64>,
    /// Tickets, one for each dead letter.
    pub tickets: u64,
}

/// A count and a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Their amounts together.
    pub amount: Amount,
}

impl Sum {
    /// One more.
    pub fn add(&mut self, amount: Amount) {
        self.count += 1;
        self.amount += amount;
    }
}

/// The place (store and file, from 0) of the file that is cut short.
pub const CUT_SHORT: (usize, usize) = (1, 2);
/// The place of the file that comes twice.
pub const REPEATED: (usize, usize) = (2, 1);

impl Expected {
    /// What must come out of a world's day.
    pub fn of(world: &World) -> Self {
        let mut expected = Self { seed: world.seed, rejected_files: 1, repeated_files: 1, ..Self::default() };
        for state in ["notApplicable", "pending", "accrued", "noMembership"] {
            expected.sales_by_loyalty.insert(state.to_owned(), 0);
        }
        for state in ["paid", "onAccount", "invoiced", "voided"] {
            expected.sales_by_settlement.insert(state.to_owned(), 0);
        }
        for service in ["loyalty-accrual", "account-invoice"] {
            expected.dead_letters.insert(service.to_owned(), 0);
        }
        for store in 0..world.stores.len() {
            for file in 0..FILES_PER_STORE {
                for receipt in world.receipts(store, file) {
                    expected.receipts += 1;
                    match receipt.flaw {
                        _ if (store, file) == CUT_SHORT => {}
                        Some(_) => expected.rejected_receipts += 1,
                        None => expected.count(world, store, &receipt),
                    }
                }
            }
        }
        expected.tickets = expected.dead_letters.values().sum();
        expected
    }

    fn count(&mut self, world: &World, store: usize, receipt: &Receipt) {
        self.sales.add(receipt.total());
        let loyalty = self.loyalty(world, store, receipt);
        *self.sales_by_loyalty.entry(loyalty.to_owned()).or_default() += 1;
        let settlement = self.settlement(receipt);
        *self.sales_by_settlement.entry(settlement.to_owned()).or_default() += 1;
    }

    fn loyalty(&mut self, world: &World, store: usize, receipt: &Receipt) -> &'static str {
        let customer = match receipt.buyer {
            _ if receipt.voided => return "notApplicable",
            Buyer::Anonymous => return "notApplicable",
            Buyer::Unknown(_) => {
                *self.dead_letters.entry("loyalty-accrual".to_owned()).or_default() += 1;
                return "pending";
            }
            Buyer::Customer(customer) => &world.customers[customer],
        };
        let Some(membership) = customer.membership.as_ref().filter(|membership| membership.active) else { return "noMembership" };
        if !membership.known_to_provider {
            *self.dead_letters.entry("loyalty-accrual".to_owned()).or_default() += 1;
            return "pending";
        }
        let points = facts::points(receipt.cents(), membership.tier);
        self.points += points.unsigned_abs();
        self.accruals.add(Amount::cents(points));
        *self.liability_by_store.entry(world.stores[store].number.clone()).or_default() += Amount::cents(points);
        "accrued"
    }

    fn settlement(&mut self, receipt: &Receipt) -> &'static str {
        match (receipt.voided, receipt.settled, receipt.buyer) {
            (true, _, _) => "voided",
            (false, Settled::Paid(_), _) => {
                self.payments.add(receipt.total());
                "paid"
            }
            (false, Settled::OnAccount, Buyer::Customer(_)) => {
                self.invoices.add(receipt.total());
                "invoiced"
            }
            (false, Settled::OnAccount, _) => {
                *self.dead_letters.entry("account-invoice".to_owned()).or_default() += 1;
                "onAccount"
            }
        }
    }
}
