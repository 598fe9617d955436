//! Terms and votes: Raft's safety (Ongaro and Ousterhout, "In search of an understandable consensus algorithm", 2014, §5;
//! pre-vote and the leader's check of its majority: Ongaro's thesis, 2014, §9.6 and §6.2). A vote is on the disk before it is
//! answered, and a candidate's own vote counts only from then on too.

use crate::cluster::message::{Entry, EntryKind, HardState, LogPosition, Message, Record};
use crate::cluster::role::{RoleState, Seeking};
use crate::cluster::{Cluster, Output};
use crate::types::{AppendId, Blob, DirectoryId, GroupId, Level, LogIndex, Now, ServerId, Span, Term};

impl Cluster {
    /// A frame of the link.
    pub fn message(&mut self, now: Now, from: ServerId, message: Message) {
        self.wake(now);
        let Some(link) = self.peer(from).and_then(|peer| peer.link.as_ref()) else {
            return; // it was sent over a link that is gone
        };
        let directory = link.directory;
        self.link_spoke(from);
        self.report_peer(from, "");
        if self.member_count() > 0 && !self.is_known(from, directory) {
            self.report_stranger(from, directory);
        }
        if group_of(&message).is_some_and(|group| group != GroupId::ROOT) {
            return;
        }
        match message {
            Message::Ping => {}
            Message::PreVote { term, last, .. } => self.on_pre_vote(from, term, last),
            Message::PreVoteAnswer {
                term, granted, refusal, ..
            } => {
                self.on_pre_vote_answer(from, term, granted, refusal);
            }
            Message::Vote {
                term, last, transfer, ..
            } => self.on_vote(from, term, last, transfer),
            Message::VoteAnswer { term, granted, .. } => self.on_vote_answer(from, term, granted),
            Message::Append {
                term,
                prev,
                prev_chain,
                commit,
                round,
                entries,
                ..
            } => {
                self.on_append(from, term, (prev, prev_chain), commit, round, entries);
            }
            Message::AppendAnswer {
                term, round, result, ..
            } => self.on_append_answer(from, term, round, result),
            Message::TransferNow { term, .. } => self.on_transfer_now(from, term),
            Message::ReadIndex { id, .. } => self.on_read_index(from, id),
            Message::ReadIndexAnswer { id, index, .. } => self.on_read_index_answer(from, id, index),
            Message::Fetch { from: first, to, .. } => self.on_fetch(from, first, to),
            Message::Fetched {
                from: first, entries, ..
            } => self.on_fetched(from, first, entries),
            Message::Checkpoint {
                term,
                id,
                offset,
                bytes,
                ..
            } => self.on_checkpoint(from, term, id, offset, bytes),
            Message::CheckpointAnswer { term, id, next, .. } => self.on_checkpoint_answer(from, term, id, next),
            Message::Committed { at, .. } => self.on_committed(from, at),
            Message::LogLost { term, acknowledged, .. } => self.on_log_lost(from, term, acknowledged),
            Message::Form { members } => self.on_form(from, members),
            Message::Hello {
                cluster,
                members,
                replaced,
            } => self.on_hello(from, cluster, members, replaced),
        }
    }

    /// Whether a leader's word keeps us from voting: we heard it over its link within the failure time-out and the link
    /// hasn't been reset since. Datagrams don't count: they may get through where the leader's appends don't. A leader is
    /// loyal to itself while a majority answers.
    pub(super) fn is_loyal(&self) -> bool {
        match &self.role {
            RoleState::Following(following) => {
                let recent = self.now.tick.since(following.append_at) <= self.config.timing.failure_timeout;
                recent && self.is_linked(following.leader)
            }
            RoleState::Leader(_) => self.has_majority(),
            RoleState::Seeking(_) | RoleState::Candidate(_) => false,
        }
    }

