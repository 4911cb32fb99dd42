//! The queue-trigger pattern: triggers, caches, steps, retries, dead letters, tickets.
//!
//! A worker runs one MicroService. [`service`] compiles its declaration; [`steps`] runs its logic for one [`steps::Input`] and gives what is
//! to be written; [`transactions`] writes it, each input as one unit; the two triggers, [`files`] and [`queue`], bring the inputs.

pub mod caches;
pub mod dead_letter;
pub mod expression;
pub mod files;
pub mod http_call;
pub mod options;
pub mod queue;
pub mod retry;
pub mod service;
pub mod steps;
pub mod transactions;
pub mod worker;

pub use options::Options;
pub use worker::{Error, run};
