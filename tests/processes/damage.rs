//! Disks go bad in one place or altogether: a server of three repairs itself without an operator, one that is alone says where.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, Options};
use crate::support::run::run;
use crate::support::wait_until;

#[path = "damage/data.rs"]
mod data;

use data::{ENTRY, SEAL, STATE};

/// Small segments and frequent checkpoints, so that there are several of each.
const LOG: &str = "[log]\nsegment_size = \"1MiB\"\ncheckpoint_every = 100";
/// How long a server may take to come back.
const REPAIR: Duration = Duration::from_secs(30);

/// Messages of some 10 KiB each, which name their number: a hundred fill a segment.
fn lines(from: usize, to: usize) -> Vec<String> {
    (from..=to)
        .map(|n| {
            format!(
                "message {n} {}",
                char::from(b'a' + (n % 26) as u8).to_string().repeat(10_000)
            )
        })
        .collect()
}

fn small(from: usize, to: usize) -> Vec<String> {
    (from..=to).map(|n| format!("message {n}")).collect()
}

fn send(cluster: &Cluster, texts: &[String]) {
    let sent = cluster.syncnet(&["send", "--json", "ops"], &texts.join("\n")).code(0);
    assert_eq!(sent.numbers("line").len(), texts.len());
}

/// What a server must leave of what it couldn't trust.
enum Quarantine {
    /// It was set aside.
    Filled,
    /// It could be repaired in its place, made again, or was gone.
    Any,
}

