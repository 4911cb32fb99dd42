//! The object API against a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "tests")]

mod catalog_changes;
mod concurrency;
mod hostile_input;
mod lists;
mod objects;
mod support;
mod transactions;
