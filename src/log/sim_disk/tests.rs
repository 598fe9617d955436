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
