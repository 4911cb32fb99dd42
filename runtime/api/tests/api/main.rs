//! The object API against a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "tests")]

mod aggregates;
mod catalog_changes;
mod compressed;
mod concurrency;
mod embedding;
mod formats;
mod hostile_input;
mod in_pieces;
mod lists;
mod objects;
mod row_by_row;
mod support;
mod transactions;
