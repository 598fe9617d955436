//! Goes over all records of a log as they stand, for tools that look at a directory of a server that doesn't run. Writes nothing.

use std::io;

use super::disk::{Disk, DiskFile};
use super::record::{self, ALIGNMENT, Header, Parsed, ParsedHeader};
use super::segment::{FOLDER, Segment, Window, base_of, file_name};
use crate::limits::RECORD_HEADER_BYTES;
use crate::types::{DirectoryId, Lsn};

/// Bytes read at once.
const STEP: u64 = 1 << 20;

/// Something that stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen<'a> {
    /// A segment begins.
    Segment(Segment),
    /// Segments are missing between these positions.
    Missing(Lsn, Lsn),
    /// A good record.
    Record(Segment, u64, Header, &'a [u8]),
    /// Bytes that hold no good record: segment, offset, length; the header if that is good. At the end of the log it may be a torn
    /// write, which a start cuts off.
    Damaged(Segment, u64, u64, Option<Header>),
    /// A record of a later version of the program; what follows it in the segment isn't looked at.
    Newer(Segment, u64),
    /// The records of the segment end at this offset.
    End(Segment, u64),
}

/// Shows everything in the log to `visit`, in order, until that says no.
///
/// # Errors
/// What the disk says.
pub fn inspect<D: Disk>(disk: &D, directory: DirectoryId, visit: &mut dyn FnMut(Seen<'_>) -> bool) -> io::Result<()> {
    let mut after = None;
    for base in disk.list(FOLDER)?.iter().filter_map(|name| base_of(name)) {
        let file = disk.open(&file_name(base))?;
        let segment = Segment {
            base,
            size: file.size()?,
        };
        let gap = after.filter(|&end| end != base).map(|end| Seen::Missing(end, base));
        if gap.is_some_and(|gap| !visit(gap)) || !visit(Seen::Segment(segment)) {
            return Ok(());
        }
        if !inspect_segment(segment, &file, directory, visit)? {
            return Ok(());
        }
        after = Some(segment.end());
    }
    Ok(())
}

/// Shows everything in one segment to `visit`, in order, until that says no.
///
/// # Errors
/// What the disk says.
pub fn inspect_one<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    segment: Segment,
    visit: &mut dyn FnMut(Seen<'_>) -> bool,
) -> io::Result<()> {
    let file = disk.open(&segment.file())?;
    inspect_segment(segment, &file, directory, visit).map(|_| ())
}

fn inspect_segment<F: DiskFile>(
    segment: Segment,
    file: &F,
    directory: DirectoryId,
    visit: &mut dyn FnMut(Seen<'_>) -> bool,
) -> io::Result<bool> {
    let mut window = Window::new(file, segment.size, STEP);
    let (mut offset, mut need) = (0, RECORD_HEADER_BYTES);
    loop {
        let bytes = window.at(offset, need)?;
        let lsn = Lsn(segment.base.0 + offset);
        let (seen, length) = match record::parse(bytes, lsn, directory) {
            Parsed::Record(header, payload, size) => (Seen::Record(segment, offset, header, payload), size as u64),
            Parsed::Short(whole) if offset + whole as u64 <= segment.size => {
                need = whole;
                continue;
            }
            Parsed::BadBody(header, size) => {
                let size = size as u64;
                (Seen::Damaged(segment, offset, size, Some(header)), size)
            }
            Parsed::Unknown => return Ok(visit(Seen::Newer(segment, offset))),
            parsed => {
                let nothing = parsed == Parsed::Nothing;
                match next_header(segment, file, directory, offset + ALIGNMENT)? {
                    Some(next) => (Seen::Damaged(segment, offset, next - offset, None), next - offset),
                    None if nothing => return Ok(visit(Seen::End(segment, offset))),
                    None => {
                        let rest = segment.size - offset;
                        return Ok(
                            visit(Seen::Damaged(segment, offset, rest, None)) && visit(Seen::End(segment, offset))
                        );
                    }
                }
            }
        };
        if !visit(seen) {
            return Ok(false);
        }
        (offset, need) = (offset + length, RECORD_HEADER_BYTES);
    }
}

fn next_header<F: DiskFile>(segment: Segment, file: &F, directory: DirectoryId, from: u64) -> io::Result<Option<u64>> {
    let mut window = Window::new(file, segment.size, STEP);
    let mut offset = from;
    while offset < segment.size {
        let lsn = Lsn(segment.base.0 + offset);
        match record::parse_header(window.at(offset, RECORD_HEADER_BYTES)?, lsn, directory) {
            ParsedHeader::Good(..) | ParsedHeader::Unknown => return Ok(Some(offset)),
            ParsedHeader::Nothing | ParsedHeader::Bad => offset += ALIGNMENT,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::Kind;
    use crate::log::testing::{Bench, DIRECTORY, SEGMENT};

    #[test]
    fn all_records_are_shown_and_damage_in_its_place() {
        let mut bench = Bench::new();
        let long = "x".repeat(3000);
        while bench.log.end().0 < 2 * SEGMENT + 100 {
            bench.say(&[&long, "short"]);
        }
        let before = bench.disk.bytes_written();
        let mut entries = Vec::new();
        let (mut segments, mut ends) = (0, 0);
        inspect(&bench.disk, DIRECTORY, &mut |seen| {
            match seen {
                Seen::Record(segment, offset, header, payload) if header.kind == Kind::Entry => {
                    assert_eq!(header.lsn, Lsn(segment.base.0 + offset));
                    entries.push((header.index, payload.to_vec()));
                }
                Seen::Record(..) => {}
                Seen::Segment(_) => segments += 1,
                Seen::End(..) => ends += 1,
                other => panic!("{other:?}"),
            }
            true
        })
        .unwrap();
        let model = bench.model.entries.iter();
        let expected: Vec<_> = model.map(|entry| (entry.index, entry.payload.to_vec())).collect();
        assert_eq!(entries, expected);
        assert_eq!((segments, ends), (3, 3));

        let lsn = bench
            .log
            .index()
            .read()
            .find(crate::log::testing::ROOT, entries[2].0)
            .unwrap();
        bench.disk.flip_bit(&file_name(Lsn(0)), lsn.0 + 70, 1);
        bench.disk.flip_bit(&file_name(Lsn(SEGMENT)), 20, 1);
        bench.disk.remove(&file_name(Lsn(2 * SEGMENT))).unwrap();
        let mut damaged = Vec::new();
        inspect(&bench.disk, DIRECTORY, &mut |seen| {
            if let Seen::Damaged(segment, offset, _, header) = seen {
                damaged.push((segment.base.0 + offset, header.is_some()));
            }
            true
        })
        .unwrap();
        assert_eq!(damaged, [(lsn.0, true), (SEGMENT, false)]);
        assert_eq!(bench.disk.bytes_written(), before);
    }
}
