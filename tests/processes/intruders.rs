//! Somebody who isn't of the cluster at the ports of its servers: at the peer port and in the multicast group, with what was heard there
//! before, and without. All of it is refused, said in the log, and without effect: the same leader in the same term, and every message
//! acknowledged.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};
use syncnet::cluster::message::{Datagram, Flags, GroupBeat, Heartbeat, LogPosition, Sender, Token};
use syncnet::config::Secret;
use syncnet::limits;
use syncnet::types::{Boot, ClusterId, DirectoryId, GroupId, LogIndex, RingPosition, ServerId, Term};
use syncnet::wire::auth::{Side, link_proof};
use syncnet::wire::datagram::{Sealed, open, seal};
use syncnet::wire::frame::{Split, split};
use syncnet::wire::peer::{Handshake, MAGIC, VERSIONS, decode_handshake, encode_handshake};

use super::hostile::{Normal, reign};
use crate::support::cluster::{Cluster, Options, SECRET};
use crate::support::{PATIENCE, wait_until};

fn cluster(secret: bool) -> Cluster {
    Cluster::start(Options {
        secret,
        calm: true,
        ..Options::default()
    })
}

fn secret() -> Secret {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
    Secret(SECRET.as_bytes().chunks(2).map(byte).collect())
}

fn id(n: u64) -> ServerId {
    ServerId::new(&format!("server{n}")).expect("an id")
}

/// A member of the multicast group that nobody has asked for.
struct Eavesdropper {
    socket: UdpSocket,
    group: SocketAddr,
}

impl Eavesdropper {
    fn join(cluster: &Cluster) -> Eavesdropper {
        let group = cluster.multicast;
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
        socket.set_reuse_address(true).expect("a socket option");
        socket.bind(&SocketAddr::V4(group).into()).expect("a shared port");
        socket
            .join_multicast_v4(group.ip(), &Ipv4Addr::LOCALHOST)
            .expect("a group");
        socket
            .set_multicast_if_v4(&Ipv4Addr::LOCALHOST)
            .expect("a socket option");
        socket.set_multicast_loop_v4(true).expect("a socket option");
        let socket: UdpSocket = socket.into();
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        Eavesdropper {
            socket,
            group: group.into(),
        }
    }

    /// The next datagrams of the group.
    fn capture(&self, count: usize) -> Vec<Vec<u8>> {
        let mut bytes = [0; 2048];
        let mut next = |_| {
            let n = self.socket.recv(&mut bytes).expect("servers send heartbeats");
            bytes[..n].to_vec()
        };
        (0..count).map(&mut next).collect()
    }

    fn say(&self, bytes: &[u8]) {
        // A full buffer is the flood's own fault.
        let _ = self.socket.send_to(bytes, self.group);
    }

    /// What a server says of itself in its datagrams.
    fn sender_of(&self, n: u64, secret: Option<&Secret>) -> Sender {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let sealed = open(&self.capture(1)[0], secret).expect("a datagram of this cluster");
            if sealed.sender.server == id(n) {
                return sealed.sender;
            }
        }
        panic!("server{n} is silent");
    }
}

fn datagram(sender: Sender, sequence: u64, term: u64, stopping: bool, secret: Option<&Secret>) -> Vec<u8> {
    let last = LogPosition {
        term: Term(term),
        index: LogIndex(1 << 40),
    };
    let heartbeat = Heartbeat {
        flags: Flags {
            formed: true,
            fit: true,
            stopping,
        },
        links: vec![id(1), id(2), id(3)],
        groups: vec![GroupBeat {
            group: GroupId::ROOT,
            term: Term(term),
            leader: Some(id(1)),
            last,
            commit: LogIndex(1 << 40),
            digest: (LogIndex(1024), 0),
        }],
    };
    let sealed = Sealed {
        sender,
        sequence,
        datagram: Datagram::Heartbeat(heartbeat),
    };
    seal(&sealed, secret)
}

fn token(sender: Sender, sequence: u64, secret: Option<&Secret>) -> Vec<u8> {
    let last = LogPosition {
        term: Term(1 << 20),
        index: LogIndex(1 << 40),
    };
    let token = Token {
        origin: id(1),
        round: Term(1 << 20),
        last,
        ring: RingPosition(9),
        hops: 1,
    };
    let datagram = Datagram::Token {
        to: id(2),
        group: GroupId::ROOT,
        token,
    };
    seal(
        &Sealed {
            sender,
            sequence,
            datagram,
        },
        secret,
    )
}

