//! Hostile clients beside a normal one, which must not notice: all that it says is acknowledged, on the same connection, and the server's
//! memory and descriptors stay bounded. `scripts/hostile.sh` does the same for long, and measures how long acknowledgements take.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, prlimit};
use syncnet::chat::command::{Command, Head, Name, Outcome};
use syncnet::limits;
use syncnet::types::{ClientSeq, Lamport, RoomId, SessionId};
use syncnet::wire::client::{From, MAGIC, Request, Response, Until, VERSIONS, decode_response, encode_request};
use syncnet::wire::command;
use syncnet::wire::frame::{Split, split};

use crate::support::cluster::{Cluster, Options};
use crate::support::{PATIENCE, wait_until};

/// Bytes of resident memory that a server may have more at the end of an attack than at its beginning.
const MEMORY_MORE_MAX: u64 = 256 * 1024 * 1024;

/// A normal client whose command isn't answered for so long sends it again.
const SILENCE: Duration = Duration::from_secs(3);

/// The frame of a request.
pub fn frame_of(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_request(request, &mut bytes);
    bytes
}

/// The first frame of a client.
pub fn hello() -> Vec<u8> {
    frame_of(&Request::Hello {
        magic: MAGIC,
        versions: VERSIONS,
        agent: "test".to_owned(),
    })
}

/// Opens a session of a client that has a key and a secret of its own.
fn open(name: &str) -> Vec<u8> {
    let mut key = [0; 32];
    key[..name.len()].copy_from_slice(name.as_bytes());
    let mut secret = [0; 16];
    secret.copy_from_slice(&key[..16]);
    frame_of(&Request::Open {
        name: name.to_owned(),
        key,
        secret,
        lamport: Lamport(0),
    })
}

/// A client as it should be, on one connection that it never gives up.
pub struct Normal {
    stream: TcpStream,
    input: Vec<u8>,
    session: SessionId,
    room: RoomId,
    seq: u64,
}

impl Normal {
    /// Connects, opens a session and makes a room.
    pub fn connect(port: u16, name: &str) -> Normal {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the port is served");
        stream.set_read_timeout(Some(SILENCE)).expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
        stream
            .write_all(&[hello(), open(name)].concat())
            .expect("the server reads");
        let mut normal = Normal {
            stream,
            input: Vec::new(),
            session: SessionId(0),
            room: RoomId(0),
            seq: 0,
        };
        while normal.session.0 == 0 {
            if let Some(Response::Opened { session, .. }) = normal.read() {
                normal.session = session;
            }
        }
        let (user, room) = (name.to_owned(), Name::new(name, name));
        let outcome = normal.command(|head| Command::Create {
            head,
            user: user.clone().into(),
            room: room.clone(),
            or_find: true,
        });
        let Outcome::Room { room: id, .. } = outcome else {
            panic!("no room: {outcome:?}");
        };
        normal.room = id;
        normal.command(|head| Command::Join {
            head,
            user: user.into(),
            room,
        });
        normal
    }

    /// What comes next; nothing if the server has been silent for a while.
    #[track_caller]
    fn read(&mut self) -> Option<Response> {
        loop {
            if let Split::Complete { body, consumed } = split(&self.input, limits::CLIENT_FRAME_BYTES_MAX) {
                let response = decode_response(body).expect("servers are well-behaved");
                self.input.drain(..consumed);
                assert!(
                    !matches!(response, Response::Fatal { .. }),
                    "disconnected: {response:?}"
                );
                return Some(response);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("disconnected"),
                Ok(n) => self.input.extend_from_slice(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("disconnected: {error}"),
            }
        }
    }

    #[track_caller]
    fn command<'a>(&mut self, make: impl FnOnce(Head) -> Command<'a>) -> Outcome {
        self.seq += 1;
        let command = make(Head {
            session: self.session,
            seq: ClientSeq(self.seq),
            unacknowledged: ClientSeq(self.seq),
            lamport: Lamport(0),
        });
        let frame = frame_of(&Request::Command(command::encode(&command)));
        let deadline = Instant::now() + PATIENCE;
        self.stream.write_all(&frame).expect("the server reads");
        loop {
            assert!(Instant::now() < deadline, "command {} is not acknowledged", self.seq);
            match self.read() {
                Some(Response::Acks(acks)) => {
                    if let Some(ack) = acks.into_iter().find(|ack| ack.seq.0 == self.seq) {
                        return ack.outcome;
                    }
                }
                // A repetition is recognised.
                Some(Response::Resend { .. }) | None => self.stream.write_all(&frame).expect("the server reads"),
                Some(_) => {}
            }
        }
    }

