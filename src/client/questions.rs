//! The program's questions until they are answered: asked again on the next connection, in the order in which they were asked.

use super::calls::{Event, Question, Ticket};
use crate::chat::command::Code;
use crate::limits;
use crate::types::{RoomId, Tick};
use crate::wire::client::{Request, Response};

/// A question without an answer yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Open {
    ticket: Ticket,
    question: Question,
    /// Its id on the wire and when it was asked; `None` if not on this connection.
    asked: Option<(u64, Tick)>,
    /// Not before this.
    not_before: Tick,
    /// The next page of `Rooms` begins after this.
    after: RoomId,
    /// It was asked without asking for freshness, since the server has none to give.
    weakened: bool,
}

/// All questions without an answer yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Questions {
    open: Vec<Open>,
}

/// What an answer comes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Tell the program.
    Tell(Event),
    /// Nothing to tell.
    Nothing,
    /// The server has no quorum, and the question wants one.
    NotFresh,
}

impl Questions {
    /// Takes a question; false if there are too many.
    pub fn add(&mut self, ticket: Ticket, question: Question) -> bool {
        let room = self.open.len() < limits::CLIENT_QUESTIONS_MAX;
        if room {
            self.open.push(Open {
                ticket,
                question,
                asked: None,
                not_before: Tick(0),
                after: RoomId(0),
                weakened: false,
            });
        }
        room
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether any of them wants a server with a quorum.
    #[must_use]
    pub fn want_quorum(&self) -> bool {
        self.open
            .iter()
            .any(|open| matches!(open.question, Question::Lookup { fresh: true, .. }))
    }

    /// The connection is another one: all are asked again.
    pub fn rewind(&mut self) {
        for open in &mut self.open {
            open.asked = None;
            open.not_before = Tick(0);
        }
    }

    /// When the next is to be asked.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let unasked = self.open.iter().filter(|open| open.asked.is_none());
        unasked.map(|open| open.not_before).min()
    }

    /// The next request, if one is due; `id` is used for it. A server without a quorum isn't asked for freshness: it would
    /// only keep the question for as long as it hopes.
    pub fn ask(&mut self, now: Tick, id: u64, quorum: bool) -> Option<Request> {
        let due = |open: &&mut Open| open.asked.is_none() && open.not_before <= now;
        let open = self.open.iter_mut().find(due)?;
        open.asked = Some((id, now));
        open.weakened = !quorum && matches!(open.question, Question::Lookup { fresh: true, .. });
        Some(match &open.question {
            Question::Lookup { name, fresh } => Request::Lookup {
                id,
                name: name.clone(),
                fresh: *fresh && quorum,
            },
            Question::Rooms => Request::Rooms { id, after: open.after },
            Question::Who { room } => Request::Who { id, room: *room },
            Question::Status => Request::Status { id },
            Question::Ping => Request::Ping { id },
        })
    }

    /// What the server's answer comes to. `last_try`: no other server would know better.
    pub fn answered(&mut self, now: Tick, response: Response, last_try: bool) -> Answer {
        let id = match &response {
            Response::Room { id, .. }
            | Response::Rooms { id, .. }
            | Response::Who { id, .. }
            | Response::Status { id, .. }
            | Response::Pong { id }
            | Response::Refused { id, .. } => *id,
            _ => return Answer::Nothing,
        };
        let asked = |open: &Open| open.asked.is_some_and(|(asked, _)| asked == id);
        let Some(at) = self.open.iter().position(asked) else {
            return Answer::Nothing;
        };
        let Some(open) = self.open.get_mut(at) else {
            return Answer::Nothing;
        };
        let ticket = open.ticket;
        let event = match response {
            Response::Room { fresh: false, .. } if !last_try => return Answer::NotFresh,
            Response::Room { room, fresh, .. } => Event::Room {
                ticket,
                room,
                fresh: fresh && !open.weakened,
            },
            Response::Rooms { rooms, more, .. } => {
                // A page that doesn't lead on would be asked for for ever.
                let last = rooms.last().map(|info| info.room).filter(|&last| last > open.after);
                let more = more && last.is_some();
                let event = Event::Rooms { ticket, rooms, more };
                if let Some(last) = last.filter(|_| more) {
                    open.after = last;
                    open.asked = None;
                    return Answer::Tell(event);
                }
                event
            }
            Response::Who { users, .. } => Event::Who { ticket, users },
            Response::Status {
                row, servers, cluster, ..
            } => Event::Status {
                ticket,
                row,
                servers,
                cluster,
            },
            Response::Pong { .. } => Event::Pong {
                ticket,
                span: open.asked.map_or_else(Default::default, |(_, when)| now.since(when)),
            },
            Response::Refused { code: Code::Busy, .. } => {
                open.asked = None;
                open.not_before = now.after(limits::CLIENT_BUSY_REST);
                return Answer::Nothing;
            }
            Response::Refused { code, text, .. } => Event::AskRefused { ticket, code, text },
            _ => return Answer::Nothing,
        };
        self.open.remove(at);
        Answer::Tell(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Position, Seq, Span};
    use crate::wire::client::RoomInfo;

    fn info(room: u64) -> RoomInfo {
        RoomInfo {
            room: RoomId(room),
            name: format!("room{room}"),
            topic: String::new(),
            members: 0,
            position: Position(0),
            seq: Seq(0),
        }
    }

    #[test]
    fn pages_are_asked_for_until_the_last() {
        let mut questions = Questions::default();
        questions.add(Ticket(1), Question::Rooms);
        questions.ask(Tick(0), 1, true);
        let page = Response::Rooms {
            id: 1,
            rooms: vec![info(1), info(5)],
            more: true,
        };
        assert!(matches!(
            questions.answered(Tick(0), page, false),
            Answer::Tell(Event::Rooms { more: true, .. })
        ));
        assert_eq!(
            questions.ask(Tick(0), 2, true),
            Some(Request::Rooms {
                id: 2,
                after: RoomId(5)
            })
        );
        // A server that says "more" without leading on doesn't keep us asking.
        let page = Response::Rooms {
            id: 2,
            rooms: vec![info(5)],
            more: true,
        };
        assert!(matches!(
            questions.answered(Tick(0), page, false),
            Answer::Tell(Event::Rooms { more: false, .. })
        ));
        assert!(questions.is_empty());
    }

    #[test]
    fn a_question_is_asked_again_on_the_next_connection_and_a_late_answer_is_ignored() {
        let mut questions = Questions::default();
        questions.add(Ticket(1), Question::Ping);
        questions.ask(Tick(0), 1, true);
        questions.rewind();
        assert_eq!(
            questions.answered(Tick(5), Response::Pong { id: 1 }, false),
            Answer::Nothing
        );
        assert_eq!(questions.ask(Tick(10), 2, true), Some(Request::Ping { id: 2 }));
        assert_eq!(
            questions.answered(Tick(15), Response::Pong { id: 2 }, false),
            Answer::Tell(Event::Pong {
                ticket: Ticket(1),
                span: Span(5)
            })
        );
    }
}
