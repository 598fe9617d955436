//! Faults that come at the worst moment, not at any: between a write and its sync, at the write that takes back what was there. By chance
//! these moments are hit too rarely. An ambush comes on its own, beside the plan's faults, in some of the seeds; it draws from generators of its
//! own, so that a seed without one is what it was.

use syncnet::cluster::message::{EntryKind, Record};
use syncnet::log::Append;
use syncnet::rng::{Rng, mix};
use syncnet::types::Span;

use super::faults::{FAULT_DRAWS, Healing};
use super::plan::{Fault, server_id};
use super::threads::DiskStep;
use super::world::{Happening, World};

/// Ambushes are numbered from here, so that the plan's faults keep their numbers.
pub const AMBUSHES_FROM: usize = 2_000;

/// The ambushes, as faults of which the plan knows nothing.
const AMBUSHES: [Fault; 5] = [
    Fault::Overruled,
    Fault::Upstart,
    Fault::TornBatch,
    Fault::PowerAfterRestart,
    Fault::SyncFailsTwice,
];

/// What waits for the log writer of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambush {
    /// Killed as soon as it has written entries in the place of others, and perhaps synced them.
    WhenOverruled { synced: bool },
    /// Cut off as soon as it leads, so that nobody gets its first entry, for so long.
    Upstart(Span),
    /// The power goes between a write and its sync, and the first page of that is lost.
    Torn,
    /// Killed between a write and its sync; started again, and then the power goes.
    Killed,
    /// The sync of what was written fails; started again, and then the power goes.
    SyncFails,
}

impl World {
    /// Draws whether ambushes come in this seed, and when.
    pub fn plan_ambushes(&mut self) {
        if !self.plan.faults_apart || self.sabotage.is_some() {
            return;
        }
        let mut rng = Rng::new(mix(self.plan.seed ^ 0x4EC1_9E55));
        for number in 0..rng.below(3) {
            let after = rng.between(2_000_000, self.plan.storm.0.max(3_000_000));
            let number = AMBUSHES_FROM + number as usize;
            self.later(Span(after), Happening::Ambush(number));
        }
    }

    /// The moment of an ambush has come.
    pub fn next_ambush(&mut self, number: usize) {
        if !self.storm || self.only.as_ref().is_some_and(|only| !only.contains(&number)) {
            return;
        }
        let mut rng = Rng::new(mix(self.plan.seed ^ FAULT_DRAWS).wrapping_add(number as u64)).child();
        let fault = *rng.pick(&AMBUSHES).expect("an ambush");
        let span = Span(rng.between(1_000_000, 3_000_000));
        let leader = self.leaders().last().copied();
        let at = match (fault, leader) {
            (Fault::Overruled | Fault::Upstart, Some(leader)) => leader,
            _ => rng.below(self.servers.len() as u64) as usize,
        };
        self.note_struck(number, fault, at, span);
        self.say(|| {
            format!(
                "ambush {number}: {fault:?} at {} for {} ms",
                server_id(at),
                span.as_ms()
            )
        });
        self.fault_rng = rng;
        self.strike_ambush(fault, at, span);
    }

    pub(super) fn strike_ambush(&mut self, fault: Fault, at: usize, span: Span) {
        let synced = self.fault_rng.chance(50);
        let ambush = match fault {
            Fault::Overruled => {
                // What it takes on meanwhile nobody else gets, and the others go on without it.
                self.cut_off(at, span);
                Ambush::WhenOverruled { synced }
            }
            Fault::Upstart => {
                // Another leads then, whose whole term is made void by the next one.
                self.kill(at);
                self.later(Span(span.0 / 2), Happening::Heal(Healing::Start(at)));
                for other in (0..self.servers.len()).filter(|&other| other != at) {
                    self.servers[other].ambush = Some(Ambush::Upstart(span));
                }
                return;
            }
            Fault::TornBatch => {
                // So much waits then that it takes several pages.
                self.servers[at].disk_hangs_until = self.now.after(span);
                Ambush::Torn
            }
            Fault::PowerAfterRestart => Ambush::Killed,
            Fault::SyncFailsTwice => {
                self.servers[at].disk_hangs_until = self.now.after(span);
                Ambush::SyncFails
            }
            _ => return,
        };
        self.lie_in_wait(at, ambush);
    }