    /// Says something, and waits for the acknowledgement. How long that took.
    #[track_caller]
    pub fn say(&mut self, name: &str) -> Duration {
        let (room, began) = (self.room, Instant::now());
        let outcome = self.command(|head| Command::Post {
            head,
            room,
            user: name.into(),
            text: "hello".into(),
            dedup: None,
        });
        assert!(matches!(outcome, Outcome::Posted { .. }), "{outcome:?}");
        began.elapsed()
    }
}

/// Ways to be a nuisance.
#[derive(Clone, Copy, Debug)]
pub enum Attack {
    /// Hundreds of connections that say half a hello, and are made anew when they are closed.
    HalfHellos,
    /// A hello, a byte at a time.
    SlowHellos,
    /// Announces 4 GiB, and begins to send them.
    Giant,
    /// Frames of the greatest length, of which the end never comes, before and after the hello.
    HalfFrames,
    /// Thousands of connections that said hello and nothing more.
    Crowd,
    /// Questions as fast as they can be written; no answer is ever read.
    NeverReads,
    /// Questions as fast as they can be written, and all answers are read.
    Questions,
    /// Garbage in frames of the right length, reconnecting each time.
    Garbage,
    /// Connects and goes away at once.
    Knocks,
    /// Opens a session and goes away without closing it.
    Sessions,
}

/// All of them.
pub const ATTACKS: [Attack; 10] = [
    Attack::HalfHellos,
    Attack::SlowHellos,
    Attack::Giant,
    Attack::HalfFrames,
    Attack::Crowd,
    Attack::NeverReads,
    Attack::Questions,
    Attack::Garbage,
    Attack::Knocks,
    Attack::Sessions,
];

/// An attack that goes on until it is stopped.
pub struct Attacker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Attacker {
    /// Begins.
    pub fn start(attack: Attack, port: u16) -> Attacker {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut held = Vec::new();
            let mut turn = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                turn += 1;
                // Whatever the server does to it, the attacker goes on.
                let _ = attack.go_on(port, turn, &mut held);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Attacker {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A connection that never waits.
fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_millis(200))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Whether the other side has closed; what came is thrown away.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 65_536];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

impl Attack {
    /// Connections that are held open.
    fn crowd(self) -> usize {
        match self {
            Attack::Crowd => 2000,
            Attack::HalfHellos | Attack::SlowHellos | Attack::HalfFrames => 300,
            Attack::NeverReads | Attack::Giant => 100,
            Attack::Questions => 4,
            Attack::Garbage | Attack::Knocks | Attack::Sessions => 0,
        }
    }

    fn first_words(self, turn: u64) -> Vec<u8> {
        match self {
            Attack::HalfHellos => hello()[..(turn % 12) as usize].to_vec(),
            Attack::SlowHellos | Attack::Knocks => Vec::new(),
            Attack::Giant => [&u32::MAX.to_le_bytes()[..], &[7; 10_000]].concat(),
            Attack::HalfFrames => {
                let length = (limits::CLIENT_FRAME_BYTES_MAX as u32).to_le_bytes();
                let frame = [&length[..], &vec![3; limits::CLIENT_FRAME_BYTES_MAX / 2]].concat();
                if turn.is_multiple_of(2) {
                    [hello(), frame].concat()
                } else {
                    frame
                }
            }
            Attack::Crowd | Attack::Questions => hello(),
            Attack::NeverReads => {
                let subscribe = Request::Subscribe {
                    id: 1,
                    room: RoomId::LOBBY,
                    from: From::Position(syncnet::types::Position(1)),
                    until: Until::Forever,
                };
                [hello(), frame_of(&subscribe)].concat()
            }
            Attack::Garbage => [hello(), 100u32.to_le_bytes().to_vec(), vec![turn as u8; 100]].concat(),
            Attack::Sessions => [hello(), open(&format!("mallory{turn}"))].concat(),
        }
    }

