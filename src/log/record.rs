//! The record format, pure: bytes to records and back. A record is a header of 64 bytes and a payload, padded to 8 bytes. Numbers
//! are little-endian.
//!
//! ```text
//!  0 u32 payload length      16 u64 lsn: the record's own position        40 u64 index   (entries, states)
//!  4 u32 header check        24 u64 batch                                 48 u64 term    (entries, states)
//!  8 u32 body check          32 u32 unsynced: lsn − what was synced       56 u32 chain   (entries, states)
//! 12 u8  kind, u8 version, u8 entry kind, u8 flags    36 u32 group        60 u32 reserved
//! ```
//!
//! The index, term and chain of a state are those of the group's last entry: whatever damage hides before it, it says where the
//! log ends.
//!
//! Both checks are CRC-32C, seeded with the directory's id, so that a record of another directory is none here. The header
//! has a check of its own, because the next record can only be found by a length that can be trusted. The position in the
//! header unmasks whatever lies where it wasn't written: an old record, or one inside of a message.

use crate::cluster::message::EntryKind;
use crate::limits::{RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX};
use crate::types::{DirectoryId, GroupId, LogIndex, Lsn, Term};

/// The version of the record format that this program writes and reads.
pub const VERSION: u8 = 1;

/// Records begin at multiples of this.
pub const ALIGNMENT: u64 = 8;

/// What a record is for. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The first record of a segment: the state of every group at that point.
    Head = 1,
    /// A group's hard state.
    State = 2,
    /// An entry of a group.
    Entry = 3,
    /// Says that all before it is synced, and where each group stands.
    Seal = 4,
    /// An entry of a group in the place of the one of its index, that couldn't be read; those after it stay.
    Fill = 5,
}

/// A record's header, without length and checks, which come from the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the record is for.
    pub kind: Kind,
    /// Of an entry or fill: who understands the payload. `Noop` for others.
    pub entry_kind: EntryKind,
    /// Where the record stands.
    pub lsn: Lsn,
    /// The batch that it was written in; counts up.
    pub batch: u64,
    /// All before this was synced when the batch was written.
    pub synced: Lsn,
    /// The group, 0 for head and seal.
    pub group: GroupId,
    /// Of an entry or fill: its index. Of a state: that of the group's last entry. 0 for others.
    pub index: LogIndex,
    /// The term of the same entry.
    pub term: Term,
    /// The running check over the group's log up to and including the same entry; 0 if it isn't known.
    pub chain: u32,
}

/// What the bytes at a place are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parsed<'a> {
    /// A good record: header, payload, bytes of the whole.
    Record(Header, &'a [u8], usize),
    /// The header is good, and the record needs so many bytes.
    Short(usize),
    /// Zeros where a header would be: nothing was written here.
    Nothing,
    /// No record begins here.
    BadHeader,
    /// The header is good, the payload isn't. With the bytes of the whole.
    BadBody(Header, usize),
    /// A good header of a version or kind that this program doesn't know.
    Unknown,
}

/// What bytes at the place of a header are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParsedHeader {
    /// A good header, and the length of the payload.
    Good(Header, usize),
    /// Zeros.
    Nothing,
    /// Anything else.
    Bad,
    /// Its check is right, but this program doesn't know its version or kind.
    Unknown,
}

/// Bytes that a record with a payload of that length takes.
#[must_use]
pub const fn size(payload: usize) -> usize {
    (RECORD_HEADER_BYTES + payload).next_multiple_of(ALIGNMENT as usize)
}

/// Appends a record to `out`.
///
/// # Panics
/// If the payload is longer than [`RECORD_PAYLOAD_BYTES_MAX`], or the synced position 4 GiB or more behind: the writer sees to both.
pub fn encode(out: &mut Vec<u8>, header: &Header, payload: &[u8], directory: DirectoryId) {
    assert!(
        payload.len() <= RECORD_PAYLOAD_BYTES_MAX,
        "a record's payload is too long"
    );
    let unsynced = u32::try_from(header.lsn.0 - header.synced.0).expect("a batch is far below 4 GiB");
    let body = crc32c::crc32c_append(seed(directory), payload);
    let start = out.len();
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&body.to_le_bytes());
    out.extend_from_slice(&[header.kind as u8, VERSION, header.entry_kind.number(), 0]);
    out.extend_from_slice(&header.lsn.0.to_le_bytes());
    out.extend_from_slice(&header.batch.to_le_bytes());
    out.extend_from_slice(&unsynced.to_le_bytes());
    out.extend_from_slice(&header.group.0.to_le_bytes());
    out.extend_from_slice(&header.index.0.to_le_bytes());
    out.extend_from_slice(&header.term.0.to_le_bytes());
    out.extend_from_slice(&header.chain.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let check = header_check(&out[start..], directory);
    out[start + 4..start + 8].copy_from_slice(&check.to_le_bytes());
    out.extend_from_slice(payload);
    out.resize(start + size(payload.len()), 0);
}

