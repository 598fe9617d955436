//! The core against a script of what servers do.

use super::*;
use crate::chat::command::{Command, Head, Outcome};
use crate::client::calls::Question;
use crate::types::{ClientSeq, Position, RoomId, Seq, SessionId};
use crate::wire;
use crate::wire::client::{Ack, From, Item, ServerAddress, Until, What};

const ROOM: RoomId = RoomId(1);
const SESSION: SessionId = SessionId(77);

/// A core, its clock, and everything that it told.
struct World {
    core: Core,
    now: Tick,
    events: Vec<Event>,
}

impl World {
    fn new(servers: &[&str]) -> World {
        World::with(servers, true)
    }

    fn with(servers: &[&str], only: bool) -> World {
        let options = Options {
            servers: servers.iter().map(ToString::to_string).collect(),
            in_order: true,
            only,
            name: "ann".into(),
            key: [1; 32],
            secret: [2; 16],
            agent: "test".into(),
        };
        World {
            core: Core::new(options, Tick(0), 1),
            now: Tick(0),
            events: Vec::new(),
        }
    }

    /// Steps, keeps the events, and gives back the rest as short words.
    fn step(&mut self, input: Input) -> Vec<String> {
        self.core.step(self.now, input);
        let mut words = Vec::new();
        while let Some(output) = self.core.poll() {
            match output {
                Output::Event(event) => self.events.push(event),
                Output::Connect { address } => words.push(format!("connect {address}")),
                Output::Disconnect => words.push("disconnect".into()),
                Output::Send(request) => words.push(word(&request)),
            }
        }
        words
    }

    fn says(&mut self, response: Response) -> Vec<String> {
        self.step(Input::Response(response))
    }

    fn call(&mut self, call: Call) -> Vec<String> {
        self.step(Input::Call(call))
    }

    fn post(&mut self, ticket: u64) -> Vec<String> {
        self.call(Call::Submit {
            ticket: Ticket(ticket),
            action: Action::Post {
                room: ROOM,
                text: format!("text {ticket}"),
                dedup: None,
            },
            deadline: None,
        })
    }

    /// Waits until the core wants to be woken, and wakes it.
    fn wake(&mut self) -> Vec<String> {
        let deadline = self.core.deadline().expect("a deadline");
        self.now = self.now.max(deadline);
        self.step(Input::Timer)
    }

    fn connected(&mut self, quorum: bool) -> Vec<String> {
        let hello = self.step(Input::Connected);
        assert_eq!(hello, ["hello"]);
        self.says(welcome(quorum))
    }

    fn opened(&mut self) -> Vec<String> {
        self.says(Response::Opened {
            session: SESSION,
            last: ClientSeq(0),
            name: "ann".into(),
        })
    }

    /// Connected to the first server, with an open session.
    fn open(servers: &[&str]) -> World {
        let mut world = World::new(servers);
        assert_eq!(world.call(Call::Open), [format!("connect {}", servers[0])]);
        assert_eq!(world.connected(true), ["open"]);
        assert!(world.opened().is_empty());
        world
    }

    fn acks(&mut self, seqs: &[u64]) -> Vec<String> {
        let ack = |&seq: &u64| Ack {
            seq: ClientSeq(seq),
            outcome: Outcome::Done,
        };
        self.says(Response::Acks(seqs.iter().map(ack).collect()))
    }

    fn done(&self) -> Vec<u64> {
        let done = |event: &Event| match event {
            Event::Done { ticket, .. } => Some(ticket.0),
            _ => None,
        };
        self.events.iter().filter_map(done).collect()
    }
}

fn word(request: &Request) -> String {
    match request {
        Request::Hello { .. } => "hello".into(),
        Request::Open { .. } => "open".into(),
        Request::Attach { .. } => "attach".into(),
        Request::Command(bytes) => match wire::command::decode(bytes).unwrap() {
            Command::Post { head, user, .. } => format!("post {} {user}", numbers(&head)),
            Command::Rename { head, .. } => format!("rename {}", numbers(&head)),
            Command::Close { head, .. } => format!("close {}", numbers(&head)),
            other => format!("{other:?}"),
        },
        Request::Subscribe { from, .. } => format!("subscribe {from:?}"),
        Request::Lookup { .. } => "lookup".into(),
        Request::Ping { .. } => "ping".into(),
        other => format!("{other:?}"),
    }
}

