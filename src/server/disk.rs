//! The loop's side of the worker threads of the log: what the node wants written and read is handed over, never waited for, and what
//! the threads answer is taken each turn.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::keep::worker::KeepWorker;
use crate::keep::{KeepJob, Kept};
use crate::log::reader_queue::{ReaderJob, ReaderQueue};
use crate::log::worker::{Answer, Workers};
use crate::log::{Append, ItemRef, ReadAnswer, ReadRequest};
use crate::mailbox::TrySendError;
use crate::types::{AppendId, LogIndex, Position, RoomId, Seq};

/// What one of the threads has to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// All appends up to this one are durable.
    Persisted(AppendId),
    /// The answer to a question.
    Read(ReadAnswer),
    /// From the housekeeper.
    Kept(Kept),
    /// The disk failed. The process must end.
    Failed {
        /// What happened.
        what: String,
    },
}

/// The worker threads, and what doesn't fit into their channels yet. The node bounds what it leaves unpersisted by less than a
/// channel holds; the queues here are for the turn in which that isn't enough, and while they hold anything no client is read.
#[derive(Debug)]
pub struct LogWorkers {
    workers: Workers,
    keeper: KeepWorker,
    appends: VecDeque<Append>,
    reads: ReaderQueue,
    jobs: VecDeque<KeepJob>,
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
    pub fn new(workers: Workers, keeper: KeepWorker) -> LogWorkers {
        LogWorkers {
            workers,
            keeper,
            appends: VecDeque::new(),
            reads: ReaderQueue::default(),
            jobs: VecDeque::new(),
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
    pub fn index(&mut self, items: Vec<ItemRef>) {
        self.reads.push(ReaderJob::Index(items));
    }

    /// The rooms begin anew.
    pub fn seed(&mut self, rooms: Vec<(RoomId, Position, Seq)>) {
        self.reads.push(ReaderJob::Seed(rooms));
    }

    /// What stands in entries up to this one isn't shown any more.
    pub fn trim(&mut self, index: LogIndex) {
        self.reads.push(ReaderJob::Trim(index));
    }

    /// For the housekeeper.
    pub fn keep(&mut self, job: KeepJob) {
        self.jobs.push_back(job);
    }

    /// To be answered.
    pub fn read(&mut self, request: ReadRequest) {
        self.reads.push(ReaderJob::Read(request));
    }

    /// Hands over what fits.
    pub fn push(&mut self) {
        let (workers, keeper) = (&self.workers, &self.keeper);
        if let Err(left) = hand_over(|| self.appends.pop_front(), |append| workers.appends.try_send(append)) {
            self.lost |= left.is_disconnected();
            self.appends.push_front(left.into_inner());
        }
        if let Err(left) = hand_over(|| self.reads.pop(), |job| workers.reads.try_send(job)) {
            self.lost |= left.is_disconnected();
            self.reads.put_back(left.into_inner());
        }
        if let Err(left) = hand_over(|| self.jobs.pop_front(), |job| keeper.jobs.try_send(job)) {
            self.lost |= left.is_disconnected();
            self.jobs.push_front(left.into_inner());
        }
    }

    /// Whether more was wanted than the threads have room for.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.appends.is_empty() || self.reads.is_due()
    }

    /// Whether everything that somebody waits for is durable.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.appends.is_empty() && self.durable >= self.wanted
    }

    /// The next answer. A thread that is gone without a word has failed too.
    pub fn answer(&mut self) -> Option<Told> {
        loop {
            return Some(match self.workers.answers.try_recv() {
                Ok(Answer::Full { what }) => {
                    log::error!(
                        "{what}: nothing new is acknowledged here until there is space; what there is can be read"
                    );
                    continue;
                }
                Ok(Answer::FullNoMore) => {
                    log::info!("the disk has space again: writing goes on");
                    continue;
                }
                Ok(Answer::Persisted(id)) => {
                    self.durable = id;
                    Told::Persisted(id)
                }
                Ok(Answer::Read(answer)) => Told::Read(answer),
                Ok(Answer::Failed { what }) => Told::Failed { what },
                Err(_) => match self.keeper.answers.try_recv() {
                    Ok(Ok(kept)) => Told::Kept(kept),
                    Ok(Err(what)) => Told::Failed { what },
                    Err(_) if self.lost => Told::Failed {
                        what: "a thread of the log has ended".to_owned(),
                    },
                    Err(_) => return None,
                },
            });
        }
    }

    /// Ends the threads in good order, but waits no longer than `limit`: a disk that hangs must not keep a process that was told to
    /// stop. Gives what failed, if anything did.
    #[must_use]
    pub fn stop(self, limit: Duration) -> Option<String> {
        let (done, wait) = mpsc::channel();
        let (workers, keeper) = (self.workers, self.keeper);
        let waiting = thread::Builder::new().name("log-stop".to_owned()).spawn(move || {
            keeper.stop();
            let _ = done.send(workers.stop());
        });
        waiting.ok()?;
        match wait.recv_timeout(limit) {
            Ok(answers) => answers.into_iter().find_map(|answer| match answer {
                Answer::Failed { what } => Some(what),
                Answer::Persisted(_) | Answer::Read(_) | Answer::Full { .. } | Answer::FullNoMore => None,
            }),
            Err(_) => {
                log::warn!("the disk is still busy; what it holds already is safe");
                None
            }
        }
    }
}

/// Sends one after the other as long as there is room. Gives back the first for which there was none.
fn hand_over<T>(
    mut next: impl FnMut() -> Option<T>,
    send: impl Fn(T) -> Result<(), TrySendError<T>>,
) -> Result<(), TrySendError<T>> {
    while let Some(item) = next() {
        send(item)?;
    }
    Ok(())
}
