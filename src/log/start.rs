//! Where recovery begins to walk: the heads of all segments are read first, and say which of the segments still matter.

use super::disk::{Disk, DiskFile};
use super::index::Sealed;
use super::payload::{self, Head};
use super::record::{self, Kind, Parsed};
use super::recovery::{OpenError, STEP, in_file, missing, untrusted};
use super::segment::{Segment, Window};
use crate::cluster::message::LogPosition;
use crate::limits::RECORD_HEADER_BYTES;
use crate::types::{DirectoryId, GroupId, LogIndex, Lsn};

/// The heads of the segments; `None` where none can be read.
///
/// # Errors
/// `Newer`, for a head that a later version of this program wrote; `Untrusted` if a file isn't as long as its head says.
pub(super) fn read_heads<F: DiskFile>(
    directory: DirectoryId,
    segments: &[(Segment, F)],
) -> Result<Vec<Option<Head>>, OpenError> {
    segments
        .iter()
        .map(|(segment, file)| read_head(directory, *segment, file))
        .collect()
}

fn read_head<F: DiskFile>(directory: DirectoryId, segment: Segment, file: &F) -> Result<Option<Head>, OpenError> {
    // A few kilobytes are enough for nearly every head; the walk itself takes larger steps.
    let mut window = Window::new(file, segment.size, STEP.min(16 * 1024));
    let mut need = RECORD_HEADER_BYTES;
    loop {
        let bytes = window.at(0, need).map_err(in_file(&segment.file()))?;
        return match record::parse(bytes, segment.base, directory) {
            Parsed::Short(whole) if whole as u64 <= segment.size => {
                need = whole;
                continue;
            }
            Parsed::Record(header, payload, _) if header.kind == Kind::Head => {
                let head = payload::decode_head(payload);
                if let Some(head) = head.as_ref().filter(|head| head.segment_size != segment.size) {
                    let (is, was) = (segment.size, head.segment_size);
                    let text = format!("the file has {is} bytes, it was made with {was}");
                    return Err(untrusted(segment, 0, text));
                }
                Ok(head)
            }
            Parsed::Unknown => Err(OpenError::Newer {
                file: segment.file(),
                offset: 0,
            }),
            _ => Ok(None),
        };
    }
}

/// The number of the first segment that belongs to the log: those before are void.
pub(super) fn first_of(heads: &[Option<Head>]) -> usize {
    let anew = |head: &Head| !head.groups.is_empty() && head.groups.iter().all(|group| group.anew);
    let first = heads.iter().rposition(|head| head.as_ref().is_some_and(anew));
    first.unwrap_or(0)
}

/// The number of the segment that the walk begins with, and of the first that belongs to the log: those before are void. `indexed` are
/// the segments whose entries are known without walking over them. The log begins with segment `not_before` or a later one.
///
/// The walk can begin at a segment if what stands before isn't needed: the state is known up to a checkpoint that covers the entries
/// before, the head repeats hard state and members, and the places of the entries before are known. Nothing that is skipped can still be
/// made void: it is committed.
///
/// # Errors
/// `Untrusted` if a segment is missing, or the first is and no checkpoint covers its entries.
pub(super) fn walk_from<F>(
    segments: &[(Segment, F)],
    heads: &[Option<Head>],
    indexed: &[Sealed],
    checkpoint: Option<LogPosition>,
    not_before: usize,
) -> Result<(usize, usize), OpenError> {
    let known = |segment: Segment| indexed.iter().find(|sealed| sealed.segment == segment);
    let mut first = not_before;
    let covered = checkpoint.map_or(LogIndex(0), |at| at.index);
    while let Some((segment, _)) = segments.get(first)
        && let Some(Some(head)) = heads.get(first)
        && (last_of(head) > covered || known(*segment).is_some_and(|sealed| sealed.first <= last_of(head)))
        && can_leave_out(heads, first, checkpoint)
    {
        first += 1;
    }
    let Some((segment, _)) = segments.get(first) else {
        return Err(missing(Lsn(0)));
    };
    match heads.get(first).and_then(Option::as_ref) {
        // The first of all begins with nothing, so its head can be done without.
        None if segment.base == Lsn(0) => {}
        None => return Err(untrusted(*segment, 0, "the log's first head can't be read")),
        Some(head) if last_of(head) > covered => {
            let text = format!(
                "the log begins behind entry {}, and what was before is in no checkpoint",
                last_of(head)
            );
            return Err(untrusted(*segment, 0, text));
        }
        Some(_) => {}
    }
    let mut start = first;
    for at in first + 1..segments.len() {
        let (before, segment) = (segments[at - 1].0, segments[at].0);
        let Some(last) = known(before)
            .filter(|_| before.end() == segment.base)
            .map(|sealed| sealed.last)
        else {
            break;
        };
        // Where the last entries before are void, the walk must see what makes them so.
        let begins = |head: &Head| last_of(head) <= covered && last_of(head) == last;
        if heads[at].as_ref().is_some_and(begins) {
            start = at;
        }
    }
    Ok((first, start))
}

