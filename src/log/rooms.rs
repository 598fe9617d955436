//! Which entry stands at which place of a room: room → position → (log index, number), for the items of entries that no index
//! file knows of yet. Fed with what was applied, read when history is asked for. About two and a half bytes an item; of what came
//! before only how many items and messages there were.

use std::collections::BTreeMap;

use super::ItemRef;
use super::packed::Packed;
use crate::types::{GroupId, LogIndex, Position, RoomId, Seq};

/// Items whose bits are in one number: as many as the chunks of [`Packed`] have, so that both are cut at the same places.
const CHUNK: usize = 128;

/// The index of all rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RoomIndex {
    rooms: BTreeMap<RoomId, Room>,
}

/// Where an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its place in the room.
    pub position: Position,
    /// Its number if it is a message, else 0.
    pub seq: Seq,
    /// The group that the entry is in.
    pub group: GroupId,
    /// The entry.
    pub index: LogIndex,
}

/// The items of a room in the order of their positions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Room {
    group: GroupId,
    /// How many items there are before those in memory.
    base: u64,
    indexes: Packed,
    /// A bit for each item: is it a message? 128 in each.
    messages: Vec<u128>,
    /// How many messages the room has before each of those.
    before: Vec<u64>,
    /// How many messages the room has.
    count: u64,
}

impl RoomIndex {
    /// Forgets everything: the rooms begin at these last positions and numbers.
    pub fn seed(&mut self, rooms: impl IntoIterator<Item = (RoomId, Position, Seq)>) {
        let rooms = rooms.into_iter();
        let rooms = rooms.map(|(room, position, seq)| (room, Room::new(GroupId::ROOT, position, seq)));
        self.rooms = rooms.collect();
    }

    /// An item was applied. One that is known already is left as it is.
    ///
    /// # Panics
    /// If an item of the room is missed out, or its number, entry or group can't be: the node tells all of them, in order.
    pub fn put(&mut self, item: &ItemRef) {
        let room = self.rooms.entry(item.room);
        let room = room.or_insert_with(|| Room::new(item.group, Position(0), Seq(0)));
        let length = room.indexes.len() as u64;
        if item.position.0 <= room.base + length {
            return;
        }
        assert_eq!(
            item.position.0,
            room.base + length + 1,
            "the items of a room are told in order"
        );
        if length == 0 {
            room.group = item.group;
        }
        assert_eq!(item.group, room.group, "a room is in one group");
        assert!(
            room.indexes.last().is_none_or(|last| last < item.index.0),
            "the items of a room stand in entries of ascending index"
        );
        let bit = length % CHUNK as u64;
        if bit == 0 {
            room.messages.push(0);
            room.before.push(room.count);
        }
        if item.seq != Seq(0) {
            room.count += 1;
            assert_eq!(
                item.seq.0, room.count,
                "the messages of a room are numbered without gaps"
            );
            if let Some(bits) = room.messages.last_mut() {
                *bits |= 1 << bit;
            }
        }
        room.indexes.push(item.index.0);
    }

    /// Forgets items of entries of a group up to this one: files know of them. Some of the last may stay.
    pub fn forget(&mut self, group: GroupId, last: LogIndex) {
        for room in self.rooms.values_mut().filter(|room| room.group == group) {
            room.forget(room.indexes.lower_bound(last.0.saturating_add(1)));
        }
    }

    /// The group that a room is in.
    #[must_use]
    pub fn group(&self, room: RoomId) -> GroupId {
        self.rooms.get(&room).map_or(GroupId::ROOT, |room| room.group)
    }

    /// The position of the first item that is known here, or of the item to come, and how many messages are before it.
    #[must_use]
    pub fn first(&self, room: RoomId) -> (Position, Seq) {
        let Some(room) = self.rooms.get(&room) else {
            return (Position(1), Seq(0));
        };
        (Position(room.base + 1), Seq(room.first_messages()))
    }

    /// The position of the item to come, and how many messages there are.
    #[must_use]
    pub fn next(&self, room: RoomId) -> (Position, Seq) {
        let Some(room) = self.rooms.get(&room) else {
            return (Position(1), Seq(0));
        };
        (Position(room.base + room.indexes.len() as u64 + 1), Seq(room.count))
    }

