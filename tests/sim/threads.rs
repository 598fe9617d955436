//! The threads of a server's log, as moments at which they get on: the writer takes what waits, writes it, syncs it; the reader does one
//! job after the other. What they do is what the real threads do; how long it takes is drawn.

use syncnet::cluster::message::Record;
use syncnet::keep::keeper::Step;
use syncnet::keep::{KeepJob, Kept};
use syncnet::limits;
use syncnet::log::Append;
use syncnet::log::disk::is_full;
use syncnet::log::reader_queue::ReaderJob;
use syncnet::node::Input;
use syncnet::types::{Span, Tick};

use super::plan::server_id;
use super::sabotage::{altered, misled};
use super::server::Arrival;
use super::world::{Happening, World};

/// What the log writer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskStep {
    /// Write what was taken.
    Write,
    /// Sync it.
    Sync,
    /// Nothing was written for a while: seal.
    Seal(u64),
    /// Make the next segment.
    Prewrite,
}

/// What an append weighs.
fn append_bytes(append: &Append) -> usize {
    let record_bytes = |record: &Record| match record {
        Record::Entry { entry, .. } | Record::Fill { entry, .. } => entry.payload.len() + limits::RECORD_HEADER_BYTES,
        Record::State { .. } | Record::Base { .. } => limits::RECORD_HEADER_BYTES,
    };
    append.records.iter().map(record_bytes).sum::<usize>() + limits::RECORD_HEADER_BYTES
}

impl World {
    /// The node wants something written.
    pub fn write(&mut self, at: usize, append: Append) {
        let server = &mut self.servers[at];
        if server.process.is_none() {
            return;
        }
        server.held.wants(&append);
        self.takes_office(at, &append);
        if self.servers[at].process.is_none() {
            return;
        }
        let fills = append
            .records
            .iter()
            .filter(|record| matches!(record, Record::Fill { .. }));
        self.counts.add("repairs", fills.count() as u64);
        self.quorums.writes(at, &append);
        self.watch_admission(at, &append);
        let Some(process) = &mut self.servers[at].process else {
            return;
        };
        process.appends.push_back(append);
        let waiting = process.appends.len();
        let bytes: usize = process.appends.iter().map(append_bytes).sum();
        self.counts.highest("most appends waiting", waiting as u64);
        if bytes > limits::INFLIGHT_BYTES_MAX + limits::UNCOMMITTED_BYTES_MAX + limits::APPEND_BYTES_MAX {
            self.fail(format!("{} has appends of {bytes} bytes waiting", server_id(at)));
        }
        self.begin_write(at);
    }

    fn disk_delay(&mut self, at: usize, delay: Span) -> Span {
        let server = &self.servers[at];
        let hangs = server.disk_hangs_until.since(self.now);
        Span(delay.0 * server.disk_factor + hangs.0)
    }

    fn begin_write(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let Some(process) = &mut server.process else { return };
        if process.writing || process.appends.is_empty() {
            return;
        }
        process.writing = true;
        let delay = self.plan.write.draw(&mut server.rng);
        let life = server.life;
        let delay = self.disk_delay(at, delay);
        let step = DiskStep::Write;
        self.later(delay, Happening::Disk { server: at, life, step });
    }

