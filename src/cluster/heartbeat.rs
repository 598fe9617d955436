//! The failure detector: what is known of each other server, from its link and from its datagrams, and the heartbeats by which
//! the others learn the same of us.
//!
//! A link that is reset is a hint that the process died: it is believed at once, and contradicted by whatever the server
//! sends later. Silence is believed after the failure time-out. A wrong suspicion costs an election that the others refuse.
//!
//! Datagrams show that a server lives, not that it could lead or be followed: for that its link must work. One that carries
//! nothing for the failure time-out doesn't, whatever comes beside it, long before the system gives the connection up.

use crate::cluster::message::{Datagram, Flags, GroupBeat, Heartbeat, LogPosition, Member, Message};
use crate::cluster::role::RoleState;
use crate::cluster::{Cluster, quorum};
use crate::config::{self, Timing};
use crate::limits;
use crate::types::{
    Boot, ClusterId, DirectoryId, GroupId, Level, LogIndex, Now, RingPosition, ServerId, Span, Term, Tick,
};

/// What is known of another server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub(super) ring: RingPosition,
    pub(super) link: Option<Link>,
    /// Its last heartbeat.
    pub(super) beat: Option<Beat>,
    /// When its last link was reset, if no other has come up since.
    reset_at: Option<Tick>,
    /// Whether it was last reported as working; `None` before it was ever seen.
    reported: Option<bool>,
    /// The index of the last difference of digests that was reported.
    digest_reported: LogIndex,
    /// The last index at which the state with this directory was the same as ours.
    agreed: Option<(DirectoryId, LogIndex)>,
    /// The digest of a state that we haven't reached yet.
    early_digest: Option<(DirectoryId, (LogIndex, u64))>,
    /// The directory that was last reported as not a member's.
    pub(super) stranger_reported: Option<(DirectoryId, Tick)>,
}

/// A working link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Link {
    pub(super) directory: DirectoryId,
    pub(super) boot: Boot,
    heard_at: Tick,
    /// Whether nothing has come for the failure time-out, so that it doesn't work.
    is_silent: bool,
    /// Whether anything was sent since the last heartbeat.
    pub(super) is_busy: bool,
    /// What its `Hello` said.
    pub(super) hello: Option<Greeting>,
}

/// What a server says of itself when a link comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Greeting {
    /// Its cluster; 0 while it has none.
    pub(super) cluster: ClusterId,
    /// A digest of its configuration.
    pub(super) digest: u64,
    /// Whether its directory is new in the place of another.
    pub(super) replaced: bool,
}

/// The last heartbeat of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Beat {
    pub(super) at: Tick,
    pub(super) directory: DirectoryId,
    pub(super) flags: Flags,
    pub(super) links: Vec<ServerId>,
    pub(super) term: Term,
    pub(super) leader: Option<ServerId>,
    pub(super) last: LogPosition,
}

impl Peer {
    pub(super) fn new(ring: RingPosition) -> Peer {
        Peer {
            ring,
            link: None,
            beat: None,
            reset_at: None,
            reported: None,
            digest_reported: LogIndex(0),
            agreed: None,
            early_digest: None,
            stranger_reported: None,
        }
    }

    /// Whether it gave a sign of life within the failure time-out. After a reset, datagrams count only if they are later by
    /// half a heartbeat: what a dead process has sent may still wait in our socket.
    pub(super) fn is_alive(&self, now: Tick, timing: &Timing) -> bool {
        let recent = |at: Tick| now.since(at) <= timing.failure_timeout;
        let rest = Span(timing.heartbeat_interval.0 / 2);
        let after_reset = |at: Tick| self.reset_at.is_none_or(|reset| at > reset.after(rest));
        self.link.as_ref().is_some_and(|link| recent(link.heard_at))
            || self
                .beat
                .as_ref()
                .is_some_and(|beat| recent(beat.at) && after_reset(beat.at))
    }

