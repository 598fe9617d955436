//! What the log of each server must hold, told from what its node wanted written: after any end, what a start finds is the log as it was
//! after one of these records, and not before the last that was said to be durable. So nothing that was overwritten comes back, and nothing is
//! made up. Beside it what must be so on the disk itself, at once and not only when it comes to matter: what counts is synced,
//! nothing stands behind the end, a disk that failed ends its server, nothing goes before a majority agrees, nothing trimmed is shown.

use std::collections::VecDeque;

use syncnet::cluster::message::{CheckpointId, Datagram, Entry, EntryKind, LogPosition, Record, Recovered};
use syncnet::keep::open::Opened;
use syncnet::log::disk::Disk;
use syncnet::log::segment::{FOLDER, Segment, base_of, file_name};
use syncnet::log::writer::Log;
use syncnet::log::{Append, ReadAnswer, ReadFrom, ReadRequest};
use syncnet::types::{AppendId, DirectoryId, LogIndex, Lsn, Position, ServerId, Term};

use super::disk::ServerDisk;
use super::plan::server_id;
use super::server::{Server, read_entries};
use super::world::World;

/// A group's log as the records up to some place make it: terms and running checks, for payloads are proved by these.
#[derive(Clone, Debug, Default)]
struct Told {
    term: Term,
    vote: Option<(ServerId, DirectoryId)>,
    base: LogPosition,
    base_chain: u32,
    /// Of each entry after `base`.
    entries: Vec<(Term, u32)>,
    /// The members entries after `base`, or those in force there.
    members: Vec<Entry>,
}

impl Told {
    fn last(&self) -> LogIndex {
        LogIndex(self.base.index.0 + self.entries.len() as u64)
    }

    /// Term and check of an entry that isn't before the base.
    fn at(&self, index: LogIndex) -> Option<(Term, u32)> {
        match index.0.checked_sub(self.base.index.0)? {
            0 => Some((self.base.term, self.base_chain)),
            after => self.entries.get(after as usize - 1).copied(),
        }
    }

    fn take(&mut self, record: &Record) {
        match record {
            Record::State { state, .. } => (self.term, self.vote) = (state.term, state.vote),
            Record::Entry { entry, chain, .. } => {
                let before = entry.index.0.saturating_sub(self.base.index.0 + 1);
                self.entries.truncate(before as usize);
                self.members.retain(|members| members.index < entry.index);
                self.entries.push((entry.term, *chain));
                if entry.kind == EntryKind::Members {
                    self.members.push(entry.clone());
                }
            }
            // It is what stood there.
            Record::Fill { .. } => {}
            Record::Base { at, chain, members, .. } => {
                (self.base, self.base_chain) = (*at, *chain);
                self.entries.clear();
                self.members = vec![members.clone()];
            }
        }
    }

    /// Whether this is what a start has found; in words why not.
    fn differs(&self, found: &Recovered) -> Option<String> {
        if (found.state.term, found.state.vote) != (self.term, self.vote) {
            return Some(format!("term {} and vote {:?}", self.term, self.vote));
        }
        if found.last.index != self.last() || found.base.index < self.base.index {
            return Some(format!("entries from {} to {}", self.base.index.next(), self.last()));
        }
        let known = |index| self.at(index).unwrap_or_default();
        let same = |at: LogPosition, chain: u32| {
            let (term, check) = known(at.index);
            at.term == term && (chain == 0 || check == 0 || chain == check)
        };
        if !same(found.base, found.base_chain) || !same(found.last, found.last_chain) {
            return Some(format!(
                "entry {} with {:?}, entry {} with {:?}",
                found.base.index,
                known(found.base.index),
                found.last.index,
                known(found.last.index)
            ));
        }
        let mut runs = found.terms.iter().peekable();
        let mut term = found.base.term;
        for index in (found.base.index.0 + 1..=found.last.index.0).map(LogIndex) {
            while let Some(&&(first, run)) = runs.peek().filter(|run| run.0 <= index) {
                (_, term) = (first, run);
                runs.next();
            }
            if known(index).0 != term {
                return Some(format!("entry {index} of term {}", known(index).0));
            }
        }
        // Those before the one that was in force when the first segment began aren't needed any more.
        if !self.members.ends_with(&found.members) || found.members.is_empty() != self.members.is_empty() {
            return Some(format!("members {:?}", self.members));
        }
        None
    }
}

