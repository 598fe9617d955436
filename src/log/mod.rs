//! The append-only log of one server: records in pre-written segments, recovery, the index by which history is found, and the
//! two worker threads. It stores payloads that it doesn't understand. May call `wire` (for what is inside a record of its own)
//! and the ground floor; knows of `cluster` only the shape of an entry.
//!
//! Everything that touches files goes through [`disk::Disk`], so that the simulator runs this code on simulated disks; the
//! threads of [`worker`] are thin shells around [`Log`](writer::Log) and [`Reader`](reader::Reader).
//!
//! To be read in this order: [`record`] and [`payload`] (the format), [`segment`], [`writer`], [`recovery`] (what counts after a
//! crash, and why) with the walk over the whole log, its doubts and where it begins, [`index`], [`sealed`], [`rooms`] and [`reader`], [`checkpoint`], [`prewrite`],
//! [`worker`], [`remove`], [`scrub`]; for tools that only look [`read_only`], [`inspect`] and [`examine`]; [`directory`] is the data directory as a whole, [`aside`] its end and new beginning.

pub mod aside;
pub mod blocks;
pub mod checkpoint;
pub mod directory;
pub mod disk;
mod doubt;
pub mod examine;
pub mod index;
pub mod inspect;
pub mod packed;
pub mod payload;
pub mod prewrite;
pub mod read_only;
pub mod reader;
pub mod reader_queue;
pub mod record;
pub mod recovery;
pub mod remove;
pub mod rooms;
pub mod scrub;
pub mod sealed;
pub mod segment;
pub mod sim_disk;
mod skipped;
pub mod start;
mod survey;
mod tail;
mod walk;
mod whole;
pub mod worker;
pub mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod testing;

pub use crate::cluster::message::{HardState, Record, Recovered};

use crate::cluster::message::{Entry, Hole};
use crate::types::{AppendId, GroupId, LogIndex, Position, RoomId, Seq};

/// What one turn of the node hands to the log writer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Append {
    /// By which it is confirmed; counts up by one.
    pub id: AppendId,
    /// In the order in which they are to stand.
    pub records: Vec<Record>,
    /// How far each group is committed, to ride along: written with the records or in the next seal.
    pub commits: Vec<(GroupId, LogIndex)>,
    /// Whether anybody waits for it. One without records and without haste needs no sync.
    pub sync: bool,
}

/// Where in a room reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadFrom {
    /// At the item of this position.
    Position(Position),
    /// At the item after the message of this number (whatever it is); 0 is the first item.
    AfterSeq(Seq),
}

/// A question to the reader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReadRequest {
    /// Entries from `from` on, at most up to `to`, and about `bytes_max` of payload (at least one entry).
    Entries {
        /// Repeated in the answer.
        token: u64,
        /// The group.
        group: GroupId,
        /// The first.
        from: LogIndex,
        /// The last that is wanted.
        to: LogIndex,
        /// How much.
        bytes_max: usize,
    },
    /// A room's items from a place on, about `bytes_max` of payload (at least one item if there is any).
    Items {
        /// Repeated in the answer.
        token: u64,
        /// The room.
        room: RoomId,
        /// The first.
        from: ReadFrom,
        /// How much.
        bytes_max: usize,
    },
}

/// The reader's answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReadAnswer {
    /// Consecutive entries, or none if the first isn't there (any more).
    Entries {
        /// Of the question.
        token: u64,
        /// The group.
        group: GroupId,
        /// The first index that was asked for.
        from: LogIndex,
        /// What there is.
        entries: Vec<Entry>,
    },
    /// Consecutive items of a room, or none if the room has nothing there yet.
    Items {
        /// Of the question.
        token: u64,
        /// The room.
        room: RoomId,
        /// The position of the first item, or where the next one will be if there is none. Later than what was asked for if
        /// that isn't kept any more.
        start: Position,
        /// How many messages the room has before `start`.
        before: Seq,
        /// What there is: (position, number or 0, entry).
        items: Vec<(Position, Seq, Entry)>,
    },
    /// What was asked for can't be read; it can be asked for again when the holes are filled.
    Damaged {
        /// Of the question.
        token: u64,
        /// The group.
        group: GroupId,
        /// The entries that can't be read.
        holes: Vec<Hole>,
        /// Where, and what is wrong: file and offset.
        what: String,
    },
}

/// An item that was applied: what the room index remembers. `index` never goes down within a room; one entry has at most one
/// item a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ItemRef {
    /// The room.
    pub room: RoomId,
    /// Its place there: one after the room's last.
    pub position: Position,
    /// Its number if it is a message, else 0.
    pub seq: Seq,
    /// The group that the entry is in.
    pub group: GroupId,
    /// The entry that it is made from.
    pub index: LogIndex,
}