    pub fn disk_step(&mut self, at: usize, life: u64, step: DiskStep) {
        let server = &mut self.servers[at];
        if server.life != life {
            return;
        }
        let Some(process) = &mut server.process else { return };
        let (mut next, mut synced) = (None, None);
        let mut waits = false;
        let outcome = match step {
            DiskStep::Write => {
                // All that waits, as one write and one sync.
                let mut outcome = Ok(());
                while outcome.is_ok()
                    && process.log.buffered() < limits::LOG_BATCH_BYTES_MAX
                    && let Some(append) = process.appends.pop_front()
                {
                    outcome = process.log.append(&append);
                    if outcome.as_ref().is_err_and(is_full) {
                        process.appends.push_front(append);
                    }
                }
                let delay = self.plan.sync.draw(&mut server.rng);
                next = Some((delay, DiskStep::Sync));
                match outcome.and_then(|()| process.log.flush()) {
                    Err(error) if is_full(&error) => {
                        self.counts.one("writes that waited for space");
                        waits = true;
                        next = Some((limits::DISK_FULL_REST, DiskStep::Write));
                        // What came before can be acknowledged.
                        process.log.flush().and_then(|()| process.log.sync()).map_or_else(
                            |error| if is_full(&error) { Ok(()) } else { Err(error) },
                            |persisted| {
                                synced = persisted;
                                if let Some(id) = persisted.filter(|&id| id > process.persisted) {
                                    process.persisted = id;
                                    self.quorums.synced(at, id);
                                    server.inbox.push_back(Arrival::Input(Input::Persisted(id)));
                                }
                                Ok(())
                            },
                        )
                    }
                    other => other,
                }
            }
            DiskStep::Sync => process.log.sync().map(|persisted| {
                process.writing = false;
                process.writes += 1;
                next = Some((limits::SEAL_AFTER, DiskStep::Seal(process.writes)));
                synced = persisted;
                if let Some(id) = persisted.filter(|&id| id > process.persisted) {
                    process.persisted = id;
                    self.quorums.synced(at, id);
                    server.inbox.push_back(Arrival::Input(Input::Persisted(id)));
                }
            }),
            DiskStep::Seal(writes) => {
                if process.writes == writes && !process.writing && process.log.wants_seal() {
                    match process.log.seal() {
                        Err(error) if is_full(&error) => Ok(()),
                        other => other,
                    }
                } else {
                    Ok(())
                }
            }
            DiskStep::Prewrite => {
                let prewritten = process.log.prewriter().step();
                let failed = prewritten.is_err();
                let rest = if failed {
                    limits::PREWRITE_RETRY
                } else {
                    self.plan.prewrite
                };
                next = Some((rest, DiskStep::Prewrite));
                // It tries again; the writer itself waits or fails if it comes to that.
                if failed {
                    self.counts.one("segments that couldn't be made ahead");
                }
                // The housekeeper's look at the free space is as frequent; the node learns of it with whatever wakes it next.
                let looked = process.keeper.look_at_space();
                while let Some(kept) = process.keeper.answer() {
                    server.inbox.push_back(Arrival::Input(Input::Kept(kept)));
                }
                looked
            }
        };
        self.check_syncs(at, outcome.is_ok(), step != DiskStep::Prewrite);
        if let Err(error) = outcome {
            self.say(|| format!("the disk of {} failed: {error}", server_id(at)));
            self.counts.one("failed disks");
            self.end_process(at, true);
            self.forget_unwritten(at);
            let after = Span(self.rng.between(100_000, 1_500_000));
            return self.later(after, Happening::Start { server: at });
        }
        if step == DiskStep::Write || synced.is_some() {
            self.check_written(at, synced);
        }
        if self.springs(at, step) {
            return;
        }
        if let Some((delay, step)) = next {
            let delay = if step == DiskStep::Sync {
                self.disk_delay(at, delay)
            } else {
                delay
            };
            self.later(delay, Happening::Disk { server: at, life, step });
        }
        if step == DiskStep::Sync {
            self.begin_write(at);
        }
        if step == DiskStep::Sync || waits {
            self.wake_server(at);
        }
    }

    /// The node has something for the housekeeper, who begins at once if it rests.
    pub fn keep_job(&mut self, at: usize, job: KeepJob) {
        let Some(process) = &mut self.servers[at].process else {
            return;
        };
        process.keeper.take(misled(self.sabotage, job));
        self.keep_soon(at);
    }

    /// A checkpoint of all that a server has applied is to be made.
    pub fn make_checkpoint(&mut self, at: usize) {
        let Some(process) = &self.servers[at].process else {
            return;
        };
        let state = process.node.state();
        let (index, digest) = (state.applied(), state.digest());
        self.servers[at].unmade = Some((index, None));
        self.keep_job(at, KeepJob::Make { index, digest });
    }

    fn keep_soon(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let delay = self.plan.read.draw(&mut server.rng);
        let when = self.now.after(delay);
        self.keep_at(at, when);
    }

    /// Has the housekeeper get on at that moment, or before if that is planned.
    pub fn keep_at(&mut self, at: usize, when: Tick) {
        let server = &mut self.servers[at];
        let life = server.life;
        let Some(process) = &mut server.process else { return };
        if process.keep_at.is_none_or(|planned| planned > when) {
            process.keep_at = Some(when);
            self.at(when, Happening::Keep { server: at, life });
        }
    }

