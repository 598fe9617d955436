//! The writing side: appends are gathered in one buffer, written with one call and made durable with one sync. The next
//! batch is gathered while the last one syncs, so that one sync covers all who came meanwhile.

use std::collections::BTreeMap;
use std::io;

use super::disk::{Disk, DiskFile, is_full, of_sync};
use super::index::SharedIndex;
use super::payload::{self, GroupHead, GroupSeal, Head};
use super::prewrite::Prewriter;
use super::record::{self, Header, Kind};
use super::segment::Segment;
use super::tail::Tail;
use super::{Append, Record};
use crate::cluster::message::{Entry, EntryKind, LogPosition};
use crate::limits::{BLOCK_BYTES, LOG_BATCH_BYTES_MAX};
use crate::types::{AppendId, DirectoryId, GroupId, LogIndex, Lsn, Term};

/// The log of one server, open for appending.
///
/// [`append`](Log::append) gathers, [`flush`](Log::flush) writes, [`sync`](Log::sync) makes durable what was written and says
/// up to which append. After the first error nothing is taken any more: what is on the disk is unknown then, and only
/// recovery can tell. The one exception is a lack of space ([`is_full`]): nothing is lost then, and the same call may be made again.
#[derive(Debug)]
pub struct Log<D: Disk> {
    pub(super) directory: DirectoryId,
    pub(super) segment_size: u64,
    pub(super) shared: SharedIndex,
    pub(super) prewriter: Prewriter<D>,
    pub(super) tails: BTreeMap<GroupId, Tail>,
    pub(super) segment: Segment,
    pub(super) file: D::File,
    /// Where the next record will stand, behind what is in the buffer.
    pub(super) end: Lsn,
    /// All before this is on the disk for good.
    pub(super) synced: Lsn,
    /// The number of the batch in the buffer.
    pub(super) batch: u64,
    /// Records to be written before `end`.
    pub(super) buffer: Vec<u8>,
    /// The entries among them.
    pub(super) entries: Vec<Placed>,
    /// Whether something that somebody waits for was written and not synced. A seal alone isn't.
    pub(super) unsynced: bool,
    /// Whether a record was written after the last seal.
    pub(super) unsealed: bool,
    /// The last append that was taken.
    pub(super) taken: Option<AppendId>,
    /// The append that was cut short because there was no space, and how many of its records were taken.
    pub(super) cut_short: Option<(AppendId, usize)>,
    /// The last append of which all is written.
    pub(super) written: Option<AppendId>,
    /// The first error.
    pub(super) failed: Option<String>,
}

/// An entry that has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Placed {
    group: GroupId,
    index: LogIndex,
    lsn: Lsn,
    /// Whether those after it stay.
    fill: bool,
}

/// The fields of a header that only the caller knows.
struct Fields {
    kind: Kind,
    entry_kind: EntryKind,
    group: GroupId,
    at: LogPosition,
    chain: u32,
}

impl Fields {
    fn of(kind: Kind, group: GroupId) -> Fields {
        Fields {
            kind,
            entry_kind: EntryKind::Noop,
            group,
            at: LogPosition::default(),
            chain: 0,
        }
    }

    fn entry(kind: Kind, group: GroupId, entry: &Entry, chain: u32) -> Fields {
        Fields {
            kind,
            entry_kind: entry.kind,
            group,
            at: LogPosition {
                term: entry.term,
                index: entry.index,
            },
            chain,
        }
    }
}

impl<D: Disk> Log<D> {
    /// Takes an append into the buffer. Writes and syncs when that is full, or a segment is. After a lack of space the same append must be
    /// handed in again; what it came to is kept.
    ///
    /// # Errors
    /// What the disk says; the log is then closed, unless [`is_full`].
    ///
    /// # Panics
    /// If an entry doesn't follow the group's entries, or is larger than a payload may be: the node has checked both.
    pub fn append(&mut self, append: &Append) -> io::Result<()> {
        self.guarded(|log| log.append_records(append))
    }

