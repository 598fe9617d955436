//! The first start: one server writes the members down and hands them to all others.
//!
//! It needs all configured servers, seen with empty logs. With a majority only, a server that lost its disk and one that never
//! joined could form a second cluster beside the first. The server with the highest ring position writes the entry, and sends
//! it only when it is on its own disk, so that there is never a second first entry.

use crate::cluster::heartbeat::Greeting;
use crate::cluster::members::{configured_digest, difference, encode_members, is_sound};
use crate::cluster::message::{Entry, EntryKind, Member, Members, Message};
use crate::cluster::{Cluster, Output};
use crate::limits;
use crate::types::{Blob, ClusterId, Level, LogIndex, ServerId, Term};

/// Why an empty server doesn't count as one. Others may hold what it had, and may be about to start.
const REPLACED: &str = "its data directory is new in the place of another: it takes no part in a first start";

impl Cluster {
    /// Whether there is a members entry that counts.
    #[must_use]
    pub fn formed(&self) -> bool {
        self.member_count() > 0 && self.commit.0 >= 1
    }

    /// A server says what it is: with the first frame of a link, and when it has been formed.
    pub(super) fn on_hello(&mut self, from: ServerId, cluster: ClusterId, digest: u64, replaced: bool) {
        if digest != configured_digest(&self.config) {
            let text = format!("the configuration of {from} has other servers or ring positions than ours");
            self.event(Level::Error, text);
        }
        let ours = self.sender().cluster;
        if cluster.0 != 0 && ours.0 != 0 && cluster != ours {
            self.event(Level::Error, format!("{from} belongs to another cluster"));
        }
        if let Some(link) = self.peers.get_mut(&from).and_then(|peer| peer.link.as_mut()) {
            link.hello = Some(Greeting {
                cluster,
                digest,
                replaced,
            });
        }
        self.greet(from);
        self.form();
    }

    /// Says what we are.
    pub(super) fn send_hello(&mut self, to: ServerId) {
        let hello = Message::Hello {
            cluster: self.sender().cluster,
            members: configured_digest(&self.config),
            replaced: self.replaced,
        };
        self.send(to, hello);
    }

    /// Gives an empty member its first entry.
    pub(super) fn greet(&mut self, server: ServerId) {
        let Some(link) = self.peer(server).and_then(|peer| peer.link.as_ref()) else {
            return;
        };
        let empty = link.hello.is_some_and(|hello| hello.cluster.0 == 0);
        if empty
            && self.formed()
            && self.durability.index().0 >= 1
            && self.is_member(server, link.directory)
            && let Some(members) = self.roster.first_entry().cloned()
        {
            self.send(server, Message::Form { members });
        }
    }

    fn is_empty(&self) -> bool {
        self.member_count() == 0 && self.log.last().index.0 == 0
    }

    /// For whom the first start waits, in words.
    fn waits_for(&self) -> Vec<String> {
        let digest = configured_digest(&self.config);
        let mut waits = Vec::new();
        for (server, peer) in &self.peers {
            match peer.link.as_ref().map(|link| link.hello) {
                None => waits.push(format!("{server} (no link)")),
                Some(None) => waits.push(format!("{server} (hasn't said what it is)")),
                Some(Some(hello)) if hello.cluster.0 != 0 => waits.push(format!("{server} (to hand over the members)")),
                Some(Some(hello)) if hello.digest != digest => waits.push(format!("{server} (configured differently)")),
                Some(Some(hello)) if hello.replaced => waits.push(format!("{server} ({REPLACED})")),
                Some(Some(_)) => {}
            }
        }
        if self.replaced {
            waits.push(format!("{} ({REPLACED})", self.me));
        }
        waits
    }

    /// Forms the cluster, if everybody is there and empty and it is on us.
    pub(super) fn form(&mut self) {
        let highest = self
            .config
            .servers
            .iter()
            .max_by_key(|server| server.ring)
            .map(|server| server.id);
        if !self.is_empty() || highest != Some(self.me) || !self.waits_for().is_empty() {
            return;
        }
        let mut members = Vec::new();
        for server in &self.config.servers {
            let link = self.peer(server.id).and_then(|peer| peer.link.as_ref());
            let directory = if server.id == self.me {
                Some(self.directory)
            } else {
                link.map(|link| link.directory)
            };
            let Some(directory) = directory else {
                return;
            };
            members.push(Member {
                id: server.id,
                ring: server.ring,
                directory,
            });
        }
        members.sort_unstable_by_key(|member| member.id);
        let cluster = ClusterId(self.rng.between(1, u64::MAX - 1));
        self.event(
            Level::Info,
            format!("all {} servers are there: the cluster is formed", members.len()),
        );
        self.take_members(Members { cluster, members });
    }

    /// Writes the first entry. It counts once it is on the disk.
    fn take_members(&mut self, members: Members) {
        let term = Term(1);
        if self.hard.term < term {
            self.set_term(term, None);
        }
        let payload = Blob::new(&encode_members(&members));
        self.roster.push(LogIndex(1), members);
        self.write_entry(Entry {
            index: LogIndex(1),
            term,
            kind: EntryKind::Members,
            payload,
        });
    }

    /// A member hands us the first entry.
    pub(super) fn on_form(&mut self, from: ServerId, members: Members) {
        if !self.is_empty() || !is_sound(&members) {
            return;
        }
        if let Some(difference) = difference(&members, &self.config) {
            self.outputs.push_back(Output::Misconfigured(difference));
            return;
        }
        let ours = members
            .members
            .iter()
            .any(|member| member.id == self.me && member.directory == self.directory);
        if !ours {
            let text = format!(
                "{from} belongs to a cluster that knows {} with another data directory",
                self.me
            );
            self.event(Level::Error, text);
            return;
        }
        self.event(Level::Info, format!("{from} has formed the cluster"));
        self.take_members(members);
    }

    /// The first entry counts as soon as it is durable here: nothing else can ever be the first.
    pub(super) fn first_entry_durable(&mut self) {
        let ours = self.is_member(self.me, self.directory);
        if ours
            && self.commit.0 == 0
            && self.durability.index().0 >= 1
            && self.log.term_at(LogIndex(1)) == Some(Term(1))
        {
            self.set_commit(LogIndex(1));
        }
    }

    /// We have become part of the cluster: everybody should know at once.
    pub(super) fn now_formed(&mut self) {
        self.beat_due = true;
        let linked: Vec<_> = self.links().collect();
        for server in linked {
            self.send_hello(server);
            self.greet(server);
        }
        self.wait_again();
        self.consider();
    }

    /// Says now and then for whom the first start waits.
    pub(super) fn report_formation(&mut self) {
        if self.formed() || self.now.tick < self.formation_report_at {
            return;
        }
        self.formation_report_at = self.now.tick.after(limits::FORMATION_REPORT_INTERVAL);
        let waits = self.waits_for();
        if !waits.is_empty() && self.is_empty() {
            self.event(Level::Info, format!("the first start waits for {}", waits.join(", ")));
        }
    }
}
