//! The clients: the real core of the client over simulated connections, and people who make use of it. They post, follow rooms, ask
//! for history, close their sessions, crash; and they check what they are told.

use std::collections::{BTreeMap, VecDeque};

use syncnet::chat::command::{Code, DedupKey, Outcome};
use syncnet::client::calls::{Call, Event, Input, Options, Output, Ticket};
use syncnet::client::core::Core;
use syncnet::rng::Rng;
use syncnet::types::{Lamport, Position, RoomId, Seq, ServerId, Tick};
use syncnet::wire::client::{From, Item, Request, encode_request};

use super::plan::server_id;
use super::sabotage::{Sabotage, renumbered};
use super::world::{Happening, World};

/// A client's connection, both ends of it.
pub struct Conn {
    pub id: u64,
    pub person: usize,
    pub incarnation: u64,
    pub server: usize,
    /// The server's process.
    pub life: u64,
    pub client_open: bool,
    pub server_open: bool,
    /// Bytes that came to the server and aren't whole frames yet.
    pub input: Vec<u8>,
    pub requests: VecDeque<Request>,
    pub output: Vec<u8>,
    pub in_flight: usize,
    pub closing: bool,
    pub client_input: Vec<u8>,
    pub last: [Tick; 2],
    /// What waits behind a cut, in the order in which it was sent.
    pub stalled: BTreeMap<u64, (bool, Option<Vec<u8>>)>,
}

impl Conn {
    pub fn new(id: u64, person: usize, incarnation: u64, server: usize) -> Conn {
        Conn {
            id,
            person,
            incarnation,
            server,
            life: 0,
            client_open: true,
            server_open: false,
            input: Vec::new(),
            requests: VecDeque::new(),
            output: Vec::new(),
            in_flight: 0,
            closing: false,
            client_input: Vec::new(),
            last: [Tick(0); 2],
            stalled: BTreeMap::new(),
        }
    }
}

/// What a ticket stands for.
#[derive(Clone, Debug)]
pub(super) enum Errand {
    /// A message, what the client had seen when it was submitted, and whether it must be refused.
    Post {
        text: String,
        seen: Lamport,
        refusal: Option<Code>,
        /// Whether it has an idempotency key.
        keyed: bool,
    },
    /// A room by that name.
    Room(String),
    /// Something whose outcome doesn't matter.
    Other,
    /// A question for a room that is there.
    Lookup { name: String, known: Option<RoomId> },
}

/// A room that is read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub from: From,
    pub next: Option<Position>,
    /// For `Until::Now`: what was acknowledged in the room when it was asked for.
    pub acked: Option<Position>,
}

/// Someone with a client.
pub struct Person {
    pub at: usize,
    /// Counts the processes of this client.
    pub incarnation: u64,
    pub core: Core,
    pub conn: Option<u64>,
    pub(super) rng: Rng,
    pub(super) name: String,
    pub(super) names: u64,
    key: [u8; 32],
    wake_at: Option<Tick>,
    tickets: u64,
    errands: BTreeMap<Ticket, Errand>,
    pub(super) readings: BTreeMap<RoomId, Reading>,
    calls: VecDeque<Call>,
    pub closed: bool,
    /// It has asked for the end of its session.
    pub(super) closing: bool,
    /// Follows a scenario, not its own mind.
    pub scripted: bool,
    pub(super) messages: u64,
    /// Messages with keys that may be sent again: since when, the room, the text, the key.
    pub(super) keyed: VecDeque<(Tick, RoomId, String, DedupKey)>,
    /// For scenarios.
    pub acked: u64,
    pub server: Option<ServerId>,
    pub lines: Vec<(RoomId, String)>,
    pub ended: Vec<(RoomId, bool)>,
    pub refusals: Vec<Code>,
}

