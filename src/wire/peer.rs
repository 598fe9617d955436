//! The peer protocol: what servers say to each other over TCP. A frame is a length of 4 bytes (little-endian, at most
//! `limits::PEER_FRAME_BYTES_MAX`) and the bincode form of a [`Handshake`] (the first two frames each way) or of a [`PeerMessage`].

use serde::{Deserialize, Serialize};

use crate::cluster::message::{Message, Sender};
use crate::types::{Blob, GroupId, Term};

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
    /// HMAC-SHA-256 by the cluster's secret over a label of the side, both hellos' bytes, caller's first.
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
