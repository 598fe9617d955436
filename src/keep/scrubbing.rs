//! Looks at what nobody reads, a little at a time: all segments, index files and checkpoints in some days, so that damage is found while
//! others still hold the same, and not when a server starts after a power cut.

use std::collections::VecDeque;
use std::io;

use super::Kept;
use super::keeper::Keeper;
use crate::cluster::message::Hole;
use crate::limits;
use crate::log::checkpoint::Info;
use crate::log::disk::Disk;
use crate::log::index::Lookup;
use crate::log::scrub::{ScrubStep, Scrubber};
use crate::log::sealed::SealedFile;
use crate::log::segment::Segment;
use crate::types::{GroupId, Level, LogIndex, Lsn, Span};

/// How far the look is.
#[derive(Debug)]
pub(super) struct Scrubbing<D: Disk> {
    /// How long a look at everything is to take.
    pub period: Span,
    /// What is left of this look; none before it begins.
    left: Option<Left<D>>,
    /// Between two steps of it.
    rest: Span,
}

#[derive(Debug)]
struct Left<D: Disk> {
    scrubber: Scrubber<D>,
    indexes: VecDeque<Segment>,
    checkpoints: VecDeque<Info>,
}

impl<D: Disk> Scrubbing<D> {
    pub fn new() -> Scrubbing<D> {
        Scrubbing {
            period: limits::SCRUB_PERIOD,
            left: None,
            rest: limits::SCRUB_REST_MAX,
        }
    }
}

impl<D: Disk> Keeper<D> {
    /// A look at everything takes so long from now on.
    pub fn scrub_within(&mut self, period: Span) {
        self.scrubbing.period = period;
        self.scrubbing.left = None;
    }

    /// Looks at a little. How long to rest then.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn scrub(&mut self) -> io::Result<Span> {
        let Some(left) = &mut self.scrubbing.left else {
            self.begin_look();
            return Ok(self.scrubbing.rest);
        };
        if let Some(info) = left.checkpoints.pop_front() {
            if self.checkpoints.list().contains(&info)
                && let Err(error) = self.checkpoints.verify(&info.id)
            {
                self.unreadable(&info, error)?;
            }
            return Ok(self.scrubbing.rest);
        }
        if let Some(segment) = left.indexes.pop_front() {
            self.look_at_index(segment);
            return Ok(self.scrubbing.rest);
        }
        match left.scrubber.step(limits::SCRUB_STEP_BYTES) {
            Ok(ScrubStep::More) => {}
            Ok(ScrubStep::Nothing) => self.scrubbing.left = None,
            Ok(ScrubStep::Damage {
                segment,
                offset,
                length,
                what,
            }) => self.found(segment, offset, length, &what),
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(self.scrubbing.rest)
    }

    fn begin_look(&mut self) {
        let (full, indexes) = {
            let index = self.shared.read();
            let mut full = index.segments();
            full.pop();
            let indexes = full.iter().filter(|segment| index.sealed_of(**segment).is_some());
            let indexes: VecDeque<Segment> = indexes.copied().collect();
            (full, indexes)
        };
        // No step reads of two segments.
        let reads = |segment: &Segment| segment.size.div_ceil(limits::SCRUB_STEP_BYTES as u64);
        let reads: u64 = full.iter().map(reads).sum();
        let checkpoints: VecDeque<Info> = self.checkpoints.list().iter().copied().collect();
        // This one, and the one that finds nothing more.
        let steps = reads + (indexes.len() + checkpoints.len()) as u64 + 2;
        self.scrubbing.rest = Span((self.scrubbing.period.0 / steps).min(limits::SCRUB_REST_MAX.0));
        self.scrubbing.left = Some(Left {
            scrubber: Scrubber::new(self.disk.clone(), self.directory, full),
            indexes,
            checkpoints,
        });
    }

    fn look_at_index(&mut self, segment: Segment) {
        let verified = SealedFile::open(&self.disk, self.directory, segment).and_then(|mut file| file.verify());
        if let Err(error) = verified {
            let known = self.shared.read().has_segment(segment);
            if known {
                self.shared.lost_index(segment);
                self.say(Kept::Said {
                    level: Level::Error,
                    text: format!("damaged: {error}; it is made anew"),
                });
            }
        }
    }

    /// Bytes of a segment are bad: the entries that stand there are holes, if they count at all.
    fn found(&mut self, segment: Segment, offset: u64, length: u64, what: &str) {
        let (from, to) = (Lsn(segment.base.0 + offset), Lsn(segment.base.0 + offset + length));
        let bad: Vec<LogIndex> = self
            .standing(segment)
            .into_iter()
            .filter(|&(_, lsn)| lsn >= from && lsn < to)
            .map(|(index, _)| index)
            .collect();
        if bad.is_empty() {
            return; // what stood there doesn't matter any more
        }
        bad.iter()
            .for_each(|&index| self.shared.write().lose(GroupId::ROOT, index));
        self.say(Kept::Damaged {
            group: GroupId::ROOT,
            holes: bad.into_iter().map(|index| Hole { index, term: None }).collect(),
            what: format!("damaged: {} at offset {offset}: {what}", segment.file()),
        });
    }

    /// The entries that stand in a segment, and where.
    fn standing(&self, segment: Segment) -> Vec<(LogIndex, Lsn)> {
        let sealed = self.shared.read().sealed_of(segment);
        let (first, last) = match sealed {
            Some(sealed) => (sealed.first, sealed.last),
            None => {
                let index = self.shared.read();
                let first = index
                    .last_sealed(GroupId::ROOT)
                    .map_or(index.first(GroupId::ROOT), LogIndex::next);
                (first, LogIndex(u64::MAX - 1))
            }
        };
        let mut standing = Vec::new();
        let mut next = first;
        while next <= last {
            let looked = self.shared.read().look(GroupId::ROOT, next, last, usize::MAX >> 1);
            match looked {
                Lookup::Places(places) => {
                    let indexes = (next.0..).map(LogIndex);
                    next.0 += places.len() as u64;
                    standing.extend(indexes.zip(places));
                }
                Lookup::Holes(holes, _) => next.0 += holes.len() as u64,
                Lookup::Sealed(sealed, changed) => {
                    let count = (sealed.last.0 + 1 - sealed.first.0) as usize;
                    let places = SealedFile::open(&self.disk, self.directory, segment)
                        .and_then(|mut file| file.places(sealed.first, count))
                        .unwrap_or_default();
                    let indexes = (sealed.first.0..).map(LogIndex).zip(places);
                    standing.extend(indexes.filter(|(index, _)| !changed.contains_key(index)));
                    break;
                }
                Lookup::Nothing => break,
            }
        }
        standing
    }
}