/// Says bad things, while a client goes on; nothing comes of them but what the log says.
fn without_effect(cluster: &Cluster, complaints: &[&str], bad: impl Fn(u64)) {
    let before = reign(cluster);
    let mut normal = Normal::connect(cluster.servers[0].client_port, "normal");
    for round in 0..20 {
        bad(round);
        normal.say("normal");
    }
    assert_eq!(reign(cluster), before);
    for complaint in complaints {
        wait_until(&format!("the log says: {complaint}"), || {
            cluster.log("server2").contains(complaint)
        });
    }
}

#[test]
fn datagrams_that_are_forged_replayed_or_of_others_are_counted_and_without_effect() {
    let cluster = cluster(true);
    let (ear, secret) = (Eavesdropper::join(&cluster), secret());
    let real = ear.sender_of(3, Some(&secret));
    let captured = ear.capture(30);
    let other_cluster = Sender {
        cluster: ClusterId(real.cluster.0 ^ 1),
        ..real
    };
    let other_members = Sender {
        members: real.members ^ 1,
        ..real
    };
    let earlier = Sender {
        boot: Boot(real.boot.0 - 1),
        ..real
    };
    let complaints = [
        "the proof of the cluster secret is wrong or missing",
        "belongs to cluster",
        "different sets of servers",
        "no common version",
        "not among the configured servers",
    ];
    without_effect(&cluster, &complaints, |round| {
        for bytes in &captured {
            ear.say(bytes);
            let mut forged = bytes.clone();
            let at = (round as usize * 7) % forged.len();
            forged[at] ^= 1 << (round % 8);
            ear.say(&forged);
            ear.say(&bytes[..at]);
        }
        for stopping in [false, true] {
            ear.say(&datagram(real, 1 << 40, 1 << 20, stopping, None));
            ear.say(&datagram(real, 1 << 40, 1 << 20, stopping, Some(&Secret(vec![9; 32]))));
            ear.say(&datagram(other_cluster, 1 << 40, 1 << 20, stopping, Some(&secret)));
            ear.say(&datagram(other_members, 1 << 40, 1 << 20, stopping, Some(&secret)));
            // From before the last start: authentic, and still not to be believed.
            ear.say(&datagram(earlier, round, 1 << 20, stopping, Some(&secret)));
        }
        let stranger = Sender { server: id(4), ..real };
        ear.say(&token(stranger, round, Some(&secret)));
        let mut future = datagram(real, 1 << 40, 1 << 20, false, Some(&secret));
        (future[4], future[5]) = (200, 201);
        ear.say(&future);
        for n in 0..500usize {
            ear.say(&vec![n as u8; n * 3]);
        }
    });
    // Heartbeats of the servers themselves are still heard: with none, this one would suspect the others.
    assert!(!cluster.log("server2").contains("is suspected"));
}

#[test]
fn forged_datagrams_are_hints_only_where_there_is_no_secret() {
    let cluster = cluster(false);
    let ear = Eavesdropper::join(&cluster);
    let senders = [1, 2, 3].map(|n| ear.sender_of(n, None));
    without_effect(&cluster, &["belongs to cluster"], |round| {
        for sender in senders {
            let other_cluster = Sender {
                cluster: ClusterId(sender.cluster.0 ^ 1),
                ..sender
            };
            ear.say(&datagram(other_cluster, 1 << 40, 1 << 20, true, None));
            for stopping in [false, true] {
                ear.say(&datagram(
                    sender,
                    (1 << 40) + 2 * round + u64::from(stopping),
                    1 << 20,
                    stopping,
                    None,
                ));
            }
            ear.say(&token(sender, (1 << 41) + round, None));
            let reborn = Sender {
                directory: DirectoryId(round + 1),
                boot: Boot(u64::MAX),
                ..sender
            };
            ear.say(&datagram(reborn, 1, 1 << 20, true, None));
        }
    });
}

/// A connection to the peer port of a server.
struct Caller {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bodies of the hellos of both.
    hellos: (Vec<u8>, Vec<u8>),
}

