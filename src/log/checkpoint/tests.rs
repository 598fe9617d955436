//! What checkpoint files promise: the same bytes for ever, whole or not at all, and nothing believed that isn't as it was written.

use super::*;
use crate::log::sim_disk::SimDisk;
use crate::rng::Rng;

const DIRECTORY: DirectoryId = DirectoryId(0x0123_4567_89AB_CDEF);

fn item(room: u64, position: u64, seq: u64, index: u64) -> ItemRef {
    ItemRef {
        room: RoomId(room),
        position: Position(position),
        seq: Seq(seq),
        group: GroupId::ROOT,
        index: LogIndex(index),
    }
}

fn ending(index: u64) -> Ending {
    Ending {
        at: LogPosition {
            term: Term(3),
            index: LogIndex(index),
        },
        chain: 0xAABB_CCDD,
        digest: 0xD1_6E57,
        age_ms: 77,
        indexed: LogIndex(5),
        begins: true,
    }
}

fn make(checkpoints: &mut Checkpoints<SimDisk>, index: u64, portable: &[u8], pending: &[ItemRef]) -> CheckpointId {
    let mut writer = checkpoints.create(LogIndex(index)).unwrap();
    portable.chunks(70_001).for_each(|part| writer.write(part).unwrap());
    checkpoints.finish(writer, &ending(index), pending).unwrap()
}

fn open(disk: &SimDisk) -> Checkpoints<SimDisk> {
    Checkpoints::open(disk.clone(), DIRECTORY).unwrap()
}

fn small(disk: &SimDisk) -> CheckpointId {
    let pending = [item(1, 6, 4, 9), item(300, 1, 0, 8)];
    make(&mut open(disk), 9, b"hello checkpoint", &pending)
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..length).map(|_| rng.below(256) as u8).collect()
}

fn all(stream: Stream<<SimDisk as Disk>::File>) -> Vec<u8> {
    stream.flat_map(|block| block.unwrap()).collect()
}

#[test]
fn the_bytes_of_a_checkpoint_file_mean_the_same_for_ever() {
    let disk = SimDisk::new();
    small(&disk);
    let bytes = disk.contents("checkpoint/00000000000000000009.ckpt").unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    // Made by another program from the description above.
    let golden = concat!(
        "53594e43434b500a0100000066c1463203000000000000000900000000000000ddccbbaaea9e985b",
        "576ed1000000000010000000000000004d000000000000000b000000000000000200000000000000",
        "05000000000000000100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000",
        "b129ea711000000068656c6c6f20636865636b706f696e74",
        "338ac0030b0000000106040009ac0201000008",
    );
    assert_eq!(hex, golden);
}

#[test]
fn what_was_written_is_read_whole_and_in_pieces() {
    let disk = SimDisk::new();
    for (index, length) in [(1, 0), (2, 1), (3, 65_536), (4, 65_537), (5, 300_000)] {
        let portable = bytes(index, length);
        let pending: Vec<ItemRef> = (1..=length as u64 / 4).map(|n| item(index, n, n, n * 9)).collect();
        let id = make(&mut open(&disk), index, &portable, &pending);
        assert_eq!((id.bytes, id.check), (length as u64, crc32c::crc32c(&portable)));
        let checkpoints = open(&disk);
        let info = checkpoints.list()[index as usize - 1];
        assert_eq!((info.id, info.age_ms), (id, 77));
        checkpoints.verify(&id).unwrap();
        assert_eq!(all(checkpoints.open_stream(&id).unwrap()), portable);
        assert_eq!(checkpoints.pending(&id).unwrap(), pending);
        let mut rng = Rng::new(index);
        for _ in 0..50 {
            let from = rng.below(length as u64 + 10);
            let count = rng.below(200_000) as usize;
            let piece = checkpoints.read(&id, from, count).unwrap();
            let rest = portable.get(from as usize..).unwrap_or(&[]);
            assert_eq!(piece, rest[..count.min(rest.len())]);
        }
        assert!(checkpoints.read(&id, u64::MAX, 10).unwrap().is_empty());
        let other = CheckpointId { digest: 1, ..id };
        assert!(checkpoints.read(&other, 0, 10).unwrap_err().is_missing());
    }
    let mut checkpoints = open(&disk);
    checkpoints.remove(LogIndex(3)).unwrap();
    checkpoints.remove(LogIndex(33)).unwrap();
    let left: Vec<u64> = checkpoints.list().iter().map(|info| info.id.at.index.0).collect();
    assert_eq!(left, [1, 2, 4, 5]);
    assert_eq!(open(&disk).list(), checkpoints.list());
}

