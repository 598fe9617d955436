//! The chat without its terminal: takes what is typed and what the client tells, gives lines to print and calls to make. Pure.

mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::commands::{self, Typed};
use crate::client::calls::{Action, Call, Event, Fate, Question, Ticket};
use crate::client::programs;
use crate::client::render::{self, Style};
use crate::limits;
use crate::types::{Position, RoomId, ServerId, SessionId};
use crate::wire::client::{From, Until};

/// Messages that are shown when a room is joined.
const SHOWN_AT_JOIN: u32 = 10;

/// What the chat wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Do {
    /// Print this line.
    Print(String),
    /// Make this call; `Submit` only if there is room.
    Call(Call),
    /// Close the session if it is open, and end with this code.
    Quit(u8),
}

/// What a ticket was for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Say { text: String, announced: bool },
    Create(String),
    Join(String),
    Leave(RoomId),
    Topic,
    Name(String),
    Rooms { first: bool },
    Who(String),
    ShowTopic,
    Ping,
    Status,
}

/// A room that the user is in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Joined {
    name: String,
    /// The last item seen.
    seen: Position,
    /// Up to here it is history, in which own messages are shown, too.
    history: Position,
}

/// Where the client is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct At {
    server: ServerId,
    address: String,
    cluster: String,
}

/// The chat.
#[derive(Clone, Debug)]
pub struct Model {
    style: Style,
    name: String,
    session: Option<SessionId>,
    rooms: BTreeMap<RoomId, Joined>,
    current: Option<RoomId>,
    purposes: BTreeMap<Ticket, Purpose>,
    last_ticket: u64,
    /// Typed before the first room was joined.
    held: VecDeque<String>,
    at: Option<At>,
    was_connected: bool,
    /// Addresses whose failure was told since the connection was lost.
    failures: BTreeSet<String>,
    leader: Option<ServerId>,
    quorum: bool,
    todo: VecDeque<Do>,
}

impl Model {
    /// A chat that opens its session and joins a room.
    #[must_use]
    pub fn new(name: String, room: String, style: Style) -> Model {
        let mut model = Model {
            style,
            name,
            session: None,
            rooms: BTreeMap::new(),
            current: None,
            purposes: BTreeMap::new(),
            last_ticket: 0,
            held: VecDeque::new(),
            at: None,
            was_connected: false,
            failures: BTreeSet::new(),
            leader: None,
            quorum: true,
            todo: VecDeque::new(),
        };
        model.todo.push_back(Do::Call(Call::Open));
        model.join(room);
        model
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Do> {
        self.todo.pop_front()
    }

    /// Whether it will want to end once what is to be done before is done.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.todo.iter().any(|what| matches!(what, Do::Quit(_)))
    }

    /// Whether a session was ever open: without one, nothing was sent.
    #[must_use]
    pub fn was_open(&self) -> bool {
        self.session.is_some()
    }

