//! Makes a checkpoint: takes the one before, applies to it the entries that are read back from the disk, and compares the digest with the live
//! state's at that place before it counts. So a fault of the disk, or a state that doesn't follow from the log, is found long before it
//! matters. Every item that an entry makes is seen on the way: so the index of a segment that is full is written here, too.

use std::collections::BTreeMap;
use std::io;

use super::Kept;
use super::keeper::Keeper;
use super::rescan::Standing;
use crate::chat::State;
use crate::cluster::chain::chain;
use crate::cluster::message::{Entry, EntryKind, LogPosition};
use crate::limits;
use crate::log::blocks::FileError;
use crate::log::checkpoint::{Checkpoints, Ending, Info, Stream, file_name as checkpoint_file};
use crate::log::disk::{Disk, DiskFile, is_full};
use crate::log::index::Sealed;
use crate::log::sealed::SealedWriter;
use crate::log::segment::Segment;
use crate::log::{ItemRef, ReadAnswer, ReadRequest};
use crate::types::{GroupId, Level, LogIndex, Lsn, Position, RoomId, Seq};
use crate::wire::checkpoint::{self, Assembly, Head};
use crate::wire::command;

/// What a replay is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// A checkpoint at this entry, where the live state has this digest.
    Checkpoint(LogIndex, u64),
    /// The index file of a segment that had one already: it can't be read, or doesn't know of entries that were filled since.
    Index(Sealed),
}

/// Something that is being made.
#[derive(Debug)]
pub(super) struct Making {
    goal: Goal,
    /// How far it is; none before the checkpoint before was read.
    replay: Option<Replay>,
    /// For an index file: the entries of its segment.
    standing: Standing,
    /// For an index file: the changes of the index that these entries know of.
    as_of: u64,
}

/// A state on the way from one checkpoint to the next.
#[derive(Debug)]
pub(super) struct Replay {
    pub state: State,
    /// The last entry that was applied.
    pub at: LogPosition,
    /// The running check up to there.
    pub chain: u32,
    /// The members entry in force.
    pub members: Option<Entry>,
    /// The last entry that is in a segment with an index file.
    pub indexed: LogIndex,
    /// The items of entries after that, in the order in which they were made.
    pub pending: Vec<ItemRef>,
    /// Where each room ended at `indexed`.
    pub ends: BTreeMap<RoomId, (Position, Seq)>,
}

impl Replay {
    /// Before the first entry.
    pub fn new() -> Replay {
        Replay {
            state: State::new(),
            at: LogPosition::default(),
            chain: 0,
            members: None,
            indexed: LogIndex(0),
            pending: Vec::new(),
            ends: BTreeMap::new(),
        }
    }

    /// At a checkpoint that was read; `pending` are the items of entries after `indexed`.
    pub fn at(head: &Head, state: State, indexed: LogIndex, pending: Vec<ItemRef>) -> Replay {
        let mut ends: BTreeMap<RoomId, (Position, Seq)> = BTreeMap::new();
        for (room, position, seq) in state.room_ends() {
            ends.insert(room, (position, seq));
        }
        // Back from where they end to where they ended before the pending items.
        for item in pending.iter().rev() {
            let before = ends.entry(item.room).or_default();
            let number = if item.seq == Seq(0) {
                before.1
            } else {
                item.seq.previous()
            };
            *before = (item.position.previous(), number);
        }
        Replay {
            state,
            at: head.at,
            chain: head.chain,
            members: Some(head.members.clone()),
            indexed,
            pending,
            ends,
        }
    }

