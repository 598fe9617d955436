//! The turn. The order within it is part of the promises: what says that others live is read before anybody is suspected, servers
//! come before clients, and everything that the node wants done is gathered before anything is sent.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crossbeam_channel::Receiver;
use mio::{Events, Poll, Token};

use super::clients::Clients;
use super::clock::Clock;
use super::complaints::Complaints;
use super::datagrams::{Datagrams, Heard};
use super::disk::{LogWorkers, Told};
use super::listener::{Accepted, Listener};
use super::logging::Logging;
use super::peers::Peers;
use super::resolve::Found;
use super::signals::{Signals, Wish};
use super::timers::Timers;
use super::turns::Turns;
use super::{Alarm, Context, Door, Failure, Ids};
use crate::limits;
use crate::log::directory::DataDir;
use crate::machine;
use crate::node::{Effect, Input, Node};
use crate::types::{ConnId, Level, Now, ServerId, Tick, Usage};
use crate::wire::client::Response;

/// Under these the fixed sources are told of; connections come after them.
pub const CLIENT_DOOR: Token = Token(0);
/// The listener for servers.
pub const PEER_DOOR: Token = Token(1);
/// The heartbeat socket.
pub const DATAGRAMS: Token = Token(2);
/// The waker of the worker threads.
pub const WAKER: Token = Token(3);
/// Signals.
pub const SIGNALS: Token = Token(4);
/// The last fixed one.
pub const LAST: Token = Token(15);

/// Bytes read at once.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Rounds of draining in one turn: sending may make the node want more (a question to the reader, a client that is gone), and
/// what is left after so many rounds goes to the next turn, which doesn't wait then.
const SETTLE_ROUNDS: usize = 4;
/// How long the worker threads may take to end.
const WORKERS_END: Duration = Duration::from_millis(700);

/// How far an orderly stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Serving.
    Running,
    /// The node hands over.
    HandingOver,
    /// The node is done; what it said last is being written and sent.
    Flushing,
    /// The time for that is up.
    Over,
}

/// How a server came to its end in good order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// As somebody asked.
    Stopped,
    /// Its data directory is to be set aside, for this reason, and the server to begin anew.
    Renounced(String),
}

/// A server that runs.
pub struct Server {
    pub(super) poll: Poll,
    pub(super) clock: Clock,
    pub(super) now: Now,
    pub(super) timers: Timers<Alarm>,
    pub(super) ids: Ids,
    pub(super) node: Node,
    pub(super) disk: LogWorkers,
    pub(super) client_door: Option<Listener>,
    pub(super) peer_door: Listener,
    pub(super) clients: Clients,
    pub(super) peers: Peers,
    pub(super) datagrams: Datagrams,
    pub(super) signals: Signals,
    pub(super) logging: Logging,
    pub(super) found: Option<Receiver<Found>>,
    pub(super) ports: Vec<(ServerId, u16, u16)>,
    /// Locked as long as the server runs.
    pub(super) _data: DataDir,
    pub(super) scratch: Vec<u8>,
    turns: Turns,
    stage: Stage,
    complaints: Complaints,
    /// Why this directory's word doesn't count any more.
    renounced: Option<String>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("now", &self.now)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// What [`Server`] is put together from; made by [`start`](super::start).
pub(super) struct Parts {
    pub(super) poll: Poll,
    pub(super) clock: Clock,
    pub(super) node: Node,
    pub(super) disk: LogWorkers,
    pub(super) client_door: Listener,
    pub(super) peer_door: Listener,
    pub(super) clients: Clients,
    pub(super) peers: Peers,
    pub(super) datagrams: Datagrams,
    pub(super) signals: Signals,
    pub(super) logging: Logging,
    pub(super) found: Option<Receiver<Found>>,
    pub(super) ports: Vec<(ServerId, u16, u16)>,
    pub(super) data: DataDir,
}

/// What a turn's helpers share, borrowed apart from the rest of the server: a method would borrow all of it.
macro_rules! context {
    ($server:ident) => {
        context!($server, $server.node.sender())
    };
    ($server:ident, $sender:expr) => {
        &mut Context {
            now: $server.now,
            sender: $sender,
            timers: &mut $server.timers,
            registry: $server.poll.registry(),
            ids: &mut $server.ids,
        }
    };
}

impl Server {
    pub(super) fn new(parts: Parts) -> Server {
        Server {
            now: parts.clock.now(),
            poll: parts.poll,
            clock: parts.clock,
            timers: Timers::default(),
            ids: Ids::after(LAST.0 as u64),
            node: parts.node,
            disk: parts.disk,
            client_door: Some(parts.client_door),
            peer_door: parts.peer_door,
            clients: parts.clients,
            peers: parts.peers,
            datagrams: parts.datagrams,
            signals: parts.signals,
            logging: parts.logging,
            found: parts.found,
            ports: parts.ports,
            _data: parts.data,
            scratch: vec![0; SCRATCH_BYTES],
            turns: Turns::new(),
            stage: Stage::Running,
            complaints: Complaints::default(),
            renounced: None,
        }
    }

