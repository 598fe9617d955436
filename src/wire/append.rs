//! Appends by hand: thousands of entries in a frame, each a few small numbers and bytes that are copied. What a deserializer costs on
//! each is more than all the rest of its way. The bytes are those of `PeerMessage::Cluster(Message::Append { .. })`; the tests hold
//! the two together.

use super::varint;
use crate::cluster::message::{Bundle, EntryKind, LogPosition, Message};
use crate::types::{GroupId, LogIndex, Term};

/// The numbers of `PeerMessage::Cluster` and of `Message::Append`.
const APPEND: [u8; 2] = [0, 5];
/// Bytes of the smallest entry.
const ENTRY_BYTES_MIN: usize = 4;

/// Appends the body of a message, if it is an append. Whether it was.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> bool {
    let Message::Append {
        group,
        term,
        prev,
        prev_chain,
        commit,
        round,
        entries,
    } = message
    else {
        return false;
    };
    let bytes: usize = entries.iter().map(|entry| entry.payload.len() + 24).sum();
    out.reserve(bytes + 64);
    out.extend_from_slice(&APPEND);
    let numbers = [
        u64::from(group.0),
        term.0,
        prev.term.0,
        prev.index.0,
        u64::from(*prev_chain),
        commit.0,
        *round,
        entries.len() as u64,
    ];
    numbers.into_iter().for_each(|number| varint::push(number, out));
    for entry in entries {
        varint::push(entry.index.0, out);
        varint::push(entry.term.0, out);
        out.push(entry.kind.number());
        varint::push(entry.payload.len() as u64, out);
        out.extend_from_slice(&entry.payload);
    }
    true
}

/// The append in a body, if it is one: its entries' payloads share one piece of memory. What is anything else, or damaged, is for the
/// deserializer to tell.
pub fn decode(body: &[u8]) -> Option<Message> {
    let mut rest = body.strip_prefix(&APPEND)?;
    let rest = &mut rest;
    let group = GroupId(varint::take_u32(rest)?);
    let term = Term(varint::take(rest)?);
    let prev = LogPosition {
        term: Term(varint::take(rest)?),
        index: LogIndex(varint::take(rest)?),
    };
    let prev_chain = varint::take_u32(rest)?;
    let commit = LogIndex(varint::take(rest)?);
    let round = varint::take(rest)?;
    let count = usize::try_from(varint::take(rest)?).ok()?;
    if count > rest.len() / ENTRY_BYTES_MIN {
        return None;
    }
    let mut bundle = Bundle::with_capacity(count);
    for _ in 0..count {
        let (index, term) = (LogIndex(varint::take(rest)?), Term(varint::take(rest)?));
        let kind = EntryKind::of_number(*rest.split_off_first()?)?;
        bundle.push(index, term, kind, varint::take_bytes(rest)?);
    }
    rest.is_empty().then(|| Message::Append {
        group,
        term,
        prev,
        prev_chain,
        commit,
        round,
        entries: bundle.entries(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::message::Entry;
    use crate::limits;
    use crate::rng::Rng;
    use crate::types::Blob;
    use crate::wire;
    use crate::wire::peer::PeerMessage;

    fn slowly(body: &[u8]) -> Result<PeerMessage, wire::Error> {
        wire::decode::<_, { 8 * limits::PEER_FRAME_BYTES_MAX }>(body, "message")
    }

    fn append(rng: &mut Rng) -> Message {
        let mut number = || rng.draw() >> rng.below(64);
        let (term, commit, round) = (Term(number()), LogIndex(number()), number());
        let prev = LogPosition {
            term: Term(number()),
            index: LogIndex(number()),
        };
        let (group, prev_chain) = (GroupId(number() as u32), number() as u32);
        let entries = (0..rng.below(5)).map(|_| Entry {
            index: LogIndex(rng.draw() >> rng.below(64)),
            term: Term(rng.draw() >> rng.below(64)),
            kind: [EntryKind::Noop, EntryKind::Members, EntryKind::Command][rng.below(3) as usize],
            payload: Blob::new(&vec![
                rng.draw() as u8;
                (rng.draw() >> rng.below(60).max(48)) as usize % 300
            ]),
        });
        Message::Append {
            group,
            term,
            prev,
            prev_chain,
            commit,
            round,
            entries: entries.collect(),
        }
    }

    #[test]
    fn an_append_is_the_message_that_it_is() {
        let mut rng = Rng::new(5);
        for _ in 0..2_000 {
            let message = append(&mut rng);
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            assert!(encode(&message, &mut ours));
            let message = PeerMessage::Cluster(message);
            wire::encode(&message, &mut theirs);
            assert_eq!(ours, theirs);
            assert_eq!(decode(&ours).map(PeerMessage::Cluster), Some(message));
        }
        assert!(!encode(&Message::Ping, &mut Vec::new()));
    }

    #[test]
    fn what_is_read_by_hand_is_what_the_deserializer_says() {
        let mut rng = Rng::new(6);
        let (mut read, mut left) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            encode(&append(&mut rng), &mut bytes);
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 => bytes.truncate(at),
                1 => bytes[at] = 248 + rng.below(8) as u8,
                2 => bytes[at] = rng.draw() as u8,
                _ => bytes.push(0),
            }
            match decode(&bytes) {
                Some(message) => {
                    read += 1;
                    assert_eq!(slowly(&bytes), Ok(PeerMessage::Cluster(message)), "{bytes:?}");
                }
                None => left += 1,
            }
        }
        assert!(read > 2_000 && left > 5_000, "{read} {left}");
    }
}