#[test]
fn every_flipped_bit_is_noticed_and_named() {
    let disk = SimDisk::new();
    let id = small(&disk);
    let checkpoints = open(&disk);
    let name = file_name(LogIndex(9));
    let size = disk.contents(&name).unwrap().len() as u64;
    for bit in 0..size * 8 {
        disk.flip_bit(&name, bit / 8, (bit % 8) as u32);
        let Err(FileError::Damaged { file, offset, .. }) = checkpoints.verify(&id) else {
            panic!("bit {bit}");
        };
        let block = [0, 128, 152].into_iter().rfind(|&start| start <= bit / 8);
        assert_eq!((file.as_str(), Some(offset)), (name.as_str(), block), "bit {bit}");
        let again = open(&disk);
        assert_eq!(again.bad().len(), usize::from(bit < 128 * 8));
        assert_eq!(again.list().len(), usize::from(bit >= 128 * 8));
        disk.flip_bit(&name, bit / 8, (bit % 8) as u32);
    }
    checkpoints.verify(&id).unwrap();
    let other = Checkpoints::open(disk.clone(), DirectoryId(1)).unwrap();
    assert_eq!((other.list().len(), other.bad().len()), (0, 1));
    let file = disk.open(&name).unwrap();
    for length in [0, 100, size - 1, size + 1] {
        file.set_size(length).unwrap();
        assert_eq!(open(&disk).bad().len(), 1, "{length} bytes");
    }
}

#[test]
fn a_bad_file_can_be_set_aside() {
    let disk = SimDisk::new();
    for n in 0..2 {
        small(&disk);
        let name = file_name(LogIndex(9));
        disk.flip_bit(&name, 20, 1);
        let mut checkpoints = open(&disk);
        let (file, _, _) = checkpoints.bad()[0].clone();
        let place = checkpoints.set_aside(&file).unwrap();
        assert!(checkpoints.bad().is_empty());
        let end = if n == 0 { "" } else { ".1" };
        assert_eq!(place, format!("quarantine/00000000000000000009.ckpt{end}"));
        disk.power_cut(&mut Rng::new(n));
        assert!(disk.contents(&place).is_some() && disk.contents(&name).is_none());
    }
}

#[test]
fn a_checkpoint_is_there_whole_or_not_at_all() {
    let mut whole = 0;
    for seed in 0..300 {
        let (disk, mut rng) = (SimDisk::new(), Rng::new(seed));
        let portable = bytes(seed, 150_000);
        let first = make(&mut open(&disk), 1, &portable, &[]);
        let mut checkpoints = open(&disk);
        disk.stop_after(rng.below(11));
        let made = checkpoints.create(LogIndex(2)).and_then(|mut writer| {
            writer.write(&portable)?;
            checkpoints.finish(writer, &ending(2), &[item(1, 1, 1, 1)])
        });
        disk.power_cut(&mut rng);
        let checkpoints = open(&disk);
        assert!(checkpoints.bad().is_empty(), "seed {seed}: {:?}", checkpoints.bad());
        checkpoints.verify(&first).unwrap();
        for info in checkpoints.list() {
            checkpoints.verify(&info.id).unwrap();
        }
        let there = checkpoints.list().len() == 2;
        assert!(there || made.is_err(), "seed {seed}");
        whole += u32::from(there);
        assert!(disk.list(FOLDER).unwrap().iter().all(|name| index_of(name).is_some()));
    }
    assert!(whole > 50 && whole < 280, "{whole} of 300");
}

