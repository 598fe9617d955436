//! What the housekeeper promises: what it makes is proved from the disk, what it removes nobody needs, what is damaged is found, said and made
//! anew, and wherever it ends, what is there opens again.

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
    Name {
        shown: text.to_owned(),
        folded: text.to_owned(),
    }
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
        let (user, text) = ("ann".to_owned(), text.to_owned());
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
fn trim_removes_what_is_before_the_base_and_nothing_that_a_majority_has_not_agreed_on() {
    let mut house = House::with_checkpoints(5);
    let marks = house.marks();
    assert_eq!(marks.len(), 5);
    let (segments, history) = (house.log_files(".seg"), house.history());
    // As far as it is agreed on, and not further.
    let (index, agreed) = (LogIndex(marks[3]), LogIndex(marks[2] - 1));
    let said = house.job(KeepJob::Trim { index, agreed });
    assert_eq!(house.marks(), marks[1..]);
    assert!(said.contains(&Kept::Holdings(house.keeper.holdings())));
    let base = LogIndex(marks[1]);
    assert!(house.log_files(".seg").len() < segments.len());
    assert!(house.keeper.holdings().first <= base.next());
    assert_eq!(house.log_files(".idx")[0], house.log_files(".seg")[0]);
    let entries = house.entries(base.next());
    assert_eq!(entries.first().map(|entry| entry.index), Some(base.next()));
    // Not further than is asked for, whatever is agreed on.
    house.job(KeepJob::Trim {
        index: LogIndex(marks[2]),
        agreed: LogIndex(u64::MAX),
    });
    assert_eq!(house.marks(), marks[2..]);
    // Nothing at or before the oldest: nothing happens.
    let left = house.log_files(".seg");
    house.job(KeepJob::Trim {
        index: LogIndex(marks[2] - 1),
        agreed: LogIndex(u64::MAX),
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

#[test]
fn a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_is_used() {
    let house = House::with_checkpoints(3);
    let marks = house.marks();
    let newest = file_name(LogIndex(marks[2]));
    let size = house.disk.contents(&newest).unwrap().len() as u64;
    let live = house.live.clone();
    house.disk.kill();
    for offset in [0, 13, 40, 130, size / 2, size - 1] {
        let disk = house.disk.copy();
        assert!(disk.flip_bit(&newest, offset, 3));
        let mut house = House::open(&disk, HERE);
        assert_eq!(house.notes.len(), 1, "{offset}: {:?}", house.notes);
        assert!(house.notes[0].contains(&newest), "{:?}", house.notes);
        assert_eq!(house.begun, LogIndex(marks[1]), "{offset}");
        assert_eq!((house.live.clone(), house.marks()), (live.clone(), marks[..2].to_vec()));
        house.make();
        assert_eq!(house.marks(), marks);
    }
}

#[test]
fn a_checkpoint_that_is_damaged_while_it_is_needed_is_set_aside_and_the_one_before_is_used() {
    let mut house = House::with_checkpoints(3);
    let marks = house.marks();
    assert!(house.disk.flip_bit(&file_name(LogIndex(marks[2])), 150, 0));
    house.say("after it");
    let said = house.try_make();
    assert!(said_error(&said, "ckpt"), "{said:?}");
    assert!(said.iter().any(|kept| matches!(kept, Kept::Made { .. })), "{said:?}");
    assert_eq!(house.marks(), [marks[0], marks[1], house.live.applied().0]);
}

#[test]
fn an_index_file_that_is_lost_or_damaged_is_made_anew_from_the_segment() {
    let mut house = House::with_checkpoints(4);
    let (history, live) = (house.history(), house.live.clone());
    let indexes = house.log_files(".idx");
    assert!(indexes.len() >= 4);
    let entries = house.entries(LogIndex(1)).len();
    house.disk.kill();
    for which in 0..indexes.len() {
        let file = format!("log/{:020}.idx", indexes[which].0);
        let size = house.disk.contents(&file).unwrap().len() as u64;
        for damage in [None, Some(0), Some(20), Some(size / 2), Some(size - 1)] {
            let disk = house.disk.copy();
            match damage {
                None => disk.remove(&file).unwrap(),
                Some(offset) => assert!(disk.flip_bit(&file, offset, 1)),
            }
            let what = format!("{file} {damage:?}");
            let mut other = House::open(&disk, HERE);
            assert_eq!(other.live, live, "{what}");
            // Read before: what is found to be lost is made anew; either way it is found in the end.
            let _ = other.history_from(1);
            for _ in 0..indexes.len() + other.marks().len() + 3 {
                other.work();
            }
            other.say("so that there is something new");
            other.make();
            assert_eq!(other.log_files(".idx"), indexes, "{what}");
            let found = other.history();
            assert_eq!(found[..history.len()], history, "{what}");
            let mut other = other.again();
            assert_eq!(other.history(), found, "{what}");
            assert_eq!(other.entries(LogIndex(1)).len(), entries + 1, "{what}");
            other.work();
            assert!(
                crate::log::sealed::SealedFile::open(&disk, HERE, segment(indexes[which]))
                    .unwrap()
                    .verify()
                    .is_ok()
            );
        }
    }
}

fn segment(base: Lsn) -> crate::log::segment::Segment {
    crate::log::segment::Segment { base, size: SEGMENT }
}

/// Hands a checkpoint of one over to another, in pieces of so many bytes. What the other said last.
fn hand_over(from: &mut House, to: &mut House, piece_bytes: usize, wanted: Option<CheckpointId>) -> Kept {
    let (mut id, mut offset) = (wanted, 0);
    for token in 0..10_000 {
        let said = from.job(KeepJob::Read { token, id, offset });
        let piece = said.into_iter().find_map(|kept| match kept {
            Kept::Piece { token: of, piece } if of == token => Some(piece),
            _ => None,
        });
        let (of, at, bytes) = piece.flatten().expect("a piece");
        assert!(id.is_none_or(|id| id == of) && at == offset);
        id = Some(of);
        let bytes = Blob::new(&bytes[..bytes.len().min(piece_bytes)]);
        let said = to.job(KeepJob::Store { id: of, offset, bytes });
        let last = said
            .into_iter()
            .find(|kept| matches!(kept, Kept::Stored { .. } | Kept::Installed { .. }));
        match last.expect("an answer") {
            Kept::Stored { id, next } if id == of && next > offset => offset = next,
            other => return other,
        }
    }
    panic!("it has no end");
}

#[test]
fn a_checkpoint_that_is_handed_over_in_pieces_is_the_same_state_elsewhere() {
    let mut from = House::with_checkpoints(3);
    let mut to = House::new(THERE);
    // The oldest, if none is named.
    let oldest = from.marks()[0];
    let Kept::Installed { id, members, state } = hand_over(&mut from, &mut to, 100, None) else {
        panic!("it isn't there");
    };
    assert_eq!((id.at.index.0, &*members.payload), (oldest, &b"members"[..]));
    assert_eq!((state.digest(), *state), (from.digests[&id.at.index], from.stored(&id)));
    // The log begins behind it.
    to.append(vec![Record::Base {
        group: ROOT,
        at: id.at,
        chain: id.chain,
        members,
    }]);
    to.job(KeepJob::Begun {
        index: id.at.index,
        taken: true,
    });
    assert_eq!(to.marks(), [oldest]);
    (to.live, to.chain) = (from.stored(&id), id.chain);
    let ends: Vec<_> = to.live.room_ends().collect();
    to.reader.seed(ends, &[]);
    let after = from.entries(id.at.index.next());
    for entry in &after {
        to.enter(entry.kind, entry.payload.clone());
    }
    assert_eq!(to.live, from.live);
    assert_eq!(to.chain, from.chain);
    to.make();
    let mut to = to.again();
    assert_eq!((to.live.clone(), to.recovered.base), (from.live.clone(), id.at));
    let held: Vec<_> = from
        .history()
        .into_iter()
        .filter(|(_, _, entry)| entry.index > id.at.index)
        .collect();
    assert_eq!(to.history(), held);
    // And what was made elsewhere is the same, byte for byte.
    let Kept::Installed { state, .. } = hand_over(&mut to, &mut House::new(HERE), usize::MAX, None) else {
        panic!("it isn't there");
    };
    assert_eq!(state.digest(), id.digest);
}

#[test]
fn a_piece_that_came_garbled_is_asked_for_again_and_nothing_is_installed() {
    let mut from = House::with_checkpoints(1);
    let mut to = House::new(THERE);
    let id = from.make();
    let said = from.job(KeepJob::Read {
        token: 1,
        id: Some(id),
        offset: 0,
    });
    let mut bytes = said
        .into_iter()
        .find_map(|kept| match kept {
            Kept::Piece { piece, .. } => piece.map(|(_, _, bytes)| bytes.to_vec()),
            _ => None,
        })
        .unwrap();
    bytes[90] ^= 4;
    let said = to.job(KeepJob::Store {
        id,
        offset: 0,
        bytes: Blob::new(&bytes),
    });
    assert!(said.contains(&Kept::Stored { id, next: 0 }), "{said:?}");
    assert!(to.marks().is_empty());
    assert!(matches!(
        hand_over(&mut from, &mut to, 1 << 20, Some(id)),
        Kept::Installed { .. }
    ));
}

#[test]
fn no_piece_is_handed_out_of_a_checkpoint_that_is_not_there_or_damaged() {
    let mut house = House::with_checkpoints(2);
    let id = house.make();
    let other = CheckpointId {
        digest: id.digest ^ 1,
        ..id
    };
    let none = Kept::Piece { token: 7, piece: None };
    assert!(
        house
            .job(KeepJob::Read {
                token: 7,
                id: Some(other),
                offset: 0
            })
            .contains(&none)
    );
    assert!(house.disk.flip_bit(&file_name(id.at.index), 150, 1));
    let said = house.job(KeepJob::Read {
        token: 7,
        id: Some(id),
        offset: 0,
    });
    assert!(said.contains(&none) && said_error(&said, "ckpt"), "{said:?}");
    assert!(!house.marks().contains(&id.at.index.0));
}

#[test]
fn an_end_anywhere_while_a_checkpoint_is_taken_over_leaves_the_old_log_or_the_new_beginning() {
    let mut from = House::with_checkpoints(2);
    let id = from.make();
    let said = from.job(KeepJob::Read {
        token: 1,
        id: Some(id),
        offset: 0,
    });
    let piece = said.into_iter().find_map(|kept| match kept {
        Kept::Piece { piece, .. } => piece.map(|(_, _, bytes)| bytes),
        _ => None,
    });
    let bytes = piece.unwrap();
    assert_eq!(bytes.len() as u64, id.bytes, "one piece is enough here");
    let mut to = House::new(THERE);
    to.say("what the old log has");
    to.make();
    to.log.close().unwrap();
    let old = to.live.clone();
    let (mut olds, mut news, mut done) = (0, 0, false);
    for changes in 0.. {
        if done {
            break;
        }
        for power in [false, true] {
            let disk = to.disk.copy();
            let mut house = House::open(&disk, THERE);
            disk.stop_after(changes);
            done = take_over(&mut house, id, &bytes);
            if power {
                disk.power_cut(&mut Rng::new(changes));
            }
            disk.kill();
            let after = House::open(&disk, THERE);
            if after.recovered.base.index == id.at.index {
                assert_eq!(after.live, from.live, "{changes}");
                assert_eq!((after.recovered.last, after.recovered.last_chain), (id.at, id.chain));
                assert_eq!(after.marks(), [id.at.index.0], "{changes}");
                news += 1;
            } else {
                assert_eq!(
                    (after.recovered.base, &after.live),
                    (LogPosition::default(), &old),
                    "{changes}"
                );
                olds += 1;
            }
            // Both can go on, and open once more.
            let mut after = after;
            after.say("more");
            let live = after.live.clone();
            after.make();
            assert_eq!(after.again().live, live);
        }
    }
    assert!(olds > 5 && news > 5, "{olds} {news}");
}

/// Stores a checkpoint and begins the log behind it, as far as the disk lets it. Whether it came to the end.
fn take_over(house: &mut House, id: CheckpointId, bytes: &Blob) -> bool {
    house.keeper.take(KeepJob::Store {
        id,
        offset: 0,
        bytes: bytes.clone(),
    });
    let mut members = None;
    while let Ok(Step::More) = house.keeper.step() {
        while let Some(kept) = house.keeper.answer() {
            if let Kept::Installed { members: found, .. } = kept {
                members = Some(found);
            }
        }
    }
    let Some(members) = members else { return false };
    let records = vec![Record::Base {
        group: ROOT,
        at: id.at,
        chain: id.chain,
        members,
    }];
    let append = Append {
        id: AppendId(1),
        records,
        commits: Vec::new(),
        sync: true,
    };
    if house.log.append(&append).is_err() || house.log.flush().is_err() || house.log.sync().is_err() {
        return false;
    }
    house.keeper.take(KeepJob::Begun {
        index: id.at.index,
        taken: true,
    });
    house.keeper.step().is_ok()
}

/// Lets the housekeeper look at everything once.
fn look(house: &mut House) -> Vec<Kept> {
    (0..200).flat_map(|_| house.work()).collect()
}

#[test]
fn a_flipped_bit_in_an_old_segment_is_found_and_its_entry_named() {
    for sealed in [false, true] {
        let mut house = House::new(HERE);
        house.fill_segments(3);
        let index = LogIndex(30);
        let place = house.log.index().read().find(ROOT, index).unwrap();
        let file = house.log.index().read().segment_of(place).unwrap();
        assert!(file.base > Lsn(0) && file.base < house.log.segment().base);
        let (history, entries) = (house.history(), house.entries(LogIndex(1)));
        let chains = entries.iter().scan(0, |so_far, e| {
            *so_far = chain(*so_far, e.term, e.index, e.kind, &e.payload);
            Some(*so_far)
        });
        let chains: Vec<u32> = chains.collect();
        if sealed {
            house.make();
        }
        assert!(said_damaged(&look(&mut house)).is_empty());
        assert!(house.disk.flip_bit(&file.file(), place.0 - file.base.0 + 200, 5));
        let said = look(&mut house);
        assert_eq!(said_damaged(&said), [index], "sealed: {sealed}, {said:?}");
        assert!(house.history_from(1).is_err());
        // Another server has it: all is as before, and stays so.
        let entry = entries[index.0 as usize - 1].clone();
        let chain = chains[index.0 as usize - 1];
        house.append(vec![Record::Fill {
            group: ROOT,
            entry,
            chain,
        }]);
        house.work();
        assert_eq!(house.history(), history);
        house.make();
        assert_eq!(house.history(), history);
        let mut house = house.again();
        assert_eq!(house.history(), history);
        assert!(said_damaged(&look(&mut house)).is_empty());
    }
}

#[test]
fn a_flipped_bit_in_a_checkpoint_that_nobody_reads_is_found() {
    let mut house = House::with_checkpoints(3);
    let marks = house.marks();
    assert!(house.disk.flip_bit(&file_name(LogIndex(marks[1])), 150, 5));
    let said = look(&mut house);
    assert!(said_error(&said, "ckpt"), "{said:?}");
    assert_eq!(house.marks(), [marks[0], marks[2]]);
    let told = said.iter().rev().find_map(|kept| match kept {
        Kept::Holdings(Holdings { marks, .. }) => Some(marks.len()),
        _ => None,
    });
    assert_eq!(told, Some(2));
}
