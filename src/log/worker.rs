//! The threads of the log: thin shells around [`Log`], [`Reader`] and the pre-writing. Questions come over bounded channels,
//! answers go back over one, and the poll loop is woken. Dropping the senders ends the threads in good order.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel as channel;

use super::disk::{Disk, is_full};
use super::prewrite::{Prewriter, Step};
use super::reader::Reader;
use super::reader_queue::ReaderJob;
use super::writer::Log;
use super::{Append, ReadAnswer};
use crate::limits::{
    ANSWERS_MAX, APPEND_PLACES_FOR_VOTES, DISK_FULL_REST, LOG_BATCH_BYTES_MAX, PREWRITE_PAUSE, PREWRITE_RETRY,
    READ_JOBS_MAX, SEAL_AFTER, UNPERSISTED_APPENDS_MAX,
};
use crate::machine;
use crate::mailbox::{self, RecvTimeoutError};
use crate::types::{AppendId, Span};

/// Wakes the loop: called after answers were put into the channel.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// What the threads have to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// All appends up to this one are durable.
    Persisted(AppendId),
    /// The answer to a question.
    Read(ReadAnswer),
    /// There is no space for what is to be written. The writer waits for it; nothing is lost, and nothing more is durable until then.
    Full {
        /// Where, and what the system said.
        what: String,
    },
    /// There is space again, and the writer has gone on.
    FullNoMore,
    /// The disk failed, or what it holds can't be read (the text then begins with `damaged:`). The process must end.
    Failed {
        /// What happened.
        what: String,
    },
}

/// The threads, and the channels to and from them.
#[derive(Debug)]
pub struct Workers {
    /// To the writing thread. Full at [`UNPERSISTED_APPENDS_MAX`] and some places for votes: never wait for it.
    pub appends: mailbox::Sender<Append>,
    /// To the reading thread. Full at [`READ_JOBS_MAX`].
    pub reads: mailbox::Sender<ReaderJob>,
    /// From both. A thread waits when it is full, so empty it every turn.
    pub answers: channel::Receiver<Answer>,
    /// Nothing goes over it. That it is gone ends a writer that waits for space.
    pub quit: channel::Sender<()>,
    /// End when the senders are dropped.
    pub threads: Vec<JoinHandle<()>>,
}

/// Starts the threads.
///
/// # Errors
/// When the system has no thread left.
pub fn spawn<D: Disk>(log: Log<D>, reader: Reader<D>, notify: Notify) -> io::Result<Workers> {
    let (appends, appends_out) = mailbox::bounded(UNPERSISTED_APPENDS_MAX + APPEND_PLACES_FOR_VOTES);
    let (reads, reads_out) = mailbox::bounded(READ_JOBS_MAX);
    let (answers_in, answers) = channel::bounded(ANSWERS_MAX);
    let (quit, quit_out) = channel::bounded(0);
    let prewriter = log.prewriter();
    let to_loop = Answers {
        sender: answers_in,
        notify,
    };
    let for_reader = to_loop.clone();
    let ahead = Builder::new().name("log-ahead".to_owned());
    let writing = Builder::new().name("log-write".to_owned());
    let reading = Builder::new().name("log-read".to_owned());
    let threads = vec![
        reading.spawn(move || read(reader, &reads_out, &for_reader))?,
        writing.spawn(move || {
            let writer = Writer {
                log,
                answers: to_loop,
                quit: quit_out,
                is_full: false,
            };
            writer.run(&appends_out);
        })?,
        ahead.spawn(move || {
            machine::stand_back();
            prewrite(&prewriter);
        })?,
    ];
    Ok(Workers {
        appends,
        reads,
        answers,
        quit,
        threads,
    })
}

impl Workers {
    /// Ends the threads in good order: what was handed over is written, sealed and synced, unless there is no space for it. Gives the
    /// answers that nobody took.
    #[must_use]
    pub fn stop(self) -> Vec<Answer> {
        let Workers {
            appends,
            reads,
            answers,
            quit,
            threads,
        } = self;
        drop((appends, reads, quit));
        // Both senders are gone when both threads are done, so this ends.
        let left = answers.iter().collect();
        for thread in threads {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
        left
    }
}

/// The way back to the loop.
#[derive(Clone)]
struct Answers {
    sender: channel::Sender<Answer>,
    notify: Notify,
}

impl Answers {
    /// False if nobody listens any more.
    fn send(&self, answer: Answer) -> bool {
        let sent = self.sender.send(answer).is_ok();
        (self.notify)();
        sent
    }