/// What the bytes at position `at` are. Fewer than 64 bytes can't hold a header: they are zeros, or bad.
#[must_use]
pub fn parse(bytes: &[u8], at: Lsn, directory: DirectoryId) -> Parsed<'_> {
    let (header, length) = match parse_header(bytes, at, directory) {
        ParsedHeader::Good(header, length) => (header, length),
        ParsedHeader::Nothing => return Parsed::Nothing,
        ParsedHeader::Bad => return Parsed::BadHeader,
        ParsedHeader::Unknown => return Parsed::Unknown,
    };
    let whole = size(length);
    let Some(record) = bytes.get(..whole) else {
        return Parsed::Short(whole);
    };
    let (payload, padding) = record[RECORD_HEADER_BYTES..].split_at(length);
    let body = crc32c::crc32c_append(seed(directory), payload);
    if body != number(&record[8..12]) as u32 || padding.iter().any(|&b| b != 0) {
        return Parsed::BadBody(header, whole);
    }
    Parsed::Record(header, payload, whole)
}

/// What the first 64 of `bytes` are as a header at position `at`.
#[must_use]
pub fn parse_header(bytes: &[u8], at: Lsn, directory: DirectoryId) -> ParsedHeader {
    let Some(bytes) = bytes.get(..RECORD_HEADER_BYTES) else {
        let zeros = bytes.iter().all(|&b| b == 0);
        return if zeros {
            ParsedHeader::Nothing
        } else {
            ParsedHeader::Bad
        };
    };
    if bytes.iter().all(|&b| b == 0) {
        return ParsedHeader::Nothing;
    }
    // The position first: it is the cheapest of the checks, and a scan fails it nearly everywhere.
    let lsn = Lsn(number(&bytes[16..24]));
    if lsn != at || header_check(bytes, directory) != number(&bytes[4..8]) as u32 {
        return ParsedHeader::Bad;
    }
    let length = number(&bytes[0..4]) as usize;
    let synced = lsn.0.checked_sub(number(&bytes[32..36]));
    let (Some(synced), true) = (synced, length <= RECORD_PAYLOAD_BYTES_MAX) else {
        return ParsedHeader::Bad;
    };
    let kind = match bytes[12] {
        1 => Kind::Head,
        2 => Kind::State,
        3 => Kind::Entry,
        4 => Kind::Seal,
        5 => Kind::Fill,
        _ => return ParsedHeader::Unknown,
    };
    let Some(entry_kind) = EntryKind::of_number(bytes[14]) else {
        return ParsedHeader::Unknown;
    };
    if bytes[13] != VERSION || bytes[15] != 0 {
        return ParsedHeader::Unknown;
    }
    let header = Header {
        kind,
        entry_kind,
        lsn,
        batch: number(&bytes[24..32]),
        synced: Lsn(synced),
        group: GroupId(number(&bytes[36..40]) as u32),
        index: LogIndex(number(&bytes[40..48])),
        term: Term(number(&bytes[48..56])),
        chain: number(&bytes[56..60]) as u32,
    };
    ParsedHeader::Good(header, length)
}

fn seed(directory: DirectoryId) -> u32 {
    crc32c::crc32c(&directory.0.to_le_bytes())
}

/// Over all of the header but the check itself.
fn header_check(header: &[u8], directory: DirectoryId) -> u32 {
    let check = crc32c::crc32c_append(seed(directory), &header[..4]);
    crc32c::crc32c_append(check, &header[8..RECORD_HEADER_BYTES])
}

