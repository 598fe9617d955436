//! The deterministic simulator: whole nodes on real logs, simulated disks, a simulated network and many clients with the real
//! client core, in one process, on virtual time. Everything that happens follows from one seed.
//!
//! Reading order: `mixes` and `plan` (what a seed draws), `world` (time and what happens in it), `server` (a node driven as the poll loop
//! drives it), `threads` (its log) and `clock`, `net` and `streams` (links, datagrams, connections), `people`, `acts` and `absences` (clients, and
//! what they do), `faults` and `more_faults` (what goes wrong, and the way back), `oracle` and `ages` (what must hold), `run` (a seed from
//! beginning to end), `counts` and `minimums` (what was seen, and what must have been), `sabotage` (crimes that the oracle must
//! notice), `shrink` (a failure with the fewest faults), `script` (scenarios in text).
//!
//! The standard mix is three servers for a minute of virtual time with the default times, at least 500 things that people ask for, and a
//! fault of any kind every five seconds; the swarm is everything else. Both are drawn from the seed alone:
//!
//! ```text
//! scripts/simulate.sh --mix standard --seeds 10000          # many, on all cores, with a summary
//! scripts/simulate.sh --shrink 7 --mix standard             # leaves out faults for as long as it still fails
//! SYNCNET_MIX=standard SYNCNET_SEED=7 SYNCNET_TRACE=1 cargo test --release --test simulator replay -- --exact --nocapture
//! ```
//!
//! With `SYNCNET_FAULTS=3,7` a replay has only those two faults. Whatever is added to a mix draws from a generator of its own
//! (`Rng::new(seed ^ CONSTANT)`), and each fault has one too, so that a seed stays what it was as far as that is possible. A seed that
//! failed is kept in `seeds.txt`.

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
