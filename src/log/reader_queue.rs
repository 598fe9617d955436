//! What waits for the reading thread. Which items stand where it needn't know before somebody asks, and waking it for those of every turn
//! would cost more than they do: they go with the next question, or when there are many.

use std::collections::VecDeque;

use super::{ItemRef, ReadRequest};
use crate::limits::INDEX_ITEMS_HELD;
use crate::types::{LogIndex, Position, RoomId, Seq};

/// Something for the reading thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReaderJob {
    /// Remember these items.
    Index(Vec<ItemRef>),
    /// Begin anew with rooms that end at these positions and numbers.
    Seed(Vec<(RoomId, Position, Seq)>),
    /// Don't show what stands in entries up to this one.
    Trim(LogIndex),
    /// Answer this.
    Read(ReadRequest),
}

/// Jobs in their order.
#[derive(Debug, Default)]
pub struct ReaderQueue {
    jobs: VecDeque<ReaderJob>,
}

impl ReaderQueue {
    /// One more, behind the others.
    pub fn push(&mut self, job: ReaderJob) {
        match (self.jobs.back_mut(), job) {
            (Some(ReaderJob::Index(before)), ReaderJob::Index(mut items)) => before.append(&mut items),
            (_, job) => self.jobs.push_back(job),
        }
    }

    /// The first, for which there was no room.
    pub fn put_back(&mut self, job: ReaderJob) {
        self.jobs.push_front(job);
    }

    /// Whether the first is to be handed over.
    #[must_use]
    pub fn is_due(&self) -> bool {
        match self.jobs.front() {
            Some(ReaderJob::Index(items)) => self.jobs.len() > 1 || items.len() >= INDEX_ITEMS_HELD,
            Some(_) => true,
            None => false,
        }
    }

    /// Whether the first is a question.
    #[must_use]
    pub fn is_question(&self) -> bool {
        matches!(self.jobs.front(), Some(ReaderJob::Read(_)))
    }

    /// The first, if it is to be handed over.
    pub fn pop(&mut self) -> Option<ReaderJob> {
        if self.is_due() { self.jobs.pop_front() } else { None }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GroupId;

    fn items(count: usize) -> ReaderJob {
        let item = ItemRef {
            room: RoomId::LOBBY,
            position: Position(1),
            seq: Seq(1),
            group: GroupId::ROOT,
            index: LogIndex(1),
        };
        ReaderJob::Index(vec![item; count])
    }

    #[test]
    fn items_wait_for_a_question_and_come_before_it() {
        let mut queue = ReaderQueue::default();
        queue.push(items(2));
        queue.push(items(3));
        assert_eq!((queue.pop(), queue.len()), (None, 1));
        let trim = ReaderJob::Trim(LogIndex(7));
        queue.push(trim.clone());
        queue.push(items(1));
        assert_eq!(queue.pop(), Some(items(5)));
        queue.put_back(items(5));
        assert_eq!(queue.pop(), Some(items(5)));
        assert_eq!(queue.pop(), Some(trim));
        assert_eq!((queue.pop(), queue.is_due(), queue.is_empty()), (None, false, false));
        queue.push(items(INDEX_ITEMS_HELD - 1));
        assert_eq!(queue.pop(), Some(items(INDEX_ITEMS_HELD)));
    }
}
