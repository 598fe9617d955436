//! Proofs of the cluster's secret: HMAC-SHA-256 (RFC 2104) over what must not be forged.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::chat::command::{KeyId, SecretHash};
use crate::config::Secret;

/// Bytes of a whole proof.
pub const PROOF_BYTES: usize = 32;

/// Which side of a peer link proves: each has its own label, so that a proof can't be sent back as the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The server that dialled.
    Caller,
    /// The server that was dialled.
    Called,
}

fn mac(secret: &Secret, parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
    // HMAC takes keys of any length; the Result is the trait's.
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).ok()?;
    for part in parts {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    Some(mac)
}

/// The proof of parts under a secret; each part's length is in it, so that parts can't be shifted.
#[must_use]
pub fn prove(secret: &Secret, parts: &[&[u8]]) -> [u8; PROOF_BYTES] {
    mac(secret, parts).map_or([0; PROOF_BYTES], |mac| mac.finalize().into_bytes().into())
}

/// Whether `proof` (at least 16 bytes of it) is that of the parts; takes the same time whatever differs.
#[must_use]
pub fn verify(secret: &Secret, parts: &[&[u8]], proof: &[u8]) -> bool {
    proof.len() >= 16 && mac(secret, parts).is_some_and(|mac| mac.verify_truncated_left(proof).is_ok())
}

/// The proof of a side of a peer link over both hellos' bodies.
#[must_use]
pub fn link_proof(secret: &Secret, side: Side, caller_hello: &[u8], called_hello: &[u8]) -> [u8; PROOF_BYTES] {
    prove(secret, &[label(side), caller_hello, called_hello])
}

/// Whether `proof` is that of the side.
#[must_use]
pub fn verify_link(secret: &Secret, side: Side, caller_hello: &[u8], called_hello: &[u8], proof: &[u8]) -> bool {
    proof.len() == PROOF_BYTES && verify(secret, &[label(side), caller_hello, called_hello], proof)
}

fn label(side: Side) -> &'static [u8] {
    match side {
        Side::Caller => b"syncnet link caller",
        Side::Called => b"syncnet link called",
    }
}

fn hash16(label: &[u8], bytes: &[u8]) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(label);
    hash.update(bytes);
    let whole = hash.finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}

/// The name under which a client's key is known; the key itself stays at the door.
#[must_use]
pub fn key_id(key: &[u8; 32]) -> KeyId {
    KeyId(hash16(b"syncnet key", key))
}

/// What the log keeps of a session's secret.
#[must_use]
pub fn secret_hash(secret: &[u8; 16]) -> SecretHash {
    SecretHash(hash16(b"syncnet session", secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_only_for_its_side_hellos_and_secret() {
        let secret = Secret(vec![7; 32]);
        let proof = link_proof(&secret, Side::Caller, b"a", b"b");
        assert!(verify_link(&secret, Side::Caller, b"a", b"b", &proof));
        assert!(!verify_link(&secret, Side::Called, b"a", b"b", &proof));
        assert!(!verify_link(&secret, Side::Caller, b"ab", b"", &proof));
        assert!(!verify_link(&Secret(vec![8; 32]), Side::Caller, b"a", b"b", &proof));
        assert!(!verify_link(&secret, Side::Caller, b"a", b"b", &proof[..16]));
        assert!(!verify_link(&secret, Side::Caller, b"a", b"b", &[]));
    }

    #[test]
    fn hashes_stay_the_same() {
        assert_eq!(key_id(&[0; 32]).0[..4], key_id(&[0; 32]).0[..4]);
        assert_ne!(key_id(&[0; 32]).0, key_id(&[1; 32]).0);
    }
}
