//! What a walk that begins late must know of the segments that it skips: from their index files which entries stand in them, and from a
//! few headers where terms begin.

use super::disk::{Disk, DiskFile};
use super::index::Sealed;
use super::record::{self, Kind, ParsedHeader};
use super::recovery::{OpenError, Opens};
use super::sealed::SealedFile;
use crate::limits::RECORD_HEADER_BYTES;
use crate::types::{DirectoryId, LogIndex, Lsn, Term};

/// A full segment with a good index file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Indexed {
    /// Its entries.
    pub sealed: Sealed,
    /// Where terms begin in it: the first entry, and each that has another term than the one before.
    pub terms: Vec<(LogIndex, Term)>,
}

/// The segments with good index files, from segment `first` on as far as each follows the one before, but never the last.
///
/// # Errors
/// What the disk says; `Newer` for an index file that a later version of this program wrote.
pub(super) fn indexed<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    segments: &[Opens<D>],
    first: usize,
) -> Result<Vec<Indexed>, OpenError> {
    let mut all: Vec<Indexed> = Vec::new();
    let Some((_, full)) = segments.split_last() else {
        return Ok(all);
    };
    for (segment, _) in full.iter().skip(first) {
        let mut file = match SealedFile::open(disk, directory, *segment) {
            Ok(file) => file,
            Err(error) if error.is_missing() => break,
            Err(error) => match error.into() {
                // It is made anew from the entries.
                OpenError::Untrusted { .. } => break,
                error => return Err(error),
            },
        };
        let sealed = file.head().sealed;
        let follows = all.last().is_none_or(|before| {
            before.sealed.segment.end() == segment.base && before.sealed.last.next() == sealed.first
        });
        if !follows {
            break;
        }
        let mut look = |index: LogIndex| term_at::<D>(&mut file, segments, directory, index);
        let Some(terms) = terms_of(sealed, &mut look) else {
            break;
        };
        all.push(Indexed { sealed, terms });
    }
    Ok(all)
}

/// Where terms begin among the entries, which have terms that never go down; `None` if a header can't be read.
fn terms_of(sealed: Sealed, look: &mut dyn FnMut(LogIndex) -> Option<Term>) -> Option<Vec<(LogIndex, Term)>> {
    if !sealed.has_entries() {
        return Some(Vec::new());
    }
    let mut terms = vec![(sealed.first, look(sealed.first)?)];
    let mut ranges = vec![((sealed.first, terms[0].1), (sealed.last, look(sealed.last)?))];
    while let Some(((low, low_term), (high, high_term))) = ranges.pop() {
        if low_term == high_term {
            continue;
        }
        if low.next() == high {
            terms.push((high, high_term));
            continue;
        }
        let middle = LogIndex(low.0.midpoint(high.0));
        let term = look(middle)?;
        ranges.push(((middle, term), (high, high_term)));
        ranges.push(((low, low_term), (middle, term)));
    }
    terms.sort_unstable();
    Some(terms)
}

fn term_at<D: Disk>(
    file: &mut SealedFile<D::File>,
    segments: &[Opens<D>],
    directory: DirectoryId,
    index: LogIndex,
) -> Option<Term> {
    let lsn: Lsn = file.places(index, 1).ok()?.first().copied()?;
    let at = segments
        .partition_point(|(segment, _)| segment.base <= lsn)
        .checked_sub(1)?;
    let (segment, data) = &segments[at];
    let offset = lsn.0 - segment.base.0;
    if offset + RECORD_HEADER_BYTES as u64 > segment.size {
        return None;
    }
    let mut bytes = [0; RECORD_HEADER_BYTES];
    data.read_at(&mut bytes, offset).ok()?;
    match record::parse_header(&bytes, lsn, directory) {
        ParsedHeader::Good(header, _) if header.index == index && matches!(header.kind, Kind::Entry | Kind::Fill) => {
            Some(header.term)
        }
        _ => None,
    }
}

/// The terms of entries that were skipped, `skipped`, before those of entries that were walked over, which come after `last`.
pub(super) fn join_terms(
    base: Option<(LogIndex, Term)>,
    skipped: &[Indexed],
    last: LogIndex,
    walked: &[(LogIndex, Term)],
) -> Vec<(LogIndex, Term)> {
    let before = skipped.iter().flat_map(|indexed| indexed.terms.iter().copied());
    let after = walked.iter().copied().filter(|&(first, _)| first > last);
    let mut joined: Vec<(LogIndex, Term)> = Vec::new();
    for (first, term) in base.into_iter().chain(before).chain(after) {
        if joined.last().is_none_or(|&(_, before)| before != term) {
            joined.push((first, term));
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::segment::Segment;
    use crate::types::GroupId;

    #[test]
    fn every_beginning_of_a_term_is_found() {
        let terms = [1, 1, 1, 2, 2, 5, 5, 5, 5, 6, 9];
        let sealed = Sealed {
            segment: Segment {
                base: Lsn(0),
                size: 100,
            },
            group: GroupId::ROOT,
            first: LogIndex(10),
            last: LogIndex(20),
        };
        let found = terms_of(sealed, &mut |index| Some(Term(terms[index.0 as usize - 10])));
        let begins = [(10, 1), (13, 2), (15, 5), (19, 6), (20, 9)];
        assert_eq!(
            found,
            Some(begins.map(|(at, term)| (LogIndex(at), Term(term))).to_vec())
        );
        assert_eq!(terms_of(sealed, &mut |_| None), None);
    }

    #[test]
    fn terms_are_joined_without_repetition() {
        let sealed = Sealed {
            segment: Segment {
                base: Lsn(0),
                size: 100,
            },
            group: GroupId::ROOT,
            first: LogIndex(4),
            last: LogIndex(9),
        };
        let skipped = [Indexed {
            sealed,
            terms: vec![(LogIndex(4), Term(2)), (LogIndex(7), Term(3))],
        }];
        let walked = [(LogIndex(9), Term(3)), (LogIndex(10), Term(3)), (LogIndex(12), Term(4))];
        let joined = join_terms(Some((LogIndex(3), Term(2))), &skipped, LogIndex(9), &walked);
        let expected = [(3, 2), (7, 3), (12, 4)];
        assert_eq!(joined, expected.map(|(at, term)| (LogIndex(at), Term(term))));
    }
}
