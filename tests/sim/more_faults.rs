//! More that goes wrong: clocks that run at another rate, datagrams of minutes ago, files that differ between servers, full disks,
//! bits that rot, disks that are lost.

use std::sync::Arc;

use syncnet::config::{Config, Election, LeaderMode, Routing};
use syncnet::log::disk::Disk;
use syncnet::rng::Rng;
use syncnet::types::{Boot, DirectoryId, Lsn, Span};

use super::clock::RIGHT;
use super::disk::ServerDisk;
use super::faults::Healing;
use super::plan::{Fault, server_id};
use super::run::compare_logs;
use super::server::SCRUB_WITHIN;
use super::world::{Happening, World};

/// Datagrams that are kept for the fault that repeats them.
const OLD_DATAGRAMS_MAX: usize = 200;

impl World {
    pub(super) fn strike_more(&mut self, fault: Fault, at: usize, person: usize, span: Span) {
        match fault {
            Fault::SkewedClock => {
                self.counts.one("clocks at another rate");
                let rate = self.fault_rng().between(RIGHT / 2, RIGHT * 2);
                let now = self.now;
                self.servers[at].clock.run_at(rate, now);
                self.wake_server(at);
                self.later(span, Happening::Heal(Healing::Clock(at)));
            }
            Fault::OldDatagrams => self.repeat_old_datagrams(),
            Fault::Jitter => {
                self.counts.one("times of jitter");
                self.net.jitter = self.fault_rng().between(2, 100);
                self.later(span, Happening::Heal(Healing::Jitter));
            }
            Fault::OtherConfig => {
                self.counts.one("restarts with another configuration");
                let config = other_config(&self.plan.config.clone(), self.fault_rng());
                self.other_configs = true;
                self.kill(at);
                self.servers[at].config = Some(Arc::new(config));
                self.start(at);
                self.later(span, Happening::Heal(Healing::Config(at)));
            }
            Fault::NoSpace => {
                self.counts.one("full disks");
                let left = self.fault_rng().below(64 * 1024);
                let disk = &self.servers[at].disk.disk;
                disk.set_space(Some(disk.used() + left));
                self.later(span, Happening::Heal(Healing::Space(at)));
            }
            Fault::PowerAfterKill => {
                self.counts.one("power cuts behind a kill");
                self.kill(at);
                self.later(Span(span.0 / 2), Happening::Heal(Healing::Power(at)));
                self.later(span, Happening::Heal(Healing::Start(at)));
            }
            Fault::HangClient if !self.people.is_empty() => {
                let forgotten = self.fault_rng().chance(50);
                self.hang_person(person, forgotten);
                // Long enough for what is forgotten about silent people.
                self.later(span.times(3), Happening::Heal(Healing::Person(person)));
            }
            Fault::FlippedBit => self.flip_some_bit(at),
            Fault::LostDisk => self.lose_disk(at, span),
            _ => self.strike_ambush(fault, at, span),
        }
    }

    /// Gives a server the configuration of all, with a new start.
    pub(super) fn common_config(&mut self, at: usize) {
        if self.servers[at].config.take().is_some() {
            self.kill(at);
            self.start(at);
        }
    }

    // --- Datagrams of minutes ago ---------------------------------------------------------------

    /// Some of what is sent is kept.
    pub(super) fn keep_datagram(&mut self, from: usize, bytes: &[u8]) {
        self.net.sent += 1;
        if !self.plan.faults_apart || !self.net.sent.is_multiple_of(16) {
            return;
        }
        let place = (self.net.sent / 16) as usize % OLD_DATAGRAMS_MAX;
        match self.net.old.get_mut(place) {
            Some(old) => *old = (from, bytes.to_vec()),
            None => self.net.old.push((from, bytes.to_vec())),
        }
    }

    fn repeat_old_datagrams(&mut self) {
        let count = self.servers.len();
        for _ in 0..self.fault_rng().between(1, 50) {
            let old = self.net.old.len() as u64;
            let which = self.fault_rng().below(old) as usize;
            let to = self.fault_rng().below(count as u64) as usize;
            let after = Span(self.fault_rng().below(1_000_000));
            if let Some((from, bytes)) = self.net.old.get(which).cloned()
                && from != to
            {
                self.counts.one("old datagrams sent again");
                self.later(after, Happening::Datagram { from, to, bytes });
            }
        }
    }

    // --- What only repair can mend ----------------------------------------------------------------

    /// Whether what a server had lost is there again: it runs and misses nothing, and a start would find everything. What was looked at
    /// twice since it was damaged has nothing left that nobody has found.
    fn is_whole_again(&mut self, at: usize) -> bool {
        let server = &self.servers[at];
        let since = self.now.since(server.damaged_at);
        let well = |node: &syncnet::node::Node| !node.cluster().is_repairing();
        since > SCRUB_WITHIN.times(2) && server.node().is_some_and(well) && compare_logs(self, at, false).is_ok()
    }

