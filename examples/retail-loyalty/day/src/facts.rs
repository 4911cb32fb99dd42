//! The facts of a trading day: who there is, and what was bought. Everything follows from the options alone.

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::amount::Amount;
use crate::random::{self, Random};

/// How large a day is.
#[derive(Clone, Debug, clap::Args)]
pub struct Size {
    /// How many sales the stores make; some of them are in the file that is cut short, or are broken.
    #[arg(long, default_value_t = 51_000)]
    pub sales: usize,
    /// How many customers there are; two for five sales where left out.
    #[arg(long)]
    pub customers: Option<usize>,
    /// How many of them are members of the loyalty programme; three of four where left out.
    #[arg(long)]
    pub memberships: Option<usize>,
    /// How many stores there are; one for 2,000 sales, 4 at the least, where left out.
    #[arg(long)]
    pub stores: Option<usize>,
    /// How many products there are.
    #[arg(long, default_value_t = 400)]
    pub products: usize,
    /// From which number everything random follows.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Size {
    /// A day of so many sales, the rest as it follows from them.
    pub fn of(sales: usize, seed: u64) -> Self {
        Self { sales, customers: None, memberships: None, stores: None, products: 400, seed }
    }

    /// How many customers.
    pub fn customers(&self) -> usize {
        self.customers.unwrap_or((self.sales * 2 / 5).max(200))
    }

    /// How many memberships.
    pub fn memberships(&self) -> usize {
        self.memberships.unwrap_or(self.customers() * 3 / 4).min(self.customers())
    }

    /// How many stores.
    pub fn stores(&self) -> usize {
        self.stores.unwrap_or(self.sales / 2_000).max(4)
    }
}

/// The trading day, a Saturday.
pub const BUSINESS_DATE: &str = "2026-03-14";
/// How many files each store sends.
pub const FILES_PER_STORE: usize = 4;

/// A level of the loyalty programme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its code.
    pub code: &'static str,
    /// What members call it.
    pub name: &'static str,
    /// Thousandths of a point for a euro.
    pub millipoints_per_euro: i64,
}

/// The levels. A point is worth a cent.
pub const TIERS: [Tier; 3] = [
    Tier { code: "standard", name: "Standard", millipoints_per_euro: 1_000 },
    Tier { code: "silver", name: "Silver", millipoints_per_euro: 1_250 },
    Tier { code: "gold", name: "Gold", millipoints_per_euro: 1_500 },
];

/// A store.
#[derive(Clone, Debug)]
pub struct Store {
    /// Its number, for example `S001`.
    pub number: String,
    /// Where it is.
    pub city: &'static str,
}

/// A product.
#[derive(Clone, Debug)]
pub struct Product {
    /// Its code, for example `P000123`.
    pub code: String,
    /// What the receipt says.
    pub name: String,
    /// Its shelf.
    pub category: &'static str,
    /// The price in cents.
    pub cents: i64,
}

/// A membership of the loyalty programme.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Its number, for example `M00000123`.
    pub number: String,
    /// Its level.
    pub tier: Tier,
    /// Whether it earns points.
    pub active: bool,
    /// Whether the provider knows it.
    pub known_to_provider: bool,
}

/// A customer.
#[derive(Clone, Debug)]
pub struct Customer {
    /// Its number, for example `C0000123`.
    pub number: String,
    /// An organisation's debtor account, on which it may buy; people pay at the till.
    pub account: Option<String>,
    /// Its part in the loyalty programme.
    pub membership: Option<Membership>,
}

/// Who showed a card at the till.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buyer {
    /// Nobody.
    Anonymous,
    /// The customer at this place in [`World::customers`].
    Customer(usize),
    /// A number that nobody has; it ends in this.
    Unknown(usize),
}

/// How a sale was settled at the till.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// In cash, by card or by telephone.
    Paid(&'static str),
    /// To be invoiced.
    OnAccount,
}

