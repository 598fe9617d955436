//! `syncnet tail`: prints a room's messages and follows, over any number of connections, each message once.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::calls::{Event, Options, Question, Ticket};
use super::link::Client;
use super::programs::{self, Condition, Out, Stop, complain};
use super::render::{self, Style};
use super::{json, subscription};
use crate::limits;
use crate::types::{RoomId, Seq};
use crate::wire::client::{From, Item, RoomInfo, Until, What};

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// After the message of this number.
    After(Seq),
    /// With the last so many.
    Last(u32),
}

/// What to print, and how.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The room's name.
    pub room: String,
    /// Where to begin.
    pub begin: Begin,
    /// How many messages at most.
    pub count: Option<u64>,
    /// Whether to follow.
    pub follow: bool,
    /// Whether to wait for a missing room.
    pub wait: bool,
    /// Whether any server's state is fresh enough.
    pub stale: bool,
    /// Whether to print events, too.
    pub events: bool,
    /// Whether to print JSON.
    pub json: bool,
    /// Whether standard output is a terminal, and how lines look there.
    pub terminal: bool,
    /// With or without colour.
    pub style: Style,
    /// How long nothing may come; `None` for ever.
    pub timeout: Option<Duration>,
}

/// Why it ends.
enum End {
    Code(u8),
    Stop(Stop),
}

impl std::convert::From<Stop> for End {
    fn from(stop: Stop) -> End {
        End::Stop(stop)
    }
}

/// Runs it; gives the exit code.
#[must_use]
pub fn run(options: Options, tail: Tail) -> u8 {
    let (client, events) = match Client::start(options) {
        Ok(started) => started,
        Err(error) => {
            complain(&format!("can't start: {error}"));
            return programs::REFUSED;
        }
    };
    let mut reader = Reader {
        tail,
        client,
        out: Out::default(),
        condition: Condition::default(),
        printed: 0,
        day: None,
        asked: Ticket(0),
        room: None,
    };
    let end = reader.all(&events);
    let flushed = reader.out.flush();
    match (end, flushed) {
        (End::Stop(stop), _) => stop.code(),
        (End::Code(programs::OK), Err(stop)) => stop.code(),
        (End::Code(code), _) => code,
    }
}

struct Reader {
    tail: Tail,
    client: Client,
    out: Out,
    condition: Condition,
    /// Messages.
    printed: u64,
    /// The day of the last line, to tell when it changes.
    day: Option<u64>,
    asked: Ticket,
    room: Option<RoomId>,
}

