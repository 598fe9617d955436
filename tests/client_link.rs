//! The client's link over real sockets, against a server of a few lines that speaks the protocol's frames.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crossbeam_channel::Receiver;
use syncnet::chat::command::{Command, Outcome};
use syncnet::client::calls::{Action, Event, Options};
use syncnet::client::link::Client;
use syncnet::types::{ClientSeq, Lamport, Position, RoomId, Seq, ServerId, SessionId};
use syncnet::wire::client::{Ack, From, Item, Request, Response, Until, What, decode_request, encode_response};
use syncnet::wire::command;

/// Long enough for any machine; a test that hangs fails by it.
const PATIENCE: Duration = Duration::from_secs(30);
const ROOM: RoomId = RoomId(1);

/// One accepted connection.
struct Peer {
    stream: TcpStream,
}

impl Peer {
    fn accept(listener: &TcpListener) -> Peer {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer { stream }
    }

    fn read(&mut self) -> Request {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut body).unwrap();
        decode_request(&body).unwrap()
    }

    fn say(&mut self, response: &Response) {
        let mut bytes = Vec::new();
        encode_response(response, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    fn greet(&mut self) {
        assert!(matches!(self.read(), Request::Hello { .. }));
        self.say(&Response::Welcome {
            version: 1,
            cluster: "test".into(),
            server: ServerId::new("s1").unwrap(),
            servers: Vec::new(),
            leader: None,
            quorum: true,
            message_bytes_max: 65536,
        });
    }

    fn opened(&mut self, last: u64) {
        self.say(&Response::Opened {
            session: SessionId(5),
            last: ClientSeq(last),
            name: "ann".into(),
        });
    }

    fn post(&mut self) -> (u64, String) {
        let Request::Command(bytes) = self.read() else {
            panic!("not a command")
        };
        let Command::Post { head, text, .. } = command::decode(&bytes).unwrap() else {
            panic!("not a post")
        };
        (head.seq.0, text.into_owned())
    }

    fn ack(&mut self, seqs: &[u64]) {
        let ack = |&seq: &u64| Ack {
            seq: ClientSeq(seq),
            outcome: Outcome::Done,
        };
        self.say(&Response::Acks(seqs.iter().map(ack).collect()));
    }
}

fn options(listeners: &[&TcpListener]) -> Options {
    Options {
        servers: listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect(),
        in_order: true,
        only: true,
        name: "ann".into(),
        key: [1; 32],
        secret: [2; 16],
        agent: "test".into(),
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn post(text: &str) -> Action {
    Action::Post {
        room: ROOM,
        text: text.into(),
        dedup: None,
    }
}

fn next_done(events: &Receiver<Event>) -> u64 {
    loop {
        if let Event::Done { seq, .. } = events.recv_timeout(PATIENCE).expect("an acknowledgement") {
            return seq.0;
        }
    }
}

#[test]
fn what_a_dead_server_did_not_acknowledge_reaches_the_next_once_more_and_in_order() {
    let (first, second) = (listener(), listener());
    let (client, events) = Client::start(options(&[&first, &second])).unwrap();
    let server = std::thread::spawn(move || {
        let mut peer = Peer::accept(&first);
        peer.greet();
        assert!(matches!(peer.read(), Request::Open { .. }));
        peer.opened(0);
        assert_eq!(peer.post(), (1, "one".into()));
        peer.ack(&[1]);
        assert_eq!(peer.post(), (2, "two".into()));
        drop((peer, first));
        let mut peer = Peer::accept(&second);
        peer.greet();
        assert!(matches!(
            peer.read(),
            Request::Attach {
                session: SessionId(5),
                ..
            }
        ));
        peer.opened(1);
        assert_eq!(peer.post(), (2, "two".into()));
        assert_eq!(peer.post(), (3, "three".into()));
        peer.ack(&[3]);
        peer.ack(&[2]);
        let Request::Command(bytes) = peer.read() else { panic!() };
        assert!(matches!(command::decode(&bytes), Ok(Command::Close { .. })));
        peer.ack(&[4]);
    });
    client.submit(post("one"), None).unwrap();
    assert_eq!(next_done(&events), 1);
    client.submit(post("two"), None).unwrap();
    client.submit(post("three"), None).unwrap();
    assert_eq!(next_done(&events), 2);
    assert_eq!(next_done(&events), 3);
    client.close_and_wait(&events);
    server.join().unwrap();
}

#[test]
fn a_program_that_takes_no_events_is_waited_for_and_misses_none() {
    const ITEMS: u64 = 20_000;
    let only = listener();
    let (client, events) = Client::start(options(&[&only])).unwrap();
    client
        .subscribe(ROOM, From::AfterSeq(Seq(0)), Until::Here, true)
        .unwrap();
    let server = std::thread::spawn(move || {
        let mut peer = Peer::accept(&only);
        peer.greet();
        let Request::Subscribe { id, .. } = peer.read() else {
            panic!()
        };
        peer.say(&Response::Subscribed {
            id,
            room: ROOM,
            exists: true,
            fresh: true,
        });
        for n in 1..=ITEMS {
            peer.say(&Response::Item(Item {
                room: ROOM,
                position: Position(n),
                seq: Seq(n),
                lamport: Lamport(n),
                time_ms: n,
                session: SessionId(0),
                client_seq: ClientSeq(0),
                user: "bob".into(),
                what: What::Message("hello".into()),
            }));
        }
        peer.say(&Response::End { room: ROOM });
        // Until the client goes.
        let _ = peer.stream.read(&mut [0]);
    });
    // The channel is full long before all are there, and nothing is read from it until then.
    while events.len() < events.capacity().unwrap() {
        std::thread::yield_now();
    }
    let mut seen = 0;
    loop {
        match events.recv_timeout(PATIENCE).expect("an event") {
            Event::Item(item) => {
                seen += 1;
                assert_eq!(item.position.0, seen);
            }
            Event::End { .. } => break,
            _ => {}
        }
    }
    assert_eq!(seen, ITEMS);
    drop(client);
    server.join().unwrap();
}

#[test]
fn bytes_that_are_no_protocol_end_the_connection_and_nothing_else() {
    let (first, second) = (listener(), listener());
    let (client, events) = Client::start(options(&[&first, &second])).unwrap();
    client.open().unwrap();
    let server = std::thread::spawn(move || {
        let mut peer = Peer::accept(&first);
        peer.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let mut peer = Peer::accept(&second);
        peer.greet();
        assert!(matches!(peer.read(), Request::Open { .. }));
        peer.opened(0);
        let _ = peer.stream.read(&mut [0]);
    });
    loop {
        match events.recv_timeout(PATIENCE).expect("an event") {
            Event::Opened { session, .. } => {
                assert_eq!(session, SessionId(5));
                break;
            }
            Event::Unreachable { reason, .. } => assert!(reason.contains("frame"), "{reason}"),
            _ => {}
        }
    }
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_name_is_resolved_and_one_that_is_none_is_told() {
    let only = listener();
    let port = only.local_addr().unwrap().port();
    let mut options = options(&[]);
    options.servers = vec!["no.such.host.invalid:1".into(), format!("localhost:{port}")];
    let (client, events) = Client::start(options).unwrap();
    let server = std::thread::spawn(move || {
        let mut peer = Peer::accept(&only);
        peer.greet();
        let _ = peer.stream.read(&mut [0]);
    });
    let mut unreachable = false;
    loop {
        match events.recv_timeout(PATIENCE).expect("an event") {
            Event::Connected { .. } => break,
            Event::Unreachable { address, .. } => unreachable |= address.starts_with("no.such"),
            _ => {}
        }
    }
    assert!(unreachable);
    drop(client);
    server.join().unwrap();
}
