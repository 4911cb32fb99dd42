//! The queue-trigger pattern: triggers, caches, steps, retries, dead letters, tickets.
//!
//! A worker runs one MicroService. [`service`] compiles its declaration; [`steps`] runs its logic for one [`steps::Input`] and gives what is
//! to be written; [`transactions`] writes it, each input as one unit; the two triggers, [`files`] and [`queue`], bring the inputs.
//!
//! A service's logic may be in Rust too: implement [`Logic`], and give it to [`program::main`]. The worker that comes out runs that one service,
//! whose declaration says `handler.embedded`.

mod atomic;
pub mod caches;
pub mod dead_letter;
pub mod expression;
pub mod files;
pub mod http_call;
pub mod logic;
pub mod options;
pub mod program;
pub mod queue;
pub mod rehearsal;
pub mod retry;
pub mod secrets;
pub mod service;
pub mod steps;
pub mod transactions;
pub mod worker;

pub use logic::{Delivery, Event, Logic, Writes};
pub use options::Options;
pub use steps::Failure;
pub use worker::{Error, run};
