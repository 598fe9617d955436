//! The native client protocol: what clients and servers say to each other. A frame is a length of 4 bytes (little-endian,
//! at most `limits::CLIENT_FRAME_BYTES_MAX`) and the bincode form of a [`Request`] or [`Response`], whose variant number is the
//! kind of the frame. New variants go to the end.

use serde::{Deserialize, Serialize};

use super::{Error, decode, encode, frame, varint};
use crate::chat::command::{self, Code, Content, Outcome};
use crate::limits;
use crate::types::{Blob, ClientSeq, Lamport, Position, RoomId, Seq, ServerId, SessionId, Usage};

/// The client protocol's versions that this program speaks: (lowest, highest).
pub const VERSIONS: (u16, u16) = (1, 1);
/// The first word of a hello: tells a client of ours from a stranger that connected by mistake.
pub const MAGIC: u32 = u32::from_le_bytes(*b"SYNC");

/// From a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection; answered by `Welcome`, or by `Fatal` and the end.
    Hello {
        /// [`MAGIC`].
        magic: u32,
        /// The versions that the client speaks: (lowest, highest).
        versions: (u16, u16),
        /// The program and its version, for the log.
        agent: String,
    },
    /// Opens a session; answered by `Opened` or `OpenRefused`, once the entry is applied. Sent again (here or elsewhere)
    /// with the same secret, it finds the session that it opened.
    Open {
        /// The name.
        name: String,
        /// What holds the name; never leaves the server as it is.
        key: [u8; 32],
        /// Chosen by the client; proves the session when it attaches.
        secret: [u8; 16],
        /// The highest Lamport timestamp that the client has seen.
        lamport: Lamport,
    },
    /// Goes on with a session on a new connection; answered by `Opened` or `OpenRefused`.
    Attach {
        /// The session.
        session: SessionId,
        /// Its secret.
        secret: [u8; 16],
    },
    /// A command of the session: the bytes that go into the log (`wire::command`). Answered in an `Acks`, once applied.
    Command(Blob),
    /// What is the room of this name? Answered by `Room`.
    Lookup {
        /// Repeated in the answer.
        id: u64,
        /// The room's name.
        name: String,
        /// Whether the answer must know everything that was committed when the server got the question.
        fresh: bool,
    },
    /// Which rooms are there? Answered by `Rooms`.
    Rooms {
        /// Repeated in the answer.
        id: u64,
        /// Only rooms after this one; 0 from the start.
        after: RoomId,
    },
    /// Who is in the room? Answered by `Who`.
    Who {
        /// Repeated in the answer.
        id: u64,
        /// The room.
        room: RoomId,
    },
    /// Sends the room's items from a place on: `Subscribed`, then `Item`s, then `End` if `until` is `Now`.
    /// A connection has one subscription a room; another takes the place of the first.
    Subscribe {
        /// Repeated in the answer.
        id: u64,
        /// The room.
        room: RoomId,
        /// Where to begin.
        from: From,
        /// Where to end.
        until: Until,
    },
    /// Ends a subscription; items that are on the way may still come.
    Unsubscribe {
        /// The room.
        room: RoomId,
    },
    /// How is this server? Answered by `Status`.
    Status {
        /// Repeated in the answer.
        id: u64,
    },
    /// Answered by `Pong`.
    Ping {
        /// Repeated in the answer.
        id: u64,
    },
    /// What has this server's process used? Answered by `Usage`; by `Fatal` from servers that don't know the question yet.
    Usage {
        /// Repeated in the answer.
        id: u64,
    },
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum From {
    /// At this position.
    Position(Position),
    /// After the message of this number; `Seq(0)` is the beginning of the room.
    AfterSeq(Seq),
    /// With the last so many messages.
    Last(u32),
}

/// Where a subscription ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Until {
    /// Never: it follows.
    Forever,
    /// At the last item that was committed, anywhere, when the server got the question. Without a quorum, `End` says so
    /// after everything that this server has.
    Now,
    /// At the last item that this server has.
    Here,
}

