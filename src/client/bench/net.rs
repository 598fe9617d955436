//! Many connections to servers on one thread: a poll loop that spends less on a message than a server does. All connections
//! share one large buffer for reading, since frames mostly come whole; only what is cut off at its end is kept for each. A
//! connection is written to once a turn.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream as Blocking, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::{Trouble, seconds};
use crate::client::programs;
use crate::limits;
use crate::types::Span;
use crate::wire::client::{Request, Response, decode_response, encode_request};
use crate::wire::frame::{Split, split};

/// Bytes read at once; the longest frame fits many times.
const BUFFER_BYTES: usize = 2 * 1024 * 1024;
/// Events taken from one poll.
const EVENTS: usize = 4096;
/// The token of the timer; connections have their numbers.
const TIMER: Token = Token(usize::MAX);
/// How long a turn waits at most, so that Ctrl-C and deadlines are seen.
const TURN: Duration = Duration::from_millis(50);
/// How many connections wait for an answer at once while they are set up.
const WAVE: usize = 256;
/// How long such an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a benchmark does with what servers say, and what it wants to send.
pub trait Load {
    /// The body of a frame has come on that connection, at that time in nanoseconds.
    ///
    /// # Errors
    /// If it isn't what it should be; the run ends.
    fn hear(&mut self, link: usize, body: &[u8], now: u64) -> Result<(), Trouble>;

    /// Everything that the connection had in this turn was heard. What is added to `out` is sent now.
    fn fill(&mut self, _link: usize, _now: u64, _out: &mut Vec<u8>) {}
}

/// A connection.
struct Link {
    stream: TcpStream,
    /// The beginning of a frame whose end hasn't come.
    rest: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    writable: bool,
    /// On the list of those that are read in the next turn.
    listed: bool,
}

/// All connections.
pub struct Net {
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    buffer: Vec<u8>,
    ready: Vec<usize>,
    timer: OwnedFd,
    armed: Option<u64>,
    start: Instant,
    interrupts: Receiver<()>,
    interrupted: bool,
}

impl Net {
    /// None yet. Ctrl-C ends the run early.
    ///
    /// # Errors
    /// What the system has no more of.
    pub fn start() -> Result<Net, Trouble> {
        programs::interrupts().and_then(Net::new).map_err(Trouble::failed)
    }

    /// What comes over `interrupts` ends the run early.
    fn new(interrupts: Receiver<()>) -> io::Result<Net> {
        let poll = Poll::new()?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Net {
            poll,
            events: Events::with_capacity(EVENTS),
            links: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            ready: Vec::new(),
            timer,
            armed: None,
            start: Instant::now(),
            interrupts,
            interrupted: false,
        })
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether somebody has pressed Ctrl-C.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Nanoseconds at the end of a span that begins now.
    #[must_use]
    pub fn end_of(&self, span: Span) -> u64 {
        self.now()
            .saturating_add(u64::try_from(seconds(span).as_nanos()).unwrap_or(u64::MAX / 2))
    }

    /// Connects to a server. The number of the connection.
    ///
    /// # Errors
    /// If it can't be reached.
    pub fn connect(&mut self, address: &str) -> Result<usize, Trouble> {
        let timeout = Duration::from_micros(limits::CLIENT_CONNECT_TIMEOUT.0);
        let mut last = io::Error::from(ErrorKind::NotFound);
        let addresses = address
            .to_socket_addrs()
            .map_err(|error| Trouble::unreached(address, &error))?;
        for socket in addresses {
            // A burst of connections may have to wait until the server has accepted those before.
            match Blocking::connect_timeout(&socket, timeout.saturating_mul(5)) {
                Ok(stream) => {
                    return self
                        .add(stream)
                        .map_err(|error| Trouble::failed(format!("{address}: {error}")));
                }
                Err(error) => last = error,
            }
        }
        Err(Trouble::unreached(address, &last))
    }

