//! Journals as the general ledger imports them: CSV, a line for each entry, all of one batch of one store.

use axum::http::StatusCode;
use serde::Deserialize;

use super::{Asked, Refusal};
use crate::amount::Amount;

#[derive(Deserialize)]
struct Line {
    batch: String,
    position: String,
    store: String,
    debit: String,
    credit: String,
}

/// Reads a journal: the batch is what it is about, the store whose it is, and the debits its amount.
///
/// # Errors
/// When it can't be read, is of several batches, or does not balance.
pub(super) fn read(body: &[u8]) -> Result<Asked, Refusal> {
    let mut lines = csv::ReaderBuilder::new().delimiter(b';').from_reader(body);
    let lines: Vec<Line> = lines
        .deserialize()
        .collect::<Result<_, _>>()
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("the journal can't be read: {error}")))?;
    let unprocessable = |detail: &str| (StatusCode::UNPROCESSABLE_ENTITY, detail.to_owned());
    let first = lines.first().ok_or_else(|| unprocessable("the journal has no entry"))?;
    if lines.iter().any(|line| (&line.batch, &line.store, &line.position) != (&first.batch, &first.store, &first.position)) {
        return Err(unprocessable("the journal is of several batches"));
    }
    let sum = |amounts: &mut dyn Iterator<Item = &String>| -> Result<Amount, Refusal> {
        amounts.map(|amount| amount.parse().map_err(|_| unprocessable(&format!("{amount:?} is no amount")))).sum()
    };
    let debit = sum(&mut lines.iter().map(|line| &line.debit))?;
    if debit != sum(&mut lines.iter().map(|line| &line.credit))? {
        return Err(unprocessable("the journal's debits are not its credits"));
    }
    Ok(Asked {
        reference: first.batch.clone(),
        account_number: first.store.clone(),
        position: first.position.clone(),
        amount: debit,
        ..Asked::default()
    })
}
