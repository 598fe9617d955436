//! Who belongs to the cluster, as the log says it, and how a server gets its vote back whose data directory was replaced.
//!
//! A server with another directory than the member's is a learner: it is copied to and doesn't count. When it holds nearly
//! everything, the leader proposes the members anew with that directory. Two rules make that safe (one server at a time):
//!
//! 1. From the moment the entry is in a server's log until that server knows it to be committed, it counts neither the former
//!    directory nor the new one, neither for a commit nor for an election. So all who may decide anything without the entry
//!    share a server with those who committed it.
//! 2. The leader that proposes it was elected without a vote of that server. A vote that the former directory gave is of an
//!    earlier term then, and the new one can't give it a second time.

use std::collections::BTreeSet;

use crate::cluster::members::{self, decode_members, encode_members};
use crate::cluster::message::{Entry, EntryKind, LogPosition, Member, Members, Message};
use crate::cluster::progress::Mode;
use crate::cluster::role::RoleState;
use crate::cluster::{Cluster, Output};
use crate::limits;
use crate::types::{Blob, DirectoryId, GroupId, Level, LogIndex, ServerId};

/// The members entries that matter: the last one that is known to be committed (until one is: the first), and those after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Roster {
    entries: Vec<(LogIndex, Members)>,
    /// Directories that a committed entry has replaced, as far as we were there: a handful in the life of a cluster.
    former: BTreeSet<DirectoryId>,
}

impl Roster {
    /// The members that count.
    pub(super) fn in_force(&self) -> Option<&Members> {
        self.entries.first().map(|(_, members)| members)
    }

    /// The members of the first entry of all, as long as no other is in force.
    pub(super) fn first_entry(&self) -> Option<&Members> {
        let (index, members) = self.entries.first()?;
        (index.0 == 1).then_some(members)
    }

    /// Whether no entry waits to be committed that will change the members.
    pub(super) fn is_settled(&self) -> bool {
        self.entries.len() <= 1
    }

    /// Whether a member's directory is beyond doubt. While an entry waits to be committed that replaces it, neither the former
    /// nor the new one counts.
    pub(super) fn is_certain(&self, member: &Member) -> bool {
        let same = |(_, members): &(LogIndex, Members)| {
            find(members, member.id).is_some_and(|other| other.directory == member.directory)
        };
        self.entries.iter().all(same)
    }

    pub(super) fn push(&mut self, index: LogIndex, members: Members) {
        self.truncate(index.previous());
        self.entries.push((index, members));
    }

    /// An entry could be read again.
    pub(super) fn insert(&mut self, index: LogIndex, members: Members) {
        let at = self.entries.partition_point(|&(other, _)| other < index);
        if at > 0 && self.entries.get(at).is_none_or(|&(other, _)| other != index) {
            self.entries.insert(at, (index, members));
        }
    }

    /// The log is cut: what it said after that gives way to what it said before.
    pub(super) fn truncate(&mut self, to: LogIndex) {
        self.entries.retain(|&(index, _)| index <= to);
    }

    /// The log begins anew.
    pub(super) fn begin_at(&mut self, index: LogIndex, members: Members) {
        self.entries = vec![(index, members)];
    }

    /// The log is committed so far. Gives the members whose directory has changed with that.
    fn committed(&mut self, commit: LogIndex) -> Vec<Member> {
        let mut changed = Vec::new();
        while self.entries.len() > 1 && self.entries[1].0 <= commit {
            let (_, before) = self.entries.remove(0);
            for member in &self.entries[0].1.members {
                let former = before.members.iter().find(|former| former.id == member.id);
                if let Some(former) = former.filter(|former| former.directory != member.directory) {
                    self.former.insert(former.directory);
                    self.former.remove(&member.directory);
                    changed.push(*member);
                }
            }
        }
        changed
    }
}

impl Cluster {
    /// A member, by id.
    pub(super) fn member(&self, server: ServerId) -> Option<&Member> {
        find(self.roster.in_force()?, server)
    }

    pub(super) fn member_count(&self) -> usize {
        self.roster.in_force().map_or(0, |members| members.members.len())
    }

    /// Whether a server with that directory is a member: else nothing that it says counts.
    pub(super) fn is_member(&self, server: ServerId, directory: DirectoryId) -> bool {
        self.member(server)
            .is_some_and(|member| member.directory == directory && self.roster.is_certain(member))
    }

    /// Whether a server with that directory may get our vote: it is a member, or will be one by an entry that we hold. Whether
    /// that is committed is for the candidate to know: it stands only then, and we may not have heard of it.
    pub(super) fn is_known(&self, server: ServerId, directory: DirectoryId) -> bool {
        let names = |(_, members): &(LogIndex, Members)| {
            find(members, server).is_some_and(|member| member.directory == directory)
        };
        self.roster.entries.iter().any(names)
    }

    fn link_directory(&self, server: ServerId) -> Option<DirectoryId> {
        Some(self.peer(server)?.link.as_ref()?.directory)
    }

    /// Whether there is a link to a server, and its directory is the member's.
    pub(super) fn is_link_member(&self, server: ServerId) -> bool {
        self.link_directory(server)
            .is_some_and(|directory| self.is_member(server, directory))
    }

    /// Whether there is a link to a server that may get our vote.
    pub(super) fn is_link_known(&self, server: ServerId) -> bool {
        self.link_directory(server)
            .is_some_and(|directory| self.is_known(server, directory))
    }

