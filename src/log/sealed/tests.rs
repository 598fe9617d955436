//! What index files promise: the same bytes for ever, every row found, nothing believed that isn't as it was written.

use super::*;
use crate::log::ItemRef;
use crate::log::sim_disk::SimDisk;
use crate::rng::Rng;

const DIRECTORY: DirectoryId = DirectoryId(0x0123_4567_89AB_CDEF);
const SEGMENT: Segment = Segment {
    base: Lsn(4096),
    size: 65_536,
};

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_folder(FOLDER).unwrap();
    disk
}

fn item(room: u64, position: u64, seq: u64, index: u64) -> ItemRef {
    ItemRef {
        room: RoomId(room),
        position: Position(position),
        seq: Seq(seq),
        group: GroupId::ROOT,
        index: LogIndex(index),
    }
}

fn small(disk: &SimDisk) -> Sealed {
    let rooms = [
        (RoomId(1), Position(5), Seq(3)),
        (RoomId(7), Position(9), Seq(9)),
        (RoomId(6), Position(0), Seq(0)),
    ];
    let mut writer = SealedWriter::new(SEGMENT, GroupId::ROOT, LogIndex(10), rooms);
    writer.entry(LogIndex(10), Lsn(4096 + 64));
    writer.entry(LogIndex(11), Lsn(200_000));
    writer.entry(LogIndex(12), Lsn(4096 + 800));
    writer.item(&item(1, 6, 4, 10));
    writer.item(&item(8, 1, 1, 11));
    writer.item(&item(1, 7, 0, 12));
    writer.finish(disk, DIRECTORY, 0xD1_6E57, 77).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_bytes_of_an_index_file_mean_the_same_for_ever() {
    let disk = disk();
    small(&disk);
    let bytes = disk.contents("log/00000000000000004096.idx").unwrap();
    // Made by another program from the description above; what follows in each block is zeros.
    let golden = [
        concat!(
            "53594e434944580a010000003e2e84b3001000000000000000000100000000000000000000000000",
            "0a000000000000000c00000000000000576ed100000000004d000000000000000100000000000000",
            "03000000000000000300000000000000",
        ),
        "fa8140dc0000000008000000ffffffff64000000",
        "31c308ae000000000b00000000000000400d030000000000",
        concat!(
            "c39f398b00000000",
            "0100000000000000050000000000000003000000000000000200000000000000",
            "0700000000000000090000000000000009000000000000000000000002000000",
            "0800000000000000000000000000000000000000000000000100000002000000",
        ),
        "6f69ea3d00000000010000000400000003000000",
    ];
    assert_eq!(bytes.len(), golden.len() * BLOCK);
    for (block, golden) in bytes.chunks(BLOCK).zip(golden) {
        let (head, rest) = block.split_at(golden.len() / 2);
        assert_eq!(hex(head), golden);
        assert!(rest.iter().all(|&b| b == 0));
    }
}

#[test]
fn what_was_written_is_read() {
    let disk = disk();
    let sealed = small(&disk);
    assert_eq!((sealed.first, sealed.last), (LogIndex(10), LogIndex(12)));
    let mut file = SealedFile::open(&disk, DIRECTORY, SEGMENT).unwrap();
    let head = *file.head();
    assert_eq!((head.sealed, head.digest, head.age_ms), (sealed, 0xD1_6E57, 77));
    file.verify().unwrap();
    let places = [Lsn(4160), Lsn(200_000), Lsn(4896)];
    assert_eq!(file.places(LogIndex(10), 99).unwrap(), places);
    assert_eq!(file.places(LogIndex(11), 1).unwrap(), places[1..2]);
    assert!(file.places(LogIndex(13), 1).unwrap().is_empty());
    assert!(file.places(LogIndex(9), 1).unwrap().is_empty());
    assert_eq!(file.room(RoomId(6)).unwrap(), None);
    let silent = file.room(RoomId(7)).unwrap().unwrap();
    assert_eq!(
        (silent.position, silent.messages, silent.items),
        (Position(9), Seq(9), 0)
    );
    assert_eq!(file.message(&silent, 1).unwrap(), None);
    assert_eq!(file.items_up_to(&silent, LogIndex(12)).unwrap(), 0);
    let after = [
        (RoomId(1), Position(7), Seq(4)),
        (RoomId(7), Position(9), Seq(9)),
        (RoomId(8), Position(1), Seq(1)),
    ];
    assert_eq!(file.rooms_after().unwrap(), after);
    assert_eq!(base_of("00000000000000004096.idx"), Some(SEGMENT.base));
    assert_eq!(base_of("00000000000000004096.idx.tmp"), None);
}

/// Many blocks of everything.
#[test]
fn every_row_of_a_large_file_is_found() {
    let (disk, mut rng) = (disk(), Rng::new(5));
    let segment = Segment {
        base: Lsn(1 << 20),
        size: 1 << 22,
    };
    let rooms: Vec<_> = (0..700)
        .map(|room| (RoomId(room * 3 + 1), Position(room + 1), Seq(room)))
        .collect();
    let mut writer = SealedWriter::new(segment, GroupId::ROOT, LogIndex(1000), rooms);
    let (mut places, mut items, mut seq) = (Vec::new(), Vec::new(), 0);
    for n in 0..5000 {
        let lsn = if rng.chance(20) {
            Lsn(rng.below(1000) * 8)
        } else {
            Lsn(segment.base.0 + n * 72)
        };
        writer.entry(LogIndex(1000 + n), lsn);
        places.push(lsn);
        if rng.chance(70) {
            let message = rng.chance(60);
            seq += u64::from(message);
            items.push(item(2, items.len() as u64 + 1, if message { seq } else { 0 }, 1000 + n));
            writer.item(&items[items.len() - 1]);
        }
        if n < 700 {
            // So that the loud room doesn't begin with a block.
            writer.item(&item(n * 3 + 1, n + 2, n + 1, 1000 + n));
        }
    }
    assert_eq!(writer.entries(), 5000);
    writer.finish(&disk, DIRECTORY, 0, 0).unwrap();
    let mut file = SealedFile::open(&disk, DIRECTORY, segment).unwrap();
    file.verify().unwrap();
    assert_eq!(file.places(LogIndex(1000), 9999).unwrap(), places);
    for n in 0..700 {
        let row = file.room(RoomId(n * 3 + 1)).unwrap().unwrap();
        assert_eq!((row.position, row.messages, row.items), (Position(n + 1), Seq(n), 1));
        assert_eq!(file.items(&row, 0, 9).unwrap()[0].index, LogIndex(1000 + n));
        assert_eq!(file.room(RoomId(n * 3 + 3)).unwrap(), None);
    }
    let row = file.room(RoomId(2)).unwrap().unwrap();
    assert_eq!(row.items as usize, items.len());
    for (at, item) in items.iter().enumerate() {
        let found = file.items(&row, at as u32, 3).unwrap();
        let message = item.seq != Seq(0);
        assert_eq!(
            found[0],
            SealedItem {
                index: item.index,
                message
            }
        );
        assert_eq!(file.items_up_to(&row, item.index).unwrap(), at as u32 + 1);
        assert_eq!(file.items_up_to(&row, item.index.previous()).unwrap() as usize, at);
        let before = items[..at].iter().filter(|item| item.seq != Seq(0)).count();
        assert_eq!(file.messages_before(&row, at as u32).unwrap() as usize, before);
        if message {
            assert_eq!(file.message(&row, item.seq.0).unwrap(), Some(at as u32));
        }
    }
    assert_eq!(file.message(&row, seq + 1).unwrap(), None);
    assert!(file.blocks.len() <= INDEX_BLOCKS_KEPT);
}

#[test]
fn every_flipped_bit_is_noticed_and_named() {
    let disk = disk();
    small(&disk);
    let name = file_name(SEGMENT.base);
    let size = disk.contents(&name).unwrap().len() as u64;
    for offset in 0..size {
        // One bit of each byte, another each time, and all of those that say something.
        let bits = if offset % BLOCK as u64 <= 112 {
            0..8
        } else {
            (offset % 8) as u32..(offset % 8) as u32 + 1
        };
        for bit in bits {
            disk.flip_bit(&name, offset, bit);
            let read = SealedFile::open(&disk, DIRECTORY, SEGMENT).and_then(|mut file| file.verify());
            let Err(FileError::Damaged { file, offset: at, .. }) = read else {
                panic!("byte {offset}, bit {bit}: {read:?}");
            };
            assert_eq!(
                (file.as_str(), at),
                (name.as_str(), offset / BLOCK as u64 * BLOCK as u64)
            );
            disk.flip_bit(&name, offset, bit);
        }
    }
    SealedFile::open(&disk, DIRECTORY, SEGMENT).unwrap().verify().unwrap();
}

#[test]
fn a_file_of_another_directory_segment_or_length_is_none() {
    let disk = disk();
    small(&disk);
    let damaged = |disk: &SimDisk, directory, segment| match SealedFile::open(disk, directory, segment) {
        Err(FileError::Damaged { .. }) => true,
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    };
    assert!(!damaged(&disk, DIRECTORY, SEGMENT));
    assert!(damaged(&disk, DirectoryId(1), SEGMENT));
    assert!(damaged(&disk, DIRECTORY, Segment { size: 4096, ..SEGMENT }));
    let other = Segment {
        base: Lsn(8192),
        ..SEGMENT
    };
    disk.rename(&file_name(SEGMENT.base), &file_name(other.base)).unwrap();
    assert!(damaged(&disk, DIRECTORY, other));
    assert!(SealedFile::open(&disk, DIRECTORY, SEGMENT).unwrap_err().is_missing());
    disk.rename(&file_name(other.base), &file_name(SEGMENT.base)).unwrap();
    let file = disk.open(&file_name(SEGMENT.base)).unwrap();
    for size in [0, 100, 4096, 5 * 4096 - 1, 6 * 4096] {
        file.set_size(size).unwrap();
        assert!(damaged(&disk, DIRECTORY, SEGMENT), "{size} bytes");
    }
}

#[test]
fn a_version_to_come_is_not_called_damaged() {
    let disk = disk();
    small(&disk);
    let file = disk.open(&file_name(SEGMENT.base)).unwrap();
    let mut block = vec![0; BLOCK];
    file.read_at(&mut block, 0).unwrap();
    block[8] = 2;
    let check = header_check(DIRECTORY, SEGMENT.base, &block);
    blocks::put_u32(&mut block, 12, check);
    file.write_at(&block, 0).unwrap();
    let error = SealedFile::open(&disk, DIRECTORY, SEGMENT).unwrap_err();
    assert!(matches!(error, FileError::Newer { .. }), "{error}");
}

#[test]
fn an_index_file_is_there_whole_or_not_at_all() {
    let mut whole = 0;
    for seed in 0..300 {
        let (disk, mut rng) = (disk(), Rng::new(seed));
        disk.sync_dir("").unwrap();
        if rng.chance(50) {
            // One is there already: it stays until the other is in its place.
            small(&disk);
        }
        let had = disk.open(&file_name(SEGMENT.base)).is_ok();
        disk.stop_after(rng.below(9));
        let mut writer = SealedWriter::new(SEGMENT, GroupId::ROOT, LogIndex(10), []);
        writer.entry(LogIndex(10), Lsn(4096 + 64));
        let ended = writer.finish(&disk, DIRECTORY, 1, 2).is_ok();
        disk.power_cut(&mut rng);
        match SealedFile::open(&disk, DIRECTORY, SEGMENT) {
            Ok(mut file) => {
                file.verify().unwrap();
                assert!(had || ended || file.head().digest == 1);
                assert!(!ended || file.head().digest == 1);
                whole += 1;
            }
            Err(error) => assert!(error.is_missing() && !had && !ended, "seed {seed}: {error}"),
        }
        // What is left of the attempt is no hindrance.
        small(&disk);
    }
    assert!(whole > 100 && whole < 300, "{whole} of 300");
}
