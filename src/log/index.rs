//! Where each entry stands: (group, index) → position in the log, shared between writer, reader and housekeeper. Writer and
//! recovery put entries in once they are written; the reader looks them up. Of a segment that has an index file only a
//! [`Sealed`] is kept here, so that memory does not grow with history: the file says where its entries stand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
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
    /// Segments whose index files can't be read.
    lost: BTreeSet<Lsn>,
    /// Segments that begin before this hold nothing of any group: the log has begun anew behind them.
    void_before: Lsn,
    /// Counts what was filled and lost.
    changes: u64,
    /// Counts what was sealed and removed.
    shape: u64,
}

/// What memory keeps of a segment whose entries have an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sealed {
    /// The segment.
    pub segment: Segment,
    /// The group of its entries.
    pub group: GroupId,
    /// The first entry that stands in it and isn't void; the one after `last` if there is none.
    pub first: LogIndex,
    /// The last such entry: all between stand in it too, or did before they were filled.
    pub last: LogIndex,
}

impl Sealed {
    /// Whether the segment has an entry that isn't void.
    #[must_use]
    pub fn has_entries(&self) -> bool {
        self.first <= self.last
    }
}

/// What is known of the entries from one on: a run of the same kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// The first isn't there: void, not yet written or not kept any more.
    Nothing,
    /// They stand here, one after the other.
    Places(Vec<Lsn>),
    /// These can't be read. The first stands here, or behind what stands here.
    Holes(Vec<LogIndex>, Lsn),
    /// The index file of this segment knows, up to its last entry, but for those that were filled (`Some`) or lost (`None`) since.
    Sealed(Sealed, BTreeMap<LogIndex, Option<Lsn>>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Entries {
    /// The segments with index files, ascending; their entries follow each other.
    sealed: Vec<Sealed>,
    /// The index of the first entry in `places`.
    first: LogIndex,
    /// Positions, divided by the alignment of records: later entries stand later.
    places: Packed,
    /// What isn't, or isn't any more, where `places` or an index file says, and the number of the change.
    changed: BTreeMap<LogIndex, (Option<Lsn>, u64)>,
    /// Nothing before this is held.
    floor: LogIndex,
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

    /// All segments, ascending.
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        let segments = self.segments.iter();
        segments.map(|(&base, &size)| Segment { base, size }).collect()
    }

    /// Whether this segment is (still) there.
    #[must_use]
    pub fn has_segment(&self, segment: Segment) -> bool {
        self.segments.get(&segment.base) == Some(&segment.size)
    }

    /// An entry stands at `lsn`, and whatever the group had at its index and above is void.
    ///
    /// # Panics
    /// If there is a gap between the group's last entry and this one: both callers have checked that.
    pub fn put(&mut self, group: GroupId, index: LogIndex, lsn: Lsn) {
        self.entries(group, index).put(index, lsn);
    }

    /// The entry of this index stands at `lsn` now; those after it stay.
    pub fn fill(&mut self, group: GroupId, index: LogIndex, lsn: Lsn) {
        self.change(group, index, Some(lsn));
    }

    /// The entry of this index can't be read: one that is known, or the next one.
    ///
    /// # Panics
    /// If there is a gap between the group's last entry and this one.
    pub fn lose(&mut self, group: GroupId, index: LogIndex) {
        let entries = self.entries(group, index);
        if index >= entries.next() {
            // Something must stand in its place, or the next one would seem to leave a gap.
            let lsn = entries.places.last().map_or(Lsn(0), |place| Lsn(place * ALIGNMENT));
            entries.put(index, lsn);
        }
        self.change(group, index, None);
    }

    /// What the group had at this index and above is void.
    pub fn void(&mut self, group: GroupId, from: LogIndex) {
        if let Some(entries) = self.groups.get_mut(&group)
            && from < entries.next()
        {
            entries.void(from);
        }
    }

    /// The oldest full segment without an index file, and the first and last entry that stand in it; the last is before the first if none does.
    #[must_use]
    pub fn unsealed(&self, group: GroupId) -> Option<(Segment, LogIndex, LogIndex)> {
        let entries = self.groups.get(&group)?;
        let segments = self.segments();
        let (_, full) = segments.split_last()?;
        let segment = *full.iter().find(|segment| self.sealed_of(**segment).is_none())?;
        // Memory forgets in whole blocks: the first in it may stand in a segment that has its file.
        let sealed = self.last_sealed(group).unwrap_or(LogIndex(0));
        Some((
            segment,
            entries.first.max(sealed.next()),
            entries.last_until(segment.end()),
        ))
    }

    /// The last entry of a group that stands in a full segment, and isn't void; one that stands before it if none does.
    #[must_use]
    pub fn last_in(&self, group: GroupId, segment: Segment) -> LogIndex {
        match self.sealed_of(segment) {
            Some(sealed) => sealed.last,
            None => self
                .groups
                .get(&group)
                .map_or(LogIndex(0), |entries| entries.last_until(segment.end())),
        }
    }

    fn change(&mut self, group: GroupId, index: LogIndex, lsn: Option<Lsn>) {
        self.changes += 1;
        let changes = self.changes;
        if let Some(entries) = self.groups.get_mut(&group)
            && index >= entries.floor
            && index < entries.next()
        {
            entries.changed.insert(index, (lsn, changes));
        }
    }

    fn entries(&mut self, group: GroupId, index: LogIndex) -> &mut Entries {
        self.groups.entry(group).or_insert_with(|| Entries {
            first: index,
            floor: index,
            ..Entries::default()
        })
    }

    /// The group's log begins behind this entry: all that it had is forgotten, whatever files there are.
    pub fn begin(&mut self, group: GroupId, last: LogIndex) {
        self.shape += 1;
        let anew = Entries {
            first: last.next(),
            floor: last.next(),
            ..Entries::default()
        };
        self.groups.insert(group, anew);
    }

    /// The log has begun anew with the segment at this position, for every group and for good: those before may go.
    pub fn put_beginning(&mut self, base: Lsn) {
        self.void_before = base;
    }

    /// Where the log has begun anew, if segments from before are still there.
    #[must_use]
    pub fn void_before(&self) -> Option<Lsn> {
        let (&oldest, _) = self.segments.first_key_value()?;
        (oldest < self.void_before).then_some(self.void_before)
    }

    /// The number of changes by `fill` and `lose` up to now; to be asked for before places are read for an index file.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// A number that changes when segments are sealed or removed.
    #[must_use]
    pub fn shape(&self) -> u64 {
        self.shape
    }

    /// An index file stands for this segment, and knows of changes up to number `as_of`: the places of its entries leave memory.
    /// Older segments have been sealed before, and this one comes after all of them or is sealed once more.
    /// One whose entries are all gone by now, because the log has begun anew, is left out.
    pub fn sealed(&mut self, sealed: Sealed, as_of: u64) {
        let held = self
            .groups
            .get(&sealed.group)
            .map_or(LogIndex(0), |entries| entries.floor);
        if sealed.has_entries() && sealed.last < held {
            return;
        }
        self.shape += 1;
        self.segments.insert(sealed.segment.base, sealed.segment.size);
        self.lost.remove(&sealed.segment.base);
        let entries = self.entries(sealed.group, sealed.first);
        let at = entries
            .sealed
            .partition_point(|other| other.segment.base < sealed.segment.base);
        match entries.sealed.get_mut(at) {
            Some(same) if same.segment.base == sealed.segment.base => *same = sealed,
            _ => entries.sealed.insert(at, sealed),
        }
        if !sealed.has_entries() {
            return;
        }
        entries.floor = entries.floor.min(sealed.first);
        let within = sealed.first..=sealed.last;
        entries
            .changed
            .retain(|index, &mut (_, number)| number > as_of || !within.contains(index));
        if sealed.first <= entries.first {
            let after = sealed.last.next();
            let dropped = after.0.saturating_sub(entries.first.0);
            if dropped >= entries.places.len() as u64 {
                entries.places = Packed::new();
                entries.first = entries.first.max(after);
            } else {
                entries.first.0 += entries.places.drop_front(dropped as usize) as u64;
            }
        }
    }

    /// The segments that begin before `lsn` are gone, and so are the entries that stand in them.
    pub fn remove_before(&mut self, lsn: Lsn) {
        self.shape += 1;
        self.segments = self.segments.split_off(&lsn);
        self.lost = self.lost.split_off(&lsn);
        for entries in self.groups.values_mut() {
            let gone = entries.sealed.partition_point(|sealed| sealed.segment.base < lsn);
            let gone: Vec<Sealed> = entries.sealed.drain(..gone).collect();
            let sealed = gone.iter().filter(|sealed| sealed.has_entries());
            let last = sealed.map(|sealed| sealed.last).max().unwrap_or(LogIndex(0));
            // Entries in memory that stand in segments without an index file.
            let below = entries.places.lower_bound(lsn.0.div_ceil(ALIGNMENT));
            let in_memory = LogIndex(entries.first.0 + below as u64);
            if entries.sealed.iter().all(|sealed| !sealed.has_entries()) {
                entries.floor = entries.floor.max(in_memory);
            }
            entries.floor = entries.floor.max(last.next().min(entries.next()));
            entries.changed = entries.changed.split_off(&entries.floor);
            let dropped = entries.floor.0.saturating_sub(entries.first.0) as usize;
            entries.first.0 += entries.places.drop_front(dropped) as u64;
        }
    }

    /// The groups that it knows.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.keys().copied()
    }

    /// The first entry of a group that is held; if none is, the one that will be.
    #[must_use]
    pub fn first(&self, group: GroupId) -> LogIndex {
        self.groups.get(&group).map_or(LogIndex(1), |entries| entries.floor)
    }

    /// The last entry of a group that is in a segment with an index file.
    #[must_use]
    pub fn last_sealed(&self, group: GroupId) -> Option<LogIndex> {
        let entries = self.groups.get(&group)?;
        let with_entries = entries.sealed.iter().rev().find(|sealed| sealed.has_entries());
        with_entries.map(|sealed| sealed.last)
    }

    /// The segments with index files that have entries of a group, ascending: only those that have an entry after `after`, and
    /// perhaps a few that don't.
    #[must_use]
    pub fn sealed_after(&self, group: GroupId, after: LogIndex) -> Vec<Sealed> {
        let Some(entries) = self.groups.get(&group) else {
            return Vec::new();
        };
        let at = entries.sealed.partition_point(|sealed| sealed.last <= after);
        let later = entries.sealed[at..].iter();
        later.filter(|sealed| sealed.has_entries()).copied().collect()
    }

    /// Whether a segment has an index file.
    #[must_use]
    pub fn sealed_of(&self, segment: Segment) -> Option<Sealed> {
        let mut found = self.groups.values().filter_map(|entries| {
            let at = entries.sealed.binary_search_by_key(&segment.base, |s| s.segment.base);
            at.ok().and_then(|at| entries.sealed.get(at))
        });
        found.next().copied()
    }

    /// Segments whose index files don't know where some of their entries stand since they were filled. To be written anew, each
    /// before any younger segment gets its first one: after a restart nobody looks for a fill in a segment that has an index.
    #[must_use]
    pub fn stale(&self) -> Vec<Sealed> {
        let mut stale = Vec::new();
        for entries in self.groups.values() {
            let filled = |sealed: &&Sealed| {
                let mut within = match sealed.has_entries() {
                    true => entries.changed.range(sealed.first..=sealed.last),
                    false => return false,
                };
                within.any(|(_, (lsn, _))| lsn.is_some())
            };
            if !entries.changed.is_empty() {
                stale.extend(entries.sealed.iter().filter(filled));
            }
        }
        stale
    }

    /// What is known of the entries `from..=to`, at most `count` of them.
    #[must_use]
    pub fn look(&self, group: GroupId, from: LogIndex, to: LogIndex, count: usize) -> Lookup {
        let Some(entries) = self.groups.get(&group) else {
            return Lookup::Nothing;
        };
        if from < entries.floor || from > to || count == 0 || from >= entries.next() {
            return Lookup::Nothing;
        }
        let to = LogIndex(to.0.min(from.0.saturating_add(count as u64 - 1)));
        // The files first: what is left of them in memory doesn't know of fills that they know of.
        let at = entries.sealed.partition_point(|sealed| sealed.last < from);
        let mut later = entries.sealed.get(at..).unwrap_or(&[]).iter();
        match later.find(|sealed| sealed.has_entries()) {
            Some(sealed) if sealed.first <= from => {
                let changed = entries.changed.range(from..=to.min(sealed.last));
                let changed = changed.map(|(&index, &(lsn, _))| (index, lsn)).collect();
                Lookup::Sealed(*sealed, changed)
            }
            _ if from >= entries.first => entries.look(from, to),
            _ => Lookup::Nothing,
        }
    }

    /// Where an entry stands, if that is known here.
    #[must_use]
    pub fn find(&self, group: GroupId, index: LogIndex) -> Option<Lsn> {
        self.range(group, index, index, 1).first().copied()
    }

    /// Where the entries `from..=to` stand, at most `count` of them, from the first on without a gap, as far as that is known here.
    #[must_use]
    pub fn range(&self, group: GroupId, from: LogIndex, to: LogIndex, count: usize) -> Vec<Lsn> {
        match self.look(group, from, to, count) {
            Lookup::Places(places) => places,
            _ => Vec::new(),
        }
    }

    /// Bytes of memory that the index takes, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        let groups = self.groups.values().map(|entries| {
            let sealed = entries.sealed.capacity() * size_of::<Sealed>();
            entries.places.memory() + sealed + entries.changed.len() * 64
        });
        groups.sum::<usize>() + self.segments.len() * 32
    }
}

