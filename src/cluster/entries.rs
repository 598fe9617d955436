//! What the replica knows of its log: the recent entries themselves, and of the older ones only where each term begins, and
//! which of them can't be read. The disk has all after `start`; the cache serves followers and the state machine, which are
//! nearly always close to the end.

use std::collections::{BTreeMap, VecDeque};

use crate::cluster::chain::chain;
use crate::cluster::message::{Entry, Hole, LogPosition, Recovered};
use crate::limits;
use crate::types::{LogIndex, Term};

/// The bytes that an entry counts for in every budget.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    entry.payload.len() + limits::ENTRY_OVERHEAD_BYTES
}

/// The log as far as it is in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entries {
    /// Consecutive entries that end at `last`, each with the check up to and including it.
    cache: VecDeque<(Entry, Option<u32>)>,
    /// Of the cached entries.
    bytes: usize,
    /// The entry before the first that the log holds. What is at or before it is only in a checkpoint.
    start: LogPosition,
    /// The check up to and including `start`.
    start_chain: Option<u32>,
    /// The first index of each term, ascending; of the term of `start` only that it is there.
    terms: Vec<(LogIndex, Term)>,
    last: LogPosition,
    /// The check up to the entry before the first cached one. `None` after a cut into entries that are only on the disk;
    /// a leader that knows it says so with its next append.
    edge: Option<u32>,
    /// Entries after `start` that the disk should hold and that can't be read there.
    holes: BTreeMap<LogIndex, Gap>,
}

/// What is known of an entry that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Gap {
    /// `None` if it may be that of the entry before or that of the entry after.
    term: Option<Term>,
    /// Whether the record that fills it is on the way to the disk.
    is_filling: bool,
}

fn known(chain: u32) -> Option<u32> {
    (chain != 0).then_some(chain)
}

impl Entries {
    pub(super) fn new(recovered: &Recovered) -> Entries {
        let start = recovered.base;
        let start_chain = if start.index.0 == 0 {
            Some(0)
        } else {
            known(recovered.base_chain)
        };
        let mut log = Entries {
            cache: VecDeque::new(),
            bytes: 0,
            start,
            start_chain,
            terms: recovered.terms.clone(),
            last: recovered.last.max(start),
            edge: known(recovered.last_chain),
            holes: BTreeMap::new(),
        };
        if log.last == start {
            log.edge = start_chain;
        }
        log.forget_terms();
        log.lose(&recovered.holes);
        log
    }

    /// The entry before the first that the log holds.
    pub(super) fn start(&self) -> LogPosition {
        self.start
    }

    pub(super) fn last(&self) -> LogPosition {
        self.last
    }

    /// The index of the first cached entry, or the one after the last if there is none.
    pub(super) fn first(&self) -> LogIndex {
        LogIndex(self.last.index.0 - self.cache.len() as u64 + 1)
    }

    pub(super) fn get(&self, index: LogIndex) -> Option<&Entry> {
        Some(&self.cached(index)?.0)
    }

    fn cached(&self, index: LogIndex) -> Option<&(Entry, Option<u32>)> {
        let at = index.0.checked_sub(self.first().0)?;
        self.cache.get(usize::try_from(at).ok()?)
    }

