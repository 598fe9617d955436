//! What goes wrong: faults come and go as the plan has drawn them, then everything heals, and everything must come together again.

use syncnet::cluster::Role;
use syncnet::config::LeaderMode;
use syncnet::rng::{Rng, mix};
use syncnet::types::{Span, Tick};

use super::clock::RIGHT;
use super::plan::{Fault, server_id, shown};
use super::recipes::RECIPES_FROM;
use super::world::{Happening, World};

/// Draws of faults are not those of anything else.
pub(super) const FAULT_DRAWS: u64 = 0xFA17_5EED;

/// A fault that came.
#[derive(Clone, Debug)]
pub struct Struck {
    /// Its number in this history, from 0.
    pub number: usize,
    pub when: Tick,
    pub fault: Fault,
    pub at: usize,
    pub span: Span,
}

impl Struck {
    pub fn line(&self) -> String {
        format!(
            "{:>3}: at {} {:?} at {} for {} ms",
            self.number,
            shown(self.when).trim(),
            self.fault,
            server_id(self.at),
            self.span.as_ms()
        )
    }
}

/// The end of a fault.
#[derive(Clone, Debug)]
pub enum Healing {
    Resume(usize),
    Start(usize),
    /// These directions, from and to.
    Uncut(Vec<(usize, usize)>),
    Multicast,
    Disk(usize),
    Client(usize, usize),
    Clock(usize),
    Jitter,
    Config(usize),
    Space(usize),
    Power(usize),
    Person(usize),
}

impl World {
    /// A fault comes, and the next is planned.
    pub fn next_fault(&mut self) {
        if !self.storm {
            return;
        }
        let number = self.struck.iter().filter(|struck| struck.number < RECIPES_FROM).count();
        if self.plan.faults_apart {
            self.fault_rng = Rng::new(mix(self.plan.seed ^ FAULT_DRAWS).wrapping_add(number as u64)).child();
        }
        let pace = self.plan.fault_pace;
        let pace = pace.draw(self.fault_rng());
        self.later(pace, Happening::Fault);
        let faults = std::mem::take(&mut self.plan.faults);
        let fault = self.fault_rng().pick(&faults).copied();
        self.plan.faults = faults;
        let Some(fault) = fault else { return };
        let span = self.plan.fault_span;
        let span = span.draw(self.fault_rng());
        let at = self.some_server();
        self.note_struck(number, fault, at, span);
        if self.only.as_ref().is_some_and(|only| !only.contains(&number)) {
            return;
        }
        self.strike(number, fault, at, span);
        self.take_backups();
    }

    /// A fault has come.
    pub(super) fn note_struck(&mut self, number: usize, fault: Fault, at: usize, span: Span) {
        let when = self.now;
        self.struck.push(Struck {
            number,
            when,
            fault,
            at,
            span,
        });
    }

    /// The generator from which faults are drawn.
    pub(super) fn fault_rng(&mut self) -> &mut Rng {
        if self.plan.faults_apart {
            &mut self.fault_rng
        } else {
            &mut self.rng
        }
    }

    fn some_server(&mut self) -> usize {
        // The leader is the most interesting one.
        if self.fault_rng().chance(40)
            && let Some(&leader) = self.leaders().last()
        {
            return leader;
        }
        let count = self.servers.len() as u64;
        self.fault_rng().below(count) as usize
    }

