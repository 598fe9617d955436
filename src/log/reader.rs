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
                    before: crate::types::Seq(0),
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
    let kind = matches!(header.kind, Kind::Entry | Kind::Fill);
    let same = kind && header.group == wanted.group && header.index == wanted.index;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::ReadFrom;
    use crate::log::segment::file_name;
    use crate::log::sim_disk::SimDisk;
    use crate::log::testing::{Bench, ROOT, read_all};
    use crate::rng::Rng;
    use crate::types::{Position, RoomId, Seq};

    const ROOM: RoomId = RoomId(1);

    fn entries(from: u64, to: u64, bytes_max: usize) -> ReadRequest {
        ReadRequest::Entries {
            token: 9,
            group: ROOT,
            from: LogIndex(from),
            to: LogIndex(to),
            bytes_max,
        }
    }

    fn items(room: RoomId, from: ReadFrom, bytes_max: usize) -> ReadRequest {
        ReadRequest::Items {
            token: 9,
            room,
            from,
            bytes_max,
        }
    }

    fn indexes(answer: &ReadAnswer) -> Vec<u64> {
        match answer {
            ReadAnswer::Entries { entries, .. } => entries.iter().map(|entry| entry.index.0).collect(),
            ReadAnswer::Items { items, .. } => items.iter().map(|(_, _, entry)| entry.index.0).collect(),
            ReadAnswer::Damaged { what, .. } => panic!("{what}"),
        }
    }

    /// Many entries of all lengths in several segments.
    fn bench() -> Bench<SimDisk> {
        let (mut bench, mut rng) = (Bench::new(), Rng::new(3));
        for _ in 0..150 {
            let length = if rng.chance(5) { 8000 } else { rng.below(400) as usize };
            bench.say(&["x".repeat(length).as_str(), "short"]);
        }
        bench
    }

    #[test]
    fn every_range_is_answered_within_its_bounds() {
        let (mut bench, mut rng) = (bench(), Rng::new(4));
        let all = bench.model.entries.clone();
        for _ in 0..500 {
            let (from, to) = (rng.between(1, 300), rng.between(1, 400));
            let bytes_max = rng.below(20_000) as usize;
            let answer = bench.reader.read(&entries(from, to, bytes_max)).unwrap();
            let ReadAnswer::Entries { token: 9, entries, .. } = answer else {
                panic!("{answer:?}");
            };
            let wanted = all.get(from as usize - 1..(to as usize).min(all.len())).unwrap_or(&[]);
            assert_eq!(entries, wanted[..entries.len()]);
            let bytes: usize = entries.iter().map(|entry| entry.payload.len()).sum();
            assert!(bytes <= bytes_max || entries.len() == 1);
            match wanted.get(entries.len()) {
                Some(next) => assert!(
                    !entries.is_empty() && bytes + next.payload.len() > bytes_max.min(READ_BYTES_MAX)
                        || bytes >= bytes_max
                ),
                None => assert_eq!(entries.len(), wanted.len()),
            }
        }
    }

    #[test]
    fn what_is_not_there_is_an_empty_answer() {
        let mut bench = bench();
        for request in [
            entries(301, 310, 100),
            entries(0, 10, 100),
            entries(20, 10, 100),
            entries(u64::MAX, u64::MAX, 1),
        ] {
            assert!(indexes(&bench.reader.read(&request).unwrap()).is_empty(), "{request:?}");
        }
        let unknown = bench
            .reader
            .read(&items(RoomId(8), ReadFrom::AfterSeq(Seq(4)), 100))
            .unwrap();
        let nothing = ReadAnswer::Items {
            token: 9,
            room: RoomId(8),
            start: Position(1),
            before: Seq(0),
            items: Vec::new(),
        };
        assert_eq!(unknown, nothing);
    }

    #[test]
    fn only_what_is_written_is_served() {
        let mut bench = Bench::new();
        let record = bench.model.say(b"one");
        bench.append(vec![record], 0);
        assert!(read_all(&mut bench.reader).is_empty());
        bench.log.flush().unwrap();
        assert_eq!(read_all(&mut bench.reader), bench.model.entries);
    }

    #[test]
    fn a_room_is_read_by_position_and_by_number() {
        let mut bench = bench();
        // Every third entry is an item of the room, every second of these a message.
        let refs: Vec<ItemRef> = (1..=100)
            .map(|position| ItemRef {
                room: ROOM,
                position: Position(position),
                seq: Seq(if position % 2 == 0 { position / 2 } else { 0 }),
                group: ROOT,
                index: LogIndex(position * 3),
            })
            .collect();
        bench.reader.index(&refs[..60]);
        bench.reader.index(&refs[40..]);
        let mut next = Position(1);
        let mut seen = Vec::new();
        loop {
            let answer = bench.reader.read(&items(ROOM, ReadFrom::Position(next), 3000)).unwrap();
            let ReadAnswer::Items { start, items, .. } = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(start, next);
            let Some((last, _, _)) = items.last() else { break };
            next = last.next();
            seen.extend(items);
        }
        assert_eq!((next, seen.len()), (Position(101), 100));
        for (item, (position, seq, entry)) in refs.iter().zip(&seen) {
            assert_eq!((item.position, item.seq, item.index), (*position, *seq, entry.index));
            assert_eq!(*entry, bench.model.entries[item.index.0 as usize - 1]);
        }
        let after = bench
            .reader
            .read(&items(ROOM, ReadFrom::AfterSeq(Seq(49)), 1 << 20))
            .unwrap();
        assert_eq!(indexes(&after), [297, 300]);
    }

    #[test]
    fn items_end_where_their_entries_are_not_written_yet() {
        let mut bench = bench();
        let item = |position, index| ItemRef {
            room: ROOM,
            position: Position(position),
            seq: Seq(position),
            group: ROOT,
            index: LogIndex(index),
        };
        bench.reader.index(&[item(1, 299), item(2, 300), item(3, 301)]);
        let answer = bench
            .reader
            .read(&items(ROOM, ReadFrom::AfterSeq(Seq(0)), 1 << 20))
            .unwrap();
        assert_eq!(indexes(&answer), [299, 300]);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_named() {
        let mut bench = bench();
        let lsn = bench.reader.entries.read().find(ROOT, LogIndex(200)).unwrap();
        let segment = bench.reader.entries.read().segment_of(lsn).unwrap();
        assert!(segment.base > Lsn(0));
        let offset = lsn.0 - segment.base.0;
        bench.disk.flip_bit(&segment.file(), offset + 65, 1);
        let error = bench.reader.read(&entries(190, 210, 1 << 20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let begin = format!("damaged: {} at offset {offset}: ", file_name(segment.base));
        assert!(error.to_string().starts_with(&begin), "{error}");
        // Its neighbours can be read.
        assert_eq!(
            indexes(&bench.reader.read(&entries(198, 199, 1 << 20)).unwrap()),
            [198, 199]
        );
    }

    #[test]
    fn many_segments_are_read_with_few_open_files() {
        let mut bench = Bench::new();
        let long = "x".repeat(9000);
        for _ in 0..2 * READ_FILES_MAX + 5 {
            bench.say(&[&long]);
        }
        assert_eq!(read_all(&mut bench.reader), bench.model.entries);
        assert_eq!(read_all(&mut bench.reader), bench.model.entries);
        assert_eq!(bench.reader.files.len(), READ_FILES_MAX);
    }
}
