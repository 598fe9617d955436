//! The simulator over many seeds. See `sim` for how it works.
//!
//! `cargo test` runs a fixed set of seeds of each mix, those that once failed (`sim/seeds.txt`), and a few that the commit's hash draws,
//! so that each commit tries something new. `scripts/simulate.sh` runs as many as wanted.

mod sim;

use std::time::Instant;

use sim::clock::{Clock, RIGHT};
use sim::minimums::minimums;
use sim::mixes::Mix;
use sim::run::{Case, Failure, Many, run_many};
use sim::sabotage::Sabotage;
use sim::shrink;
use syncnet::types::Tick;

/// Seeds of the standard mix that every run begins with.
const FIXED_STANDARD: u64 = 600;
/// Seeds of the swarm.
const FIXED_SWARM: u64 = 180;
/// Seeds that the commit draws, of each mix.
const DRAWN: u64 = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

fn fail_with(failures: &[Failure]) -> ! {
    let lines: Vec<String> = failures.iter().map(Failure::line).collect();
    panic!("{} seeds failed:\n{}", failures.len(), lines.join("\n"));
}

/// Seeds that once failed: a line of `seeds.txt` is `SEED` or `MIX SEED`; one without a mix is of the early swarm.
fn kept_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for line in include_str!("sim/seeds.txt").lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace().rev();
        if let Some(seed) = words.next() {
            let mix = words.next().map_or(Some(Mix::Early), Mix::named);
            let (mix, seed) = (mix.expect("a mix"), seed.parse().expect("a seed"));
            cases.push(Case::new(mix, seed));
        }
    }
    cases
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

/// Runs so many seeds of a mix from one on, says what they saw, and fails if a seed does or if they haven't seen enough.
fn all_hold(mix: Mix, from: u64, count: u64, threads: usize, failures_max: usize) {
    let cases: Vec<Case> = (from..from + count).map(|seed| Case::new(mix, seed)).collect();
    let began = Instant::now();
    let Many {
        counts,
        failures,
        core_seconds,
    } = run_many(&cases, threads, failures_max);
    let real = began.elapsed().as_secs_f64();
    let seconds = counts.get("virtual milliseconds") as f64 / 1000.0;
    print!("{}", counts.lines());
    println!(
        "{} mix: {count} seeds, {} failed; {seconds:.0} virtual seconds in {real:.1} s on {threads} threads: {:.1} seeds a second, \
         {:.0} times real time; {:.1} ms of a core a seed, {:.0} times real time on a core of its own",
        mix.name(),
        failures.len(),
        count as f64 / real,
        seconds / real,
        core_seconds * 1000.0 / count as f64,
        seconds / core_seconds
    );
    if !failures.is_empty() {
        fail_with(&failures);
    }
    let missing = counts.missing(&minimums(mix, count));
    assert!(
        missing.is_empty(),
        "{count} seeds of the {} mix have not seen enough: {missing:#?}",
        mix.name()
    );
}

#[test]
fn in_the_standard_mix_every_promise_holds() {
    all_hold(Mix::Standard, 1, FIXED_STANDARD, 1, 3);
}

#[test]
fn in_the_swarm_every_promise_holds() {
    all_hold(Mix::Swarm, 1, FIXED_SWARM, 1, 3);
}

#[test]
fn seeds_that_once_failed_and_those_of_the_commit_hold() {
    let drawn = commit_seeds().into_iter();
    let drawn = drawn.flat_map(|seed| [Case::new(Mix::Standard, seed), Case::new(Mix::Swarm, seed)]);
    let cases: Vec<Case> = kept_cases().into_iter().chain(drawn).collect();
    let failures = run_many(&cases, 1, 3).failures;
    if !failures.is_empty() {
        fail_with(&failures);
    }
}

#[test]
fn a_seed_means_the_same_every_time() {
    for mix in [Mix::Standard, Mix::Swarm, Mix::Early] {
        let case = Case::new(mix, 7);
        assert_eq!(case.run().counts, case.run().counts);
    }
}

/// A turn that is planned for a deadline must find it due, or the server would turn for ever; and no clock may go back.
#[test]
fn clocks_at_any_rate_never_go_back_and_wake_nobody_early() {
    let mut rng = syncnet::rng::Rng::new(5);
    let (mut clock, mut now) = (Clock::new(), Tick(0));
    clock.start_at(1 << 39, now);
    for _ in 0..10_000 {
        let before = clock.now(now).tick;
        if rng.chance(10) {
            clock.run_at(rng.between(RIGHT / 2, RIGHT * 2), now);
        }
        now = Tick(now.0 + rng.below(1_000));
        assert!(clock.now(now).tick >= before);
        let deadline = Tick(clock.now(now).tick.0 + rng.below(1_000_000));
        let woken = clock.world_time(deadline);
        assert!(woken >= now && clock.now(woken).tick >= deadline);
    }
}

/// The sabotage must be noticed within so many seeds.
fn caught(mix: Mix, sabotage: Sabotage, within: u64) {
    for seed in 1..=within {
        if let Some(failure) = Case::new(mix, seed).sabotaged(sabotage).run().failure {
            println!("{sabotage:?} is caught by {} seed {seed}, {}", mix.name(), failure.text);
            return;
        }
    }
    panic!("{sabotage:?} isn't noticed within {within} seeds");
}

