//! The chat against a script of typing and events.

use super::*;
use crate::chat::command::{Code, Outcome};
use crate::types::{ClientSeq, Lamport, Seq};
use crate::wire::client::{Item, What};

const ROOM: RoomId = RoomId(1);
const SESSION: SessionId = SessionId(9);

struct World {
    model: Model,
    lines: Vec<String>,
    calls: Vec<Call>,
    quit: Option<u8>,
}

impl World {
    fn new() -> World {
        let style = Style { colour: false };
        let mut world = World {
            model: Model::new("ann".into(), "lobby".into(), style),
            lines: Vec::new(),
            calls: Vec::new(),
            quit: None,
        };
        world.drain();
        world
    }

    /// In the lobby, connected.
    fn there() -> World {
        let mut world = World::new();
        world.event(connected("server3"));
        world.event(Event::Opened {
            session: SESSION,
            name: "ann".into(),
            new: true,
        });
        let ticket = world.last_ticket();
        world.done(ticket, in_room());
        world
    }

    fn drain(&mut self) {
        while let Some(what) = self.model.poll() {
            match what {
                Do::Print(line) => self.lines.push(line),
                Do::Call(call) => self.calls.push(call),
                Do::Quit(code) => self.quit = Some(code),
            }
        }
    }

    fn event(&mut self, event: Event) {
        self.model.event(event);
        self.drain();
    }

    fn typed(&mut self, line: &str) {
        self.model.typed(line);
        self.drain();
    }

    fn done(&mut self, ticket: Ticket, outcome: Outcome) {
        self.event(Event::Done {
            ticket,
            session: SESSION,
            seq: ClientSeq(1),
            outcome,
        });
    }

    fn last_ticket(&self) -> Ticket {
        let submitted = |call: &Call| match call {
            Call::Submit { ticket, .. } => Some(*ticket),
            _ => None,
        };
        self.calls
            .iter()
            .rev()
            .find_map(submitted)
            .expect("something submitted")
    }

    fn said(&self, words: &str) -> bool {
        self.lines.iter().any(|line| line.contains(words))
    }

    fn posts(&self) -> usize {
        let post = |call: &&Call| {
            matches!(
                call,
                Call::Submit {
                    action: Action::Post { .. },
                    ..
                }
            )
        };
        self.calls.iter().filter(post).count()
    }
}

fn connected(server: &str) -> Event {
    Event::Connected {
        server: ServerId::new(server).unwrap(),
        address: "127.0.0.1:8002".into(),
        cluster: "test".into(),
        servers: Vec::new(),
        leader: None,
        quorum: true,
        message_bytes_max: 1000,
    }
}

fn lost() -> Event {
    Event::Disconnected {
        address: "127.0.0.1:8002".into(),
        reason: "reset".into(),
    }
}

fn in_room() -> Outcome {
    Outcome::Room {
        room: ROOM,
        name: "lobby".into(),
        topic: "".into(),
        position: Position(5),
        created: false,
    }
}

fn posted() -> Outcome {
    Outcome::Posted {
        room: ROOM,
        seq: Seq(3),
        position: Position(6),
        lamport: Lamport(1),
        time_ms: 0,
    }
}

fn said(position: u64, session: SessionId, text: &str) -> Event {
    Event::Item(Item {
        room: ROOM,
        position: Position(position),
        seq: Seq(position),
        lamport: Lamport(1),
        time_ms: 0,
        session,
        client_seq: ClientSeq(1),
        user: "bob".into(),
        what: What::Message(text.into()),
    })
}

#[test]
fn it_joins_and_shows_the_last_messages_and_what_others_say() {
    let mut world = World::there();
    assert!(world.said("you are in lobby"));
    assert!(matches!(
        world.calls.last(),
        Some(Call::Subscribe {
            from: From::Last(10),
            ..
        })
    ));
    world.event(said(4, SessionId(2), "old"));
    world.event(said(7, SessionId(2), "new"));
    assert!(world.said("00:00:00 bob: old") && world.said("00:00:00 bob: new"));
}

