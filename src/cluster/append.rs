//! Appends: how the leader's log gets to the others and what comes back. Messages are built when the outputs are drained, so
//! that all proposals of a turn go to a follower in one append, and all its progress comes back in one answer.

use crate::cluster::chain::chain;
use crate::cluster::entries::entry_bytes;
use crate::cluster::message::{AppendResult, Entry, EntryKind, LogPosition, Message};
use crate::cluster::progress::Mode;
use crate::cluster::role::RoleState;
use crate::cluster::{Cluster, Output, Purpose, members, quorum};
use crate::limits;
use crate::types::{Blob, GroupId, Level, LogIndex, Now, ServerId, Term};

impl Cluster {
    /// Whether our history and the leader's differ, so that nothing of it is taken.
    #[must_use]
    pub fn is_out_of_step(&self) -> bool {
        matches!(&self.role, RoleState::Following(following) if following.is_difference_reported)
    }

    /// Whether [`propose`](Cluster::propose) would take something.
    #[must_use]
    pub fn can_propose(&self) -> bool {
        match &self.role {
            RoleState::Leader(leader) => {
                leader.transfer.is_none()
                    && self.stopping.is_none()
                    && leader.uncommitted_bytes < limits::UNCOMMITTED_BYTES_MAX
                    && self.durability.pending() < limits::UNPERSISTED_APPENDS_MAX
            }
            _ => false,
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
        }
        Some(index)
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
    }