    fn strike(&mut self, number: usize, fault: Fault, at: usize, span: Span) {
        let leads = self.servers[at]
            .node()
            .is_some_and(|node| node.cluster().role() == Role::Leader);
        self.say(|| {
            format!(
                "fault {number}: {fault:?} at {}{} for {} ms",
                server_id(at),
                if leads { " (leader)" } else { "" },
                span.as_ms()
            )
        });
        let people = self.people.len().max(1) as u64;
        let person = self.fault_rng().below(people) as usize;
        match fault {
            Fault::Kill => {
                self.kill(at);
                self.later(span, Happening::Heal(Healing::Start(at)));
            }
            Fault::PowerCut => {
                self.power_cut(at);
                self.later(span, Happening::Heal(Healing::Start(at)));
            }
            Fault::PowerCutAll | Fault::KillAll => {
                self.counts.one("ends of all servers at once");
                for at in 0..self.servers.len() {
                    if fault == Fault::PowerCutAll {
                        self.power_cut(at)
                    } else {
                        self.kill(at)
                    }
                    let after = Span(self.fault_rng().between(1, span.0.max(1)));
                    self.later(after, Happening::Heal(Healing::Start(at)));
                }
            }
            Fault::Pause => {
                if leads {
                    self.counts.one("leaders that hung");
                }
                self.pause(at);
                self.later(span, Happening::Heal(Healing::Resume(at)));
            }
            Fault::Stop => {
                if self.servers[at].is_running() {
                    self.servers[at].stopping = true;
                    self.step(at, syncnet::node::Input::Stop);
                    self.wake_server(at);
                    // What doesn't end by itself is killed, as an init system does it.
                    self.later(Span(span.0 + 5_000_000), Happening::Heal(Healing::Start(at)));
                }
            }
            Fault::Split | Fault::Isolate | Fault::OneWay | Fault::Partial => self.part(fault, at, span),
            Fault::ResetLink => {
                let other = self.other_than(at);
                if other != at {
                    self.reset_link(at, other);
                }
            }
            Fault::MulticastDead => {
                self.counts.one("multicast dead");
                self.net.multicast_dead = true;
                self.later(span, Happening::Heal(Healing::Multicast));
            }
            Fault::SlowDisk => {
                self.counts.one("slow disks");
                self.servers[at].disk_factor = self.fault_rng().between(5, 50);
                self.later(span, Happening::Heal(Healing::Disk(at)));
            }
            Fault::HungDisk => {
                self.counts.one(if leads {
                    "leaders' disks that hung"
                } else {
                    "followers' disks that hung"
                });
                self.servers[at].disk_hangs_until = self.now.after(span);
            }
            Fault::FailedSync => self.servers[at].disk.disk.fail_syncs(1),
            Fault::ResetClient => {
                if !self.people.is_empty() {
                    self.reset_stream(person);
                }
            }
            Fault::CutClient => {
                if !self.people.is_empty() {
                    self.net.clients_cut.insert((person, at));
                    self.later(span, Happening::Heal(Healing::Client(person, at)));
                }
            }
            Fault::CrashClient => {
                if !self.people.is_empty() {
                    self.counts.one("clients crashed");
                    self.resume_person(person);
                    self.restart_person(person);
                }
            }
            Fault::JumpClock => {
                self.counts.one("wall clocks that jumped");
                self.servers[at].clock.wall_skew_ms = self.fault_rng().between(0, 7_200_000) as i64 - 3_600_000;
            }
            _ => self.strike_more(fault, at, person, span),
        }
    }

    fn other_than(&mut self, at: usize) -> usize {
        let count = self.servers.len();
        if count == 1 {
            return at;
        }
        (at + self.fault_rng().between(1, count as u64 - 1) as usize) % count
    }

    fn part(&mut self, fault: Fault, at: usize, span: Span) {
        let count = self.servers.len();
        if count == 1 {
            return;
        }
        let other = self.other_than(at);
        let mut cuts = Vec::new();
        match fault {
            Fault::Split => {
                let side: Vec<bool> = (0..count).map(|_| self.fault_rng().chance(50)).collect();
                for a in 0..count {
                    cuts.extend((0..count).filter(|&b| side[a] != side[b]).map(|b| (a, b)));
                }
                self.counts.one("partitions");
            }
            Fault::Isolate => {
                cuts.extend((0..count).filter(|&b| b != at).flat_map(|b| [(at, b), (b, at)]));
                self.counts.one("partitions");
            }
            Fault::OneWay => {
                let to: Vec<usize> = if self.fault_rng().chance(50) {
                    vec![other]
                } else {
                    (0..count).filter(|&b| b != at).collect()
                };
                let outward = self.fault_rng().chance(50);
                cuts.extend(to.into_iter().map(|b| if outward { (at, b) } else { (b, at) }));
                self.counts.one("one-way partitions");
            }
            _ => {
                cuts.extend([(at, other), (other, at)]);
                self.counts.one("partial partitions");
            }
        }
        let (links, datagrams) = *self
            .fault_rng()
            .pick(&[(true, true), (true, true), (true, false), (false, true)])
            .unwrap_or(&(true, true));
        let resets = links && self.fault_rng().chance(30);
        for &(from, to) in &cuts {
            if resets {
                self.reset_link(from, to);
            }
            self.cut(from, to, links, datagrams);
        }
        self.say(|| format!("cut {cuts:?}, links {links}, datagrams {datagrams}, with resets {resets}"));
        self.later(span, Happening::Heal(Healing::Uncut(cuts)));
    }

