//! What every role's process has alike: options, logs, an orderly stop, the operations endpoint, and following the catalog.

pub mod catalog;
pub mod http_client;
pub mod operations;
pub mod options;
pub mod service_consumers;
pub mod shutdown;
pub mod telemetry;
