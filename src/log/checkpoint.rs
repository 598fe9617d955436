//! The checkpoint files of one server, `checkpoint/<index of the last entry in it>.ckpt`: the portable form of a state, the same bytes on
//! every server, wrapped in blocks whose checks are of this directory alone; and behind it, for this server alone, which items of which rooms
//! stand in segments that have no index file yet. What is in the portable form is not for this room to know.
//!
//! ```text
//! head, 128 bytes:
//!  0 8 bytes "SYNCCKP\n"    24 u64 index of the last entry       48 u64 bytes of the portable form
//!  8 u32 version: 1         32 u32 chain                         56 u64 log age in ms
//! 12 u32 check              36 u32 CRC-32C of the portable form  64 u64 bytes of the pending items
//! 16 u64 term of the entry  40 u64 digest of the state           72 u64 pending items
//! 80 u64 last entry whose items an index file knew: those of later ones are pending
//! 88 u32 1 if it came from another server and the log begins behind it; then zeros
//! then blocks: u32 check, u32 length, bytes: 64 KiB of the portable form each (the last has what is left), then of the pending items
//! ```
//!
//! A pending item is five numbers in 7 bits a byte, low ones first: room, position, number or 0, group, entry. A file has its name only when
//! all of it is on the disk; its length is what its head says.

mod partial;
mod write;

#[cfg(test)]
mod tests;

pub use write::{Ending, Writer};

use std::io;

use super::ItemRef;
use super::blocks::{self, FileError, u32_at, u64_at};
use super::disk::{Disk, DiskFile};
use crate::cluster::message::{CheckpointId, LogPosition};
use crate::limits::{CHECKPOINT_BLOCK_BYTES, CHECKPOINT_PIECE_BYTES_MAX};
use crate::types::{DirectoryId, GroupId, LogIndex, Position, RoomId, Seq, Term};

/// The folder of the checkpoints in the data directory.
pub const FOLDER: &str = "checkpoint";
/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"SYNCCKP\n";
const SUFFIX: &str = ".ckpt";
const HEAD: usize = 128;
/// Bytes of a block before what it holds.
const BLOCK_HEAD: usize = 8;
const BLOCK: u64 = CHECKPOINT_BLOCK_BYTES as u64;

/// A checkpoint that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Info {
    /// Its name.
    pub id: CheckpointId,
    /// The log's age there, in milliseconds.
    pub age_ms: u64,
    /// The last entry whose items an index file knew: those of later ones are pending.
    pub indexed: LogIndex,
    /// It came from another server, and the log begins behind it.
    pub begins: bool,
}

/// The checkpoints of one server.
#[derive(Clone, Debug)]
pub struct Checkpoints<D> {
    disk: D,
    directory: DirectoryId,
    list: Vec<Info>,
    bad: Vec<(String, u64, String)>,
}

/// The file of the checkpoint whose last entry is `index`, relative to the data directory.
#[must_use]
pub fn file_name(index: LogIndex) -> String {
    format!("{FOLDER}/{:020}{SUFFIX}", index.0)
}

/// The last entry of the checkpoint in the file of that name (without folder); `None` if it is no checkpoint's.
#[must_use]
pub fn index_of(name: &str) -> Option<LogIndex> {
    let digits = name.strip_suffix(SUFFIX)?;
    let clean = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if clean { digits.parse().ok().map(LogIndex) } else { None }
}

/// What the head of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Head {
    info: Info,
    pending_bytes: u64,
    pending: u64,
}

