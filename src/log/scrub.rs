//! Reads old segments again, a little at a time, so that damage is found while other servers still hold the same.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::disk::{Disk, DiskFile};
use super::payload;
use super::record::{self, ALIGNMENT, Header, Kind, Parsed, ParsedHeader};
use super::segment::Segment;
use crate::cluster::chain::chain;
use crate::limits::{RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX};
use crate::types::{DirectoryId, GroupId, LogIndex, Lsn};

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ScrubStep {
    /// All segments are read.
    Nothing,
    /// There is more to read.
    More,
    /// Bytes that were good once and aren't any more. There may be more to read.
    Damage {
        /// The segment.
        segment: Segment,
        /// Where in it they begin.
        offset: u64,
        /// How many.
        length: u64,
        /// What is wrong.
        what: String,
    },
}

/// Reads segments that are full: everything in them is synced, so nothing in them may be bad.
#[derive(Debug)]
pub struct Scrubber<D: Disk> {
    disk: D,
    directory: DirectoryId,
    segments: VecDeque<Segment>,
    current: Option<Reading<D::File>>,
}

/// The segment that is being read.
#[derive(Debug)]
struct Reading<F> {
    segment: Segment,
    file: F,
    offset: u64,
    /// Where its records end, as the head of the next segment says; `None` if that can't be read.
    end: Option<u64>,
    /// The last entry of each group, and the check there.
    chains: BTreeMap<GroupId, (LogIndex, u32)>,
}

impl<D: Disk> Scrubber<D> {
    /// Will read these segments, which must all be full: none is the one that is being filled.
    #[must_use]
    pub fn new(disk: D, directory: DirectoryId, segments: Vec<Segment>) -> Scrubber<D> {
        Scrubber {
            disk,
            directory,
            segments: segments.into(),
            current: None,
        }
    }

    /// Reads about `bytes_max` (a record at least).
    ///
    /// # Errors
    /// What the disk says. `NotFound` if a segment was removed meanwhile, which is no harm; the next step goes on with the next segment.
    pub fn step(&mut self, bytes_max: usize) -> io::Result<ScrubStep> {
        let mut reading = match self.current.take() {
            Some(reading) => reading,
            None => match self.segments.pop_front() {
                Some(segment) => self.begin(segment)?,
                None => return Ok(ScrubStep::Nothing),
            },
        };
        let step = reading.read(self.directory, bytes_max)?;
        if reading.offset < reading.segment.size {
            self.current = Some(reading);
        }
        Ok(step)
    }

