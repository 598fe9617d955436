//! The pure heart: cluster, chat and the sessions of this server's clients in one state machine. `step` takes something that
//! happened, `poll` drains what should happen next, `deadline` says when it wants to be woken. Mutate, then drain to the
//! end, then mutate. It opens no socket or file, reads no clock, draws no random number but from the seed that it was given.

pub use crate::types::Level;

use crate::cluster::message::Datagram;
use crate::log::{Append, ItemRef, ReadAnswer, ReadRequest};
use crate::types::{AppendId, Boot, ConnId, DirectoryId, ServerId};
use crate::wire::client::{Request, Response};
use crate::wire::peer::PeerMessage;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A client's connection has a request. The first one makes the connection known.
    Client(ConnId, Request),
    /// A client's connection is gone.
    ClientGone(ConnId),
    /// The handshake with a server is done.
    LinkUp {
        /// The server.
        server: ServerId,
        /// Its data directory.
        directory: DirectoryId,
        /// How often that has been started.
        boot: Boot,
    },
    /// The link to a server is gone.
    LinkDown {
        /// The server.
        server: ServerId,
    },
    /// A frame of a link.
    Peer(ServerId, PeerMessage),
    /// A datagram, checked: of our cluster, authentic, not a repetition.
    Datagram(ServerId, DirectoryId, Datagram),
    /// All appends up to this one are durable.
    Persisted(AppendId),
    /// The reader has an answer.
    Read(ReadAnswer),
    /// The deadline has come, or a turn begins without anything else.
    Timer,
    /// Stop in good order: hand over leadership, then say [`Effect::Stopped`].
    Stop,
}

/// Something that should happen. Nothing of this touches the node again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Hand this to the log writer.
    Append(Append),
    /// Hand this to the reader, before any later question.
    Index(Vec<ItemRef>),
    /// Ask the reader.
    Read(ReadRequest),
    /// Send this to a server, if the link is there.
    Peer(ServerId, PeerMessage),
    /// Send this datagram to everybody, or to the one server that it is for.
    Datagram(Datagram),
    /// Answer a client.
    Reply(ConnId, Response),
    /// The connection's subscriptions may have something: call [`Node::pump`](crate::node).
    Deliver(ConnId),
    /// Close the connection once its answers are sent.
    Close(ConnId),
    /// Something that the operator should read.
    Event(Event),
    /// The node has nothing more to do.
    Stopped,
    /// The cluster's first entry has come or was found to differ from the configuration: the process must end, with this message.
    Misconfigured(String),
}

/// Something that the operator should read: a line of the log, with its level.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// How important it is.
    pub level: Level,
    /// What happened, in words.
    pub text: String,
}
