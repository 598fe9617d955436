//! Looks for records where the walk found none.

use super::disk::DiskFile;
use super::record::{self, ALIGNMENT, ParsedHeader};
use super::recovery::{OpenError, STEP, Stop, in_file};
use super::segment::{Segment, Window};
use crate::limits::RECORD_HEADER_BYTES;
use crate::types::{DirectoryId, Lsn};

/// Zeros passed over at once: a multiple of the alignment of records.
const BLANK: usize = 4096;
/// So many zeros, and a header's: compared at once.
const BLANKS: [u8; BLANK + RECORD_HEADER_BYTES] = [0; BLANK + RECORD_HEADER_BYTES];
const _: () = assert!((BLANK as u64).is_multiple_of(ALIGNMENT));

/// What stands behind the place at which the walk stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rest {
    /// The highest synced position that a good record names.
    pub synced: Lsn,
    /// The highest batch of a good record.
    pub batch: u64,
    /// Offset in the segment of the stop behind which all is zero.
    pub used: u64,
    /// Bytes from the stop to the last one that isn't zero, of all segments.
    pub cut_bytes: u64,
}

/// Looks for good records behind the stop, at every place where one can begin.
pub(super) fn survey<F: DiskFile>(
    directory: DirectoryId,
    segments: &[(Segment, F)],
    stop: &Stop,
) -> Result<Rest, OpenError> {
    let mut rest = Rest::default();
    for (at, (segment, file)) in segments.iter().enumerate().skip(stop.at) {
        let here = at == stop.at;
        let start = if here { stop.offset } else { 0 };
        let (mut offset, mut used) = (start, start);
        let mut window = Window::new(file, segment.size, STEP);
        while offset < segment.size {
            let bytes = window.at(offset, BLANK + RECORD_HEADER_BYTES);
            let bytes = bytes.map_err(|error| in_file(&segment.file())(error))?;
            // Most of it is the zeros of a segment that isn't full: no header begins in them.
            if bytes.len() >= BLANK + RECORD_HEADER_BYTES && bytes[..BLANK + RECORD_HEADER_BYTES] == BLANKS {
                offset += BLANK as u64;
                continue;
            }
            let lsn = Lsn(segment.base.0 + offset);
            let mut step = ALIGNMENT;
            if let ParsedHeader::Good(header, length) = record::parse_header(bytes, lsn, directory) {
                rest.synced = rest.synced.max(header.synced);
                rest.batch = rest.batch.max(header.batch);
                // Its length can be trusted, so nothing that lies in its payload is taken for a record.
                step = record::size(length) as u64;
                used = offset + step;
            } else if bytes.iter().take(ALIGNMENT as usize).any(|&b| b != 0) {
                used = offset + step;
            }
            offset += step;
        }
        used = used.min(segment.size);
        rest.cut_bytes += used - start;
        if here {
            rest.used = used;
        }
    }
    Ok(rest)
}

/// The offset of the first header of a record at or behind `from` in a segment.
pub(super) fn next_header<F: DiskFile>(
    directory: DirectoryId,
    segment: Segment,
    file: &F,
    from: u64,
) -> Result<Option<u64>, OpenError> {
    let mut window = Window::new(file, segment.size, STEP);
    let mut offset = from;
    while offset < segment.size {
        let bytes = window
            .at(offset, BLANK + RECORD_HEADER_BYTES)
            .map_err(in_file(&segment.file()))?;
        if bytes.len() >= BLANK + RECORD_HEADER_BYTES && bytes[..BLANK + RECORD_HEADER_BYTES] == BLANKS {
            offset += BLANK as u64;
            continue;
        }
        let lsn = Lsn(segment.base.0 + offset);
        match record::parse_header(bytes, lsn, directory) {
            // One that this program doesn't know is for the walk to complain about.
            ParsedHeader::Good(..) | ParsedHeader::Unknown => return Ok(Some(offset)),
            ParsedHeader::Nothing | ParsedHeader::Bad => offset += ALIGNMENT,
        }
    }
    Ok(None)
}
