//! What the log's tests have in common: a small group that is written, ended, opened again and compared with what was written.

use super::disk::Disk;
use super::reader::Reader;
use super::recovery::{OpenError, Opened, Options, Report};
use super::sim_disk::SimDisk;
use super::writer::Log;
use super::{Append, HardState, ReadAnswer, ReadRequest, Record, Recovered};
use crate::cluster::chain::chain;
use crate::cluster::message::{Entry, EntryKind, LogPosition};
use crate::types::{AppendId, Blob, DirectoryId, GroupId, LogIndex, Term};

pub(super) const DIRECTORY: DirectoryId = DirectoryId(77);
pub(super) const ROOT: GroupId = GroupId::ROOT;
pub(super) const SEGMENT: u64 = 16 * 1024;

/// Opens a simulated log with small segments.
pub(super) fn try_open<D: Disk>(disk: &D) -> Result<Opened<D>, OpenError> {
    Log::open(
        disk.clone(),
        DIRECTORY,
        &Options {
            segment_size: SEGMENT,
            groups: vec![ROOT],
            reached: crate::types::Lsn(0),
            checkpoint: None,
        },
    )
}

/// A log that is open, and what was handed to it.
pub(super) struct Bench<D: Disk> {
    pub disk: D,
    pub log: Log<D>,
    pub reader: Reader<D>,
    pub report: Report,
    pub found: Recovered,
    pub model: Model,
    pub appends: u64,
}

impl Bench<SimDisk> {
    /// An empty log on a simulated disk.
    pub fn new() -> Bench<SimDisk> {
        Bench::open(&SimDisk::new(), Model::default())
    }
}

impl<D: Disk> Bench<D> {
    /// Opens a log that holds what the model says.
    pub fn open(disk: &D, model: Model) -> Bench<D> {
        let opened = try_open(disk).unwrap_or_else(|error| panic!("{error}"));
        let mut groups = opened.groups;
        assert_eq!(groups.len(), 1);
        let bench = Bench {
            disk: disk.clone(),
            log: opened.log,
            reader: opened.reader,
            report: opened.report,
            found: groups.remove(0).1,
            model,
            appends: 0,
        };
        assert_eq!(
            bench.found.state.commit.0.max(bench.found.last.index.0),
            bench.found.last.index.0
        );
        bench
    }

    /// Opens the log once more, as after a kill.
    pub fn again(self) -> Bench<D> {
        Bench::open(&self.disk, self.model)
    }

    /// Hands over records and commit positions, without writing.
    pub fn append(&mut self, records: Vec<Record>, commit: u64) {
        self.appends += 1;
        let append = Append {
            id: AppendId(self.appends),
            records,
            commits: vec![(ROOT, LogIndex(commit))],
            sync: true,
        };
        self.log.append(&append).unwrap();
    }

    /// Appends and makes durable entries with these texts.
    pub fn say(&mut self, texts: &[&str]) {
        let records = texts.iter().map(|text| self.model.say(text.as_bytes())).collect();
        self.append(records, 0);
        self.log.flush().unwrap();
        assert_eq!(self.log.sync().unwrap(), Some(AppendId(self.appends)));
    }

    /// The texts of all entries, read back.
    pub fn texts(&mut self) -> Vec<String> {
        let entries = read_all(&mut self.reader);
        let texts = entries
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.payload).into_owned());
        texts.collect()
    }
}

/// All entries of the group, read a bit at a time.
pub(super) fn read_all<D: Disk>(reader: &mut Reader<D>) -> Vec<Entry> {
    read_from(reader, LogIndex(1))
}

