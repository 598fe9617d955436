//! The walk over a whole log: where it begins, and what it finds. The same for a start, which changes what it must, and for a look that
//! changes nothing.

use std::collections::BTreeMap;

use super::disk::{Disk, DiskFile};
use super::index::{EntryIndex, Sealed};
use super::payload::Head;
use super::record::Kind;
use super::recovery::{OpenError, Opens, Report, Stop, in_file, untrusted};
use super::segment::{self, Segment};
use super::skipped::Indexed;
use super::start::{can_leave_out, first_of, read_heads, walk_from};
use super::survey::Rest;
use super::tail::Tail;
use super::walk::Walk;
use crate::cluster::message::LogPosition;
use crate::types::{DirectoryId, GroupId, Lsn};

/// What there is.
#[derive(Debug)]
pub(super) struct Whole {
    /// The number of the segment in which the log begins.
    pub first: usize,
    /// The segments that were not walked over, for their index files say enough.
    pub skipped: Vec<Indexed>,
    /// Those after them that have index files all the same.
    pub walked: Vec<Indexed>,
    /// Where the good records end.
    pub stop: Stop,
    /// The same, as a position in the log.
    pub end: Lsn,
    /// What stands behind it.
    pub rest: Rest,
    /// The end of every group.
    pub tails: BTreeMap<GroupId, Tail>,
    /// Where the walk began for each group: the last entry before, and the check there.
    pub starts: BTreeMap<GroupId, (LogPosition, u32)>,
    /// Where entries stand.
    pub index: EntryIndex,
    /// The highest position that a record says was synced.
    pub synced: Lsn,
    /// The highest batch.
    pub batch: u64,
    /// The kind of the last record.
    pub last_kind: Kind,
    /// What is to be said of it.
    pub report: Report,
}

/// Opens the segments among these files of the log's folder; they come ascending, as the names do.
///
/// # Errors
/// What the disk says; `Untrusted` if one overlaps another.
pub(super) fn open_segments<D: Disk>(disk: &D, names: &[String]) -> Result<Vec<Opens<D>>, OpenError> {
    let mut segments: Vec<Opens<D>> = Vec::new();
    for base in names.iter().filter_map(|name| segment::base_of(name)) {
        let name = segment::file_name(base);
        let file = disk.open(&name).map_err(in_file(&name))?;
        let size = file.size().map_err(in_file(&name))?;
        let segment = Segment { base, size };
        let after = segments.last().map_or(Lsn(0), |(before, _)| before.end());
        if base < after || base.0.checked_add(size).is_none() {
            return Err(untrusted(segment, 0, "it overlaps another segment"));
        }
        segments.push((segment, file));
    }
    Ok(segments)
}

/// Walks over the log in these segments, of which there is one at least. The log has been at `reached`, and `checkpoint` covers what is
/// before its entry. `indexed` gives the segments with good index files from one on, which needn't be walked over.
///
/// # Errors
/// As opening the log gives them.
pub(super) fn walk<F: DiskFile>(
    directory: DirectoryId,
    segments: &[(Segment, F)],
    groups: &[GroupId],
    reached: Lsn,
    checkpoint: Option<LogPosition>,
    indexed: impl Fn(usize) -> Result<Vec<Indexed>, OpenError>,
) -> Result<Whole, OpenError> {
    let heads = read_heads(directory, segments)?;
    let mut not_before = first_of(&heads);
    let (from, known, mut walk, stop) = loop {
        let mut known = indexed(not_before)?;
        let sealed: Vec<Sealed> = known.iter().map(|known| known.sealed).collect();
        let from = walk_from(segments, &heads, &sealed, checkpoint, not_before)?;
        let begin = segments[from.0].0.base;
        known.retain(|known| known.sealed.segment.base >= begin);
        let walked = known.split_off((from.1 - from.0).min(known.len()));
        let mut index = index_of(&heads, from.0, &known);
        // Perhaps the process ended before the segments before it were removed.
        index.put_beginning(begin);
        let mut walk = Walk::new(directory, segments, &heads, from, reached, groups, index);
        match walk.run() {
            Err(_) if walk.begins_void() && can_leave_out(&heads, from.0, checkpoint) => not_before = from.0 + 1,
            stop => break (from, (known, walked), walk, stop?),
        }
    };
    let segment = segments[stop.at].0;
    if stop == (Stop { at: from.1, offset: 0 }) {
        // The first segment never was without its head. Cutting here would wipe the whole log, for example one that
        // belongs to another directory's id.
        return Err(untrusted(segment, 0, "the log's first record can't be read"));
    }
    let rest = walk.rest(&stop)?;
    let end = Lsn(segment.base.0 + stop.offset);
    if end < reached {
        let text = format!("the log ends at position {end}, and has been at {reached} before");
        return Err(untrusted(segment, stop.offset, text));
    }
    let (batch, last_kind, mut report, index) = walk.finish();
    report.segments = segments.len();
    report.cut_bytes = rest.cut_bytes;
    report.cut_at = (rest.cut_bytes > 0).then(|| (segment.file(), stop.offset));
    let (skipped, walked) = known;
    Ok(Whole {
        first: from.0,
        skipped,
        walked,
        stop,
        end,
        rest,
        tails: walk.tails,
        starts: walk.starts,
        index,
        synced: walk.synced,
        batch,
        last_kind,
        report,
    })
}

/// What the index knows before the walk: where the log begins, and the segments that are skipped.
fn index_of(heads: &[Option<Head>], first: usize, skipped: &[Indexed]) -> EntryIndex {
    let mut index = EntryIndex::default();
    if let Some(Some(head)) = heads.get(first) {
        head.groups
            .iter()
            .for_each(|group| index.begin(group.group, group.last.index));
    }
    skipped.iter().for_each(|known| index.sealed(known.sealed, 0));
    index
}