    /// Whether the server behind a link may lead us. It may have a directory that an entry has admitted which we don't have yet,
    /// and it is from there that we will get it; a majority has elected it, so it need not be proved here.
    pub(super) fn may_lead_us(&self, server: ServerId) -> bool {
        let Some(link) = self.peer(server).and_then(|peer| peer.link.as_ref()) else {
            return false;
        };
        let Some(ours) = self.roster.in_force() else {
            return true;
        };
        let same_cluster = link.hello.is_some_and(|hello| hello.cluster == ours.cluster);
        self.is_known(server, link.directory) || (same_cluster && !self.roster.former.contains(&link.directory))
    }

    /// What a new commit position says about the members.
    pub(super) fn commit_members(&mut self) {
        let changed = self.roster.committed(self.commit);
        if changed.is_empty() {
            return;
        }
        for member in &changed {
            let text = if member.id != self.me {
                format!(
                    "{} holds everything: it has a vote with its new data directory",
                    member.id
                )
            } else if member.directory == self.directory {
                format!("{} holds everything: it has a vote again", self.me)
            } else {
                format!(
                    "another data directory of {} has taken the place of this one: it has no vote any more",
                    self.me
                )
            };
            self.event(Level::Info, text);
        }
        if !self.is_voter() && matches!(self.role, RoleState::Leader(_) | RoleState::Candidate(_)) {
            self.become_seeking(false);
        }
        self.beat_due = true;
        self.wait_again();
        self.encourage();
    }

    /// A members entry of the leader's log, not written yet. Whether it can be.
    pub(super) fn learn_members(&mut self, entry: &Entry) -> bool {
        let Some(found) = decode_members(&entry.payload).filter(|_| entry.kind == EntryKind::Members) else {
            let text = format!("entry {} of the leader's log doesn't hold the members", entry.index);
            self.event(Level::Error, text);
            return false;
        };
        if let Some(difference) = members::difference(&found, &self.config) {
            self.outputs.push_back(Output::Misconfigured(difference));
            return false;
        }
        if self.roster.in_force().is_some_and(|ours| ours.cluster != found.cluster) && entry.index.0 > 1 {
            let text = format!("entry {} of the leader's log is of another cluster", entry.index);
            self.event(Level::Error, text);
            return false;
        }
        let is_first = self.member_count() == 0;
        self.roster.push(entry.index, found);
        if is_first {
            self.report_filling();
        }
        true
    }

    /// Says that our directory is new and what comes of it, once it is known that it isn't a member's. The end is said when it is admitted.
    pub(super) fn report_filling(&mut self) {
        if self.member_count() > 0 && !self.is_known(self.me, self.directory) {
            let text = format!(
                "{} has a new data directory: it is filled by the others, and has no vote until it holds everything",
                self.me
            );
            self.event(Level::Warn, text);
        }
    }

    /// The members that recovery found, checked against the configuration.
    pub(super) fn recover_members(&mut self, entries: &[Entry]) -> Result<(), String> {
        for entry in entries {
            let members = decode_members(&entry.payload)
                .ok_or_else(|| format!("the members entry {} of the log can't be read", entry.index))?;
            if let Some(difference) = members::difference(&members, &self.config) {
                return Err(difference);
            }
            self.roster.push(entry.index, members);
        }
        Ok(())
    }

    // --- Admission --------------------------------------------------------------------------------

    /// While leading: proposes the members anew for a learner that has caught up.
    pub(super) fn check_admission(&mut self) {
        let RoleState::Leader(leader) = &self.role else {
            return;
        };
        if !self.roster.is_settled() || self.commit < leader.term_start || !self.can_propose() {
            return;
        }
        let last = self.log.last().index;
        let caught_up = leader.progress.iter().find_map(|(&server, progress)| {
            let directory = self.link_directory(server)?;
            let replaced = self.member(server)?.directory != directory && !self.roster.former.contains(&directory);
            let holds = progress.mode == Mode::Replicate
                && progress.durable.0.saturating_add(limits::CAUGHT_UP_ENTRIES) >= last.0
                && progress.durable >= leader.term_start;
            (replaced && holds).then_some((server, directory))
        });
        let Some((server, directory)) = caught_up else {
            return;
        };
        if leader.votes.contains(&server) {
            if self.stood_again != Some(directory) {
                self.stood_again = Some(directory);
                let text = format!(
                    "{} stands again before {server} is admitted, which voted for it with its former data directory",
                    self.me
                );
                self.event(Level::Info, text);
                self.become_candidate(true);
            }
            return;
        }
        let Some(mut members) = self.roster.in_force().cloned() else {
            return;
        };
        for member in members.members.iter_mut().filter(|member| member.id == server) {
            member.directory = directory;
        }
        let payload = Blob::new(&encode_members(&members));
        if let Some(index) = self.propose(self.now, EntryKind::Members, payload) {
            self.roster.push(index, members);
            let text = format!("{server} has caught up with its new data directory: its admission is entry {index}");
            self.event(Level::Info, text);
        }
    }

    // --- What is committed ------------------------------------------------------------------------

    /// Tells a server how far the log is committed, as far as we know.
    pub(super) fn send_committed(&mut self, to: ServerId) {
        if let Some(at) = self.log.position(self.commit).filter(|at| at.index.0 > 0) {
            let group = GroupId::ROOT;
            self.send(to, Message::Committed { group, at });
        }
    }

    /// Another server knows an entry to be committed. If we hold the very same, we know it too: what is committed is so for ever,
    /// and everything before it.
    pub(super) fn on_committed(&mut self, from: ServerId, at: LogPosition) {
        if self.may_lead_us(from)
            && self.formed()
            && at.index > self.commit
            && self.log.term_at(at.index) == Some(at.term)
        {
            self.set_commit(at.index);
            self.consider();
        }
    }
}

fn find(members: &Members, server: ServerId) -> Option<&Member> {
    members.members.iter().find(|member| member.id == server)
}
