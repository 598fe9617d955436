//! Where each entry stands: (group, index) → position in the log, shared between writer and reader. Writer and recovery put
//! entries in once they are written; the reader looks them up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::packed::Packed;
use super::record::ALIGNMENT;
use super::segment::Segment;
use crate::types::{GroupId, LogIndex, Lsn};

/// The index of all entries, and the segments that they are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EntryIndex {
    segments: BTreeMap<Lsn, u64>,
    groups: BTreeMap<GroupId, Entries>,
    /// Entries that can't be read.
    lost: BTreeSet<(GroupId, LogIndex)>,
    /// Entries that stand elsewhere than in their order.
    filled: BTreeMap<(GroupId, LogIndex), Lsn>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entries {
    /// The index of the first entry.
    first: LogIndex,
    /// Positions, divided by the alignment of records: later entries stand later.
    places: Packed,
}

impl EntryIndex {
    /// A segment is there.
    pub fn put_segment(&mut self, segment: Segment) {
        self.segments.insert(segment.base, segment.size);
    }

    /// The segment that a position is in.
    #[must_use]
    pub fn segment_of(&self, lsn: Lsn) -> Option<Segment> {
        let (&base, &size) = self.segments.range(..=lsn).next_back()?;
        let segment = Segment { base, size };
        (lsn < segment.end()).then_some(segment)
    }

    /// An entry stands at `lsn`, and whatever the group had at its index and above is void.
    ///
    /// # Panics
    /// If there is a gap between the group's last entry and this one: both callers have checked that.
    pub fn put(&mut self, group: GroupId, index: LogIndex, lsn: Lsn) {
        self.void(group, index);
        self.push(group, index, lsn.0 / ALIGNMENT);
    }

    fn push(&mut self, group: GroupId, index: LogIndex, place: u64) {
        let entries = self.groups.entry(group).or_insert_with(|| Entries {
            first: index,
            places: Packed::new(),
        });
        if entries.places.is_empty() {
            entries.first = index;
        }
        let at = index.0 - entries.first.0;
        assert!(
            at == entries.places.len() as u64,
            "the entries of a group follow each other"
        );
        entries.places.push(place);
    }

    /// What the group had at this index and above is void.
    pub fn void(&mut self, group: GroupId, from: LogIndex) {
        if let Some(entries) = self.groups.get_mut(&group) {
            let keep = from.0.saturating_sub(entries.first.0);
            entries.places.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        }
        self.lost.retain(|&(of, index)| of != group || index < from);
        self.filled.retain(|&(of, index), _| of != group || index < from);
    }

    /// The entry can't be read: a hole, until it is filled. It may be the one after the group's last.
    pub fn lose(&mut self, group: GroupId, index: LogIndex) {
        let entries = self.groups.get(&group);
        let next = entries.is_none_or(|e| e.places.is_empty() || index.0 == e.first.0 + e.places.len() as u64);
        if next {
            // Places only go up, so that of a hole is the one before.
            let place = entries.and_then(|entries| entries.places.last()).unwrap_or(0);
            self.push(group, index, place);
        }
        self.filled.remove(&(group, index));
        self.lost.insert((group, index));
    }

    /// The entry stands at `lsn` now; those after it stay.
    pub fn fill(&mut self, group: GroupId, index: LogIndex, lsn: Lsn) {
        self.lost.remove(&(group, index));
        self.filled.insert((group, index), lsn);
    }

    /// Segments that begin before `lsn` are gone, or of no use any more, and what stands in them with them.
    pub fn remove_before(&mut self, lsn: Lsn) {
        self.segments.retain(|&base, _| base >= lsn);
        for entries in self.groups.values_mut() {
            let from = entries.places.lower_bound(lsn.0 / ALIGNMENT);
            let mut places = Packed::new();
            entries.places.iter_from(from).for_each(|place| places.push(place));
            (entries.first.0, entries.places) = (entries.first.0 + from as u64, places);
        }
        let first = |group: &GroupId| self.groups.get(group).map_or(LogIndex(0), |entries| entries.first);
        self.lost.retain(|(group, index)| *index >= first(group));
        self.filled.retain(|(group, index), _| *index >= first(group));
    }