    /// The term of the entry at an index: 0 for index 0, `None` if we don't have it or can't tell.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index > self.last.index || index < self.start.index {
            return None;
        }
        match self.holes.get(&index) {
            Some(gap) => gap.term,
            None => self.run_at(index),
        }
    }

    /// The term of the run that an index is in.
    fn run_at(&self, index: LogIndex) -> Option<Term> {
        let after = self.terms.partition_point(|&(first, _)| first <= index);
        Some(self.terms.get(after.checked_sub(1)?)?.1)
    }

    /// The position of an index that we have.
    pub(super) fn position(&self, index: LogIndex) -> Option<LogPosition> {
        Some(LogPosition {
            term: self.term_at(index)?,
            index,
        })
    }

    /// The check up to and including an index, if it is known.
    pub(super) fn chain_at(&self, index: LogIndex) -> Option<u32> {
        if index == self.start.index {
            return self.start_chain;
        }
        if index.next() == self.first() {
            return self.edge;
        }
        self.cached(index)?.1
    }

    /// Learns the check at the end of the log from a leader whose log agrees with ours there.
    pub(super) fn adopt_chain(&mut self, at: LogIndex, check: u32) {
        if at == self.last.index && self.cache.is_empty() && self.edge.is_none() && check != 0 {
            self.edge = Some(check);
        }
    }

    /// The last position at or before `index` whose term isn't above `term`: where logs that part at `index` may agree. The
    /// beginning of time if that is before our first entry.
    pub(super) fn agreeable(&self, index: LogIndex, term: Term) -> LogPosition {
        let mut at = index.min(self.last.index);
        for &(first, run) in self.terms.iter().rev() {
            if first > at {
                continue;
            }
            if run <= term {
                return LogPosition { term: run, index: at };
            }
            at = first.previous();
        }
        LogPosition::default()
    }

    /// Takes the next entry; gives the check up to and including it, 0 if it isn't known.
    pub(super) fn append(&mut self, entry: Entry) -> u32 {
        assert!(
            entry.index == self.last.index.next(),
            "entries are appended without gaps"
        );
        assert!(entry.term >= self.last.term, "terms never go down in a log");
        let check = self
            .chain_at(self.last.index)
            .map(|prev| chain(prev, entry.term, entry.index, entry.kind, &entry.payload));
        if self.terms.last().is_none_or(|&(_, term)| term != entry.term) {
            self.terms.push((entry.index, entry.term));
        }
        self.last = LogPosition {
            term: entry.term,
            index: entry.index,
        };
        self.bytes += entry_bytes(&entry);
        self.cache.push_back((entry, check));
        check.unwrap_or(0)
    }

    /// Forgets everything above an index, which isn't before `start`.
    pub(super) fn truncate(&mut self, to: LogIndex) {
        if to >= self.last.index {
            return;
        }
        let term = self.term_at(to).or(self.run_at(to)).unwrap_or_default();
        if to.next() < self.first() {
            self.edge = if to == self.start.index { self.start_chain } else { None };
            self.cache.clear();
            self.bytes = 0;
        }
        while self.cache.back().is_some_and(|(entry, _)| entry.index > to) {
            if let Some((entry, _)) = self.cache.pop_back() {
                self.bytes -= entry_bytes(&entry);
            }
        }
        self.terms.retain(|&(first, _)| first <= to);
        self.holes.retain(|&index, _| index <= to);
        self.last = LogPosition { term, index: to };
    }

    /// The disk holds entries only from `first` on; gives whether that is news.
    pub(super) fn kept_from(&mut self, first: LogIndex) -> bool {
        let at = first.previous();
        if at <= self.start.index {
            return false;
        }
        let Some(start) = self.position(at) else {
            return false;
        };
        self.start_chain = self.chain_at(at);
        self.start = start;
        while self.cache.front().is_some_and(|(entry, _)| entry.index <= at) {
            if let Some((entry, check)) = self.cache.pop_front() {
                self.bytes -= entry_bytes(&entry);
                self.edge = check;
            }
        }
        self.forget_terms();
        self.holes.retain(|&index, _| index > at);
        true
    }

    /// The log begins anew behind a checkpoint.
    pub(super) fn begin_at(&mut self, at: LogPosition, chain: u32) {
        *self = Entries::new(&Recovered {
            base: at,
            base_chain: chain,
            last: at,
            ..Recovered::default()
        });
    }

    /// Of the terms before `start` nothing need be known.
    fn forget_terms(&mut self) {
        let start = self.start;
        if start.index.0 > 0 {
            self.terms.retain(|&(first, _)| first > start.index);
            self.terms.insert(0, (start.index, start.term));
        }
        let mut before = None;
        self.terms.retain(|&(_, term)| before.replace(term) != Some(term));
    }

    // --- What can't be read -----------------------------------------------------------------------

    /// These entries can't be read on the disk. Gives how many of them are news.
    pub(super) fn lose(&mut self, holes: &[Hole]) -> usize {
        let before = self.holes.len();
        for hole in holes {
            if hole.index > self.start.index && hole.index <= self.last.index && !self.holes.contains_key(&hole.index) {
                let gap = Gap {
                    term: hole.term,
                    is_filling: false,
                };
                self.holes.insert(hole.index, gap);
            }
        }
        self.infer_terms();
        self.holes.len() - before
    }

    /// A term that isn't known is certain if those around it are the same; that of the last entry is always known.
    fn infer_terms(&mut self) {
        let unknown = |(&index, gap): (&LogIndex, &Gap)| gap.term.is_none().then_some(index);
        let unknown: Vec<_> = self.holes.iter().filter_map(unknown).collect();
        let mut lows = Vec::with_capacity(unknown.len());
        for &index in &unknown {
            // In a run of such entries each knows what the one before it knows.
            let low = match lows.last() {
                Some(&(before, low)) if index == LogIndex::next(before) => low,
                _ => self.term_at(index.previous()),
            };
            lows.push((index, low));
        }
        let mut high = None;
        for (index, low) in lows.into_iter().rev() {
            high = if index == self.last.index {
                Some(self.last.term)
            } else {
                self.term_at(index.next()).or(high)
            };
            let term = if index == self.last.index { high } else { low };
            if term == high
                && let Some(gap) = self.holes.get_mut(&index)
            {
                gap.term = term;
            }
        }
    }

    /// The first entry at or after an index whose term is certain, and that term.
    pub(super) fn certain_from(&self, index: LogIndex) -> (LogIndex, Term) {
        let mut at = index;
        for (&hole, gap) in self.holes.range(index..) {
            if hole != at || gap.term.is_some() {
                break;
            }
            at = at.next();
        }
        match self.term_at(at) {
            Some(term) => (at, term),
            None => (self.last.index, self.last.term),
        }
    }

    /// How many entries can't be read.
    pub(super) fn holes(&self) -> usize {
        self.holes.len()
    }

    /// The first entry that can't be read.
    pub(super) fn first_hole(&self) -> Option<LogIndex> {
        self.holes.first_key_value().map(|(&index, _)| index)
    }

    pub(super) fn last_hole(&self) -> Option<LogIndex> {
        self.holes.last_key_value().map(|(&index, _)| index)
    }

    /// The first hole after an index.
    pub(super) fn next_hole(&self, after: LogIndex) -> Option<LogIndex> {
        self.holes.range(after.next()..).next().map(|(&index, _)| index)
    }

    pub(super) fn is_hole(&self, index: LogIndex) -> bool {
        self.holes.contains_key(&index)
    }

    /// Whether an entry can't be read, and nothing is on the way to take its place.
    pub(super) fn is_missing(&self, index: LogIndex) -> bool {
        self.holes.get(&index).is_some_and(|gap| !gap.is_filling)
    }

    /// The first hole after one index, up to and including another, that nothing is on the way for.
    pub(super) fn missing_between(&self, after: LogIndex, to: LogIndex) -> Option<LogIndex> {
        let mut holes = self.holes.range(after.next()..).take_while(|&(&index, _)| index <= to);
        holes.find(|(_, gap)| !gap.is_filling).map(|(&index, _)| index)
    }

    /// Whether any record that fills a hole is on its way to the disk.
    pub(super) fn is_filling(&self) -> bool {
        self.holes.values().any(|gap| gap.is_filling)
    }

    /// The first run of holes up to `to` that nothing is on the way for: (first, last).
    pub(super) fn missing(&self, to: LogIndex) -> Option<(LogIndex, LogIndex)> {
        let mut open = self
            .holes
            .range(..=to)
            .filter(|(_, gap)| !gap.is_filling)
            .map(|(&index, _)| index);
        let first = open.next()?;
        let mut last = first;
        for index in open.take(limits::FETCH_ENTRIES_MAX - 1) {
            if index != last.next() {
                break;
            }
            last = index;
        }
        Some((first, last))
    }

    /// An entry for a hole goes to the disk; gives the check up to and including it, 0 if it isn't known.
    pub(super) fn fill(&mut self, entry: &Entry) -> u32 {
        if let Some(gap) = self.holes.get_mut(&entry.index) {
            *gap = Gap {
                term: Some(entry.term),
                is_filling: true,
            };
        }
        self.set_run(entry.index, entry.term);
        let computed = || {
            let prev = self.chain_at(entry.index.previous())?;
            Some(chain(prev, entry.term, entry.index, entry.kind, &entry.payload))
        };
        self.chain_at(entry.index).or_else(computed).unwrap_or(0)
    }

    /// What filled a hole is on the disk.
    pub(super) fn filled(&mut self, index: LogIndex) {
        self.holes.remove(&index);
    }

    /// The term of one index is known better now than the runs say.
    fn set_run(&mut self, index: LogIndex, term: Term) {
        if self.run_at(index) == Some(term) {
            return;
        }
        let after = self.run_at(index.next()).filter(|_| index < self.last.index);
        self.terms.retain(|&(first, _)| first != index && first != index.next());
        let at = self.terms.partition_point(|&(first, _)| first < index);
        if let Some(after) = after.filter(|&after| after != term) {
            self.terms.insert(at, (index.next(), after));
        }
        if at.checked_sub(1).map(|before| self.terms[before].1) != Some(term) {
            self.terms.insert(at, (index, term));
        }
    }

    /// Frees memory beyond the bound: entries that are durable and applied, and beyond twice the bound those that are
    /// durable and committed: a server that applies slowly reads them from the disk.
    pub(super) fn shrink(&mut self, durable: LogIndex, applied: LogIndex, commit: LogIndex) {
        let max = limits::ENTRY_CACHE_BYTES_MAX;
        while self.bytes > max {
            let keep = if self.bytes > 2 * max { commit } else { applied };
            match self.cache.front() {
                Some((entry, _)) if entry.index <= keep.min(durable) => {}
                _ => break,
            }
            if let Some((entry, check)) = self.cache.pop_front() {
                self.bytes -= entry_bytes(&entry);
                self.edge = check;
            }
        }
    }

    /// As after a long time: nothing up to an index is in memory.
    #[cfg(test)]
    pub(super) fn forget(&mut self, to: LogIndex) {
        while self.cache.front().is_some_and(|(entry, _)| entry.index <= to) {
            if let Some((entry, check)) = self.cache.pop_front() {
                self.bytes -= entry_bytes(&entry);
                self.edge = check;
            }
        }
    }

    /// Cached entries from `from` on, as many as fit in one append.
    pub(super) fn gather(&self, from: LogIndex, bytes_max: usize) -> Vec<Entry> {
        if from < self.first() {
            return Vec::new();
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (entry, _) in self.cached_from(from) {
            bytes += entry_bytes(entry);
            if entries.len() >= limits::APPEND_ENTRIES_MAX || (bytes > bytes_max && !entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }

    /// The bytes of the cached entries after one index, up to and including another.
    pub(super) fn bytes_between(&self, after: LogIndex, to: LogIndex) -> usize {
        let cached = self
            .cached_from(after.next())
            .take_while(|(entry, _)| entry.index <= to);
        cached.map(|(entry, _)| entry_bytes(entry)).sum()
    }

    fn cached_from(&self, from: LogIndex) -> impl Iterator<Item = &(Entry, Option<u32>)> {
        let at = usize::try_from(from.0.saturating_sub(self.first().0)).unwrap_or(usize::MAX);
        self.cache.range(at.min(self.cache.len())..)
    }
}

#[cfg(test)]
mod tests;
