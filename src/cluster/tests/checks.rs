//! The promises that are checked after every step.

use std::collections::BTreeSet;

use super::harness::{World, id};
use crate::cluster::Role;
use crate::cluster::message::Hole;
use crate::config::{Election, LeaderMode};
use crate::types::{Level, LogIndex, ServerId, Tick};

impl World {
    /// All servers started, and the one with the highest ring position has led for a while.
    pub fn settled(servers: usize, election: Election, leader: LeaderMode, seed: u64) -> World {
        let mut world = World::formed(servers, election, leader, seed);
        world.run_until(5000, |world| world.leader() == Some(id(servers)));
        world.run_ms(1000);
        world
    }

    pub(super) fn check(&mut self, server: ServerId) {
        let it = &self.servers[&server];
        let cluster = it.cluster.as_ref().unwrap();
        if cluster.role() == Role::Leader {
            let vote = (it.disk.state.term, it.disk.state.vote);
            let own = (cluster.term(), Some((server, it.directory)));
            assert_eq!(vote, own, "{server} leads without its own vote on its disk");
            let leader = *self.leaders.entry(cluster.term()).or_insert(server);
            assert_eq!(leader, server, "two leaders in term {}", cluster.term());
        }
        let (commit, seen) = (cluster.commit(), it.commit_seen);
        assert!(commit >= seen, "commit went back at {server}");
        assert!(cluster.durable() <= cluster.last().index && cluster.durable() <= it.disk.last().index);
        for index in (seen.0 + 1..=commit.0).map(LogIndex) {
            let entry = cluster
                .entry(index)
                .or(it.disk.log.get(&index).map(|(entry, _)| entry))
                .cloned();
            let Some(entry) = entry else {
                assert!(
                    index <= cluster.base().index,
                    "what is committed is held: {index} at {server}"
                );
                continue;
            };
            match self.committed.get(&index) {
                Some(known) => assert_eq!(
                    *known,
                    entry,
                    "{server} has something else committed at {index}: {:#?}",
                    self.tail()
                ),
                None => {
                    let held = self
                        .servers
                        .iter()
                        .filter(|&(&other, it)| it.disk.holds(&entry) || self.victim == Some(other))
                        .count();
                    let needed = if index.0 == 1 { 1 } else { self.servers.len() / 2 + 1 };
                    assert!(held >= needed, "{index} is committed and on {held} disks only");
                    self.committed.insert(index, entry);
                }
            }
        }
        let end = commit.min(cluster.applicable());
        let mut applied = it.applied;
        let mut found = None;
        while applied < end {
            let index = applied.next();
            let Some(entry) = cluster.entry(index).or(it.disk.entry(index)) else {
                assert!(it.disk.bad.contains_key(&index), "{server} can't apply {index}");
                found = Some(Hole { index, term: None });
                break;
            };
            assert_eq!(
                self.committed.get(&index),
                Some(entry),
                "{server} applies something else at {index}"
            );
            applied = index;
        }
        let now = self.now();
        let it = self.servers.get_mut(&server).unwrap();
        it.commit_seen = commit;
        it.applied = applied;
        let cluster = it.cluster.as_mut().unwrap();
        cluster.applied(applied);
        if let Some(hole) = found {
            cluster.damaged(now, &[hole]);
        }
    }

    /// All that run have the same log, to its end.
    pub fn check_same_logs(&self) {
        let mut logs = self.servers.iter().filter(|(_, it)| it.cluster.is_some());
        let Some((first, one)) = logs.next() else {
            return;
        };
        for (server, other) in logs {
            for (index, ours) in &one.disk.log {
                let Some(theirs) = other.disk.log.get(index) else {
                    assert!(*index <= other.disk.base.index, "{first} has {index}, {server} not");
                    continue;
                };
                assert_eq!(ours.0, theirs.0, "{first} and {server} differ in the end");
                let known = ours.1 != 0 && theirs.1 != 0;
                assert!(
                    !known || ours.1 == theirs.1,
                    "the checks of {first} and {server} differ at {index}"
                );
            }
            assert_eq!(
                one.disk.last(),
                other.disk.last(),
                "{first} and {server} end differently"
            );
        }
        for (server, it) in &self.servers {
            assert_eq!(
                it.disk.broken_chains(),
                BTreeSet::new(),
                "{server}'s checks don't follow from each other"
            );
        }
    }

    pub fn said(&self, text: &str) -> bool {
        self.events.iter().any(|(_, _, _, said)| said.contains(text))
    }

    /// The last events, for the message of a failure.
    pub fn tail(&self) -> Vec<String> {
        let from = self.events.len().saturating_sub(60);
        let line = |(tick, server, level, text): &(Tick, ServerId, Level, String)| {
            format!("{:>9} {server} {level:?} {text}", tick.0)
        };
        self.events[from..].iter().map(line).collect()
    }

    /// Read questions without an answer.
    pub fn reads_waiting(&self, server: ServerId) -> usize {
        self.servers[&server].reads.len()
    }
}
