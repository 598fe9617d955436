//! What a server still holds after any end: orderly, killed, without power. Walks all records, tells torn from damaged, cuts
//! what is torn, and writes anew what stands behind the last position that is known to be synced. Only then does any of it count.
//!
//! A batch is written only when the one before is synced, and every record says up to where all was synced when it was
//! written. So with S the highest position that any good record names: a bad record before S was whole once, and is *damaged*; at
//! or after S it may never have been whole, and is *torn*. Cutting a damaged record would take back a promise.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::Recovered;
use super::disk::{Disk, DiskFile};
use super::index::{EntryIndex, SharedIndex};
use super::prewrite::Prewriter;
use super::reader::Reader;
use super::record::{self, ALIGNMENT, Kind, Parsed, ParsedHeader};
use super::segment::{self, FOLDER, Segment, Window, write_zeros};
use super::tail::Tail;
use super::walk::Walk;
use super::writer::{Log, first_head};
use crate::limits::{LOG_UNSYNCED_BYTES_MAX, RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX};
use crate::types::{DirectoryId, GroupId, Lsn};

/// Bytes read at once while walking.
pub(super) const STEP: u64 = 1 << 20;

/// Zeros passed over at once when looking for records behind the end: a multiple of their alignment.
const BLANK: usize = 4096;
/// So many zeros, and a header's: compared at once.
const BLANKS: [u8; BLANK + RECORD_HEADER_BYTES] = [0; BLANK + RECORD_HEADER_BYTES];
const _: () = assert!((BLANK as u64).is_multiple_of(ALIGNMENT));

/// How a log is opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Bytes of a new segment. Those that are there keep their size.
    pub segment_size: u64,
    /// The groups that exist; others that the log knows are found too.
    pub groups: Vec<GroupId>,
    /// A position that the log has reached: one that ends before it has lost something. 0 for a log that is to be made.
    pub reached: Lsn,
}

/// A log that was opened.
#[derive(Debug)]
pub struct Opened<D: Disk> {
    /// For appending.
    pub log: Log<D>,
    /// For reading.
    pub reader: Reader<D>,
    /// What there is of each group. All of it is durable.
    pub groups: Vec<(GroupId, Recovered)>,
    /// What recovery did.
    pub report: Report,
}

/// What recovery did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Report {
    /// Segments that there were.
    pub segments: usize,
    /// Good records that were kept.
    pub records: u64,
    /// Entries among them, void ones too.
    pub entries: u64,
    /// Bytes of a torn end that were cut off.
    pub cut_bytes: u64,
    /// Where they began, if there were any: file and offset.
    pub cut_at: Option<(String, u64)>,
    /// Bytes that were written anew because nothing proved that they were synced.
    pub rewritten_bytes: u64,
}

/// Why a log can't be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Something that was once durable can't be read or makes no sense.
    Damaged {
        /// The file, relative to the data directory.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        text: String,
    },
    /// A later version of this program wrote it.
    Newer {
        /// The file, relative to the data directory.
        file: String,
        /// Where in the file.
        offset: u64,
    },
    /// The disk refused.
    Io {
        /// The file or folder, relative to the data directory.
        file: String,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Damaged { file, offset, text } => write!(f, "damaged: {file} at offset {offset}: {text}"),
            OpenError::Newer { file, offset } => write!(
                f,
                "{file} at offset {offset}: written by a later version of this program; upgrade it"
            ),
            OpenError::Io { file, error } => write!(f, "{file}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Names the file in an error of the disk.
pub(super) fn in_file(file: &str) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let file = file.to_owned();
    move |error| OpenError::Io { file, error }
}

pub(super) fn damaged(segment: Segment, offset: u64, text: impl Into<String>) -> OpenError {
    OpenError::Damaged {
        file: segment.file(),
        offset,
        text: text.into(),
    }
}

/// A segment and its file.
pub(super) type Opens<D> = (Segment, <D as Disk>::File);

/// The place at which the walk stopped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stop {
    /// The number of the segment.
    pub at: usize,
    /// Offset in it: the end of the last good record.
    pub offset: u64,
    /// What is wrong with the record there; `None` if nothing was written there.
    pub bad: Option<&'static str>,
}

