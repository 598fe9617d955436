//! A simulated disk fails as it says, and only so.

use super::*;

fn written() -> (SimDisk, SimFile) {
    let disk = SimDisk::new();
    let file = disk.create("a").unwrap();
    file.write_at(&[1; 3 * PAGE], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    (disk, file)
}

#[test]
fn what_is_synced_survives_every_power_cut() {
    for seed in 0..50 {
        let (disk, _) = written();
        disk.power_cut(&mut Rng::new(seed));
        assert_eq!(disk.contents("a").unwrap(), vec![1; 3 * PAGE]);
    }
}

#[test]
fn what_is_not_synced_is_lost_kept_or_torn_at_a_sector() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..100 {
        let (disk, file) = written();
        file.write_at(&[2; PAGE], PAGE as u64).unwrap();
        disk.kill();
        assert_eq!(disk.contents("a").unwrap()[PAGE], 2);
        disk.power_cut(&mut Rng::new(seed));
        let bytes = disk.contents("a").unwrap();
        let new = bytes.iter().filter(|&&b| b == 2).count();
        assert!(bytes[PAGE..PAGE + new].iter().all(|&b| b == 2));
        match new {
            0 => lost += 1,
            PAGE => kept += 1,
            _ => {
                assert_eq!(new % SECTOR, 0);
                torn += 1;
            }
        }
    }
    assert!(lost > 10 && kept > 10 && torn > 10, "{lost} {kept} {torn}");
}

#[test]
fn names_are_durable_only_after_the_folder_is_synced() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..50 {
        let (disk, _) = written();
        disk.rename("a", "b").unwrap();
        disk.power_cut(&mut Rng::new(seed));
        match disk.list("").unwrap().as_slice() {
            [name] if name == "a" => lost += 1,
            [name] if name == "b" => kept += 1,
            other => panic!("{other:?}"),
        }
        disk.rename(if disk.open("a").is_ok() { "a" } else { "b" }, "c")
            .unwrap();
        disk.sync_dir("").unwrap();
        disk.power_cut(&mut Rng::new(seed + 1));
        assert_eq!(disk.list("").unwrap(), ["c"]);
    }
    assert!(lost > 10 && kept > 10, "{lost} {kept}");
}

#[test]
fn pages_of_a_failed_sync_look_written_and_are_not() {
    let mut lost = 0;
    for seed in 0..50 {
        let (disk, file) = written();
        file.write_at(&[2; PAGE], 0).unwrap();
        disk.fail_syncs(1);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(disk.contents("a").unwrap()[0], 2);
        disk.power_cut(&mut Rng::new(seed));
        lost += u32::from(disk.contents("a").unwrap()[0] == 1);
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn the_same_generator_gives_the_same_disk() {
    let outcome = |seed| {
        let (disk, file) = written();
        file.write_at(&[2; 5 * PAGE], 100).unwrap();
        disk.power_cut(&mut Rng::new(seed));
        disk.contents("a").unwrap()
    };
    assert!((0..20).all(|seed| outcome(seed) == outcome(seed)));
}

#[test]
fn an_end_can_come_in_the_middle_of_a_write() {
    let (disk, file) = written();
    disk.stop_after(1);
    file.write_at(&[2; 10], 0).unwrap();
    assert!(file.write_at(&[3; 10], 100).is_err());
    assert!(file.write_at(&[4; 10], 200).is_err());
    assert!(disk.create("b").is_err() && disk.remove("a").is_err() && disk.sync_dir("").is_err());
    disk.kill();
    let bytes = disk.contents("a").unwrap();
    assert_eq!((bytes[0], bytes[104], bytes[105], bytes[200]), (2, 3, 1, 1));
    file.write_at(&[4; 10], 200).unwrap();
    disk.create("b").unwrap();
}

#[test]
fn a_full_disk_takes_no_more() {
    let (disk, file) = written();
    disk.set_space(Some(4 * PAGE as u64));
    file.write_at(&[2; PAGE], 3 * PAGE as u64).unwrap();
    let full = file.write_at(&[2; PAGE], 4 * PAGE as u64).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    file.write_at(&[3; PAGE], 0).unwrap();
}

#[test]
fn it_can_be_seen_what_a_power_cut_would_leave() {
    let (disk, file) = written();
    assert_eq!(disk.size_of("a"), Some(3 * PAGE as u64));
    assert!(disk.is_durable("a", 3 * PAGE as u64) && !disk.is_durable("b", 0));
    let middle = PAGE as u64 + 100;
    file.write_at(&[2], middle).unwrap();
    assert!(disk.is_durable("a", middle) && !disk.is_durable("a", middle + 1));
    // A failed sync doesn't write it, and neither does the one after it.
    disk.fail_syncs(1);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert!(!disk.is_durable("a", middle + 1));
    file.write_at(&[2], middle).unwrap();
    file.sync_data().unwrap();
    assert!(disk.is_durable("a", 3 * PAGE as u64));
    // Nor is a longer file durable, or one whose name isn't.
    file.set_size(4 * PAGE as u64).unwrap();
    assert!(disk.is_durable("a", 3 * PAGE as u64) && !disk.is_durable("a", 4 * PAGE as u64));
    disk.create("b").unwrap();
    assert!(!disk.is_durable("b", 0));
}

#[test]
fn data_behind_an_offset_is_seen_in_the_cache_and_on_the_disk() {
    let (disk, file) = written();
    let last = 3 * PAGE as u64 - 1;
    assert!(disk.has_data_from("a", last) && !disk.has_data_from("a", last + 1));
    file.write_at(&[0; PAGE], 2 * PAGE as u64).unwrap();
    // A process doesn't see it any more; a power cut may bring it back.
    assert!(disk.has_data_from("a", last));
    file.sync_data().unwrap();
    assert!(!disk.has_data_from("a", 2 * PAGE as u64));
    file.write_at(&[1], last).unwrap();
    assert!(disk.has_data_from("a", last));
}

#[test]
fn pages_of_a_failed_sync_may_be_forgotten_and_others_not() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..50 {
        let (disk, file) = written();
        file.write_at(&[2; PAGE], 0).unwrap();
        disk.fail_syncs(1);
        file.sync_data().unwrap_err();
        file.write_at(&[3; PAGE], PAGE as u64).unwrap();
        disk.forget_unwritten(&mut Rng::new(seed));
        let bytes = disk.contents("a").unwrap();
        match bytes[0] {
            1 => old += 1,
            2 => new += 1,
            other => panic!("{other}"),
        }
        assert_eq!(bytes[PAGE], 3);
    }
    assert!(old > 0 && new > 0);
}

#[test]
fn the_first_page_is_lost_and_the_others_stay() {
    let (disk, file) = written();
    file.write_at(&[2; 2 * PAGE], PAGE as u64).unwrap();
    disk.lose_first_pages();
    disk.power_cut(&mut Rng::new(1));
    let bytes = disk.contents("a").unwrap();
    assert_eq!((bytes[0], bytes[PAGE], bytes[2 * PAGE]), (1, 1, 2));
}
