//! What of the log and of the hard state is on the disk. Records are handed out, named by an append id later, and durable
//! later still; in between the log may be cut, and then an old append that becomes durable proves nothing about the new
//! entries at the same indexes.

use std::collections::VecDeque;

use crate::cluster::message::HardState;
use crate::types::{AppendId, LogIndex, Span, Tick};

/// Records that become durable together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Batch {
    /// How far today's log is durable once this batch is. Cutting the log lowers it, so it never speaks for entries that
    /// were written later.
    end: LogIndex,
    /// Entries that take the place of what couldn't be read, and are still part of today's log.
    fills: Vec<LogIndex>,
    state: Option<HardState>,
    records: u64,
}

/// Follows the records to the disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Durability {
    durable: LogIndex,
    state: HardState,
    open: Batch,
    pending: VecDeque<(AppendId, Tick, Batch)>,
}

impl Durability {
    pub(super) fn new(durable: LogIndex, state: HardState) -> Durability {
        Durability {
            durable,
            state,
            open: Batch::default(),
            pending: VecDeque::new(),
        }
    }

    /// How far the log is on the disk.
    pub(super) fn index(&self) -> LogIndex {
        self.durable
    }

    /// The hard state that is on the disk.
    pub(super) fn state(&self) -> HardState {
        self.state
    }

    pub(super) fn wrote_entry(&mut self, index: LogIndex) {
        self.open.end = index;
        self.open.records += 1;
    }

    pub(super) fn wrote_fill(&mut self, index: LogIndex) {
        self.open.fills.push(index);
        self.open.records += 1;
    }

    /// The log begins anew after `at`; until that is on the disk, only `held` entries of the old one are the same.
    pub(super) fn wrote_base(&mut self, at: LogIndex, held: LogIndex) {
        self.truncated(held);
        self.wrote_entry(at);
    }

    pub(super) fn wrote_state(&mut self, state: HardState) {
        self.open.state = Some(state);
        self.open.records += 1;
    }

    pub(super) fn truncated(&mut self, to: LogIndex) {
        self.durable = self.durable.min(to);
        let pending = self.pending.iter_mut().map(|(_, _, batch)| batch);
        for batch in pending.chain([&mut self.open]) {
            batch.end = batch.end.min(to);
            batch.fills.retain(|&index| index <= to);
        }
    }

    pub(super) fn appended(&mut self, id: AppendId, now: Tick) {
        if self.open.records > 0 {
            self.pending.push_back((id, now, std::mem::take(&mut self.open)));
        }
    }

    /// Gives the entries that can be read again.
    pub(super) fn persisted(&mut self, id: AppendId) -> Vec<LogIndex> {
        let mut fills = Vec::new();
        while self.pending.front().is_some_and(|&(pending, _, _)| pending <= id) {
            if let Some((_, _, batch)) = self.pending.pop_front() {
                self.durable = self.durable.max(batch.end);
                self.state = batch.state.unwrap_or(self.state);
                fills.extend(batch.fills);
            }
        }
        fills
    }

    /// Appends that wait for the disk.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether the oldest append has waited for longer than `span`.
    pub(super) fn is_stalled(&self, now: Tick, span: Span) -> bool {
        self.pending
            .front()
            .is_some_and(|&(_, since, _)| now.since(since) > span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_append_proves_nothing_about_entries_that_came_after_a_cut() {
        let mut disk = Durability::new(LogIndex(4), HardState::default());
        for index in 5..=8 {
            disk.wrote_entry(LogIndex(index));
        }
        disk.appended(AppendId(1), Tick(0));
        disk.truncated(LogIndex(4));
        for index in 5..=6 {
            disk.wrote_entry(LogIndex(index));
        }
        disk.appended(AppendId(2), Tick(0));
        disk.persisted(AppendId(1));
        assert_eq!(disk.index(), LogIndex(4));
        disk.persisted(AppendId(2));
        assert_eq!(disk.index(), LogIndex(6));
    }

    #[test]
    fn a_fill_that_was_cut_off_fills_nothing() {
        let mut disk = Durability::new(LogIndex(9), HardState::default());
        disk.wrote_fill(LogIndex(3));
        disk.wrote_fill(LogIndex(7));
        disk.appended(AppendId(1), Tick(0));
        disk.truncated(LogIndex(5));
        assert_eq!(disk.persisted(AppendId(1)), [LogIndex(3)]);
        assert_eq!(disk.index(), LogIndex(5));
    }

    #[test]
    fn a_cut_and_its_new_entries_in_one_append_count_to_their_end() {
        let mut disk = Durability::new(LogIndex(4), HardState::default());
        disk.wrote_entry(LogIndex(5));
        disk.wrote_entry(LogIndex(6));
        disk.truncated(LogIndex(4));
        disk.wrote_entry(LogIndex(5));
        disk.appended(AppendId(1), Tick(0));
        disk.persisted(AppendId(1));
        assert_eq!(disk.index(), LogIndex(5));
    }
}