    fn flush_appends_to(&mut self, server: ServerId) {
        let (last, first, now) = (self.log.last().index, self.log.first(), self.now.tick);
        loop {
            let RoleState::Leader(leader) = &mut self.role else {
                return;
            };
            let round = leader.round;
            let Some(progress) = leader.progress.get_mut(&server) else {
                return;
            };
            let next = progress.next;
            let wants = next <= last && progress.has_room() && progress.reading.is_none();
            if wants && next >= first {
                let entries = self.log.gather(next, limits::APPEND_BYTES_MAX);
                self.send_append(server, entries);
                continue;
            }
            if wants && progress.mode == Mode::Replicate && now >= progress.rest_until {
                progress.reading = Some(next);
                let bytes_max = limits::APPEND_BYTES_MAX;
                self.outputs.push_back(Output::ReadEntries {
                    follower: server,
                    purpose: Purpose::Append,
                    from: next,
                    to: first.previous(),
                    bytes_max,
                });
                continue;
            }
            // A place to be looked for that isn't in memory is asked for without entries.
            let probes = progress.mode == Mode::Probe { is_out: false };
            let tells = progress.mode == Mode::Replicate && progress.commit_sent < self.commit;
            if probes || tells || progress.is_pulse_due || progress.round_sent < round {
                self.send_append(server, Vec::new());
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
        let at = progress.next.previous();
        let Some(prev) = self.log.position(at) else {
            panic!("a leader knows the terms of its own log");
        };
        let prev_chain = self.log.chain_at(at).unwrap_or(0);
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
    pub fn entries_read(&mut self, now: Now, follower: ServerId, from: LogIndex, entries: Vec<Entry>) {
        self.wake(now);
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
        let counts = self.is_link_member(from);
        if term > self.hard.term {
            if counts {
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
        if counts {
            progress.answered_at = at;
        }
        if counts {
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
                // It had more on its disk once. What it lost doesn't count any longer.
                progress.durable = progress.durable.min(hint.index);
                if counts {
                    progress.counted = progress.counted.min(hint.index);
                }
            }
        }
    }

    /// Commits what is durable at a majority, if it is of our own term: an older entry could still be replaced, however many
    /// hold it (Raft §5.4.2).
    pub(super) fn advance_commit(&mut self) {
        let RoleState::Leader(leader) = &self.role else {
            return;
        };
        let durable = |server: ServerId| match leader.progress.get(&server) {
            _ if server == self.me => self.durability.index(),
            Some(progress) => progress.counted,
            None => LogIndex(0),
        };
        let Some(members) = &self.members else {
            return;
        };
        let reached = quorum::reached(members.members.iter().map(|member| durable(member.id)).collect());
        if reached >= leader.term_start && reached > self.commit {
            self.set_commit(reached);
        }
    }

    // --- The follower -----------------------------------------------------------------------------

    /// An append of a leader.
    pub(super) fn on_append(
        &mut self,
        from: ServerId,
        term: Term,
        (prev, prev_chain): (LogPosition, u32),
        commit: LogIndex,
        round: u64,
        entries: Vec<Entry>,
    ) {
        if self.members.is_some() && !self.is_link_member(from) {
            return;
        }
        if term < self.hard.term {
            let result = AppendResult::Mismatch {
                refused: LogIndex(0),
                hint: self.log.last(),
            };
            let term = self.hard.term;
            self.send(
                from,
                Message::AppendAnswer {
                    group: GroupId::ROOT,
                    term,
                    round: 0,
                    result,
                },
            );
            return;
        }
        if !is_consecutive(prev, term, &entries) {
            self.event(Level::Error, format!("{from} sent an append that makes no sense"));
            return;
        }
        if term > self.hard.term {
            self.adopt_term(term, None);
        }
        match &self.role {
            RoleState::Seeking(_) | RoleState::Candidate(_) => self.become_following(from),
            RoleState::Following(following) if following.leader == from => {}
            RoleState::Following(_) | RoleState::Leader(_) => {
                self.event(Level::Error, format!("{from} also claims to lead in term {term}"));
                return;
            }
        }
        let at = self.now.tick;
        if let RoleState::Following(following) = &mut self.role {
            following.append_at = at;
            following.round = following.round.max(round);
        }
        self.take_entries(from, prev, prev_chain, commit, entries);
    }

    fn take_entries(
        &mut self,
        from: ServerId,
        prev: LogPosition,
        prev_chain: u32,
        commit: LogIndex,
        entries: Vec<Entry>,
    ) {
        if self.log.term_at(prev.index) != Some(prev.term) {
            self.refuse_append(from, prev);
            return;
        }
        let ours = self.log.chain_at(prev.index);
        if prev_chain != 0 && ours.is_some_and(|ours| ours != 0 && ours != prev_chain) {
            self.report_difference(from, prev.index);
            return;
        }
        if ours.is_none() {
            // Only the end of the log can lack its check, after a cut into what is only on the disk.
            self.log.adopt_chain(prev.index, prev_chain);
        }
        let matched = LogIndex(prev.index.0 + entries.len() as u64);
        let held = |entry: &Entry| self.log.term_at(entry.index) == Some(entry.term);
        let news = entries.iter().take_while(|entry| held(entry)).count();
        if let Some(entry) = entries.get(news)
            && entry.index <= self.log.last().index
        {
            let keep = entry.index.previous();
            if keep < self.commit {
                self.report_difference(from, entry.index);
                return;
            }
            self.truncate(keep);
            if prev_chain != 0 {
                let step = |check, held: &Entry| chain(check, held.term, held.index, held.kind, &held.payload);
                self.log
                    .adopt_chain(keep, entries.iter().take(news).fold(prev_chain, step));
            }
        }
        for entry in entries.into_iter().skip(news) {
            if entry.index.0 == 1 && !self.learn_members(&entry) {
                return;
            }
            self.write_entry(entry);
        }
        let RoleState::Following(following) = &mut self.role else {
            return;
        };
        following.matched = following.matched.max(matched);
        following.is_answer_due = true;
        let commit = commit.min(following.matched);
        if commit > self.commit {
            self.set_commit(commit);
        }
    }

    /// Removes everything above an index; the records that follow take its place on the disk.
    fn truncate(&mut self, to: LogIndex) {
        self.log.truncate(to);
        self.durability.truncated(to);
        if to.0 == 0 {
            self.members = None;
        }
        if let RoleState::Following(following) = &mut self.role {
            following.matched = following.matched.min(to);
        }
    }

    /// The first entry of a log says who belongs to the cluster.
    fn learn_members(&mut self, entry: &Entry) -> bool {
        let found = if entry.kind == EntryKind::Members {
            members::decode_members(&entry.payload)
        } else {
            None
        };
        let Some(found) = found else {
            self.event(
                Level::Error,
                "the first entry of the leader's log doesn't hold the members".to_owned(),
            );
            return false;
        };
        if let Some(difference) = members::difference(&found, &self.config) {
            self.outputs.push_back(Output::Misconfigured(difference));
            return false;
        }
        self.members = Some(found);
        true
    }

    fn refuse_append(&mut self, from: ServerId, prev: LogPosition) {
        let hint = self.log.agreeable(prev.index.previous(), prev.term);
        // What is committed agrees with every leader's log.
        let commit = self.log.position(self.commit).unwrap_or_default();
        let hint = if commit.index > hint.index && commit.index < prev.index {
            commit
        } else {
            hint
        };
        let (term, group) = (self.hard.term, GroupId::ROOT);
        let round = if let RoleState::Following(following) = &self.role {
            following.round
        } else {
            0
        };
        let result = AppendResult::Mismatch {
            refused: prev.index,
            hint,
        };
        self.send(
            from,
            Message::AppendAnswer {
                group,
                term,
                round,
                result,
            },
        );
    }

    fn report_difference(&mut self, from: ServerId, index: LogIndex) {
        let RoleState::Following(following) = &mut self.role else {
            return;
        };
        if !following.is_difference_reported {
            following.is_difference_reported = true;
            let text = format!("our history and that of the leader {from} differ at index {index}: nothing is taken");
            self.event(Level::Error, text);
        }
    }

    /// One answer for all that came or became durable since the last.
    pub(super) fn flush_answer(&mut self) {
        let (term, group, durable) = (self.hard.term, GroupId::ROOT, self.durability.index());
        let RoleState::Following(following) = &mut self.role else {
            return;
        };
        if !std::mem::take(&mut following.is_answer_due) {
            return;
        }
        let (to, round, received) = (following.leader, following.round, following.matched);
        let result = AppendResult::Matched {
            received,
            durable: durable.min(received),
        };
        self.send(
            to,
            Message::AppendAnswer {
                group,
                term,
                round,
                result,
            },
        );
    }
}

/// Whether entries follow `prev` and each other, with terms that never go down and none above the leader's.
fn is_consecutive(prev: LogPosition, term: Term, entries: &[Entry]) -> bool {
    let mut last = prev;
    let follows = entries.iter().all(|entry| {
        let follows = last.index.0.checked_add(1) == Some(entry.index.0) && entry.term >= last.term;
        last = LogPosition {
            term: entry.term,
            index: entry.index,
        };
        follows
    });
    follows && last.term <= term
}
