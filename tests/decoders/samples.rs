//! Good bytes of every kind, from which bad ones are made. The corpus of the fuzz targets holds them too.

use std::borrow::Cow;

use syncnet::chat::State;
use syncnet::chat::command::{Code, Command, DedupKey, Head, KeyId, Name, Outcome, SecretHash, Settings, Stamp};
use syncnet::cluster::members::encode_members;
use syncnet::cluster::message::{
    AppendResult, CheckpointId, Datagram, Entry, EntryKind, Flags, GroupBeat, HardState, Heartbeat, LogPosition,
    Member, Members, Message, Refusal, Sender, Token,
};
use syncnet::log::ItemRef;
use syncnet::log::checkpoint::{self, Checkpoints, Ending};
use syncnet::log::disk::Disk;
use syncnet::log::payload::{self, GroupHead, GroupSeal};
use syncnet::log::record::{self, Header, Kind};
use syncnet::log::sealed::{self, SealedWriter};
use syncnet::log::segment::FOLDER;
use syncnet::log::sim_disk::SimDisk;
use syncnet::types::*;
use syncnet::wire::client::{self, Ack, From, Item, Request, Response, RoomInfo, ServerAddress, Until, What};
use syncnet::wire::datagram::{Sealed, seal};
use syncnet::wire::frame::LENGTH_BYTES;
use syncnet::wire::peer::{self, Handshake, PeerMessage};
use syncnet::wire::{checkpoint as portable, command};

use crate::decoders::{CHECKPOINT, DIRECTORY, SEGMENT};

/// Good bytes for a decoder.
pub fn of(decoder: &str) -> Vec<Vec<u8>> {
    match decoder {
        "frames" => vec![requests().into_iter().flat_map(|body| framed(&body)).collect()],
        "request" => requests(),
        "response" => responses(),
        "command" => commands()
            .iter()
            .map(|command| command::encode(command).to_vec())
            .collect(),
        "entry" => commands().iter().map(entry).collect(),
        "handshake" => handshakes(),
        "message" => messages(),
        "datagram" => datagrams(),
        "record" => vec![records()],
        "payload" => payloads(),
        "members" => vec![encode_members(&members())],
        "portable_checkpoint" => vec![portable_checkpoint()],
        "checkpoint_file" => vec![checkpoint_file()],
        "index_file" => vec![index_file()],
        "identity" => vec![identity()],
        "configuration" => vec![include_bytes!("../../conf/cluster.toml").to_vec(), CONFIGURATION.into()],
        "secret" => vec![
            b"00112233445566778899aabbccddeeff".repeat(2),
            b"MDEyMzQ1Njc4OWFiY2RlZg".repeat(2),
        ],
        "client_file" => vec![include_bytes!("../../conf/client.toml").to_vec(), CLIENT.into()],
        "arguments" => ARGUMENTS
            .iter()
            .map(|line| line.replace(' ', "\n").into_bytes())
            .collect(),
        "typed_line" => vec![TYPED.into()],
        other => panic!("no samples for {other}"),
    }
}

const CONFIGURATION: &str = "[cluster]\nname = \"x\"\nsecret_file = \"s\"\nelection = \"lcr\"\nleader = \"sticky\"\n\
    routing = \"redirect\"\n[timing]\nheartbeat_interval = \"1500ms\"\nfailure_timeout = \"5s\"\nelection_timeout = \"5s\"\n\
    connect_timeout = \"3s\"\n[heartbeat]\nmulticast = \"239.1.2.3:8020\"\ninterface = \"10.0.0.5\"\n[log]\n\
    segment_size = \"16MiB\"\ncheckpoint_every = 1000\nretention = \"90d\"\n[chat]\nmessage_size_max = \"64KiB\"\n\
    session_expiry = \"24h\"\n[[server]]\nid = \"a\"\nring_position = 0\nhost = \"h\"\nlisten = \"0.0.0.0\"\n\
    client_port = 1\nhttp_port = 2\nheartbeat_port = 3\npeer_port = 4\n";
