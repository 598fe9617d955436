//! Commands and what they come to: the vocabulary of the replicated state. A command is checked in form and size before it
//! enters the log; what depends on state is a result of `apply`. An entry's items can be told from the entry alone (the
//! place in the room apart), so that history read from the log is what the live readers saw.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::types::{ClientSeq, Lamport, LogIndex, Position, RoomId, Seq, ServerId, SessionId};

/// What the leader adds to a command when it enters the log; nothing else in an entry is the leader's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// One more than everything that the leader and the client had seen.
    pub lamport: Lamport,
    /// The leader's wall clock in milliseconds since 1970; never goes back in the log.
    pub time_ms: u64,
    /// The age of the log in milliseconds: what expiry counts.
    pub age_ms: u64,
}

/// The name that a client's key gives it: a hash of the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 16]);

/// A hash of a session's secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretHash(pub [u8; 16]);

/// A hash of an idempotency key and line number, as the client made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DedupKey(pub [u8; 16]);

/// A name of a person or room: as it was typed, and as it is compared. Folded at admission, carried in the
/// command, so that every server folds alike whatever its Unicode tables. A clone shares the memory: a name stands in several tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// As it is shown.
    pub shown: Arc<str>,
    /// As it is compared.
    pub folded: Arc<str>,
}

impl Name {
    /// Of these two forms; where they are the same, they are in memory once.
    #[must_use]
    pub fn new(shown: &str, folded: &str) -> Name {
        let folded: Arc<str> = folded.into();
        let shown = if *folded == *shown {
            Arc::clone(&folded)
        } else {
            shown.into()
        };
        Name { shown, folded }
    }
}

/// The head of a command of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Head {
    /// The session.
    pub session: SessionId,
    /// The number of the command in the session: apply takes only the one after the last.
    pub seq: ClientSeq,
    /// The lowest number whose outcome the client doesn't know yet; outcomes below it are forgotten.
    pub unacknowledged: ClientSeq,
    /// The highest Lamport timestamp that the client has seen.
    pub lamport: Lamport,
}

/// A command as it stands in the log, behind its [`Stamp`]. The kinds' numbers are in `wire::command`. One that was decoded borrows its texts
/// from the bytes that it was decoded from: every message is decoded several times, and none of these needs a copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command<'a> {
    /// A message. `user` is the session's name, so that the entry can be read without the state; another is refused.
    Post {
        /// The session and number.
        head: Head,
        /// The room.
        room: RoomId,
        /// The name under which it was sent.
        user: Cow<'a, str>,
        /// What it says.
        text: Cow<'a, str>,
        /// The same key of the same client's key posts only once.
        dedup: Option<DedupKey>,
    },
    /// Makes a room, or finds it if `or_find`.
    Create {
        /// The session and number.
        head: Head,
        /// The name under which it was sent.
        user: Cow<'a, str>,
        /// The room's name.
        room: Name,
        /// A room of that name that exists is the outcome, not an error.
        or_find: bool,
    },
    /// Becomes a member of a room.
    Join {
        /// The session and number.
        head: Head,
        /// The name under which it was sent.
        user: Cow<'a, str>,
        /// The room's name.
        room: Name,
    },
    /// Leaves a room.
    Leave {
        /// The session and number.
        head: Head,
        /// The name under which it was sent.
        user: Cow<'a, str>,
        /// The room.
        room: RoomId,
    },
    /// Sets a room's topic.
    Topic {
        /// The session and number.
        head: Head,
        /// The name under which it was sent.
        user: Cow<'a, str>,
        /// The room.
        room: RoomId,
        /// The new topic; may be empty.
        text: Cow<'a, str>,
    },
    /// Takes another name for the session.
    Rename {
        /// The session and number.
        head: Head,
        /// The name until now.
        user: Cow<'a, str>,
        /// The new one.
        name: Name,
    },
    /// Takes the place of a command that was refused at admission, so that the session goes on after it.
    Skip {
        /// The session and number.
        head: Head,
        /// Why it was refused.
        code: Code,
    },
    /// Ends the session: its memberships end, and its name is free unless another session of the key holds it.
    Close {
        /// The session and number.
        head: Head,
        /// The name under which it was sent.
        user: Cow<'a, str>,
    },
    /// Opens a session. The same secret again finds the session that it opened.
    Open {
        /// The name that the session takes.
        name: Name,
        /// Who holds the name.
        key: KeyId,
        /// What the client proves itself by when it attaches elsewhere.
        secret: SecretHash,
        /// The highest Lamport timestamp that the client has seen.
        lamport: Lamport,
    },
    /// From a server: these sessions are connected to it.
    Touch {
        /// The server.
        server: ServerId,
        /// At most `limits::TOUCH_SESSIONS_MAX`.
        sessions: Vec<SessionId>,
    },
    /// From the leader: the session was silent for so long that its name is free; its memberships end.
    /// Without effect if the session has been heard of since.
    Release {
        /// The session.
        session: SessionId,
        /// Its name, so that the entry can be read without the state.
        user: Cow<'a, str>,
    },
    /// From the leader: the session has expired; its outcomes are forgotten.
    Expire {
        /// The session.
        session: SessionId,
    },
    /// From the leader: idempotency keys older than the session expiry are forgotten.
    ForgetKeys,
    /// From the leader: the settings that apply must know.
    Settings(Settings),
    /// From the leader: what stands in entries up to this one isn't shown any more, by any server. Never takes anything back.
    Trim {
        /// The last entry that isn't shown; at most the entry before this command's own counts.
        index: LogIndex,
    },
}

