//! A server alone: what the leader decides about its log, from the holdings to the readers.

use super::*;
use crate::chat::State;
use crate::cluster::message::{Entry, Recovered};
use crate::config::{ChatConfig, Election, LeaderMode, LogConfig, Retention, ServerConfig, Timing};
use crate::keep::{KeepJob, Kept, Mark};
use crate::types::{Boot, DirectoryId, Position, RingPosition, RoomId, Seq};
use crate::wire::client::{From, MAGIC, Request, Until, VERSIONS, decode_response};
use crate::wire::frame::{Split, split};

const ANN: ConnId = ConnId(1);

/// The configuration of a server alone.
pub(super) fn config(retention: Retention) -> Config {
    let me = ServerId::new("server1").unwrap();
    let span = Span::from_ms;
    Config {
        name: "test".to_string(),
        secret: None,
        election: Election::Highest,
        leader: LeaderMode::Preferred,
        routing: Routing::Forward,
        timing: Timing {
            heartbeat_interval: span(100),
            failure_timeout: span(500),
            election_timeout: span(500),
            connect_timeout: span(3000),
        },
        multicast: None,
        interface: None,
        log: LogConfig {
            segment_size: 1 << 20,
            checkpoint_every: 1000,
            digest_every: limits::DIGEST_EVERY,
            retention,
        },
        chat: ChatConfig {
            message_size_max: 1 << 16,
            session_expiry: span(60_000),
            name_release: span(60_000),
            touch_interval: span(20_000),
        },
        servers: vec![ServerConfig {
            id: me,
            ring: RingPosition(1),
            host: "127.0.0.1".to_string(),
            listen: None,
            client_port: 0,
            http_port: 0,
            heartbeat_port: 0,
            peer_port: 0,
        }],
    }
}

/// A node whose log is always durable at once, and what it wanted apart from that.
struct Alone {
    node: Node,
    ms: u64,
    effects: Vec<Effect>,
}

impl Alone {
    fn new(retention: Retention) -> Alone {
        let mut alone = Alone::started(config(retention));
        alone.run(5_000);
        assert_eq!(alone.node.cluster().role(), Role::Leader);
        alone
    }

    fn started(config: Config) -> Alone {
        let me = config.servers[0].id;
        let setup = Setup {
            config: Arc::new(config),
            me,
            directory: DirectoryId(7),
            boot: Boot(1),
            recovered: Recovered::default(),
            state: State::new(),
            replaced: false,
            seed: 1,
        };
        let node = Node::new(setup, Now::default()).unwrap();
        Alone {
            node,
            ms: 0,
            effects: Vec::new(),
        }
    }

    fn hello(&mut self, conn: ConnId) {
        let agent = "test".to_string();
        let hello = Request::Hello {
            magic: MAGIC,
            versions: VERSIONS,
            agent,
        };
        self.step(Input::Client(conn, hello));
    }

    /// Whether there is a quorum, as the client was told since this was asked last.
    fn told(&mut self, conn: ConnId) -> Vec<bool> {
        let effects = std::mem::take(&mut self.effects);
        let told = effects.into_iter().filter_map(|effect| match effect {
            Effect::Reply(to, Response::Welcome { quorum, .. }) if to == conn => Some(quorum),
            Effect::Reply(to, Response::Quorum { available, .. }) if to == conn => Some(available),
            _ => None,
        });
        told.collect()
    }

    fn now(&self) -> Now {
        Now {
            tick: Tick::from_ms(self.ms),
            wall_ms: self.ms,
        }
    }

    fn step(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            self.node.step(self.now(), input);
            while let Some(effect) = self.node.poll() {
                match effect {
                    Effect::Append(append) => next = Some(Input::Persisted(append.id)),
                    other => self.effects.push(other),
                }
            }
        }
    }

    /// Wakes the node when it asks for it and no oftener, for so long.
    fn run(&mut self, ms: u64) {
        let end = self.ms + ms;
        while let Some(at) = self.node.deadline() {
            let at = at.0.div_ceil(1000);
            if at > end {
                break;
            }
            self.ms = self.ms.max(at);
            self.step(Input::Timer);
        }
        self.ms = end;
    }

    fn keeps(&mut self, marks: Vec<Mark>) {
        let first = LogIndex(1);
        self.step(Input::Kept(Kept::Holdings(Holdings { first, marks })));
    }

    fn trims(&mut self) -> Vec<u64> {
        let effects = std::mem::take(&mut self.effects);
        let trims = effects.iter().filter_map(|effect| match effect {
            Effect::Trim(index) => Some(index.0),
            _ => None,
        });
        trims.collect()
    }

    fn hear(&mut self) -> Vec<Response> {
        let bytes = self.node.pump(ANN).map(<[u8]>::to_vec).unwrap_or_default();
        self.node.taken(ANN, bytes.len());
        let mut rest = &bytes[..];
        let mut heard = Vec::new();
        while let Split::Complete { body, consumed } = split(rest, 1 << 20) {
            heard.push(decode_response(body).unwrap());
            rest = &rest[consumed..];
        }
        heard
    }
}

