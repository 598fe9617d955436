//! What goes into the client's core and what comes out of it: the calls of the program, what the connection does, and the
//! events that the program hears of. Plain values, so that the same core runs over a socket and over a simulated network.

use std::fmt;

use crate::chat::command::{Code, DedupKey, Outcome};
use crate::types::{ClientSeq, Position, RoomId, Seq, ServerId, SessionId, Span, Tick};
use crate::wire::client::{From, Item, Request, Response, RoomInfo, ServerAddress, StatusRow, Until};

/// How a client finds the cluster and who it is there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Options {
    /// `host:port` of servers.
    pub servers: Vec<String>,
    /// The servers were named by the user: they are tried first, in that order. Otherwise all are tried in random order.
    pub in_order: bool,
    /// No others are used than those.
    pub only: bool,
    /// The name of the session.
    pub name: String,
    /// The client's key, which holds the name.
    pub key: [u8; 32],
    /// Random: proves the session when it moves to another server.
    pub secret: [u8; 16],
    /// The program and its version, for the servers' logs.
    pub agent: String,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("servers", &self.servers)
            .field("name", &self.name)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// What the program calls a command or a question of its own by. Chosen by the program, used once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Something that changes the state of the cluster: goes through the outbox, in order, exactly once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A message.
    Post {
        /// The room.
        room: RoomId,
        /// What it says.
        text: String,
        /// The same key posts only once.
        dedup: Option<DedupKey>,
    },
    /// Makes a room.
    Create {
        /// Its name.
        room: String,
        /// A room of that name that exists is the outcome, not an error.
        or_find: bool,
    },
    /// Becomes a member.
    Join {
        /// The room's name.
        room: String,
    },
    /// Leaves a room.
    Leave {
        /// The room.
        room: RoomId,
    },
    /// Sets a topic.
    Topic {
        /// The room.
        room: RoomId,
        /// The topic.
        text: String,
    },
    /// Takes another name. What comes after it waits until it is acknowledged: it is sent under the new name.
    Rename {
        /// The new name.
        name: String,
    },
    /// Ends the session.
    Close,
}

/// Something that the program wants to know. Asked again on the next connection if the answer doesn't come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// What is the room of this name?
    Lookup {
        /// The room's name.
        name: String,
        /// The answer must know everything that was committed when the question came.
        fresh: bool,
    },
    /// Which rooms are there?
    Rooms,
    /// Who is in a room?
    Who {
        /// The room.
        room: RoomId,
    },
    /// How is the server?
    Status,
    /// How long does the way there and back take?
    Ping,
}

/// What the program asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Open the session now, so that the name is known to be free. The first action opens it too.
    Open,
    /// Take this name instead of one that was refused, and open the session.
    OpenAs(String),
    /// Do this, in order.
    Submit {
        /// Names it in the events.
        ticket: Ticket,
        /// What.
        action: Action,
        /// [`Event::TimedOut`] if it isn't acknowledged by then.
        deadline: Option<Tick>,
    },
    /// Ask this.
    Ask {
        /// Names it in the events.
        ticket: Ticket,
        /// What.
        question: Question,
    },
    /// Read a room; takes the place of an earlier subscription of that room.
    Subscribe {
        /// The room.
        room: RoomId,
        /// Where to begin.
        from: From,
        /// Where to end.
        until: Until,
        /// Any server will do, also one without a quorum.
        stale: bool,
    },
    /// Read it no more.
    Unsubscribe(RoomId),
    /// End the session once everything is acknowledged, and the connection; [`Event::Closed`] comes within
    /// `limits::CLIENT_CLOSE_TIMEOUT`.
    Close,
}

/// Something that happened to the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The connection that was asked for is there.
    Connected,
    /// It can't be had, and why.
    ConnectFailed(String),
    /// The connection broke, and why.
    Lost(String),
    /// Bytes came that aren't a whole response yet.
    Heard,
    /// The server says this.
    Response(Response),
    /// The program takes no events (`true`), so the connection isn't read either, or takes them again.
    Held(bool),
    /// The deadline has come.
    Timer,
    /// The program calls.
    Call(Call),
}

/// Something that should happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Connect to this `host:port`. There is no other connection at that moment.
    Connect {
        /// `host:port`.
        address: String,
    },
    /// Send this on the connection.
    Send(Request),
    /// Give up the connection, or the attempt; nothing of it may come in afterwards.
    Disconnect,
    /// Tell the program.
    Event(Event),
}

