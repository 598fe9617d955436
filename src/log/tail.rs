//! The end of a group's log as writer and recovery both keep it.

use super::payload::GroupHead;
use super::{HardState, Recovered};
use crate::cluster::message::{Entry, EntryKind, LogPosition};
use crate::types::{Blob, GroupId, LogIndex, Term};

/// The end of a group's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tail {
    /// The hard state, with the highest commit position that was heard of.
    pub state: HardState,
    /// The commit position that a record carries.
    pub commit_recorded: LogIndex,
    /// The last entry.
    pub last: LogPosition,
    /// The running check up to there.
    pub chain: u32,
    /// First index and term of each term, ascending.
    pub terms: Vec<(LogIndex, Term)>,
    /// Members entries, ascending: the last is in force, the others come back when it is made void.
    pub members: Vec<Entry>,
}

impl Tail {
    /// An entry stands in the log. It makes void what stood at its index and above.
    pub fn entry(&mut self, at: LogPosition, kind: EntryKind, payload: &[u8], chain: u32) {
        while self.terms.last().is_some_and(|&(first, _)| first >= at.index) {
            self.terms.pop();
        }
        while self.members.last().is_some_and(|members| members.index >= at.index) {
            self.members.pop();
        }
        if self.terms.last().is_none_or(|&(_, term)| term != at.term) {
            self.terms.push((at.index, at.term));
        }
        if kind == EntryKind::Members {
            self.members.push(Entry {
                index: at.index,
                term: at.term,
                kind,
                payload: Blob::new(payload),
            });
        }
        self.last = at;
        self.chain = chain;
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
        GroupHead {
            group,
            state: self.state,
            members: self.members.last().cloned(),
            last: self.last,
            chain: self.chain,
        }
    }

    /// What the node gets to know. A commit position beyond the last entry stood before entries that were torn.
    pub fn recovered(&self) -> Recovered {
        let commit = self.state.commit.min(self.last.index);
        Recovered {
            state: HardState { commit, ..self.state },
            last: self.last,
            last_chain: self.chain,
            terms: self.terms.clone(),
            members: self.members.clone(),
            ..Recovered::default()
        }
    }
}
