//! Links over real sockets on loopback: two servers' peers, each with a poll of its own, walked in turns by one thread.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::clock::Clock;
use super::listener::{Accepted, Listener};
use super::peers::{PeerAddress, Peers};
use super::poll::{LAST, PEER_DOOR};
use super::timers::Timers;
use super::{Alarm, Context, Ids};
use crate::cluster::message::{Message, Sender};
use crate::config::{Secret, Timing};
use crate::limits;
use crate::node::Input;
use crate::types::{Blob, Boot, ClusterId, ConnId, DirectoryId, GroupId, ServerId, Span, Term};
use crate::wire::peer::PeerMessage;

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

fn id(n: u64) -> ServerId {
    ServerId::new(&format!("server{n}")).unwrap()
}

fn sender(n: u64) -> Sender {
    Sender {
        cluster: ClusterId(0),
        members: 9,
        server: id(n),
        directory: DirectoryId(n),
        boot: Boot(1),
    }
}

/// One server, as far as links go.
struct Side {
    poll: Poll,
    door: Listener,
    peers: Peers,
    timers: Timers<Alarm>,
    ids: Ids,
    clock: Clock,
    sender: Sender,
    inputs: Vec<Input>,
}

impl Side {
    fn new(sender: Sender, other: ServerId, target: Option<SocketAddr>, secret: &[u8]) -> Side {
        let poll = Poll::new().unwrap();
        let door = Listener::bind("127.0.0.1:0".parse().unwrap(), poll.registry(), PEER_DOOR).unwrap();
        let timing = Timing {
            heartbeat_interval: Span::from_ms(10),
            failure_timeout: Span::from_ms(60_000),
            election_timeout: Span::from_ms(500),
            connect_timeout: Span::from_ms(3000),
        };
        let other = PeerAddress {
            id: other,
            addresses: target.into_iter().collect(),
            dials: target.is_some(),
        };
        Side {
            poll,
            door,
            peers: Peers::new("syncnet", Some(Secret(secret.to_vec())), timing, vec![other]),
            timers: Timers::default(),
            ids: Ids::after(LAST.0 as u64),
            clock: Clock::start(),
            sender,
            inputs: Vec::new(),
        }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Peers, &mut Context<'_>) -> T) -> T {
        let mut context = Context {
            now: self.clock.now(),
            sender: self.sender,
            timers: &mut self.timers,
            registry: self.poll.registry(),
            ids: &mut self.ids,
        };
        work(&mut self.peers, &mut context)
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        self.poll.poll(&mut events, Some(Duration::from_millis(2))).unwrap();
        for event in &events {
            match event.token() {
                PEER_DOOR => self.door.ready = true,
                Token(id) => {
                    self.peers
                        .ready(ConnId(id as u64), event.is_readable(), event.is_writable());
                }
            }
        }
        while self.door.ready {
            if let Accepted::One(stream, address) = self.door.accept() {
                self.with(|peers, context| peers.accept(stream, address, context));
            }
        }
        self.with(|peers, context| peers.read(&mut [0; 65536], context));
        while let Some(alarm) = self.timers.due(self.clock.now().tick) {
            match alarm {
                Alarm::Dial(server) => self.with(|peers, context| peers.dial(server, context)),
                Alarm::Shake(id) => self.with(|peers, context| peers.shake_timeout(id, context)),
                Alarm::Silence(id) => self.with(|peers, context| peers.check_silence(id, context)),
                _ => {}
            }
        }
        self.with(|peers, context| peers.flush(context));
        self.inputs.extend(std::iter::from_fn(|| self.peers.take_input()));
    }

    fn ups(&self) -> usize {
        self.inputs
            .iter()
            .filter(|input| matches!(input, Input::LinkUp { .. }))
            .count()
    }

    fn downs(&self) -> usize {
        self.inputs
            .iter()
            .filter(|input| matches!(input, Input::LinkDown { .. }))
            .count()
    }
}

fn until(sides: &mut [&mut Side], mut done: impl FnMut(&[&mut Side]) -> bool) {
    let end = Instant::now() + LIMIT;
    while !done(sides) {
        assert!(Instant::now() < end, "it never came");
        sides.iter_mut().for_each(|side| side.turn());
    }
}

/// A server that is called, and one that calls it.
fn pair() -> (Side, Side) {
    let called = Side::new(sender(2), id(1), None, b"secret");
    let caller = Side::new(sender(1), id(2), Some(called.door.address().unwrap()), b"secret");
    (caller, called)
}

