//! The loop's side of the worker threads of the log: what the node wants written and read is handed over, never waited for, and what
//! the threads answer is taken each turn.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::TrySendError;

use crate::log::worker::{Answer, ReaderJob, Workers};
use crate::log::{Append, ItemRef, ReadRequest};
use crate::types::AppendId;

/// The worker threads, and what doesn't fit into their channels yet. The node bounds what it leaves unpersisted by less than a
/// channel holds; the queues here are for the turn in which that isn't enough, and while they hold anything no client is read.
#[derive(Debug)]
pub struct LogWorkers {
    workers: Workers,
    appends: VecDeque<Append>,
    reads: VecDeque<ReaderJob>,
    /// The last append that somebody waits for.
    wanted: AppendId,
    /// The last that is durable.
    durable: AppendId,
    /// Whether a thread was found gone.
    lost: bool,
}

impl LogWorkers {
    /// With these threads.
    #[must_use]
    pub fn new(workers: Workers) -> LogWorkers {
        LogWorkers {
            workers,
            appends: VecDeque::new(),
            reads: VecDeque::new(),
            wanted: AppendId(0),
            durable: AppendId(0),
            lost: false,
        }
    }

    /// To be written.
    pub fn append(&mut self, append: Append) {
        if append.sync {
            self.wanted = append.id;
        }
        self.appends.push_back(append);
    }

    /// To be remembered before the next question is answered.
    pub fn index(&mut self, mut items: Vec<ItemRef>) {
        match self.reads.back_mut() {
            Some(ReaderJob::Index(before)) => before.append(&mut items),
            _ => self.reads.push_back(ReaderJob::Index(items)),
        }
    }

    /// To be answered.
    pub fn read(&mut self, request: ReadRequest) {
        self.reads.push_back(ReaderJob::Read(request));
    }

    /// Hands over what fits.
    pub fn push(&mut self) {
        self.lost |= hand_over(&mut self.appends, |append| self.workers.appends.try_send(append));
        self.lost |= hand_over(&mut self.reads, |job| self.workers.reads.try_send(job));
    }

    /// Whether more was wanted than the threads have room for.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.appends.is_empty() || !self.reads.is_empty()
    }

    /// Whether everything that somebody waits for is durable.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.appends.is_empty() && self.durable >= self.wanted
    }

    /// The next answer. A thread that is gone without a word has failed too.
    pub fn answer(&mut self) -> Option<Answer> {
        match self.workers.answers.try_recv() {
            Ok(answer) => {
                if let Answer::Persisted(id) = answer {
                    self.durable = id;
                }
                Some(answer)
            }
            Err(_) if self.lost => Some(Answer::Failed {
                what: "a thread of the log has ended".to_owned(),
            }),
            Err(_) => None,
        }
    }

    /// Ends the threads in good order, but waits no longer than `limit`: a disk that hangs must not keep a process that was told to
    /// stop. Gives what failed, if anything did.
    #[must_use]
    pub fn stop(self, limit: Duration) -> Option<String> {
        let (done, wait) = mpsc::channel();
        let workers = self.workers;
        let waiting = thread::Builder::new().name("log-stop".to_owned()).spawn(move || {
            let _ = done.send(workers.stop());
        });
        waiting.ok()?;
        match wait.recv_timeout(limit) {
            Ok(answers) => answers.into_iter().find_map(|answer| match answer {
                Answer::Failed { what } => Some(what),
                Answer::Persisted(_) | Answer::Read(_) => None,
            }),
            Err(_) => {
                log::warn!("the disk is still busy; what it holds already is safe");
                None
            }
        }
    }
}

/// Sends from the front as long as there is room. True if nobody is there any more.
fn hand_over<T>(queue: &mut VecDeque<T>, mut send: impl FnMut(T) -> Result<(), TrySendError<T>>) -> bool {
    while let Some(item) = queue.pop_front() {
        match send(item) {
            Ok(()) => {}
            Err(TrySendError::Full(item)) => {
                queue.push_front(item);
                return false;
            }
            Err(TrySendError::Disconnected(item)) => {
                queue.push_front(item);
                return true;
            }
        }
    }
    false
}
