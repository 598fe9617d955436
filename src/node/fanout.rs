//! Fan-out: a subscriber is a cursor. What happens in a room is encoded once into the room's tail of recent bytes; a subscriber is a
//! position in that stream, and what it gets is a slice of the shared bytes. One that fell behind the tail reads blocks from the
//! log, which all who are at the same place share. So a slow reader costs its cursor, not a queue.
//!
//! A cursor always stands between two items: when a connection takes only a part of an item, [`Fanout::taken`] gives the rest away to
//! be kept with the connection's own output, at most one item. So a tail may be cut, and private answers sent, at any time.

use std::collections::{BTreeMap, BTreeSet};

use crate::chat::command::Item;
use crate::limits;
use crate::log::ReadFrom;
use crate::types::{ConnId, Position, RoomId, Seq};
use crate::wire::client::encode_item;

/// Items of one room, encoded one behind the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Block {
    /// The position of the first item.
    start: Position,
    /// Where each item begins in `bytes`.
    starts: Vec<usize>,
    bytes: Vec<u8>,
    /// When it was last used, for eviction.
    used: u64,
}

impl Block {
    fn new(start: Position) -> Block {
        Block {
            start,
            starts: Vec::new(),
            bytes: Vec::new(),
            used: 0,
        }
    }

    /// The position after the last item.
    fn next(&self) -> Position {
        Position(self.start.0 + self.starts.len() as u64)
    }

    fn holds(&self, at: Position) -> bool {
        self.start <= at && at < self.next()
    }

    fn push(&mut self, item: &Item<'_>) {
        self.starts.push(self.bytes.len());
        encode_item(item, &mut self.bytes);
    }

    /// Where the item at `at` begins; the end of the bytes for the position after the last.
    fn offset(&self, at: Position) -> usize {
        let ordinal = (at.0 - self.start.0) as usize;
        self.starts.get(ordinal).copied().unwrap_or(self.bytes.len())
    }

    /// The first item that begins at or after `offset`.
    fn first_from(&self, offset: usize) -> Position {
        Position(self.start.0 + self.starts.partition_point(|&start| start < offset) as u64)
    }

    /// Drops items from the front until at most `keep` bytes are left.
    fn trim(&mut self, keep: usize) {
        let cut = self.first_from(self.bytes.len().saturating_sub(keep));
        let offset = self.offset(cut);
        let items = (cut.0 - self.start.0) as usize;
        self.bytes.drain(..offset);
        self.starts.drain(..items);
        for start in &mut self.starts {
            *start -= offset;
        }
        self.start = cut;
    }
}

/// A room that has subscribers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stream {
    /// The most recent items.
    tail: Block,
    /// Older items, read from the log, by their first position.
    blocks: BTreeMap<Position, Block>,
    subscribers: BTreeSet<ConnId>,
    /// Questions to the reader that are not answered yet: all who wait at one place ask once.
    asked: Vec<(u64, ReadFrom)>,
}

/// Where a cursor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// At this item.
    Position(Position),
    /// After the message of this number; the reader knows the position.
    AfterSeq(Seq),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cursor {
    room: RoomId,
    at: At,
    /// The last item that it is to get.
    end: Option<Position>,
    /// The question whose answer it waits for.
    waits: Option<u64>,
}

impl Cursor {
    fn is_done(&self) -> bool {
        matches!((self.at, self.end), (At::Position(at), Some(end)) if at > end)
    }
}

/// A slice that was handed out and not yet taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Offer {
    conn: ConnId,
    cursor: usize,
    /// The block that it is from; `None` is the tail.
    block: Option<Position>,
    from: usize,
    to: usize,
}

/// A question that the reader should be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// By which the answer is told.
    pub token: u64,
    /// The room.
    pub room: RoomId,
    /// Where to begin.
    pub from: ReadFrom,
}

/// All streams and cursors of a server, for the native encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fanout {
    streams: BTreeMap<RoomId, Stream>,
    /// The cursors of a connection; the one at the front has the next turn.
    cursors: BTreeMap<ConnId, Vec<Cursor>>,
    offer: Option<Offer>,
    /// Bytes of all tails and blocks.
    bytes: usize,
    /// Counts uses of blocks and questions to the reader.
    clock: u64,
    wanted: Vec<Wanted>,
    ready: BTreeSet<ConnId>,
    done: BTreeSet<(ConnId, RoomId)>,
}

