//! Appends: how the leader's log gets to the others and what comes back. Messages are built when the outputs are drained, so
//! that all proposals of a turn go to a follower in one append, and all its progress comes back in one answer.

use crate::cluster::entries::entry_bytes;
use crate::cluster::message::{AppendResult, Entry, EntryKind, Member, Message};
use crate::cluster::progress::{Mode, Progress};
use crate::cluster::role::RoleState;
use crate::cluster::{Cluster, Output, Purpose, quorum};
use crate::limits;
use crate::types::{Blob, GroupId, Level, LogIndex, Now, ServerId, Term};

impl Cluster {
    /// Whether [`propose`](Cluster::propose) would take something.
    #[must_use]
    pub fn can_propose(&self) -> bool {
        self.room_for_proposals() > 0
    }

    /// Bytes of entries (payloads, and [`limits::ENTRY_OVERHEAD_BYTES`] each) that [`propose`](Cluster::propose) would take now; the
    /// last of them may go beyond.
    #[must_use]
    pub fn room_for_proposals(&self) -> usize {
        match &self.role {
            RoleState::Leader(leader)
                if leader.transfer.is_none()
                    && self.stopping.is_none()
                    && self.durability.pending() < limits::UNPERSISTED_APPENDS_MAX =>
            {
                limits::UNCOMMITTED_BYTES_MAX.saturating_sub(leader.uncommitted_bytes)
            }
            _ => 0,
        }
    }