/// All entries of the group from one on, up to the end or a hole.
pub(super) fn read_from<D: Disk>(reader: &mut Reader<D>, first: LogIndex) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let from = LogIndex(all.len() as u64 + first.0);
        let request = ReadRequest::Entries {
            token: 1,
            group: ROOT,
            from,
            to: LogIndex(u64::MAX - 1),
            bytes_max: 5000,
        };
        match reader.read(&request).unwrap_or_else(|error| panic!("{error}")) {
            ReadAnswer::Entries { entries, .. } if entries.is_empty() => return all,
            ReadAnswer::Damaged { .. } => return all,
            ReadAnswer::Entries { entries, .. } => {
                assert_eq!(entries[0].index, from);
                all.extend(entries);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a sequence of records comes to, in the plainest way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub base: LogPosition,
    pub base_chain: u32,
    pub base_members: Option<Entry>,
    /// Those after the base.
    pub entries: Vec<Entry>,
    pub chains: Vec<u32>,
    pub state: HardState,
    pub term: Term,
}

impl Model {
    pub fn of(records: &[Record]) -> Model {
        let mut model = Model::default();
        records.iter().for_each(|record| model.apply(record));
        model
    }

    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::State { state, .. } => self.state = *state,
            Record::Entry { entry, chain, .. } => {
                let keep = (entry.index.0 - self.base.index.0) as usize - 1;
                self.entries.truncate(keep);
                self.chains.truncate(keep);
                self.entries.push(entry.clone());
                self.chains.push(*chain);
                self.term = entry.term;
            }
            Record::Fill { entry, .. } => assert_eq!(Some(entry), self.get(entry.index), "a fill is what was there"),
            Record::Base { at, chain, members, .. } => {
                (self.base, self.base_chain, self.base_members) = (*at, *chain, Some(members.clone()));
                self.entries.clear();
                self.chains.clear();
                self.term = at.term;
            }
        }
    }

    /// The entry of an index.
    pub fn get(&self, index: LogIndex) -> Option<&Entry> {
        self.entries.get(index.0.checked_sub(self.base.index.0 + 1)? as usize)
    }

    /// The index of the last entry.
    pub fn last(&self) -> u64 {
        self.base.index.0 + self.entries.len() as u64
    }

    /// The next entry, which is a message of the present term.
    pub fn say(&mut self, payload: &[u8]) -> Record {
        let index = LogIndex(self.last() + 1);
        let (term, kind) = (self.term.max(Term(1)), EntryKind::Command);
        self.entry(index, term, kind, payload)
    }

    /// An entry in the place of whatever is at its index and above.
    pub fn entry(&mut self, index: LogIndex, term: Term, kind: EntryKind, payload: &[u8]) -> Record {
        let before = ((index.0 - self.base.index.0) as usize).checked_sub(2);
        let before = before.map_or(self.base_chain, |before| self.chains[before]);
        let record = Record::Entry {
            group: ROOT,
            entry: Entry {
                index,
                term,
                kind,
                payload: Blob::new(payload),
            },
            chain: chain(before, term, index, kind, payload),
        };
        self.apply(&record);
        record
    }

    /// What brings an entry back.
    pub fn fill(&self, index: LogIndex) -> Record {
        let at = (index.0 - self.base.index.0) as usize - 1;
        Record::Fill {
            group: ROOT,
            entry: self.entries[at].clone(),
            chain: self.chains[at],
        }
    }

    /// What recovery should find, but for the commit position.
    pub fn recovered(&self, commit: LogIndex) -> Recovered {
        let mut terms: Vec<(LogIndex, Term)> = Vec::new();
        if self.base.index > LogIndex(0) {
            terms.push((self.base.index, self.base.term));
        }
        for entry in &self.entries {
            if terms.last().is_none_or(|&(_, term)| term != entry.term) {
                terms.push((entry.index, entry.term));
            }
        }
        let members = self.entries.iter().filter(|entry| entry.kind == EntryKind::Members);
        Recovered {
            state: HardState { commit, ..self.state },
            base: self.base,
            base_chain: self.base_chain,
            last: self.entries.last().map_or(self.base, |entry| LogPosition {
                term: entry.term,
                index: entry.index,
            }),
            last_chain: self.chains.last().copied().unwrap_or(self.base_chain),
            terms,
            members: self.base_members.iter().chain(members).cloned().collect(),
            holes: Vec::new(),
        }
    }
}