const CLIENT: &str = "servers = [\"a:1\", \"[::1]:8000\"]\nuser = \"ann\"\nkey_file = \"~/key\"\n";
const ARGUMENTS: &[&str] = &[
    "--config FILE --server-id ID --data-dir DIR --check-config --log-level debug --log-file FILE",
    "send -s a:1 --only -u ann --json --timeout 5 --id KEY --no-create ops text",
    "tail --last 2 --count 3 --wait --events ops",
    "tail --after 1 --no-follow --stale ops",
    "status --simple -s [::1]:1 --timeout 0.5",
    "watch -i 5",
    "log verify data/server1",
];
const TYPED: &str = "/create ops\n/history 5\n//text\r\n\n/topic \u{e4}\u{1f600}\n/quit";

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body].concat()
}

/// What `write` appends, without the length in front.
fn body(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out.split_off(LENGTH_BYTES)
}

fn id(n: u64) -> ServerId {
    ServerId::new(&format!("server{n}")).expect("an id")
}

fn name(text: &str) -> Name {
    Name::new(text, &text.to_lowercase())
}

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition {
        term: Term(term),
        index: LogIndex(index),
    }
}

fn requests() -> Vec<Vec<u8>> {
    let requests = [
        Request::Hello {
            magic: client::MAGIC,
            versions: client::VERSIONS,
            agent: "syncnet".to_owned(),
        },
        Request::Open {
            name: "Ann".to_owned(),
            key: [1; 32],
            secret: [2; 16],
            lamport: Lamport(300),
        },
        Request::Attach {
            session: SessionId(7),
            secret: [2; 16],
        },
        Request::Command(command::encode(&commands()[0])),
        Request::Lookup {
            id: 1,
            name: "ops".to_owned(),
            fresh: true,
        },
        Request::Rooms {
            id: 2,
            after: RoomId(0),
        },
        Request::Who { id: 3, room: RoomId(1) },
        Request::Subscribe {
            id: 4,
            room: RoomId(1),
            from: From::AfterSeq(Seq(70_000)),
            until: Until::Now,
        },
        Request::Unsubscribe { room: RoomId(1) },
        Request::Status { id: 5 },
        Request::Ping { id: u64::MAX },
    ];
    let encode = |request| body(|out| client::encode_request(request, out));
    requests.iter().map(encode).collect()
}

fn responses() -> Vec<Vec<u8>> {
    let server = ServerAddress {
        id: id(1),
        address: "127.0.0.1:8000".to_owned(),
        ring: 0,
        heartbeat_port: 8020,
    };
    let room = RoomInfo {
        room: RoomId(1),
        name: "ops".to_owned(),
        topic: "the disks".to_owned(),
        members: 3,
        position: Position(9),
        seq: Seq(8),
    };
    let responses = [
        Response::Welcome {
            version: 1,
            cluster: "test".to_owned(),
            server: id(1),
            servers: vec![server.clone(); 3],
            leader: Some(id(3)),
            quorum: true,
            message_bytes_max: 65_536,
        },
        Response::Acks(vec![
            Ack {
                seq: ClientSeq(1),
                outcome: Outcome::Posted {
                    room: RoomId(1),
                    seq: Seq(2),
                    position: Position(3),
                    lamport: Lamport(4),
                    time_ms: 5,
                },
            },
            Ack {
                seq: ClientSeq(2),
                outcome: Outcome::Refused(Code::Busy),
            },
        ]),
        Response::Redirect { leader: server },
        Response::Rooms {
            id: 1,
            rooms: vec![room; 2],
            more: true,
        },
        Response::Who {
            id: 2,
            users: vec!["ann".to_owned(), "bob".to_owned()],
        },
        Response::Item(Item {
            room: RoomId(1),
            position: Position(2),
            seq: Seq(3),
            lamport: Lamport(4),
            time_ms: 5,
            session: SessionId(6),
            client_seq: ClientSeq(7),
            user: "ann".to_owned(),
            what: What::Message("hello".to_owned()),
        }),
        Response::Gap {
            room: RoomId(1),
            positions: (Position(1), Position(2)),
            seqs: (Seq(1), Seq(2)),
        },
        Response::Fatal { text: "why".to_owned() },
    ];
    let encode = |response| body(|out| client::encode_response(response, out));
    responses.iter().map(encode).collect()
}