impl<D: Disk> Log<D> {
    /// Opens the log of a data directory; makes it if there is none. The id must be the directory's own, for ever.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was changed if it is `Damaged` or `Newer`.
    pub fn open(disk: D, directory: DirectoryId, options: &Options) -> Result<Opened<D>, OpenError> {
        let mut segments = find_segments(&disk)?;
        if segments.is_empty() && options.reached > Lsn(0) {
            // Perhaps only a file system that isn't mounted: making a new log would forget every vote and entry.
            return Err(missing(Lsn(0)));
        }
        if segments.is_empty() {
            let first = Segment {
                base: Lsn(0),
                size: options.segment_size,
            };
            // With its head in it before it has its name: no later look can find a first segment without one.
            let head = first_head(directory, first, &options.groups);
            let file = segment::create(&disk, first, &head).map_err(in_file(&first.file()))?;
            segments.push((first, file));
        }
        let mut walk = Walk::new(directory, &segments, &options.groups);
        let stop = walk.run()?;
        let rest = survey(directory, &segments, &stop)?;
        check_torn(directory, &segments, &stop, &rest)?;
        let (batch, last_kind, mut report, index) = walk.finish();
        let Walk { synced, mut tails, .. } = walk;

        let (segment, _) = segments[stop.at];
        let end = Lsn(segment.base.0 + stop.offset);
        if end < options.reached {
            let text = format!(
                "the log ends at position {end}, and has been at {} before",
                options.reached
            );
            return Err(damaged(segment, stop.offset, text));
        }
        report.segments = segments.len();
        report.cut_bytes = rest.cut_bytes;
        report.cut_at = (rest.cut_bytes > 0).then(|| (segment.file(), stop.offset));
        report.rewritten_bytes = make_durable(&disk, &mut segments, &stop, synced, rest.used)?;
        for tail in tails.values_mut() {
            tail.state = tail.recovered().state;
        }
        let groups = tails.iter().map(|(&group, tail)| (group, tail.recovered())).collect();
        let mut log = assemble(
            disk.clone(),
            directory,
            options.segment_size,
            tails,
            index,
            segments,
            end,
        )?;
        log.batch = batch.max(rest.batch) + 1;
        // A log that ends with a seal has nothing else that isn't proved to be durable; another would only make it grow.
        log.unsealed = last_kind != Kind::Seal;
        if log.unsealed {
            log.close().map_err(in_file(FOLDER))?;
        }
        let reader = Reader::new(disk, directory, log.shared.clone());
        Ok(Opened {
            log,
            reader,
            groups,
            report,
        })
    }
}

/// All segments, ascending. Segments in the making are removed.
fn find_segments<D: Disk>(disk: &D) -> Result<Vec<Opens<D>>, OpenError> {
    let names = match disk.list(FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.create_folder(FOLDER).map_err(in_file(FOLDER))?;
            Vec::new()
        }
        names => names.map_err(in_file(FOLDER))?,
    };
    let mut segments: Vec<Opens<D>> = Vec::new();
    for name in names {
        let path = format!("{FOLDER}/{name}");
        if segment::is_temporary(&name) {
            disk.remove(&path).map_err(in_file(&path))?;
        }
        let Some(base) = segment::base_of(&name) else {
            continue;
        };
        let file = disk.open(&path).map_err(in_file(&path))?;
        let size = file.size().map_err(in_file(&path))?;
        let after = segments.last().map_or(Lsn(0), |(before, _)| before.end());
        let segment = Segment { base, size };
        if segments.is_empty() && base != Lsn(0) {
            return Err(missing(Lsn(0)));
        }
        if base < after || base.0.checked_add(size).is_none() {
            return Err(damaged(segment, 0, "it overlaps another segment"));
        }
        segments.push((segment, file));
    }
    Ok(segments)
}

fn missing(base: Lsn) -> OpenError {
    OpenError::Damaged {
        file: segment::file_name(base),
        offset: 0,
        text: "the segment is missing".to_owned(),
    }
}

/// What stands behind the place at which the walk stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Rest {
    /// The highest synced position that a good record names.
    synced: Lsn,
    /// Whether there is a good record in the segment of the stop.
    good_here: bool,
    /// The highest batch of a good record.
    batch: u64,
    /// Offset in the segment of the stop behind which all is zero.
    used: u64,
    /// Bytes from the stop to the last one that isn't zero, of all segments.
    cut_bytes: u64,
}