/// From a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Response {
    /// The answer to `Hello`.
    Welcome {
        /// The version of this connection.
        version: u16,
        /// The cluster's name.
        cluster: String,
        /// The server that answers.
        server: ServerId,
        /// All servers, this one included.
        servers: Vec<ServerAddress>,
        /// Who leads, if this server knows.
        leader: Option<ServerId>,
        /// Whether this server belongs to a majority.
        quorum: bool,
        /// Bytes of the longest text.
        message_bytes_max: u32,
    },
    /// The session is open on this connection.
    Opened {
        /// The session.
        session: SessionId,
        /// The number of its last command that this server has applied.
        last: ClientSeq,
        /// The name as the cluster has it.
        name: String,
    },
    /// The session can't be opened or attached.
    OpenRefused {
        /// Why.
        code: Code,
        /// In words.
        text: String,
    },
    /// Outcomes of commands, in the order of their numbers (a retry's apart).
    Acks(Vec<Ack>),
    /// The server can't vouch for commands from this number on: send them again, in order.
    Resend {
        /// The first.
        from: ClientSeq,
    },
    /// This server takes no commands that change state (`routing = "redirect"`): send them to the leader.
    Redirect {
        /// The leader.
        leader: ServerAddress,
    },
    /// Whether this server belongs to a majority, and who leads: sent when it changes.
    Quorum {
        /// It does.
        available: bool,
        /// Who leads, if this server knows.
        leader: Option<ServerId>,
    },
    /// The answer to `Lookup`.
    Room {
        /// The id of the question.
        id: u64,
        /// The room, if there is one.
        room: Option<RoomInfo>,
        /// Whether the answer is as fresh as was asked; false only without a quorum.
        fresh: bool,
    },
    /// The answer to `Rooms`: a page of them, by id.
    Rooms {
        /// The id of the question.
        id: u64,
        /// The rooms.
        rooms: Vec<RoomInfo>,
        /// Whether there are more after the last of these.
        more: bool,
    },
    /// The answer to `Who`.
    Who {
        /// The id of the question.
        id: u64,
        /// The names, sorted.
        users: Vec<String>,
    },
    /// The answer to `Subscribe`.
    Subscribed {
        /// The id of the question.
        id: u64,
        /// The room.
        room: RoomId,
        /// Whether there is such a room.
        exists: bool,
        /// Whether what follows is as fresh as was asked (`Until::Now`); false only without a quorum.
        fresh: bool,
    },
    /// The subscription has come to its end.
    End {
        /// The room.
        room: RoomId,
    },
    /// Something in a subscribed room.
    Item(Item),
    /// The answer to `Status`.
    Status {
        /// The id of the question.
        id: u64,
        /// This server's row.
        row: StatusRow,
        /// All servers, this one included, so that the others can be asked.
        servers: Vec<ServerAddress>,
        /// The cluster's name.
        cluster: String,
    },
    /// The answer to `Ping`.
    Pong {
        /// The id of the question.
        id: u64,
    },
    /// A request was refused; the connection goes on.
    Refused {
        /// The id of the request, 0 if it has none.
        id: u64,
        /// Why.
        code: Code,
        /// In words.
        text: String,
    },
    /// The connection ends here, and why.
    Fatal {
        /// In words.
        text: String,
    },
    /// In the place of items of a subscribed room that were asked for and are kept no more: the next item, if any comes, is the one
    /// after these.
    Gap {
        /// The room.
        room: RoomId,
        /// The positions of the first and the last of them; the first is 0 if this server can't know it.
        positions: (Position, Position),
        /// The numbers of the first and the last message among them; the first is 0 if this server can't know it. The second is below
        /// the first if there is none, and is in any case the number of the last message before the next item.
        seqs: (Seq, Seq),
    },
    /// The answer to `Usage`.
    Usage {
        /// The id of the question.
        id: u64,
        /// What it has used.
        usage: Usage,
    },
}

/// Where clients reach a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerAddress {
    /// The server.
    pub id: ServerId,
    /// `host:port` of its native client port.
    pub address: String,
    /// Its place on the ring.
    pub ring: u16,
    /// The port of its heartbeats, shown by the status table.
    pub heartbeat_port: u16,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ack {
    /// The command's number in the session.
    pub seq: ClientSeq,
    /// What it came to.
    pub outcome: Outcome,
}

/// What there is to know of a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoomInfo {
    /// The room.
    pub room: RoomId,
    /// Its name as its creator wrote it.
    pub name: String,
    /// Its topic.
    pub topic: String,
    /// How many people are in it.
    pub members: u32,
    /// Its last item.
    pub position: Position,
    /// Its last message.
    pub seq: Seq,
}

/// An item as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Item {
    /// The room.
    pub room: RoomId,
    /// Its place in the room.
    pub position: Position,
    /// Its number among the messages; 0 if it isn't one.
    pub seq: Seq,
    /// Its Lamport timestamp.
    pub lamport: Lamport,
    /// The leader's clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// The session that made it, 0 if none did.
    pub session: SessionId,
    /// The number of the command that made it.
    pub client_seq: ClientSeq,
    /// Who made it.
    pub user: String,
    /// What happened.
    pub what: What,
}

