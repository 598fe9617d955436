//! Pure: who is alive, who leads, what is committed. May call the ground floor only.
//!
//! [`Cluster`] is one server's part in it. Hand it what happened (links, messages, datagrams, time, what became durable), then
//! drain [`Cluster::poll`] to the end, then hand it the next thing. In reading order: `role` (what a server can be), `replica`
//! (terms and votes), `append`, `progress` and `follow` (the log to the others), `checkpoint` (what they get in the place of a log
//! that isn't kept), `repair` (what a disk has lost), `roster` (who belongs to the cluster), `election` (who asks for votes first),
//! `heartbeat` (who is alive), `formation`, `transfer`, `read`; under them `entries` and `durable` (the log in memory and on the
//! disk).

mod append;
pub mod chain;
mod checkpoint;
mod durable;
mod election;
mod entries;
mod follow;
mod formation;
mod heartbeat;
pub mod members;
pub mod message;
mod progress;
mod quorum;
mod read;
mod repair;
mod replica;
mod role;
mod roster;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::cluster::durable::Durability;
use crate::cluster::entries::Entries;
use crate::cluster::heartbeat::Peer;
use crate::cluster::message::{
    CheckpointId, Datagram, Entry, HardState, LogPosition, Message, Record, Recovered, Sender,
};
use crate::cluster::read::Reads;
use crate::cluster::repair::Repair;
use crate::cluster::role::{RoleState, Seeking};
use crate::cluster::roster::Roster;
use crate::config::Config;
use crate::rng::Rng;
use crate::types::{
    Blob, Boot, ClusterId, DirectoryId, Level, LogIndex, Now, RingPosition, ServerId, Span, Term, Tick,
};

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

/// What entries are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The next append to a follower.
    Append,
    /// The answer to a server that can't read its own.
    Fetch,
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
    /// Another server needs entries that aren't in memory: read them and hand them to [`Cluster::entries_read`]. At most one of each purpose is
    /// outstanding for each server.
    ReadEntries {
        /// For whom.
        follower: ServerId,
        /// For what.
        purpose: Purpose,
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
    /// Read a piece of a checkpoint for a follower and hand it to [`Cluster::checkpoint_read`]: of this one, or of the oldest there is. At most one
    /// is outstanding for each follower.
    ReadCheckpoint {
        /// For whom.
        follower: ServerId,
        /// Which.
        id: Option<CheckpointId>,
        /// Where the piece begins.
        offset: u64,
    },
    /// Store a piece of the leader's checkpoint, and hand what comes of it to [`Cluster::checkpoint_stored`].
    StoreCheckpoint {
        /// Which.
        id: CheckpointId,
        /// Where the piece begins.
        offset: u64,
        /// The piece.
        bytes: Blob,
    },
    /// This directory's word doesn't count any more.
    Renounce(String),
}

/// The replicated log of one server and all that decides about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    config: Arc<Config>,
    me: ServerId,
    directory: DirectoryId,
    boot: Boot,
    ring: RingPosition,
    rng: Rng,
    now: Now,
    /// After a pause nobody is suspected for his silence before this: what he sent may still wait in our sockets.
    guard_until: Tick,
    outputs: VecDeque<Output>,
    /// The digest of the configured servers; of the members it is the same, or this server doesn't run.
    members_digest: u64,
    /// All other configured servers.
    peers: BTreeMap<ServerId, Peer>,
    /// The members, once the first entry is in the log.
    roster: Roster,
    /// Whether the directory is new in the place of another.
    replaced: bool,
    /// Whether it was said that this directory's word doesn't count any more.
    renounced: bool,
    /// Term and vote, as last written; not always durable.
    hard: HardState,
    log: Entries,
    durability: Durability,
    commit: LogIndex,
    applied: LogIndex,
    role: RoleState,
    repair: Repair,
    /// Since when a piece of a checkpoint is being stored.
    storing_since: Option<Tick>,
    /// For which learner's directory we stood again.
    stood_again: Option<DirectoryId>,
    /// Who gets our vote once it is durable.
    owed_vote: Option<ServerId>,
    reads: Reads,
    /// Whether the node says that this server could lead.
    fit: bool,
    /// Whether its disk has room left for what a leader may have to write.
    room: bool,
    stopping: Option<Tick>,
    /// When the next heartbeat is due.
    beat_at: Tick,
    /// Whether one should go out at once.
    beat_due: bool,
    /// Own digests, oldest first.
    digests: VecDeque<(LogIndex, u64)>,
    formation_report_at: Tick,
    /// The leader and term that were last announced.
    announced: Option<(ServerId, Term)>,
}

