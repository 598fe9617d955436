//! The client protocol: its bytes, and that what is written by hand is what the serializer writes.

use super::*;
use crate::chat::command::Stamp;

fn body(response: &Response) -> Vec<u8> {
    let mut out = Vec::new();
    encode_response(response, &mut out);
    out.split_off(frame::LENGTH_BYTES)
}

#[test]
fn an_item_is_encoded_as_the_response_that_it_is() {
    let contents = [
        (
            Content::Message {
                user: "ann",
                text: "hello",
            },
            What::Message("hello".to_string()),
        ),
        (Content::Created { user: "ann" }, What::Created),
        (Content::Joined { user: "ann" }, What::Joined),
        (Content::Left { user: "ann" }, What::Left),
        (Content::Topic { user: "ann", text: "t" }, What::Topic("t".to_string())),
        (
            Content::Renamed {
                user: "ann",
                name: "bob",
            },
            What::Renamed("bob".to_string()),
        ),
    ];
    for (content, what) in contents {
        let item = command::Item {
            room: RoomId(1),
            position: Position(300),
            seq: Seq(3),
            stamp: Stamp {
                lamport: Lamport(4),
                time_ms: 1_790_000_000_000,
                age_ms: 6,
            },
            session: SessionId(7),
            client_seq: ClientSeq(8),
            content,
        };
        let mut borrowed = Vec::new();
        encode_item(&item, &mut borrowed);
        let response = Response::Item(Item {
            room: RoomId(1),
            position: Position(300),
            seq: Seq(3),
            lamport: Lamport(4),
            time_ms: 1_790_000_000_000,
            session: SessionId(7),
            client_seq: ClientSeq(8),
            user: "ann".to_string(),
            what,
        });
        let mut owned = Vec::new();
        encode_response(&response, &mut owned);
        assert_eq!(borrowed, owned);
        assert_eq!(decode_response(&owned[frame::LENGTH_BYTES..]), Ok(response));
    }
}

#[test]
fn acknowledgements_are_encoded_as_the_response_that_they_are() {
    let posted = |n: u64| Outcome::Posted {
        room: RoomId(n),
        seq: Seq(n / 2),
        position: Position(n / 3),
        lamport: Lamport(n / 5),
        time_ms: n / 7,
    };
    let room = Outcome::Room {
        room: RoomId(300),
        name: "Ops".into(),
        topic: "".into(),
        position: Position(7),
        created: true,
    };
    let mut outcomes = vec![room, Outcome::Done, Outcome::Refused(Code::Busy)];
    outcomes.extend((0..64).map(|bits| posted(u64::MAX >> bits)));
    let ack = |(n, outcome)| Ack {
        seq: ClientSeq(1_u64 << n),
        outcome,
    };
    let response = Response::Acks((0..64).zip(outcomes).map(ack).collect());
    let mut slowly = Vec::new();
    encode(&response, &mut slowly);
    assert_eq!(body(&response), slowly);
    assert_eq!(body(&Response::Acks(Vec::new())), [ACKS, 0]);
}

#[test]
fn golden_bytes() {
    let mut out = Vec::new();
    encode_request(
        &Request::Hello {
            magic: MAGIC,
            versions: VERSIONS,
            agent: "x".to_string(),
        },
        &mut out,
    );
    let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, "0a00000000fc53594e4301010178");
    assert_eq!(body(&Response::Pong { id: 5 }), [14, 5]);
    assert_eq!(body(&Response::Resend { from: ClientSeq(9) }), [4, 9]);
    let gap = Response::Gap {
        room: RoomId(1),
        positions: (Position(2), Position(300)),
        seqs: (Seq(3), Seq(4)),
    };
    assert_eq!(body(&gap), [17, 1, 2, 251, 44, 1, 3, 4]);
    let usage = Response::Usage {
        id: 5,
        usage: Usage {
            user_us: 300,
            system_us: 2,
            resident_bytes: 1 << 20,
            processors: vec![0, 1],
            processor: 1,
            turn_most_us: 250,
            turn_longest_us: 300,
        },
    };
    let turns = [250, 251, 44, 1];
    assert_eq!(
        body(&usage),
        [&[18, 5, 251, 44, 1, 2, 252, 0, 0, 16, 0, 2, 0, 1, 1], &turns[..]].concat()
    );
    out.clear();
    encode_request(&Request::Usage { id: 5 }, &mut out);
    assert_eq!(out, [2, 0, 0, 0, 11, 5]);
}
