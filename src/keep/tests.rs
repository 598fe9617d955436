//! What the housekeeper promises: what it makes is proved from the disk, what it removes nobody needs, what is damaged is found, said and made
//! anew, and wherever it ends, what is there opens again.

mod damage;
mod transfer;

use std::collections::BTreeMap;

use super::keeper::{Keeper, Step};
use super::making::load;
use super::open::Opened;
use super::{Holdings, KeepJob, Kept};
use crate::chat::command::{Command, Head, KeyId, Name, Outcome, SecretHash, Stamp};
use crate::chat::{Answer, State, Verdict};
use crate::cluster::chain::chain;
use crate::cluster::message::{CheckpointId, Entry, EntryKind, LogPosition};
use crate::log::checkpoint::{Checkpoints, file_name};
use crate::log::disk::Disk;
use crate::log::reader::Reader;
use crate::log::recovery::Options;
use crate::log::sim_disk::SimDisk;
use crate::log::writer::Log;
use crate::log::{Append, ReadAnswer, ReadFrom, ReadRequest, Record, Recovered};
use crate::rng::Rng;
use crate::types::{
    AppendId, Blob, ClientSeq, DirectoryId, GroupId, Lamport, Level, LogIndex, Lsn, Position, RoomId, Seq, SessionId,
    Term,
};
use crate::wire::command;

const ROOT: GroupId = GroupId::ROOT;
const HERE: DirectoryId = DirectoryId(77);
const THERE: DirectoryId = DirectoryId(78);
const SEGMENT: u64 = 16 * 1024;
const TERM: Term = Term(1);

/// A log with its housekeeper, and the live state of who uses them.
struct House {
    disk: SimDisk,
    directory: DirectoryId,
    log: Log<SimDisk>,
    reader: Reader<SimDisk>,
    keeper: Keeper<SimDisk>,
    recovered: Recovered,
    notes: Vec<String>,
    /// From which the log was applied.
    begun: LogIndex,
    live: State,
    /// The live state's digest after each entry that was applied here.
    digests: BTreeMap<LogIndex, u64>,
    chain: u32,
    appends: u64,
}

fn name(text: &str) -> Name {
    Name::new(text, text)
}

fn try_open(disk: &SimDisk, directory: DirectoryId) -> Result<Opened<SimDisk>, String> {
    let options = Options {
        segment_size: SEGMENT,
        groups: vec![ROOT],
        reached: Lsn(0),
        checkpoint: None,
    };
    Opened::open(disk.clone(), directory, options).map_err(|error| error.to_string())
}

impl House {
    /// An empty log that gets its first entries: members, and somebody who talks.
    fn new(directory: DirectoryId) -> House {
        let mut house = House::open(&SimDisk::new(), directory);
        house.enter(EntryKind::Members, Blob::new(b"members"));
        house.command(&Command::Open {
            name: name("ann"),
            key: KeyId([1; 16]),
            secret: SecretHash([1; 16]),
            lamport: Lamport(0),
        });
        house
    }

    /// With what an empty log, a segment's worth of messages at a time, comes to, and a checkpoint after each.
    fn with_checkpoints(count: usize) -> House {
        let mut house = House::new(HERE);
        for _ in 0..count {
            house.fill_segments(1);
            house.make();
        }
        house
    }

    /// Opens what is there, and applies the log as far as it goes.
    fn open(disk: &SimDisk, directory: DirectoryId) -> House {
        let opened = try_open(disk, directory).unwrap();
        let mut house = House {
            disk: disk.clone(),
            directory,
            log: opened.log,
            reader: opened.reader,
            keeper: opened.keeper,
            begun: opened.state.applied(),
            live: opened.state,
            digests: BTreeMap::new(),
            chain: opened.recovered.last_chain,
            recovered: opened.recovered,
            notes: opened.notes,
            appends: 0,
        };
        while house.live.applied() < house.recovered.last.index {
            let entries = house.entries(house.live.applied().next());
            assert!(
                !entries.is_empty(),
                "entry {} can't be read",
                house.live.applied().next()
            );
            for entry in &entries {
                house.apply(entry);
            }
        }
        house
    }

