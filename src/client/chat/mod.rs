//! `syncnet`: the chat at a terminal.

pub mod commands;
pub mod model;
pub mod terminal;
