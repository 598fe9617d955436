//! Looks at what nobody reads, a little at a time: all segments and checkpoints in some days, so that damage is found while others
//! still hold the same, and not when a server starts after a power cut.

use std::io;

use super::Kept;
use super::keeper::Keeper;
use crate::limits;
use crate::log::disk::Disk;
use crate::types::Span;

/// How far the look is.
#[derive(Debug, Default)]
pub(super) struct Scrubbing {}

/// What a step found.
#[derive(Debug)]
pub(super) struct Found {
    /// To be said.
    pub found: Vec<Kept>,
    /// How long to rest.
    pub rest: Span,
}

impl<D: Disk> Keeper<D> {
    pub(super) fn scrub(&mut self) -> io::Result<Found> {
        Ok(Found {
            found: Vec::new(),
            rest: limits::SCRUB_REST_MAX,
        })
    }
}