/// What one server was told to write.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// All that it said to be durable.
    durable: Told,
    /// What came after, in order.
    waiting: VecDeque<(AppendId, Record)>,
    /// The last entry of all that.
    last: LogIndex,
    /// The last append that was written, synced or not.
    written: AppendId,
    /// Where the log ended when something was written last that is to be synced.
    end: Lsn,
    /// The first append since the last start that takes the place of entries that were there.
    overruled: Option<AppendId>,
    /// The last append that is durable.
    persisted: AppendId,
    /// Where the log ended when it was last synced.
    synced: Lsn,
    /// Items of entries up to this one may not be shown any more: the reader knows it.
    trimmed: LogIndex,
    /// The highest entry at which it has told the digest of its state, in any of its lives.
    agreed: LogIndex,
    /// Syncs of files that had failed up to the last look.
    failed_syncs: u64,
    /// Whether what was written and not synced may be gone: the power was, or a sync has failed.
    pub lossy: bool,
    /// Whether its disk was damaged since the last start: what is left of the log is for recovery to say.
    pub unsure: bool,
}

impl Held {
    /// The node wants this to be written.
    pub fn wants(&mut self, append: &Append) {
        for record in &append.records {
            match record {
                Record::Entry { entry, .. } => {
                    if entry.index <= self.last {
                        self.overruled.get_or_insert(append.id);
                    }
                    self.last = entry.index;
                }
                Record::Base { at, .. } => self.last = at.index,
                Record::State { .. } | Record::Fill { .. } => {}
            }
            self.waiting.push_back((append.id, record.clone()));
        }
    }

    /// All up to this append is durable.
    fn persist(&mut self, id: AppendId) {
        (self.persisted, self.synced) = (id, self.end);
        while let Some((_, record)) = self.waiting.pop_front_if(|(of, _)| *of <= id) {
            self.durable.take(&record);
        }
    }

    /// Whether entries were written in the place of others, and synced if that is asked.
    pub fn is_overruled(&self, synced: bool) -> bool {
        let done = if synced { self.persisted } else { self.written };
        self.overruled.is_some_and(|by| by <= done)
    }

    /// From now on.
    pub fn not_overruled(&mut self) {
        self.overruled = None;
    }

    /// Pages that were written and not synced.
    pub fn pages_unsynced(&self) -> u64 {
        const PAGE: u64 = 4096;
        let (from, to) = (self.synced.0, self.end.0);
        if from < to {
            (to - 1) / PAGE - from / PAGE + 1
        } else {
            0
        }
    }

    /// What a server says of itself to all.
    pub fn says(&mut self, datagram: &Datagram) {
        if let Datagram::Heartbeat(heartbeat) = datagram {
            for group in &heartbeat.groups {
                self.agreed = self.agreed.max(group.digest.0);
            }
        }
    }

    /// The reader knows that these are trimmed.
    pub fn trimmed(&mut self, index: LogIndex) {
        self.trimmed = self.trimmed.max(index);
    }

    /// No item of what was trimmed is among these.
    pub fn shows(&self, answer: &ReadAnswer) -> Result<(), String> {
        let ReadAnswer::Items { room, items, .. } = answer else {
            return Ok(());
        };
        match items.iter().find(|(_, _, entry)| entry.index <= self.trimmed) {
            Some((position, _, entry)) => Err(format!(
                "item {position} of room {room} is of entry {}, and all up to {} is trimmed",
                entry.index, self.trimmed
            )),
            None => Ok(()),
        }
    }

    /// A start has found this. It must be what there was after some record, and all that was durable; after a kill all that was written.
    fn found(&mut self, found: &Recovered, least: AppendId) -> Result<(), String> {
        let mut told = self.durable.clone();
        let mut waiting = self.waiting.iter().peekable();
        while let Some((_, record)) = waiting.next_if(|(id, _)| *id <= least) {
            told.take(record);
        }
        let mut why = Vec::new();
        loop {
            let Some(differs) = told.differs(found) else {
                self.begin(found, &told);
                return Ok(());
            };
            why.push(differs);
            let Some((_, record)) = waiting.next() else {
                break;
            };
            told.take(record);
        }
        why.dedup();
        Err(format!(
            "its log is {found:?}, and after no record that it wrote it was: the log had {}",
            why.join("; then ")
        ))
    }

    /// Everything that is there now counts as durable.
    fn begin(&mut self, found: &Recovered, told: &Told) {
        let term_of = |index: LogIndex| {
            let after = found.terms.partition_point(|&(first, _)| first <= index);
            after.checked_sub(1).map_or(Term(0), |run| found.terms[run].1)
        };
        let entry = |index: u64| {
            let index = LogIndex(index);
            let check = told.at(index).map_or(0, |(_, check)| check);
            (
                term_of(index),
                if index == found.last.index {
                    found.last_chain
                } else {
                    check
                },
            )
        };
        self.durable = Told {
            term: found.state.term,
            vote: found.state.vote,
            base: found.base,
            base_chain: found.base_chain,
            entries: (found.base.index.0 + 1..=found.last.index.0).map(entry).collect(),
            members: found.members.clone(),
        };
        self.waiting.clear();
        (self.last, self.overruled) = (found.last.index, None);
        (self.written, self.persisted) = (AppendId(0), AppendId(0));
    }
}