fn commands() -> Vec<Command<'static>> {
    let head = Head {
        session: SessionId(300),
        seq: ClientSeq(7),
        unacknowledged: ClientSeq(5),
        lamport: Lamport(70_000),
    };
    let (user, room) = (Cow::Borrowed("ann"), RoomId(1));
    vec![
        Command::Post {
            head,
            room,
            user: user.clone(),
            text: "hello".into(),
            dedup: Some(DedupKey([3; 16])),
        },
        Command::Create {
            head,
            user: user.clone(),
            room: name("Ops"),
            or_find: true,
        },
        Command::Topic {
            head,
            user: user.clone(),
            room,
            text: "new".into(),
        },
        Command::Skip {
            head,
            code: Code::BadText,
        },
        Command::Close { head, user },
        Command::Open {
            name: name("Ann"),
            key: KeyId([4; 16]),
            secret: SecretHash([5; 16]),
            lamport: Lamport(1),
        },
        Command::Touch {
            server: id(1),
            sessions: vec![SessionId(1), SessionId(300)],
        },
        Command::ForgetKeys,
        Command::Settings(Settings::default()),
        Command::Trim { index: LogIndex(9) },
    ]
}

fn entry(command: &Command) -> Vec<u8> {
    let stamp = Stamp {
        lamport: Lamport(1),
        time_ms: 2,
        age_ms: 3,
    };
    command::payload(&stamp, &command::encode(command)).to_vec()
}

fn sender() -> Sender {
    Sender {
        cluster: ClusterId(3),
        members: 4,
        server: id(1),
        directory: DirectoryId(5),
        boot: Boot(6),
    }
}

fn handshakes() -> Vec<Vec<u8>> {
    let handshakes = [
        Handshake::Hello {
            magic: peer::MAGIC,
            versions: peer::VERSIONS,
            cluster_name: "test".to_owned(),
            sender: sender(),
            to: Some(id(2)),
            nonce: [9; 16],
        },
        Handshake::Proof { mac: vec![1; 32] },
        Handshake::Refused { text: "no".to_owned() },
    ];
    let encode = |handshake| body(|out| peer::encode_handshake(handshake, out));
    handshakes.iter().map(encode).collect()
}

fn members() -> Members {
    let member = |n| Member {
        id: id(n),
        ring: RingPosition(n as u16),
        directory: DirectoryId(n),
    };
    Members {
        cluster: ClusterId(1),
        members: (1..=3).map(member).collect(),
    }
}

fn log_entry(index: u64) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(2),
        kind: EntryKind::Command,
        payload: Blob::new(&entry(&commands()[0])),
    }
}

