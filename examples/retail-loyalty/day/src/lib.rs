//! A trading day of the retail loyalty case: the stores' files, stand-ins for the systems outside, and what must come out, counted against
//! what the platform has.

pub mod amount;
pub mod count;
pub mod demo;
pub mod expected;
pub mod facts;
pub mod handler;
pub mod platform;
pub mod random;
pub mod rejects;
pub mod seed;
pub mod stand_ins;
pub mod written;
