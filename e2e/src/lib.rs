//! Tests of whole flows.
