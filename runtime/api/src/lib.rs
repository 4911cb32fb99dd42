//! The object API.
