//! The peer protocol: what servers say to each other over TCP. A frame is a length of 4 bytes (little-endian, at most
//! `limits::PEER_FRAME_BYTES_MAX`) and the bincode form of a [`Handshake`] (the first two frames each way) or of a [`PeerMessage`].

use serde::{Deserialize, Deserializer, Serialize};

use super::{Error, append, decode, encode, frame};
use crate::cluster::message::{Message, Sender};
use crate::limits;
use crate::types::{Blob, GroupId, Pieces, Term};

/// The peer protocol's versions that this program speaks: (lowest, highest).
pub const VERSIONS: (u16, u16) = (1, 1);
/// The first word of a handshake.
pub const MAGIC: u32 = u32::from_le_bytes(*b"SYNP");

/// The frames with which a link begins. Both sides send `Hello`, then, having the other's, `Proof`; the link works when
/// the other's proof is right. Without a secret the proof is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Handshake {
    /// Who I am.
    Hello {
        /// [`MAGIC`].
        magic: u32,
        /// The versions that the sender speaks: (lowest, highest).
        versions: (u16, u16),
        /// The cluster's name in the sender's configuration.
        cluster_name: String,
        /// The sender.
        sender: Sender,
        /// Whom the sender believes to talk to; `None` from the side that was called.
        to: Option<crate::types::ServerId>,
        /// Random, so that a proof can't be replayed.
        nonce: [u8; 16],
    },
    /// `wire::auth::link_proof`: HMAC-SHA-256 by the cluster's secret over a label of the side and the bodies of both hellos, the caller's first.
    Proof {
        /// 32 bytes, or none without a secret.
        mac: Vec<u8>,
    },
    /// Why the link can't be; the connection ends.
    Refused {
        /// In words.
        text: String,
    },
}

/// A frame of a link that works.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PeerMessage {
    /// About the replicated log.
    Cluster(Message),
    /// From a follower to its leader: commands of its clients, in order.
    Forward {
        /// The group.
        group: GroupId,
        /// The term in which the sender takes the receiver for the leader.
        term: Term,
        /// The commands, as `wire::command` encodes them.
        #[serde(deserialize_with = "blobs_in_one")]
        commands: Vec<Blob>,
    },
    /// The answer to a `Forward` that wasn't taken: not the leader, or no room. The sender has its clients send again.
    ForwardRefused {
        /// The group.
        group: GroupId,
        /// The receiver's term.
        term: Term,
    },
}

/// Blobs that share one piece of memory.
fn blobs_in_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Blob>, D::Error> {
    let mut pieces = Pieces::default();
    for piece in Vec::<&'de [u8]>::deserialize(deserializer)? {
        pieces.push(piece);
    }
    Ok(pieces.take().collect())
}

/// Appends the frame of a handshake.
pub fn encode_handshake(handshake: &Handshake, out: &mut Vec<u8>) {
    frame::frame(out, |out| encode(handshake, out));
}

/// The handshake in a frame's body.
///
/// # Errors
/// [`Error::Malformed`].
pub fn decode_handshake(body: &[u8]) -> Result<Handshake, Error> {
    decode::<_, 4096>(body, "handshake")
}

/// Appends the frame of a message.
pub fn encode_message(message: &PeerMessage, out: &mut Vec<u8>) {
    frame::frame(out, |out| {
        let by_hand = match message {
            PeerMessage::Cluster(message) => append::encode(message, out),
            PeerMessage::Forward { .. } | PeerMessage::ForwardRefused { .. } => false,
        };
        if !by_hand {
            encode(message, out);
        }
    });
}

/// The message in a frame's body.
///
/// # Errors
/// [`Error::Malformed`].
pub fn decode_message(body: &[u8]) -> Result<PeerMessage, Error> {
    match append::decode(body) {
        Some(append) => Ok(PeerMessage::Cluster(append)),
        None => decode::<_, { 8 * limits::PEER_FRAME_BYTES_MAX }>(body, "message of a peer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::message::{AppendResult, CheckpointId, Entry, EntryKind, LogPosition};
    use crate::types::{ClusterId, LogIndex};

    #[test]
    fn golden_bytes() {
        let append = PeerMessage::Cluster(Message::Append {
            group: GroupId::ROOT,
            term: Term(2),
            prev: LogPosition {
                term: Term(1),
                index: LogIndex(1),
            },
            prev_chain: 0x0102_0304,
            commit: LogIndex(1),
            round: 300,
            entries: vec![Entry {
                index: LogIndex(2),
                term: Term(2),
                kind: EntryKind::Command,
                payload: Blob::new(b"abc"),
            }],
        });
        let mut out = Vec::new();
        encode_message(&append, &mut out);
        let hex: String = out.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "1700000000050002010 1fc0403020101fb2c01010202020361 6263".replace(' ', "")
        );
        assert_eq!(decode_message(&out[frame::LENGTH_BYTES..]), Ok(append));
    }

    #[test]
    fn golden_bytes_of_repair_and_checkpoints() {
        let (group, term) = (GroupId::ROOT, Term(2));
        let at = LogPosition {
            term,
            index: LogIndex(9),
        };
        let entry = Entry {
            index: LogIndex(9),
            term,
            kind: EntryKind::Noop,
            payload: Blob::empty(),
        };
        let id = CheckpointId {
            at,
            chain: 1,
            digest: 3,
            bytes: 4,
            check: 5,
        };
        let result = AppendResult::Damaged { from: LogIndex(9) };
        let hello = Message::Hello {
            cluster: ClusterId(6),
            members: 7,
            replaced: true,
        };
        let (from, to) = (LogIndex(9), LogIndex(10));
        let messages = [
            (hello, "000b060701"),
            (
                Message::AppendAnswer {
                    group,
                    term,
                    round: 8,
                    result,
                },
                "00060002080209",
            ),
            (Message::Fetch { group, from, to }, "000c00090a"),
            (
                Message::Fetched {
                    group,
                    from,
                    entries: vec![entry],
                },
                "000d00090109020000",
            ),
            (
                Message::Checkpoint {
                    group,
                    term,
                    id,
                    offset: 1,
                    bytes: Blob::new(b"ab"),
                },
                "000e000202090103040501026162",
            ),
            (
                Message::CheckpointAnswer {
                    group,
                    term,
                    id,
                    next: 3,
                },
                "000f000202090103040503",
            ),
            (Message::Committed { group, at }, "0010000209"),
            (
                Message::LogLost {
                    group,
                    term,
                    acknowledged: LogIndex(9),
                },
                "0011000209",
            ),
        ];
        for (message, golden) in messages {
            let mut out = Vec::new();
            let message = PeerMessage::Cluster(message);
            encode_message(&message, &mut out);
            let body = &out[frame::LENGTH_BYTES..];
            let hex: String = body.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, golden, "{message:?}");
            assert_eq!(decode_message(body), Ok(message));
        }
    }

    #[test]
    fn truncated_bytes_are_refused() {
        let forward = PeerMessage::Forward {
            group: GroupId::ROOT,
            term: Term(2),
            commands: vec![Blob::new(b"abc"); 3],
        };
        let mut out = Vec::new();
        encode_message(&forward, &mut out);
        let body = &out[frame::LENGTH_BYTES..];
        for end in 0..body.len() {
            assert!(decode_message(&body[..end]).is_err());
        }
        assert_eq!(decode_message(body), Ok(forward));
    }
}
