//! The members entry: how it is written, and how the members are compared with the configuration. Written by hand, because
//! the consensus core must be able to read the first entry of its own log without the room above it.
//!
//! Little-endian: version u16 (1), cluster u64, count u16, and for each member: length of the id u8, the id, ring position
//! u16, directory u64.

use crate::cluster::message::{Member, Members};
use crate::config::Config;
use crate::limits;
use crate::rng::mix;
use crate::types::{ClusterId, DirectoryId, RingPosition, ServerId};

/// The version of the form.
const VERSION: u16 = 1;

/// The members as the payload of an entry.
#[must_use]
pub fn encode_members(members: &Members) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + members.members.len() * 24);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&members.cluster.0.to_le_bytes());
    bytes.extend_from_slice(&(members.members.len() as u16).to_le_bytes());
    for member in &members.members {
        let id = member.id.as_str().as_bytes();
        bytes.push(id.len() as u8);
        bytes.extend_from_slice(id);
        bytes.extend_from_slice(&member.ring.0.to_le_bytes());
        bytes.extend_from_slice(&member.directory.0.to_le_bytes());
    }
    bytes
}

/// The members of an entry's payload; `None` if it isn't exactly that: sorted by id, none twice, neither none nor too many.
#[must_use]
pub fn decode_members(bytes: &[u8]) -> Option<Members> {
    let mut rest = bytes;
    if u16::from_le_bytes(take(&mut rest)?) != VERSION {
        return None;
    }
    let cluster = ClusterId(u64::from_le_bytes(take(&mut rest)?));
    let count = usize::from(u16::from_le_bytes(take(&mut rest)?));
    if count == 0 || count > limits::SERVERS_MAX {
        return None;
    }
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        let [length] = take(&mut rest)?;
        let (id, after) = rest.split_at_checked(usize::from(length))?;
        rest = after;
        let id = ServerId::new(std::str::from_utf8(id).ok()?)?;
        let ring = RingPosition(u16::from_le_bytes(take(&mut rest)?));
        let directory = DirectoryId(u64::from_le_bytes(take(&mut rest)?));
        members.push(Member { id, ring, directory });
    }
    let members = Members { cluster, members };
    (rest.is_empty() && is_sound(&members)).then_some(members)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

/// Whether members that came from another server can be: sorted by id, none twice, not too many, and a cluster with a name.
pub(super) fn is_sound(members: &Members) -> bool {
    let sorted = members.members.windows(2).all(|pair| pair[0].id < pair[1].id);
    let count = members.members.len();
    sorted && count > 0 && count <= limits::SERVERS_MAX && members.cluster.0 != 0
}

/// A digest of the configured servers' ids and ring positions: two servers whose digests differ must not talk.
pub(super) fn configured_digest(config: &Config) -> u64 {
    let mut digest = 0;
    for server in &config.servers {
        for &byte in server.id.as_str().as_bytes() {
            digest = mix(digest ^ u64::from(byte));
        }
        digest = mix(digest ^ (1 << 32) ^ u64::from(server.ring.0));
    }
    digest
}

/// How the members in the log differ from the configured servers, in words.
pub(super) fn difference(members: &Members, config: &Config) -> Option<String> {
    let mut differences = Vec::new();
    for member in &members.members {
        match config.server(member.id) {
            None => differences.push(format!("{} is a member and not in the configuration", member.id)),
            Some(server) if server.ring != member.ring => differences.push(format!(
                "{} has ring position {} in the cluster and {} in the configuration",
                member.id, member.ring, server.ring
            )),
            Some(_) => {}
        }
    }
    for server in &config.servers {
        if members.members.iter().all(|member| member.id != server.id) {
            differences.push(format!("{} is in the configuration and not a member", server.id));
        }
    }
    let what = differences.join("; ");
    (!differences.is_empty()).then(|| {
        format!("the configuration doesn't fit the members of this cluster: {what}. Put the servers back as they were")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Members {
        let member = |id: &str, ring, directory| Member {
            id: ServerId::new(id).unwrap(),
            ring: RingPosition(ring),
            directory: DirectoryId(directory),
        };
        Members {
            cluster: ClusterId(0x0102_0304_0506_0708),
            members: vec![member("a", 3, 9), member("bc", 258, 1)],
        }
    }

    #[test]
    fn the_bytes_of_a_members_entry_stay_the_same() {
        let golden = [
            1, 0, 8, 7, 6, 5, 4, 3, 2, 1, 2, 0, // version, cluster, count
            1, b'a', 3, 0, 9, 0, 0, 0, 0, 0, 0, 0, // a
            2, b'b', b'c', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, // bc
        ];
        assert_eq!(encode_members(&members()), golden);
        assert_eq!(decode_members(&golden), Some(members()));
    }

    #[test]
    fn no_other_bytes_are_members() {
        let bytes = encode_members(&members());
        for end in 0..bytes.len() {
            assert_eq!(decode_members(&bytes[..end]), None, "{end} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode_members(&longer), None);
        let mut twice = members();
        twice.members[1].id = twice.members[0].id;
        assert_eq!(decode_members(&encode_members(&twice)), None);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xFF;
            let _ = decode_members(&changed);
        }
    }
}