fn numbers(head: &Head) -> String {
    format!("{}/{}", head.seq, head.unacknowledged)
}

fn welcome(quorum: bool) -> Response {
    Response::Welcome {
        version: 1,
        cluster: "test".into(),
        server: ServerId::new("s1").unwrap(),
        servers: Vec::new(),
        leader: None,
        quorum,
        message_bytes_max: 1000,
    }
}

fn item(position: u64) -> Response {
    Response::Item(Item {
        room: ROOM,
        position: Position(position),
        seq: Seq(position),
        lamport: Lamport(position.saturating_mul(10)),
        time_ms: 0,
        session: SessionId(0),
        client_seq: ClientSeq(0),
        user: "bob".into(),
        what: What::Message("hi".into()),
    })
}

fn follow() -> Call {
    Call::Subscribe {
        room: ROOM,
        from: From::Last(10),
        until: Until::Forever,
        stale: false,
    }
}

#[test]
fn a_lost_connection_moves_to_the_next_server_at_once_and_sends_the_unacknowledged_again() {
    let mut world = World::open(&["a:1", "b:1", "c:1"]);
    assert_eq!(world.post(1), ["post 1/1 ann"]);
    assert_eq!(world.post(2), ["post 2/1 ann"]);
    world.acks(&[1]);
    assert_eq!(world.step(Input::Lost("reset".into())), ["connect b:1"]);
    assert_eq!(world.post(3), [] as [&str; 0], "typed while disconnected: kept");
    assert_eq!(world.connected(true), ["attach"]);
    assert_eq!(world.opened(), ["post 2/2 ann", "post 3/2 ann"]);
    world.acks(&[2, 3]);
    assert_eq!(world.done(), [1, 2, 3]);
}

#[test]
fn acknowledgements_are_told_in_order() {
    let mut world = World::open(&["a:1"]);
    for n in 1..=3 {
        world.post(n);
    }
    world.acks(&[3]);
    world.acks(&[2]);
    assert!(world.done().is_empty());
    world.acks(&[1]);
    assert_eq!(world.done(), [1, 2, 3]);
    world.acks(&[1]);
    assert_eq!(world.done(), [1, 2, 3], "each once");
}

#[test]
fn a_server_that_does_not_answer_is_left_for_the_next() {
    let mut world = World::new(&["a:1", "b:1", "c:1"]);
    assert_eq!(world.call(Call::Open), ["connect a:1"]);
    assert_eq!(world.wake(), ["disconnect", "connect b:1"], "no connection");
    assert_eq!(world.step(Input::Connected), ["hello"]);
    assert_eq!(world.wake(), ["disconnect", "connect c:1"], "no hello");
    assert_eq!(world.connected(true), ["open"]);
    assert_eq!(world.wake(), ["ping"], "no answer to the open");
    assert_eq!(world.wake(), ["disconnect", "connect a:1"], "no pong: it hangs");
}

#[test]
fn a_resend_repeats_from_there_and_a_server_that_goes_on_asking_is_not_flooded() {
    let mut world = World::open(&["a:1"]);
    for n in 1..=4 {
        world.post(n);
    }
    let resend = || Response::Resend { from: ClientSeq(2) };
    assert_eq!(world.says(resend()), ["post 2/1 ann", "post 3/1 ann", "post 4/1 ann"]);
    assert_eq!(world.says(resend()), [] as [&str; 0]);
    assert_eq!(world.says(resend()), [] as [&str; 0]);
    assert_eq!(world.wake(), ["post 2/1 ann", "post 3/1 ann", "post 4/1 ann"]);
    world.acks(&[1, 2, 3, 4]);
    assert_eq!(world.done().len(), 4);
}

