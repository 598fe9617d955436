//! A connection to the cluster with fail-over and an outbox, for our own programs and for others, and the line client that is
//! built on it. Calls `wire`, `chat` for the vocabulary, and the ground floor.
//!
//! Reading order: `calls` (what goes in and out), `core` (the pure state machine) with `servers`, `session`, `outbox`,
//! `subscription`, `questions` and `pulse`, then `link` (its socket and thread), and the programs `send`, `tail`, `chat`.
//! Beside them `settings` (whom to ask, under which name), the status question: `ask`, `health`, `report`, and `bench`, which measures
//! a cluster and so speaks the protocol by itself.

pub mod ask;
pub mod bench;
pub mod calls;
pub mod chat;
pub mod core;
pub mod health;
pub mod json;
pub mod key;
pub mod lines;
pub mod link;
pub mod outbox;
pub mod programs;
pub mod pulse;
pub mod questions;
pub mod render;
pub mod report;
pub mod send;
pub mod servers;
pub mod session;
pub mod settings;
pub mod socket;
pub mod subscription;
pub mod tail;
pub mod time;
