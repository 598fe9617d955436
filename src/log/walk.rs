//! The walk over all records of the log: what each means for its group, and whether it fits to those before it. Goes on behind damage
//! below what was synced; what the damage leaves open is in `doubt`.

use std::collections::{BTreeMap, BTreeSet};

use super::disk::DiskFile;
use super::doubt::{Doubt, position};
use super::index::EntryIndex;
use super::payload::{self, Head};
use super::record::{self, ALIGNMENT, Header, Kind, Parsed, ParsedHeader};
use super::recovery::{OpenError, Report, STEP, Stop, in_file, missing, untrusted};
use super::segment::{Segment, Window};
use super::survey::{Rest, next_header, survey};
use super::tail::Tail;
use crate::cluster::message::LogPosition;
use crate::limits::RECORD_HEADER_BYTES;
use crate::types::{DirectoryId, GroupId, LogIndex, Lsn};

/// What the records up to some place come to.
#[derive(Debug)]
pub(super) struct Walk<'s, F> {
    directory: DirectoryId,
    segments: &'s [(Segment, F)],
    heads: &'s [Option<Head>],
    /// The numbers of the segment in which the log begins, and of that in which the walk does.
    first: usize,
    start: usize,
    /// The end of every group.
    pub tails: BTreeMap<GroupId, Tail>,
    /// What isn't known of a group.
    pub(super) doubts: BTreeMap<GroupId, Doubt>,
    /// Where the walk began for each group: the last entry before, and the check there.
    pub(super) starts: BTreeMap<GroupId, (LogPosition, u32)>,
    /// An entry makes void what was before the walk began.
    pub(super) void_beginning: bool,
    /// Groups of which a members entry may be hidden.
    pub(super) members_lost: BTreeSet<GroupId>,
    /// The highest position that a record of the walk says was synced.
    pub synced: Lsn,
    /// The highest position that is known to have been synced, from anywhere.
    proved: Lsn,
    /// What stands behind the place at which the walk found no record first, or last.
    surveyed: Option<(Stop, Rest)>,
    pub(super) index: EntryIndex,
    pub(super) batch: u64,
    pub(super) last_kind: Kind,
    pub(super) report: Report,
}

/// How a segment ends.
enum End {
    /// The log goes on in the next one.
    Next,
    /// The log ends here.
    Stop(Stop),
}