    /// Applies the next entry. In words why not, if it can't be.
    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        let index = entry.index;
        if index != self.at.index.next() || entry.term < self.at.term {
            return Err(format!("entry {index} doesn't follow entry {}", self.at.index));
        }
        match entry.kind {
            EntryKind::Noop => self.state.skip(index),
            EntryKind::Members => {
                self.state.skip(index);
                self.members = Some(entry.clone());
            }
            EntryKind::Command => {
                let opened = command::open_payload(&entry.payload);
                let (stamp, command) = opened.map_err(|error| format!("entry {index} can't be read ({error})"))?;
                for &(room, position, seq) in self.state.apply(index, &stamp, &command).items.iter() {
                    self.pending.push(ItemRef {
                        room,
                        position,
                        seq,
                        group: GroupId::ROOT,
                        index,
                    });
                }
            }
        }
        self.chain = chain(self.chain, entry.term, index, entry.kind, &entry.payload);
        self.at = LogPosition {
            term: entry.term,
            index,
        };
        Ok(())
    }

    /// The items of entries up to `last` are in an index file now.
    fn indexed_to(&mut self, last: LogIndex) {
        let kept = self.pending.partition_point(|item| item.index <= last);
        for item in self.pending.drain(..kept) {
            let end = self.ends.entry(item.room).or_default();
            end.0 = item.position;
            if item.seq != Seq(0) {
                end.1 = item.seq;
            }
        }
        self.indexed = self.indexed.max(last);
    }
}

impl Making {
    /// A checkpoint at an entry, where the live state has that digest.
    pub fn checkpoint(index: LogIndex, digest: u64) -> Making {
        Making {
            goal: Goal::Checkpoint(index, digest),
            replay: None,
            standing: Standing::new(),
            as_of: 0,
        }
    }

    /// The index file of a segment anew.
    pub fn index(sealed: Sealed) -> Making {
        Making {
            goal: Goal::Index(sealed),
            replay: None,
            standing: Standing::new(),
            as_of: 0,
        }
    }

    fn end(&self) -> LogIndex {
        match self.goal {
            Goal::Checkpoint(index, _) => index,
            Goal::Index(sealed) => sealed.last,
        }
    }

    /// Does a little: reads the checkpoint before, or some entries, or writes what has come of them. Whether it is over.
    ///
    /// # Errors
    /// What the disk says.
    pub fn step<D: Disk>(&mut self, keeper: &mut Keeper<D>) -> io::Result<bool> {
        let advanced = match self.advance(keeper) {
            // What was begun is dropped, and its file with it.
            Err(error) if is_full(&error) => Err(error.to_string()),
            other => other?,
        };
        match advanced {
            Ok(over) => Ok(over),
            Err(why) => {
                let said = match self.goal {
                    Goal::Checkpoint(index, _) => Kept::Unmade { index, why },
                    Goal::Index(sealed) => Kept::Said {
                        level: Level::Warn,
                        text: format!("{}: no index can be made: {why}", sealed.segment.file()),
                    },
                };
                keeper.index_failed |= matches!(self.goal, Goal::Index(_));
                keeper.say(said);
                Ok(true)
            }
        }
    }

    fn advance<D: Disk>(&mut self, keeper: &mut Keeper<D>) -> io::Result<Result<bool, String>> {
        let end = self.end();
        let Some(replay) = &mut self.replay else {
            if let Goal::Index(sealed) = self.goal {
                self.as_of = keeper.shared.read().changes();
                match keeper.rescan(sealed)? {
                    Ok(standing) => self.standing = standing,
                    Err(why) => return Ok(Err(why)),
                }
            }
            let begin = match self.goal {
                Goal::Checkpoint(index, _) => keeper.replay_before(index.previous(), None)?,
                Goal::Index(sealed) => keeper.replay_before(sealed.last, Some(sealed.first.previous()))?,
            };
            return Ok(begin.map(|replay| {
                self.replay = Some(replay);
                false
            }));
        };
        if replay.at.index < end {
            // The items before the segment aren't needed: they end where its own begin.
            let stop = match self.goal {
                Goal::Index(sealed) if replay.at.index < sealed.first.previous() => sealed.first.previous(),
                _ => end,
            };
            let next = replay.at.index.next();
            let standing = self
                .standing
                .range(next..=stop.max(next))
                .take(limits::READ_ENTRIES_MAX);
            let standing: Vec<Entry> = standing.map(|(_, (_, entry))| entry.clone()).collect();
            let entries = if standing.first().is_some_and(|entry| entry.index == next) {
                Ok(standing)
            } else {
                keeper.entries(next, stop)?
            };
            match entries {
                Ok(entries) => {
                    if let Some(why) = entries.iter().find_map(|entry| replay.apply(entry).err()) {
                        return Ok(Err(why));
                    }
                }
                Err(why) => return Ok(Err(why)),
            }
        }
        match self.goal {
            Goal::Index(sealed) => {
                if replay.at.index >= sealed.first.previous() {
                    replay.indexed_to(sealed.first.previous());
                }
                if replay.at.index < end {
                    return Ok(Ok(false));
                }
                let places = self.standing.values().map(|&(lsn, _)| lsn).collect();
                let range = (sealed.first, sealed.last);
                keeper.write_index(replay, sealed.segment, range, (places, self.as_of))
            }
            Goal::Checkpoint(index, live) => {
                // Each time, so that what is pending stays less than a segment's.
                if keeper.index_segment(replay)? || replay.at.index < end {
                    return Ok(Ok(false));
                }
                let made = replay.state.digest();
                if live != made {
                    keeper.say(Kept::Differs { index, live, made });
                    return Ok(Ok(true));
                }
                keeper.write_checkpoint(replay)
            }
        }
    }
}

