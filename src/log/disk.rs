//! The one narrow trait of file operations. All of the log goes through it, so that the simulator runs real records and real
//! recovery on simulated disks. Names are relative to the data directory; a folder is named the same way, and the directory
//! itself is `""`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::segment::write_zeros;
use crate::limits::{BLOCK_BYTES, DESCRIPTORS_PATIENCE, DESCRIPTORS_RETRY, PREWRITE_STEP_BYTES};

/// A data directory. A clone is the same directory.
pub trait Disk: std::fmt::Debug + Send + Sync + Clone + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names of the files in a folder, sorted, without the folder's own name.
    ///
    /// # Errors
    /// `NotFound` if there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Makes a folder if it isn't there, and makes that durable.
    ///
    /// # Errors
    /// What the system says.
    fn create_folder(&self, folder: &str) -> io::Result<()>;

    /// Makes an empty file and opens it for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Removes a file. Durable after `sync_dir`.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in the same folder or another, in the place of whatever had it. Durable after `sync_dir` of the
    /// folder that it is in then.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives a folder another name, with all that is in it, and makes that durable: after a crash it has the old or the new one.
    ///
    /// # Errors
    /// `NotFound` if there is no such folder.
    fn rename_folder(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes durable which names the folder has.
    ///
    /// # Errors
    /// What the system says; what is durable is then unknown.
    fn sync_dir(&self, folder: &str) -> io::Result<()>;

    /// Bytes that files may still take.
    ///
    /// # Errors
    /// What the system says.
    fn free(&self) -> io::Result<u64>;
}

/// Whether an operation failed only because there is no space, or because ours is used up: it may be tried again, as the failure of a
/// sync may not, for what a sync should have written is unknown after it.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The error of a sync, whatever the system called it: none is a mere lack of space.
pub(super) fn of_sync(error: io::Error) -> io::Error {
    if is_full(&error) {
        io::Error::other(error)
    } else {
        error
    }
}

/// An open file of a data directory. Positions are given with each call, so one handle serves several threads.
pub trait DiskFile: std::fmt::Debug + Send + Sync + 'static {
    /// Fills the whole buffer from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all bytes from `offset` on.
    ///
    /// # Errors
    /// What the system says; how much is written is then unknown.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Puts zeros into `from..to` of a file of which nobody has read or written that yet, and rather to the disk than into the system's
    /// cache: so that `sync_data`, which is due before anybody relies on them, has little left to do.
    ///
    /// # Errors
    /// What the system says; how much is written is then unknown.
    fn prewrite(&self, from: u64, to: u64) -> io::Result<()>
    where
        Self: Sized,
    {
        write_zeros(self, from, to)
    }

    /// Makes the file's bytes durable (`fdatasync`).
    ///
    /// # Errors
    /// What the system says; what is durable is then unknown, and another try proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Bytes of the file.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_size(&self, size: u64) -> io::Result<()>;
}

/// Where they stand matters to writes past the page cache.
#[repr(align(4096))]
struct Zeros([u8; PREWRITE_STEP_BYTES]);

static ZEROS: Zeros = Zeros([0; PREWRITE_STEP_BYTES]);

const _: () = assert!(align_of::<Zeros>() == BLOCK_BYTES);

/// A directory of this machine.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The files below `root`, which must exist.
    #[must_use]
    pub fn new(root: &Path) -> RealDisk {
        RealDisk {
            root: root.to_path_buf(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.root.clone()
        } else {
            self.root.join(name)
        }
    }
}

/// Opens something, and tries again for a while if the process or the system has no descriptors left: nothing has happened to the disk
/// then, and those who use them up come and go. That is unlike a write or a sync, which is never tried again.
fn patiently(mut open: impl FnMut() -> io::Result<File>) -> io::Result<File> {
    let began = Instant::now();
    loop {
        let error = match open() {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        let scarce = matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE));
        if !scarce || began.elapsed() >= Duration::from_micros(DESCRIPTORS_PATIENCE.0) {
            return Err(error);
        }
        std::thread::sleep(Duration::from_micros(DESCRIPTORS_RETRY.0));
    }
}