    fn begin(&self, segment: Segment) -> io::Result<Reading<D::File>> {
        let file = self.disk.open(&segment.file())?;
        let next = segment.end();
        let end = match self.disk.open(&super::segment::file_name(next)) {
            Ok(file) => {
                let length = file
                    .size()?
                    .min((RECORD_HEADER_BYTES + RECORD_PAYLOAD_BYTES_MAX) as u64);
                let mut bytes = vec![0; length as usize];
                file.read_at(&mut bytes, 0)?;
                match record::parse(&bytes, next, self.directory) {
                    Parsed::Record(header, payload, _) if header.kind == Kind::Head => {
                        payload::decode_head(payload).and_then(|head| head.previous_end.0.checked_sub(segment.base.0))
                    }
                    _ => None,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Reading {
            segment,
            file,
            offset: 0,
            end: end.filter(|&end| end <= segment.size),
            chains: BTreeMap::new(),
        })
    }
}

impl<F: DiskFile> Reading<F> {
    fn read(&mut self, directory: DirectoryId, bytes_max: usize) -> io::Result<ScrubStep> {
        let mut bytes = self.bytes(bytes_max.max(RECORD_HEADER_BYTES))?;
        let mut at = 0;
        loop {
            let lsn = Lsn(self.segment.base.0 + self.offset);
            if self.end == Some(self.offset) {
                // What is behind was never written, and nobody will ever read it.
                self.offset = self.segment.size;
                return Ok(ScrubStep::More);
            }
            match record::parse(&bytes[at..], lsn, directory) {
                Parsed::Record(header, payload, size) => {
                    if let Some(what) = self.wrong(&header, payload) {
                        return Ok(self.damage(size as u64, what));
                    }
                    (self.offset, at) = (self.offset + size as u64, at + size);
                }
                Parsed::Short(whole) if self.offset + whole as u64 <= self.segment.size => {
                    if at > 0 {
                        return Ok(ScrubStep::More);
                    }
                    bytes = self.bytes(whole)?;
                }
                Parsed::BadBody(header, size) => {
                    self.chains.remove(&header.group);
                    return Ok(self.damage(size as u64, "the payload of a record doesn't match its check"));
                }
                // Too few bytes for a header: the rest comes with the next step.
                Parsed::Nothing | Parsed::BadHeader
                    if at > 0 && bytes.len() - at < RECORD_HEADER_BYTES && self.offset + 64 <= self.segment.size =>
                {
                    return Ok(ScrubStep::More);
                }
                parsed => {
                    self.chains.clear();
                    let next = self.next_header(directory)?;
                    let end = next.or(self.end).unwrap_or(self.segment.size);
                    if next.is_none() && self.end.is_none() && parsed == Parsed::Nothing {
                        // Where its records end is known from nowhere: recovery will say so.
                        self.offset = self.segment.size;
                        return Ok(ScrubStep::More);
                    }
                    let length = end.saturating_sub(self.offset).max(ALIGNMENT);
                    return Ok(self.damage(length, "no record can be read here"));
                }
            }
            if at >= bytes.len() {
                return Ok(ScrubStep::More);
            }
        }
    }

    fn bytes(&self, length: usize) -> io::Result<Vec<u8>> {
        let length = (length as u64).min(self.segment.size - self.offset);
        let mut bytes = vec![0; length as usize];
        self.file.read_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }

    fn damage(&mut self, length: u64, what: &str) -> ScrubStep {
        let offset = self.offset;
        self.offset += length;
        ScrubStep::Damage {
            segment: self.segment,
            offset,
            length,
            what: what.to_owned(),
        }
    }

    /// What is wrong with a record whose checks are right.
    fn wrong(&mut self, header: &Header, payload: &[u8]) -> Option<&'static str> {
        if (self.offset == 0) != (header.kind == Kind::Head) {
            return Some("a segment has its head at its beginning and nowhere else");
        }
        if header.kind != Kind::Entry {
            return None;
        }
        let before = self.chains.insert(header.group, (header.index, header.chain));
        let (index, before) = before?;
        let follows = index.next() == header.index && before != 0 && header.chain != 0;
        let wrong = follows && chain(before, header.term, header.index, header.entry_kind, payload) != header.chain;
        wrong.then_some("the entry isn't the one that followed the entry before it")
    }

    /// The next header of a record behind the offset.
    fn next_header(&self, directory: DirectoryId) -> io::Result<Option<u64>> {
        const STEP: u64 = 256 * 1024;
        let mut from = self.offset + ALIGNMENT;
        while from < self.segment.size {
            let length = (STEP + RECORD_HEADER_BYTES as u64).min(self.segment.size - from);
            let mut bytes = vec![0; length as usize];
            self.file.read_at(&mut bytes, from)?;
            let found = (0..bytes.len().min(STEP as usize))
                .step_by(ALIGNMENT as usize)
                .find(|&at| {
                    let lsn = Lsn(self.segment.base.0 + from + at as u64);
                    matches!(
                        record::parse_header(&bytes[at..], lsn, directory),
                        ParsedHeader::Good(..)
                    )
                });
            if let Some(at) = found {
                return Ok(Some(from + at as u64));
            }
            from += STEP;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::sim_disk::SimDisk;
    use crate::log::testing::{Bench, DIRECTORY, SEGMENT};
    use crate::rng::Rng;

    fn full() -> (Bench<SimDisk>, Vec<Segment>) {
        let mut bench = Bench::new();
        let mut said = 0;
        while bench.log.end().0 < 3 * SEGMENT + 100 {
            said += 1;
            bench.say(&[&"x".repeat(said * 7 % 900), "short"]);
        }
        let mut segments = bench.log.index().read().segments();
        segments.pop();
        (bench, segments)
    }

    fn scrub(disk: &SimDisk, segments: &[Segment], bytes_max: usize) -> Vec<(Segment, u64, u64)> {
        let mut scrubber = Scrubber::new(disk.clone(), DIRECTORY, segments.to_vec());
        let mut found = Vec::new();
        for _ in 0..100_000 {
            match scrubber.step(bytes_max).unwrap() {
                ScrubStep::Nothing => return found,
                ScrubStep::More => {}
                ScrubStep::Damage {
                    segment,
                    offset,
                    length,
                    ..
                } => found.push((segment, offset, length)),
            }
        }
        panic!("it doesn't end");
    }

    #[test]
    fn good_segments_are_good_however_small_the_steps() {
        let (bench, segments) = full();
        assert_eq!(segments.len(), 3);
        for bytes_max in [1, 64, 100, 1000, 5000, 1 << 20] {
            assert_eq!(scrub(&bench.disk, &segments, bytes_max), []);
        }
    }

    #[test]
    fn every_damaged_entry_lies_within_a_range_that_is_reported() {
        let (bench, segments) = full();
        let mut rng = Rng::new(8);
        for round in 0..300 {
            let disk = bench.disk.copy();
            let index = LogIndex(rng.between(1, bench.model.last()));
            let lsn = bench.log.index().read().find(crate::log::testing::ROOT, index).unwrap();
            let Some(segment) = segments
                .iter()
                .find(|segment| segment.base <= lsn && lsn < segment.end())
            else {
                continue;
            };
            let offset = lsn.0 - segment.base.0;
            if round % 3 == 0 {
                let file = disk.open(&segment.file()).unwrap();
                file.write_at(&[0; 64], offset).unwrap();
            } else {
                disk.flip_bit(&segment.file(), offset + rng.below(65), rng.below(8) as u32);
            }
            let found = scrub(&disk, &segments, 700);
            let hit =
                |&(at, from, length): &(Segment, u64, u64)| at == *segment && from <= offset && offset < from + length;
            assert!(found.iter().any(hit), "{found:?}, not {offset} of {segment:?}");
            assert_eq!(found.len(), 1);
        }
    }
}