    /// Moves to a term, with or without a vote in it, and writes both down.
    pub(super) fn set_term(&mut self, term: Term, vote: Option<(ServerId, DirectoryId)>) {
        assert!(
            term > self.hard.term || (term == self.hard.term && self.hard.vote.is_none()),
            "a vote is for ever"
        );
        self.hard = HardState {
            term,
            vote,
            commit: self.commit,
        };
        self.owed_vote = None;
        self.durability.wrote_state(self.hard);
        self.outputs.push_back(Output::Record(Record::State {
            group: GroupId::ROOT,
            state: self.hard,
        }));
    }

    /// A higher term has come: whatever we are, we are it no longer.
    pub(super) fn adopt_term(&mut self, term: Term, vote: Option<(ServerId, DirectoryId)>) {
        if let RoleState::Leader(_) = &self.role {
            let text = format!("{} no longer leads: term {term} has begun", self.me);
            self.event(Level::Info, text);
        }
        self.set_term(term, vote);
        self.become_seeking(false);
    }

    fn on_vote(&mut self, from: ServerId, term: Term, last: LogPosition, transfer: bool) {
        let Some(directory) = self
            .peer(from)
            .and_then(|peer| peer.link.as_ref())
            .map(|link| link.directory)
        else {
            return;
        };
        if !self.is_voter() || !self.is_known(from, directory) {
            return;
        }
        let candidate = (from, directory);
        let loyal = self.is_loyal() && !transfer;
        if term < self.hard.term || (term > self.hard.term && loyal) {
            self.refuse_vote(from);
            return;
        }
        let grant = last >= self.log.last();
        if term > self.hard.term {
            self.adopt_term(term, grant.then_some(candidate));
        } else if self.hard.vote.is_none() && grant && matches!(self.role, RoleState::Seeking(_)) {
            self.set_term(term, Some(candidate));
        }
        if self.hard.vote != Some(candidate) {
            self.refuse_vote(from);
            if !grant {
                // It can't win against a log like ours; its term is the one to beat.
                self.encourage();
                self.consider();
            }
            return;
        }
        if let RoleState::Seeking(seeking) = &mut self.role {
            seeking.ask = None;
            seeking.is_prompt = false;
            self.wait_again();
        }
        self.owed_vote = Some(from);
        self.pay_vote();
    }

    fn refuse_vote(&mut self, to: ServerId) {
        let term = self.hard.term;
        self.send(
            to,
            Message::VoteAnswer {
                group: GroupId::ROOT,
                term,
                granted: false,
            },
        );
    }

    /// Answers with our vote once it is on the disk.
    fn pay_vote(&mut self) {
        let durable = self.durability.state();
        if (durable.term, durable.vote) != (self.hard.term, self.hard.vote) {
            return;
        }
        if let Some(to) = self.owed_vote.take() {
            let term = self.hard.term;
            self.send(
                to,
                Message::VoteAnswer {
                    group: GroupId::ROOT,
                    term,
                    granted: true,
                },
            );
        }
    }

    fn on_vote_answer(&mut self, from: ServerId, term: Term, granted: bool) {
        if !self.is_link_known(from) {
            return;
        }
        if term > self.hard.term {
            // A loyal server answers with its leader's term, which isn't above ours; so this one is past us.
            self.adopt_term(term, None);
            return;
        }
        let counts = self.is_link_member(from);
        if let RoleState::Candidate(candidate) = &mut self.role
            && granted
            && term == self.hard.term
            && counts
        {
            candidate.votes.insert(from);
            self.count_votes();
        }
    }

    /// Our own vote must be among them, even if the others alone are a majority. Else: we lead, crash, have forgotten the
    /// term, stand in it again, are voted for again, and lead the same term twice with two different logs.
    fn count_votes(&mut self) {
        let (me, majority) = (self.me, self.majority());
        if let RoleState::Candidate(candidate) = &self.role
            && self.is_voter()
            && candidate.votes.len() >= majority
            && candidate.votes.contains(&me)
        {
            self.become_leader();
        }
    }

    /// The votes didn't come in time.
    pub(super) fn check_candidacy(&mut self) {
        let now = self.now.tick;
        if let RoleState::Candidate(candidate) = &mut self.role
            && now >= candidate.until
        {
            candidate.tries = candidate.tries.saturating_add(1);
            self.become_seeking(false);
        }
    }