/// What `apply` must know of the configuration: replicated, so that a file that is being edited can't part the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    /// Log age after which a silent session and an idempotency key are forgotten, in milliseconds.
    pub session_expiry_ms: u64,
    /// Log age after which a silent session's name is free, in milliseconds.
    pub name_release_ms: u64,
}

impl Default for Settings {
    /// What holds before the leader's first settings entry.
    fn default() -> Settings {
        Settings {
            session_expiry_ms: limits::SESSION_EXPIRY_DEFAULT.as_ms(),
            name_release_ms: limits::NAME_RELEASE.as_ms(),
        }
    }
}

/// What a command came to. Kept for the session until the client has acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The message stands in the room.
    Posted {
        /// The room.
        room: RoomId,
        /// Its number there.
        seq: Seq,
        /// Its place there.
        position: Position,
        /// Its Lamport timestamp.
        lamport: Lamport,
        /// The leader's clock, in milliseconds since 1970.
        time_ms: u64,
    },
    /// The room was made, found or joined.
    Room {
        /// The room.
        room: RoomId,
        /// Its name as its creator wrote it.
        name: Arc<str>,
        /// Its topic.
        topic: Arc<str>,
        /// Its last item at that moment.
        position: Position,
        /// Whether this command made it.
        created: bool,
    },
    /// Done; there is nothing more to say.
    Done,
    /// Refused, and why.
    Refused(Code),
}

/// Why a command was refused. The number of a code is part of the formats; new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Code {
    /// There is no such room.
    NoSuchRoom,
    /// A room of that name exists.
    RoomExists,
    /// Another key holds the name.
    NameTaken,
    /// The name is empty, too long, or has characters that names can't have.
    BadName,
    /// The room name is empty, too long, or has characters that names can't have.
    BadRoomName,
    /// The text is empty.
    EmptyText,
    /// The text is longer than `message_size_max`.
    TextTooLong,
    /// The text has characters that texts can't have, or isn't UTF-8.
    BadText,
    /// The session isn't a member of the room.
    NotMember,
    /// The command was sent under a name that the session doesn't have.
    WrongName,
    /// The session is in as many rooms as it may be.
    TooManyRooms,
    /// The cluster has as many rooms as it may have.
    RoomsFull,
    /// The cluster has as many sessions as it may have.
    SessionsFull,
    /// The cluster keeps as many idempotency keys as it may.
    KeysFull,
    /// The session has expired or never was.
    NoSuchSession,
    /// The session's secret is another.
    WrongSecret,
    /// The command can't be read.
    Malformed,
    /// No open session on this connection.
    NotOpen,
    /// The server can't take more of these now.
    Busy,
}

/// What stands in a room at a position.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Item<'a> {
    /// The room.
    pub room: RoomId,
    /// Its place in the room.
    pub position: Position,
    /// Its number among the messages; 0 if it isn't one.
    pub seq: Seq,
    /// What the leader stamped on it.
    pub stamp: Stamp,
    /// The session and number by which a client knows its own; 0 if no command of a session made it.
    pub session: SessionId,
    /// The command's number in the session.
    pub client_seq: ClientSeq,
    /// What happened.
    pub content: Content<'a>,
}

/// What an item says, borrowed from the entry's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content<'a> {
    /// Somebody said something.
    Message {
        /// Who.
        user: &'a str,
        /// What.
        text: &'a str,
    },
    /// The room was made.
    Created {
        /// By whom.
        user: &'a str,
    },
    /// Somebody joined.
    Joined {
        /// Who.
        user: &'a str,
    },
    /// Somebody left, closed the session, or vanished.
    Left {
        /// Who.
        user: &'a str,
    },
    /// Somebody set the topic.
    Topic {
        /// Who.
        user: &'a str,
        /// To what.
        text: &'a str,
    },
    /// Somebody took another name.
    Renamed {
        /// The old name.
        user: &'a str,
        /// The new name.
        name: &'a str,
    },
}
