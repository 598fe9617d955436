//! Entries at known places: read with as few calls as there are neighbours, checked, and gathered up to a number of bytes.

use std::ops::Range;

use super::{Reader, Spot, Trouble, Wanted};
use crate::cluster::message::{Bundle, Entry, Hole};
use crate::limits::{DAMAGE_LOOKAHEAD, READ_BYTES_MAX, READ_GAP_BYTES, READ_WINDOW_BYTES, RECORD_HEADER_BYTES};
use crate::log::disk::Disk;
use crate::log::record::{self, Header, Kind, Parsed};
use crate::log::segment::Segment;
use crate::types::{Lsn, Term};

/// Bytes that are read behind the place of the last record that is wanted: most records are shorter.
const GUESS: u64 = 2048;

/// Entries on their way into an answer.
#[derive(Debug)]
pub(super) struct Gathered {
    entries: Bundle,
    limit: usize,
    taken: usize,
}

impl Gathered {
    pub fn new(bytes_max: usize) -> Gathered {
        Gathered {
            entries: Bundle::default(),
            limit: bytes_max.min(READ_BYTES_MAX),
            taken: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries.
    pub fn entries(self) -> Vec<Entry> {
        self.entries.entries()
    }

    /// Whether it wants no more.
    fn full(&self) -> bool {
        self.taken >= self.limit && !self.entries.is_empty()
    }

    fn push(&mut self, header: &Header, payload: &[u8]) {
        self.entries.push(header.index, header.term, header.entry_kind, payload);
    }

    /// What there is, if trouble came after something.
    pub fn or(self, trouble: Trouble) -> Result<Gathered, Trouble> {
        match trouble {
            Trouble::Damaged { .. } if !self.entries.is_empty() => Ok(self),
            trouble => Err(trouble),
        }
    }
}

/// What stands at a place.
enum Found {
    /// The entry, and where its payload is in the buffer.
    Entry(Header, Range<usize>),
    /// Not the entry that is wanted; where it should be, and its term, if what is left of it says so.
    Bad(Option<Segment>, Option<Term>),
}

impl<D: Disk> Reader<D> {
    /// Gathers entries, up to about as many bytes as are wanted and at least one. False if not all of them: there was enough, or the
    /// next can't be read. That the very first can't be is an error.
    pub(super) fn fetch(&mut self, wanted: &[Wanted], gathered: &mut Gathered) -> Result<bool, Trouble> {
        let mut buffer = Buffer::default();
        for at in 0..wanted.len() {
            // No more is looked up after this, so don't read on for nothing.
            if gathered.full() {
                return Ok(false);
            }
            let left = gathered.limit - gathered.taken.min(gathered.limit);
            match self.find(&mut buffer, &wanted[at..], left)? {
                Found::Entry(header, place) => {
                    gathered.taken += place.len();
                    if gathered.taken > gathered.limit && gathered.len() > 0 {
                        return Ok(false);
                    }
                    gathered.push(&header, buffer.bytes.get(place).unwrap_or_default());
                }
                Found::Bad(..) if gathered.len() > 0 => return Ok(false),
                Found::Bad(segment, term) => return Err(self.damage(&mut buffer, &wanted[at..], segment, term)),
            }
        }
        Ok(true)
    }

    /// What can't be read, beginning with the first of these: what lies behind it is looked at too, so that all of it is asked for at once.
    fn damage(
        &mut self,
        buffer: &mut Buffer,
        wanted: &[Wanted],
        segment: Option<Segment>,
        term: Option<Term>,
    ) -> Trouble {
        let Some(first) = wanted.first() else {
            return Trouble::Moved;
        };
        let (place, near) = match first.spot {
            Spot::At(lsn) => (lsn, "at"),
            Spot::Hole(lsn) => (lsn, "at or behind"),
        };
        let place = segment.map_or("the log".to_owned(), |segment| {
            format!("{} {near} offset {}", segment.file(), place.0 - segment.base.0)
        });
        let what = format!("{place}: entry {} of group {} can't be read", first.index, first.group);
        let index = first.index;
        let mut holes = vec![Hole { index, term }];
        let from = buffer.read;
        for at in 1..wanted.len().min(DAMAGE_LOOKAHEAD) {
            if buffer.read - from > READ_WINDOW_BYTES {
                break;
            }
            match self.find(buffer, &wanted[at..], 0) {
                Ok(Found::Bad(_, term)) => holes.push(Hole {
                    index: wanted[at].index,
                    term,
                }),
                Ok(Found::Entry(..)) => {}
                Err(_) => break,
            }
        }
        Trouble::Damaged { holes, what }
    }

    /// The first of these entries; reads so much that others come along of which about `left` bytes are wanted.
    fn find(&mut self, buffer: &mut Buffer, wanted: &[Wanted], left: usize) -> Result<Found, Trouble> {
        let Some(one) = wanted.first() else {
            return Err(Trouble::Moved);
        };
        let (Spot::At(lsn) | Spot::Hole(lsn)) = one.spot;
        let segment = match buffer.segment {
            Some(segment) if lsn >= segment.base && lsn < segment.end() => Some(segment),
            _ => self.entries.read().segment_of(lsn),
        };
        if let Spot::Hole(_) = one.spot {
            return Ok(Found::Bad(segment, None));
        }
        let segment = segment.ok_or(Trouble::Moved)?;
        if !buffer.holds(segment, lsn, RECORD_HEADER_BYTES) {
            self.fill(buffer, segment, lsn, reach(wanted, segment, left as u64))?;
        }
        let mut parsed = record::parse(buffer.from(lsn), lsn, self.directory);
        if let Parsed::Short(whole) = parsed {
            let reach = reach(wanted, segment, left as u64);
            self.fill(buffer, segment, lsn, reach.max(whole as u64))?;
            parsed = record::parse(buffer.from(lsn), lsn, self.directory);
        }
        Ok(match parsed {
            Parsed::Record(header, payload, _) if is_wanted(one, &header) => {
                let start = (lsn.0 - buffer.start.0) as usize + RECORD_HEADER_BYTES;
                Found::Entry(header, start..start + payload.len())
            }
            Parsed::BadBody(header, _) if is_wanted(one, &header) => Found::Bad(Some(segment), Some(header.term)),
            _ => Found::Bad(Some(segment), None),
        })
    }

    /// Reads `length` bytes from a position on, as far as the segment goes.
    fn fill(&mut self, buffer: &mut Buffer, segment: Segment, from: Lsn, length: u64) -> Result<(), Trouble> {
        let length = length.min(segment.end().0 - from.0);
        buffer.segment = Some(segment);
        buffer.start = from;
        buffer.read += length;
        buffer.bytes.resize(length as usize, 0);
        let read = self.read_at(segment, &mut buffer.bytes, from);
        if read.is_err() {
            buffer.bytes.clear();
        }
        read
    }
}

fn is_wanted(wanted: &Wanted, header: &Header) -> bool {
    matches!(header.kind, Kind::Entry | Kind::Fill) && header.group == wanted.group && header.index == wanted.index
}

/// Bytes of a segment in memory.
#[derive(Debug, Default)]
struct Buffer {
    segment: Option<Segment>,
    start: Lsn,
    bytes: Vec<u8>,
    /// How many were read for it.
    read: u64,
}

impl Buffer {
    fn holds(&self, segment: Segment, lsn: Lsn, length: usize) -> bool {
        let end = self.start.0 + self.bytes.len() as u64;
        self.segment == Some(segment) && lsn >= self.start && lsn.0 + length as u64 <= end
    }

    fn from(&self, lsn: Lsn) -> &[u8] {
        let at = lsn.0.saturating_sub(self.start.0) as usize;
        self.bytes.get(at..).unwrap_or(&[])
    }
}

/// How much to read at once, so that the records after the first come along as long as they lie close and are needed.
fn reach(wanted: &[Wanted], segment: Segment, bytes: u64) -> u64 {
    let mut places = wanted.iter().map_while(|one| match one.spot {
        Spot::At(lsn) => Some(lsn),
        Spot::Hole(_) => None,
    });
    let Some(first) = places.next() else {
        return 0;
    };
    let mut last = first;
    for lsn in places {
        let near = lsn >= last && lsn.0 - last.0 <= READ_GAP_BYTES;
        let span = lsn.0.saturating_sub(first.0);
        if !near || lsn >= segment.end() || span > bytes.min(READ_WINDOW_BYTES) {
            break;
        }
        last = lsn;
    }
    (last.0 - first.0 + GUESS).min(READ_WINDOW_BYTES)
}
