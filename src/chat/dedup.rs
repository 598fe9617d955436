//! Idempotency keys: the same key of the same client posts only once, whatever session it comes in. Keys are forgotten by
//! age, oldest first; the age is the log's, so that every replica forgets the same.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::command::{DedupKey, KeyId, Outcome};
use crate::limits;
use crate::types::{Lamport, Position, RoomId, Seq};

/// Whose key, and which.
pub type Key = (KeyId, DedupKey);

/// Where the message of a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Posted {
    /// The room.
    pub room: RoomId,
    /// Its number there.
    pub seq: Seq,
    /// Its place there.
    pub position: Position,
    /// Its Lamport timestamp.
    pub lamport: Lamport,
    /// The leader's clock, in milliseconds since 1970.
    pub time_ms: u64,
}

impl Posted {
    /// As the outcome of a command.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        let Posted {
            room,
            seq,
            position,
            lamport,
            time_ms,
        } = self;
        Outcome::Posted {
            room,
            seq,
            position,
            lamport,
            time_ms,
        }
    }
}

/// The keys that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keys {
    posted: BTreeMap<Key, Posted>,
    /// In the order of their ages, for the log's age never goes back.
    ages: VecDeque<(u64, Key)>,
}

impl Keys {
    /// Where the message of that key stands.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Posted> {
        self.posted.get(key)
    }

    /// Whether there is no room for another.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.posted.len() >= limits::DEDUP_KEYS_MAX
    }

    /// Remembers a key that isn't known, at that log age.
    pub fn add(&mut self, key: Key, posted: Posted, age_ms: u64) {
        self.posted.insert(key, posted);
        self.ages.push_back((age_ms, key));
    }

    /// All keys, with the age at which each came, the oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, Key, Posted)> {
        let posted = |key| self.posted.get(key).copied();
        self.ages
            .iter()
            .filter_map(move |(age_ms, key)| Some((*age_ms, *key, posted(key)?)))
    }

    /// The log age at which the newest came.
    pub(super) fn newest_ms(&self) -> Option<u64> {
        self.ages.back().map(|(age_ms, _)| *age_ms)
    }

    /// The log age at which the oldest came.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        self.ages.front().map(|(age_ms, _)| *age_ms)
    }

    /// Forgets what came at that age or before, at most so many.
    pub fn forget(&mut self, until_ms: u64, max: usize) {
        for _ in 0..max {
            match self.ages.front() {
                Some((age_ms, key)) if *age_ms <= until_ms => {
                    self.posted.remove(key);
                    self.ages.pop_front();
                }
                _ => return,
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.posted.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.posted.is_empty()
    }
}
