//! Cursors against a history: no gap, no repeat, no queue.

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

/// What a connection does each time that it can send.
fn pump(fanout: &mut Fanout, conn: ConnId) -> Option<&[u8]> {
    fanout.offer(conn);
    fanout.offered()
}

/// Reads all that is there, `most` bytes a time, and answers questions from a history of `last` items.
fn read_all(fanout: &mut Fanout, conn: ConnId, most: usize, last: u64) -> Vec<u8> {
    let mut got = Vec::new();
    loop {
        while let Some(slice) = pump(fanout, conn) {
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
        assert!(pump(&mut fanout, conn).is_none());
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
    while let Some(slice) = pump(&mut fanout, ANN) {
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

#[test]
fn the_end_of_a_subscription_is_not_that_of_its_successor() {
    let mut fanout = Fanout::default();
    fanout.subscribe(
        ANN,
        ROOM,
        ReadFrom::Position(Position(1)),
        Some(Position(3)),
        Position(3),
    );
    assert_eq!(positions(&read_all(&mut fanout, ANN, 1000, 3)), vec![1, 2, 3]);
    // It has come to its end, and before that is told the client asks for more.
    fanout.subscribe(ANN, ROOM, ReadFrom::Position(Position(2)), None, Position(3));
    assert!(fanout.drain_done().is_empty());
    assert_eq!(positions(&read_all(&mut fanout, ANN, 1000, 3)), vec![2, 3]);
}