/// How far an action got that wasn't acknowledged in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Never sent: no server is reached.
    Unreached,
    /// Never sent: the server reached belongs to no majority.
    NoQuorum,
    /// Sent; nobody knows what came of it.
    Unknown,
}

/// What the program hears of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A server has said hello.
    Connected {
        /// The server.
        server: ServerId,
        /// Where.
        address: String,
        /// The cluster.
        cluster: String,
        /// All servers.
        servers: Vec<ServerAddress>,
        /// Who leads, if the server knows.
        leader: Option<ServerId>,
        /// Whether the server belongs to a majority.
        quorum: bool,
        /// Bytes of the longest text.
        message_bytes_max: u32,
    },
    /// The servers that may be used send commands to the leader, which may not.
    Elsewhere {
        /// The leader.
        leader: ServerAddress,
    },
    /// The connection to a server that had said hello is gone.
    Disconnected {
        /// Where it was.
        address: String,
        /// Why.
        reason: String,
    },
    /// An attempt to reach a server failed.
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// No server that can be reached belongs to a majority; commands wait.
    NoQuorum,
    /// There is a quorum again.
    QuorumBack,
    /// Another server leads, or none that is known.
    Leader(Option<ServerId>),
    /// The session is open on this connection.
    Opened {
        /// The session.
        session: SessionId,
        /// Its name as the cluster has it.
        name: String,
        /// It is not the session that this client had before (or the first).
        new: bool,
    },
    /// The session can't be opened; nothing is sent until [`Call::OpenAs`].
    OpenRefused {
        /// Why.
        code: Code,
        /// In words.
        text: String,
    },
    /// The session has expired at the cluster. What was never sent goes into a new one.
    Expired,
    /// What an action came to. In the order in which they were submitted.
    Done {
        /// The action.
        ticket: Ticket,
        /// Its session.
        session: SessionId,
        /// Its number there.
        seq: ClientSeq,
        /// What it came to.
        outcome: Outcome,
    },
    /// The action was sent, the session has expired, and nobody knows what came of it. It is never sent again.
    Unknown {
        /// The action.
        ticket: Ticket,
    },
    /// The action's deadline has come. It stays in the outbox.
    TimedOut {
        /// The action.
        ticket: Ticket,
        /// How far it got.
        fate: Fate,
    },
    /// Something in a subscribed room: each once, in order.
    Item(Item),
    /// These items of a subscribed room are gone for ever, the first and the last of them.
    Gap {
        /// The room.
        room: RoomId,
        /// Positions; the first is 0 if nobody can know it any more.
        positions: (Position, Position),
        /// Message numbers; the second is below the first if no message is among them.
        seqs: (Seq, Seq),
    },
    /// A subscription has come to its end.
    End {
        /// The room.
        room: RoomId,
        /// What came is as fresh as was asked; false only without a quorum.
        fresh: bool,
    },
    /// A subscription can't be.
    SubscribeRefused {
        /// The room.
        room: RoomId,
        /// Why.
        code: Code,
        /// In words.
        text: String,
    },
    /// The answer to a lookup.
    Room {
        /// The question.
        ticket: Ticket,
        /// The room, if there is one.
        room: Option<RoomInfo>,
        /// As fresh as was asked; false only without a quorum.
        fresh: bool,
    },
    /// A page of the rooms.
    Rooms {
        /// The question.
        ticket: Ticket,
        /// By id.
        rooms: Vec<RoomInfo>,
        /// Whether another page will come.
        more: bool,
    },
    /// Who is in a room.
    Who {
        /// The question.
        ticket: Ticket,
        /// Names, sorted.
        users: Vec<String>,
    },
    /// How the server is.
    Status {
        /// The question.
        ticket: Ticket,
        /// Its row.
        row: StatusRow,
        /// All servers.
        servers: Vec<ServerAddress>,
        /// The cluster.
        cluster: String,
    },
    /// The way there and back.
    Pong {
        /// The question.
        ticket: Ticket,
        /// How long it took.
        span: Span,
    },
    /// A question was refused.
    AskRefused {
        /// The question.
        ticket: Ticket,
        /// Why.
        code: Code,
        /// In words.
        text: String,
    },
    /// A server said something that people should read.
    Notice(String),
    /// The client has ended; nothing comes after this.
    Closed,
}
