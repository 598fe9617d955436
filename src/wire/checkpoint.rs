//! The portable form of a checkpoint: what travels between servers and stands in the file of a checkpoint, the same bytes on every
//! server that has the same state. A version, a head, the rows of the state, and an end with their number:
//!
//! ```text
//! version u16 | length u32, head | (length u32, row)* | 0 u32, number of rows u64
//! ```
//!
//! Integers are little-endian, head and rows are bincode. A row of a length of 0 can't be: that is the end.

use serde::{Deserialize, Serialize};

use super::frame::{self, LENGTH_BYTES, Split};
use super::{Error, decode, encode};
use crate::chat::{Builder, Row, State};
use crate::cluster::message::{Entry, LogPosition};
use crate::limits;
use crate::types::GroupId;

/// The version of the form today.
pub const VERSION: u16 = 1;

const VERSION_BYTES: usize = 2;
const ROWS_BYTES: usize = 8;

/// What a checkpoint is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Head {
    /// The group.
    pub group: GroupId,
    /// The last entry that is in it.
    pub at: LogPosition,
    /// The running check over the log up to and including that entry.
    pub chain: u32,
    /// The digest of the state.
    pub digest: u64,
    /// The members entry in force.
    pub members: Entry,
}

/// A piece of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// First.
    Head(Head),
    /// Any number of them.
    Row(Row),
    /// Last: all rows were there.
    End,
}

/// What the bytes of a checkpoint, from the last part on, begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole part.
    Complete {
        /// The part.
        part: Part,
        /// Its bytes; the next part begins behind them.
        consumed: usize,
    },
    /// More bytes are needed.
    Incomplete,
    /// They aren't those of a checkpoint, or of a later program's.
    Invalid(Error),
}

/// Appends the beginning of a checkpoint.
pub fn encode_head(head: &Head, out: &mut Vec<u8>) {
    out.extend_from_slice(&VERSION.to_le_bytes());
    frame::frame(out, |out| encode(head, out));
}

/// Appends a row.
pub fn encode_row(row: &Row, out: &mut Vec<u8>) {
    frame::frame(out, |out| encode(row, out));
}

/// Appends the end, after so many rows.
pub fn encode_end(rows: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&rows.to_le_bytes());
}

/// Hands out a whole checkpoint, one part a time, so that nobody needs to hold all of its bytes.
///
/// # Errors
/// What `sink` says.
pub fn write<E>(head: &Head, state: &State, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut part = Vec::new();
    encode_head(head, &mut part);
    sink(&part)?;
    let mut rows = 0;
    for row in state.rows() {
        part.clear();
        encode_row(&row, &mut part);
        sink(&part)?;
        rows += 1;
    }
    part.clear();
    encode_end(rows, &mut part);
    sink(&part)
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    #[default]
    Head,
    Rows(u64),
    Done,
}

/// Reads a checkpoint part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Decoder {
    stage: Stage,
}

impl Decoder {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Whether the end has come.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// The next part. `bytes` begin where the last one ended.
    pub fn next(&mut self, bytes: &[u8]) -> Parsed {
        match self.stage {
            Stage::Head => self.head(bytes),
            Stage::Rows(rows) => self.row(rows, bytes),
            Stage::Done if bytes.is_empty() => Parsed::Incomplete,
            Stage::Done => invalid(format!("{} bytes behind the end", bytes.len())),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Parsed {
        const MAX: usize = limits::CHECKPOINT_HEAD_BYTES_MAX;
        let Some((version, rest)) = bytes.split_first_chunk::<VERSION_BYTES>() else {
            return Parsed::Incomplete;
        };
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            let what = "checkpoint";
            return Parsed::Invalid(Error::Upgrade { what, version });
        }
        match frame::split(rest, MAX) {
            Split::Complete { body, consumed } => match decode::<Head, { 4 * MAX }>(body, "head of a checkpoint") {
                Ok(head) => {
                    self.stage = Stage::Rows(0);
                    Parsed::Complete {
                        part: Part::Head(head),
                        consumed: VERSION_BYTES + consumed,
                    }
                }
                Err(error) => Parsed::Invalid(error),
            },
            Split::Incomplete => Parsed::Incomplete,
            Split::TooLong(length) => invalid(format!("a head of {length} bytes")),
        }
    }

    fn row(&mut self, rows: u64, bytes: &[u8]) -> Parsed {
        const MAX: usize = limits::IMAGE_ROW_BYTES_MAX;
        match frame::split(bytes, MAX) {
            Split::Complete { body: [], .. } => self.end(rows, bytes),
            // A number of one byte counts as eight against the limit.
            Split::Complete { body, consumed } => match decode::<Row, { 16 * MAX }>(body, "row of a checkpoint") {
                Ok(row) => {
                    self.stage = Stage::Rows(rows.saturating_add(1));
                    Parsed::Complete {
                        part: Part::Row(row),
                        consumed,
                    }
                }
                Err(error) => Parsed::Invalid(error),
            },
            Split::Incomplete => Parsed::Incomplete,
            Split::TooLong(length) => invalid(format!("a row of {length} bytes")),
        }
    }

    fn end(&mut self, rows: u64, bytes: &[u8]) -> Parsed {
        let Some(said) = bytes
            .get(LENGTH_BYTES..)
            .and_then(|rest| rest.first_chunk::<ROWS_BYTES>())
        else {
            return Parsed::Incomplete;
        };
        let said = u64::from_le_bytes(*said);
        if said != rows {
            return invalid(format!("{said} rows announced, {rows} there"));
        }
        self.stage = Stage::Done;
        Parsed::Complete {
            part: Part::End,
            consumed: LENGTH_BYTES + ROWS_BYTES,
        }
    }
}

/// Makes a state of a checkpoint that comes in pieces of any size.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    decoder: Decoder,
    head: Option<Head>,
    rows: Builder,
}

impl Assembly {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Assembly {
        Assembly::default()
    }

    /// Takes all whole parts that `bytes` begin with, and says how many bytes that were: what follows must be handed in again, with more.
    ///
    /// # Errors
    /// What is wrong; nothing comes of it then.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut taken = 0;
        loop {
            match self.decoder.next(&bytes[taken..]) {
                Parsed::Complete { part, consumed } => {
                    taken += consumed;
                    match part {
                        Part::Head(head) => self.head = Some(head),
                        Part::Row(row) => self.rows.take(row).map_err(|error| contradiction(&error))?,
                        Part::End => {}
                    }
                }
                Parsed::Incomplete => return Ok(taken),
                Parsed::Invalid(error) => return Err(error),
            }
        }
    }

    /// The head, as soon as it has come.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// What the checkpoint is of, and the state.
    ///
    /// # Errors
    /// If something is missing, or the rows aren't those of the state that the head speaks of.
    pub fn finish(self) -> Result<(Head, State), Error> {
        let Some(head) = self.head.filter(|_| self.decoder.is_done()) else {
            return Err(malformed("it isn't all there".to_string()));
        };
        let state = self.rows.finish().map_err(|error| contradiction(&error))?;
        if state.applied() != head.at.index || state.digest() != head.digest {
            return Err(malformed("the state is another one than the head says".to_string()));
        }
        Ok((head, state))
    }
}

fn contradiction(error: &crate::chat::ImageError) -> Error {
    malformed(error.to_string())
}

fn malformed(why: String) -> Error {
    let what = "checkpoint";
    Error::Malformed { what, why }
}

fn invalid(why: String) -> Parsed {
    Parsed::Invalid(malformed(why))
}

#[cfg(test)]
mod tests;