/// Waits until all servers are well and none repairs, for as long as a repair may take.
#[track_caller]
fn await_repaired(cluster: &Cluster) {
    let deadline = Instant::now() + REPAIR;
    loop {
        let status = cluster.status(&["--json", "--timeout", "1"]);
        if status.status.success() {
            let report = status.json().remove(0);
            let rows = report["servers"].as_array().expect("rows").clone();
            assert!(rows.iter().all(|row| row["repairing"] == false), "{report}");
            return;
        }
        assert!(Instant::now() < deadline, "not repaired: {status:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// All servers have these messages and no others, and say so in the same bytes.
#[track_caller]
fn all_have(cluster: &Cluster, texts: &[String]) {
    let expected = cluster.messages("server2", "ops");
    assert!(
        expected.texts("text") == texts,
        "server2 doesn't have the {} messages",
        texts.len()
    );
    for id in ["server1", "server3"] {
        let found = cluster.messages(id, "ops");
        assert_eq!(found.numbers("seq"), expected.numbers("seq"), "at {id}");
        assert!(found.stdout == expected.stdout, "{id} has other texts than server2");
    }
}

/// Three servers with some segments and checkpoints; `server1` is stopped.
fn filled(texts: &[String]) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::start(Options {
        cluster: LOG,
        ..Options::default()
    });
    send(&cluster, texts);
    let server1 = cluster.path("server1");
    assert_eq!(cluster.messages("server1", "ops").numbers("seq").len(), texts.len());
    wait_until("server1 has checkpoints and indexes", || {
        !data::files(&server1.join("checkpoint"), "ckpt").is_empty()
            && !data::files(&server1.join("log"), "idx").is_empty()
    });
    assert_eq!(cluster.stop("server1").0.code(), Some(0));
    assert!(data::segments(&server1).len() >= 4, "not enough segments");
    (cluster, server1)
}

/// The data of a stopped `server1` is damaged: the others go on, it comes back by itself with all that was acknowledged, stays whole
/// when it is started again, and counts for a majority.
fn repairs_itself(damage: impl FnOnce(&Path), quarantine: Quarantine) {
    let mut texts = lines(1, 450);
    let (cluster, server1) = filled(&texts);
    damage(&server1);
    comes_back(cluster, &server1, &mut texts, quarantine);
}

fn comes_back(mut cluster: Cluster, server1: &Path, texts: &mut Vec<String>, quarantine: Quarantine) -> Cluster {
    let mut more = |cluster: &Cluster| {
        let next = small(texts.len() + 1, texts.len() + 5);
        send(cluster, &next);
        texts.extend(next);
        texts.clone()
    };
    more(&cluster);
    cluster.launch("server1");
    more(&cluster);
    await_repaired(&cluster);
    let all = more(&cluster);
    all_have(&cluster, &all);
    if let Quarantine::Filled = quarantine {
        let set_aside = fs::read_dir(server1.join("quarantine"))
            .map(Iterator::count)
            .unwrap_or(0);
        assert!(set_aside > 0, "nothing was set aside");
    }

    // What was repaired is on the disk.
    assert_eq!(cluster.stop("server1").0.code(), Some(0));
    cluster.launch("server1");
    await_repaired(&cluster);
    all_have(&cluster, &all);

    // Of the two that are left, it is the majority's second: its vote elects, and its disk acknowledges.
    cluster.kill("server3");
    cluster.await_other_leader("server3");
    let all = more(&cluster);
    assert!(
        cluster.messages("server1", "ops").texts("text") == all,
        "server1 lacks messages"
    );
    cluster
}

#[test]
fn a_bit_flipped_in_an_old_message_is_repaired_from_the_others() {
    repairs_itself(
        |server1| data::entry_with(server1, "message 7 ").flip_payload(),
        Quarantine::Any,
    );
}

#[test]
fn a_bit_flipped_in_an_old_records_header_is_repaired_from_the_others() {
    repairs_itself(
        |server1| data::entry_with(server1, "message 7 ").flip_header(),
        Quarantine::Any,
    );
}

#[test]
fn a_bit_flipped_in_the_last_synced_record_is_not_taken_for_a_torn_end() {
    repairs_itself(
        |server1| {
            let (entry, seal) = (data::last(server1, ENTRY), data::last(server1, SEAL));
            assert!(
                (&entry.segment, entry.offset) < (&seal.segment, seal.offset),
                "{entry:?} isn't sealed: {seal:?}"
            );
            entry.flip_payload();
        },
        Quarantine::Any,
    );
}

#[test]
fn a_server_whose_vote_is_damaged_votes_again_only_as_a_new_one() {
    let mut texts = lines(1, 450);
    let (mut cluster, server1) = filled(&texts);
    // A vote in the newest segment, where nothing later stands for it.
    cluster.launch("server1");
    cluster.await_leader("server3");
    cluster.kill("server3");
    cluster.await_other_leader("server3");
    cluster.launch("server3");
    cluster.await_leader("server3");
    assert_eq!(cluster.stop("server1").0.code(), Some(0));
    let vote = data::last(&server1, STATE);
    assert_eq!(Some(&vote.segment), newest_with_records(&server1).as_ref(), "{vote:?}");
    let identity = fs::read(server1.join("identity")).expect("an identity");
    vote.flip_payload();
    // An orderly stop writes a seal, which says it once more.
    let seals = data::all(&server1, SEAL);
    let after = |seal: &&data::Place| (&seal.segment, seal.offset) > (&vote.segment, vote.offset);
    seals.iter().filter(after).for_each(data::Place::flip_payload);
    // The directory is there as long as the cluster is.
    let _cluster = comes_back(cluster, &server1, &mut texts, Quarantine::Filled);
    assert_ne!(fs::read(server1.join("identity")).expect("an identity"), identity);
}

/// The segment that is written; a later one may be prepared already.
fn newest_with_records(data: &Path) -> Option<PathBuf> {
    let written = |segment: &PathBuf| fs::read(segment).is_ok_and(|bytes| bytes.get(12).is_some_and(|kind| *kind != 0));
    data::segments(data).into_iter().rfind(written)
}

#[test]
fn a_damaged_checkpoint_is_done_without() {
    repairs_itself(
        |server1| {
            let newest = data::files(&server1.join("checkpoint"), "ckpt")
                .pop()
                .expect("a checkpoint");
            let length = fs::metadata(&newest).expect("a checkpoint").len();
            data::flip(&newest, length as usize / 2);
        },
        Quarantine::Any,
    );
}

#[test]
fn no_checkpoint_that_can_be_read_is_done_without() {
    repairs_itself(
        |server1| {
            for checkpoint in data::files(&server1.join("checkpoint"), "ckpt") {
                let length = fs::metadata(&checkpoint).expect("a checkpoint").len();
                data::flip(&checkpoint, length as usize / 2);
            }
        },
        Quarantine::Any,
    );
}

#[test]
fn a_damaged_index_is_made_again() {
    repairs_itself(
        |server1| {
            let oldest = data::files(&server1.join("log"), "idx").remove(0);
            let length = fs::metadata(&oldest).expect("an index").len();
            data::flip(&oldest, length as usize / 2);
        },
        Quarantine::Any,
    );
}

#[test]
fn a_segment_that_is_missing_in_the_middle_is_repaired_from_the_others() {
    repairs_itself(
        |server1| fs::remove_file(&data::segments(server1)[1]).expect("a segment"),
        Quarantine::Any,
    );
}

#[test]
fn a_torn_end_is_cut_off() {
    repairs_itself(data::tear, Quarantine::Any);
}

#[test]
fn a_server_whose_log_is_gone_comes_back_as_a_new_one() {
    repairs_itself(|server1| data::empty(&server1.join("log")), Quarantine::Filled);
}

#[test]
fn a_server_whose_directory_is_gone_comes_back_as_a_new_one() {
    repairs_itself(
        |server1| fs::remove_dir_all(server1).expect("a directory"),
        Quarantine::Any,
    );
}

#[test]
fn a_server_whose_identity_is_damaged_comes_back_as_a_new_one() {
    repairs_itself(
        |server1| {
            let identity = server1.join("identity");
            let length = fs::metadata(&identity).expect("an identity").len();
            data::flip(&identity, length as usize / 2);
        },
        Quarantine::Filled,
    );
}

// --- Alone ---------------------------------------------------------------------------------------

/// One server with some segments, stopped.
fn alone(log: &'static str, texts: &[String]) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::start(Options {
        cluster: log,
        alone: true,
        ..Options::default()
    });
    send(&cluster, texts);
    let server1 = cluster.path("server1");
    if log == LOG {
        wait_until("it has checkpoints and indexes", || {
            !data::files(&server1.join("checkpoint"), "ckpt").is_empty()
                && !data::files(&server1.join("log"), "idx").is_empty()
        });
    }
    assert_eq!(cluster.stop("server1").0.code(), Some(0));
    (cluster, server1)
}