/// Whether the log can begin behind a segment: the checkpoint covers everything before a later one.
///
/// A head may name as the last entry one that the entries after it make void. The log never begins with such a segment, but for the
/// moment in which those before it have been removed and it has not: if the process ends then, it is left out at the next start.
pub(super) fn can_leave_out(heads: &[Option<Head>], at: usize, checkpoint: Option<LogPosition>) -> bool {
    let covered = checkpoint.map_or(LogIndex(0), |at| at.index);
    let begins = |head: &Option<Head>| {
        let last = head.as_ref().map_or(LogIndex(0), last_of);
        last > LogIndex(0) && last <= covered
    };
    heads.iter().skip(at + 1).any(begins)
}

/// The last entry before a segment, as its head has it; `None` if the head can't be read.
///
/// # Errors
/// `Newer`, for a head that a later version of this program wrote; what the disk says; `Untrusted` if the file isn't as long as its
/// head says.
pub fn last_before<D: Disk>(disk: &D, directory: DirectoryId, segment: Segment) -> Result<Option<LogIndex>, OpenError> {
    let file = disk.open(&segment.file()).map_err(in_file(&segment.file()))?;
    Ok(read_head(directory, segment, &file)?.as_ref().map(last_of))
}

/// The last entry before the segment. There is one group today, and one checkpoint.
fn last_of(head: &Head) -> LogIndex {
    let root = head.groups.iter().find(|group| group.group == GroupId::ROOT);
    root.map_or(LogIndex(0), |group| group.last.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tail::Tail;
    use crate::types::Term;

    fn head(base: u64, last: u64, anew: bool) -> (Segment, Option<Head>) {
        let segment = Segment {
            base: Lsn(base),
            size: 100,
        };
        let last = LogPosition {
            term: Term(1),
            index: LogIndex(last),
        };
        let tail = Tail {
            last,
            ..Tail::default()
        };
        let mut group = tail.head(GroupId::ROOT);
        group.anew = anew;
        let head = Head {
            segment_size: 100,
            previous_end: Lsn(base),
            groups: vec![group],
        };
        (segment, Some(head))
    }

    fn sealed(base: u64, first: u64, last: u64) -> Sealed {
        Sealed {
            segment: Segment {
                base: Lsn(base),
                size: 100,
            },
            group: GroupId::ROOT,
            first: LogIndex(first),
            last: LogIndex(last),
        }
    }

    fn from(heads: &[(Segment, Option<Head>)], indexed: &[u64], checkpoint: u64) -> Result<(usize, usize), String> {
        let segments: Vec<(Segment, ())> = heads.iter().map(|(segment, _)| (*segment, ())).collect();
        let only: Vec<Option<Head>> = heads.iter().map(|(_, head)| head.clone()).collect();
        let told = |base: u64| {
            let head = heads.iter().find(|(segment, _)| segment.base.0 == base);
            head.and_then(|(_, head)| head.as_ref())
                .map_or(0, |head| last_of(head).0)
        };
        let indexed: Vec<Sealed> = indexed
            .iter()
            .map(|&base| sealed(base, told(base) + 1, told(base + 100)))
            .collect();
        let checkpoint = LogPosition {
            term: Term(1),
            index: LogIndex(checkpoint),
        };
        walk_from(&segments, &only, &indexed, Some(checkpoint), first_of(&only)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_walk_begins_at_the_newest_segment_that_the_checkpoint_reaches_and_never_skips_what_has_no_index() {
        let mut heads = vec![
            head(0, 0, false),
            head(100, 10, false),
            head(200, 20, false),
            head(300, 30, false),
        ];
        assert_eq!(from(&heads, &[0, 100, 200], 25), Ok((0, 2)));
        assert_eq!(from(&heads, &[0, 100, 200], 30), Ok((0, 3)));
        assert_eq!(from(&heads, &[0, 200], 30), Ok((0, 1)));
        assert_eq!(from(&heads, &[], 30), Ok((0, 0)));
        assert_eq!(from(&heads, &[0, 100, 200], 9), Ok((0, 0)));
        heads[3].1 = None;
        assert_eq!(from(&heads, &[0, 100, 200], 30), Ok((0, 2)));
    }

    #[test]
    fn the_walk_sees_what_makes_the_last_entries_before_it_void() {
        let heads = [head(0, 0, false), head(100, 10, false), head(200, 20, false)];
        let segments: Vec<(Segment, ())> = heads.iter().map(|(segment, _)| (*segment, ())).collect();
        let only: Vec<Option<Head>> = heads.iter().map(|(_, head)| head.clone()).collect();
        let indexed = [sealed(0, 1, 10), sealed(100, 11, 18)];
        let checkpoint = Some(LogPosition {
            term: Term(1),
            index: LogIndex(30),
        });
        assert_eq!(walk_from(&segments, &only, &indexed, checkpoint, 0).unwrap(), (0, 1));
    }

    #[test]
    fn a_segment_that_makes_void_what_its_head_names_is_no_beginning_once_those_before_are_gone() {
        let heads = [head(100, 10, false), head(200, 20, false), head(300, 30, false)];
        let segments: Vec<(Segment, ())> = heads.iter().map(|(segment, _)| (*segment, ())).collect();
        let only: Vec<Option<Head>> = heads.iter().map(|(_, head)| head.clone()).collect();
        let begin = |indexed: &[Sealed], covered: u64| {
            let checkpoint = Some(LogPosition {
                term: Term(1),
                index: LogIndex(covered),
            });
            walk_from(&segments, &only, indexed, checkpoint, 0).unwrap()
        };
        assert_eq!(begin(&[sealed(100, 11, 20)], 20), (0, 1));
        assert_eq!(begin(&[sealed(100, 9, 20)], 20), (1, 1));
        assert_eq!(begin(&[sealed(100, 9, 20)], 19), (0, 0), "the checkpoint doesn't reach");
        assert_eq!(begin(&[sealed(100, 9, 19), sealed(200, 20, 30)], 30), (2, 2));
        // It was to be removed up to entry 9, and names one that came after.
        let heads = [head(100, 10, false), head(200, 9, false)];
        assert_eq!(from(&heads, &[], 9), Ok((1, 1)));
    }

    #[test]
    fn a_new_beginning_is_where_the_log_begins() {
        let heads = [head(100, 10, false), head(200, 90, true), head(300, 95, false)];
        assert_eq!(from(&heads, &[], 92), Ok((1, 1)));
        assert_eq!(from(&heads, &[200], 95), Ok((1, 2)));
    }

    #[test]
    fn a_log_whose_beginning_no_checkpoint_covers_is_not_taken() {
        let heads = [head(100, 10, false), head(200, 20, false)];
        assert_eq!(from(&heads, &[], 10), Ok((0, 0)));
        assert!(from(&heads, &[], 9).unwrap_err().starts_with("damaged: "));
        assert!(from(&[(heads[0].0, None)], &[], 10).is_err());
    }
}
