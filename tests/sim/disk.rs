//! The simulated disk as one server sees it. Between the log and [`SimDisk`] stands nothing but a count of what has
//! failed, and the lie that one of the sabotage tests turns on: a sync that says it has synced, and hasn't.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use syncnet::log::disk::{Disk, DiskFile};
use syncnet::log::sim_disk::{SimDisk, SimFile};

#[derive(Clone, Debug, Default)]
pub struct ServerDisk {
    pub disk: SimDisk,
    pub lies: Arc<AtomicBool>,
    /// Syncs that have failed, of files and folders.
    pub failed: Arc<AtomicU64>,
}

#[derive(Debug)]
pub struct ServerFile {
    file: SimFile,
    pub lies: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
}

/// Counts a sync that has failed.
fn counted(failed: &AtomicU64, outcome: io::Result<()>) -> io::Result<()> {
    if outcome.is_err() {
        failed.fetch_add(1, Ordering::Relaxed);
    }
    outcome
}

impl ServerDisk {
    /// Another disk, with nothing on it.
    pub fn renew(&mut self) {
        self.disk = SimDisk::new();
    }

    /// From now on a sync of a file does nothing, and says that it was done.
    pub fn lie(&self) {
        self.lies.store(true, Ordering::Relaxed);
    }

    /// How many syncs have failed.
    pub fn failed_syncs(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn file(&self, file: SimFile) -> ServerFile {
        let (lies, failed) = (Arc::clone(&self.lies), Arc::clone(&self.failed));
        ServerFile { file, lies, failed }
    }
}

impl Disk for ServerDisk {
    type File = ServerFile;

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn create_folder(&self, folder: &str) -> io::Result<()> {
        self.disk.create_folder(folder)
    }

    fn create(&self, name: &str) -> io::Result<ServerFile> {
        Ok(self.file(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<ServerFile> {
        Ok(self.file(self.disk.open(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn rename_folder(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename_folder(from, to)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        counted(&self.failed, self.disk.sync_dir(folder))
    }

    fn free(&self) -> io::Result<u64> {
        self.disk.free()
    }
}

impl DiskFile for ServerFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.lies.load(Ordering::Relaxed) {
            return Ok(());
        }
        counted(&self.failed, self.file.sync_data())
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.file.set_size(size)
    }
}
