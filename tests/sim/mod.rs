//! The deterministic simulator: whole nodes on real logs, simulated disks, a simulated network and many clients with the real
//! client core, in one process, on virtual time. Everything that happens follows from one seed.
//!
//! Reading order: `plan` (what a seed draws), `world` (time and what happens in it), `server` (a node driven as the poll loop drives
//! it) and `threads` (its log), `net` and `streams` (links, datagrams, connections), `people` and `acts` (clients, and what they do), `faults` (what goes wrong, and the way back),
//! `oracle` (what must hold), `run` (a seed from beginning to end), `script` (scenarios in text).

// Two test programs share this, and each uses a part.
#![allow(dead_code)]

pub mod absences;
pub mod acts;
pub mod ages;
pub mod clock;
pub mod counts;
pub mod disk;
pub mod faults;
pub mod minimums;
pub mod mixes;
pub mod more_faults;
pub mod net;
pub mod oracle;
pub mod people;
pub mod plan;
pub mod run;
pub mod sabotage;
pub mod script;
pub mod server;
pub mod shrink;
pub mod streams;
pub mod threads;
pub mod world;