#[test]
fn what_is_never_acknowledged_is_sent_again_after_a_while() {
    let mut world = World::open(&["a:1"]);
    world.post(1);
    assert_eq!(world.wake(), ["ping"]);
    world.says(Response::Pong { id: IDS_FROM + 1 });
    let mut words = world.wake();
    while !words.iter().any(|word| word.starts_with("post")) {
        assert!(words.is_empty() || words == ["ping"], "{words:?}");
        world.says(Response::Pong { id: 0 });
        words = world.wake();
    }
    // At the same moment it may be time for another ping.
    assert_eq!(words.last().map(String::as_str), Some("post 1/1 ann"));
}

#[test]
fn commands_go_where_the_server_sends_them() {
    let mut world = World::with(&["a:1", "b:1"], false);
    world.call(Call::Open);
    assert_eq!(world.connected(true), ["open"]);
    let leader = ServerAddress {
        id: ServerId::new("s3").unwrap(),
        address: "c:1".into(),
        ring: 2,
        heartbeat_port: 0,
    };
    assert_eq!(
        world.says(Response::Redirect { leader: leader.clone() }),
        ["disconnect", "connect c:1"]
    );
    // The leader is dead, and the followers go on naming it: the client doesn't spin.
    let mut attempts = 0;
    for _ in 0..50 {
        world.step(Input::ConnectFailed("refused".into()));
        if world.core.link == Link::Connecting(world.now.after(limits::CLIENT_CONNECT_TIMEOUT)) {
            world.step(Input::Connected);
            world.says(welcome(true));
            world.says(Response::Redirect { leader: leader.clone() });
            attempts += 1;
        }
    }
    assert!(attempts < 4, "{attempts} attempts without any time passing");
}

#[test]
fn a_server_without_a_quorum_is_left_by_whoever_has_something_to_do() {
    let mut world = World::new(&["a:1", "b:1", "c:1"]);
    world.step(Input::Timer);
    assert_eq!(world.connected(false), [] as [&str; 0], "nothing to do: it stays");
    assert_eq!(world.post(1), ["disconnect", "connect b:1"]);
    assert_eq!(world.step(Input::ConnectFailed("refused".into())), ["connect c:1"]);
    assert_eq!(world.connected(true), ["open"]);
    assert_eq!(world.opened(), ["post 1/1 ann"]);
    assert!(!world.events.contains(&Event::NoQuorum));
}

#[test]
fn without_any_quorum_it_stays_with_one_sends_nothing_and_tries_again_later() {
    let mut world = World::new(&["a:1", "b:1"]);
    world.post(1);
    assert_eq!(world.connected(false), ["disconnect", "connect b:1"]);
    assert_eq!(world.connected(false), [] as [&str; 0]);
    assert_eq!(world.events.last(), Some(&Event::NoQuorum));
    let words = loop {
        let words = world.wake();
        if !words.is_empty() && words != ["ping"] {
            break words;
        }
        world.says(Response::Pong { id: 0 });
    };
    assert_eq!(words, ["disconnect", "connect a:1"]);
    assert_eq!(world.connected(true), ["open"]);
    assert!(world.events.contains(&Event::QuorumBack));
}

#[test]
fn a_quorum_that_comes_back_is_used_where_the_client_is() {
    let mut world = World::open(&["a:1"]);
    world.says(Response::Quorum {
        available: false,
        leader: None,
    });
    assert_eq!(world.post(1), [] as [&str; 0]);
    let words = world.says(Response::Quorum {
        available: true,
        leader: None,
    });
    assert_eq!(words, ["post 1/1 ann"]);
}

#[test]
fn a_deadline_tells_never_sent_from_unknown() {
    let mut world = World::open(&["a:1"]);
    let submit = |ticket| Call::Submit {
        ticket: Ticket(ticket),
        action: Action::Post {
            room: ROOM,
            text: "x".into(),
            dedup: None,
        },
        deadline: Some(Tick::from_ms(100)),
    };
    world.call(submit(1));
    world.says(Response::Quorum {
        available: false,
        leader: None,
    });
    world.call(submit(2));
    world.now = Tick::from_ms(100);
    world.step(Input::Timer);
    let fate = |ticket, fate| Event::TimedOut {
        ticket: Ticket(ticket),
        fate,
    };
    assert!(world.events.contains(&fate(1, Fate::Unknown)));
    assert!(world.events.contains(&fate(2, Fate::NoQuorum)));
    world.step(Input::Lost("gone".into()));
    let Call::Submit { ticket, action, .. } = submit(3) else {
        panic!()
    };
    world.call(Call::Submit {
        ticket,
        action,
        deadline: Some(Tick::from_ms(101)),
    });
    world.now = Tick::from_ms(101);
    world.step(Input::Timer);
    assert!(world.events.contains(&fate(3, Fate::Unreached)));
}

