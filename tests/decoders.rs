//! Whoever sends bytes, and whatever a disk has made of a file: no decoder panics, and none allocates more than in proportion to what it was
//! given. Good bytes of every kind are changed in ways that hit lengths, numbers and ends, by seed; `SYNCNET_DECODER_RUNS` says how often
//! for each decoder. What a fuzzer has once found is in `tests/fuzz/corpus`, and is tried too.

#[path = "decoders/mod.rs"]
mod decoders;
#[path = "decoders/samples.rs"]
mod samples;

use std::alloc::System;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use decoders::{ALL, Decoder};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use syncnet::rng::Rng;

/// Counts what is allocated in this program.
#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Only one test at a time, so that what is counted is the decoder's.
static ALONE: Mutex<()> = Mutex::new(());

/// How often each decoder is given something, if nobody says otherwise.
const RUNS: u64 = 10_000;

fn corpus(decoder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(decoder)
}

/// The files of a decoder's corpus, by name.
fn corpus_files(decoder: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(corpus(decoder)).unwrap_or_else(|error| panic!("the corpus of {decoder}: {error}"));
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a readable file"))
        })
        .collect();
    files.sort();
    files
}

/// How often something is measured that seems to be too much: another thread of this program may have allocated meanwhile, to print what
/// came of a test before this one.
const TRIES: usize = 5;

/// Gives the bytes to the decoder. `Err` says what was wrong with it.
fn try_often(decoder: &Decoder, bytes: &[u8]) -> Result<(), String> {
    let mut tries = (1..TRIES).map(|_| try_one(decoder, bytes));
    tries.find(Result::is_ok).unwrap_or_else(|| try_one(decoder, bytes))
}

fn try_one(decoder: &Decoder, bytes: &[u8]) -> Result<(), String> {
    let region = Region::new(COUNTED);
    let ended = catch_unwind(AssertUnwindSafe(|| (decoder.run)(bytes)));
    let allocated = region.change().bytes_allocated;
    let allowed = decoder.fixed + decoder.per_byte * bytes.len();
    if ended.is_err() {
        return Err("it panicked".to_owned());
    }
    if allocated > allowed {
        return Err(format!("it allocated {allocated} bytes, {allowed} are allowed"));
    }
    Ok(())
}

/// Fails with the input, so that it can be put into the corpus.
#[track_caller]
fn demand(decoder: &Decoder, what: &str, bytes: &[u8]) {
    if let Err(why) = try_often(decoder, bytes) {
        let hex: String = bytes.iter().take(2048).map(|b| format!("{b:02x}")).collect();
        panic!("{}, {what}: {why}\n{} bytes: {hex}", decoder.name, bytes.len());
    }
}

/// Numbers that are at the edge of something, as fields of any width and as bincode writes them.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7F,
    0xFF,
    0xFFFF,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    0x1_0000_0000,
    1 << 40,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// Changes bytes a little, so that they are nearly good.
fn mutate(rng: &mut Rng, others: &[Vec<u8>], bytes: &mut Vec<u8>) {
    for _ in 0..rng.between(1, 4) {
        let at = rng.below(bytes.len() as u64) as usize;
        let end = at + rng.below((bytes.len() - at).min(64) as u64 + 1) as usize;
        let edge = rng.pick(&EDGES).copied().unwrap_or(0);
        match rng.below(9) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            3 => {
                if let Some(other) = rng.pick(others) {
                    let from = rng.below(other.len() as u64 + 1) as usize;
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
            4 => {
                // A number in the form of bincode: a mark of the width, then the number.
                let width = [1usize, 2, 4, 8][rng.below(4) as usize];
                let mut number = vec![250 + width.trailing_zeros() as u8];
                number.extend_from_slice(&edge.to_le_bytes()[..width]);
                let replaced = end.min(at + rng.below(9) as usize);
                bytes.splice(at..replaced, number);
            }
            5 | 6 => {
                let width = [1usize, 2, 4, 8][rng.below(4) as usize];
                for (place, byte) in bytes.iter_mut().skip(at).zip(&edge.to_le_bytes()[..width]) {
                    *place = *byte;
                }
            }
            7 => (0..rng.below(16)).for_each(|_| bytes.push(rng.below(256) as u8)),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
}

#[test]
fn no_decoder_panics_or_allocates_beyond_its_limit_whatever_it_is_given() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runs = std::env::var("SYNCNET_DECODER_RUNS").map_or(RUNS, |runs| runs.parse().expect("a number"));
    let start = std::env::var("SYNCNET_DECODER_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    for decoder in ALL {
        let good = samples::of(decoder.name);
        for (n, bytes) in good.iter().enumerate() {
            for end in 0..=bytes.len() {
                demand(decoder, &format!("sample {n} cut to {end} bytes"), &bytes[..end]);
            }
        }
        for seed in start..start + runs {
            let mut rng = Rng::new(seed);
            let mut bytes = if rng.chance(5) {
                let length = rng.below(300);
                (0..length).map(|_| rng.below(256) as u8).collect()
            } else {
                rng.pick(&good).cloned().unwrap_or_default()
            };
            mutate(&mut rng, &good, &mut bytes);
            if rng.chance(50) {
                decoders::with_checks(decoder.name, &mut bytes);
            }
            demand(decoder, &format!("seed {seed}"), &bytes);
        }
    }
}

#[test]
fn a_sequence_that_claims_to_be_endless_costs_no_more_than_the_limit() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for decoder in ALL {
        for (n, bytes) in samples::of(decoder.name).iter().enumerate() {
            for at in 0..bytes.len() {
                for claim in [0xFFFF_FFFFu64, 1 << 62] {
                    let mut bytes = bytes[..at].to_vec();
                    bytes.push(253);
                    bytes.extend_from_slice(&claim.to_le_bytes());
                    demand(decoder, &format!("a claim of {claim} at {at} of sample {n}"), &bytes);
                }
            }
        }
    }
}

#[test]
fn what_fuzzers_have_found_stays_harmless() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for decoder in ALL {
        for (name, bytes) in corpus_files(decoder.name) {
            demand(decoder, &name, &bytes);
        }
    }
}

#[test]
fn the_samples_are_good_and_the_corpus_begins_with_them() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let write = std::env::var_os("SYNCNET_WRITE_CORPUS").is_some();
    for decoder in ALL {
        for (n, bytes) in samples::of(decoder.name).into_iter().enumerate() {
            let file = corpus(decoder.name).join(format!("sample-{n}"));
            if write {
                fs::create_dir_all(corpus(decoder.name)).expect("a writable package");
                fs::write(&file, &bytes).expect("a writable package");
            }
            let there = fs::read(&file).unwrap_or_default();
            assert!(there == bytes, "{}: SYNCNET_WRITE_CORPUS=1 writes it", file.display());
            assert!((decoder.run)(&bytes), "{}: sample {n} is not good", decoder.name);
        }
    }
}

#[test]
fn every_decoder_has_a_fuzz_target() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("the package of the fuzz targets");
    let mut targets: Vec<String> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
        .map(str::to_owned)
        .collect();
    let mut names: Vec<&str> = ALL.iter().map(|decoder| decoder.name).collect();
    targets.sort();
    names.sort_unstable();
    assert_eq!(targets, names);
    for name in names {
        let target = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).expect("a fuzz target");
        let call = format!("named(\"{name}\").run");
        assert!(target.contains(&call), "{name}.rs doesn't call its decoder");
        let manifest_name = format!("name = \"{name}\"");
        assert!(
            manifest.contains(&manifest_name),
            "{name} has another name in Cargo.toml"
        );
    }
}
