//! One connection at a time: resolving a name, connecting, and frames in both directions, all without blocking the thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::net::TcpStream;
use mio::{Interest, Registry, Waker};

use super::link::CONNECTION;
use crate::limits;
use crate::wire::client::{Request, Response, decode_response, encode_request};
use crate::wire::frame::{self, Split};

/// What happened to the connection.
#[derive(Debug)]
pub(super) enum Happened {
    /// It is there.
    Connected,
    /// It can't be had.
    Failed(String),
    /// It broke.
    Lost(String),
}

#[derive(Debug)]
enum State {
    None,
    /// The resolver works on the name.
    Resolving,
    /// Addresses that are left are tried if this one fails.
    Connecting(TcpStream, Vec<SocketAddr>),
    Open(TcpStream),
}

/// A name for the resolver, and what it found.
type Found = (String, Result<Vec<SocketAddr>, String>);

/// The connection and its buffers.
pub(super) struct Socket {
    state: State,
    address: String,
    waker: Arc<Waker>,
    /// The thread that resolves names, and its answers; started at the first name that isn't an address.
    resolver: Option<(Sender<String>, Receiver<Found>)>,
    readable: bool,
    writable: bool,
    input: Vec<u8>,
    /// Bytes at the beginning of `input` that are done with.
    used: usize,
    output: Vec<u8>,
    /// Bytes at the beginning of `output` that are sent.
    sent: usize,
    /// The other side has closed, or reading failed; told once what came before it is used up.
    ended: Option<String>,
}

impl Socket {
    pub(super) fn new(waker: Arc<Waker>) -> Socket {
        Socket {
            state: State::None,
            address: String::new(),
            waker,
            resolver: None,
            readable: false,
            writable: false,
            input: Vec::new(),
            used: 0,
            output: Vec::new(),
            sent: 0,
            ended: None,
        }
    }

    /// Makes the next turn come at once.
    pub(super) fn wake(&self) {
        let _ = self.waker.wake();
    }

