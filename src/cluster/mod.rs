//! Pure: who is alive, who leads, what is committed. May call the ground floor only.

pub mod chain;
pub mod message;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::cluster::message::{Datagram, Entry, EntryKind, LogPosition, Message, Record, Recovered, Sender};
use crate::config::Config;
use crate::types::{AppendId, Blob, Boot, ClusterId, DirectoryId, Level, LogIndex, Now, ServerId, Term, Tick};

/// What a server is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Leads.
    Leader,
    /// Votes, and follows whoever leads.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Has no vote: not formed yet, or not with this directory.
    Learner,
}

/// Something that should happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send this over the link to a server, if there is one.
    Send(ServerId, Message),
    /// Multicast this.
    Datagram(Datagram),
    /// Append this to the log; call [`Cluster::appended`] with the id of the append that it went into.
    Record(Record),
    /// A follower is behind the cache: read entries for it and hand them to [`Cluster::entries_read`]. At most one is
    /// outstanding for each follower.
    ReadEntries {
        /// For whom.
        follower: ServerId,
        /// The first.
        from: LogIndex,
        /// The last that is wanted.
        to: LogIndex,
        /// About how much (at least one entry).
        bytes_max: usize,
    },
    /// The answer to [`Cluster::read`]: everything up to `index` must be applied before the reader is answered.
    ReadDone {
        /// What `read` gave.
        token: u64,
        /// `None`: no majority could be asked.
        index: Option<LogIndex>,
    },
    /// Another leader is known, or none any more.
    LeaderChanged,
    /// Something that the operator should read.
    Event {
        /// How important it is.
        level: Level,
        /// What happened, in words.
        text: String,
    },
    /// The members and our configuration differ; the process must end with this message.
    Misconfigured(String),
}

/// The replicated log of one server and all that decides about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    config: Arc<Config>,
    me: ServerId,
    directory: DirectoryId,
    boot: Boot,
    outputs: VecDeque<Output>,
}

impl Cluster {
    /// A server that has recovered its log. The error says how the members in the log differ from the configuration.
    pub fn new(
        config: Arc<Config>,
        me: ServerId,
        directory: DirectoryId,
        boot: Boot,
        recovered: Recovered,
        now: Now,
        seed: u64,
    ) -> Result<Cluster, String> {
        let _ = (recovered, now, seed);
        Ok(Cluster {
            config,
            me,
            directory,
            boot,
            outputs: VecDeque::new(),
        })
    }

    /// The handshake with a server is done.
    pub fn link_up(&mut self, _now: Now, _server: ServerId, _directory: DirectoryId, _boot: Boot) {}
    /// The link to a server was reset: a hint that it died.
    pub fn link_down(&mut self, _now: Now, _server: ServerId) {}
    /// A frame of the link came that isn't for us: a sign of life.
    pub fn heard(&mut self, _now: Now, _server: ServerId) {}
    /// A frame of the link.
    pub fn message(&mut self, _now: Now, _from: ServerId, _message: Message) {}
    /// A datagram, checked to be from that server.
    pub fn datagram(&mut self, _now: Now, _from: ServerId, _directory: DirectoryId, _datagram: Datagram) {}
    /// Time has passed; frames that waited have been handed in.
    pub fn timer(&mut self, _now: Now) {}
    /// When [`timer`](Cluster::timer) should be called at the latest.
    pub fn deadline(&self) -> Option<Tick> {
        None
    }
    /// The next thing that should happen; drain to the end before the next call.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// All records drained since the last call went into this append.
    pub fn appended(&mut self, _id: AppendId) {}
    /// All appends up to this one are durable.
    pub fn persisted(&mut self, _now: Now, _id: AppendId) {}
    /// The answer to [`Output::ReadEntries`]; none if they can't be read.
    pub fn entries_read(&mut self, _now: Now, _follower: ServerId, _from: LogIndex, _entries: Vec<Entry>) {}
    /// An entry, if it is among the recent ones.
    #[must_use]
    pub fn entry(&self, _index: LogIndex) -> Option<&Entry> {
        None
    }
    /// The state machine has applied everything up to here.
    pub fn applied(&mut self, _index: LogIndex) {}
    /// The digest of the state at a multiple of `limits::DIGEST_EVERY`.
    pub fn digest(&mut self, _index: LogIndex, _value: u64) {}

    /// Whether [`propose`](Cluster::propose) would take something.
    #[must_use]
    pub fn can_propose(&self) -> bool {
        false
    }
    /// Appends an entry of ours, if we lead and there is room.
    pub fn propose(&mut self, _now: Now, _kind: EntryKind, _payload: Blob) -> Option<LogIndex> {
        None
    }
    /// Asks for a position that shows everything committed by now; answered by [`Output::ReadDone`]. `None`: too many wait.
    pub fn read(&mut self, _now: Now) -> Option<u64> {
        None
    }

    /// What this server is.
    #[must_use]
    pub fn role(&self) -> Role {
        Role::Learner
    }
    /// Whom this server takes for the leader.
    #[must_use]
    pub fn leader(&self) -> Option<ServerId> {
        None
    }
    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(0)
    }
    /// The index of the entry with which our term as leader began; 0 if we don't lead.
    #[must_use]
    pub fn term_start(&self) -> LogIndex {
        LogIndex(0)
    }
    /// How far the log is known to be committed.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        LogIndex(0)
    }
    /// How far our log is durable.
    #[must_use]
    pub fn durable(&self) -> LogIndex {
        LogIndex(0)
    }
    /// The end of our log.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        LogPosition::default()
    }
    /// Whether leadership is being handed over: nothing is proposed meanwhile.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        false
    }
    /// Whether there is a members entry.
    #[must_use]
    pub fn formed(&self) -> bool {
        false
    }
    /// Who we are, for datagrams and handshakes.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender {
            cluster: ClusterId(0),
            members: self.config.servers.len() as u64,
            server: self.me,
            directory: self.directory,
            boot: self.boot,
        }
    }
    /// Whether this server could lead, as far as disk and state machine go.
    pub fn set_fit(&mut self, _now: Now, _fit: bool) {}
    /// Stop in good order: a leader hands over first.
    pub fn stop(&mut self, _now: Now) {}
    /// Whether there is nothing left to wait for since [`stop`](Cluster::stop).
    #[must_use]
    pub fn stopped(&self, _now: Now) -> bool {
        true
    }
    /// The servers to which there is a link.
    pub fn links(&self) -> impl Iterator<Item = ServerId> + '_ {
        std::iter::empty()
    }
}
