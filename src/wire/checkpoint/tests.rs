//! The bytes of checkpoints: the same for ever, and nothing but whole ones are taken.

use super::*;
use crate::chat::command::{
    Code, Command, DedupKey, Head as CommandHead, KeyId, Name, Outcome, SecretHash, Settings, Stamp,
};
use crate::chat::dedup::Posted;
use crate::cluster::message::EntryKind;
use crate::types::{Blob, ClientSeq, Lamport, LogIndex, Position, RoomId, Seq, SessionId, Term};

fn name(text: &str) -> Name {
    Name::new(text, &text.to_lowercase())
}

fn head(state: &State) -> Head {
    Head {
        group: GroupId(0),
        at: LogPosition {
            term: Term(2),
            index: state.applied(),
        },
        chain: 0x0102_0304,
        digest: state.digest(),
        members: Entry {
            index: LogIndex(1),
            term: Term(1),
            kind: EntryKind::Members,
            payload: Blob::new(b"members"),
        },
    }
}

/// A state with rows of every kind.
fn state() -> State {
    let mut state = State::new();
    state.skip(LogIndex(1));
    let mut apply = |command: Command| {
        let index = state.applied().next();
        let stamp = Stamp {
            lamport: Lamport(index.0),
            time_ms: 1_000,
            age_ms: index.0,
        };
        state.apply(index, &stamp, &command);
    };
    apply(Command::Open {
        name: name("Ann"),
        key: KeyId([1; 16]),
        secret: SecretHash([2; 16]),
        lamport: Lamport(0),
    });
    let command_head = |seq| CommandHead {
        session: SessionId(2),
        seq: ClientSeq(seq),
        ..CommandHead::default()
    };
    apply(Command::Join {
        head: command_head(1),
        user: "Ann".into(),
        room: name("lobby"),
    });
    apply(Command::Post {
        head: command_head(2),
        room: RoomId(1),
        user: "Ann".into(),
        text: "hi".into(),
        dedup: Some(DedupKey([9; 16])),
    });
    apply(Command::Trim { index: LogIndex(3) });
    state
}

fn bytes(state: &State) -> Vec<u8> {
    let mut out = Vec::new();
    let written: Result<(), ()> = write(&head(state), state, |part| {
        out.extend_from_slice(part);
        Ok(())
    });
    assert_eq!(written, Ok(()));
    out
}

