//! Messages that no sane server sends.

use crate::cluster::message::{AppendResult, CheckpointId, Entry, EntryKind, LogPosition, Members, Message, Refusal};
use crate::rng::Rng;
use crate::types::{Blob, ClusterId, GroupId, LogIndex, RingPosition, Term};

fn number(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0 => u64::MAX,
        1 => u64::MAX - 1,
        2 => rng.draw(),
        _ => rng.below(12),
    }
}

fn position(rng: &mut Rng) -> LogPosition {
    LogPosition {
        term: Term(number(rng)),
        index: LogIndex(number(rng)),
    }
}

fn checkpoint(rng: &mut Rng) -> CheckpointId {
    CheckpointId {
        at: position(rng),
        bytes: number(rng),
        ..CheckpointId::default()
    }
}

/// Any message, with numbers that are small, huge, or in between.
pub fn message(rng: &mut Rng) -> Message {
    let group = GroupId(rng.below(20) as u32 / 19);
    let (term, last) = (Term(number(rng)), position(rng));
    let granted = rng.chance(50);
    match rng.below(18) {
        0 => Message::PreVote {
            group,
            term,
            last,
            ring: RingPosition(1),
            transfer: granted,
        },
        1 => Message::PreVoteAnswer {
            group,
            term,
            granted,
            refusal: Refusal::TermBehind,
        },
        2 => Message::Vote {
            group,
            term,
            last,
            transfer: granted,
        },
        3 => Message::VoteAnswer { group, term, granted },
        4 | 5 => {
            let kinds = [EntryKind::Noop, EntryKind::Members, EntryKind::Command];
            let mut index = last.index;
            let mut entries = Vec::new();
            for _ in 0..rng.below(4) {
                index = LogIndex(index.0.wrapping_add(1));
                let kind = *rng.pick(&kinds).unwrap_or(&EntryKind::Noop);
                let odd = Term(number(rng));
                let term = if rng.chance(80) { last.term } else { odd };
                entries.push(Entry {
                    index,
                    term,
                    kind,
                    payload: Blob::new(b"?"),
                });
            }
            let (commit, round) = (LogIndex(number(rng)), number(rng));
            Message::Append {
                group,
                term,
                prev: last,
                prev_chain: 0,
                commit,
                round,
                entries,
            }
        }
        6 => {
            let result = AppendResult::Matched {
                received: LogIndex(number(rng)),
                durable: LogIndex(number(rng)),
            };
            Message::AppendAnswer {
                group,
                term,
                round: number(rng),
                result,
            }
        }
        7 => {
            let result = AppendResult::Mismatch {
                refused: LogIndex(number(rng)),
                hint: last,
            };
            Message::AppendAnswer {
                group,
                term,
                round: number(rng),
                result,
            }
        }
        8 => Message::TransferNow { group, term },
        11 => Message::AppendAnswer {
            group,
            term,
            round: number(rng),
            result: AppendResult::Damaged {
                from: LogIndex(number(rng)),
            },
        },
        12 => Message::Fetch {
            group,
            from: LogIndex(number(rng)),
            to: LogIndex(number(rng)),
        },
        13 => {
            let from = LogIndex(number(rng));
            let entry = Entry {
                index: from,
                term,
                kind: EntryKind::Members,
                payload: Blob::new(b"?"),
            };
            let entries = vec![entry; rng.below(3) as usize];
            Message::Fetched { group, from, entries }
        }
        14 => Message::Checkpoint {
            group,
            term,
            id: checkpoint(rng),
            offset: number(rng),
            bytes: Blob::new(b"?"),
        },
        15 => Message::CheckpointAnswer {
            group,
            term,
            id: checkpoint(rng),
            next: number(rng),
        },
        16 => match rng.below(2) {
            0 => Message::Committed { group, at: last },
            _ => Message::LogLost {
                group,
                term,
                acknowledged: LogIndex(number(rng)),
            },
        },
        9 => Message::ReadIndex { group, id: number(rng) },
        10 => Message::ReadIndexAnswer {
            group,
            id: number(rng),
            index: granted.then_some(last.index),
        },
        _ => match rng.below(3) {
            0 => Message::Form {
                members: Members {
                    cluster: ClusterId(number(rng)),
                    members: Vec::new(),
                },
            },
            1 => Message::Hello {
                cluster: ClusterId(number(rng)),
                members: number(rng),
                replaced: rng.chance(50),
            },
            _ => Message::Ping,
        },
    }
}