impl Fanout {
    /// Whether anybody subscribes to the room, so that its items must be encoded.
    #[must_use]
    pub fn has(&self, room: RoomId) -> bool {
        self.streams.contains_key(&room)
    }

    /// How many rooms a connection subscribes to.
    #[must_use]
    pub fn subscriptions(&self, conn: ConnId) -> usize {
        self.cursors.get(&conn).map_or(0, Vec::len)
    }

    /// Sends a room's items to a connection: from `from` on, up to `end`. `last` is the room's last item now. Takes the place of
    /// an earlier subscription of the connection to the room.
    pub fn subscribe(&mut self, conn: ConnId, room: RoomId, from: ReadFrom, end: Option<Position>, last: Position) {
        self.unsubscribe(conn, room);
        let stream = self.streams.entry(room).or_insert_with(|| Stream {
            tail: Block::new(last.next()),
            blocks: BTreeMap::new(),
            subscribers: BTreeSet::new(),
            asked: Vec::new(),
        });
        stream.subscribers.insert(conn);
        let at = match from {
            ReadFrom::Position(at) => At::Position(Position(at.0.max(1))),
            ReadFrom::AfterSeq(Seq(0)) => At::Position(Position(1)),
            ReadFrom::AfterSeq(seq) => At::AfterSeq(seq),
        };
        let cursor = Cursor {
            room,
            at,
            end,
            waits: None,
        };
        if cursor.is_done() {
            self.done.insert((conn, room));
        }
        self.cursors.entry(conn).or_default().push(cursor);
        self.ready.insert(conn);
    }

    /// Ends a subscription at once.
    pub fn unsubscribe(&mut self, conn: ConnId, room: RoomId) {
        self.offer = None;
        if let Some(cursors) = self.cursors.get_mut(&conn) {
            cursors.retain(|cursor| cursor.room != room);
            if cursors.is_empty() {
                self.cursors.remove(&conn);
            }
        }
        self.leave(conn, room);
    }

    /// The connection is gone.
    pub fn forget(&mut self, conn: ConnId) {
        self.offer = None;
        self.ready.remove(&conn);
        for cursor in self.cursors.remove(&conn).unwrap_or_default() {
            self.leave(conn, cursor.room);
        }
    }

    fn leave(&mut self, conn: ConnId, room: RoomId) {
        let Some(stream) = self.streams.get_mut(&room) else {
            return;
        };
        stream.subscribers.remove(&conn);
        if stream.subscribers.is_empty() {
            self.bytes -= stream.tail.bytes.len() + stream.blocks.values().map(|b| b.bytes.len()).sum::<usize>();
            self.streams.remove(&room);
        }
    }

    /// Something new stands in a room: it goes into the tail, and the room's subscribers are ready.
    pub fn publish(&mut self, item: &Item<'_>) {
        let streams = self.streams.len();
        let Some(stream) = self.streams.get_mut(&item.room) else {
            return;
        };
        assert_eq!(stream.tail.next(), item.position, "a room's items come in order");
        let before = stream.tail.bytes.len();
        stream.tail.push(item);
        let most = limits::TAIL_BYTES_MAX.min(limits::BLOCKS_BYTES_MAX / 2 / streams);
        if stream.tail.bytes.len() > most {
            // Half is kept, so that the move of bytes is rare.
            stream.tail.trim(most / 2);
        }
        self.bytes = self.bytes + stream.tail.bytes.len() - before;
        self.ready.extend(stream.subscribers.iter().copied());
    }