fn assemble(bytes: &[u8]) -> Result<(Head, State), Error> {
    let mut assembly = Assembly::new();
    assembly.take(bytes)?;
    assembly.finish()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_checkpoint_comes_back_however_it_is_cut() {
    let state = state();
    let bytes = bytes(&state);
    for size in [1, 7, 100, bytes.len()] {
        let mut assembly = Assembly::new();
        let (mut taken, mut there) = (0, 0);
        while there < bytes.len() {
            there = (there + size).min(bytes.len());
            taken += assembly.take(&bytes[taken..there]).unwrap();
        }
        assert_eq!(assembly.head(), Some(&head(&state)));
        assert_eq!(assembly.finish(), Ok((head(&state), state.clone())));
    }
}

#[test]
fn what_is_cut_or_longer_is_no_checkpoint() {
    let bytes = bytes(&state());
    for end in 0..bytes.len() {
        assert!(assemble(&bytes[..end]).is_err(), "cut to {end}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(assemble(&longer).is_err());
}

#[test]
fn flipped_bits_make_an_error_or_a_state_never_a_panic() {
    let bytes = bytes(&state());
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let _ = assemble(&flipped);
    }
}

#[test]
fn the_head_speaks_of_these_rows_or_it_is_refused() {
    let state = state();
    for spoil in [
        |head: &mut Head| head.at.index = LogIndex(9),
        |head: &mut Head| head.digest ^= 1,
    ] {
        let mut wrong = head(&state);
        spoil(&mut wrong);
        let mut out = Vec::new();
        let _: Result<(), ()> = write(&wrong, &state, |part| {
            out.extend_from_slice(part);
            Ok(())
        });
        assert!(assemble(&out).is_err());
    }
}

#[test]
fn a_later_version_is_an_error_that_says_to_upgrade() {
    let mut bytes = bytes(&state());
    bytes[0] = 2;
    let error = assemble(&bytes).unwrap_err();
    assert_eq!(
        error,
        Error::Upgrade {
            what: "checkpoint",
            version: 2
        }
    );
    assert!(error.to_string().contains("upgrade"), "{error}");
}

#[test]
fn announced_lengths_are_checked_before_their_bytes_come() {
    let mut decoder = Decoder::new();
    let mut start = VERSION.to_le_bytes().to_vec();
    assert_eq!(decoder.next(&start), Parsed::Incomplete);
    start.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(decoder.next(&start), Parsed::Invalid(_)));
    let mut out = Vec::new();
    encode_head(&head(&state()), &mut out);
    assert!(matches!(decoder.next(&out), Parsed::Complete { consumed, .. } if consumed == out.len()));
    let long = (limits::IMAGE_ROW_BYTES_MAX as u32 + 1).to_le_bytes();
    assert!(matches!(decoder.next(&long), Parsed::Invalid(_)));
    out.clear();
    encode_end(1, &mut out);
    assert!(matches!(decoder.next(&out), Parsed::Invalid(_)), "a row is missing");
}

#[test]
fn the_largest_rows_fit() {
    let long = |bytes| Name::new(&"x".repeat(bytes), &"x".repeat(bytes));
    let posted = Posted {
        room: RoomId(u64::MAX),
        seq: Seq(u64::MAX),
        position: Position(u64::MAX),
        lamport: Lamport(u64::MAX),
        time_ms: u64::MAX,
    };
    let outcome = Outcome::Room {
        room: RoomId(u64::MAX),
        name: "x".repeat(limits::ROOM_NAME_BYTES_MAX).into(),
        topic: "x".repeat(limits::TOPIC_BYTES_MAX).into(),
        position: Position(u64::MAX),
        created: true,
    };
    let rows = [
        Row::Session {
            id: SessionId(u64::MAX),
            name: long(limits::NAME_BYTES_MAX),
            key: KeyId([255; 16]),
            secret: SecretHash([255; 16]),
            last: ClientSeq(u64::MAX),
            named: true,
            heard_ms: u64::MAX,
            rooms: vec![RoomId(u64::MAX); limits::ROOMS_PER_SESSION_MAX],
        },
        Row::Outcomes(vec![outcome; limits::IMAGE_OUTCOMES_MAX]),
        Row::Members {
            room: RoomId(u64::MAX),
            names: vec![long(limits::NAME_BYTES_MAX); limits::IMAGE_NAMES_MAX],
        },
        Row::Names(vec![long(limits::NAME_BYTES_MAX); limits::IMAGE_NAMES_MAX]),
        Row::Keys(vec![
            (u64::MAX, KeyId([255; 16]), DedupKey([255; 16]), posted);
            limits::IMAGE_KEYS_MAX
        ]),
    ];
    for row in rows {
        let mut out = Vec::new();
        encode_row(&row, &mut out);
        let mut decoder = Decoder { stage: Stage::Rows(0) };
        let consumed = out.len();
        assert!(consumed <= LENGTH_BYTES + limits::IMAGE_ROW_BYTES_MAX);
        let part = Part::Row(row);
        assert_eq!(decoder.next(&out), Parsed::Complete { part, consumed });
    }
}

#[test]
fn golden_bytes() {
    // A change here makes every checkpoint that was ever written unreadable: it needs another version.
    let rows = [
        Row::Head {
            applied: LogIndex(300),
            trimmed: LogIndex(5),
            clock: Stamp {
                lamport: Lamport(1),
                time_ms: 2,
                age_ms: 3,
            },
            digest: 0x0102_0304_0506_0708,
            messages: 4,
            settings: Settings {
                session_expiry_ms: 6,
                name_release_ms: 7,
            },
        },
        Row::Room {
            id: RoomId(1),
            name: name("Ops"),
            topic: "t".into(),
            position: Position(3),
            seq: Seq(2),
        },
        Row::Session {
            id: SessionId(2),
            name: name("Ann"),
            key: KeyId([1; 16]),
            secret: SecretHash([2; 16]),
            last: ClientSeq(3),
            named: true,
            heard_ms: 4,
            rooms: vec![RoomId(1), RoomId(5)],
        },
        Row::Outcomes(vec![
            Outcome::Posted {
                room: RoomId(1),
                seq: Seq(2),
                position: Position(3),
                lamport: Lamport(4),
                time_ms: 5,
            },
            Outcome::Room {
                room: RoomId(1),
                name: "Ops".into(),
                topic: "t".into(),
                position: Position(3),
                created: true,
            },
            Outcome::Done,
            Outcome::Refused(Code::NameTaken),
        ]),
        Row::Members {
            room: RoomId(1),
            names: vec![name("Ann")],
        },
        Row::Names(vec![name("Ann")]),
        Row::Keys(vec![(
            6,
            KeyId([1; 16]),
            DedupKey([9; 16]),
            Posted {
                room: RoomId(1),
                seq: Seq(2),
                position: Position(3),
                lamport: Lamport(4),
                time_ms: 5,
            },
        )]),
    ];
    let mut written = vec![Vec::new()];
    let fixed = Head {
        digest: 0x0102_0304_0506_0708,
        ..head(&State::new())
    };
    encode_head(&fixed, &mut written[0]);
    for row in rows {
        let mut out = Vec::new();
        encode_row(&row, &mut out);
        written.push(out);
    }
    let mut end = Vec::new();
    encode_end(7, &mut end);
    written.push(end);
    let written: Vec<String> = written.iter().map(|bytes| hex(bytes)).collect();
    let golden = [
        "01001c000000000200fc04030201fd0807060504030201010101076d656d62657273",
        "1400000000fb2c0105010203fd0807060504030201040607",
        "0e0000000101034f7073036f707301740302",
        "30000000020203416e6e03616e6e0101010101010101010101010101010102020202020202020202020202020202030104020105",
        "1500000003040001020304050101034f707301740301020302",
        "0b00000004010103416e6e03616e6e",
        "0a000000050103416e6e03616e6e",
        "2800000006010601010101010101010101010101010101090909090909090909090909090909090102030405",
        "000000000700000000000000",
    ];
    assert_eq!(written, golden);
}