    /// Whether the leader was silent for too long. Its datagrams keep it in office here (its appends may only be late), unless
    /// they say that it doesn't lead, or its link is silent.
    pub(super) fn check_leader(&mut self) {
        let RoleState::Following(following) = &self.role else {
            return;
        };
        let heard = following.append_at.max(following.beat_at);
        let silent = self.now.tick.since(heard);
        if silent > self.config.timing.failure_timeout && self.now.tick >= self.guard_until {
            self.lose_leader(&format!("silent for {} ms", silent.as_ms()));
        }
    }

    /// A heartbeat of somebody says whom it takes for the leader.
    pub(super) fn leader_beat(&mut self, from: ServerId, term: Term, leader: Option<ServerId>) {
        let (now, current) = (self.now.tick, self.hard.term);
        if let RoleState::Following(following) = &mut self.role
            && following.leader == from
            && term >= current
        {
            if leader == Some(from) {
                following.beat_at = now;
            } else if now.since(following.append_at) >= self.config.timing.heartbeat_interval {
                self.lose_leader("it no longer leads");
            }
        }
    }

    pub(super) fn replica_link_up(&mut self, server: ServerId, directory: DirectoryId) {
        let (at, next) = (self.now.tick, self.log.last().index.next());
        match &mut self.role {
            RoleState::Leader(leader) => {
                // What is answered with this round or a later one was asked over this link.
                leader.round += 1;
                if let Some(progress) = leader.progress.get_mut(&server) {
                    progress.connect(directory, next, at, leader.round);
                }
            }
            RoleState::Candidate(_) => self.send_vote(server),
            RoleState::Seeking(_) => self.send_pre_vote(server),
            RoleState::Following(_) => {}
        }
    }

    pub(super) fn replica_link_down(&mut self, server: ServerId, why: &str) {
        let (at, next) = (self.now.tick, self.log.last().index.next());
        match &mut self.role {
            RoleState::Leader(leader) => {
                if let Some(progress) = leader.progress.get_mut(&server) {
                    progress.disconnect(next, at);
                }
                leader.questions.retain(|question| question.from != server);
            }
            RoleState::Following(following) => {
                following.refused.remove(&server);
                if following.leader == server {
                    self.lose_leader(why);
                }
            }
            RoleState::Seeking(Seeking { ask: Some(ask), .. }) => {
                ask.granted.remove(&server);
            }
            RoleState::Seeking(_) | RoleState::Candidate(_) => {}
        }
    }

    /// Whether a majority has answered the leader within the election time-out.
    fn has_majority(&self) -> bool {
        let RoleState::Leader(leader) = &self.role else {
            return false;
        };
        let timeout = self.config.timing.election_timeout;
        let recent = |at| self.now.tick.since(at) <= timeout;
        let answered = leader.progress.values().filter(|progress| recent(progress.answered_at));
        let own = usize::from(self.is_voter());
        answered.count() + own >= self.majority()
    }

    /// Steps down if a majority doesn't answer, or our own disk doesn't.
    pub(super) fn check_office(&mut self) {
        if !matches!(self.role, RoleState::Leader(_)) || self.now.tick < self.guard_until {
            return;
        }
        let timing = self.config.timing;
        let patience = Span(timing.failure_timeout.0.saturating_add(timing.heartbeat_interval.0));
        if !self.has_majority() {
            let ms = timing.election_timeout.as_ms();
            self.step_down(&format!("no majority has answered for {ms} ms"));
        } else if self.durability.is_stalled(self.now.tick, patience) {
            self.step_down(&format!("its disk hasn't answered for {} ms", patience.as_ms()));
        }
    }

    // --- The log ----------------------------------------------------------------------------------

    /// Appends an entry of our own term.
    pub(super) fn append_own(&mut self, kind: EntryKind, payload: Blob) -> LogIndex {
        let index = self.log.last().index.next();
        self.write_entry(Entry {
            index,
            term: self.hard.term,
            kind,
            payload,
        });
        index
    }