/// A little-endian number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: DirectoryId = DirectoryId(0x0123_4567_89AB_CDEF);

    fn header(kind: Kind) -> Header {
        let entry = matches!(kind, Kind::Entry | Kind::Fill);
        let placed = entry || kind == Kind::State;
        Header {
            kind,
            entry_kind: if entry { EntryKind::Command } else { EntryKind::Noop },
            lsn: Lsn(0x1000),
            batch: 7,
            synced: Lsn(0xF00),
            group: GroupId(if placed { 3 } else { 0 }),
            index: LogIndex(if placed { 5 } else { 0 }),
            term: Term(if placed { 2 } else { 0 }),
            chain: if placed { 0xAABB_CCDD } else { 0 },
        }
    }

    fn encoded(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, &header(kind), payload, DIRECTORY);
        bytes
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_every_kind_mean_the_same_for_ever() {
        // Made by another program from the description above: head, check, body check and kinds; position, batch, unsynced;
        // group, index, term, chain; payload and padding.
        let golden = [
            (
                Kind::Head,
                concat!(
                    "05000000073783b69cd7b9e801010000",
                    "0010000000000000070000000000000000010000",
                    "00000000000000000000000000000000000000000000000000000000",
                    "68656c6c6f000000",
                ),
            ),
            (
                Kind::State,
                concat!(
                    "05000000e0972e2c9cd7b9e802010000",
                    "0010000000000000070000000000000000010000",
                    "0300000005000000000000000200000000000000ddccbbaa00000000",
                    "68656c6c6f000000",
                ),
            ),
            (
                Kind::Entry,
                concat!(
                    "0500000029f9554e9cd7b9e803010200",
                    "0010000000000000070000000000000000010000",
                    "0300000005000000000000000200000000000000ddccbbaa00000000",
                    "68656c6c6f000000",
                ),
            ),
            (
                Kind::Seal,
                concat!(
                    "05000000e7fc8e889cd7b9e804010000",
                    "0010000000000000070000000000000000010000",
                    "00000000000000000000000000000000000000000000000000000000",
                    "68656c6c6f000000",
                ),
            ),
            (
                Kind::Fill,
                concat!(
                    "05000000c65907999cd7b9e805010200",
                    "0010000000000000070000000000000000010000",
                    "0300000005000000000000000200000000000000ddccbbaa00000000",
                    "68656c6c6f000000",
                ),
            ),
        ];
        for (kind, bytes) in golden {
            assert_eq!(hex(&encoded(kind, b"hello")), bytes, "{kind:?}");
        }
    }

    #[test]
    fn what_was_encoded_is_parsed() {
        for kind in [Kind::Head, Kind::State, Kind::Entry, Kind::Seal, Kind::Fill] {
            for length in [0, 1, 7, 8, 9, 300] {
                let payload = vec![b'x'; length];
                let bytes = encoded(kind, &payload);
                assert_eq!(bytes.len(), size(length));
                assert_eq!(
                    parse(&bytes, Lsn(0x1000), DIRECTORY),
                    Parsed::Record(header(kind), &payload, bytes.len())
                );
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = encoded(Kind::Entry, b"hello");
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match parse(&bytes, Lsn(0x1000), DIRECTORY) {
                Parsed::BadHeader => assert!(bit < 64 * 8),
                Parsed::BadBody(found, whole) => {
                    assert!(bit >= 64 * 8);
                    assert_eq!((found, whole), (header(Kind::Entry), good.len()));
                }
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_record_counts_only_in_its_place_and_its_directory() {
        let bytes = encoded(Kind::Entry, b"hello");
        assert_eq!(parse(&bytes, Lsn(0x1008), DIRECTORY), Parsed::BadHeader);
        assert_eq!(parse(&bytes, Lsn(0x1000), DirectoryId(1)), Parsed::BadHeader);
    }

    #[test]
    fn zeros_and_stumps_are_told_apart() {
        let bytes = encoded(Kind::Entry, b"hello");
        assert_eq!(parse(&[0; 64], Lsn(0x1000), DIRECTORY), Parsed::Nothing);
        assert_eq!(parse(&[0; 8], Lsn(0x1000), DIRECTORY), Parsed::Nothing);
        assert_eq!(parse(&[], Lsn(0x1000), DIRECTORY), Parsed::Nothing);
        assert_eq!(parse(&bytes[..63], Lsn(0x1000), DIRECTORY), Parsed::BadHeader);
        assert_eq!(parse(&bytes[..64], Lsn(0x1000), DIRECTORY), Parsed::Short(72));
    }

    #[test]
    fn a_good_record_of_a_kind_to_come_is_not_called_damaged() {
        for (at, value) in [(12, 6), (12, 9), (13, 2), (14, 3), (15, 1)] {
            let mut bytes = encoded(Kind::Entry, b"hello");
            bytes[at] = value;
            let check = header_check(&bytes, DIRECTORY);
            bytes[4..8].copy_from_slice(&check.to_le_bytes());
            assert_eq!(parse(&bytes, Lsn(0x1000), DIRECTORY), Parsed::Unknown, "byte {at}");
        }
    }
}
