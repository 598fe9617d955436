//! Checkpoints on their way between servers: pieces of ours are handed out, pieces of the leader's are put together.

use std::io;

use super::Kept;
use super::keeper::Keeper;
use super::making::assemble;
use crate::cluster::message::CheckpointId;
use crate::limits;
use crate::log::blocks::FileError;
use crate::log::checkpoint::Ending;
use crate::log::disk::Disk;
use crate::types::{Blob, Level, LogIndex};

impl<D: Disk> Keeper<D> {
    /// A piece of a checkpoint of ours: of this one, or of the oldest.
    pub(super) fn hand_out(&mut self, token: u64, id: Option<CheckpointId>, offset: u64) -> io::Result<()> {
        let list = self.checkpoints.list();
        let wanted = match id {
            Some(id) => list.iter().find(|info| info.id == id),
            None => list.first(),
        };
        let mut piece = None;
        if let Some(info) = wanted.copied() {
            match self
                .checkpoints
                .read(&info.id, offset, limits::CHECKPOINT_PIECE_BYTES_MAX)
            {
                Ok(bytes) => piece = Some((info.id, offset, Blob::new(&bytes))),
                Err(error) => self.unreadable(&info, error)?,
            }
        }
        self.say(Kept::Piece { token, piece });
        Ok(())
    }

    /// Stores a piece of the leader's; when all is there, it becomes a checkpoint of ours.
    pub(super) fn store(&mut self, id: CheckpointId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let next = self.checkpoints.store(&id, offset, bytes)?;
        if next < id.bytes {
            self.say(Kept::Stored { id, next });
            return Ok(());
        }
        match self.complete(&id) {
            Ok(Some(installed)) => self.say(installed),
            Ok(None) => self.say(Kept::Stored { id, next: 0 }),
            Err(FileError::Io { file, error }) => {
                return Err(io::Error::new(error.kind(), format!("{file}: {error}")));
            }
            Err(error) => {
                self.checkpoints.drop_partials()?;
                let text = format!(
                    "a checkpoint of the leader came in pieces that don't fit together: {error}; it is asked for again"
                );
                self.say(Kept::Said {
                    level: Level::Warn,
                    text,
                });
                self.say(Kept::Stored { id, next: 0 });
            }
        }
        Ok(())
    }

    fn complete(&mut self, id: &CheckpointId) -> Result<Option<Kept>, FileError> {
        let index = id.at.index;
        let Some(stream) = self.checkpoints.complete(id)? else {
            return Ok(None);
        };
        let (head, state) = assemble(stream, index)?;
        let Some(stream) = self.checkpoints.complete(id)? else {
            return Ok(None);
        };
        let failed = |error| FileError::Io {
            file: crate::log::checkpoint::file_name(index),
            error,
        };
        let mut writer = self.checkpoints.create(index).map_err(failed)?;
        for block in stream {
            writer.write(&block?).map_err(failed)?;
        }
        let ending = Ending {
            at: head.at,
            chain: head.chain,
            digest: head.digest,
            age_ms: state.clock().age_ms,
            indexed: index,
            begins: true,
        };
        self.checkpoints.finish(writer, &ending, &[]).map_err(failed)?;
        self.checkpoints.drop_partials().map_err(failed)?;
        Ok(Some(Kept::Installed {
            id: *id,
            members: head.members,
            state: Box::new(state),
        }))
    }

    /// The log begins behind the checkpoint at `index` from now on (`taken`), or goes on without it.
    pub(super) fn begun(&mut self, index: LogIndex, taken: bool) -> io::Result<()> {
        let all: Vec<LogIndex> = self.checkpoints.list().iter().map(|info| info.id.at.index).collect();
        for at in all {
            if if taken { at < index } else { at == index } {
                self.checkpoints.remove(at)?;
            }
        }
        self.tell_holdings();
        Ok(())
    }
}