    pub fn keep_step(&mut self, at: usize, life: u64) {
        let server = &mut self.servers[at];
        if server.life != life {
            return;
        }
        let Some(process) = &mut server.process else { return };
        if process.keep_at.is_none_or(|planned| planned > self.now) {
            return;
        }
        process.keep_at = None;
        let step = process.keeper.step();
        let (mut told, mut firsts, mut made) = (false, Vec::new(), Vec::new());
        while let Some(kept) = process.keeper.answer() {
            match &kept {
                Kept::Made { id } => {
                    self.counts.one("checkpoints made");
                    made.push(*id);
                    // The node's own, of a later entry, may have taken its place.
                    server.unmade.take_if(|(asked, _)| *asked <= id.at.index);
                }
                Kept::Unmade { index, why } => {
                    if let Some((_, told)) = server.unmade.as_mut().filter(|(asked, _)| asked <= index) {
                        *told = Some(why.clone());
                    }
                }
                Kept::Installed { .. } => self.counts.one("checkpoint transfers"),
                Kept::Holdings(holdings) => {
                    let gone = holdings.first > server.first_kept;
                    self.counts.add("segments deleted", u64::from(gone));
                    firsts.extend(gone.then_some(holdings.first));
                    server.first_kept = holdings.first;
                }
                Kept::Damaged { .. } => self.counts.one("damage found by housekeeping"),
                _ => {}
            }
            told = true;
            server.inbox.push_back(Arrival::Input(Input::Kept(kept)));
        }
        self.check_syncs(at, step.is_ok(), true);
        made.iter().for_each(|id| self.check_made(at, id));
        firsts.into_iter().for_each(|first| self.check_kept(at, first));
        match step {
            Ok(Step::More) => self.keep_soon(at),
            Ok(Step::Rest(span)) => self.keep_at(at, self.now.after(span)),
            Err(error) => {
                self.say(|| format!("the disk of {} failed: {error}", server_id(at)));
                self.counts.one("failed disks");
                self.end_process(at, true);
                let after = Span(self.rng.between(100_000, 1_500_000));
                return self.later(after, Happening::Start { server: at });
            }
        }
        if told {
            self.wake_server(at);
        }
    }

    pub fn reader_job(&mut self, at: usize, job: ReaderJob) {
        let Some(process) = &mut self.servers[at].process else {
            return;
        };
        process.jobs.push(job);
        if process.jobs.len() > limits::READ_JOBS_MAX {
            return self.fail(format!("{} has more reader jobs than places", server_id(at)));
        }
        self.begin_read(at);
    }

    fn begin_read(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let Some(process) = &mut server.process else { return };
        if process.reading || !process.jobs.is_due() {
            return;
        }
        process.reading = true;
        let is_index = !process.jobs.is_question();
        let delay = if is_index {
            Span(1)
        } else {
            self.plan.read.draw(&mut server.rng)
        };
        let life = server.life;
        let delay = if is_index { delay } else { self.disk_delay(at, delay) };
        self.later(delay, Happening::Read { server: at, life });
    }

    pub fn read_step(&mut self, at: usize, life: u64) {
        let server = &mut self.servers[at];
        if server.life != life {
            return;
        }
        let Some(process) = &mut server.process else { return };
        process.reading = false;
        match process.jobs.pop() {
            Some(ReaderJob::Index(items)) => process.reader.index(&items),
            Some(ReaderJob::Seed(rooms)) => process.reader.seed(rooms, &[]),
            Some(ReaderJob::Trim(index)) => {
                process.reader.trim(index);
                server.held.trimmed(index);
            }
            Some(ReaderJob::Read(request)) => match process.reader.read(&request) {
                Ok(answer) => {
                    let shown = server.held.shows(&answer);
                    let answer = altered(self.sabotage, answer);
                    server.inbox.push_back(Arrival::Input(Input::Read(answer)));
                    self.counts.one("reads from the log");
                    self.wake_server(at);
                    self.check(shown.map_err(|text| format!("{} reads: {text}", server_id(at))));
                }
                Err(error) => self.fail(format!("{} can't read its log: {error}", server_id(at))),
            },
            None => {}
        }
        self.begin_read(at);
    }
}