    /// Messages that aren't acknowledged yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        let say = |purpose: &&Purpose| matches!(purpose, Purpose::Say { .. });
        self.purposes.values().filter(say).count() + self.held.len()
    }

    /// A line was typed.
    pub fn typed(&mut self, line: &str) {
        match commands::parse(line) {
            Typed::Nothing => {}
            Typed::Text(text) => self.say(text),
            Typed::Create(room) => {
                let or_find = false;
                let action = Action::Create {
                    room: room.clone(),
                    or_find,
                };
                self.submit(Purpose::Create(room), action);
            }
            Typed::Join(room) => self.join(room),
            Typed::Leave(room) => match self.room_named(room.as_deref()) {
                Some(room) => self.submit(Purpose::Leave(room), Action::Leave { room }),
                None => self.no_room(room.as_deref()),
            },
            Typed::Rooms => self.ask(Purpose::Rooms { first: true }, Question::Rooms),
            Typed::Who(room) => match self.room_named(room.as_deref()) {
                Some(id) => {
                    let name = self.rooms.get(&id).map(|room| room.name.clone());
                    self.ask(Purpose::Who(name.unwrap_or_default()), Question::Who { room: id });
                }
                None => self.no_room(room.as_deref()),
            },
            Typed::WhereAmI => self.where_am_i(),
            Typed::History(count) => self.history(count),
            Typed::Topic(Some(text)) => match self.current {
                Some(room) => self.submit(Purpose::Topic, Action::Topic { room, text }),
                None => self.no_room(None),
            },
            Typed::Topic(None) => match self.current_name() {
                Some(name) => self.ask(Purpose::ShowTopic, Question::Lookup { name, fresh: false }),
                None => self.no_room(None),
            },
            Typed::Name(name) if self.session.is_none() => {
                self.name.clone_from(&name);
                self.todo.push_back(Do::Call(Call::OpenAs(name)));
            }
            Typed::Name(name) => self.submit(Purpose::Name(name.clone()), Action::Rename { name }),
            Typed::Ping => self.ask(Purpose::Ping, Question::Ping),
            Typed::Status => self.ask(Purpose::Status, Question::Status),
            Typed::Help => self.print_lines(commands::HELP),
            Typed::Quit => self.quit(),
            Typed::Wrong(text) => self.note(&text),
        }
    }

    /// The user wants to leave.
    pub fn quit(&mut self) {
        self.todo.push_back(Do::Quit(programs::OK));
    }

    /// The outbox had no room for this action.
    pub fn full(&mut self, ticket: Ticket) {
        if let Some(Purpose::Say { text, .. }) = self.purposes.remove(&ticket) {
            self.note(&format!("✗ too much is pending; not sent: {}", render::clean(&text)));
        } else {
            self.note("✗ too much is pending; try again later");
        }
    }

    /// Acknowledgements are late: says so, once for each message.
    pub fn slow(&mut self) {
        let mut new = false;
        for purpose in self.purposes.values_mut() {
            if let Purpose::Say { announced, .. } = purpose {
                new |= !*announced;
                *announced = true;
            }
        }
        if new {
            let pending = self.pending();
            self.note(&format!("… pending ({pending})"));
        }
    }

    /// The client tells something.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Connected {
                server,
                address,
                cluster,
                leader,
                quorum,
                ..
            } => self.connected(
                At {
                    server,
                    address,
                    cluster,
                },
                leader,
                quorum,
            ),
            Event::Disconnected { reason, .. } => {
                let reason = render::clean(&reason);
                let from = self
                    .at
                    .take()
                    .map_or_else(String::new, |at| format!(" to {}", at.server));
                self.note(&format!("connection{from} lost ({reason}); trying the other servers"));
                self.slow();
            }
            Event::Unreachable { address, reason } => {
                if self.failures.insert(address.clone()) {
                    let (address, reason) = (render::clean(&address), render::clean(&reason));
                    self.note(&format!("can't reach {address} ({reason}); trying on"));
                }
            }
            Event::NoQuorum => {
                self.quorum = false;
                self.note("no server that answers has a quorum; what you write waits");
            }
            Event::Elsewhere { leader } => self.note(&crate::client::programs::elsewhere(&leader)),
            Event::QuorumBack => {
                self.quorum = true;
                self.failures.clear();
                self.note("the quorum is back");
            }
            Event::Leader(leader) => {
                if let Some(new) = leader.filter(|_| leader != self.leader) {
                    self.leader = leader;
                    self.note(&format!("{new} leads now"));
                }
            }
            Event::Opened { session, name, new } => self.opened(session, name, new),
            Event::OpenRefused { code, text } => self.open_refused(code, &text),
            Event::Expired => self.note("the session has expired; a new one is opened"),
            Event::Done { ticket, outcome, .. } => self.done(ticket, outcome),
            Event::Unknown { ticket } => {
                if let Some(Purpose::Say { text, .. }) = self.purposes.remove(&ticket) {
                    let text = render::clean(&text);
                    self.note(&format!("? nobody knows whether this was posted: {text}"));
                }
            }
            Event::TimedOut { ticket, fate } => {
                if let Some(Purpose::Say { text, .. }) = self.purposes.get(&ticket) {
                    let text = render::clean(text);
                    let what = match fate {
                        Fate::Unknown => "not acknowledged in time",
                        Fate::Unreached | Fate::NoQuorum => "not sent in time; it waits on",
                    };
                    self.note(&format!("{what}: {text}"));
                }
            }
            Event::Item(item) => self.item(&item),
            Event::Gap {
                room, seqs: (from, to), ..
            } if from <= to => {
                let prefix = self.prefix(room);
                self.note(&format!("{prefix}messages {from} to {to} are kept no more"));
            }
            Event::SubscribeRefused { text, .. } => self.note(&render::clean(&text)),
            Event::AskRefused { ticket, text, .. } => {
                self.purposes.remove(&ticket);
                self.note(&render::clean(&text));
            }
            Event::Room { ticket, room, .. } => {
                if self.purposes.remove(&ticket) == Some(Purpose::ShowTopic) {
                    match room.map(|info| info.topic).filter(|topic| !topic.is_empty()) {
                        Some(topic) => self.note(&format!("topic: {}", render::clean(&topic))),
                        None => self.note("the room has no topic"),
                    }
                }
            }
            Event::Rooms { ticket, rooms, more } => self.show_rooms(ticket, &rooms, more),
            Event::Who { ticket, users } => {
                if let Some(Purpose::Who(room)) = self.purposes.remove(&ticket) {
                    let names: Vec<String> = users.iter().map(|user| self.style.name(user)).collect();
                    self.print(format!("in {}: {}", render::clean(&room), names.join(", ")));
                }
            }
            Event::Pong { ticket, span } => {
                self.purposes.remove(&ticket);
                let from = self
                    .at
                    .as_ref()
                    .map_or_else(String::new, |at| format!(" from {}", at.server));
                self.note(&format!("pong{from} in {}.{:03} ms", span.0 / 1000, span.0 % 1000));
            }
            Event::Status {
                ticket, row, cluster, ..
            } => {
                self.purposes.remove(&ticket);
                let leader = row
                    .leader
                    .map_or_else(|| "nobody".to_string(), |leader| leader.to_string());
                self.note(&format!(
                    "{}: {} is {:?}, up {} s, {} clients, {} messages; {leader} leads in term {}",
                    render::clean(&cluster),
                    row.id,
                    row.role,
                    row.uptime_ms / 1000,
                    row.clients,
                    row.messages,
                    row.term
                ));
            }
            Event::Notice(text) => self.note(&render::clean(&text)),
            Event::Gap { .. } | Event::End { .. } | Event::Closed => {}
        }
    }

    // --- What is typed ---------------------------------------------------------------------------

    fn say(&mut self, text: String) {
        let Some(room) = self.current else {
            let joining = self.purposes.values().any(|p| matches!(p, Purpose::Join(_)));
            if joining && self.held.len() < limits::CLIENT_HELD_TEXTS_MAX {
                self.held.push_back(text);
                let held = self.held.len();
                return self.note(&format!("… pending ({held})"));
            }
            return self.no_room(None);
        };
        let waits = self.at.is_none() || !self.quorum || self.session.is_none();
        let purpose = Purpose::Say {
            text: text.clone(),
            announced: waits,
        };
        let dedup = None;
        self.submit(purpose, Action::Post { room, text, dedup });
        if waits {
            let pending = self.pending();
            self.note(&format!("… pending ({pending})"));
        }
    }

    fn join(&mut self, room: String) {
        self.submit(Purpose::Join(room.clone()), Action::Join { room });
    }

    fn history(&mut self, count: u32) {
        let Some(room) = self.current else {
            return self.no_room(None);
        };
        if let Some(joined) = self.rooms.get_mut(&room) {
            joined.history = joined.seen;
        }
        self.follow(room, count);
    }

    fn follow(&mut self, room: RoomId, count: u32) {
        self.todo.push_back(Do::Call(Call::Subscribe {
            room,
            from: From::Last(count),
            until: Until::Forever,
            stale: false,
        }));
    }

    fn where_am_i(&mut self) {
        let room = self.current_name().unwrap_or_else(|| "no room".to_string());
        let at = match &self.at {
            Some(at) => format!("on {} ({}) of {}", at.server, at.address, at.cluster),
            None => "not connected".to_string(),
        };
        let leader = self
            .leader
            .map_or_else(String::new, |leader| format!(", {leader} leads"));
        let text = format!("you are {} in {room}, {at}{leader}", self.name);
        self.note(&render::clean(&text));
        if self.rooms.len() > 1 {
            let names: Vec<&str> = self.rooms.values().map(|room| room.name.as_str()).collect();
            let text = render::clean(&format!("your rooms: {}", names.join(", ")));
            self.note(&text);
        }
    }

    fn room_named(&self, name: Option<&str>) -> Option<RoomId> {
        let Some(name) = name else { return self.current };
        let same = |room: &Joined| room.name.to_lowercase() == name.to_lowercase();
        self.rooms.iter().find(|(_, room)| same(room)).map(|(&id, _)| id)
    }

    fn no_room(&mut self, name: Option<&str>) {
        let text = match name {
            Some(name) => format!("you are not in {}; /join it first", render::clean(name)),
            None => "you are in no room; /join ROOM, /rooms lists them".to_string(),
        };
        self.note(&text);
    }

    fn current_name(&self) -> Option<String> {
        Some(self.rooms.get(&self.current?)?.name.clone())
    }

    /// Says in which room something is if it isn't the one in which the user writes.
    fn prefix(&self, room: RoomId) -> String {
        match self.rooms.get(&room).filter(|_| self.current != Some(room)) {
            Some(other) => format!("[{}] ", render::clean(&other.name)),
            None => String::new(),
        }
    }

    fn submit(&mut self, purpose: Purpose, action: Action) {
        let ticket = self.ticket(purpose);
        let deadline = None;
        self.todo.push_back(Do::Call(Call::Submit {
            ticket,
            action,
            deadline,
        }));
    }

    fn ask(&mut self, purpose: Purpose, question: Question) {
        let ticket = self.ticket(purpose);
        self.todo.push_back(Do::Call(Call::Ask { ticket, question }));
        if self.at.is_none() {
            self.note("not connected; the answer comes later");
        }
    }

    fn ticket(&mut self, purpose: Purpose) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.purposes.insert(ticket, purpose);
        ticket
    }

    fn note(&mut self, text: &str) {
        let line = self.style.faint(&format!("-- {text}"));
        self.print(line);
    }

    fn print_lines(&mut self, text: &str) {
        for line in text.lines() {
            self.print(line.to_string());
        }
    }

    fn print(&mut self, line: String) {
        self.todo.push_back(Do::Print(line));
    }
}

#[cfg(test)]
mod tests;