    /// The reader's answer: consecutive items from `start` on, perhaps none.
    pub fn answer(&mut self, token: u64, room: RoomId, start: Position, items: &[Item<'_>]) {
        let Some(stream) = self.streams.get_mut(&room) else {
            return;
        };
        let Some(at) = stream.asked.iter().position(|&(asked, _)| asked == token) else {
            return;
        };
        stream.asked.swap_remove(at);
        for conn in &stream.subscribers {
            let cursors = self.cursors.get_mut(conn).into_iter().flatten();
            for cursor in cursors.filter(|cursor| cursor.room == room && cursor.waits == Some(token)) {
                cursor.waits = None;
                if let At::AfterSeq(_) = cursor.at {
                    cursor.at = At::Position(start);
                }
                if cursor.is_done() {
                    self.done.insert((*conn, room));
                }
                self.ready.insert(*conn);
            }
        }
        if !items.is_empty() {
            let mut block = Block::new(start);
            for item in items {
                block.push(item);
            }
            self.clock += 1;
            block.used = self.clock;
            self.bytes += block.bytes.len();
            if let Some(old) = stream.blocks.insert(start, block) {
                self.bytes -= old.bytes.len();
            }
        }
        self.evict(room, start);
    }

    /// Drops the blocks that were unused for longest until all fit; the one just read stays, or nobody would get on.
    fn evict(&mut self, room: RoomId, start: Position) {
        while self.bytes > limits::BLOCKS_BYTES_MAX {
            let oldest = self
                .streams
                .iter()
                .flat_map(|(&room, stream)| stream.blocks.values().map(move |block| (block.used, room, block.start)))
                .filter(|&(_, r, s)| (r, s) != (room, start))
                .min();
            let Some((_, room, start)) = oldest else { return };
            let block = self
                .streams
                .get_mut(&room)
                .and_then(|stream| stream.blocks.remove(&start));
            self.bytes -= block.map_or(0, |block| block.bytes.len());
        }
    }

    /// The next whole items for a connection. None: nothing now; the connection will be among the ready ones when there is.
    pub fn pump(&mut self, conn: ConnId) -> Option<&[u8]> {
        self.offer(conn);
        self.offered()
    }

    /// Looks for the next whole items for a connection; [`Fanout::offered`] has them.
    pub fn offer(&mut self, conn: ConnId) {
        let rooms = self.cursors.get(&conn).map_or(0, Vec::len);
        self.offer = (0..rooms).find_map(|turn| self.offer_of(conn, turn));
    }

    /// The slice that [`Fanout::offer`] found.
    #[must_use]
    pub fn offered(&self) -> Option<&[u8]> {
        let offer = self.offer.as_ref()?;
        self.block(offer)?.bytes.get(offer.from..offer.to)
    }

    /// Whether there is a question to the reader, or a subscription that has come to its end.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.wanted.is_empty() || !self.done.is_empty()
    }

    fn block(&self, offer: &Offer) -> Option<&Block> {
        let cursor = self.cursors.get(&offer.conn)?.get(offer.cursor)?;
        let stream = self.streams.get(&cursor.room)?;
        match offer.block {
            None => Some(&stream.tail),
            Some(start) => stream.blocks.get(&start),
        }
    }

    fn offer_of(&mut self, conn: ConnId, index: usize) -> Option<Offer> {
        let cursor = self.cursors.get_mut(&conn)?.get_mut(index)?;
        let stream = self.streams.get_mut(&cursor.room)?;
        if cursor.waits.is_some() || cursor.is_done() {
            return None;
        }
        let mut from_block = None;
        if let At::Position(at) = cursor.at {
            if at >= stream.tail.next() {
                return None;
            }
            let block = if stream.tail.holds(at) {
                Some(&mut stream.tail)
            } else {
                let found = stream.blocks.range_mut(..=at).next_back().map(|(_, block)| block);
                found
                    .filter(|block| block.holds(at))
                    .inspect(|block| from_block = Some(block.start))
            };
            if let Some(block) = block {
                self.clock += 1;
                block.used = self.clock;
                let end = cursor.end.map_or(block.next(), |end| block.next().min(end.next()));
                let from = block.offset(at);
                let mut to = block.offset(end);
                if to - from > limits::SEND_BYTES_PER_TURN {
                    let cut = block.first_from(from + limits::SEND_BYTES_PER_TURN).min(end);
                    to = block.offset(cut);
                }
                return Some(Offer {
                    conn,
                    cursor: index,
                    block: from_block,
                    from,
                    to,
                });
            }
        }
        let from = match cursor.at {
            At::Position(at) => ReadFrom::Position(at),
            At::AfterSeq(seq) => ReadFrom::AfterSeq(seq),
        };
        let pending = stream.asked.iter().find(|(_, asked)| *asked == from);
        let token = match pending {
            Some(&(token, _)) => token,
            None => {
                self.clock += 1;
                stream.asked.push((self.clock, from));
                self.wanted.push(Wanted {
                    token: self.clock,
                    room: cursor.room,
                    from,
                });
                self.clock
            }
        };
        cursor.waits = Some(token);
        None
    }

