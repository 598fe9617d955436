//! Makes the next segment before it is needed, in small steps, so that a sync of the writer never waits long behind one, and
//! so that no sync has to touch metadata. Under a temporary name until it is complete. A thread drives the steps, or
//! whoever likes; what isn't done when the segment is needed, the writer does itself.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile, is_full, of_sync};
use super::segment::{FOLDER, Segment, temporary_name};
use crate::limits::{DISK_KEPT_FREE_BYTES, PREWRITE_STEP_BYTES, PREWRITE_SYNC_BYTES};

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// There is nothing to do until the writer moves on.
    Idle,
    /// There is more to do; `behind` says that the current segment fills faster than the next one is made.
    More {
        /// Don't rest before the next step.
        behind: bool,
    },
}

/// The next segment in the making. A clone is the same.
#[derive(Debug)]
pub struct Prewriter<D: Disk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for Prewriter<D> {
    fn clone(&self) -> Self {
        Prewriter {
            shared: Arc::clone(&self.shared),
        }
    }
}

#[derive(Debug)]
struct Shared<D: Disk> {
    disk: D,
    state: Mutex<State<D::File>>,
    wake: Condvar,
    /// Bytes of the current segment that are in use.
    used: AtomicU64,
}

#[derive(Debug)]
struct State<F> {
    wanted: Option<Segment>,
    /// The file, and how much of it is written.
    making: Option<(F, u64)>,
    /// Complete, under its name.
    ready: Option<F>,
    stopped: bool,
}

impl<D: Disk> Prewriter<D> {
    /// Nothing is wanted yet.
    pub(super) fn new(disk: D) -> Prewriter<D> {
        let state = State {
            wanted: None,
            making: None,
            ready: None,
            stopped: false,
        };
        Prewriter {
            shared: Arc::new(Shared {
                disk,
                state: Mutex::new(state),
                wake: Condvar::new(),
                used: AtomicU64::new(0),
            }),
        }
    }

    /// This segment will be needed next.
    pub(super) fn want(&self, segment: Segment) {
        self.lock().wanted = Some(segment);
        self.shared.wake.notify_all();
    }

    /// So much of the current segment is in use.
    pub(super) fn used(&self, bytes: u64) {
        self.shared.used.store(bytes, Ordering::Relaxed);
    }

    /// Completes the segment that is wanted, here and now, as far as it isn't.
    ///
    /// # Errors
    /// What the system says. If there is no space ([`is_full`]), nothing is left of it, and it may be tried again.
    ///
    /// # Panics
    /// If none is wanted: the writer wants the next when it takes one.
    pub(super) fn complete(&self) -> io::Result<()> {
        let mut state = self.lock();
        let segment = state.wanted.expect("the writer wants a segment before it takes it");
        while state.ready.is_none() {
            self.advance(&mut state, segment.size)?;
        }
        Ok(())
    }

    /// The segment that was wanted, complete.
    ///
    /// # Errors
    /// As [`complete`](Prewriter::complete).
    ///
    /// # Panics
    /// As [`complete`](Prewriter::complete).
    pub(super) fn take(&self) -> io::Result<(Segment, D::File)> {
        loop {
            self.complete()?;
            let mut state = self.lock();
            if let (Some(segment), Some(file)) = (state.wanted, state.ready.take()) {
                state.wanted = None;
                return Ok((segment, file));
            }
        }
    }

    /// Does a little.
    ///
    /// # Errors
    /// What the system says. The next step begins anew, under the temporary name.
    pub fn step(&self) -> io::Result<Step> {
        let mut state = self.lock();
        self.advance(&mut state, PREWRITE_STEP_BYTES as u64)
    }