#[test]
fn reading_goes_on_after_the_last_item_seen() {
    let mut world = World::open(&["a:1", "b:1"]);
    assert_eq!(world.call(follow()), ["subscribe Last(10)"]);
    let id = world.core.last_id;
    let subscribed = |id| Response::Subscribed {
        id,
        room: ROOM,
        exists: true,
        fresh: true,
    };
    world.says(subscribed(id));
    world.says(item(4));
    world.says(item(5));
    world.step(Input::Lost("reset".into()));
    let words = world.connected(true);
    assert_eq!(words, ["subscribe Position(Position(6))", "attach"]);
    let id = world.core.last_id;
    world.says(subscribed(id));
    for position in [4, 5, 6, 7] {
        world.says(item(position));
    }
    let positions: Vec<u64> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Item(item) => Some(item.position.0),
            _ => None,
        })
        .collect();
    assert_eq!(positions, [4, 5, 6, 7]);
    assert_eq!(world.core.lamport(), Lamport(70));
}

#[test]
fn a_hung_server_is_noticed_by_one_who_only_reads() {
    let mut world = World::new(&["a:1", "b:1"]);
    world.call(follow());
    world.connected(true);
    let id = world.core.last_id;
    world.says(Response::Subscribed {
        id,
        room: ROOM,
        exists: true,
        fresh: true,
    });
    assert_eq!(world.wake(), ["ping"]);
    assert_eq!(world.wake(), ["disconnect", "connect b:1"]);
}

#[test]
fn a_dead_server_is_noticed_by_one_who_only_waits_for_a_quorum() {
    let mut world = World::new(&["a:1"]);
    assert_eq!(world.post(1), ["connect a:1"]);
    world.connected(false);
    for _ in 0..20 {
        if world.wake().contains(&"disconnect".to_string()) {
            return;
        }
    }
    panic!("it waits for ever");
}

#[test]
fn after_a_rename_posts_wait_and_go_out_under_the_new_name() {
    let mut world = World::open(&["a:1"]);
    let rename = Call::Submit {
        ticket: Ticket(1),
        action: Action::Rename { name: "bob".into() },
        deadline: None,
    };
    assert_eq!(world.call(rename), ["rename 1/1"]);
    assert_eq!(world.post(2), [] as [&str; 0]);
    assert_eq!(world.acks(&[1]), ["post 2/2 bob"]);
}

#[test]
fn a_server_that_is_behind_does_not_take_a_new_name_back() {
    let mut world = World::open(&["a:1", "b:1"]);
    world.call(Call::Submit {
        ticket: Ticket(1),
        action: Action::Rename { name: "bob".into() },
        deadline: None,
    });
    world.acks(&[1]);
    world.step(Input::Lost("reset".into()));
    world.connected(true);
    world.opened();
    assert_eq!(world.post(2), ["post 2/2 bob"]);
}

#[test]
fn an_expired_session_ends_what_was_sent_as_unknown_and_never_sends_it_again() {
    let mut world = World::open(&["a:1", "b:1"]);
    world.post(1);
    world.post(2);
    world.step(Input::Lost("reset".into()));
    world.post(3);
    assert_eq!(world.connected(true), ["attach"]);
    let words = world.says(Response::OpenRefused {
        code: Code::NoSuchSession,
        text: String::new(),
    });
    assert_eq!(words, ["open"]);
    assert!(world.events.contains(&Event::Unknown { ticket: Ticket(1) }));
    assert!(world.events.contains(&Event::Unknown { ticket: Ticket(2) }));
    let words = world.says(Response::Opened {
        session: SessionId(99),
        last: ClientSeq(0),
        name: "ann".into(),
    });
    assert_eq!(
        words,
        ["post 1/1 ann"],
        "only the third, as the first of the new session"
    );
    world.acks(&[1]);
    assert_eq!(world.done(), [3]);
}