impl Person {
    fn new_core(world: &World, rng: &mut Rng, name: &str, key: [u8; 32], servers: &[usize], scripted: bool) -> Core {
        let address = |&at: &usize| format!("{}:8000", server_id(at));
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&rng.draw().to_le_bytes());
        secret[8..].copy_from_slice(&rng.draw().to_le_bytes());
        let options = Options {
            servers: servers.iter().map(address).collect(),
            in_order: scripted || rng.chance(50),
            only: false,
            name: name.to_string(),
            key,
            secret,
            agent: "simulated".to_string(),
        };
        Core::new(options, world.now, rng.draw())
    }

    /// It is woken anew: the moment for which that was planned has passed.
    pub(super) fn forget_wake(&mut self) {
        self.wake_at = None;
    }

    pub(super) fn call(&mut self, call: Call) {
        self.calls.push_back(call);
    }

    pub(super) fn ticket(&mut self, errand: Errand) -> Ticket {
        self.tickets += 1;
        self.errands.insert(Ticket(self.tickets), errand);
        Ticket(self.tickets)
    }

    /// Whether it waits for nothing: no message, no answer.
    pub fn is_served(&self) -> bool {
        self.closed || (self.errands.is_empty() && self.readings.values().all(|reading| reading.acked.is_none()))
    }

    /// What it still waits for.
    pub fn waits_for(&self) -> String {
        let asked: Vec<_> = self
            .readings
            .iter()
            .filter(|(_, reading)| reading.acked.is_some())
            .collect();
        let mut core = format!("{:?}", self.core);
        core.truncate(core.char_indices().nth(900).map_or(core.len(), |(end, _)| end));
        format!("{} errands, readings {asked:?}, {core}", self.errands.len())
    }

    /// The rooms that it follows, and the position that comes next.
    pub fn follows(&self) -> impl Iterator<Item = (RoomId, Option<Position>)> {
        let live = self
            .readings
            .iter()
            .filter(|(_, reading)| reading.acked.is_none() && !self.closed);
        live.map(|(&room, reading)| (room, reading.next))
    }
}

impl World {
    /// One more person, who knows these servers.
    pub fn add_person(&mut self, name: &str, servers: &[usize], scripted: bool) -> usize {
        let at = self.people.len();
        let mut rng = self.rng.child();
        let mut key = [0; 32];
        key[..8].copy_from_slice(&rng.draw().to_le_bytes());
        let core = Person::new_core(self, &mut rng, name, key, servers, scripted);
        self.people.push(Person {
            at,
            incarnation: 1,
            core,
            conn: None,
            rng,
            name: name.to_string(),
            names: 0,
            key,
            wake_at: None,
            tickets: 0,
            errands: BTreeMap::new(),
            readings: BTreeMap::new(),
            calls: VecDeque::new(),
            closed: false,
            closing: false,
            scripted,
            messages: 0,
            keyed: VecDeque::new(),
            acked: 0,
            server: None,
            lines: Vec::new(),
            ended: Vec::new(),
            refusals: Vec::new(),
        });
        self.tell_person(at, Input::Timer);
        at
    }

    /// The client's process is another one: a new session, nothing remembered.
    pub fn restart_person(&mut self, at: usize) {
        self.disconnect(at);
        let all: Vec<usize> = (0..self.servers.len()).collect();
        let mut rng = self.people[at].rng.child();
        let (name, key, scripted) = (
            self.people[at].name.clone(),
            self.people[at].key,
            self.people[at].scripted,
        );
        let core = Person::new_core(self, &mut rng, &name, key, &all, scripted);
        let person = &mut self.people[at];
        person.core = core;
        person.incarnation += 1;
        person.wake_at = None;
        person.errands.clear();
        person.readings.clear();
        person.calls.clear();
        person.closed = false;
        person.closing = false;
        self.tell_person(at, Input::Timer);
    }

    // --- The core -------------------------------------------------------------------------------

