//! What writer, recovery and reader have in common about segments: how their files are called, and how bytes are read from
//! them a window at a time.

use std::io;

use super::disk::{Disk, DiskFile};
use crate::types::Lsn;

/// The folder of the segments in the data directory.
pub const FOLDER: &str = "log";
const SUFFIX: &str = ".seg";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A segment: where it begins and how long its file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// The position of its first byte.
    pub base: Lsn,
    /// Bytes of its file, all of them written when it was made.
    pub size: u64,
}

impl Segment {
    /// Where the next segment begins.
    #[must_use]
    pub fn end(self) -> Lsn {
        Lsn(self.base.0 + self.size)
    }

    /// The file, relative to the data directory.
    #[must_use]
    pub fn file(self) -> String {
        file_name(self.base)
    }
}

/// The file of the segment that begins at `base`, relative to the data directory.
#[must_use]
pub fn file_name(base: Lsn) -> String {
    format!("{FOLDER}/{:020}{SUFFIX}", base.0)
}

/// The name that a segment has while it is being made.
#[must_use]
pub fn temporary_name(base: Lsn) -> String {
    format!("{FOLDER}/{:020}{TEMPORARY_SUFFIX}", base.0)
}

/// Where the segment of that name (without folder) begins; `None` if it is no segment's.
#[must_use]
pub fn base_of(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(SUFFIX)?;
    let clean = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if clean { digits.parse().ok().map(Lsn) } else { None }
}

/// Whether a segment was being made under that name (without folder).
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY_SUFFIX)
}

/// Makes a segment with `first` at its beginning and zeros after it, durable under its name before this returns.
///
/// # Errors
/// What the system says.
pub fn create<D: Disk>(disk: &D, segment: Segment, first: &[u8]) -> io::Result<D::File> {
    let temporary = temporary_name(segment.base);
    let file = disk.create(&temporary)?;
    file.write_at(first, 0)?;
    write_zeros(&file, first.len() as u64, segment.size)?;
    file.sync_data()?;
    disk.rename(&temporary, &segment.file())?;
    disk.sync_dir(FOLDER)?;
    Ok(file)
}

/// Writes zeros over the bytes `from..to`.
///
/// # Errors
/// What the system says.
pub fn write_zeros<F: DiskFile>(file: &F, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; (to.saturating_sub(from)).min(1 << 20) as usize];
    let mut at = from;
    while at < to {
        let step = (to - at).min(zeros.len() as u64);
        file.write_at(&zeros[..step as usize], at)?;
        at += step;
    }
    Ok(())
}

/// Bytes of a file, read many at a time. Moves forward.
#[derive(Debug)]
pub struct Window<'f, F> {
    file: &'f F,
    size: u64,
    step: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'f, F: DiskFile> Window<'f, F> {
    /// A window on a file of `size` bytes, that reads `step` bytes at a time if not more are needed.
    pub fn new(file: &'f F, size: u64, step: u64) -> Window<'f, F> {
        Window {
            file,
            size,
            step,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// The bytes from `offset` on: at least `need` of them, or all up to the end of the file.
    ///
    /// # Errors
    /// What the system says.
    pub fn at(&mut self, offset: u64, need: usize) -> io::Result<&[u8]> {
        let offset = offset.min(self.size);
        let end = (offset + need as u64).min(self.size);
        let have = self.start + self.bytes.len() as u64;
        if offset < self.start || end > have {
            let length = (need as u64).max(self.step).min(self.size - offset);
            self.bytes.resize(length as usize, 0);
            self.start = offset;
            self.file.read_at(&mut self.bytes, offset)?;
        }
        Ok(&self.bytes[(offset - self.start) as usize..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_positions_belong_together() {
        assert_eq!(file_name(Lsn(4096)), "log/00000000000000004096.seg");
        assert_eq!(base_of("00000000000000004096.seg"), Some(Lsn(4096)));
        for other in [
            "4096.seg",
            "00000000000000004096.tmp",
            "+0000000000000004096.seg",
            "99999999999999999999.seg",
        ] {
            assert_eq!(base_of(other), None, "{other}");
        }
    }
}