    /// All segments, ascending.
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        self.segments
            .iter()
            .map(|(&base, &size)| Segment { base, size })
            .collect()
    }

    /// Where an entry stands.
    #[must_use]
    pub fn find(&self, group: GroupId, index: LogIndex) -> Option<Lsn> {
        self.range(group, index, index, 1).first().copied()
    }

    /// Where the entries `from..=to` stand, at most `count` of them, from the first on without a gap.
    #[must_use]
    pub fn range(&self, group: GroupId, from: LogIndex, to: LogIndex, count: usize) -> Vec<Lsn> {
        let Some(entries) = self.groups.get(&group) else {
            return Vec::new();
        };
        let Some(at) = from.0.checked_sub(entries.first.0) else {
            return Vec::new();
        };
        let wanted = to.0.saturating_add(1).saturating_sub(from.0).min(count as u64) as usize;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let places = entries.places.iter_from(at).take(wanted).zip(from.0..);
        let readable = places.take_while(|&(_, index)| !self.lost.contains(&(group, LogIndex(index))));
        let filled = |index| self.filled.get(&(group, LogIndex(index))).copied();
        readable
            .map(|(place, index)| filled(index).unwrap_or(Lsn(place * ALIGNMENT)))
            .collect()
    }

    /// Bytes of memory that the index takes, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.groups.values().map(|entries| entries.places.memory()).sum()
    }
}

/// The index as writer and reader share it.
#[derive(Clone, Debug, Default)]
pub struct SharedIndex {
    index: Arc<RwLock<EntryIndex>>,
}

impl SharedIndex {
    /// Shares an index.
    #[must_use]
    pub fn new(index: EntryIndex) -> SharedIndex {
        SharedIndex {
            index: Arc::new(RwLock::new(index)),
        }
    }

    /// For a look. Held shortly: the writer waits for it.
    pub fn read(&self) -> RwLockReadGuard<'_, EntryIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a change.
    pub fn write(&self) -> RwLockWriteGuard<'_, EntryIndex> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: GroupId = GroupId::ROOT;

    #[test]
    fn an_entry_voids_what_was_at_its_index_and_above() {
        let mut index = EntryIndex::default();
        for i in 1..=8 {
            index.put(ROOT, LogIndex(i), Lsn(i * 80));
        }
        index.put(GroupId(1), LogIndex(1), Lsn(1000));
        index.put(ROOT, LogIndex(5), Lsn(2000));
        assert_eq!(index.find(ROOT, LogIndex(4)), Some(Lsn(320)));
        assert_eq!(index.find(ROOT, LogIndex(5)), Some(Lsn(2000)));
        assert_eq!(index.find(ROOT, LogIndex(6)), None);
        assert_eq!(index.find(GroupId(1), LogIndex(1)), Some(Lsn(1000)));
    }

    #[test]
    fn a_range_is_without_gaps_and_bounded() {
        let mut index = EntryIndex::default();
        for i in 1..=300 {
            index.put(ROOT, LogIndex(i), Lsn(i * 80));
        }
        let range = |from, to, count| index.range(ROOT, LogIndex(from), LogIndex(to), count);
        assert_eq!(range(299, 310, 50), [Lsn(299 * 80), Lsn(300 * 80)]);
        assert_eq!(range(10, 100, 2), [Lsn(800), Lsn(880)]);
        assert!(range(0, 100, 50).is_empty());
        assert!(range(301, 400, 50).is_empty());
        assert!(range(20, 10, 50).is_empty());
        assert!(index.range(GroupId(9), LogIndex(1), LogIndex(2), 9).is_empty());
        assert_eq!(range(300, u64::MAX - 1, 50), [Lsn(300 * 80)]);
    }

    #[test]
    fn a_position_belongs_to_the_segment_around_it() {
        let mut index = EntryIndex::default();
        let (a, b) = (
            Segment {
                base: Lsn(0),
                size: 100,
            },
            Segment {
                base: Lsn(200),
                size: 50,
            },
        );
        index.put_segment(a);
        index.put_segment(b);
        assert_eq!(index.segment_of(Lsn(99)), Some(a));
        assert_eq!(index.segment_of(Lsn(100)), None);
        assert_eq!(index.segment_of(Lsn(200)), Some(b));
        assert_eq!(index.segment_of(Lsn(250)), None);
    }
}
