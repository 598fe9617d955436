//! Making a checkpoint file: the portable bytes as they come, a block at a time, then the pending items, the head last.

use std::io;

use super::{BLOCK_HEAD, HEAD, Head, Info, file_name};
use crate::cluster::message::{CheckpointId, LogPosition};
use crate::limits::CHECKPOINT_BLOCK_BYTES;
use crate::log::ItemRef;
use crate::log::blocks::{self, put_u32};
use crate::log::disk::{Disk, DiskFile};
use crate::log::packed::write_varint;
use crate::types::{DirectoryId, LogIndex};

/// What a checkpoint says of itself beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ending {
    /// The last entry in it.
    pub at: LogPosition,
    /// The running check over the log up to and including that entry.
    pub chain: u32,
    /// The digest of the state.
    pub digest: u64,
    /// The log's age there, in milliseconds.
    pub age_ms: u64,
    /// The last entry whose items an index file knows.
    pub indexed: LogIndex,
    /// It came from another server, and the log begins behind it.
    pub begins: bool,
}

/// A checkpoint in the making. One that is dropped leaves nothing.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    disk: D,
    directory: DirectoryId,
    index: LogIndex,
    file: D::File,
    temporary: String,
    block: Vec<u8>,
    /// The number of the next block.
    number: u64,
    written: u64,
    bytes: u64,
    check: u32,
    finished: bool,
}

impl<D: Disk> Writer<D> {
    pub(super) fn new(disk: &D, directory: DirectoryId, index: LogIndex) -> io::Result<Writer<D>> {
        let temporary = format!("{}.tmp", file_name(index));
        let file = blocks::create_anew(disk, &temporary)?;
        Ok(Writer {
            disk: disk.clone(),
            directory,
            index,
            file,
            temporary,
            block: Vec::new(),
            number: 1,
            written: HEAD as u64,
            bytes: 0,
            check: 0,
            finished: false,
        })
    }

    /// The next bytes of the portable form.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.check = crc32c::crc32c_append(self.check, bytes);
        self.fill(bytes)
    }

    fn fill(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = CHECKPOINT_BLOCK_BYTES - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == CHECKPOINT_BLOCK_BYTES {
                self.end_block()?;
            }
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let mut bytes = vec![0; BLOCK_HEAD];
        put_u32(&mut bytes, 4, self.block.len() as u32);
        bytes.append(&mut self.block);
        let check = blocks::check(self.directory, self.index.0, self.number, &bytes[4..]);
        put_u32(&mut bytes, 0, check);
        self.file.write_at(&bytes, self.written)?;
        self.written += bytes.len() as u64;
        self.number += 1;
        Ok(())
    }

    pub(super) fn finish(mut self, ending: &Ending, pending: &[ItemRef]) -> io::Result<Info> {
        if ending.at.index != self.index {
            return Err(io::Error::other("a checkpoint was begun for another entry"));
        }
        self.end_block()?;
        let mut pending_bytes = 0;
        for item in pending {
            let mut bytes = Vec::new();
            for number in [
                item.room.0,
                item.position.0,
                item.seq.0,
                u64::from(item.group.0),
                item.index.0,
            ] {
                write_varint(&mut bytes, number);
            }
            pending_bytes += bytes.len() as u64;
            self.fill(&bytes)?;
        }
        self.end_block()?;
        let info = Info {
            id: CheckpointId {
                at: ending.at,
                chain: ending.chain,
                digest: ending.digest,
                bytes: self.bytes,
                check: self.check,
            },
            age_ms: ending.age_ms,
            indexed: ending.indexed,
            begins: ending.begins,
        };
        let head = Head {
            info,
            pending_bytes,
            pending: pending.len() as u64,
        };
        self.file.write_at(&head.encode(self.directory), 0)?;
        blocks::put_in_place(&self.disk, &self.file, &self.temporary, &file_name(self.index))?;
        self.finished = true;
        Ok(info)
    }
}

impl<D: Disk> Drop for Writer<D> {
    fn drop(&mut self) {
        if !self.finished {
            // So that a full disk isn't kept full. If it fails, the next start does it.
            let _ = self.disk.remove(&self.temporary);
        }
    }
}