    fn failed(&self, error: &io::Error) {
        self.send(Answer::Failed {
            what: error.to_string(),
        });
    }
}

fn duration(span: Span) -> Duration {
    Duration::from_micros(span.0)
}

/// Closes the pre-writing when the writing thread ends, however it does.
struct StopAhead<D: Disk>(Prewriter<D>);

impl<D: Disk> Drop for StopAhead<D> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The writing thread.
struct Writer<D: Disk> {
    log: Log<D>,
    answers: Answers,
    quit: channel::Receiver<()>,
    /// Whether the loop was told that there is no space.
    is_full: bool,
}

/// How a piece of the writer's work ended.
enum Outcome {
    Done,
    /// There was no space up to the moment when the thread was told to end.
    GivenUp,
}

impl<D: Disk> Writer<D> {
    fn run(mut self, appends: &mailbox::Receiver<Append>) {
        let _ahead = StopAhead(self.log.prewriter());
        loop {
            // The wait for a seal holds up nobody: an append that comes ends it at once.
            let next = if self.log.wants_seal() {
                appends.recv_timeout(duration(SEAL_AFTER))
            } else {
                appends.recv().ok_or(RecvTimeoutError::Disconnected)
            };
            let (outcome, over) = match next {
                Ok(first) => (self.batch(&first, appends), false),
                Err(RecvTimeoutError::Timeout) => (self.seal(), false),
                Err(RecvTimeoutError::Disconnected) => (self.log.close().map(|()| Outcome::Done), true),
            };
            if let Err(error) = &outcome {
                self.answers.failed(error);
            }
            if over || !matches!(outcome, Ok(Outcome::Done)) {
                return;
            }
        }
    }

    /// Everything that waits, as one write and one sync.
    fn batch(&mut self, first: &Append, more: &mailbox::Receiver<Append>) -> io::Result<Outcome> {
        let mut append = first.clone();
        loop {
            if let Outcome::GivenUp = self.patiently(|log| log.append(&append))? {
                return Ok(Outcome::GivenUp);
            }
            if self.log.buffered() >= LOG_BATCH_BYTES_MAX {
                break;
            }
            match more.try_recv() {
                Ok(next) => append = next,
                Err(_) => break,
            }
        }
        if let Outcome::GivenUp = self.patiently(Log::flush)? {
            return Ok(Outcome::GivenUp);
        }
        self.sync()?;
        Ok(Outcome::Done)
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(id) = self.log.sync()? {
            self.answers.send(Answer::Persisted(id));
        }
        Ok(())
    }

    /// A seal for which there is no space has time: it is tried again with the next, and recovery does without.
    fn seal(&mut self) -> io::Result<Outcome> {
        match self.log.seal() {
            Err(error) if !is_full(&error) => Err(error),
            _ => Ok(Outcome::Done),
        }
    }