impl Head {
    fn encode(&self, directory: DirectoryId) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        let Info {
            id,
            age_ms,
            indexed,
            begins,
        } = self.info;
        bytes[..8].copy_from_slice(MAGIC);
        blocks::put_u32(&mut bytes, 8, VERSION);
        blocks::put_u64(&mut bytes, 16, id.at.term.0);
        blocks::put_u64(&mut bytes, 24, id.at.index.0);
        blocks::put_u32(&mut bytes, 32, id.chain);
        blocks::put_u32(&mut bytes, 36, id.check);
        blocks::put_u64(&mut bytes, 40, id.digest);
        blocks::put_u64(&mut bytes, 48, id.bytes);
        blocks::put_u64(&mut bytes, 56, age_ms);
        blocks::put_u64(&mut bytes, 64, self.pending_bytes);
        blocks::put_u64(&mut bytes, 72, self.pending);
        blocks::put_u64(&mut bytes, 80, indexed.0);
        blocks::put_u32(&mut bytes, 88, u32::from(begins));
        let check = blocks::check(directory, id.at.index.0, 0, &bytes);
        blocks::put_u32(&mut bytes, 12, check);
        bytes
    }

    fn parse(bytes: &[u8; HEAD], directory: DirectoryId, index: LogIndex, size: u64) -> Result<Head, FileError> {
        let name = file_name(index);
        let bad = |offset, text: &str| Err(FileError::damaged(&name, offset, text));
        if bytes[..8] != MAGIC[..] {
            return bad(0, "this is no checkpoint");
        }
        let mut blank = *bytes;
        blocks::put_u32(&mut blank, 12, 0);
        if blocks::check(directory, index.0, 0, &blank) != u32_at(bytes, 12) {
            return bad(0, "the head can't be read");
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(FileError::Newer { file: name });
        }
        let head = Head {
            info: Info {
                id: CheckpointId {
                    at: LogPosition {
                        term: Term(u64_at(bytes, 16)),
                        index: LogIndex(u64_at(bytes, 24)),
                    },
                    chain: u32_at(bytes, 32),
                    digest: u64_at(bytes, 40),
                    bytes: u64_at(bytes, 48),
                    check: u32_at(bytes, 36),
                },
                age_ms: u64_at(bytes, 56),
                indexed: LogIndex(u64_at(bytes, 80)),
                begins: u32_at(bytes, 88) != 0,
            },
            pending_bytes: u64_at(bytes, 64),
            pending: u64_at(bytes, 72),
        };
        if head.info.id.at.index != index {
            return bad(24, "it belongs to another entry");
        }
        // No item takes less than five bytes.
        if head.pending > head.pending_bytes / 5 || head.size() != Some(size) {
            return bad(size, "the file has another length than its head says");
        }
        Ok(head)
    }

    fn blocks(bytes: u64) -> u64 {
        bytes.div_ceil(BLOCK)
    }

    /// Bytes of the whole file.
    fn size(&self) -> Option<u64> {
        let contents = self.info.id.bytes.checked_add(self.pending_bytes)?;
        let blocks = Head::blocks(self.info.id.bytes) + Head::blocks(self.pending_bytes);
        contents.checked_add(blocks * BLOCK_HEAD as u64 + HEAD as u64)
    }
}

impl<D: Disk> Checkpoints<D> {
    /// Lists what there is; makes the folder if there is none. What was being made when the last life ended is removed, but for what was
    /// coming from another server.
    ///
    /// # Errors
    /// What the disk says.
    pub fn open(disk: D, directory: DirectoryId) -> io::Result<Checkpoints<D>> {
        disk.create_folder(FOLDER)?;
        for name in disk.list(FOLDER)?.iter().filter(|name| name.ends_with(".tmp")) {
            disk.remove(&format!("{FOLDER}/{name}"))?;
        }
        Checkpoints::look(disk, directory)
    }

    /// Lists what there is, and changes nothing.
    ///
    /// # Errors
    /// What the disk says.
    pub fn look(disk: D, directory: DirectoryId) -> io::Result<Checkpoints<D>> {
        let mut checkpoints = Checkpoints {
            disk,
            directory,
            list: Vec::new(),
            bad: Vec::new(),
        };
        let names = match checkpoints.disk.list(FOLDER) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        for name in names {
            let path = format!("{FOLDER}/{name}");
            let Some(index) = index_of(&name) else { continue };
            match checkpoints.open_file(index) {
                Ok((_, head)) => checkpoints.list.push(head.info),
                Err(FileError::Io { error, .. }) => return Err(error),
                Err(FileError::Damaged { file, offset, text }) => checkpoints.bad.push((file, offset, text)),
                Err(error @ FileError::Newer { .. }) => checkpoints.bad.push((path, 0, error.to_string())),
            }
        }
        Ok(checkpoints)
    }

    /// The checkpoints whose heads are good, ascending.
    #[must_use]
    pub fn list(&self) -> &[Info] {
        &self.list
    }

    /// Files whose heads are bad: file, offset, what is wrong.
    #[must_use]
    pub fn bad(&self) -> &[(String, u64, String)] {
        &self.bad
    }

