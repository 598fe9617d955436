//! The reading side: entries by index, items of a room by position. Finds places in the index, or in the index files of full
//! segments, reads neighbours with one call, and checks every record before it is handed out. Sees what was written, synced or not.

mod fetch;
mod history;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

use super::blocks::FileError;
use super::disk::{Disk, DiskFile};
use super::index::{Lookup, Sealed, SharedIndex};
use super::rooms::RoomIndex;
use super::sealed::SealedFile;
use super::segment::Segment;
use super::{ItemRef, ReadAnswer, ReadRequest};
use crate::cluster::message::{Entry, Hole};
use crate::limits::{READ_ENTRIES_MAX, READ_FILES_MAX, READ_INDEXES_MAX, READ_SEGMENTS_MAX};
use crate::types::{DirectoryId, GroupId, LogIndex, Lsn, Position, RoomId, Seq};
use fetch::Gathered;

/// How often a question is begun anew because segments were removed while it was answered.
const TRIES: usize = 4;

/// The log of one server, open for reading.
#[derive(Debug)]
pub struct Reader<D: Disk> {
    disk: D,
    directory: DirectoryId,
    entries: SharedIndex,
    rooms: RoomIndex,
    /// Items of entries up to this one aren't shown.
    trimmed: LogIndex,
    /// The state of the index that `sealed` is of.
    shape: u64,
    /// The segments with index files, ascending.
    sealed: BTreeMap<GroupId, Vec<Sealed>>,
    /// Segments that are open, the one last used at the end.
    files: Vec<(Segment, D::File)>,
    /// Index files that are open, the one last used at the end.
    indexes: Vec<(Segment, SealedFile<D::File>)>,
}

/// An entry that is wanted, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    group: GroupId,
    index: LogIndex,
    spot: Spot,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Spot {
    At(Lsn),
    /// Or behind that.
    Hole(Lsn),
}

/// Why a question can't be answered as it was begun.
#[derive(Debug)]
enum Trouble {
    /// A segment was removed meanwhile.
    Moved,
    /// These entries can't be read, or an index file can't.
    Damaged { holes: Vec<Hole>, what: String },
    /// The disk refused.
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

impl<D: Disk> Reader<D> {
    pub(super) fn new(disk: D, directory: DirectoryId, entries: SharedIndex) -> Reader<D> {
        Reader {
            disk,
            directory,
            entries,
            rooms: RoomIndex::default(),
            trimmed: LogIndex(0),
            shape: u64::MAX,
            sealed: BTreeMap::new(),
            files: Vec::new(),
            indexes: Vec::new(),
        }
    }

    /// Another one on the same log that knows of no items: for who reads entries alone, on a thread of his own.
    #[must_use]
    pub fn another(&self) -> Reader<D> {
        Reader::new(self.disk.clone(), self.directory, self.entries.clone())
    }

    /// The index that it shares with the writer.
    #[must_use]
    pub fn shared(&self) -> &SharedIndex {
        &self.entries
    }

    /// The entry that stands at a place; `None` if it isn't there, or can't be read.
    ///
    /// # Errors
    /// What the disk says.
    pub fn entry_at(&mut self, group: GroupId, index: LogIndex, lsn: Lsn) -> io::Result<Option<Entry>> {
        let spot = Spot::At(lsn);
        let mut gathered = Gathered::new(0);
        match self.fetch(&[Wanted { group, index, spot }], &mut gathered) {
            Err(Trouble::Io(error)) => Err(error),
            _ => Ok(gathered.entries().pop()),
        }
    }

    /// The rooms begin anew at these last positions and numbers, and these items come after them: what was known is forgotten.
    ///
    /// # Panics
    /// If items of a room are left out or out of order.
    pub fn seed(&mut self, rooms: impl IntoIterator<Item = (RoomId, Position, Seq)>, pending: &[ItemRef]) {
        self.rooms.seed(rooms);
        self.index(pending);
        // Files may know of some.
        self.shape = u64::MAX;
    }

    /// Remembers items that were applied. Those that are known already don't matter.
    ///
    /// # Panics
    /// If items of a room are left out or out of order: the node tells all of them, in order.
    pub fn index(&mut self, items: &[ItemRef]) {
        items.iter().for_each(|item| self.rooms.put(item));
        let sealed = |group| self.sealed.get(&group).and_then(|sealed| sealed.last());
        if items
            .iter()
            .any(|item| sealed(item.group).is_some_and(|sealed| item.index <= sealed.last))
        {
            self.shape = u64::MAX;
        }
        self.refresh();
    }

