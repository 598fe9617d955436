//! The follower's side of appends: what is taken of a leader's log, and what is answered.

use crate::cluster::Cluster;
use crate::cluster::chain::chain;
use crate::cluster::entries::entry_bytes;
use crate::cluster::message::{AppendResult, Entry, EntryKind, LogPosition, Message};
use crate::cluster::role::{Answered, RoleState, Stretch};
use crate::limits;
use crate::types::{GroupId, Level, LogIndex, ServerId, Span, Term};

impl Cluster {
    /// Whether our history and the leader's differ, so that nothing of it is taken.
    #[must_use]
    pub fn is_out_of_step(&self) -> bool {
        matches!(&self.role, RoleState::Following(following) if following.is_difference_reported)
    }

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
        if !self.may_lead_us(from) {
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
        let stretch = self.after_undecided(Stretch {
            prev,
            prev_chain,
            entries,
        });
        self.take_entries(from, commit, stretch);
    }

    /// If nothing could be told from the append before, and this one goes on where it ends: the two as one. Else this one.
    fn after_undecided(&mut self, stretch: Stretch) -> Stretch {
        let RoleState::Following(following) = &mut self.role else {
            return stretch;
        };
        let Some(mut before) = following.undecided.take() else {
            return stretch;
        };
        let end = before.entries.last().map(|entry| (entry.index, entry.term));
        if end != Some((stretch.prev.index, stretch.prev.term)) || stretch.entries.is_empty() {
            return stretch;
        }
        before.entries.extend(stretch.entries);
        before
    }

    fn take_entries(&mut self, from: ServerId, commit: LogIndex, stretch: Stretch) {
        let start = self.log.start();
        if stretch.prev.index < start.index {
            self.skip_to_start(from, commit, stretch);
            return;
        }
        let (prev, prev_chain) = (stretch.prev, stretch.prev_chain);
        let held = match self.log.term_at(prev.index) {
            Some(term) => term == prev.term,
            // Its term can't be read either; but what is committed agrees with every leader's log.
            None => prev.index <= self.commit,
        };
        if !held {
            match self.log.missing_between(self.commit, prev.index) {
                Some(hole) => self.answer(from, AppendResult::Damaged { from: hole }),
                None => self.refuse_append(from, prev),
            }
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
        if commit.min(prev.index) > self.commit {
            self.set_commit(commit.min(prev.index));
        }
        // What is committed is fetched from whoever has it, while the log goes on; if that is in vain, or nothing says that it is
        // committed, the leader must send it.
        let vain = self.log.first_hole().filter(|_| self.repair.is_vain());
        let hole = vain.or(self.log.missing_between(self.commit, prev.index));
        if let Some(hole) = hole.filter(|&hole| hole <= prev.index) {
            self.answer(from, AppendResult::Damaged { from: hole });
            return;
        }
        let Some(news) = self.fill_from(&stretch.entries) else {
            let bytes: usize = stretch.entries.iter().map(entry_bytes).sum();
            if let RoleState::Following(following) = &mut self.role
                && bytes <= limits::UNDECIDED_BYTES_MAX
            {
                following.undecided = Some(stretch);
            }
            return;
        };
        let entries = stretch.entries;
        let matched = LogIndex(prev.index.0 + entries.len() as u64);
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
            if (entry.index.0 == 1 || entry.kind == EntryKind::Members) && !self.learn_members(&entry) {
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

    /// An append from a place that is only in our checkpoint: that agrees with every leader's log.
    fn skip_to_start(&mut self, from: ServerId, commit: LogIndex, mut stretch: Stretch) {
        let start = self.log.start();
        let skipped = usize::try_from(start.index.0 - stretch.prev.index.0).unwrap_or(usize::MAX);
        match stretch.entries.get(skipped - 1) {
            Some(entry) if entry.term != start.term => self.report_difference(from, start.index),
            Some(_) => {
                let rest = Stretch {
                    prev: start,
                    prev_chain: 0,
                    entries: stretch.entries.split_off(skipped),
                };
                self.take_entries(from, commit, rest);
            }
            None => {
                if let RoleState::Following(following) = &mut self.role {
                    following.matched = following.matched.max(start.index);
                    following.is_answer_due = true;
                }
            }
        }
    }

    /// Closes holes with entries of the leader that follow something on which the logs agree. Gives how many of the entries we
    /// hold, or hold again; `None` if it can't be told from these whether the logs agree.
    ///
    /// Where the term of ours can't be read, the next one that can decides. If the leader's entry is of that term, the leader of
    /// that term has made both, and ours is the same. If it is of a later one, ours isn't. If it is of an earlier one, the logs
    /// agree here if they agree there.
    fn fill_from(&mut self, entries: &[Entry]) -> Option<usize> {
        let last = self.log.last().index;
        let mut news = 0;
        let mut fills = Vec::new();
        let mut ahead = (LogIndex(0), Term(0));
        for (at, entry) in entries.iter().enumerate() {
            let is_same = match self.log.term_at(entry.index) {
                Some(term) => term == entry.term,
                None if entry.index > last => false,
                None if entry.index <= self.commit => true,
                None => {
                    if ahead.0 < entry.index {
                        ahead = self.log.certain_from(entry.index);
                    }
                    let (index, term) = ahead;
                    let distance = usize::try_from(index.0 - entry.index.0).ok();
                    let theirs = distance.and_then(|distance| entries.get(at + distance));
                    match theirs {
                        Some(theirs) => theirs.term == term,
                        None if entry.term == term => true,
                        None if entry.term > term => false,
                        None => return None,
                    }
                }
            };
            if !is_same {
                break;
            }
            if self.log.is_missing(entry.index) {
                fills.push(entry.clone());
            }
            news += 1;
        }
        for entry in fills {
            self.write_fill(entry);
        }
        Some(news)
    }

    /// Removes everything above an index; the records that follow take its place on the disk.
    fn truncate(&mut self, to: LogIndex) {
        self.log.truncate(to);
        self.durability.truncated(to);
        self.roster.truncate(to);
        if let RoleState::Following(following) = &mut self.role {
            following.matched = following.matched.min(to);
        }
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
        let refused = prev.index;
        self.answer(from, AppendResult::Mismatch { refused, hint });
    }

    fn answer(&mut self, to: ServerId, result: AppendResult) {
        let (term, group, at) = (self.hard.term, GroupId::ROOT, self.now.tick);
        let mut round = 0;
        if let RoleState::Following(following) = &mut self.role {
            round = following.round;
            following.answered = match result {
                AppendResult::Matched { received, durable } => Some(Answered {
                    round,
                    received,
                    durable,
                    at,
                }),
                _ => None,
            };
        }
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

    /// One answer for all that came or became durable since the last. What came is answered once it is durable: until then it tells the
    /// leader nothing that it could use. If the disk takes long, or there is no news, the leader's next pulse is answered, so that it
    /// knows that we live.
    pub(super) fn flush_answer(&mut self) {
        let (durable, at) = (self.durable(), self.now.tick);
        let pulse = Span(self.config.timing.heartbeat_interval.0 / 2);
        let RoleState::Following(following) = &mut self.role else {
            return;
        };
        if !std::mem::take(&mut following.is_answer_due) {
            return;
        }
        let (to, received, round) = (following.leader, following.matched, following.round);
        let durable = durable.min(received);
        let is_news = following.answered.is_none_or(|last| {
            round > last.round || durable != last.durable || received < last.received || at.since(last.at) >= pulse
        });
        if is_news {
            self.answer(to, AppendResult::Matched { received, durable });
        }
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
