//! What the servers of a test world stand on: disks that keep what was synced, and a configuration.

use std::collections::{BTreeMap, BTreeSet};

use super::harness::id;
use crate::cluster::chain::chain;
use crate::cluster::message::{CheckpointId, Entry, EntryKind, HardState, Hole, LogPosition, Record, Recovered};
use crate::config::{ChatConfig, Config, Election, LeaderMode, LogConfig, Retention, Routing, ServerConfig, Timing};
use crate::types::{Blob, LogIndex, RingPosition, Span, Term};

/// A checkpoint of the tests: there is no state, so only what the consensus core sees of it is real.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub id: CheckpointId,
    pub members: Entry,
    pub bytes: Vec<u8>,
}

/// A server's disk: what is durable.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub state: HardState,
    pub log: BTreeMap<LogIndex, (Entry, u32)>,
    /// What can't be read of `log`: whether what is left of it says its term.
    pub bad: BTreeMap<LogIndex, bool>,
    /// The entry before the first.
    pub base: LogPosition,
    pub base_chain: u32,
    /// The members entry in force at `base`.
    pub members: Option<Entry>,
    /// The checkpoint at `base`.
    pub checkpoint: Option<Checkpoint>,
    /// Another server's checkpoint on its way, and how much of it is there.
    pub partial: Option<(CheckpointId, Vec<u8>)>,
}

impl Disk {
    pub fn write(&mut self, record: &Record) {
        match record {
            Record::State { state, .. } => {
                let commit = self.state.commit.max(state.commit);
                self.state = HardState { commit, ..*state };
            }
            Record::Entry { entry, chain, .. } => {
                self.log.retain(|&index, _| index < entry.index);
                self.bad.retain(|&index, _| index < entry.index);
                assert_eq!(self.last().index.next(), entry.index, "a log without gaps");
                self.log.insert(entry.index, (entry.clone(), *chain));
            }
            Record::Fill { entry, chain, .. } => {
                if entry.index <= self.base.index {
                    return; // it has become part of a checkpoint meanwhile
                }
                let old = self.log.insert(entry.index, (entry.clone(), *chain));
                let (old, _) = old.expect("only what was there is filled");
                assert_eq!(&old, entry, "filled with something else");
                self.bad.remove(&entry.index);
            }
            Record::Base { at, chain, members, .. } => {
                self.log.clear();
                self.bad.clear();
                (self.base, self.base_chain) = (*at, *chain);
                self.members = Some(members.clone());
                self.state.commit = self.state.commit.max(at.index);
            }
        }
    }

    /// A batch has told how far the log was committed.
    pub fn knows(&mut self, commit: LogIndex) {
        self.state.commit = self.state.commit.max(commit);
    }

    pub fn last(&self) -> LogPosition {
        let position = |(entry, _): &(Entry, u32)| LogPosition {
            term: entry.term,
            index: entry.index,
        };
        self.log.last_key_value().map_or(self.base, |(_, held)| position(held))
    }

