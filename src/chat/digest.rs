//! The running digest: a 64-bit chain over everything that `apply` has decided (for each entry its index, the answer and
//! the items), not over the tables themselves. So it costs a few multiplications an entry whatever the state's size, and
//! two replicas that ever decided differently differ from then on. A table that has gone wrong shows as soon as a decision
//! depends on it. It is against faults, not against an attacker: anybody can compute a collision.

use super::command::{Code, Outcome};
use crate::rng::mix;
use crate::types::{ClientSeq, LogIndex, Position, RoomId, Seq, SessionId};

use super::state::{Answer, Verdict};

/// The chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub(super) u64);

impl Digest {
    /// The value so far.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }

    /// Adds an entry that decided nothing.
    pub fn skip(&mut self, index: LogIndex) {
        self.number(index.0);
    }

    /// Adds an entry and what it came to.
    pub fn entry(&mut self, index: LogIndex, answer: &Answer, items: &[(RoomId, Position, Seq)]) {
        self.number(index.0);
        self.answer(answer);
        self.number(items.len() as u64);
        for (room, position, seq) in items {
            self.number(room.0);
            self.number(position.0);
            self.number(seq.0);
        }
        self.0 = mix(self.0);
    }

    /// Adds how far the log isn't shown any more.
    pub fn trimmed(&mut self, until: LogIndex) {
        self.number(until.0);
    }

    fn answer(&mut self, answer: &Answer) {
        match answer {
            Answer::None => self.number(0),
            Answer::Opened { secret, result } => {
                self.number(1);
                self.bytes(&secret.0);
                match result {
                    Ok(SessionId(id)) => self.pair(0, *id),
                    Err(code) => self.pair(1, code_number(*code)),
                }
            }
            Answer::Session { session, seq, verdict } => {
                self.number(2);
                self.pair(session.0, seq.0);
                match verdict {
                    Verdict::Outcome(outcome) => {
                        self.number(0);
                        self.outcome(outcome);
                    }
                    Verdict::Gap {
                        expected: ClientSeq(expected),
                    } => self.pair(1, *expected),
                    Verdict::Forgotten => self.number(2),
                }
            }
        }
    }

    fn outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Posted {
                room,
                seq,
                position,
                lamport,
                time_ms,
            } => {
                self.number(0);
                self.pair(room.0, seq.0);
                self.pair(position.0, lamport.0);
                self.number(*time_ms);
            }
            Outcome::Room {
                room,
                name,
                topic,
                position,
                created,
            } => {
                self.number(1);
                self.pair(room.0, position.0);
                self.bytes(name.as_bytes());
                self.bytes(topic.as_bytes());
                self.number(u64::from(*created));
            }
            Outcome::Done => self.number(2),
            Outcome::Refused(code) => self.pair(3, code_number(*code)),
        }
    }

    fn pair(&mut self, first: u64, second: u64) {
        self.number(first);
        self.number(second);
    }

    /// The rotation makes the order count, the constant keeps a chain of zeros from standing still. A bijection of what was before, so
    /// that what has once differed goes on doing so. What this doesn't spread the [`mix`] of each entry does.
    fn number(&mut self, value: u64) {
        self.0 =
            (self.0.rotate_left(23) ^ value.wrapping_add(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.number(u64::from_le_bytes(word));
        }
    }
}

/// The number of a code: part of the formats, so the same in every version.
fn code_number(code: Code) -> u64 {
    code as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(build: impl Fn(&mut Digest)) -> u64 {
        let mut digest = Digest::default();
        build(&mut digest);
        digest.value()
    }

    #[test]
    fn order_and_boundaries_count() {
        assert_ne!(of(|d| d.pair(1, 2)), of(|d| d.pair(2, 1)));
        assert_ne!(of(|d| d.number(0)), of(|d| d.pair(0, 0)));
        let joined = of(|d| {
            d.bytes(b"ab");
            d.bytes(b"c");
        });
        let shifted = of(|d| {
            d.bytes(b"a");
            d.bytes(b"bc");
        });
        assert_ne!(joined, shifted);
    }

    #[test]
    fn every_part_of_a_decision_counts() {
        let entry = |index: u64, answer: &Answer, items: &[(u64, u64, u64)]| {
            let items: Vec<_> = items
                .iter()
                .map(|(r, p, s)| (RoomId(*r), Position(*p), Seq(*s)))
                .collect();
            of(|d| d.entry(LogIndex(index), answer, &items))
        };
        let session = |verdict: Verdict| Answer::Session {
            session: SessionId(3),
            seq: ClientSeq(4),
            verdict,
        };
        let posted = |n: [u64; 5]| {
            session(Verdict::Outcome(Outcome::Posted {
                room: RoomId(n[0]),
                seq: Seq(n[1]),
                position: Position(n[2]),
                lamport: crate::types::Lamport(n[3]),
                time_ms: n[4],
            }))
        };
        let same = posted([1; 5]);
        let mut digests = vec![
            entry(9, &same, &[(1, 1, 1)]),
            entry(8, &same, &[(1, 1, 1)]),
            entry(9, &same, &[(2, 1, 1)]),
            entry(9, &same, &[(1, 2, 1)]),
            entry(9, &same, &[(1, 1, 2)]),
            entry(9, &same, &[]),
            entry(9, &Answer::None, &[(1, 1, 1)]),
            entry(9, &session(Verdict::Forgotten), &[]),
            entry(9, &session(Verdict::Gap { expected: ClientSeq(1) }), &[]),
            entry(9, &session(Verdict::Gap { expected: ClientSeq(2) }), &[]),
            entry(9, &session(Verdict::Outcome(Outcome::Done)), &[]),
            entry(9, &session(Verdict::Outcome(Outcome::Refused(Code::BadText))), &[]),
            entry(9, &session(Verdict::Outcome(Outcome::Refused(Code::Busy))), &[]),
        ];
        for field in 0..5 {
            let mut parts = [1; 5];
            parts[field] = 2;
            digests.push(entry(9, &posted(parts), &[(1, 1, 1)]));
        }
        let all = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), all);
    }
}
