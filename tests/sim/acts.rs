//! What people do: they post in bursts, follow rooms from any place, ask for history, make and leave rooms, take names that others
//! want too, end their sessions and come back.

use syncnet::chat::command::{Code, DedupKey};
use syncnet::client::calls::{Action, Call, Input, Question};
use syncnet::types::{Position, RoomId, Seq, Span};
use syncnet::wire::client::{From, Until};

use super::people::{Errand, Reading};
use super::world::{Happening, World};

/// How long after it was first sent a message with a key may be sent again: not so long that the key could be forgotten.
const REPEAT_WITHIN: Span = Span::from_ms(30_000);

impl World {
    // --- What people do -------------------------------------------------------------------------

    pub fn act(&mut self, at: usize) {
        if !self.storm {
            return;
        }
        let plan = self.plan.people.clone();
        let pace = plan.pace.draw(&mut self.people[at].rng);
        self.later(pace, Happening::Act { person: at });
        if self.people[at].closed {
            return self.restart_person(at);
        }
        let dice = self.people[at].rng.below(100);
        let (asks, follows) = (plan.asks, plan.asks + plan.follows);
        let (closes, odd) = (follows + plan.closes, follows + plan.closes + plan.odd);
        if dice < asks {
            self.ask(at);
        } else if dice < follows {
            self.follow(at);
        } else if dice < closes {
            self.people[at].closing = true;
            self.people[at].call(Call::Close);
        } else if dice < odd {
            self.do_something_odd(at);
        } else {
            let burst = self.people[at].rng.between(1, plan.burst);
            for _ in 0..burst {
                if self.people[at].core.room_in_outbox() {
                    self.post(at);
                }
            }
        }
        self.tell_person(at, Input::Timer);
    }

    fn some_room(&mut self, at: usize) -> (String, RoomId) {
        let rooms: Vec<_> = self
            .oracle
            .known_rooms
            .iter()
            .map(|(name, &room)| (name.clone(), room))
            .collect();
        let lobby = ("lobby".to_string(), RoomId::LOBBY);
        self.people[at].rng.pick(&rooms).cloned().unwrap_or(lobby)
    }

    pub(super) fn post(&mut self, at: usize) {
        let (_, room) = self.some_room(at);
        let person = &mut self.people[at];
        person.messages += 1;
        let filling = person.rng.below(self.plan.people.text_max) as usize;
        let text = format!(
            "{at}/{}/{} {}",
            person.incarnation,
            person.messages,
            "x".repeat(filling)
        );
        // Not drawn where there are no keys: what was drawn before there were keys stays what it was.
        let keyed = self.plan.people.keyed;
        if keyed > 0 && person.rng.chance(keyed) {
            return self.post_with_key(at, room, text);
        }
        self.say_in(at, room, text, None);
    }

    /// A new message with a key, or one again that had one, whatever became of it.
    fn post_with_key(&mut self, at: usize, room: RoomId, text: String) {
        let now = self.now;
        let person = &mut self.people[at];
        person.keyed.retain(|(since, ..)| now.since(*since) < REPEAT_WITHIN);
        let keyed = person.keyed.make_contiguous();
        let (room, text, key) = match person.rng.pick(keyed).cloned() {
            Some((_, room, text, key)) if person.rng.chance(50) => {
                self.counts.one("messages sent again with their keys");
                (room, text, key)
            }
            _ => {
                let mut key = [0; 16];
                key[..8].copy_from_slice(&person.rng.draw().to_le_bytes());
                person.keyed.push_back((now, room, text.clone(), DedupKey(key)));
                (room, text, DedupKey(key))
            }
        };
        self.submit_post(at, room, text, None, Some(key));
    }

    /// Submits a message.
    pub fn say_in(&mut self, at: usize, room: RoomId, text: String, refusal: Option<Code>) {
        self.submit_post(at, room, text, refusal, None);
    }

    fn submit_post(&mut self, at: usize, room: RoomId, text: String, refusal: Option<Code>, dedup: Option<DedupKey>) {
        self.counts.one("messages submitted");
        let person = &mut self.people[at];
        let seen = person.core.lamport();
        let ticket = person.ticket(Errand::Post {
            text: text.clone(),
            seen,
            refusal,
            keyed: dedup.is_some(),
        });
        person.call(Call::Submit {
            ticket,
            action: Action::Post { room, text, dedup },
            deadline: None,
        });
    }

    /// Makes a room, or finds it.
    pub fn create(&mut self, at: usize, room: &str, or_find: bool) {
        let errand = Errand::Room(room.to_string());
        let action = Action::Create {
            room: room.to_string(),
            or_find,
        };
        self.submit(at, errand, action);
    }

