//! A byte queue: bytes go in at the end and are taken from the front. It grows with the bytes that really came, never by a
//! length that somebody announced, and gives its memory back when it is empty: most connections are idle most of the time. One that is
//! used again and again keeps a little, since growing anew each turn costs more than what goes through.

/// Memory that an empty buffer may keep.
const KEPT_BYTES: usize = 4096;
/// So often it was emptied before it keeps any: a client that has said who it is and what it wants to read is idle from then on.
const USES_BEFORE: u8 = 16;

/// Bytes on their way in or out.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    kept: usize,
    /// How often it was emptied; no more than [`USES_BEFORE`] is counted.
    uses: u8,
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::keeping(KEPT_BYTES)
    }
}

impl Buffer {
    /// An empty buffer that keeps so much of its memory when it is empty again.
    #[must_use]
    pub fn keeping(kept: usize) -> Buffer {
        Buffer {
            bytes: Vec::new(),
            start: 0,
            kept,
            uses: 0,
        }
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether none wait.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that wait.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Adds bytes at the end.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.end().extend_from_slice(bytes);
    }

    /// The vector to append to; what stands in it must stay.
    pub fn end(&mut self) -> &mut Vec<u8> {
        // Moving the rest to the front costs as much as it has bytes, so it is done only when at least as many were taken.
        if self.start > 0 && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        &mut self.bytes
    }

    /// Takes `n` bytes from the front.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.bytes.clear();
            let busy = self.uses == USES_BEFORE;
            self.bytes.shrink_to(if busy { self.kept } else { 0 });
            self.uses = (self.uses + 1).min(USES_BEFORE);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut buffer = Buffer::default();
        let mut out = Vec::new();
        let all: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for chunk in all.chunks(97) {
            buffer.extend(chunk);
            let n = buffer.len().min(61);
            out.extend_from_slice(&buffer.pending()[..n]);
            buffer.consume(n);
        }
        out.extend_from_slice(buffer.pending());
        assert_eq!(out, all);
    }

    #[test]
    fn an_empty_buffer_gives_its_memory_back() {
        let mut buffer = Buffer::default();
        buffer.extend(&[0; 1 << 20]);
        buffer.consume(1 << 20);
        assert!(buffer.is_empty());
        assert_eq!(buffer.bytes.capacity(), 0);
        for _ in 0..100 {
            buffer.extend(&[0; 1 << 13]);
            buffer.consume(1 << 13);
        }
        assert!((1..=KEPT_BYTES).contains(&buffer.bytes.capacity()));
    }
}