#[test]
fn a_link_comes_up_on_both_sides_and_carries_frames() {
    let (mut a, mut b) = pair();
    a.with(|peers, context| peers.dial_all(context));
    until(&mut [&mut a, &mut b], |sides| sides.iter().all(|side| side.ups() == 1));
    let ping = PeerMessage::Cluster(Message::Ping);
    for _ in 0..1000 {
        a.with(|peers, context| peers.send(id(2), &ping, context));
    }
    until(&mut [&mut a, &mut b], |sides| sides[1].inputs.len() == 1001);
    assert_eq!(b.inputs[1], Input::Peer(id(1), ping));
}

#[test]
fn a_large_frame_is_a_sign_of_life_before_it_is_whole() {
    let (mut a, mut b) = pair();
    a.with(|peers, context| peers.dial_all(context));
    until(&mut [&mut a, &mut b], |sides| sides.iter().all(|side| side.ups() == 1));
    let large = PeerMessage::Forward {
        group: GroupId::ROOT,
        term: Term(1),
        commands: vec![Blob::new(&[7; limits::PAYLOAD_BYTES_MAX]); 12],
    };
    a.with(|peers, context| peers.send(id(2), &large, context));
    let whole = Input::Peer(id(1), large);
    until(&mut [&mut a, &mut b], |sides| sides[1].inputs.contains(&whole));
    let heard = b.inputs.iter().position(|input| *input == Input::Heard(id(1)));
    let came = b.inputs.iter().position(|input| *input == whole);
    assert!(heard.is_some() && heard < came, "it came in one turn");
}

#[test]
fn a_server_that_died_is_noticed_at_once_and_dialled_again() {
    let (mut a, mut b) = pair();
    a.with(|peers, context| peers.dial_all(context));
    until(&mut [&mut a, &mut b], |sides| sides.iter().all(|side| side.ups() == 1));
    let port = b.door.address().unwrap();
    drop(b);
    until(&mut [&mut a], |sides| sides[0].downs() == 1);
    let mut b = Side::new(
        Sender {
            boot: Boot(2),
            ..sender(2)
        },
        id(1),
        None,
        b"secret",
    );
    b.door = Listener::bind(port, b.poll.registry(), PEER_DOOR).unwrap();
    until(&mut [&mut a, &mut b], |sides| {
        sides[0].ups() == 2 && sides[1].ups() == 1
    });
}

#[test]
fn a_newer_link_of_the_same_directory_takes_the_place_of_the_old_one() {
    let (mut a, mut b) = pair();
    a.with(|peers, context| peers.dial_all(context));
    until(&mut [&mut a, &mut b], |sides| sides[1].ups() == 1);
    // The first caller's machine is gone without a word: its socket stays open here, and nobody walks it any more.
    let mut again = Side::new(
        Sender {
            boot: Boot(2),
            ..sender(1)
        },
        id(2),
        b.door.address().ok(),
        b"secret",
    );
    again.with(|peers, context| peers.dial_all(context));
    until(&mut [&mut again, &mut b], |sides| {
        sides[0].ups() == 1 && sides[1].ups() == 2
    });
    let order: Vec<bool> = b
        .inputs
        .iter()
        .map(|input| matches!(input, Input::LinkUp { .. }))
        .collect();
    assert_eq!(order, [true, false, true], "up, down, up");
}

#[test]
fn a_twin_with_another_directory_does_not_push_a_living_server_out() {
    let (mut a, mut b) = pair();
    a.with(|peers, context| peers.dial_all(context));
    until(&mut [&mut a, &mut b], |sides| sides.iter().all(|side| side.ups() == 1));
    let stranger = Sender {
        directory: DirectoryId(77),
        ..sender(1)
    };
    let mut twin = Side::new(stranger, id(2), b.door.address().ok(), b"secret");
    twin.with(|peers, context| peers.dial_all(context));
    let ping = PeerMessage::Cluster(Message::Ping);
    // Refused, it rests before it dials again: an alarm tells that it was told so.
    let refused = |side: &Side| side.timers.is_set(Alarm::Dial(id(2)));
    until(&mut [&mut a, &mut b, &mut twin], |sides| refused(sides[2]));
    a.with(|peers, context| peers.send(id(2), &ping, context));
    until(&mut [&mut a, &mut b], |sides| sides[1].inputs.len() == 2);
    assert_eq!((twin.ups(), b.ups(), b.downs()), (0, 1, 0));
}

#[test]
fn a_server_with_another_secret_gets_no_link() {
    let mut b = Side::new(sender(2), id(1), None, b"secret");
    let mut a = Side::new(sender(1), id(2), b.door.address().ok(), b"another");
    a.with(|peers, context| peers.dial_all(context));
    until(&mut [&mut a, &mut b], |sides| {
        sides[0].timers.is_set(Alarm::Dial(id(2)))
    });
    assert!(a.inputs.is_empty() && b.inputs.is_empty());
}