impl Disk for RealDisk {
    type File = File;

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.path(folder))? {
            let entry = entry?;
            // A name that isn't UTF-8 isn't one of ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_folder(&self, folder: &str) -> io::Result<()> {
        // What people wrote to each other is for the server's own user alone.
        match std::fs::DirBuilder::new().mode(0o700).create(self.path(folder)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        self.sync_dir(parent(folder))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        patiently(|| options.open(self.path(name)))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        patiently(|| OpenOptions::new().read(true).write(true).open(self.path(name)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn rename_folder(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))?;
        // Where it is now first: in between it has two names rather than none.
        self.sync_dir(parent(to))?;
        self.sync_dir(parent(from))
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        patiently(|| File::open(self.path(folder)))?.sync_all()
    }

    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// The folder that a file or folder is in.
fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    /// Past the page cache: through it, zeros cost a tenth of all that the servers do at full load. For a file system that can't do that
    /// each piece is synced, so that no sync has much to do.
    fn prewrite(&self, from: u64, to: u64) -> io::Result<()> {
        let flags = fcntl_getfl(self)?;
        let is_direct = fcntl_setfl(self, flags | OFlags::DIRECT).is_ok();
        let mut at = from;
        let mut written = Ok(());
        while is_direct && at < to && written.is_ok() {
            let step = (to - at).min(ZEROS.0.len() as u64);
            written = self.write_all_at(&ZEROS.0[..step as usize], at);
            at += step;
        }
        fcntl_setfl(self, flags)?;
        let refused = |error: &io::Error| Errno::from_io_error(error) == Some(Errno::INVAL);
        match written {
            Ok(()) if is_direct => return Ok(()),
            Err(error) if !refused(&error) => return Err(error),
            _ => {}
        }
        write_zeros(self, from, to)?;
        self.sync_data().map_err(of_sync)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_directory_does_what_the_trait_says() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(folder.path());
        assert_eq!(disk.list("log").unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.create_folder("log").unwrap();
        disk.create_folder("log").unwrap();
        let file = disk.create("log/b").unwrap();
        assert_eq!(disk.create("log/b").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        DiskFile::write_at(&file, b"hello", 3).unwrap();
        assert_eq!(file.size().unwrap(), 8);
        let mut bytes = [1; 8];
        DiskFile::read_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"\0\0\0hello");
        assert_eq!(
            DiskFile::read_at(&file, &mut bytes, 1).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        file.set_size(4).unwrap();
        DiskFile::sync_data(&file).unwrap();
        disk.create("log/a").unwrap();
        disk.rename("log/b", "log/c").unwrap();
        disk.sync_dir("log").unwrap();
        assert_eq!(disk.list("log").unwrap(), ["a", "c"]);
        disk.remove("log/a").unwrap();
        assert_eq!(disk.open("log/a").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.open("log/c").unwrap().size().unwrap(), 4);
        disk.create_folder("old").unwrap();
        disk.create_folder("old/1").unwrap();
        disk.rename_folder("log", "old/1/log").unwrap();
        assert_eq!(disk.list("old/1/log").unwrap(), ["c"]);
        let error = disk.rename_folder("log", "old/1/log").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(disk.free().unwrap() > 0);
    }

    #[test]
    fn what_is_prewritten_is_zeros_and_the_file_goes_on_as_any() {
        // The second ends in the middle of a block, which no direct write may.
        for size in [3 * PREWRITE_STEP_BYTES as u64, PREWRITE_STEP_BYTES as u64 + 100] {
            let folder = tempfile::tempdir().unwrap();
            let disk = RealDisk::new(folder.path());
            let file = disk.create("a").unwrap();
            let before = fcntl_getfl(&file).unwrap();
            for from in (0..size).step_by(PREWRITE_STEP_BYTES) {
                let to = (from + PREWRITE_STEP_BYTES as u64).min(size);
                DiskFile::prewrite(&file, from, to).unwrap();
                assert_eq!(file.size().unwrap(), to);
                assert_eq!(fcntl_getfl(&file).unwrap(), before);
            }
            DiskFile::write_at(&file, b"hello", 7).unwrap();
            let mut bytes = vec![1; size as usize];
            DiskFile::read_at(&file, &mut bytes, 0).unwrap();
            assert_eq!(&bytes[7..12], b"hello");
            bytes[7..12].fill(0);
            assert!(bytes.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn an_open_without_descriptors_is_tried_again_and_no_other_failure_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut refusals = vec![Errno::MFILE, Errno::NFILE, Errno::MFILE];
        let opened = patiently(|| match refusals.pop() {
            Some(refusal) => Err(refusal.into()),
            None => File::open(folder.path()),
        });
        assert!(opened.is_ok() && refusals.is_empty());
        let mut tries = 0;
        let refused = patiently(|| {
            tries += 1;
            Err(Errno::IO.into())
        });
        assert!(refused.is_err());
        assert_eq!(tries, 1);
    }
}
