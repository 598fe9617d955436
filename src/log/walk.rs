//! The walk over all good records from the beginning of the log: what each means for its group, and whether it fits to those
//! before it.

use std::collections::BTreeMap;

use super::disk::DiskFile;
use super::index::EntryIndex;
use super::payload::{self, Head};
use super::record::{self, Header, Kind, Parsed, ParsedHeader};
use super::recovery::{OpenError, Report, STEP, Stop, damaged, in_file};
use super::segment::{Segment, Window};
use super::tail::Tail;
use crate::cluster::chain::chain;
use crate::cluster::message::LogPosition;
use crate::limits::RECORD_HEADER_BYTES;
use crate::types::{DirectoryId, GroupId, LogIndex, Lsn, Term};

/// What the records up to some place come to.
#[derive(Debug)]
pub(super) struct Walk<'s, F> {
    directory: DirectoryId,
    segments: &'s [(Segment, F)],
    /// The end of every group.
    pub tails: BTreeMap<GroupId, Tail>,
    /// The highest position that a record says was synced.
    pub synced: Lsn,
    index: EntryIndex,
    batch: u64,
    last_kind: Kind,
    report: Report,
}

impl<'s, F: DiskFile> Walk<'s, F> {
    /// At the beginning of the first segment.
    pub fn new(directory: DirectoryId, segments: &'s [(Segment, F)], groups: &[GroupId]) -> Walk<'s, F> {
        Walk {
            directory,
            segments,
            tails: groups.iter().map(|&group| (group, Tail::default())).collect(),
            synced: Lsn(0),
            index: EntryIndex::default(),
            batch: 0,
            last_kind: Kind::Head,
            report: Report::default(),
        }
    }

    /// Walks to the first place without a good record.
    pub fn run(&mut self) -> Result<Stop, OpenError> {
        let mut at = 0;
        loop {
            let stop = self.segment(at)?;
            if stop.bad.is_some() || !self.goes_on(&stop)? {
                return Ok(stop);
            }
            at += 1;
        }
    }

    /// The highest batch, the kind of the last record, the report, the index.
    pub fn finish(&mut self) -> (u64, Kind, Report, EntryIndex) {
        let report = std::mem::take(&mut self.report);
        (self.batch, self.last_kind, report, std::mem::take(&mut self.index))
    }

    fn segment(&mut self, at: usize) -> Result<Stop, OpenError> {
        let (segment, file) = &self.segments[at];
        let mut window = Window::new(file, segment.size, STEP);
        let (mut offset, mut need) = (0, RECORD_HEADER_BYTES);
        loop {
            let bytes = window.at(offset, need);
            let bytes = bytes.map_err(|error| in_file(&segment.file())(error))?;
            let lsn = Lsn(segment.base.0 + offset);
            let bad = match record::parse(bytes, lsn, self.directory) {
                Parsed::Record(header, payload, size) => {
                    self.record(*segment, offset, &header, payload)?;
                    (offset, need) = (offset + size as u64, RECORD_HEADER_BYTES);
                    continue;
                }
                Parsed::Short(whole) if offset + whole as u64 <= segment.size => {
                    need = whole;
                    continue;
                }
                Parsed::Unknown => {
                    return Err(OpenError::Newer {
                        file: segment.file(),
                        offset,
                    });
                }
                Parsed::Nothing => None,
                Parsed::Short(_) => Some("the record is longer than its segment"),
                Parsed::BadHeader => Some("the header of a record doesn't match its check"),
                Parsed::BadBody(..) => Some("the payload of a record doesn't match its check"),
            };
            return Ok(Stop { at, offset, bad });
        }
    }

    /// Whether the segment after the stop's begins where the records of the stop's end.
    fn goes_on(&self, stop: &Stop) -> Result<bool, OpenError> {
        let (segment, _) = &self.segments[stop.at];
        let Some((next, file)) = self.segments.get(stop.at + 1) else {
            return Ok(false);
        };
        if next.base != segment.end() {
            return Ok(false);
        }
        let mut window = Window::new(file, next.size, STEP);
        let mut need = RECORD_HEADER_BYTES;
        loop {
            let bytes = window.at(0, need).map_err(in_file(&next.file()))?;
            return match record::parse(bytes, next.base, self.directory) {
                Parsed::Short(whole) if whole as u64 <= next.size => {
                    need = whole;
                    continue;
                }
                Parsed::Record(header, payload, _) if header.kind == Kind::Head => {
                    let end = Lsn(segment.base.0 + stop.offset);
                    Ok(payload::decode_head(payload).is_none_or(|head| head.previous_end == end))
                }
                // Let the walk of that segment say what is wrong with it.
                Parsed::Record(..) | Parsed::Unknown => Ok(true),
                _ => Ok(false),
            };
        }
    }

    fn record(&mut self, segment: Segment, offset: u64, header: &Header, payload: &[u8]) -> Result<(), OpenError> {
        let wrong = |text: &str| Err(damaged(segment, offset, text));
        if (offset == 0) != (header.kind == Kind::Head) {
            return wrong("a segment has its head at its beginning and nowhere else");
        }
        match header.kind {
            Kind::Head => match payload::decode_head(payload) {
                Some(head) => self.head(segment, &head)?,
                None => return wrong("the segment's head can't be read"),
            },
            Kind::State => match payload::decode_state(payload) {
                Some(state) => {
                    let tail = self.tails.entry(header.group).or_default();
                    tail.hard_state(&state);
                    tail.commit_recorded = tail.state.commit;
                }
                None => return wrong("the hard state can't be read"),
            },
            Kind::Seal => match payload::decode_seal(payload) {
                Some(commits) => commits.iter().for_each(|&(group, commit)| {
                    let tail = self.tails.entry(group).or_default();
                    tail.committed(commit);
                    tail.commit_recorded = tail.state.commit;
                }),
                None => return wrong("the seal can't be read"),
            },
            Kind::Entry => self.entry(segment, offset, header, payload)?,
        }
        self.batch = self.batch.max(header.batch);
        self.synced = self.synced.max(header.synced);
        self.last_kind = header.kind;
        self.report.records += 1;
        Ok(())
    }

    /// Of the first segment the head is where the groups begin; of the others it must say what the records before it say.
    fn head(&mut self, segment: Segment, head: &Head) -> Result<(), OpenError> {
        if head.segment_size != segment.size {
            let text = format!(
                "the file has {} bytes, it was made with {}",
                segment.size, head.segment_size
            );
            return Err(damaged(segment, 0, text));
        }
        let first = self.report.records == 0;
        for group in &head.groups {
            let tail = self.tails.entry(group.group).or_default();
            if first {
                (tail.last, tail.chain) = (group.last, group.chain);
                tail.members = group.members.iter().cloned().collect();
            } else if tail.last != group.last || (group.chain != 0 && tail.chain != 0 && tail.chain != group.chain) {
                let text = "the segment's head says another last entry than the segments before";
                return Err(damaged(segment, 0, text));
            }
            tail.hard_state(&group.state);
            tail.commit_recorded = tail.state.commit;
        }
        Ok(())
    }

    fn entry(&mut self, segment: Segment, offset: u64, header: &Header, payload: &[u8]) -> Result<(), OpenError> {
        let wrong = |text: &str| Err(damaged(segment, offset, text));
        let at = LogPosition {
            term: header.term,
            index: header.index,
        };
        let (last, last_chain) = match self.tails.get(&header.group) {
            Some(tail) => (tail.last, tail.chain),
            None => (LogPosition::default(), 0),
        };
        if at.index == LogIndex(0) || at.index > last.index.next() {
            return wrong("an entry is missing before this one");
        }
        let (before, before_term) = if at.index == last.index.next() {
            (last_chain, last.term)
        } else if at.index == LogIndex(1) {
            (0, Term(0))
        } else {
            match self.written(header.group, at.index.previous())? {
                Some(previous) => (previous.chain, previous.term),
                None => return wrong("the entry before this one isn't in the log"),
            }
        };
        if at.term < before_term {
            return wrong("the entry's term is before that of the entry before it");
        }
        // A node that cut its log where it keeps nothing in memory writes entries without a check, as 0, until it learns it
        // from a leader. From the records before, the check is known all the same.
        let known = before != 0 || at.index == LogIndex(1);
        let computed = known.then(|| chain(before, at.term, at.index, header.entry_kind, payload));
        if header.chain != 0 && computed.is_some_and(|computed| computed != header.chain) {
            return wrong("the entry isn't the one that followed the entry before it");
        }
        let check = if header.chain == 0 {
            computed.unwrap_or(0)
        } else {
            header.chain
        };
        let tail = self.tails.entry(header.group).or_default();
        tail.entry(at, header.entry_kind, payload, check);
        self.index.put(header.group, at.index, header.lsn);
        self.report.entries += 1;
        Ok(())
    }

    /// The header of an entry that was walked over.
    fn written(&self, group: GroupId, index: LogIndex) -> Result<Option<Header>, OpenError> {
        let Some(lsn) = self.index.find(group, index) else {
            return Ok(None);
        };
        let holds = |segment: &Segment| segment.base <= lsn && lsn < segment.end();
        let Some((segment, file)) = self.segments.iter().find(|(segment, _)| holds(segment)) else {
            return Ok(None);
        };
        let mut bytes = [0; RECORD_HEADER_BYTES];
        let read = file.read_at(&mut bytes, lsn.0 - segment.base.0);
        read.map_err(|error| in_file(&segment.file())(error))?;
        match record::parse_header(&bytes, lsn, self.directory) {
            ParsedHeader::Good(header, _) => Ok(Some(header)),
            _ => Ok(None),
        }
    }
}