fn messages() -> Vec<Vec<u8>> {
    let (group, term) = (GroupId::ROOT, Term(2));
    let id = CheckpointId {
        at: position(2, 9),
        chain: 1,
        digest: 3,
        bytes: 4,
        check: 5,
    };
    let of_cluster = [
        Message::Ping,
        Message::PreVote {
            group,
            term,
            last: position(2, 9),
            ring: RingPosition(2),
            transfer: false,
        },
        Message::PreVoteAnswer {
            group,
            term,
            granted: false,
            refusal: Refusal::Outranked,
        },
        Message::Append {
            group,
            term,
            prev: position(1, 1),
            prev_chain: 4,
            commit: LogIndex(1),
            round: 300,
            entries: vec![log_entry(2), log_entry(3)],
        },
        Message::AppendAnswer {
            group,
            term,
            round: 8,
            result: AppendResult::Mismatch {
                refused: LogIndex(3),
                hint: position(1, 2),
            },
        },
        Message::Form { members: members() },
        Message::Fetched {
            group,
            from: LogIndex(2),
            entries: vec![log_entry(2)],
        },
        Message::Checkpoint {
            group,
            term,
            id,
            offset: 1,
            bytes: Blob::new(b"piece"),
        },
    ];
    let mut messages: Vec<PeerMessage> = of_cluster.into_iter().map(PeerMessage::Cluster).collect();
    messages.push(PeerMessage::Forward {
        group,
        term,
        commands: commands().iter().map(command::encode).collect(),
    });
    let encode = |message| body(|out| peer::encode_message(message, out));
    messages.iter().map(encode).collect()
}

fn datagrams() -> Vec<Vec<u8>> {
    let heartbeat = Datagram::Heartbeat(Heartbeat {
        flags: Flags {
            formed: true,
            fit: true,
            stopping: false,
        },
        links: vec![id(2), id(3)],
        groups: vec![GroupBeat {
            group: GroupId::ROOT,
            term: Term(2),
            leader: Some(id(3)),
            last: position(2, 9),
            commit: LogIndex(9),
            digest: (LogIndex(0), 0),
        }],
    });
    let token = Datagram::Token {
        to: id(2),
        group: GroupId::ROOT,
        token: Token {
            origin: id(3),
            round: Term(2),
            last: position(2, 9),
            ring: RingPosition(2),
            hops: 1,
        },
    };
    let encode = |datagram| {
        let sealed = Sealed {
            sender: sender(),
            sequence: 7,
            datagram,
        };
        seal(&sealed, None)
    };
    [heartbeat, token].map(encode).to_vec()
}

fn records() -> Vec<u8> {
    let mut bytes = Vec::new();
    let payloads = [
        (Kind::Seal, payloads().swap_remove(1)),
        (Kind::Entry, entry(&commands()[0])),
    ];
    for (kind, payload) in payloads {
        let is_entry = kind == Kind::Entry;
        let header = Header {
            kind,
            entry_kind: if is_entry { EntryKind::Command } else { EntryKind::Noop },
            lsn: Lsn(SEGMENT.base.0 + bytes.len() as u64),
            batch: 7,
            synced: SEGMENT.base,
            group: GroupId::ROOT,
            index: LogIndex(if is_entry { 5 } else { 0 }),
            term: Term(if is_entry { 2 } else { 0 }),
            chain: 8,
        };
        record::encode(&mut bytes, &header, &payload, DIRECTORY);
    }
    bytes
}

fn payloads() -> Vec<Vec<u8>> {
    let state = HardState {
        term: Term(2),
        vote: Some((id(3), DirectoryId(3))),
        commit: LogIndex(9),
    };
    let (group, last, chain) = (GroupId::ROOT, position(2, 9), 8);
    let members = Entry {
        index: LogIndex(1),
        term: Term(1),
        kind: EntryKind::Members,
        payload: Blob::new(&encode_members(&members())),
    };
    let seal = GroupSeal {
        group,
        state,
        last,
        chain,
    };
    let head = payload::Head {
        segment_size: SEGMENT.size,
        previous_end: SEGMENT.base,
        groups: vec![GroupHead {
            group,
            state,
            members: vec![members],
            last,
            chain,
            anew: false,
        }],
    };
    vec![
        payload::encode_state(&state),
        payload::encode_seal(&[seal]),
        payload::encode_head(&head),
    ]
}

