//! What servers say to each other about the replicated log: the frames of a peer link and the datagrams of the
//! heartbeat socket. The variants' numbers are part of the format: new ones go to the end.

use serde::{Deserialize, Serialize};

use crate::types::{Blob, Boot, ClusterId, DirectoryId, GroupId, LogIndex, Pieces, RingPosition, ServerId, Term};

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the group's log.
    pub index: LogIndex,
    /// The term of the leader that made it.
    pub term: Term,
    /// Who understands the payload.
    pub kind: EntryKind,
    /// What it says.
    pub payload: Blob,
}

/// Who understands an entry's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// Nobody: the empty entry with which a leader begins its term.
    Noop,
    /// The replica: a [`Members`], in the form of `cluster::members`.
    Members,
    /// The state machine: a stamped command.
    Command,
}

impl EntryKind {
    /// Its number, in records and frames and in the check over the log.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            EntryKind::Noop => 0,
            EntryKind::Members => 1,
            EntryKind::Command => 2,
        }
    }

    /// The kind of that number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<EntryKind> {
        [EntryKind::Noop, EntryKind::Members, EntryKind::Command]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// Entries that are gathered one behind the other; their payloads share one piece of memory, but for members, which stay for long, and
/// alone.
#[derive(Debug, Default)]
pub struct Bundle {
    heads: Vec<(LogIndex, Term, EntryKind)>,
    payloads: Pieces,
}

impl Bundle {
    /// None yet, and memory for so many.
    #[must_use]
    pub fn with_capacity(count: usize) -> Bundle {
        Bundle {
            heads: Vec::with_capacity(count),
            payloads: Pieces::default(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// One more.
    pub fn push(&mut self, index: LogIndex, term: Term, kind: EntryKind, payload: &[u8]) {
        self.heads.push((index, term, kind));
        self.payloads.push(payload);
    }

    /// The entries, in their order.
    #[must_use]
    pub fn entries(mut self) -> Vec<Entry> {
        let entry = |((index, term, kind), payload): (_, Blob)| Entry {
            index,
            term,
            kind,
            payload: if kind == EntryKind::Members {
                Blob::new(&payload)
            } else {
                payload
            },
        };
        self.heads.into_iter().zip(self.payloads.take()).map(entry).collect()
    }
}

/// The end of a log, or any place in it: compared by term first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The term of the entry.
    pub term: Term,
    /// Its index.
    pub index: LogIndex,
}

/// Who belongs to the cluster: the payload of the first entry of every group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Members {
    /// The random name that the cluster got when it was formed.
    pub cluster: ClusterId,
    /// The members, sorted by id.
    pub members: Vec<Member>,
}

/// One member of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its name in the configuration.
    pub id: ServerId,
    /// Its place on the ring.
    pub ring: RingPosition,
    /// The data directory whose votes and answers count.
    pub directory: DirectoryId,
}

