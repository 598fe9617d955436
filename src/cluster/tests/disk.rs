//! What the servers of a test world stand on: disks that keep what was synced, and a configuration.

use super::harness::id;
use crate::cluster::message::{Entry, HardState, LogPosition, Record, Recovered};
use crate::config::{ChatConfig, Config, Election, LeaderMode, LogConfig, Retention, Routing, ServerConfig, Timing};
use crate::types::{LogIndex, RingPosition, Span, Term};

/// A server's disk: what is durable.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub state: HardState,
    pub log: Vec<(Entry, u32)>,
}

impl Disk {
    pub fn write(&mut self, record: &Record) {
        match record {
            Record::State { state, .. } => self.state = *state,
            Record::Entry { entry, chain, .. } => {
                self.log.truncate(entry.index.0 as usize - 1);
                assert_eq!(self.log.len() as u64 + 1, entry.index.0, "a log without gaps");
                self.log.push((entry.clone(), *chain));
            }
        }
    }

    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.log.get(index.0.checked_sub(1)? as usize).map(|(entry, _)| entry)
    }

    pub fn recovered(&self) -> Recovered {
        let mut terms: Vec<(LogIndex, Term)> = Vec::new();
        for (entry, _) in &self.log {
            if terms.last().is_none_or(|&(_, term)| term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        let last = self.log.last();
        Recovered {
            state: self.state,
            last: last.map_or(LogPosition::default(), |(entry, _)| LogPosition {
                term: entry.term,
                index: entry.index,
            }),
            last_chain: last.map_or(0, |&(_, chain)| chain),
            terms,
            members: self.log.first().map(|(entry, _)| entry.clone()),
        }
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
