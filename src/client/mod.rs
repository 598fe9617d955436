//! A connection with fail-over and an outbox.

pub mod ask;
pub mod health;
pub mod report;
pub mod settings;
pub mod time;