/// Looks for good records behind the stop, at every place where one can begin.
fn survey<F: DiskFile>(directory: DirectoryId, segments: &[(Segment, F)], stop: &Stop) -> Result<Rest, OpenError> {
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
                rest.good_here |= here;
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

/// An error unless everything behind the stop may be cut off.
fn check_torn<F: DiskFile>(
    directory: DirectoryId,
    segments: &[(Segment, F)],
    stop: &Stop,
    rest: &Rest,
) -> Result<(), OpenError> {
    let (segment, _) = &segments[stop.at];
    let end = Lsn(segment.base.0 + stop.offset);
    if stop.at == 0 && stop.offset == 0 {
        // The first segment never was without its head. Cutting here would wipe the whole log, for example one that
        // belongs to another directory's id.
        return Err(damaged(*segment, 0, "the log's first record can't be read"));
    }
    if rest.synced <= end {
        return Ok(());
    }
    let hole = "nothing is here, but there are good records after it";
    match (stop.bad, segments.get(stop.at + 1)) {
        (Some(text), _) => Err(damaged(*segment, stop.offset, text)),
        (None, _) if rest.good_here => Err(damaged(*segment, stop.offset, hole)),
        (None, Some((next, file))) if next.base == segment.end() => {
            let mut window = Window::new(file, next.size, STEP);
            let need = RECORD_HEADER_BYTES + RECORD_PAYLOAD_BYTES_MAX;
            let bytes = window.at(0, need).map_err(in_file(&next.file()))?;
            match record::parse(bytes, next.base, directory) {
                Parsed::Record(..) => Err(damaged(*segment, stop.offset, hole)),
                _ => Err(damaged(*next, 0, "the segment's first record can't be read")),
            }
        }
        (None, _) => Err(missing(segment.end())),
    }
}

/// Writes anew what nothing proves to be durable, wipes what stands behind the end, removes the segments after it, and syncs.
/// After a failed sync the system shows bytes that are not on the disk; reading them proves nothing, writing them again does.
fn make_durable<D: Disk>(
    disk: &D,
    segments: &mut Vec<Opens<D>>,
    stop: &Stop,
    synced: Lsn,
    used: u64,
) -> Result<u64, OpenError> {
    let (segment, file) = &segments[stop.at];
    let name = segment.file();
    let from = synced.0.max(segment.base.0) - segment.base.0;
    let mut offset = from;
    while offset < stop.offset {
        let mut bytes = vec![0; (stop.offset - offset).min(STEP) as usize];
        file.read_at(&mut bytes, offset).map_err(in_file(&name))?;
        file.write_at(&bytes, offset).map_err(in_file(&name))?;
        offset += bytes.len() as u64;
    }
    // Zeros may not be on the disk either: records of a torn batch that an earlier recovery wiped, and was killed. Later
    // records could line up with them.
    let wiped = (stop.offset + LOG_UNSYNCED_BYTES_MAX as u64).max(used);
    write_zeros(file, stop.offset, wiped.min(segment.size)).map_err(in_file(&name))?;
    file.sync_data().map_err(in_file(&name))?;
    for (later, _) in segments.drain(stop.at + 1..) {
        disk.remove(&later.file()).map_err(in_file(&later.file()))?;
    }
    disk.sync_dir(FOLDER).map_err(in_file(FOLDER))?;
    Ok(stop.offset - from)
}

fn assemble<D: Disk>(
    disk: D,
    directory: DirectoryId,
    segment_size: u64,
    tails: BTreeMap<GroupId, Tail>,
    mut index: EntryIndex,
    mut segments: Vec<Opens<D>>,
    end: Lsn,
) -> Result<Log<D>, OpenError> {
    for (segment, _) in &segments {
        index.put_segment(*segment);
    }
    let (segment, file) = segments.pop().ok_or_else(|| missing(Lsn(0)))?;
    let mut log = Log {
        directory,
        segment_size,
        shared: SharedIndex::new(index),
        prewriter: Prewriter::new(disk),
        tails,
        segment,
        file,
        end,
        synced: end,
        batch: 0,
        buffer: Vec::new(),
        entries: Vec::new(),
        unsynced: false,
        unsealed: false,
        taken: None,
        written: None,
        failed: None,
    };
    log.want_next();
    Ok(log)
}