/// Who a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its name in the configuration.
    pub server: ServerId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// How often that has been started.
    pub boot: Boot,
    /// Whether the directory is new in the place of one that was lost or can't be trusted.
    pub replaced: bool,
}

impl Cluster {
    /// A server that has recovered its log. What is already applied is told with [`applied`](Cluster::applied). The error says how
    /// the members in the log differ from the configuration.
    pub fn new(
        config: Arc<Config>,
        identity: Identity,
        recovered: Recovered,
        now: Now,
        seed: u64,
    ) -> Result<Cluster, String> {
        let Identity {
            server: me,
            directory,
            boot,
            replaced,
        } = identity;
        let Some(ring) = config.server(me).map(|server| server.ring) else {
            return Err(format!("{me} is not in the configuration"));
        };
        let others = config.servers.iter().filter(|server| server.id != me);
        let peers = others.map(|server| (server.id, Peer::new(server.ring))).collect();
        let mut rng = Rng::new(seed);
        let jitter = Span(rng.below(config.timing.election_timeout.0 / 4 + 1));
        let mut cluster = Cluster {
            me,
            directory,
            boot,
            ring,
            rng,
            now,
            guard_until: now.tick,
            outputs: VecDeque::new(),
            members_digest: members::configured_digest(&config),
            peers,
            roster: Roster::default(),
            replaced,
            renounced: false,
            hard: recovered.state,
            log: Entries::new(&recovered),
            durability: Durability::new(recovered.last.max(recovered.base).index, recovered.state),
            commit: recovered.base.index,
            applied: recovered.base.index,
            repair: Repair::default(),
            storing_since: None,
            stood_again: None,
            role: RoleState::Seeking(Seeking::at_start(now.tick, jitter)),
            owed_vote: None,
            reads: Reads::default(),
            fit: true,
            room: true,
            stopping: None,
            beat_at: now.tick,
            beat_due: true,
            digests: VecDeque::new(),
            formation_report_at: now.tick.after(Span(config.timing.failure_timeout.0)),
            announced: None,
            config,
        };
        cluster.recover_members(&recovered.members)?;
        cluster.commit = cluster.commit.max(recovered.state.commit.min(recovered.last.index));
        cluster.hard.commit = cluster.commit;
        cluster.commit_members();
        cluster.first_entry_durable();
        cluster.report_filling();
        cluster.report_holes();
        cluster.form();
        cluster.consider();
        Ok(cluster)
    }

    /// Time has passed; frames that waited have been handed in.
    pub fn timer(&mut self, now: Now) {
        self.wake(now);
        self.check_silence();
        self.check_leader();
        self.check_candidacy();
        self.check_office();
        self.check_turn();
        self.check_transfer();
        self.check_reads();
        self.check_repair();
        self.check_admission();
        self.report_formation();
        self.form();
        if self.now.tick >= self.beat_at {
            self.beat_at = self.now.tick.after(self.config.timing.heartbeat_interval);
            self.pulse();
            self.resend_token();
        }
    }

