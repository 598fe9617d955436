//! Making an index file. It is fed in the order of the log, held in memory (some 8 bytes an entry), and written whole.

use std::collections::BTreeMap;
use std::io;

use super::{
    BLOCK, BLOCK_HEAD, ELSEWHERE, ELSEWHERES, ITEM, ITEMS, MAGIC, MARK, PLACE, PLACES, ROOM, ROOMS, SealedHead,
    VERSION, file_name, header_check,
};
use crate::log::ItemRef;
use crate::log::blocks::{self, put_u32, put_u64};
use crate::log::disk::{Disk, DiskFile};
use crate::log::index::Sealed;
use crate::log::record::ALIGNMENT;
use crate::log::segment::Segment;
use crate::types::{DirectoryId, GroupId, LogIndex, Lsn, Position, RoomId, Seq};

/// Bytes that are written at once.
const STEP: usize = 64 * BLOCK;

/// An index file in the making.
#[derive(Clone, Debug)]
pub struct SealedWriter {
    segment: Segment,
    group: GroupId,
    first: LogIndex,
    places: Vec<u32>,
    elsewhere: Vec<(LogIndex, Lsn)>,
    rooms: BTreeMap<RoomId, Room>,
    items: u64,
}

#[derive(Clone, Debug)]
struct Room {
    /// Before the segment.
    position: Position,
    messages: Seq,
    /// Of the segment.
    items: Vec<u32>,
    count: u64,
}

impl SealedWriter {
    /// Begins with the first entry of the segment that isn't void (if it has none: the next one of the group), and with all rooms that had
    /// items before it: (room, last position, messages).
    #[must_use]
    pub fn new(
        segment: Segment,
        group: GroupId,
        first: LogIndex,
        rooms: impl IntoIterator<Item = (RoomId, Position, Seq)>,
    ) -> SealedWriter {
        let rooms = rooms.into_iter().filter(|&(_, position, _)| position > Position(0));
        let rooms = rooms.map(|(room, position, messages)| {
            let row = Room {
                position,
                messages,
                items: Vec::new(),
                count: 0,
            };
            (room, row)
        });
        SealedWriter {
            segment,
            group,
            first,
            places: Vec::new(),
            elsewhere: Vec::new(),
            rooms: rooms.collect(),
            items: 0,
        }
    }

    /// The next entry, and where it stands: in the segment, or wherever it was filled.
    ///
    /// # Panics
    /// If it isn't the next, or no record can stand there.
    pub fn entry(&mut self, index: LogIndex, lsn: Lsn) {
        assert_eq!(
            index.0,
            self.first.0 + self.places.len() as u64,
            "the entries of a segment follow each other"
        );
        assert!(lsn.0.is_multiple_of(ALIGNMENT), "records are aligned");
        if lsn >= self.segment.base && lsn < self.segment.end() {
            let place = (lsn.0 - self.segment.base.0) / ALIGNMENT;
            assert!(place < u64::from(MARK), "segments are far below 32 GiB");
            self.places.push(place as u32);
        } else {
            self.places.push(MARK);
            self.elsewhere.push((index, lsn));
        }
    }

    /// The next item that is made from an entry of the segment.
    ///
    /// # Panics
    /// If an item of the room is left out, or its number or entry can't be.
    pub fn item(&mut self, item: &ItemRef) {
        let room = self.rooms.entry(item.room).or_insert(Room {
            position: Position(0),
            messages: Seq(0),
            items: Vec::new(),
            count: 0,
        });
        let next = room.position.0 + room.items.len() as u64 + 1;
        assert_eq!(item.position.0, next, "the items of a room are told in order");
        let message = item.seq != Seq(0);
        room.count += u64::from(message);
        assert!(
            !message || item.seq.0 == room.messages.0 + room.count,
            "the messages of a room are numbered without gaps"
        );
        assert!(item.index >= self.first, "an item of an entry before the segment");
        let within = item.index.0 - self.first.0;
        assert!(within < 1 << 31, "a segment has far below 2^31 entries");
        let value = within as u32 * 2 + u32::from(message);
        let last = room.items.last().map_or(-1, |&last| i64::from(last >> 1));
        assert!(last < within as i64, "the items of a room stand in ascending entries");
        room.items.push(value);
        self.items += 1;
    }

