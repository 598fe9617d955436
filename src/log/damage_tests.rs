//! Random damage to logs of random lives. Whatever is done to the disk below what was synced: what is found is right, or is named as
//! a hole, or the log isn't trusted at all.

use super::disk::{Disk, DiskFile};
use super::record::{self, Kind, Parsed, ParsedHeader};
use super::recovery::{OpenError, Opened, Options};
use super::segment::{FOLDER, base_of, file_name};
use super::sim_disk::SimDisk;
use super::testing::{Bench, DIRECTORY, Model, ROOT, SEGMENT};
use super::writer::Log;
use super::{Append, HardState, ReadAnswer, ReadRequest, Record, Recovered};
use crate::cluster::message::EntryKind;
use crate::rng::Rng;
use crate::types::{AppendId, LogIndex, Lsn, ServerId, Term};

struct World {
    rng: Rng,
    disk: SimDisk,
    segment_size: u64,
    model: Model,
    commit: LogIndex,
    /// Whether damage behind the last seal is damage, too.
    reached: Lsn,
    appends: u64,
}

#[derive(Debug, Default)]
struct Counts {
    opened: u64,
    holes: u64,
    untrusted: u64,
    filled: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        World {
            segment_size: 4096 * rng.between(2, 4),
            rng,
            disk: SimDisk::new(),
            model: Model::default(),
            commit: LogIndex(0),
            reached: Lsn(0),
            appends: 0,
        }
    }

    fn open(&self) -> Result<Opened<SimDisk>, OpenError> {
        let options = Options {
            segment_size: self.segment_size,
            groups: vec![ROOT],
            reached: self.reached,
            checkpoint: None,
        };
        Log::open(self.disk.clone(), DIRECTORY, &options)
    }

    /// Appends a little that doesn't touch what is committed, and makes it durable.
    fn write(&mut self, log: &mut Log<SimDisk>) {
        let mut records = Vec::new();
        for _ in 0..self.rng.between(1, 4) {
            let model = &mut self.model;
            let last = model.last();
            if self.rng.chance(20) {
                let state = HardState {
                    term: Term(model.state.term.0 + 1),
                    vote: ServerId::new("server1").map(|server| (server, DIRECTORY)),
                    commit: LogIndex(0),
                };
                let record = Record::State { group: ROOT, state };
                model.apply(&record);
                records.push(record);
                continue;
            }
            let voiding = last > self.commit.0 && self.rng.chance(15);
            let index = if voiding {
                self.rng.between(self.commit.0 + 1, last)
            } else {
                last + 1
            };
            let term = Term(model.term.0.max(1) + u64::from(voiding || self.rng.chance(5)));
            let kind = match (index, self.rng.below(20)) {
                (1, _) | (_, 0) => EntryKind::Members,
                _ => EntryKind::Command,
            };
            let payload: Vec<u8> = (0..self.rng.below(300)).map(|i| (i + index + term.0) as u8).collect();
            records.push(model.entry(LogIndex(index), term, kind, &payload));
        }
        if self.rng.chance(30) {
            let last = self.model.last();
            self.commit = LogIndex(self.rng.between(self.commit.0.min(last), last)).max(self.commit);
        }
        self.hand_over(log, records);
        if self.rng.chance(10) {
            log.seal().unwrap();
        }
    }

    fn hand_over(&mut self, log: &mut Log<SimDisk>, records: Vec<Record>) {
        self.appends += 1;
        let append = Append {
            id: AppendId(self.appends),
            records,
            commits: vec![(ROOT, self.commit)],
            sync: true,
        };
        log.append(&append).unwrap();
        log.flush().unwrap();
        log.sync().unwrap();
    }

    fn bases(&self) -> Vec<Lsn> {
        let names = self.disk.list(FOLDER).unwrap();
        names.iter().filter_map(|name| base_of(name)).collect()
    }

    /// All that is proved to have been synced: (segment, bytes).
    fn proved(&self) -> Vec<(Lsn, u64)> {
        let (mut synced, mut ends) = (self.reached, Vec::new());
        for base in self.bases() {
            let bytes = self.disk.contents(&file_name(base)).unwrap();
            let mut at = 0;
            loop {
                let lsn = Lsn(base.0 + at as u64);
                match record::parse(&bytes[at.min(bytes.len())..], lsn, DIRECTORY) {
                    Parsed::Record(header, _, size) | Parsed::BadBody(header, size) => {
                        synced = synced.max(header.synced);
                        at += size;
                    }
                    // Damage from before.
                    Parsed::BadHeader | Parsed::Unknown | Parsed::Short(_) => at += 8,
                    Parsed::Nothing => {
                        let good = |at: &usize| {
                            let lsn = Lsn(base.0 + *at as u64);
                            matches!(
                                record::parse_header(&bytes[*at..], lsn, DIRECTORY),
                                ParsedHeader::Good(..)
                            )
                        };
                        match (at..bytes.len()).step_by(8).find(good) {
                            Some(next) => at = next,
                            None => break,
                        }
                    }
                }
            }
            ends.push((base, at as u64));
        }
        ends.retain_mut(|(base, end)| {
            *end = (*end).min(synced.0.saturating_sub(base.0));
            *end > 0
        });
        ends
    }

    fn damage(&mut self) {
        let places = self.proved();
        let flip = |world: &mut World| {
            let (base, end) = places[world.rng.below(places.len() as u64) as usize];
            let (at, bit) = (world.rng.below(end), world.rng.below(8) as u32);
            assert!(world.disk.flip_bit(&file_name(base), at, bit));
        };
        match self.rng.below(10) {
            0..=4 => flip(self),
            5 | 6 => {
                flip(self);
                flip(self);
            }
            7 | 8 => {
                let (base, end) = places[self.rng.below(places.len() as u64) as usize];
                let page = self.rng.below(end) / 4096 * 4096;
                let length = 4096.min(end - page);
                let file = self.disk.open(&file_name(base)).unwrap();
                file.write_at(&vec![0; length as usize], page).unwrap();
                file.sync_data().unwrap();
            }
            _ => {
                let (base, _) = places[self.rng.below(places.len() as u64) as usize];
                if self.bases().last() != Some(&base) {
                    self.disk.remove(&file_name(base)).unwrap();
                    self.disk.sync_dir(FOLDER).unwrap();
                }
            }
        }
    }

    /// What was found is right as far as it is said to be.
    fn check(&mut self, opened: &mut Opened<SimDisk>) -> Recovered {
        let found = opened.groups[0].1.clone();
        let truth = self.model.recovered(LogIndex(0));
        assert_eq!(
            (found.state.term, found.state.vote),
            (truth.state.term, truth.state.vote)
        );
        assert_eq!(found.last, truth.last);
        assert!(found.last_chain == 0 || found.last_chain == truth.last_chain);
        assert!(found.state.commit <= self.commit);
        assert_eq!(opened.report.cut_bytes, 0);
        let is_hole = |index: LogIndex| found.holes.iter().any(|hole| hole.index == index);
        for entry in &self.model.entries {
            let request = ReadRequest::Entries {
                token: 1,
                group: ROOT,
                from: entry.index,
                to: entry.index,
                bytes_max: 5000,
            };
            let read = match opened.reader.read(&request).unwrap_or_else(|error| panic!("{error}")) {
                ReadAnswer::Entries { mut entries, .. } => entries.pop(),
                _ => None,
            };
            if is_hole(entry.index) {
                assert_eq!(read, None, "a hole isn't served");
                continue;
            }
            assert_eq!(read.as_ref(), Some(entry));
            let run = found.terms.partition_point(|&(first, _)| first <= entry.index);
            assert_eq!(found.terms[run - 1].1, entry.term, "of {}", entry.index);
        }
        for hole in &found.holes {
            let entry = self.model.get(hole.index).expect("a hole is within the log");
            assert!(hole.term.is_none_or(|term| term == entry.term));
        }
        for members in &found.members {
            assert_eq!(self.model.get(members.index), Some(members));
        }
        found
    }

    fn life(&mut self, counts: &mut Counts) {
        let mut opened = self.open().unwrap();
        for _ in 0..self.rng.between(5, 60) {
            self.write(&mut opened.log);
        }
        for _ in 0..4 {
            if self.rng.chance(60) {
                opened.log.close().unwrap();
            }
            if self.rng.chance(30) {
                self.reached = opened.log.end();
            }
            drop(opened);
            self.disk.kill();
            if !self.proved().is_empty() {
                self.damage();
            }
            let before = self.disk.copy();
            opened = match self.open() {
                Ok(opened) => opened,
                Err(OpenError::Untrusted { .. }) => {
                    for base in self.bases() {
                        let name = file_name(base);
                        assert_eq!(before.contents(&name), self.disk.contents(&name), "nothing is changed");
                    }
                    counts.untrusted += 1;
                    return;
                }
                Err(error) => panic!("{error}"),
            };
            counts.opened += 1;
            let found = self.check(&mut opened);
            self.commit = self.commit.max(found.state.commit);
            counts.holes += found.holes.len() as u64;
            // Twice the same; then others give what is missing, or some of it.
            drop(opened);
            opened = self.open().unwrap();
            assert_eq!(self.check(&mut opened), found);
            for hole in &found.holes {
                if self.rng.chance(80) {
                    let fill = self.model.fill(hole.index);
                    self.hand_over(&mut opened.log, vec![fill]);
                    counts.filled += 1;
                }
            }
            for _ in 0..self.rng.below(6) {
                self.write(&mut opened.log);
            }
            drop(opened);
            opened = self.open().unwrap();
            self.check(&mut opened);
        }
    }
}

