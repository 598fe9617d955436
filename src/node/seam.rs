//! The seam of the node: what goes in, what comes out, what it is made from.

use std::sync::Arc;

use crate::chat::State;
use crate::cluster::message::{Datagram, Recovered};
use crate::config::Config;
use crate::keep::{KeepJob, Kept};
use crate::log::{Append, ItemRef, ReadAnswer, ReadRequest};
use crate::types::{AppendId, Boot, ConnId, DirectoryId, Level, LogIndex, Position, RoomId, Seq, ServerId};
use crate::wire::client::{Request, Response};
use crate::wire::peer::PeerMessage;

/// What a node is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The cluster's configuration.
    pub config: Arc<Config>,
    /// Which of its servers this is.
    pub me: ServerId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// How often that has been started.
    pub boot: Boot,
    /// What its log holds.
    pub recovered: Recovered,
    /// The state of its last checkpoint; [`State::new`] if there is none.
    pub state: State,
    /// Whether its directory is new in the place of one that was lost or can't be trusted.
    pub replaced: bool,
    /// For whatever is decided at random.
    pub seed: u64,
}

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
    /// A link has brought bytes, but no whole frame yet: what is large takes a while.
    Heard(ServerId),
    /// A frame of a link.
    Peer(ServerId, PeerMessage),
    /// A datagram, checked: of our cluster, authentic, not a repetition.
    Datagram(ServerId, DirectoryId, Datagram),
    /// All appends up to this one are durable.
    Persisted(AppendId),
    /// The reader has an answer.
    Read(ReadAnswer),
    /// The housekeeper has something to say.
    Kept(Kept),
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
    /// The rooms begin anew at these last positions and numbers, and nothing before is kept: a checkpoint was installed. Before any later question.
    Seed(Vec<(RoomId, Position, Seq)>),
    /// What stands in entries up to this one isn't shown any more. Before any later question.
    Trim(LogIndex),
    /// Something for the housekeeper.
    Keep(KeepJob),
    /// Send this to a server, if the link is there.
    Peer(ServerId, PeerMessage),
    /// Send this datagram to everybody, or to the one server that it is for.
    Datagram(Datagram),
    /// Answer a client.
    Reply(ConnId, Response),
    /// Tell a client what this process has used, which only the system knows: the answer to its question of this id.
    Usage(ConnId, u64),
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
    /// This directory's word doesn't count any more: the process must begin anew with another, and be filled by the others. In words why.
    Renounce(String),
}

/// Something that the operator should read: a line of the log, with its level.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// How important it is.
    pub level: Level,
    /// What happened, in words.
    pub text: String,
}
