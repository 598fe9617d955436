//! The index file of a full segment, `log/<LSN>.idx`: where its entries stand, and which of them are which items of which rooms, so that
//! history is read without an index in memory. Written once all entries of the segment are applied; every record in it has a fixed
//! width, so that one page is found by halving without reading the others.
//!
//! ```text
//! block 0, 4096 bytes:
//!  0 8 bytes "SYNCIDX\n"    16 u64 position of the segment   40 u64 first entry   72 u64 places elsewhere
//!  8 u32 version: 1         24 u64 bytes of the segment      48 u64 last entry    80 u64 rooms
//! 12 u32 check              32 u32 group, u32 0              56 u64 digest        88 u64 items
//!                                                            64 u64 log age in ms
//! then blocks of 4096 bytes, each: u32 check, u32 messages, 4088 bytes of
//!  places     u32 for each entry: (position − that of the segment) / 8; FFFFFFFF: elsewhere       1022 in a block
//!  elsewhere  u64 entry, u64 position                                                               255
//!  rooms      u64 room, u64 position and u64 messages before the segment, u32 items, u32 the first    127
//!  items      u32 for each item of the first room, then of the next: (entry − first) × 2 + message  1022
//! ```
//!
//! Every sort begins with a block of its own. *messages* is 0 but for items: how many messages of the room whose items go on from
//! the block before are in the blocks before. Checks cover the whole block but themselves; see [`super::blocks`].

mod renew;
mod write;

#[cfg(test)]
mod tests;

pub use renew::renew;
pub use write::SealedWriter;

use super::blocks::{self, FileError, u32_at, u64_at};
use super::disk::{Disk, DiskFile};
use super::index::Sealed;
use super::record::ALIGNMENT;
use super::segment::{FOLDER, Segment};
use crate::limits::{INDEX_BLOCKS_KEPT, RECORD_HEADER_BYTES};
use crate::types::{DirectoryId, GroupId, LogIndex, Lsn, Position, RoomId, Seq};

/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"SYNCIDX\n";
const SUFFIX: &str = ".idx";
const BLOCK: usize = 4096;
/// Bytes of a block before its rows.
const BLOCK_HEAD: usize = 8;
const PLACE: usize = 4;
const PLACES: u64 = ((BLOCK - BLOCK_HEAD) / PLACE) as u64;
const ELSEWHERE: usize = 16;
const ELSEWHERES: u64 = ((BLOCK - BLOCK_HEAD) / ELSEWHERE) as u64;
const ROOM: usize = 32;
const ROOMS: u64 = ((BLOCK - BLOCK_HEAD) / ROOM) as u64;
const ITEM: usize = 4;
const ITEMS: u64 = ((BLOCK - BLOCK_HEAD) / ITEM) as u64;
/// The place of an entry that stands in another segment.
const MARK: u32 = u32::MAX;

/// The index file of the segment that begins at `base`, relative to the data directory.
#[must_use]
pub fn file_name(base: Lsn) -> String {
    format!("{FOLDER}/{:020}{SUFFIX}", base.0)
}

/// The segment whose index file has that name (without folder); `None` if it is no index file.
#[must_use]
pub fn base_of(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(SUFFIX)?;
    let clean = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if clean { digits.parse().ok().map(Lsn) } else { None }
}

/// What the head of an index file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SealedHead {
    /// The segment and its entries.
    pub sealed: Sealed,
    /// The digest of the state after the last entry; 0 if it isn't known.
    pub digest: u64,
    /// The log's age there, in milliseconds.
    pub age_ms: u64,
    elsewhere: u64,
    rooms: u64,
    items: u64,
}

/// What an index file says of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomRow {
    /// The room.
    pub room: RoomId,
    /// The position of its last item before the segment.
    pub position: Position,
    /// The number of its last message before the segment.
    pub messages: Seq,
    /// How many of its items are in the segment.
    pub items: u32,
    /// The place of the first of these among all items of the file.
    start: u32,
}

/// An item of a room, as an index file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SealedItem {
    /// The entry that it is made from.
    pub index: LogIndex,
    /// Whether it is a message.
    pub message: bool,
}

/// An index file that is open.
#[derive(Debug)]
pub struct SealedFile<F> {
    file: F,
    name: String,
    directory: DirectoryId,
    head: SealedHead,
    /// Blocks that were read and are good, the one last used at the end.
    blocks: Vec<(u64, Vec<u8>)>,
}

impl SealedHead {
    fn entries(&self) -> u64 {
        (self.sealed.last.0 + 1).saturating_sub(self.sealed.first.0)
    }