    fn lie_in_wait(&mut self, at: usize, ambush: Ambush) {
        self.servers[at].held.not_overruled();
        self.servers[at].ambush = Some(ambush);
    }

    fn cut_off(&mut self, at: usize, span: Span) {
        let others = (0..self.servers.len()).filter(|&other| other != at);
        let cuts: Vec<_> = others.flat_map(|other| [(at, other), (other, at)]).collect();
        cuts.iter().for_each(|&(from, to)| self.cut(from, to, true, true));
        self.later(span, Happening::Heal(Healing::Uncut(cuts)));
    }

    /// A server wants something written: who takes office may be waited for.
    pub fn takes_office(&mut self, at: usize, append: &Append) {
        let Some(Ambush::Upstart(span)) = self.servers[at].ambush else {
            return;
        };
        let first = |record: &Record| matches!(record, Record::Entry { entry, .. } if entry.kind == EntryKind::Noop);
        if self.storm && self.leaders().contains(&at) && append.records.iter().any(first) {
            for server in &mut self.servers {
                server.ambush.take_if(|ambush| matches!(ambush, Ambush::Upstart(_)));
            }
            self.counts.one("leaders cut off as they took office");
            // Until the others have had the time to elect the next.
            self.cut_off(at, Span(span.0 + 2_500_000));
            self.lie_in_wait(at, Ambush::WhenOverruled { synced: true });
        }
    }

    /// After a failed sync the system may forget what wasn't written, or not.
    pub fn forget_unwritten(&mut self, at: usize) {
        let mut rng = Rng::new(mix(self.plan.seed ^ self.now.0 ^ 0xF0E6));
        if self.plan.faults_apart && rng.chance(50) {
            self.servers[at].disk.disk.forget_unwritten(&mut rng);
            self.servers[at].held.lossy = true;
        }
    }

    /// The log writer has done a step. Whether that was its last.
    pub fn springs(&mut self, at: usize, step: DiskStep) -> bool {
        let server = &mut self.servers[at];
        let Some(ambush) = server.ambush else {
            return false;
        };
        let due = match ambush {
            Ambush::Upstart(_) => false,
            Ambush::WhenOverruled { synced } => server.held.is_overruled(synced),
            Ambush::Torn => step == DiskStep::Write && server.held.pages_unsynced() > 1,
            Ambush::Killed | Ambush::SyncFails => step == DiskStep::Write && server.held.pages_unsynced() > 0,
        };
        if !due || !self.storm {
            return false;
        }
        server.ambush = None;
        let mut rng = Rng::new(mix(self.plan.seed ^ self.now.0));
        let soon = Span(rng.between(1_000, 20_000));
        let later = Span(soon.0 + rng.between(1_000, 50_000));
        let well = Span(later.0 + rng.between(10_000, 500_000));
        match ambush {
            Ambush::Upstart(_) => {}
            Ambush::WhenOverruled { .. } => {
                self.counts.one("leaders killed when they were overruled");
                self.kill(at);
                self.later(soon, Happening::Heal(Healing::Start(at)));
            }
            Ambush::Torn => {
                self.counts.one("batches torn at their first page");
                self.servers[at].disk.disk.lose_first_pages();
                self.power_cut(at);
                self.later(soon, Happening::Heal(Healing::Start(at)));
                // What it writes now takes the place of what was cut.
                self.servers[at].ambush = Some(Ambush::Killed);
            }
            Ambush::Killed => {
                self.counts.one("power cuts behind a restart");
                self.kill(at);
                self.later(soon, Happening::Heal(Healing::Start(at)));
                self.later(later, Happening::PowerCut { server: at });
                self.later(well, Happening::Heal(Healing::Start(at)));
            }
            Ambush::SyncFails => {
                self.counts.one("power cuts behind a failed sync");
                self.servers[at].disk.disk.fail_syncs(1);
                self.later(Span(2_000_000), Happening::PowerCut { server: at });
                self.later(Span(2_000_000 + well.0), Happening::Heal(Healing::Start(at)));
                return false;
            }
        }
        true
    }
}