impl<D: Disk> Keeper<D> {
    /// Entries from the disk, some of those that are wanted. In words why not.
    fn entries(&mut self, from: LogIndex, to: LogIndex) -> io::Result<Result<Vec<Entry>, String>> {
        let request = ReadRequest::Entries {
            token: 0,
            group: GroupId::ROOT,
            from,
            to,
            bytes_max: limits::READ_BYTES_MAX,
        };
        Ok(match self.reader.read(&request)? {
            ReadAnswer::Entries { entries, .. } if !entries.is_empty() => Ok(entries),
            ReadAnswer::Damaged { group, holes, what, .. } => {
                let why = what.clone();
                self.say(Kept::Damaged { group, holes, what });
                Err(why)
            }
            _ => Err(format!("entry {from} isn't in the log")),
        })
    }

    /// The state of the newest checkpoint at or before `end`. Its pending items must begin at or before `indexed`, or where the index files
    /// of today end. In words why there is none.
    fn replay_before(&mut self, end: LogIndex, indexed: Option<LogIndex>) -> io::Result<Result<Replay, String>> {
        let (first, sealed) = {
            let index = self.shared.read();
            let sealed = index.last_sealed(GroupId::ROOT).unwrap_or(LogIndex(0));
            (index.first(GroupId::ROOT), sealed)
        };
        let indexed = indexed.unwrap_or(sealed.max(first.previous()));
        let fits = |info: &&Info| info.id.at.index <= end && info.indexed <= indexed;
        while let Some(info) = self.checkpoints.list().iter().rev().find(fits).copied() {
            match load(&self.checkpoints, &info) {
                Ok(replay) => return Ok(Ok(replay)),
                Err(error) => self.unreadable(&info, error)?,
            }
        }
        if first > LogIndex(1) {
            return Ok(Err(format!("there is no checkpoint before entry {end}")));
        }
        Ok(Ok(Replay::new()))
    }

    /// Writes the index file of the oldest full segment that has none, if all its entries were applied. Whether it did.
    fn index_segment(&mut self, replay: &mut Replay) -> io::Result<bool> {
        let next = {
            let index = self.shared.read();
            // Fills are looked for only in segments without an index: those that know of older ones come first.
            if index.stale().is_empty() {
                index.unsealed(GroupId::ROOT)
            } else {
                None
            }
        };
        // Only when an entry after it is durable: then the head of the next segment is, too, and this one never goes on after a power cut.
        let Some((segment, first, last)) = next.filter(|&(_, _, last)| last < replay.at.index) else {
            return Ok(false);
        };
        if replay.indexed >= first || replay.at.index < first.previous() {
            return Ok(false);
        }
        replay.indexed_to(first.previous());
        // Changes are counted first: a fill that comes meanwhile is looked for once more. A little at a time, for the writer waits for
        // this lock.
        let as_of = self.shared.read().changes();
        let mut places = Vec::new();
        loop {
            let from = LogIndex(first.0 + places.len() as u64);
            let piece = self
                .shared
                .read()
                .range(GroupId::ROOT, from, last, limits::READ_ENTRIES_MAX);
            if piece.is_empty() {
                break;
            }
            places.extend(piece);
        }
        if first.0 + places.len() as u64 != last.0 + 1 {
            return Ok(false); // some can't be read
        }
        Ok(self
            .write_index(replay, segment, (first, last), (places, as_of))?
            .is_ok())
    }