#[test]
fn what_damage_leaves_is_right_or_a_hole_or_not_trusted() {
    let mut counts = Counts::default();
    let seeds = std::env::var("SYNCNET_DAMAGE_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    for seed in 0..seeds.unwrap_or(2000) {
        let mut of_this = Counts::default();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| World::new(seed).life(&mut of_this)));
        assert!(outcome.is_ok(), "with seed {seed}");
        counts.opened += of_this.opened;
        counts.holes += of_this.holes;
        counts.untrusted += of_this.untrusted;
        counts.filled += of_this.filled;
    }
    println!("{counts:?}");
    // So that it is known that both happen, and that most damage can be repaired.
    assert!(
        counts.opened > 3 * counts.untrusted && counts.untrusted > 20,
        "{counts:?}"
    );
    assert!(counts.holes > counts.opened && counts.filled > 500, "{counts:?}");
}

#[test]
fn a_filled_entry_takes_the_place_of_its_hole_alone() {
    let mut world = World::new(3);
    let mut opened = world.open().unwrap();
    let mut records = vec![world.model.entry(LogIndex(1), Term(1), EntryKind::Members, b"members")];
    records.extend((0..9).map(|at| world.model.say(format!("text {at}").as_bytes())));
    world.hand_over(&mut opened.log, records);
    opened.log.close().unwrap();
    let lsn = opened.log.index().read().find(ROOT, LogIndex(5)).unwrap();
    drop(opened);
    world.disk.flip_bit(&file_name(Lsn(0)), lsn.0 + 66, 1);
    let mut opened = world.open().unwrap();
    let found = world.check(&mut opened);
    assert_eq!(found.holes.len(), 1);
    assert_eq!(
        (found.holes[0].index, found.holes[0].term),
        (LogIndex(5), Some(Term(1)))
    );
    let fill = world.model.fill(LogIndex(5));
    world.hand_over(&mut opened.log, vec![fill]);
    let found = world.check(&mut world.open().unwrap());
    assert_eq!(found, world.model.recovered(LogIndex(0)));
    // A later entry at or below makes it void like any other.
    let mut opened = world.open().unwrap();
    let other = world.model.entry(LogIndex(4), Term(2), EntryKind::Command, b"other");
    world.hand_over(&mut opened.log, vec![other]);
    let found = world.check(&mut world.open().unwrap());
    assert_eq!((found.last.index, found.holes.len()), (LogIndex(4), 0));
    // Damaged, a fill is a hole again.
    let mut opened = world.open().unwrap();
    let fill = world.model.fill(LogIndex(2));
    world.hand_over(&mut opened.log, vec![fill]);
    opened.log.close().unwrap();
    let lsn = opened.log.index().read().find(ROOT, LogIndex(2)).unwrap();
    let bytes = world.disk.contents(&file_name(Lsn(0))).unwrap();
    let parsed = record::parse(&bytes[lsn.0 as usize..], lsn, DIRECTORY);
    assert!(matches!(parsed, Parsed::Record(header, ..) if header.kind == Kind::Fill));
    world.disk.flip_bit(&file_name(Lsn(0)), lsn.0 + 66, 1);
    let found = world.check(&mut world.open().unwrap());
    assert_eq!(found.holes.len(), 1);
    assert_eq!(found.holes[0].index, LogIndex(2));
}

