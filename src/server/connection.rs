//! One connection of a client: what came in and isn't a whole frame yet, what must go out to this client alone, and what the
//! system last said about the socket. Items of rooms aren't copied here: they are sent straight from the shared tails, and only
//! the rest of an item that a short write cut into is kept, so that it goes out before anything else.

use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;

use super::buffer::Buffer;
use crate::limits;
use crate::types::ConnId;
use crate::wire::client::{Response, encode_response};

/// Where the items of a connection's subscriptions come from.
pub trait Source {
    /// The next whole items for the connection, or nothing now.
    fn pump(&mut self, conn: ConnId) -> Option<&[u8]>;
    /// So many bytes of that were sent; what is left of the item that was cut into goes to the end of `rest`.
    fn taken(&mut self, conn: ConnId, n: usize, rest: &mut Vec<u8>);
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Has not said hello.
    New,
    /// Is served.
    Open,
    /// Is sent what waits for it, and closed then. Nothing is read for use any more.
    Closing,
    /// Everything was sent and the end announced; only its own end is waited for.
    Lingering,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes; there may be more.
    Bytes(usize),
    /// There is nothing more now; the system will tell.
    Drained,
    /// The other side has closed, or the connection is broken.
    End,
}

/// What sending came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All that there was.
    All,
    /// The socket takes no more now; the system will tell.
    Blocked,
    /// The turn's share is used up.
    More,
    /// The connection is broken.
    Broken,
}

/// A connection of a client.
#[derive(Debug)]
pub struct Connection<S> {
    /// Its name in this process.
    pub id: ConnId,
    /// From where it came.
    pub address: IpAddr,
    /// Its socket.
    pub stream: S,
    /// How far it is.
    pub state: State,
    /// Bytes that came and aren't whole frames yet.
    pub input: Buffer,
    /// Whether the socket may have bytes: the system told, and it has not been drained since.
    pub readable: bool,
    /// Whether the other side has said that it sends no more.
    pub ended: bool,
    /// Whether its subscriptions may have something.
    pub delivering: bool,
    /// Whether it was left unread because its answers pile up.
    pub choked: bool,
    /// What it is told at the end, behind the answers to what it asked before.
    pub last_words: Option<Box<Response>>,
    output: Buffer,
    writable: bool,
}

impl<S: Read + Write> Connection<S> {
    /// A connection that has just come.
    pub fn new(id: ConnId, address: IpAddr, stream: S) -> Connection<S> {
        Connection {
            id,
            address,
            stream,
            state: State::New,
            input: Buffer::default(),
            readable: false,
            ended: false,
            delivering: false,
            choked: false,
            last_words: None,
            output: Buffer::default(),
            writable: true,
        }
    }

    /// The system says that the socket takes bytes again.
    pub fn set_writable(&mut self) {
        self.writable = true;
    }

    /// Puts an answer into the output.
    pub fn answer(&mut self, response: &Response) {
        if self.state != State::Lingering {
            encode_response(response, self.output.end());
        }
    }

    /// Whether answers pile up: such a client isn't read from until it has taken them.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.output.len() > limits::OUTPUT_BYTES_MAX
    }

    /// Whether there is something to send, and the socket takes it.
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.writable && (!self.output.is_empty() || (self.delivering && self.state == State::Open))
    }

    /// Reads once, into the input (or to nowhere, if nothing is read for use any more).
    pub fn read(&mut self, scratch: &mut [u8]) -> Got {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return self.end(),
                Ok(n) => {
                    if matches!(self.state, State::New | State::Open) {
                        self.input.extend(scratch.get(..n).unwrap_or_default());
                    }
                    return Got::Bytes(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Got::Drained;
                }
                Err(_) => return self.end(),
            }
        }
    }

    fn end(&mut self) -> Got {
        self.readable = false;
        self.ended = true;
        Got::End
    }

    /// Sends: first what is for this client alone, then slices of the shared tails.
    pub fn send(&mut self, source: &mut impl Source) -> Sent {
        let mut budget = limits::SEND_BYTES_PER_TURN;
        while self.writable {
            if !self.output.is_empty() {
                match write(&mut self.stream, self.output.pending()) {
                    Ok(n) => self.output.consume(n),
                    Err(sent) => return self.stop(sent),
                }
                continue;
            }
            if !self.delivering || self.state != State::Open {
                return Sent::All;
            }
            if budget == 0 {
                return Sent::More;
            }
            let Some(slice) = source.pump(self.id) else {
                self.delivering = false;
                return Sent::All;
            };
            match write(&mut self.stream, slice) {
                Ok(n) => {
                    budget = budget.saturating_sub(n);
                    source.taken(self.id, n, self.output.end());
                }
                Err(sent) => return self.stop(sent),
            }
        }
        Sent::Blocked
    }

    fn stop(&mut self, sent: Sent) -> Sent {
        if sent == Sent::Blocked {
            self.writable = false;
        }
        sent
    }

    /// Whether everything for this client alone is sent.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }
}