    /// When [`timer`](Cluster::timer) should be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let by_role = match &self.role {
            RoleState::Seeking(seeking) if self.may_stand() => Some(self.turn(seeking).max(self.guard_until)),
            RoleState::Following(following) => {
                let heard = following.append_at.max(following.beat_at);
                let silent = heard.after(self.config.timing.failure_timeout).after(Span(1));
                Some(silent.max(self.guard_until))
            }
            RoleState::Candidate(candidate) => Some(candidate.until),
            RoleState::Leader(leader) => leader.tell_at(),
            RoleState::Seeking(_) => None,
        };
        let report = (!self.formed()).then_some(self.formation_report_at);
        let due = [
            Some(self.beat_at),
            by_role,
            report,
            self.silence_at(),
            self.reads.deadline(),
            self.repair.deadline(),
        ];
        due.into_iter().flatten().min()
    }

    /// The next thing that should happen; drain to the end before the next call.
    pub fn poll(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.flush();
        }
        self.outputs.pop_front()
    }

    /// What waited for the end of the turn, so that it goes out once for all that happened in it.
    fn flush(&mut self) {
        self.flush_reads();
        self.flush_transfer();
        self.flush_appends();
        self.flush_repair();
        self.flush_questions();
        self.flush_answer();
        let announced = self.leader().map(|leader| (leader, self.hard.term));
        if announced != self.announced {
            self.announced = announced;
            self.beat_due = true;
            self.outputs.push_back(Output::LeaderChanged);
        }
        if std::mem::take(&mut self.beat_due) {
            let heartbeat = self.heartbeat();
            self.outputs.push_back(Output::Datagram(Datagram::Heartbeat(heartbeat)));
        }
    }

    /// Every call begins here: the time goes on, and a pause is noticed.
    fn wake(&mut self, now: Now) {
        let timing = &self.config.timing;
        if now.tick.since(self.now.tick).0 > timing.failure_timeout.0 / 2 {
            self.guard_until = now.tick.after(timing.heartbeat_interval.times(2));
        }
        if now.tick > self.now.tick {
            self.now = now;
        }
    }

    /// Sends over a link, if there is one.
    fn send(&mut self, to: ServerId, message: Message) {
        if let Some(link) = self.peers.get_mut(&to).and_then(|peer| peer.link.as_mut()) {
            link.is_busy = true;
            self.outputs.push_back(Output::Send(to, message));
        }
    }

    fn event(&mut self, level: Level, text: String) {
        self.outputs.push_back(Output::Event { level, text });
    }

    // --- What there is to know --------------------------------------------------------------------

    /// An entry, if it is among the recent ones.
    #[must_use]
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.log.get(index)
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// How far the log is known to be committed.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The entry before the first of our log: what is at or before it is only in a checkpoint.
    #[must_use]
    pub fn base(&self) -> LogPosition {
        self.log.start()
    }

    /// The end of our log.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.log.last()
    }

    /// Who we are, for datagrams and handshakes.
    #[must_use]
    pub fn sender(&self) -> Sender {
        let formed = self.roster.in_force().filter(|_| self.formed());
        Sender {
            cluster: formed.map_or(ClusterId(0), |formed| formed.cluster),
            members: self.members_digest,
            server: self.me,
            directory: self.directory,
            boot: self.boot,
        }
    }

    /// Whether this server could lead, as far as disk and state machine go.
    pub fn set_fit(&mut self, now: Now, fit: bool) {
        self.wake(now);
        if self.fit != fit {
            self.fit = fit;
            self.beat_due = true;
            self.consider();
        }
    }

    /// Whether the disk has room left. A leader without hands over to a server that has it; if none does, it goes on as long as it can.
    pub fn set_room(&mut self, now: Now, room: bool) {
        self.wake(now);
        if self.room != room {
            self.room = room;
            self.beat_due = true;
            self.consider();
        }
    }

    /// The servers to which there is a link.
    pub fn links(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.link.is_some())
            .map(|(&server, _)| server)
    }

    fn is_linked(&self, server: ServerId) -> bool {
        self.peer(server).is_some_and(|peer| peer.link.is_some())
    }

    fn linked_members(&self) -> Vec<ServerId> {
        self.links().filter(|&server| self.is_link_member(server)).collect()
    }

    /// Of these, whose links aren't silent.
    fn working_members(&self) -> Vec<ServerId> {
        let works = |server: &ServerId| self.peer(*server).is_some_and(Peer::works);
        self.linked_members().into_iter().filter(works).collect()
    }
}