    /// Something happens to a client.
    pub fn tell_person(&mut self, at: usize, input: Input) {
        self.people[at].core.step(self.now, input);
        self.drain_person(at);
        while let Some(call) = self.people[at].calls.pop_front() {
            self.counts.one("client operations");
            self.say(|| format!("{} calls {call:?}", self.people[at].name));
            self.people[at].core.step(self.now, Input::Call(call));
            self.drain_person(at);
        }
        let person = &mut self.people[at];
        if let Some(deadline) = person.core.deadline()
            && person.wake_at.is_none_or(|wake| wake > deadline || wake < self.now)
        {
            let deadline = deadline.max(Tick(self.now.0 + 1));
            person.wake_at = Some(deadline);
            let incarnation = person.incarnation;
            self.at(
                deadline,
                Happening::Wake {
                    person: at,
                    incarnation,
                },
            );
        }
    }

    pub fn wake_person(&mut self, at: usize, incarnation: u64) {
        let person = &mut self.people[at];
        if person.incarnation != incarnation || person.wake_at != Some(self.now) {
            return;
        }
        person.wake_at = None;
        self.tell_person(at, Input::Timer);
    }

    fn drain_person(&mut self, at: usize) {
        while let Some(output) = self.people[at].core.poll() {
            match output {
                Output::Connect { address } => self.connect(at, &address),
                Output::Send(request) => {
                    let Some(conn) = self.people[at].conn else {
                        self.fail(format!("{} sends without a connection", self.people[at].name));
                        return;
                    };
                    let mut bytes = Vec::new();
                    encode_request(&request, &mut bytes);
                    if self.sabotage == Some(Sabotage::RenumberedRetries) {
                        renumbered(&request, &mut bytes);
                    }
                    self.put_on_stream(conn, true, Some(bytes));
                }
                Output::Disconnect => self.disconnect(at),
                Output::Event(event) => self.hear(at, event),
            }
        }
    }

    /// What a client's program hears, and checks.
    fn hear(&mut self, at: usize, event: Event) {
        self.say(|| format!("{} hears {event:?}", self.people[at].name));
        let result = match event {
            Event::Done {
                ticket,
                session,
                seq,
                outcome,
            } => {
                let first = self.people[at].errands.first_key_value().map(|(&first, _)| first);
                match self.people[at].errands.remove(&ticket) {
                    Some(errand) => {
                        // Questions are answered when they are; actions in their order.
                        let earlier = first.filter(|&first| first < ticket);
                        let skipped = earlier.is_some_and(|first| {
                            !matches!(self.people[at].errands.get(&first), Some(Errand::Lookup { .. }))
                        });
                        if skipped
                            && !self.people[at]
                                .errands
                                .range(..ticket)
                                .all(|(_, e)| matches!(e, Errand::Lookup { .. }))
                        {
                            Err(format!(
                                "{ticket:?} of {} is done before an earlier one",
                                self.people[at].name
                            ))
                        } else {
                            self.done(at, errand, session, seq, &outcome)
                        }
                    }
                    None => Err(format!(
                        "{ticket:?} of {} is done twice, or never was",
                        self.people[at].name
                    )),
                }
            }
            Event::Unknown { ticket } => {
                self.counts.one("outcomes that nobody knows");
                self.people[at].errands.remove(&ticket);
                Ok(())
            }
            Event::Item(item) => self.read_item(at, &item),
            Event::Gap { room, positions, .. } => {
                self.counts.one("gaps told");
                self.gap(at, room, positions)
            }
            Event::End { room, fresh } => self.reading_ended(at, room, fresh),
            Event::SubscribeRefused { room, code, .. } => {
                self.people[at].readings.remove(&room);
                self.counts.one("subscriptions refused");
                if room == RoomId::LOBBY {
                    Err(format!("the lobby can't be read: {code:?}"))
                } else {
                    Ok(())
                }
            }
            Event::Room { ticket, room, fresh } => {
                let room = room.map(|room| room.room);
                match self.people[at].errands.remove(&ticket) {
                    Some(Errand::Lookup { name, known }) if fresh && known.is_some() && room != known => Err(format!(
                        "room {name} was acknowledged as {known:?}, and a fresh answer says {room:?}"
                    )),
                    _ => {
                        self.counts.one(if fresh { "fresh lookups" } else { "stale lookups" });
                        Ok(())
                    }
                }
            }
            Event::OpenRefused { code, .. } => {
                self.people[at].refusals.push(code);
                if code == Code::NameTaken && !self.people[at].scripted {
                    self.counts.one("names taken");
                    let person = &mut self.people[at];
                    person.names += 1;
                    person.name = format!("guest{}-{}", at, person.names);
                    let name = person.name.clone();
                    person.call(Call::OpenAs(name));
                }
                Ok(())
            }
            Event::Opened { name, new, .. } => {
                self.counts.one(if new {
                    "sessions opened"
                } else {
                    "sessions gone on with"
                });
                self.people[at].name = name;
                Ok(())
            }
            Event::Expired => {
                self.counts.one("sessions gone");
                // Where nothing is old enough to expire, only who has closed its session may find it gone.
                let person = &self.people[at];
                if person.closing || self.plan.ages {
                    Ok(())
                } else {
                    Err(format!("the session of {} is gone", person.name))
                }
            }
            Event::NoQuorum => {
                self.counts.one("clients told of no quorum");
                Ok(())
            }
            Event::AskRefused { ticket, .. } => {
                self.people[at].errands.remove(&ticket);
                Ok(())
            }
            Event::Closed => {
                self.counts.one("clients closed");
                let person = &mut self.people[at];
                person.closed = true;
                person.errands.clear();
                person.readings.clear();
                Ok(())
            }
            Event::Disconnected { .. } => {
                self.counts.one("clients that lost their server");
                self.people[at].server = None;
                Ok(())
            }
            Event::Connected { server, .. } => {
                self.people[at].server = Some(server);
                Ok(())
            }
            Event::Notice(text) => Err(format!("{} is told: {text}", self.people[at].name)),
            _ => Ok(()),
        };
        self.check(result);
    }