    /// Items of entries up to this one aren't shown any more.
    pub fn trim(&mut self, index: LogIndex) {
        self.trimmed = self.trimmed.max(index);
    }

    /// Bytes of memory that it takes, about, without the index of entries.
    #[must_use]
    pub fn memory(&self) -> usize {
        let sealed = self
            .sealed
            .values()
            .map(|sealed| sealed.capacity() * size_of::<Sealed>());
        self.rooms.memory() + sealed.sum::<usize>()
    }

    /// Answers a question. Reads at most: of the records that are wanted `READ_BYTES_MAX` and one more, with what lies between and behind them
    /// (2 KiB for each that stands alone, `READ_GAP_BYTES` between two); of index files, for each of at most `READ_SEGMENTS_MAX` segments, some
    /// ten blocks of 4 KiB of as many files as it takes halvings to find it (14 for ten thousand), and a block for each thousand entries or items.
    ///
    /// # Errors
    /// What the disk says. What it gave back and can't be understood is no error but [`ReadAnswer::Damaged`].
    pub fn read(&mut self, request: &ReadRequest) -> io::Result<ReadAnswer> {
        let mut trouble = Trouble::Moved;
        for _ in 0..TRIES {
            self.refresh();
            match self.try_read(request) {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Moved) => self.shape = u64::MAX,
                Err(other) => {
                    trouble = other;
                    break;
                }
            }
        }
        let (token, group) = match *request {
            ReadRequest::Entries { token, group, .. } => (token, group),
            ReadRequest::Items { token, room, .. } => (token, self.rooms.group(room)),
        };
        match (trouble, request) {
            (Trouble::Io(error), _) => Err(error),
            (Trouble::Damaged { holes, what }, _) => Ok(ReadAnswer::Damaged {
                token,
                group,
                holes,
                what,
            }),
            (Trouble::Moved, &ReadRequest::Entries { from, .. }) => Ok(ReadAnswer::Entries {
                token,
                group,
                from,
                entries: Vec::new(),
            }),
            (Trouble::Moved, ReadRequest::Items { .. }) => Ok(ReadAnswer::Damaged {
                token,
                group,
                holes: Vec::new(),
                what: "segments are removed faster than they can be read".to_owned(),
            }),
        }
    }

    fn try_read(&mut self, request: &ReadRequest) -> Result<ReadAnswer, Trouble> {
        match *request {
            ReadRequest::Entries {
                token,
                group,
                from,
                to,
                bytes_max,
            } => Ok(ReadAnswer::Entries {
                token,
                group,
                from,
                entries: self.read_entries(group, from, to, bytes_max)?.entries(),
            }),
            ReadRequest::Items {
                token,
                room,
                from,
                bytes_max,
            } => {
                let (start, before, items) = self.read_items(room, from, bytes_max)?;
                Ok(ReadAnswer::Items {
                    token,
                    room,
                    start,
                    before,
                    items,
                })
            }
        }
    }

    fn read_entries(
        &mut self,
        group: GroupId,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
    ) -> Result<Gathered, Trouble> {
        let mut gathered = Gathered::new(bytes_max);
        let mut next = from;
        for _ in 0..READ_SEGMENTS_MAX {
            let left = READ_ENTRIES_MAX - gathered.len().min(READ_ENTRIES_MAX);
            let looked = self.entries.read().look(group, next, to, left);
            let wanted = match self.spots(looked, next, to, left) {
                Ok(spots) => spots,
                Err(trouble) => return gathered.or(trouble),
            };
            let wanted: Vec<Wanted> = wanted
                .into_iter()
                .zip(next.0..)
                .map(|(spot, index)| Wanted {
                    group,
                    index: LogIndex(index),
                    spot,
                })
                .collect();
            next.0 += wanted.len() as u64;
            if wanted.is_empty() || !self.fetch(&wanted, &mut gathered)? {
                break;
            }
        }
        Ok(gathered)
    }

