//! `syncnetctl log verify` and `dump` on the data directory of a real server: whole, damaged in a chosen place, missing, in use.

mod support;

#[path = "processes/damage/data.rs"]
mod data;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use data::{ENTRY, SEAL, entry_with, files, segments};
use support::cluster::{Cluster, Options};
use support::run::{Ran, run};
use support::wait_until;
use tempfile::TempDir;

/// Small segments and frequent checkpoints, so that a few messages make some of each.
const LOG: &str = "[log]\nsegment_size = \"1MiB\"\ncheckpoint_every = 100";

fn ctl(args: &[&str], directory: &Path) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncnetctl"));
    command.arg("log").args(args).arg(directory).env_clear();
    run(command, "")
}

/// The bytes of every file below a directory.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a readable file"));
        }
    }
    found
}

/// A copy of a data directory, to be damaged.
struct Copied(TempDir);

impl Copied {
    fn of(from: &Path) -> Copied {
        let dir = TempDir::with_prefix("syncnet-test-").expect("a temporary directory");
        for (path, bytes) in contents(from) {
            let to = dir.path().join(path.strip_prefix(from).expect("below it"));
            fs::create_dir_all(to.parent().expect("a folder")).expect("a writable directory");
            fs::write(to, bytes).expect("a writable directory");
        }
        Copied(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Verifies it, and that this changes nothing, by text and by JSON.
    #[track_caller]
    fn verify(&self, code: i32, finding: &str) -> Ran {
        let before = contents(self.path());
        let ran = ctl(&["verify"], self.path()).code(code);
        assert!(ran.stdout.contains(finding), "no {finding:?} in\n{}", ran.stdout);
        let json = ctl(&["verify", "--json"], self.path()).code(code).json();
        let summary = json.last().expect("a summary");
        let verdict = ["whole", "damaged"][usize::from(code != 0)];
        assert_eq!(summary["verdict"], verdict);
        assert!(contents(self.path()) == before, "the directory was changed");
        ran
    }

    /// The file as the program names it.
    fn name(&self, file: &Path) -> String {
        let below = file.strip_prefix(self.path()).expect("below it");
        below.display().to_string()
    }
}

/// A server alone, with several segments, index files and checkpoints; stopped.
fn written() -> Cluster {
    let mut cluster = Cluster::start(Options {
        cluster: LOG,
        alone: true,
        ..Options::default()
    });
    // While it runs it can be looked at, with a warning.
    cluster.syncnet(&["send", "ops"], "hello from ann").code(0);
    let directory = cluster.path("server1");
    let ran = ctl(&["dump"], &directory).code(0);
    assert!(ran.stderr.contains("is using this data directory"), "{ran:?}");
    assert!(ran.stdout.contains("\"hello from ann\""), "{ran:?}");
    let lines: Vec<String> = (0..250).map(|n| format!("{n} {}", "x".repeat(10_000))).collect();
    cluster.syncnet(&["send", "ops"], &lines.join("\n")).code(0);
    let some = |folder: &str, ending| !files(&directory.join(folder), ending).is_empty();
    wait_until("there is an index file and a checkpoint", || {
        some("log", "idx") && some("checkpoint", "ckpt")
    });
    cluster.stop("server1");
    cluster
}

#[test]
fn a_directory_is_whole_until_something_in_it_is_flipped_and_the_place_is_named() {
    let cluster = written();
    let directory = cluster.path("server1");
    let whole = Copied::of(&directory);
    let ran = whole.verify(0, "whole: data directory of server1");
    assert!(!ran.stdout.contains("damage:") && ran.stderr.is_empty(), "{ran:?}");
    assert!(segments(whole.path()).len() > 2, "{ran:?}");

    let copy = Copied::of(&directory);
    let place = entry_with(copy.path(), "hello from ann");
    place.flip_payload();
    let name = format!("damage: log/{}: the payload of entry ", place.name());
    copy.verify(1, &name);
    let ran = ctl(&["dump"], copy.path()).code(0);
    let shown = format!("offset={} kind=damaged ", place.offset);
    assert!(
        ran.stdout.contains(&shown) && !ran.stdout.contains("hello from ann"),
        "{shown}"
    );

    let copy = Copied::of(&directory);
    let place = entry_with(copy.path(), "hello from ann");
    place.flip_header();
    copy.verify(1, &format!("damage: log/{}: ", place.name()));

    let copy = Copied::of(&directory);
    let place = data::all(copy.path(), SEAL).remove(0);
    place.flip_payload();
    copy.verify(1, &format!("damage: log/{}: ", place.name()));

    let copy = Copied::of(&directory);
    let index = files(&copy.path().join("log"), "idx").remove(0);
    data::flip(&index, 4096 + 50);
    copy.verify(1, &format!("damage: {} at offset 4096: ", copy.name(&index)));

    let copy = Copied::of(&directory);
    let checkpoint = files(&copy.path().join("checkpoint"), "ckpt").remove(0);
    data::flip(&checkpoint, 200);
    copy.verify(1, &format!("damage: {} at offset 128: ", copy.name(&checkpoint)));

    let copy = Copied::of(&directory);
    let second = segments(copy.path()).remove(1);
    fs::remove_file(&second).expect("a file of ours");
    copy.verify(
        1,
        &format!("damage: {} at offset 0: the segment is missing", copy.name(&second)),
    );

    let copy = Copied::of(&directory);
    data::flip(&copy.path().join("identity"), 30);
    let ran = ctl(&["verify"], copy.path()).code(1);
    assert!(ran.stderr.contains("identity at offset 0"), "{ran:?}");
}

#[test]
fn a_torn_end_is_told_and_is_no_damage() {
    let cluster = written();
    let copy = Copied::of(&cluster.path("server1"));
    data::tear(copy.path());
    copy.verify(0, "torn: log/");
}

#[test]
fn a_dump_shows_what_was_sent_and_ends_quietly_when_nobody_reads() {
    let cluster = written();
    let directory = cluster.path("server1");
    let before = contents(&directory);
    let rows = ctl(&["dump", "--json"], &directory).code(0).json();
    let said = |row: &&serde_json::Value| row["text"] == "hello from ann";
    let row = rows.iter().find(said).expect("the message");
    assert_eq!((&row["kind"], &row["entry"]), (&"entry".into(), &"post".into()));
    let place = entry_with(&directory, "hello from ann");
    assert_eq!(row["offset"], place.offset);
    assert_eq!(
        rows.iter().filter(|row| row["kind"] == "entry").count(),
        data::all(&directory, ENTRY).len()
    );

    let index = row["index"].to_string();
    let ran = ctl(&["dump", "--from", &index, "--to", &index], &directory).code(0);
    assert_eq!(ran.lines().len(), 1, "{ran:?}");
    assert!(ran.stdout.contains(&format!("index={index} ")) && ran.stdout.contains("text=\"hello from ann\""));

    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    for what in ["dump", "verify"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncnetctl"));
        command.args(["log", what]).arg(&directory).stderr(Stdio::piped());
        let writer = writer.try_clone().expect("a pipe");
        let output = command.stdout(writer).output().expect("the program");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{what}: {output:?}"
        );
    }
    assert!(contents(&directory) == before, "the directory was changed");
}

#[test]
fn what_is_no_data_directory_can_t_be_read() {
    let dir = TempDir::with_prefix("syncnet-test-").expect("a temporary directory");
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("a writable directory");
    for (path, why) in [
        (dir.path().join("nowhere"), "No such file"),
        (file, "Not a directory"),
        (dir.path().to_path_buf(), "no data directory"),
    ] {
        for what in ["verify", "dump"] {
            let ran = ctl(&[what], &path).code(3);
            assert!(
                ran.stderr.contains(why) && ran.stderr.contains(&path.display().to_string()),
                "{ran:?}"
            );
        }
    }
    assert_eq!(contents(dir.path()).len(), 1, "nothing was made");
}
