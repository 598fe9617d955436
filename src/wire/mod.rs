//! Bytes ↔ values: frames, the client and the peer protocol, datagrams, commands, checkpoints. The only room that knows bincode (the log's own
//! small payloads apart), so that the encoding could be replaced in one place. Pure; may call `cluster` and `chat` for the shapes
//! of what they say, and the ground floor.
//!
//! Integers are little-endian or bincode varints, a sequence has its length in front, an `Option` a byte, an enum the number of its
//! variant. Every decoder takes bytes of strangers: it gives an [`Error`], never panics, and allocates nothing by a length that it
//! hasn't checked against the bytes that are there.

mod append;
pub mod auth;
pub mod bulk;
mod careful;
pub mod checkpoint;
pub mod client;
pub mod command;
pub mod datagram;
pub mod frame;
pub mod peer;
mod varint;

use serde::{Deserialize, Serialize};
use std::fmt;

use careful::Careful;

/// Why bytes are not what they should be. Always the sender's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bytes aren't the form of such a value.
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What the decoder says.
        why: String,
    },
    /// The first word isn't the protocol's.
    NotOurs,
    /// No version that both speak.
    Version {
        /// The sender's lowest.
        min: u16,
        /// The sender's highest.
        max: u16,
    },
    /// It was written by a later program.
    Upgrade {
        /// What.
        what: &'static str,
        /// Its version.
        version: u16,
    },
    /// The proof of the secret is wrong, missing, or there where none should be.
    NotAuthentic,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Malformed { what, why } => write!(f, "not a well-formed {what}: {why}"),
            Error::NotOurs => f.write_str("not the SyncNet protocol"),
            Error::Version { min, max } => write!(f, "no common version: the other side speaks {min} to {max}"),
            Error::Upgrade { what, version } => {
                write!(
                    f,
                    "a {what} of version {version}, which isn't known here; upgrade this program"
                )
            }
            Error::NotAuthentic => f.write_str("the proof of the cluster secret is wrong or missing"),
        }
    }
}

impl std::error::Error for Error {}

/// Appends the bincode form of a value. Values of ours always have one: the buffer grows, and nothing in them can fail.
fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let result = bincode::serde::encode_into_std_write(value, out, bincode::config::standard());
    assert!(result.is_ok(), "a value of our own can always be encoded: {result:?}");
}

/// The value that all of `bytes` is the form of. It takes at most about `LIMIT` bytes, and what a sequence or text only claims to hold
/// allocates nothing.
pub(crate) fn decode<'a, T: Deserialize<'a>, const LIMIT: usize>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<T, Error> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    match bincode::serde::borrow_decode_from_slice(bytes, config) {
        Ok((Careful(value), used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(Error::Malformed {
            what,
            why: format!("{} bytes too many", bytes.len() - used),
        }),
        Err(error) => Err(Error::Malformed {
            what,
            why: error.to_string(),
        }),
    }
}

/// The highest version that both sides speak.
///
/// # Errors
/// [`Error::Version`] if there is none.
pub fn common_version(ours: (u16, u16), theirs: (u16, u16)) -> Result<u16, Error> {
    let version = ours.1.min(theirs.1);
    if version < ours.0 || version < theirs.0 {
        return Err(Error::Version {
            min: theirs.0,
            max: theirs.1,
        });
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_meet_at_the_lower_of_the_highest() {
        assert_eq!(common_version((1, 3), (2, 5)), Ok(3));
        assert_eq!(common_version((1, 3), (1, 1)), Ok(1));
        assert!(common_version((1, 1), (2, 5)).is_err());
        assert!(common_version((2, 5), (1, 1)).is_err());
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // A vector that claims 2⁶² elements, in five bytes.
        let bytes = [253, 0, 0, 0, 0, 0, 0, 0, 64];
        assert!(decode::<Vec<u64>, 1024>(&bytes, "vector").is_err());
    }
}
