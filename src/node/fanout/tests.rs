//! Cursors against a history: no gap, no repeat, no queue.

use super::*;
use crate::chat::command::{Content, Stamp};
use crate::types::{ClientSeq, SessionId};
use crate::wire::client::{Item as WireItem, decode_response};
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
            fanout.answer(token, room, Position(start), Seq(start - 1), &items);
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

// --- What isn't kept any more -------------------------------------------------------------------

/// What a client makes of the bytes.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Item(u64),
    Gap { positions: (u64, u64), seqs: (u64, u64) },
}

fn told(mut bytes: &[u8]) -> Vec<Told> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let Split::Complete { body, consumed } = split(bytes, 1 << 20) else {
            panic!("a torn frame")
        };
        found.push(match decode_response(body) {
            Ok(Response::Item(item)) => Told::Item(item.position.0),
            Ok(Response::Gap { positions, seqs, .. }) => Told::Gap {
                positions: (positions.0.0, positions.1.0),
                seqs: (seqs.0.0, seqs.1.0),
            },
            other => panic!("{other:?}"),
        });
        bytes = &bytes[consumed..];
    }
    found
}

fn gap(positions: (u64, u64), seqs: (u64, u64)) -> Vec<Told> {
    vec![Told::Gap { positions, seqs }]
}

fn items(positions: impl Iterator<Item = u64>) -> Vec<Told> {
    positions.map(Told::Item).collect()
}

/// A room of `last` messages, at positions ten higher than their numbers (ten people joined first), of which those before `first`
/// are kept no more.
#[derive(Clone, Copy)]
struct Kept {
    first: u64,
    last: u64,
}

impl Kept {
    fn answer(self, fanout: &mut Fanout, wanted: Wanted) {
        let asked = match wanted.from {
            ReadFrom::Position(at) => at.0,
            ReadFrom::AfterSeq(seq) => seq.0 + 11,
        };
        let start = asked.max(self.first);
        let texts = (start..=self.last).take(7);
        let items: Vec<Item<'_>> = texts
            .map(|at| Item {
                seq: Seq(at.saturating_sub(10)),
                ..item(at, "old")
            })
            .collect();
        let before = Seq(start.saturating_sub(11));
        fanout.answer(wanted.token, wanted.room, Position(start), before, &items);
    }

    /// As [`read_all`].
    fn read_all(self, fanout: &mut Fanout, conn: ConnId, most: usize) -> Vec<Told> {
        let mut got = Vec::new();
        loop {
            while let Some(slice) = pump(fanout, conn) {
                let n = slice.len().min(most);
                got.extend_from_slice(&slice[..n]);
                fanout.taken(conn, n, &mut got);
            }
            let wanted = fanout.drain_wanted();
            if wanted.is_empty() {
                return told(&got);
            }
            wanted.into_iter().for_each(|wanted| self.answer(fanout, wanted));
        }
    }
}

#[test]
fn a_reader_of_what_is_kept_no_more_is_told_once_and_then_gets_the_rest() {
    let kept = Kept { first: 51, last: 80 };
    let cases = [
        (ReadFrom::Position(Position(1)), gap((1, 50), (1, 40))),
        (ReadFrom::AfterSeq(Seq(0)), gap((1, 50), (1, 40))),
        (ReadFrom::Position(Position(30)), gap((30, 50), (0, 40))),
        (ReadFrom::AfterSeq(Seq(25)), gap((0, 50), (26, 40))),
        (ReadFrom::AfterSeq(Seq(40)), vec![]),
        (ReadFrom::Position(Position(51)), vec![]),
    ];
    for most in [1, 9, 40, 1 << 20] {
        for (from, gap) in &cases {
            let mut fanout = Fanout::default();
            fanout.subscribe(ANN, ROOM, *from, None, Position(80));
            let got = kept.read_all(&mut fanout, ANN, most);
            let (first, rest) = got.split_at(gap.len());
            assert_eq!(first, gap, "{from:?}, {most} bytes a time");
            assert_eq!(rest, items(51..=80), "{from:?}, {most} bytes a time");
            assert!(kept.read_all(&mut fanout, ANN, most).is_empty());
        }
    }
}

