//! What every role's process has alike: options, logs, an orderly stop, the operations endpoint, and following the catalog.

pub mod catalog;
pub mod operations;
pub mod options;
pub mod shutdown;
pub mod telemetry;
