//! Sales to send: a body made once, in which only the receipt numbers change, so that the load generator costs little.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::Method;
use serde_json::json;
use uuid::Uuid;

use crate::load::{Call, Connection, LoadError};
use crate::platform::Platform;

const STORES: u64 = 40;
// As wide as a receipt number, and nowhere else in a body.
const PLACE: &str = "999900000000";

/// Which Sale.
#[derive(Clone, Debug)]
pub enum Kind {
    /// That of `sales.yaml`.
    Plain,
    /// That of the retail example, with references to these stores and products.
    Retail {
        /// Ids of stores that are there.
        stores: Vec<Uuid>,
        /// Ids of products that are there.
        products: Vec<Uuid>,
    },
    /// The same, waiting for points.
    Loyalty {
        /// Ids of stores that are there.
        stores: Vec<Uuid>,
        /// Ids of products that are there.
        products: Vec<Uuid>,
        /// How many customers there are, numbered from 0.
        customers: u64,
    },
}

/// A body with places for receipt numbers.
#[derive(Debug)]
pub struct Body {
    text: Vec<u8>,
    places: Vec<usize>,
    next: AtomicU64,
}

impl Body {
    /// A list of so many Sales; `first` is the first receipt number.
    pub fn list(kind: &Kind, count: u64, first: u64) -> Self {
        let sales: Vec<String> = (0..count).map(|number| sale(kind, number)).collect();
        Self::new(format!("[{}]", sales.join(",")), first)
    }

    /// So many Sales as NDJSON.
    pub fn lines(kind: &Kind, count: u64, first: u64) -> Self {
        Self::new((0..count).map(|number| sale(kind, number) + "\n").collect(), first)
    }

    /// One Sale.
    pub fn one(kind: &Kind, first: u64) -> Self {
        Self::new(sale(kind, 0), first)
    }

    fn new(text: String, first: u64) -> Self {
        let places = text.match_indices(PLACE).map(|(at, _)| at).collect();
        Self { text: text.into_bytes(), places, next: AtomicU64::new(first) }
    }

    /// How many Sales are in it.
    pub fn sales(&self) -> u64 {
        self.places.len() as u64
    }

    /// Bytes of it.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// The body with receipt numbers never used before.
    pub fn fresh(&self) -> Bytes {
        let mut text = self.text.clone();
        let first = self.next.fetch_add(self.sales(), Ordering::Relaxed);
        for (number, at) in (first..).zip(&self.places) {
            let mut rest = number;
            for digit in text[*at..*at + PLACE.len()].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        text.into()
    }
}

fn sale(kind: &Kind, number: u64) -> String {
    let (hour, minute, second) = (8 + number % 12, number % 60, number * 7 % 60);
    let cents = 100 + number * 1_237 % 29_900;
    let amount = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    let (total, tax, points) = (amount(cents), amount(cents * 19 / 119), cents / 100);
    let customer = number * 7_919 % 1_000_000;
    match kind {
        Kind::Plain => {
            let store = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(number % STORES));
            format!(
                r#"{{"storeId":"{store}","receiptNumber":"{PLACE}","status":"completed","soldAt":"2026-11-20T{hour:02}:{minute:02}:{second:02}Z","businessDate":"2026-11-20","customerNumber":"C{customer:08}","totalAmount":{total},"taxAmount":{tax},"currency":"EUR","points":{points},"paid":true}}"#
            )
        }
        Kind::Retail { stores, products } | Kind::Loyalty { stores, products, .. } => {
            let (customer, loyalty) = match kind {
                Kind::Loyalty { customers, .. } => (format!("C{:07}", customer % customers), r#""loyalty":"pending","#),
                _ => (format!("C{customer:08}"), ""),
            };
            let store = stores[number as usize % stores.len()];
            let product = products[number as usize % products.len()];
            format!(
                r#"{{"storeId":"{store}","receiptNumber":"{PLACE}","status":"completed","soldAt":"2026-11-20T{hour:02}:{minute:02}:{second:02}Z","businessDate":"2026-11-20","customerNumber":"{customer}",{loyalty}"totalAmount":{total},"currency":"EUR","lines":[{{"lineNumber":1,"quantity":1,"unitPrice":{total},"amount":{total},"productId":"{product}"}}]}}"#
            )
        }
    }
}

/// Makes the stores and products that retail Sales refer to; gives their ids.
///
/// # Errors
/// When the API refuses them.
pub async fn seed_retail(platform: &Platform) -> Result<(Vec<Uuid>, Vec<Uuid>), LoadError> {
    let mut connection = Connection::open(&platform.target()).await?;
    let ids = |first: u128, count: u128| (0..count).map(|n| Uuid::from_u128(first + n)).collect::<Vec<_>>();
    let (stores, products) = (ids(0x0190_0000_0000_7000_8000_0000_0000_1000, 40), ids(0x0190_0000_0000_7000_8000_0000_0000_2000, 200));
    let store = |(n, id): (usize, &Uuid)| json!({"id": id, "storeNumber": format!("S{n:05}"), "name": "A store", "city": "Berlin"});
    let product = |(n, id): (usize, &Uuid)| json!({"id": id, "productCode": format!("P{n:06}"), "name": "A product", "category": "all", "unitPrice": 1});
    let store: Vec<_> = stores.iter().enumerate().map(store).collect();
    let product: Vec<_> = products.iter().enumerate().map(product).collect();
    for (path, list) in [("/api/retail/stores", store), ("/api/retail/products", product)] {
        let body = serde_json::Value::from(list).to_string().into();
        connection.send(Call { method: Method::POST, path: path.to_owned(), body }).await?;
    }
    Ok((stores, products))
}