    /// The process ends, and another begins.
    fn again(self) -> House {
        self.disk.kill();
        House::open(&self.disk, self.directory)
    }

    /// All entries from one on that are read at once.
    fn entries(&mut self, from: LogIndex) -> Vec<Entry> {
        let to = LogIndex(u64::MAX - 1);
        let request = ReadRequest::Entries {
            token: 0,
            group: ROOT,
            from,
            to,
            bytes_max: 1 << 20,
        };
        match self.reader.read(&request).unwrap() {
            ReadAnswer::Entries { entries, .. } => entries,
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self, entry: &Entry) -> Vec<Answer> {
        let mut answers = Vec::new();
        if entry.kind == EntryKind::Command {
            let (stamp, command) = command::open_payload(&entry.payload).unwrap();
            let applied = self.live.apply(entry.index, &stamp, &command);
            let items = applied.items.iter().map(|&(room, position, seq)| crate::log::ItemRef {
                room,
                position,
                seq,
                group: ROOT,
                index: entry.index,
            });
            self.reader.index(&items.collect::<Vec<_>>());
            answers.push(applied.result);
        } else {
            self.live.skip(entry.index);
        }
        self.digests.insert(entry.index, self.live.digest());
        answers
    }

    /// Appends records and makes them durable.
    fn append(&mut self, records: Vec<Record>) {
        self.appends += 1;
        let append = Append {
            id: AppendId(self.appends),
            records,
            commits: vec![(ROOT, self.live.applied())],
            sync: true,
        };
        self.log.append(&append).unwrap();
        self.log.flush().unwrap();
        self.log.sync().unwrap();
    }

    /// The next entry: appended, durable, applied.
    fn enter(&mut self, kind: EntryKind, payload: Blob) {
        let index = self.live.applied().next();
        self.chain = chain(self.chain, TERM, index, kind, &payload);
        let entry = Entry {
            index,
            term: TERM,
            kind,
            payload,
        };
        self.append(vec![Record::Entry {
            group: ROOT,
            entry: entry.clone(),
            chain: self.chain,
        }]);
        for answer in self.apply(&entry) {
            let opened = matches!(answer, Answer::Opened { result: Ok(_), .. });
            let posted = matches!(
                answer,
                Answer::Session {
                    verdict: Verdict::Outcome(Outcome::Posted { .. }),
                    ..
                }
            );
            assert!(opened || posted, "{answer:?}");
        }
    }

    fn command(&mut self, command: &Command) {
        let age_ms = self.live.applied().0 * 10;
        let stamp = Stamp {
            lamport: Lamport(age_ms),
            time_ms: 1_000_000 + age_ms,
            age_ms,
        };
        self.enter(EntryKind::Command, command::payload(&stamp, &command::encode(command)));
    }

    /// A message.
    fn say(&mut self, text: &str) {
        let id = SessionId(2);
        let last = self.live.session(id).unwrap().last;
        let head = Head {
            session: id,
            seq: ClientSeq(last.0 + 1),
            unacknowledged: ClientSeq(last.0 + 1),
            lamport: Lamport(0),
        };
        let (user, text) = ("ann".into(), text.into());
        self.command(&Command::Post {
            head,
            room: RoomId::LOBBY,
            user,
            text,
            dedup: None,
        });
    }

    /// Messages until so many segments more are full.
    fn fill_segments(&mut self, count: u64) {
        let target = self.log.segment().base.0 + count * SEGMENT;
        while self.log.segment().base.0 < target {
            let text = format!("{} {}", self.live.applied().0, "x".repeat(700));
            self.say(&text);
        }
        self.say("one more");
    }

    /// Lets the housekeeper work until it rests. What it said.
    fn work(&mut self) -> Vec<Kept> {
        let mut said = Vec::new();
        for _ in 0..10_000 {
            let step = self.keeper.step().unwrap();
            said.extend(std::iter::from_fn(|| self.keeper.answer()));
            if step != Step::More {
                return said;
            }
        }
        panic!("the housekeeper never rests");
    }

    fn job(&mut self, job: KeepJob) -> Vec<Kept> {
        self.keeper.take(job);
        self.work()
    }

    /// A checkpoint at the last entry. What was said.
    fn try_make(&mut self) -> Vec<Kept> {
        let (index, digest) = (self.live.applied(), self.live.digest());
        self.job(KeepJob::Make { index, digest })
    }

    fn make(&mut self) -> CheckpointId {
        let said = self.try_make();
        let made = said.iter().find_map(|kept| match kept {
            Kept::Made { id } => Some(*id),
            _ => None,
        });
        made.unwrap_or_else(|| panic!("{said:?}"))
    }

    /// The whole history of the lobby from a position on: position, number, entry.
    fn history_from(&mut self, first: u64) -> Result<Vec<(Position, Seq, Entry)>, String> {
        let mut all: Vec<(Position, Seq, Entry)> = Vec::new();
        let mut next = Position(first);
        loop {
            let from = ReadFrom::Position(next);
            let request = ReadRequest::Items {
                token: 0,
                room: RoomId::LOBBY,
                from,
                bytes_max: 5000,
            };
            match self.reader.read(&request).unwrap() {
                ReadAnswer::Items { items, .. } if items.is_empty() => return Ok(all),
                ReadAnswer::Items { items, .. } => {
                    next = Position(items.last().unwrap().0.0 + 1);
                    all.extend(items);
                }
                ReadAnswer::Damaged { what, .. } => return Err(what),
                other => panic!("{other:?}"),
            }
        }
    }

    fn history(&mut self) -> Vec<(Position, Seq, Entry)> {
        self.history_from(1).unwrap()
    }

    fn log_files(&self, suffix: &str) -> Vec<Lsn> {
        let names = self.disk.list("log").unwrap();
        let bases = names.iter().filter_map(|name| name.strip_suffix(suffix)?.parse().ok());
        bases.map(Lsn).collect()
    }

    fn marks(&self) -> Vec<u64> {
        self.keeper.holdings().marks.iter().map(|mark| mark.index.0).collect()
    }

    /// The state in a checkpoint's file.
    fn stored(&self, id: &CheckpointId) -> State {
        let checkpoints = Checkpoints::open(self.disk.clone(), self.directory).unwrap();
        let info = checkpoints.list().iter().find(|info| info.id == *id).unwrap();
        load(&checkpoints, info).unwrap().state
    }
}

fn said_damaged(said: &[Kept]) -> Vec<LogIndex> {
    let damaged = said.iter().filter_map(|kept| match kept {
        Kept::Damaged { holes, .. } => Some(holes.iter().map(|hole| hole.index)),
        _ => None,
    });
    damaged.flatten().collect()
}

fn said_error(said: &[Kept], word: &str) -> bool {
    said.iter()
        .any(|kept| matches!(kept, Kept::Said { level: Level::Error, text } if text.contains(word)))
}

#[test]
fn a_checkpoint_is_made_from_the_disk_and_is_the_live_state() {
    let mut house = House::new(HERE);
    for round in 0..3 {
        house.fill_segments(round);
        let id = house.make();
        assert_eq!((id.at.index, id.at.term), (house.live.applied(), TERM));
        assert_eq!((id.digest, id.chain), (house.live.digest(), house.chain));
        assert_eq!(house.stored(&id), house.live);
    }
    let house = house.again();
    // Nothing was left to apply, and the state is that of the last checkpoint.
    assert_eq!(house.begun, house.recovered.last.index);
}

#[test]
fn a_checkpoint_before_the_last_entry_is_the_state_as_it_was_there() {
    let mut house = House::new(HERE);
    house.fill_segments(2);
    let (index, digest) = house
        .digests
        .iter()
        .nth(20)
        .map(|(&index, &digest)| (index, digest))
        .unwrap();
    assert!(index < house.live.applied() && digest != house.live.digest());
    let said = house.job(KeepJob::Make { index, digest });
    assert!(
        said.iter()
            .any(|kept| matches!(kept, Kept::Made { id } if (id.at.index, id.digest) == (index, digest)))
    );
}

#[test]
fn a_live_state_that_differs_from_the_disk_is_said_and_no_checkpoint_stays() {
    let mut house = House::new(HERE);
    house.fill_segments(1);
    let (index, made) = (house.live.applied(), house.live.digest());
    let live = made ^ 1;
    let said = house.job(KeepJob::Make { index, digest: live });
    assert!(said.contains(&Kept::Differs { index, live, made }), "{said:?}");
    assert!(house.marks().is_empty());
    assert!(house.disk.list("checkpoint").unwrap().is_empty());
    // The next that is right is made.
    house.make();
    assert_eq!(house.marks(), [index.0]);
}

#[test]
fn what_cannot_be_made_is_said() {
    let mut house = House::new(HERE);
    let index = LogIndex(house.live.applied().0 + 5);
    let said = house.job(KeepJob::Make { index, digest: 1 });
    assert!(
        said.iter()
            .any(|kept| matches!(kept, Kept::Unmade { index: at, .. } if *at == index)),
        "{said:?}"
    );
}

#[test]
fn full_segments_get_index_files_and_history_stays_the_same() {
    let mut house = House::new(HERE);
    house.fill_segments(3);
    let before = house.history();
    assert!(house.log_files(".idx").is_empty());
    house.make();
    let full: Vec<Lsn> = house
        .log_files(".seg")
        .into_iter()
        .filter(|&base| base < house.log.segment().base)
        .collect();
    assert_eq!(house.log_files(".idx"), full);
    assert_eq!(house.history(), before);
    // Memory forgets what the files know: only they can say it now.
    let mut house = house.again();
    assert_eq!(house.history(), before);
    house.fill_segments(2);
    let before = house.history();
    house.make();
    assert_eq!(house.log_files(".idx").len(), full.len() + 2);
    assert_eq!(house.history(), before);
    assert_eq!(house.again().history(), before);
}

#[test]
fn trim_removes_what_is_before_the_base_and_nothing_behind_it() {
    let mut house = House::with_checkpoints(5);
    let marks = house.marks();
    assert_eq!(marks.len(), 5);
    let (segments, history) = (house.log_files(".seg"), house.history());
    // Of those at or before it two stay.
    house.job(KeepJob::Trim {
        index: LogIndex(marks[1] - 1),
    });
    assert_eq!(
        (house.marks(), house.log_files(".seg")),
        (marks.clone(), segments.clone())
    );
    let index = LogIndex(marks[3] - 1);
    let said = house.job(KeepJob::Trim { index });
    assert_eq!(house.marks(), marks[1..]);
    assert!(said.contains(&Kept::Holdings(house.keeper.holdings())));
    let base = LogIndex(marks[1]);
    assert!(house.log_files(".seg").len() < segments.len());
    assert!(house.keeper.holdings().first <= base.next());
    assert_eq!(house.log_files(".idx")[0], house.log_files(".seg")[0]);
    let entries = house.entries(base.next());
    assert_eq!(entries.first().map(|entry| entry.index), Some(base.next()));
    // A checkpoint at the very place will do.
    house.job(KeepJob::Trim {
        index: LogIndex(marks[3]),
    });
    assert_eq!(house.marks(), marks[2..]);
    // No checkpoint is so old: whoever got the first one would lack the entries before it, so that nothing goes.
    let left = house.log_files(".seg");
    house.job(KeepJob::Trim {
        index: LogIndex(marks[1]),
    });
    assert_eq!((house.marks(), house.log_files(".seg")), (marks[2..].to_vec(), left));
    let live = house.live.clone();
    let held = house.keeper.holdings().first;
    let kept: Vec<_> = history
        .into_iter()
        .filter(|(_, _, entry)| entry.index >= held)
        .collect();
    assert_eq!(house.history(), kept);
    let mut house = house.again();
    assert_eq!(house.live, live);
    assert_eq!(house.history(), kept);
    // And it goes on.
    house.fill_segments(1);
    house.make();
}

#[test]
fn the_log_never_begins_where_its_last_entry_before_is_void() {
    let mut house = House::with_checkpoints(1);
    house.fill_segments(1);
    // A segment ends with an entry that its leader never committed, and the next leader's takes its place in the next segment.
    let full = house.log.segment().base;
    let (before, chain_before) = (house.live.applied(), house.chain);
    let mut index = before;
    let mut lonely = chain_before;
    while house.log.segment().base == full {
        index = index.next();
        let payload = Blob::new(&[b'x'; 3000]);
        lonely = chain(lonely, TERM, index, EntryKind::Command, &payload);
        let entry = Entry {
            index,
            term: TERM,
            kind: EntryKind::Command,
            payload,
        };
        house.append(vec![Record::Entry {
            group: ROOT,
            entry,
            chain: lonely,
        }]);
    }
    let void = house.log.segment().base;
    house.say("in the place of all these");
    let base = house.make().at.index;
    house.say("and another");
    let index = house.make().at.index;
    house.fill_segments(2);
    house.make();
    house.job(KeepJob::Trim { index });
    assert_eq!(house.marks()[0], base.0);
    assert_eq!(
        house.log_files(".seg")[0],
        full,
        "nothing before is needed, and this can be where the log begins"
    );
    let (live, history) = (house.live.clone(), house.history());
    let mut house = house.again();
    assert_eq!(house.live, live);
    assert_eq!(house.history(), history);

    // Once more is removed, and the process ends when half is done.
    for base in house.log_files(".seg").into_iter().filter(|&base| base < void) {
        house.disk.remove(&crate::log::sealed::file_name(base)).unwrap();
        house.disk.remove(&crate::log::segment::file_name(base)).unwrap();
    }
    for indexed in [true, false] {
        if !indexed {
            house.disk.remove(&crate::log::sealed::file_name(void)).unwrap();
        }
        house = house.again();
        assert_eq!(house.live, live);
        assert!(
            house.keeper.holdings().first > base,
            "the segment that is no beginning is left out"
        );
    }
    house.work();
    assert!(house.log_files(".seg")[0] > void, "and removed");
}

#[test]
fn a_segment_before_the_oldest_checkpoint_goes_though_its_index_file_is_lost() {
    let mut house = House::with_checkpoints(5);
    let marks = house.marks();
    // Nobody needs what is before the third checkpoint, but the segments are still there when the process ends.
    for &older in &marks[..2] {
        house.disk.remove(&file_name(LogIndex(older))).unwrap();
    }
    let oldest = house.log_files(".idx")[0];
    house.disk.remove(&crate::log::sealed::file_name(oldest)).unwrap();
    // As it is when the log begins behind the first entry: there is no other way to make the index files of these segments.
    house = house.again();
    let base = LogIndex(marks[2]);
    house.job(KeepJob::Trim {
        index: LogIndex(marks[3]),
    });
    assert!(house.log_files(".seg")[0] > oldest);
    assert!(house.keeper.holdings().first <= base.next());
    house.fill_segments(1);
    house.make();
    let history = house.history();
    let mut house = house.again();
    assert_eq!(house.history(), history);
}

#[test]
fn any_one_checkpoint_may_be_lost_though_the_log_begins_late() {
    for lost in 0..2 {
        let mut house = House::with_checkpoints(3);
        let marks = house.marks();
        house.job(KeepJob::Trim {
            index: LogIndex(marks[2]),
        });
        assert_eq!(house.marks(), marks[1..]);
        let history = house.history();
        assert!(house.disk.flip_bit(&file_name(LogIndex(marks[1 + lost])), 200, 1));
        // While it runs, and at a start.
        house.fill_segments(1);
        house.make();
        house.say("more");
        let (live, after) = (house.live.clone(), house.history());
        assert_eq!(after[..history.len()], history[..]);
        let mut house = house.again();
        assert_eq!((house.live.clone(), house.history()), (live, after));
    }
}

#[test]
fn some_checkpoints_are_kept_evenly_and_never_without_the_oldest() {
    let mut house = House::new(HERE);
    house.make();
    let oldest = house.marks()[0];
    for _ in 0..30 {
        house.say("hello");
        house.make();
    }
    let marks = house.marks();
    assert_eq!(marks.len(), crate::limits::CHECKPOINTS_KEPT);
    assert_eq!(
        (marks[0], marks.last().copied()),
        (oldest, Some(house.live.applied().0))
    );
}
