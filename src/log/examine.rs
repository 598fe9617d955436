//! What recovery would find, found without changing anything: the same walk over all records, from the beginning of the log, and nothing
//! cut, written or removed after it.

use super::disk::Disk;
use super::recovery::{OpenError, Report, in_file, is_behind, missing};
use super::segment::{FOLDER, Segment};
use super::whole::{open_segments, walk};
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
    let opened = open_segments(disk, &disk.list(FOLDER).map_err(in_file(FOLDER))?)?;
    Ok(opened.into_iter().map(|(segment, _)| segment).collect())
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
    let segments = open_segments(disk, &disk.list(FOLDER).map_err(in_file(FOLDER))?)?;
    if segments.is_empty() {
        return Err(missing(Lsn(0)));
    }
    // Segments with an index file could be skipped, and a start skips them; here everything is to be read.
    let nothing_is_skipped = |_| Ok(Vec::new());
    let whole = walk(
        directory,
        &segments,
        &[GroupId::ROOT],
        reached,
        checkpoint,
        nothing_is_skipped,
    )?;
    let recovered = whole.tails.iter().map(|(&group, tail)| (group, tail.recovered()));
    Ok(Examined {
        begin: segments[whole.first].0.base,
        end: whole.end,
        groups: recovered.collect(),
        report: whole.report,
        behind: checkpoint.is_some_and(|at| is_behind(&whole.tails, at)),
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
