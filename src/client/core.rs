//! The client without its socket: which server it is connected to, its session, its outbox, what it reads and asks. Pure, as
//! the servers' heart is: `step` takes something that happened, `poll` drains what should happen, `deadline` says when it wants
//! to be woken. Mutate, then drain to the end, then mutate.

mod commands;
mod quorum;

use std::collections::VecDeque;

use self::quorum::Hunt;
use super::calls::{Action, Call, Event, Fate, Input, Options, Output, Ticket};
use super::outbox::Outbox;
use super::pulse::{Expect, Pulse, Verdict as Life};
use super::questions::{Answer, Questions};
use super::servers::Servers;
use super::session::Session;
use super::subscription::{Subscriptions, Verdict};
use crate::chat::command::Code;
use crate::limits;
use crate::rng::Rng;
use crate::types::{Lamport, ServerId, Tick};
use crate::wire::client::{MAGIC, Request, Response, VERSIONS};

/// Ids of questions begin above this, so that a refusal that names a command's number isn't taken for an answer.
const IDS_FROM: u64 = 1 << 40;

/// The ticket of what the core does on its own account.
const OWN: Ticket = Ticket(u64::MAX);

/// Where the connection is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Link {
    /// Nowhere; the next attempt begins at once.
    Down,
    /// Nowhere; the next attempt begins then.
    Resting(Tick),
    /// Being made; given up then.
    Connecting(Tick),
    /// Made, and greeted; given up then.
    Greeting(Tick),
    /// Usable.
    Up {
        since: Tick,
        quorum: bool,
        leader: Option<ServerId>,
    },
    /// The client has ended.
    Closed,
}

/// The pace at which commands are repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Repeats {
    /// How many repetitions servers asked for without an acknowledgement in between.
    count: u32,
    /// Until then nothing is sent: a server that can't take commands now isn't flooded with them.
    rest: Option<Tick>,
    /// When everything goes out again if no acknowledgement comes.
    overdue: Option<Tick>,
}

/// The client's state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    agent: String,
    rng: Rng,
    servers: Servers,
    link: Link,
    hunt: Hunt,
    session: Session,
    outbox: Outbox,
    repeats: Repeats,
    subscriptions: Subscriptions,
    questions: Questions,
    pulse: Pulse,
    lamport: Lamport,
    last_id: u64,
    /// The program has asked to end; it ends then at the latest.
    closing: Option<Tick>,
    outputs: VecDeque<Output>,
}

impl Core {
    /// A client that connects at its first [`Core::step`].
    #[must_use]
    pub fn new(options: Options, _now: Tick, seed: u64) -> Core {
        let mut rng = Rng::new(seed);
        let servers = Servers::new(&options.servers, options.in_order, options.only, rng.child());
        Core {
            agent: options.agent,
            rng,
            servers,
            link: Link::Down,
            hunt: Hunt::default(),
            session: Session::new(options.name, options.key, options.secret),
            outbox: Outbox::default(),
            repeats: Repeats::default(),
            subscriptions: Subscriptions::default(),
            questions: Questions::default(),
            pulse: Pulse::default(),
            lamport: Lamport(0),
            last_id: IDS_FROM,
            closing: None,
            outputs: VecDeque::new(),
        }
    }

    /// Whether another action finds room. The program waits if not; what it submits all the same is kept, too.
    #[must_use]
    pub fn room_in_outbox(&self) -> bool {
        self.outbox.has_room()
    }

