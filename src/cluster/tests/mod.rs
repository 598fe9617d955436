//! The consensus core as a whole: several servers in one test, with virtual time.

mod by_hand;
mod checks;
mod disk;
mod harness;
mod nonsense;
mod random;
mod repair;
mod scenarios;
mod wants;
