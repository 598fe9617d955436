//! What the chat makes of what the client tells.

use super::{At, Do, Joined, Model, Purpose, SHOWN_AT_JOIN};
use crate::chat::command::{Code, Outcome};
use crate::client::calls::{Call, Ticket};
use crate::client::{programs, render};
use crate::types::{Position, RoomId, ServerId, SessionId};
use crate::wire::client::{Item, RoomInfo, What};

impl Model {
    pub(super) fn connected(&mut self, at: At, leader: Option<ServerId>, quorum: bool) {
        let words = match (&self.at, self.was_connected) {
            (Some(old), _) if *old == at => None,
            (Some(_), _) => Some("moved to"),
            (None, true) => Some("back, on"),
            (None, false) => Some("connected to"),
        };
        if let Some(words) = words {
            let address = render::clean(&at.address);
            self.note(&format!(
                "{words} {} ({address}) of {}",
                at.server,
                render::clean(&at.cluster)
            ));
        }
        self.at = Some(at);
        self.was_connected = true;
        self.leader = leader.or(self.leader);
        if quorum {
            self.quorum = true;
            self.failures.clear();
        }
    }

    pub(super) fn opened(&mut self, session: SessionId, name: String, new: bool) {
        let first = self.session.is_none();
        self.session = Some(session);
        if first {
            self.note(&format!(
                "you are {}; /help shows what you can do",
                render::clean(&name)
            ));
        }
        self.name = name;
        if new && !first {
            let rooms: Vec<String> = self.rooms.values().map(|room| room.name.clone()).collect();
            for room in rooms {
                self.join(room);
            }
        }
    }

    pub(super) fn open_refused(&mut self, code: Code, text: &str) {
        let text = render::clean(text);
        let name = render::clean(&self.name);
        if self.session.is_some() {
            self.session = None;
            self.note(&format!("{name}: {text}; take another name with /name NAME"));
        } else {
            self.note(&format!("{name}: {text}"));
            if code == Code::NameTaken {
                self.note("syncnet -u NAME takes another name");
            }
            self.todo.push_back(Do::Quit(programs::refusal_code(code)));
        }
    }

    pub(super) fn done(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(purpose) = self.purposes.remove(&ticket) else {
            return;
        };
        match (purpose, outcome) {
            (Purpose::Say { text, .. }, Outcome::Refused(code)) => {
                self.note(&format!("✗ not sent ({code}): {}", render::clean(&text)));
            }
            (Purpose::Say { announced: true, .. }, _) => {
                let left = self.pending();
                let more = if left > 0 {
                    format!(", {left} pending")
                } else {
                    String::new()
                };
                self.note(&format!("✓ sent{more}"));
            }
            (Purpose::Create(room), Outcome::Room { .. }) => self.join(room),
            (
                Purpose::Join(_),
                Outcome::Room {
                    room,
                    name,
                    topic,
                    position,
                    ..
                },
            ) => {
                self.joined(room, name.to_string(), &topic, position);
            }
            (Purpose::Join(room), Outcome::Refused(Code::NoSuchRoom)) => {
                let room = render::clean(&room);
                self.note(&format!("there is no room {room}; /create {room} makes it"));
                self.drop_held();
            }
            (Purpose::Leave(room), Outcome::Done) => {
                self.todo.push_back(Do::Call(Call::Unsubscribe(room)));
                if let Some(left) = self.rooms.remove(&room) {
                    self.note(&format!("you have left {}", render::clean(&left.name)));
                }
                if self.current == Some(room) {
                    self.current = self.rooms.keys().next().copied();
                    let now = self.current_name();
                    self.note(&now.map_or_else(
                        || "you are in no room; /rooms lists them".to_string(),
                        |name| format!("you write in {} now", render::clean(&name)),
                    ));
                }
            }
            (Purpose::Name(name), Outcome::Done) => {
                self.note(&format!("you are {} now", render::clean(&name)));
                self.name = name;
            }
            (purpose, Outcome::Refused(code)) => {
                self.note(&code.to_string());
                if matches!(purpose, Purpose::Join(_)) {
                    self.drop_held();
                }
            }
            _ => {}
        }
    }

    pub(super) fn joined(&mut self, room: RoomId, name: String, topic: &str, position: Position) {
        let shown = render::clean(&name);
        let topic = match topic {
            "" => String::new(),
            topic => format!(": {}", render::clean(topic)),
        };
        self.note(&format!("you are in {shown}{topic}"));
        self.current = Some(room);
        if let Some(known) = self.rooms.get_mut(&room) {
            known.name = name;
            return;
        }
        let joined = Joined {
            name,
            seen: Position(0),
            history: position,
        };
        self.rooms.insert(room, joined);
        self.follow(room, SHOWN_AT_JOIN);
        for text in std::mem::take(&mut self.held) {
            self.say(text);
        }
    }

    pub(super) fn drop_held(&mut self) {
        for text in std::mem::take(&mut self.held) {
            self.note(&format!("✗ not sent: {}", render::clean(&text)));
        }
    }

    pub(super) fn item(&mut self, item: &Item) {
        let Some(room) = self.rooms.get_mut(&item.room) else {
            return;
        };
        room.seen = room.seen.max(item.position);
        let history = item.position <= room.history;
        let message = matches!(item.what, What::Message(_));
        // What this session did stands on the screen already.
        let own = Some(item.session) == self.session && !(history && message);
        if own || (history && !message) {
            return;
        }
        let line = format!("{}{}", self.prefix(item.room), self.style.item(item));
        self.print(line);
    }

    pub(super) fn show_rooms(&mut self, ticket: Ticket, rooms: &[RoomInfo], more: bool) {
        let Some(Purpose::Rooms { first }) = self.purposes.get_mut(&ticket) else {
            return;
        };
        let empty = std::mem::take(first) && rooms.is_empty();
        if !more {
            self.purposes.remove(&ticket);
        }
        if empty {
            self.note("there are no rooms");
        }
        for info in rooms {
            let mark = if self.rooms.contains_key(&info.room) { '*' } else { ' ' };
            let name = render::clean(&info.name);
            let topic = render::clean(&info.topic);
            let (members, messages) = (info.members, info.seq);
            let line = format!("{mark} {name:<20} {members:>4} here {messages:>7} messages  {topic}");
            self.print(line.trim_end().to_string());
        }
    }
}
