//! Looks at the data directory of a server from outside of it, for the person who wonders what is in it and whether it is whole. Nothing is
//! ever written. A server may be running on the directory meanwhile: what it writes just then may look torn, and what it removes is
//! gone.

pub mod dump;
pub mod fields;
pub mod verify;

use std::fmt;
use std::io;
use std::path::Path;

use crate::log::directory::{DirError, Identity, is_in_use, look_at_identity};
use crate::log::disk::Disk;
use crate::log::examine;
use crate::log::read_only::ReadOnly;
use crate::log::recovery::OpenError;
use crate::log::segment::Segment;

/// A data directory that is looked at.
#[derive(Clone, Debug)]
pub struct Offline<D> {
    /// Its files.
    pub disk: D,
    /// What it says of itself.
    pub identity: Identity,
}

/// Why a directory can't be looked at.
#[derive(Debug)]
pub enum Closed {
    /// There is none, or it isn't ours to read: in words, with the name.
    Unreadable(String),
    /// Without the identity no record in it means anything, and that is damaged: in words, with file and offset.
    Damaged(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::Unreadable(text) | Closed::Damaged(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Closed {}

impl From<DirError> for Closed {
    fn from(error: DirError) -> Closed {
        match error {
            DirError::Damaged { .. } => Closed::Damaged(error.to_string()),
            other => Closed::Unreadable(other.to_string()),
        }
    }
}

/// Opens a data directory for looking at it. Says too whether a server has it open now.
///
/// # Errors
/// [`Closed`].
pub fn open(path: &Path) -> Result<(Offline<ReadOnly>, bool), Closed> {
    let unreadable = |error: io::Error| Closed::Unreadable(format!("{}: {error}", path.display()));
    // Also says that it isn't there, or that it is a file.
    std::fs::read_dir(path).map_err(unreadable)?;
    let disk = ReadOnly::new(path);
    let Some(identity) = look_at_identity(&disk, path)? else {
        let text = format!(
            "{}: this is no data directory of syncnetd: it has no identity and no log",
            path.display()
        );
        return Err(Closed::Unreadable(text));
    };
    Ok((Offline { disk, identity }, is_in_use(path)?))
}

impl<D: Disk> Offline<D> {
    /// The segments of the log, ascending; none without a folder for them.
    fn segments(&self) -> Result<Vec<Segment>, OpenError> {
        match examine::segments(&self.disk) {
            Err(OpenError::Io { error, file }) if error.kind() == io::ErrorKind::NotFound && !file.contains('/') => {
                Ok(Vec::new())
            }
            segments => segments,
        }
    }
}
