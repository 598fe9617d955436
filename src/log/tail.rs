//! The end of a group's log as writer and recovery both keep it.

use std::collections::BTreeMap;

use super::payload::{GroupHead, GroupSeal};
use super::{HardState, Recovered};
use crate::cluster::message::{Entry, EntryKind, Hole, LogPosition};
use crate::types::{Blob, GroupId, LogIndex, Term};

/// The end of a group's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tail {
    /// The hard state, with the highest commit position that was heard of.
    pub state: HardState,
    /// The commit position that a record carries.
    pub commit_recorded: LogIndex,
    /// The entry before the first that the log holds.
    pub base: LogPosition,
    /// The running check up to there.
    pub base_chain: u32,
    /// The last entry.
    pub last: LogPosition,
    /// The running check up to there.
    pub chain: u32,
    /// First index and term of each term, ascending. An entry of which the term isn't known counts to that of the one before.
    pub terms: Vec<(LogIndex, Term)>,
    /// Members entries, ascending: the last is in force, the others come back when it is made void.
    pub members: Vec<Entry>,
    /// Entries that can't be read, with their terms as far as these are known.
    pub holes: BTreeMap<LogIndex, Option<Term>>,
}

impl Tail {
    /// The log begins behind `base`, which is known only from a checkpoint.
    pub fn begin(&mut self, base: LogPosition, chain: u32, members: Vec<Entry>) {
        self.void(LogIndex(0));
        (self.base, self.base_chain) = (base, chain);
        self.start(base, chain, members);
    }

    /// Entries up to `last` are known, but their terms: only that of the last.
    pub fn start(&mut self, last: LogPosition, chain: u32, members: Vec<Entry>) {
        (self.last, self.chain, self.members) = (last, chain, members);
        for at in [self.base, last] {
            if at.index > LogIndex(0) && self.term_of(at.index) != Some(at.term) {
                self.terms.push((at.index, at.term));
            }
        }
    }

    /// An entry stands in the log. It makes void what stood at its index and above.
    pub fn entry(&mut self, at: LogPosition, kind: EntryKind, payload: &[u8], chain: u32) {
        self.place(at, chain);
        if kind == EntryKind::Members {
            self.members.push(members_entry(at, payload));
        }
    }

    /// An entry stands in the log, as [`entry`](Tail::entry) has it, and can't be read.
    pub fn unreadable(&mut self, at: LogPosition, chain: u32) {
        self.place(at, chain);
        self.holes.insert(at.index, Some(at.term));
    }

    /// Entries stand in the log that can't be read, and of which nothing is known but that they make void what stood there.
    pub fn lost(&mut self, from: LogIndex, to: LogIndex) {
        self.void(from);
        self.holes.extend((from.0..=to.0).map(|index| (LogIndex(index), None)));
        let term = self.term_of(to).unwrap_or_default();
        (self.last, self.chain) = (LogPosition { term, index: to }, 0);
    }

    /// An entry stands in the place of the one of its index. False if its term doesn't fit there.
    pub fn fill(&mut self, at: LogPosition, kind: EntryKind, payload: &[u8], chain: u32) -> bool {
        let run = self.terms.partition_point(|&(first, _)| first <= at.index);
        let before = run.checked_sub(1).map_or(Term(0), |run| self.terms[run].1);
        let after = self.terms.get(run).copied();
        if at.term < before || after.is_some_and(|(_, term)| at.term > term) {
            return false;
        }
        if at.term > before {
            // Up to now it counted to the term before it, and so did those that follow it in that term: none of them is known.
            if after.is_some_and(|(_, term)| term == at.term) {
                self.terms.remove(run);
            }
            self.terms.insert(run, (at.index, at.term));
        }
        if self.last.index == at.index {
            (self.last, self.chain) = (at, if self.chain == 0 { chain } else { self.chain });
        }
        self.holes.remove(&at.index);
        if kind == EntryKind::Members {
            self.members.retain(|members| members.index != at.index);
            let place = self.members.partition_point(|members| members.index < at.index);
            self.members.insert(place, members_entry(at, payload));
        }
        true
    }

    /// What stood at this index and above is void. The last entry is for the caller to say.
    pub fn void(&mut self, from: LogIndex) {
        while self.terms.last().is_some_and(|&(first, _)| first >= from) {
            self.terms.pop();
        }
        while self.members.last().is_some_and(|members| members.index >= from) {
            self.members.pop();
        }
        self.holes.split_off(&from);
    }

    /// The term of an entry that isn't before the base.
    pub fn term_of(&self, index: LogIndex) -> Option<Term> {
        let after = self.terms.partition_point(|&(first, _)| first <= index);
        Some(self.terms.get(after.checked_sub(1)?)?.1)
    }

    /// The commit position was heard of.
    pub fn committed(&mut self, commit: LogIndex) {
        self.state.commit = self.state.commit.max(commit);
    }

    /// A hard state was recorded. A commit position that is known never goes back.
    pub fn hard_state(&mut self, state: &HardState) {
        let commit = self.state.commit.max(state.commit);
        self.state = HardState { commit, ..*state };
    }

    /// What the head of a segment says of the group.
    pub fn head(&self, group: GroupId) -> GroupHead {
        let committed = |members: &&Entry| members.index <= self.state.commit;
        let before = self.members.iter().take_while(committed).count();
        GroupHead {
            group,
            state: self.state,
            members: self.members[before.saturating_sub(1)..].to_vec(),
            last: self.last,
            chain: self.chain,
            anew: false,
        }
    }

    /// What a seal says of the group.
    pub fn seal(&self, group: GroupId) -> GroupSeal {
        GroupSeal {
            group,
            state: self.state,
            last: self.last,
            chain: self.chain,
        }
    }

    /// What the node gets to know. A commit position beyond the last entry stood before entries that were torn.
    pub fn recovered(&self) -> Recovered {
        let commit = self.state.commit.min(self.last.index);
        Recovered {
            state: HardState { commit, ..self.state },
            base: self.base,
            base_chain: self.base_chain,
            last: self.last,
            last_chain: self.chain,
            terms: self.terms.clone(),
            members: self.members.clone(),
            holes: self.holes.iter().map(|(&index, &term)| Hole { index, term }).collect(),
        }
    }

    fn place(&mut self, at: LogPosition, chain: u32) {
        self.void(at.index);
        if self.terms.last().is_none_or(|&(_, term)| term != at.term) {
            self.terms.push((at.index, at.term));
        }
        (self.last, self.chain) = (at, chain);
    }
}

fn members_entry(at: LogPosition, payload: &[u8]) -> Entry {
    Entry {
        index: at.index,
        term: at.term,
        kind: EntryKind::Members,
        payload: Blob::new(payload),
    }
}
