//! A checkpoint that is coming from another server, piece by piece: the bare bytes in a file whose name says of what. It outlives a
//! restart; nothing in it is believed until the whole has the check that the name asks for. There is one at a time.

use std::io;

use super::{Checkpoints, FOLDER, Source, Stream};
use crate::cluster::message::CheckpointId;
use crate::log::blocks::FileError;
use crate::log::disk::{Disk, DiskFile};

const SUFFIX: &str = ".part";

/// The file of a checkpoint that is coming: everything of its name is in the file's, so that another's bytes are never continued.
fn partial_name(id: &CheckpointId) -> String {
    let (index, term) = (id.at.index.0, id.at.term.0);
    let CheckpointId {
        chain,
        digest,
        bytes,
        check,
        ..
    } = id;
    format!("{FOLDER}/{index:020}-{term:x}-{chain:08x}-{digest:016x}-{bytes:x}-{check:08x}{SUFFIX}")
}

impl<D: Disk> Checkpoints<D> {
    /// Stores a piece, if it is the one that is missing next, and says which is missing then: the offset after all that is there. With
    /// no bytes it only says. What was coming of another checkpoint is given up.
    ///
    /// # Errors
    /// What the disk says.
    pub fn store(&mut self, id: &CheckpointId, offset: u64, bytes: &[u8]) -> io::Result<u64> {
        let name = partial_name(id);
        let file = match self.disk.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.drop_partials()?;
                self.disk.create(&name)?
            }
            file => file?,
        };
        let mut size = file.size()?;
        if size > id.bytes {
            file.set_size(0)?;
            size = 0;
        }
        let fits = offset == size && (bytes.len() as u64) <= id.bytes - size;
        if !fits || bytes.is_empty() {
            return Ok(size);
        }
        file.write_at(bytes, offset)?;
        Ok(size + bytes.len() as u64)
    }

    /// The portable form of a checkpoint that has come, if all of it is there and is what its name says; to be written to a file of its own
    /// by [`Checkpoints::create`], and then given up here by [`Checkpoints::drop_partials`]. `None` if some is missing.
    ///
    /// # Errors
    /// [`FileError`]. If it is damage, what has come is removed: the next [`Checkpoints::store`] begins anew.
    pub fn complete(&mut self, id: &CheckpointId) -> Result<Option<Stream<D::File>>, FileError> {
        let name = partial_name(id);
        let whole = match self.bare(id, &name) {
            Err(error) if error.is_missing() => return Ok(None),
            other => other?,
        };
        let Some(whole) = whole else { return Ok(None) };
        for block in whole {
            if let Err(error) = block {
                if matches!(error, FileError::Damaged { .. }) {
                    self.drop_partials().map_err(FileError::io(&name, 0))?;
                }
                return Err(error);
            }
        }
        self.bare(id, &name)
    }

    /// Gives up what was coming.
    ///
    /// # Errors
    /// What the disk says.
    pub fn drop_partials(&mut self) -> io::Result<()> {
        for name in self.disk.list(FOLDER)? {
            if name.ends_with(SUFFIX) {
                self.disk.remove(&format!("{FOLDER}/{name}"))?;
            }
        }
        Ok(())
    }

    fn bare(&self, id: &CheckpointId, name: &str) -> Result<Option<Stream<D::File>>, FileError> {
        let file = self.disk.open(name).map_err(FileError::io(name, 0))?;
        let size = file.size().map_err(FileError::io(name, 0))?;
        Ok((size == id.bytes).then(|| Stream {
            source: Source::Bare(file, name.to_owned()),
            id: *id,
            next: 0,
            check: 0,
        }))
    }
}