/// What must hold of any log by itself.
fn sound(found: &Recovered) -> Result<(), String> {
    let rising = found
        .terms
        .windows(2)
        .all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1);
    let within = |index: LogIndex| index <= found.last.index;
    let members = found.members.windows(2).all(|two| two[0].index < two[1].index);
    let holes = found.holes.windows(2).all(|two| two[0].index < two[1].index);
    let inside = found.terms.iter().all(|&(first, _)| within(first))
        && found.members.iter().all(|members| within(members.index))
        && found
            .holes
            .iter()
            .all(|hole| within(hole.index) && hole.index > found.base.index);
    if rising && members && holes && inside {
        Ok(())
    } else {
        Err(format!("its log makes no sense: {found:?}"))
    }
}

/// All segments of a disk, ascending.
fn segments(disk: &ServerDisk) -> Vec<Segment> {
    let names = disk.list(FOLDER).unwrap_or_default();
    let segment = |base: Lsn| {
        let size = disk.disk.size_of(&file_name(base)).unwrap_or(0);
        Segment { base, size }
    };
    names.iter().filter_map(|name| base_of(name)).map(segment).collect()
}

impl World {
    /// A server without a log, or with another than it had.
    pub fn holds_nothing(&mut self, at: usize) {
        let server = &mut self.servers[at];
        server.held = Held {
            agreed: server.held.agreed,
            failed_syncs: server.disk.failed_syncs(),
            ..Held::default()
        };
    }

    /// A server has another of its disks than it had, on which this must be.
    pub fn holds(&mut self, at: usize, held: Held) {
        let server = &mut self.servers[at];
        let agreed = server.held.agreed.max(held.agreed);
        server.held = Held { agreed, ..held };
    }

    /// A server has opened its log.
    pub fn check_opened(&mut self, at: usize, opened: &mut Opened<ServerDisk>) {
        let result = self.opened(at, opened);
        self.check(result.map_err(|text| format!("{} starts: {text}", server_id(at))));
    }

    fn opened(&mut self, at: usize, opened: &mut Opened<ServerDisk>) -> Result<(), String> {
        // The crimes of a sabotage must be noticed by what comes of them.
        let honest = self.sabotage.is_none();
        let found = &opened.recovered;
        let server = &mut self.servers[at];
        sound(found)?;
        let unsure = std::mem::replace(&mut server.held.unsure, server.damaged);
        if !honest
            || unsure
            || server.damaged
            || server.held.durable.entries.is_empty() && server.held.waiting.is_empty()
        {
            let told = server.held.durable.clone();
            server.held.begin(found, &told);
        } else {
            let held = &mut server.held;
            let least = if held.lossy { AppendId(0) } else { held.written };
            // A checkpoint of the leader was there, and the end came before the log began behind it.
            let begun = found.base == found.last && held.durable.base.index < found.base.index;
            let committed = self.oracle.entries().get(found.base.index.0.wrapping_sub(1) as usize);
            let installed = begun && committed.is_some_and(|entry| entry.term == found.base.term);
            match held.found(found, least) {
                Err(_) if installed => held.begin(found, &Told::default()),
                result => result?,
            }
            self.counts.one("logs compared at a start");
        }
        let server = &mut self.servers[at];
        let spoilt = server.damaged || !found.holes.is_empty();
        let end = opened.log.end();
        (server.held.lossy, server.held.end, server.held.synced) = (false, end, end);
        let last = found.last.index;
        let from = LogIndex(last.0.saturating_sub(8)).max(found.base.index).next();
        let entries = read_entries(&mut opened.reader, from, LogIndex(last.0 + 1_000))?;
        if !spoilt && !entries.iter().map(|entry| entry.index.0).eq(from.0..=last.0) {
            return Err(format!(
                "its log ends at {last}, and from {from} on it reads {entries:?}"
            ));
        }
        if honest {
            self.disk_is_clean(at, &opened.log)?;
        }
        self.trimmed_is_gone(at, opened)
    }