#[test]
fn own_messages_are_not_echoed_but_are_part_of_the_history() {
    let mut world = World::there();
    world.event(said(4, SESSION, "mine of before"));
    assert!(world.said("mine of before"));
    world.event(said(7, SESSION, "mine of now"));
    assert!(!world.said("mine of now"));
    world.typed("/history");
    world.event(said(7, SESSION, "mine of now"));
    assert!(world.said("mine of now"));
}

#[test]
fn what_is_typed_while_disconnected_is_pending_until_it_is_acknowledged() {
    let mut world = World::there();
    world.typed("first");
    let ticket = world.last_ticket();
    assert!(!world.said("pending"));
    world.event(lost());
    assert!(world.said("connection to server3 lost"));
    assert!(world.said("… pending (1)"));
    world.typed("second");
    assert!(world.said("… pending (2)"));
    world.event(connected("server2"));
    assert!(world.said("back, on server2"));
    world.done(ticket, posted());
    assert!(world.said("✓ sent, 1 pending"));
    let ticket = world.last_ticket();
    world.done(ticket, posted());
    assert_eq!(world.lines.last().unwrap(), "-- ✓ sent");
    assert_eq!(world.model.pending(), 0);
}

#[test]
fn what_is_typed_before_the_room_is_joined_is_sent_once_it_is() {
    let mut world = World::new();
    world.typed("early");
    assert!(world.said("… pending (1)"));
    assert_eq!(world.posts(), 0);
    let ticket = world.last_ticket();
    world.done(ticket, in_room());
    assert_eq!(world.posts(), 1);
}

#[test]
fn a_room_that_does_not_exist_is_refused_and_can_be_made() {
    let mut world = World::there();
    world.typed("/join ops");
    let ticket = world.last_ticket();
    world.done(ticket, Outcome::Refused(Code::NoSuchRoom));
    assert!(world.said("there is no room ops; /create ops makes it"));
    world.typed("/create ops");
    let ticket = world.last_ticket();
    world.done(ticket, in_room());
    assert!(matches!(
        world.calls.last(),
        Some(Call::Submit {
            action: Action::Join { .. },
            ..
        })
    ));
}

#[test]
fn a_taken_name_ends_the_chat_and_says_what_to_do() {
    let mut world = World::new();
    world.event(Event::OpenRefused {
        code: Code::NameTaken,
        text: "taken".into(),
    });
    assert_eq!(world.quit, Some(5));
    assert!(world.said("-u NAME takes another"));
}

#[test]
fn after_an_expired_session_it_joins_its_rooms_again() {
    let mut world = World::there();
    world.event(Event::Expired);
    let before = world.calls.len();
    world.event(Event::Opened {
        session: SessionId(20),
        name: "ann".into(),
        new: true,
    });
    assert!(matches!(
        world.calls.get(before),
        Some(Call::Submit {
            action: Action::Join { .. },
            ..
        })
    ));
}

#[test]
fn one_outage_is_told_once_for_each_server() {
    let mut world = World::there();
    world.event(lost());
    for _ in 0..50 {
        for address in ["a:1", "b:1"] {
            world.event(Event::Unreachable {
                address: address.into(),
                reason: "refused".into(),
            });
        }
    }
    assert_eq!(
        world.lines.iter().filter(|line| line.contains("can't reach")).count(),
        2
    );
}

#[test]
fn a_long_loss_of_quorum_is_told_once_and_its_end_once() {
    let mut world = World::there();
    world.event(lost());
    world.event(Event::NoQuorum);
    // It goes round: one server can be reached and has no quorum, the other two can't.
    for _ in 0..50 {
        let mut there = connected("server1");
        if let Event::Connected { quorum, .. } = &mut there {
            *quorum = false;
        }
        world.event(there);
        for address in ["b:1", "c:1"] {
            world.event(Event::Unreachable {
                address: address.into(),
                reason: "refused".into(),
            });
        }
    }
    let told = |world: &World, what: &str| world.lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(told(&world, "can't reach"), 2);
    world.event(Event::QuorumBack);
    assert_eq!(told(&world, "the quorum is back"), 1);
    world.event(Event::Unreachable {
        address: "b:1".into(),
        reason: "refused".into(),
    });
    assert_eq!(told(&world, "can't reach"), 3, "the next outage is told again");
}