    /// The position of the first item that is known here and of an entry after this one, or of the item to come.
    #[must_use]
    pub fn first_after(&self, room: RoomId, index: LogIndex) -> Position {
        let Some(room) = self.rooms.get(&room) else {
            return Position(1);
        };
        Position(room.base + room.indexes.lower_bound(index.0.saturating_add(1)) as u64 + 1)
    }

    /// How many messages a room has before a position; at least those before the first item that is known here.
    #[must_use]
    pub fn messages_before(&self, room: RoomId, position: Position) -> Seq {
        let Some(room) = self.rooms.get(&room) else {
            return Seq(0);
        };
        Seq(room.messages_before(position.0.saturating_sub(room.base + 1)))
    }

    /// The position of the message of that number, if it is known here.
    #[must_use]
    pub fn position_of(&self, room: RoomId, seq: Seq) -> Option<Position> {
        self.rooms.get(&room)?.position_of(seq).map(Position)
    }

    /// The items from a position on, at most `count`, as far as they are known here.
    #[must_use]
    pub fn range(&self, room: RoomId, from: Position, count: usize) -> Vec<Place> {
        let Some(room) = self.rooms.get(&room) else {
            return Vec::new();
        };
        let Some(at) = from.0.checked_sub(room.base + 1) else {
            return Vec::new();
        };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let places = room.indexes.iter_from(at).take(count).zip(at..);
        places
            .map(|(index, at)| Place {
                position: Position(room.base + at as u64 + 1),
                seq: room.seq(at),
                group: room.group,
                index: LogIndex(index),
            })
            .collect()
    }

    /// Bytes of memory that the index takes, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        let rooms = self.rooms.values().map(|room| {
            let messages = room.messages.capacity() * 16 + room.before.capacity() * 8;
            room.indexes.memory() + messages + size_of::<Room>() + 16
        });
        rooms.sum()
    }
}

impl Room {
    fn new(group: GroupId, last: Position, messages: Seq) -> Room {
        Room {
            group,
            base: last.0,
            indexes: Packed::new(),
            messages: Vec::new(),
            before: Vec::new(),
            count: messages.0,
        }
    }

    /// Forgets the first items: all of them, or whole chunks.
    fn forget(&mut self, items: usize) {
        if items >= self.indexes.len() {
            *self = Room::new(
                self.group,
                Position(self.base + self.indexes.len() as u64),
                Seq(self.count),
            );
            return;
        }
        let dropped = self.indexes.drop_front(items);
        self.base += dropped as u64;
        self.messages.drain(..dropped / CHUNK);
        self.before.drain(..dropped / CHUNK);
        self.messages.shrink_to_fit();
        self.before.shrink_to_fit();
    }

    fn first_messages(&self) -> u64 {
        self.before.first().copied().unwrap_or(self.count)
    }

    /// The number of the item at a place (counted from 0), 0 if it isn't a message.
    fn seq(&self, at: usize) -> Seq {
        let (Some(&bits), Some(&before)) = (self.messages.get(at / CHUNK), self.before.get(at / CHUNK)) else {
            return Seq(0);
        };
        let bit = at % CHUNK;
        if bits >> bit & 1 == 0 {
            return Seq(0);
        }
        Seq(before + u64::from((bits << (CHUNK - 1 - bit)).count_ones()))
    }

    /// How many messages there are before the item at a place (counted from 0).
    fn messages_before(&self, at: u64) -> u64 {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let (Some(&bits), Some(&before)) = (self.messages.get(at / CHUNK), self.before.get(at / CHUNK)) else {
            return self.count;
        };
        let below = (1u128 << (at % CHUNK)) - 1;
        before + u64::from((bits & below).count_ones())
    }

