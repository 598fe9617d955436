//! A room's items, in any place of its history: the oldest in the index files of full segments, found by halving, the newest in memory.

use super::{Reader, Spot, Trouble, Wanted};
use crate::cluster::message::Entry;
use crate::limits::{READ_ENTRIES_MAX, READ_SEGMENTS_MAX};
use crate::log::ReadFrom;
use crate::log::disk::Disk;
use crate::log::index::{Lookup, Sealed};
use crate::log::reader::fetch::Gathered;
use crate::log::rooms::Place;
use crate::log::sealed::RoomRow;
use crate::types::{GroupId, LogIndex, Position, RoomId, Seq};

/// The first position of an answer, the messages before it, and the items.
type Items = (Position, Seq, Vec<(Position, Seq, Entry)>);

/// Where a room's history begins that is shown: the position, and the messages before it. And the segments that may have some of it.
struct Shown {
    first: (Position, Seq),
    sealed: Vec<Sealed>,
}

impl<D: Disk> Reader<D> {
    pub(super) fn read_items(&mut self, room: RoomId, from: ReadFrom, bytes_max: usize) -> Result<Items, Trouble> {
        let group = self.rooms.group(room);
        let shown = self.shown(group, room)?;
        let start = self.start(&shown, room, from)?;
        let mut gathered = Gathered::new(bytes_max);
        let (mut begin, mut places) = (None, Vec::new());
        let mut next = start;
        for _ in 0..READ_SEGMENTS_MAX {
            let left = READ_ENTRIES_MAX - places.len().min(READ_ENTRIES_MAX);
            let batch = match self.places(&shown, group, room, next, left) {
                Ok(batch) => batch,
                Err(trouble) => {
                    gathered = gathered.or(trouble)?;
                    break;
                }
            };
            let (at, before, found) = batch;
            // Something between is missing here: that is for the next question to find.
            if begin.is_some() && at != next {
                break;
            }
            begin = begin.or(Some((at, before)));
            let wanted = match self.locate(&found) {
                Ok(wanted) => wanted,
                Err(trouble) => {
                    gathered = gathered.or(trouble)?;
                    break;
                }
            };
            next = Position(at.0 + found.len() as u64);
            let all = wanted.len() == found.len() && !found.is_empty();
            places.extend(found);
            if !self.fetch(&wanted, &mut gathered)? || !all {
                break;
            }
        }
        let (start, before) = begin.unwrap_or((start, Seq(0)));
        let items = places.iter().zip(gathered.entries());
        let items = items.map(|(place, entry)| (place.position, place.seq, entry));
        Ok((start, before, items.collect()))
    }

    fn shown(&mut self, group: GroupId, room: RoomId) -> Result<Shown, Trouble> {
        let held = self.entries.read().first(group).previous();
        let hidden = self.trimmed.max(held);
        let sealed = self.sealed.get(&group).map_or(&[][..], Vec::as_slice);
        let at = sealed.partition_point(|sealed| sealed.last <= hidden);
        let sealed = sealed.get(at..).unwrap_or(&[]).to_vec();
        let first = match sealed.first().copied() {
            Some(sealed) => match self.row(sealed, room)? {
                Some(row) => {
                    let items = self.sealed_file(sealed.segment, |file| file.items_up_to(&row, hidden))?;
                    let messages = self.sealed_file(sealed.segment, |file| file.messages_before(&row, items))?;
                    let position = Position(row.position.0 + u64::from(items) + 1);
                    (position, Seq(row.messages.0 + u64::from(messages)))
                }
                None => (Position(1), Seq(0)),
            },
            None => {
                let position = self.rooms.first_after(room, hidden);
                (position, self.rooms.messages_before(room, position))
            }
        };
        Ok(Shown { first, sealed })
    }

    /// The position at which reading begins: at most that of the item to come.
    fn start(&mut self, shown: &Shown, room: RoomId, from: ReadFrom) -> Result<Position, Trouble> {
        let (first, messages) = shown.first;
        let (next, count) = self.rooms.next(room);
        let position = match from {
            ReadFrom::Position(position) => position,
            ReadFrom::AfterSeq(seq) if seq <= messages => first,
            ReadFrom::AfterSeq(seq) if seq > count => next,
            ReadFrom::AfterSeq(seq) => match self.rooms.position_of(room, seq) {
                Some(position) => position.next(),
                None => self.after_message(shown, room, seq)?,
            },
        };
        Ok(position.max(first).min(next))
    }

