//! The reading side: entries by index, items of a room by position. Finds places in the index, reads neighbours with one call,
//! and checks every record before it is handed out. Sees what was written, synced or not.

use std::io;

use super::disk::{Disk, DiskFile};
use super::index::SharedIndex;
use super::record::{self, Kind, Parsed};
use super::rooms::{Place, RoomIndex};
use super::segment::Segment;
use super::{ItemRef, ReadAnswer, ReadRequest};
use crate::cluster::message::Entry;
use crate::limits::{
    READ_BYTES_MAX, READ_ENTRIES_MAX, READ_FILES_MAX, READ_GAP_BYTES, READ_WINDOW_BYTES, RECORD_HEADER_BYTES,
};
use crate::types::{Blob, DirectoryId, GroupId, LogIndex, Lsn};

/// Bytes that are read behind the place of the last record that is wanted: most records are shorter.
const GUESS: u64 = 2048;

/// The log of one server, open for reading.
#[derive(Debug)]
pub struct Reader<D: Disk> {
    disk: D,
    directory: DirectoryId,
    entries: SharedIndex,
    rooms: RoomIndex,
    /// Segments that are open, the one last used at the end.
    files: Vec<(Segment, D::File)>,
}

/// An entry that is wanted, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    group: GroupId,
    index: LogIndex,
    lsn: Lsn,
}

impl<D: Disk> Reader<D> {
    pub(super) fn new(disk: D, directory: DirectoryId, entries: SharedIndex) -> Reader<D> {
        Reader {
            disk,
            directory,
            entries,
            rooms: RoomIndex::default(),
            files: Vec::new(),
        }
    }

    /// Remembers items that were applied. Those that are known already don't matter.
    ///
    /// # Panics
    /// If items of a room are left out or out of order: the node tells all of them, in order.
    pub fn index(&mut self, items: &[ItemRef]) {
        items.iter().for_each(|item| self.rooms.put(item));
    }

    /// Answers a question.
    ///
    /// # Errors
    /// What the disk says; `InvalidData`, beginning with `damaged:` and naming file and offset, for a record that can't be read.
    pub fn read(&mut self, request: &ReadRequest) -> io::Result<ReadAnswer> {
        match *request {
            ReadRequest::Entries {
                token,
                group,
                from,
                to,
                bytes_max,
            } => {
                let lsns = self.entries.read().range(group, from, to, READ_ENTRIES_MAX);
                let wanted: Vec<Wanted> = lsns
                    .into_iter()
                    .zip(from.0..)
                    .map(|(lsn, index)| Wanted {
                        group,
                        index: LogIndex(index),
                        lsn,
                    })
                    .collect();
                Ok(ReadAnswer::Entries {
                    token,
                    group,
                    from,
                    entries: self.fetch(&wanted, bytes_max)?,
                })
            }
            ReadRequest::Items {
                token,
                room,
                from,
                bytes_max,
            } => {
                let start = self.rooms.start(room, from);
                let places = self.rooms.range(room, start, READ_ENTRIES_MAX);
                let wanted = self.locate(&places);
                let entries = self.fetch(&wanted, bytes_max)?;
                let items = places.iter().zip(entries).map(|(p, entry)| (p.position, p.seq, entry));
                Ok(ReadAnswer::Items {
                    token,
                    room,
                    start,
                    items: items.collect(),
                })
            }
        }
    }

    /// The places of items up to the first whose entry isn't written yet: a leader may apply what others have on their disks first.
    fn locate(&self, places: &[Place]) -> Vec<Wanted> {
        let index = self.entries.read();
        let located = places.iter().map_while(|place| {
            let lsn = index.find(place.group, place.index)?;
            Some(Wanted {
                group: place.group,
                index: place.index,
                lsn,
            })
        });
        located.collect()
    }