    /// The first blocks of the four sorts, and the end.
    fn starts(&self) -> [u64; 5] {
        let places = 1;
        let elsewhere = places + self.entries().div_ceil(PLACES);
        let rooms = elsewhere + self.elsewhere.div_ceil(ELSEWHERES);
        let items = rooms + self.rooms.div_ceil(ROOMS);
        [places, elsewhere, rooms, items, items + self.items.div_ceil(ITEMS)]
    }

    fn parse(bytes: &[u8], directory: DirectoryId, segment: Segment, size: u64) -> Result<SealedHead, FileError> {
        let name = file_name(segment.base);
        let bad = |offset, text: &str| Err(FileError::damaged(&name, offset, text));
        if bytes.get(..8) != Some(MAGIC) {
            return bad(0, "this is no index file");
        }
        if header_check(directory, segment.base, bytes) != u32_at(bytes, 12) {
            return bad(0, "the head can't be read");
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(FileError::Newer { file: name });
        }
        let theirs = Segment {
            base: Lsn(u64_at(bytes, 16)),
            size: u64_at(bytes, 24),
        };
        if theirs != segment {
            return bad(16, "it belongs to a segment of another size");
        }
        let head = SealedHead {
            sealed: Sealed {
                segment,
                group: GroupId(u32_at(bytes, 32)),
                first: LogIndex(u64_at(bytes, 40)),
                last: LogIndex(u64_at(bytes, 48)),
            },
            digest: u64_at(bytes, 56),
            age_ms: u64_at(bytes, 64),
            elsewhere: u64_at(bytes, 72),
            rooms: u64_at(bytes, 80),
            items: u64_at(bytes, 88),
        };
        let (first, last) = (head.sealed.first.0, head.sealed.last.0);
        let possible = segment.size / RECORD_HEADER_BYTES as u64;
        if first == 0 || last == u64::MAX || last + 1 < first || head.entries() > possible {
            return bad(40, "it can't have these entries");
        }
        // No sum below can be too large after this.
        if head.elsewhere > head.entries() || head.rooms > size || head.items > u64::from(u32::MAX) {
            return bad(72, "it can't have so many rows");
        }
        if head.starts()[4].checked_mul(BLOCK as u64) != Some(size) {
            return bad(size, "the file has another length than its head says");
        }
        Ok(head)
    }
}

fn header_check(directory: DirectoryId, base: Lsn, block: &[u8]) -> u32 {
    let mut blank = block.to_vec();
    if let Some(check) = blank.get_mut(12..16) {
        check.fill(0);
    }
    blocks::check(directory, base.0, 0, &blank)
}

impl<F: DiskFile> SealedFile<F> {
    /// Opens the index file of a segment.
    ///
    /// # Errors
    /// [`FileError`]: it isn't there, it is damaged, or belongs to something else.
    pub fn open<D: Disk<File = F>>(
        disk: &D,
        directory: DirectoryId,
        segment: Segment,
    ) -> Result<SealedFile<F>, FileError> {
        let name = file_name(segment.base);
        let file = disk.open(&name).map_err(FileError::io(&name, 0))?;
        let size = file.size().map_err(FileError::io(&name, 0))?;
        let mut bytes = vec![0; BLOCK];
        file.read_at(&mut bytes, 0).map_err(FileError::io(&name, 0))?;
        let head = SealedHead::parse(&bytes, directory, segment, size)?;
        Ok(SealedFile {
            file,
            name,
            directory,
            head,
            blocks: Vec::new(),
        })
    }

    /// What its head says.
    #[must_use]
    pub fn head(&self) -> &SealedHead {
        &self.head
    }

    /// Reads and checks all of it.
    ///
    /// # Errors
    /// [`FileError`]: the first thing that is wrong.
    pub fn verify(&mut self) -> Result<(), FileError> {
        let Sealed { first, last, .. } = self.head.sealed;
        let mut from = first;
        while from <= last {
            let places = self.places(from, PLACES as usize)?;
            from.0 += places.len() as u64;
        }
        let (mut before, mut next) = (None, 0);
        for number in 0..self.head.rooms {
            let row = self.row(number)?;
            if before >= Some(row.room) || u64::from(row.start) != next {
                return Err(self.wrong_row(number, "the rooms aren't in order"));
            }
            (before, next) = (Some(row.room), next + u64::from(row.items));
            let mut at = 0;
            while at < row.items {
                let items = self.items(&row, at, ITEMS as usize)?;
                at += items.len() as u32;
            }
        }
        if next != self.head.items {
            return Err(self.wrong_row(0, "items belong to no room"));
        }
        Ok(())
    }

