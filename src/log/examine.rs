//! What recovery would find, found without changing anything: the same walk over all records, from the beginning of the log, and nothing
//! cut, written or removed after it.

use super::disk::{Disk, DiskFile};
use super::recovery::{OpenError, Opens, Report, in_file, index_of, is_behind, missing, untrusted};
use super::segment::{self, FOLDER, Segment};
use super::start::{can_leave_out, read_heads, walk_from};
use super::walk::Walk;
use super::{HardState, Recovered};
use crate::cluster::message::LogPosition;
use crate::types::{DirectoryId, GroupId, Lsn};

/// What a start would find.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Where the log begins: the segments before are void.
    pub begin: Lsn,
    /// Where its good records end.
    pub end: Lsn,
    /// What there is of each group.
    pub groups: Vec<(GroupId, Recovered)>,
    /// What recovery would say.
    pub report: Report,
    /// The checkpoint isn't the log's, which would have to begin anew behind it.
    pub behind: bool,
}

/// The segments of a log, ascending.
///
/// # Errors
/// What the disk says; `Untrusted` if one overlaps another.
pub fn segments<D: Disk>(disk: &D) -> Result<Vec<Segment>, OpenError> {
    let mut segments: Vec<Segment> = Vec::new();
    for base in disk
        .list(FOLDER)
        .map_err(in_file(FOLDER))?
        .iter()
        .filter_map(|name| segment::base_of(name))
    {
        let name = segment::file_name(base);
        let size = disk.open(&name).and_then(|file| file.size()).map_err(in_file(&name))?;
        let segment = Segment { base, size };
        let after = segments.last().map_or(Lsn(0), |before| before.end());
        if base < after || base.0.checked_add(size).is_none() {
            return Err(untrusted(segment, 0, "it overlaps another segment"));
        }
        segments.push(segment);
    }
    Ok(segments)
}

/// Walks over the log of a directory. `reached` and `checkpoint` are as in [`Options`](super::recovery::Options).
///
/// # Errors
/// [`OpenError`], as opening the log would give it.
pub fn examine<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    reached: Lsn,
    checkpoint: Option<LogPosition>,
) -> Result<Examined, OpenError> {
    let open = |segment: Segment| {
        let file = disk.open(&segment.file()).map_err(in_file(&segment.file()))?;
        Ok((segment, file))
    };
    let segments: Vec<Opens<D>> = segments(disk)?
        .into_iter()
        .map(open)
        .collect::<Result<_, OpenError>>()?;
    if segments.is_empty() {
        return Err(missing(Lsn(0)));
    }
    let heads = read_heads(directory, &segments)?;
    // Segments with an index file could be skipped, and a start skips them; here everything is to be read.
    let groups = [GroupId::ROOT];
    let mut not_before = 0;
    let (from, mut walk, stop) = loop {
        let from = walk_from(&segments, &heads, &[], checkpoint, not_before)?;
        let index = index_of(&heads, from.0, &[]);
        let mut walk = Walk::new(directory, &segments, &heads, from, reached, &groups, index);
        match walk.run() {
            Err(_) if walk.begins_void() && can_leave_out(&heads, from.0, checkpoint) => not_before = from.0 + 1,
            stop => break (from, walk, stop?),
        }
    };
    let segment = segments[stop.at].0;
    if stop.at == from.1 && stop.offset == 0 {
        return Err(untrusted(segment, 0, "the log's first record can't be read"));
    }
    let rest = walk.rest(&stop)?;
    let (_, _, mut report, _) = walk.finish();
    let end = Lsn(segment.base.0 + stop.offset);
    if end < reached {
        let text = format!("the log ends at position {end}, and has been at {reached} before");
        return Err(untrusted(segment, stop.offset, text));
    }
    report.segments = segments.len();
    report.cut_bytes = rest.cut_bytes;
    report.cut_at = (rest.cut_bytes > 0).then(|| (segment.file(), stop.offset));
    Ok(Examined {
        begin: segments[from.0].0.base,
        end,
        groups: walk
            .tails
            .iter()
            .map(|(&group, tail)| (group, tail.recovered()))
            .collect(),
        report,
        behind: checkpoint.is_some_and(|at| is_behind(&walk.tails, at)),
    })
}

impl Examined {
    /// The hard state of a group.
    #[must_use]
    pub fn state(&self, group: GroupId) -> Option<HardState> {
        let found = self.groups.iter().find(|(other, _)| *other == group);
        found.map(|(_, recovered)| recovered.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::segment::file_name;
    use crate::log::testing::{Bench, DIRECTORY, SEGMENT};

    #[test]
    fn what_is_examined_is_what_a_start_finds_and_nothing_is_written() {
        let mut bench = Bench::new();
        while bench.log.end().0 < 2 * SEGMENT + 500 {
            bench.say(&[&"x".repeat(3000), "short"]);
        }
        let last = bench
            .log
            .index()
            .read()
            .find(GroupId::ROOT, crate::types::LogIndex(bench.model.last()))
            .unwrap();
        let base = last.0 / SEGMENT * SEGMENT;
        for damage in [None, Some((0, 3000)), Some((base, last.0 - base + 65)), Some((0, 5))] {
            let disk = bench.disk.copy();
            if let Some((base, offset)) = damage {
                disk.flip_bit(&file_name(Lsn(base)), offset, 1);
            }
            let before = disk.bytes_written();
            let examined = examine(&disk, DIRECTORY, Lsn(0), None);
            assert_eq!(disk.bytes_written(), before);
            match (examined, crate::log::testing::try_open(&disk)) {
                (Ok(examined), Ok(opened)) => {
                    assert_eq!(examined.groups, opened.groups, "{damage:?}");
                    assert_eq!(examined.report.damaged, opened.report.damaged);
                    assert_eq!(examined.report.cut_at, opened.report.cut_at);
                    assert_eq!(
                        examined.report.damages > 0,
                        damage.is_some_and(|(base, _)| base == 0),
                        "{damage:?}"
                    );
                }
                (Err(ours), Err(theirs)) => assert_eq!(ours.to_string(), theirs.to_string()),
                other => panic!("{damage:?}: {other:?}"),
            }
        }
    }
}
