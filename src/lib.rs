//! SyncNet: the chat that stays up during the outage.

pub mod chat;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod limits;
pub mod log;
pub mod node;
pub mod rng;
pub mod server;
pub mod types;
pub mod wire;