impl Entries {
    /// The entry after the last.
    fn next(&self) -> LogIndex {
        LogIndex(self.first.0 + self.places.len() as u64)
    }

    /// The last entry in memory that stands before `end`; the one before the first if none does.
    fn last_until(&self, end: Lsn) -> LogIndex {
        let within = self.places.lower_bound(end.0 / ALIGNMENT) as u64;
        LogIndex((self.first.0 + within).saturating_sub(1))
    }

    fn put(&mut self, index: LogIndex, lsn: Lsn) {
        self.void(index);
        let at = (index.0 - self.first.0) as usize;
        assert!(
            at <= self.places.len(),
            "the entries of a group follow each other: {index} after {} of {}",
            self.places.len(),
            self.first
        );
        self.places.push(lsn.0 / ALIGNMENT);
    }

    /// What is at this index and above isn't there.
    fn void(&mut self, index: LogIndex) {
        if index < self.first {
            // Not so for what is applied; but then it is for the caller to say that the disk is wrong.
            self.sealed
                .retain(|sealed| sealed.first < index || !sealed.has_entries());
            for sealed in &mut self.sealed {
                sealed.last = sealed.last.min(index.previous());
            }
            self.first = index;
            self.floor = self.floor.min(index);
            self.places = Packed::new();
        }
        self.places.truncate((index.0 - self.first.0) as usize);
        self.changed.split_off(&index);
    }

