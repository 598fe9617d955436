//! The core over a real socket: one thread with a poll of its own, and bounded channels to and from the program.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use mio::{Events, Poll, Token, Waker};

use super::calls::{Action, Call, Event, Input, Options, Output, Question, Ticket};
use super::core::Core;
use super::socket::{Happened, Socket};
use crate::limits;
use crate::types::{RoomId, Tick};
use crate::wire::client::{From, Until};

const WAKE: Token = Token(0);
/// The connection's token in the poll.
pub(super) const CONNECTION: Token = Token(1);
/// How long the thread waits at a stretch for a program that takes no events.
const EVENTS_WAIT: Duration = Duration::from_millis(100);

/// A client of the cluster: what a program holds of it. Dropping it ends the connection without closing the session.
pub struct Client {
    actions: Sender<Call>,
    calls: Sender<Call>,
    waker: Arc<Waker>,
    start: Instant,
    last_ticket: AtomicU64,
}

/// The client's thread has ended; nothing can be asked of it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection's thread has ended")
    }
}

impl std::error::Error for Ended {}

impl Client {
    /// Begins to connect. The program reads the events; while it doesn't, the connection isn't read either.
    ///
    /// # Errors
    /// What the system says when it has no descriptor or thread left.
    pub fn start(options: Options) -> io::Result<(Client, Receiver<Event>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (actions, actions_in) = bounded(limits::CLIENT_CALLS_MAX);
        let (calls, calls_in) = bounded(limits::CLIENT_CALLS_MAX);
        let (events, events_in) = bounded(limits::CLIENT_EVENTS_MAX);
        let start = Instant::now();
        let seed = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        let thread = Thread {
            core: Core::new(options, Tick(0), seed),
            socket: Socket::new(Arc::clone(&waker)),
            poll,
            start,
            actions: actions_in,
            calls: calls_in,
            events,
            pending: VecDeque::new(),
            held: false,
        };
        std::thread::Builder::new()
            .name("syncnet-client".to_string())
            .spawn(move || thread.run())?;
        let client = Client {
            actions,
            calls,
            waker,
            start,
            last_ticket: AtomicU64::new(0),
        };
        Ok((client, events_in))
    }

    /// Puts a command into the outbox and waits while it is full: only for programs that have few unacknowledged.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn submit(&self, action: Action, deadline: Option<Instant>) -> Result<Ticket, Ended> {
        let (ticket, call) = self.submission(action, deadline);
        self.actions.send(call).map_err(|_| Ended)?;
        self.wake();
        Ok(ticket)
    }

    /// Puts a command into the outbox; `None` if it is full.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn try_submit(&self, action: Action, deadline: Option<Instant>) -> Result<Option<Ticket>, Ended> {
        let (ticket, call) = self.submission(action, deadline);
        Ok(self.try_call(call)?.then_some(ticket))
    }

    /// Makes a call with a ticket of the caller's own; tickets of [`Client::submit`] and [`Client::ask`] must not be mixed with
    /// these. False if it is an action and the outbox is full.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn try_call(&self, call: Call) -> Result<bool, Ended> {
        if !matches!(call, Call::Submit { .. }) {
            return self.call(call).map(|()| true);
        }
        match self.actions.try_send(call) {
            Ok(()) => {
                self.wake();
                Ok(true)
            }
            Err(TrySendError::Full(_)) => Ok(false),
            Err(TrySendError::Disconnected(_)) => Err(Ended),
        }
    }

    /// Whether the outbox takes another command now.
    #[must_use]
    pub fn room_in_outbox(&self) -> bool {
        !self.actions.is_full()
    }

    /// Asks something.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn ask(&self, question: Question) -> Result<Ticket, Ended> {
        let ticket = self.ticket();
        self.call(Call::Ask { ticket, question })?;
        Ok(ticket)
    }

    /// Opens the session now.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn open(&self) -> Result<(), Ended> {
        self.call(Call::Open)
    }

    /// Opens the session under another name than the one that was refused.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn open_as(&self, name: String) -> Result<(), Ended> {
        self.call(Call::OpenAs(name))
    }

    /// Reads a room.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn subscribe(&self, room: RoomId, from: From, until: Until, stale: bool) -> Result<(), Ended> {
        self.call(Call::Subscribe {
            room,
            from,
            until,
            stale,
        })
    }

    /// Reads it no more.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn unsubscribe(&self, room: RoomId) -> Result<(), Ended> {
        self.call(Call::Unsubscribe(room))
    }

    /// Ends the session and the connection; [`Event::Closed`] is the last event.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn close(&self) -> Result<(), Ended> {
        self.call(Call::Close)
    }

    /// Ends the session as [`Client::close`] does and reads the events until it has ended, in bounded time.
    pub fn close_and_wait(&self, events: &Receiver<Event>) {
        let grace = Duration::from_micros(limits::CLIENT_CLOSE_TIMEOUT.0) + EVENTS_WAIT;
        let until = Instant::now() + grace;
        if self.close().is_err() {
            return;
        }
        while let Ok(event) = events.recv_deadline(until) {
            if event == Event::Closed {
                return;
            }
        }
    }

    fn submission(&self, action: Action, deadline: Option<Instant>) -> (Ticket, Call) {
        let ticket = self.ticket();
        let deadline = deadline.map(|at| tick(self.start, at));
        let call = Call::Submit {
            ticket,
            action,
            deadline,
        };
        (ticket, call)
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.last_ticket.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn call(&self, call: Call) -> Result<(), Ended> {
        self.calls.send(call).map_err(|_| Ended)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // It fails only when the poll is gone, and then so is the thread that would have read the call.
        let _ = self.waker.wake();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The thread sees that the channels are closed only when it looks.
        let (closed, _) = bounded(0);
        self.actions = closed.clone();
        self.calls = closed;
        self.wake();
    }
}