#[test]
fn a_taken_name_is_told_and_another_can_be_tried() {
    let mut world = World::new(&["a:1"]);
    world.call(Call::Open);
    world.connected(true);
    let code = Code::NameTaken;
    let words = world.says(Response::OpenRefused {
        code,
        text: "taken".into(),
    });
    assert_eq!(words, [] as [&str; 0]);
    assert!(matches!(world.events.last(), Some(Event::OpenRefused { .. })));
    assert_eq!(world.call(Call::OpenAs("zoe".into())), ["open"]);
}

#[test]
fn closing_waits_for_what_is_on_the_way_and_then_ends_the_session() {
    let mut world = World::open(&["a:1"]);
    world.post(1);
    assert_eq!(world.call(Call::Close), ["close 2/1"]);
    world.acks(&[1]);
    assert_eq!(world.done(), [1]);
    assert_eq!(world.acks(&[2]), ["disconnect"]);
    assert_eq!(world.events.last(), Some(&Event::Closed));
    assert_eq!(world.core.deadline(), None);
}

#[test]
fn closing_ends_in_bounded_time_whatever_the_servers_do() {
    let mut world = World::open(&["a:1"]);
    world.post(1);
    world.call(Call::Close);
    let mut wakes = 0;
    while world.events.last() != Some(&Event::Closed) {
        world.wake();
        wakes += 1;
        assert!(wakes < 100);
    }
    assert_eq!(world.now, Tick(0).after(limits::CLIENT_CLOSE_TIMEOUT));
}

#[test]
fn what_a_server_says_out_of_turn_harms_nobody() {
    let mut world = World::new(&["a:1"]);
    world.step(Input::Timer);
    for response in [
        Response::Acks(vec![Ack {
            seq: ClientSeq(u64::MAX),
            outcome: Outcome::Done,
        }]),
        Response::Resend { from: ClientSeq(0) },
        Response::End { room: ROOM },
        item(u64::MAX),
        Response::Pong { id: 3 },
    ] {
        world.says(response.clone());
        world.connected(true);
        world.says(response);
        world.step(Input::Lost("reset".into()));
        while !matches!(world.core.link, Link::Connecting(_)) {
            world.wake();
        }
    }
}

#[test]
fn servers_that_only_believe_in_their_quorum_are_each_tried_once_a_round() {
    let mut world = World::new(&["a:1", "b:1", "c:1"]);
    world.step(Input::Timer);
    world.call(Call::Ask {
        ticket: Ticket(1),
        question: Question::Lookup {
            name: "ops".into(),
            fresh: true,
        },
    });
    let mut welcomes = 0;
    while !world.events.iter().any(|event| matches!(event, Event::Room { .. })) {
        world.connected(true);
        welcomes += 1;
        assert!(welcomes <= 4, "it goes round and round");
        let answer = |core: &Core| Response::Room {
            id: core.last_id,
            room: None,
            fresh: false,
        };
        world.says(answer(&world.core));
        world.says(answer(&world.core));
        while matches!(world.core.link, Link::Resting(_)) {
            world.wake();
        }
    }
    let Some(Event::Room { fresh: false, .. }) = world.events.iter().find(|event| matches!(event, Event::Room { .. }))
    else {
        panic!("{:?}", world.events)
    };
}

#[test]
fn a_server_without_a_quorum_is_asked_for_what_it_has() {
    let mut world = World::new(&["a:1"]);
    world.step(Input::Timer);
    world.connected(false);
    let words = world.call(Call::Subscribe {
        room: ROOM,
        from: From::Last(10),
        until: Until::Now,
        stale: false,
    });
    assert_eq!(words, ["subscribe Last(10)"]);
    let id = world.core.last_id;
    world.says(Response::Subscribed {
        id,
        room: ROOM,
        exists: true,
        fresh: true,
    });
    world.says(item(1));
    world.says(Response::End { room: ROOM });
    assert_eq!(
        world.events.last(),
        Some(&Event::End {
            room: ROOM,
            fresh: false
        })
    );
}