    /// How many commands are on the way without an outcome.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.outbox.unacknowledged()
    }

    /// The highest Lamport timestamp that was seen.
    #[must_use]
    pub fn lamport(&self) -> Lamport {
        self.lamport
    }

    /// Takes something that happened.
    pub fn step(&mut self, now: Tick, input: Input) {
        if self.link == Link::Closed {
            return;
        }
        match input {
            Input::Connected => self.connected(now),
            Input::ConnectFailed(reason) => self.lost(now, &reason),
            Input::Lost(reason) => self.lost(now, &reason),
            Input::Heard => self.pulse.heard(now),
            Input::Response(response) => self.response(now, response),
            Input::Held(held) => self.pulse.hold(now, held),
            Input::Call(call) => self.call(now, call),
            Input::Timer => {}
        }
        self.timers(now);
        self.advance(now);
    }

    /// What should happen next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timer`] is wanted.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let link = match &self.link {
            Link::Closed => return None,
            Link::Down => None,
            Link::Resting(at) | Link::Connecting(at) | Link::Greeting(at) => Some(*at),
            Link::Up { quorum, .. } => [
                self.pulse.deadline(self.expect()),
                self.questions.deadline(),
                self.subscriptions.deadline(),
                self.hunt.again.filter(|_| self.wants_quorum()),
                self.session.deadline().filter(|_| *quorum),
                self.repeats.rest,
                self.repeats.overdue,
            ]
            .into_iter()
            .flatten()
            .min(),
        };
        [link, self.outbox.deadline(), self.closing].into_iter().flatten().min()
    }

    // --- What comes in ---------------------------------------------------------------------------

    fn call(&mut self, now: Tick, call: Call) {
        self.pulse.asked(now, self.expect());
        match call {
            Call::Open => self.session.want(),
            Call::OpenAs(name) => self.session.want_as(name),
            Call::Submit {
                ticket,
                action,
                deadline,
            } => {
                if self.closing.is_none() {
                    self.session.want();
                    self.outbox.push(ticket, action, deadline);
                }
            }
            Call::Ask { ticket, question } => {
                if !self.questions.add(ticket, question) {
                    let code = Code::Busy;
                    let text = "too many questions without an answer".to_string();
                    self.tell(Event::AskRefused { ticket, code, text });
                }
            }
            Call::Subscribe {
                room,
                from,
                until,
                stale,
            } => {
                if !self.subscriptions.add(now, room, from, until, stale) {
                    let code = Code::TooManyRooms;
                    let text = code.to_string();
                    self.tell(Event::SubscribeRefused { room, code, text });
                }
            }
            Call::Unsubscribe(room) => {
                if self.subscriptions.remove(room) && matches!(self.link, Link::Up { .. }) {
                    self.send(Request::Unsubscribe { room });
                }
            }
            Call::Close => self.close(now),
        }
    }

    fn close(&mut self, now: Tick) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(now.after(limits::CLIENT_CLOSE_TIMEOUT));
        let opened = self.session.id().is_some() || self.session.asked();
        if opened || (self.session.pending() && !self.outbox.is_empty()) {
            self.outbox.push(OWN, Action::Close, None);
        } else {
            self.end();
        }
    }

    fn connected(&mut self, now: Tick) {
        if !matches!(self.link, Link::Connecting(_)) {
            return;
        }
        self.link = Link::Greeting(now.after(limits::CLIENT_HELLO_TIMEOUT));
        self.send(Request::Hello {
            magic: MAGIC,
            versions: VERSIONS,
            agent: self.agent.clone(),
        });
    }

    fn response(&mut self, now: Tick, response: Response) {
        self.pulse.heard(now);
        let expected = match self.link {
            Link::Greeting(_) => matches!(response, Response::Welcome { .. } | Response::Fatal { .. }),
            Link::Up { .. } => !matches!(response, Response::Welcome { .. }),
            _ => false,
        };
        if !expected {
            return;
        }
        match response {
            Response::Welcome {
                cluster,
                server,
                servers,
                leader,
                quorum,
                message_bytes_max,
                ..
            } => {
                self.servers.learn(server, &servers);
                self.tell(Event::Connected {
                    server,
                    address: self.servers.address().to_string(),
                    cluster,
                    servers,
                    leader,
                    quorum,
                    message_bytes_max,
                });
                self.link = Link::Up {
                    since: now,
                    quorum,
                    leader,
                };
                self.pulse = Pulse::new(now);
                self.quorum_is(quorum);
            }
            Response::Quorum { available, leader } => self.quorum_changed(available, leader),
            Response::Opened { session, last, name } => self.opened(now, session, last, name),
            Response::OpenRefused { code, text } => self.open_refused(now, code, text),
            Response::Acks(acks) => self.acks(now, acks),
            Response::Resend { from } => self.resend(now, from),
            Response::Redirect { leader } => self.redirect(now, &leader),
            Response::Item(item) => {
                self.servers.works();
                self.saw(item.lamport);
                let events = self.subscriptions.item(now, item);
                self.tell_all(events);
            }
            Response::Subscribed {
                id,
                room,
                exists,
                fresh,
            } => {
                let last_try = self.hunt_is_over();
                match self.subscriptions.subscribed(now, id, room, exists, fresh, last_try) {
                    Verdict::Tell(events) => self.tell_all(events),
                    Verdict::NotFresh => self.without_quorum(now),
                }
            }
            Response::Gap { room, positions, seqs } => {
                self.servers.works();
                let events = self.subscriptions.gap(now, room, positions, seqs);
                self.tell_all(events);
            }
            Response::End { room } => {
                let events = self.subscriptions.end(room);
                self.tell_all(events);
            }
            Response::Refused { id, code, text } if id <= IDS_FROM => self.refused(now, code, &text),
            Response::Refused { id, code, text } => {
                if let Some(events) = self.subscriptions.refused(now, id, code, &text) {
                    self.tell_all(events);
                } else {
                    self.answered(now, Response::Refused { id, code, text });
                }
            }
            Response::Fatal { text } => {
                self.outputs.push_back(Output::Disconnect);
                self.lost(now, &text);
            }
            answer @ (Response::Room { .. }
            | Response::Rooms { .. }
            | Response::Who { .. }
            | Response::Status { .. }
            | Response::Pong { .. }) => self.answered(now, answer),
            // Nobody asks it here.
            Response::Usage { .. } => {}
        }
    }

    fn answered(&mut self, now: Tick, response: Response) {
        let last_try = self.hunt_is_over();
        match self.questions.answered(now, response, last_try) {
            Answer::Tell(event) => {
                self.servers.works();
                if matches!(event, Event::Room { fresh: true, .. }) {
                    self.hunt.inferred = false;
                }
                self.tell(event);
            }
            Answer::Nothing => {}
            Answer::NotFresh => self.without_quorum(now),
        }
    }

    // --- The connection --------------------------------------------------------------------------

    /// Gives up the connection for another one.
    fn leave(&mut self, now: Tick) {
        self.outputs.push_back(Output::Disconnect);
        self.down(now);
    }

    fn lost(&mut self, now: Tick, reason: &str) {
        let address = self.servers.address().to_string();
        let reason = reason.to_string();
        match self.link {
            Link::Connecting(_) | Link::Greeting(_) => {
                // While it looks for a quorum, a server that can't be reached is one that was tried.
                if self.hunt.tried > 0 {
                    self.hunt.tried += 1;
                }
                self.tell(Event::Unreachable { address, reason });
            }
            Link::Up { since, .. } => {
                if now.since(since) >= limits::CLIENT_BACKOFF_MAX {
                    self.servers.works();
                }
                self.tell(Event::Disconnected { address, reason });
            }
            Link::Down | Link::Resting(_) | Link::Closed => return,
        }
        self.down(now);
    }

    fn down(&mut self, now: Tick) {
        self.hunt.again = None;
        self.session.rewind();
        self.outbox.rewind();
        self.repeats = Repeats::default();
        self.subscriptions.rewind();
        self.questions.rewind();
        self.link = match self.servers.rest() {
            Some(rest) => Link::Resting(now.after(rest)),
            None => Link::Down,
        };
    }

    fn end(&mut self) {
        if !matches!(self.link, Link::Down | Link::Resting(_)) {
            self.outputs.push_back(Output::Disconnect);
        }
        self.link = Link::Closed;
        self.tell(Event::Closed);
    }

    fn expect(&self) -> Expect {
        let answers = self.outbox.unacknowledged() > 0
            || self.session.asked()
            || !self.questions.is_empty()
            || self.subscriptions.await_answer();
        if answers && self.outbox.sent_bytes() > limits::CLIENT_LARGE_BYTES {
            Expect::LargeAnswer
        } else if answers {
            Expect::Answer
        } else if self.subscriptions.is_empty() && !self.wants_quorum() {
            Expect::Nothing
        } else {
            // Also who only waits for a quorum: a server without power doesn't say that it is gone.
            Expect::News
        }
    }

    // --- Time, and what can be done now ----------------------------------------------------------

    fn timers(&mut self, now: Tick) {
        if self.link == Link::Closed {
            return;
        }
        if self.closing.is_some_and(|at| at <= now) {
            self.end();
            return;
        }
        let unsent = match self.link {
            Link::Up { .. } => Fate::NoQuorum,
            _ => Fate::Unreached,
        };
        for (ticket, fate) in self.outbox.expired(now, unsent) {
            self.tell(Event::TimedOut { ticket, fate });
        }
        match self.link {
            Link::Resting(at) if at <= now => self.link = Link::Down,
            Link::Connecting(at) if at <= now => {
                self.outputs.push_back(Output::Disconnect);
                self.lost(now, "no connection in time");
            }
            Link::Greeting(at) if at <= now => {
                self.outputs.push_back(Output::Disconnect);
                self.lost(now, "no answer to the hello");
            }
            Link::Up { .. } => match self.pulse.check(now, self.expect()) {
                Life::Well => {}
                Life::Ping => {
                    let id = self.id();
                    self.send(Request::Ping { id });
                }
                Life::Dead => {
                    self.outputs.push_back(Output::Disconnect);
                    self.lost(now, "the server doesn't answer");
                }
            },
            _ => {}
        }
        if self.repeats.rest.is_some_and(|at| at <= now) {
            self.repeats.rest = None;
        }
        if self.repeats.overdue.is_some_and(|at| at <= now) {
            self.outbox.rewind();
            self.repeats.overdue = self.overdue(now);
        }
    }

    /// Does whatever can be done now.
    fn advance(&mut self, now: Tick) {
        self.hunt(now);
        if self.link == Link::Down {
            if let Some(address) = self.servers.choose().map(str::to_string) {
                self.link = Link::Connecting(now.after(limits::CLIENT_CONNECT_TIMEOUT));
                self.outputs.push_back(Output::Connect { address });
            } else {
                self.link = Link::Resting(now.after(limits::CLIENT_BACKOFF_MAX));
            }
        }
        let Link::Up { quorum, .. } = self.link else {
            return;
        };
        loop {
            let id = self.last_id + 1;
            let subscribe = |core: &mut Core| core.subscriptions.ask(now, id, quorum);
            let Some(request) = self.questions.ask(now, id, quorum).or_else(|| subscribe(self)) else {
                break;
            };
            self.last_id = id;
            self.send(request);
        }
        // A server without a quorum gets no new commands: what was never sent has a known outcome.
        if !quorum {
            return;
        }
        if let Some(request) = self.session.ask(now, self.lamport) {
            self.send(request);
        }
        if self.repeats.rest.is_some() {
            return;
        }
        let Some(session) = self.session.attached() else {
            return;
        };
        while let Some(command) = self.outbox.next(session, self.session.name(), self.lamport) {
            self.send(Request::Command(command));
        }
        if self.repeats.overdue.is_none() {
            self.repeats.overdue = self.overdue(now);
        }
    }

    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn saw(&mut self, lamport: Lamport) {
        self.lamport = self.lamport.max(lamport);
    }

    fn send(&mut self, request: Request) {
        self.outputs.push_back(Output::Send(request));
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn tell_all(&mut self, events: Vec<Event>) {
        self.outputs.extend(events.into_iter().map(Output::Event));
    }
}

#[cfg(test)]
mod tests;