#[test]
fn a_subscription_that_ends_before_what_is_kept_ends_at_once_behind_the_gap() {
    for most in [1, 1 << 20] {
        let mut fanout = Fanout::default();
        fanout.subscribe(
            ANN,
            ROOM,
            ReadFrom::Position(Position(1)),
            Some(Position(30)),
            Position(30),
        );
        let kept = Kept { first: 51, last: 80 };
        assert!(pump(&mut fanout, ANN).is_none());
        for wanted in fanout.drain_wanted() {
            kept.answer(&mut fanout, wanted);
        }
        assert!(fanout.drain_done().is_empty(), "the gap is told first");
        assert_eq!(kept.read_all(&mut fanout, ANN, most), gap((1, 50), (1, 40)));
        assert_eq!(fanout.drain_done().len(), 1);
        assert_eq!(fanout.bytes, 0);
    }
}

#[test]
fn a_room_of_which_nothing_is_kept_is_a_gap_and_then_news() {
    let mut fanout = Fanout::default();
    fanout.subscribe(ANN, ROOM, ReadFrom::Position(Position(1)), None, Position(80));
    let kept = Kept { first: 81, last: 80 };
    assert_eq!(kept.read_all(&mut fanout, ANN, 10), gap((1, 80), (1, 70)));
    fanout.publish(&item(81, "new"));
    assert_eq!(kept.read_all(&mut fanout, ANN, 10), items(81..=81));
}

#[test]
fn a_cursor_that_is_overtaken_by_a_trim_jumps_and_says_so() {
    let mut fanout = Fanout::default();
    fanout.subscribe(ANN, ROOM, ReadFrom::Position(Position(1)), None, Position(100));
    fanout.subscribe(BOB, ROOM, ReadFrom::Position(Position(101)), None, Position(100));
    let all = Kept { first: 1, last: 100 };
    assert!(pump(&mut fanout, ANN).is_none());
    for wanted in fanout.drain_wanted() {
        all.answer(&mut fanout, wanted);
    }
    let mut got = Vec::new();
    let slice = pump(&mut fanout, ANN).unwrap();
    let n = slice.len() / 2;
    got.extend_from_slice(&slice[..n]);
    fanout.taken(ANN, n, &mut got);
    let got = told(&got);
    let next = got.len() as u64 + 1;
    assert_eq!(got, items(1..next));
    // What was read before isn't shown any more, although it is still in memory.
    fanout.trim();
    assert_eq!(fanout.bytes, 0);
    let kept = Kept { first: 61, last: 100 };
    let got = kept.read_all(&mut fanout, ANN, 100);
    assert_eq!(got[..1], gap((next, 60), (0, 50)));
    assert_eq!(got[1..], items(61..=100));
    assert!(
        kept.read_all(&mut fanout, BOB, 100).is_empty(),
        "who is at the end misses nothing"
    );
}

#[test]
fn after_a_checkpoint_cursors_go_on_through_the_reader() {
    let mut fanout = Fanout::default();
    fanout.subscribe(ANN, ROOM, ReadFrom::Position(Position(1)), None, Position(0));
    (1..=5).for_each(|at| fanout.publish(&item(at, "x")));
    assert_eq!(told(&read_all(&mut fanout, ANN, 1000, 5)), items(1..=5));
    fanout.drain_ready();
    fanout.reset([(ROOM, Position(80)), (RoomId(9), Position(4))]);
    assert_eq!(fanout.drain_ready().into_iter().collect::<Vec<_>>(), [ANN]);
    let kept = Kept { first: 51, last: 80 };
    let got = kept.read_all(&mut fanout, ANN, 1000);
    assert_eq!(got[..1], gap((6, 50), (0, 40)));
    assert_eq!(got[1..], items(51..=80));
    fanout.publish(&item(81, "live"));
    assert_eq!(kept.read_all(&mut fanout, ANN, 1000), items(81..=81));
}

#[test]
fn a_gap_of_which_nothing_is_taken_is_offered_again() {
    let mut fanout = Fanout::default();
    fanout.subscribe(ANN, ROOM, ReadFrom::Position(Position(1)), None, Position(80));
    let kept = Kept { first: 51, last: 80 };
    assert!(pump(&mut fanout, ANN).is_none());
    for wanted in fanout.drain_wanted() {
        kept.answer(&mut fanout, wanted);
    }
    assert!(pump(&mut fanout, ANN).is_some());
    fanout.taken(ANN, 0, &mut Vec::new());
    assert_eq!(kept.read_all(&mut fanout, ANN, 1000)[..1], gap((1, 50), (1, 40)));
}
