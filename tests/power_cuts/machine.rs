//! The disks of a cluster and the power that they share: a power cut stops all that it takes at the same instant, at a moment that the
//! test chose before by the changes that reach a disk, also in the middle of one of them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fuser::Errno;
use syncnet::rng::Rng;

use super::disk::{Disk, Tally};

/// The disks, by number.
pub struct Machine {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    drives: Vec<Drive>,
    trap: Option<Trap>,
    sprung: Option<Sprung>,
}

struct Drive {
    disk: Disk,
    power: Power,
    fault: Fault,
    /// How often the power was cut: what has waited since before a cut doesn't happen any more.
    cuts: u64,
    /// The file at which something failed last.
    failed: Option<u64>,
    /// Writes and syncs of that file that were tried again.
    tried_again: u64,
}

/// Whether a disk answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// Whatever is asked waits.
    Held,
    /// Whatever is asked fails.
    Off,
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// Syncs of files fail, and what they should have written is taken for written.
    Syncs,
    /// Writes fail.
    Writes,
}

/// What a disk is asked to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A write to a segment of the log.
    LogWrite,
    /// A sync of a segment of the log that has something to sync.
    LogSync,
    /// Another write, or a change of a size.
    Write,
    /// Another sync.
    Sync,
    /// A name.
    Name,
    /// A sync of names.
    NameSync,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Kind::LogWrite,
        Kind::LogSync,
        Kind::Write,
        Kind::Sync,
        Kind::Name,
        Kind::NameSync,
    ];

    /// Whether acknowledgements depend on it: a batch of the log is written, and not synced.
    pub fn is_mid_batch(self) -> bool {
        matches!(self, Kind::LogWrite | Kind::LogSync)
    }
}

/// When the power goes.
#[derive(Clone, Debug)]
pub struct Trap {
    /// Whose changes are counted.
    pub drive: usize,
    /// Which; all if none.
    pub kind: Option<Kind>,
    /// So many still happen.
    pub after: u64,
    /// Bytes of the write that it strikes which still reach the cache, in thousandths.
    pub part: u64,
    /// Who loses power.
    pub victims: Vec<usize>,
}

/// What a power cut has struck.
#[derive(Clone, Copy, Debug)]
pub struct Sprung {
    /// None: the machines did nothing at that moment.
    pub kind: Option<Kind>,
    /// Whether any of those without power had something that wasn't synced.
    pub unsynced: bool,
}

/// A change that a disk is asked for, and what it changes.
pub enum Change<'c> {
    Write(u64, u64, &'c [u8]),
    Size(u64),
    Sync(u64),
    Name,
    NameSync,
}

