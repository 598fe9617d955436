//! Pure: who is alive, who leads, what is committed.
pub mod chain;
pub mod message;
