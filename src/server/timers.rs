//! The one timer table of the poll loop (the node has its own deadline). A key has at most one timer: setting it again moves it.
//! Everything is O(log n), so 20,000 connections that wait for their hello cost nothing while they wait.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::types::Tick;

/// Timers by key.
#[derive(Debug)]
pub struct Timers<K> {
    order: BTreeSet<(Tick, K)>,
    when: HashMap<K, Tick>,
}

impl<K: Copy + Ord + Hash> Default for Timers<K> {
    fn default() -> Self {
        Timers {
            order: BTreeSet::new(),
            when: HashMap::new(),
        }
    }
}

impl<K: Copy + Ord + Hash> Timers<K> {
    /// Sets the key's timer, or moves it.
    pub fn set(&mut self, key: K, at: Tick) {
        if let Some(before) = self.when.insert(key, at) {
            self.order.remove(&(before, key));
        }
        self.order.insert((at, key));
    }

    /// Takes the key's timer away, if it has one.
    pub fn cancel(&mut self, key: K) {
        if let Some(before) = self.when.remove(&key) {
            self.order.remove(&(before, key));
        }
    }

    /// Whether the key has a timer.
    #[must_use]
    pub fn is_set(&self, key: K) -> bool {
        self.when.contains_key(&key)
    }

    /// The earliest moment that any timer waits for.
    #[must_use]
    pub fn next(&self) -> Option<Tick> {
        self.order.first().map(|&(at, _)| at)
    }

    /// Takes one timer whose moment has come, the earliest first.
    pub fn due(&mut self, now: Tick) -> Option<K> {
        let &(at, key) = self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.when.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_the_order_of_their_moments() {
        let mut timers = Timers::default();
        timers.set('b', Tick(20));
        timers.set('a', Tick(30));
        timers.set('c', Tick(10));
        assert_eq!(timers.next(), Some(Tick(10)));
        assert_eq!(timers.due(Tick(9)), None);
        assert_eq!(timers.due(Tick(25)), Some('c'));
        assert_eq!(timers.due(Tick(25)), Some('b'));
        assert_eq!(timers.due(Tick(25)), None);
        assert_eq!(timers.next(), Some(Tick(30)));
    }

    #[test]
    fn a_key_has_one_timer() {
        let mut timers = Timers::default();
        timers.set('a', Tick(10));
        timers.set('a', Tick(40));
        assert_eq!(timers.due(Tick(20)), None, "the first moment no longer counts");
        assert!(timers.is_set('a'));
        timers.cancel('a');
        assert!(!timers.is_set('a'));
        assert_eq!(timers.due(Tick(100)), None);
        assert_eq!(timers.next(), None);
    }
}
