//! The simulator over many seeds. See `sim` for how it works.
//!
//! `cargo test` runs a fixed set of seeds, those that once failed (`sim/seeds.txt`), and a few that the commit's hash draws, so that
//! each commit tries something new. `scripts/simulate.sh` runs as many as wanted.

mod sim;

use sim::run::{self, Failure};
use sim::sabotage::Sabotage;

/// Seeds that every run begins with.
const FIXED: u64 = 160;
/// Seeds that the commit draws.
const DRAWN: u64 = 20;

/// What the fixed seeds must have seen, or their being green proves nothing. About half of what they see today.
const MINIMUMS: &[(&str, u64)] = &[
    ("worlds", FIXED),
    ("elections", 350),
    ("fail-overs with messages in flight", 130),
    ("partitions", 180),
    ("one-way partitions", 110),
    ("partial partitions", 100),
    ("link resets", 400),
    ("links given up for their silence", 5),
    ("multicast dead", 80),
    ("datagrams lost", 13_000),
    ("datagrams repeated", 1_900),
    ("power cuts", 500),
    ("ends of all servers at once", 200),
    ("kills", 220),
    ("orderly stops", 85),
    ("torn ends cut off", 8),
    ("most segments of a log", 20),
    ("ends written anew", 900),
    ("failed disks", 65),
    ("leaders that hung", 25),
    ("leaders' disks that hung", 30),
    ("followers' disks that hung", 70),
    ("clients crashed", 100),
    ("clients that lost their server", 1_100),
    ("clients told of no quorum", 600),
    ("sessions gone on with", 900),
    ("retries recognised", 120),
    ("resends asked for", 350),
    ("redirects", 700),
    ("refused at admission", 1_000),
    ("names taken", 5),
    ("messages acknowledged", 280_000),
    ("items read", 9_000_000),
    ("items cut in two", 400_000),
    ("reads from the log", 13_000),
    ("fresh readings", 6_000),
    ("stale readings", 1_200),
    ("fresh lookups", 4_000),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

fn fail_with(failures: &[Failure]) -> ! {
    let lines: Vec<String> = failures.iter().map(Failure::line).collect();
    panic!("{} seeds failed:\n{}", failures.len(), lines.join("\n"));
}

/// Seeds that once failed.
fn kept_seeds() -> Vec<u64> {
    let lines = include_str!("sim/seeds.txt").lines();
    let seeds = lines.filter_map(|line| line.split('#').next()?.trim().parse().ok());
    seeds.collect()
}

/// A few seeds that follow from the commit. Without a repository there are none.
fn commit_seeds() -> Vec<u64> {
    let from_git = || {
        let mut git = std::process::Command::new("git");
        let output = git
            .args(["rev-parse", "HEAD"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let commit = std::env::var("SYNCNET_COMMIT")
        .ok()
        .or_else(from_git)
        .unwrap_or_default();
    let Some(first) = commit.get(..8).and_then(|head| u64::from_str_radix(head, 16).ok()) else {
        return Vec::new();
    };
    (0..DRAWN).map(|n| (first << 8) + n).collect()
}

#[test]
fn whatever_fails_every_promise_holds() {
    let fixed: Vec<u64> = (1..=FIXED).collect();
    let (counts, failures) = run::run_many(&fixed, 1, 3);
    print!("{}", counts.lines());
    if !failures.is_empty() {
        fail_with(&failures);
    }
    let missing = counts.missing(MINIMUMS);
    assert!(missing.is_empty(), "the fixed seeds have not seen enough: {missing:#?}");
    let others: Vec<u64> = kept_seeds().into_iter().chain(commit_seeds()).collect();
    let (_, failures) = run::run_many(&others, 1, 3);
    if !failures.is_empty() {
        fail_with(&failures);
    }
}

#[test]
fn a_seed_means_the_same_every_time() {
    let (first, _) = run::run(7, false, None);
    let (second, _) = run::run(7, false, None);
    assert_eq!(first, second);
}

/// The sabotage must be noticed within so many seeds.
fn caught(sabotage: Sabotage, within: u64) {
    for seed in 1..=within {
        if let (_, Some(failure)) = run::run(seed, false, Some(sabotage)) {
            println!("{sabotage:?} is caught by seed {seed}, {}", failure.text);
            return;
        }
    }
    panic!("{sabotage:?} isn't noticed within {within} seeds");
}

#[test]
fn disks_that_lie_about_a_sync_are_caught() {
    caught(Sabotage::LyingDisks, 5);
}

#[test]
fn forged_votes_are_caught() {
    caught(Sabotage::ForgedVotes, 20);
}

#[test]
fn forged_answers_to_appends_are_caught() {
    caught(Sabotage::ForgedAppends, 20);
}

#[test]
fn retries_under_new_numbers_are_caught() {
    caught(Sabotage::RenumberedRetries, 3);
}

/// Runs the one seed that `SYNCNET_SEED` names, with a trace if `SYNCNET_TRACE` is set.
#[test]
fn replay() {
    let Some(seed) = number("SYNCNET_SEED") else { return };
    let trace = std::env::var_os("SYNCNET_TRACE").is_some();
    let (counts, failure) = run::run(seed, trace, None);
    print!("{}", counts.lines());
    if let Some(failure) = failure {
        fail_with(&[failure]);
    }
}

/// Runs the `SYNCNET_SEEDS` seeds from `SYNCNET_FROM` on, on `SYNCNET_JOBS` threads: what `scripts/simulate.sh` calls.
#[test]
fn many() {
    let Some(count) = number("SYNCNET_SEEDS") else { return };
    let from = number("SYNCNET_FROM").unwrap_or(1);
    let seeds: Vec<u64> = (from..from + count).collect();
    let (counts, failures) = run::run_many(&seeds, number("SYNCNET_JOBS").unwrap_or(1) as usize, 10);
    print!("{}", counts.lines());
    if !failures.is_empty() {
        fail_with(&failures);
    }
}