    /// Forgets damage that is mended, so that others may be damaged.
    fn forget_mended(&mut self) {
        for at in 0..self.servers.len() {
            if self.servers[at].damaged && self.is_whole_again(at) {
                self.say(|| format!("{} is whole again", server_id(at)));
                self.counts.one("servers that were whole again");
                self.servers[at].damaged = false;
            }
        }
    }

    /// What a server has lost a part of: the others are spared until it is whole again.
    pub(super) fn damage(&mut self, at: usize) {
        self.servers[at].damaged = true;
        self.servers[at].damaged_at = self.now;
        self.servers[at].held.unsure = true;
    }

    /// Whether all servers but this one have on their disks all that is committed: only then nothing is lost with it.
    pub(super) fn others_hold_everything(&mut self, at: usize) -> bool {
        self.forget_mended();
        let all = self.oracle.entries().len() as u64;
        let holds = |server: &super::server::Server| {
            let durable = server.node().map(|node| node.cluster().durable().0);
            server.at == at || (!server.damaged && durable.is_some_and(|durable| durable >= all))
        };
        self.servers.len() > 2 && all > 0 && self.servers.iter().all(holds)
    }

    /// A bit of what was synced changes, in any file of the server.
    fn flip_some_bit(&mut self, at: usize) {
        if !self.others_hold_everything(at) {
            return;
        }
        let disk = self.servers[at].disk.disk.clone();
        let mut files = Vec::new();
        for folder in ["log", "checkpoint"] {
            let names = disk.list(folder).unwrap_or_default();
            files.extend(names.into_iter().map(|name| format!("{folder}/{name}")));
        }
        let Some(name) = self.fault_rng().pick(&files).cloned() else {
            return;
        };
        // A record begins with what isn't zero: a bit of the empty rest of a segment says nothing.
        let contents = disk.contents(&name).unwrap_or_default();
        let used = contents.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let offset = self.fault_rng().below(used as u64);
        let bit = self.fault_rng().below(8) as u32;
        if !self.shows_damage(at, &name, offset, bit) {
            return;
        }
        if disk.flip_bit(&name, offset, bit) {
            self.say(|| format!("bit {bit} of byte {offset} of {name} at {} is flipped", server_id(at)));
            self.counts.one("bits flipped");
            self.damage(at);
        }
    }

    /// Whether a server could tell this flip from a write that never got to the disk, even if the power is lost now. Nobody can tell when
    /// what was written last is hit, and no later record is on the disk that says it was synced.
    fn shows_damage(&self, at: usize, name: &str, offset: u64, bit: u32) -> bool {
        let promised = |flips: bool| {
            let disk = self.servers[at].disk.disk.copy();
            disk.lose_unsynced();
            if flips {
                disk.flip_bit(name, offset, bit);
            }
            self.what_is_promised(at, disk)
        };
        promised(true) >= promised(false)
    }

    /// The whole data directory of a server is gone.
    fn lose_disk(&mut self, at: usize, span: Span) {
        if !self.others_hold_everything(at) {
            return;
        }
        let directory = DirectoryId(self.fault_rng().draw() | 1);
        self.lose_disk_for(at, directory, span);
    }

    /// There is an empty one instead, for a new directory.
    pub(super) fn lose_disk_for(&mut self, at: usize, directory: DirectoryId, span: Span) {
        self.counts.one("disks lost");
        self.kill(at);
        let server = &mut self.servers[at];
        server.disk = ServerDisk::default();
        server.directory = directory;
        server.boot = Boot(0);
        server.hard = None;
        server.reached = Lsn(0);
        server.replaced = false;
        self.damage(at);
        self.oracle.begins_anew(at);
        self.holds_nothing(at);
        self.later(span, Happening::Heal(Healing::Start(at)));
    }
}

/// A file that differs where files of one cluster may differ for a while.
fn other_config(config: &Config, rng: &mut Rng) -> Config {
    let mut other = config.clone();
    if rng.chance(40) {
        other.routing = match other.routing {
            Routing::Forward => Routing::Redirect,
            Routing::Redirect => Routing::Forward,
        };
    }
    if rng.chance(40) {
        other.leader = match other.leader {
            LeaderMode::Preferred => LeaderMode::Sticky,
            LeaderMode::Sticky => LeaderMode::Preferred,
        };
    }
    if rng.chance(40) {
        other.election = match other.election {
            Election::Highest => Election::Lcr,
            Election::Lcr => Election::Highest,
        };
    }
    if rng.chance(40) {
        let slower = rng.between(2, 3);
        let timing = &mut other.timing;
        timing.heartbeat_interval = timing.heartbeat_interval.times(slower);
        timing.failure_timeout = timing.failure_timeout.times(slower);
        timing.election_timeout = timing.election_timeout.times(slower);
    }
    if rng.chance(40) {
        other.chat.message_size_max = 1024;
    }
    if rng.chance(40) {
        other.chat.session_expiry = other.chat.session_expiry.times(2);
    }
    other
}
