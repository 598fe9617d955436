//! What tests of the real programs share: a cluster of `syncnetd` processes on ports and in a directory of its own, and runs of the
//! other programs against it. Whatever happens, the processes end with the test, and a failure shows what was run and what it said.

// Every test program uses its part of this.
#![allow(dead_code)]

pub mod cluster;
pub mod run;
pub mod screen;
pub mod terminal;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The directory of the package.
pub fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// How long anything may take before the test fails: long, as the machine may be busy. Nothing is expected to take it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until something holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}