#[test]
fn disks_that_lie_about_a_sync_are_caught() {
    caught(Mix::Swarm, Sabotage::LyingDisks, 5);
}

#[test]
fn forged_votes_are_caught() {
    caught(Mix::Swarm, Sabotage::ForgedVotes, 20);
}

#[test]
fn forged_answers_to_appends_are_caught() {
    caught(Mix::Swarm, Sabotage::ForgedAppends, 20);
}

#[test]
fn retries_under_new_numbers_are_caught() {
    caught(Mix::Swarm, Sabotage::RenumberedRetries, 3);
}

#[test]
fn disks_that_are_restored_from_a_backup_are_caught() {
    caught(Mix::Swarm, Sabotage::RestoredDisks, 20);
}

#[test]
fn items_that_are_read_with_other_bytes_are_caught() {
    caught(Mix::Standard, Sabotage::AlteredItems, 5);
}

#[test]
fn replicas_that_forget_a_session_are_caught() {
    caught(Mix::Standard, Sabotage::ForgottenSessions, 5);
}

/// It must be noticed by the server itself, before anything comes of it.
#[test]
fn a_live_state_that_the_log_does_not_make_is_said_by_the_server() {
    for seed in 1..=10 {
        let case = Case::new(Mix::Standard, seed).sabotaged(Sabotage::OtherStates);
        let Some(failure) = case.run().failure else { continue };
        assert!(failure.text.contains("is not the one in memory"), "{}", failure.text);
        return;
    }
    panic!("no server compares its live state with its checkpoints");
}

/// The case that `SYNCNET_MIX`, `SYNCNET_SEED`, `SYNCNET_SABOTAGE` and `SYNCNET_FAULTS` name.
fn named_case() -> Option<Case> {
    let seed = number("SYNCNET_SEED")?;
    let mix = std::env::var("SYNCNET_MIX").unwrap_or_else(|_| "swarm".to_string());
    let mut case = Case::new(Mix::named(&mix).expect("SYNCNET_MIX: standard, swarm or early"), seed);
    if let Ok(name) = std::env::var("SYNCNET_SABOTAGE") {
        case.sabotage = Some(Sabotage::named(&name).expect("SYNCNET_SABOTAGE: the name of a sabotage"));
    }
    if let Ok(faults) = std::env::var("SYNCNET_FAULTS") {
        let numbers = faults.split(',').map(str::trim).filter(|number| !number.is_empty());
        let numbers = numbers.map(|number| number.parse().expect("SYNCNET_FAULTS: numbers of faults"));
        case.only = Some(numbers.collect());
    }
    Some(case)
}

/// Runs the one case that is named, with a trace if `SYNCNET_TRACE` is set.
#[test]
fn replay() {
    let Some(mut case) = named_case() else { return };
    case.trace = std::env::var_os("SYNCNET_TRACE").is_some();
    let outcome = case.run();
    print!("{}", outcome.counts.lines());
    if let Some(failure) = outcome.failure {
        fail_with(&[failure]);
    }
}

/// Leaves out faults of the case that is named for as long as it still fails: `scripts/simulate.sh --shrink`.
#[test]
fn shrink() {
    if std::env::var_os("SYNCNET_SHRINK").is_none() {
        return;
    }
    let Some(case) = named_case() else { return };
    match shrink::shrink(&case) {
        Some(shrunk) => println!("{}", shrunk.lines()),
        None => println!("this seed keeps every promise"),
    }
}

/// Runs the `SYNCNET_SEEDS` seeds of `SYNCNET_MIX` from `SYNCNET_FROM` on, on `SYNCNET_JOBS` threads: what `scripts/simulate.sh` calls.
#[test]
fn many() {
    let Some(count) = number("SYNCNET_SEEDS") else { return };
    let mixes = match std::env::var("SYNCNET_MIX").as_deref() {
        Ok("both") | Err(_) => vec![Mix::Standard, Mix::Swarm],
        Ok(name) => vec![Mix::named(name).expect("SYNCNET_MIX: standard, swarm, early or both")],
    };
    let from = number("SYNCNET_FROM").unwrap_or(1);
    let threads = number("SYNCNET_JOBS").unwrap_or(1) as usize;
    for mix in mixes {
        all_hold(mix, from, count, threads, 10);
    }
}

/// A failure shrinks to a few faults, and the shorter list still fails.
#[test]
fn a_failure_shrinks_to_the_faults_that_it_needs() {
    let failing = (1..=5)
        .map(|seed| Case::new(Mix::Swarm, seed).sabotaged(Sabotage::LyingDisks))
        .find_map(|case| shrink::shrink(&case));
    let shrunk = failing.expect("disks that lie are caught");
    println!("{}", shrunk.lines());
    let kept = shrunk.failure.case.only.as_ref().map_or(usize::MAX, |only| only.len());
    assert!(kept < shrunk.before, "{kept} of {} faults", shrunk.before);
    assert!(kept <= 3, "{kept} faults for disks that lie");
    let again = shrunk.failure.case.run().failure.expect("it still fails");
    assert_eq!(again.text, shrunk.failure.text);
}
