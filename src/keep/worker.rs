//! The thread of the housekeeper: a thin shell around [`Keeper`]. Jobs come over a bounded channel, answers go back over another, and the
//! poll loop is woken. Dropping the sender ends the thread; what it was about is done anew after the next start.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel as channel;

use super::keeper::{Keeper, Step};
use super::{KeepJob, Kept};
use crate::limits::{ANSWERS_MAX, DISK_LOOK, KEEP_JOBS_MAX, KEEP_LOOK};
use crate::log::disk::Disk;
use crate::log::worker::Notify;
use crate::machine;
use crate::mailbox::{self, RecvTimeoutError, TryRecvError};

/// The thread, and the channels to and from it.
#[derive(Debug)]
pub struct KeepWorker {
    /// To the thread. Full at [`KEEP_JOBS_MAX`]: never wait for it.
    pub jobs: mailbox::Sender<KeepJob>,
    /// From the thread. It waits when this is full, so empty it every turn.
    pub answers: channel::Receiver<Result<Kept, String>>,
    /// Ends when the sender is dropped.
    pub thread: JoinHandle<()>,
}

/// Starts the thread.
///
/// # Errors
/// When the system has no thread left.
pub fn spawn<D: Disk>(keeper: Keeper<D>, notify: Notify) -> io::Result<KeepWorker> {
    let (jobs, jobs_out) = mailbox::bounded(KEEP_JOBS_MAX);
    let (answers_in, answers) = channel::bounded(ANSWERS_MAX);
    let keeping = Builder::new().name("log-keep".to_owned());
    let thread = keeping.spawn(move || {
        machine::stand_back();
        let worker = Worker {
            keeper,
            answers: answers_in,
            notify,
            looked: None,
        };
        worker.run(&jobs_out);
    })?;
    Ok(KeepWorker { jobs, answers, thread })
}

impl KeepWorker {
    /// Ends the thread, after the step that it is at.
    pub fn stop(self) {
        let KeepWorker { jobs, answers, thread } = self;
        drop((jobs, answers));
        // A thread that panicked has said so itself.
        let _ = thread.join();
    }
}

/// The thread's side.
struct Worker<D: Disk> {
    keeper: Keeper<D>,
    answers: channel::Sender<Result<Kept, String>>,
    notify: Notify,
    /// When the free space was last looked at.
    looked: Option<Instant>,
}

impl<D: Disk> Worker<D> {
    fn run(mut self, jobs: &mailbox::Receiver<KeepJob>) {
        let mut rest = Duration::ZERO;
        loop {
            // A job that comes ends the rest at once.
            let next = if rest.is_zero() {
                jobs.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            } else {
                self.wait(jobs, rest)
            };
            match next {
                Ok(job) => self.keeper.take(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let step = self.keeper.step();
            let failed = step.is_err();
            rest = match &step {
                Ok(Step::Rest(span)) => Duration::from_micros(span.0),
                Ok(Step::More) | Err(_) => Duration::ZERO,
            };
            let told = self.tell() && step.map_or_else(|error| self.send(Err(error.to_string())), |_| true);
            if failed || !told {
                return;
            }
            self.look_at_space();
        }
    }

    /// Waits for a job, or until the rest is over. What readers and the writer find is not sent over the channel, so it is looked for.
    fn wait(&mut self, jobs: &mailbox::Receiver<KeepJob>, rest: Duration) -> Result<KeepJob, RecvTimeoutError> {
        let mut left = rest;
        loop {
            let slice = left.min(Duration::from_micros(KEEP_LOOK.0));
            match jobs.recv_timeout(slice) {
                Err(RecvTimeoutError::Timeout) if left > slice && !self.keeper.is_wanted() => left -= slice,
                other => return other,
            }
            self.look_at_space();
        }
    }

    /// From time to time. A system that can't say is asked again; a disk that fails is found by those who write to it.
    fn look_at_space(&mut self) {
        let due = |at: Instant| at.elapsed() >= Duration::from_micros(DISK_LOOK.0);
        if self.looked.is_none_or(due) {
            self.looked = Some(Instant::now());
            if self.keeper.look_at_space().is_ok() {
                self.tell();
            }
        }
    }

    /// Passes on what the keeper says. False if nobody listens.
    fn tell(&mut self) -> bool {
        while let Some(kept) = self.keeper.answer() {
            if !self.send(Ok(kept)) {
                return false;
            }
        }
        true
    }

    fn send(&self, answer: Result<Kept, String>) -> bool {
        let sent = self.answers.send(answer).is_ok();
        (self.notify)();
        sent
    }
}