    /// The connection has taken `n` bytes of the slice that `pump` gave. What is left of the item that was cut into is appended to
    /// `rest`: the connection keeps it and sends it before anything else.
    pub fn taken(&mut self, conn: ConnId, n: usize, rest: &mut Vec<u8>) {
        let Some(offer) = self.offer.take().filter(|offer| offer.conn == conn) else {
            return;
        };
        let Some(block) = self.block(&offer) else { return };
        let sent = (offer.from + n).min(offer.to);
        let at = block.first_from(sent);
        let boundary = block.offset(at);
        rest.extend_from_slice(&block.bytes[sent..boundary]);
        let Some(cursors) = self.cursors.get_mut(&conn) else {
            return;
        };
        cursors[offer.cursor].at = At::Position(at);
        if cursors[offer.cursor].is_done() {
            self.done.insert((conn, cursors[offer.cursor].room));
        }
        // The other cursors of the connection have their turn before this one's next.
        cursors.rotate_left(offer.cursor + 1);
    }

    /// Subscriptions that have come to their end since the last call; they are gone now.
    pub fn drain_done(&mut self) -> BTreeSet<(ConnId, RoomId)> {
        let done = std::mem::take(&mut self.done);
        for &(conn, room) in &done {
            self.unsubscribe(conn, room);
        }
        done
    }

    /// Connections for which there may be something since the last call.
    pub fn drain_ready(&mut self) -> BTreeSet<ConnId> {
        std::mem::take(&mut self.ready)
    }

    /// Questions to the reader since the last call.
    pub fn drain_wanted(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::command::{Content, Stamp};
    use crate::types::{ClientSeq, SessionId};
    use crate::wire::client::{Item as WireItem, Response, decode_response};
    use crate::wire::frame::{Split, split};

    const ROOM: RoomId = RoomId(1);
    const ANN: ConnId = ConnId(1);
    const BOB: ConnId = ConnId(2);

    fn item(position: u64, text: &str) -> Item<'_> {
        Item {
            room: ROOM,
            position: Position(position),
            seq: Seq(position),
            stamp: Stamp::default(),
            session: SessionId(0),
            client_seq: ClientSeq(0),
            content: Content::Message { user: "u", text },
        }
    }

