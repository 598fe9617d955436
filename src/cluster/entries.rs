//! What the replica knows of its log: the recent entries themselves, and of the older ones only where each term begins.
//! The disk has them all; the cache serves followers and the state machine, which are nearly always close to the end.

use std::collections::VecDeque;

use crate::cluster::chain::chain;
use crate::cluster::message::{Entry, LogPosition, Recovered};
use crate::limits;
use crate::types::{LogIndex, Term};

/// What an entry costs in a frame or in memory beside its payload.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 48;

/// The bytes that an entry counts for in every budget.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    entry.payload.len() + ENTRY_OVERHEAD_BYTES
}

/// The log as far as it is in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entries {
    /// Consecutive entries that end at `last`, each with the check up to and including it.
    cache: VecDeque<(Entry, Option<u32>)>,
    /// Of the cached entries.
    bytes: usize,
    /// The first index of each term, ascending.
    terms: Vec<(LogIndex, Term)>,
    last: LogPosition,
    /// The check up to the entry before the first cached one. `None` after a cut into entries that are only on the disk;
    /// a leader that knows it says so with its next append.
    base: Option<u32>,
}

impl Entries {
    pub(super) fn new(recovered: &Recovered) -> Entries {
        let unknown = recovered.last.index.0 > 0 && recovered.last_chain == 0;
        Entries {
            cache: VecDeque::new(),
            bytes: 0,
            terms: recovered.terms.clone(),
            last: recovered.last,
            base: if unknown { None } else { Some(recovered.last_chain) },
        }
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

    /// The term of the entry at an index: 0 for index 0, `None` if we don't have it.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index.0 == 0 {
            return Some(Term(0));
        }
        if index > self.last.index {
            return None;
        }
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
        if index.0 == 0 {
            return Some(0);
        }
        if index.next() == self.first() {
            return self.base;
        }
        self.cached(index)?.1
    }

    /// Learns the check at the end of the log from a leader whose log agrees with ours there.
    pub(super) fn adopt_chain(&mut self, at: LogIndex, check: u32) {
        if at == self.last.index && self.cache.is_empty() && self.base.is_none() && check != 0 {
            self.base = Some(check);
        }
    }

    /// The last position at or before `index` whose term isn't above `term`: where logs that part at `index` may agree.
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

    /// Forgets everything above an index.
    pub(super) fn truncate(&mut self, to: LogIndex) {
        if to >= self.last.index {
            return;
        }
        if to.next() < self.first() {
            self.base = if to.0 == 0 { Some(0) } else { None };
            self.cache.clear();
            self.bytes = 0;
        }
        while self.cache.back().is_some_and(|(entry, _)| entry.index > to) {
            if let Some((entry, _)) = self.cache.pop_back() {
                self.bytes -= entry_bytes(&entry);
            }
        }
        self.terms.retain(|&(first, _)| first <= to);
        let term = self.terms.last().map_or(Term(0), |&(_, term)| term);
        self.last = LogPosition { term, index: to };
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
                self.base = check;
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
mod tests {
    use super::*;
    use crate::cluster::message::EntryKind;
    use crate::types::Blob;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index: LogIndex(index),
            term: Term(term),
            kind: EntryKind::Command,
            payload: Blob::new(&index.to_le_bytes()),
        }
    }

    fn log(terms: &[u64]) -> Entries {
        let mut log = Entries::new(&Recovered::default());
        for (at, &term) in terms.iter().enumerate() {
            log.append(entry(at as u64 + 1, term));
        }
        log
    }

    #[test]
    fn a_cut_log_is_the_shorter_log() {
        let mut cut = log(&[1, 2, 2, 5, 5]);
        cut.truncate(LogIndex(2));
        assert_eq!(cut, log(&[1, 2]));
        cut.append(entry(3, 6));
        assert_eq!(cut, log(&[1, 2, 6]));
    }

    #[test]
    fn the_hint_skips_whole_terms() {
        let log = log(&[1, 1, 4, 4, 7]);
        let at = |index, term| log.agreeable(LogIndex(index), Term(term)).index.0;
        assert_eq!((at(9, 9), at(9, 6), at(3, 6), at(5, 3), at(1, 0)), (5, 4, 3, 2, 0));
    }

    #[test]
    fn the_check_survives_leaving_the_cache_but_not_a_cut_below_it() {
        let whole = log(&[1, 1, 2]);
        let recovered = Recovered {
            last: whole.last(),
            last_chain: whole.chain_at(LogIndex(3)).unwrap(),
            terms: whole.terms.clone(),
            ..Recovered::default()
        };
        let mut restarted = Entries::new(&recovered);
        assert_eq!(restarted.chain_at(LogIndex(3)), whole.chain_at(LogIndex(3)));
        restarted.truncate(LogIndex(2));
        assert_eq!(restarted.chain_at(LogIndex(2)), None);
        restarted.adopt_chain(LogIndex(2), whole.chain_at(LogIndex(2)).unwrap());
        restarted.append(entry(3, 2));
        assert_eq!(restarted.chain_at(LogIndex(3)), whole.chain_at(LogIndex(3)));
    }

    #[test]
    fn the_cache_keeps_what_is_not_applied_or_not_durable() {
        let mut log = Entries::new(&Recovered::default());
        let big = Blob::new(&vec![0; 1 << 20]);
        for index in 1..=20 {
            log.append(Entry {
                payload: big.clone(),
                ..entry(index, 1)
            });
        }
        log.shrink(LogIndex(20), LogIndex(0), LogIndex(20));
        assert_eq!(log.first(), LogIndex(1));
        log.shrink(LogIndex(2), LogIndex(20), LogIndex(20));
        assert_eq!(log.first(), LogIndex(3));
        log.shrink(LogIndex(20), LogIndex(20), LogIndex(20));
        assert!(log.bytes <= limits::ENTRY_CACHE_BYTES_MAX && log.first() <= LogIndex(7));
        assert_eq!(log.term_at(LogIndex(1)), Some(Term(1)));
    }
}
