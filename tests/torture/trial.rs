//! One cluster on hosts of its own, with people who talk and faults that happen.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use syncnet::rng::Rng;

use super::checker::check;
use super::disk::{Disks, say};
use super::faults::Kind;
use super::load::{Load, ROOM};
use super::rig::{Rig, missing};
use super::table::Episode;
use super::watch::Watch;
use crate::support::cluster::{Cluster, Options};
use crate::support::wait_until;

/// How a cluster is configured: the name, the lines in its configuration, and whether heartbeats go by unicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Usual,
    Ring,
    Redirect,
    Sticky,
    Unicast,
}

/// Small segments and frequent checkpoints, so that a trial has several of each.
macro_rules! configuration {
    ($lines:literal) => {
        concat!($lines, "\n[log]\nsegment_size = \"1MiB\"\ncheckpoint_every = 500")
    };
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 5] = [Mode::Usual, Mode::Ring, Mode::Redirect, Mode::Sticky, Mode::Unicast];

    /// What the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Usual => "as configured from the start",
            Mode::Ring => "election = \"lcr\"",
            Mode::Redirect => "routing = \"redirect\"",
            Mode::Sticky => "leader = \"sticky\"",
            Mode::Unicast => "heartbeats by unicast",
        }
    }

    fn options(self) -> Options {
        Options {
            cluster: match self {
                Mode::Usual | Mode::Unicast => configuration!(""),
                Mode::Ring => configuration!("election = \"lcr\""),
                Mode::Redirect => configuration!("routing = \"redirect\""),
                Mode::Sticky => configuration!("leader = \"sticky\""),
            },
            unicast: self == Mode::Unicast,
            secret: true,
            ..Options::default()
        }
    }
}

/// A trial. What it made goes when this is dropped, in the order of the fields.
pub struct Trial {
    pub load: Load,
    pub watch: Watch,
    pub cluster: Cluster,
    pub disks: Disks,
    pub rig: Rig,
    /// Whether heartbeats go by unicast.
    pub unicast: bool,
    /// The highest on the ring, if leadership goes back to it.
    preferred: Option<String>,
    notes: Vec<String>,
    passed_by: u32,
}

impl Trial {
    /// A cluster that is well, and people in it; nothing, said aloud, where the rights for it are missing.
    pub fn begin(servers: usize, mode: Mode) -> Option<Trial> {
        if let Some(why) = missing() {
            let name = thread::current().name().unwrap_or("a test").to_string();
            say(&format!(
                "SKIPPED {name}: no network namespaces can be made and used here: {why}"
            ));
            return None;
        }
        let rig = Rig::new(servers);
        fs::create_dir_all(rig.dir()).expect("a writable directory");
        let mut cluster = Cluster::configured_on(mode.options(), &rig.servers(), rig.clients(), &rig.dir());
        let ids: Vec<String> = cluster.servers.iter().map(|server| server.id.clone()).collect();
        let disks = Disks::mount(&rig.dir(), &ids);
        for id in &ids {
            symlink(disks.data(id), cluster.path(id)).expect("a writable directory");
        }
        cluster.launch_all();
        cluster.await_leader(&format!("server{servers}"));
        let load = Load::start(&cluster, 2, 2);
        let watch = Watch::start(&cluster);
        let trial = Trial {
            load,
            watch,
            cluster,
            disks,
            rig,
            unicast: mode == Mode::Unicast,
            preferred: (mode != Mode::Sticky).then(|| format!("server{servers}")),
            notes: Vec::new(),
            passed_by: 0,
        };
        trial.load.await_progress(&trial.load.mark(), "the trial begins");
        Some(trial)
    }

    /// The servers, in the order of the ring.
    pub fn ids(&self) -> Vec<String> {
        self.cluster.servers.iter().map(|server| server.id.clone()).collect()
    }

    fn report(&self) -> Option<(bool, Value)> {
        let status = self.cluster.status(&["--json", "--timeout", "1"]);
        let report = serde_json::from_str(status.stdout.trim()).ok()?;
        Some((status.status.success(), report))
    }

    /// Who leads.
    pub fn leader(&self) -> String {
        let mut leader = String::new();
        wait_until("somebody leads", || {
            let Some((true, report)) = self.report() else {
                return false;
            };
            leader = report["servers"][0]["leader"].as_str().unwrap_or_default().to_string();
            !leader.is_empty()
        });
        leader
    }