    /// Waits until there is something to do; false if the log was closed.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return false;
            }
            if state.wanted.is_some() && state.ready.is_none() {
                return true;
            }
            state = self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Rests for so long, or until the log is closed.
    pub(super) fn rest(&self, time: std::time::Duration) {
        let state = self.lock();
        let rested = self.shared.wake.wait_timeout_while(state, time, |state| !state.stopped);
        drop(rested);
    }

    /// The log is closed: the thread that waits goes home.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.shared.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<D::File>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, state: &mut State<D::File>, bytes: u64) -> io::Result<Step> {
        let (Some(segment), None) = (state.wanted, &state.ready) else {
            return Ok(Step::Idle);
        };
        let disk = &self.shared.disk;
        let temporary = temporary_name(segment.base);
        let (file, done) = match state.making.take() {
            Some(making) => making,
            None => {
                // Left over from a step that failed.
                match disk.remove(&temporary) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                // What is too little would be filled and given back each time, and nobody else could write anything meanwhile.
                if disk.free()? < segment.size + DISK_KEPT_FREE_BYTES {
                    let text = "no space left for another segment";
                    return Err(io::Error::new(io::ErrorKind::StorageFull, text));
                }
                (disk.create(&temporary)?, 0)
            }
        };
        // What follows may fail: the file is dropped then, and made anew.
        let end = (done + bytes).min(segment.size);
        if let Err(error) = file.prewrite(done, end) {
            if is_full(&error) {
                // Others need what there is.
                disk.remove(&temporary)?;
            }
            return Err(error);
        }
        if end == segment.size || end.is_multiple_of(PREWRITE_SYNC_BYTES as u64) {
            file.sync_data().map_err(of_sync)?;
        }
        if end < segment.size {
            state.making = Some((file, end));
            let used = self.shared.used.load(Ordering::Relaxed);
            return Ok(Step::More { behind: end < used });
        }
        disk.rename(&temporary, &segment.file())?;
        disk.sync_dir(FOLDER).map_err(of_sync)?;
        state.ready = Some(file);
        Ok(Step::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::sim_disk::SimDisk;
    use crate::rng::Rng;
    use crate::types::Lsn;

    const SEGMENT: Segment = Segment {
        base: Lsn(1 << 20),
        size: 3 * PREWRITE_STEP_BYTES as u64 - 4096,
    };

    fn prewriter() -> (SimDisk, Prewriter<SimDisk>) {
        let disk = SimDisk::new();
        disk.create_folder(FOLDER).unwrap();
        let prewriter = Prewriter::new(disk.clone());
        prewriter.want(SEGMENT);
        (disk, prewriter)
    }

    #[test]
    fn a_segment_has_its_name_only_when_all_of_it_is_durable() {
        let (disk, prewriter) = prewriter();
        for _ in 0..2 {
            assert_eq!(prewriter.step().unwrap(), Step::More { behind: false });
            assert!(disk.open(&SEGMENT.file()).is_err());
        }
        assert_eq!(prewriter.step().unwrap(), Step::Idle);
        disk.power_cut(&mut Rng::new(1));
        assert_eq!(disk.open(&SEGMENT.file()).unwrap().size().unwrap(), SEGMENT.size);
        assert_eq!(disk.list(FOLDER).unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_done_when_the_segment_is_needed_is_done_then() {
        for steps in 0..4 {
            let (disk, prewriter) = prewriter();
            for _ in 0..steps {
                prewriter.step().unwrap();
            }
            let (segment, file) = prewriter.take().unwrap();
            assert_eq!(segment, SEGMENT);
            assert_eq!(file.size().unwrap(), SEGMENT.size);
            assert_eq!(prewriter.step().unwrap(), Step::Idle);
            assert_eq!(disk.list(FOLDER).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_step_that_failed_is_begun_anew() {
        let (disk, prewriter) = prewriter();
        prewriter.step().unwrap();
        prewriter.step().unwrap();
        disk.fail_syncs(1);
        assert!(prewriter.step().is_err());
        disk.set_space(Some(PREWRITE_STEP_BYTES as u64));
        assert!(is_full(&prewriter.take().unwrap_err()));
        // Nothing is kept of it that others could use, before the first byte or when others take the space meanwhile.
        assert_eq!(disk.used(), 0);
        disk.set_space(Some(SEGMENT.size + DISK_KEPT_FREE_BYTES));
        prewriter.step().unwrap();
        disk.set_space(Some(PREWRITE_STEP_BYTES as u64));
        assert!(is_full(&prewriter.take().unwrap_err()));
        assert_eq!(disk.used(), 0);
        disk.set_space(None);
        prewriter.take().unwrap();
        disk.power_cut(&mut Rng::new(1));
        assert_eq!(disk.list(FOLDER).unwrap().len(), 1);
    }

    #[test]
    fn a_segment_that_fills_fast_leaves_no_time_to_rest() {
        let (_, prewriter) = prewriter();
        prewriter.used(PREWRITE_STEP_BYTES as u64 + 1);
        assert_eq!(prewriter.step().unwrap(), Step::More { behind: true });
        assert_eq!(prewriter.step().unwrap(), Step::More { behind: false });
    }
}
