//! A cluster of real servers, each with its data directory on a disk that forgets what wasn't synced.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use fuser::BackgroundSession;
use rustix::process::Signal;
use syncnet::rng::Rng;
use tempfile::TempDir;

use super::disk::Tally;
use super::machine::{Fault, Kind, Machine, Sprung, Trap};
use super::mount::mount;
use super::writers::{Writer, text};
use crate::support::cluster::{Cluster, Options};
use crate::support::run::run;
use crate::support::wait_until;

/// The servers, in the order of their disks.
pub const IDS: [&str; 3] = ["server1", "server2", "server3"];

/// Small segments, a checkpoint every moment, and impatience: so much more happens between two cuts.
pub const QUICK: Options = Options {
    cluster: "[timing]\nheartbeat_interval = \"50ms\"\nfailure_timeout = \"250ms\"\nelection_timeout = \"250ms\"\n\
              [log]\nsegment_size = \"1MiB\"\ncheckpoint_every = 150",
    unicast: false,
    secret: false,
    alone: false,
    descriptors: None,
    calm: false,
};

/// A power cut that doesn't come about where it was meant to comes after so long.
const CUT_AFTER: Duration = Duration::from_millis(250);

/// The cluster and its disks.
pub struct Rig {
    pub cluster: Cluster,
    pub machine: Arc<Machine>,
    mounts: Vec<BackgroundSession>,
    /// Bytes of each server's log that were looked through.
    looked: [usize; 3],
    /// Up to which line each room was read at every server.
    verified: BTreeMap<&'static str, u64>,
    // Last: the disks are mounted in it.
    _folder: TempDir,
}

impl Rig {
    /// Configured, with empty disks; nothing is started. `None` where file systems can't be mounted.
    pub fn new(options: Options) -> Option<Rig> {
        let folder = TempDir::with_prefix("syncnet-disks-").expect("a temporary directory");
        let machine = Arc::new(Machine::new(IDS.len()));
        let mut mounts = Vec::new();
        for (drive, id) in IDS.into_iter().enumerate() {
            let path = folder.path().join(id);
            fs::create_dir(&path).expect("a writable directory");
            mounts.push(mount(&machine, drive, &path)?);
        }
        let mut cluster = Cluster::configured(options);
        cluster.disks = Some(folder.path().to_path_buf());
        Some(Rig {
            cluster,
            machine,
            mounts,
            looked: [0; 3],
            verified: BTreeMap::new(),
            _folder: folder,
        })
    }

