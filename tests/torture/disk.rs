//! A disk for each server: a small file system of its own, which can be filled up, and frozen for as long as a disk hangs.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::rig::{can, sh};

/// How large a disk is: room for the data of a trial, and soon filled up.
const BYTES: u64 = 128 << 20;

/// The disks of a cluster, mounted below a rig's directory, which removes them.
pub struct Disks {
    dir: PathBuf,
    /// Whether they can be frozen: one in memory can't.
    pub can_freeze: bool,
}

impl Disks {
    /// Mounts a disk for each server: ext4 in a file, or memory where loop devices are missing.
    pub fn mount(dir: &Path, servers: &[String]) -> Disks {
        fs::create_dir_all(dir).expect("a writable directory");
        let on_loop = |id: &String| -> Result<(), String> {
            let image = dir.join(format!("{id}.img"));
            let at = dir.join(id);
            fs::create_dir_all(&at).map_err(|error| error.to_string())?;
            let made = File::create(&image).and_then(|file| file.set_len(BYTES));
            made.map_err(|error| error.to_string())?;
            let (image, at) = (image.to_string_lossy(), at.to_string_lossy());
            // Without blocks for root: servers run as root here, and a full disk shall be full.
            can("mkfs.ext4", &["-q", "-m", "0", &image])?;
            can("mount", &["-o", "loop", &image, &at])
        };
        let frozen = servers.iter().try_for_each(on_loop).and_then(|()| {
            let at = dir.join(&servers[0]);
            can("fsfreeze", &["--freeze", &at.to_string_lossy()])?;
            can("fsfreeze", &["--unfreeze", &at.to_string_lossy()])
        });
        let can_freeze = frozen.is_ok();
        if let Err(error) = frozen {
            say(&format!("the disks are in memory and can't be slow: {error}"));
            for id in servers {
                let at = dir.join(id);
                let _ = can("umount", &["--lazy", &at.to_string_lossy()]);
                fs::create_dir_all(&at).expect("a writable directory");
                let size = format!("size={BYTES}");
                sh(
                    "mount",
                    &["-t", "tmpfs", "-o", &size, "tmpfs", &at.to_string_lossy()],
                    "",
                );
            }
        }
        let disks = Disks {
            dir: dir.to_path_buf(),
            can_freeze,
        };
        for id in servers {
            fs::create_dir(disks.data(id)).expect("a disk that can be written");
        }
        disks
    }

    /// The data directory of a server.
    pub fn data(&self, id: &str) -> PathBuf {
        self.dir.join(id).join("data")
    }

    fn ballast(&self, id: &str) -> PathBuf {
        self.dir.join(id).join("ballast")
    }

    /// Fills a disk up to its last byte.
    pub fn fill(&self, id: &str) {
        let mut file = File::create(self.ballast(id)).expect("a disk that isn't full");
        for size in [1 << 20, 4096, 1] {
            while file.write(&vec![b'x'; size]).is_ok_and(|n| n > 0) {}
        }
    }

    /// Makes room again.
    pub fn empty(&self, id: &str) {
        fs::remove_file(self.ballast(id)).expect("a file of ours");
    }

    /// Whoever writes or syncs waits, until `thaw`.
    pub fn freeze(&self, id: &str) {
        sh("fsfreeze", &["--freeze", &self.dir.join(id).to_string_lossy()], "");
    }

    /// The disk works again.
    pub fn thaw(&self, id: &str) {
        sh("fsfreeze", &["--unfreeze", &self.dir.join(id).to_string_lossy()], "");
    }
}

/// Says something that the test harness doesn't hide.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
