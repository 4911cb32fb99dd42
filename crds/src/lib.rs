//! The declared language of Autonomy: its kinds, their validation, and the resolved model from which every table, column,
//! subject, stream and JSON name comes. Nothing in this crate performs I/O.

pub mod cloud_event;
pub mod compatibility;
pub mod condition;
pub mod container;
pub mod data_model;
pub mod data_platform;
pub mod documents;
pub mod event;
pub mod fault;
pub mod glob;
pub mod micro_service;
pub mod migration;
pub mod names;
pub mod object_json;
pub mod reference;
pub mod resolve;
pub mod resolved;
pub mod schedule;
pub mod schema;
pub mod webhook;

pub use data_model::{DataModel, DataModelSpec};
pub use data_platform::{DataPlatform, DataPlatformSpec};
pub use fault::{Fault, Faults};
pub use micro_service::{MicroService, MicroServiceSpec};
pub use migration::{Migration, MigrationSpec};
pub use resolved::Model;

/// The API group of every kind.
pub const GROUP: &str = "autonomy.dev";
/// The API version of every kind.
pub const VERSION: &str = "v1alpha1";
/// The DataPlatform that is meant where a resource names none.
pub const DEFAULT_PLATFORM: &str = "default";
