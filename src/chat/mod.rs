//! Pure: the replicated state.
pub mod command;