    /// The entries, up to about `bytes_max` of payload and at least one.
    fn fetch(&mut self, wanted: &[Wanted], bytes_max: usize) -> io::Result<Vec<Entry>> {
        let limit = bytes_max.min(READ_BYTES_MAX);
        let (mut entries, mut taken) = (Vec::new(), 0);
        let mut buffer = Buffer::default();
        for (at, one) in wanted.iter().enumerate() {
            // No more is looked up after this, so don't read on for nothing.
            if taken >= limit && !entries.is_empty() {
                break;
            }
            let segment = match buffer.segment {
                Some(segment) if one.lsn >= segment.base && one.lsn < segment.end() => segment,
                _ => {
                    let found = self.entries.read().segment_of(one.lsn);
                    found.ok_or_else(|| io::Error::other(format!("position {} is in no segment", one.lsn)))?
                }
            };
            if !buffer.holds(segment, one.lsn, RECORD_HEADER_BYTES) {
                let reach = reach(&wanted[at..], segment, (limit - taken.min(limit)) as u64);
                self.fill(&mut buffer, segment, one.lsn, reach)?;
            }
            let mut parsed = record::parse(buffer.from(one.lsn), one.lsn, self.directory);
            if let Parsed::Short(whole) = parsed {
                let reach = reach(&wanted[at..], segment, (limit - taken.min(limit)) as u64);
                self.fill(&mut buffer, segment, one.lsn, reach.max(whole as u64))?;
                parsed = record::parse(buffer.from(one.lsn), one.lsn, self.directory);
            }
            let entry = entry_of(one, parsed).ok_or_else(|| unreadable(segment, one))?;
            taken += entry.payload.len();
            if taken > limit && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Reads `length` bytes from a position on, as far as the segment goes.
    fn fill(&mut self, buffer: &mut Buffer, segment: Segment, from: Lsn, length: u64) -> io::Result<()> {
        let length = length.min(segment.end().0 - from.0);
        buffer.segment = Some(segment);
        buffer.start = from;
        buffer.bytes.resize(length as usize, 0);
        let file = self.file(segment)?;
        let read = file.read_at(&mut buffer.bytes, from.0 - segment.base.0);
        read.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", segment.file())))
    }

    fn file(&mut self, segment: Segment) -> io::Result<&D::File> {
        let entry = match self.files.iter().position(|(open, _)| *open == segment) {
            Some(at) => self.files.remove(at),
            None => {
                let name = segment.file();
                let file = self.disk.open(&name);
                let file = file.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
                if self.files.len() >= READ_FILES_MAX {
                    self.files.remove(0);
                }
                (segment, file)
            }
        };
        self.files.push(entry);
        let last = self.files.last();
        last.map(|(_, file)| file)
            .ok_or_else(|| io::Error::other("no segment is open"))
    }
}

/// Bytes of a segment in memory.
#[derive(Debug, Default)]
struct Buffer {
    segment: Option<Segment>,
    start: Lsn,
    bytes: Vec<u8>,
}

impl Buffer {
    fn holds(&self, segment: Segment, lsn: Lsn, length: usize) -> bool {
        let end = self.start.0 + self.bytes.len() as u64;
        self.segment == Some(segment) && lsn >= self.start && lsn.0 + length as u64 <= end
    }

    fn from(&self, lsn: Lsn) -> &[u8] {
        let at = lsn.0.saturating_sub(self.start.0) as usize;
        self.bytes.get(at..).unwrap_or(&[])
    }
}

/// How much to read at once, so that the records after the first come along as long as they lie close and are needed.
fn reach(wanted: &[Wanted], segment: Segment, bytes: u64) -> u64 {
    let Some(first) = wanted.first().map(|one| one.lsn) else {
        return 0;
    };
    let mut last = first;
    for one in &wanted[1..] {
        let near = one.lsn >= last && one.lsn.0 - last.0 <= READ_GAP_BYTES;
        let span = one.lsn.0.saturating_sub(first.0);
        if !near || one.lsn >= segment.end() || span > bytes.min(READ_WINDOW_BYTES) {
            break;
        }
        last = one.lsn;
    }
    (last.0 - first.0 + GUESS).min(READ_WINDOW_BYTES)
}

/// The entry of a record, if it is the one that is wanted.
fn entry_of(wanted: &Wanted, parsed: Parsed<'_>) -> Option<Entry> {
    let Parsed::Record(header, payload, _) = parsed else {
        return None;
    };
    let same = header.kind == Kind::Entry && header.group == wanted.group && header.index == wanted.index;
    same.then(|| Entry {
        index: header.index,
        term: header.term,
        kind: header.entry_kind,
        payload: Blob::new(payload),
    })
}

fn unreadable(segment: Segment, wanted: &Wanted) -> io::Error {
    let offset = wanted.lsn.0 - segment.base.0;
    let text = format!(
        "damaged: {} at offset {offset}: entry {} of group {} can't be read",
        segment.file(),
        wanted.index,
        wanted.group
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}