/// Writes once. A short write proves nothing: the caller tries again until the socket says that it takes no more.
pub fn write(stream: &mut impl Write, bytes: &[u8]) -> Result<usize, Sent> {
    loop {
        match stream.write(bytes) {
            Ok(0) => return Err(Sent::Broken),
            Ok(n) => return Ok(n),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Sent::Blocked),
            Err(_) => return Err(Sent::Broken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::net::Ipv4Addr;

    /// A socket that takes `room` bytes, at most `step` at once.
    #[derive(Default)]
    struct Socket {
        room: usize,
        step: usize,
        taken: Vec<u8>,
        incoming: Vec<u8>,
        closed: bool,
    }

    impl Read for Socket {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.incoming.is_empty() && !self.closed {
                return Err(ErrorKind::WouldBlock.into());
            }
            let n = out.len().min(self.incoming.len());
            out[..n].copy_from_slice(&self.incoming[..n]);
            self.incoming.drain(..n);
            Ok(n)
        }
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room).min(self.step);
            if n == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= n;
            self.taken.extend_from_slice(&bytes[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Items of ten bytes each.
    struct Items {
        bytes: Vec<u8>,
        at: usize,
    }

    impl Source for Items {
        fn pump(&mut self, _: ConnId) -> Option<&[u8]> {
            let end = (self.at + 40).min(self.bytes.len());
            (self.at < end).then(|| &self.bytes[self.at..end])
        }
        fn taken(&mut self, _: ConnId, n: usize, rest: &mut Vec<u8>) {
            let boundary = (self.at + n).div_ceil(10) * 10;
            rest.extend_from_slice(&self.bytes[self.at + n..boundary]);
            self.at = boundary;
        }
    }

    fn connection(socket: Socket) -> Connection<Socket> {
        let mut conn = Connection::new(ConnId(1), Ipv4Addr::LOCALHOST.into(), socket);
        conn.state = State::Open;
        conn
    }

    #[test]
    fn an_answer_never_lands_inside_an_item() {
        let bytes: Vec<u8> = (0..100).map(|n| b'a' + (n / 10) as u8).collect();
        let mut items = Items {
            bytes: bytes.clone(),
            at: 0,
        };
        let mut conn = connection(Socket {
            room: 25,
            step: 25,
            ..Socket::default()
        });
        conn.delivering = true;
        assert_eq!(conn.send(&mut items), Sent::Blocked);
        conn.answer(&Response::Pong { id: 7 });
        assert!(!conn.can_send(), "the socket has not said that it takes more");
        conn.stream.room = 1000;
        conn.stream.step = 3;
        conn.set_writable();
        assert_eq!(conn.send(&mut items), Sent::All);
        let mut pong = Vec::new();
        encode_response(&Response::Pong { id: 7 }, &mut pong);
        let mut wanted = bytes[..30].to_vec();
        wanted.extend_from_slice(&pong);
        wanted.extend_from_slice(&bytes[30..]);
        assert_eq!(conn.stream.taken, wanted);
        assert!(!conn.delivering);
    }

    #[test]
    fn one_connection_has_only_its_share_of_a_turn() {
        let mut items = Items {
            bytes: vec![b'x'; 10 * limits::SEND_BYTES_PER_TURN],
            at: 0,
        };
        let mut conn = connection(Socket {
            room: usize::MAX,
            step: 4096,
            ..Socket::default()
        });
        conn.delivering = true;
        assert_eq!(conn.send(&mut items), Sent::More);
        assert!(conn.stream.taken.len() < limits::SEND_BYTES_PER_TURN + 8192);
        assert!(conn.can_send());
    }

    #[test]
    fn a_client_that_takes_no_answers_is_full() {
        let mut items = Items {
            bytes: Vec::new(),
            at: 0,
        };
        let mut conn = connection(Socket::default());
        let text = "x".repeat(1000);
        while !conn.is_full() {
            conn.answer(&Response::Fatal { text: text.clone() });
            assert_eq!(conn.send(&mut items), Sent::Blocked);
        }
        assert!(conn.output.len() < limits::OUTPUT_BYTES_MAX + 2000);
        conn.stream.room = usize::MAX;
        conn.stream.step = usize::MAX;
        conn.set_writable();
        assert_eq!(conn.send(&mut items), Sent::All);
        assert!(!conn.is_full() && conn.is_flushed());
    }

    #[test]
    fn the_end_is_seen_after_the_last_bytes() {
        let mut conn = connection(Socket {
            incoming: b"abc".to_vec(),
            closed: true,
            ..Socket::default()
        });
        conn.readable = true;
        let mut scratch = [0; 2];
        assert_eq!(conn.read(&mut scratch), Got::Bytes(2));
        assert_eq!(conn.read(&mut scratch), Got::Bytes(1));
        assert_eq!(conn.read(&mut scratch), Got::End);
        assert_eq!(conn.input.pending(), b"abc");
        assert!(conn.ended && !conn.readable);
    }

    #[test]
    fn what_comes_after_the_end_was_told_is_dropped() {
        let mut conn = connection(Socket {
            incoming: vec![0; 100],
            ..Socket::default()
        });
        conn.state = State::Closing;
        assert_eq!(conn.read(&mut [0; 64]), Got::Bytes(64));
        assert_eq!(conn.read(&mut [0; 64]), Got::Bytes(36));
        assert_eq!(conn.read(&mut [0; 64]), Got::Drained);
        assert!(conn.input.is_empty());
    }
}