    /// The position of the message of that number.
    fn position_of(&self, seq: Seq) -> Option<u64> {
        if seq.0 > self.count {
            return None;
        }
        let chunk = self.before.partition_point(|&before| before < seq.0).checked_sub(1)?;
        let mut bits = *self.messages.get(chunk)?;
        for _ in self.before.get(chunk)? + 1..seq.0 {
            bits &= bits - 1;
        }
        Some(self.base + (chunk * CHUNK) as u64 + u64::from(bits.trailing_zeros()) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const ROOM: RoomId = RoomId(4);

    fn item(position: u64, seq: u64, index: u64) -> ItemRef {
        ItemRef {
            room: ROOM,
            position: Position(position),
            seq: Seq(seq),
            group: GroupId::ROOT,
            index: LogIndex(index),
        }
    }

    #[test]
    fn every_position_and_number_is_found() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let (mut rooms, mut items) = (RoomIndex::default(), Vec::new());
            let (base, mut seq, mut index) = (rng.below(300), rng.below(2) * 100, 1000);
            let base_seq = seq;
            rooms.seed([(ROOM, Position(base), Seq(seq))]);
            for position in base + 1..=base + rng.between(1, 700) {
                index += rng.between(1, 200);
                let message = rng.chance(80);
                seq += u64::from(message);
                items.push(item(position, if message { seq } else { 0 }, index));
            }
            items.iter().for_each(|item| rooms.put(item));
            // Told once more: nothing changes.
            items.iter().for_each(|item| rooms.put(item));
            let next = base + items.len() as u64 + 1;
            assert_eq!(rooms.next(ROOM), (Position(next), Seq(seq)));
            assert_eq!(rooms.first(ROOM), (Position(base + 1), Seq(base_seq)));
            for round in 0..3 {
                let (first, before) = rooms.first(ROOM);
                let known = (first.0 - base - 1) as usize;
                assert!(round > 0 || known == 0);
                let mut messages = before;
                for item in &items[known..] {
                    let place = rooms.range(ROOM, item.position, 1)[0];
                    let (position, number, index) = (place.position, place.seq, place.index);
                    assert_eq!((position, number, index), (item.position, item.seq, item.index));
                    assert_eq!(rooms.messages_before(ROOM, item.position), messages);
                    assert_eq!(rooms.first_after(ROOM, LogIndex(item.index.0 - 1)), item.position);
                    assert_eq!(rooms.first_after(ROOM, item.index), item.position.next());
                    if item.seq != Seq(0) {
                        messages = item.seq;
                        assert_eq!(rooms.position_of(ROOM, item.seq), Some(item.position));
                    }
                }
                assert_eq!(rooms.range(ROOM, first, usize::MAX).len(), items.len() - known);
                assert!(rooms.range(ROOM, first.previous(), usize::MAX).is_empty());
                assert_eq!(rooms.position_of(ROOM, Seq(seq + 1)), None);
                assert_eq!(rooms.messages_before(ROOM, Position(next)), Seq(seq));
                assert!(rooms.range(ROOM, Position(next), 9).is_empty());
                // What files know is forgotten, but for less than a chunk.
                let gone = (items.len() / 2 + known / 2).max(known);
                rooms.forget(GroupId::ROOT, LogIndex(items[gone].index.0 - 1));
                let left = rooms.range(ROOM, rooms.first(ROOM).0, usize::MAX).len();
                assert!(left >= items.len() - gone && left < items.len() - gone + CHUNK);
            }
            rooms.forget(GroupId::ROOT, LogIndex(index));
            assert_eq!(rooms.first(ROOM), (Position(next), Seq(seq)));
            rooms.put(&item(next, seq + 1, index + 1));
            assert_eq!(rooms.position_of(ROOM, Seq(seq + 1)), Some(Position(next)));
        }
    }

    #[test]
    fn rooms_share_entries_but_nothing_else() {
        let mut rooms = RoomIndex::default();
        rooms.put(&item(1, 1, 7));
        rooms.put(&ItemRef {
            room: RoomId(5),
            ..item(1, 0, 7)
        });
        assert_eq!(rooms.range(ROOM, Position(1), 9).len(), 1);
        assert_eq!(rooms.range(RoomId(5), Position(1), 9)[0].seq, Seq(0));
        assert_eq!(rooms.next(RoomId(6)), (Position(1), Seq(0)));
        assert!(rooms.range(RoomId(6), Position(1), 9).is_empty());
    }

    #[test]
    fn memory_does_not_grow_with_what_files_know() {
        let mut rooms = RoomIndex::default();
        for index in 1..=1_000_000 {
            let position = (index - 1) / 100 + 1;
            rooms.put(&ItemRef {
                room: RoomId(index % 100),
                ..item(position, position, index)
            });
            if index % 10_000 == 0 {
                rooms.forget(GroupId::ROOT, LogIndex(index));
                assert!(rooms.memory() < 50_000, "{} bytes", rooms.memory());
            }
        }
    }

    #[test]
    #[should_panic(expected = "told in order")]
    fn an_item_left_out_is_a_broken_promise() {
        RoomIndex::default().put(&item(2, 1, 7));
    }
}