    fn add(&mut self, stream: Blocking) -> io::Result<usize> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut stream = TcpStream::from_std(stream);
        let link = self.links.len();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(link), both)?;
        self.links.push(Link {
            stream,
            rest: Vec::new(),
            out: Vec::new(),
            sent: 0,
            writable: true,
            listed: false,
        });
        Ok(link)
    }

    /// One turn: waits until something comes or it is `wake` (nanoseconds since the start), lets the load hear it, and sends.
    ///
    /// # Errors
    /// What the load says, or a connection that is gone.
    pub fn turn(&mut self, wake: Option<u64>, load: &mut impl Load) -> Result<(), Trouble> {
        let timeout = if self.ready.is_empty() && !self.set_timer(wake)? {
            TURN
        } else {
            Duration::ZERO
        };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => result.map_err(Trouble::failed)?,
        }
        self.interrupted |= self.interrupts.try_recv().is_ok();
        for event in &self.events {
            if event.token() == TIMER {
                self.armed = None;
                continue;
            }
            let Some(link) = self.links.get_mut(event.token().0) else {
                continue;
            };
            link.writable |= event.is_writable();
            // Also those that can only be written to again: what waits for that is sent below.
            if !link.listed {
                link.listed = true;
                self.ready.push(event.token().0);
            }
        }
        for n in 0..self.ready.len() {
            let Some(&id) = self.ready.get(n) else { break };
            let now = self.now();
            let Some(link) = self.links.get_mut(id) else { continue };
            let drained = link.read(&mut self.buffer, |body| load.hear(id, body, now))?;
            link.listed = !drained;
            load.fill(id, now, &mut link.out);
            link.flush()?;
        }
        self.ready
            .retain(|id| self.links.get(*id).is_some_and(|link| link.listed));
        Ok(())
    }

    /// Sends what `fill` appends, without waiting for anything to come first.
    ///
    /// # Errors
    /// A connection that is gone.
    pub fn send(&mut self, link: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), Trouble> {
        let Some(link) = self.links.get_mut(link) else {
            return Ok(());
        };
        fill(&mut link.out);
        link.flush()
    }

    /// Whether `wake` is past; else the timer rings then. The time-outs of the poll itself are whole milliseconds, far too coarse for a pace.
    fn set_timer(&mut self, wake: Option<u64>) -> Result<bool, Trouble> {
        let Some(wake) = wake else { return Ok(false) };
        let left = wake.saturating_sub(self.now());
        if left == 0 {
            return Ok(true);
        }
        if self.armed == Some(wake) {
            return Ok(false);
        }
        self.armed = Some(wake);
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Itimerspec {
            it_interval: none,
            it_value: Timespec {
                tv_sec: i64::try_from(left / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: (left % 1_000_000_000) as _,
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &at).map_err(Trouble::failed)?;
        Ok(false)
    }

    /// Puts a question to each of these connections, some hundred at once, and waits for all answers. `pick` knows an answer.
    ///
    /// # Errors
    /// A refusal, a connection that is gone, or no answer in time.
    pub fn ask<T>(
        &mut self,
        links: &[usize],
        question: impl Fn(usize) -> Request,
        pick: impl FnMut(usize, Response) -> Option<T>,
    ) -> Result<Vec<T>, Trouble> {
        let mut asking = Asking {
            answers: links.iter().map(|_| None).collect(),
            links,
            missing: 0,
            pick,
        };
        for (wave, ids) in links.chunks(WAVE).enumerate() {
            asking.missing = ids.len();
            for (n, &id) in ids.iter().enumerate() {
                let question = question(wave * WAVE + n);
                self.send(id, |out| encode_request(&question, out))?;
            }
            let deadline = Instant::now() + PATIENCE;
            while asking.missing > 0 {
                self.turn(None, &mut asking)?;
                if self.interrupted {
                    return Err(Trouble::failed("interrupted"));
                }
                if Instant::now() > deadline {
                    return Err(Trouble::silent("a server doesn't answer; see syncnetctl status"));
                }
            }
        }
        Ok(asking.answers.into_iter().flatten().collect())
    }
}

impl Link {
    /// Reads once, and tells the bodies of all frames that are whole. Whether there is nothing more now.
    fn read(&mut self, buffer: &mut [u8], mut tell: impl FnMut(&[u8]) -> Result<(), Trouble>) -> Result<bool, Trouble> {
        let held = self.rest.len();
        let (front, room) = buffer.split_at_mut(held.min(buffer.len()));
        front.copy_from_slice(&self.rest);
        let got = match self.stream.read(room) {
            Ok(0) => return Err(Trouble::gone("it was closed by the server")),
            Ok(got) => got,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(error.kind() == ErrorKind::WouldBlock);
            }
            Err(error) => return Err(Trouble::gone(&error.to_string())),
        };
        // epoll(7): a read that comes short has drained a stream, and what comes later is told again. Another call would only
        // cost as much as this one.
        let drained = got < room.len();
        let mut bytes = buffer.get(..held + got).unwrap_or_default();
        loop {
            match split(bytes, limits::CLIENT_FRAME_BYTES_MAX) {
                Split::Complete { body, consumed } => {
                    tell(body)?;
                    bytes = bytes.get(consumed..).unwrap_or_default();
                }
                Split::Incomplete => break,
                Split::TooLong(length) => {
                    return Err(Trouble::wrong(format!("a server announces {length} bytes")));
                }
            }
        }
        self.rest.clear();
        self.rest.extend_from_slice(bytes);
        Ok(drained)
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        while self.writable && self.sent < self.out.len() {
            match self.stream.write(self.out.get(self.sent..).unwrap_or_default()) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Trouble::gone(&error.to_string())),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        Ok(())
    }
}

