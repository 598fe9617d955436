//! The consensus core as a whole: several servers in one test, with virtual time.

mod harness;
mod random;
mod scenarios;