    fn submit(&mut self, at: usize, errand: Errand, action: Action) {
        let person = &mut self.people[at];
        let ticket = person.ticket(errand);
        person.call(Call::Submit {
            ticket,
            action,
            deadline: None,
        });
    }

    /// Asks the cluster to do something else for a person.
    pub fn submit_action(&mut self, at: usize, action: Action) {
        self.submit(at, Errand::Other, action);
    }

    /// Reads a room up to now: must show all that was acknowledged before.
    pub fn read_now(&mut self, at: usize, room: RoomId, from: From) {
        let acked = self.oracle.acked.get(&room).copied().unwrap_or_default();
        let person = &mut self.people[at];
        person.readings.insert(
            room,
            Reading {
                from,
                next: None,
                acked: Some(acked),
            },
        );
        person.call(Call::Subscribe {
            room,
            from,
            until: Until::Now,
            stale: false,
        });
    }

    /// Follows a room.
    pub fn follow_from(&mut self, at: usize, room: RoomId, from: From) {
        let person = &mut self.people[at];
        person.readings.insert(
            room,
            Reading {
                from,
                next: None,
                acked: None,
            },
        );
        person.call(Call::Subscribe {
            room,
            from,
            until: Until::Forever,
            stale: false,
        });
    }

    fn ask(&mut self, at: usize) {
        let (name, room) = self.some_room(at);
        if self.people[at].rng.chance(30) {
            let ticket = self.people[at].ticket(Errand::Lookup {
                name: name.clone(),
                known: Some(room),
            });
            return self.people[at].call(Call::Ask {
                ticket,
                question: Question::Lookup { name, fresh: true },
            });
        }
        if self.people[at]
            .readings
            .get(&room)
            .is_some_and(|reading| reading.acked.is_some())
        {
            return;
        }
        let from = self.some_place(at, room);
        self.read_now(at, room, from);
    }

    fn some_place(&mut self, at: usize, room: RoomId) -> From {
        let acked = self.oracle.acked.get(&room).copied().unwrap_or_default();
        let rng = &mut self.people[at].rng;
        match rng.below(4) {
            0 => From::AfterSeq(Seq(0)),
            1 => From::Position(Position(rng.between(1, acked.0.max(1)))),
            2 => From::Last(rng.between(1, 20) as u32),
            _ => From::Position(Position(1)),
        }
    }

    fn follow(&mut self, at: usize) {
        let (_, room) = self.some_room(at);
        let reading = self.people[at].readings.get(&room);
        if reading.is_some_and(|reading| reading.acked.is_some()) {
            return;
        }
        if reading.is_some() && self.people[at].rng.chance(60) {
            self.people[at].readings.remove(&room);
            return self.people[at].call(Call::Unsubscribe(room));
        }
        let from = self.some_place(at, room);
        self.follow_from(at, room, from);
    }

    fn do_something_odd(&mut self, at: usize) {
        let (name, room) = self.some_room(at);
        let person = &mut self.people[at];
        person.messages += 1;
        let text = format!("{at}/{}/{} odd", person.incarnation, person.messages);
        match person.rng.below(8) {
            0 => self.say_in(at, RoomId(u64::MAX), text, Some(Code::NoSuchRoom)),
            1 => self.say_in(at, room, String::new(), Some(Code::EmptyText)),
            2 | 3 => self.submit(at, Errand::Other, Action::Join { room: name }),
            4 => self.submit(at, Errand::Other, Action::Leave { room }),
            5 => self.submit(at, Errand::Other, Action::Topic { room, text }),
            6 => {
                // Two people want this name.
                let name = format!("someone{}", person.rng.below(2));
                self.submit(at, Errand::Other, Action::Rename { name });
            }
            _ => self.submit(
                at,
                Errand::Other,
                Action::Create {
                    room: name,
                    or_find: false,
                },
            ),
        }
    }

    /// The people of a plan arrive.
    pub fn people_arrive(&mut self) {
        let servers: Vec<usize> = (0..self.servers.len()).collect();
        for person in 0..self.plan.people.count {
            let mut known = servers.clone();
            self.rng.shuffle(&mut known);
            known.truncate(self.rng.between(1, servers.len() as u64) as usize);
            let name = format!("person{person}");
            let at = self.add_person(&name, &known, false);
            if at == 0 {
                for room in 1..self.plan.people.rooms {
                    self.create(at, &format!("room{room}"), true);
                }
            }
            let soon = Span(self.rng.between(0, 500_000));
            self.later(soon, Happening::Act { person: at });
        }
    }
}
