//! What every role's process has alike: options, logs, an orderly stop, the operations endpoint, and following the catalog.

pub mod catalog;
pub mod http_client;
pub mod object_storage;
pub mod operations;
pub mod options;
pub mod role;
pub mod service_consumers;
pub mod service_failures;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