#[test]
fn one_that_is_given_up_leaves_nothing() {
    let disk = SimDisk::new();
    let checkpoints = open(&disk);
    let mut writer = checkpoints.create(LogIndex(4)).unwrap();
    writer.write(&[7; 100_000]).unwrap();
    assert_eq!(disk.list(FOLDER).unwrap().len(), 1);
    drop(writer);
    assert!(disk.list(FOLDER).unwrap().is_empty());
}

#[test]
fn a_checkpoint_from_another_server_comes_in_pieces_and_goes_on_after_a_restart() {
    let (theirs, ours) = (SimDisk::new(), SimDisk::new());
    let portable = bytes(3, 200_000);
    let id = make(&mut open(&theirs), 50, &portable, &[]);
    let mut checkpoints = open(&ours);
    assert!(checkpoints.complete(&id).unwrap().is_none());
    let mut next = checkpoints.store(&id, 0, &[]).unwrap();
    let mut rng = Rng::new(1);
    while next < id.bytes {
        assert!(checkpoints.complete(&id).unwrap().is_none());
        let end = (next as usize + 30_000).min(portable.len());
        let piece = &portable[next as usize..end];
        // Pieces that come twice, or before their time, don't matter.
        assert_eq!(checkpoints.store(&id, next + 5, piece).unwrap(), next);
        let after = checkpoints.store(&id, next, piece).unwrap();
        assert_eq!(after, end as u64);
        assert_eq!(checkpoints.store(&id, next, piece).unwrap(), after);
        next = after;
        if rng.chance(30) {
            ours.kill();
            checkpoints = open(&ours);
            assert_eq!(checkpoints.store(&id, 0, &[]).unwrap(), next);
        }
    }
    assert_eq!(checkpoints.store(&id, next, b"more").unwrap(), next);
    assert!(checkpoints.list().is_empty());
    let stream = checkpoints.complete(&id).unwrap().unwrap();
    let mut writer = checkpoints.create(id.at.index).unwrap();
    for block in stream {
        writer.write(&block.unwrap()).unwrap();
    }
    assert_eq!(checkpoints.finish(writer, &ending(50), &[]).unwrap(), id);
    checkpoints.drop_partials().unwrap();
    assert_eq!(ours.list(FOLDER).unwrap().len(), 1);
    assert_eq!(all(checkpoints.open_stream(&id).unwrap()), portable);
}

#[test]
fn what_came_wrong_is_not_believed_and_comes_again() {
    let portable = bytes(3, 100_000);
    let id = make(&mut open(&SimDisk::new()), 50, &portable, &[]);
    let ours = SimDisk::new();
    let mut checkpoints = open(&ours);
    assert_eq!(checkpoints.store(&id, 0, &portable).unwrap(), id.bytes);
    let name = format!("{FOLDER}/{}", ours.list(FOLDER).unwrap()[0]);
    ours.flip_bit(&name, 70_000, 4);
    assert!(matches!(checkpoints.complete(&id), Err(FileError::Damaged { .. })));
    assert_eq!(checkpoints.store(&id, 0, &[]).unwrap(), 0);
    // Of another checkpoint nothing is continued, and only one is kept.
    assert_eq!(checkpoints.store(&id, 0, &portable[..10]).unwrap(), 10);
    let other = CheckpointId { digest: 5, ..id };
    assert_eq!(checkpoints.store(&other, 10, &portable[10..]).unwrap(), 0);
    assert_eq!(ours.list(FOLDER).unwrap().len(), 1);
    // More than there is of it isn't taken.
    assert_eq!(checkpoints.store(&other, 0, &[0; 100_001]).unwrap(), 0);
}