    /// Whether there is a link and it isn't silent.
    pub(super) fn works(&self) -> bool {
        self.link.as_ref().is_some_and(|link| !link.is_silent)
    }
}

impl Cluster {
    /// The handshake with a server is done. A link that was there before is taken for reset.
    pub fn link_up(&mut self, now: Now, server: ServerId, directory: DirectoryId, boot: Boot) {
        self.wake(now);
        let at = self.now.tick;
        if !self.peers.contains_key(&server) {
            return;
        }
        if self.peer(server).is_some_and(|peer| peer.link.is_some()) {
            self.link_lost(server, "its link was replaced");
        }
        if let Some(peer) = self.peers.get_mut(&server) {
            peer.link = Some(Link {
                directory,
                boot,
                heard_at: at,
                is_silent: false,
                is_busy: true,
                hello: None,
            });
            peer.reset_at = None;
        }
        self.beat_due = true;
        self.report_peer(server, "");
        self.send_hello(server);
        self.greet(server);
        self.send_committed(server);
        self.ask_again();
        self.replica_link_up(server, directory);
        self.consider();
    }

    /// The link to a server was reset or ended: a hint that the server died, which is checked at once.
    pub fn link_down(&mut self, now: Now, server: ServerId) {
        self.wake(now);
        if self.peer(server).is_some_and(|peer| peer.link.is_some()) {
            self.link_lost(server, "its link was reset");
        }
    }

    fn link_lost(&mut self, server: ServerId, why: &str) {
        let at = self.now.tick;
        if let Some(peer) = self.peers.get_mut(&server) {
            peer.link = None;
            peer.reset_at = Some(at);
        }
        self.beat_due = true;
        self.report_peer(server, why);
        self.reads.link_down(server);
        self.repair_link_down(server);
        self.replica_link_down(server, why);
        self.consider();
    }

    /// Something came over the link that isn't for us, or not whole yet: a sign of life.
    pub fn heard(&mut self, now: Now, server: ServerId) {
        self.wake(now);
        self.link_spoke(server);
    }

    pub(super) fn link_spoke(&mut self, server: ServerId) {
        let at = self.now.tick;
        let Some(link) = self.peers.get_mut(&server).and_then(|peer| peer.link.as_mut()) else {
            return;
        };
        link.heard_at = at;
        if std::mem::take(&mut link.is_silent) {
            self.event(Level::Info, format!("the link to {server} works again"));
            self.beat_due = true;
            self.consider();
        }
    }

    /// A datagram, checked to be from that server.
    pub fn datagram(&mut self, now: Now, from: ServerId, directory: DirectoryId, datagram: Datagram) {
        self.wake(now);
        if !self.peers.contains_key(&from) {
            return;
        }
        match datagram {
            Datagram::Heartbeat(heartbeat) => self.on_heartbeat(from, directory, heartbeat),
            Datagram::Token { to, group, token } => {
                let counts = self.is_member(from, directory);
                if to == self.me && group == GroupId::ROOT && counts {
                    self.on_token(token);
                }
            }
        }
    }

    fn on_heartbeat(&mut self, from: ServerId, directory: DirectoryId, heartbeat: Heartbeat) {
        let at = self.now.tick;
        if self.member_count() > 0 && !self.is_known(from, directory) {
            self.report_stranger(from, directory);
            return;
        }
        let Some(group) = heartbeat
            .groups
            .iter()
            .find(|beat| beat.group == GroupId::ROOT)
            .cloned()
        else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let before = peer.beat.as_ref().map(|beat| (beat.flags.formed, beat.leader));
        let formed = heartbeat.flags.formed;
        peer.beat = Some(Beat {
            at,
            directory,
            flags: heartbeat.flags,
            links: heartbeat.links,
            term: group.term,
            leader: group.leader,
            last: group.last,
        });
        self.report_peer(from, "");
        self.compare_digests(from, directory, group.digest);
        if !formed {
            self.greet(from);
        }
        self.leader_beat(from, group.term, group.leader);
        // One that has just lost its leader, or just got a vote, may be the one that was missing for a majority.
        let joined = before.is_none_or(|(formed, leader)| !formed || leader.is_some());
        if joined && formed && group.leader.is_none() {
            self.encourage();
        }
        self.consider();
    }

