//! Housekeeping: what a log needs done that nobody waits for. Checkpoints are made here, from the one before and the entries read
//! back from the disk, and with them the index of each segment that is full; what retention gives up is removed; checkpoints from other servers
//! are stored and handed out; old segments are read now and then, so that damage is found while others still hold the same.
//! May call `log`, `wire`, `chat`, of `cluster` the shapes of messages and the chain, and the ground floor.

pub mod keeper;
mod making;
pub mod offline;
pub mod open;
mod rescan;
mod retaining;
mod scrubbing;
#[cfg(test)]
mod tests;
mod transfer;
pub mod worker;

use crate::chat::State;
use crate::cluster::message::{CheckpointId, Entry, Hole};
use crate::types::{Blob, GroupId, LogIndex};

/// Something for the housekeeper.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeepJob {
    /// Make a checkpoint at an entry that is durable and applied.
    Make {
        /// The last entry that is to be in it.
        index: LogIndex,
        /// The digest of the live state there.
        digest: u64,
    },
    /// What is at or before `index` needn't be kept.
    Trim {
        /// The last entry that nobody reads any more, and at which a majority's digests agree.
        index: LogIndex,
    },
    /// A piece of another server's checkpoint; empty to ask how much there is.
    Store {
        /// Which.
        id: CheckpointId,
        /// Where it begins.
        offset: u64,
        /// The piece.
        bytes: Blob,
    },
    /// A checkpoint that was installed: the log begins behind it now (`taken`), or goes on without it.
    Begun {
        /// The last entry in it.
        index: LogIndex,
        /// Whether the log begins behind it.
        taken: bool,
    },
    /// A piece of a checkpoint of ours is wanted, for another server.
    Read {
        /// Repeated in the answer.
        token: u64,
        /// Which; `None` for the oldest, after which all entries are kept.
        id: Option<CheckpointId>,
        /// Where the piece begins.
        offset: u64,
    },
}

/// What the housekeeper has to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kept {
    /// A checkpoint was made and is durable.
    Made {
        /// Which.
        id: CheckpointId,
    },
    /// A checkpoint that was asked for can't be made now.
    Unmade {
        /// The entry.
        index: LogIndex,
        /// Why not.
        why: String,
    },
    /// A checkpoint that was made from the disk has another digest than the live state: one of the two is wrong.
    Differs {
        /// The entry.
        index: LogIndex,
        /// What the live state had.
        live: u64,
        /// What came of the disk.
        made: u64,
    },
    /// So much of another server's checkpoint is there.
    Stored {
        /// Which.
        id: CheckpointId,
        /// The offset of the piece that is missing next.
        next: u64,
    },
    /// Another server's checkpoint is complete and durable.
    Installed {
        /// Which.
        id: CheckpointId,
        /// The members entry in force.
        members: Entry,
        /// The state.
        state: Box<State>,
    },
    /// A piece of a checkpoint of ours.
    Piece {
        /// Of the question.
        token: u64,
        /// Which, and where, and the bytes; `None` if there is no such checkpoint.
        piece: Option<(CheckpointId, u64, Blob)>,
    },
    /// What is kept has changed, or is told for the first time.
    Holdings(Holdings),
    /// Entries were found that can't be read.
    Damaged {
        /// The group.
        group: GroupId,
        /// Which.
        holes: Vec<Hole>,
        /// Where, and what is wrong: file and offset.
        what: String,
    },
    /// Bytes that are free on the disk: at the start, and when it has changed.
    Space {
        /// How many.
        free: u64,
    },
    /// Something that the operator should know.
    Said {
        /// How important it is.
        level: crate::types::Level,
        /// In words.
        text: String,
    },
}

/// What is kept of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holdings {
    /// The first entry that is in the log.
    pub first: LogIndex,
    /// Checkpoints, ascending.
    pub marks: Vec<Mark>,
}

/// A checkpoint that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The last entry in it.
    pub index: LogIndex,
    /// The log's age there, in milliseconds.
    pub age_ms: u64,
    /// Bytes of the log from there to its end.
    pub bytes_after: u64,
}