    /// The position after a message that isn't in memory.
    fn after_message(&mut self, shown: &Shown, room: RoomId, seq: Seq) -> Result<Position, Trouble> {
        let found = self.last_row(&shown.sealed, room, |row| row.messages < seq)?;
        let position = match found {
            Some((sealed, row)) => {
                let which = seq.0 - row.messages.0;
                let at = self.sealed_file(sealed.segment, |file| file.message(&row, which))?;
                at.map(|at| Position(row.position.0 + u64::from(at) + 2))
            }
            None => None,
        };
        // Where nothing is between the files and memory, it isn't kept.
        Ok(position.unwrap_or(self.rooms.first(room).0))
    }

    /// Items from a position on, of one index file or of memory, the messages before them, and where they really begin: later if nothing
    /// knows of that position any more.
    fn places(
        &mut self,
        shown: &Shown,
        group: GroupId,
        room: RoomId,
        from: Position,
        count: usize,
    ) -> Result<(Position, Seq, Vec<Place>), Trouble> {
        let (memory, _) = self.rooms.first(room);
        if from < memory
            && let Some((sealed, row)) = self.last_row(&shown.sealed, room, |row| row.position < from)?
            && from.0 - row.position.0 <= u64::from(row.items)
        {
            let skipped = (from.0 - row.position.0 - 1) as u32;
            let before = self.sealed_file(sealed.segment, |file| file.messages_before(&row, skipped))?;
            let before = Seq(row.messages.0 + u64::from(before));
            let items = self.sealed_file(sealed.segment, |file| file.items(&row, skipped, count))?;
            let mut messages = before.0;
            let places = items.iter().zip(from.0..).map(|(item, position)| {
                messages += u64::from(item.message);
                Place {
                    position: Position(position),
                    seq: Seq(if item.message { messages } else { 0 }),
                    group,
                    index: item.index,
                }
            });
            return Ok((from, before, places.collect()));
        }
        let from = from.max(memory);
        let places = self.rooms.range(room, from, count);
        Ok((from, self.rooms.messages_before(room, from), places))
    }

    /// The last of these segments for which something holds, if it holds for the first, and its row of the room. It holds for all in which the
    /// room doesn't appear yet.
    fn last_row(
        &mut self,
        sealed: &[Sealed],
        room: RoomId,
        holds: impl Fn(&RoomRow) -> bool,
    ) -> Result<Option<(Sealed, RoomRow)>, Trouble> {
        let (mut low, mut high) = (0, sealed.len());
        let mut found = None;
        while low < high {
            let middle = low.midpoint(high);
            let row = self.row(sealed[middle], room)?;
            if row.as_ref().is_none_or(&holds) {
                found = row.map(|row| (sealed[middle], row));
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(found)
    }

    fn row(&mut self, sealed: Sealed, room: RoomId) -> Result<Option<RoomRow>, Trouble> {
        self.sealed_file(sealed.segment, |file| file.room(room))
    }

    /// Where the entries of items stand, up to the first that isn't written yet: a leader may apply what others have on their disks
    /// first. Trouble after the first item only ends them.
    fn locate(&mut self, places: &[Place]) -> Result<Vec<Wanted>, Trouble> {
        let looked: Vec<Lookup> = {
            let index = self.entries.read();
            let look = |place: &Place| index.look(place.group, place.index, place.index, 1);
            places.iter().map(look).collect()
        };
        let mut wanted = Vec::new();
        for (place, looked) in places.iter().zip(looked) {
            let LogIndex(index) = place.index;
            match self.spots(looked, LogIndex(index), LogIndex(index), 1) {
                Ok(spots) => match spots.first() {
                    Some(&spot) => wanted.push(self.wanted(place, spot)),
                    None => break,
                },
                Err(trouble @ Trouble::Damaged { .. }) if wanted.is_empty() => return Err(trouble),
                Err(Trouble::Damaged { .. }) => break,
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(wanted)
    }

    fn wanted(&self, place: &Place, spot: Spot) -> Wanted {
        Wanted {
            group: place.group,
            index: place.index,
            spot,
        }
    }
}
