//! A data directory that is only looked at: files are opened for reading, and whatever would change something is refused. So a tool
//! may use all of the log's own readers, and needn't trust them to leave the directory as it is.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile, RealDisk};

/// The files of a directory, for reading.
#[derive(Clone, Debug)]
pub struct ReadOnly {
    root: PathBuf,
    names: RealDisk,
}

/// A file that is open for reading.
#[derive(Debug)]
pub struct ReadOnlyFile(File);

impl ReadOnly {
    /// The files below `root`.
    #[must_use]
    pub fn new(root: &Path) -> ReadOnly {
        ReadOnly {
            root: root.to_path_buf(),
            names: RealDisk::new(root),
        }
    }
}

fn refused<T>() -> io::Result<T> {
    let text = "the directory is only looked at";
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, text))
}

impl Disk for ReadOnly {
    type File = ReadOnlyFile;

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.names.list(folder)
    }

    fn create_folder(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn create(&self, _: &str) -> io::Result<ReadOnlyFile> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<ReadOnlyFile> {
        File::open(self.root.join(name)).map(ReadOnlyFile)
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn rename_folder(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn free(&self) -> io::Result<u64> {
        self.names.free()
    }
}

impl DiskFile for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        DiskFile::read_at(&self.0, buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refused()
    }

    fn sync_data(&self) -> io::Result<()> {
        refused()
    }

    fn size(&self) -> io::Result<u64> {
        DiskFile::size(&self.0)
    }

    fn set_size(&self, _: u64) -> io::Result<()> {
        refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_read_and_nothing_changed() {
        let folder = tempfile::tempdir().unwrap();
        let real = RealDisk::new(folder.path());
        real.create_folder("log").unwrap();
        real.create("log/a").unwrap().write_at(b"hello", 0).unwrap();
        let disk = ReadOnly::new(folder.path());
        assert_eq!(disk.list("log").unwrap(), ["a"]);
        let file = disk.open("log/a").unwrap();
        let mut bytes = [0; 4];
        file.read_at(&mut bytes, 1).unwrap();
        assert_eq!((&bytes, file.size().unwrap()), (b"ello", 5));
        let tries = [
            file.write_at(b"x", 0),
            file.set_size(0),
            file.sync_data(),
            disk.create("log/b").map(drop),
            disk.create_folder("x"),
            disk.remove("log/a"),
            disk.rename("log/a", "log/b"),
            disk.rename_folder("log", "old"),
            disk.sync_dir("log"),
        ];
        for tried in tries {
            assert_eq!(tried.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
        assert_eq!(std::fs::read(folder.path().join("log/a")).unwrap(), b"hello");
    }
}
