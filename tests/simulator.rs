//! The simulator over many seeds. See `sim`.

mod sim;

use sim::run;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

/// Runs the one seed that `SYNCNET_SEED` names, with a trace if `SYNCNET_TRACE` is set.
#[test]
fn replay() {
    let Some(seed) = number("SYNCNET_SEED") else { return };
    let trace = std::env::var_os("SYNCNET_TRACE").is_some();
    let (counts, failure) = run::run(seed, trace, None);
    print!("{}", counts.lines());
    if let Some(failure) = failure {
        panic!("{}", failure.line());
    }
}

#[test]
fn many() {
    let from = number("SYNCNET_FROM").unwrap_or(1);
    let seeds: Vec<u64> = (from..from + number("SYNCNET_SEEDS").unwrap_or(20)).collect();
    let (counts, failures) = run::run_many(&seeds, number("SYNCNET_JOBS").unwrap_or(1) as usize, 10);
    print!("{}", counts.lines());
    assert!(failures.is_empty(), "{} seeds failed", failures.len());
}
