//! What a server still holds after any end: orderly, killed, without power. Walks all records, tells torn from damaged, cuts
//! what is torn, and writes anew what stands behind the last position that is known to be synced. Only then does any of it count.
//!
//! A batch is written only when the one before is synced, and every record says up to where all was synced when it was
//! written. So with S the highest position that any good record names: a bad record before S was whole once, and is *damaged*; at
//! or after S it may never have been whole, and is *torn*. Cutting a damaged record would take back a promise, so recovery goes
//! on behind it: entries that can't be read are holes, which others can fill. Where it can't be told what the damage hides (a vote;
//! where the log ends), nothing of the log can be trusted.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::Recovered;
use super::disk::{Disk, DiskFile};
use super::index::{EntryIndex, SharedIndex};
use super::prewrite::Prewriter;
use super::reader::Reader;
use super::record::Kind;
use super::sealed;
use super::segment::{self, FOLDER, Segment, write_zeros};
use super::skipped::{Indexed, indexed, join_terms};
use super::tail::Tail;
use super::whole::{Whole, open_segments, walk};
use super::writer::{Log, first_head};
use crate::cluster::message::{Entry, LogPosition};
use crate::limits::{DAMAGED_PLACES_MAX, LOG_UNSYNCED_BYTES_MAX};
use crate::types::{DirectoryId, GroupId, LogIndex, Lsn};

/// Bytes read at once while walking.
pub(super) const STEP: u64 = 1 << 20;

/// How a log is opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Bytes of a new segment. Those that are there keep their size.
    pub segment_size: u64,
    /// The groups that exist; others that the log knows are found too.
    pub groups: Vec<GroupId>,
    /// A position that the log has reached: one that ends before it has lost something. 0 for a log that is to be made.
    pub reached: Lsn,
    /// The last entry that the newest checkpoint covers, which is durable: what stands before needn't be walked over, as far as its
    /// places are known otherwise.
    pub checkpoint: Option<LogPosition>,
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
    /// The checkpoint isn't the log's: it was installed, and then the process ended. [`begin_anew`](Opened::begin_anew) must come
    /// before anything else; up to then the groups tell of the log as it was.
    pub behind: bool,
}

impl<D: Disk> Opened<D> {
    /// Begins the log of a group anew behind a checkpoint that is durable. Term and vote stay.
    ///
    /// # Errors
    /// What the disk says; the log is then closed.
    pub fn begin_anew(&mut self, group: GroupId, at: LogPosition, chain: u32, members: &Entry) -> io::Result<()> {
        self.log.begin_anew(group, at, chain, members)?;
        self.behind = false;
        let known = self.log.tails.iter().map(|(&group, tail)| (group, tail.recovered()));
        self.groups = known.collect();
        Ok(())
    }
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
    /// Damaged places: file, offset, what is wrong. The first [`DAMAGED_PLACES_MAX`].
    pub damaged: Vec<(String, u64, String)>,
    /// How many there are.
    pub damages: u64,
}

impl Report {
    pub(super) fn damage(&mut self, segment: Segment, offset: u64, text: &str) {
        self.damages += 1;
        if self.damaged.len() < DAMAGED_PLACES_MAX {
            self.damaged.push((segment.file(), offset, text.to_owned()));
        }
    }
}

/// Why a log can't be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Something that was once durable can't be read or makes no sense, and what is left can't be trusted: the directory must be set aside.
    /// (What can be told is a hole, and no error.)
    Untrusted {
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
            OpenError::Untrusted { file, offset, text } => write!(f, "damaged: {file} at offset {offset}: {text}"),
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

pub(super) fn untrusted(segment: Segment, offset: u64, text: impl Into<String>) -> OpenError {
    OpenError::Untrusted {
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
}

impl<D: Disk> Log<D> {
    /// Opens the log of a data directory; makes it if there is none. The id must be the directory's own, for ever.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was changed if it is `Untrusted` or `Newer`.
    pub fn open(disk: D, directory: DirectoryId, options: &Options) -> Result<Opened<D>, OpenError> {
        let mut segments = find_segments(&disk)?;
        if segments.is_empty() && (options.reached > Lsn(0) || options.checkpoint.is_some()) {
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
        let look = |first| indexed(&disk, directory, &segments, first);
        let Whole {
            skipped,
            walked,
            stop,
            end,
            rest,
            mut tails,
            starts,
            mut index,
            synced,
            batch,
            last_kind,
            mut report,
            ..
        } = walk(
            directory,
            &segments,
            &options.groups,
            options.reached,
            options.checkpoint,
            look,
        )?;
        for (group, tail) in &mut tails {
            let base = (tail.base.index > LogIndex(0)).then_some((tail.base.index, tail.base.term));
            if let Some((last, _)) = starts.get(group).filter(|_| !skipped.is_empty()) {
                tail.terms = join_terms(base, &skipped, last.index, &tail.terms);
            }
        }
        // The one that goes on may have an index file from when it was full for a moment.
        let full = |known: &&Indexed| known.sealed.segment.base < segments[stop.at].0.base;
        for known in walked.iter().take_while(full) {
            index.sealed(known.sealed, 0);
        }

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
        let behind = options.checkpoint.is_some_and(|at| is_behind(&log.tails, at));
        let reader = Reader::new(disk, directory, log.shared.clone());
        Ok(Opened {
            log,
            reader,
            groups,
            report,
            behind,
        })
    }
}

/// Whether the log of the only group that there is today doesn't hold the last entry of a checkpoint, and another one in its place or none.
pub(super) fn is_behind(tails: &BTreeMap<GroupId, Tail>, at: LogPosition) -> bool {
    let Some(tail) = tails.get(&GroupId::ROOT) else {
        return at.index > LogIndex(0);
    };
    let same = tail.holes.contains_key(&at.index) || tail.term_of(at.index).unwrap_or_default() == at.term;
    at.index > tail.last.index || (at.index >= tail.base.index && !same)
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
    for name in names.iter().filter(|name| segment::is_temporary(name)) {
        let path = format!("{FOLDER}/{name}");
        disk.remove(&path).map_err(in_file(&path))?;
    }
    open_segments(disk, &names)
}

pub(super) fn missing(base: Lsn) -> OpenError {
    OpenError::Untrusted {
        file: segment::file_name(base),
        offset: 0,
        text: "the segment is missing".to_owned(),
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
    // It may have been full for a moment, and have got its index file, before the head of the next one was durable. Now it goes on.
    remove_index(disk, *segment)?;
    for (later, _) in segments.drain(stop.at + 1..) {
        remove_index(disk, later)?;
        disk.remove(&later.file()).map_err(in_file(&later.file()))?;
    }
    disk.sync_dir(FOLDER).map_err(in_file(FOLDER))?;
    Ok(stop.offset - from)
}

fn remove_index<D: Disk>(disk: &D, segment: Segment) -> Result<(), OpenError> {
    let name = sealed::file_name(segment.base);
    match disk.remove(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(in_file(&name)(error)),
        _ => Ok(()),
    }
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
        cut_short: None,
        failed: None,
    };
    log.want_next();
    Ok(log)
}