    /// Appends an entry of ours, if we lead and there is room.
    pub fn propose(&mut self, now: Now, kind: EntryKind, payload: Blob) -> Option<LogIndex> {
        self.wake(now);
        if !self.can_propose() || payload.len() > limits::PAYLOAD_BYTES_MAX {
            return None;
        }
        let index = self.append_own(kind, payload);
        let bytes = self.log.get(index).map_or(0, entry_bytes);
        if let RoleState::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes += bytes;
            leader.proposes(self.now.tick);
        }
        Some(index)
    }

    /// A server has forwarded something of its clients: it is told of a commit at once.
    pub fn forwarded(&mut self, now: Now, server: ServerId) {
        self.wake(now);
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&server)
        {
            progress.forwarded_at = Some(now.tick);
        }
    }

    // --- The leader -------------------------------------------------------------------------------

    /// Sends what is due to everybody.
    pub(super) fn flush_appends(&mut self) {
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        leader.is_round_open = false;
        let servers: Vec<_> = leader.progress.keys().copied().collect();
        for server in servers {
            if self.is_linked(server) {
                self.flush_appends_to(server);
            }
        }
        let commit = self.commit;
        if let RoleState::Leader(leader) = &mut self.role {
            let knows = |progress: &Progress| progress.mode != Mode::Replicate || progress.commit_sent >= commit;
            if leader.progress.values().all(knows) {
                leader.untold_since = None;
            }
        }
    }

    fn flush_appends_to(&mut self, server: ServerId) {
        let (start, last) = (self.log.start().index, self.log.last().index);
        let (first, now) = (self.log.first(), self.now.tick);
        let waiting = self.config.timing.heartbeat_interval;
        loop {
            let RoleState::Leader(leader) = &mut self.role else {
                return;
            };
            let (round, tell_at) = (leader.round, leader.tell_at());
            let Some(progress) = leader.progress.get_mut(&server) else {
                return;
            };
            if progress.next <= start && progress.mode != Mode::Transfer {
                progress.transfer(now);
            }
            let next = progress.next;
            let mode = progress.mode;
            let wants = next <= last && progress.has_room() && progress.reading.is_none();
            if wants && next >= first {
                let entries = self.log.gather(next, limits::APPEND_BYTES_MAX);
                self.send_append(server, entries);
                continue;
            }
            let readable = !self.log.is_hole(next);
            if wants && readable && progress.mode == Mode::Replicate && now >= progress.rest_until {
                progress.reading = Some(next);
                let end = self.log.next_hole(next).map_or(first, |hole| hole.min(first));
                let bytes_max = limits::APPEND_BYTES_MAX;
                self.outputs.push_back(Output::ReadEntries {
                    follower: server,
                    purpose: Purpose::Append,
                    from: next,
                    to: end.previous(),
                    bytes_max,
                });
                continue;
            }
            // A place to be looked for that isn't in memory is asked for without entries.
            let probes = progress.mode == Mode::Probe { is_out: false };
            let waits = progress.forwarded_at.is_some_and(|at| now.since(at) < waiting);
            let is_time = waits || tell_at.is_none_or(|at| now >= at);
            let tells = is_time && progress.mode == Mode::Replicate && progress.commit_sent < self.commit;
            if probes || tells || progress.is_pulse_due || progress.round_sent < round {
                self.send_append(server, Vec::new());
            }
            if mode == Mode::Transfer {
                self.flush_checkpoint_to(server);
            }
            return;
        }
    }

    /// Sends an append that begins where the server's log is thought to end.
    fn send_append(&mut self, server: ServerId, entries: Vec<Entry>) {
        let (group, term, commit) = (GroupId::ROOT, self.hard.term, self.commit);
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let round = leader.round;
        let Some(progress) = leader.progress.get_mut(&server) else {
            return;
        };
        // While a checkpoint is sent, the append only shows that the leader lives, and asks whether the follower is there yet.
        let prev = self.log.position(progress.next.previous()).unwrap_or(self.log.start());
        let follows = prev.index.next() == progress.next;
        let entries = if follows { entries } else { Vec::new() };
        let prev_chain = self.log.chain_at(prev.index).unwrap_or(0);
        if let Some(last) = entries.last() {
            progress.sent(last.index, entries.iter().map(entry_bytes).sum());
        } else if let Mode::Probe { is_out } = &mut progress.mode {
            *is_out = true;
        }
        progress.round_sent = round;
        progress.commit_sent = commit;
        progress.is_pulse_due = false;
        self.send(
            server,
            Message::Append {
                group,
                term,
                prev,
                prev_chain,
                commit,
                round,
                entries,
            },
        );
    }

    /// The answer to [`Output::ReadEntries`]; none if they can't be read.
    pub fn entries_read(
        &mut self,
        now: Now,
        follower: ServerId,
        purpose: Purpose,
        from: LogIndex,
        entries: Vec<Entry>,
    ) {
        self.wake(now);
        match purpose {
            Purpose::Append => self.append_read(follower, from, entries),
            Purpose::Fetch => self.fetch_read(follower, from, entries),
        }
    }

    fn append_read(&mut self, follower: ServerId, from: LogIndex, entries: Vec<Entry>) {
        let rest_until = self.now.tick.after(self.config.timing.heartbeat_interval);
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&follower) else {
            return;
        };
        if progress.reading != Some(from) {
            return; // asked before the link was reset
        }
        progress.reading = None;
        if progress.next != from || progress.mode != Mode::Replicate {
            return;
        }
        let indexes = (from.0..).map(LogIndex);
        let ours =
            |(entry, index): &(Entry, LogIndex)| entry.index == *index && self.log.term_at(*index) == Some(entry.term);
        let mut bytes = 0;
        let mut sound = Vec::new();
        for (entry, _) in entries.into_iter().zip(indexes).take_while(ours) {
            bytes += entry_bytes(&entry);
            if !sound.is_empty() && bytes > limits::APPEND_BYTES_MAX {
                break;
            }
            sound.push(entry);
        }
        if sound.is_empty() {
            progress.rest_until = rest_until;
            return;
        }
        if self.is_linked(follower) {
            self.send_append(follower, sound);
        }
    }

    /// A server's answer to an append.
    pub(super) fn on_append_answer(&mut self, from: ServerId, term: Term, round: u64, result: AppendResult) {
        let at = self.now.tick;
        let mut counts = self.is_link_member(from);
        if term > self.hard.term {
            if counts || self.is_link_known(from) {
                self.adopt_term(term, None);
            }
            return;
        }
        let last = self.log.last().index;
        let RoleState::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&from) else {
            return;
        };
        if term < self.hard.term {
            return;
        }
        // Only a refusal says where a log ends; what agrees may be less than what is there.
        let is_fresh = progress.verify.is_some_and(|verify| round >= verify);
        let (is_first, held) = match result {
            AppendResult::Matched { received, .. } => (is_fresh && received >= progress.acknowledged, received),
            AppendResult::Mismatch { hint, .. } => (is_fresh, hint.index),
            AppendResult::Damaged { .. } => (is_fresh, progress.acknowledged),
        };
        if is_first {
            progress.verify = None;
            progress.has_lost |= counts && held < progress.acknowledged;
            if progress.has_lost {
                let acknowledged = progress.acknowledged;
                self.lost_log(from, held, acknowledged);
                return;
            }
        }
        counts &= !progress.has_lost;
        if counts {
            progress.answered_at = at;
            progress.round = progress.round.max(round.min(leader.round));
        }
        match result {
            AppendResult::Matched { received, durable } => {
                if received > last || durable > received {
                    self.event(
                        Level::Error,
                        format!("{from} claims entries that {} doesn't have", self.me),
                    );
                    return;
                }
                if is_first {
                    progress.vouches_to(durable); // it may have found since that it can't read something
                }
                progress.matched(received, durable);
                if counts {
                    progress.counted = progress.counted.max(durable);
                    self.advance_commit();
                }
            }
            AppendResult::Mismatch { refused, hint } => {
                if refused.0 == 0 || refused > last || !progress.is_news(refused) {
                    return;
                }
                let place = self.log.agreeable(hint.index.min(refused.previous()), hint.term);
                progress.probe(place.index.next());
                progress.received = progress.received.min(place.index);
            }
            AppendResult::Damaged { from } => {
                let known = matches!(progress.mode, Mode::Probe { .. } | Mode::Transfer) && progress.next == from;
                if from.0 == 0 || from > last || known {
                    return;
                }
                progress.vouches_to(from.previous());
                progress.probe(from);
                progress.received = progress.received.min(from.previous());
            }
        }
    }

    /// A server's log ends before what it had said was on its disk. Whatever else it has promised may be lost as well: a vote.
    fn lost_log(&mut self, server: ServerId, held: LogIndex, acknowledged: LogIndex) {
        let (group, term, next) = (GroupId::ROOT, self.hard.term, held.next());
        if let RoleState::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&server)
        {
            progress.vouches_to(LogIndex(0));
            progress.received = LogIndex(0);
            progress.probe(next);
        }
        let text = format!(
            "the log of {server} ends at {held}, and it had acknowledged {acknowledged}: its disk has lost something. Nothing that \
             it says counts until it has begun anew"
        );
        self.event(Level::Error, text);
        self.send(
            server,
            Message::LogLost {
                group,
                term,
                acknowledged,
            },
        );
    }

    /// Commits what is durable at a majority, if it is of our own term: an older entry could still be replaced, however many
    /// hold it (Raft §5.4.2).
    pub(super) fn advance_commit(&mut self) {
        let RoleState::Leader(leader) = &self.role else {
            return;
        };
        let durable = |server: ServerId| match leader.progress.get(&server) {
            _ if server == self.me => self.durable(),
            Some(progress) => progress.counted,
            None => LogIndex(0),
        };
        let Some(members) = self.roster.in_force() else {
            return;
        };
        let certain = |member: &Member| {
            if self.roster.is_certain(member) {
                durable(member.id)
            } else {
                LogIndex(0)
            }
        };
        let reached = quorum::reached(members.members.iter().map(certain).collect());
        if reached >= leader.term_start && reached > self.commit {
            self.set_commit(reached);
        }
    }
}