    /// Where the entries from `from` on stand, at most `count` of them; at least one if the segment has that entry.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn places(&mut self, from: LogIndex, count: usize) -> Result<Vec<Lsn>, FileError> {
        let Sealed {
            segment, first, last, ..
        } = self.head.sealed;
        if from < first || from > last {
            return Ok(Vec::new());
        }
        let to = last.0.min(from.0.saturating_add(count as u64).saturating_sub(1));
        let mut places = Vec::new();
        for index in from.0..=to {
            let at = index - first.0;
            let number = self.head.starts()[0] + at / PLACES;
            let offset = BLOCK_HEAD + (at % PLACES) as usize * PLACE;
            let place = u32_at(self.block(number)?, offset);
            let lsn = match place {
                MARK => self.elsewhere(LogIndex(index))?,
                place => {
                    let within = u64::from(place) * ALIGNMENT;
                    if within >= segment.size {
                        return Err(self.wrong(number, "a place is outside of the segment"));
                    }
                    Lsn(segment.base.0 + within)
                }
            };
            places.push(lsn);
        }
        Ok(places)
    }

    /// Where an entry stands that isn't in the segment any more.
    fn elsewhere(&mut self, index: LogIndex) -> Result<Lsn, FileError> {
        let start = self.head.starts()[1];
        let (mut low, mut high) = (0, self.head.elsewhere);
        while low < high {
            let middle = low.midpoint(high);
            let block = self.block(start + middle / ELSEWHERES)?;
            let at = BLOCK_HEAD + (middle % ELSEWHERES) as usize * ELSEWHERE;
            match u64_at(block, at).cmp(&index.0) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Lsn(u64_at(block, at + 8))),
            }
        }
        Err(self.wrong(start, "the place of an entry is missing"))
    }

    /// What there is of a room; `None` if it had no item up to the end of the segment.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn room(&mut self, room: RoomId) -> Result<Option<RoomRow>, FileError> {
        let (mut low, mut high) = (0, self.head.rooms);
        while low < high {
            let middle = low.midpoint(high);
            let row = self.row(middle)?;
            match row.room.cmp(&room) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(row)),
            }
        }
        Ok(None)
    }

    /// The rooms, ascending: the row of that number, for as many as there are.
    fn row(&mut self, number: u64) -> Result<RoomRow, FileError> {
        let start = self.head.starts()[2];
        let block = self.block(start + number / ROOMS)?;
        let at = BLOCK_HEAD + (number % ROOMS) as usize * ROOM;
        let row = RoomRow {
            room: RoomId(u64_at(block, at)),
            position: Position(u64_at(block, at + 8)),
            messages: Seq(u64_at(block, at + 16)),
            items: u32_at(block, at + 24),
            start: u32_at(block, at + 28),
        };
        let items = u64::from(row.start) + u64::from(row.items);
        let end = row.position.0.checked_add(u64::from(row.items));
        if items > self.head.items || end.is_none() || row.messages.0 > row.position.0 {
            return Err(self.wrong_row(number, "a room can't have these items"));
        }
        Ok(row)
    }

    /// All rooms as they are after the segment: (room, last position, messages), ascending.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn rooms_after(&mut self) -> Result<Vec<(RoomId, Position, Seq)>, FileError> {
        let mut rooms = Vec::new();
        for number in 0..self.head.rooms {
            let row = self.row(number)?;
            let messages = row.messages.0 + u64::from(self.messages_before(&row, row.items)?);
            rooms.push((row.room, Position(row.position.0 + u64::from(row.items)), Seq(messages)));
        }
        Ok(rooms)
    }

    /// The items of a room from the one of that number on (counted from 0 within the segment), at most `count`, and perhaps fewer.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn items(&mut self, row: &RoomRow, from: u32, count: usize) -> Result<Vec<SealedItem>, FileError> {
        let mut items = Vec::new();
        let Some(mut left) = row.items.checked_sub(from).map(|left| (left as usize).min(count)) else {
            return Ok(items);
        };
        let mut slot = u64::from(row.start) + u64::from(from);
        while left > 0 {
            let within = slot % ITEMS;
            let step = left.min((ITEMS - within) as usize);
            let number = self.head.starts()[3] + slot / ITEMS;
            for at in 0..step {
                let value = u32_at(self.block(number)?, BLOCK_HEAD + (within as usize + at) * ITEM);
                items.push(self.item(number, value)?);
            }
            slot += step as u64;
            left -= step;
        }
        Ok(items)
    }

    fn item(&self, number: u64, value: u32) -> Result<SealedItem, FileError> {
        let within = u64::from(value >> 1);
        if within >= self.head.entries() {
            return Err(self.wrong(number, "an item is of an entry that isn't here"));
        }
        Ok(SealedItem {
            index: LogIndex(self.head.sealed.first.0 + within),
            message: value & 1 == 1,
        })
    }

    /// How many of the room's first `count` items in the segment are messages.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn messages_before(&mut self, row: &RoomRow, count: u32) -> Result<u32, FileError> {
        let count = count.min(row.items);
        if count == 0 {
            return Ok(0);
        }
        let (number, from) = self.block_of(row, count - 1);
        let before = self.carried(row, number)?;
        let items = self.items(row, from, (count - from) as usize)?;
        Ok(before.saturating_add(items.iter().filter(|item| item.message).count() as u32))
    }

    /// Which of the room's items in the segment is its message of that number (counted from 1 within the segment).
    ///
    /// # Errors
    /// [`FileError`].
    pub fn message(&mut self, row: &RoomRow, which: u64) -> Result<Option<u32>, FileError> {
        let Some((number, from)) =
            self.last_block(row, |file, number, _| Ok(u64::from(file.carried(row, number)?) < which))?
        else {
            return Ok(None);
        };
        let mut left = which - u64::from(self.carried(row, number)?);
        for (at, item) in (from..).zip(self.items(row, from, ITEMS as usize)?) {
            left -= u64::from(item.message);
            if left == 0 {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// How many of the room's items in the segment are of entries up to `index`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn items_up_to(&mut self, row: &RoomRow, index: LogIndex) -> Result<u32, FileError> {
        let found = self.last_block(row, |file, _, from| {
            let first = file.items(row, from, 1)?;
            Ok(first.first().is_some_and(|item| item.index <= index))
        })?;
        let Some((_, from)) = found else { return Ok(0) };
        let items = self.items(row, from, ITEMS as usize)?;
        let up_to = items.iter().take_while(|item| item.index <= index).count();
        Ok(from + up_to as u32)
    }

    /// The last block with items of the room for which something holds, if it holds for the first: its number, and the number of the
    /// room's first item in it.
    fn last_block(
        &mut self,
        row: &RoomRow,
        mut holds: impl FnMut(&mut Self, u64, u32) -> Result<bool, FileError>,
    ) -> Result<Option<(u64, u32)>, FileError> {
        if row.items == 0 {
            return Ok(None);
        }
        let (first, last) = (self.block_of(row, 0).0, self.block_of(row, row.items - 1).0);
        let (mut low, mut high) = (first, last + 1);
        while low < high {
            let middle = low.midpoint(high);
            let from = self.first_in(row, middle);
            if holds(self, middle, from)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok((low > first).then(|| (low - 1, self.first_in(row, low - 1))))
    }

    /// The block that an item of the room is in, and the number of the room's first item in it.
    fn block_of(&self, row: &RoomRow, item: u32) -> (u64, u32) {
        let number = self.head.starts()[3] + (u64::from(row.start) + u64::from(item)) / ITEMS;
        (number, self.first_in(row, number))
    }

    /// The number of the room's first item in a block that has some.
    fn first_in(&self, row: &RoomRow, number: u64) -> u32 {
        let slot = (number - self.head.starts()[3]) * ITEMS;
        slot.saturating_sub(u64::from(row.start)) as u32
    }

    /// How many messages of the room are in the blocks before this one of its items.
    fn carried(&mut self, row: &RoomRow, number: u64) -> Result<u32, FileError> {
        if self.first_in(row, number) == 0 {
            return Ok(0);
        }
        Ok(u32_at(self.block(number)?, 4))
    }

    /// A block, checked.
    fn block(&mut self, number: u64) -> Result<&[u8], FileError> {
        let at = self.blocks.iter().rposition(|&(other, _)| other == number);
        match at {
            Some(at) if at + 1 == self.blocks.len() => {}
            Some(at) => {
                let block = self.blocks.remove(at);
                self.blocks.push(block);
            }
            None => {
                let offset = number * BLOCK as u64;
                let mut bytes = vec![0; BLOCK];
                let read = self.file.read_at(&mut bytes, offset);
                read.map_err(FileError::io(&self.name, offset))?;
                let base = self.head.sealed.segment.base;
                if blocks::check(self.directory, base.0, number, &bytes[4..]) != u32_at(&bytes, 0) {
                    return Err(self.wrong(number, "the block can't be read"));
                }
                if self.blocks.len() >= INDEX_BLOCKS_KEPT {
                    self.blocks.remove(0);
                }
                self.blocks.push((number, bytes));
            }
        }
        Ok(self.blocks.last().map_or(&[], |(_, bytes)| bytes))
    }

    fn wrong(&self, number: u64, text: &str) -> FileError {
        FileError::damaged(&self.name, number * BLOCK as u64, text)
    }

    fn wrong_row(&self, number: u64, text: &str) -> FileError {
        self.wrong(self.head.starts()[2] + number / ROOMS, text)
    }
}
