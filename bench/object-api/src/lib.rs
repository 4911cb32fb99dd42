//! What the benchmarks share: Autonomy as its users run it, the load generator, what processes cost, and the table of results.

pub mod load;
pub mod measure;
pub mod platform;
pub mod results;
pub mod sales;