/// What happened in a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum What {
    /// A message and its text.
    Message(String),
    /// The room was made.
    Created,
    /// The user joined.
    Joined,
    /// The user left.
    Left,
    /// The user set the topic.
    Topic(String),
    /// The user took another name.
    Renamed(String),
}

/// How a server is, said by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StatusRow {
    /// The server.
    pub id: ServerId,
    /// What it is.
    pub role: Role,
    /// Whom it takes for the leader.
    pub leader: Option<ServerId>,
    /// Its term.
    pub term: u64,
    /// Its place on the ring.
    pub ring_position: u16,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Client connections that have said hello, the asker's not counted.
    pub clients: u64,
    /// Messages in all rooms, ever.
    pub messages: u64,
    /// The highest index that it knows to be committed.
    pub commit: u64,
    /// The highest index that it has applied.
    pub applied: u64,
    /// The end of its log.
    pub last_log: u64,
    /// Whether its log or state is out of step with the others', so that it must be repaired.
    pub repairing: bool,
    /// `host:port` for clients.
    pub address: String,
}

/// What a server is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Takes commands and orders them.
    Leader,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Doesn't vote.
    Learner,
}

/// Appends the frame of a request.
pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    frame::frame(out, |out| encode(request, out));
}

/// Appends the frame of a response.
pub fn encode_response(response: &Response, out: &mut Vec<u8>) {
    frame::frame(out, |out| match response {
        Response::Acks(acks) => encode_acks(acks, out),
        response => encode(response, out),
    });
}

/// The number of [`Response::Acks`], and of [`Outcome::Posted`] in it.
const ACKS: u8 = 3;
const POSTED: u8 = 0;

/// Appends the body of [`Response::Acks`], posts by hand: each message that is said comes to one.
fn encode_acks(acks: &[Ack], out: &mut Vec<u8>) {
    out.push(ACKS);
    varint::push(acks.len() as u64, out);
    for Ack { seq, outcome } in acks {
        varint::push(seq.0, out);
        match *outcome {
            Outcome::Posted {
                room,
                seq,
                position,
                lamport,
                time_ms,
            } => {
                out.push(POSTED);
                let numbers = [room.0, seq.0, position.0, lamport.0, time_ms];
                numbers.into_iter().for_each(|number| varint::push(number, out));
            }
            ref other => encode(other, out),
        }
    }
}

/// The request in a frame's body.
///
/// # Errors
/// [`Error::Malformed`].
pub fn decode_request(body: &[u8]) -> Result<Request, Error> {
    decode::<_, { 2 * limits::CLIENT_FRAME_BYTES_MAX }>(body, "request")
}

/// The number of [`Request::Command`], whose bytes are looked at where they are.
const COMMAND: u8 = 3;

/// The command in a frame's body, if that is a [`Request::Command`]: what [`decode_request`] gives, without a copy.
#[must_use]
pub fn command_in(body: &[u8]) -> Option<&[u8]> {
    let (&COMMAND, mut rest) = body.split_first()? else {
        return None;
    };
    let command = varint::take_bytes(&mut rest)?;
    rest.is_empty().then_some(command)
}

/// The response in a frame's body.
///
/// # Errors
/// [`Error::Malformed`].
pub fn decode_response(body: &[u8]) -> Result<Response, Error> {
    decode::<_, { 4 * limits::CLIENT_FRAME_BYTES_MAX }>(body, "response")
}

/// The number of [`Response::Item`], with which an item is encoded without owning its texts.
const ITEM: u32 = 12;

/// Appends the frame of an item: the bytes of `Response::Item`, without a copy of its texts before.
pub fn encode_item(item: &command::Item<'_>, out: &mut Vec<u8>) {
    // The variants of `What`, with borrowed texts, in the same order.
    #[derive(Serialize)]
    enum What<'a> {
        Message(&'a str),
        Created,
        Joined,
        Left,
        Topic(&'a str),
        Renamed(&'a str),
    }
    let (user, what) = match item.content {
        Content::Message { user, text } => (user, What::Message(text)),
        Content::Created { user } => (user, What::Created),
        Content::Joined { user } => (user, What::Joined),
        Content::Left { user } => (user, What::Left),
        Content::Topic { user, text } => (user, What::Topic(text)),
        Content::Renamed { user, name } => (user, What::Renamed(name)),
    };
    let place = (item.room, item.position, item.seq);
    let made = (item.stamp.lamport, item.stamp.time_ms, item.session, item.client_seq);
    frame::frame(out, |out| encode(&(ITEM, place, made, user, what), out));
}

#[cfg(test)]
mod tests;