    /// Writes an index file of the entries `first..=last`, whose items are pending.
    fn write_index(
        &mut self,
        replay: &mut Replay,
        segment: Segment,
        (first, last): (LogIndex, LogIndex),
        (places, as_of): (Vec<Lsn>, u64),
    ) -> io::Result<Result<bool, String>> {
        let ends = replay
            .ends
            .iter()
            .map(|(&room, &(position, seq))| (room, position, seq));
        let mut writer = SealedWriter::new(segment, GroupId::ROOT, first, ends);
        for (index, lsn) in (first.0..).map(LogIndex).zip(places) {
            writer.entry(index, lsn);
        }
        let items = replay.pending.iter().take_while(|item| item.index <= last);
        items.for_each(|item| writer.item(item));
        let here = replay.at.index == last;
        let (digest, age) = if here {
            (replay.state.digest(), replay.state.clock().age_ms)
        } else {
            (0, 0)
        };
        let sealed = writer.finish(&self.disk, self.directory, digest, age)?;
        self.shared.write().sealed(sealed, as_of);
        replay.indexed_to(last);
        Ok(Ok(true))
    }

    fn write_checkpoint(&mut self, replay: &Replay) -> io::Result<Result<bool, String>> {
        let Some(members) = replay.members.clone() else {
            return Ok(Err("there is no members entry".to_owned()));
        };
        let head = Head {
            group: GroupId::ROOT,
            at: replay.at,
            chain: replay.chain,
            digest: replay.state.digest(),
            members,
        };
        let mut writer = self.checkpoints.create(replay.at.index)?;
        checkpoint::write(&head, &replay.state, |bytes| writer.write(bytes))?;
        let ending = Ending {
            at: head.at,
            chain: head.chain,
            digest: head.digest,
            age_ms: replay.state.clock().age_ms,
            indexed: replay.indexed,
            begins: false,
        };
        let id = self.checkpoints.finish(writer, &ending, &replay.pending)?;
        self.thin()?;
        self.say(Kept::Made { id });
        Ok(Ok(true))
    }
}

/// The state of a checkpoint, and what goes with it.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn load<D: Disk>(checkpoints: &Checkpoints<D>, info: &Info) -> Result<Replay, FileError> {
    let (head, state) = assemble(checkpoints.open_stream(&info.id)?, info.id.at.index)?;
    let pending = checkpoints.pending(&info.id)?;
    Ok(Replay::at(&head, state, info.indexed, pending))
}

/// What the portable bytes of a checkpoint come to.
///
/// # Errors
/// What is wrong with them.
pub(super) fn assemble<F: DiskFile>(stream: Stream<F>, index: LogIndex) -> Result<(Head, State), FileError> {
    let damaged = |error: &dyn std::fmt::Display| FileError::Damaged {
        file: checkpoint_file(index),
        offset: 0,
        text: error.to_string(),
    };
    let mut assembly = Assembly::new();
    let mut bytes = Vec::new();
    for block in stream {
        bytes.extend_from_slice(&block?);
        let taken = assembly.take(&bytes).map_err(|error| damaged(&error))?;
        bytes.drain(..taken);
    }
    let (head, state) = assembly.finish().map_err(|error| damaged(&error))?;
    if head.at.index != index || state.applied() != index || state.digest() != head.digest {
        return Err(damaged(&"what is in it isn't what its head says"));
    }
    Ok((head, state))
}