    /// Where the entries from one on stand, up to one and at most `count`, of what the index says of them.
    fn spots(&mut self, looked: Lookup, from: LogIndex, to: LogIndex, count: usize) -> Result<Vec<Spot>, Trouble> {
        match looked {
            Lookup::Nothing => Ok(Vec::new()),
            Lookup::Places(places) => Ok(places.into_iter().map(Spot::At).collect()),
            Lookup::Holes(holes, near) => Ok(holes.iter().map(|_| Spot::Hole(near)).collect()),
            Lookup::Sealed(sealed, changed) => {
                let wanted = to.0.saturating_sub(from.0).saturating_add(1).min(count as u64) as usize;
                let places = self.sealed_file(sealed.segment, |file| file.places(from, wanted))?;
                let spots = places.into_iter().zip(from.0..);
                let spots = spots.map(|(lsn, index)| match changed.get(&LogIndex(index)) {
                    None => Spot::At(lsn),
                    Some(Some(filled)) => Spot::At(*filled),
                    Some(None) => Spot::Hole(lsn),
                });
                Ok(spots.collect())
            }
        }
    }

    /// Takes note of what was sealed and removed. Cheap if nothing was.
    fn refresh(&mut self) {
        let index = self.entries.read();
        if index.shape() == self.shape {
            return;
        }
        self.shape = index.shape();
        self.sealed.clear();
        for group in index.groups() {
            self.sealed.insert(group, index.sealed_after(group, LogIndex(0)));
            if let Some(last) = index.last_sealed(group) {
                self.rooms.forget(group, last);
            }
        }
        // An open file of a segment that is gone keeps its space taken; an index file may have been written anew.
        self.files.retain(|(segment, _)| index.has_segment(*segment));
        self.indexes.clear();
    }

    /// Asks an index file.
    fn sealed_file<T>(
        &mut self,
        segment: Segment,
        ask: impl FnOnce(&mut SealedFile<D::File>) -> Result<T, FileError>,
    ) -> Result<T, Trouble> {
        let answer = match self.indexes.iter().position(|(open, _)| *open == segment) {
            Some(at) => {
                let entry = self.indexes.remove(at);
                self.indexes.push(entry);
                Ok(())
            }
            None => SealedFile::open(&self.disk, self.directory, segment).map(|file| {
                if self.indexes.len() >= READ_INDEXES_MAX {
                    self.indexes.remove(0);
                }
                self.indexes.push((segment, file));
            }),
        };
        let asked = match (answer, self.indexes.last_mut()) {
            (Ok(()), Some((_, file))) => ask(file),
            (Err(error), _) => Err(error),
            (Ok(()), None) => return Err(Trouble::Io(io::Error::other("no index file is open"))),
        };
        asked.map_err(|error| self.index_trouble(segment, error))
    }

    fn index_trouble(&mut self, segment: Segment, error: FileError) -> Trouble {
        let missing = error.is_missing();
        let what = error.to_string();
        match error {
            FileError::Io { error, .. } if !missing => return Trouble::Io(io::Error::new(error.kind(), what)),
            _ if !self.entries.read().has_segment(segment) => return Trouble::Moved,
            _ => {}
        }
        // It may be written anew under the same name.
        self.indexes.retain(|(open, _)| *open != segment);
        self.entries.lost_index(segment);
        let holes = Vec::new();
        Trouble::Damaged { holes, what }
    }

    fn file(&mut self, segment: Segment) -> Result<&D::File, Trouble> {
        let entry = match self.files.iter().position(|(open, _)| *open == segment) {
            Some(at) => self.files.remove(at),
            None => {
                let file = self.disk.open(&segment.file());
                let file = file.map_err(|error| self.file_trouble(segment, &error))?;
                if self.files.len() >= READ_FILES_MAX {
                    self.files.remove(0);
                }
                (segment, file)
            }
        };
        self.files.push(entry);
        let last = self.files.last();
        last.map(|(_, file)| file)
            .ok_or_else(|| Trouble::Io(io::Error::other("no segment is open")))
    }

    fn file_trouble(&self, segment: Segment, error: &io::Error) -> Trouble {
        if error.kind() == io::ErrorKind::NotFound && !self.entries.read().has_segment(segment) {
            return Trouble::Moved;
        }
        Trouble::Io(io::Error::new(error.kind(), format!("{}: {error}", segment.file())))
    }

    /// Fills the buffer from a position of a segment on.
    fn read_at(&mut self, segment: Segment, bytes: &mut [u8], from: Lsn) -> Result<(), Trouble> {
        let read = self.file(segment)?.read_at(bytes, from.0 - segment.base.0);
        read.map_err(|error| self.file_trouble(segment, &error))
    }
}
