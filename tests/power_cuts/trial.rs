//! A cluster, two writers, and one power cut after the other.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use syncnet::rng::Rng;

use super::disk::Tally;
use super::machine::{Fault, Kind, Trap};
use super::rig::{IDS, QUICK, Rig};
use super::writers::Writer;

/// What the cuts have met.
#[derive(Default)]
pub struct Seen {
    pub one: u64,
    pub two: u64,
    pub all: u64,
    /// Of these, with something that wasn't synced.
    pub unsynced: u64,
    /// Of these, between a write of a batch and the end of its sync.
    pub mid_batch: u64,
    /// Of these, while a server still recovered from the one before.
    pub early: u64,
    /// Of these, by what they struck.
    struck: [u64; Kind::ALL.len()],
    struck_nothing: u64,
    /// Servers that were killed without a power cut.
    pub killed: u64,
    /// Servers that ended because a sync failed.
    pub failed_syncs: u64,
    pub acknowledged: u64,
    tally: Tally,
}

impl Seen {
    pub fn cuts(&self) -> u64 {
        self.one + self.two + self.all
    }

    /// What hasn't been seen.
    pub fn missing(&self) -> Vec<String> {
        let tally = &self.tally;
        let mut counts = vec![
            ("cuts of one", self.one),
            ("cuts of two", self.two),
            ("cuts of all", self.all),
            ("cuts with something unsynced", self.unsynced),
            ("cuts in the middle of a batch", self.mid_batch),
            ("cuts during a recovery", self.early),
            ("cuts at no change", self.struck_nothing),
            ("kills", self.killed),
            ("failed syncs", self.failed_syncs),
            ("pages kept", tally.pages_kept),
            ("pages lost", tally.pages_lost),
            ("pages torn", tally.pages_torn),
            ("sizes kept", tally.sizes_kept),
            ("sizes lost", tally.sizes_lost),
            ("names kept", tally.names_kept),
            ("names lost", tally.names_lost),
        ];
        let struck: Vec<(String, u64)> = Kind::ALL
            .iter()
            .zip(self.struck)
            .map(|(kind, count)| (format!("cuts at {kind:?}"), count))
            .collect();
        counts.extend(struck.iter().map(|(name, count)| (name.as_str(), *count)));
        let missing = counts.into_iter().filter(|(_, count)| *count == 0);
        missing.map(|(name, _)| name.to_owned()).collect()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        writeln!(
            f,
            "{} power cuts: {} of one server, {} of two, {} of all; {} acknowledged messages",
            self.cuts(),
            self.one,
            self.two,
            self.all,
            self.acknowledged
        )?;
        writeln!(
            f,
            "  {} with something unsynced, {} in the middle of a batch, {} during a recovery",
            self.unsynced, self.mid_batch, self.early
        )?;
        let struck = Kind::ALL.iter().zip(self.struck);
        let struck: Vec<String> = struck.map(|(kind, count)| format!("{kind:?} {count}")).collect();
        writeln!(f, "  struck: {}, nothing {}", struck.join(", "), self.struck_nothing)?;
        writeln!(
            f,
            "  pages: {} kept, {} lost, {} torn; sizes: {} kept, {} lost; names: {} kept, {} lost",
            tally.pages_kept,
            tally.pages_lost,
            tally.pages_torn,
            tally.sizes_kept,
            tally.sizes_lost,
            tally.names_kept,
            tally.names_lost
        )?;
        write!(
            f,
            "  between them {} kills and {} failed syncs",
            self.killed, self.failed_syncs
        )
    }
}

/// So many power cuts of a new cluster. False if that isn't possible here.
pub fn trial(seed: u64, cuts: u64, seen: &mut Seen) -> bool {
    let Some(rig) = Rig::new(QUICK) else { return false };
    let before = seen.cuts();
    let outcome = catch_unwind(AssertUnwindSafe(|| run(rig, seed, cuts, seen)));
    if let Err(panic) = outcome {
        println!(
            "FAILED after {} cuts, of which {} with seed {seed}; until then\n{seen}",
            seen.cuts(),
            seen.cuts() - before
        );
        resume_unwind(panic);
    }
    true
}

fn run(mut rig: Rig, seed: u64, cuts: u64, seen: &mut Seen) {
    let mut rng = Rng::new(seed);
    // How much there is to lose isn't the same each time; what happens next shall be.
    let mut losses = rng.child();
    rig.cluster.launch_all();
    // Half of the clusters lose power while they form.
    let mut settled = rng.chance(50);
    if settled {
        rig.settle();
    }
    let writers = [
        Writer::stream("stream", rig.sender()),
        Writer::keyed("keyed", rig.sender()),
    ];
    for _ in 0..cuts {
        let drive = if settled {
            prepare(&mut rig, &mut rng, seen)
        } else {
            None
        };
        if rng.chance(20) {
            writers[1].interrupt();
        }
        let trap = draw(&mut rng, settled, drive);
        let sprung = rig.cut(&trap, &mut losses, &mut seen.tally);
        match trap.victims.len() {
            1 => seen.one += 1,
            2 => seen.two += 1,
            _ => seen.all += 1,
        }
        seen.unsynced += u64::from(sprung.unsynced);
        seen.early += u64::from(!settled);
        match sprung.kind {
            Some(kind) => {
                seen.struck[kind as usize] += 1;
                seen.mid_batch += u64::from(kind.is_mid_batch());
            }
            None => seen.struck_nothing += 1,
        }
        settled = rng.chance(70);
        if settled {
            rig.settle();
            rig.check(&writers, false);
        }
    }
    rig.settle();
    rig.check(&writers, true);
    seen.acknowledged += writers.iter().map(Writer::acknowledged).sum::<u64>();
    writers.into_iter().for_each(Writer::end);
    rig.finish();
}

/// Sometimes something else happens before a cut: what was written before a kill, or before a sync that failed, counts for nothing
/// until it was synced again. Gives the server to which it happened, which is the one to cut then.
fn prepare(rig: &mut Rig, rng: &mut Rng, seen: &mut Seen) -> Option<usize> {
    // Something to lose.
    std::thread::sleep(Duration::from_millis(rng.below(60)));
    let drive = rng.below(3) as usize;
    match rng.below(10) {
        0..=1 => {
            let kind = rng.pick(&[None, Some(Kind::LogWrite), Some(Kind::LogSync)]).copied();
            rig.kill(drive, kind.flatten(), rng.below(8));
            seen.killed += 1;
            Some(drive)
        }
        2..=3 => {
            rig.fail(drive, Fault::Syncs);
            seen.failed_syncs += 1;
            Some(drive)
        }
        _ => None,
    }
}

/// The next power cut: of that server, if one is named.
fn draw(rng: &mut Rng, settled: bool, drive: Option<usize>) -> Trap {
    let drive = drive.unwrap_or(rng.below(3) as usize);
    let mut victims = vec![drive];
    match rng.below(20) {
        0..=10 => {}
        11..=12 => victims.push((drive + 1) % 3),
        _ => victims = (0..IDS.len()).collect(),
    }
    let kind = if rng.chance(30) {
        None
    } else {
        rng.pick(&Kind::ALL).copied()
    };
    let after = match kind {
        None => rng.below(if settled { 40 } else { 200 }),
        Some(Kind::Name | Kind::NameSync) => rng.below(3),
        Some(_) => rng.below(8),
    };
    Trap {
        drive,
        kind,
        after,
        part: rng.below(1001),
        victims,
    }
}
