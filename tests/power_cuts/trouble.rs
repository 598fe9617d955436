//! Disks that fail and disks that hang, under real servers.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use syncnet::rng::Rng;
use tempfile::TempDir;

use super::disk::{PAGE, Tally};
use super::machine::{Fault, Machine};
use super::mount::mount;
use super::rig::{IDS, QUICK, Rig};
use super::writers::Writer;
use crate::support::cluster::Options;
use crate::support::wait_until;

/// So patient that a busy machine changes no leader.
const PATIENT: Options = Options {
    cluster: "[timing]\nheartbeat_interval = \"100ms\"\nfailure_timeout = \"5s\"\nelection_timeout = \"5s\"",
    unicast: false,
    secret: false,
    alone: false,
    descriptors: None,
    calm: false,
};

#[test]
fn the_disks_of_these_tests_forget_what_was_not_synced_and_nothing_else() {
    let folder = TempDir::with_prefix("syncnet-disk-").expect("a temporary directory");
    let machine = Arc::new(Machine::new(1));
    let Some(session) = mount(&machine, 0, folder.path()) else {
        return;
    };
    let mut fates = [0; 4];
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let path = folder.path().join(format!("{seed}"));
        let sync = |folder: &std::path::Path| fs::File::open(folder).and_then(|f| f.sync_all()).expect("a sync");
        fs::create_dir(&path).expect("a folder");
        sync(folder.path());
        fs::write(path.join("lost"), b"its name isn't synced").expect("a file");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("file.tmp"));
        let file = file.expect("a file");
        file.write_all_at(&[1; 2 * PAGE], 0).expect("a write");
        file.sync_data().expect("a sync");
        fs::rename(path.join("file.tmp"), path.join("file")).expect("a new name");
        sync(&path);
        file.write_all_at(&[2; PAGE], PAGE as u64).expect("a write");
        fs::rename(path.join("file"), path.join("other")).expect("a new name");
        let mut bytes = vec![0; 2 * PAGE];
        file.read_exact_at(&mut bytes, 0).expect("a read");
        assert!(bytes[..PAGE].iter().all(|&b| b == 1) && bytes[PAGE..].iter().all(|&b| b == 2));
        drop(file);
        machine.restore(&[0], &mut rng, &mut Tally::default());

        let (old, new) = (path.join("file").exists(), path.join("other").exists());
        assert!(old != new, "a file has one name of two");
        let bytes = fs::read(path.join(if new { "other" } else { "file" })).expect("a file");
        assert_eq!(bytes.len(), 2 * PAGE);
        assert!(bytes[..PAGE].iter().all(|&b| b == 1), "what was synced is there");
        let written = bytes[PAGE..].iter().filter(|&&b| b == 2).count();
        fates[0] += usize::from(new);
        fates[1] += usize::from(written == 0);
        fates[2] += usize::from(written == PAGE);
        fates[3] += usize::from(written % PAGE != 0);
        assert!(!path.join("file.tmp").exists());
    }
    assert!(fates.iter().all(|&count| (5..55).contains(&count)), "{fates:?}");
    session.umount_and_join().expect("nobody uses it");
}

/// A server whose disk fails ends with 6 and says why; the others go on, and it comes back with all that was acknowledged.
fn fails(fault: Fault, says: &str) {
    let Some(mut rig) = Rig::new(QUICK) else { return };
    rig.cluster.launch_all();
    rig.settle();
    let writers = [Writer::stream("stream", rig.sender())];
    for drive in [2, 0] {
        goes_on(&writers[0]);
        rig.fail(drive, fault);
        let log = fs::read_to_string(rig.cluster.path(&format!("{}.log", IDS[drive]))).expect("a log");
        let last = log.lines().rev().find(|line| line.starts_with("syncnetd: "));
        assert!(last.is_some_and(|line| line.contains(says)), "{log}");
        goes_on(&writers[0]);
        rig.settle();
        rig.check(&writers, false);
    }
    rig.check(&writers, true);
}

/// Waits until more is acknowledged.
#[track_caller]
fn goes_on(writer: &Writer) {
    let before = writer.acknowledged();
    wait_until("more is acknowledged", || writer.acknowledged() > before + 50);
}

#[test]
fn a_sync_that_fails_ends_the_server_and_is_never_tried_again() {
    fails(Fault::Syncs, "error");
}

#[test]
fn a_write_that_fails_ends_the_server() {
    fails(Fault::Writes, "error");
}

#[test]
fn a_leader_whose_disk_hangs_is_replaced_and_comes_back() {
    let Some(mut rig) = Rig::new(QUICK) else { return };
    rig.cluster.launch_all();
    rig.cluster.await_leader("server3");
    let writers = [Writer::stream("stream", rig.sender())];
    goes_on(&writers[0]);
    rig.machine.hold(&[2]);
    rig.cluster.await_other_leader("server3");
    goes_on(&writers[0]);
    rig.machine.release(&[2]);
    rig.settle();
    rig.check(&writers, true);
    rig.cluster.await_leader("server3");
}

#[test]
fn a_follower_whose_disk_hangs_disturbs_nobody() {
    let Some(mut rig) = Rig::new(PATIENT) else { return };
    rig.cluster.launch_all();
    rig.cluster.await_leader("server3");
    let term = |rig: &Rig| {
        let report = rig.cluster.status(&["--json"]).json().pop().unwrap_or_default();
        let rows = report["servers"].as_array().cloned().unwrap_or_default();
        let leads = rows.into_iter().find(|row| row["role"] == "leader");
        leads.map(|row| (row["id"].clone(), row["term"].clone()))
    };
    let before = term(&rig);
    assert!(before.is_some());
    let writers = [Writer::stream("stream", rig.sender())];
    goes_on(&writers[0]);
    rig.machine.hold(&[0]);
    goes_on(&writers[0]);
    // Longer than a time-out, if it had any influence.
    std::thread::sleep(Duration::from_secs(6));
    goes_on(&writers[0]);
    assert_eq!(term(&rig), before);
    rig.machine.release(&[0]);
    rig.settle();
    rig.check(&writers, true);
    assert_eq!(term(&rig), before);
}
