//! One TCP connection to another server: its socket, its buffers, and how far it is.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::buffer::Buffer;
use super::connection::{Got, Sent, write};
use super::handshake::Shake;
use crate::limits;
use crate::types::{Boot, ConnId, DirectoryId, ServerId, Tick};

/// How far a link is.
#[derive(Debug)]
pub enum Phase {
    /// The system is connecting to the server.
    Connecting(ServerId),
    /// The servers tell each other who they are; with the server that was dialled, if it was.
    Shaking(Option<ServerId>, Shake),
    /// The link works.
    Up {
        /// The other server.
        server: ServerId,
        /// Its data directory.
        directory: DirectoryId,
        /// How often that has been started.
        boot: Boot,
    },
    /// The refusal is being sent.
    Closing,
}

/// A connection to another server.
#[derive(Debug)]
pub struct Link {
    /// Its name in this process.
    pub id: ConnId,
    /// Its socket.
    pub stream: TcpStream,
    /// The other end.
    pub address: SocketAddr,
    /// How far it is.
    pub phase: Phase,
    /// Bytes that came and aren't whole frames yet.
    pub input: Buffer,
    /// Bytes that wait to be sent.
    pub output: Buffer,
    /// Whether the socket may have bytes.
    pub readable: bool,
    /// Whether the socket may take bytes.
    pub writable: bool,
    /// When bytes last came.
    pub heard: Tick,
}

impl Link {
    /// A link that has just begun.
    #[must_use]
    pub fn new(id: ConnId, stream: TcpStream, address: SocketAddr, phase: Phase, now: Tick) -> Link {
        let writable = !matches!(phase, Phase::Connecting(_));
        Link {
            id,
            stream,
            address,
            phase,
            input: Buffer::keeping(limits::LINK_BYTES_KEPT),
            output: Buffer::keeping(limits::LINK_BYTES_KEPT),
            readable: false,
            writable,
            heard: now,
        }
    }

    /// The server that was dialled and isn't linked yet.
    #[must_use]
    pub fn dialled(&self) -> Option<ServerId> {
        match self.phase {
            Phase::Connecting(server) => Some(server),
            Phase::Shaking(server, _) => server,
            Phase::Up { .. } | Phase::Closing => None,
        }
    }

    /// The server at the other end, if the link works.
    #[must_use]
    pub fn server(&self) -> Option<ServerId> {
        match self.phase {
            Phase::Up { server, .. } => Some(server),
            _ => None,
        }
    }

    /// Reads once.
    pub fn read(&mut self, scratch: &mut [u8], now: Tick) -> Got {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Got::End,
                Ok(n) => {
                    self.heard = now;
                    if !matches!(self.phase, Phase::Closing) {
                        self.input.extend(scratch.get(..n).unwrap_or_default());
                    }
                    return Got::Bytes(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Got::Drained;
                }
                Err(_) => return Got::End,
            }
        }
    }

    /// Sends all that the socket takes.
    pub fn send(&mut self) -> Sent {
        while self.writable && !self.output.is_empty() {
            match write(&mut self.stream, self.output.pending()) {
                Ok(n) => self.output.consume(n),
                Err(Sent::Blocked) => self.writable = false,
                Err(sent) => return sent,
            }
        }
        if self.output.is_empty() {
            Sent::All
        } else {
            Sent::Blocked
        }
    }

    /// Whether the system has connected. An error means that it won't.
    ///
    /// # Errors
    /// Why the server can't be reached.
    pub fn connected(&self) -> std::io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        let other = match self.stream.peer_addr() {
            Ok(address) => address,
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(error),
        };
        // The system may pick the very port that is being dialled for our end; the socket is then connected to itself.
        if self.stream.local_addr()? == other {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        Ok(true)
    }
}