impl<'s, F: DiskFile> Walk<'s, F> {
    /// At the beginning of segment `start`. The log itself begins with segment `first`, and has been at `reached`; `index` knows what
    /// stands between the two.
    pub fn new(
        directory: DirectoryId,
        segments: &'s [(Segment, F)],
        heads: &'s [Option<Head>],
        (first, start): (usize, usize),
        reached: Lsn,
        groups: &[GroupId],
        index: EntryIndex,
    ) -> Walk<'s, F> {
        Walk {
            directory,
            segments,
            heads,
            first,
            start,
            tails: groups.iter().map(|&group| (group, Tail::default())).collect(),
            doubts: BTreeMap::new(),
            starts: BTreeMap::new(),
            void_beginning: false,
            members_lost: BTreeSet::new(),
            synced: Lsn(0),
            proved: reached,
            surveyed: None,
            index,
            batch: 0,
            last_kind: Kind::Head,
            report: Report::default(),
        }
    }

    /// Walks to the end of the log: the first place without a good record that isn't damage.
    pub fn run(&mut self) -> Result<Stop, OpenError> {
        let mut at = self.start;
        loop {
            match self.segment(at)? {
                End::Next => at += 1,
                End::Stop(stop) => {
                    self.check_doubts()?;
                    return Ok(stop);
                }
            }
        }
    }

    /// Whether the walk failed because it began where the log does, and that is no place to begin: what the head names as the last
    /// entry before is made void by one that comes after.
    pub fn begins_void(&self) -> bool {
        self.void_beginning && self.first == self.start
    }

    /// What stands behind the end of the log.
    pub fn rest(&mut self, stop: &Stop) -> Result<Rest, OpenError> {
        match self.surveyed.take() {
            Some((at, rest)) if at == *stop => Ok(rest),
            _ => survey(self.directory, self.segments, stop),
        }
    }

    /// The highest batch, the kind of the last record, the report, the index.
    pub fn finish(&mut self) -> (u64, Kind, Report, EntryIndex) {
        let report = std::mem::take(&mut self.report);
        (self.batch, self.last_kind, report, std::mem::take(&mut self.index))
    }

    fn segment(&mut self, at: usize) -> Result<End, OpenError> {
        let (segment, file) = &self.segments[at];
        let mut window = Window::new(file, segment.size, STEP);
        let (mut offset, mut need) = (0, RECORD_HEADER_BYTES);
        loop {
            let bytes = window.at(offset, need);
            let bytes = bytes.map_err(|error| in_file(&segment.file())(error))?;
            let lsn = Lsn(segment.base.0 + offset);
            let fits = |whole: usize| offset + whole as u64 <= segment.size;
            let text = match record::parse(bytes, lsn, self.directory) {
                Parsed::Record(header, payload, size) => {
                    self.record(at, offset, &header, payload)?;
                    (offset, need) = (offset + size as u64, RECORD_HEADER_BYTES);
                    continue;
                }
                Parsed::Short(whole) if fits(whole) => {
                    need = whole;
                    continue;
                }
                Parsed::Unknown => {
                    return Err(OpenError::Newer {
                        file: segment.file(),
                        offset,
                    });
                }
                Parsed::BadBody(header, size) => {
                    let stop = Stop { at, offset };
                    if !self.was_synced(lsn, &stop)? {
                        return Ok(End::Stop(stop));
                    }
                    // Its length can be trusted, so nothing that lies in its payload is taken for a record.
                    self.broken(*segment, offset, &header, size)?;
                    (offset, need) = (offset + size as u64, RECORD_HEADER_BYTES);
                    continue;
                }
                Parsed::Nothing if self.next_begins(at) == Some(lsn) => return Ok(End::Next),
                Parsed::Nothing => "nothing is here, but there are records after it",
                Parsed::Short(_) => "the record is longer than its segment",
                Parsed::BadHeader => "the header of a record doesn't match its check",
            };
            let stop = Stop { at, offset };
            if !self.was_synced(lsn, &stop)? {
                return Ok(End::Stop(stop));
            }
            let Some(next) = next_header(self.directory, *segment, file, offset + ALIGNMENT)? else {
                return self.hidden_end(at, offset, text);
            };
            self.hidden(*segment, offset, next, text);
            (offset, need) = (next, RECORD_HEADER_BYTES);
        }
    }

    /// Something was synced behind `offset`, and the segment has no record there any more.
    fn hidden_end(&mut self, at: usize, offset: u64, text: &str) -> Result<End, OpenError> {
        let (segment, _) = self.segments[at];
        match self.segments.get(at + 1) {
            None => Err(untrusted(segment, offset, text)),
            Some((next, _)) if next.base != segment.end() => Err(missing(segment.end())),
            Some(_) if self.next_begins(at).is_some_and(|end| end.0 < segment.base.0 + offset) => {
                let text = "the next segment's head says that this one ends before";
                Err(untrusted(segment, offset, text))
            }
            Some(_) => {
                let text = match self.next_begins(at) {
                    Some(_) => text,
                    // Perhaps only that is damaged. But that the segment ends here is known from nothing else.
                    None => {
                        "where the records of the segment end can't be told, since the head of the next one can't be read"
                    }
                };
                self.hidden(segment, offset, segment.size, text);
                Ok(End::Next)
            }
        }
    }

    /// Where the records of this segment end, as the head of the next one says; `None` if that can't be read.
    fn next_begins(&self, at: usize) -> Option<Lsn> {
        let (segment, (next, _)) = (self.segments[at].0, self.segments.get(at + 1)?);
        let head = self.heads.get(at + 1)?.as_ref()?;
        (next.base == segment.end()).then_some(head.previous_end)
    }

    /// Whether all before this position, and a record at it, was whole once. For that all that stands behind it is looked at, but
    /// only once: it may be that a good record says so.
    fn was_synced(&mut self, lsn: Lsn, stop: &Stop) -> Result<bool, OpenError> {
        if self.surveyed.is_none() && lsn >= self.proved.max(self.synced) {
            let rest = survey(self.directory, self.segments, stop)?;
            self.proved = self.proved.max(rest.synced);
            self.surveyed = Some((stop.clone(), rest));
        }
        Ok(lsn < self.proved.max(self.synced))
    }

    fn record(&mut self, at: usize, offset: u64, header: &Header, payload: &[u8]) -> Result<(), OpenError> {
        let (segment, _) = self.segments[at];
        let wrong = |text: &str| Err(untrusted(segment, offset, text));
        if (offset == 0) != (header.kind == Kind::Head) {
            return wrong("a segment has its head at its beginning and nowhere else");
        }
        match header.kind {
            Kind::Head => match payload::decode_head(payload) {
                Some(head) if at == self.start => self.first_head(&head),
                Some(head) => self.head(segment, &head)?,
                None => return wrong("the segment's head can't be read"),
            },
            Kind::State => match payload::decode_state(payload) {
                Some(state) => {
                    self.told(segment, offset, header.group, position(header), header.chain)?;
                    self.state(header.group, &state);
                }
                None => return wrong("the hard state can't be read"),
            },
            Kind::Seal => match payload::decode_seal(payload) {
                Some(groups) => {
                    for group in groups {
                        self.told(segment, offset, group.group, group.last, group.chain)?;
                        self.state(group.group, &group.state);
                    }
                }
                None => return wrong("the seal can't be read"),
            },
            Kind::Entry => self.entry(segment, offset, header, Some(payload))?,
            Kind::Fill => self.fill(segment, offset, header, Some(payload))?,
        }
        self.batch = self.batch.max(header.batch);
        self.synced = self.synced.max(header.synced);
        self.last_kind = header.kind;
        self.report.records += 1;
        Ok(())
    }

    fn state(&mut self, group: GroupId, state: &super::HardState) {
        let tail = self.tails.entry(group).or_default();
        tail.hard_state(state);
        tail.commit_recorded = tail.state.commit;
        self.state_settled(group);
    }

    /// Where the walk begins, and the log where its first segment does.
    fn first_head(&mut self, head: &Head) {
        let bases: BTreeMap<GroupId, (LogPosition, u32)> = match self.heads.get(self.first) {
            Some(Some(first)) => first.groups.iter().map(|g| (g.group, (g.last, g.chain))).collect(),
            _ => BTreeMap::new(),
        };
        for group in &head.groups {
            let tail = self.tails.entry(group.group).or_default();
            (tail.base, tail.base_chain) = bases.get(&group.group).copied().unwrap_or_default();
            tail.start(group.last, group.chain, group.members.clone());
            self.starts.insert(group.group, (group.last, group.chain));
            self.state(group.group, &group.state);
        }
    }

    /// A head says what the records before it say, or that the group begins anew.
    fn head(&mut self, segment: Segment, head: &Head) -> Result<(), OpenError> {
        for group in &head.groups {
            if group.anew {
                let tail = self.tails.entry(group.group).or_default();
                tail.begin(group.last, group.chain, group.members.clone());
                self.index.begin(group.group, group.last.index);
                self.starts.insert(group.group, (group.last, group.chain));
                self.doubts.remove(&group.group);
                self.members_lost.remove(&group.group);
            } else {
                self.told(segment, 0, group.group, group.last, group.chain)?;
                if let Some(first) = group.members.first() {
                    let tail = self.tails.entry(group.group).or_default();
                    tail.members.retain(|members| members.index < first.index);
                    tail.members.extend(group.members.iter().cloned());
                }
            }
            self.state(group.group, &group.state);
        }
        Ok(())
    }

    /// The header of an entry that was walked over.
    pub(super) fn written(&self, group: GroupId, index: LogIndex) -> Result<Option<Header>, OpenError> {
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
