//! Which entry stands at which place of a room: room → position → (log index, number). Fed with what was applied, read when
//! history is asked for. About two and a half bytes an item.

use std::collections::BTreeMap;

use super::packed::Packed;
use super::{ItemRef, ReadFrom};
use crate::types::{GroupId, LogIndex, Position, RoomId, Seq};

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

/// The items of a room in the order of their positions, from 1 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Room {
    group: GroupId,
    indexes: Packed,
    /// A bit for each item: is it a message? 128 in each.
    messages: Vec<u128>,
    /// How many messages there are before each of those.
    before: Vec<u64>,
    /// How many messages there are.
    count: u64,
}

impl RoomIndex {
    /// An item was applied. One that is known already is left as it is.
    ///
    /// # Panics
    /// If an item of the room is missed out, or its number, entry or group can't be: the node tells all of them, in order.
    pub fn put(&mut self, item: &ItemRef) {
        let room = self.rooms.entry(item.room).or_insert_with(|| Room {
            group: item.group,
            indexes: Packed::new(),
            messages: Vec::new(),
            before: Vec::new(),
            count: 0,
        });
        let length = room.indexes.len() as u64;
        if item.position.0 <= length {
            return;
        }
        assert_eq!(item.position.0, length + 1, "the items of a room are told in order");
        assert_eq!(item.group, room.group, "a room is in one group");
        assert!(
            room.indexes.last().is_none_or(|last| last < item.index.0),
            "the items of a room stand in entries of ascending index"
        );
        let bit = length % 128;
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

    /// The position at which reading begins: at most that of the item to come.
    #[must_use]
    pub fn start(&self, room: RoomId, from: ReadFrom) -> Position {
        let Some(room) = self.rooms.get(&room) else {
            return Position(1);
        };
        let next = room.indexes.len() as u64 + 1;
        match from {
            ReadFrom::Position(position) => Position(position.0.clamp(1, next)),
            ReadFrom::AfterSeq(Seq(0)) => Position(1),
            ReadFrom::AfterSeq(seq) => Position(room.position_of(seq).map_or(next, |position| position + 1)),
        }
    }

    /// The items from a position on, at most `count`.
    #[must_use]
    pub fn range(&self, room: RoomId, from: Position, count: usize) -> Vec<Place> {
        let Some(room) = self.rooms.get(&room) else {
            return Vec::new();
        };
        let at = usize::try_from(from.0.saturating_sub(1)).unwrap_or(usize::MAX);
        let places = room.indexes.iter_from(at).take(count).zip(at..);
        places
            .map(|(index, at)| Place {
                position: Position(at as u64 + 1),
                seq: room.seq(at),
                group: room.group,
                index: LogIndex(index),
            })
            .collect()
    }
}

impl Room {
    /// The number of the item at a place (counted from 0), 0 if it isn't a message.
    fn seq(&self, at: usize) -> Seq {
        let (Some(&bits), Some(&before)) = (self.messages.get(at / 128), self.before.get(at / 128)) else {
            return Seq(0);
        };
        let bit = at % 128;
        if bits >> bit & 1 == 0 {
            return Seq(0);
        }
        Seq(before + u64::from((bits << (127 - bit)).count_ones()))
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
        Some((chunk * 128) as u64 + u64::from(bits.trailing_zeros()) + 1)
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
            let (mut seq, mut index) = (0, 0);
            for position in 1..=rng.between(1, 700) {
                index += rng.between(1, 200);
                let message = rng.chance(80);
                seq += u64::from(message);
                items.push(item(position, if message { seq } else { 0 }, index));
            }
            items.iter().for_each(|item| rooms.put(item));
            // Told once more: nothing changes.
            items.iter().for_each(|item| rooms.put(item));
            let next = items.len() as u64 + 1;
            for item in &items {
                let from = rooms.start(ROOM, ReadFrom::Position(item.position));
                assert_eq!(from, item.position);
                let place = rooms.range(ROOM, from, 1)[0];
                let (position, seq, index) = (place.position, place.seq, place.index);
                assert_eq!((position, seq, index), (item.position, item.seq, item.index));
                if item.seq != Seq(0) {
                    let after = rooms.start(ROOM, ReadFrom::AfterSeq(item.seq));
                    assert_eq!(after, item.position.next());
                }
            }
            assert_eq!(rooms.range(ROOM, Position(1), usize::MAX).len(), items.len());
            assert_eq!(rooms.start(ROOM, ReadFrom::AfterSeq(Seq(seq + 1))), Position(next));
            assert_eq!(rooms.start(ROOM, ReadFrom::AfterSeq(Seq(0))), Position(1));
            assert_eq!(
                rooms.start(ROOM, ReadFrom::Position(Position(next + 9))),
                Position(next)
            );
            assert_eq!(rooms.start(ROOM, ReadFrom::Position(Position(0))), Position(1));
            assert!(rooms.range(ROOM, Position(next), 9).is_empty());
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
        assert_eq!(rooms.start(RoomId(6), ReadFrom::AfterSeq(Seq(3))), Position(1));
        assert!(rooms.range(RoomId(6), Position(1), 9).is_empty());
    }

    #[test]
    #[should_panic(expected = "told in order")]
    fn an_item_left_out_is_a_broken_promise() {
        RoomIndex::default().put(&item(2, 1, 7));
    }
}
