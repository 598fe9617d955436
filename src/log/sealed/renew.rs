//! Writing an index file anew when entries of its segment were filled: from itself and what the index in memory knows.

use super::{ITEMS, SealedFile, SealedWriter};
use crate::log::ItemRef;
use crate::log::blocks::FileError;
use crate::log::disk::Disk;
use crate::log::index::{Lookup, Sealed, SharedIndex};
use crate::types::{DirectoryId, LogIndex, Position, Seq};

/// Makes the index file of a segment anew with the places of entries that were filled since, and tells the index.
///
/// # Errors
/// [`FileError`]: of the old file, or of the disk. What there was is still there then. Damage means that the file is to be made from the log.
pub fn renew<D: Disk>(disk: &D, directory: DirectoryId, index: &SharedIndex, sealed: Sealed) -> Result<(), FileError> {
    let segment = sealed.segment;
    let (as_of, looked) = {
        let index = index.read();
        let all = usize::MAX;
        (
            index.changes(),
            index.look(sealed.group, sealed.first, sealed.last, all),
        )
    };
    let Lookup::Sealed(_, changed) = looked else {
        // It has no entries, or is gone: nothing is to be known of it.
        return Ok(());
    };
    let mut file = SealedFile::open(disk, directory, segment)?;
    file.verify()?;
    let head = *file.head();
    let mut rows = Vec::new();
    for number in 0..head.rooms {
        rows.push(file.row(number)?);
    }
    let before = rows.iter().map(|row| (row.room, row.position, row.messages));
    let mut writer = SealedWriter::new(segment, sealed.group, head.sealed.first, before);
    let mut next = head.sealed.first;
    while next <= head.sealed.last {
        for lsn in file.places(next, super::PLACES as usize)? {
            // Of one that can't be read the place stays: it may be looked at once more.
            let filled = changed.get(&next).copied().flatten();
            writer.entry(next, filled.unwrap_or(lsn));
            next = next.next();
        }
    }
    for row in &rows {
        let (mut at, mut messages) = (0, row.messages.0);
        while at < row.items {
            for item in file.items(row, at, ITEMS as usize)? {
                at += 1;
                messages += u64::from(item.message);
                writer.item(&ItemRef {
                    room: row.room,
                    position: Position(row.position.0 + u64::from(at)),
                    seq: Seq(if item.message { messages } else { 0 }),
                    group: sealed.group,
                    index: LogIndex(item.index.0),
                });
            }
        }
    }
    let written = writer.finish(disk, directory, head.digest, head.age_ms);
    let written = written.map_err(FileError::io(&file.name, 0))?;
    index.write().sealed(written, as_of);
    Ok(())
}