    fn done(
        &mut self,
        at: usize,
        errand: Errand,
        session: syncnet::types::SessionId,
        seq: syncnet::types::ClientSeq,
        outcome: &Outcome,
    ) -> Result<(), String> {
        match (errand, outcome) {
            (
                Errand::Post {
                    text, refusal, keyed, ..
                },
                Outcome::Refused(code),
            ) => {
                self.counts.one("messages refused");
                let expected = refusal == Some(*code)
                    || matches!(code, Code::NameTaken | Code::NoSuchSession)
                    || (self.other_configs && *code == Code::TextTooLong);
                if !expected {
                    return Err(format!("\"{text}\" was refused: {code:?}"));
                }
                if refusal.is_none() && !keyed {
                    self.oracle.refused(&text)?;
                }
                Ok(())
            }
            (
                Errand::Post {
                    text,
                    refusal: Some(code),
                    ..
                },
                _,
            ) => Err(format!("\"{text}\" should have been refused with {code:?}, and wasn't")),
            (
                Errand::Post {
                    text,
                    seen,
                    refusal: None,
                    keyed,
                },
                _,
            ) => {
                self.people[at].acked += 1;
                if keyed {
                    return self.oracle.acknowledged_by_key(&text, outcome);
                }
                self.oracle.acknowledged(&text, seen, session, seq, outcome)
            }
            (Errand::Room(_), Outcome::Refused(code)) => {
                self.people[at].refusals.push(*code);
                Ok(())
            }
            (Errand::Room(name), Outcome::Room { room, .. }) => {
                let known = *self.oracle.known_rooms.entry(name.clone()).or_insert(*room);
                if known == *room {
                    Ok(())
                } else {
                    Err(format!("room {name} is {known} and {room}"))
                }
            }
            _ => Ok(()),
        }
    }

