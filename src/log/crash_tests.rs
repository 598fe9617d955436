//! Random lives of a log on a disk that fails as disks do: whatever end each life has, the next one finds what was durable,
//! nothing that wasn't written, and keeps what it has found.

use super::segment::FOLDER;
use super::sim_disk::SimDisk;
use super::testing::{DIRECTORY, Model, ROOT, read_from};
use super::writer::Log;
use super::{Append, HardState, Record, Recovered};
use crate::cluster::message::{Entry, EntryKind, LogPosition};
use crate::log::disk::Disk;
use crate::log::recovery::{OpenError, Opened, Options};
use crate::log::remove::remove_segments;
use crate::rng::Rng;
use crate::types::{AppendId, Blob, LogIndex, Lsn, ServerId, Term};

/// What was handed to the log, and how much of it must survive.
struct World {
    rng: Rng,
    disk: SimDisk,
    segment_size: u64,
    history: Vec<Record>,
    /// What the history comes to.
    model: Model,
    /// So many of the history must survive.
    durable: usize,
    /// The highest commit position handed over.
    commit: LogIndex,
    /// The commit position that must survive, as far as entries are left.
    commit_durable: LogIndex,
    /// The position behind which the log begins, for certain.
    base_lsn: Lsn,
    /// The last checkpoint that is durable.
    checkpoint: Option<LogPosition>,
    appends: u64,
    cuts: u32,
    begun: u32,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        World {
            disk: SimDisk::new(),
            segment_size: 4096 * rng.between(2, 10),
            rng,
            history: Vec::new(),
            model: Model::default(),
            durable: 0,
            commit: LogIndex(0),
            commit_durable: LogIndex(0),
            base_lsn: Lsn(0),
            checkpoint: None,
            appends: 0,
            cuts: 0,
            begun: 0,
        }
    }

    fn open(&self) -> Result<Opened<SimDisk>, OpenError> {
        let options = Options {
            segment_size: self.segment_size,
            groups: vec![ROOT],
            reached: crate::types::Lsn(0),
            checkpoint: self.checkpoint,
        };
        Log::open(self.disk.clone(), DIRECTORY, &options)
    }

    /// One life of the log: opened, checked, written to, ended.
    fn life(&mut self) {
        if self.rng.chance(30) {
            // Ended while it is opened, perhaps.
            self.disk.stop_after(self.rng.below(12));
            if let Ok(opened) = self.open() {
                drop(opened);
            }
            self.end();
        }
        if self.rng.chance(10) {
            self.disk.fail_syncs(1);
            drop(self.open());
            self.end();
        }
        let mut opened = self.open().unwrap_or_else(|error| panic!("{error}"));
        self.check(&mut opened);
        if self.rng.chance(20) {
            drop(opened);
            let before = files(&self.disk);
            let again = self.open().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(
                before,
                files(&self.disk),
                "opening twice changes nothing the second time"
            );
            assert_eq!(again.report.cut_bytes, 0);
            opened = again;
            self.check(&mut opened);
        }
        if self.rng.chance(50) {
            self.disk.stop_after(self.rng.below(150));
        } else if self.rng.chance(20) {
            self.disk.fail_syncs(1);
        }
        let mut log = opened.log;
        for _ in 0..self.rng.below(40) {
            if self.act(&mut log).is_err() {
                assert!(log.flush().is_err(), "nothing is taken after an error");
                break;
            }
        }
        self.end();
    }

    fn end(&mut self) {
        self.disk.kill();
        if self.rng.chance(60) {
            self.disk.power_cut(&mut self.rng);
        }
    }

    fn act(&mut self, log: &mut Log<SimDisk>) -> std::io::Result<()> {
        match self.rng.below(10) {
            0 => log
                .seal()
                .inspect(|()| self.commit_durable = self.commit_durable.max(LogIndex(0))),
            1 => {
                let prewriter = log.prewriter();
                // That may fail without harm.
                let _ = prewriter.step();
                Ok(())
            }
            2 if self.rng.chance(30) => self.begin_anew(log),
            3 => {
                // What stands before the beginning is of no use any more. That may fail without harm.
                let _ = remove_segments(&self.disk, &log.index(), self.base_lsn);
                Ok(())
            }
            _ => {
                let length = self.rng.between(1, 4);
                for _ in 0..length {
                    let append = self.make_append();
                    self.history.extend(append.records.iter().cloned());
                    log.append(&append)?;
                }
                let (written, commit) = (self.history.len(), self.commit);
                log.flush()?;
                if self.rng.chance(80) {
                    assert_eq!(log.sync()?, Some(AppendId(self.appends)));
                    (self.durable, self.commit_durable) = (written, commit);
                }
                Ok(())
            }
        }
    }

    /// A checkpoint from elsewhere takes the place of the log, with what comes before and after it in the same append.
    fn begin_anew(&mut self, log: &mut Log<SimDisk>) -> std::io::Result<()> {
        let mut append = self.make_append();
        let at = LogPosition {
            term: self.model.term.max(Term(1)),
            index: LogIndex(self.rng.between(self.commit.0, self.model.last() + 5).max(1)),
        };
        self.checkpoint = Some(at);
        let members = Entry {
            index: LogIndex(1),
            term: Term(1),
            kind: EntryKind::Members,
            payload: Blob::new(b"members of the checkpoint"),
        };
        append.records.push(Record::Base {
            group: ROOT,
            at,
            chain: self.rng.below(1 << 30) as u32 + 1,
            members,
        });
        self.model.apply(&append.records[append.records.len() - 1]);
        append.records.push(self.model.say(b"after it"));
        self.commit = self.commit.max(at.index);
        self.history.extend(append.records.iter().cloned());
        log.append(&append)?;
        let (written, commit) = (self.history.len(), self.commit);
        log.flush()?;
        let base = log.segment().base;
        log.sync()?;
        (self.durable, self.commit_durable, self.base_lsn) = (written, commit, base);
        self.begun += 1;
        Ok(())
    }

    fn make_append(&mut self) -> Append {
        let model = &mut self.model;
        let mut records = Vec::new();
        for _ in 0..self.rng.between(1, 5) {
            let last = model.last();
            if !model.entries.is_empty() && self.rng.chance(5) {
                let index = self.rng.between(model.base.index.0 + 1, last);
                records.push(model.fill(LogIndex(index)));
                continue;
            }
            if self.rng.chance(15) {
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
            let voiding = last > self.commit.0 && self.rng.chance(10);
            let index = if voiding {
                self.rng.between(self.commit.0 + 1, last)
            } else {
                last + 1
            };
            let term = Term(model.term.0.max(1) + u64::from(voiding));
            let kind = match (index, self.rng.below(20)) {
                (1, _) | (_, 0) => EntryKind::Members,
                (_, 1) => EntryKind::Noop,
                _ => EntryKind::Command,
            };
            let long = if self.rng.chance(5) { 3000 } else { 300 };
            let payload: Vec<u8> = (0..self.rng.below(long)).map(|i| (i + index) as u8).collect();
            records.push(model.entry(LogIndex(index), term, kind, &payload));
        }
        if self.rng.chance(40) {
            let last = model.last();
            self.commit = LogIndex(self.rng.between(self.commit.0.min(last), last)).max(self.commit);
        }
        self.appends += 1;
        Append {
            id: AppendId(self.appends),
            records,
            commits: vec![(ROOT, self.commit)],
            sync: true,
        }
    }

    /// What was found is what some beginning of the history comes to, and all that was durable is in it.
    fn check(&mut self, opened: &mut Opened<SimDisk>) {
        let found = &opened.groups[0].1;
        self.cuts += u32::from(opened.report.cut_bytes > 0);
        let commit = found.state.commit;
        let same = |records: &[Record]| Model::of(records).recovered(commit) == *found;
        let kept = (self.durable..=self.history.len())
            .rev()
            .find(|&n| same(&self.history[..n]));
        let Some(kept) = kept else {
            panic!("found {found:?}, durable was {:?}", self.durable_state());
        };
        self.history.truncate(kept);
        self.model = Model::of(&self.history);
        let from = self.model.base.index.next();
        assert_eq!(read_from(&mut opened.reader, from), self.model.entries);
        assert_eq!(opened.report.damages, 0);
        let least = self.commit_durable.min(found.last.index);
        assert!(
            least <= commit && commit <= self.commit,
            "{least} <= {commit} <= {}",
            self.commit
        );
        // All of it is durable from here on.
        self.durable = kept;
        (self.commit, self.commit_durable) = (commit, commit);
        self.appends = 0;
    }

    fn durable_state(&self) -> Recovered {
        Model::of(&self.history[..self.durable]).recovered(LogIndex(0))
    }
}

fn files(disk: &SimDisk) -> Vec<(String, Option<Vec<u8>>)> {
    let names = disk.list(FOLDER).unwrap();
    let contents = names.into_iter().map(|name| {
        let bytes = disk.contents(&format!("{FOLDER}/{name}"));
        (name, bytes)
    });
    contents.collect()
}

#[test]
fn what_was_durable_survives_every_end() {
    let (mut cuts, mut records, mut begun) = (0, 0, 0);
    for seed in 0..300 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..12 {
                world.life();
            }
            (world.cuts, world.history.len(), world.begun)
        });
        let Ok((cut, length, beginnings)) = outcome else {
            panic!("with seed {seed}");
        };
        cuts += cut;
        records += length;
        begun += beginnings;
    }
    // So that it is known that the disks did fail.
    assert!(cuts > 200, "{cuts} torn ends");
    assert!(records > 20_000, "{records} records");
    assert!(begun > 200, "{begun} new beginnings");
}