/// A frame of the peer link that concerns the replicated log. Who sends it and what each role does with it stands at each variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Anybody to anybody, when nothing else was sent for a heartbeat interval: the link works.
    Ping,
    /// From a server that would stand, to all others. Changes nothing at the receiver.
    PreVote {
        /// The group.
        group: GroupId,
        /// The term that the sender would stand in.
        term: Term,
        /// The end of the sender's log.
        last: LogPosition,
        /// The sender's place on the ring; an eligible server that outranks it refuses and stands itself.
        ring: RingPosition,
        /// Set when the leader has asked the sender to stand: loyalty to that leader doesn't count.
        transfer: bool,
    },
    /// The answer to a `PreVote`.
    PreVoteAnswer {
        /// The group.
        group: GroupId,
        /// The term of the question, if granted; else the receiver's own.
        term: Term,
        /// Whether the receiver would vote for the sender.
        granted: bool,
        /// Why not.
        refusal: Refusal,
    },
    /// From a candidate, to all others.
    Vote {
        /// The group.
        group: GroupId,
        /// The candidate's term.
        term: Term,
        /// The end of its log.
        last: LogPosition,
        /// As in `PreVote`.
        transfer: bool,
    },
    /// The answer to a `Vote`, sent when term and vote are on the voter's disk.
    VoteAnswer {
        /// The group.
        group: GroupId,
        /// The voter's term.
        term: Term,
        /// Whether the vote is the candidate's.
        granted: bool,
    },
    /// From the leader, to a follower: entries, or none as a sign of life. Advances of the commit position are sent at once.
    Append {
        /// The group.
        group: GroupId,
        /// The leader's term.
        term: Term,
        /// The entry before the first of `entries`.
        prev: LogPosition,
        /// The running check over the log up to and including `prev`; 0 if the leader doesn't know it.
        prev_chain: u32,
        /// How far the leader's log is committed.
        commit: LogIndex,
        /// Counts the leader's questions; the answer repeats it, and so proves that it was sent after the question.
        round: u64,
        /// Consecutive entries after `prev`.
        entries: Vec<Entry>,
    },
    /// The answer to an `Append`: when more has become durable, when the round is a new one, and to the leader's next heartbeat in any
    /// case.
    AppendAnswer {
        /// The group.
        group: GroupId,
        /// The follower's term.
        term: Term,
        /// The highest round of the leader that the follower has seen in this term.
        round: u64,
        /// Whether the logs agree.
        result: AppendResult,
    },
    /// From the leader that hands over, to the server that is to lead: stand at once.
    TransferNow {
        /// The group.
        group: GroupId,
        /// The leader's term.
        term: Term,
    },
    /// From a follower to its leader: how far must I have applied to show everything that was committed when I asked?
    ReadIndex {
        /// The group.
        group: GroupId,
        /// Chosen by the asker, repeated in the answer.
        id: u64,
    },
    /// The answer to a `ReadIndex`.
    ReadIndexAnswer {
        /// The group.
        group: GroupId,
        /// The id of the question.
        id: u64,
        /// The position, or `None` if the receiver doesn't lead (any more).
        index: Option<LogIndex>,
    },
    /// From a member to a server of the configuration with an empty log whose directory is in `members`: take this first entry.
    Form {
        /// Entry 1 of every group.
        members: Members,
    },
    /// The first frame of a link, and again when the sender has been formed: a first start waits until all have said that
    /// they are empty, and must not depend on datagrams.
    Hello {
        /// The sender's cluster; 0 while it has no members entry.
        cluster: ClusterId,
        /// A digest of the ids and ring positions in the sender's configuration.
        members: u64,
        /// Whether the sender's directory is new in the place of another: then it takes no part in a first start, however empty it is.
        replaced: bool,
    },
    /// From anybody whose log has entries that it can't read, to anybody: give me these, as far as you know them to be committed.
    Fetch {
        /// The group.
        group: GroupId,
        /// The first.
        from: LogIndex,
        /// The last.
        to: LogIndex,
    },
    /// The answer to a `Fetch`.
    Fetched {
        /// The group.
        group: GroupId,
        /// The first index that was asked for.
        from: LogIndex,
        /// Consecutive committed entries from there on, perhaps fewer than were asked for; none if the sender doesn't have the first.
        entries: Vec<Entry>,
    },
    /// From the leader, to a follower that needs entries which the leader no longer holds: a piece of a checkpoint that covers them.
    Checkpoint {
        /// The group.
        group: GroupId,
        /// The leader's term.
        term: Term,
        /// Which checkpoint.
        id: CheckpointId,
        /// Where in its portable form the piece begins.
        offset: u64,
        /// The piece; empty to ask how much the follower has.
        bytes: Blob,
    },
    /// The answer to a `Checkpoint`: how much of it the follower has.
    CheckpointAnswer {
        /// The group.
        group: GroupId,
        /// The follower's term.
        term: Term,
        /// Which checkpoint.
        id: CheckpointId,
        /// The offset of the piece that comes next; all of its bytes when the checkpoint is installed.
        next: u64,
    },
    /// From anybody, when a link comes up and with each answer to a pre-vote: this entry is committed. A receiver that holds it knows that too, then.
    Committed {
        /// The group.
        group: GroupId,
        /// The entry.
        at: LogPosition,
    },
    /// From the leader to a member whose log ends before what it had said was on its disk: its disk has lost something, and it must begin anew
    /// with a directory of another name, without a vote until it is admitted.
    LogLost {
        /// The group.
        group: GroupId,
        /// The leader's term.
        term: Term,
        /// What had been acknowledged.
        acknowledged: LogIndex,
    },
}

/// Why a pre-vote was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// It was granted.
    None,
    /// The asked server hears its leader over a link.
    HasLeader,
    /// The asker's log is behind.
    LogBehind,
    /// The asked server outranks the asker and stands itself.
    Outranked,
    /// The asker's term is behind.
    TermBehind,
}

/// Whether the log of a follower agrees with the leader's at the place where an append begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppendResult {
    /// It does. Entries up to `received` agree with the leader's, those up to `durable` are on the follower's disk.
    Matched {
        /// Keeps the leader in office.
        received: LogIndex,
        /// Commits.
        durable: LogIndex,
    },
    /// It doesn't; the leader looks for the place at or before `hint`.
    Mismatch {
        /// The `prev` that was refused, so that an old answer is recognised.
        refused: LogIndex,
        /// The last entry of the follower that can agree: its end, or the last one of a term not above the refused one.
        hint: LogPosition,
    },
    /// Nothing is wrong with the place, but an entry before it can't be read, and nobody says that it is committed, or nobody else has it:
    /// the follower wants the log from there on again, and vouches for nothing after it.
    Damaged {
        /// The entry.
        from: LogIndex,
    },
}

/// What a server multicasts each heartbeat interval, and at once when something has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// How the sender is.
    pub flags: Flags,
    /// The servers to which the sender has a working peer link.
    pub links: Vec<ServerId>,
    /// One part for each group.
    pub groups: Vec<GroupBeat>,
}

