//! What the servers of the test world want done: frames, datagrams, records, reads and checkpoints, each with its delay.

use super::disk::Checkpoint;
use super::harness::{Happening, World, pair};
use crate::cluster::message::{AppendResult, CheckpointId, Datagram, Hole, Message, Record};
use crate::cluster::{Cluster, Output};
use crate::types::{Blob, Level, LogIndex, ServerId, Span};

impl World {
    pub(super) fn drain(&mut self, server: ServerId) {
        let mut records = Vec::new();
        while let Some(output) = self.servers.get_mut(&server).and_then(|it| it.cluster.as_mut()?.poll()) {
            match output {
                Output::Record(record) => records.push(record),
                Output::Send(to, message) => self.send(server, to, message),
                Output::Datagram(datagram) => self.multicast(server, &datagram),
                Output::ReadEntries {
                    follower,
                    purpose,
                    from,
                    to,
                    bytes_max,
                } => {
                    assert!(from <= to && bytes_max > 0);
                    let it = &self.servers[&server];
                    let entries = (from.0..=to.0.min(from.0 + 20)).map_while(|at| it.disk.entry(LogIndex(at)).cloned());
                    let (entries, boot): (Vec<_>, _) = (entries.collect(), it.boot);
                    let end = LogIndex(from.0 + entries.len() as u64);
                    let bad = it.disk.bad.contains_key(&end) && entries.len() < 20 && end <= to;
                    let damaged = bad.then_some(Hole { index: end, term: None });
                    let delay = Span(self.rng.between(50, 2000));
                    self.later(
                        delay,
                        Happening::Entries {
                            at: server,
                            boot,
                            follower,
                            purpose,
                            from,
                            entries,
                            damaged,
                        },
                    );
                }
                Output::ReadDone { token, index } => {
                    let it = self.servers.get_mut(&server).unwrap();
                    let asked = it.reads.remove(&token).expect("a read is answered once");
                    if let Some(index) = index {
                        it.reads_done += 1;
                        assert!(
                            index >= asked,
                            "{server} answers {index} from the past, {asked} was committed"
                        );
                    }
                }
                Output::LeaderChanged => {}
                Output::Event { level, text } => self.events.push((self.now, server, level, text)),
                Output::ReadCheckpoint { follower, id, offset } => {
                    let it = &self.servers[&server];
                    let found = it
                        .disk
                        .checkpoint
                        .as_ref()
                        .filter(|found| id.is_none_or(|id| id == found.id));
                    if let Some(found) = found.filter(|found| self.handed_out.iter().all(|known| known.id != found.id))
                    {
                        self.handed_out.push(found.clone());
                    }
                    // Small pieces, so that a transfer takes several.
                    let piece = |found: &Checkpoint| {
                        let rest = &found.bytes[(offset as usize).min(found.bytes.len())..];
                        (found.id, offset, Blob::new(&rest[..rest.len().min(700)]))
                    };
                    let (piece, boot) = (found.map(piece), it.boot);
                    let delay = Span(self.rng.between(50, 2000));
                    self.later(
                        delay,
                        Happening::Piece {
                            at: server,
                            boot,
                            follower,
                            piece,
                        },
                    );
                }
                Output::StoreCheckpoint { id, offset, bytes } => {
                    let boot = self.servers[&server].boot;
                    let delay = Span(self.rng.between(50, 2000));
                    self.later(
                        delay,
                        Happening::Store {
                            at: server,
                            boot,
                            id,
                            offset,
                            bytes,
                        },
                    );
                }
                Output::Renounce(text) => {
                    self.events
                        .push((self.now, server, Level::Error, format!("renounces: {text}")));
                    self.servers.get_mut(&server).unwrap().renounced = Some(text);
                }
                Output::Misconfigured(text) => self.misconfigured.push((server, text)),
            }
        }
        self.persist(server, records);
        self.check(server);
    }

    /// A piece of a checkpoint reaches the disk, and the whole takes its place in the cluster.
    pub(super) fn store(&mut self, server: ServerId, id: CheckpointId, offset: u64, bytes: &Blob) {
        let whole = self.handed_out.iter().find(|found| found.id == id).cloned();
        let it = self.servers.get_mut(&server).unwrap();
        let next = it.disk.store(id, offset, bytes);
        if next < id.bytes {
            self.act(server, |cluster, now| cluster.checkpoint_stored(now, id, next));
            return;
        }
        let whole = whole.expect("somebody has handed it out");
        assert_eq!(
            it.disk.partial.as_ref().unwrap().1,
            whole.bytes,
            "a checkpoint comes as it is"
        );
        let members = whole.members.clone();
        let now = self.now();
        let it = self.servers.get_mut(&server).unwrap();
        if it.cluster.as_mut().unwrap().checkpoint_installed(now, id, members) {
            it.disk.checkpoint = Some(whole);
            it.installed += 1;
            it.applied = it.applied.max(id.at.index);
            it.commit_seen = it.commit_seen.max(id.at.index);
        }
        self.drain(server);
    }

    fn persist(&mut self, server: ServerId, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let delay = Span(self.rng.between(100, 2000));
        let it = self.servers.get_mut(&server).unwrap();
        let (boot, id) = (it.boot, it.next_append);
        it.next_append = id.next();
        let cluster = it.cluster.as_mut().unwrap();
        cluster.appended(id);
        it.unsynced.push_back((id, cluster.commit(), records));
        self.later(delay, Happening::Persisted { at: server, boot, id });
    }

    fn send(&mut self, from: ServerId, to: ServerId, message: Message) {
        let disk = &self.servers[&from].disk;
        match &message {
            Message::VoteAnswer {
                term, granted: true, ..
            } => {
                // Its directory may have been replaced since it asked.
                let vote = disk.state.vote.map(|(server, _)| server);
                assert_eq!(
                    (disk.state.term, vote),
                    (*term, Some(to)),
                    "{from} answers with a vote that isn't durable"
                );
            }
            Message::AppendAnswer {
                result: AppendResult::Matched { durable, received },
                ..
            } => {
                assert!(durable <= received);
                let hole = self.servers[&from].cluster.as_ref().and_then(Cluster::first_hole);
                let end = hole.map_or(disk.last().index, LogIndex::previous);
                assert!(*durable <= end, "{from} claims more than is on its disk");
            }
            _ => {}
        }
        let Some(&epoch) = self.links.get(&pair(from, to)) else {
            return;
        };
        if self.rng.chance(self.chances.lose_message) {
            return;
        }
        let mut arrival = self.now.after(Span(self.rng.between(50, 500)));
        if self.rng.chance(self.chances.reorder) {
            arrival = arrival.after(Span(self.rng.between(0, 20_000)));
        } else {
            let last = self.arrivals.entry((from, to)).or_default();
            arrival = arrival.max(*last);
            *last = arrival;
        }
        self.at(
            arrival,
            Happening::Message {
                from,
                to,
                epoch,
                message,
            },
        );
    }

    fn multicast(&mut self, from: ServerId, datagram: &Datagram) {
        let directory = self.servers[&from].directory;
        for to in self.ids() {
            if to != from && self.is_up(to) && !self.rng.chance(self.chances.lose_datagram) {
                let delay = Span(self.rng.between(50, 500));
                let datagram = datagram.clone();
                self.later(
                    delay,
                    Happening::Datagram {
                        from,
                        to,
                        directory,
                        datagram,
                    },
                );
            }
        }
    }
}