/// Waits for an answer on each of some connections.
struct Asking<'a, T, P> {
    links: &'a [usize],
    answers: Vec<Option<T>>,
    missing: usize,
    pick: P,
}

impl<T, P: FnMut(usize, Response) -> Option<T>> Load for Asking<'_, T, P> {
    fn hear(&mut self, link: usize, body: &[u8], _now: u64) -> Result<(), Trouble> {
        let response = decode(body)?;
        // The connections of a load have ascending numbers.
        let Ok(at) = self.links.binary_search(&link) else {
            return Ok(());
        };
        if let Some(answer) = (self.pick)(at, response)
            && let Some(place) = self.answers.get_mut(at)
            && place.replace(answer).is_none()
        {
            self.missing = self.missing.saturating_sub(1);
        }
        Ok(())
    }
}

/// What a server says, if it isn't a refusal.
///
/// # Errors
/// If it is one, or can't be read.
pub fn decode(body: &[u8]) -> Result<Response, Trouble> {
    match decode_response(body).map_err(|error| Trouble::wrong(format!("the server's answer is {error}")))? {
        Response::Fatal { text } | Response::Refused { text, .. } | Response::OpenRefused { text, .. } => {
            Err(Trouble::refused(&text))
        }
        Response::Redirect { leader } => Err(Trouble::refused(&format!(
            "this cluster sends commands to the leader: name {} alone with -s {}",
            leader.id, leader.address
        ))),
        response => Ok(response),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Counts the frames of a connection and their bytes.
    #[derive(Default)]
    struct Counted(Vec<usize>);

    impl Load for Counted {
        fn hear(&mut self, _: usize, body: &[u8], _: u64) -> Result<(), Trouble> {
            self.0.push(body.len());
            Ok(())
        }
    }

    #[test]
    fn frames_are_whole_wherever_the_stream_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut net = Net::new(crossbeam_channel::never()).unwrap();
        let link = net.connect(&listener.local_addr().unwrap().to_string()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let lengths = [0, 1, 300, 5, 200_000, 0, 7];
        let mut bytes = Vec::new();
        for length in lengths {
            crate::wire::frame::frame(&mut bytes, |out| out.resize(out.len() + length, 1));
        }
        let mut counted = Counted::default();
        for cut in [1, 2, 5, 9, 100, 309, 310, 311, 100_000, bytes.len()] {
            counted.0.clear();
            let (one, two) = bytes.split_at(cut);
            for part in [one, two] {
                server.write_all(part).unwrap();
                // Until the other side has it all, or the parts would come as one.
                for _ in 0..20 {
                    net.turn(Some(0), &mut counted).unwrap();
                }
            }
            while counted.0.len() < lengths.len() {
                net.turn(None, &mut counted).unwrap();
            }
            assert_eq!(counted.0, lengths, "{cut}");
            assert!(net.links[link].rest.is_empty());
        }
        server.write_all(&u32::MAX.to_le_bytes()).unwrap();
        let trouble = std::iter::from_fn(|| net.turn(None, &mut counted).err()).next();
        assert!(trouble.unwrap().text.contains("4294967295 bytes"));
    }

    #[test]
    fn a_connection_that_ends_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut net = Net::new(crossbeam_channel::never()).unwrap();
        net.connect(&listener.local_addr().unwrap().to_string()).unwrap();
        drop(listener.accept().unwrap());
        let mut load = Counted::default();
        let trouble = loop {
            if let Err(trouble) = net.turn(None, &mut load) {
                break trouble;
            }
        };
        assert!(trouble.text.contains("connection"), "{}", trouble.text);
    }

    #[test]
    fn the_timer_rings_when_it_should() {
        let mut net = Net::new(crossbeam_channel::never()).unwrap();
        let wake = net.now() + 3_000_000;
        let mut load = Counted::default();
        while net.now() < wake {
            net.turn(Some(wake), &mut load).unwrap();
        }
        assert!(net.armed.is_none() || net.now() >= wake);
    }
}