impl Reader {
    fn all(&mut self, events: &Receiver<Event>) -> End {
        if self.tail.count == Some(0) {
            return End::Code(programs::OK);
        }
        self.ask();
        let mut again: Option<Instant> = None;
        let mut patience = self.tail.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            // Printed lines go out when there is nothing more to print at this moment.
            let event = match events.try_recv() {
                Ok(event) => Ok(event),
                Err(_) => {
                    if let Err(stop) = self.out.flush() {
                        return End::Stop(stop);
                    }
                    let until = [again, patience].into_iter().flatten().min();
                    until.map_or_else(
                        || events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                        |until| events.recv_deadline(until),
                    )
                }
            };
            match event {
                Ok(event) => {
                    if matches!(event, Event::Item(_)) {
                        patience = self.tail.timeout.map(|timeout| Instant::now() + timeout);
                    }
                    match self.event(event) {
                        Ok(None) => {}
                        Ok(Some(rest)) => again = Some(Instant::now() + rest),
                        Err(end) => return end,
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    if patience.is_some_and(|at| at <= now) {
                        return End::Code(self.give_up());
                    }
                    if again.is_some_and(|at| at <= now) {
                        again = None;
                        self.ask();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return End::Code(programs::REFUSED),
            }
        }
    }

    fn give_up(&self) -> u8 {
        if self.condition.connected && self.condition.quorum && self.room.is_some() {
            // Nothing was wrong, there was only nothing more to print.
            return match self.tail.count {
                Some(_) => programs::REFUSED,
                None => programs::OK,
            };
        }
        if self.condition.connected && self.condition.quorum && self.tail.wait {
            complain(&format!("there is no room {} yet", render::clean(&self.tail.room)));
            return programs::REFUSED;
        }
        let (code, text) = self.condition.give_up();
        complain(&text);
        code
    }

    fn ask(&mut self) {
        let question = Question::Lookup {
            name: self.tail.room.clone(),
            fresh: !self.tail.stale,
        };
        if let Ok(ticket) = self.client.ask(question) {
            self.asked = ticket;
        }
    }

    /// How long to rest before the room is asked for again, if it must be.
    fn event(&mut self, event: Event) -> Result<Option<Duration>, End> {
        self.condition.note(&event);
        match event {
            Event::Room { ticket, room, fresh } if ticket == self.asked => match room {
                Some(info) => self.subscribe(&info),
                None => return self.missing(fresh).map(Some),
            },
            Event::AskRefused { text, .. } | Event::SubscribeRefused { text, .. } => {
                complain(&render::clean(&text));
                return Err(End::Code(programs::REFUSED));
            }
            Event::Item(item) => self.item(&item)?,
            Event::Gap { seqs: (from, to), .. } if from <= to => {
                if self.tail.json {
                    self.out.line(&json::gap(&self.tail.room, from, to))?;
                } else {
                    complain(&format!("messages {from} to {to} are kept no more"));
                }
            }
            Event::End { fresh, .. } => {
                if fresh || self.tail.stale {
                    return Err(End::Code(programs::OK));
                }
                complain("no quorum: there may be newer messages than these");
                return Err(End::Code(programs::NO_QUORUM));
            }
            Event::NoQuorum if self.tail.follow => {
                complain("no server that answers has a quorum; waiting for news");
            }
            _ => {}
        }
        Ok(None)
    }

    fn missing(&self, fresh: bool) -> Result<Duration, End> {
        let room = render::clean(&self.tail.room);
        if fresh && !self.tail.wait {
            complain(&format!("there is no room {room}"));
            return Err(End::Code(programs::REFUSED));
        }
        if !fresh && !self.tail.follow && !self.tail.wait {
            complain(&format!("no quorum, and the server that answers knows no room {room}"));
            return Err(End::Code(programs::NO_QUORUM));
        }
        Ok(Duration::from_micros(limits::CLIENT_BUSY_REST.0))
    }

    fn subscribe(&mut self, info: &RoomInfo) {
        self.room = Some(info.room);
        let from = match self.tail.begin {
            Begin::After(seq) => From::AfterSeq(seq),
            Begin::Last(count) => subscription::last(count, info),
        };
        let until = match (self.tail.follow, self.tail.stale) {
            (true, _) => Until::Forever,
            (false, true) => Until::Here,
            (false, false) => Until::Now,
        };
        // The thread has ended only if the channel of events has, too, and that is noticed there.
        let _ = self.client.subscribe(info.room, from, until, self.tail.stale);
    }

    fn item(&mut self, item: &Item) -> Result<(), End> {
        let message = matches!(item.what, What::Message(_));
        if !message && !self.tail.events {
            return Ok(());
        }
        if self.tail.json {
            self.out.line(&json::item(&self.tail.room, item))?;
        } else {
            let day = item.time_ms / 86_400_000;
            // For people only; in a pipe a line is a message.
            if self.tail.terminal && self.day != Some(day) {
                let text = format!("--- {} (times are UTC) ---", render::date(item.time_ms));
                self.out.line(&self.tail.style.faint(&text))?;
                self.day = Some(day);
            }
            self.out.line(&self.tail.style.item(item))?;
        }
        self.printed += u64::from(message);
        if self.tail.count == Some(self.printed) {
            return Err(End::Code(programs::OK));
        }
        Ok(())
    }
}
