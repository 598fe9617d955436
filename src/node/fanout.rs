//! Fan-out: a subscriber is a cursor. What happens in a room is encoded once into the room's tail of recent bytes; a subscriber is a
//! position in that stream, and what it gets is a slice of the shared bytes. One that fell behind the tail reads blocks from the
//! log, which all who are at the same place share. So a slow reader costs its cursor, not a queue.
//!
//! What isn't kept any more is a gap: when the reader's answer begins later than a cursor stands, the cursor jumps there, and before the
//! items it is handed a frame of its own that says so.
//!
//! A cursor always stands between two items: when a connection takes only a part of an item, [`Fanout::taken`] gives the rest away to
//! be kept with the connection's own output, at most one item. So a tail may be cut, and private answers sent, at any time.

use std::collections::{BTreeMap, BTreeSet};

use crate::chat::command::Item;
use crate::limits;
use crate::log::ReadFrom;
use crate::types::{ConnId, Position, RoomId, Seq};
use crate::wire::client::{Response, encode_item, encode_response};

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
    /// Something new stands in it since its subscribers were last told.
    is_fresh: bool,
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
    /// The frame that says what it has missed, to be handed out before anything else.
    gap: Option<Vec<u8>>,
}

impl Cursor {
    fn is_done(&self) -> bool {
        self.gap.is_none() && matches!((self.at, self.end), (At::Position(at), Some(end)) if at > end)
    }

    /// The answer begins at `start`, and the room has had so many messages before: if that is later than this cursor stands, it jumps.
    fn found(&mut self, start: Position, before: Seq) {
        let (first, first_seq) = match self.at {
            At::Position(at) if start <= at => return,
            At::Position(Position(1)) => (Position(1), Seq(1)),
            At::Position(at) => (at, Seq(0)),
            At::AfterSeq(seq) if before <= seq => {
                // What isn't a message may be missing between that message and the first that is kept; nobody asked for that.
                self.at = At::Position(start);
                return;
            }
            At::AfterSeq(seq) => (Position(0), seq.next()),
        };
        self.at = At::Position(start);
        let mut frame = Vec::new();
        let gap = Response::Gap {
            room: self.room,
            positions: (first, start.previous()),
            seqs: (first_seq, before),
        };
        encode_response(&gap, &mut frame);
        self.gap = Some(frame);
    }
}

/// Whose bytes are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Tail,
    /// The block that begins there.
    Block(Position),
    /// What the cursor alone is told.
    Gap,
}

