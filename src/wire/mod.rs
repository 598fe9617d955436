//! Bytes ↔ values.
pub mod client;
pub mod peer;
