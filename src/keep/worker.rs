//! The thread of the housekeeper: a thin shell around [`Keeper`]. Jobs come over a bounded channel, answers go back over another, and the
//! poll loop is woken. Dropping the sender ends the thread; what it was about is done anew after the next start.

use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::keeper::{Keeper, Step};
use super::{KeepJob, Kept};
use crate::limits::{ANSWERS_MAX, KEEP_JOBS_MAX, KEEP_LOOK};
use crate::log::disk::Disk;
use crate::log::worker::Notify;

/// The thread, and the channels to and from it.
#[derive(Debug)]
pub struct KeepWorker {
    /// To the thread. Full at [`KEEP_JOBS_MAX`]: never wait for it.
    pub jobs: Sender<KeepJob>,
    /// From the thread. It waits when this is full, so empty it every turn.
    pub answers: Receiver<Result<Kept, String>>,
    /// Ends when the sender is dropped.
    pub thread: JoinHandle<()>,
}

/// Starts the thread.
///
/// # Errors
/// When the system has no thread left.
pub fn spawn<D: Disk>(keeper: Keeper<D>, notify: Notify) -> io::Result<KeepWorker> {
    let (jobs, jobs_out) = bounded(KEEP_JOBS_MAX);
    let (answers_in, answers) = bounded(ANSWERS_MAX);
    let keeping = Builder::new().name("log-keep".to_owned());
    let thread = keeping.spawn(move || keep(keeper, &jobs_out, &answers_in, &notify))?;
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

/// Waits for a job, or until the rest is over. What readers and the writer find is not sent over the channel, so it is looked for.
fn wait<D: Disk>(keeper: &Keeper<D>, jobs: &Receiver<KeepJob>, rest: Duration) -> Result<KeepJob, RecvTimeoutError> {
    let mut left = rest;
    loop {
        let slice = left.min(Duration::from_micros(KEEP_LOOK.0));
        match jobs.recv_timeout(slice) {
            Err(RecvTimeoutError::Timeout) if left > slice && !keeper.is_wanted() => left -= slice,
            other => return other,
        }
    }
}

fn keep<D: Disk>(
    mut keeper: Keeper<D>,
    jobs: &Receiver<KeepJob>,
    answers: &Sender<Result<Kept, String>>,
    notify: &Notify,
) {
    let mut rest = Duration::ZERO;
    loop {
        // A job that comes ends the rest at once.
        let next = if rest.is_zero() {
            jobs.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            })
        } else {
            wait(&keeper, jobs, rest)
        };
        match next {
            Ok(job) => keeper.take(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let step = keeper.step();
        let failed = step.is_err();
        rest = match &step {
            Ok(Step::More) => Duration::ZERO,
            Ok(Step::Rest(span)) => Duration::from_micros(span.0),
            Err(_) => Duration::ZERO,
        };
        let said: Vec<Kept> = std::iter::from_fn(|| keeper.answer()).collect();
        let error = step.err().map(|error| Err(error.to_string()));
        for answer in said.into_iter().map(Ok).chain(error) {
            let sent = answers.send(answer).is_ok();
            notify();
            if !sent {
                return;
            }
        }
        if failed {
            return;
        }
    }
}
