//! The running check over a group's log: two histories that differ anywhere have different checks from there on, so they
//! are found at the next append instead of by readers.

use crate::cluster::message::EntryKind;
use crate::types::{LogIndex, Term};

/// The check over the log up to and including an entry, from that of the entry before it (0 before the first). CRC-32C over
/// the earlier check, the term, the index, one byte for the kind, and the payload; numbers are little-endian.
#[must_use]
pub fn chain(prev: u32, term: Term, index: LogIndex, kind: EntryKind, payload: &[u8]) -> u32 {
    let mut head = [0; 17];
    head[..8].copy_from_slice(&term.0.to_le_bytes());
    head[8..16].copy_from_slice(&index.0.to_le_bytes());
    head[16] = kind.number();
    crc32c::crc32c_append(crc32c::crc32c_append(prev, &head), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_entry_and_its_past_count() {
        let base = chain(7, Term(2), LogIndex(3), EntryKind::Command, b"x");
        assert_ne!(base, chain(8, Term(2), LogIndex(3), EntryKind::Command, b"x"));
        assert_ne!(base, chain(7, Term(3), LogIndex(3), EntryKind::Command, b"x"));
        assert_ne!(base, chain(7, Term(2), LogIndex(4), EntryKind::Command, b"x"));
        assert_ne!(base, chain(7, Term(2), LogIndex(3), EntryKind::Noop, b"x"));
        assert_ne!(base, chain(7, Term(2), LogIndex(3), EntryKind::Command, b"y"));
    }

    #[test]
    fn the_check_means_the_same_for_ever() {
        assert_eq!(
            chain(0, Term(1), LogIndex(1), EntryKind::Members, b"members"),
            0x82D7_BC9C
        );
    }
}