impl Machine {
    /// So many empty disks.
    pub fn new(disks: usize) -> Machine {
        let drive = |_| Drive {
            disk: Disk::new(),
            power: Power::On,
            fault: Fault::Nothing,
            cuts: 0,
            failed: None,
            tried_again: 0,
        };
        Machine {
            state: Mutex::new(State {
                drives: (0..disks).map(drive).collect(),
                trap: None,
                sprung: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, once it answers.
    fn powered(&self, drive: usize) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.lock();
        let cuts = state.drives[drive].cuts;
        loop {
            let now = &state.drives[drive];
            match now.power {
                _ if now.cuts != cuts => return Err(Errno::EIO),
                Power::On => return Ok(state),
                Power::Off => return Err(Errno::EIO),
                Power::Held => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Looks at a disk.
    pub fn look<T>(&self, drive: usize, look: impl FnOnce(&mut Disk) -> Result<T, Errno>) -> Result<T, Errno> {
        look(&mut self.powered(drive)?.drives[drive].disk)
    }

    /// Changes a disk, unless the power goes first, or something is wrong with it.
    pub fn change<T>(
        &self,
        drive: usize,
        change: &Change<'_>,
        act: impl FnOnce(&mut Disk) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut state = self.powered(drive)?;
        let kind = state.drives[drive].disk.kind(change)?;
        if let Some(part) = state.spring(drive, kind) {
            if let Change::Write(ino, offset, bytes) = *change {
                let reached = bytes.len() * part as usize / 1000;
                state.drives[drive].disk.file(ino)?.write(offset, &bytes[..reached]);
            }
            self.changed.notify_all();
            drop(state);
            // Until it is known to be off.
            return self.powered(drive).and(Err(Errno::EIO));
        }
        let now = &mut state.drives[drive];
        if let Change::Write(ino, ..) | Change::Size(ino) | Change::Sync(ino) = *change {
            now.tried_again += u64::from(now.failed == Some(ino));
            let fails = match now.fault {
                Fault::Nothing => false,
                Fault::Writes => !matches!(change, Change::Sync(_)),
                Fault::Syncs => matches!(change, Change::Sync(_)),
            };
            if fails {
                now.failed = Some(ino);
                if now.fault == Fault::Syncs {
                    now.disk.file(ino)?.fail_to_sync();
                }
                return Err(Errno::EIO);
            }
        }
        act(&mut now.disk)
    }

    /// Has the power go at that moment.
    pub fn set(&self, trap: Trap) {
        let mut state = self.lock();
        state.sprung = None;
        state.trap = Some(trap);
    }

    /// Waits until the power has gone; if that doesn't come about by then, it goes now.
    pub fn await_cut(&self, limit: Duration) -> Sprung {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(sprung) = state.sprung.take() {
                return sprung;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero()
                && let Some(trap) = state.trap.take()
            {
                state.hold(&trap.victims, None);
                continue;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whatever those disks are asked waits from now on.
    pub fn hold(&self, drives: &[usize]) {
        self.lock().hold(drives, None);
    }

    /// They answer again, as if nothing had been.
    pub fn release(&self, drives: &[usize]) {
        self.power(drives, Power::On);
    }

    /// What waits fails: their machines are gone.
    pub fn fail(&self, drives: &[usize]) {
        self.power(drives, Power::Off);
    }

    fn power(&self, drives: &[usize], power: Power) {
        let mut state = self.lock();
        for &drive in drives {
            state.drives[drive].power = power;
        }
        self.changed.notify_all();
    }

    /// The power comes back: what wasn't synced was lost, kept or torn.
    pub fn restore(&self, drives: &[usize], rng: &mut Rng, tally: &mut Tally) {
        let mut state = self.lock();
        for &drive in drives {
            let now = &mut state.drives[drive];
            now.disk.power_cut(rng, tally);
            now.power = Power::On;
            now.cuts += 1;
        }
        self.changed.notify_all();
    }

    /// From now on that is wrong with a disk.
    pub fn set_fault(&self, drive: usize, fault: Fault) {
        let now = &mut self.lock().drives[drive];
        (now.fault, now.failed, now.tried_again) = (fault, None, 0);
    }

    /// Whether something has failed since the fault was set, and how often the same file was written or synced after that.
    pub fn failures(&self, drive: usize) -> (bool, u64) {
        let now = &self.lock().drives[drive];
        (now.failed.is_some(), now.tried_again)
    }

    /// Whether a disk has something of that path, whatever its power.
    pub fn has(&self, drive: usize, path: &str) -> bool {
        self.lock().drives[drive].disk.has(path)
    }
}

impl State {
    fn hold(&mut self, victims: &[usize], kind: Option<Kind>) {
        let unsynced = victims.iter().any(|&victim| self.drives[victim].disk.is_unsynced());
        for &victim in victims {
            self.drives[victim].power = Power::Held;
        }
        self.sprung = Some(Sprung { kind, unsynced });
    }

    /// Whether the power goes now: then how much of this change still happens.
    fn spring(&mut self, drive: usize, kind: Kind) -> Option<u64> {
        let trap = self.trap.as_mut()?;
        if trap.drive != drive || trap.kind.is_some_and(|wanted| wanted != kind) {
            return None;
        }
        if trap.after > 0 {
            trap.after -= 1;
            return None;
        }
        let trap = self.trap.take()?;
        self.hold(&trap.victims, Some(kind));
        // The change strikes a disk that doesn't lose power: it happens as usual.
        trap.victims.contains(&drive).then_some(trap.part)
    }
}

impl Disk {
    fn kind(&mut self, change: &Change<'_>) -> Result<Kind, Errno> {
        let ino = match *change {
            Change::Write(ino, ..) | Change::Size(ino) | Change::Sync(ino) => ino,
            Change::Name => return Ok(Kind::Name),
            Change::NameSync => return Ok(Kind::NameSync),
        };
        let file = self.file(ino)?;
        let log = file.name.ends_with(".seg");
        Ok(match change {
            Change::Sync(_) if log && file.is_unsynced() => Kind::LogSync,
            Change::Sync(_) => Kind::Sync,
            Change::Write(..) if log => Kind::LogWrite,
            _ => Kind::Write,
        })
    }
}