    /// Begins a file. It is there when [`Checkpoints::finish`] has returned, and not before.
    ///
    /// # Errors
    /// What the disk says.
    pub fn create(&self, index: LogIndex) -> io::Result<Writer<D>> {
        Writer::new(&self.disk, self.directory, index)
    }

    /// Ends a file with the items that are applied and stand in segments without an index file. Durable before this returns.
    ///
    /// # Errors
    /// What the disk says. There is no new file then.
    pub fn finish(&mut self, writer: Writer<D>, ending: &Ending, pending: &[ItemRef]) -> io::Result<CheckpointId> {
        let info = writer.finish(ending, pending)?;
        let name = file_name(info.id.at.index);
        self.bad.retain(|(file, _, _)| *file != name);
        self.list.retain(|other| other.id.at.index != info.id.at.index);
        let at = self.list.partition_point(|other| other.id.at.index < info.id.at.index);
        self.list.insert(at, info);
        Ok(info.id)
    }

    /// A piece of the portable form, checked: from `offset` on, at most `bytes_max`, and at most 1 MiB; none behind its end.
    ///
    /// # Errors
    /// [`FileError`]; `NotFound` if there is no such checkpoint.
    pub fn read(&self, id: &CheckpointId, offset: u64, bytes_max: usize) -> Result<Vec<u8>, FileError> {
        let contents = self.contents(id)?;
        let length = (bytes_max.min(CHECKPOINT_PIECE_BYTES_MAX) as u64).min(id.bytes.saturating_sub(offset));
        let mut piece = Vec::with_capacity(length as usize);
        while (piece.len() as u64) < length {
            let at = offset + piece.len() as u64;
            let block = contents.block(at / BLOCK)?;
            let rest = block.get((at % BLOCK) as usize..).unwrap_or(&[]);
            let left = (length - piece.len() as u64) as usize;
            piece.extend_from_slice(&rest[..rest.len().min(left)]);
        }
        Ok(piece)
    }

    /// The portable form from its beginning, a block at a time. What comes before an error is as it was written; the last block
    /// comes only if the whole is what the name says.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open_stream(&self, id: &CheckpointId) -> Result<Stream<D::File>, FileError> {
        Ok(Stream {
            source: Source::Blocks(self.contents(id)?),
            id: *id,
            next: 0,
            check: 0,
        })
    }

    /// The items that were applied and stood in segments without an index file.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn pending(&self, id: &CheckpointId) -> Result<Vec<ItemRef>, FileError> {
        let contents = self.contents(id)?;
        let head = contents.head;
        let (first, count) = (Head::blocks(id.bytes), Head::blocks(head.pending_bytes));
        let mut bytes = Vec::new();
        for number in first..first + count {
            bytes.extend(contents.block(number)?);
        }
        let (mut rest, mut items) = (bytes.as_slice(), Vec::new());
        while let Some(item) = take_item(&mut rest) {
            items.push(item);
        }
        if !rest.is_empty() || items.len() as u64 != head.pending {
            let text = "the pending items make no sense";
            return Err(FileError::damaged(&contents.name, contents.place(first).0, text));
        }
        Ok(items)
    }

    /// Reads and checks all of it.
    ///
    /// # Errors
    /// [`FileError`]: the first thing that is wrong.
    pub fn verify(&self, id: &CheckpointId) -> Result<(), FileError> {
        for block in self.open_stream(id)? {
            block?;
        }
        self.pending(id).map(|_| ())
    }

    /// Removes a checkpoint, durably. None is no error.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove(&mut self, index: LogIndex) -> io::Result<()> {
        self.list.retain(|info| info.id.at.index != index);
        match self.disk.remove(&file_name(index)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.disk.sync_dir(FOLDER)
    }

    /// Moves a file (relative to the data directory) out of the way, for somebody to look at. Returns where it is now.
    ///
    /// # Errors
    /// What the disk says.
    pub fn set_aside(&mut self, file: &str) -> io::Result<String> {
        let place = blocks::set_aside(&self.disk, file)?;
        self.list.retain(|info| file_name(info.id.at.index) != file);
        self.bad.retain(|(bad, _, _)| bad != file);
        Ok(place)
    }

    fn open_file(&self, index: LogIndex) -> Result<(D::File, Head), FileError> {
        let name = file_name(index);
        let file = self.disk.open(&name).map_err(FileError::io(&name, 0))?;
        let size = file.size().map_err(FileError::io(&name, 0))?;
        let mut bytes = [0; HEAD];
        file.read_at(&mut bytes, 0).map_err(FileError::io(&name, 0))?;
        let head = Head::parse(&bytes, self.directory, index, size)?;
        Ok((file, head))
    }

    fn contents(&self, id: &CheckpointId) -> Result<Contents<D::File>, FileError> {
        let (file, head) = self.open_file(id.at.index)?;
        let name = file_name(id.at.index);
        if head.info.id != *id {
            let error = io::Error::new(io::ErrorKind::NotFound, "another checkpoint is at this entry");
            return Err(FileError::Io { file: name, error });
        }
        Ok(Contents {
            file,
            name,
            directory: self.directory,
            head,
        })
    }
}