    /// Runs until somebody asks it to stop, or it can't go on.
    ///
    /// # Errors
    /// Why it can't go on. The process must end then, without another attempt to write anything.
    pub fn run(mut self) -> Result<Ending, Failure> {
        let mut events = Events::with_capacity(limits::EVENTS_PER_TURN);
        self.peers.dial_all(context!(self));
        self.settle()?;
        while self.turn(&mut events)? {}
        let failed = self.disk.stop(WORKERS_END);
        match (failed, self.renounced) {
            (Some(what), _) => Err(Failure::of_disk(what)),
            (None, Some(why)) => Ok(Ending::Renounced(why)),
            (None, None) => Ok(Ending::Stopped),
        }
    }

    /// One turn; false when it was the last.
    fn turn(&mut self, events: &mut Events) -> Result<bool, Failure> {
        let wake = self.wake_at();
        self.wait(events, wake)?;
        let more = self.take_signals();
        self.take_answers()?;
        self.hear();
        if self.is_late(wake) {
            self.catch_up(events)?;
        }
        while let Some(alarm) = self.timers.due(self.now.tick) {
            self.alarm(alarm);
        }
        if self.node.deadline().is_some_and(|deadline| deadline <= self.now.tick) {
            self.node.step(self.now, Input::Timer);
        }
        self.accept();
        if !self.disk.is_behind() {
            let sender = self.node.sender();
            self.clients
                .read(&mut self.node, &mut self.scratch, context!(self, sender));
        }
        self.settle()?;
        Ok(more && self.renounced.is_none() && !self.is_done())
    }

    /// When the next turn must begin at the latest.
    fn wake_at(&self) -> Option<Tick> {
        [self.timers.next(), self.node.deadline()].into_iter().flatten().min()
    }

    fn is_busy(&self) -> bool {
        let door = |door: &Listener| door.ready && !door.resting;
        self.peers.is_busy()
            || self.clients.has_unsent()
            || (self.clients.has_unread() && !self.disk.is_behind())
            || self.datagrams.ready
            || door(&self.peer_door)
            || self.client_door.as_ref().is_some_and(door)
    }

    /// Waits until something is ready or `wake` has come, and notes what is ready. The system rounds the time-out up, so that
    /// what was waited for is due when the wait is over.
    fn wait(&mut self, events: &mut Events, wake: Option<Tick>) -> Result<(), Failure> {
        let now = self.clock.now().tick;
        self.turns.note(self.now.tick, now);
        let timeout = if self.is_busy() {
            Some(Duration::ZERO)
        } else {
            wake.map(|wake| Duration::from_micros(wake.since(now).0))
        };
        self.look(events, timeout)
    }

