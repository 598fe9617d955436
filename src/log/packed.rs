//! A sequence of numbers that only go up, in about two bytes each: the places of a million entries are two megabytes. Chunks
//! of 128, each with its first number in full and the differences after it in 7 bits a byte. Appended and cut at the
//! end, read at any place by decoding at most a chunk.

/// Numbers of a chunk: more save bases, fewer save decoding.
const CHUNK: usize = 128;

/// The sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Packed {
    chunks: Vec<Chunk>,
    length: usize,
    last: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Chunk {
    first: u64,
    /// The differences of the numbers after the first.
    rest: Vec<u8>,
}

impl Packed {
    /// An empty sequence.
    #[must_use]
    pub fn new() -> Packed {
        Packed::default()
    }

    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The last number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        (self.length > 0).then_some(self.last)
    }

    /// Appends a number.
    ///
    /// # Panics
    /// If it is lower than the last: a broken invariant of the caller.
    pub fn push(&mut self, value: u64) {
        assert!(
            self.length == 0 || value >= self.last,
            "a packed sequence never goes down"
        );
        if self.length.is_multiple_of(CHUNK) {
            if let Some(full) = self.chunks.last_mut() {
                full.rest.shrink_to_fit();
            }
            self.chunks.push(Chunk {
                first: value,
                rest: Vec::new(),
            });
        } else if let Some(chunk) = self.chunks.last_mut() {
            write_varint(&mut chunk.rest, value - self.last);
        }
        self.last = value;
        self.length += 1;
    }

    /// The number at a place, the first at 0.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<u64> {
        self.iter_from(at).next()
    }

    /// The numbers from a place on.
    #[must_use]
    pub fn iter_from(&self, at: usize) -> Iter<'_> {
        let mut iter = Iter {
            packed: self,
            at: at - at % CHUNK,
            value: 0,
            rest: &[],
        };
        if at >= self.length {
            iter.at = self.length;
            return iter;
        }
        for _ in 0..at % CHUNK {
            iter.next();
        }
        iter
    }

    /// The first place whose number isn't below `value`; the length if there is none.
    #[must_use]
    pub fn lower_bound(&self, value: u64) -> usize {
        let after = self.chunks.partition_point(|chunk| chunk.first < value);
        let start = after.saturating_sub(1) * CHUNK;
        let end = (after * CHUNK).min(self.length);
        let below = self
            .iter_from(start)
            .take(end - start.min(end))
            .take_while(|&v| v < value);
        start + below.count()
    }

    /// Keeps the first `length` numbers.
    pub fn truncate(&mut self, length: usize) {
        if length >= self.length {
            return;
        }
        let Some(at) = length.checked_sub(1) else {
            *self = Packed::new();
            return;
        };
        let mut iter = self.iter_from(at);
        let last = iter.next().unwrap_or(0);
        let left = iter.rest.len();
        self.chunks.truncate(length.div_ceil(CHUNK));
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.rest.truncate(chunk.rest.len() - left);
        }
        self.last = last;
        self.length = length;
    }

    /// Forgets the first numbers, at most `count` of them and only whole chunks, so that nothing is written anew. Returns how many.
    pub fn drop_front(&mut self, count: usize) -> usize {
        let chunks = count.min(self.length) / CHUNK;
        self.chunks.drain(..chunks);
        if self.chunks.len() < self.chunks.capacity() / 2 {
            self.chunks.shrink_to_fit();
        }
        self.length -= chunks * CHUNK;
        chunks * CHUNK
    }

    /// Bytes of memory that the sequence takes, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        let rest: usize = self.chunks.iter().map(|chunk| chunk.rest.capacity()).sum();
        rest + self.chunks.capacity() * size_of::<Chunk>()
    }
}

/// The numbers of a [`Packed`] from a place on.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    packed: &'a Packed,
    at: usize,
    value: u64,
    rest: &'a [u8],
}

impl Iterator for Iter<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.at >= self.packed.length {
            return None;
        }
        if self.at.is_multiple_of(CHUNK) {
            let chunk = self.packed.chunks.get(self.at / CHUNK)?;
            self.value = chunk.first;
            self.rest = &chunk.rest;
        } else {
            self.value += read_varint(&mut self.rest);
        }
        self.at += 1;
        Some(self.value)
    }
}

/// Appends a number in 7 bits a byte, low ones first.
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    let mut shift = 0;
    while let Some((&byte, rest)) = bytes.split_first() {
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            break;
        }
        shift += 7;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn agrees_with_a_plain_vector() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let mut packed = Packed::new();
            let mut plain: Vec<u64> = Vec::new();
            for _ in 0..40 {
                if rng.chance(10) {
                    let count = rng.below(plain.len() as u64 + 2) as usize;
                    let dropped = packed.drop_front(count);
                    assert!(dropped <= count && count.min(plain.len()) - dropped < CHUNK);
                    plain.drain(..dropped);
                } else if rng.chance(30) {
                    let length = rng.below(plain.len() as u64 + 2) as usize;
                    packed.truncate(length);
                    plain.truncate(length);
                } else {
                    for _ in 0..rng.below(100) {
                        let step = if rng.chance(5) {
                            rng.below(1 << 40)
                        } else {
                            rng.below(300)
                        };
                        let value = plain.last().copied().unwrap_or(0) + step;
                        packed.push(value);
                        plain.push(value);
                    }
                }
                assert_eq!(packed.len(), plain.len());
                assert_eq!(packed.last(), plain.last().copied());
                let at = rng.below(plain.len() as u64 + 3) as usize;
                assert_eq!(packed.get(at), plain.get(at).copied());
                let rest: Vec<u64> = packed.iter_from(at).collect();
                assert_eq!(rest, plain.get(at..).unwrap_or(&[]));
                let value = plain.get(at).copied().unwrap_or(7) + rng.below(2);
                assert_eq!(packed.lower_bound(value), plain.partition_point(|&v| v < value));
            }
        }
    }

    #[test]
    fn an_entry_costs_about_two_bytes() {
        let mut packed = Packed::new();
        for i in 0..100_000u64 {
            packed.push(i * 35);
        }
        assert!(packed.memory() < 200_000, "{} bytes", packed.memory());
    }

    #[test]
    #[should_panic(expected = "never goes down")]
    fn going_down_is_refused() {
        let mut packed = Packed::new();
        packed.push(2);
        packed.push(1);
    }
}
