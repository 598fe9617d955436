//! Opens what a data directory holds: the newest checkpoint that can be read, the log from there on, and the reader and the housekeeper that
//! go with them. What is damaged and can be done without is set aside and said.

use std::fmt;

use super::keeper::Keeper;
use crate::chat::State;
use crate::cluster::message::Recovered;
use crate::log::checkpoint::Checkpoints;
use crate::log::disk::Disk;
use crate::log::reader::Reader;
use crate::log::recovery::{OpenError, Options, Report};
use crate::log::writer::Log;
use crate::types::{DirectoryId, GroupId};

/// What was opened.
#[derive(Debug)]
pub struct Opened<D: Disk> {
    /// For appending.
    pub log: Log<D>,
    /// For reading.
    pub reader: Reader<D>,
    /// For all that nobody waits for.
    pub keeper: Keeper<D>,
    /// What the log holds.
    pub recovered: Recovered,
    /// The state of the checkpoint from which the log is applied.
    pub state: State,
    /// What recovery did.
    pub report: Report,
}
