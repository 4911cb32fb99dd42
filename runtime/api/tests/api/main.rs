//! The object API against a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "tests")]

mod aggregates;
mod catalog_changes;
mod concurrency;
mod embedding;
mod events;
mod formats;
mod hostile_input;
mod lists;
mod objects;
mod row_by_row;
mod support;
mod transactions;