    /// Does something that needs space, and waits until there is some: to the loop the disk then looks like one that hangs. What was
    /// written before is acknowledged meanwhile.
    fn patiently(&mut self, mut act: impl FnMut(&mut Log<D>) -> io::Result<()>) -> io::Result<Outcome> {
        loop {
            match act(&mut self.log) {
                Ok(()) => break,
                Err(error) if is_full(&error) => {
                    if !std::mem::replace(&mut self.is_full, true) {
                        self.answers.send(Answer::Full {
                            what: error.to_string(),
                        });
                        match self.log.flush() {
                            Err(error) if !is_full(&error) => return Err(error),
                            Err(_) => {}
                            Ok(()) => self.sync()?,
                        }
                    }
                }
                Err(error) => return Err(error),
            }
            if self.quit.recv_timeout(duration(DISK_FULL_REST)) == Err(RecvTimeoutError::Disconnected) {
                return Ok(Outcome::GivenUp);
            }
        }
        if std::mem::take(&mut self.is_full) {
            self.answers.send(Answer::FullNoMore);
        }
        Ok(Outcome::Done)
    }
}

fn read<D: Disk>(mut reader: Reader<D>, jobs: &mailbox::Receiver<ReaderJob>, answers: &Answers) {
    while let Some(job) = jobs.recv() {
        let answer = match job {
            ReaderJob::Index(items) => {
                reader.index(&items);
                continue;
            }
            ReaderJob::Seed(rooms) => {
                reader.seed(rooms, &[]);
                continue;
            }
            ReaderJob::Trim(index) => {
                reader.trim(index);
                continue;
            }
            ReaderJob::Read(request) => reader.read(&request),
        };
        match answer {
            Ok(answer) => {
                if !answers.send(Answer::Read(answer)) {
                    return;
                }
            }
            Err(error) => {
                answers.failed(&error);
                return;
            }
        }
    }
}

fn prewrite<D: Disk>(prewriter: &Prewriter<D>) {
    while prewriter.wait() {
        match prewriter.step() {
            Ok(Step::Idle | Step::More { behind: true }) => {}
            Ok(Step::More { behind: false }) => prewriter.rest(duration(PREWRITE_PAUSE)),
            // The disk may be full only for now; the writer says so when it needs the segment. If it fails, the writer fails then, too.
            Err(_) => prewriter.rest(duration(PREWRITE_RETRY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::ReadRequest;
    use crate::log::disk::RealDisk;
    use crate::log::record::{self, Kind, Parsed};
    use crate::log::segment::file_name;
    use crate::log::sim_disk::SimDisk;
    use crate::log::testing::{DIRECTORY, Model, ROOT, read_all, try_open};
    use crate::types::{LogIndex, Lsn};
    use std::sync::atomic::{AtomicU64, Ordering};

    fn start<D: Disk>(disk: &D) -> (Workers, Arc<AtomicU64>) {
        let opened = try_open(disk).unwrap();
        let wakes = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&wakes);
        let notify = Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (spawn(opened.log, opened.reader, notify).unwrap(), wakes)
    }

    fn append(id: u64, model: &mut Model, texts: usize) -> Append {
        Append {
            id: AppendId(id),
            records: (0..texts).map(|_| model.say(format!("text {id}").as_bytes())).collect(),
            commits: Vec::new(),
            sync: true,
        }
    }

    fn entries(from: u64) -> ReaderJob {
        ReaderJob::Read(ReadRequest::Entries {
            token: 5,
            group: ROOT,
            from: LogIndex(from),
            to: LogIndex(from + 1000),
            bytes_max: 10_000,
        })
    }

    #[test]
    fn appends_are_persisted_in_order_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(folder.path());
        let (workers, wakes) = start(&disk);
        let (mut model, mut persisted) = (Model::default(), 0);
        for id in 1..=500 {
            workers.appends.try_send(append(id, &mut model, 3)).unwrap();
        }
        while persisted < 500 {
            match workers.answers.recv().unwrap() {
                Answer::Persisted(id) => {
                    assert!(id.0 > persisted);
                    persisted = id.0;
                }
                other => panic!("{other:?}"),
            }
        }
        workers.reads.try_send(entries(1000)).unwrap();
        match workers.answers.recv().unwrap() {
            Answer::Read(ReadAnswer::Entries { token: 5, entries, .. }) => assert_eq!(entries, model.entries[999..]),
            other => panic!("{other:?}"),
        }
        assert!(workers.stop().is_empty());
        assert!(wakes.load(Ordering::SeqCst) >= 2);
        let mut opened = try_open(&disk).unwrap();
        assert_eq!(read_all(&mut opened.reader), model.entries);
    }

    #[test]
    fn an_orderly_end_writes_seals_and_syncs_what_was_handed_over() {
        let disk = SimDisk::new();
        let (workers, _) = start(&disk);
        let mut model = Model::default();
        for id in 1..=20 {
            workers.appends.try_send(append(id, &mut model, 1)).unwrap();
        }
        let left = workers.stop();
        assert_eq!(left.last(), Some(&Answer::Persisted(AppendId(20))));
        disk.power_cut(&mut crate::rng::Rng::new(1));
        let opened = try_open(&disk).unwrap();
        assert_eq!(opened.groups[0].1, model.recovered(LogIndex(0)));
        assert!(!opened.log.wants_seal());
        assert_eq!(opened.report.cut_bytes, 0);
    }

    #[test]
    fn a_writer_without_work_seals() {
        let disk = SimDisk::new();
        let (workers, _) = start(&disk);
        workers.appends.try_send(append(1, &mut Model::default(), 1)).unwrap();
        assert_eq!(workers.answers.recv().unwrap(), Answer::Persisted(AppendId(1)));
        // Nothing is handed over any more. The seal comes, whenever that is.
        while kinds(&disk)[2..] != [Kind::Entry, Kind::Seal] {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(workers.stop().is_empty());
        assert_eq!(kinds(&disk).len(), 4, "one seal is enough");
    }

    /// The kinds of the records of the first segment.
    fn kinds(disk: &SimDisk) -> Vec<Kind> {
        let bytes = disk.contents(&file_name(Lsn(0))).unwrap();
        let (mut kinds, mut at) = (Vec::new(), 0);
        while let Parsed::Record(header, _, size) = record::parse(&bytes[at..], Lsn(at as u64), DIRECTORY) {
            kinds.push(header.kind);
            at += size;
        }
        kinds
    }

    #[test]
    fn a_disk_that_fails_is_reported_once_and_nothing_is_taken_after() {
        let disk = SimDisk::new();
        let (workers, _) = start(&disk);
        disk.fail_syncs(u32::MAX);
        let mut model = Model::default();
        workers.appends.try_send(append(1, &mut model, 1)).unwrap();
        match workers.answers.recv().unwrap() {
            Answer::Failed { what } => assert!(what.contains("input/output error"), "{what}"),
            other => panic!("{other:?}"),
        }
        // The thread is gone, and says so by its channel.
        let gone = |sent| matches!(sent, Err(mailbox::TrySendError::Disconnected(_)));
        while !gone(workers.appends.try_send(append(2, &mut model, 1))) {
            std::thread::yield_now();
        }
        assert!(workers.stop().is_empty());
    }

    #[test]
    fn a_full_disk_is_waited_for_and_nothing_is_acknowledged_until_there_is_space() {
        let disk = SimDisk::new();
        let (workers, _) = start(&disk);
        let mut model = Model::default();
        let (mut id, mut persisted) = (0, 0);
        let mut hand_over = |model: &mut Model| {
            id += 1;
            workers.appends.try_send(append(id, model, 20)).unwrap();
            id
        };
        // As much as there is, up to the end of a segment.
        disk.set_space(Some(disk.used()));
        let mut last = hand_over(&mut model);
        let what = loop {
            match workers.answers.recv().unwrap() {
                Answer::Persisted(id) => {
                    persisted = id.0;
                    last = hand_over(&mut model);
                }
                Answer::Full { what } => break what,
                other => panic!("{other:?}"),
            }
        };
        assert!(what.contains("no space"), "{what}");
        assert!(persisted > 0 && persisted < last);
        // What is there can be read.
        workers.reads.try_send(entries(1)).unwrap();
        loop {
            match workers.answers.recv().unwrap() {
                Answer::Persisted(id) => assert!(id.0 < last, "what has no place was acknowledged"),
                Answer::Read(ReadAnswer::Entries { entries, .. }) => break assert_eq!(entries[0], model.entries[0]),
                other => panic!("{other:?}"),
            }
        }
        disk.set_space(None);
        assert_eq!(workers.answers.recv().unwrap(), Answer::FullNoMore);
        assert_eq!(workers.answers.recv().unwrap(), Answer::Persisted(AppendId(last)));
        assert!(workers.stop().is_empty());
        let mut opened = try_open(&disk).unwrap();
        assert_eq!(read_all(&mut opened.reader), model.entries);
    }

    #[test]
    fn a_writer_that_waits_for_space_ends_when_it_is_told_to_and_what_was_acknowledged_is_there() {
        let disk = SimDisk::new();
        let (workers, _) = start(&disk);
        let mut model = Model::default();
        disk.set_space(Some(disk.used()));
        let mut id = 0;
        let persisted = loop {
            id += 1;
            workers.appends.try_send(append(id, &mut model, 20)).unwrap();
            match workers.answers.recv().unwrap() {
                Answer::Persisted(_) => {}
                Answer::Full { .. } => break id - 1,
                other => panic!("{other:?}"),
            }
        };
        let left = workers.stop();
        assert!(
            !left.iter().any(|answer| matches!(answer, Answer::Failed { .. })),
            "{left:?}"
        );
        disk.power_cut(&mut crate::rng::Rng::new(1));
        let mut opened = try_open(&disk).unwrap();
        let read = read_all(&mut opened.reader);
        assert!(read.len() as u64 >= persisted * 20);
        assert_eq!(read, model.entries[..read.len()]);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_reported() {
        let disk = SimDisk::new();
        let (workers, _) = start(&disk);
        workers.appends.try_send(append(1, &mut Model::default(), 1)).unwrap();
        assert_eq!(workers.answers.recv().unwrap(), Answer::Persisted(AppendId(1)));
        let name = file_name(Lsn(0));
        let bytes = disk.contents(&name).unwrap();
        let text = bytes.windows(6).position(|part| part == b"text 1").unwrap();
        disk.flip_bit(&name, text as u64, 1);
        workers.reads.try_send(entries(1)).unwrap();
        match workers.answers.recv().unwrap() {
            Answer::Read(ReadAnswer::Damaged { what, .. }) => assert!(what.starts_with("log/"), "{what}"),
            other => panic!("{other:?}"),
        }
        drop(workers.stop());
    }
}