    fn go_on(self, port: u16, turn: u64, held: &mut Vec<TcpStream>) -> std::io::Result<()> {
        if held.len() < self.crowd() || self.crowd() == 0 {
            let mut stream = connect(port)?;
            stream.write_all(&self.first_words(turn))?;
            match self {
                Attack::Garbage => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
                    let _ = stream.read_to_end(&mut Vec::new());
                }
                Attack::Sessions => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
                    // Until the session is open or refused.
                    let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.read(&mut [0; 4096]));
                }
                Attack::Knocks => {}
                _ => held.push(stream),
            }
        }
        let flood: Vec<u8> = (0..100).flat_map(|id| frame_of(&Request::Status { id })).collect();
        let ping: Vec<u8> = (0..100).flat_map(|id| frame_of(&Request::Ping { id })).collect();
        match self {
            Attack::NeverReads => held.iter_mut().for_each(|stream| drop(stream.write(&flood))),
            Attack::Questions => held.iter_mut().for_each(|stream| {
                let _ = stream.write(if turn.is_multiple_of(2) { &flood } else { &ping });
            }),
            Attack::SlowHellos if turn.is_multiple_of(100) => {
                let byte = hello()[(turn / 100 % 10) as usize];
                held.iter_mut().for_each(|stream| drop(stream.write(&[byte])));
            }
            _ => {}
        }
        if !matches!(self, Attack::NeverReads) && turn.is_multiple_of(50) {
            held.retain_mut(|stream| !is_closed(stream));
        }
        Ok(())
    }
}

/// The term and leader that all servers agree on.
#[track_caller]
pub fn reign(cluster: &Cluster) -> (u64, String) {
    let report = cluster.status(&["--json"]).code(0).json().remove(0);
    let rows = report["servers"].as_array().expect("rows");
    let of = |row: &serde_json::Value| {
        let leader = row["leader"].as_str().expect("a leader").to_owned();
        (row["term"].as_u64().expect("a term"), leader)
    };
    assert!(rows.iter().all(|row| of(row) == of(&rows[0])), "{report}");
    of(&rows[0])
}

/// Connections that have said hello: those that were welcomed, and those that were told that the server is full.
fn crowd(port: u16, count: usize) -> (Vec<TcpStream>, usize) {
    let (mut welcome, mut refused) = (Vec::new(), 0);
    for _ in 0..count {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the port is served");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        // A refused one may be closed already.
        let _ = stream.write_all(&hello());
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).unwrap_or(0);
        match split(&bytes[..n], limits::CLIENT_FRAME_BYTES_MAX) {
            Split::Complete { body, .. } => match decode_response(body).expect("servers are well-behaved") {
                Response::Welcome { .. } => welcome.push(stream),
                Response::Fatal { text } => {
                    assert!(text.contains("full"), "{text}");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            },
            _ => refused += 1,
        }
    }
    (welcome, refused)
}

/// Descriptors that leave room for some dozens of clients.
const FEW: u32 = limits::DESCRIPTORS_RESERVED as u32 + 72;

#[test]
fn a_server_without_descriptors_serves_those_who_are_there_links_and_recovers() {
    let mut cluster = Cluster::start(Options {
        secret: true,
        calm: true,
        descriptors: Some(FEW),
        ..Options::default()
    });
    let port = cluster.servers[0].client_port;
    let mut normal = Normal::connect(port, "normal");
    let (welcome, refused) = crowd(port, 200);
    assert!(welcome.len() > 20 && refused > 100, "{} and {refused}", welcome.len());
    normal.say("normal");
    // Full of clients, it still finds room for a server that comes back.
    cluster.kill("server2");
    normal.say("normal");
    cluster.launch("server2");
    wait_until("server2 is linked again", || {
        cluster.log("server1").matches("link to server2 at").count() >= 2
    });
    normal.say("normal");
    drop(welcome);
    wait_until("there is room again", || crowd(port, 1).0.len() == 1);

    // None left at all, as if all files of the system were open.
    let limit = |soft: u64| {
        let limit = Rlimit {
            current: Some(soft),
            maximum: Some(u64::from(FEW)),
        };
        prlimit(Some(cluster.process("server1")), Resource::Nofile, limit).expect("a child of ours");
    };
    limit(3);
    let waiting: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the system accepts");
            stream.write_all(&hello()).expect("the system takes it");
            stream
        })
        .collect();
    for _ in 0..20 {
        normal.say("normal");
        std::thread::sleep(Duration::from_millis(50));
    }
    let complaints = cluster.log("server1").matches("no connection can be accepted").count();
    assert_eq!(complaints, 1, "it is said once, not at every try");
    limit(u64::from(FEW));
    for mut stream in waiting {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        assert!(
            stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0),
            "served when there are some again"
        );
    }
    normal.say("normal");
}