    fn read_item(&mut self, at: usize, item: &Item) -> Result<(), String> {
        self.oracle.shown(item)?;
        self.counts.one("items read");
        let name = &self.people[at].name;
        let after = |seq: Seq| match seq {
            Seq(0) => Some(Position(1)),
            seq => self.oracle.position_of(item.room, seq).map(Position::next),
        };
        let Some(reading) = self.people[at].readings.get(&item.room) else {
            return Err(format!(
                "{name} is shown an item of room {}, which it doesn't read",
                item.room
            ));
        };
        let expected = match (reading.next, reading.from) {
            (Some(next), _) => Some(next),
            (None, From::Position(position)) => Some(position),
            (None, From::AfterSeq(seq)) => after(seq),
            (None, From::Last(_)) => None,
        };
        let skips = expected.is_some_and(|expected| {
            let skipped = self.oracle.skipped(item.room, expected, item.position);
            // Where nothing but joins and the like is gone, nothing is said.
            expected != item.position && skipped != Some(false)
        });
        if skips {
            return Err(format!(
                "{name} is shown room {} at {}, and {expected:?} was due",
                item.room, item.position
            ));
        }
        let person = &mut self.people[at];
        if let Some(reading) = person.readings.get_mut(&item.room) {
            reading.next = Some(item.position.next());
        }
        if person.scripted {
            let text = match &item.what {
                syncnet::wire::client::What::Message(text) => text.clone(),
                other => format!("({other:?})"),
            };
            person.lines.push((item.room, text));
        }
        Ok(())
    }

    /// A reader is told that items are gone: none of them may be one that is still to be shown.
    fn gap(&mut self, at: usize, room: RoomId, (first, last): (Position, Position)) -> Result<(), String> {
        let name = &self.people[at].name;
        let Some(reading) = self.people[at].readings.get(&room) else {
            return Err(format!("{name} is told of a gap in room {room}, which it doesn't read"));
        };
        let due = match (reading.next, reading.from) {
            (Some(next), _) => next,
            (None, From::Position(position)) => position,
            (None, From::AfterSeq(seq)) if seq > Seq(0) => {
                self.oracle.position_of(room, seq).map_or(Position(1), Position::next)
            }
            (None, From::AfterSeq(_)) => Position(1),
            // Wherever the last ones begin.
            (None, From::Last(_)) => Position(first.0.max(1)),
        };
        if first != Position(0) && first != due {
            return Err(format!(
                "{name} is told of a gap in room {room} from {first} on, and {due} was due"
            ));
        }
        if self.oracle.skipped(room, due, last.next()).is_none() {
            return Err(format!(
                "{name} is told of a gap in room {room} up to {last}, and not all of that is gone"
            ));
        }
        if let Some(reading) = self.people[at].readings.get_mut(&room) {
            reading.next = Some(last.next());
        }
        Ok(())
    }

    fn reading_ended(&mut self, at: usize, room: RoomId, fresh: bool) -> Result<(), String> {
        let person = &mut self.people[at];
        person.ended.push((room, fresh));
        let Some(reading) = person.readings.remove(&room) else {
            return Err(format!(
                "{} reads room {room} to its end, and doesn't read it",
                person.name
            ));
        };
        self.counts.one(if fresh { "fresh readings" } else { "stale readings" });
        let shown = reading.next.map_or(Position(0), Position::previous);
        let began = match reading.from {
            From::Position(position) => position,
            _ => Position(1),
        };
        match reading.acked {
            // What is gone isn't shown, and who asks for the last ones isn't told.
            Some(acked)
                if fresh
                    && began <= acked
                    && shown < acked
                    && self.oracle.skipped(room, shown.next(), acked.next()).is_none() =>
            {
                Err(format!(
                    "{} was acknowledged up to {acked} in room {room} before {} asked, and was shown up to {shown}",
                    "something", person.name
                ))
            }
            _ => Ok(()),
        }
    }
}