    /// All that a start has found is synced, and nothing stands behind it that later records could line up with.
    fn disk_is_clean(&mut self, at: usize, log: &Log<ServerDisk>) -> Result<(), String> {
        let disk = &self.servers[at].disk;
        let (current, end) = (log.segment(), log.end());
        for segment in segments(disk) {
            let name = segment.file();
            let used = (end.0.saturating_sub(segment.base.0)).min(segment.size);
            if !disk.disk.is_durable(&name, used) {
                return Err(format!("{name} counts up to {used}, and isn't synced up to there"));
            }
            if segment.base >= current.base && disk.disk.has_data_from(&name, used) && !self.servers[at].damaged {
                return Err(format!("{name} isn't empty behind its end at {used}"));
            }
        }
        Ok(())
    }

    /// What was trimmed isn't shown by a server that has just started.
    fn trimmed_is_gone(&mut self, at: usize, opened: &mut Opened<ServerDisk>) -> Result<(), String> {
        let trimmed = opened.state.trimmed();
        self.servers[at].held.trimmed = trimmed;
        if trimmed == LogIndex(0) {
            return Ok(());
        }
        for (room, _, _) in opened.state.room_ends() {
            let request = ReadRequest::Items {
                token: 0,
                room,
                from: ReadFrom::Position(Position(1)),
                bytes_max: 1,
            };
            let answer = opened.reader.read(&request).map_err(|error| error.to_string())?;
            self.counts.one("rooms looked at behind what was trimmed");
            self.servers[at].held.shows(&answer)?;
        }
        Ok(())
    }

    /// The log writer has got on: it has written all it took (`synced` says whether it has synced it, too, up to this append).
    pub fn check_written(&mut self, at: usize, synced: Option<AppendId>) {
        let Some(process) = &self.servers[at].process else {
            return;
        };
        let (end, segment) = (process.log.end(), process.log.segment());
        let taken = process.appends.front().map(|append| append.id);
        let held = &mut self.servers[at].held;
        let Some(id) = synced else {
            let before = held.written;
            let last = held.waiting.back().map_or(before, |&(id, _)| id);
            held.written = taken.map_or(last, |next| AppendId(next.0 - 1));
            // What has no records isn't written, and needs no sync.
            let new = |id: AppendId| before < id && id <= held.written;
            if held.waiting.iter().any(|&(id, _)| new(id)) {
                held.end = end;
            }
            return;
        };
        held.persist(id);
        let used = held.end.0.saturating_sub(segment.base.0);
        let disk = &self.servers[at].disk;
        if self.sabotage.is_none() && !disk.disk.is_durable(&segment.file(), used) {
            self.fail(format!(
                "{} says that append {id:?} is durable, and {} isn't synced up to {used}",
                server_id(at),
                segment.file()
            ));
        }
    }

    /// After a thread of the log got on: a sync that failed must have ended it, if it is one that matters.
    pub fn check_syncs(&mut self, at: usize, goes_on: bool, matters: bool) {
        let server = &mut self.servers[at];
        let failed = server.disk.failed_syncs();
        let more = failed > server.held.failed_syncs;
        server.held.failed_syncs = failed;
        if more && matters && goes_on {
            self.fail(format!("a sync of {} has failed, and it goes on", server_id(at)));
        } else if more && matters {
            self.counts.one("syncs that failed");
        }
    }

    /// A server has made a checkpoint: of the committed log, and of nothing else.
    pub fn check_made(&mut self, at: usize, id: &CheckpointId) {
        let index = id.at.index;
        let entry = self.oracle.entries().get(index.0.wrapping_sub(1) as usize);
        if entry.is_none_or(|entry| entry.term != id.at.term) || self.oracle.digest_at(index) != Some(id.digest) {
            self.fail(format!(
                "{} counts a checkpoint that isn't what the log makes: {id:?}",
                server_id(at)
            ));
        }
    }

    /// A server keeps its log from `first` on. What was before must have been agreed on by a majority, or have come with a checkpoint.
    pub fn check_kept(&mut self, at: usize, first: LogIndex) {
        let gone = first.previous();
        let begun = self.servers[at].held.durable.base.index;
        let waits = |record: &Record| matches!(record, Record::Base { at, .. } if at.index >= gone);
        let begins = self.servers[at].held.waiting.iter().any(|(_, record)| waits(record));
        if gone <= begun || begins {
            return;
        }
        // Its own word needn't have gone out.
        let agrees = |server: &&Server| server.at == at || server.held.agreed >= gone;
        let agree = self.servers.iter().filter(agrees).count();
        self.counts.one("times that old segments went");
        if 2 * agree <= self.servers.len() {
            self.fail(format!(
                "{} has removed entries up to {gone}, and only {agree} servers have said what state they make",
                server_id(at)
            ));
        }
    }
}
