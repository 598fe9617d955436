//! The housekeeper: takes jobs, and does a little of them at a time, so that one who waits for a piece of a checkpoint doesn't wait until
//! another checkpoint is made, and so that the simulator can let other things happen in between.

use std::collections::VecDeque;
use std::io;

use super::making::Making;
use super::scrubbing::Scrubbing;
use super::{Holdings, KeepJob, Kept};
use crate::limits;
use crate::log::blocks::FileError;
use crate::log::checkpoint::{Checkpoints, Info, file_name};
use crate::log::disk::{Disk, is_full};
use crate::log::index::{Sealed, SharedIndex};
use crate::log::reader::Reader;
use crate::log::sealed::renew;
use crate::types::{DirectoryId, Level, Span};

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// There is more to do at once.
    More,
    /// Nothing for so long, unless a job comes.
    Rest(Span),
}

/// The housekeeper of one log.
#[derive(Debug)]
pub struct Keeper<D: Disk> {
    pub(super) disk: D,
    pub(super) directory: DirectoryId,
    pub(super) shared: SharedIndex,
    pub(super) reader: Reader<D>,
    pub(super) checkpoints: Checkpoints<D>,
    jobs: VecDeque<KeepJob>,
    making: Option<Making>,
    pub(super) scrubbing: Scrubbing<D>,
    /// The index file of a segment couldn't be made: not to be tried again at once.
    pub(super) index_failed: bool,
    /// It rests because of that.
    gave_up: bool,
    answers: VecDeque<Kept>,
    /// What was last said to be kept.
    told: Option<Holdings>,
    /// The free space that was last told.
    free: Option<u64>,
}

impl<D: Disk> Keeper<D> {
    /// Of this log. `reader` is its own: it has the same index, and no rooms.
    pub fn new(
        disk: D,
        directory: DirectoryId,
        shared: SharedIndex,
        reader: Reader<D>,
        checkpoints: Checkpoints<D>,
    ) -> Keeper<D> {
        Keeper {
            scrubbing: Scrubbing::new(),
            disk,
            directory,
            shared,
            reader,
            checkpoints,
            jobs: VecDeque::new(),
            making: None,
            index_failed: false,
            gave_up: false,
            answers: VecDeque::new(),
            told: None,
            free: None,
        }
    }

    /// Takes a job.
    pub fn take(&mut self, job: KeepJob) {
        self.jobs.push_back(job);
    }

    /// What there is to say.
    pub fn answer(&mut self) -> Option<Kept> {
        self.answers.pop_front()
    }

    /// Looks how much space there is, and says so if that has changed.
    ///
    /// # Errors
    /// What the disk says.
    pub fn look_at_space(&mut self) -> io::Result<()> {
        let free = self.disk.free()?;
        if self.free != Some(free) {
            self.free = Some(free);
            self.say(Kept::Space { free });
        }
        Ok(())
    }

    /// Does a little: a job that somebody waits for, else a step of a checkpoint, else a look at old segments.
    ///
    /// # Errors
    /// What the disk says; nothing must be tried again then.
    pub fn step(&mut self) -> io::Result<Step> {
        self.gave_up = false;
        if self.told.is_none() {
            self.tell_holdings();
        }
        if let Some(job) = self.jobs.pop_front() {
            match self.job(job) {
                // Whoever asked for it asks again when no answer comes.
                Err(error) if is_full(&error) => self.say(Kept::Said {
                    level: Level::Warn,
                    text: error.to_string(),
                }),
                other => other?,
            }
            return Ok(Step::More);
        }
        if self.remove_void()? {
            return Ok(Step::More);
        }
        if let Some(mut making) = self.making.take() {
            if making.step(self)? {
                self.tell_holdings();
            } else {
                self.making = Some(making);
            }
            return Ok(Step::More);
        }
        if std::mem::take(&mut self.index_failed) {
            // The others may have what is missing.
            self.gave_up = true;
            return Ok(Step::Rest(limits::SCRUB_REST_MAX));
        }
        if self.renew_index()? {
            return Ok(Step::More);
        }
        if let Some(sealed) = self.wrong_index() {
            self.making = Some(Making::index(sealed));
            return Ok(Step::More);
        }
        self.scrub().map(Step::Rest)
    }

    /// Whether something has come up that a rest should end for: a reader waits for an index file that it found damaged, or the log has
    /// begun anew.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.gave_up && (self.shared.read().void_before().is_some() || self.wrong_index().is_some())
    }

    fn job(&mut self, job: KeepJob) -> io::Result<()> {
        match job {
            KeepJob::Make { index, digest } => self.making = Some(Making::checkpoint(index, digest)),
            KeepJob::Trim { index } => self.trim(index)?,
            KeepJob::Store { id, offset, bytes } => self.store(id, offset, &bytes)?,
            KeepJob::Begun { index, taken } => self.begun(index, taken)?,
            KeepJob::Read { token, id, offset } => self.hand_out(token, id, offset)?,
        }
        Ok(())
    }

    /// Writes an index file anew that doesn't know yet what was filled since. Whether it did.
    fn renew_index(&mut self) -> io::Result<bool> {
        let Some(sealed) = self.shared.read().stale().first().copied() else {
            return Ok(false);
        };
        match renew(&self.disk, self.directory, &self.shared, sealed) {
            Ok(()) => Ok(true),
            // What there was is still there; it is tried again after a rest.
            Err(FileError::Io { error, .. }) if is_full(&error) => {
                self.index_failed = true;
                Ok(true)
            }
            Err(FileError::Io { file, error }) if error.kind() != io::ErrorKind::NotFound => {
                Err(io::Error::new(error.kind(), format!("{file}: {error}")))
            }
            // It is to be made from the log.
            Err(_) => {
                self.shared.lost_index(sealed.segment);
                Ok(false)
            }
        }
    }

    /// A segment whose index file can't be read.
    fn wrong_index(&self) -> Option<Sealed> {
        let lost = self.shared.indexes_lost();
        let mut known = lost
            .into_iter()
            .filter_map(|segment| self.shared.read().sealed_of(segment));
        known.find(Sealed::has_entries)
    }

    /// A checkpoint of ours can't be read: it is kept for somebody to look at, and the others do without.
    pub(super) fn unreadable(&mut self, info: &Info, error: FileError) -> io::Result<()> {
        if let FileError::Io { file, error } = error {
            return Err(io::Error::new(error.kind(), format!("{file}: {error}")));
        }
        let place = self.checkpoints.set_aside(&file_name(info.id.at.index))?;
        self.say(Kept::Said {
            level: Level::Error,
            text: format!("damaged: {error}; the file is kept as {place}"),
        });
        self.tell_holdings();
        Ok(())
    }

    pub(super) fn say(&mut self, kept: Kept) {
        self.answers.push_back(kept);
    }

    /// Says what is kept, if that has changed.
    pub(super) fn tell_holdings(&mut self) {
        let holdings = self.holdings();
        if self.told.as_ref() != Some(&holdings) {
            self.say(Kept::Holdings(holdings.clone()));
            self.told = Some(holdings);
        }
    }
}