fn tick(start: Instant, at: Instant) -> Tick {
    let micros = at.saturating_duration_since(start).as_micros();
    Tick(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// What the client's thread owns.
struct Thread {
    core: Core,
    socket: Socket,
    poll: Poll,
    start: Instant,
    actions: Receiver<Call>,
    calls: Receiver<Call>,
    events: Sender<Event>,
    /// Events for which the channel had no room.
    pending: VecDeque<Event>,
    held: bool,
}

impl Thread {
    fn run(mut self) {
        let mut ready = Events::with_capacity(16);
        self.step(Input::Timer);
        loop {
            if self.wait(&mut ready).is_err() {
                return;
            }
            // What has come in is read before the clock is asked who is late: this process may have slept itself.
            let writable = ready
                .iter()
                .any(|event| event.token() == CONNECTION && event.is_writable());
            let readable = ready
                .iter()
                .any(|event| event.token() == CONNECTION && (event.is_readable() || event.is_read_closed()));
            self.socket.mark(readable, writable);
            self.connection();
            if self.take_calls().is_err() {
                return;
            }
            if self.core.deadline().is_some_and(|deadline| deadline <= self.now()) {
                self.step(Input::Timer);
            }
            if let Some(happened) = self.socket.flush() {
                self.happened(happened);
            }
            if self.deliver().is_err() {
                return;
            }
        }
    }

    fn now(&self) -> Tick {
        tick(self.start, Instant::now())
    }

    fn wait(&mut self, ready: &mut Events) -> io::Result<()> {
        let timeout = if self.socket.unread() {
            Some(Duration::ZERO)
        } else {
            // Rounded up, or the last fraction of a millisecond would be spent in empty turns.
            let until = self.core.deadline().map(|deadline| deadline.since(self.now()));
            until.map(|span| Duration::from_millis(span.0.div_ceil(1000)))
        };
        match self.poll.poll(ready, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn connection(&mut self) {
        if let Some(happened) = self.socket.progress(self.poll.registry()) {
            self.happened(happened);
        }
        if self.held {
            return;
        }
        let mut came = self.socket.fill();
        loop {
            match self.socket.response() {
                Ok(Some(response)) => {
                    came = false;
                    self.step(Input::Response(response));
                }
                Ok(None) => break,
                Err(reason) => {
                    self.socket.close();
                    self.step(Input::Lost(reason));
                    break;
                }
            }
        }
        if came {
            // What is large may take a slow line longer than a server may be silent.
            self.step(Input::Heard);
        }
    }

    fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Connected => self.step(Input::Connected),
            Happened::Failed(reason) => self.step(Input::ConnectFailed(reason)),
            Happened::Lost(reason) => self.step(Input::Lost(reason)),
        }
    }

    fn take_calls(&mut self) -> Result<(), Ended> {
        loop {
            match self.calls.try_recv() {
                Ok(call) => self.step(Input::Call(call)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Ended),
            }
        }
        while self.core.room_in_outbox() {
            match self.actions.try_recv() {
                Ok(call) => self.step(Input::Call(call)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Ended),
            }
        }
        Ok(())
    }

    /// One step, and everything that follows from it.
    fn step(&mut self, input: Input) {
        let now = self.now();
        self.core.step(now, input);
        while let Some(output) = self.core.poll() {
            match output {
                Output::Connect { address } => {
                    if let Err(reason) = self.socket.connect(self.poll.registry(), &address) {
                        self.core.step(now, Input::ConnectFailed(reason));
                    }
                }
                Output::Send(request) => self.socket.send(&request),
                Output::Disconnect => {
                    // What was said last, such as the end of the session, should still go out.
                    let _ = self.socket.flush();
                    self.socket.close();
                }
                Output::Event(event) => self.pending.push_back(event),
            }
        }
    }

    /// Hands the events to the program. One that takes none is waited for, and meanwhile the connection isn't read.
    fn deliver(&mut self) -> Result<(), Ended> {
        while let Some(event) = self.pending.pop_front() {
            let last = event == Event::Closed;
            match self.events.try_send(event) {
                Ok(()) if last => return Err(Ended),
                Ok(()) => {}
                Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(event)) => {
                    self.hold(true);
                    match self.events.send_timeout(event, EVENTS_WAIT) {
                        Ok(()) | Err(SendTimeoutError::Disconnected(_)) => {}
                        Err(SendTimeoutError::Timeout(event)) => {
                            self.pending.push_front(event);
                            // Calls and timers get their turn, too.
                            self.wake_soon();
                            return Ok(());
                        }
                    }
                }
            }
        }
        self.hold(false);
        Ok(())
    }

    fn hold(&mut self, held: bool) {
        if self.held != held {
            self.held = held;
            self.step(Input::Held(held));
            if !held {
                self.wake_soon();
            }
        }
    }

    fn wake_soon(&self) {
        self.socket.wake();
    }
}