    /// What the poll said.
    pub(super) fn mark(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Whether something may be left to read although the poll won't say so again.
    pub(super) fn unread(&self) -> bool {
        matches!(self.state, State::Open(_)) && self.readable
    }

    /// Begins to connect.
    pub(super) fn connect(&mut self, registry: &Registry, address: &str) -> Result<(), String> {
        self.close();
        self.address = address.to_string();
        if let Ok(at) = address.parse::<SocketAddr>() {
            return self.connect_to(registry, vec![at]);
        }
        // A name may take the system many seconds; that is another thread's time.
        let waker = Arc::clone(&self.waker);
        let (names, _) = self.resolver.get_or_insert_with(|| resolver(waker));
        match names.try_send(address.to_string()) {
            Ok(()) => {
                self.state = State::Resolving;
                Ok(())
            }
            Err(_) => Err("the system is still looking for another name".to_string()),
        }
    }

    fn connect_to(&mut self, registry: &Registry, mut addresses: Vec<SocketAddr>) -> Result<(), String> {
        let mut reason = "no address is known for it".to_string();
        while !addresses.is_empty() {
            let address = addresses.remove(0);
            let connecting = TcpStream::connect(address).and_then(|mut stream| {
                registry.register(&mut stream, CONNECTION, Interest::READABLE | Interest::WRITABLE)?;
                Ok(stream)
            });
            match connecting {
                Ok(stream) => {
                    self.readable = false;
                    self.writable = false;
                    self.state = State::Connecting(stream, addresses);
                    return Ok(());
                }
                Err(error) => reason = words(&error),
            }
        }
        self.state = State::None;
        Err(reason)
    }

    /// Takes an attempt to connect further.
    pub(super) fn progress(&mut self, registry: &Registry) -> Option<Happened> {
        if let Some((_, found)) = &self.resolver
            && let Ok((name, addresses)) = found.try_recv()
            && matches!(self.state, State::Resolving)
            && name == self.address
        {
            let connecting = addresses.and_then(|addresses| self.connect_to(registry, addresses));
            if let Err(reason) = connecting {
                self.close();
                return Some(Happened::Failed(reason));
            }
        }
        if !self.writable || !matches!(self.state, State::Connecting(..)) {
            return None;
        }
        let State::Connecting(stream, rest) = std::mem::replace(&mut self.state, State::None) else {
            return None;
        };
        let connected = match stream.take_error() {
            Ok(Some(error)) | Err(error) => Err(error),
            Ok(None) => stream.peer_addr().map(|_| ()),
        };
        match connected {
            Ok(()) => {
                // Frames are small and somebody waits for each.
                let _ = stream.set_nodelay(true);
                self.state = State::Open(stream);
                Some(Happened::Connected)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                self.writable = false;
                self.state = State::Connecting(stream, rest);
                None
            }
            Err(error) if rest.is_empty() => Some(Happened::Failed(words(&error))),
            Err(_) => self.connect_to(registry, rest).err().map(Happened::Failed),
        }
    }

    /// Reads what is there, a bounded amount. Whether bytes came.
    pub(super) fn fill(&mut self) -> bool {
        let State::Open(stream) = &mut self.state else {
            return false;
        };
        let mut came = false;
        self.input.drain(..self.used);
        self.used = 0;
        let mut budget = limits::CLIENT_READ_BYTES_PER_TURN;
        while self.readable && budget > 0 {
            let old = self.input.len();
            self.input.resize(old + budget.min(64 * 1024), 0);
            let result = stream.read(self.input.get_mut(old..).unwrap_or_default());
            let read = *result.as_ref().unwrap_or(&0);
            self.input.truncate(old + read);
            budget -= read;
            came |= read > 0;
            match result {
                Ok(0) => {
                    self.readable = false;
                    self.ended = Some("the server has closed the connection".to_string());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.readable = false;
                    self.ended = Some(words(&error));
                }
            }
        }
        came
    }

    /// The next response that has come whole; an error ends the connection.
    pub(super) fn response(&mut self) -> Result<Option<Response>, String> {
        if !matches!(self.state, State::Open(_)) {
            return Ok(None);
        }
        let bytes = self.input.get(self.used..).unwrap_or_default();
        match frame::split(bytes, limits::CLIENT_FRAME_BYTES_MAX) {
            Split::Complete { body, consumed } => {
                let response = decode_response(body).map_err(|error| format!("the server's answer is {error}"))?;
                self.used += consumed;
                Ok(Some(response))
            }
            Split::Incomplete => match self.ended.take() {
                Some(reason) => Err(reason),
                None => Ok(None),
            },
            Split::TooLong(length) => Err(format!("the server announces a frame of {length} bytes")),
        }
    }

    /// Takes a request into the buffer. Bounded by what the core has on the way: commands, questions, subscriptions.
    pub(super) fn send(&mut self, request: &Request) {
        if matches!(self.state, State::Open(_)) {
            encode_request(request, &mut self.output);
        }
    }

    /// Writes what can be written.
    pub(super) fn flush(&mut self) -> Option<Happened> {
        let State::Open(stream) = &mut self.state else {
            return None;
        };
        while self.writable && self.sent < self.output.len() {
            match stream.write(self.output.get(self.sent..).unwrap_or_default()) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // What the server said before it went may be there to be read; reading finds the end, too.
                    if self.readable || !self.input.is_empty() {
                        self.sent = self.output.len();
                        self.readable = true;
                        break;
                    }
                    self.close();
                    return Some(Happened::Lost(words(&error)));
                }
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        None
    }

    /// Gives up the connection or the attempt.
    pub(super) fn close(&mut self) {
        self.state = State::None;
        self.readable = false;
        self.writable = false;
        self.input.clear();
        self.used = 0;
        self.output.clear();
        self.sent = 0;
        self.ended = None;
    }
}

fn resolver(waker: Arc<Waker>) -> (Sender<String>, Receiver<Found>) {
    let (names, jobs) = bounded::<String>(1);
    let (answers, found) = bounded(1);
    // Without the thread the channel is closed, and every name fails with a reason.
    let _ = std::thread::Builder::new()
        .name("syncnet-names".to_string())
        .spawn(move || {
            for name in jobs {
                let addresses = match name.to_socket_addrs() {
                    Ok(addresses) => Ok(addresses.collect()),
                    Err(error) => Err(format!("the name can't be resolved: {error}")),
                };
                if answers.send((name, addresses)).is_err() {
                    return;
                }
                let _ = waker.wake();
            }
        });
    (names, found)
}

/// What the system says, without its number.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_string(),
        io::ErrorKind::ConnectionReset => "connection reset".to_string(),
        _ => error.to_string(),
    }
}