/// A file that is open.
#[derive(Debug)]
struct Contents<F> {
    file: F,
    name: String,
    directory: DirectoryId,
    head: Head,
}

impl<F: DiskFile> Contents<F> {
    /// Where a block begins and how much it holds.
    fn place(&self, number: u64) -> (u64, u64) {
        let (bytes, whole) = (self.head.info.id.bytes, BLOCK + BLOCK_HEAD as u64);
        let first_pending = Head::blocks(bytes);
        if number < first_pending {
            return (HEAD as u64 + number * whole, BLOCK.min(bytes - number * BLOCK));
        }
        let number = number - first_pending;
        let start = HEAD as u64 + bytes + first_pending * BLOCK_HEAD as u64;
        let left = self.head.pending_bytes.saturating_sub(number * BLOCK);
        (start + number * whole, BLOCK.min(left))
    }

    fn block(&self, number: u64) -> Result<Vec<u8>, FileError> {
        let (offset, length) = self.place(number);
        let mut bytes = vec![0; BLOCK_HEAD + length as usize];
        let read = self.file.read_at(&mut bytes, offset);
        read.map_err(FileError::io(&self.name, offset))?;
        let check = blocks::check(self.directory, self.head.info.id.at.index.0, number + 1, &bytes[4..]);
        if check != u32_at(&bytes, 0) || u64::from(u32_at(&bytes, 4)) != length {
            return Err(FileError::damaged(&self.name, offset, "the block can't be read"));
        }
        Ok(bytes.split_off(BLOCK_HEAD))
    }
}

/// The portable form of a checkpoint, a block at a time.
#[derive(Debug)]
pub struct Stream<F> {
    source: Source<F>,
    id: CheckpointId,
    next: u64,
    check: u32,
}

#[derive(Debug)]
enum Source<F> {
    Blocks(Contents<F>),
    /// The bare bytes, as they came from another server.
    Bare(F, String),
}

impl<F: DiskFile> Stream<F> {
    fn block(&self) -> Result<Vec<u8>, FileError> {
        match &self.source {
            Source::Blocks(contents) => contents.block(self.next),
            Source::Bare(file, name) => {
                let offset = self.next * BLOCK;
                let mut bytes = vec![0; BLOCK.min(self.id.bytes - offset) as usize];
                file.read_at(&mut bytes, offset).map_err(FileError::io(name, offset))?;
                Ok(bytes)
            }
        }
    }
}

impl<F: DiskFile> Iterator for Stream<F> {
    type Item = Result<Vec<u8>, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let blocks = Head::blocks(self.id.bytes);
        if self.next >= blocks {
            return None;
        }
        let block = self.block();
        self.next = if block.is_ok() { self.next + 1 } else { blocks };
        if let Ok(bytes) = &block {
            self.check = crc32c::crc32c_append(self.check, bytes);
            if self.next == blocks && self.check != self.id.check {
                let name = match &self.source {
                    Source::Blocks(contents) => &contents.name,
                    Source::Bare(_, name) => name,
                };
                return Some(Err(FileError::damaged(name, 0, "the whole isn't what its name says")));
            }
        }
        Some(block)
    }
}

/// The next pending item, if there is a whole one.
fn take_item(bytes: &mut &[u8]) -> Option<ItemRef> {
    let mut rest = *bytes;
    let item = ItemRef {
        room: RoomId(take_number(&mut rest)?),
        position: Position(take_number(&mut rest)?),
        seq: Seq(take_number(&mut rest)?),
        group: GroupId(u32::try_from(take_number(&mut rest)?).ok()?),
        index: LogIndex(take_number(&mut rest)?),
    };
    *bytes = rest;
    Some(item)
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
