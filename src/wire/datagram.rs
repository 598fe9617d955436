//! Datagrams of the heartbeat socket: magic, versions, body, and with a secret 16 bytes of HMAC-SHA-256 over all before them.
//! The first six bytes keep their form in every version, so that an unknown one is told from a stranger's.

use serde::{Deserialize, Serialize};

use super::{Error, auth, decode, encode};
use crate::cluster::message::{Datagram, Sender};
use crate::config::Secret;
use crate::limits;

/// The first word of every datagram.
const MAGIC: [u8; 4] = *b"SYND";
/// The datagram versions that this program speaks: (lowest, highest).
const VERSIONS: (u8, u8) = (1, 1);
/// Bytes of magic and versions.
const HEAD_BYTES: usize = 6;
/// Bytes of the proof.
const MAC_BYTES: usize = 16;

/// A datagram with its sender and number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Who sent it.
    pub sender: Sender,
    /// Counts the sender's datagrams of this boot: a number that was seen is a repetition.
    pub sequence: u64,
    /// What it says.
    pub datagram: Datagram,
}

/// The bytes to be sent.
#[must_use]
pub fn seal(sealed: &Sealed, secret: Option<&Secret>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSIONS.0, VERSIONS.1]);
    encode(sealed, &mut out);
    if let Some(secret) = secret {
        let proof = auth::prove(secret, &[b"syncnet datagram", &out]);
        out.extend_from_slice(&proof[..MAC_BYTES]);
    }
    out
}

/// Takes a datagram apart; who sent it, and whether it is a repetition, is the caller's question.
///
/// # Errors
/// [`Error::NotOurs`], [`Error::Version`], [`Error::NotAuthentic`] or [`Error::Malformed`]: each is counted and the datagram dropped.
pub fn open(bytes: &[u8], secret: Option<&Secret>) -> Result<Sealed, Error> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Err(Error::NotOurs);
    };
    if head[..4] != MAGIC {
        return Err(Error::NotOurs);
    }
    if bytes.len() > limits::DATAGRAM_BYTES_MAX {
        return Err(Error::Malformed {
            what: "datagram",
            why: format!("{} bytes", bytes.len()),
        });
    }
    super::common_version(
        (u16::from(VERSIONS.0), u16::from(VERSIONS.1)),
        (u16::from(head[4]), u16::from(head[5])),
    )?;
    let body = match secret {
        None => rest,
        Some(secret) => {
            let end = rest.len().checked_sub(MAC_BYTES).ok_or(Error::NotAuthentic)?;
            let (body, proof) = rest.split_at(end);
            if !auth::verify(secret, &[b"syncnet datagram", &bytes[..HEAD_BYTES + end]], proof) {
                return Err(Error::NotAuthentic);
            }
            body
        }
    };
    decode::<Sealed, { 4 * limits::DATAGRAM_BYTES_MAX }>(body, "datagram")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::message::{Flags, GroupBeat, Heartbeat, LogPosition, Token};
    use crate::types::*;

    fn id(text: &str) -> ServerId {
        ServerId::new(text).unwrap()
    }

    fn beat(servers: usize) -> Sealed {
        let links = (0..servers)
            .map(|n| id(&format!("a-server-with-a-name-{n:02}")))
            .collect();
        Sealed {
            sender: Sender {
                cluster: ClusterId(u64::MAX),
                members: u64::MAX,
                server: id("server1"),
                directory: DirectoryId(u64::MAX),
                boot: Boot(u64::MAX),
            },
            sequence: u64::MAX,
            datagram: Datagram::Heartbeat(Heartbeat {
                flags: Flags {
                    formed: true,
                    fit: true,
                    stopping: false,
                },
                links,
                groups: vec![GroupBeat {
                    group: GroupId::ROOT,
                    term: Term(u64::MAX),
                    leader: Some(id("server3")),
                    last: LogPosition {
                        term: Term(u64::MAX),
                        index: LogIndex(u64::MAX),
                    },
                    commit: LogIndex(u64::MAX),
                    digest: (LogIndex(u64::MAX), u64::MAX),
                }],
            }),
        }
    }

    #[test]
    fn the_largest_heartbeat_fits() {
        let bytes = seal(&beat(limits::SERVERS_MAX), Some(&Secret(vec![1; 32])));
        assert!(bytes.len() <= limits::DATAGRAM_BYTES_MAX, "{}", bytes.len());
    }

    #[test]
    fn a_datagram_comes_back_and_any_change_is_noticed_with_a_secret() {
        let secret = Secret(vec![7; 32]);
        let sealed = beat(2);
        let bytes = seal(&sealed, Some(&secret));
        assert_eq!(open(&bytes, Some(&secret)), Ok(sealed.clone()));
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert!(open(&forged, Some(&secret)).is_err(), "byte {at}");
        }
        assert!(open(&bytes, Some(&Secret(vec![8; 32]))).is_err());
        assert!(open(&seal(&sealed, None), Some(&secret)).is_err());
    }

    #[test]
    fn strangers_and_other_versions_are_told_apart() {
        let mut bytes = seal(&beat(0), None);
        assert_eq!(open(b"GET / HTTP/1.1", None), Err(Error::NotOurs));
        assert_eq!(open(b"", None), Err(Error::NotOurs));
        bytes[4] = 2;
        bytes[5] = 3;
        assert_eq!(open(&bytes, None), Err(Error::Version { min: 2, max: 3 }));
    }

    #[test]
    fn golden_bytes() {
        let token = Token {
            origin: id("server3"),
            round: Term(2),
            last: LogPosition {
                term: Term(1),
                index: LogIndex(1),
            },
            ring: RingPosition(2),
            hops: 1,
        };
        let sealed = Sealed {
            sender: Sender {
                cluster: ClusterId(3),
                members: 4,
                server: id("server1"),
                directory: DirectoryId(5),
                boot: Boot(6),
            },
            sequence: 7,
            datagram: Datagram::Token {
                to: id("server2"),
                group: GroupId::ROOT,
                token,
            },
        };
        let hex: String = seal(&sealed, None).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "53594e440101030407736572766572310506070107736572766572320007736572766572330201010201"
        );
    }
}