    fn look(&mut self, events: &mut Events, timeout: Option<Duration>) -> Result<(), Failure> {
        match self.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Failed(format!("the system can't wait for sockets: {error}"))),
        }
        self.now = self.clock.now();
        for event in events.iter() {
            match event.token() {
                CLIENT_DOOR => {
                    if let Some(door) = &mut self.client_door {
                        door.ready = true;
                    }
                }
                PEER_DOOR => self.peer_door.ready = true,
                DATAGRAMS => self.datagrams.ready = true,
                SIGNALS => self.signals.set_ready(),
                // Answers are looked for in every turn.
                WAKER => {}
                Token(id) => {
                    let id = ConnId(id as u64);
                    // An error or the other side's end is found by reading.
                    let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                    let writable = event.is_writable() || event.is_error();
                    if !self.clients.ready(id, readable, writable) {
                        self.peers.ready(id, readable, writable);
                    }
                }
            }
        }
        Ok(())
    }

    /// A turn that begins long after it should have was held up: by a long turn before, or because the process was stopped.
    fn is_late(&self, wake: Option<Tick>) -> bool {
        wake.is_some_and(|wake| self.now.tick.since(wake) > limits::LATE_WAKE)
    }

    /// What was said while this process was held up is read before anybody is believed dead.
    fn catch_up(&mut self, events: &mut Events) -> Result<(), Failure> {
        for _ in 0..limits::CATCH_UP_ROUNDS {
            self.look(events, Some(Duration::ZERO))?;
            self.take_answers()?;
            if events.is_empty() && !self.peers.is_busy() && !self.datagrams.ready {
                return Ok(());
            }
            self.hear();
        }
        Ok(())
    }

    /// Reads what other servers have sent.
    fn hear(&mut self) {
        for heard in self.datagrams.read(&self.node.sender(), self.now.tick) {
            let server = match heard {
                Heard::Datagram(server, directory, datagram) => {
                    self.node.step(self.now, Input::Datagram(server, directory, datagram));
                    server
                }
                Heard::Unknown(server) => server,
            };
            self.peers.seen(server, context!(self));
        }
        self.peers.read(&mut self.scratch, context!(self));
        self.tell_peers_news();
    }

    fn tell_peers_news(&mut self) -> bool {
        let mut news = false;
        while let Some(input) = self.peers.take_input() {
            news = true;
            if let Input::LinkUp {
                server,
                directory,
                boot,
            } = input
            {
                self.datagrams.introduce(server, directory, boot);
            }
            self.node.step(self.now, input);
        }
        news
    }

    fn take_answers(&mut self) -> Result<(), Failure> {
        while let Some(answer) = self.disk.answer() {
            match answer {
                Told::Persisted(id) => self.node.step(self.now, Input::Persisted(id)),
                Told::Read(answer) => self.node.step(self.now, Input::Read(answer)),
                Told::Kept(kept) => self.node.step(self.now, Input::Kept(kept)),
                // Nothing that was said since the last success may be believed; the next start reads the disk anew.
                Told::Failed { what } => return Err(Failure::of_disk(what)),
            }
        }
        while let Some((server, addresses)) = self.found.as_ref().and_then(|found| found.try_recv().ok()) {
            self.located(server, &addresses);
        }
        Ok(())
    }

    fn located(&mut self, server: ServerId, addresses: &[std::net::SocketAddr]) {
        let Some(&(_, peer_port, heartbeat_port)) = self.ports.iter().find(|(id, ..)| *id == server) else {
            return;
        };
        let with = |port| {
            addresses
                .iter()
                .map(move |address| std::net::SocketAddr::new(address.ip(), port))
        };
        if let Some(address) = with(heartbeat_port).next() {
            log::info!("the host of {server} is {}", address.ip());
            self.datagrams.locate(server, address);
        }
        self.peers.locate(server, with(peer_port).collect());
        self.peers.dial(server, context!(self));
    }

    fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Hello(id) => self.clients.hello_timeout(id, context!(self)),
            Alarm::Linger(id) => {
                let sender = self.node.sender();
                self.clients.gone(id, &mut self.node, context!(self, sender));
            }
            Alarm::Shake(id) => self.peers.shake_timeout(id, context!(self)),
            Alarm::Silence(id) => self.peers.check_silence(id, context!(self)),
            Alarm::Dial(server) => self.peers.dial(server, context!(self)),
            Alarm::Accept(Door::Peer) => self.peer_door.resting = false,
            Alarm::Accept(Door::Client) => {
                if let Some(door) = &mut self.client_door {
                    door.resting = false;
                }
            }
            Alarm::Stop => {
                log::warn!("the stop took too long; ending with work undone");
                self.stage = Stage::Over;
            }
        }
    }

    fn accept(&mut self) {
        for (door, budget) in [
            (Door::Peer, limits::PEER_ACCEPTS_PER_TURN),
            (Door::Client, limits::ACCEPTS_PER_TURN),
        ] {
            for _ in 0..budget {
                let listener = match door {
                    Door::Peer => Some(&mut self.peer_door),
                    Door::Client => self.client_door.as_mut(),
                };
                let Some(listener) = listener.filter(|listener| listener.ready && !listener.resting) else {
                    break;
                };
                match listener.accept() {
                    Accepted::None => break,
                    Accepted::One(stream, address) => match door {
                        Door::Peer => self.peers.accept(stream, address, context!(self)),
                        Door::Client => self.clients.accept(stream, address, context!(self)),
                    },
                    Accepted::Exhausted(error) => {
                        listener.resting = true;
                        self.complaints.warn(
                            self.now.tick,
                            &format!("no connection can be accepted for now: {error}"),
                        );
                        self.timers
                            .set(Alarm::Accept(door), self.now.tick.after(limits::ACCEPT_REST));
                    }
                }
            }
        }
    }

    /// Drains the node and sends, until neither has anything left to do.
    fn settle(&mut self) -> Result<(), Failure> {
        for _ in 0..SETTLE_ROUNDS {
            let mut quiet = true;
            while let Some(effect) = self.node.poll() {
                quiet = false;
                self.carry_out(effect)?;
            }
            self.disk.push();
            self.peers.flush(context!(self));
            let sender = self.node.sender();
            self.clients.flush(&mut self.node, context!(self, sender));
            quiet &= !self.tell_peers_news();
            if quiet {
                break;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Failure> {
        match effect {
            Effect::Append(append) => self.disk.append(append),
            Effect::Index(items) => self.disk.index(items),
            Effect::Read(request) => self.disk.read(request),
            Effect::Peer(server, message) => self.peers.send(server, &message, context!(self)),
            Effect::Datagram(datagram) => self.datagrams.send(datagram, self.node.sender(), self.now.tick),
            Effect::Reply(conn, response) => self.clients.reply(conn, &response),
            Effect::Usage(conn, id) => {
                let (turn_most_us, turn_longest_us) = self.turns.lengths();
                let usage = Usage {
                    turn_most_us,
                    turn_longest_us,
                    ..machine::usage()
                };
                self.clients.reply(conn, &Response::Usage { id, usage });
            }
            Effect::Deliver(conn) => self.clients.deliver(conn),
            Effect::Close(conn) => self.clients.closing(conn, context!(self)),
            Effect::Event(event) => {
                let level = match event.level {
                    Level::Error => log::Level::Error,
                    Level::Warn => log::Level::Warn,
                    Level::Info => log::Level::Info,
                    Level::Debug => log::Level::Debug,
                };
                log::log!(level, "{}", event.text);
            }
            Effect::Stopped => {
                log::debug!("nothing is left to hand over");
                self.stage = Stage::Flushing;
            }
            Effect::Seed(rooms) => self.disk.seed(rooms),
            Effect::Trim(index) => self.disk.trim(index),
            Effect::Keep(job) => self.disk.keep(job),
            Effect::Renounce(why) => {
                log::error!("{why}");
                self.renounced.get_or_insert(why);
            }
            Effect::Misconfigured(text) => return Err(Failure::Misconfigured(text)),
        }
        Ok(())
    }

    /// What somebody at the machine asks for. False: the end at once.
    fn take_signals(&mut self) -> bool {
        for wish in self.signals.take() {
            match (wish, self.stage) {
                (Wish::Reopen, _) => {
                    self.logging.reopen();
                    log::info!("the log file was opened anew");
                }
                (Wish::Stop, Stage::Running) => self.stop(),
                (Wish::Stop, _) => {
                    log::warn!("asked to stop a second time: ending at once");
                    return false;
                }
            }
        }
        true
    }

    /// Begins an orderly stop: no new clients, then the node hands over, then what was said is written and sent.
    fn stop(&mut self) {
        log::info!("stopping");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        // A closed door sends clients to the other servers at once.
        self.client_door = None;
        self.stage = Stage::HandingOver;
        self.timers.set(Alarm::Stop, self.now.tick.after(limits::STOP_TIMEOUT));
        self.node.step(self.now, Input::Stop);
    }

    /// Whether a stop has come to its end: all that anybody was told or waits for is written and sent, or its time is up.
    fn is_done(&self) -> bool {
        match self.stage {
            Stage::Running | Stage::HandingOver => false,
            Stage::Flushing => self.clients.is_flushed() && self.peers.is_flushed() && self.disk.is_durable(),
            Stage::Over => true,
        }
    }

    /// Where clients are served: for tests that had the system pick the ports.
    ///
    /// # Errors
    /// What the system says.
    pub fn client_address(&self) -> io::Result<std::net::SocketAddr> {
        self.client_door
            .as_ref()
            .map_or_else(|| Err(ErrorKind::NotConnected.into()), Listener::address)
    }
}