    /// Appends an entry to the log in memory, and has it written.
    pub(super) fn write_entry(&mut self, entry: Entry) {
        let group = GroupId::ROOT;
        let chain = self.log.append(entry.clone());
        self.durability.wrote_entry(entry.index);
        self.outputs
            .push_back(Output::Record(Record::Entry { group, entry, chain }));
    }

    /// All records drained since the last call went into this append.
    pub fn appended(&mut self, id: AppendId) {
        self.durability.appended(id, self.now.tick);
    }

    /// All appends up to this one are durable: votes, answers and our own part of a commit are released.
    pub fn persisted(&mut self, now: Now, id: AppendId) {
        self.wake(now);
        let before = self.durable();
        let filled = self.durability.persisted(id);
        if !filled.is_empty() {
            filled.into_iter().for_each(|index| self.log.filled(index));
            self.whole_again();
        }
        self.pay_vote();
        let is_more = self.durable() > before;
        let (me, durable) = (self.me, self.durability.state());
        let own_vote = durable.term == self.hard.term && durable.vote == Some((me, self.directory));
        match &mut self.role {
            RoleState::Candidate(candidate) if own_vote => {
                candidate.votes.insert(me);
                self.count_votes();
            }
            RoleState::Following(following) if is_more && following.matched.0 > 0 => following.is_answer_due = true,
            RoleState::Leader(_) => self.advance_commit(),
            _ => {}
        }
        self.first_entry_durable();
        self.shrink();
    }

    /// The state machine has applied everything up to here; so it is committed, whether we knew that after a restart or not.
    pub fn applied(&mut self, index: LogIndex) {
        let index = index.min(self.log.last().index);
        if index > self.commit {
            self.set_commit(index);
        }
        self.applied = self.applied.max(index);
        self.shrink();
    }

    pub(super) fn shrink(&mut self) {
        self.log.shrink(self.durable(), self.applied, self.commit);
    }

    pub(super) fn set_commit(&mut self, commit: LogIndex) {
        assert!(
            commit >= self.commit && commit <= self.log.last().index,
            "commit goes forward, within the log"
        );
        if commit == self.commit {
            return;
        }
        let bytes = self.log.bytes_between(self.commit, commit);
        let formed = self.formed();
        self.commit = commit;
        self.hard.commit = commit;
        if let RoleState::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(bytes);
            leader.untold_since.get_or_insert(self.now.tick);
        }
        self.commit_members();
        self.ask_again();
        if !formed && self.formed() {
            self.now_formed();
        }
    }

    /// Our leader says that our log ends before what we had said was on the disk. If the disk has lost that, it may have lost a
    /// vote as well, so that nothing we have promised counts.
    fn on_log_lost(&mut self, from: ServerId, term: Term, acknowledged: LogIndex) {
        let leads = matches!(&self.role, RoleState::Following(following) if following.leader == from);
        if leads && term == self.hard.term && self.is_voter() {
            let text = format!(
                "the log ends before entry {acknowledged}, and the leader {from} knows that this was on the disk: the disk has \
                 lost something"
            );
            self.renounce(text);
        }
    }

    /// This directory's word doesn't count any more: from now on it promises nothing.
    pub(super) fn renounce(&mut self, text: String) {
        if !self.renounced {
            self.renounced = true;
            self.beat_due = true;
            self.outputs.push_back(Output::Renounce(text));
        }
    }
}

fn group_of(message: &Message) -> Option<GroupId> {
    match message {
        Message::Ping | Message::Form { .. } | Message::Hello { .. } => None,
        Message::PreVote { group, .. }
        | Message::PreVoteAnswer { group, .. }
        | Message::Vote { group, .. }
        | Message::VoteAnswer { group, .. }
        | Message::Append { group, .. }
        | Message::AppendAnswer { group, .. }
        | Message::TransferNow { group, .. }
        | Message::Fetch { group, .. }
        | Message::Fetched { group, .. }
        | Message::Checkpoint { group, .. }
        | Message::CheckpointAnswer { group, .. }
        | Message::Committed { group, .. }
        | Message::LogLost { group, .. }
        | Message::ReadIndex { group, .. }
        | Message::ReadIndexAnswer { group, .. } => Some(*group),
    }
}