/// The damage ends a server that nobody can help, and it says where; once the damage is undone it has everything.
fn ends_alone(damage: impl FnOnce(&Path) -> String) {
    let texts = lines(1, 150);
    // Without a checkpoint, all of the log is needed.
    let (mut cluster, server1) = alone("[log]\nsegment_size = \"1MiB\"", &texts);
    let kept = cluster.path("kept");
    copy(&server1, &kept);
    let place = damage(&server1);
    for _ in 0..2 {
        let ran = run(cluster.server_command("server1"), "").code(5);
        assert!(ran.stderr.contains("damaged: "), "{ran:?}");
        assert!(ran.stderr.contains(&place), "no {place}: {ran:?}");
    }
    fs::remove_dir_all(&server1).expect("a directory");
    copy(&kept, &server1);
    cluster.launch("server1");
    cluster.await_leader("server1");
    assert!(
        cluster.messages("server1", "ops").texts("text") == texts,
        "messages are lost"
    );
}

/// The damage costs a server nothing, although nobody helps it.
fn goes_on_alone(damage: impl FnOnce(&Path)) {
    let mut texts = lines(1, 250);
    let (mut cluster, server1) = alone(LOG, &texts);
    damage(&server1);
    cluster.launch("server1");
    cluster.await_leader("server1");
    let next = small(251, 260);
    send(&cluster, &next);
    texts.extend(next);
    assert!(
        cluster.messages("server1", "ops").texts("text") == texts,
        "messages are lost"
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a writable directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("a readable folder").path();
        let to = to.join(path.file_name().expect("a file"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("a writable directory");
        }
    }
}

#[test]
fn alone_a_bit_flipped_in_a_message_is_told_by_file_and_offset() {
    ends_alone(|server1| {
        let entry = data::entry_with(server1, "message 7 ");
        entry.flip_payload();
        entry.name()
    });
}

#[test]
fn alone_a_bit_flipped_in_a_header_is_told_by_file_and_offset() {
    ends_alone(|server1| {
        let entry = data::entry_with(server1, "message 7 ");
        entry.flip_header();
        entry.name()
    });
}

#[test]
fn alone_a_bit_flipped_in_the_last_synced_record_is_told_by_file_and_offset() {
    ends_alone(|server1| {
        let entry = data::last(server1, ENTRY);
        entry.flip_payload();
        entry.name()
    });
}

#[test]
fn alone_a_bit_flipped_in_a_vote_is_told_by_file_and_offset() {
    ends_alone(|server1| {
        let vote = data::last(server1, STATE);
        vote.flip_payload();
        vote.name()
    });
}

#[test]
fn alone_a_missing_segment_is_told_by_file() {
    ends_alone(|server1| {
        let segments = data::segments(server1);
        fs::remove_file(&segments[0]).expect("a segment");
        "at offset ".to_string()
    });
}

#[test]
fn alone_an_emptied_log_is_told() {
    ends_alone(|server1| {
        data::empty(&server1.join("log"));
        "at offset ".to_string()
    });
}

#[test]
fn alone_a_damaged_identity_is_told() {
    ends_alone(|server1| {
        data::flip(&server1.join("identity"), 20);
        "identity at offset ".to_string()
    });
}

#[test]
fn alone_a_torn_end_is_cut_off() {
    goes_on_alone(data::tear);
}

#[test]
fn alone_a_damaged_checkpoint_and_index_are_made_again() {
    goes_on_alone(|server1| {
        let newest = data::files(&server1.join("checkpoint"), "ckpt")
            .pop()
            .expect("a checkpoint");
        let oldest = data::files(&server1.join("log"), "idx").remove(0);
        for file in [newest, oldest] {
            let length = fs::metadata(&file).expect("a file").len();
            data::flip(&file, length as usize / 2);
        }
    });
}