    /// How many entries it has been given.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.places.len()
    }

    /// Writes the file, in the place of one that there may be; durable under its name before this returns. With the digest of the state
    /// after the last entry, 0 if it isn't known, and the log's age there.
    ///
    /// # Errors
    /// What the disk says. There is nothing then, or what there was before.
    ///
    /// # Panics
    /// If there are items of entries that it wasn't given.
    pub fn finish<D: Disk>(self, disk: &D, directory: DirectoryId, digest: u64, age_ms: u64) -> io::Result<Sealed> {
        if self.items > u64::from(u32::MAX) {
            return Err(io::Error::other(
                "a segment with more items than an index file can hold",
            ));
        }
        let head = self.head(digest, age_ms);
        let name = file_name(self.segment.base);
        let temporary = format!("{name}.tmp");
        let file = blocks::create_anew(disk, &temporary)?;
        let mut out = Output {
            file: &file,
            directory,
            of: self.segment.base.0,
            number: 1,
            written: 0,
            bytes: header_block(&head, directory),
        };
        out.rows(PLACES, PLACE, self.places.iter().map(|place| place.to_le_bytes()))?;
        out.rows(ELSEWHERES, ELSEWHERE, self.elsewhere.iter().map(elsewhere_row))?;
        out.rows(ROOMS, ROOM, self.room_rows())?;
        self.write_items(&mut out)?;
        out.flush()?;
        blocks::put_in_place(disk, &file, &temporary, &name)?;
        Ok(head.sealed)
    }

    fn head(&self, digest: u64, age_ms: u64) -> SealedHead {
        let entries = self.places.len() as u64;
        let items = self.rooms.values().filter_map(|room| room.items.last());
        assert!(
            items
                .map(|&item| u64::from(item >> 1))
                .max()
                .is_none_or(|last| last < entries),
            "items are of entries of the segment"
        );
        SealedHead {
            sealed: Sealed {
                segment: self.segment,
                group: self.group,
                first: self.first,
                last: LogIndex(self.first.0 + entries - 1),
            },
            digest,
            age_ms,
            elsewhere: self.elsewhere.len() as u64,
            rooms: self.rooms.len() as u64,
            items: self.items,
        }
    }

    fn room_rows(&self) -> impl Iterator<Item = [u8; ROOM]> {
        let mut start = 0;
        self.rooms.iter().map(move |(room, row)| {
            let mut bytes = [0; ROOM];
            put_u64(&mut bytes, 0, room.0);
            put_u64(&mut bytes, 8, row.position.0);
            put_u64(&mut bytes, 16, row.messages.0);
            put_u32(&mut bytes, 24, row.items.len() as u32);
            put_u32(&mut bytes, 28, start);
            start += row.items.len() as u32;
            bytes
        })
    }

    fn write_items<F: DiskFile>(&self, out: &mut Output<'_, F>) -> io::Result<()> {
        let (mut block, mut used) = (blank(), 0);
        for room in self.rooms.values() {
            let mut messages = 0;
            for &item in &room.items {
                if used == ITEMS {
                    out.block(std::mem::replace(&mut block, blank()))?;
                    used = 0;
                    // Nobody looks at it where no item of the room is before.
                    put_u32(&mut block, 4, messages);
                }
                put_u32(&mut block, BLOCK_HEAD + used as usize * ITEM, item);
                used += 1;
                messages += item & 1;
            }
        }
        if used > 0 {
            out.block(block)?;
        }
        Ok(())
    }
}

fn blank() -> Vec<u8> {
    vec![0; BLOCK]
}

fn elsewhere_row(&(index, lsn): &(LogIndex, Lsn)) -> [u8; ELSEWHERE] {
    let mut bytes = [0; ELSEWHERE];
    put_u64(&mut bytes, 0, index.0);
    put_u64(&mut bytes, 8, lsn.0);
    bytes
}

fn header_block(head: &SealedHead, directory: DirectoryId) -> Vec<u8> {
    let Sealed {
        segment,
        group,
        first,
        last,
    } = head.sealed;
    let mut bytes = blank();
    bytes[..8].copy_from_slice(MAGIC);
    put_u32(&mut bytes, 8, VERSION);
    put_u64(&mut bytes, 16, segment.base.0);
    put_u64(&mut bytes, 24, segment.size);
    put_u32(&mut bytes, 32, group.0);
    put_u64(&mut bytes, 40, first.0);
    put_u64(&mut bytes, 48, last.0);
    put_u64(&mut bytes, 56, head.digest);
    put_u64(&mut bytes, 64, head.age_ms);
    put_u64(&mut bytes, 72, head.elsewhere);
    put_u64(&mut bytes, 80, head.rooms);
    put_u64(&mut bytes, 88, head.items);
    let check = header_check(directory, segment.base, &bytes);
    put_u32(&mut bytes, 12, check);
    bytes
}

/// Blocks on their way to the file.
struct Output<'f, F> {
    file: &'f F,
    directory: DirectoryId,
    of: u64,
    number: u64,
    written: u64,
    bytes: Vec<u8>,
}

impl<F: DiskFile> Output<'_, F> {
    fn block(&mut self, mut block: Vec<u8>) -> io::Result<()> {
        let check = blocks::check(self.directory, self.of, self.number, &block[4..]);
        put_u32(&mut block, 0, check);
        self.bytes.append(&mut block);
        self.number += 1;
        if self.bytes.len() >= STEP {
            self.flush()?;
        }
        Ok(())
    }

    fn rows<const N: usize>(
        &mut self,
        in_block: u64,
        width: usize,
        rows: impl Iterator<Item = [u8; N]>,
    ) -> io::Result<()> {
        let (mut block, mut used) = (blank(), 0);
        for row in rows {
            if used == in_block {
                self.block(std::mem::replace(&mut block, blank()))?;
                used = 0;
            }
            let at = BLOCK_HEAD + used as usize * width;
            block[at..at + width].copy_from_slice(&row);
            used += 1;
        }
        if used > 0 {
            self.block(block)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.bytes, self.written)?;
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}