    /// What makes the commands of a writer.
    pub fn sender(&self) -> impl Fn() -> Command + Send + 'static {
        let command = self.cluster.command("syncnet", &[]);
        move || {
            let mut again = Command::new(command.get_program());
            again.env_clear();
            again.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
            if let Some(folder) = command.get_current_dir() {
                again.current_dir(folder);
            }
            again
        }
    }

    /// Cuts the power of the trap's victims at the trap's moment, gives it back, and starts them.
    pub fn cut(&mut self, trap: &Trap, rng: &mut Rng, tally: &mut Tally) -> Sprung {
        self.machine.set(trap.clone());
        let sprung = self.machine.await_cut(CUT_AFTER);
        // Not a byte moves on these disks any more. Only then do their processes go: what they wait for fails when they can't
        // learn of it.
        self.nobody_has_ended(&trap.victims);
        for &victim in &trap.victims {
            self.cluster.signal(IDS[victim], Signal::KILL);
        }
        self.machine.fail(&trap.victims);
        for &victim in &trap.victims {
            self.cluster.kill(IDS[victim]);
        }
        self.machine.restore(&trap.victims, rng, tally);
        for &victim in &trap.victims {
            self.cluster.launch(IDS[victim]);
        }
        sprung
    }

    /// Kills a server at that moment; the machine goes on, and so nothing that was written is lost, and nothing more is durable.
    pub fn kill(&mut self, drive: usize, kind: Option<Kind>, after: u64) {
        let victims = vec![drive];
        self.machine.set(Trap {
            drive,
            kind,
            after,
            part: 1000,
            victims,
        });
        self.machine.await_cut(CUT_AFTER);
        self.nobody_has_ended(&[drive]);
        self.cluster.signal(IDS[drive], Signal::KILL);
        self.machine.fail(&[drive]);
        self.cluster.kill(IDS[drive]);
        self.machine.release(&[drive]);
        self.cluster.launch(IDS[drive]);
    }

    /// Something is wrong with the disk of a server: that ends it with 6, at once and without another try. It is started again, on a
    /// disk that works.
    #[track_caller]
    pub fn fail(&mut self, drive: usize, fault: Fault) {
        self.machine.set_fault(drive, fault);
        let code = self.await_end(drive);
        let (failed, again) = self.machine.failures(drive);
        assert!(failed, "{} has ended with {code:?}, and nothing had failed", IDS[drive]);
        assert_eq!(code, Some(6), "{} after {fault:?} failed", IDS[drive]);
        assert_eq!(again, 0, "{} tried again after {fault:?} failed", IDS[drive]);
        self.machine.set_fault(drive, Fault::Nothing);
        self.cluster.launch(IDS[drive]);
    }

    /// Waits until a server has ended by itself; its exit code.
    pub fn await_end(&mut self, drive: usize) -> Option<i32> {
        let mut status = None;
        wait_until(&format!("{} ends", IDS[drive]), || {
            status = self.cluster.ended(IDS[drive]);
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Fails unless these servers are still there: none ends because of its disk.
    #[track_caller]
    fn nobody_has_ended(&mut self, drives: &[usize]) {
        for &drive in drives {
            let status = self.cluster.ended(IDS[drive]);
            assert!(status.is_none(), "{} has ended by itself: {status:?}", IDS[drive]);
        }
    }

    /// Fails if a server isn't there any more, or found anything damaged or missing: a power cut does neither.
    #[track_caller]
    pub fn nothing_is_damaged(&mut self) {
        self.nobody_has_ended(&[0, 1, 2]);
        for (drive, id) in IDS.into_iter().enumerate() {
            let log = fs::read_to_string(self.cluster.path(&format!("{id}.log"))).unwrap_or_default();
            let new = &log[self.looked[drive]..];
            let bad = ["damaged", "begins anew", "missing", "has lost"];
            let found = new.lines().find(|line| bad.iter().any(|word| line.contains(word)));
            assert!(found.is_none(), "{id} says: {}", found.unwrap_or_default());
            self.looked[drive] = log.len();
            let aside = self.machine.has(drive, "data/quarantine");
            assert!(!aside, "{id} has set its directory aside");
        }
    }

    /// Waits until all servers are well.
    #[track_caller]
    pub fn settle(&mut self) {
        wait_until("the cluster is healthy", || {
            self.nothing_is_damaged();
            self.cluster.status(&["--simple", "--timeout", "1"]).status.success()
        });
    }

    /// Everything that is acknowledged can be read at every server: each line once, in order. Reads what wasn't read before, or
    /// all.
    #[track_caller]
    pub fn check(&mut self, writers: &[Writer], all: bool) {
        for writer in writers {
            assert!(!writer.has_ended(), "the writer to {} has ended", writer.room);
            let acknowledged = writer.acknowledged();
            if acknowledged == 0 {
                continue;
            }
            let before = if all {
                0
            } else {
                self.verified.get(writer.room).copied().unwrap_or(0)
            };
            for id in IDS {
                self.has(id, writer.room, before, acknowledged);
            }
            self.verified.insert(writer.room, acknowledged);
        }
    }

    /// A server shows the lines of a room, from the one after `before` to `last` at least.
    #[track_caller]
    fn has(&mut self, id: &str, room: &str, before: u64, last: u64) {
        let mut ran = None;
        wait_until(&format!("{id} shows {room}"), || {
            self.nothing_is_damaged();
            let tail = self.cluster.tail(id, room, before, &[]);
            // Without a quorum it shows only what it has; after a cut that may be for a moment.
            let shown = tail.status.success();
            ran = Some(tail);
            shown
        });
        let Some(ran) = ran else { return };
        let mut line = before;
        for message in ran.json() {
            line += 1;
            assert_eq!(message["seq"].as_u64(), Some(line), "at {id}, {room}");
            assert_eq!(message["text"], text(room, line), "at {id}, {room}, line {line}");
        }
        assert!(
            line >= last,
            "LOST at {id}: {room} ends with line {line}, and {last} are acknowledged"
        );
    }

    /// Stops all servers, and has every directory looked through.
    #[track_caller]
    pub fn finish(mut self) {
        self.nothing_is_damaged();
        for id in IDS {
            let (status, _) = self.cluster.stop(id);
            assert_eq!(status.code(), Some(0), "{id}");
            let directory = self.cluster.data_dir(id).display().to_string();
            run(self.cluster.command("syncnetctl", &["log", "verify", &directory]), "").code(0);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A process whose disk is held can't end.
        self.machine.fail(&[0, 1, 2]);
        self.cluster.kill_all();
        for mount in self.mounts.drain(..) {
            let _ = mount.umount_and_join();
        }
    }
}