/// A slice that was handed out and not yet taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Offer {
    conn: ConnId,
    cursor: usize,
    source: Source,
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
    /// Connections for which there may be something; some stand here more than once.
    ready: Vec<ConnId>,
    /// Rooms in which something new stands: all their subscribers are ready.
    fresh: Vec<RoomId>,
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
            is_fresh: false,
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
            gap: None,
        };
        if cursor.is_done() {
            self.done.insert((conn, room));
        }
        // Most follow one room: memory for four would cost them three.
        let cursors = self.cursors.entry(conn).or_default();
        cursors.reserve_exact(1);
        cursors.push(cursor);
        self.ready.push(conn);
    }

    /// Ends a subscription at once.
    pub fn unsubscribe(&mut self, conn: ConnId, room: RoomId) {
        self.offer = None;
        // The end of this one must not be taken for that of its successor.
        self.done.remove(&(conn, room));
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
        self.ready.retain(|ready| *ready != conn);
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
        // Once a turn, not once an item.
        if !std::mem::replace(&mut stream.is_fresh, true) {
            self.fresh.push(item.room);
        }
        if self.bytes > limits::BLOCKS_BYTES_MAX {
            self.evict(item.room, Position(0));
        }
    }

    /// What was read or heard may not be shown any more: everything but what is yet to come is to be read again.
    pub fn trim(&mut self) {
        let rooms: Vec<_> = self
            .streams
            .iter()
            .map(|(&room, stream)| (room, stream.tail.next().previous()))
            .collect();
        self.reset(rooms);
    }

    /// The rooms begin anew behind these last positions, which may be later than where they were. Cursors go on from where they are,
    /// through the reader.
    pub fn reset(&mut self, rooms: impl IntoIterator<Item = (RoomId, Position)>) {
        self.offer = None;
        for (room, last) in rooms {
            let Some(stream) = self.streams.get_mut(&room) else {
                continue;
            };
            let blocks = stream.blocks.values().map(|block| block.bytes.len()).sum::<usize>();
            self.bytes -= stream.tail.bytes.len() + blocks;
            stream.tail = Block::new(last.next());
            stream.blocks.clear();
            self.ready.extend(stream.subscribers.iter().copied());
        }
    }

    /// The reader's answer: consecutive items from `start` on, perhaps none; the room has had so many messages before.
    pub fn answer(&mut self, token: u64, room: RoomId, start: Position, before: Seq, items: &[Item<'_>]) {
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
                cursor.found(start, before);
                if cursor.is_done() {
                    self.done.insert((*conn, room));
                }
                self.ready.push(*conn);
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
            let Some((_, room, start)) = oldest else {
                return self.trim_tails();
            };
            let block = self
                .streams
                .get_mut(&room)
                .and_then(|stream| stream.blocks.remove(&start));
            self.bytes -= block.map_or(0, |block| block.bytes.len());
        }
    }

    /// Tails of rooms in which nothing happens any more give way too: their items are in the log.
    fn trim_tails(&mut self) {
        let most = limits::BLOCKS_BYTES_MAX / 2 / self.streams.len().max(1);
        for stream in self.streams.values_mut() {
            let before = stream.tail.bytes.len();
            stream.tail.trim(most);
            self.bytes = self.bytes + stream.tail.bytes.len() - before;
        }
    }

    /// Looks for the next whole items for a connection; [`Fanout::offered`] has them. If there are none, the connection will be among
    /// the ready ones when there are.
    pub fn offer(&mut self, conn: ConnId) {
        let rooms = self.cursors.get(&conn).map_or(0, Vec::len);
        self.offer = (0..rooms).find_map(|turn| self.offer_of(conn, turn));
    }

    /// The slice that [`Fanout::offer`] found.
    #[must_use]
    pub fn offered(&self) -> Option<&[u8]> {
        let offer = self.offer.as_ref()?;
        let bytes = match offer.source {
            Source::Gap => self.cursor(offer)?.gap.as_ref()?,
            _ => &self.block(offer)?.bytes,
        };
        bytes.get(offer.from..offer.to)
    }

    /// Whether there is a question to the reader, or a subscription that has come to its end.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.wanted.is_empty() || !self.done.is_empty()
    }

    fn cursor(&self, offer: &Offer) -> Option<&Cursor> {
        self.cursors.get(&offer.conn)?.get(offer.cursor)
    }

    fn block(&self, offer: &Offer) -> Option<&Block> {
        let stream = self.streams.get(&self.cursor(offer)?.room)?;
        match offer.source {
            Source::Tail => Some(&stream.tail),
            Source::Block(start) => stream.blocks.get(&start),
            Source::Gap => None,
        }
    }

    fn offer_of(&mut self, conn: ConnId, index: usize) -> Option<Offer> {
        let cursor = self.cursors.get_mut(&conn)?.get_mut(index)?;
        let stream = self.streams.get_mut(&cursor.room)?;
        if cursor.waits.is_some() || cursor.is_done() {
            return None;
        }
        if let Some(gap) = &cursor.gap {
            return Some(Offer {
                conn,
                cursor: index,
                source: Source::Gap,
                from: 0,
                to: gap.len(),
            });
        }
        let mut source = Source::Tail;
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
                    .inspect(|block| source = Source::Block(block.start))
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
                    source,
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

    /// The connection has taken `n` bytes of the slice that was offered. What is left of the item that was cut into is appended to
    /// `rest`: the connection keeps it and sends it before anything else.
    pub fn taken(&mut self, conn: ConnId, n: usize, rest: &mut Vec<u8>) {
        let Some(offer) = self.offer.take().filter(|offer| offer.conn == conn) else {
            return;
        };
        if offer.source == Source::Gap {
            return self.gap_taken(&offer, n, rest);
        }
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

    /// As [`Fanout::taken`], of what a cursor was told of a gap. It keeps its turn: the items behind the gap come next.
    fn gap_taken(&mut self, offer: &Offer, n: usize, rest: &mut Vec<u8>) {
        let cursor = self
            .cursors
            .get_mut(&offer.conn)
            .and_then(|cursors| cursors.get_mut(offer.cursor));
        if let Some(cursor) = cursor.filter(|_| n > 0)
            && let Some(gap) = cursor.gap.take()
        {
            rest.extend_from_slice(gap.get(n..).unwrap_or_default());
            if cursor.is_done() {
                self.done.insert((offer.conn, cursor.room));
            }
        }
    }

    /// Subscriptions that have come to their end since the last call; they are gone now.
    pub fn drain_done(&mut self) -> BTreeSet<(ConnId, RoomId)> {
        let done = std::mem::take(&mut self.done);
        for &(conn, room) in &done {
            self.unsubscribe(conn, room);
        }
        done
    }

    /// Connections for which there may be something since the last call, ascending, each once.
    pub fn drain_ready(&mut self) -> Vec<ConnId> {
        for room in self.fresh.drain(..) {
            if let Some(stream) = self.streams.get_mut(&room) {
                stream.is_fresh = false;
                self.ready.extend(&stream.subscribers);
            }
        }
        self.ready.sort_unstable();
        self.ready.dedup();
        std::mem::take(&mut self.ready)
    }

    /// Questions to the reader since the last call.
    pub fn drain_wanted(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.wanted)
    }
}

#[cfg(test)]
mod tests;