    pub fn heal(&mut self, healing: &Healing) {
        self.say(|| format!("healed: {healing:?}"));
        match healing {
            Healing::Resume(at) => self.resume(*at),
            Healing::Start(at) => {
                // Whatever still stands there is replaced.
                if self.servers[*at].process.is_some() && self.stuck(*at) {
                    self.kill(*at);
                }
                self.start(*at);
            }
            Healing::Uncut(cuts) => cuts.iter().for_each(|&(from, to)| self.uncut(from, to)),
            Healing::Multicast => self.net.multicast_dead = false,
            Healing::Disk(at) => self.servers[*at].disk_factor = 1,
            Healing::Client(person, at) => self.uncut_client(*person, *at),
            Healing::Clock(at) => self.servers[*at].clock.run_at(RIGHT, self.now),
            Healing::Jitter => self.net.jitter = 1,
            Healing::Config(at) => self.common_config(*at),
            Healing::Space(at) => self.servers[*at].disk.disk.set_space(None),
            Healing::Power(at) => {
                if self.servers[*at].process.is_none() {
                    self.power_cut(*at);
                }
            }
            Healing::Person(at) => self.resume_person(*at),
        }
    }

    fn stuck(&self, at: usize) -> bool {
        self.servers[at].process.is_some() && self.servers[at].stopping
    }

    /// The end of all faults: everything that is broken is mended now.
    pub fn heal_all(&mut self) {
        self.storm = false;
        self.say(|| "all is healed from here on".to_string());
        self.end_recipes();
        self.plan.loss = 0;
        // Slow readers read fast from here on, or they would need as long as they missed.
        self.plan.people.window = self.plan.people.window.max(1 << 17);
        self.net.multicast_dead = false;
        self.net.jitter = 1;
        for from in 0..self.servers.len() {
            for to in (0..self.servers.len()).filter(|&to| to != from) {
                self.uncut(from, to);
            }
        }
        for (person, server) in self.net.clients_cut.clone() {
            self.uncut_client(person, server);
        }
        for at in 0..self.servers.len() {
            self.servers[at].disk_factor = 1;
            self.servers[at].disk_hangs_until = self.now;
            self.servers[at].clock.run_at(RIGHT, self.now);
            self.servers[at].disk.disk.set_space(None);
            self.servers[at].disk.disk.kill();
            self.resume(at);
            if self.stuck(at) {
                self.kill(at);
            }
            self.common_config(at);
            self.start(at);
        }
        for person in self.hung.clone() {
            self.resume_person(person);
        }
    }

    /// What is still missing until everything is as it should be after the last fault; `None` if nothing is.
    pub fn unsettled(&self) -> Option<String> {
        let leaders = self.leaders();
        let &[leader] = leaders.as_slice() else {
            return Some(format!("{} leaders", leaders.len()));
        };
        if self.plan.config.leader == LeaderMode::Preferred {
            let highest = self.plan.config.servers.iter().max_by_key(|server| server.ring)?.id;
            if server_id(leader) != highest {
                return Some(format!("{} leads, and {highest} should", server_id(leader)));
            }
        }
        for server in &self.servers {
            let Some(node) = server.node() else {
                return Some(format!("{} doesn't run", server.id));
            };
            if node.cluster().leader() != Some(server_id(leader)) {
                return Some(format!(
                    "{} takes {:?} for the leader",
                    server.id,
                    node.cluster().leader()
                ));
            }
            if node.cluster().is_repairing() {
                return Some(format!("{} is being repaired", server.id));
            }
            if node.state().applied() != self.oracle.model().applied() || node.state() != self.oracle.model() {
                let applied = node.state().applied();
                return Some(format!(
                    "{} has applied {applied}, the log goes to {}",
                    server.id,
                    self.oracle.entries().len()
                ));
            }
        }
        for person in &self.people {
            if !person.is_served() {
                return Some(format!("person {} waits: {}", person.at, person.waits_for()));
            }
            for (room, next) in person.follows() {
                let last = self.oracle.last_position(room);
                if next.is_some_and(|next| next != last.next()) {
                    return Some(format!(
                        "person {} has read room {room} up to {next:?} of {last}",
                        person.at
                    ));
                }
            }
        }
        None
    }

    /// Lets things settle, for so long at most; what is missing then, or how long it took.
    pub fn settle(&mut self, most: Span) -> Result<Span, String> {
        let began = self.now;
        let step = Span::from_ms(20);
        while self.now.since(began) < most {
            if !self.run_for(step) {
                return Err(String::new());
            }
            if self.unsettled().is_none() {
                return Ok(self.now.since(began));
            }
        }
        Err(self.unsettled().unwrap_or_default())
    }

    /// A moment far away.
    pub fn horizon(&self, span: Span) -> Tick {
        self.now.after(span)
    }
}