#[test]
fn an_entry_whose_check_was_not_known_is_no_damage() {
    let mut bench = Bench::new();
    bench.say(&["one", "two", "three"]);
    // Two entries that were written without knowing the check, and one after the leader had told it.
    let unknown = [4, 5].map(|index| {
        let record = bench
            .model
            .entry(LogIndex(index), Term(3), EntryKind::Command, b"unknown");
        let Record::Entry { group, entry, .. } = record else {
            panic!("an entry was made")
        };
        Record::Entry { group, entry, chain: 0 }
    });
    let known = bench.model.entry(LogIndex(6), Term(3), EntryKind::Command, b"known");
    bench.append([&unknown[..], &[known]].concat(), 0);
    bench.log.flush().unwrap();
    bench.log.sync().unwrap();
    let mut bench = bench.again();
    assert_eq!(bench.texts(), ["one", "two", "three", "unknown", "unknown", "known"]);
    bench.say(&["seven"]);
    // A segment that begins while the check isn't known.
    let long = "y".repeat(SEGMENT as usize / 3);
    for index in 8..=11 {
        let record = bench
            .model
            .entry(LogIndex(index), Term(4), EntryKind::Command, long.as_bytes());
        let Record::Entry { group, entry, .. } = record else {
            panic!("an entry was made")
        };
        bench.append(vec![Record::Entry { group, entry, chain: 0 }], 0);
    }
    bench.log.flush().unwrap();
    bench.log.sync().unwrap();
    assert!(bench.log.segment().base > Lsn(0));
    assert_eq!(bench.again().found.last.index, LogIndex(11));
}
