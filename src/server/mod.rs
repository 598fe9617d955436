//! The poll loop of one server: one thread that owns every socket, and on which nothing blocks. What is decided is decided by
//! [`node`](crate::node); this room carries bytes and time to it, and its effects to where they belong. May call `node`, `log`,
//! `wire` and what is below them.
//!
//! One turn: wait → read what is ready, a bounded amount from each → inputs to the node → drain all effects → one batch to the log
//! writer, one write to each peer, one write to each ready client. Datagrams and links of servers come before clients in
//! every turn, so that load never looks like a failure.
//!
//! Reading order: [`poll`] (the turn), [`clients`] and [`connection`], [`peers`], [`link`] and [`handshake`], [`datagrams`] and [`replay`],
//! then the small ones: [`listener`], [`timers`], [`ready`], [`buffer`], [`disk`], [`signals`], [`logging`], [`resolve`], [`clock`].

pub mod buffer;
pub mod clients;
pub mod clock;
pub mod complaints;
pub mod connection;
pub mod datagrams;
pub mod disk;
pub mod handshake;
pub mod link;
pub mod listener;
pub mod logging;
pub mod peers;
pub mod poll;
pub mod ready;
pub mod replay;
pub mod resolve;
pub mod signals;
pub mod start;
pub mod timers;
mod turns;

#[cfg(test)]
mod link_tests;

use std::fmt;

use mio::Registry;

use crate::cluster::message::Sender;
use crate::types::{ConnId, Now, ServerId};
use timers::Timers;

/// Why the server ended, other than by being asked to. The numbers are the exit codes of `syncnetd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The configuration is not what the cluster is, or not possible here.
    Misconfigured(String),
    /// An address or directory is taken or not permitted.
    Taken(String),
    /// What the disk holds can't be trusted.
    Damaged(String),
    /// There is no space on the disk.
    Full(String),
    /// The disk, or another part of the machine, failed.
    Failed(String),
}

impl Failure {
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Failure::Misconfigured(_) => 2,
            Failure::Taken(_) => 3,
            Failure::Damaged(_) => 5,
            Failure::Full(_) | Failure::Failed(_) => 6,
        }
    }

    /// What a worker thread said when it gave up.
    #[must_use]
    pub fn of_disk(what: String) -> Failure {
        if what.starts_with("damaged:") {
            Failure::Damaged(what)
        } else {
            Failure::Failed(what)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Misconfigured(text)
            | Failure::Taken(text)
            | Failure::Damaged(text)
            | Failure::Full(text)
            | Failure::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

/// The two doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    /// For clients.
    Client,
    /// For other servers.
    Peer,
}

/// What a timer of the loop is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    /// A client must have said hello.
    Hello(ConnId),
    /// A client that was told why its connection ends has had its time.
    Linger(ConnId),
    /// A server must have finished its handshake, or taken its refusal.
    Shake(ConnId),
    /// A link may have been silent for too long.
    Silence(ConnId),
    /// A server is to be dialled.
    Dial(ServerId),
    /// The system may have descriptors again.
    Accept(Door),
    /// An orderly stop has had its time.
    Stop,
}

/// Names for connections, never used twice.
#[derive(Debug)]
pub struct Ids(u64);

impl Ids {
    /// Names after these, which are the fixed tokens of the loop.
    #[must_use]
    pub fn after(last: u64) -> Ids {
        Ids(last)
    }

    /// A new name.
    pub fn fresh(&mut self) -> ConnId {
        self.0 += 1;
        ConnId(self.0)
    }
}

/// What everything in a turn shares.
#[derive(Debug)]
pub struct Context<'a> {
    /// What the clocks say.
    pub now: Now,
    /// Who this server is.
    pub sender: Sender,
    /// The loop's timers.
    pub timers: &'a mut Timers<Alarm>,
    /// Where sockets are registered.
    pub registry: &'a Registry,
    /// Names for new connections.
    pub ids: &'a mut Ids,
}