impl Caller {
    fn connect(port: u16) -> Caller {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the port is served");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        Caller {
            stream,
            input: Vec::new(),
            hellos: (Vec::new(), Vec::new()),
        }
    }

    fn say(&mut self, handshake: &Handshake) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_handshake(handshake, &mut bytes);
        // The server may have had enough already.
        let _ = self.stream.write_all(&bytes);
        bytes.split_off(4)
    }

    /// The next frame, or nothing if the server has closed.
    fn read(&mut self) -> Option<Handshake> {
        loop {
            if let Split::Complete { body, consumed } = split(&self.input, limits::HANDSHAKE_BYTES_MAX) {
                let handshake = decode_handshake(body).expect("servers are well-behaved");
                if matches!(handshake, Handshake::Hello { .. }) {
                    self.hellos.1 = body.to_vec();
                }
                self.input.drain(..consumed);
                return Some(handshake);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(n) if n > 0 => self.input.extend_from_slice(&bytes[..n]),
                _ => return None,
            }
        }
    }

    /// Says hello and reads that of the server, if it answers with one.
    fn greet(&mut self, hello: Handshake) -> Option<Handshake> {
        self.hellos.0 = self.say(&hello);
        self.read()
    }

    /// Ends the handshake with this proof; why it is refused.
    #[track_caller]
    fn refused(&mut self, mac: Vec<u8>) -> String {
        self.say(&Handshake::Proof { mac });
        self.refusal()
    }

    #[track_caller]
    fn refusal(&mut self) -> String {
        loop {
            match self.read() {
                Some(Handshake::Refused { text }) => return text,
                Some(_) => {}
                None => panic!("closed without a word"),
            }
        }
    }
}

fn hello(sender: Sender) -> Handshake {
    Handshake::Hello {
        magic: MAGIC,
        versions: VERSIONS,
        cluster_name: "test".to_owned(),
        sender,
        to: Some(id(2)),
        nonce: [7; 16],
    }
}

#[test]
fn handshakes_that_are_forged_replayed_or_of_others_are_refused_and_without_effect() {
    let cluster = cluster(true);
    let (port, secret) = (cluster.servers[1].peer_port, secret());
    let real = Eavesdropper::join(&cluster).sender_of(1, Some(&secret));
    let complaints = ["a link from 127.0.0.1 is refused: the proof of the cluster secret is wrong or missing"];
    without_effect(&cluster, &complaints, |_| {
        let proof = |caller: &Caller, secret: &Secret| {
            link_proof(secret, Side::Caller, &caller.hellos.0, &caller.hellos.1).to_vec()
        };
        let greeted = || {
            let mut caller = Caller::connect(port);
            let answer = caller.greet(hello(real));
            assert!(matches!(answer, Some(Handshake::Hello { .. })), "{answer:?}");
            caller
        };
        let wrong = "the proof of the cluster secret is wrong or missing";
        assert_eq!(greeted().refused(Vec::new()), wrong, "without the secret");
        let mut caller = greeted();
        let forged = proof(&caller, &Secret(vec![9; 32]));
        assert_eq!(caller.refused(forged), wrong, "with another secret");
        // A good proof of one link, sent on another with the same hello: as somebody would who has listened.
        let heard = proof(&greeted(), &secret);
        assert_eq!(greeted().refused(heard), wrong, "replayed");
        let mut caller = greeted();
        let Some(Handshake::Proof { mac }) = caller.read() else {
            panic!("the called proves itself first");
        };
        assert_eq!(caller.refused(mac), wrong, "sent back");

        let other = Sender {
            cluster: ClusterId(real.cluster.0 ^ 1),
            ..real
        };
        let stranger = Sender { server: id(4), ..real };
        let future = Handshake::Hello {
            magic: MAGIC,
            versions: (200, 201),
            cluster_name: "test".to_owned(),
            sender: real,
            to: None,
            nonce: [7; 16],
        };
        for (hello, why) in [
            (hello(other), "another cluster"),
            (hello(stranger), "not among the servers"),
            (future, "no common version"),
        ] {
            let mut caller = Caller::connect(port);
            match caller.greet(hello) {
                Some(Handshake::Refused { text }) => assert!(text.contains(why), "{text}"),
                answer => panic!("{why}: {answer:?}"),
            }
        }
        let mut early = Caller::connect(port);
        assert!(early.refused(vec![0; 32]).contains("out of turn"));
        let mut flood = Caller::connect(port);
        let _ = flood.stream.write_all(&vec![0xFF; 1 << 20]);
        assert!(flood.read().is_none(), "a frame of 4 GiB ends the connection");
    });
}

#[test]
fn servers_link_while_strangers_hold_the_peer_port_with_handshakes() {
    let mut cluster = cluster(true);
    let mut normal = Normal::connect(cluster.servers[2].client_port, "normal");
    let hold = |n: usize| {
        let port = cluster.servers[n].peer_port;
        (0..3 * limits::HANDSHAKES_MAX)
            .map(|_| Caller::connect(port))
            .collect::<Vec<_>>()
    };
    // Given up only after `connect_timeout`, which is longer here than the test.
    let mut held = [hold(1), hold(2)];
    cluster.kill("server1");
    normal.say("normal");
    cluster.launch("server1");
    cluster.await_leader("server3");
    normal.say("normal");
    for port in &mut held {
        assert!(port[0].read().is_none(), "the oldest has made room");
    }
}
