//! `syncnet send`: lines become messages, pipelined; each is acknowledged, in the order of the lines, or the exit code says
//! what became of it. The chat without a terminal is the same.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, never, select};
use sha2::{Digest, Sha256};

use super::calls::{Action, Event, Fate, Options, Question, Ticket};
use super::lines::{self, Line};
use super::link::{Client, Ended};
use super::programs::{self, Condition, Out, Stop, complain};
use super::{json, render};
use crate::chat::command::{Code, DedupKey, Outcome};
use crate::limits;
use crate::types::RoomId;

/// What to send, and how.
#[derive(Clone, Debug)]
pub struct Send {
    /// The room's name.
    pub room: String,
    /// The one message; each line of standard input if `None`.
    pub text: Option<String>,
    /// Makes the whole repeatable.
    pub id: Option<String>,
    /// Whether to make a missing room.
    pub create: bool,
    /// Whether to print JSON.
    pub json: bool,
    /// How long a line may wait for its acknowledgement; `None` for ever.
    pub timeout: Option<Duration>,
}

/// What has become of a line.
#[derive(Clone, Debug)]
enum Fortune {
    /// Not known yet.
    OnTheWay(Ticket),
    /// It can't be a message.
    Refused(Code),
}

/// A line that wasn't reported yet.
#[derive(Clone, Debug)]
struct Pending {
    line: u64,
    fortune: Fortune,
}

/// Whether the room is known.
enum Room {
    /// It wasn't asked for.
    Unasked,
    /// It was asked for; given up then.
    Asked(Ticket, Option<Instant>),
    /// It is.
    Known(RoomId),
}

/// Runs it; gives the exit code.
#[must_use]
pub fn run(options: Options, send: Send) -> u8 {
    let started = (|| {
        let input = match &send.text {
            None => lines::stdin()?,
            Some(text) => {
                let (sender, receiver) = crossbeam_channel::bounded(1);
                let read = Instant::now();
                let text = Ok(text.clone());
                let _ = sender.send(Line { number: 1, read, text });
                receiver
            }
        };
        let interrupts = programs::interrupts()?;
        let (client, events) = Client::start(options)?;
        Ok::<_, std::io::Error>((input, interrupts, client, events))
    })();
    let (input, interrupts, client, events) = match started {
        Ok(started) => started,
        Err(error) => {
            complain(&format!("can't start: {error}"));
            return programs::REFUSED;
        }
    };
    let mut sender = Sender {
        send,
        client,
        room: Room::Unasked,
        first: None,
        pending: VecDeque::new(),
        worst: programs::OK,
        condition: Condition::default(),
        out: Some(Out::default()),
    };
    let ended = sender.all(&input, &events, &interrupts);
    sender.flush();
    let code = match ended {
        Ok(()) => sender.worst,
        Err(code) => code,
    };
    // Without a server, a quorum or patience there is no use in trying; the session expires by itself.
    if matches!(code, programs::OK | programs::REFUSED) {
        sender.client.close_and_wait(&events);
    }
    code
}

struct Sender {
    send: Send,
    client: Client,
    room: Room,
    /// The line that waits for the room.
    first: Option<Line>,
    pending: VecDeque<Pending>,
    /// The exit code if nothing worse comes.
    worst: u8,
    condition: Condition,
    /// `None` once nothing can be printed any more: what was asked is done all the same.
    out: Option<Out>,
}

impl Sender {
    /// Until all is sent and acknowledged, or the exit code is certain.
    fn all(&mut self, input: &Receiver<Line>, events: &Receiver<Event>, interrupts: &Receiver<()>) -> Result<(), u8> {
        let nothing = never();
        let mut open = true;
        while open || self.first.is_some() || !self.pending.is_empty() {
            let ready = self.first.is_none() && self.pending.len() < limits::SESSION_RESULTS_MAX;
            let input = if open && ready { input } else { &nothing };
            let give_up = match self.room {
                Room::Asked(_, Some(at)) => after(at.saturating_duration_since(Instant::now())),
                _ => never(),
            };
            select! {
                recv(input) -> line => match line {
                    Ok(line) => self.line(line)?,
                    Err(_) => open = false,
                },
                recv(events) -> event => self.event(event.map_err(|_| ended(Ended))?)?,
                recv(give_up) -> _ => {
                    let (code, text) = self.condition.give_up();
                    complain(&text);
                    return Err(code);
                }
                recv(interrupts) -> _ => return Err(self.interrupted()),
            }
            while self.first.is_none()
                && let Ok(event) = events.try_recv()
            {
                self.event(event)?;
            }
            self.flush();
        }
        Ok(())
    }

