//! What index files and checkpoint files have in common: checks that are seeded with the directory's id and the place, so that a
//! block of another directory, file or place is none here; the ways in which a file can fail; and files that are there whole or not at all.

use std::fmt;
use std::io;

use super::disk::{Disk, DiskFile};
use super::recovery::OpenError;
use crate::types::DirectoryId;

/// Why a file can't be read.
#[derive(Debug)]
pub enum FileError {
    /// It isn't what was written.
    Damaged {
        /// The file, relative to the data directory.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        text: String,
    },
    /// A later version of this program wrote it.
    Newer {
        /// The file, relative to the data directory.
        file: String,
    },
    /// The disk refused, or there is no such file (`NotFound`).
    Io {
        /// The file, relative to the data directory.
        file: String,
        /// What the system said.
        error: io::Error,
    },
}

impl FileError {
    pub(super) fn damaged(file: &str, offset: u64, text: impl Into<String>) -> FileError {
        FileError::Damaged {
            file: file.to_owned(),
            offset,
            text: text.into(),
        }
    }

    /// Names the file in an error of the disk. A file that ends too early is damaged.
    pub(super) fn io(file: &str, offset: u64) -> impl FnOnce(io::Error) -> FileError + use<> {
        let file = file.to_owned();
        move |error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FileError::damaged(&file, offset, "the file is too short"),
            _ => FileError::Io { file, error },
        }
    }

    /// Whether there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, FileError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Damaged { file, offset, text } => write!(f, "{file} at offset {offset}: {text}"),
            FileError::Newer { file } => {
                write!(f, "{file} at offset 0: written by a later version of this program")
            }
            FileError::Io { file, error } => write!(f, "{file}: {error}"),
        }
    }
}

impl std::error::Error for FileError {}

impl From<FileError> for OpenError {
    fn from(error: FileError) -> OpenError {
        match error {
            FileError::Damaged { file, offset, text } => OpenError::Untrusted { file, offset, text },
            FileError::Newer { file } => OpenError::Newer { file, offset: 0 },
            FileError::Io { file, error } => OpenError::Io { file, error },
        }
    }
}

/// The check of a block: over the directory's id, what the file is of (a position or an index), the number of the block in the file, and
/// its bytes.
pub(super) fn check(directory: DirectoryId, of: u64, number: u64, bytes: &[u8]) -> u32 {
    let seed = [directory.0, of, number];
    let seed = seed
        .iter()
        .fold(0, |check, part| crc32c::crc32c_append(check, &part.to_le_bytes()));
    crc32c::crc32c_append(seed, bytes)
}

/// A little-endian number of 8 bytes; 0 where there are none.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let part = bytes.get(at..at + 8).unwrap_or(&[]);
    part.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// A little-endian number of 4 bytes; 0 where there are none.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let part = bytes.get(at..at + 4).unwrap_or(&[]);
    part.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
}

pub(super) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Makes an empty file, in the place of one that an earlier life may have left under its name.
pub(super) fn create_anew<D: Disk>(disk: &D, name: &str) -> io::Result<D::File> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk.create(name)
}

/// Syncs a file and gives it its name, durable before this returns.
pub(super) fn put_in_place<D: Disk>(disk: &D, file: &D::File, from: &str, to: &str) -> io::Result<()> {
    file.sync_data()?;
    disk.rename(from, to)?;
    disk.sync_dir(to.rsplit_once('/').map_or("", |(folder, _)| folder))
}

/// The folder of files that were set aside.
pub const QUARANTINE: &str = "quarantine";

/// Moves a file (relative to the data directory) into the folder [`QUARANTINE`], durably, under a name that is free there. Returns that name.
///
/// # Errors
/// What the disk says.
pub fn set_aside<D: Disk>(disk: &D, file: &str) -> io::Result<String> {
    disk.create_folder(QUARANTINE)?;
    let (folder, bare) = file.rsplit_once('/').unwrap_or(("", file));
    let taken = disk.list(QUARANTINE)?;
    let free = |name: &String| !taken.contains(name);
    let mut names = std::iter::once(bare.to_owned()).chain((1u64..).map(|n| format!("{bare}.{n}")));
    let name = names.find(free).unwrap_or_else(|| bare.to_owned());
    let place = format!("{QUARANTINE}/{name}");
    disk.rename(file, &place)?;
    disk.sync_dir(QUARANTINE)?;
    disk.sync_dir(folder)?;
    Ok(place)
}