/// What is wrong with a receipt in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A quantity that is no number.
    Quantity,
    /// A product that nobody knows.
    Product,
    /// No time of sale.
    SoldAt,
    /// A line's amount that is not quantity times price.
    Amount,
    /// A total that is not the sum of the lines.
    Total,
    /// A row that breaks off in its middle.
    ShortRow,
}

const FLAWS: [Flaw; 6] = [Flaw::Quantity, Flaw::Product, Flaw::SoldAt, Flaw::Amount, Flaw::Total, Flaw::ShortRow];

/// A line of a receipt.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// The product's place in [`World::products`].
    pub product: usize,
    /// How many.
    pub quantity: i64,
    /// Of a piece.
    pub cents: i64,
}

/// A receipt of a till.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Its number, unique in the store.
    pub number: String,
    /// When, in RFC 3339 with the store's offset.
    pub sold_at: String,
    /// Who bought.
    pub buyer: Buyer,
    /// How it was settled.
    pub settled: Settled,
    /// Whether it was taken back before the customer left.
    pub voided: bool,
    /// What is wrong with it in the file.
    pub flaw: Option<Flaw>,
    /// What was bought.
    pub lines: Vec<Line>,
}

impl Receipt {
    /// The total in cents.
    pub fn cents(&self) -> i64 {
        self.lines.iter().map(|line| line.quantity * line.cents).sum()
    }

    /// The total.
    pub fn total(&self) -> Amount {
        Amount::cents(self.cents())
    }
}

/// Everybody and everything there is before the day begins.
#[derive(Clone, Debug)]
pub struct World {
    /// From which number it follows.
    pub seed: u64,
    /// The stores.
    pub stores: Vec<Store>,
    /// The products.
    pub products: Vec<Product>,
    /// The customers.
    pub customers: Vec<Customer>,
    sales: usize,
    // One of so many receipts has each kind of trouble.
    trouble: usize,
    on_account: Vec<usize>,
}

const CITIES: [&str; 12] =
    ["Utrecht", "Amersfoort", "Leiden", "Delft", "Zwolle", "Deventer", "Breda", "Haarlem", "Gouda", "Arnhem", "Groningen", "Maastricht"];
const SHELVES: [(&str, &str); 8] = [
    ("Dairy", "Cheese"),
    ("Bakery", "Bread"),
    ("Produce", "Apples"),
    ("Drinks", "Juice"),
    ("Household", "Soap"),
    ("Garden", "Seeds"),
    ("Toys", "Puzzle"),
    ("Books", "Novel"),
];

impl World {
    /// The world of a size.
    pub fn new(size: &Size) -> Self {
        let mut random = Random::new(size.seed, "world");
        let stores = (1..=size.stores()).map(|n| Store { number: format!("S{n:03}"), city: CITIES[random.below(CITIES.len())] }).collect();
        let products = (1..=size.products.max(1))
            .map(|n| {
                let (category, thing) = *random.pick(&SHELVES);
                Product { code: format!("P{n:06}"), name: format!("{thing} no. {n}"), category, cents: 95 + random.below(2_900) as i64 }
            })
            .collect();
        let (count, members) = (size.customers().max(1), size.memberships());
        // Members are spread evenly; so are the members whom the provider does not know: about 25 of them.
        let unknown_every = (members / 25).max(20);
        let mut member = 0;
        let mut customers = Vec::with_capacity(count);
        for index in 0..count {
            let is_member = (index + 1) * members / count > index * members / count;
            let membership = is_member.then(|| {
                member += 1;
                let tier = TIERS[[0, 0, 0, 0, 0, 0, 1, 1, 1, 2][random.below(10)]];
                let active = !random.chance(30);
                Membership { number: format!("M{member:08}"), tier, active, known_to_provider: member % unknown_every != 7 }
            });
            // Every tenth is an organisation.
            let account = (index % 10 == 3).then(|| format!("1300-{:06}", index + 1));
            customers.push(Customer { number: format!("C{:07}", index + 1), account, membership });
        }
        let on_account = (0..count).filter(|index| customers[*index].account.is_some()).collect();
        Self { seed: size.seed, stores, products, customers, sales: size.sales, trouble: (size.sales / 25).clamp(40, 2_000), on_account }
    }