    /// An entry that can be read.
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let (entry, _) = self.log.get(&index).filter(|_| !self.bad.contains_key(&index))?;
        Some(entry)
    }

    /// Whether an entry is there, in the log or in the checkpoint.
    pub fn holds(&self, entry: &Entry) -> bool {
        entry.index <= self.base.index || self.entry(entry.index) == Some(entry)
    }

    /// Makes a checkpoint at an entry that is there, and removes the log up to it.
    pub fn trim(&mut self, index: LogIndex) {
        if index <= self.base.index || (self.base.index.0..=index.0).any(|at| self.bad.contains_key(&LogIndex(at))) {
            return;
        }
        let Some((entry, check)) = self.log.get(&index).cloned() else {
            return;
        };
        let mut members = self.log.range(..=index).map(|(_, (entry, _))| entry);
        let last = members.rfind(|entry| entry.kind == EntryKind::Members);
        self.members = last.or(self.members.as_ref()).cloned();
        self.base = LogPosition {
            term: entry.term,
            index,
        };
        self.base_chain = check;
        self.log.retain(|&at, _| at > index);
        let size = 1000 + index.0 * 7;
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8 ^ index.0 as u8).collect();
        self.checkpoint = Some(Checkpoint {
            id: CheckpointId {
                at: self.base,
                chain: check,
                digest: index.0,
                bytes: size,
                check: 1,
            },
            members: self.members.clone().expect("the first entry is one"),
            bytes,
        });
    }

    pub fn recovered(&self) -> Recovered {
        let mut terms: Vec<(LogIndex, Term)> = Vec::new();
        if self.base.index.0 > 0 {
            terms.push((self.base.index, self.base.term));
        }
        for (entry, _) in self.log.values() {
            // A record that says nothing says nothing of its term either.
            let silent = self.bad.get(&entry.index) == Some(&false) && entry.index != self.last().index;
            if !silent && terms.last().is_none_or(|&(_, term)| term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        let hole = |(&index, &says): (&LogIndex, &bool)| Hole {
            index,
            term: says.then(|| self.log[&index].0.term),
        };
        let members = self.log.values().map(|(entry, _)| entry);
        let members = members.filter(|entry| entry.kind == EntryKind::Members && self.entry(entry.index).is_some());
        Recovered {
            state: self.state,
            base: self.base,
            base_chain: self.base_chain,
            last: self.last(),
            last_chain: self
                .log
                .last_key_value()
                .map_or(self.base_chain, |(_, &(_, chain))| chain),
            terms,
            members: self.members.iter().chain(members).cloned().collect(),
            holes: self.bad.iter().map(hole).collect(),
        }
    }

    /// The indexes at which this disk's running checks don't follow from each other.
    pub fn broken_chains(&self) -> BTreeSet<LogIndex> {
        let mut prev = self.base_chain;
        let mut broken = BTreeSet::new();
        for (entry, check) in self.log.values() {
            let next = chain(prev, entry.term, entry.index, entry.kind, &entry.payload);
            if prev != 0 && *check != 0 && next != *check && entry.index.0 > 1 {
                broken.insert(entry.index);
            }
            prev = *check;
        }
        broken
    }

    /// Takes a piece of a checkpoint; how much of it is there, and the whole if it is whole.
    pub fn store(&mut self, id: CheckpointId, offset: u64, bytes: &Blob) -> u64 {
        if self.partial.as_ref().is_none_or(|&(other, _)| other != id) {
            self.partial = Some((id, Vec::new()));
        }
        let (_, held) = self.partial.as_mut().expect("just made");
        if offset == held.len() as u64 {
            held.extend_from_slice(bytes);
        }
        held.len() as u64
    }
}

pub fn config(servers: usize, election: Election, leader: LeaderMode) -> Config {
    let server = |n: usize| ServerConfig {
        id: id(n),
        ring: RingPosition(n as u16),
        host: "127.0.0.1".to_owned(),
        listen: None,
        client_port: 0,
        http_port: 0,
        heartbeat_port: 0,
        peer_port: 0,
    };
    Config {
        name: "test".to_owned(),
        secret: None,
        election,
        leader,
        routing: Routing::Forward,
        timing: Timing {
            heartbeat_interval: Span::from_ms(100),
            failure_timeout: Span::from_ms(500),
            election_timeout: Span::from_ms(500),
            connect_timeout: Span::from_ms(3000),
        },
        multicast: None,
        interface: None,
        log: LogConfig {
            segment_size: 1 << 20,
            checkpoint_every: 1000,
            digest_every: crate::limits::DIGEST_EVERY,
            retention: Retention::Forever,
        },
        chat: ChatConfig {
            message_size_max: 1 << 16,
            session_expiry: Span::from_ms(1000),
            name_release: Span::from_ms(1000),
            touch_interval: Span::from_ms(300),
        },
        servers: (1..=servers).map(server).collect(),
    }
}
