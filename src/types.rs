//! The small types that everything speaks in: one newtype for each kind of number, so that a
//! term can't be passed for an index. Nothing here knows of sockets, files or clocks.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

use crate::limits;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The value after this one; the highest stays (strangers send any number).
            #[must_use]
            pub fn next(self) -> Self {
                $name(self.0.saturating_add(1))
            }

            /// The value before this one; zero stays zero.
            #[must_use]
            pub fn previous(self) -> Self {
                $name(self.0.saturating_sub(1))
            }
        }
    };
}

number!(
    /// A Raft term: at most one leader each. 0 before the cluster is formed, 1 is that of the
    /// members entry, elections start at 2.
    Term(u64)
);
number!(
    /// A place in a group's replicated log; the first entry has 1, and 0 is "nothing".
    LogIndex(u64)
);
number!(
    /// A byte position in one server's log. Never leaves the machine.
    Lsn(u64)
);
number!(
    /// A replicated sequence with its own leader. Today's cluster has one, [`GroupId::ROOT`].
    GroupId(u32)
);
number!(
    /// A connection of this process, never used twice.
    ConnId(u64)
);
number!(
    /// What an append to the log is confirmed by: append *n* is durable when *n* or a later one
    /// is reported as persisted.
    AppendId(u64)
);
number!(
    /// The random name that a cluster got when it was formed; 0 is "not formed".
    ClusterId(u64)
);
number!(
    /// The random name of a data directory. A server that lost its directory is another voter.
    DirectoryId(u64)
);
number!(
    /// How often a data directory has been started.
    Boot(u64)
);
number!(
    /// Where a server stands on the ring; the highest eligible one leads.
    RingPosition(u16)
);
number!(
    /// A client session: the log index of the entry that opened it.
    SessionId(u64)
);
number!(
    /// A room: the log index of the entry that created it. The lobby is [`RoomId::LOBBY`].
    RoomId(u64)
);
number!(
    /// The place of an item (message, join, topic …) in its room: 1, 2, 3 … without gaps.
    Position(u64)
);
number!(
    /// The number of a message in its room: 1, 2, 3 … without gaps; 0 for items that aren't messages.
    Seq(u64)
);
number!(
    /// The number of a command in its session: 1, 2, 3 … without gaps.
    ClientSeq(u64)
);
number!(
    /// A Lamport timestamp.
    Lamport(u64)
);

impl GroupId {
    /// The group that holds accounts and the map of rooms, and today everything else too.
    pub const ROOT: GroupId = GroupId(0);
}

impl RoomId {
    /// The room that exists from the start: made by the members entry, which is always entry 1.
    pub const LOBBY: RoomId = RoomId(1);
}

/// A moment of the monotonic clock, in microseconds since an arbitrary start (of the process, of the simulation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// A moment so many milliseconds after the start.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Tick {
        Tick(ms * 1000)
    }

    /// This moment and `span` more.
    #[must_use]
    pub const fn after(self, span: Span) -> Tick {
        Tick(self.0.saturating_add(span.0))
    }

    /// How long ago `earlier` was; nothing if it is yet to come.
    #[must_use]
    pub const fn since(self, earlier: Tick) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// A stretch of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

impl Span {
    /// So many milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Span {
        Span(ms * 1000)
    }

    /// In whole milliseconds, rounded down.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0 / 1000
    }

    /// `n` times as long.
    #[must_use]
    pub const fn times(self, n: u64) -> Span {
        Span(self.0.saturating_mul(n))
    }
}

/// What the clocks say, read once a turn and handed down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Now {
    /// The monotonic clock, for everything that is decided by time.
    pub tick: Tick,
    /// The wall clock in milliseconds since 1970, only ever stamped on messages, never compared.
    pub wall_ms: u64,
}

/// How important an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Somebody must act.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What an operator wants to know.
    Info,
    /// For developers.
    Debug,
}

/// What a process has used until now, as the system counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Usage {
    /// Microseconds of processor time in its own code.
    pub user_us: u64,
    /// Microseconds of processor time in the system's.
    pub system_us: u64,
    /// Bytes of memory that it holds now; 0 if the system doesn't say.
    pub resident_bytes: u64,
    /// The processors on which it may run; empty if the system doesn't say.
    pub processors: Vec<u16>,
    /// The processor on which this was answered.
    pub processor: u16,
    /// Microseconds within which 99.9 % of its poll loop's turns of the last minute or two ended; 0 without such a loop.
    pub turn_most_us: u64,
    /// Microseconds of the longest of these turns.
    pub turn_longest_us: u64,
}

/// The `id` of a server in the configuration, kept inline so that it is `Copy`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId {
    bytes: [u8; limits::SERVER_ID_BYTES_MAX],
}

impl ServerId {
    /// Takes 1 to [`limits::SERVER_ID_BYTES_MAX`] ASCII letters, digits, `-`, `_` or `.`; anything else is `None`.
    #[must_use]
    pub fn new(text: &str) -> Option<ServerId> {
        let fits = !text.is_empty() && text.len() <= limits::SERVER_ID_BYTES_MAX;
        let clean = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !fits || !clean {
            return None;
        }
        let mut bytes = [0; limits::SERVER_ID_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(ServerId { bytes })
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|&b| b == 0).unwrap_or(self.bytes.len());
        std::str::from_utf8(&self.bytes[..end]).unwrap_or("?")
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ServerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ServerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ServerId, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = ServerId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a server id")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ServerId, E> {
                ServerId::new(text).ok_or_else(|| E::custom("not a server id"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Shared, immutable bytes: an entry's payload is the same memory in the log batch, in the cache
/// and in the frames to every follower. What came together may be slices of one piece of memory ([`Pieces`]), which lives as long as
/// any of them.
#[derive(Clone)]
pub struct Blob {
    memory: Arc<[u8]>,
    from: usize,
    to: usize,
}

impl Blob {
    /// Copies the bytes once.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Blob {
        Blob::of(Arc::from(bytes), 0, bytes.len())
    }

    /// No bytes.
    #[must_use]
    pub fn empty() -> Blob {
        Blob::new(&[])
    }

    fn of(memory: Arc<[u8]>, from: usize, to: usize) -> Blob {
        Blob { memory, from, to }
    }
}

impl std::ops::Deref for Blob {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.from..self.to]
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Blob) -> bool {
        **self == **other
    }
}

impl Eq for Blob {}

impl std::hash::Hash for Blob {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// Bytes that are gathered one behind the other to become blobs in one piece of memory: one allocation for all that comes in a turn.
/// Keeps the memory in which it gathers for the next time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pieces {
    /// Bytes of all pieces.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One piece more, of what `write` appends.
    pub fn push_with<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let written = write(&mut self.bytes);
        self.ends.push(self.bytes.len());
        written
    }

    /// One piece more.
    pub fn push(&mut self, piece: &[u8]) {
        self.push_with(|bytes| bytes.extend_from_slice(piece));
    }

    /// The pieces in their order; there are none any more then.
    pub fn take(&mut self) -> impl Iterator<Item = Blob> {
        let memory: Arc<[u8]> = Arc::from(self.bytes.as_slice());
        self.bytes.clear();
        self.bytes.shrink_to(limits::PIECES_KEPT_BYTES);
        let mut from = 0;
        self.ends
            .drain(..)
            .map(move |to| Blob::of(Arc::clone(&memory), std::mem::replace(&mut from, to), to))
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        struct Raw;
        impl Visitor<'_> for Raw {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob::new(bytes))
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob::new(&bytes))
            }
        }
        deserializer.deserialize_bytes(Raw)
    }
}
