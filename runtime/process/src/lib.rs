//! What every role's process has alike: configuration, logs, health, metrics, and following the catalog.