    /// Writes what is in the buffer. Readers find it from now on.
    ///
    /// # Errors
    /// What the disk says; the log is then closed, unless [`is_full`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.guarded(|log| {
            if !log.buffer.is_empty() {
                log.record_commits()?;
            }
            log.write()?;
            log.written = log.taken;
            Ok(())
        })
    }

    /// Makes durable what was written, if anybody waits for it. Gives the last append that is durable as a whole.
    ///
    /// # Errors
    /// What the disk says; the log is then closed, and must not be tried again.
    pub fn sync(&mut self) -> io::Result<Option<AppendId>> {
        self.guarded(|log| {
            if log.unsynced {
                log.sync_file()?;
            }
            Ok(log.written)
        })
    }

    /// Whether [`seal`](Log::seal) would write something.
    #[must_use]
    pub fn wants_seal(&self) -> bool {
        self.unsealed || self.tails.values().any(|tail| tail.state.commit > tail.commit_recorded)
    }

    /// Writes and syncs what is left, then writes a seal: it says that all before it is synced. Without it damage in the last
    /// batch couldn't be told from a torn write. The seal needs no sync: lost, it is only missing.
    ///
    /// # Errors
    /// What the disk says; the log is then closed, unless [`is_full`].
    pub fn seal(&mut self) -> io::Result<()> {
        self.flush()?;
        self.sync()?;
        self.guarded(|log| {
            if !log.wants_seal() {
                return Ok(());
            }
            let groups: Vec<GroupSeal> = log.tails.iter().map(|(&group, tail)| tail.seal(group)).collect();
            log.put(&Fields::of(Kind::Seal, GroupId(0)), &payload::encode_seal(&groups))?;
            for tail in log.tails.values_mut() {
                tail.commit_recorded = tail.state.commit;
            }
            log.write()?;
            (log.unsealed, log.unsynced) = (false, false);
            Ok(())
        })
    }

    /// Seals, and makes the seal durable: for an orderly end. Without space for a seal, what is there is merely synced.
    ///
    /// # Errors
    /// What the disk says; the log is then closed.
    pub fn close(&mut self) -> io::Result<()> {
        match self.seal() {
            Err(error) if !is_full(&error) => return Err(error),
            _ => {}
        }
        self.guarded(Log::sync_file)
    }

    /// Bytes in the buffer.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Where the next record will stand.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// The segment that is being filled.
    #[must_use]
    pub fn segment(&self) -> Segment {
        self.segment
    }

    /// Where everything stands, as writer and reader share it.
    #[must_use]
    pub fn index(&self) -> SharedIndex {
        self.shared.clone()
    }

    /// By which the next segment is made ahead of time. Without it the log makes segments when it needs them.
    #[must_use]
    pub fn prewriter(&self) -> Prewriter<D> {
        self.prewriter.clone()
    }

    /// Runs `act` if nothing has failed yet, and remembers if that does.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        if let Some(text) = &self.failed {
            return Err(io::Error::other(format!("the log is closed since: {text}")));
        }
        let outcome = act(self).map_err(|error| {
            let text = format!("{}: {error}", self.segment.file());
            io::Error::new(error.kind(), text)
        });
        if let Err(error) = &outcome
            && !is_full(error)
        {
            self.failed = Some(error.to_string());
        }
        outcome
    }

    fn append_records(&mut self, append: &Append) -> io::Result<()> {
        let taken = self.cut_short.take().filter(|&(id, _)| id == append.id);
        let first = taken.map_or(0, |(_, taken)| taken);
        for (number, record) in append.records.iter().enumerate().skip(first) {
            // What this and `record` do before they fail for want of space is done again without harm.
            self.cut_short = Some((append.id, number));
            // The append as a whole is reported later; until then its first part is merely durable early.
            if self.buffer.len() >= LOG_BATCH_BYTES_MAX {
                self.write()?;
                self.sync_file()?;
            }
            match record {
                Record::State { group, state } => {
                    self.tails.entry(*group).or_default().hard_state(state);
                    self.record_state(*group)?;
                }
                Record::Entry { group, entry, chain } => self.record_entry(*group, entry, *chain)?,
                Record::Fill { group, entry, chain } => self.record_fill(*group, entry, *chain)?,
                Record::Base {
                    group,
                    at,
                    chain,
                    members,
                } => self.begin_group(*group, *at, *chain, members)?,
            }
        }
        self.cut_short = None;
        // Last, so that no record speaks of a commit before the entries that it is about: recovery takes what was committed
        // before a damaged place for certain.
        for &(group, commit) in &append.commits {
            self.tails.entry(group).or_default().committed(commit);
        }
        self.taken = Some(append.id);
        Ok(())
    }

    fn record_entry(&mut self, group: GroupId, entry: &Entry, chain: u32) -> io::Result<()> {
        let last = self.tails.get(&group).map_or(LogIndex(0), |tail| tail.last.index);
        assert!(
            entry.index > LogIndex(0) && entry.index <= last.next(),
            "an entry follows the group's last or takes the place of one"
        );
        let fields = Fields::entry(Kind::Entry, group, entry, chain);
        let lsn = self.put(&fields, &entry.payload)?;
        let tail = self.tails.entry(group).or_default();
        tail.entry(fields.at, entry.kind, &entry.payload, chain);
        self.entries.push(Placed {
            group,
            index: entry.index,
            lsn,
            fill: false,
        });
        Ok(())
    }

    fn record_fill(&mut self, group: GroupId, entry: &Entry, chain: u32) -> io::Result<()> {
        let tail = self.tails.entry(group).or_default();
        assert!(
            entry.index > tail.base.index && entry.index <= tail.last.index,
            "a fill takes the place of an entry that the group has"
        );
        let fields = Fields::entry(Kind::Fill, group, entry, chain);
        let lsn = self.put(&fields, &entry.payload)?;
        let tail = self.tails.entry(group).or_default();
        tail.fill(fields.at, entry.kind, &entry.payload, chain);
        self.entries.push(Placed {
            group,
            index: entry.index,
            lsn,
            fill: true,
        });
        Ok(())
    }

    /// The group's log begins anew, in the next segment: as long as the head of that isn't on the disk, the old log stands.
    fn begin_group(&mut self, group: GroupId, at: LogPosition, chain: u32, members: &Entry) -> io::Result<()> {
        // Before anything is changed, for there may be no space.
        self.complete_next()?;
        let tail = self.tails.entry(group).or_default();
        tail.begin(at, chain, vec![members.clone()]);
        tail.committed(at.index);
        self.shared.write().begin(group, at.index);
        self.next_segment(Some(group))?;
        self.write()?;
        self.sync_file()?;
        if self.tails.len() == 1 {
            self.shared.write().put_beginning(self.segment.base);
        }
        Ok(())
    }

    /// Begins the log of a group anew behind a checkpoint that is durable, and makes that durable: what [`Record::Base`] does, for
    /// a start that finds the log behind its checkpoint.
    ///
    /// # Errors
    /// What the disk says; the log is then closed.
    pub fn begin_anew(&mut self, group: GroupId, at: LogPosition, chain: u32, members: &Entry) -> io::Result<()> {
        self.guarded(|log| log.begin_group(group, at, chain, members))
    }

    /// Commit positions ride along with a batch, at its end: they speak of entries that stand before.
    fn record_commits(&mut self) -> io::Result<()> {
        let advanced = |tail: &Tail| tail.state.commit > tail.commit_recorded;
        let groups: Vec<GroupId> = self
            .tails
            .iter()
            .filter(|(_, t)| advanced(t))
            .map(|(&g, _)| g)
            .collect();
        groups.into_iter().try_for_each(|group| self.record_state(group))
    }

    fn record_state(&mut self, group: GroupId) -> io::Result<()> {
        let tail = self.tails.entry(group).or_default();
        let (state, fields) = (
            tail.state,
            Fields {
                at: tail.last,
                chain: tail.chain,
                ..Fields::of(Kind::State, group)
            },
        );
        self.put(&fields, &payload::encode_state(&state))?;
        self.tails.entry(group).or_default().commit_recorded = state.commit;
        Ok(())
    }

    /// Puts a record into the buffer; into the next segment if this one has no room for it.
    fn put(&mut self, fields: &Fields, payload: &[u8]) -> io::Result<Lsn> {
        let size = record::size(payload.len()) as u64;
        if self.end.0 + size > self.segment.end().0 {
            self.next_segment(None)?;
        }
        if self.end.0 + size > self.segment.end().0 {
            let text = format!("a record of {size} bytes doesn't fit into a segment");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(self.encode(fields, payload))
    }

    fn encode(&mut self, fields: &Fields, payload: &[u8]) -> Lsn {
        let lsn = self.end;
        let header = Header {
            kind: fields.kind,
            entry_kind: fields.entry_kind,
            lsn,
            batch: self.batch,
            synced: self.synced,
            group: fields.group,
            index: fields.at.index,
            term: fields.at.term,
            chain: fields.chain,
        };
        let before = self.buffer.len();
        record::encode(&mut self.buffer, &header, payload, self.directory);
        self.end.0 += (self.buffer.len() - before) as u64;
        lsn
    }

    /// Goes on in the next segment. This one is synced first, so that no batch spans two and that the head of the next says
    /// where this one ends for good.
    fn next_segment(&mut self, anew: Option<GroupId>) -> io::Result<()> {
        self.complete_next()?;
        let (segment, file) = self.prewriter.take()?;
        assert_eq!(segment.base, self.segment.end(), "segments follow each other");
        let head = Head {
            segment_size: segment.size,
            previous_end: self.end,
            groups: self
                .tails
                .iter()
                .map(|(&group, tail)| GroupHead {
                    anew: anew == Some(group),
                    ..tail.head(group)
                })
                .collect(),
        };
        self.shared.write().put_segment(segment);
        (self.segment, self.file, self.end) = (segment, file, segment.base);
        self.encode(&Fields::of(Kind::Head, GroupId(0)), &payload::encode_head(&head));
        self.want_next();
        Ok(())
    }

    /// Ends what goes into this segment, and makes the next as far as it isn't there: what may find no space.
    fn complete_next(&mut self) -> io::Result<()> {
        self.write()?;
        self.sync_file()?;
        self.prewriter.complete()
    }

    /// Has the segment after this one made.
    pub(super) fn want_next(&mut self) {
        self.prewriter.used(self.end.0 - self.segment.base.0);
        self.prewriter.want(Segment {
            base: self.segment.end(),
            size: self.segment_size,
        });
    }

    fn write(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (end, length) = (self.end.0 - self.segment.base.0, self.buffer.len());
        // Zeros to the end of the block, over zeros: else the system would read the block from the disk first.
        let padded = end.next_multiple_of(BLOCK_BYTES as u64).min(self.segment.size);
        self.buffer.resize(length + (padded - end) as usize, 0);
        let written = self.file.write_at(&self.buffer, end - length as u64);
        self.buffer.truncate(length);
        written?;
        self.prewriter.used(self.end.0 - self.segment.base.0);
        self.buffer.clear();
        if !self.entries.is_empty() {
            let mut index = self.shared.write();
            for placed in self.entries.drain(..) {
                if placed.fill {
                    index.fill(placed.group, placed.index, placed.lsn);
                } else {
                    index.put(placed.group, placed.index, placed.lsn);
                }
            }
        }
        self.batch += 1;
        (self.unsynced, self.unsealed) = (true, true);
        Ok(())
    }

    fn sync_file(&mut self) -> io::Result<()> {
        self.file.sync_data().map_err(of_sync)?;
        self.synced = Lsn(self.end.0 - self.buffer.len() as u64);
        self.unsynced = false;
        Ok(())
    }
}

/// The first record of the first segment.
pub(super) fn first_head(directory: DirectoryId, segment: Segment, groups: &[GroupId]) -> Vec<u8> {
    let head = Head {
        segment_size: segment.size,
        previous_end: segment.base,
        groups: groups.iter().map(|&group| Tail::default().head(group)).collect(),
    };
    let header = Header {
        kind: Kind::Head,
        entry_kind: EntryKind::Noop,
        lsn: segment.base,
        batch: 1,
        synced: segment.base,
        group: GroupId(0),
        index: LogIndex(0),
        term: Term(0),
        chain: 0,
    };
    let mut bytes = Vec::new();
    record::encode(&mut bytes, &header, &payload::encode_head(&head), directory);
    bytes
}