    /// The first run of entries in memory.
    fn look(&self, from: LogIndex, to: LogIndex) -> Lookup {
        let at = usize::try_from(from.0 - self.first.0).unwrap_or(usize::MAX);
        let mut changed = self.changed.range(from..=to).peekable();
        if let Some(&(&index, &(None, _))) = changed.peek()
            && index == from
        {
            let holes = changed.map_while(|(&index, &(lsn, _))| lsn.is_none().then_some(index));
            let holes = holes.zip(from.0..).take_while(|&(index, at)| index.0 == at);
            let near = self.places.get(at).unwrap_or(0);
            return Lookup::Holes(holes.map(|(index, _)| index).collect(), Lsn(near * ALIGNMENT));
        }
        let wanted = to.0.saturating_add(1).saturating_sub(from.0) as usize;
        let mut places = Vec::new();
        for (place, index) in self.places.iter_from(at).take(wanted).zip(from.0..) {
            let change = changed.next_if(|&(&changed, _)| changed.0 == index);
            match change {
                None => places.push(Lsn(place * ALIGNMENT)),
                Some((_, &(Some(lsn), _))) => places.push(lsn),
                Some((_, (None, _))) => break,
            }
        }
        Lookup::Places(places)
    }

    /// Holes among the entries, ascending.
    fn holes(&self) -> impl Iterator<Item = LogIndex> {
        let changed = self.changed.range((Bound::Included(self.floor), Bound::Unbounded));
        changed.filter(|(_, (lsn, _))| lsn.is_none()).map(|(&index, _)| index)
    }
}

/// The index as writer, reader and housekeeper share it.
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

    /// The index file of a segment can't be read. It stays so until the segment is sealed once more.
    pub fn lost_index(&self, segment: Segment) {
        let mut index = self.write();
        if index.sealed_of(segment).is_some() {
            index.lost.insert(segment.base);
        }
    }

    /// The segments whose index files can't be read, ascending: to be made anew.
    #[must_use]
    pub fn indexes_lost(&self) -> Vec<Segment> {
        let index = self.read();
        let lost = index.lost.iter().filter_map(|&base| index.segment_of(base));
        lost.collect()
    }

    /// The entries of a group that can't be read, as far as is known, ascending.
    #[must_use]
    pub fn holes(&self, group: GroupId) -> Vec<LogIndex> {
        let index = self.read();
        let entries = index.groups.get(&group);
        entries.map_or(Vec::new(), |entries| entries.holes().collect())
    }
}

#[cfg(test)]
mod tests;