#[test]
fn acknowledgements_that_cannot_be_written_are_an_error() {
    let cluster = Cluster::start(Options::default());
    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("a full device")
    };
    let mut command = cluster.command("syncnet", &["send", "--json", "ops", "hello"]);
    let ended = command
        .stdin(std::process::Stdio::null())
        .stdout(full())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("standard output can't be written"), "{told}");
    // What was asked is done all the same.
    assert_eq!(cluster.messages("server1", "ops").texts("text"), ["hello"]);
}

/// The middle and the worst but one in a hundred.
fn middle_and_worst(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// For `scripts/hostile.sh`: as long as SYNCNET_HOSTILE_MINUTES says, each attack in turn; how long the normal client waits for its
/// acknowledgements is measured before and while.
#[test]
#[ignore = "takes minutes, and measures: scripts/hostile.sh"]
fn hostile_for_long() {
    let minutes = std::env::var("SYNCNET_HOSTILE_MINUTES").map_or(5.0, |text| text.parse::<f64>().expect("a number"));
    let each = Duration::from_secs_f64(minutes * 60.0 / (ATTACKS.len() as f64 + 1.0));
    let cluster = Cluster::start(Options {
        secret: true,
        calm: true,
        ..Options::default()
    });
    let port = cluster.servers[0].client_port;
    let mut normal = Normal::connect(port, "normal");
    let mut measure = |span: Duration| {
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed() < span {
            times.push(normal.say("normal"));
            std::thread::sleep(Duration::from_millis(5));
        }
        middle_and_worst(times)
    };
    let calm = measure(each);
    let (before, memory) = (reign(&cluster), cluster.memory("server1"));
    println!(
        "{:<12} {:>12} {:>12} {:>10} {:>12}",
        "attack", "median", "1 in 100", "memory", "descriptors"
    );
    let row = |name: &str, (middle, worst): (Duration, Duration)| {
        let (memory, open) = (cluster.memory("server1") / 1024 / 1024, cluster.descriptors("server1"));
        println!("{name:<12} {middle:>12.1?} {worst:>12.1?} {memory:>6} MiB {open:>12}");
    };
    row("none", calm);
    let mut slow = Vec::new();
    for attack in ATTACKS {
        let attacker = Attacker::start(attack, port);
        let times = measure(each);
        row(&format!("{attack:?}"), times);
        assert!(cluster.memory("server1") < memory + MEMORY_MORE_MAX, "{attack:?}");
        if times.0 > 2 * calm.0 {
            slow.push(attack);
        }
        drop(attacker);
    }
    assert_eq!(reign(&cluster), before, "nobody had to elect again");
    assert!(
        slow.is_empty(),
        "acknowledgements took more than twice as long under {slow:?}"
    );
}

#[test]
fn a_normal_client_does_not_notice_hostile_ones() {
    let cluster = Cluster::start(Options {
        secret: true,
        calm: true,
        ..Options::default()
    });
    let before = reign(&cluster);
    let mut normals: Vec<Normal> = (0..3)
        .map(|n| Normal::connect(cluster.servers[n].client_port, &format!("normal{}", "x".repeat(n))))
        .collect();
    let name = |n: usize| format!("normal{}", "x".repeat(n));
    let (memory, descriptors) = (cluster.memory("server1"), cluster.descriptors("server1"));
    for attack in ATTACKS {
        let attackers = [0, 2].map(|n: usize| Attacker::start(attack, cluster.servers[n].client_port));
        for _ in 0..20 {
            for (n, normal) in normals.iter_mut().enumerate() {
                normal.say(&name(n));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let (now, open) = (cluster.memory("server1"), cluster.descriptors("server1"));
        assert!(
            now < memory + MEMORY_MORE_MAX,
            "{attack:?}: {now} bytes, {memory} before"
        );
        assert!(open < limits::CONNECTIONS_MAX, "{attack:?}: {open} descriptors");
        drop(attackers);
    }
    assert_eq!(reign(&cluster), before, "nobody had to elect again");
    // Those who never said hello are gone a while later, and so is all that was held for them.
    wait_until("what the attackers held is given back", || {
        cluster.descriptors("server1") <= descriptors + 10
    });
}