/// A state in which something has happened.
fn portable_checkpoint() -> Vec<u8> {
    let mut state = State::new();
    let head = |seq| Head {
        session: SessionId(1),
        seq: ClientSeq(seq),
        unacknowledged: ClientSeq(1),
        lamport: Lamport(0),
    };
    let (user, room) = (Cow::Borrowed("Ann"), RoomId(2));
    let commands = [
        Command::Open {
            name: name("Ann"),
            key: KeyId([4; 16]),
            secret: SecretHash([5; 16]),
            lamport: Lamport(1),
        },
        Command::Create {
            head: head(1),
            user: user.clone(),
            room: name("Ops"),
            or_find: false,
        },
        Command::Join {
            head: head(2),
            user: user.clone(),
            room: name("Ops"),
        },
        Command::Post {
            head: head(3),
            room,
            user,
            text: "hello".into(),
            dedup: Some(DedupKey([3; 16])),
        },
    ];
    for (n, command) in (1..).zip(commands) {
        let stamp = Stamp {
            lamport: Lamport(n),
            time_ms: 1000 * n,
            age_ms: 10 * n,
        };
        let _ = state.apply(LogIndex(n), &stamp, &command);
    }
    let head = portable::Head {
        group: GroupId::ROOT,
        at: position(1, 4),
        chain: 8,
        digest: state.digest(),
        members: log_entry(1),
    };
    let mut bytes = Vec::new();
    let written = portable::write(&head, &state, |part| {
        bytes.extend_from_slice(part);
        Ok::<(), ()>(())
    });
    assert_eq!(written, Ok(()));
    bytes
}

fn item(room: u64, position: u64, seq: u64, index: u64) -> ItemRef {
    ItemRef {
        room: RoomId(room),
        position: Position(position),
        seq: Seq(seq),
        group: GroupId::ROOT,
        index: LogIndex(index),
    }
}

fn checkpoint_file() -> Vec<u8> {
    let disk = SimDisk::new();
    let mut checkpoints = Checkpoints::open(disk.clone(), DIRECTORY).expect("a disk in memory");
    let mut writer = checkpoints.create(CHECKPOINT).expect("a disk in memory");
    writer.write(&portable_checkpoint()).expect("a disk in memory");
    let ending = Ending {
        at: position(3, CHECKPOINT.0),
        chain: 8,
        digest: 9,
        age_ms: 77,
        indexed: LogIndex(5),
        begins: true,
    };
    let pending = [item(1, 6, 4, 9), item(300, 1, 0, 8)];
    checkpoints.finish(writer, &ending, &pending).expect("a disk in memory");
    disk.contents(&checkpoint::file_name(CHECKPOINT)).expect("the file")
}

fn index_file() -> Vec<u8> {
    let disk = SimDisk::new();
    disk.create_folder(FOLDER).expect("a disk in memory");
    let rooms = [
        (RoomId(1), Position(5), Seq(3)),
        (RoomId(7), Position(9), Seq(9)),
        (RoomId(6), Position(0), Seq(0)),
    ];
    let mut writer = SealedWriter::new(SEGMENT, GroupId::ROOT, LogIndex(10), rooms);
    writer.entry(LogIndex(10), Lsn(SEGMENT.base.0 + 64));
    writer.entry(LogIndex(11), Lsn(200_000));
    writer.entry(LogIndex(12), Lsn(SEGMENT.base.0 + 800));
    writer.item(&item(1, 6, 4, 10));
    writer.item(&item(8, 1, 1, 11));
    writer.item(&item(1, 7, 0, 12));
    writer.finish(&disk, DIRECTORY, 9, 77).expect("a disk in memory");
    disk.contents(&sealed::file_name(SEGMENT.base)).expect("the file")
}

fn identity() -> Vec<u8> {
    let text = "syncnet identity 1\nserver server1\ndirectory 0123456789abcdef\nboot 3\nlog 4096\nreplaced no\n";
    format!("{text}check {:08x}\n", crc32c::crc32c(text.as_bytes())).into_bytes()
}
