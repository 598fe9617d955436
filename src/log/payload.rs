//! What is inside the log's own records: hard state, seal, head of a segment. Entries' payloads are others' business. Each
//! form is a tuple of its own here, so that a type used elsewhere can change without changing what is on disks.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::HardState;
use crate::cluster::message::{Entry, LogPosition};
use crate::limits::RECORD_PAYLOAD_BYTES_MAX;
use crate::types::{DirectoryId, GroupId, LogIndex, Lsn, ServerId, Term};

/// The version of the segment head.
pub const HEAD_VERSION: u16 = 1;

/// The payload of a segment's first record: enough to do without the segments before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// Bytes of the segment's file.
    pub segment_size: u64,
    /// Where the records of the segment before end; the segment's own position if there is none before.
    pub previous_end: Lsn,
    /// Every group, ascending.
    pub groups: Vec<GroupHead>,
}

/// A group at the beginning of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupHead {
    /// The group.
    pub group: GroupId,
    /// Its hard state, with the highest commit position known.
    pub state: HardState,
    /// The members entries, ascending: the last one that is known to be committed, and those after it.
    pub members: Vec<Entry>,
    /// Its last entry.
    pub last: LogPosition,
    /// The running check up to there.
    pub chain: u32,
    /// Whether the group's log begins here: all before is void, and known only from a checkpoint that ends with `last`.
    pub anew: bool,
}

/// A group at a seal: what the head of a segment would say of it, but for the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupSeal {
    /// The group.
    pub group: GroupId,
    /// Its hard state, with the highest commit position known.
    pub state: HardState,
    /// Its last entry.
    pub last: LogPosition,
    /// The running check up to there.
    pub chain: u32,
}

type StateForm = (Term, Option<(ServerId, DirectoryId)>, LogIndex);
type SealForm = (GroupId, StateForm, LogPosition, u32);
type GroupForm = (GroupId, StateForm, Vec<Entry>, LogPosition, u32, bool);
type HeadForm = (u16, u64, Lsn, Vec<GroupForm>);

/// The payload of a hard state record.
#[must_use]
pub fn encode_state(state: &HardState) -> Vec<u8> {
    encode(&state_form(state))
}

/// The hard state of a payload, or `None` if it is none.
#[must_use]
pub fn decode_state(bytes: &[u8]) -> Option<HardState> {
    decode(bytes).map(state_of)
}

/// The payload of a seal: where each group stands.
#[must_use]
pub fn encode_seal(groups: &[GroupSeal]) -> Vec<u8> {
    let form = |seal: &GroupSeal| (seal.group, state_form(&seal.state), seal.last, seal.chain);
    encode(&groups.iter().map(form).collect::<Vec<SealForm>>())
}

/// What a seal says of each group, or `None` if it is none.
#[must_use]
pub fn decode_seal(bytes: &[u8]) -> Option<Vec<GroupSeal>> {
    let groups: Vec<SealForm> = decode(bytes)?;
    let seal = |(group, state, last, chain)| GroupSeal {
        group,
        state: state_of(state),
        last,
        chain,
    };
    Some(groups.into_iter().map(seal).collect())
}

/// The payload of a segment's head.
#[must_use]
pub fn encode_head(head: &Head) -> Vec<u8> {
    let groups: Vec<GroupForm> = head
        .groups
        .iter()
        .map(|g| {
            (
                g.group,
                state_form(&g.state),
                g.members.clone(),
                g.last,
                g.chain,
                g.anew,
            )
        })
        .collect();
    let form: HeadForm = (HEAD_VERSION, head.segment_size, head.previous_end, groups);
    encode(&form)
}

/// The head of a payload, or `None` if it is none.
#[must_use]
pub fn decode_head(bytes: &[u8]) -> Option<Head> {
    let (version, segment_size, previous_end, groups): HeadForm = decode(bytes)?;
    if version != HEAD_VERSION {
        return None;
    }
    let groups = groups
        .into_iter()
        .map(|(group, state, members, last, chain, anew)| GroupHead {
            group,
            state: state_of(state),
            members,
            last,
            chain,
            anew,
        })
        .collect();
    Some(Head {
        segment_size,
        previous_end,
        groups,
    })
}

fn state_form(state: &HardState) -> StateForm {
    (state.term, state.vote, state.commit)
}

fn state_of((term, vote, commit): StateForm) -> HardState {
    HardState { term, vote, commit }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).expect("plain values can always be encoded")
}

/// Takes the whole of `bytes`, or nothing.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    crate::wire::decode::<T, RECORD_PAYLOAD_BYTES_MAX>(bytes, "payload of the log").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::message::EntryKind;
    use crate::types::Blob;

    fn state() -> HardState {
        HardState {
            term: Term(3),
            vote: Some((ServerId::new("s1").unwrap(), DirectoryId(9))),
            commit: LogIndex(300),
        }
    }

    fn head() -> Head {
        Head {
            segment_size: 4096,
            previous_end: Lsn(4000),
            groups: vec![GroupHead {
                group: GroupId(0),
                state: state(),
                members: vec![Entry {
                    index: LogIndex(1),
                    term: Term(1),
                    kind: EntryKind::Members,
                    payload: Blob::new(b"m"),
                }],
                last: LogPosition {
                    term: Term(2),
                    index: LogIndex(8),
                },
                chain: 77,
                anew: true,
            }],
        }
    }

    fn seal() -> GroupSeal {
        GroupSeal {
            group: GroupId(2),
            state: state(),
            last: LogPosition {
                term: Term(2),
                index: LogIndex(8),
            },
            chain: 77,
        }
    }

    #[test]
    fn the_bytes_mean_the_same_for_ever() {
        assert_eq!(encode_state(&state()), [3, 1, 2, b's', b'1', 9, 251, 44, 1]);
        assert_eq!(encode_state(&HardState::default()), [0, 0, 0]);
        let bytes = [1, 2, 3, 1, 2, b's', b'1', 9, 251, 44, 1, 2, 8, 77];
        assert_eq!(encode_seal(&[seal()]), bytes);
        let bytes = [
            1, 251, 0, 16, 251, 160, 15, 1, 0, 3, 1, 2, b's', b'1', 9, 251, 44, 1, 1, 1, 1, 1, 1, b'm', 2, 8, 77, 1,
        ];
        assert_eq!(encode_head(&head()), bytes);
    }

    #[test]
    fn what_was_encoded_is_decoded_and_nothing_else() {
        assert_eq!(decode_state(&encode_state(&state())), Some(state()));
        assert_eq!(decode_head(&encode_head(&head())), Some(head()));
        assert_eq!(decode_seal(&encode_seal(&[seal(), seal()])), Some(vec![seal(), seal()]));
        let bytes = encode_head(&head());
        for end in 0..bytes.len() {
            assert_eq!(decode_head(&bytes[..end]), None, "{end} bytes");
        }
        assert_eq!(decode_state(&[0, 0, 0, 0]), None);
        let mut later = bytes;
        later[0] = 2;
        assert_eq!(decode_head(&later), None);
    }
}
