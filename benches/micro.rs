//! What the steps of a message cost, one by one, on one core: `cargo bench`. For a look at what a change did; what a whole cluster does
//! is measured by `syncnetctl bench`.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use syncnet::chat::command::{Command, Content, Head, Item, KeyId, Name, SecretHash, Stamp};
use syncnet::chat::{Answer, State};
use syncnet::cluster::message::EntryKind;
use syncnet::limits;
use syncnet::log::ReadFrom;
use syncnet::log::record::{self, Header, Kind};
use syncnet::node::fanout::Fanout;
use syncnet::types::{
    ClientSeq, ConnId, DirectoryId, GroupId, Lamport, LogIndex, Lsn, Position, RoomId, Seq, SessionId, Term,
};
use syncnet::wire::client::{Request, command_in, encode_request};
use syncnet::wire::command;
use syncnet::wire::frame::{Split, split};

/// Rounds of a measurement, and how long each takes at least; the median counts.
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(100);
const TEXT_BYTES: usize = 128;
const READERS: u64 = 1000;
/// Messages that each reader is handed at once.
const SLICE: u64 = 64;

/// Prints how many nanoseconds one of `batch` things takes that `run` does.
fn measure(what: &str, batch: u64, mut run: impl FnMut()) {
    run();
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (begun, mut runs) = (Instant::now(), 0u64);
            while begun.elapsed() < ROUND {
                run();
                runs += 1;
            }
            begun.elapsed().as_secs_f64() * 1e9 / (runs * batch) as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{what:<58} {:>9.1} ns", rounds[ROUNDS / 2]);
}

fn post(seq: u64, text: &str) -> Command<'_> {
    let (seq, session) = (ClientSeq(seq), SessionId(1));
    let head = Head {
        session,
        seq,
        unacknowledged: seq,
        lamport: Lamport(0),
    };
    Command::Post {
        head,
        room: RoomId::LOBBY,
        user: "ann".into(),
        text: text.into(),
        dedup: None,
    }
}

fn stamp(index: u64) -> Stamp {
    Stamp {
        lamport: Lamport(index),
        time_ms: 1_700_000_000_000 + index,
        age_ms: index / 100,
    }
}

/// A state with a session that posts.
fn talking() -> State {
    let name = || Name::new("ann", "ann");
    let mut state = State::new();
    let open = Command::Open {
        name: name(),
        key: KeyId([1; 16]),
        secret: SecretHash([1; 16]),
        lamport: Lamport(0),
    };
    let applied = state.apply(LogIndex(1), &stamp(1), &open);
    assert!(matches!(
        applied.result,
        Answer::Opened {
            result: Ok(SessionId(1)),
            ..
        }
    ));
    state
}

/// Connections over loopback, and a thread that reads what comes on the other ends.
fn connections(count: usize) -> std::io::Result<Vec<TcpStream>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut poll = Poll::new()?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for at in 0..count {
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        near.push(stream);
        let other = listener.accept()?.0;
        other.set_nonblocking(true)?;
        let mut other = mio::net::TcpStream::from_std(other);
        poll.registry().register(&mut other, Token(at), Interest::READABLE)?;
        far.push(other);
    }
    thread::spawn(move || {
        let (mut events, mut bytes) = (Events::with_capacity(1024), vec![0; 1 << 18]);
        while poll.poll(&mut events, None).is_ok() {
            for event in events.iter() {
                while far[event.token().0].read(&mut bytes).is_ok_and(|n| n > 0) {}
            }
        }
    });
    Ok(near)
}

fn main() {
    let text = "x".repeat(TEXT_BYTES);
    println!("one message of {TEXT_BYTES} bytes, the median of {ROUNDS} rounds:");

    let mut frame = Vec::new();
    encode_request(&Request::Command(command::encode(&post(1, &text))), &mut frame);
    measure("a client's frame: split it, and decode the command", 1000, || {
        for _ in 0..1000 {
            let Split::Complete { body, .. } = split(black_box(&frame), limits::CLIENT_FRAME_BYTES_MAX) else {
                unreachable!("it is whole");
            };
            let bytes = command_in(body).expect("it is a command");
            black_box(command::decode(bytes).expect("it is a post"));
        }
    });

    let (mut state, mut index) = (talking(), 1);
    measure("the state: apply a post", 1000, || {
        for _ in 0..1000 {
            index += 1;
            black_box(state.apply(LogIndex(index), &stamp(index), &post(index - 1, &text)));
        }
    });

    let payload = command::payload(&stamp(1), &command::encode(&post(1, &text)));
    let directory = DirectoryId(7);
    let header = Header {
        kind: Kind::Entry,
        entry_kind: EntryKind::Command,
        lsn: Lsn(0),
        batch: 1,
        synced: Lsn(0),
        group: GroupId::ROOT,
        index: LogIndex(1),
        term: Term(1),
        chain: 1,
    };
    let mut records = Vec::new();
    measure("the log: encode a record", 1000, || {
        records.clear();
        for _ in 0..1000 {
            record::encode(&mut records, black_box(&header), &payload, directory);
        }
    });
    measure("the log: check and parse a record", 1000, || {
        for _ in 0..1000 {
            black_box(record::parse(black_box(&records), Lsn(0), directory));
        }
    });

    let mut fanout = Fanout::default();
    for reader in 1..=READERS {
        fanout.subscribe(
            ConnId(reader),
            RoomId::LOBBY,
            ReadFrom::Position(Position(1)),
            None,
            Position(0),
        );
    }
    let (mut last, mut rest) = (0, Vec::new());
    let mut hand_out = |publish: u64| {
        for _ in 0..publish {
            last += 1;
            fanout.publish(&Item {
                room: RoomId::LOBBY,
                position: Position(last),
                seq: Seq(last),
                stamp: stamp(last),
                session: SessionId(1),
                client_seq: ClientSeq(last),
                content: Content::Message {
                    user: "ann",
                    text: &text,
                },
            });
        }
        for reader in fanout.drain_ready() {
            fanout.offer(reader);
            let bytes = black_box(fanout.offered()).map_or(0, <[u8]>::len);
            fanout.taken(reader, bytes, &mut rest);
        }
    };
    measure(
        "the fan-out: encode one, and a slice of one to a reader",
        READERS,
        || hand_out(1),
    );
    measure("the fan-out: encode 64, and a slice of 64 to a reader", READERS, || {
        hand_out(SLICE)
    });

    let mut streams = connections(READERS as usize).expect("loopback connections: raise ulimit -n");
    let item = 150;
    for (what, bytes) in [
        ("the system: send as much as one, to each of 1,000", item),
        ("the system: send as much as 64, to each of 1,000", 64 * item),
    ] {
        let bytes = vec![7; bytes];
        measure(what, READERS, || {
            for stream in &mut streams {
                stream.write_all(&bytes).expect("somebody reads");
            }
        });
    }
}