fn mark(index: u64, age_ms: u64, bytes_after: u64) -> Mark {
    Mark {
        index: LogIndex(index),
        age_ms,
        bytes_after,
    }
}

#[test]
fn a_size_is_kept_by_a_trim_that_is_proposed_once() {
    let mut alone = Alone::new(Retention::Size(4 << 20));
    assert!(alone.trims().is_empty());
    alone.keeps(vec![mark(1, 0, 6 << 20), mark(2, 0, 5 << 20), mark(3, 0, 3 << 20)]);
    assert_eq!(alone.trims(), [2]);
    assert_eq!(alone.node.state().trimmed(), LogIndex(2));
    let applied = alone.node.state().applied();
    alone.keeps(vec![mark(2, 0, 5 << 20), mark(3, 0, 3 << 20)]);
    alone.run(5_000);
    assert!(alone.trims().is_empty());
    assert_eq!(alone.node.state().applied(), applied, "nothing is proposed for nothing");
}

#[test]
fn a_checkpoint_that_is_the_only_one_of_a_log_that_begins_late_gets_another_at_the_next_entry() {
    let mut alone = Alone::new(Retention::Size(4 << 20));
    let makes = |alone: &mut Alone| -> usize {
        let effects = std::mem::take(&mut alone.effects);
        let make = |effect: &&Effect| matches!(effect, Effect::Keep(KeepJob::Make { .. }));
        effects.iter().filter(make).count()
    };
    // Each has the node propose an entry: the mark is old enough for a trim.
    let held = |first: u64, index: u64| {
        let (first, marks) = (LogIndex(first), vec![mark(index, 0, 5 << 20)]);
        Input::Kept(Kept::Holdings(Holdings { first, marks }))
    };
    makes(&mut alone);
    alone.step(held(1, 1));
    assert_eq!(makes(&mut alone), 0, "all can be made from the first entry on");
    alone.step(held(2, 2));
    assert_eq!(makes(&mut alone), 1);
}

#[test]
fn an_age_is_kept_by_a_trim_when_the_log_is_old_enough() {
    let mut alone = Alone::new(Retention::Age(Span::from_ms(60_000)));
    let age_ms = alone.node.state().clock().age_ms;
    alone.keeps(vec![mark(2, age_ms, 1)]);
    alone.run(50_000);
    assert!(alone.trims().is_empty());
    alone.run(15_000);
    assert_eq!(alone.trims(), [2]);
}

#[test]
fn a_reader_of_what_is_gone_is_told_so_in_the_place_of_items() {
    let mut alone = Alone::new(Retention::Size(4 << 20));
    alone.hello(ANN);
    let room = RoomId::LOBBY;
    alone.effects.clear();
    alone.step(Input::Client(
        ANN,
        Request::Subscribe {
            id: 1,
            room,
            from: From::AfterSeq(Seq(0)),
            until: Until::Forever,
        },
    ));
    // The lobby of this log is empty; its reader knows of a longer one, whose beginning is gone.
    assert!(alone.hear().is_empty());
    alone.node.fanout.reset([(room, Position(80))]);
    assert!(alone.hear().is_empty());
    alone.step(Input::Timer);
    let asked = alone.effects.iter().find_map(|effect| match effect {
        Effect::Read(ReadRequest::Items { token, .. }) => Some(*token),
        _ => None,
    });
    alone.step(Input::Read(ReadAnswer::Items {
        token: asked.expect("a question to the reader"),
        room,
        start: Position(81),
        before: Seq(70),
        items: Vec::<(Position, Seq, Entry)>::new(),
    }));
    let gap = Response::Gap {
        room,
        positions: (Position(1), Position(80)),
        seqs: (Seq(1), Seq(70)),
    };
    assert_eq!(alone.hear(), [gap]);
    assert!(alone.hear().is_empty());
}

#[test]
fn nobody_is_told_of_a_lost_quorum_before_the_server_has_had_time_to_find_one() {
    let mut alone = Alone::started(config(Retention::Forever));
    alone.hello(ANN);
    alone.run(5_000);
    let told = alone.told(ANN);
    assert!(told.len() > 1 && told.iter().all(|&quorum| quorum), "{told:?}");

    let mut of_two = config(Retention::Forever);
    of_two.servers.push(ServerConfig {
        id: ServerId::new("server2").unwrap(),
        ring: RingPosition(2),
        ..of_two.servers[0].clone()
    });
    let mut waits = Alone::started(of_two);
    let notice = limits::NO_QUORUM_NOTICE.as_ms();
    waits.hello(ANN);
    waits.run(notice - 1);
    assert_eq!(waits.told(ANN), [true]);
    waits.run(1);
    assert_eq!(waits.told(ANN), [false]);
    waits.hello(ConnId(2));
    assert_eq!(waits.told(ConnId(2)), [false]);
}