    /// What a client makes of the bytes: the positions of whole items; panics at a torn one.
    fn positions(mut bytes: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let Split::Complete { body, consumed } = split(bytes, 1 << 20) else {
                panic!("a torn item")
            };
            let Ok(Response::Item(WireItem { position, .. })) = decode_response(body) else {
                panic!("not an item")
            };
            found.push(position.0);
            bytes = &bytes[consumed..];
        }
        found
    }

    /// Reads all that is there, `most` bytes a time, and answers questions from a history of `last` items.
    fn read_all(fanout: &mut Fanout, conn: ConnId, most: usize, last: u64) -> Vec<u8> {
        let mut got = Vec::new();
        loop {
            while let Some(slice) = fanout.pump(conn) {
                let n = slice.len().min(most);
                got.extend_from_slice(&slice[..n]);
                fanout.taken(conn, n, &mut got);
            }
            let wanted = fanout.drain_wanted();
            if wanted.is_empty() {
                return got;
            }
            for Wanted { token, room, from } in wanted {
                let start = match from {
                    ReadFrom::Position(at) => at.0,
                    ReadFrom::AfterSeq(seq) => seq.0 + 1,
                };
                let items: Vec<Item<'_>> = (start..=last).take(7).map(|at| item(at, "old")).collect();
                fanout.answer(token, room, Position(start), &items);
            }
        }
    }

    #[test]
    fn history_catching_up_and_live_are_one_stream_without_gap_or_repeat() {
        for most in [1, 10, 50, 1 << 20] {
            let mut fanout = Fanout::default();
            fanout.subscribe(ANN, ROOM, ReadFrom::Position(Position(1)), None, Position(100));
            for at in 101..=120 {
                fanout.publish(&item(at, "new"));
            }
            let mut got = read_all(&mut fanout, ANN, most, 120);
            fanout.publish(&item(121, "live"));
            got.extend(read_all(&mut fanout, ANN, most, 121));
            assert_eq!(positions(&got), (1..=121).collect::<Vec<u64>>(), "{most} bytes a time");
        }
    }

    #[test]
    fn a_subscription_ends_at_its_last_item_and_says_so_once() {
        let mut fanout = Fanout::default();
        fanout.subscribe(
            ANN,
            ROOM,
            ReadFrom::AfterSeq(Seq(90)),
            Some(Position(95)),
            Position(100),
        );
        assert_eq!(
            positions(&read_all(&mut fanout, ANN, 1000, 100)),
            vec![91, 92, 93, 94, 95]
        );
        assert_eq!(fanout.drain_done().into_iter().collect::<Vec<_>>(), vec![(ANN, ROOM)]);
        assert!(fanout.drain_done().is_empty());
        assert!(!fanout.has(ROOM), "a room without subscribers costs nothing");
        assert_eq!(fanout.bytes, 0);
    }

    #[test]
    fn an_empty_stretch_ends_at_once() {
        let mut fanout = Fanout::default();
        fanout.subscribe(
            ANN,
            ROOM,
            ReadFrom::Position(Position(1)),
            Some(Position(0)),
            Position(0),
        );
        assert_eq!(fanout.drain_done().len(), 1);
        fanout.subscribe(ANN, ROOM, ReadFrom::AfterSeq(Seq(9)), Some(Position(9)), Position(9));
        assert!(read_all(&mut fanout, ANN, 100, 9).is_empty());
        assert_eq!(fanout.drain_done().len(), 1);
    }

    #[test]
    fn readers_at_one_place_ask_once() {
        let mut fanout = Fanout::default();
        for conn in [ANN, BOB] {
            fanout.subscribe(conn, ROOM, ReadFrom::Position(Position(1)), None, Position(100));
            assert!(fanout.pump(conn).is_none());
        }
        assert_eq!(fanout.drain_wanted().len(), 1);
    }

    #[test]
    fn a_slow_reader_costs_no_queue() {
        let mut fanout = Fanout::default();
        fanout.subscribe(ANN, ROOM, ReadFrom::Position(Position(1)), None, Position(0));
        let text = "x".repeat(1000);
        for at in 1..=10_000 {
            fanout.publish(&item(at, &text));
        }
        assert!(fanout.bytes <= limits::TAIL_BYTES_MAX, "{}", fanout.bytes);
        assert_eq!(
            positions(&read_all(&mut fanout, ANN, 100_000, 10_000)),
            (1..=10_000).collect::<Vec<u64>>()
        );
        assert!(fanout.bytes <= limits::BLOCKS_BYTES_MAX);
        fanout.forget(ANN);
        assert_eq!(fanout.bytes, 0);
    }

    #[test]
    fn rooms_of_one_connection_take_turns() {
        let mut fanout = Fanout::default();
        let other = RoomId(2);
        fanout.subscribe(ANN, ROOM, ReadFrom::Position(Position(1)), None, Position(0));
        fanout.subscribe(ANN, other, ReadFrom::Position(Position(1)), None, Position(0));
        for at in 1..=3 {
            fanout.publish(&item(at, "x"));
            fanout.publish(&Item {
                room: other,
                ..item(at, "y")
            });
        }
        let mut rooms = Vec::new();
        while let Some(slice) = fanout.pump(ANN) {
            let Split::Complete { body, consumed } = split(slice, 1 << 20) else {
                panic!()
            };
            let Ok(Response::Item(item)) = decode_response(body) else {
                panic!()
            };
            rooms.push(item.room.0);
            fanout.taken(ANN, consumed, &mut Vec::new());
        }
        assert_eq!(rooms, vec![1, 2, 1, 2, 1, 2]);
    }
}
