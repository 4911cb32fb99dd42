//! The object API against a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "tests")]

mod aggregates;
mod by_key;
mod catalog_changes;
mod compressed;
mod concurrency;
mod connections;
mod deletions;
mod embedding;
mod events;
mod formats;
mod history;
mod hostile_input;
mod in_pieces;
mod json_patch;
mod lists;
mod new_references;
mod objects;
mod preconditions;
mod row_by_row;
mod side_by_side;
mod support;
mod transactions;