    /// Our own heartbeat.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        let flags = Flags {
            formed: self.formed(),
            fit: self.could_lead(),
            stopping: self.stopping.is_some(),
        };
        let beat = GroupBeat {
            group: GroupId::ROOT,
            term: self.hard.term,
            leader: self.leader(),
            last: self.log.last(),
            commit: self.commit,
            digest: self.digests.back().copied().unwrap_or_default(),
        };
        let links = if self.formed() {
            self.working_members()
        } else {
            self.links().collect()
        };
        Heartbeat {
            flags,
            links,
            groups: vec![beat],
        }
    }

    /// Each heartbeat interval: a datagram for all, and a frame on each link that was quiet.
    pub(super) fn pulse(&mut self) {
        self.beat_due = true;
        let mut pings = Vec::new();
        for (&server, peer) in &mut self.peers {
            if let Some(link) = &mut peer.link {
                if !link.is_busy {
                    pings.push(server);
                }
                link.is_busy = false;
            }
        }
        if let RoleState::Leader(leader) = &mut self.role {
            leader.pulse();
            return;
        }
        for server in pings {
            self.send(server, Message::Ping);
            if let Some(link) = self.peers.get_mut(&server).and_then(|peer| peer.link.as_mut()) {
                link.is_busy = false;
            }
        }
    }

    /// Tells the operator when a server is suspected or back.
    pub(super) fn report_peer(&mut self, server: ServerId, why: &str) {
        let (now, timing) = (self.now.tick, self.config.timing);
        let Some(peer) = self.peers.get_mut(&server) else {
            return;
        };
        let alive = if why.is_empty() {
            peer.is_alive(now, &timing)
        } else {
            false
        };
        let before = peer.reported;
        if before == Some(alive) || (before.is_none() && !alive) {
            return;
        }
        peer.reported = Some(alive);
        match (before, alive) {
            (None, _) => self.event(Level::Info, format!("{server} is there")),
            (_, true) => self.event(Level::Info, format!("{server} is back")),
            (_, false) => self.event(Level::Warn, format!("{server} is suspected: {why}")),
        }
    }

    /// Suspects who was silent for too long.
    pub(super) fn check_silence(&mut self) {
        if self.now.tick < self.guard_until {
            return;
        }
        let (now, timing) = (self.now.tick, self.config.timing);
        let over = |link: &Link| !link.is_silent && now.since(link.heard_at) > timing.failure_timeout;
        let links: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.link.as_ref().is_some_and(over))
            .map(|(&id, _)| id)
            .collect();
        self.fell_silent(&links);
        let silent = |peer: &Peer| peer.reported == Some(true) && !peer.is_alive(now, &timing);
        let servers: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| silent(peer))
            .map(|(&id, _)| id)
            .collect();
        for server in servers {
            let why = format!("silent for {} ms", timing.failure_timeout.as_ms());
            self.report_peer(server, &why);
            self.consider();
        }
    }

    /// When the next link will have been silent for too long, if nothing comes.
    pub(super) fn silence_at(&self) -> Option<Tick> {
        let links = self.peers.values().filter_map(|peer| peer.link.as_ref());
        let heard = links.filter(|link| !link.is_silent).map(|link| link.heard_at).min()?;
        let silent = heard.after(self.config.timing.failure_timeout).after(Span(1));
        Some(silent.max(self.guard_until))
    }

    /// Nothing came over these links for the failure time-out: they aren't counted on, and a leader behind one can't be followed.
    fn fell_silent(&mut self, servers: &[ServerId]) {
        let (now, timing) = (self.now.tick, self.config.timing);
        let ms = timing.failure_timeout.as_ms();
        for &server in servers {
            let Some(peer) = self.peers.get_mut(&server) else {
                continue;
            };
            if let Some(link) = &mut peer.link {
                link.is_silent = true;
            }
            if peer.is_alive(now, &timing) {
                let text = format!("the link to {server} has been silent for {ms} ms, although its datagrams arrive");
                self.event(Level::Warn, text);
            }
            self.beat_due = true;
        }
        if self.leader().is_some_and(|leader| servers.contains(&leader)) {
            self.lose_leader(&format!("its link has been silent for {ms} ms"));
        } else if !servers.is_empty() {
            self.consider();
        }
    }

    /// The digest of the state at a multiple of `limits::DIGEST_EVERY`.
    pub fn digest(&mut self, index: LogIndex, value: u64) {
        if self.digests.back().is_some_and(|&(last, _)| last >= index) {
            return;
        }
        self.digests.push_back((index, value));
        while self.digests.len() > limits::DIGESTS_KEPT {
            self.digests.pop_front();
        }
        let beats: Vec<_> = self.peers.keys().copied().collect();
        for server in beats {
            if let Some((directory, theirs)) = self.peer(server).and_then(|peer| peer.early_digest) {
                self.compare_digests(server, directory, theirs);
            }
        }
    }

    /// The highest index at which a majority of the members had the same state as we, as far as their heartbeats have said. A
    /// digest runs over all that came before, so they had it at every earlier index too.
    #[must_use]
    pub fn agreed(&self) -> LogIndex {
        let own = self.digests.back().map_or(LogIndex(0), |&(index, _)| index);
        let agreed = |member: &Member| {
            if member.id == self.me {
                return own;
            }
            let theirs = self.peer(member.id).and_then(|peer| peer.agreed);
            theirs.map_or(LogIndex(0), |(directory, index)| {
                if directory == member.directory {
                    index
                } else {
                    LogIndex(0)
                }
            })
        };
        let members = self.roster.in_force().map_or(&[][..], |members| &members.members);
        quorum::reached(members.iter().map(agreed).collect())
    }

    fn compare_digests(&mut self, from: ServerId, directory: DirectoryId, (index, theirs): (LogIndex, u64)) {
        let ours = self
            .digests
            .iter()
            .find(|&&(at, _)| at == index)
            .map(|&(_, value)| value);
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.early_digest = if ours.is_none() {
            Some((directory, (index, theirs)))
        } else {
            None
        };
        if ours == Some(theirs) && peer.agreed.is_none_or(|(of, at)| of != directory || at < index) {
            peer.agreed = Some((directory, index));
        }
        if ours.is_none_or(|ours| ours == theirs) || index.0 == 0 || peer.digest_reported >= index {
            return;
        }
        peer.digest_reported = index;
        let text = format!("the state of {from} differs from ours at index {index}: one of the two is damaged");
        self.event(Level::Error, text);
    }

    /// A member's directory isn't the one in the log: it has no vote. Said once for each directory.
    pub(super) fn report_stranger(&mut self, server: ServerId, directory: DirectoryId) {
        let now = self.now.tick;
        if self.leader() == Some(server) {
            return; // it has been admitted, and its log will tell us
        }
        let quiet = |(known, at): (DirectoryId, Tick)| known == directory || now.since(at) < limits::COMPLAINT_INTERVAL;
        if let Some(peer) = self.peers.get_mut(&server)
            && !peer.stranger_reported.is_some_and(quiet)
        {
            peer.stranger_reported = Some((directory, now));
            let text = format!("{server} has a new data directory: it has no vote until it holds everything");
            self.event(Level::Warn, text);
        }
    }

    pub(super) fn peer(&self, server: ServerId) -> Option<&Peer> {
        self.peers.get(&server)
    }

    /// How much a server is preferred as leader.
    pub(super) fn rank_of(&self, server: ServerId) -> u64 {
        let ring = if server == self.me {
            Some(self.ring)
        } else {
            self.peer(server).map(|peer| peer.ring)
        };
        ring.map_or(0, |ring| config::rank(GroupId::ROOT, ring))
    }
}