    /// The id of an object of the reference data.
    pub fn id(&self, kind: &str, name: &str) -> Uuid {
        random::id(self.seed, kind, name)
    }

    /// The receipts of a store's file, in the order of time. `store` and `file` count from 0.
    pub fn receipts(&self, store: usize, file: usize) -> Vec<Receipt> {
        let mut random = Random::new(self.seed, &format!("receipts/{store}/{file}"));
        let files = self.stores.len() * FILES_PER_STORE;
        let place = store * FILES_PER_STORE + file;
        let range = place * self.sales / files..(place + 1) * self.sales / files;
        let of_store_before = range.start - (store * FILES_PER_STORE) * self.sales / files;
        let count = range.len();
        range.enumerate().map(|(nth, index)| self.receipt(&mut random, index, of_store_before + nth, file, nth, count)).collect()
    }

    fn receipt(&self, random: &mut Random, index: usize, of_store: usize, file: usize, nth: usize, count: usize) -> Receipt {
        // Each file covers three hours of the day, from 8 o'clock on.
        let second = file * 3 * 3_600 + nth * 3 * 3_600 / count.max(1);
        let (hour, minute, second) = (8 + second / 3_600, second / 60 % 60, second % 60);
        let trouble = index % self.trouble;
        let mut buyer = match random.below(100) {
            0..20 => Buyer::Anonymous,
            20..27 if !self.on_account.is_empty() => Buyer::Customer(*random.pick(&self.on_account)),
            _ => Buyer::Customer(random.below(self.customers.len())),
        };
        let mut settled = Settled::Paid(["card", "card", "card", "cash", "cash", "mobile"][random.below(6)]);
        if let Buyer::Customer(customer) = buyer
            && self.customers[customer].account.is_some()
            && random.chance(700)
        {
            settled = Settled::OnAccount;
        }
        if trouble == self.trouble / 3 {
            buyer = Buyer::Unknown(index % 100_000);
            // Some of them buy on account, too.
            settled = if (index / self.trouble) % 3 == 1 { Settled::OnAccount } else { Settled::Paid("card") };
        }
        let flaw = (trouble == self.trouble / 2).then(|| FLAWS[index / self.trouble % FLAWS.len()]);
        let voided = random.chance(10);
        let lines = [1, 1, 1, 2, 2, 2, 3, 3, 4, 6][random.below(10)];
        let lines = (0..lines)
            .map(|_| {
                let product = random.below(self.products.len());
                let quantity = [1, 1, 1, 1, 2, 2, 3, 6][random.below(8)];
                Line { product, quantity, cents: self.products[product].cents }
            })
            .collect();
        Receipt {
            number: format!("{:06}", of_store + 1),
            sold_at: format!("{BUSINESS_DATE}T{hour:02}:{minute:02}:{second:02}+01:00"),
            buyer,
            settled,
            voided,
            flaw,
            lines,
        }
    }

    /// The number on the card that was shown.
    pub fn customer_number(&self, buyer: Buyer) -> Option<String> {
        match buyer {
            Buyer::Anonymous => None,
            Buyer::Customer(customer) => Some(self.customers[customer].number.clone()),
            Buyer::Unknown(number) => Some(format!("C99{number:05}")),
        }
    }
}

/// The points that an amount earns: rounded down to whole ones.
pub fn points(cents: i64, tier: Tier) -> i64 {
    cents * tier.millipoints_per_euro / 100_000
}

/// A tier's points for a euro, as a decimal.
pub fn points_per_euro(tier: Tier) -> Amount {
    Amount(Decimal::new(tier.millipoints_per_euro, 3))
}
