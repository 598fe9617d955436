//! A full disk ends nothing and loses nothing: a server waits for space, shows what it has meanwhile, and goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cluster::{Cluster, Options};
use crate::support::run::Running;
use crate::support::wait_until;

/// What the data directory's file system holds, in MiB: some segments of 1 MiB, and what is left free for others.
const SIZE: u64 = 24;

/// Runs what follows with a small file system of its own at a directory, which ends with the process: `sh -c MOUNT DIR COMMAND…`.
const MOUNT: &str = "mount -t tmpfs -o size=24m tmpfs \"$0\" && exec \"$@\"";

/// Whether this process may mount. Says so if not: these tests prove nothing then.
fn may_mount(test: &str) -> bool {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tried = Command::new("unshare")
        .args(["-m", "sh", "-c", MOUNT])
        .arg(dir.path())
        .arg("true")
        .output();
    let may = tried.is_ok_and(|tried| tried.status.success());
    if !may {
        eprintln!("SKIPPED: {test} needs the right to mount a file system");
    }
    may
}

/// A server that is alone, its data directory on a small file system.
fn start() -> Cluster {
    let options = Options {
        cluster: "[log]\nsegment_size = \"1MiB\"",
        alone: true,
        unicast: true,
        ..Options::default()
    };
    let mut cluster = Cluster::configured(options);
    fs::create_dir(cluster.path("server1")).expect("a writable directory");
    let dir = cluster.path("server1");
    let dir = dir.to_str().expect("a path of ours").to_owned();
    cluster.launch_under("server1", &["unshare", "-m", "sh", "-c", MOUNT, &dir]);
    cluster.await_leader("server1");
    cluster
}

/// The data directory as the server sees it.
fn data(cluster: &Cluster) -> PathBuf {
    let root = format!("/proc/{}/root", cluster.process("server1").as_raw_nonzero());
    Path::new(&root).join(cluster.path("server1").strip_prefix("/").expect("an absolute path"))
}

fn log(cluster: &Cluster) -> String {
    fs::read_to_string(cluster.path("server1.log")).expect("a log")
}

/// Takes all but so many MiB of what is free.
fn leave(cluster: &Cluster, left: u64) {
    let free = || {
        let stat = rustix::fs::statvfs(data(cluster)).expect("a file system");
        (stat.f_bavail * stat.f_frsize) >> 20
    };
    assert!(free() <= SIZE, "the file system isn't the small one");
    let size = free().saturating_sub(left) << 20;
    fs::write(data(cluster).join("ballast"), vec![1; size as usize]).expect("there is space for that");
}

/// Somebody sends more than there is space for, and the server has noticed. What is sent, and by whom.
fn fill(cluster: &Cluster) -> (Vec<String>, Running) {
    leave(cluster, 3);
    let lines: Vec<String> = (0..600).map(|n| format!("{n} {}", "x".repeat(10_000))).collect();
    let mut sender = cluster.spawn_syncnet(&["send", "--json", "--timeout", "0", "ops"]);
    sender.say(&lines.join("\n"));
    wait_until("the server says that there is no space", || {
        log(cluster).contains("nothing new is acknowledged here until there is space")
    });
    (lines, sender)
}

#[test]
fn a_full_disk_is_waited_for_and_what_was_acknowledged_is_there() {
    if !may_mount("a_full_disk_is_waited_for_and_what_was_acknowledged_is_there") {
        return;
    }
    let mut cluster = start();
    let (lines, sender) = fill(&cluster);
    // It still shows what it has.
    let stale = cluster.tail("server1", "ops", 0, &["--stale"]);
    let shown = stale.code(0).texts("text").len();
    assert!(shown > 0 && shown < lines.len(), "{shown} of {}", lines.len());
    fs::remove_file(data(&cluster).join("ballast")).expect("it is there");
    let sent = sender.end().code(0);
    assert_eq!(sent.numbers("line").len(), lines.len());
    assert_eq!(cluster.messages("server1", "ops").texts("text"), lines);
    assert!(log(&cluster).contains("the disk has space again"));
    let (status, _) = cluster.stop("server1");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_server_that_waits_for_space_can_be_stopped() {
    if !may_mount("a_server_that_waits_for_space_can_be_stopped") {
        return;
    }
    let mut cluster = start();
    let (_, sender) = fill(&cluster);
    let (status, _) = cluster.stop("server1");
    assert_eq!(status.code(), Some(0), "{}", log(&cluster));
    drop(sender);
}