/// How a server is, as far as leading goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flags {
    /// Has a log: is a member of a formed cluster.
    pub formed: bool,
    /// May be leader: votes, disk answers and has room left, caught up with applying, not repairing, not about to stop.
    pub fit: bool,
    /// Is stopping.
    pub stopping: bool,
}

/// The part of a heartbeat that concerns one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupBeat {
    /// The group.
    pub group: GroupId,
    /// The sender's term.
    pub term: Term,
    /// Whom the sender takes for the leader.
    pub leader: Option<ServerId>,
    /// The end of the sender's log.
    pub last: LogPosition,
    /// How far the sender knows the log to be committed.
    pub commit: LogIndex,
    /// The last index divisible by `limits::DIGEST_EVERY` that the sender applied, and the digest of its state there.
    pub digest: (LogIndex, u64),
}

/// What a datagram says. All are multicast, or sent to each server where there is no multicast; `to` says whom it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Datagram {
    /// For everybody.
    Heartbeat(Heartbeat),
    /// For the sender's successor on the ring of live servers: Le Lann–Chang–Roberts.
    Token {
        /// Whom it is for.
        to: ServerId,
        /// The group whose leader is sought.
        group: GroupId,
        /// What it says.
        token: Token,
    },
}

/// The token of a ring election (Le Lann 1977, Chang and Roberts 1979): it goes from neighbour to neighbour, the better
/// candidate's goes on, and the one that comes back to its origin nominates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The server that it nominates.
    pub origin: ServerId,
    /// The term after the one that lost its leader: tokens of other rounds are old.
    pub round: Term,
    /// The end of the origin's log: compared first.
    pub last: LogPosition,
    /// The origin's place on the ring: compared when the logs are equal.
    pub ring: RingPosition,
    /// How many neighbours have passed it on; at most twice the number of servers.
    pub hops: u16,
}

/// Who sent a datagram: checked by `wire` and the server before the datagram reaches the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sender {
    /// The cluster, 0 while it isn't formed.
    pub cluster: ClusterId,
    /// A digest of the members (of the configured servers while not formed): two that differ must not talk.
    pub members: u64,
    /// The server.
    pub server: ServerId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// How often that has been started.
    pub boot: Boot,
}

/// What a server must remember of a group beside its entries. A vote is durable before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The highest term that the server has seen.
    pub term: Term,
    /// For whom it voted in that term: the server and its data directory.
    pub vote: Option<(ServerId, DirectoryId)>,
    /// How far it knew the log to be committed.
    pub commit: LogIndex,
}

/// Something to be appended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Takes the place of the group's earlier hard state.
    State {
        /// The group.
        group: GroupId,
        /// The state.
        state: HardState,
    },
    /// Takes the place of whatever the group had at this index and above.
    Entry {
        /// The group.
        group: GroupId,
        /// The entry.
        entry: Entry,
        /// The running check over the group's log up to and including this entry. 0 where it isn't known: the log was cut
        /// below what was in memory after a restart, and the leader didn't know it either. Nothing can be checked there.
        chain: u32,
    },
    /// Takes the place of the one entry of this index, that can't be read; whatever follows it stays.
    Fill {
        /// The group.
        group: GroupId,
        /// The entry, committed, as another server has it.
        entry: Entry,
        /// The running check up to and including it; 0 if it isn't known.
        chain: u32,
    },
    /// The group's log begins anew behind a checkpoint that is durable: all entries before are void.
    Base {
        /// The group.
        group: GroupId,
        /// The last entry that is in the checkpoint.
        at: LogPosition,
        /// The running check up to and including it.
        chain: u32,
        /// The members entry in force there.
        members: Entry,
    },
}

/// What recovery found for one group; all of it is synced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Recovered {
    /// The last hard state, with the highest commit position that any record carried.
    pub state: HardState,
    /// The entry before the first that the log holds: what is at or before it is only in a checkpoint. 0 for a log that holds all.
    pub base: LogPosition,
    /// The running check over the log up to and including `base`; 0 if it isn't known.
    pub base_chain: u32,
    /// The last entry.
    pub last: LogPosition,
    /// The running check over the log up to and including the last entry; 0 if it isn't known.
    pub last_chain: u32,
    /// The first index of each term that the log has, ascending: (index, term). Of the term of `base` only that it is there.
    pub terms: Vec<(LogIndex, Term)>,
    /// The members entries, ascending: the last one that was committed when the log's first segment began, and those after it.
    pub members: Vec<Entry>,
    /// Entries after `base` that the log should hold and that can't be read, ascending.
    pub holes: Vec<Hole>,
}

/// An entry that a log should hold and that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hole {
    /// Its index.
    pub index: LogIndex,
    /// Its term, if what is left of the record says it.
    pub term: Option<Term>,
}

/// The name of a checkpoint: whatever server made it, the same name stands for the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckpointId {
    /// The last entry that is in it.
    pub at: LogPosition,
    /// The running check over the log up to and including that entry.
    pub chain: u32,
    /// The digest of the state.
    pub digest: u64,
    /// Bytes of its portable form.
    pub bytes: u64,
    /// CRC-32C of these bytes.
    pub check: u32,
}