    fn line(&mut self, line: Line) -> Result<(), u8> {
        let text = match &line.text {
            Ok(text) => text,
            Err(code) => {
                self.pending.push_back(Pending {
                    line: line.number,
                    fortune: Fortune::Refused(*code),
                });
                self.report();
                return Ok(());
            }
        };
        let deadline = self.send.timeout.map(|timeout| line.read + timeout);
        match self.room {
            Room::Known(room) => {
                let action = Action::Post {
                    room,
                    text: text.clone(),
                    dedup: self.send.id.as_deref().map(|id| dedup_key(id, line.number)),
                };
                let ticket = self.client.submit(action, deadline).map_err(ended)?;
                self.pending.push_back(Pending {
                    line: line.number,
                    fortune: Fortune::OnTheWay(ticket),
                });
            }
            _ => {
                let name = self.send.room.clone();
                let asked = if self.send.create {
                    let action = Action::Create {
                        room: name,
                        or_find: true,
                    };
                    self.client.submit(action, deadline)
                } else {
                    self.client.ask(Question::Lookup { name, fresh: true })
                };
                self.room = Room::Asked(asked.map_err(ended)?, deadline);
                self.first = Some(line);
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), u8> {
        self.condition.note(&event);
        let asked = match self.room {
            Room::Asked(ticket, _) => Some(ticket),
            _ => None,
        };
        match event {
            Event::Done { ticket, outcome, .. } if asked == Some(ticket) => match outcome {
                Outcome::Room { room, .. } => self.room_is(room),
                Outcome::Refused(code) => Err(self.no_room(code)),
                _ => Err(self.no_room(Code::Malformed)),
            },
            Event::Room { ticket, room, fresh } if asked == Some(ticket) => match room {
                Some(info) => self.room_is(info.room),
                None if fresh => Err(self.no_room(Code::NoSuchRoom)),
                None => {
                    // A server without a quorum may not know it; the line's deadline bounds how often it is asked.
                    std::thread::sleep(Duration::from_micros(limits::CLIENT_BUSY_REST.0));
                    let name = self.send.room.clone();
                    let ticket = self.client.ask(Question::Lookup { name, fresh: true }).map_err(ended)?;
                    if let Room::Asked(asked, _) = &mut self.room {
                        *asked = ticket;
                    }
                    Ok(())
                }
            },
            Event::AskRefused { ticket, code, .. } if asked == Some(ticket) => Err(self.no_room(code)),
            Event::Done { ticket, outcome, .. } => {
                self.done(ticket, &outcome);
                Ok(())
            }
            Event::Unknown { ticket } if asked == Some(ticket) => {
                // Making a room twice does no harm: it is found.
                self.room = Room::Unasked;
                self.first.take().map_or(Ok(()), |line| self.line(line))
            }
            Event::Unknown { ticket } => {
                self.unknown(ticket);
                Ok(())
            }
            Event::TimedOut { ticket, fate } => {
                // The room alone was asked for: no message was sent.
                let fate = match fate {
                    Fate::Unknown if asked == Some(ticket) => Fate::NoQuorum,
                    fate => fate,
                };
                Err(self.timed_out(fate))
            }
            Event::OpenRefused { code, text } => {
                let hint = match code {
                    Code::NameTaken => " (-u NAME takes another)",
                    _ => "",
                };
                complain(&format!("the name is refused: {}{hint}", render::clean(&text)));
                Err(programs::refusal_code(code))
            }
            Event::NoQuorum => {
                complain("no server that answers has a quorum; waiting for one");
                Ok(())
            }
            Event::Elsewhere { leader } => {
                complain(&programs::elsewhere(&leader));
                Ok(())
            }
            Event::Closed => Err(programs::UNKNOWN),
            _ => Ok(()),
        }
    }

    fn room_is(&mut self, room: RoomId) -> Result<(), u8> {
        self.room = Room::Known(room);
        self.first.take().map_or(Ok(()), |line| self.line(line))
    }

    fn no_room(&mut self, code: Code) -> u8 {
        let line = self.first.take().map_or(1, |line| line.number);
        self.refuse(line, code);
        programs::REFUSED
    }

    /// The next acknowledgement: they come in order, so it is that of the first pending ticket.
    fn done(&mut self, ticket: Ticket, outcome: &Outcome) {
        let Some(line) = self.take(ticket) else { return };
        match outcome {
            Outcome::Posted { room, .. } if matches!(self.room, Room::Known(ours) if ours != *room) => {
                // An idempotency key is the sender's, not the room's: what stands elsewhere isn't posted here, too.
                self.worst = self.worst.max(programs::REFUSED);
                self.say_refused(
                    line,
                    "posted_elsewhere",
                    "this key and line stand in another room; take another --id",
                );
            }
            Outcome::Posted { seq, lamport, .. } if self.send.json => {
                let text = json::sent(line, &self.send.room, *seq, *lamport);
                self.print(&text);
            }
            Outcome::Refused(code) => self.refuse(line, *code),
            _ => {}
        }
        self.report();
    }

    fn unknown(&mut self, ticket: Ticket) {
        let Some(line) = self.take(ticket) else { return };
        self.worst = programs::UNKNOWN;
        let message = "the session has expired, and nobody knows whether this line was posted";
        self.say_refused(line, "unknown", message);
        self.report();
    }

    fn take(&mut self, ticket: Ticket) -> Option<u64> {
        let is = |pending: &Pending| matches!(pending.fortune, Fortune::OnTheWay(other) if other == ticket);
        let at = self.pending.iter().position(is)?;
        self.pending.remove(at).map(|pending| pending.line)
    }

    /// Tells of lines that can't be messages once all before them are told.
    fn report(&mut self) {
        while let Some(&Pending {
            line,
            fortune: Fortune::Refused(code),
        }) = self.pending.front()
        {
            self.pending.pop_front();
            self.refuse(line, code);
        }
    }

    fn refuse(&mut self, line: u64, code: Code) {
        self.worst = self.worst.max(programs::REFUSED);
        self.say_refused(line, code.name(), code.words());
    }

    fn say_refused(&mut self, line: u64, code: &str, message: &str) {
        if self.send.json {
            let text = json::refused(line, &self.send.room, code, message);
            self.print(&text);
        } else {
            complain(&format!("line {line}: {message}"));
        }
    }

    fn timed_out(&self, fate: Fate) -> u8 {
        let (_, why) = self.condition.give_up();
        let lines = lines_waiting(self.waiting());
        match fate {
            Fate::Unreached => complain(&format!("{why}; {lines} not sent")),
            Fate::NoQuorum => complain(&format!("no quorum in time; {lines} not acknowledged")),
            Fate::Unknown => complain(&format!("no acknowledgement in time; {lines} may or may not be posted")),
        }
        programs::fate_code(fate)
    }

    fn interrupted(&self) -> u8 {
        match self.waiting() {
            // As the shell has it for a program that an interrupt ended.
            0 => 130,
            waiting => {
                complain(&format!("interrupted; {} not acknowledged", lines_waiting(waiting)));
                programs::UNKNOWN
            }
        }
    }

    fn waiting(&self) -> usize {
        self.pending.len() + usize::from(self.first.is_some())
    }

    fn print(&mut self, line: &str) {
        let printed = self.out.as_mut().map_or(Ok(()), |out| out.line(line));
        self.printed(printed);
    }

    fn flush(&mut self) {
        let printed = self.out.as_mut().map_or(Ok(()), Out::flush);
        self.printed(printed);
    }

    /// Nobody needs to read what becomes of the lines, but what can't be written, on a full disk, is missing somewhere.
    fn printed(&mut self, printed: Result<(), Stop>) {
        if let Err(stop) = printed {
            self.out = None;
            self.worst = self.worst.max(stop.code());
        }
    }
}

fn lines_waiting(count: usize) -> String {
    match count {
        1 => "1 line".to_string(),
        count => format!("{count} lines"),
    }
}

fn ended(ended: Ended) -> u8 {
    complain(&ended.to_string());
    programs::REFUSED
}

/// The idempotency key of a line: the same key and line number are never posted twice. The zero byte keeps key and number
/// apart.
#[must_use]
pub fn dedup_key(id: &str, line: u64) -> DedupKey {
    let digest = Sha256::new()
        .chain_update(id.as_bytes())
        .chain_update([0])
        .chain_update(line.to_string().as_bytes())
        .finalize();
    let mut key = [0; 16];
    for (byte, from) in key.iter_mut().zip(digest) {
        *byte = from;
    }
    DedupKey(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_one_line_of_one_send() {
        assert_eq!(dedup_key("a", 1), dedup_key("a", 1));
        assert_ne!(dedup_key("a", 1), dedup_key("a", 2));
        assert_ne!(dedup_key("a1", 1), dedup_key("a", 11));
    }
}