    /// Waits until all are well, and none repairs.
    pub fn await_healthy(&self) {
        let mut last = String::new();
        let began = Instant::now();
        while began.elapsed() < crate::support::PATIENCE {
            if let Some((well, report)) = self.report() {
                let mut rows = report["servers"].as_array().into_iter().flatten();
                if well && rows.all(|row| row["repairing"] == false) {
                    return;
                }
                last = report.to_string();
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("not healthy again: {last}");
    }

    /// Messages are acknowledged that were written since this was asked, for a while.
    pub fn works(&self, what: &str) {
        let began = Instant::now();
        self.load.await_progress(&self.load.mark(), what);
        // Long enough for what is only about to go wrong.
        thread::sleep(Duration::from_millis(1500).saturating_sub(began.elapsed()));
        self.load.await_progress(&self.load.mark(), what);
    }

    /// Names a server to which something happens.
    pub fn note(&mut self, id: &str) {
        self.notes.push(id.to_string());
    }

    /// Somebody sends, is killed, and sends again.
    pub fn pass_by(&mut self) {
        self.passed_by += 1;
        self.load
            .pass_by(&self.cluster, &format!("passer-by{}", self.passed_by), 300);
    }

    /// Somebody writes several segments full, and all of it is acknowledged.
    pub fn write_much(&mut self) {
        self.passed_by += 1;
        self.load
            .write(&self.cluster, &format!("author{}", self.passed_by), 100, 40_000);
    }

    /// Lets a fault happen and waits until it is over.
    pub fn suffer(&mut self, kind: Kind, rng: &mut Rng) -> Option<Episode> {
        if kind.needs_freezing() && !self.disks.can_freeze {
            say(&format!("SKIPPED {}: no disk here can be frozen", kind.name()));
            return None;
        }
        self.await_healthy();
        self.notes.clear();
        let began = Instant::now();
        kind.happen(self, rng);
        let undone = Instant::now();
        self.await_healthy();
        let healed = undone.elapsed();
        if let Some(preferred) = &self.preferred {
            self.cluster.await_leader(preferred);
        }
        self.load.await_progress(&self.load.mark(), "the fault is over");
        for id in self.ids() {
            if let Some(status) = self.cluster.ended(&id) {
                panic!("{id} has ended by itself: {status}");
            }
        }
        let (complaints, _) = self.watch.judge();
        assert!(complaints.is_empty(), "{}: {complaints:#?}", kind.name());
        Some(Episode {
            kind,
            to: self.notes.join(" "),
            gap: self.load.longest_gap(began),
            healed,
        })
    }

    /// Everybody finishes, and everything is compared.
    pub fn end(mut self) {
        self.await_healthy();
        let (cluster, ids) = (&self.cluster, self.ids());
        let histories = || {
            let history = |id: &String| {
                let mut shown = None;
                // One whose disk was full has much to catch up with, and says that there may be more than it shows.
                wait_until(&format!("{id} shows all that there is"), || {
                    let tail = cluster.tail(id, ROOM, 0, &[]);
                    let all = tail.status.success();
                    shown = Some(tail.stdout);
                    all
                });
                let lines = shown.unwrap_or_default().lines().map(str::to_string).collect();
                (id.clone(), lines)
            };
            ids.iter().map(history).collect()
        };
        let complaints = check(&mut self.load, histories);
        assert!(complaints.is_empty(), "{complaints:#?}");
        let (complaints, reports) = self.watch.judge();
        assert!(complaints.is_empty(), "{complaints:#?}");
        assert!(reports > 0, "syncnetctl status never answered");
        for id in &ids {
            let log = fs::read_to_string(self.cluster.path(&format!("{id}.log"))).unwrap_or_default();
            let bad = log.lines().find(|line| line.contains("panicked"));
            assert!(bad.is_none(), "{id}: {bad:?}");
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let Some(kept) = std::env::var_os("SYNCNET_LOGS").map(PathBuf::from) else {
            return;
        };
        if fs::create_dir_all(&kept).is_err() {
            return;
        }
        for id in self.ids() {
            let name = format!("{id}.log");
            let _ = fs::copy(self.cluster.path(&name), kept.join(name));
        }
    }
}
